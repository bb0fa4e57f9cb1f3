"""Take the next step about money that was asked back and is still there: ask again, or call a person.

The gateway may have refused the refund, or was not reached for so long that it was given up, or there was nothing to
refund when the command came (everything pending or disputed). ``domain/late_money.py`` says what the step is; this job
is only the clock. Safe on several replicas: under the order's lock the step is due for one of them.
"""

from __future__ import annotations

from datetime import datetime

import structlog

from services.order_service.domain.late_money import decide, put_off
from services.order_service.domain.models import OrderPayment
from services.order_service.domain.transitions import derive
from services.order_service.use_cases.dependencies import Dependencies
from services.order_service.use_cases.settle_order import settle
from services.order_service.use_cases.settling import Cause
from shared.errors import PayrailError

log = structlog.get_logger()

BATCH = 50


async def ask_again_for_money(deps: Dependencies) -> bool:
    """One round; True when there may be more to do at once."""
    if deps.command_key is None:
        return False  # nothing is asked back by itself
    async with deps.uow() as tx:
        due = await tx.payments.still_there(now=deps.ports.clock.now(), limit=BATCH)
    steps = 0
    for payment in due:
        try:
            await _step(payment.snapshot.order_id, payment.payment_id, deps)
            steps += 1
        except PayrailError as error:
            log.warning("money_not_asked_for_again", payment_id=payment.payment_id, code=error.code)
        except Exception:  # a bug that one order shows must not keep the money of the others
            log.exception("asking_again_broken", payment_id=payment.payment_id)
    return steps == BATCH


async def _step(order_id: str, payment_id: str, deps: Dependencies) -> None:
    async with deps.uow() as tx:
        now = deps.ports.clock.now()
        order = await tx.orders.get_for_update(order_id)
        payments = await tx.payments.of_order(order_id)
        payment = next((each for each in payments if each.payment_id == payment_id), None)
        if order is None or payment is None or not _is_due(payment, now):
            return
        confirmed_by = derive(order, payments).confirmed_by
        decisions = decide(order, payments, confirmed_by=confirmed_by, fulfillable=False, now=now)
        if any(decision.payment_id == payment_id for decision in decisions):
            await settle(tx, order, payments, now=now, deps=deps, cause=Cause(payment_id=payment_id))
        else:  # a person has to look at the order first
            await tx.payments.save(put_off(payment, now=now))


def _is_due(payment: OrderPayment, now: datetime) -> bool:
    """Another replica may have taken the step meanwhile."""
    return payment.asked is not None and payment.asked.again_at <= now
