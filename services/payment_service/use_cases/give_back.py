"""Give back all that a payment still has, because its order does not want the money: held funds are released, captured
ones refunded. Late and double payments end here (design.md §4).

order_service decides, because only it knows which payment confirmed the order; its decision comes as a signed command.
It is held to the rules of the refund API: while a dispute is open, or after money went back in another currency,
nothing is refunded but by a person, whom order_service calls after its last try. A command's key is obeyed once, even
where it planned nothing: what comes later needs a new decision, with a key of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import structlog

from services.payment_service.domain.budget import contested_because, refundable_by_object, void_target
from services.payment_service.domain.models import Fact, FactSource, Payment
from services.payment_service.domain.operations import Operation, OperationKind, Origin
from services.payment_service.domain.timeline import decision_entry
from services.payment_service.domain.transitions import held_by_object
from services.payment_service.gateways.port import Capability
from services.payment_service.use_cases.ports import OPERATIONS_CHANNEL, Context, PaymentTransaction
from services.payment_service.use_cases.record_facts import Learnt, new_operation, settle
from shared.contracts.commands import RefundRequested
from shared.errors import NotFound
from shared.money import Money
from shared.unit_of_work import InboxClaim

log = structlog.get_logger()

KEYS = "payment_service.commands.keys"
"""Command keys are remembered beside messages, as claims of this consumer."""


async def give_back(command: RefundRequested, claim: InboxClaim, context: Context) -> tuple[Operation, ...]:
    """Reserve what is to go back; the runner calls the gateway. The same command again does nothing (failure RF18).

    Raises NotFound where the payment is not known (yet), OperationInProgress while a capture of it may still run
    (failure RF17): the message is then tried again.
    """
    async with context.uow() as tx:
        if not await _is_first(tx, command, claim):
            return ()
        payment = await tx.payments.get_for_update(command.payment_id)
        if payment is None or payment.order_id != command.order_id:
            raise NotFound(f"no payment {command.payment_id} of order {command.order_id}")
        learnt = Learnt(FactSource.API, context.clock.now(), by=command.command_key[:64])
        facts = await tx.facts.all(payment.payment_id)
        contested = contested_because(payment, facts)
        planned = await _planned(tx, payment, facts, command, learnt, context, may_refund=contested is None)
        summary = f"All of this payment is to go back: {command.reason} ({len(planned)} operations)"
        if contested is not None:
            summary += "; a dispute or a foreign currency is in the way of a refund, and a person has to decide"
        entry = decision_entry(
            command.reason, summary, at=learnt.at, actor=command.sender, command_key=command.command_key
        )
        given_up = replace(payment, given_up_at=payment.given_up_at or learnt.at)
        await settle(tx, payment, learnt, after=given_up, added=planned, entries=(entry,))
        tx.hint(OPERATIONS_CHANNEL)
    log.info(
        "payment_goes_back",
        payment_id=payment.payment_id,
        reason=command.reason,
        operations=len(planned),
        contested=contested is not None,
    )
    return planned


async def _is_first(tx: PaymentTransaction, command: RefundRequested, claim: InboxClaim) -> bool:
    """Whether neither this message nor another with the same key was obeyed before."""
    if not await tx.inbox.claim(claim):
        return False
    return await tx.inbox.claim(InboxClaim(KEYS, f"{command.sender}:{command.command_key}"))


async def _planned(
    tx: PaymentTransaction,
    payment: Payment,
    facts: Sequence[Fact],
    command: RefundRequested,
    learnt: Learnt,
    context: Context,
    *,
    may_refund: bool,
) -> tuple[Operation, ...]:
    operations = await tx.operations.of_payment(payment.payment_id)
    # A release that remembered no keys obeyed it.
    if any((operation.request_key or "").startswith(f"{command.command_key}#") for operation in operations):
        return ()
    capabilities = context.gateways.get(payment.gateway, payment.account).facts.capabilities
    planned: list[Operation] = []
    held = payment.state.amount_authorized - payment.state.amount_captured
    is_being_released = any(o.kind is OperationKind.VOID and o.is_unsettled for o in operations)
    is_held = held > 0 and any(held_by_object(fact.observation for fact in facts))
    if is_held and not is_being_released and Capability.VOID in capabilities:
        target = void_target(payment, facts, operations)
        planned.append(_operation(tx, payment, OperationKind.VOID, held, target, command, learnt, is_whole=True))
    if may_refund and Capability.REFUND in capabilities:
        left = payment.state.amount_refundable
        for target, amount in refundable_by_object(payment, facts, operations).items():
            taken = min(amount, left)
            if taken > 0:
                refund = _operation(
                    tx, payment, OperationKind.REFUND, taken, target, command, learnt, is_whole=taken == amount
                )
                planned.append(refund)
                left -= taken
    return tuple(replace(o, request_key=f"{command.command_key}#{n}") for n, o in enumerate(planned, start=1))


def _operation(
    tx: PaymentTransaction,
    payment: Payment,
    kind: OperationKind,
    amount_minor: int,
    target: str,
    command: RefundRequested,
    learnt: Learnt,
    *,
    is_whole: bool,
) -> Operation:
    amount = Money(amount_minor, payment.amount.currency)
    operation = new_operation(tx, payment, kind, amount, origin=Origin.POLICY, actor=command.sender, learnt=learnt)
    return replace(operation, target=target, is_whole=is_whole, reason=command.reason)
