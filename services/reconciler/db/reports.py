"""What reports read: always in pages, so that a file of a million lines is never held in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from sqlalchemy import Select, and_, func, or_, select, text
from sqlalchemy.engine import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from services.reconciler.db.cases import case_of
from services.reconciler.db.tables import cases, settlement_files, settlement_lines, settlement_payouts
from services.reconciler.domain.cases import Case, CaseStatus
from services.reconciler.domain.settlement import ABOUT_A_PAYMENT
from services.reconciler.use_cases.report_ports import CaseScope, LineScope, ShownLine, ShownPayout

_ABOUT_A_PAYMENT = tuple(sorted(kind.value for kind in ABOUT_A_PAYMENT))
_PAYOUT_OF_LINE = and_(
    settlement_payouts.c.gateway == settlement_lines.c.gateway,
    settlement_payouts.c.account == settlement_lines.c.account,
    settlement_payouts.c.payout_reference == settlement_lines.c.payout_reference,
    settlement_payouts.c.currency == settlement_lines.c.currency,
)
_PLACE = (settlement_lines.c.file_id, settlement_lines.c.position)
_PAYOUT = tuple(field.name for field in fields(ShownPayout))
_LINE = tuple(field.name for field in fields(ShownLine) if field.name not in ("file_name", "payout"))
_LINES = (
    select(
        *(settlement_lines.c[name] for name in _LINE),
        settlement_files.c.name.label("file_name"),
        *(settlement_payouts.c[name].label(f"of_payout_{name}") for name in _PAYOUT),
    )
    .join(settlement_files, settlement_files.c.file_id == settlement_lines.c.file_id)
    .outerjoin(settlement_payouts, _PAYOUT_OF_LINE)
)

_FILE_TOTALS = text(
    """
    WITH named AS (
        SELECT DISTINCT gateway, account, payout_reference, currency FROM settlement_lines
        WHERE file_id = :file_id AND payout_reference IS NOT NULL
    ), off AS (
        SELECT currency, sum(stated_minor - lines_minor)::bigint AS minor
        FROM settlement_payouts JOIN named USING (gateway, account, payout_reference, currency) GROUP BY currency
    )
    SELECT gateway, currency,
        coalesce((SELECT minor FROM off WHERE off.currency = settlement_lines.currency), 0)
            AS payouts_unexplained_minor,
        coalesce(sum(gross_minor) FILTER (WHERE kind IN ('sale', 'refund', 'refund_reversal')
            AND payment_id IS NOT NULL), 0)::bigint AS matched_minor,
        0::bigint AS in_transit_minor,
        coalesce(sum(gross_minor) FILTER (WHERE kind IN ('chargeback', 'chargeback_reversal')), 0)::bigint
            AS disputed_minor,
        coalesce(sum(gross_minor) FILTER (WHERE kind IN ('sale', 'refund', 'refund_reversal')
            AND payment_id IS NULL), 0)::bigint AS unexplained_minor,
        coalesce(sum(fee_minor) - coalesce(sum(gross_minor) FILTER (WHERE kind = 'fee'), 0), 0)::bigint AS fees_minor,
        coalesce(sum(tax_minor) - coalesce(sum(gross_minor) FILTER (WHERE kind = 'tax'), 0), 0)::bigint AS tax_minor,
        -coalesce(sum(net_minor) FILTER (WHERE kind = 'payout'), 0)::bigint AS payouts_minor,
        count(*) FILTER (WHERE kind IN ('sale', 'refund', 'refund_reversal') AND payment_id IS NOT NULL) AS matched,
        count(*) FILTER (WHERE kind IN ('chargeback', 'chargeback_reversal')) AS disputed,
        count(*) FILTER (WHERE kind IN ('sale', 'refund', 'refund_reversal') AND payment_id IS NULL) AS unexplained
    FROM settlement_lines WHERE file_id = :file_id AND NOT repeats
    GROUP BY gateway, currency ORDER BY gateway, currency
    """
)


class Reports:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def lines_of_payment(self, payment_id: str, *, limit: int) -> list[ShownLine]:
        statement = _LINES.where(settlement_lines.c.payment_id == payment_id)
        return await self._lines(statement.order_by(*_PLACE).limit(limit))

    async def lines_of_file(self, file_id: str, *, line_number: int | None, after: int, limit: int) -> list[ShownLine]:
        columns = settlement_lines.c
        statement = _LINES.where(columns.file_id == file_id, columns.position > after)
        if line_number is not None:
            statement = statement.where(columns.line_number == line_number)
        return await self._lines(statement.order_by(columns.position).limit(limit))

    async def next_file(self, scope: LineScope, *, after: str) -> str | None:
        columns = settlement_files.c
        statement = select(func.min(columns.file_id)).where(columns.file_id > after)
        for name in ("file_id", "gateway"):
            if (value := getattr(scope, name)) is not None:
                statement = statement.where(columns[name] == value)
        found: str | None = (await self._connection.execute(statement)).scalar()
        return found

    async def unmatched_lines(self, file_id: str, *, after: int, limit: int) -> list[ShownLine]:
        # Of one file: only so does a page begin in the index where the page before has ended.
        columns = settlement_lines.c
        statement = _LINES.where(
            columns.file_id == file_id,
            columns.position > after,
            columns.payment_id.is_(None),
            ~columns.repeats,
            columns.kind.in_(_ABOUT_A_PAYMENT),
        )
        return await self._lines(statement.order_by(columns.position).limit(limit))

    async def cases(self, scope: CaseScope, *, after: str, limit: int) -> list[Case]:
        columns = cases.c
        statement = select(cases).where(columns.case_id > after).order_by(columns.case_id).limit(limit)
        for name in ("file_id", "kind", "gateway"):
            if (value := getattr(scope, name)) is not None:
                statement = statement.where(columns[name] == value)
        if scope.until is not None:
            statement = statement.where(columns.opened_at <= scope.until)
        if scope.since is not None:
            still_open = columns.status != CaseStatus.RESOLVED.value
            statement = statement.where(or_(still_open, columns.resolved_at >= scope.since))
        return [case_of(row) for row in (await self._connection.execute(statement)).mappings()]

    async def payouts_of_file(self, file_id: str, *, limit: int) -> list[ShownPayout]:
        columns = settlement_payouts.c
        named = select(settlement_lines.c.position).where(settlement_lines.c.file_id == file_id, _PAYOUT_OF_LINE)
        statement = select(*(columns[name] for name in _PAYOUT)).where(named.exists())
        statement = statement.order_by(columns.payout_reference, columns.currency).limit(limit)
        return [ShownPayout(**row) for row in (await self._connection.execute(statement)).mappings()]

    async def totals_of_file(self, file_id: str) -> list[Mapping[str, object]]:
        rows = (await self._connection.execute(_FILE_TOTALS, {"file_id": file_id})).mappings()
        counts = ("matched", "disputed", "unexplained")
        return [
            {name: value for name, value in row.items() if name not in counts}
            | {"counts": {name: row[name] for name in counts}}
            for row in rows
        ]

    async def _lines(self, statement: Select[Any]) -> list[ShownLine]:
        return [_line(row) for row in (await self._connection.execute(statement)).mappings()]


def _line(row: RowMapping) -> ShownLine:
    payout = None
    if row["of_payout_gateway"] is not None:
        payout = ShownPayout(**{name: row[f"of_payout_{name}"] for name in _PAYOUT})
    return ShownLine(**{name: row[name] for name in _LINE}, file_name=row["file_name"], payout=payout)
