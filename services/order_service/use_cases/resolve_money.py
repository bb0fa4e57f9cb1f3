"""Act on money that its order did not wait for: reopen the order, or have payment_service give the money back.

Part of ``settle``: the decision, the order that follows from it and the command commit together (failures O4, O6,
RF18).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

import structlog

from services.order_service.domain.late_money import Decision, asks_the_shelf, can_fulfil, decide
from services.order_service.domain.models import Order, OrderPayment, Resolution
from services.order_service.domain.transitions import OrderState, derive
from services.order_service.use_cases.dependencies import Dependencies
from services.order_service.use_cases.settling import Cause
from services.order_service.use_cases.settling_ports import SettlingTransaction
from shared.contracts.commands import RefundRequested

log = structlog.get_logger()

SENDER = "order_service"

_WITHOUT_A_COMMAND = frozenset({Resolution.FULFILLED, Resolution.REFUND_FAILED})


async def resolve_money(
    tx: SettlingTransaction,
    order: Order,
    payments: Sequence[OrderPayment],
    *,
    now: datetime,
    deps: Dependencies,
    cause: Cause,
) -> tuple[Order, Sequence[OrderPayment], OrderState]:
    """The order and its payments with what was decided about them just now, and the state that they give. The caller
    holds the order's lock.

    Without a key to sign with, nothing is asked back: the order's ``attention`` stays until a person has done it.
    """
    state = derive(order, payments)
    decisions = await decide_now(tx, order, payments, state, now=now, deps=deps)
    for decision in decisions:
        if decision.resolution is Resolution.FULFILLED:
            order = replace(order, reopened_by=decision.payment_id)
        elif decision.resolution is Resolution.REFUND_FAILED:
            log.warning("refund_given_up", order_id=order.id, payment_id=decision.payment_id)
        else:
            assert deps.command_key is not None, "nothing is asked back without a key"
            await _ask_back(tx, order, decision, key=deps.command_key, cause=cause)
        payments = [await _resolved(tx, payment, decision, now=now) for payment in payments]
        log.info(
            "stray_money_resolved",
            order_id=order.id,
            payment_id=decision.payment_id,
            resolution=decision.resolution.value,
            reason=decision.reason,
            attempt=decision.asked.attempt if decision.asked else None,
        )
    return order, payments, derive(order, payments) if decisions else state


async def decide_now(
    tx: SettlingTransaction,
    order: Order,
    payments: Sequence[OrderPayment],
    state: OrderState,
    *,
    now: datetime,
    deps: Dependencies,
) -> tuple[Decision, ...]:
    """What ``resolve_money`` would do now, where the order and its payments give ``state``; products that the decision
    depends on are locked."""
    fulfillable = False
    if asks_the_shelf(order, payments):
        shelf = await tx.products.lock([item.sku for item in order.items])
        fulfillable = can_fulfil(order.items, shelf)
    decisions = decide(order, payments, confirmed_by=state.confirmed_by, fulfillable=fulfillable, now=now)
    return tuple(each for each in decisions if deps.command_key is not None or each.resolution in _WITHOUT_A_COMMAND)


async def _ask_back(tx: SettlingTransaction, order: Order, decision: Decision, *, key: bytes, cause: Cause) -> None:
    command = RefundRequested(
        sender=SENDER,
        command_key=decision.command_key,
        payment_id=decision.payment_id,
        order_id=order.id,
        reason=decision.reason,
    )
    await tx.outbox.add(command.signed(key), subject=order.id, correlation_id=order.id, causation_id=cause.causation_id)


async def _resolved(
    tx: SettlingTransaction, payment: OrderPayment, decision: Decision, *, now: datetime
) -> OrderPayment:
    if payment.payment_id != decision.payment_id:
        return payment
    resolved = replace(payment, resolution=decision.resolution, asked=decision.asked, updated_at=now)
    await tx.payments.save(resolved)
    return resolved
