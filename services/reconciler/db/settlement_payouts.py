"""Sums of a file's lines, per payout, currency and kind: for the payouts, the totals and the ledger."""
# ruff: noqa: S608 - only our own text is put together; values are bound

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.reconciler.db.settlement_statements import keep_statements
from services.reconciler.domain.payouts import Payout
from services.reconciler.domain.settlement import ABOUT_A_PAYMENT, SettlementFile, StatedPayout
from services.reconciler.domain.settlement_holding import Acquaintance
from services.reconciler.use_cases.settling_ports import Booking, KindSum

# Numeric sums: whatever a file says, adding it up cannot fail. Another name of a payout that is known
# by its bank reference is that payout; where two payouts came in one transfer it is neither of them.
_SUMS = """
    CREATE TEMP TABLE settlement_sums ON COMMIT DROP AS
    SELECT coalesce(known.payout_reference, s.payout_reference) AS payout_reference, s.currency, kind, repeats, matched,
        s.lines, gross_minor, fee_minor, tax_minor, net_minor, presented_currency, presented_minor
    FROM (
        SELECT CASE kind WHEN 'payout' THEN coalesce(payout_reference, reference) ELSE payout_reference END
                AS payout_reference,
            currency, kind, repeats, payment_id IS NOT NULL AS matched, count(*) AS lines,
            sum(gross_minor) AS gross_minor, sum(fee_minor) AS fee_minor, sum(tax_minor) AS tax_minor,
            sum(net_minor) AS net_minor,
            presented_currency, sum(presented_minor) AS presented_minor
        FROM settlement_lines WHERE file_id = :file_id GROUP BY 1, 2, 3, 4, 5, presented_currency
    ) s LEFT JOIN LATERAL (
        SELECT min(p.payout_reference) AS payout_reference FROM settlement_payouts p
        WHERE p.gateway = :gateway AND p.account = :account AND p.currency = s.currency
          AND p.bank_reference = s.payout_reference AND p.payout_reference <> s.payout_reference
        HAVING count(*) = 1
    ) known ON true
"""
_LARGEST = """
    SELECT coalesce(max(amount), 0) FROM (
        SELECT sum(abs(gross_minor) + abs(fee_minor) + abs(tax_minor) + abs(net_minor)) AS amount
        FROM settlement_sums GROUP BY currency) s
"""
_ACQUAINTANCE = """
    SELECT coalesce(sum(lines) FILTER (WHERE matched), 0), coalesce(sum(lines) FILTER (WHERE NOT matched), 0)
    FROM settlement_sums WHERE NOT repeats AND kind = ANY(:kinds)
"""
_HELD = """
    SELECT file_id FROM settlement_files WHERE gateway = :gateway AND account = :account AND booking_held
    ORDER BY file_id LIMIT :limit
"""
_PAYOUT_SUMS = """
    INSERT INTO settlement_payouts AS p
        (gateway, account, payout_reference, currency, lines_minor, lines, paid_minor, first_seen_at, updated_at)
    SELECT :gateway, :account, payout_reference, currency,
        coalesce(sum(net_minor) FILTER (WHERE kind <> 'payout'), 0),
        coalesce(sum(lines) FILTER (WHERE kind <> 'payout'), 0),
        -sum(net_minor) FILTER (WHERE kind = 'payout'), CAST(:now AS timestamptz), CAST(:now AS timestamptz)
    FROM settlement_sums WHERE payout_reference IS NOT NULL AND NOT repeats
    GROUP BY payout_reference, currency
    ON CONFLICT (gateway, account, payout_reference, currency) DO UPDATE SET
        lines_minor = p.lines_minor + excluded.lines_minor, lines = p.lines + excluded.lines,
        paid_minor = CASE WHEN p.paid_minor IS NULL AND excluded.paid_minor IS NULL THEN NULL
            ELSE coalesce(p.paid_minor, 0) + coalesce(excluded.paid_minor, 0) END,
        updated_at = excluded.updated_at
"""
_FILLED_IN = """
    INSERT INTO settlement_payouts AS p
        (gateway, account, payout_reference, currency, lines_minor, lines, first_seen_at, updated_at)
    SELECT :gateway, :account, joins_payout, currency, sum(net_minor), count(*), CAST(:now AS timestamptz),
        CAST(:now AS timestamptz)
    FROM settlement_differing WHERE joins_payout IS NOT NULL GROUP BY joins_payout, currency
    ON CONFLICT (gateway, account, payout_reference, currency) DO UPDATE SET
        lines_minor = p.lines_minor + excluded.lines_minor, lines = p.lines + excluded.lines,
        updated_at = excluded.updated_at
"""
"""Lines of earlier files, of which only this one says with what they were paid out."""

# Of a payout without lines the gateway's own line about it is what a statement is compared with.
_EXPLAINED = "CASE WHEN p.lines = 0 THEN coalesce(p.paid_minor, 0) ELSE p.lines_minor END"
# Where the lines of an account name no payout at all, that a payout has none says nothing.
_COMPARABLE = """(p.lines > 0 OR p.paid_minor IS NOT NULL
    OR EXISTS (SELECT FROM settlement_payouts n WHERE n.gateway = :gateway AND n.account = :account AND n.lines > 0)
    OR NOT EXISTS (SELECT FROM settlement_files f
        WHERE f.gateway = :gateway AND f.account = :account AND f.lines > 0))"""
_PAYOUT = f"""gateway, account, payout_reference, currency, {_EXPLAINED} AS lines_minor, lines, stated_minor,
    first_seen_at, paid_at, bank_reference"""
_OF_FILE = f"""
    SELECT {_PAYOUT} FROM settlement_payouts p
    WHERE gateway = :gateway AND account = :account AND stated_minor IS DISTINCT FROM {_EXPLAINED} AND {_COMPARABLE}
      AND (payout_reference, currency) IN (
        SELECT payout_reference, currency FROM settlement_sums WHERE payout_reference IS NOT NULL)
    ORDER BY payout_reference, currency LIMIT :limit
"""
_OPEN = f"""
    SELECT {_PAYOUT} FROM settlement_payouts p
    WHERE gateway = :gateway AND account = :account AND {_COMPARABLE} AND (
        (stated_minor IS NULL AND first_seen_at <= :before)
        OR (abs(stated_minor - {_EXPLAINED}) > :tolerance AND (lines > 0 OR first_seen_at <= :before))
        OR EXISTS (SELECT FROM cases c WHERE c.status <> 'resolved' AND c.payout_reference = p.payout_reference
            AND c.gateway = p.gateway AND c.account = p.account))
    ORDER BY payout_reference, currency LIMIT :limit
"""

_BOOKINGS = """
    WITH moves AS (
        SELECT payout_reference, currency, kind, repeats, gross_minor, fee_minor, tax_minor, net_minor,
            CASE WHEN presented_currency IS NULL THEN 0 ELSE -gross_minor END AS converted_minor
        FROM settlement_sums
        UNION ALL SELECT payout_reference, presented_currency, 'presented', repeats, 0, 0, 0, 0, presented_minor
        FROM settlement_sums WHERE presented_currency IS NOT NULL
    ), sums AS (
        SELECT payout_reference, currency,
            sum(fee_minor) FILTER (WHERE NOT repeats)
                - coalesce(sum(gross_minor) FILTER (WHERE kind = 'fee' AND NOT repeats), 0) AS fees,
            sum(tax_minor) FILTER (WHERE NOT repeats)
                - coalesce(sum(gross_minor) FILTER (WHERE kind = 'tax' AND NOT repeats), 0) AS tax,
            -sum(gross_minor) FILTER (WHERE kind = 'reserve' AND NOT repeats) AS reserve,
            -sum(gross_minor) FILTER (WHERE kind = 'adjustment' AND NOT repeats) AS adjustment,
            -sum(net_minor) FILTER (WHERE kind = 'payout' AND NOT repeats) AS paid,
            sum(converted_minor) FILTER (WHERE NOT repeats) AS conversion
        FROM moves GROUP BY payout_reference, currency
    ), booked AS (
        SELECT s.payout_reference, s.currency, coalesce(fees, 0) AS fees_minor, coalesce(tax, 0) AS tax_minor,
            coalesce(reserve, 0) AS reserve_minor,
            coalesce(adjustment, 0) + coalesce(r.wanted, 0) - coalesce(p.rounding_minor, 0) AS adjustment_minor,
            coalesce(conversion, 0) AS conversion_minor,
            CASE WHEN s.payout_reference IS NULL THEN coalesce(paid, 0)
                ELSE coalesce(p.stated_minor, 0) - coalesce(p.booked_minor, 0) END AS payout_minor,
            p.paid_at
        FROM sums s
        LEFT JOIN settlement_payouts p ON p.gateway = :gateway AND p.account = :account
            AND p.payout_reference = s.payout_reference AND p.currency = s.currency
        LEFT JOIN LATERAL (
            SELECT CASE WHEN p.lines > 0 AND abs(p.stated_minor - p.lines_minor) <= :tolerance
                THEN p.lines_minor - p.stated_minor ELSE 0 END AS wanted) r ON p.stated_minor IS NOT NULL
    )
    SELECT payout_reference, currency, CAST(fees_minor AS bigint), CAST(tax_minor AS bigint),
        CAST(reserve_minor AS bigint), CAST(adjustment_minor AS bigint), CAST(conversion_minor AS bigint),
        CAST(payout_minor AS bigint), paid_at
    FROM booked
    WHERE (fees_minor, tax_minor, reserve_minor, adjustment_minor, conversion_minor, payout_minor)
        <> (0, 0, 0, 0, 0, 0)
      AND (coalesce(payout_reference, ''), currency) > (CAST(:after AS text), CAST(:after_currency AS char(3)))
    ORDER BY coalesce(payout_reference, ''), currency LIMIT :limit
"""
_MARK_BOOKED = """
    UPDATE settlement_payouts p SET booked_minor = coalesce(stated_minor, 0),
        rounding_minor = CASE WHEN lines > 0 AND abs(stated_minor - lines_minor) <= :tolerance
            THEN lines_minor - stated_minor ELSE 0 END
    WHERE gateway = :gateway AND account = :account AND (payout_reference, currency) IN (
        SELECT payout_reference, currency FROM settlement_sums WHERE payout_reference IS NOT NULL
        UNION SELECT payout_reference, presented_currency FROM settlement_sums WHERE payout_reference IS NOT NULL)
"""

_BY_KIND = """
    SELECT currency, kind, repeats, matched, CAST(sum(lines) AS bigint) AS lines,
        CAST(sum(gross_minor) AS bigint) AS gross_minor, CAST(sum(fee_minor) AS bigint) AS fee_minor,
        CAST(sum(tax_minor) AS bigint) AS tax_minor, CAST(sum(net_minor) AS bigint) AS net_minor
    FROM settlement_sums WHERE lines > 0 GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
"""
_UNEXPLAINED = f"""
    SELECT p.currency, CAST(sum(p.stated_minor - {_EXPLAINED}) AS bigint) FROM settlement_payouts p
    WHERE p.gateway = :gateway AND p.account = :account AND p.stated_minor IS NOT NULL AND {_COMPARABLE}
      AND (p.payout_reference, p.currency) IN (
        SELECT payout_reference, currency FROM settlement_sums WHERE payout_reference IS NOT NULL)
    GROUP BY p.currency
"""
_UNEXPLAINED_IN_ALL = """
    SELECT currency, CAST(sum(stated_minor - lines_minor) AS bigint) FROM settlement_payouts
    WHERE gateway = :gateway AND account = :account AND stated_minor IS NOT NULL AND lines > 0 GROUP BY currency
"""
_IN_TRANSIT = """
    SELECT m.currency, CAST(sum(CASE WHEN m.kind = 'sale' THEN m.amount_minor ELSE -m.amount_minor END) AS bigint)
    FROM known_movements m
    WHERE m.gateway = :gateway AND m.account = :account AND m.occurred_at >= :since AND NOT m.is_withheld
      AND NOT EXISTS (
        SELECT FROM settlement_lines l WHERE l.payment_id = m.payment_id AND l.movement_reference = m.reference
          AND NOT l.repeats AND (l.kind = m.kind OR l.kind = m.kind || '_reversal'))
    GROUP BY m.currency
"""


class SettlementPayouts:
    """Everything about "the file" reads the temporary sums that ``total_payouts`` makes."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def total_payouts(self, file: SettlementFile, stated: Sequence[StatedPayout], *, now: datetime) -> None:
        """Add the file's lines to their payouts, and write down what it says that payouts paid."""
        scope = {"gateway": file.gateway, "account": file.account, "file_id": file.file_id, "now": now}
        await self._run(_PAYOUT_SUMS, **scope)
        await self._run(_FILLED_IN, **scope)
        if stated:
            await keep_statements(self._run, file, stated, now=now)

    async def sum_lines(self, file: SettlementFile) -> int:
        """Add up the file's lines; the result is the size of what moves in it in one currency, however signed."""
        await self._run("DROP TABLE IF EXISTS settlement_sums")
        await self._run(_SUMS, gateway=file.gateway, account=file.account, file_id=file.file_id)
        return int((await self._run(_LARGEST)).scalar_one())

    async def acquaintance(self) -> Acquaintance:
        """Of the file whose lines were summed last."""
        row = (await self._run(_ACQUAINTANCE, kinds=sorted(ABOUT_A_PAYMENT))).one()
        return Acquaintance(int(row[0]), int(row[1]))

    async def hold_booking(self, file: SettlementFile, *, is_held: bool) -> None:
        statement = "UPDATE settlement_files SET booking_held = :is_held WHERE file_id = :file_id"
        await self._run(statement, file_id=file.file_id, is_held=is_held)

    async def held_files(self, gateway: str, account: str, *, limit: int) -> list[str]:
        return list((await self._run(_HELD, gateway=gateway, account=account, limit=limit)).scalars())

    async def payouts_of_file(self, file: SettlementFile, *, limit: int) -> list[Payout]:
        """Those that the file names and that are not just what their lines add up to."""
        rows = await self._run(_OF_FILE, gateway=file.gateway, account=file.account, limit=limit)
        return [Payout(**row) for row in rows.mappings()]

    async def payouts_to_judge(
        self, gateway: str, account: str, *, before: datetime, tolerance_minor: int, limit: int
    ) -> list[Payout]:
        """Those that nobody has stated since ``before``, those that differ, and those of unresolved cases."""
        values = {"gateway": gateway, "account": account, "tolerance": tolerance_minor}
        rows = await self._run(_OPEN, **values, before=before, limit=limit)
        return [Payout(**row) for row in rows.mappings()]

    async def states_payouts(self, gateway: str, account: str) -> bool:
        """Whether anybody says what this account's payouts paid."""
        statement = """SELECT EXISTS (SELECT FROM settlement_payouts
            WHERE gateway = :gateway AND account = :account AND stated_minor IS NOT NULL)"""
        return bool((await self._run(statement, gateway=gateway, account=account)).scalar())

    async def bookings(
        self, file: SettlementFile, *, tolerance_minor: int, after: tuple[str, str], limit: int
    ) -> list[Booking]:
        """What the file adds to the ledger, per payout and currency; of payouts, what was not booked before."""
        values = {"gateway": file.gateway, "account": file.account, "tolerance": tolerance_minor, "limit": limit}
        rows = await self._run(_BOOKINGS, **values, after=after[0], after_currency=after[1])
        return [Booking(*row) for row in rows]

    async def mark_booked(self, file: SettlementFile, *, tolerance_minor: int) -> None:
        await self._run(_MARK_BOOKED, gateway=file.gateway, account=file.account, tolerance=tolerance_minor)

    async def sums_by_kind(self) -> list[KindSum]:
        return [KindSum(*row) for row in await self._run(_BY_KIND)]

    async def unexplained(self, gateway: str, account: str, *, in_all: bool) -> Mapping[str, int]:
        """Per currency: stated less lines, of the file's payouts or of all."""
        statement = _UNEXPLAINED_IN_ALL if in_all else _UNEXPLAINED
        return {row[0]: row[1] for row in await self._run(statement, gateway=gateway, account=account)}

    async def in_transit(self, gateway: str, account: str, *, since: datetime) -> Mapping[str, int]:
        """Per currency: what moved since and is in no file yet."""
        return {row[0]: row[1] for row in await self._run(_IN_TRANSIT, gateway=gateway, account=account, since=since)}

    async def _run(self, statement: str, **values: Any) -> Any:
        used = {name: value for name, value in values.items() if f":{name}" in statement}
        return await self._connection.execute(text(statement), used)
