"""One order and one product in memory, behind the ports that settling uses. Stock moves as the database moves it, and
breaks where the database's CHECKs would."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any, cast

from services.order_service.domain.models import (
    LineItem,
    Order,
    OrderPayment,
    PaymentSnapshot,
    Product,
    ReservationStatus,
)
from services.order_service.domain.transitions import CLOSABLE
from services.order_service.use_cases.dependencies import Dependencies, OrderRules, Shop
from services.order_service.use_cases.ports import OrderTransaction, PaymentsClient
from shared.contracts.envelope import EventData
from shared.unit_of_work import InboxClaim
from tests.support.clock import fake_ports


class Memory:
    """An order whose goods are held, and every part of a transaction. ``moves`` counts what happened to its stock."""

    def __init__(self, order: Order, product: Product) -> None:
        self.order: Order = order
        self.product = replace(product, reserved=sum(item.quantity for item in order.items))
        self.reservation = ReservationStatus.RESERVED
        self.moves: Counter[str] = Counter()
        self.payments_by_id: dict[str, OrderPayment] = {}
        self.at_payment_service: dict[str, PaymentSnapshot] = {}
        self.claims: set[InboxClaim] = set()
        self.events: list[EventData] = []
        self.invoice_count = 0
        self.products = self.orders = self.payments = self.refunds = self.invoices = self
        self.notifications = self.inbox = self.outbox = self
        ports = fake_ports()
        shop, rules = Shop("Shop"), OrderRules()
        self.deps = Dependencies(self.begin, cast(PaymentsClient, self), ports, shop, rules, command_key=b"k" * 32)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[OrderTransaction]:
        yield cast(OrderTransaction, self)

    async def find(self, payment_id: str) -> PaymentSnapshot | None:
        return self.at_payment_service.get(payment_id)

    def hint(self, channel: str, payload: str = "") -> None:
        pass

    async def claim(self, claim: InboxClaim) -> bool:
        is_first = claim not in self.claims
        self.claims.add(claim)
        return is_first

    async def get_for_update(self, order_id: str) -> Order | None:
        return self.order if order_id == self.order.id else None

    async def of_order(self, order_id: str) -> list[OrderPayment]:
        return sorted(self.payments_by_id.values(), key=lambda payment: payment.payment_id)

    async def save(self, saved: Order | OrderPayment) -> None:
        if isinstance(saved, Order):
            self.order = saved
        else:
            self.payments_by_id[saved.payment_id] = saved

    async def add(self, added: OrderPayment | EventData | str, *_: Any, **__: Any) -> None:
        if isinstance(added, OrderPayment):
            assert added.payment_id not in self.payments_by_id
            self.payments_by_id[added.payment_id] = added
        elif isinstance(added, EventData):
            self.events.append(added)

    async def mark_leftovers(self, order_id: str, *, now: datetime) -> int:
        return sum(payment.status in CLOSABLE for payment in self.payments_by_id.values())

    async def lock(self, skus: Sequence[str]) -> dict[str, Product]:
        return {self.product.sku: self.product}

    async def end_reservations(self, order_id: str, as_: ReservationStatus, *, now: datetime) -> int:
        if self.reservation is not ReservationStatus.RESERVED:
            return 0
        sold = self._quantity if as_ is ReservationStatus.DEDUCTED else 0
        return self._move(as_, on_hand=-sold, reserved=-self._quantity)

    async def hold_again(self, order_id: str, *, now: datetime) -> int:
        assert self.reservation is ReservationStatus.RELEASED, f"{self.reservation} goods were held again"
        return self._move(ReservationStatus.RESERVED, on_hand=0, reserved=self._quantity)

    async def restore(self, order_id: str, *, now: datetime) -> int:
        if self.reservation is not ReservationStatus.DEDUCTED:
            return 0
        return self._move(ReservationStatus.RESTORED, on_hand=self._quantity, reserved=0)

    async def issue(self, order_id: str, snapshot: Mapping[str, Any], *, now: datetime) -> int:
        self.invoice_count += 1
        return self.invoice_count

    @property
    def _quantity(self) -> int:
        return sum(item.quantity for item in self._items)

    @property
    def _items(self) -> tuple[LineItem, ...]:
        return self.order.items

    def _move(self, to: ReservationStatus, *, on_hand: int, reserved: int) -> int:
        self.reservation = to
        self.moves[to.value] += 1
        product = replace(
            self.product, on_hand=self.product.on_hand + on_hand, reserved=self.product.reserved + reserved
        )
        assert 0 <= product.reserved <= product.on_hand
        self.product = product
        return 1
