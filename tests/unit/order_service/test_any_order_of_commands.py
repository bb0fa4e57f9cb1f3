"""Commands, events and late captures in any order, any number of times: stock stays on the shelf or sold, never between
(failures O4, O7, O11, RC9)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from services.order_service.domain.models import (
    OrderStatus,
    PaymentSnapshot,
    PaymentStatus,
    Product,
    ReconcilePolicy,
    ReservationStatus,
)
from services.order_service.domain.revocation import kept_because
from services.order_service.domain.transitions import derive, may_end_without_money, state_of
from services.order_service.use_cases.obey_commands import cancel_order_without_payment, confirm_order
from services.order_service.use_cases.settle_order import apply_payment, settle
from services.order_service.use_cases.settling import Cause
from shared.contracts.commands import OrderCancelRequested, OrderConfirmRequested, RefundRequested
from shared.contracts.payment_events import PaymentEventData
from shared.unit_of_work import InboxClaim
from tests.unit.order_service.memory import Memory
from tests.unit.order_service.test_transitions import NOW, TOTAL, an_order

P = PaymentStatus
STATES: tuple[tuple[PaymentStatus, dict[str, Any]], ...] = (
    (P.REQUIRES_ACTION, {}),
    (P.PROCESSING, {}),
    (P.AUTHORIZED, {"amount_authorized": 3900}),
    (P.CAPTURED, {"amount_authorized": 3900, "amount_captured": 3900}),
    (P.CAPTURED, {"amount_authorized": 3900, "amount_captured": 3900, "amount_refunded": 1000}),
    (P.CAPTURED, {"amount_authorized": 3900, "amount_captured": 3900, "amount_refunded": 3900}),
    (P.FAILED, {}),
    (P.CANCELED, {}),
    (P.EXPIRED, {}),
)


@dataclass(frozen=True)
class Step:
    kind: str
    payment: int
    version: int


histories = st.lists(st.sampled_from(STATES), min_size=1, max_size=5)
steps = st.builds(
    Step,
    st.sampled_from(["event", "event", "confirm", "cancel", "cancel", "not_found", "lost", "expire"]),
    st.integers(1, 2),
    st.integers(0, 4),
)


def snapshots(number: int, history: Sequence[tuple[PaymentStatus, dict[str, Any]]]) -> list[PaymentSnapshot]:
    return [
        PaymentSnapshot(f"pay_{number}", "ord_1", "stripe", status, version, TOTAL, **totals)
        for version, (status, totals) in enumerate(history, start=1)
    ]


def event_of(snapshot: PaymentSnapshot) -> PaymentEventData:
    return PaymentEventData(
        payment_id=snapshot.payment_id,
        order_id=snapshot.order_id,
        gateway=snapshot.gateway,
        status=snapshot.status.value,
        version=snapshot.version,
        amount=snapshot.amount.amount_minor,
        currency=snapshot.amount.currency,
    )


class Story:
    def __init__(self, policy: ReconcilePolicy) -> None:
        product = Product("moka-pot", "Moka Pot", "", None, TOTAL, 3, 0, policy)
        self.memory = Memory(an_order(), product)
        self.commands = 0

    async def confirm(self, snapshot: PaymentSnapshot) -> None:
        command = OrderConfirmRequested(
            sender="reconciler", command_key=self._key(), order_id="ord_1", payment=event_of(snapshot)
        )
        await confirm_order(command, snapshot, self._claim(), self.memory.deps)

    async def cancel(self, payment_id: str, snapshot: PaymentSnapshot | None) -> None:
        command = OrderCancelRequested(
            sender="reconciler",
            command_key=self._key(),
            order_id="ord_1",
            payment_id=payment_id,
            payment=event_of(snapshot) if snapshot else None,
        )
        for _ in range(2):  # by two messages: a key is obeyed once
            await cancel_order_without_payment(command, snapshot, self._claim(), self.memory.deps)

    async def cancel_not_found(self, snapshot: PaymentSnapshot) -> None:
        """The reconciler did not find it; payment_service has it."""
        self.memory.at_payment_service[snapshot.payment_id] = snapshot
        await self.cancel(snapshot.payment_id, None)
        self.memory.at_payment_service.clear()

    async def event(self, snapshot: PaymentSnapshot) -> None:
        async with self.memory.deps.uow() as tx:
            await apply_payment(tx, snapshot, now=NOW, deps=self.memory.deps)

    async def expire(self) -> None:
        async with self.memory.deps.uow() as tx:
            order, payments = self.memory.order, await tx.payments.of_order("ord_1")
            if order.status is OrderStatus.OPEN and may_end_without_money(payments):
                closing = replace(order, closed_as=OrderStatus.EXPIRED)
                await settle(tx, closing, payments, now=NOW, deps=self.memory.deps, cause=Cause())

    async def take(self, step: Step, histories_: Sequence[Sequence[PaymentSnapshot]]) -> None:
        history = histories_[step.payment - 1]
        snapshot = history[min(step.version, len(history) - 1)]
        if step.kind == "event":
            await self.event(snapshot)
        elif step.kind == "confirm":
            await self.confirm(snapshot)
        elif step.kind == "expire":
            await self.expire()
        elif step.kind == "cancel":
            await self.cancel(snapshot.payment_id, snapshot)
        elif step.kind == "not_found":
            await self.cancel_not_found(snapshot)
        else:
            before = self.memory.order, dict(self.memory.payments_by_id)
            await self.cancel(snapshot.payment_id, None)
            after = self.memory.order, self.memory.payments_by_id
            assert after == before, "what payment_service lost takes nothing from an order that it had told of it"

    def _key(self) -> str:
        self.commands += 1
        return f"case_{self.commands}"

    def _claim(self) -> InboxClaim:
        self.commands += 1
        return InboxClaim("order_service.commands", f"evt_{self.commands}")


def check_always(memory: Memory, *, was_revoked: bool) -> None:
    """What is true after each step. Memory itself refuses stock out of its bounds."""
    order = memory.order
    payments = sorted(memory.payments_by_id.values(), key=lambda payment: payment.payment_id)
    assert derive(order, payments) == state_of(order)
    if was_revoked:
        assert order.status is OrderStatus.CANCELED, "nothing confirms it any more"
        assert order.reopened_by is None
    expected_on_hand = 2 if memory.reservation is ReservationStatus.DEDUCTED else 3
    expected_reserved = 1 if memory.reservation is ReservationStatus.RESERVED else 0
    assert (memory.product.on_hand, memory.product.reserved) == (expected_on_hand, expected_reserved)
    assert memory.moves["restored"] <= 1
    assert memory.moves["deducted"] <= 1
    assert memory.invoice_count == memory.moves["deducted"]


def check_at_the_end(memory: Memory) -> None:
    """Every payment's last word is known, and the reconciler has asked about whatever disagreed."""
    order = memory.order
    payments = sorted(memory.payments_by_id.values(), key=lambda payment: payment.payment_id)
    if order.status is OrderStatus.CONFIRMED:
        assert order.confirmed_by is not None
        assert kept_because(order, payments, order.confirmed_by, is_absent=False) is not None
    if order.revoked_payment is not None:
        assert memory.reservation is ReservationStatus.RESTORED
        asked = {each.payment_id for each in memory.events if isinstance(each, RefundRequested)}
        with_money = {each.payment_id for each in payments if each.snapshot.amount_refundable > 0}
        assert with_money <= asked


async def play(
    story: Story, histories_: Sequence[Sequence[PaymentSnapshot]], taken: Sequence[Step], *, not_found: bool
) -> None:
    memory, was_revoked = story.memory, False
    for step in taken:
        await story.take(step, histories_)
        check_always(memory, was_revoked=was_revoked)
        was_revoked = was_revoked or memory.order.revoked_payment is not None
    last_words = [history[-1] for history in histories_]
    for snapshot in last_words:
        await story.confirm(snapshot)
    for snapshot in last_words:
        if not_found:
            await story.cancel_not_found(snapshot)
        else:
            await story.cancel(snapshot.payment_id, snapshot)
        check_always(memory, was_revoked=was_revoked or memory.order.revoked_payment is not None)
    check_at_the_end(memory)


@settings(max_examples=400, deadline=None)
@given(histories, histories, st.lists(steps, max_size=12), st.sampled_from(ReconcilePolicy), st.booleans())
def test_any_order_of_commands_and_news_leaves_stock_and_money_right(
    first: list[Any], second: list[Any], taken: list[Step], policy: ReconcilePolicy, not_found: bool
) -> None:
    both = [snapshots(1, first), snapshots(2, second)]
    asyncio.run(play(Story(policy), both, taken, not_found=not_found))
