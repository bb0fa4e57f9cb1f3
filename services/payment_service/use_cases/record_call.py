"""Write down how far a money operation came, under its lease: the third of reserve, call, record.

Whoever lost the lease writes only what is a fact whoever learnt it. Every function here is one transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog

from services.payment_service.domain.models import FactKind, FactSource, Observation, Payment
from services.payment_service.domain.operations import CallState, Operation, OperationKind, OperationStatus
from services.payment_service.domain.timeline import TimelineEntry, decision_entry
from services.payment_service.domain.unknown_outcome import MOST_KEYS, Limits, look_again_at, must_call_a_person
from services.payment_service.gateways.port import MoneyCall, Outcome, OutcomeStatus
from services.payment_service.use_cases.announce import event_of
from services.payment_service.use_cases.ports import PARKED_CHANNEL, Context, PaymentTransaction
from services.payment_service.use_cases.record_facts import Learnt, record_facts, settle
from shared.contracts.payment_events import PaymentOutcomeUnknown
from shared.errors import DomainError, GatewayRejected
from shared.metrics import OPERATIONS_ESCALATED

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Held:
    """An operation that this caller holds, with its payment and what the gateway is to be told."""

    operation: Operation
    payment: Payment
    call: MoneyCall
    token: str
    sent_before_at: datetime | None = None
    """When it was sent the time before, if this call repeats one that was not answered."""


class LeaseLost(Exception):
    """Somebody else drives this operation by now."""


async def mark_sent(held: Held, context: Context, *, entry: TimelineEntry | None = None) -> Held:
    """Commit that a call is about to leave. Its key and content are those of the calls before it."""
    now, sent_before_at = context.clock.now(), held.operation.last_sent_at
    operation = replace(
        held.operation,
        call=CallState.SENT,
        calls=held.operation.calls + 1,
        first_sent_at=held.operation.first_sent_at or now,
        last_sent_at=now,
        next_look_at=now + timedelta(seconds=context.operations.lease_seconds),
    )
    marked = await _write(held, operation, context, entry=entry)
    return replace(marked, sent_before_at=sent_before_at)


async def mark_unanswered(held: Held, context: Context) -> Held:
    """A call whose maker died under it: say so before asking about it."""
    if held.operation.call is not CallState.SENT:
        return held
    return await _write(held, replace(held.operation, call=CallState.UNANSWERED), context)


async def end_call(
    held: Held,
    context: Context,
    *,
    call: CallState,
    look_again: bool = True,
    entry: TimelineEntry | None = None,
) -> Operation:
    """A call or a look brought no answer (or none is wanted any more): write how far it came, let the lease go."""
    now, operation = context.clock.now(), held.operation
    if call is CallState.UNSENT:  # nothing can have run: the life of its key has not begun
        operation = replace(operation, first_sent_at=None, last_sent_at=None, calls=0)
    after = replace(operation, call=call, next_look_at=None)
    if look_again:
        after = replace(after, next_look_at=look_again_at(after, now), looks=after.looks + 1)
    return (await _write(held, after, context, entry=entry, release=True)).operation


async def take_new_key(held: Held, entry: TimelineEntry, context: Context) -> Operation:
    """The gateway replays a stored failure under this key, and nothing ran under it: the proof a new key needs."""
    operation = held.operation
    if operation.key_number >= MOST_KEYS:
        return await refuse(
            held, GatewayRejected("too many stored failures", gateway_code="gateway_error"), entry, context
        )
    rotated = replace(operation, key_number=operation.key_number + 1)
    return await end_call(replace(held, operation=rotated), context, call=CallState.UNSENT, entry=entry)


async def _write(
    held: Held, operation: Operation, context: Context, *, entry: TimelineEntry | None = None, release: bool = False
) -> Held:
    """Save the call's state, if the lease is still ours, and derive all that follows from it.

    Raises LeaseLost where it has passed to somebody else: nothing is written, and nothing may be sent (failure PY18).
    """
    learnt = Learnt(FactSource.RESOLVER, context.clock.now(), by=operation.operation_id)
    async with context.turns.of(operation.payment_id), context.uow() as tx:
        payment = await tx.payments.get_for_update(operation.payment_id)
        assert payment is not None
        if not await _keep_lease(tx, held, release=release, context=context):
            raise LeaseLost
        await _save_call(tx, operation, held)
        recorded = await settle(tx, payment, learnt, entries=(entry,) if entry else ())
        return replace(held, operation=_own(recorded.operations, operation), payment=recorded.payment)


async def _save_call(tx: PaymentTransaction, operation: Operation, held: Held) -> None:
    """Write what this driver knows of the call, and nothing else: a webhook may have settled the row meanwhile, and
    would be announced a second time if its status were put back. The caller holds the payment's lock."""
    known = await tx.operations.get(operation.operation_id)
    assert known is not None
    next_look_at = operation.next_look_at
    if known.next_look_at not in (None, held.operation.next_look_at) and next_look_at is not None:
        next_look_at = min(known.next_look_at, next_look_at)  # something was learnt meanwhile that asks for a look
    await tx.operations.save(
        replace(
            known,
            call=operation.call,
            key_number=operation.key_number,
            calls=operation.calls,
            looks=operation.looks,
            first_sent_at=operation.first_sent_at,
            last_sent_at=operation.last_sent_at,
            next_look_at=next_look_at if known.is_unsettled else None,
            gateway_reference=known.gateway_reference or operation.gateway_reference,
        )
    )


async def _keep_lease(tx: PaymentTransaction, held: Held, *, release: bool, context: Context) -> bool:
    operation_id = held.operation.operation_id
    if not await tx.operations.release(operation_id, token=held.token):
        return False
    seconds = context.operations.lease_seconds
    return release or await tx.operations.lease(operation_id, token=held.token, seconds=seconds)


async def adopt(held: Held, outcome: Outcome, source: FactSource, entry: TimelineEntry, context: Context) -> Operation:
    """The gateway has said what became of it. Facts are facts whoever holds the lease by now."""
    operation, now = held.operation, context.clock.now()
    is_pending = outcome.status is OutcomeStatus.PENDING
    looks = operation.looks + 1 if operation.status is OperationStatus.SUBMITTED else 0
    answered = replace(operation, call=CallState.ANSWERED, looks=looks, gateway_reference=outcome.gateway_reference)
    submitted = replace(answered, status=OperationStatus.SUBMITTED)
    answered = replace(answered, next_look_at=look_again_at(submitted, now) if is_pending else None)
    facts = (*outcome.observations, _fact_of(operation, outcome))
    return await record(held, answered, facts, source, entry, context, references=outcome.references)


async def refuse(
    held: Held, refusal: GatewayRejected | DomainError, entry: TimelineEntry, context: Context
) -> Operation:
    """Proof that nothing moved: the reservation is free again.

    Only while the lease is ours: whoever has taken it over may have sent the call again, and then a refusal of the
    earlier one proves nothing. Raises LeaseLost.
    """
    operation = held.operation
    code = getattr(refusal, "gateway_code", None) or refusal.code
    refused = Observation(
        FactKind.OPERATION_REFUSED, operation.reference, reason=code[:100], operation=operation.reference
    )
    answered = replace(operation, call=CallState.ANSWERED, next_look_at=None)
    log.info("operation_refused", operation_id=operation.operation_id, gateway=held.payment.gateway, code=code)
    return await record(held, answered, (refused,), FactSource.API, entry, context, only_if_held=True)


async def record(
    held: Held,
    operation: Operation,
    facts: Sequence[Observation],
    source: FactSource,
    entry: TimelineEntry,
    context: Context,
    *,
    references: Sequence[str] = (),
    only_if_held: bool = False,
) -> Operation:
    learnt = Learnt(source, context.clock.now(), by=operation.operation_id)
    async with context.turns.of(operation.payment_id), context.uow() as tx:
        if references:
            await tx.parked.lock_references(held.payment.gateway, references)
        payment = await tx.payments.get_for_update(operation.payment_id)
        assert payment is not None
        if await tx.operations.release(operation.operation_id, token=held.token):
            await _save_call(tx, operation, held)
        elif only_if_held:
            raise LeaseLost
        recorded = await record_facts(
            tx, payment, facts, learnt, references=references, entries=(entry,), derive_again=True
        )
        if references and await tx.parked.wake(held.payment.gateway, held.payment.account, references):
            tx.hint(PARKED_CHANNEL)
        return _own(recorded.operations, operation)


def _fact_of(operation: Operation, outcome: Outcome) -> Observation:
    kinds = _REFUND_FACTS if operation.kind is OperationKind.REFUND else _OTHER_FACTS
    return Observation(
        kinds[outcome.status],
        outcome.gateway_reference,
        operation.amount,
        reason=outcome.failure_code,
        about=operation.target if operation.kind is OperationKind.REFUND else None,
        operation=operation.reference,
    )


_REFUND_FACTS = {
    OutcomeStatus.SUCCEEDED: FactKind.REFUND_SUCCEEDED,
    OutcomeStatus.PENDING: FactKind.REFUND_PENDING,
    OutcomeStatus.FAILED: FactKind.REFUND_FAILED,
}
_OTHER_FACTS = {
    OutcomeStatus.SUCCEEDED: FactKind.OPERATION_SUCCEEDED,
    OutcomeStatus.PENDING: FactKind.OPERATION_PENDING,
    OutcomeStatus.FAILED: FactKind.OPERATION_FAILED,
}


async def call_a_person_if_due(held: Held, limits: Limits, context: Context) -> Held:
    """The gateway's horizon has passed: an event, a metric and the timeline say so, once. The asking goes on."""
    operation, now = held.operation, context.clock.now()
    if not must_call_a_person(operation, limits, now):
        return held
    async with context.uow() as tx:
        payment = await tx.payments.get_for_update(operation.payment_id)
        known = await tx.operations.get(operation.operation_id)
        assert payment is not None
        assert known is not None
        if known.escalated_at is not None:
            return replace(held, operation=known)
        await tx.operations.save(replace(known, escalated_at=now))
        summary = f"{operation.kind} {operation.operation_id} has had no answer for too long"
        await tx.timeline.add(payment.payment_id, decision_entry("escalated", summary, at=now, actor="resolver"))
        event = event_of(PaymentOutcomeUnknown, payment, reason=f"{operation.kind}_escalated", at=now)
        await tx.outbox.add(event, subject=payment.payment_id, correlation_id=payment.order_id)
    OPERATIONS_ESCALATED.labels(held.payment.gateway, operation.kind).inc()
    log.error("operation_escalated", operation_id=operation.operation_id, gateway=held.payment.gateway)
    return replace(held, operation=replace(operation, escalated_at=now))


def _own(operations: Sequence[Operation], operation: Operation) -> Operation:
    return next(known for known in operations if known.operation_id == operation.operation_id)
