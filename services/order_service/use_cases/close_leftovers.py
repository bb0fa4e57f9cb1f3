"""Close the pages that are still open for an order that has ended: the shopper who finds one must not pay again.

An order is paid while another gateway's page could not be closed, or a page opens while its order ends. ``settle``
marks such payments in its own transaction, so that a crash forgets none; the marks are worked off here, on any replica.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

import structlog

from services.order_service.domain.models import OrderPayment
from services.order_service.domain.transitions import CLOSABLE
from services.order_service.use_cases.close_payment import close_payment
from services.order_service.use_cases.dependencies import Dependencies
from services.order_service.use_cases.ports import Leftover
from shared.errors import PayrailError

log = structlog.get_logger()

BATCH = 10
CLAIM = timedelta(seconds=120)
"""Longer than one closing may take; one that died leaves its payments to the next one after this."""

FIRST_RETRY = timedelta(seconds=15)
MAX_RETRY = timedelta(minutes=10)


async def close_leftover_sessions(deps: Dependencies) -> bool:
    """One round; True when there may be more to do at once."""
    now = deps.ports.clock.now()
    async with deps.uow() as tx:
        leftovers = await tx.payments.claim_leftovers(now=now, next_attempt_at=now + CLAIM, limit=BATCH)
    async with asyncio.TaskGroup() as group:  # one slow gateway does not hold up the others
        for leftover in leftovers:
            group.create_task(_close_or_postpone(leftover, deps))
    return len(leftovers) == BATCH


async def _close_or_postpone(leftover: Leftover, deps: Dependencies) -> None:
    payment: OrderPayment = leftover.payment
    try:
        status = await close_payment(payment, deps, reason="order_ended")
        if status not in CLOSABLE:
            return
        code = "payment_not_final"
    except PayrailError as error:
        code = error.code
    except Exception:  # a bug that one payment shows must not keep the others open
        log.exception("leftover_session_broken", payment_id=payment.payment_id)
        code = "internal_error"
    wait = min(MAX_RETRY, FIRST_RETRY * 2 ** min(leftover.attempts - 1, 10))
    try:
        async with deps.uow() as tx:
            await tx.payments.close_later(payment.payment_id, at=deps.ports.clock.now() + wait)
    except PayrailError as error:
        log.warning("closing_not_postponed", payment_id=payment.payment_id, code=error.code)  # its claim runs out
        return
    log.warning(
        "session_left_open",
        payment_id=payment.payment_id,
        gateway=payment.gateway,
        code=code,
        wait_seconds=int(wait.total_seconds()),
    )
