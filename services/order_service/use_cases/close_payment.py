"""Close a payment's session at its gateway, or learn that it holds money; the order learns what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from services.order_service.domain.errors import (
    OrderAlreadyPaid,
    OrderIsCanceled,
    OrderIsExpired,
    PaymentInProgress,
    PaymentUnderReview,
)
from services.order_service.domain.models import Order, OrderPayment, OrderStatus, PaymentStatus
from services.order_service.domain.transitions import CLOSABLE, STANDING, Standing
from services.order_service.use_cases.dependencies import Dependencies
from services.order_service.use_cases.settle_order import apply_payment, forget_unopened_payment
from shared.errors import ServiceUnavailable


async def close_payment(payment: OrderPayment, deps: Dependencies, *, reason: str) -> PaymentStatus:
    """Returns what the payment is now. No transaction is open during the call. Raises what PaymentsClient raises."""
    order_id, payment_id = payment.snapshot.order_id, payment.payment_id
    snapshot = await deps.payments.close(payment_id, reason=reason)
    now = deps.ports.clock.now()
    async with deps.uow() as tx:
        if snapshot is None:
            if payment.snapshot.version > 0:
                raise ServiceUnavailable("the payment service does not know a payment that it has reported")
            gone = PaymentStatus.CANCELED
            await forget_unopened_payment(tx, order_id, payment_id, as_=gone, now=now, deps=deps)
            return gone
        await apply_payment(tx, snapshot, now=now, deps=deps)
    return snapshot.status


async def close_or_refuse(payment: OrderPayment, deps: Dependencies, *, reason: str) -> None:
    """Close it for good. Raises OrderAlreadyPaid, PaymentUnderReview, PaymentInProgress; what was learnt is kept."""
    status = await close_payment(payment, deps, reason=reason)
    if status in CLOSABLE:
        raise PaymentInProgress
    refuse_where_money_is(status)


def refuse_where_money_is(status: PaymentStatus) -> None:
    if STANDING[status] in (Standing.HELD, Standing.TAKEN):
        raise OrderAlreadyPaid
    if STANDING[status] is Standing.DISPUTABLE:
        raise PaymentUnderReview


def require_open(order: Order, payments: Sequence[OrderPayment]) -> None:
    """Raises the Conflict that says why this order takes no payment and no cancellation."""
    if order.status is OrderStatus.CONFIRMED:
        raise OrderAlreadyPaid
    if order.status is OrderStatus.CANCELED:
        raise OrderIsCanceled
    if order.status is OrderStatus.EXPIRED:
        raise OrderIsExpired
    for payment in payments:
        refuse_where_money_is(payment.status)


def require_not_expired(order: Order, now: datetime) -> None:
    if order.expires_at <= now:
        raise OrderIsExpired
