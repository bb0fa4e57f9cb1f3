"""The export's query: a page of orders with their payments, of one moment."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import groupby
from typing import Any

from sqlalchemy import Row, literal, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from services.order_service.db import tables as t
from services.order_service.domain.models import (
    Attention,
    OrderPaymentStatus,
    OrderStatus,
    PaymentStatus,
    Resolution,
)
from services.order_service.use_cases.ports import ExportedPaymentRow, ExportedRow
from shared.money import Money

_EXPORTED = (
    "id",
    "status",
    "payment_status",
    "attention",
    "total_minor",
    "currency",
    "confirmed_by",
    "version",
    "created_at",
    "updated_at",
)
_EXPORTED_OF_PAYMENTS = ("payment_id", "status", "version", "amount_captured", "amount_refunded", "resolution")


class ExportRepository:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def orders(
        self, *, since: datetime | None, before: datetime | None, after: tuple[datetime, str] | None, limit: int
    ) -> list[ExportedRow]:
        columns = t.orders.c
        page = select(t.orders).order_by(columns.updated_at, columns.id).limit(limit)
        if after is not None:  # which is never before ``since``
            moment, order_id = literal(after[0], columns.updated_at.type), literal(after[1], columns.id.type)
            page = page.where(tuple_(columns.updated_at, columns.id) > tuple_(moment, order_id))
        elif since is not None:
            page = page.where(columns.updated_at >= since)
        if before is not None:
            page = page.where(columns.updated_at < before)
        found = page.with_only_columns(*(columns[name] for name in _EXPORTED)).subquery("found")
        payments = t.order_payments.c
        # One statement sees one moment: an order of one version never comes with payments of another.
        query = (
            select(found, *(payments[name].label(f"its_{name}") for name in _EXPORTED_OF_PAYMENTS))
            .select_from(found.outerjoin(t.order_payments, payments.order_id == found.c.id))
            .order_by(found.c.updated_at, found.c.id, payments.payment_id)
        )
        rows = await self._connection.execute(query)
        return [_exported(list(of_one)) for _, of_one in groupby(rows, key=lambda row: row.id)]


def _exported(rows: Sequence[Row[Any]]) -> ExportedRow:
    """One order, a row for each of its payments; one that has none is a row without a payment."""
    order = rows[0]
    return ExportedRow(
        order_id=order.id,
        status=OrderStatus(order.status),
        payment_status=OrderPaymentStatus(order.payment_status),
        attention=Attention(order.attention) if order.attention else None,
        total=Money(order.total_minor, order.currency),
        confirmed_by=order.confirmed_by,
        version=order.version,
        created_at=order.created_at,
        updated_at=order.updated_at,
        payments=tuple(
            ExportedPaymentRow(
                payment_id=row.its_payment_id,
                status=PaymentStatus(row.its_status),
                version=row.its_version,
                amount_captured=row.its_amount_captured,
                amount_refunded=row.its_amount_refunded,
                resolution=Resolution(row.its_resolution) if row.its_resolution else None,
            )
            for row in rows
            if row.its_payment_id is not None
        ),
    )
