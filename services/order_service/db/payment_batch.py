"""One transaction that settles many orders: it reads for all of them first, answers from memory, and writes at the end.

Its statements are as many for a hundred events as for one, and few: one claims, one locks and reads, one or two write
the events, one writes all the rest. Locks are taken in the order of the single path: orders by id, then products by
SKU, then the counter of the invoices, at the very end. While an order is locked, its payments, reservations, refunds
and events are nobody else's (whoever changes them locks the order first), so that what was read then is true until the
commit. Products belong to many orders; of those, only differences are written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
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
from services.order_service.db.unit_of_work import OrderTransaction
from services.order_service.domain.models import (
    LineItem,
    Order,
    OrderPayment,
    PaymentSnapshot,
    Product,
    Refund,
    ReservationStatus,
)
from services.order_service.domain.transitions import CLOSABLE, Standing, standing_of
from shared.contracts.envelope import EventData
from shared.correlation import current_correlation
from shared.db.json_rows import with_moments
from shared.db.session import driver_of
from shared.db.unit_of_work import UnitOfWork
from shared.money import Money
from shared.unit_of_work import NewEvent

_MONEY = frozenset({Standing.HELD, Standing.TAKEN})


class BatchUnitOfWork:
    """``async with batches() as batch: ...`` writes and commits on leaving, and then wakes the waiters."""

    def __init__(self, uow: UnitOfWork[OrderTransaction]) -> None:
        self._uow = uow

    def __call__(self) -> AbstractAsyncContextManager[PaymentBatch]:
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[PaymentBatch]:
        async with self._uow() as tx:
            batch = PaymentBatch(tx)
            yield batch
            await batch.flush()


class PaymentBatch:
    """Satisfies the use cases' port of that name."""

    def __init__(self, tx: OrderTransaction) -> None:
        self._tx = tx
        self.inbox = tx.inbox
        self.orders = _Orders()
        self.payments = _Payments()
        self.products = _Shelf()
        self.refunds = _Refunds()
        self.invoices = _Invoices()
        self.notifications = _Notifications()
        self.outbox = _Events()
        self._hints: dict[tuple[str, str], None] = {}

    def hint(self, channel: str, payload: str = "") -> None:
        self._hints[(channel, payload)] = None

    async def load(self, news: Sequence[PaymentSnapshot], *, refund_ids: Collection[str]) -> None:
        if not news:
            return
        driver = await driver_of(self._tx.connection)
        for row in await driver.fetch(sql.LOCK_AND_READ, list({payment.order_id for payment in news})):
            self.orders.take(row)
            self.products.take(row)
            self.payments.take(row)
        if refund_ids:
            self.refunds.take(await driver.fetch(sql.REFUNDS, sorted(set(refund_ids))))
        if self._may_ask_the_shelf(news):
            # Those of all orders, because locks that are taken later would be out of their order.
            self.products.take_shelf(await driver.fetch(sql.LOCK_SHELF, self.products.skus))

    def _may_ask_the_shelf(self, news: Sequence[PaymentSnapshot]) -> bool:
        """Whether money may have come for an order that is over: what it can still buy is compared under lock."""
        over = self.orders.that_may_be_reopened()
        return any(payment.order_id in over and standing_of(payment) in _MONEY for payment in news) or any(
            standing_of(payment.snapshot) in _MONEY for order_id in over for payment in self.payments.of(order_id)
        )

    async def flush(self) -> None:
        if not self.orders.has_changes and not self.refunds.changed:
            return  # old news only: the claims are all there is to commit
        driver = await driver_of(self._tx.connection)
        await self._tx.outbox.add_many(self.outbox.added)
        statement = _Statement()
        self.payments.write(statement)
        if self.payments.new_marks:  # of a row that one statement has changed, it changes no more
            await statement.run(driver)
            payment_ids, moments = zip(*self.payments.new_marks.items(), strict=True)
            await driver.execute(sql.MARK_LEFTOVERS, payment_ids, moments)
            statement = _Statement()
        self.orders.write(statement)
        self.refunds.write(statement)
        self.products.write(statement)
        self.notifications.write(statement)
        await statement.run(driver, self.invoices.issued)
        for channel, payload in _joined(self._hints):
            self._tx.hint(channel, payload)


_Row = Mapping[str, Any]


class _Statement:
    """What is to be written, collected for one statement (``batch_statements.writing``)."""

    def __init__(self) -> None:
        self._rows: dict[str, list[_Row]] = {}

    def add(self, part: str, rows: list[_Row]) -> None:
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


class _Orders:
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

    def write(self, statement: _Statement) -> None:
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


class _Payments:
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

    def write(self, statement: _Statement) -> None:
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


class _Shelf:
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

    def write(self, statement: _Statement) -> None:
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


class _Refunds:
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

    def write(self, statement: _Statement) -> None:
        rows: list[_Row] = [
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


class _Notifications:
    def __init__(self) -> None:
        self._added: dict[tuple[str, str, str], datetime] = {}

    async def add(self, order_id: str, kind: str, *, now: datetime, reference: str = "") -> None:
        self._added.setdefault((order_id, kind, reference), now)

    def write(self, statement: _Statement) -> None:
        statement.add(
            "notifications",
            [
                {"order_id": order_id, "kind": kind, "reference": reference, "at": now}
                for (order_id, kind, reference), now in self._added.items()
            ],
        )


class _Invoices:
    def __init__(self) -> None:
        self.issued: list[tuple[str, str, datetime]] = []

    async def issue(self, order_id: str, snapshot: Mapping[str, Any], *, now: datetime) -> None:
        """Numbered at the end, in the order in which they were issued."""
        self.issued.append((order_id, to_json(snapshot).decode(), now))


class _Events:
    def __init__(self) -> None:
        self.added: list[NewEvent] = []

    async def add(
        self, event: EventData, *, subject: str, correlation_id: str | None = None, causation_id: str | None = None
    ) -> None:
        correlation = current_correlation()
        traceparent = correlation.traceparent if correlation else None
        self.added.append(NewEvent(event, subject, correlation_id, causation_id, traceparent))


MAX_HINT_CHARACTERS = 7000
"""PostgreSQL takes 7999 bytes."""


def _joined(hints: Collection[tuple[str, str]]) -> list[tuple[str, str]]:
    """Of each channel as few as possible: each costs a notification in every process that listens."""
    payloads: dict[str, list[str]] = {}
    for channel, payload in hints:
        texts = payloads.setdefault(channel, [""])
        joined = f"{texts[-1]} {payload}".strip()
        if len(joined) <= MAX_HINT_CHARACTERS:
            texts[-1] = joined
        else:
            texts.append(payload)
    return [(channel, text) for channel, texts in payloads.items() for text in texts]
