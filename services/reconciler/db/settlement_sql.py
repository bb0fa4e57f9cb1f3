"""The statements that store and match the lines of a file. ``:names`` are bound; only our own text is put together."""
# ruff: noqa: S608

from __future__ import annotations

from services.reconciler.domain.settlement import ROUNDING, SettlementLine

LINE_COLUMNS = SettlementLine._fields
_LINE = ", ".join(LINE_COLUMNS)

# What makes two lines the same one, where the gateway gave them no id of their own. Not the file, the place in it, nor
# the gateway's word for the kind.
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
NAME = ("kind", "currency", "line_reference", "part")
"""What makes two lines the same one, where the gateway's id of the line is known: another report of it may lack its
payout or our reference, and a corrected one has other amounts."""
MONEY = ("gross_minor", "fee_minor", "tax_minor", "net_minor")
FILLED = ("reference", "parent_reference", "our_reference", "payout_reference", "presented_minor", "presented_currency")

LIMITS = (
    "SET LOCAL work_mem = '128MB'",
    "SET LOCAL jit = off",
    # The reader may be slower than a server's patience with an idle transaction.
    "SET LOCAL idle_in_transaction_session_timeout = '15min'",
    # A plan made for nobody's values would scan the history of every gateway.
    "SET LOCAL plan_cache_mode = force_custom_plan",
)
BY_INDEX = tuple(f"SET LOCAL enable_{way} = off" for way in ("hashjoin", "mergejoin", "seqscan"))
BY_COST = tuple(f"SET LOCAL enable_{way} = on" for way in ("hashjoin", "mergejoin", "seqscan"))

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
        changed boolean NOT NULL DEFAULT false, differs boolean NOT NULL DEFAULT false
    ) ON COMMIT DROP
    """,
    """
    CREATE TEMP TABLE settlement_differing (
        own_file_id text NOT NULL, own_position integer NOT NULL, file_id text NOT NULL, position integer NOT NULL,
        currency char(3) NOT NULL, net_minor bigint NOT NULL, joins_payout text,
        money_differs boolean NOT NULL, may_match boolean NOT NULL
    ) ON COMMIT DROP
    """,
)
"""``movement`` is a hash that tells movements apart well enough to find those with several lines; ``agrees``: the line
by itself is all of its movement. ``first`` and ``second``: half each of the line's digest. ``differs``: an earlier file
told the line by the gateway's id of it, and not just so. Those are in ``settlement_differing`` with the line that
counts; ``joins_payout``: the payout that the earlier one did not name."""

_KIND_OF_LINE = _MOVEMENT_KIND.replace("kind ", "l.kind ").replace("THEN kind", "THEN l.kind")


def _scope(alias: str) -> str:
    return f"{alias}.gateway = CAST(:gateway AS text) AND {alias}.account = CAST(:account AS text)"


def _content(alias: str) -> str:
    columns = ", ".join(f"{alias}.{name}" for name in CONTENT)
    return f"sha256(record_send(ROW(CAST(:gateway AS text), CAST(:account AS text), {columns})))"


def _same_content(one: str, other: str) -> str:
    # In one comparison of rows, NULL would equal nothing.
    return " AND ".join(f"{one}.{name} IS NOT DISTINCT FROM {other}.{name}" for name in CONTENT)


def _same_line(one: str, other: str) -> str:
    named = " AND ".join(f"{one}.{name} = {other}.{name}" for name in NAME)
    return f"CASE WHEN {other}.line_reference IS NULL THEN {_same_content(one, other)} ELSE {named} END"


def _sameness(alias: str) -> str:
    """Equal for the same line, as one value to sort by."""
    columns = ", ".join(f"{alias}.{name}" for name in NAME)
    name = f"sha256(record_send(ROW({columns})))"
    return f"CASE WHEN {alias}.line_reference IS NULL THEN {_content(alias)} ELSE {name} END"


def _digest(content: str, alias: str, occurrence: str, repeats: str) -> str:
    row = f"{content}, {alias}.payment_id, {alias}.movement_reference, {alias}.matched_by, {occurrence}, {repeats}"
    return f"encode(sha256(record_send(ROW({row}))), 'hex')"


def _half(digest: str, start: int) -> str:
    return f"CAST(CAST('x' || substr({digest}, {start}, 16) AS bit(64)) AS bigint)"


def _identity(alias: str) -> str:
    """The hour, then 40 bits of the name's or else the content's digest: a file's lines are neighbours in the index,
    however long the history is. It only finds candidates; names or contents themselves are compared."""
    hour = f"coalesce(CAST(floor(date_part('epoch', {alias}.occurred_at) / 3600) AS bigint), 0)"
    name = " || ' ' || ".join(f"{alias}.{name}" for name in ("kind", "currency", "line_reference"))
    return f"""({hour} << 40) | CASE WHEN {alias}.line_reference IS NULL
            THEN CAST(CAST('x' || encode(substr({alias}.content, 1, 5), 'hex') AS bit(40)) AS bigint)
            ELSE hashtextextended({name}, 0) & {2**40 - 1} END"""


_SIGNED = "CASE WHEN i.kind = 'sale' THEN 1 WHEN i.kind IN ('refund', 'chargeback') THEN -1 ELSE 0 END"

_NAMED = "k.reference = i.reference"

TIMES_OF_BATCH = f"""
    SELECT min(occurred_at) - interval '2 hours' AS first, max(occurred_at) + interval '2 hours' AS last
    FROM settlement_incoming WHERE kind IN {KINDS}
"""

MATCH_BATCH = f"""
    INSERT INTO settlement_hits (position, movement_kind, identity, first, second, payment_id, movement_reference,
        matched_by, movement, agrees)
    SELECT position, movement_kind, identity, {_half("digest", 1)}, {_half("digest", 17)},
        payment_id, movement_reference, matched_by,
        CASE WHEN movement_reference IS NOT NULL
            THEN hashtextextended(payment_id || movement_kind || movement_reference, 0) END,
        coalesce(agrees, false)
    FROM (
        SELECT z.*, {_digest("z.content", "z", "1", "false")} AS digest
        FROM (
            SELECT i.position, i.movement_kind, {_identity("i")} AS identity, i.content, i.payment_id, i.matched_by,
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
        SELECT l.position, row_number() OVER (PARTITION BY {_sameness("l")}
            ORDER BY {", ".join(f"l.{name}" for name in CONTENT)}, l.position) AS occurrence
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

_TOLD_BEFORE = f"""e.identity = l.identity AND e.file_id <> l.file_id AND NOT e.repeats
      AND e.gateway = l.gateway AND e.account = l.account AND {_same_line("e", "l")}"""

_TOLD = f"""LATERAL (
        SELECT e.* FROM settlement_lines e WHERE {_TOLD_BEFORE} AND e.occurrence = l.occurrence LIMIT 1) e"""
"""LIMIT: looked up by its index for each line, whatever the planner thinks that it knows."""

REPEATS = f"""
    UPDATE settlement_hits h SET repeats = true, changed = true,
        differs = l.line_reference IS NOT NULL AND NOT ({_same_content("e", "l")})
    FROM settlement_lines l, {_TOLD}
    WHERE l.file_id = CAST(:file_id AS text) AND l.position = h.position
"""
"""Of a line that counts there is one at most for each occurrence, because files of an account come one by one."""

ROUNDINGS = f"""
    WITH told AS (
        SELECT l.position, max(l.line_number) > max(e.line_number) AS has_grown, max(e.occurrence) AS occurrence,
            CAST(sum(e.net_minor) AS bigint) AS net_minor
        FROM settlement_hits h, settlement_lines l, settlement_lines e
        WHERE h.differs AND l.file_id = CAST(:file_id AS text) AND l.position = h.position
          AND l.source_type = '{ROUNDING}' AND {_TOLD_BEFORE}
        GROUP BY l.position
    ), grown AS (
        UPDATE settlement_lines l SET gross_minor = l.gross_minor - t.net_minor, net_minor = l.net_minor - t.net_minor,
            occurrence = t.occurrence + 1
        FROM told t WHERE t.has_grown AND l.file_id = CAST(:file_id AS text) AND l.position = t.position
        RETURNING l.position
    )
    UPDATE settlement_hits h SET differs = false, repeats = h.position NOT IN (SELECT position FROM grown)
    FROM told t WHERE t.position = h.position
"""
"""What the lines of a payout lack to its exact sum is of all of them: a report that has grown adds only what it says
beyond what was told; one that has not repeats it."""

DIFFERING = f"""
    INSERT INTO settlement_differing
    SELECT l.file_id, l.position, e.file_id, e.position, e.currency, e.net_minor,
        CASE WHEN e.payout_reference IS NULL AND e.kind <> 'payout' THEN l.payout_reference END,
        {" OR ".join(f"e.{name} <> l.{name}" for name in MONEY)},
        e.kind IN {KINDS} AND (e.payment_id IS NULL OR e.movement_reference IS NULL
            OR e.presented_minor IS DISTINCT FROM l.presented_minor)
    FROM settlement_hits h, settlement_lines l, {_TOLD}
    WHERE h.differs AND l.file_id = CAST(:file_id AS text) AND l.position = h.position
"""

FILL_IN = f"""
    UPDATE settlement_lines e SET {", ".join(f"{name} = coalesce(e.{name}, l.{name})" for name in FILLED)},
        payment_id = coalesce(e.payment_id, l.payment_id), matched_by = coalesce(e.matched_by, l.matched_by),
        movement_reference = CASE WHEN coalesce(e.payment_id, l.payment_id) = l.payment_id
            THEN coalesce(e.movement_reference, l.movement_reference) ELSE e.movement_reference END
    FROM settlement_differing d JOIN settlement_lines l
        ON l.file_id = d.own_file_id AND l.position = d.own_position
    WHERE e.file_id = d.file_id AND e.position = d.position AND e.kind <> 'payout'
"""
"""What the earlier file did not say of the line. Its amounts stay: they are in the ledger."""

AMOUNTS = ("file_id", "line_number", *MONEY)
CHANGED = ("gateway", "account", "kind", "currency", "line_reference", "payment_id", "identity", "occurrence")
CHANGED_LINES = f"""
    SELECT {", ".join(f"e.{name}" for name in CHANGED)}, {", ".join(f"e.{name} AS booked_{name}" for name in AMOUNTS)},
        {", ".join(f"l.{name} AS told_{name}" for name in AMOUNTS)}
    FROM settlement_differing d
    JOIN settlement_lines e ON e.file_id = d.file_id AND e.position = d.position
    JOIN settlement_lines l ON l.file_id = d.own_file_id AND l.position = d.own_position
    WHERE d.money_differs ORDER BY e.identity, e.occurrence LIMIT :limit
"""

TOUCH_FILLED = """
    INSERT INTO settlement_touched
    SELECT e.payment_id FROM settlement_differing d JOIN settlement_lines e
        ON e.file_id = d.file_id AND e.position = d.position
    WHERE d.may_match AND e.payment_id IS NOT NULL
"""

MARK_REPEATS = """
    UPDATE settlement_lines l SET repeats = true FROM settlement_hits h
    WHERE h.repeats AND l.file_id = CAST(:file_id AS text) AND l.position = h.position
"""

_UNPAIRED = f"""
    CREATE TEMP TABLE settlement_unpaired ON COMMIT DROP AS
    SELECT l.file_id, l.position, l.payment_id, {_KIND_OF_LINE} AS movement_kind, l.kind, l.occurred_at, l.identity,
        l.reference, l.parent_reference, abs(coalesce(l.presented_minor, l.gross_minor)) AS amount_minor,
        coalesce(l.presented_currency, l.currency) AS currency,
        l.kind IN ('refund_reversal', 'chargeback_reversal') AS is_reversal,
        l.matched_by IS NOT DISTINCT FROM 'person' AS is_told,
        l.reference IS NOT NULL AND l.matched_by IS DISTINCT FROM 'person' AND NOT EXISTS (
            SELECT FROM known_references r WHERE r.gateway = l.gateway AND r.account = l.account
              AND r.reference = l.reference AND r.payment_id = l.payment_id) AS is_foreign,
        CAST(NULL AS text) AS movement_reference
    FROM {{lines}}
    WHERE l.payment_id IS NOT NULL AND NOT l.repeats AND l.kind IN {KINDS} AND {{which}}
"""
"""``is_foreign``: it is about an object of the gateway's of which we do not know."""
UNPAIRED_OF_FILE = _UNPAIRED.format(
    lines="""settlement_hits h JOIN settlement_lines l ON l.file_id = CAST(:file_id AS text)
        AND l.position = h.position AND h.payment_id IS NOT NULL AND h.movement IS NULL""",
    which="l.movement_reference IS NULL",
)
UNPAIRED_OF_TOUCHED = _UNPAIRED.format(
    lines="settlement_lines l JOIN (SELECT DISTINCT payment_id FROM settlement_touched) t USING (payment_id)",
    which="l.movement_reference IS DISTINCT FROM l.reference",
)
"""Every line that does not name its movement, paired before or not: lines of other files have come since, or we have
learnt of other movements, and however lines are split into files the same pairs come out."""

FREE_MOVEMENTS = """
    CREATE TEMP TABLE settlement_free ON COMMIT DROP AS
    SELECT m.*, coalesce(taken.lines, 0) = 0 AS is_free, coalesce(taken.is_named, false) AS is_named
    FROM known_movements m LEFT JOIN LATERAL (
        SELECT count(*) AS lines, bool_or(l.reference = m.reference) AS is_named FROM settlement_lines l
        WHERE l.payment_id = m.payment_id AND l.movement_reference = m.reference AND NOT l.repeats
          AND (l.kind = m.kind OR l.kind = m.kind || '_reversal')
          AND (l.file_id, l.position) NOT IN (
            SELECT u.file_id, u.position FROM settlement_unpaired u)) taken ON true
    WHERE (m.payment_id, m.kind) IN (SELECT payment_id, movement_kind FROM settlement_unpaired)
"""

PAIR_NAMED = """
    WITH pairs AS (
        UPDATE settlement_unpaired u SET movement_reference = f.reference FROM settlement_free f
        WHERE f.payment_id = u.payment_id AND f.kind = u.movement_kind AND f.reference = u.reference
        RETURNING f.payment_id, f.kind, f.reference
    )
    UPDATE settlement_free f SET is_free = false, is_named = true FROM pairs p
    WHERE f.payment_id = p.payment_id AND f.kind = p.kind AND f.reference = p.reference
"""


def _pair(*names: str, which: str = "true") -> str:
    """Pair the nth line with the nth free movement of each group, both in an order of what they say."""
    groups = ", ".join(names)
    same = " AND ".join(f"u.{name} = m.{name}" for name in names)
    return f"""
    WITH u AS (
        SELECT *, row_number() OVER (PARTITION BY {groups} ORDER BY amount_minor, occurred_at, identity, file_id,
            position) AS nth
        FROM settlement_unpaired WHERE movement_reference IS NULL AND NOT is_reversal AND {which}
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


PAIR_WITH_SAME = """
    UPDATE settlement_unpaired u SET movement_reference = p.movement_reference
    FROM (
        SELECT payment_id, movement_kind, reference, min(movement_reference) AS movement_reference
        FROM settlement_unpaired WHERE movement_reference IS NOT NULL AND is_foreign GROUP BY 1, 2, 3
    ) p
    WHERE u.movement_reference IS NULL AND u.is_foreign AND u.payment_id = p.payment_id
      AND u.movement_kind = p.movement_kind AND u.reference = p.reference
"""
"""What lines call the same is the same, even where we call it otherwise."""

PAIR_WITH_TAKEN = """
    UPDATE settlement_unpaired u SET movement_reference = (
        SELECT f.reference FROM settlement_free f WHERE f.payment_id = u.payment_id AND f.kind = u.movement_kind
          AND (NOT f.is_named OR u.reference IS NULL OR u.is_told OR u.is_reversal)
        ORDER BY f.reference IS NOT DISTINCT FROM u.parent_reference DESC, f.amount_minor <> u.amount_minor,
            f.amount_minor, f.occurred_at, f.reference LIMIT 1)
    WHERE movement_reference IS NULL AND (NOT is_foreign OR (is_reversal AND NOT EXISTS (
        SELECT FROM settlement_unpaired o WHERE o.payment_id = u.payment_id AND o.movement_kind = u.movement_kind
          AND o.reference = u.reference AND NOT o.is_reversal)))
"""
"""What is left belongs to a movement that has a line already: another part of it, its reversal, or the same again. Not
what names an object of which we do not know, nor where the movement's line names it and this one names another: that
is a refund, or a capture, of its own."""

PAIRING = (
    FREE_MOVEMENTS,
    PAIR_NAMED,
    _pair("payment_id", "movement_kind", "currency", "amount_minor"),
    PAIR_WITH_SAME,
    _pair("payment_id", "movement_kind", which="(NOT is_foreign OR movement_kind = 'sale')"),
    PAIR_WITH_SAME,
    PAIR_WITH_TAKEN,
    """
    UPDATE settlement_lines l SET movement_reference = u.movement_reference FROM settlement_unpaired u
    WHERE l.file_id = u.file_id AND l.position = u.position
      AND l.movement_reference IS DISTINCT FROM u.movement_reference
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
    UPDATE settlement_lines l SET payment_id = p.payment_id, matched_by = 'person' FROM known_payments p
    WHERE l.file_id = :file_id AND l.line_number = :line_number AND l.payment_id IS NULL AND l.kind IN {KINDS}
      AND p.payment_id = CAST(:payment_id AS text) AND p.gateway = l.gateway AND p.account = l.account
      AND p.currency = coalesce(l.presented_currency, l.currency)
"""
