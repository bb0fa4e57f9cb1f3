"""What disagrees, narrowed in SQL: lines and payments that agree never leave the database."""
# ruff: noqa: S608 - only our own text is put together; values are bound

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.reconciler.domain.loose_lines import LooseLine
from services.reconciler.domain.mirror import MovementKind
from services.reconciler.domain.payment_books import OF_A_PAYMENT, BookLine, BookMovement, PaymentBooks
from services.reconciler.domain.settlement import ABOUT_A_PAYMENT, LineKind, SettlementFile
from services.reconciler.domain.settlement_rules import Coverage, Due, FeeRule

PAGE = 1_000
MAX_CANDIDATES = 5

MOVEMENT_OF_LINE: Mapping[str, MovementKind] = {
    LineKind.SALE: MovementKind.SALE,
    LineKind.REFUND: MovementKind.REFUND,
    LineKind.REFUND_REVERSAL: MovementKind.REFUND,
    LineKind.CHARGEBACK: MovementKind.CHARGEBACK,
    LineKind.CHARGEBACK_REVERSAL: MovementKind.CHARGEBACK,
}

_KINDS = "('sale', 'refund', 'refund_reversal', 'chargeback', 'chargeback_reversal')"
_UNRESOLVED = "c.kind = 'settlement' AND c.status <> 'resolved' AND c.gateway = :gateway AND c.account = :account"
_TOUCHED = "CREATE TEMP TABLE IF NOT EXISTS settlement_touched (payment_id text) ON COMMIT DROP"

_TOUCH_DISAGREEING = """
    INSERT INTO settlement_touched
    SELECT payment_id FROM settlement_hits
    WHERE payment_id IS NOT NULL AND NOT repeats AND (NOT agrees OR movement IS NULL)
"""
_TOUCH_SEVERAL = """
    INSERT INTO settlement_touched
    SELECT h.payment_id FROM settlement_hits h WHERE h.movement IN (
        SELECT movement FROM settlement_hits WHERE movement IS NOT NULL AND NOT repeats
        GROUP BY movement HAVING count(*) > 1)
"""
_TOUCH_EARLIER = """
    INSERT INTO settlement_touched
    SELECT h.payment_id FROM settlement_hits h
    WHERE h.movement IS NOT NULL AND NOT h.repeats AND EXISTS (
        SELECT FROM settlement_lines e
        WHERE e.payment_id = h.payment_id AND e.movement_reference = h.movement_reference
          AND e.file_id <> :file_id AND NOT e.repeats)
"""
_TOUCH_CASES = f"""
    INSERT INTO settlement_touched
    SELECT c.payment_id FROM cases c
    WHERE {_UNRESOLVED} AND c.payment_id IS NOT NULL AND c.scenario = ANY(:scenarios)
"""
_HAS_HIT = " AND EXISTS (SELECT FROM settlement_hits h WHERE h.payment_id = c.payment_id)"
_HAS_NO_LINE = """NOT EXISTS (
        SELECT FROM settlement_lines l
        WHERE l.payment_id = m.payment_id AND l.movement_reference = m.reference AND NOT l.repeats
          AND (l.kind = m.kind OR l.kind = m.kind || '_reversal'))"""
_TOUCH_UNSETTLED = f"""
    INSERT INTO settlement_touched
    WITH absent AS MATERIALIZED (
        SELECT m.payment_id, m.kind, m.reference FROM known_movements m LEFT JOIN settlement_hits h
            ON h.payment_id = m.payment_id AND h.movement_reference = m.reference AND h.movement_kind = m.kind
        WHERE m.gateway = :gateway AND m.account = :account AND m.occurred_at >= :since AND m.occurred_at < :until
          AND h.position IS NULL AND NOT m.is_withheld
    )
    SELECT payment_id FROM absent m WHERE {_HAS_NO_LINE}
"""
_TOUCH_UNSETTLED_WITHOUT_FILE = f"""
    INSERT INTO settlement_touched
    SELECT m.payment_id FROM known_movements m
    WHERE m.gateway = :gateway AND m.account = :account AND m.occurred_at >= :since AND m.occurred_at < :until
      AND NOT m.is_withheld AND {_HAS_NO_LINE}
"""

_TOUCHED_PAGE = """
    SELECT p.payment_id, p.order_id, p.gateway, p.account, p.currency
    FROM known_payments p
    WHERE p.payment_id IN (
        SELECT payment_id FROM settlement_touched WHERE payment_id > :after
        GROUP BY payment_id ORDER BY payment_id LIMIT :limit)
    ORDER BY p.payment_id
"""
_MOVEMENTS = "SELECT * FROM known_movements WHERE payment_id = ANY(:ids) ORDER BY payment_id"
_LINES = f"""
    SELECT payment_id, file_id, line_number, kind, reference, movement_reference, identity, occurrence,
        coalesce(presented_minor, gross_minor) AS amount_minor, coalesce(presented_currency, currency) AS currency
    FROM settlement_lines WHERE payment_id = ANY(:ids) AND NOT repeats AND kind IN {_KINDS}
    ORDER BY payment_id
"""

_LOOSE = """
    SELECT gateway, account, file_id, line_number, kind, currency, gross_minor, fee_minor, tax_minor, reference,
        our_reference, occurred_at, identity, occurrence, payment_id
    FROM settlement_lines l WHERE NOT repeats AND {0} ORDER BY identity, occurrence LIMIT :limit
"""
_COUNT_LOOSE = "SELECT count(*) FROM settlement_lines l WHERE NOT repeats AND {0}"
_UNMATCHED = f"file_id = :file_id AND payment_id IS NULL AND kind IN {_KINDS}"
_NAMED = "gateway = :gateway AND account = :account AND identity = ANY(:identities)"

# As FeeRule.allows computes it: whole numbers.
_FEE = """(div(CAST(gross_minor AS numeric) * :basis_points + :half, 10000)
    + coalesce(CAST(CAST(:fixed AS jsonb) ->> CAST(currency AS text) AS bigint), 0))"""
_TAX = f"div({_FEE} * :tax_percent + :half_percent, 100)"
_FEE_DIFFERS = f"""file_id = :file_id AND kind = 'sale' AND gross_minor >= 0 AND CASE
        WHEN tax_minor = 0 THEN abs(fee_minor - {_FEE} - {_TAX}) > :tolerance
        ELSE abs(fee_minor - {_FEE}) > :tolerance OR abs(tax_minor - {_TAX}) > :tolerance END
    AND NOT EXISTS (
        SELECT FROM known_movements m
        WHERE m.payment_id = l.payment_id AND m.kind = 'sale' AND m.reference = l.movement_reference
          AND l.presented_minor IS NULL AND (m.amount_minor <> l.gross_minor OR m.currency <> l.currency))"""
"""Of a sale whose amount differs from ours that is the finding: its fee is of another amount than was agreed on."""

_CANDIDATES = f"""
    SELECT line.number, m.payment_id, m.reference, m.occurred_at
    FROM unnest(CAST(:numbers AS int[]), CAST(:kinds AS text[]), CAST(:currencies AS text[]),
            CAST(:amounts AS bigint[]), CAST(:times AS timestamptz[])) AS line(number, kind, currency, amount, at)
    JOIN known_movements m ON m.gateway = :gateway AND m.account = :account
        AND m.occurred_at BETWEEN CAST(:first AS timestamptz) - interval '3 days'
            AND CAST(:last AS timestamptz) + interval '3 days'
        AND m.kind = line.kind AND m.currency = line.currency AND m.amount_minor = line.amount
        AND m.occurred_at BETWEEN line.at - interval '3 days' AND line.at + interval '3 days'
    WHERE {_HAS_NO_LINE}
    ORDER BY line.number, m.occurred_at, m.payment_id, m.reference
"""

_SUPERSEDED = """CASE WHEN f.status = 'read'
    THEN f.covers_from >= CAST(:covers_from AS timestamptz) AND f.covers_until <= CAST(:covers_until AS timestamptz)
    ELSE EXISTS (SELECT FROM settlement_file_chunks part WHERE part.file_id = f.file_id) AND NOT EXISTS (
        SELECT FROM settlement_file_chunks part LEFT JOIN settlement_file_chunks whole
            ON whole.file_id = mine.file_id AND whole.number = part.number
        WHERE part.file_id = f.file_id
          AND substr(whole.content, 1, octet_length(part.content)) IS DISTINCT FROM part.content) END"""
"""The next day's file may be called the same. One that was read is put right by a file that covers its time; one that
was cut off is how the whole one begins. Of others a person knows."""

_TOUCHED_CASES = f"""
    SELECT c.case_id FROM cases c WHERE {_UNRESOLVED} AND (
        (c.scenario = ANY(:scenarios) AND c.payment_id IS NOT NULL
            AND c.payment_id IN (SELECT payment_id FROM settlement_touched))
        OR (c.scenario IN ('payout_differs', 'payout_missing') AND (c.payout_reference, c.currency) IN (
            SELECT payout_reference, currency FROM settlement_sums WHERE payout_reference IS NOT NULL))
        OR (c.scenario IN ('bad_rows', 'file_incomplete', 'file_refused', 'file_totals_differ') AND EXISTS (
            SELECT FROM settlement_files f, settlement_files mine
            WHERE f.file_id = c.file_id AND mine.file_id = :file_id
              AND (f.file_id = mine.file_id OR f.name = mine.name AND f.format = mine.format AND {_SUPERSEDED}))))
    ORDER BY c.case_id
"""


class SettlementFindings:
    """Temporary tables of ``Settlement.store_lines`` are read where a method is about "the file"."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def touch_file(self, file: SettlementFile, due: Due, *, has_earlier: bool) -> None:
        """Remember the payments that this file gives reason to judge."""
        scope = {"gateway": file.gateway, "account": file.account, "file_id": file.file_id}
        for statement in (_TOUCHED, _TOUCH_DISAGREEING, _TOUCH_SEVERAL):
            await self._do(statement, **scope)
        if has_earlier:
            await self._do("ANALYZE settlement_touched")
            await self._do(_TOUCH_EARLIER, **scope)
        await self._do(_TOUCH_CASES + _HAS_HIT, **scope, scenarios=list(OF_A_PAYMENT))
        if due.until is not None and due.since < due.until:
            await self._do(_TOUCH_UNSETTLED, **scope, since=due.since, until=due.until)

    async def touch_open(self, gateway: str, account: str, due: Due) -> None:
        """Remember the payments of unresolved cases, and those that should have been settled by now."""
        scope = {"gateway": gateway, "account": account}
        await self._do(_TOUCHED)
        await self._do(_TOUCH_CASES, **scope, scenarios=list(OF_A_PAYMENT))
        if due.until is not None and due.since < due.until:
            await self._do(_TOUCH_UNSETTLED_WITHOUT_FILE, **scope, since=due.since, until=due.until)

    async def touch(self, payment_ids: Sequence[str]) -> None:
        await self._do(_TOUCHED)
        await self._do("INSERT INTO settlement_touched SELECT unnest(CAST(:ids AS text[]))", ids=list(payment_ids))

    async def touched_books(self) -> AsyncIterator[list[PaymentBooks]]:
        """The books of the touched payments, in pages, in the order of their ids."""
        await self._do("ANALYZE settlement_touched")
        after = ""
        while True:
            payments = (await self._do(_TOUCHED_PAGE, after=after, limit=PAGE)).mappings().all()
            if not payments:
                return
            yield await self._books(payments)
            after = payments[-1]["payment_id"]

    async def unmatched(self, file_id: str, *, limit: int) -> tuple[list[LooseLine], int]:
        """Lines of the file about payments that are not known: the first ones, and how many there are."""
        return await self._loose(_UNMATCHED, limit=limit, file_id=file_id)

    async def fees_that_differ(self, file_id: str, rule: FeeRule, *, limit: int) -> tuple[list[LooseLine], int]:
        values = {
            "file_id": file_id,
            "basis_points": rule.basis_points,
            "fixed": _json(rule.fixed_minor),
            "tax_percent": rule.tax_percent,
            "tolerance": rule.tolerance_minor,
            "half": 5_000 if rule.rounding == "half_up" else 0,
            "half_percent": 50 if rule.rounding == "half_up" else 0,
        }
        return await self._loose(_FEE_DIFFERS, limit=limit, **values)

    async def named(self, gateway: str, account: str, identities: Sequence[int]) -> list[LooseLine]:
        """Lines of these contents that count, matched or not."""
        values = {"gateway": gateway, "account": account, "identities": list(identities)}
        return (await self._loose(_NAMED, limit=len(identities) * 4 + 100, **values))[0]

    async def candidates(self, lines: Sequence[LooseLine]) -> list[list[dict[str, Any]]]:
        """For each line, payments of its amount and time that no line has settled yet: for a person to choose from."""
        found: list[list[dict[str, Any]]] = [[] for _ in lines]
        dated = [(number, line) for number, line in enumerate(lines) if line.occurred_at is not None]
        if not dated:
            return found
        times = [line.occurred_at for _, line in dated if line.occurred_at is not None]
        values = {
            "gateway": lines[0].gateway,
            "account": lines[0].account,
            "numbers": [number for number, _ in dated],
            "kinds": [MOVEMENT_OF_LINE[line.kind].value for _, line in dated],
            "currencies": [line.currency for _, line in dated],
            "amounts": [abs(line.gross_minor) for _, line in dated],
            "times": times,
            "first": min(times),
            "last": max(times),
        }
        for number, payment_id, reference, at in await self._do(_CANDIDATES, **values):
            if len(found[number]) < MAX_CANDIDATES:
                found[number].append({"payment_id": payment_id, "reference": reference, "occurred_at": at.isoformat()})
        return found

    async def touched_cases(self, file: SettlementFile) -> list[str]:
        """Unresolved cases that this file's lines, payouts or the file itself give reason to look at again."""
        values = {"gateway": file.gateway, "account": file.account, "file_id": file.file_id}
        covers = {"covers_from": file.covers_from, "covers_until": file.covers_until}
        return list((await self._do(_TOUCHED_CASES, **values, **covers, scenarios=list(OF_A_PAYMENT))).scalars())

    async def covered(self, gateway: str, account: str) -> Coverage:
        """From the earliest to the latest time that a read file of the account covers."""
        statement = """SELECT min(covers_from), max(covers_until) FROM settlement_files
            WHERE gateway = :gateway AND account = :account AND status = 'read'"""
        since, until = (await self._do(statement, gateway=gateway, account=account)).one()
        return Coverage(since, until)

    async def accounts(self, gateway: str | None) -> list[tuple[str, str]]:
        """Gateways and accounts of which files were read, or statements seen."""
        statement = """
            SELECT gateway, account FROM settlement_files WHERE status = 'read'
              AND (CAST(:gateway AS text) IS NULL OR gateway = :gateway)
            UNION SELECT gateway, account FROM settlement_payouts
              WHERE CAST(:gateway AS text) IS NULL OR gateway = :gateway ORDER BY 1, 2"""
        return [(row[0], row[1]) for row in await self._do(statement, gateway=gateway)]

    async def _books(self, payments: Sequence[Mapping[Any, Any]]) -> list[PaymentBooks]:
        ids = [row["payment_id"] for row in payments]
        movements = _grouped(await self._do(_MOVEMENTS, ids=ids))
        lines = _grouped(await self._do(_LINES, ids=ids))
        return [
            PaymentBooks(
                **row,
                movements=tuple(_movement(of) for of in movements.get(row["payment_id"], ())),
                lines=tuple(_book_line(of) for of in lines.get(row["payment_id"], ())),
            )
            for row in payments
        ]

    async def _loose(self, condition: str, *, limit: int, **values: Any) -> tuple[list[LooseLine], int]:
        rows = (await self._do(_LOOSE.format(condition), **values, limit=limit)).mappings().all()
        count = len(rows)
        if count == limit:
            count = (await self._do(_COUNT_LOOSE.format(condition), **values)).scalar_one()
        return [LooseLine(**row) for row in rows], count

    async def _do(self, statement: str, **values: Any) -> Any:
        used = {name: value for name, value in values.items() if f":{name}" in statement}
        return await self._connection.execute(text(statement), used)


def _grouped(rows: Any) -> dict[str, list[Any]]:
    return {payment_id: list(of) for payment_id, of in groupby(rows, key=lambda row: row.payment_id)}


def _movement(row: Any) -> BookMovement:
    kind = MovementKind(row.kind)
    return BookMovement(kind, row.reference, row.amount_minor, row.currency, row.occurred_at, row.is_withheld)


def _book_line(row: Any) -> BookLine:
    return BookLine(
        file_id=row.file_id,
        line_number=row.line_number,
        kind=row.kind,
        movement_kind=MOVEMENT_OF_LINE[row.kind],
        currency=row.currency,
        amount_minor=row.amount_minor,
        reference=row.reference,
        movement_reference=row.movement_reference,
        identity=row.identity,
        occurrence=row.occurrence,
    )


def _json(values: Mapping[str, int]) -> str:
    return json.dumps(dict(values))


assert set(MOVEMENT_OF_LINE) == set(ABOUT_A_PAYMENT)
