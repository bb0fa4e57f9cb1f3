"""Send the command that a case's action is: signed, keyed by the case, and built from the mirror (failures RC10, XS25).

The command and the note that it was sent are written in the transaction that decided it. Its key names the case and the
action, so that it is the same command for ever: a run that is repeated, interrupted or doubled sends it once.
"""

from __future__ import annotations

import structlog

from services.reconciler.domain.cases import Action, Case, CaseAction
from services.reconciler.domain.mirror import KnownPayment
from services.reconciler.use_cases.ports import Context, ReconcilerTransaction
from shared.contracts.commands import (
    Command,
    OrderCancelRequested,
    OrderConfirmRequested,
    PaymentSyncRequested,
    RefundRequested,
)
from shared.contracts.payment_events import PaymentEventData

log = structlog.get_logger()

SENDER = "reconciler"
POLICY = "policy"


async def act_on_case(
    tx: ReconcilerTransaction, case: Case, action: Action, *, asked_by: str, context: Context, attempt: int = 1
) -> bool:
    """False: it was sent before, or cannot be (no key is configured, the payment is not known, it is no command).

    ``attempt``: above 1 it is another command, for an operator who asks again for what had no effect.
    """
    key = context.command_key
    if key is None:
        return False
    command = await _command(tx, case, action, attempt)
    if command is None:
        return False
    note = CaseAction(case.case_id, 0, action, command.command_key, asked_by, context.clock.now())
    if not await tx.cases.add_action(note):
        return False
    await tx.outbox.add(command.signed(key), subject=_subject(command), correlation_id=case.subject.order_id)
    log.info("case_acted_on", case_id=case.case_id, action=action.value, by_policy=asked_by == POLICY)
    return True


async def can_act_on_case(tx: ReconcilerTransaction, case: Case, action: Action, context: Context) -> bool:
    """Whether there is such a command, and a key to sign it with."""
    return context.command_key is not None and await _command(tx, case, action, attempt=1) is not None


async def sync_payment(tx: ReconcilerTransaction, payment_id: str, *, run_id: str, context: Context) -> None:
    """Have the gateway asked about a payment of which there is no case (yet); once a run, however often it is begun."""
    if context.command_key is None:
        return
    command = PaymentSyncRequested(sender=SENDER, command_key=f"{run_id}:{payment_id}", payment_id=payment_id)
    await tx.outbox.add(command.signed(context.command_key), subject=payment_id)


async def _command(tx: ReconcilerTransaction, case: Case, action: Action, attempt: int) -> Command | None:
    order_id, payment_id = case.subject.order_id, case.subject.payment_id
    if payment_id is None:
        return None
    key = command_key(case, action, attempt)
    if action is Action.SYNC:
        return PaymentSyncRequested(sender=SENDER, command_key=key, payment_id=payment_id)
    payment = await tx.mirror.payment(payment_id)
    order_id = order_id or (payment.order_id if payment is not None else None)
    if order_id is None or (payment is not None and payment.order_id != order_id):
        return None
    if action is Action.CANCEL_ORDER:
        told = _told(payment) if payment is not None else None
        return OrderCancelRequested(
            sender=SENDER, command_key=key, order_id=order_id, payment_id=payment_id, payment=told
        )
    if payment is None:
        return None
    if action is Action.CONFIRM_ORDER:
        return OrderConfirmRequested(sender=SENDER, command_key=key, order_id=order_id, payment=_told(payment))
    if action is Action.REFUND:
        return RefundRequested(
            sender=SENDER,
            command_key=key,
            payment_id=payment_id,
            order_id=payment.order_id,
            reason="reconciliation",
        )
    return None


def command_key(case: Case, action: Action, attempt: int = 1) -> str:
    """Asking the gateway moves nothing, and is done anew by each run that still finds the case."""
    if action is Action.SYNC and case.last_seen_run is not None:
        return f"{case.case_id}:{action.value}:{case.last_seen_run}"
    key = f"{case.case_id}:{action.value}"
    return key if attempt == 1 else f"{key}#{attempt}"


def _subject(command: Command) -> str:
    """Commands about one order, or one payment, are obeyed in the order in which they were sent."""
    if isinstance(command, OrderConfirmRequested | OrderCancelRequested):
        return command.order_id
    assert isinstance(command, RefundRequested | PaymentSyncRequested), "every command is about an order or a payment"
    return command.payment_id


def _told(payment: KnownPayment) -> PaymentEventData:
    standing = payment.standing
    return PaymentEventData(
        payment_id=payment.payment_id,
        order_id=payment.order_id,
        gateway=payment.gateway,
        gateway_reference=payment.gateway_reference,
        status=payment.status.value,
        version=payment.version,
        amount=payment.amount.amount_minor,
        currency=payment.amount.currency,
        amount_authorized=standing.amount_authorized,
        amount_captured=standing.amount_captured,
        amount_refund_pending=standing.amount_refund_pending,
        amount_refunded=standing.amount_refunded,
        amount_disputed=standing.amount_disputed,
        amount_excess=payment.amount_excess,
        outcome_unknown=standing.outcome_unknown,
        learnt_from="sweep",
        occurred_at=payment.updated_at,
    )
