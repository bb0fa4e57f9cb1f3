"""What gateways and banks state that payouts paid: per payout and transfer, and under one name.

A gateway that also writes a line about the payout has said it there, where it counts once however many files repeat it;
its statement in the same file only adds when and by which transfer. Other gateways state a payout whole: the newest is
right. A bank states transfer by transfer, which add up whatever files they come in, and is believed before the gateway.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any

from services.reconciler.domain.settlement import BANK_STATEMENT, SettlementFile, StatedPayout

Run = Callable[..., Awaitable[Any]]

BY_GATEWAY = ""
"""The transfer of what a gateway states."""

# The same statement by its bank reference is the same payout, as with lines (settlement_payouts).
_STATED = """
    CREATE TEMP TABLE settlement_stated ON COMMIT DROP AS
    SELECT coalesce(known.payout_reference, s.payout_reference) AS payout_reference, s.currency, s.amount_minor,
        s.paid_at, s.bank_reference, s.transfer,
        EXISTS (SELECT FROM settlement_sums l WHERE l.kind = 'payout' AND l.payout_reference = s.payout_reference
            AND l.currency = s.currency AND l.lines > 0) AS has_line
    FROM unnest(CAST(:references AS text[]), CAST(:currencies AS text[]), CAST(:amounts AS bigint[]),
            CAST(:times AS timestamptz[]), CAST(:banks AS text[]), CAST(:transfers AS text[]))
        AS s(payout_reference, currency, amount_minor, paid_at, bank_reference, transfer)
    LEFT JOIN LATERAL (
        SELECT min(p.payout_reference) AS payout_reference FROM settlement_payouts p
        WHERE p.gateway = :gateway AND p.account = :account AND p.currency = s.currency
          AND p.bank_reference = s.payout_reference AND p.payout_reference <> s.payout_reference
        HAVING count(*) = 1
    ) known ON true
"""
_PAYOUTS = """
    INSERT INTO settlement_payouts AS p
        (gateway, account, payout_reference, currency, paid_at, bank_reference, first_seen_at, updated_at)
    SELECT :gateway, :account, payout_reference, currency, min(paid_at), min(bank_reference),
        CAST(:now AS timestamptz), CAST(:now AS timestamptz)
    FROM settlement_stated GROUP BY payout_reference, currency
    ON CONFLICT (gateway, account, payout_reference, currency) DO UPDATE SET
        paid_at = coalesce(excluded.paid_at, p.paid_at),
        bank_reference = coalesce(excluded.bank_reference, p.bank_reference), updated_at = excluded.updated_at
"""
_STATEMENTS = """
    INSERT INTO settlement_statements (gateway, account, payout_reference, currency, transfer, amount_minor)
    SELECT :gateway, :account, payout_reference, currency, transfer, sum(amount_minor)
    FROM settlement_stated WHERE NOT has_line GROUP BY payout_reference, currency, transfer
    ON CONFLICT (gateway, account, payout_reference, currency, transfer)
        DO UPDATE SET amount_minor = excluded.amount_minor
"""

# A payout that was known by its transfer's name only, until the gateway told which payout that was.
_SAME = """
    CREATE TEMP TABLE settlement_renamed ON COMMIT DROP AS
    SELECT DISTINCT p.payout_reference, o.payout_reference AS other, p.currency
    FROM settlement_stated s JOIN settlement_payouts p ON p.gateway = :gateway AND p.account = :account
        AND p.payout_reference = s.payout_reference AND p.currency = s.currency
    JOIN settlement_payouts o ON o.gateway = p.gateway AND o.account = p.account AND o.currency = p.currency
        AND o.payout_reference = p.bank_reference AND o.payout_reference <> p.payout_reference
    WHERE NOT EXISTS (
        SELECT FROM settlement_payouts t WHERE t.gateway = p.gateway AND t.account = p.account
          AND t.currency = p.currency AND t.bank_reference = p.bank_reference
          AND t.payout_reference NOT IN (p.payout_reference, o.payout_reference))
"""
_RENAMED_OF = """WHERE s.gateway = :gateway AND s.account = :account AND s.payout_reference = r.other
    AND s.currency = r.currency"""
_MOVE_STATEMENTS = (
    f"""
    INSERT INTO settlement_statements (gateway, account, payout_reference, currency, transfer, amount_minor)
    SELECT s.gateway, s.account, r.payout_reference, s.currency, s.transfer, s.amount_minor
    FROM settlement_statements s, settlement_renamed r {_RENAMED_OF}
    ON CONFLICT (gateway, account, payout_reference, currency, transfer) DO NOTHING
    """,  # noqa: S608 - our own text
    f"DELETE FROM settlement_statements s USING settlement_renamed r {_RENAMED_OF}",  # noqa: S608
    f"""
    WITH gone AS (
        DELETE FROM settlement_payouts s USING settlement_renamed r {_RENAMED_OF}
        RETURNING r.payout_reference AS name, s.*
    )
    UPDATE settlement_payouts p SET lines_minor = p.lines_minor + g.lines_minor, lines = p.lines + g.lines,
        paid_minor = CASE WHEN p.paid_minor IS NULL AND g.paid_minor IS NULL THEN NULL
            ELSE coalesce(p.paid_minor, 0) + coalesce(g.paid_minor, 0) END,
        booked_minor = p.booked_minor + g.booked_minor, rounding_minor = p.rounding_minor + g.rounding_minor,
        first_seen_at = least(p.first_seen_at, g.first_seen_at)
    FROM gone g WHERE p.gateway = :gateway AND p.account = :account AND p.payout_reference = g.name
      AND p.currency = g.currency
    """,  # noqa: S608
)

_SUM_UP = """
    UPDATE settlement_payouts p SET statement_minor = s.amount_minor
    FROM (
        SELECT payout_reference, currency, coalesce(sum(amount_minor) FILTER (WHERE transfer <> :by_gateway),
            sum(amount_minor)) AS amount_minor
        FROM settlement_statements
        WHERE gateway = :gateway AND account = :account AND (payout_reference, currency) IN (
            SELECT payout_reference, currency FROM settlement_stated)
        GROUP BY payout_reference, currency
    ) s
    WHERE p.gateway = :gateway AND p.account = :account AND p.payout_reference = s.payout_reference
      AND p.currency = s.currency
"""
_NAMED_BY_FILE = """
    INSERT INTO settlement_sums (payout_reference, currency, kind, repeats, matched, lines, gross_minor, fee_minor,
        tax_minor, net_minor)
    SELECT DISTINCT payout_reference, currency, 'payout', true, false, 0, 0, 0, 0, 0 FROM settlement_stated
    UNION SELECT DISTINCT other, currency, 'payout', true, false, 0, 0, 0, 0, 0 FROM settlement_renamed
"""
"""Cases of the other name end with it."""


async def keep_statements(run: Run, file: SettlementFile, stated: Sequence[StatedPayout], *, now: datetime) -> None:
    """After the file's lines have been added to their payouts; reads and adds to ``settlement_sums``."""
    by_bank = file.format == BANK_STATEMENT
    values = {
        "references": [payout.payout_reference for payout in stated],
        "currencies": [payout.currency for payout in stated],
        "amounts": [payout.amount_minor for payout in stated],
        "times": [payout.paid_at for payout in stated],
        "banks": [payout.bank_reference for payout in stated],
        "transfers": [payout.transfer or "-" if by_bank else BY_GATEWAY for payout in stated],
        "by_gateway": BY_GATEWAY,
    }
    scope = {"gateway": file.gateway, "account": file.account, "now": now}
    for statement in (_STATED, _PAYOUTS, _STATEMENTS, _SAME, *_MOVE_STATEMENTS, _SUM_UP, _NAMED_BY_FILE):
        await run(statement, **scope, **values)
