"""Open a hosted checkout for an order; repeating the call gives the same session.

Lock, decide and commit; call payment_service with no transaction open; lock, record and commit. A crash in between
leaves an ``order_payments`` row whose payment id the next call repeats; one id is answered with one session.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from services.order_service.domain.errors import PaymentInProgress, PaymentRefused, ReturnUrlNotAllowed
from services.order_service.domain.models import (
    Order,
    OrderPayment,
    OrderStatus,
    PaymentSnapshot,
    PaymentStatus,
    PaymentTerms,
)
from services.order_service.domain.return_urls import is_allowed_return_url
from services.order_service.domain.transitions import CLOSABLE, ENDED, REUSABLE
from services.order_service.use_cases.access import Access, require_access
from services.order_service.use_cases.close_payment import (
    close_or_refuse,
    close_payment,
    refuse_where_money_is,
    require_not_expired,
    require_open,
)
from services.order_service.use_cases.dependencies import Dependencies, OrderRules
from services.order_service.use_cases.ports import OpenedPayment, OrderTransaction, PaymentRequest
from services.order_service.use_cases.settle_order import apply_payment, forget_unopened_payment, settle
from services.order_service.use_cases.settling import Cause
from shared.clock import to_rfc3339
from shared.errors import FieldError, GatewayError, InfrastructureError

log = structlog.get_logger()

MAX_ROUNDS = 4
"""A round ends without a session where one at another gateway had to be closed or an old payment turned out dead."""


@dataclass(frozen=True, slots=True)
class PayOrder:
    order_id: str
    access: Access
    gateway: str
    terms: PaymentTerms


@dataclass(frozen=True, slots=True)
class PaySession:
    """What the shopper's browser does next."""

    order_id: str
    payment_id: str
    status: str
    gateway: str
    gateway_reference: str | None
    next_action: Mapping[str, Any] | None
    expires_at: str


@dataclass(frozen=True, slots=True)
class _Plan:
    """Either a request to send, or payments at other gateways to close first."""

    request: PaymentRequest | None
    to_close: tuple[OrderPayment, ...] = ()


Remember = Callable[[OrderTransaction, PaySession], Awaitable[None]]


async def pay_order(command: PayOrder, deps: Dependencies, *, remember: Remember | None = None) -> PaySession:
    """Raises ReturnUrlNotAllowed, OrderNotFound, OrderAlreadyPaid, OrderIsCanceled, OrderIsExpired, PaymentInProgress,
    PaymentUnderReview, and what PaymentsClient raises; after all of these the order is as payable as it was."""
    require_allowed_return_urls(command.terms, deps.rules)
    left_open: set[str] = set()
    for _ in range(MAX_ROUNDS):
        plan = await _plan(command, deps, left_open)
        for payment in plan.to_close:
            left_open |= await _close_elsewhere(payment, deps)
        if plan.request is None:
            continue
        opened = await _open(plan.request, deps)
        session = await _record(plan.request, opened, deps, remember)
        if session is not None:
            return session
    raise PaymentInProgress


def require_allowed_return_urls(terms: PaymentTerms, rules: OrderRules) -> None:
    refused = [
        FieldError(f"/{name}", "this URL is not on one of the shop's origins", "return_url_not_allowed")
        for name in ("success_url", "failure_url", "cancel_url")
        if not is_allowed_return_url(
            getattr(terms, name), rules.return_origins, allow_insecure_loopback=rules.allow_insecure_loopback
        )
    ]
    if refused:
        raise ReturnUrlNotAllowed(errors=refused)


async def _plan(command: PayOrder, deps: Dependencies, left_open: set[str]) -> _Plan:
    """Under the order's lock, so that ten clicks find the payment of the first."""
    now = deps.ports.clock.now()
    async with deps.uow() as tx:
        found = await tx.orders.get_for_update(command.order_id)
        order = require_access(found, command.access, writing=True, now=now)
        payments = await tx.payments.of_order(order.id)
        require_open(order, payments)
        require_not_expired(order, now)
        elsewhere = [
            payment
            for payment in payments
            if payment.status in CLOSABLE and payment.gateway != command.gateway and payment.payment_id not in left_open
        ]
        if elsewhere:
            return _Plan(None, tuple(elsewhere))
        payment = _reusable(payments, command.gateway)
        if payment is None:
            payment = _new_payment(order, command, deps)
            await tx.payments.add(payment)
            await settle(tx, order, [*payments, payment], now=now, deps=deps, cause=Cause())
        return _Plan(_request(order, payment))


def _reusable(payments: list[OrderPayment], gateway: str) -> OrderPayment | None:
    # The newest: an older one can only be open still if it came back to life after it had ended.
    return next(
        (
            payment
            for payment in reversed(payments)
            if payment.gateway == gateway and payment.status in REUSABLE and payment.terms is not None
        ),
        None,
    )


def _new_payment(order: Order, command: PayOrder, deps: Dependencies) -> OrderPayment:
    now = deps.ports.clock.now()
    snapshot = PaymentSnapshot(
        payment_id=deps.ports.ids.new("pay"),
        order_id=order.id,
        gateway=command.gateway,
        status=PaymentStatus.CREATED,
        version=0,
        amount=order.total,
    )
    return OrderPayment(snapshot, command.terms, created_at=now, updated_at=now)


def _request(order: Order, payment: OrderPayment) -> PaymentRequest:
    assert payment.terms is not None, "only payments of this service are opened"
    return PaymentRequest(
        payment_id=payment.payment_id,
        order_id=order.id,
        gateway=payment.gateway,
        amount=order.total,
        terms=payment.terms,
        description=f"Order {order.id}",
        customer_email=order.customer.email,
        customer_name=order.customer.name,
        customer_phone=order.customer.phone,
        items=order.items,
        expires_at=order.expires_at,
    )


async def _close_elsewhere(payment: OrderPayment, deps: Dependencies) -> set[str]:
    """Close a session at another gateway. One that cannot be closed now stays: should both be paid, money wins and the
    second payment is refunded. Raises OrderAlreadyPaid where closing finds money."""
    try:
        await close_or_refuse(payment, deps, reason="another_gateway_chosen")
    except (GatewayError, InfrastructureError) as error:
        log.warning("session_left_open", payment_id=payment.payment_id, gateway=payment.gateway, code=error.code)
        return {payment.payment_id}
    return set()


async def _open(request: PaymentRequest, deps: Dependencies) -> OpenedPayment:
    try:
        return await deps.payments.open(request)
    except PaymentRefused:
        # Nothing was opened and nothing will be under this id: the next call starts afresh.
        async with deps.uow() as tx:
            await forget_unopened_payment(
                tx,
                request.order_id,
                request.payment_id,
                as_=PaymentStatus.FAILED,
                now=deps.ports.clock.now(),
                deps=deps,
            )
        raise


async def _record(
    request: PaymentRequest, opened: OpenedPayment, deps: Dependencies, remember: Remember | None
) -> PaySession | None:
    """Write down what the payment service said. None: that payment has ended and the shopper needs another."""
    async with deps.uow() as tx:
        settled = await apply_payment(tx, opened.snapshot, now=deps.ports.clock.now(), deps=deps)
        assert settled is not None, "an order does not vanish"
        payment = settled.payment(request.payment_id)
        assert payment is not None, "its payment was applied just now"
        session = _session(request, opened)
        is_usable = settled.order.status is OrderStatus.OPEN and payment.status in REUSABLE
        if is_usable and remember is not None:
            await remember(tx, session)
    if is_usable:
        return session
    refuse_where_money_is(payment.status)
    if settled.order.status is OrderStatus.OPEN:
        assert payment.status in ENDED
        return None
    await _withdraw(payment, settled.order, deps)
    require_open(settled.order, settled.payments)
    raise AssertionError("the order was not open")


async def _withdraw(payment: OrderPayment, order: Order, deps: Dependencies) -> None:
    """The order ended while its session was being opened: nobody should be able to pay it now. Where the gateway cannot
    be asked, ``close_leftovers`` does it later: the payment was marked when the order settled."""
    if payment.status not in CLOSABLE:
        return
    try:
        await close_payment(payment, deps, reason=f"order_{order.status}")
    except (GatewayError, InfrastructureError) as error:
        log.warning("session_left_open", payment_id=payment.payment_id, gateway=payment.gateway, code=error.code)


def _session(request: PaymentRequest, opened: OpenedPayment) -> PaySession:
    return PaySession(
        order_id=request.order_id,
        payment_id=request.payment_id,
        status=opened.snapshot.status.value,
        gateway=request.gateway,
        gateway_reference=opened.snapshot.gateway_reference,
        next_action=opened.next_action,
        expires_at=opened.expires_at or to_rfc3339(request.expires_at),
    )
