"""Cancel an unpaid order: its session at the gateway is closed first, because money may be arriving at this moment."""

from __future__ import annotations

from dataclasses import dataclass, replace

from services.order_service.domain.errors import PaymentInProgress
from services.order_service.domain.models import OrderStatus
from services.order_service.domain.transitions import CLOSABLE, may_end_without_money
from services.order_service.use_cases.access import Access, require_access
from services.order_service.use_cases.close_payment import close_or_refuse, require_open
from services.order_service.use_cases.dependencies import Dependencies
from services.order_service.use_cases.order_view import view_of
from services.order_service.use_cases.ports import OrderView
from services.order_service.use_cases.settle_order import settle
from services.order_service.use_cases.settling import Cause

MAX_ROUNDS = 5
"""Somebody may open another payment while one is being closed; not for ever."""


@dataclass(frozen=True, slots=True)
class CancelOrder:
    order_id: str
    access: Access


async def cancel_order(command: CancelOrder, deps: Dependencies) -> OrderView:
    """Idempotent. Raises OrderNotFound, OrderAlreadyPaid, OrderIsExpired, PaymentInProgress, PaymentUnderReview, and
    what PaymentsClient raises: an order whose gateway cannot be asked stays open."""
    for _ in range(MAX_ROUNDS):
        async with deps.uow() as tx:
            now = deps.ports.clock.now()
            found = await tx.orders.get_for_update(command.order_id)
            order = require_access(found, command.access, writing=True, now=now)
            if order.status is OrderStatus.CANCELED:
                return await view_of(tx, order)
            payments = await tx.payments.of_order(order.id)
            require_open(order, payments)
            if may_end_without_money(payments):
                closing = replace(order, closed_as=OrderStatus.CANCELED)
                cause = Cause(reason="requested")
                settled = await settle(tx, closing, payments, now=now, deps=deps, cause=cause)
                return await view_of(tx, settled.order)
        for payment in payments:
            if payment.status in CLOSABLE:
                await close_or_refuse(payment, deps, reason="order_canceled")
    raise PaymentInProgress
