"""The part of a transaction that settling an order uses, and no more.

An ordinary transaction has all of it. One that settles many orders at once answers it from memory and writes at the end
(``db/payment_batch.py``); what is not in here it could not answer, so that the type checker refuses a rule that asks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, Protocol

from services.order_service.domain.models import (
    Order,
    OrderPayment,
    PaymentSnapshot,
    Product,
    Refund,
    ReservationStatus,
)
from shared.contracts.envelope import EventData
from shared.unit_of_work import InboxPort


class SettledOrders(Protocol):
    async def get_for_update(self, order_id: str) -> Order | None: ...
    async def save(self, order: Order) -> None: ...


class SettledPayments(Protocol):
    async def of_order(self, order_id: str) -> list[OrderPayment]: ...
    async def add(self, payment: OrderPayment) -> None: ...
    async def save(self, payment: OrderPayment) -> None: ...
    async def mark_leftovers(self, order_id: str, *, now: datetime) -> int: ...


class SettledProducts(Protocol):
    async def lock(self, skus: Sequence[str]) -> dict[str, Product]: ...
    async def end_reservations(self, order_id: str, as_: ReservationStatus, *, now: datetime) -> int: ...
    async def hold_again(self, order_id: str, *, now: datetime) -> int: ...
    async def restore(self, order_id: str, *, now: datetime) -> int: ...


class SettledRefunds(Protocol):
    async def find(self, refund_id: str) -> Refund | None: ...
    async def put(self, refund: Refund, *, now: datetime) -> None: ...


class IssuedInvoices(Protocol):
    async def issue(self, order_id: str, snapshot: Mapping[str, Any], *, now: datetime) -> object:
        """The order gets the next number of the series: by the commit at the latest, and for good."""
        ...


class AddedNotifications(Protocol):
    async def add(self, order_id: str, kind: str, *, now: datetime, reference: str = "") -> None: ...


class AddedEvents(Protocol):
    async def add(
        self, event: EventData, *, subject: str, correlation_id: str | None = None, causation_id: str | None = None
    ) -> object: ...


class SettlingTransaction(Protocol):
    @property
    def orders(self) -> SettledOrders: ...
    @property
    def payments(self) -> SettledPayments: ...
    @property
    def products(self) -> SettledProducts: ...
    @property
    def refunds(self) -> SettledRefunds: ...
    @property
    def invoices(self) -> IssuedInvoices: ...
    @property
    def notifications(self) -> AddedNotifications: ...
    @property
    def outbox(self) -> AddedEvents: ...

    def hint(self, channel: str, payload: str = "") -> None: ...


class PaymentBatch(SettlingTransaction, Protocol):
    """A transaction that settles many orders; leaving its ``async with`` writes all of it and commits."""

    @property
    def inbox(self) -> InboxPort: ...

    async def load(self, news: Sequence[PaymentSnapshot], *, refund_ids: Collection[str]) -> None:
        """Lock the orders of these payments and read all that settling them takes. Once, after the claims."""
        ...


PaymentBatchFactory = Callable[[], AbstractAsyncContextManager[PaymentBatch]]
