"""End unpaid orders whose time is up. Safe on several replicas: the due rows are claimed with SKIP LOCKED, and the
order's own row lock lets one of them end it (failure O5)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import structlog

from services.order_service.domain.models import OrderStatus
from services.order_service.domain.transitions import CLOSABLE, may_end_without_money
from services.order_service.use_cases.close_payment import close_payment
from services.order_service.use_cases.dependencies import Dependencies
from services.order_service.use_cases.settle_order import settle
from services.order_service.use_cases.settling import Cause
from shared.errors import PayrailError

log = structlog.get_logger()

BATCH = 10
CLAIM = timedelta(seconds=120)
"""Longer than closing a session may take; a sweeper that died leaves its orders to the next one after this."""

FIRST_RETRY = timedelta(seconds=15)
MAX_RETRY = timedelta(minutes=10)


async def expire_due_orders(deps: Dependencies) -> bool:
    """One round; True when there may be more to do at once."""
    now = deps.ports.clock.now()
    async with deps.uow() as tx:
        due = await tx.orders.claim_due(now=now, next_attempt_at=now + CLAIM, limit=BATCH)
    async with asyncio.TaskGroup() as group:  # one slow gateway does not hold up the other orders
        for order_id in due:
            group.create_task(_expire_or_postpone(order_id, deps))
    return len(due) == BATCH


async def expire_order(order_id: str, deps: Dependencies) -> bool:
    """Expire one order that is due. False: it may still bring money, ask again later.

    Open sessions are closed at the gateway first; what closing finds (money, perhaps) is applied like any other news.
    """
    asked: set[str] = set()
    while True:
        async with deps.uow() as tx:
            now = deps.ports.clock.now()
            order = await tx.orders.get_for_update(order_id)
            if order is None or order.status is not OrderStatus.OPEN or order.expires_at > now:
                return True
            payments = await tx.payments.of_order(order_id)
            if may_end_without_money(payments):
                closing = replace(order, closed_as=OrderStatus.EXPIRED)
                await settle(tx, closing, payments, now=now, deps=deps, cause=Cause(reason="time_is_up"))
                return True
        to_close = [payment for payment in payments if payment.status in CLOSABLE and payment.payment_id not in asked]
        if not to_close:
            return False
        for payment in to_close:
            asked.add(payment.payment_id)
            await close_payment(payment, deps, reason="order_expired")


async def _expire_or_postpone(order_id: str, deps: Dependencies) -> None:
    try:
        is_settled = await expire_order(order_id, deps)
        code = "payment_not_final"
    except PayrailError as error:
        is_settled, code = False, error.code
    except Exception:  # a bug that one order shows must neither stop its neighbours nor the worker
        log.exception("expiry_broken", order_id=order_id)
        is_settled, code = False, "internal_error"
    if not is_settled:
        try:
            await _postpone(order_id, deps, code)
        except PayrailError as error:
            log.warning("expiry_not_postponed", order_id=order_id, code=error.code)  # its claim runs out by itself


async def _postpone(order_id: str, deps: Dependencies, code: str) -> None:
    async with deps.uow() as tx:
        order = await tx.orders.get_for_update(order_id)
        if order is None or order.status is not OrderStatus.OPEN:
            return
        wait = min(MAX_RETRY, FIRST_RETRY * 2 ** min(order.expiry_attempts, 10))
        next_attempt_at = deps.ports.clock.now() + wait
        await tx.orders.postpone_expiry(order_id, next_attempt_at=next_attempt_at, attempts=order.expiry_attempts + 1)
    log.info("expiry_postponed", order_id=order_id, code=code, wait_seconds=int(wait.total_seconds()))
