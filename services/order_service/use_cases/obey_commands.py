"""What the reconciler asks for after it has compared orders with payments: learn a payment's true state, or give up a
confirmation by a payment that is not there.

Each command is obeyed once, whoever repeats it: its key is claimed in the transaction of its effect. What it says about
its payment is believed, because it is signed; what becomes of the order is decided here, as for any other news. That a
payment is absent is not believed: payment_service is asked. A command that changes nothing is done: its case stays open
at the reconciler, whose next run looks again.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from services.order_service.domain.models import Order, OrderPayment, PaymentSnapshot
from services.order_service.domain.revocation import KeptBecause, kept_because, revoked, without_its_order
from services.order_service.use_cases.dependencies import Dependencies
from services.order_service.use_cases.ports import OrderTransaction
from services.order_service.use_cases.settle_order import apply_payment, is_settled, settle, take_in
from services.order_service.use_cases.settling import Cause
from shared.contracts.commands import Command, OrderCancelRequested, OrderConfirmRequested
from shared.unit_of_work import InboxClaim

log = structlog.get_logger()

KEYS = "order_service.commands.keys"
"""Command keys are remembered beside messages, as claims of this consumer."""

PAYMENT_ABSENT = "payment_absent"


async def confirm_order(
    command: OrderConfirmRequested,
    payment: PaymentSnapshot,
    claim: InboxClaim,
    deps: Dependencies,
    *,
    causation_id: str | None = None,
) -> None:
    """Take in the payment's state. An order that is at this version already, and is not what follows from it (nobody
    had a key to ask for a refund with, a product was not for sale), is settled again."""
    assert payment.order_id == command.order_id, "a command names two orders"
    async with deps.uow() as tx:
        if not await _is_first(tx, command, claim):
            return
        now = deps.ports.clock.now()
        before = await tx.orders.get_for_update(command.order_id)
        if before is None:
            log.warning("command_for_unknown_order", type=command.TYPE, order_id=command.order_id)
            return
        after = await apply_payment(tx, payment, now=now, deps=deps, causation_id=causation_id)
        assert after is not None, "the order is locked"
        is_news = after.order.version > before.version
        if not is_news and not await is_settled(tx, after.order, after.payments, now=now, deps=deps):
            cause = Cause(payment_id=payment.payment_id, causation_id=causation_id)
            after = await settle(tx, after.order, after.payments, now=now, deps=deps, cause=cause)
    log.info(
        "order_confirm_obeyed",
        order_id=command.order_id,
        payment_id=payment.payment_id,
        status=after.order.status.value,
        changed=after.order.version > before.version,
    )


async def cancel_order_without_payment(
    command: OrderCancelRequested,
    payment: PaymentSnapshot | None,
    claim: InboxClaim,
    deps: Dependencies,
    *,
    causation_id: str | None = None,
) -> None:
    """Revoke the confirmation by a payment that shows no money, or that payment_service does not know: the order is
    canceled and its goods go back, once. ``domain/revocation.py`` says when not; then the news alone is taken in.

    ``payment`` None: the sender did not find it, and payment_service is asked first, with no transaction open. Raises
    what PaymentsClient raises: unasked, nothing is decided, and the message is tried again.
    """
    payment = payment or await deps.payments.find(command.payment_id)
    is_consistent = payment is None or (payment.order_id, payment.payment_id) == (command.order_id, command.payment_id)
    assert is_consistent, "a command names two orders or two payments"
    async with deps.uow() as tx:
        if not await _is_first(tx, command, claim):
            return
        now = deps.ports.clock.now()
        order = await tx.orders.get_for_update(command.order_id)
        if order is None:
            log.warning("command_for_unknown_order", type=command.TYPE, order_id=command.order_id)
            return
        payments = await tx.payments.of_order(order.id)
        newest = await take_in(tx, payments, payment, now=now) if payment is not None else None
        kept = kept_because(order, newest or payments, command.payment_id, is_absent=payment is None)
        if kept is None:
            order = revoked(order, now=now)
            newest = await _let_go(tx, newest or payments, command.payment_id, is_absent=payment is None, deps=deps)
        reason = PAYMENT_ABSENT if kept is None else None
        cause = Cause(payment_id=command.payment_id, reason=reason, causation_id=causation_id)
        if newest is not None:
            await settle(tx, order, newest, now=now, deps=deps, cause=cause)
    _log_cancel(command, order, kept)


async def _is_first(tx: OrderTransaction, command: Command, claim: InboxClaim) -> bool:
    """Whether neither this message nor another with the same key was obeyed before."""
    if not await tx.inbox.claim(claim):
        return False
    return await tx.inbox.claim(InboxClaim(KEYS, f"{command.sender}:{command.command_key}"))


async def _let_go(
    tx: OrderTransaction, payments: Sequence[OrderPayment], payment_id: str, *, is_absent: bool, deps: Dependencies
) -> list[OrderPayment]:
    """The order's payments, the named one without its order."""
    now = deps.ports.clock.now()
    changed = [
        without_its_order(payment, is_absent=is_absent, now=now) if payment.payment_id == payment_id else payment
        for payment in payments
    ]
    for payment in changed:
        if payment.payment_id == payment_id:
            await tx.payments.save(payment)
    return changed


def _log_cancel(command: OrderCancelRequested, order: Order, kept: KeptBecause | None) -> None:
    about = {"order_id": order.id, "payment_id": command.payment_id}
    if kept is None:
        log.warning("order_canceled_without_payment", **about)
    elif kept is KeptBecause.LOST_BY_ITS_OWNER:
        log.error("order_cancel_not_obeyed", because=str(kept), **about)
    else:
        log.info("order_cancel_not_obeyed", because=str(kept), **about)
