"""Write an order's derived state, and in the same transaction all that follows from it.

Every change of an order ends here: events of payments, answers of the payment service, cancellation, expiry.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import structlog

from services.order_service.domain.late_money import heard
from services.order_service.domain.models import (
    Order,
    OrderPayment,
    OrderStatus,
    PaymentSnapshot,
    PaymentStatus,
    Refund,
    RefundStatus,
    ReservationStatus,
    Resolution,
)
from services.order_service.domain.refunds import is_news
from services.order_service.domain.transitions import CLOSABLE, Consequence, consequences, derive, state_of
from services.order_service.use_cases.dependencies import Dependencies, Shop
from services.order_service.use_cases.invoice_snapshot import invoice_snapshot
from services.order_service.use_cases.ports import ORDER_PAID, REFUND_SUCCEEDED
from services.order_service.use_cases.resolve_money import decide_now, resolve_money
from services.order_service.use_cases.settling import Cause
from services.order_service.use_cases.settling_ports import SettlingTransaction
from shared.contracts.order_events import (
    OrderAttentionRequired,
    OrderCanceled,
    OrderEventData,
    OrderExpired,
    OrderPaid,
    OrderRefunded,
)

log = structlog.get_logger()

ORDER_CHANGED = "order_changed"
"""The hint channel that wakes long polls and streams, in this and every other replica. It says which orders, and which
versions they have now."""

SESSION_LEFT_OPEN = "session_left_open"
"""The hint channel that wakes ``close_leftovers`` in a worker."""

_EVENTS: dict[Consequence, type[OrderEventData]] = {
    Consequence.PAID: OrderPaid,
    Consequence.REFUNDED: OrderRefunded,
    Consequence.CANCELED: OrderCanceled,
    Consequence.EXPIRED: OrderExpired,
    Consequence.REVOKED: OrderCanceled,
    Consequence.ATTENTION: OrderAttentionRequired,
}


_ENDINGS = frozenset({Consequence.CANCELED, Consequence.EXPIRED, Consequence.REVOKED})


def order_hint(order_id: str, version: int) -> str:
    """Several of them, with spaces between, are one hint."""
    return f"{order_id}:{version}"


@dataclass(frozen=True, slots=True)
class Settled:
    """An order and its payments after a change (or after finding that nothing changed)."""

    order: Order
    payments: tuple[OrderPayment, ...]

    def payment(self, payment_id: str) -> OrderPayment | None:
        return next((payment for payment in self.payments if payment.payment_id == payment_id), None)


async def settle(
    tx: SettlingTransaction,
    order: Order,
    payments: Sequence[OrderPayment],
    *,
    now: datetime,
    deps: Dependencies,
    cause: Cause,
) -> Settled:
    """Decide, derive, save, and do what follows. The caller holds the order's lock and passes a changed order or
    payment."""
    before, given_up_before = state_of(order), _given_up(payments)
    order, payments, after = await resolve_money(tx, order, payments, now=now, deps=deps, cause=cause)
    happened = consequences(before, after)
    settled = replace(
        order,
        status=after.status,
        payment_status=after.payment_status,
        attention=after.attention,
        confirmed_by=after.confirmed_by,
        confirmed_at=now if Consequence.PAID in happened else order.confirmed_at,
        refunded_at=now if Consequence.REFUNDED in happened else order.refunded_at,
        closed_at=now if _ENDINGS & set(happened) else order.closed_at,
        updated_at=now,
        version=order.version + 1,
    )
    await tx.orders.save(settled)
    for consequence in happened:
        await _follow(tx, consequence, settled, payments, now=now, shop=deps.shop)
        if consequence in _EVENTS:
            await announce(tx, _EVENTS[consequence], settled, _explained(cause, happened))
    for payment_id in _given_up(payments) - given_up_before:
        call = replace(cause, payment_id=payment_id, reason=Resolution.REFUND_FAILED.value)
        await announce(tx, OrderAttentionRequired, settled, call)
    can_still_be_paid = any(payment.status in CLOSABLE for payment in payments)
    has_ended = settled.status is not OrderStatus.OPEN
    if has_ended and can_still_be_paid and await tx.payments.mark_leftovers(order.id, now=now):
        tx.hint(SESSION_LEFT_OPEN)
    tx.hint(ORDER_CHANGED, order_hint(order.id, settled.version))
    return Settled(settled, tuple(payments))


async def apply_payment(
    tx: SettlingTransaction,
    news: PaymentSnapshot,
    *,
    now: datetime,
    deps: Dependencies,
    refund: Refund | None = None,
    causation_id: str | None = None,
) -> Settled | None:
    """Take in a payment's newer state; an older one changes nothing (failure O11). None: the order is not ours.

    ``refund`` comes with the events of refunds. Several of them may carry one version of their payment.
    """
    order = await tx.orders.get_for_update(news.order_id)
    if order is None:
        log.warning("payment_of_unknown_order_ignored", order_id=news.order_id, payment_id=news.payment_id)
        return None
    payments = await tx.payments.of_order(order.id)
    newest = await take_in(tx, payments, news, now=now)
    is_refund_news = refund is not None and await _apply_refund(tx, refund, now=now)
    if newest is None and not is_refund_news:
        return Settled(order, tuple(payments))
    cause = Cause(payment_id=news.payment_id, causation_id=causation_id)
    return await settle(tx, order, newest or payments, now=now, deps=deps, cause=cause)


async def take_in(
    tx: SettlingTransaction, payments: Sequence[OrderPayment], news: PaymentSnapshot, *, now: datetime
) -> list[OrderPayment] | None:
    """The order's payments with the newer state of one of them, which is saved; None: it is no news. The caller holds
    the order's lock, and settles the order."""
    known = next((payment for payment in payments if payment.payment_id == news.payment_id), None)
    changed = _changed(known, news, now=now)
    if changed is None:
        return None
    if known is None:
        await tx.payments.add(changed)
    else:
        await tx.payments.save(changed)
    others = [payment for payment in payments if payment.payment_id != news.payment_id]
    return sorted([*others, changed], key=lambda payment: payment.payment_id)


async def is_settled(
    tx: SettlingTransaction, order: Order, payments: Sequence[OrderPayment], *, now: datetime, deps: Dependencies
) -> bool:
    """Whether settling the order now would leave it as it is. The caller holds the order's lock."""
    state = derive(order, payments)
    if state != state_of(order):
        return False
    return not await decide_now(tx, order, payments, state, now=now, deps=deps)


async def forget_unopened_payment(
    tx: SettlingTransaction, order_id: str, payment_id: str, *, as_: PaymentStatus, now: datetime, deps: Dependencies
) -> None:
    """End a payment that the payment service does not know. Should it turn up there after all, its version wins."""
    order = await tx.orders.get_for_update(order_id)
    if order is None:
        return
    payments = await tx.payments.of_order(order_id)
    unopened = next((payment for payment in payments if payment.payment_id == payment_id), None)
    if unopened is None or unopened.snapshot.version > 0 or unopened.status is as_:
        return
    ended = replace(unopened, snapshot=replace(unopened.snapshot, status=as_), updated_at=now)
    await tx.payments.save(ended)
    newest = [ended if payment is unopened else payment for payment in payments]
    await settle(tx, order, newest, now=now, deps=deps, cause=Cause(payment_id=payment_id))


def _changed(known: OrderPayment | None, news: PaymentSnapshot, *, now: datetime) -> OrderPayment | None:
    if known is None:
        return OrderPayment(news, None, created_at=now, updated_at=now)
    if news.version > known.snapshot.version:
        return heard(known, news, now=now)
    return None


def _given_up(payments: Sequence[OrderPayment]) -> set[str]:
    return {payment.payment_id for payment in payments if payment.resolution is Resolution.REFUND_FAILED}


async def _apply_refund(tx: SettlingTransaction, news: Refund, *, now: datetime) -> bool:
    """Whether it says something new about the refund. The customer is told once that it has succeeded."""
    known = await tx.refunds.find(news.refund_id)
    if not is_news(known, news):
        return False
    await tx.refunds.put(news, now=now)
    if news.status is RefundStatus.SUCCEEDED:
        await tx.notifications.add(news.order_id, REFUND_SUCCEEDED, now=now, reference=news.refund_id)
    return True


def _explained(cause: Cause, happened: Sequence[Consequence]) -> Cause:
    """Why an order that was over is paid all the same."""
    return replace(cause, reason="late_payment") if Consequence.REOPENED in happened else cause


async def _follow(
    tx: SettlingTransaction,
    consequence: Consequence,
    order: Order,
    payments: Sequence[OrderPayment],
    *,
    now: datetime,
    shop: Shop,
) -> None:
    if consequence is Consequence.REOPENED:
        await tx.products.hold_again(order.id, now=now)
    elif consequence is Consequence.PAID:
        await tx.products.end_reservations(order.id, ReservationStatus.DEDUCTED, now=now)
        await tx.notifications.add(order.id, ORDER_PAID, now=now)
        # Last, because the counter's lock holds up every other sale until this transaction ends.
        await tx.invoices.issue(order.id, invoice_snapshot(order, payments, shop=shop), now=now)
    elif consequence in (Consequence.REFUNDED, Consequence.REVOKED):
        await tx.products.restore(order.id, now=now)
    elif consequence in (Consequence.CANCELED, Consequence.EXPIRED):
        await tx.products.end_reservations(order.id, ReservationStatus.RELEASED, now=now)


async def announce(tx: SettlingTransaction, event: type[OrderEventData], order: Order, cause: Cause) -> None:
    """One event with the order's whole state; it commits with it."""
    data = event(
        order_id=order.id,
        status=order.status.value,
        payment_status=order.payment_status.value,
        attention=order.attention.value if order.attention else None,
        version=order.version,
        total=order.total.amount_minor,
        currency=order.total.currency,
        payment_id=cause.payment_id,
        reason=cause.reason,
    )
    await tx.outbox.add(data, subject=order.id, correlation_id=order.id, causation_id=cause.causation_id)
