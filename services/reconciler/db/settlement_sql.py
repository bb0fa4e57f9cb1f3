"""The statements that store and match the lines of a file. ``:names`` are bound; only our own text is put together."""
# ruff: noqa: S608

from __future__ import annotations

from services.reconciler.domain.settlement import SettlementLine

LINE_COLUMNS = SettlementLine._fields
_LINE = ", ".join(LINE_COLUMNS)

# What makes two lines the same one. Not the file, the place in it, nor the gateway's word for the kind.
CONTENT = (
    "kind",
    "currency",
    "gross_minor",
    "fee_minor",
    "tax_minor",
    "net_minor",
    "presented_minor",
    "presented_currency",
    "occurred_at",
    "reference",
    "parent_reference",
    "our_reference",
    "line_reference",
    "payout_reference",
)

LIMITS = (
    "SET LOCAL work_mem = '128MB'",
    "SET LOCAL jit = off",
    # The reader may be slower than a server's patience with an idle transaction.
    "SET LOCAL idle_in_transaction_session_timeout = '15min'",
    # A plan made for nobody's values would scan the history of every gateway.
    "SET LOCAL plan_cache_mode = force_custom_plan",
)
BY_INDEX = ("SET LOCAL enable_hashjoin = off", "SET LOCAL enable_mergejoin = off")
BY_COST = ("SET LOCAL enable_hashjoin = on", "SET LOCAL enable_mergejoin = on")

KINDS = "('sale', 'refund', 'refund_reversal', 'chargeback', 'chargeback_reversal')"
_MOVEMENT_KIND = """CASE WHEN kind IN ('sale', 'refund', 'chargeback') THEN kind
        WHEN kind = 'refund_reversal' THEN 'refund' WHEN kind = 'chargeback_reversal' THEN 'chargeback' END"""

TEMPORARY = (
    f"""
    CREATE TEMP TABLE settlement_incoming (
        line_number bigint NOT NULL, part smallint NOT NULL, kind text NOT NULL, currency char(3) NOT NULL,
        gross_minor bigint NOT NULL, fee_minor bigint NOT NULL, tax_minor bigint NOT NULL, net_minor bigint NOT NULL,
        occurred_at timestamptz, reference text, parent_reference text, our_reference text, line_reference text,
        payout_reference text, presented_minor bigint, presented_currency char(3), source_type text NOT NULL,
        position integer GENERATED ALWAYS AS IDENTITY,
        movement_kind text GENERATED ALWAYS AS ({_MOVEMENT_KIND}) STORED
    ) ON COMMIT DROP
    """,
    """
    CREATE TEMP TABLE settlement_hits (
        position integer NOT NULL, movement_kind text, identity bigint NOT NULL,
        first bigint NOT NULL, second bigint NOT NULL,
        payment_id text, movement_reference text, matched_by text,
        movement bigint, agrees boolean NOT NULL, repeats boolean NOT NULL DEFAULT false,
        changed boolean NOT NULL DEFAULT false
    ) ON COMMIT DROP
    """,
)
"""``movement`` is a hash that tells movements apart well enough to find those with several lines; ``agrees``: the line
by itself is all of its movement. ``first`` and ``second``: half each of the line's digest."""

_KIND_OF_LINE = _MOVEMENT_KIND.replace("kind ", "l.kind ").replace("THEN kind", "THEN l.kind")


def _scope(alias: str) -> str:
    return f"{alias}.gateway = CAST(:gateway AS text) AND {alias}.account = CAST(:account AS text)"


def _content(alias: str) -> str:
    columns = ", ".join(f"{alias}.{name}" for name in CONTENT)
    return f"sha256(record_send(ROW(CAST(:gateway AS text), CAST(:account AS text), {columns})))"


def _same_content(one: str, other: str) -> str:
    # In one comparison of rows, NULL would equal nothing.
    return " AND ".join(f"{one}.{name} IS NOT DISTINCT FROM {other}.{name}" for name in CONTENT)


def _digest(content: str, alias: str, occurrence: str, repeats: str) -> str:
    row = f"{content}, {alias}.payment_id, {alias}.movement_reference, {alias}.matched_by, {occurrence}, {repeats}"
    return f"encode(sha256(record_send(ROW({row}))), 'hex')"


def _half(digest: str, start: int) -> str:
    return f"CAST(CAST('x' || substr({digest}, {start}, 16) AS bit(64)) AS bigint)"


def _identity(content: str, at: str) -> str:
    """The hour, then 40 bits of the content's digest: a file's lines are neighbours in the index, however long the
    history is. It only finds candidates; the contents themselves are compared."""
    hour = f"coalesce(CAST(floor(date_part('epoch', {at}) / 3600) AS bigint), 0)"
    return f"({hour} << 40) | CAST(CAST('x' || encode(substr({content}, 1, 5), 'hex') AS bit(40)) AS bigint)"


_SIGNED = "CASE WHEN i.kind = 'sale' THEN 1 WHEN i.kind IN ('refund', 'chargeback') THEN -1 ELSE 0 END"

_NAMED = "k.reference = i.reference"

TIMES_OF_BATCH = f"""
    SELECT min(occurred_at) - interval '2 hours' AS first, max(occurred_at) + interval '2 hours' AS last
    FROM settlement_incoming WHERE kind IN {KINDS}
"""

MATCH_BATCH = f"""
    INSERT INTO settlement_hits (position, movement_kind, identity, first, second, payment_id, movement_reference,
        matched_by, movement, agrees)
    SELECT position, movement_kind, {_identity("content", "occurred_at")}, {_half("digest", 1)}, {_half("digest", 17)},
        payment_id, movement_reference, matched_by,
        CASE WHEN movement_reference IS NOT NULL
            THEN hashtextextended(payment_id || movement_kind || movement_reference, 0) END,
        coalesce(agrees, false)
    FROM (
        SELECT z.*, {_digest("z.content", "z", "1", "false")} AS digest
        FROM (
            SELECT i.position, i.movement_kind, i.occurred_at, i.content, i.payment_id, i.matched_by,
                coalesce(i.exact_reference, o.reference) AS movement_reference,
                {_SIGNED} * coalesce(i.presented_minor, i.gross_minor) = coalesce(i.exact_minor, o.amount_minor)
                    AND coalesce(i.presented_currency, i.currency) = coalesce(i.exact_currency, o.currency) AS agrees
            FROM (
                SELECT x.*, substr(found, 2) AS payment_id, CASE left(found, 1)
                    WHEN 'r' THEN 'reference' WHEN 'p' THEN 'payment' WHEN 'o' THEN 'our_reference' END AS matched_by
                FROM (
                    SELECT i.*, {_content("i")} AS content,
                        m.reference AS exact_reference, m.amount_minor AS exact_minor, m.currency AS exact_currency,
                        CASE WHEN m.payment_id IS NOT NULL THEN 'r' || m.payment_id
                        WHEN i.movement_kind IS NOT NULL THEN coalesce(
                            (SELECT 'r' || min(k.payment_id) FROM known_movements k
                             WHERE {_scope("k")} AND k.reference = i.reference AND k.kind = i.movement_kind
                             HAVING count(*) = 1),
                            (SELECT 'p' || r.payment_id FROM known_references r
                             WHERE {_scope("r")} AND r.reference = i.reference),
                            (SELECT 'p' || r.payment_id FROM known_references r
                             WHERE {_scope("r")} AND r.reference = i.parent_reference),
                            (SELECT 'o' || r.payment_id FROM known_references r
                             WHERE {_scope("r")} AND r.reference = i.our_reference),
                            (SELECT 'o' || min(k.payment_id) FROM known_movements k
                             WHERE {_scope("k")} AND k.our_reference = i.our_reference
                             HAVING count(DISTINCT k.payment_id) = 1)
                        ) END AS found
                    FROM settlement_incoming i LEFT JOIN known_movements m
                        ON {_scope("m")}
                        AND m.kind = i.movement_kind AND m.reference = i.reference
                        AND m.occurred_at BETWEEN CAST(:first AS timestamptz) AND CAST(:last AS timestamptz)
                    OFFSET 0
                ) x
                OFFSET 0
            ) i LEFT JOIN LATERAL (
                SELECT coalesce(min(k.reference) FILTER (WHERE {_NAMED}), min(k.reference)) AS reference,
                    coalesce(min(k.amount_minor) FILTER (WHERE {_NAMED}), min(k.amount_minor)) AS amount_minor,
                    coalesce(min(k.currency) FILTER (WHERE {_NAMED}), min(k.currency)) AS currency
                FROM known_movements k
                WHERE i.exact_reference IS NULL AND k.payment_id = i.payment_id AND k.kind = i.movement_kind
                HAVING count(*) = 1 OR bool_or({_NAMED})
            ) o ON i.payment_id IS NOT NULL
            OFFSET 0
        ) z
        OFFSET 0
    ) w
"""
"""By the gateway's exact reference; else by any id of the payment, theirs before ours, and then the payment's only
movement of that kind. The join sees only movements of the batch's own time, so that its cost is not the history's; the
sub-selects run for lines that it left without a payment. ``OFFSET 0`` keeps what is used twice from being computed
twice."""

FORGET_AMBIGUOUS = """
    WITH several AS (
        DELETE FROM settlement_hits WHERE position IN (
            SELECT position FROM settlement_hits WHERE position > :after GROUP BY position HAVING count(*) > 1)
        RETURNING *
    )
    INSERT INTO settlement_hits (position, movement_kind, identity, first, second, agrees, changed)
    SELECT DISTINCT position, movement_kind, identity, 0::bigint, 0::bigint, false, true FROM several
"""
"""A reference that two payments have says nothing: a person decides."""

STORE_BATCH = f"""
    INSERT INTO settlement_lines (file_id, gateway, account, position, {_LINE}, identity, occurrence,
        payment_id, movement_reference, matched_by)
    SELECT CAST(:file_id AS text), CAST(:gateway AS text), CAST(:account AS text), i.position,
        {", ".join(f"i.{name}" for name in LINE_COLUMNS)}, h.identity, 1,
        h.payment_id, h.movement_reference, h.matched_by
    FROM settlement_incoming i JOIN settlement_hits h ON h.position = i.position AND h.position > :after
"""

TWINS = f"""
    WITH numbered AS (
        SELECT l.position, row_number() OVER (PARTITION BY {", ".join(f"l.{name}" for name in CONTENT)}
            ORDER BY l.position) AS occurrence
        FROM settlement_hits h JOIN settlement_lines l ON l.file_id = CAST(:file_id AS text) AND l.position = h.position
        WHERE h.identity IN (SELECT identity FROM settlement_hits GROUP BY identity HAVING count(*) > 1)
    ), later AS (
        UPDATE settlement_lines l SET occurrence = n.occurrence FROM numbered n
        WHERE l.file_id = CAST(:file_id AS text) AND l.position = n.position AND n.occurrence > 1
        RETURNING l.position
    )
    UPDATE settlement_hits h SET changed = true FROM later WHERE h.position = later.position
"""

HAS_EARLIER_FILES = f"""
    SELECT EXISTS (
        SELECT FROM settlement_files f WHERE {_scope("f")} AND f.file_id <> CAST(:file_id AS text) AND f.lines > 0)
"""

REPEATS = f"""
    UPDATE settlement_hits h SET repeats = true, changed = true
    FROM settlement_lines l
    WHERE l.file_id = CAST(:file_id AS text) AND l.position = h.position AND EXISTS (
        SELECT FROM settlement_lines e
        WHERE e.identity = h.identity AND e.file_id <> l.file_id AND e.occurrence = l.occurrence
          AND e.gateway = l.gateway AND e.account = l.account AND {_same_content("e", "l")})
"""

MARK_REPEATS = """
    UPDATE settlement_lines l SET repeats = true FROM settlement_hits h
    WHERE h.repeats AND l.file_id = CAST(:file_id AS text) AND l.position = h.position
"""

_UNPAIRED = f"""
    CREATE TEMP TABLE settlement_unpaired ON COMMIT DROP AS
    SELECT l.file_id, l.position, l.payment_id, {_KIND_OF_LINE} AS movement_kind, l.kind, l.occurred_at, l.identity,
        l.reference, abs(coalesce(l.presented_minor, l.gross_minor)) AS amount_minor,
        coalesce(l.presented_currency, l.currency) AS currency,
        l.kind IN ('refund_reversal', 'chargeback_reversal') AS is_reversal,
        CAST(NULL AS text) AS movement_reference
    FROM {{lines}}
    WHERE l.payment_id IS NOT NULL AND l.movement_reference IS NULL AND NOT l.repeats AND l.kind IN {KINDS}
"""
UNPAIRED_OF_FILE = _UNPAIRED.format(
    lines="""settlement_hits h JOIN settlement_lines l ON l.file_id = CAST(:file_id AS text)
        AND l.position = h.position AND h.payment_id IS NOT NULL AND h.movement IS NULL"""
)
UNPAIRED_OF_TOUCHED = _UNPAIRED.format(
    lines="settlement_lines l JOIN (SELECT DISTINCT payment_id FROM settlement_touched) t USING (payment_id)"
)
"""Lines whose movement was not known when their file was read; we may have learnt of it since."""

FREE_MOVEMENTS = """
    CREATE TEMP TABLE settlement_free ON COMMIT DROP AS
    SELECT m.*, NOT EXISTS (
        SELECT FROM settlement_lines l
        WHERE l.payment_id = m.payment_id AND l.movement_reference = m.reference AND NOT l.repeats
          AND (l.kind = m.kind OR l.kind = m.kind || '_reversal')) AS is_free
    FROM known_movements m
    WHERE (m.payment_id, m.kind) IN (SELECT payment_id, movement_kind FROM settlement_unpaired)
"""

PAIR_NAMED = """
    WITH pairs AS (
        UPDATE settlement_unpaired u SET movement_reference = f.reference FROM settlement_free f
        WHERE f.payment_id = u.payment_id AND f.kind = u.movement_kind AND f.reference = u.reference
        RETURNING f.payment_id, f.kind, f.reference
    )
    UPDATE settlement_free f SET is_free = false FROM pairs p
    WHERE f.payment_id = p.payment_id AND f.kind = p.kind AND f.reference = p.reference
"""


def _pair(*names: str) -> str:
    """Pair the nth line with the nth free movement of each group, both in an order of what they say."""
    groups = ", ".join(names)
    same = " AND ".join(f"u.{name} = m.{name}" for name in names)
    return f"""
    WITH u AS (
        SELECT *, row_number() OVER (PARTITION BY {groups} ORDER BY amount_minor, occurred_at, identity, file_id,
            position) AS nth
        FROM settlement_unpaired WHERE movement_reference IS NULL AND NOT is_reversal
    ), m AS (
        SELECT *, row_number() OVER (PARTITION BY {groups} ORDER BY amount_minor, occurred_at, reference) AS nth
        FROM (SELECT *, kind AS movement_kind FROM settlement_free) f WHERE is_free
    ), pairs AS (
        UPDATE settlement_unpaired p SET movement_reference = m.reference
        FROM u JOIN m ON {same} AND u.nth = m.nth WHERE p.file_id = u.file_id AND p.position = u.position
        RETURNING p.payment_id, p.movement_kind, p.movement_reference
    )
    UPDATE settlement_free f SET is_free = false FROM pairs p
    WHERE f.payment_id = p.payment_id AND f.kind = p.movement_kind AND f.reference = p.movement_reference
"""


PAIR_WITH_TAKEN = """
    UPDATE settlement_unpaired u SET movement_reference = (
        SELECT f.reference FROM settlement_free f WHERE f.payment_id = u.payment_id AND f.kind = u.movement_kind
        ORDER BY f.amount_minor <> u.amount_minor, f.amount_minor, f.occurred_at, f.reference LIMIT 1)
    WHERE movement_reference IS NULL
"""
"""What is left belongs to a movement that has a line already: another part of it, its reversal, or the same again."""

PAIRING = (
    FREE_MOVEMENTS,
    PAIR_NAMED,
    _pair("payment_id", "movement_kind", "currency", "amount_minor"),
    _pair("payment_id", "movement_kind"),
    PAIR_WITH_TAKEN,
    """
    UPDATE settlement_lines l SET movement_reference = u.movement_reference FROM settlement_unpaired u
    WHERE l.file_id = u.file_id AND l.position = u.position AND u.movement_reference IS NOT NULL
    """,
)
KEEP_PAIRS_IN_HITS = """
    UPDATE settlement_hits h SET movement_reference = u.movement_reference, changed = true,
        movement = hashtextextended(h.payment_id || h.movement_kind || u.movement_reference, 0)
    FROM settlement_unpaired u WHERE u.position = h.position AND u.movement_reference IS NOT NULL
"""
FORGET_PAIRING = ("DROP TABLE settlement_unpaired", "DROP TABLE IF EXISTS settlement_free")

DIGEST_OF_CHANGED = f"""
    WITH again AS (
        SELECT h.position, {_digest(_content("l"), "l", "l.occurrence", "l.repeats")} AS digest
        FROM settlement_hits h JOIN settlement_lines l ON l.file_id = CAST(:file_id AS text) AND l.position = h.position
        WHERE h.changed OFFSET 0
    )
    UPDATE settlement_hits h SET first = {_half("again.digest", 1)}, second = {_half("again.digest", 17)}
    FROM again WHERE again.position = h.position
"""

COUNT_AND_DIGEST = """
    SELECT sum(first) AS first, sum(second) AS second,
        count(*) FILTER (WHERE movement_kind IS NOT NULL AND payment_id IS NULL AND NOT repeats) AS unmatched
    FROM settlement_hits
"""
"""A sum does not depend on the order of what is added, needs no sorting and no memory, and counts equal lines as often
as they are there; 128 bits of SHA-256 a line make it as good as a digest of them in order."""

_FOUND_AGAIN = f"""coalesce(
        (SELECT 'r' || min(m.payment_id) FROM known_movements m
         WHERE m.gateway = l.gateway AND m.account = l.account AND m.reference = l.reference
           AND m.kind = {_KIND_OF_LINE} HAVING count(*) = 1),
        (SELECT 'p' || r.payment_id FROM known_references r
         WHERE r.gateway = l.gateway AND r.account = l.account AND r.reference = l.reference),
        (SELECT 'p' || r.payment_id FROM known_references r
         WHERE r.gateway = l.gateway AND r.account = l.account AND r.reference = l.parent_reference),
        (SELECT 'o' || r.payment_id FROM known_references r
         WHERE r.gateway = l.gateway AND r.account = l.account AND r.reference = l.our_reference),
        (SELECT 'o' || min(k.payment_id) FROM known_movements k
         WHERE k.gateway = l.gateway AND k.account = l.account AND k.our_reference = l.our_reference
         HAVING count(DISTINCT k.payment_id) = 1))"""

MATCH_AGAIN = f"""
    WITH found AS MATERIALIZED (
        SELECT l.file_id, l.position, {_FOUND_AGAIN} AS found
        FROM settlement_lines l
        WHERE l.payment_id IS NULL AND NOT l.repeats AND l.kind IN {KINDS} AND {_scope("l")}
    )
    UPDATE settlement_lines l SET payment_id = substr(f.found, 2), matched_by = CASE left(f.found, 1)
        WHEN 'r' THEN 'reference' WHEN 'p' THEN 'payment' WHEN 'o' THEN 'our_reference' END
    FROM found f WHERE f.found IS NOT NULL AND f.file_id = l.file_id AND f.position = l.position
    RETURNING l.payment_id
"""
"""The same rules as MATCH_BATCH, for few lines, long after their file was read; pairing with movements follows."""

MATCH_BY_PERSON = f"""
    UPDATE settlement_lines SET payment_id = CAST(:payment_id AS text), matched_by = 'person'
    WHERE file_id = :file_id AND line_number = :line_number AND payment_id IS NULL AND kind IN {KINDS}
"""
