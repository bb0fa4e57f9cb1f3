"""The use cases' repositories for one batch: they answer from what was locked and read at its beginning, and keep what
has changed until it is written (payment_batch)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import asyncpg
from pydantic_core import to_json

from services.order_service.db import batch_statements as sql
from services.order_service.db.rows import (
    changing_values,
    order_with,
    payment_of,
    payment_values,
    product_of,
    refund_of,
)
from services.order_service.domain.models import LineItem, Order, OrderPayment, Product, Refund, ReservationStatus
from services.order_service.domain.transitions import CLOSABLE
from shared.contracts.envelope import EventData
from shared.correlation import current_correlation
from shared.db.json_rows import with_moments
from shared.money import Money
from shared.unit_of_work import NewEvent

Row = Mapping[str, Any]


class Statement:
    """What is to be written, collected for one statement (``batch_statements.writing``)."""

    def __init__(self) -> None:
        self._rows: dict[str, list[Row]] = {}

    def add(self, part: str, rows: list[Row]) -> None:
        if rows:
            self._rows[part] = rows

    async def run(self, driver: asyncpg.Connection, invoices: Sequence[tuple[str, str, datetime]] = ()) -> None:
        """Raises AssertionError where a row that is to be written is not there."""
        parts = tuple(part for part in sql.PARTS if part in self._rows)
        if not parts:
            assert not invoices, "an invoice comes with the payment of an order"
            return
        statement = sql.writing(parts, with_invoices=bool(invoices))
        given = [to_json(self._rows[part]).decode() for part in parts]
        written = await driver.fetchrow(statement, *given, *zip(*invoices, strict=True))
        for part, count in zip(parts, written, strict=True):
            missing = len(self._rows[part]) - count if sql.PARTS[part].is_complete else 0
            assert not missing, f"{part}: {missing} of {len(self._rows[part])} rows were not there to be written"


class Orders:
    def __init__(self) -> None:
        self._orders: dict[str, Order] = {}
        self._changed: dict[str, Order] = {}

    def take(self, row: asyncpg.Record) -> None:
        currency = row["currency"]
        items = (
            LineItem(sku, name, quantity, Money(unit_price_minor, currency))
            for sku, name, quantity, unit_price_minor, *_ in row["lines"]
        )
        self._orders[row["id"]] = order_with(row, tuple(items))

    def that_may_be_reopened(self) -> set[str]:
        return {
            order.id
            for order in self._orders.values()
            if order.closed_as is not None and order.reopened_by is None and order.revoked_payment is None
        }

    @property
    def has_changes(self) -> bool:
        return bool(self._changed)

    async def get_for_update(self, order_id: str) -> Order | None:
        return self._orders.get(order_id)

    async def save(self, order: Order) -> None:
        assert order.id in self._orders, f"order {order.id} is not locked by this batch"
        self._orders[order.id] = self._changed[order.id] = order

    def write(self, statement: Statement) -> None:
        statement.add("orders", [{"id": order.id} | changing_values(order) for order in self._changed.values()])


_PAYMENT_NAMES = (
    "payment_id",
    "gateway",
    "gateway_reference",
    "status",
    "version",
    "amount_minor",
    "currency",
    "amount_authorized",
    "amount_captured",
    "amount_refund_pending",
    "amount_refunded",
    "amount_disputed",
    "amount_excess",
    "outcome_unknown",
    "resolution",
    "asked_number",
    "asked_attempt",
    "asked_captured",
    "ask_again_at",
    "terms",
    "created_at",
    "updated_at",
    "is_marked",
)
"""In the order in which the database's function gives them."""


class Payments:
    def __init__(self) -> None:
        self._of_order: dict[str, dict[str, OrderPayment]] = {}
        self._marked: set[str] = set()
        self._changed: dict[str, OrderPayment] = {}
        self.new_marks: dict[str, datetime] = {}

    def take(self, row: asyncpg.Record) -> None:
        of_order = self._of_order[row["id"]] = {}
        for values in row["payments"] or ():
            found = dict(zip(_PAYMENT_NAMES, values, strict=True), order_id=row["id"])
            payment = payment_of(with_moments(found, "created_at", "updated_at", "ask_again_at"))
            of_order[payment.payment_id] = payment
            if found["is_marked"]:
                self._marked.add(found["payment_id"])

    def of(self, order_id: str) -> list[OrderPayment]:
        return sorted(self._of_order.get(order_id, {}).values(), key=lambda payment: payment.payment_id)

    async def of_order(self, order_id: str) -> list[OrderPayment]:
        return self.of(order_id)

    async def add(self, payment: OrderPayment) -> None:
        await self.save(payment)

    async def save(self, payment: OrderPayment) -> None:
        order_id = payment.snapshot.order_id
        known = self._changed.get(payment.payment_id, payment)
        assert known.snapshot.order_id == order_id, f"payment {payment.payment_id} is of another order"
        self._of_order.setdefault(order_id, {})[payment.payment_id] = payment
        self._changed[payment.payment_id] = payment

    async def mark_leftovers(self, order_id: str, *, now: datetime) -> int:
        closable = [
            payment.payment_id
            for payment in self.of(order_id)
            if payment.status in CLOSABLE and payment.payment_id not in self._marked
        ]
        self._marked.update(closable)
        self.new_marks.update(dict.fromkeys(closable, now))
        return len(closable)

    def write(self, statement: Statement) -> None:
        # A payment that is known with another order is not moved: it is missing in the count, and the event that
        # says so fails alone, as it does when it comes alone.
        statement.add("order_payments", [payment_values(payment) for payment in self._changed.values()])


@dataclass(frozen=True, slots=True)
class _Reservation:
    order_id: str
    sku: str
    quantity: int
    status: ReservationStatus
    reserved_at: datetime | None = None
    """Where that has changed."""
    ended_at: datetime | None = None


_EFFECTS: Mapping[tuple[ReservationStatus, ReservationStatus], tuple[int, int]] = {
    # What each piece adds to its product's reserved and on_hand.
    (ReservationStatus.RESERVED, ReservationStatus.DEDUCTED): (-1, -1),
    (ReservationStatus.RESERVED, ReservationStatus.RELEASED): (-1, 0),
    (ReservationStatus.RELEASED, ReservationStatus.RESERVED): (1, 0),
    (ReservationStatus.DEDUCTED, ReservationStatus.RESTORED): (0, 1),
}


class Shelf:
    """Reservations of the batch's orders, and by how much they change each product."""

    def __init__(self) -> None:
        self._of_order: dict[str, dict[str, _Reservation]] = {}
        self._changed: dict[tuple[str, str], _Reservation] = {}
        self._on_hand: Counter[str] = Counter()
        self._reserved: Counter[str] = Counter()
        self._shelf: dict[str, Product] | None = None
        self._skus: set[str] = set()

    @property
    def skus(self) -> list[str]:
        """Of all orders."""
        return sorted(self._skus)

    def take(self, row: asyncpg.Record) -> None:
        of_order = self._of_order[row["id"]] = {}
        for sku, _, _, _, status, quantity in row["lines"]:
            self._skus.add(sku)
            if status is not None:  # else it was ordered, and never held
                of_order[sku] = _Reservation(row["id"], sku, quantity, ReservationStatus(status))

    def take_shelf(self, rows: Sequence[asyncpg.Record]) -> None:
        self._shelf = {row["sku"]: product_of(row) for row in rows if row["retired_at"] is None}

    async def lock(self, skus: Sequence[str]) -> dict[str, Product]:
        """What was locked at the beginning, with what the batch has done to it since."""
        assert self._shelf is not None, "no order of this batch could be reopened when it was loaded"
        return {
            sku: replace(
                product,
                on_hand=product.on_hand + self._on_hand[sku],
                reserved=product.reserved + self._reserved[sku],
            )
            for sku in skus
            if (product := self._shelf.get(sku)) is not None
        }

    async def end_reservations(self, order_id: str, as_: ReservationStatus, *, now: datetime) -> int:
        return self._move(order_id, ReservationStatus.RESERVED, as_, now=now)

    async def hold_again(self, order_id: str, *, now: datetime) -> int:
        return self._move(order_id, ReservationStatus.RELEASED, ReservationStatus.RESERVED, now=now)

    async def restore(self, order_id: str, *, now: datetime) -> int:
        return self._move(order_id, ReservationStatus.DEDUCTED, ReservationStatus.RESTORED, now=now)

    def _move(self, order_id: str, from_: ReservationStatus, to: ReservationStatus, *, now: datetime) -> int:
        """Only rows that leave ``from_`` here are counted, so a second call moves nothing (failure O7)."""
        leaving = [held for held in self._of_order.get(order_id, {}).values() if held.status is from_]
        reserved, on_hand = _EFFECTS[from_, to]
        for held in leaving:
            self._reserved[held.sku] += reserved * held.quantity
            self._on_hand[held.sku] += on_hand * held.quantity
            is_held = to is ReservationStatus.RESERVED
            reserved_at, ended_at = (now, None) if is_held else (held.reserved_at, now)
            moved = _Reservation(order_id, held.sku, held.quantity, to, reserved_at, ended_at)
            self._of_order[order_id][held.sku] = self._changed[order_id, held.sku] = moved
        return len(leaving)

    def write(self, statement: Statement) -> None:
        statement.add(
            "products",
            [
                {"sku": sku, "reserved": self._reserved[sku], "on_hand": self._on_hand[sku]}
                for sku in sorted(self._reserved)
            ],
        )
        statement.add(
            "stock_reservations",
            [
                {
                    "order_id": held.order_id,
                    "sku": held.sku,
                    "status": held.status,
                    "reserved_at": held.reserved_at,
                    "ended_at": held.ended_at,
                }
                for held in self._changed.values()
            ],
        )


class Refunds:
    def __init__(self) -> None:
        self._refunds: dict[str, Refund] = {}
        self.changed: dict[str, tuple[Refund, datetime, datetime]] = {}
        """With when the batch first and last wrote it."""

    def take(self, rows: Sequence[asyncpg.Record]) -> None:
        self._refunds = {row["refund_id"]: refund_of(row) for row in rows}

    async def find(self, refund_id: str) -> Refund | None:
        return self._refunds.get(refund_id)

    async def put(self, refund: Refund, *, now: datetime) -> None:
        first = self.changed[refund.refund_id][1] if refund.refund_id in self.changed else now
        self._refunds[refund.refund_id] = refund
        self.changed[refund.refund_id] = (refund, first, now)

    def write(self, statement: Statement) -> None:
        rows: list[Row] = [
            {
                "refund_id": refund.refund_id,
                "payment_id": refund.payment_id,
                "order_id": refund.order_id,
                "amount_minor": refund.amount.amount_minor,
                "currency": refund.amount.currency,
                "status": refund.status,
                "version": refund.version,
                "reason": refund.reason,
                "origin": refund.origin,
                "created_at": created_at,
                "updated_at": updated_at,
            }
            for refund, created_at, updated_at in self.changed.values()
        ]
        statement.add("refunds", rows)


class Notifications:
    def __init__(self) -> None:
        self._added: dict[tuple[str, str, str], datetime] = {}

    async def add(self, order_id: str, kind: str, *, now: datetime, reference: str = "") -> None:
        self._added.setdefault((order_id, kind, reference), now)

    def write(self, statement: Statement) -> None:
        statement.add(
            "notifications",
            [
                {"order_id": order_id, "kind": kind, "reference": reference, "at": now}
                for (order_id, kind, reference), now in self._added.items()
            ],
        )


class Invoices:
    def __init__(self) -> None:
        self.issued: list[tuple[str, str, datetime]] = []

    async def issue(self, order_id: str, snapshot: Mapping[str, Any], *, now: datetime) -> None:
        """Numbered at the end, in the order in which they were issued."""
        self.issued.append((order_id, to_json(snapshot).decode(), now))


class Events:
    def __init__(self) -> None:
        self.added: list[NewEvent] = []

    async def add(
        self, event: EventData, *, subject: str, correlation_id: str | None = None, causation_id: str | None = None
    ) -> None:
        correlation = current_correlation()
        traceparent = correlation.traceparent if correlation else None
        self.added.append(NewEvent(event, subject, correlation_id, causation_id, traceparent))
