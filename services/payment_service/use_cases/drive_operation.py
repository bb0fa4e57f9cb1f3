"""Call the gateway for an operation and record what came of it: the second and third of reserve, call, record.

Whoever drives an operation holds its lease. Everything that a crash can leave behind is in the row: ``unsent`` is sent
by the runner, ``sent`` whose lease has run out is an unanswered call, ``unanswered`` is looked up
(domain/unknown_outcome.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TypeVar

import structlog

from services.payment_service.domain.breaker import OperationClass
from services.payment_service.domain.models import OPEN, FactKind, FactSource, Observation, Payment
from services.payment_service.domain.operations import CallState, Operation, OperationKind, OperationStatus, Origin
from services.payment_service.domain.timeline import TimelineEntry, decision_entry
from services.payment_service.domain.unknown_outcome import (
    MOST_KEYS,
    Absence,
    Limits,
    Step,
    is_proof,
    look_again_at,
    meaning_of_absence,
    must_call_a_person,
    next_step,
)
from services.payment_service.gateways.port import GatewayAdapter, KeyUsedUp, MoneyCall, Outcome, OutcomeStatus
from services.payment_service.use_cases.announce import event_of
from services.payment_service.use_cases.ports import PARKED_CHANNEL, Context, PaymentTransaction
from services.payment_service.use_cases.record_facts import Learnt, record_facts, settle
from services.payment_service.use_cases.stopwatch import Stopwatch
from shared.contracts.payment_events import PaymentOutcomeUnknown
from shared.errors import (
    DomainError,
    GatewayError,
    GatewayOutcomeUnknown,
    GatewayRejected,
    GatewayUnavailable,
    NotFound,
)
from shared.metrics import OPERATIONS_ESCALATED

log = structlog.get_logger()

CALL_SHARE_OF_LEASE = 0.75
"""A call ends, answered or not, well before the lease that protects it."""


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


async def advance(operation_id: str, token: str, context: Context) -> Operation:
    """Do the next thing with an operation whose lease ``token`` holds. Returns it as it is afterwards.

    No error of a gateway leaves this: it is recorded, and the operation says when it will be looked at again.
    """
    held = await _load(operation_id, token, context)
    try:
        return await _advance(held, context)
    except LeaseLost:
        return (await _load(operation_id, token, context)).operation


async def send_reserved(operation_id: str, token: str, context: Context) -> Operation:
    """Make the first call of an operation that was reserved as ``sent`` under this lease. As ``advance``."""
    try:
        return await _send(await _load(operation_id, token, context, only_if_held=True), context)
    except LeaseLost:
        return (await _load(operation_id, token, context)).operation


async def _advance(held: Held, context: Context) -> Operation:
    adapter = context.gateways.get(held.payment.gateway)
    limits = limits_of(adapter, held.operation.kind, context)
    match next_step(held.operation, limits, context.clock.now()):
        case Step.SEND:
            return await _send_if_it_may(held, context)
        case Step.LOOK:
            return await _look(await _mark_unanswered(held, context), adapter, limits, context)
        case Step.WITHDRAW:
            return await _end_call(held, context, call=CallState.WITHDRAWN, look_again=False)
        case _:
            return await _end_call(held, context, call=held.operation.call, look_again=False)


async def _send_if_it_may(held: Held, context: Context) -> Operation:
    """What was never sent: not while the breaker is open, and no completion of a payment that has ended."""
    try:
        context.gateways.require_available(held.payment.gateway, OperationClass.MONEY)
    except GatewayUnavailable:
        return await _put_off(held, context)
    marked = await _mark_sent(held, context)
    if marked.operation.kind is OperationKind.COMPLETION and marked.payment.status not in OPEN:
        return await _end_call(marked, context, call=CallState.WITHDRAWN, look_again=False)
    return await _send(marked, context)


async def _put_off(held: Held, context: Context) -> Operation:
    """Nothing has happened, so nothing is derived anew: only the next try is later."""
    operation = held.operation
    async with context.uow() as tx:
        if await tx.operations.release(operation.operation_id, token=held.token):
            await tx.operations.put_off(operation.operation_id, look_again_at(operation, context.clock.now()))
    return operation


async def _load(operation_id: str, token: str, context: Context, *, only_if_held: bool = False) -> Held:
    """Raises NotFound, LeaseLost."""
    async with context.uow() as tx:
        if only_if_held and not await tx.operations.holds(operation_id, token=token):
            raise LeaseLost
        operation = await tx.operations.get(operation_id)
        if operation is None:
            raise NotFound
        payment = await tx.payments.get(operation.payment_id)
        attempt = await tx.attempts.latest(operation.payment_id)
        references = await tx.payments.references(operation.payment_id)
    assert payment is not None
    assert attempt is not None
    call = MoneyCall(
        kind=operation.kind,
        reference=operation.reference,
        idempotency_key=operation.idempotency_key,
        amount=operation.amount,
        target=operation.target or payment.gateway_reference or "",
        is_whole=operation.is_whole,
        is_final=operation.is_final,
        reason=operation.reason,
        payment_id=payment.payment_id,
        order_id=payment.order_id,
        our_reference=attempt.reference,
        capture=payment.terms.capture,
        references=references,
        first_sent_at=operation.first_sent_at or context.clock.now(),
    )
    return Held(operation, payment, call, token)


def limits_of(adapter: GatewayAdapter, kind: OperationKind, context: Context) -> Limits:
    facts = adapter.facts
    key_valid_for = facts.key_valid_for
    if kind is OperationKind.COMPLETION and facts.completion_key_valid_for is not None:
        key_valid_for = facts.completion_key_valid_for
    return Limits(key_valid_for, facts.absence_proves_after, facts.unknown_horizon, context.operations.give_up_after)


# --- calling --------------------------------------------------------------------------------------------------------


async def _send(held: Held, context: Context) -> Operation:
    """Make the call. The row says ``sent`` already, so a crash from here on leaves a call without an answer."""
    if held.operation.status not in (OperationStatus.PENDING, OperationStatus.UNKNOWN):
        # A webhook has said what became of it since we looked: where keys do not last, another call would run again.
        is_open = held.operation.is_unsettled
        return await _end_call(held, context, call=CallState.ANSWERED, look_again=is_open)
    operation, adapter = held.operation, context.gateways.get(held.payment.gateway)
    is_repeated = operation.calls > 1
    if _has_waited_too_long(operation, context):  # a pause of ours: the lease might end before the call does
        state = CallState.UNANSWERED if is_repeated else CallState.UNSENT
        return await _end_call(held, context, call=state)
    stopwatch = Stopwatch(operation.kind.value, held.payment.gateway, context.clock)
    try:
        outcome = await _within_lease(_CALLS[operation.kind](adapter, held.call), context)
    except KeyUsedUp as error:
        entry = stopwatch.entry(error, operation.reference, result="key_used_up")
        return await _take_new_key(held, entry, context)
    except GatewayUnavailable as error:
        # This call never arrived. An earlier one of the same operation may have.
        state = CallState.UNANSWERED if is_repeated else CallState.UNSENT
        return await _end_call(held, context, call=state, entry=stopwatch.entry(error, operation.reference))
    except (GatewayRejected, DomainError) as error:
        entry = stopwatch.entry(error, operation.reference)
        if is_repeated:  # the refusal may be about what an earlier, unanswered call has done
            return await _look_after_refusal(held, adapter, error, entry, context)
        return await _refuse(held, error, entry, context)
    except GatewayOutcomeUnknown as error:
        entry = stopwatch.entry(error, operation.reference)
        return await _end_call(held, context, call=CallState.UNANSWERED, entry=entry)
    return await _adopt(held, outcome, FactSource.API, stopwatch.entry(None, operation.reference), context)


def _has_waited_too_long(operation: Operation, context: Context) -> bool:
    assert operation.last_sent_at is not None, "marked as sent before it is sent"
    spare = context.operations.lease_seconds * (1 - CALL_SHARE_OF_LEASE)
    return context.clock.now() - operation.last_sent_at > timedelta(seconds=spare)


_CALLS = {
    OperationKind.CAPTURE: lambda adapter, call: adapter.capture(call),
    OperationKind.VOID: lambda adapter, call: adapter.void(call),
    OperationKind.REFUND: lambda adapter, call: adapter.refund(call),
    OperationKind.COMPLETION: lambda adapter, call: adapter.complete(call),
}


async def _look(held: Held, adapter: GatewayAdapter, limits: Limits, context: Context) -> Operation:
    operation = held.operation
    if operation.origin is Origin.GATEWAY:
        return await _follow_import(held, adapter, context)
    stopwatch = Stopwatch(f"find_{operation.kind}", held.payment.gateway, context.clock)
    try:
        found = await _within_lease(adapter.find_operation(held.call), context)
    except (GatewayError, DomainError) as error:
        # Also a refusal: wrong credentials or another account's keys prove nothing about what we did.
        held = await _call_a_person_if_due(held, limits, context)
        return await _end_call(held, context, call=operation.call, entry=stopwatch.entry(error, operation.reference))
    if found is not None:
        return await _adopt(held, found, FactSource.RESOLVER, stopwatch.entry(None, operation.reference), context)
    held = await _call_a_person_if_due(held, limits, context)
    entry = stopwatch.entry(None, operation.reference, result="absent")
    match meaning_of_absence(operation, limits, context.clock.now()):
        case Absence.SEND_AGAIN:
            return await _send(await _mark_sent(held, context, entry=entry), context)
        case Absence.NEVER_RAN:
            return await _refuse(held, NeverArrived(), entry, context)
        case _:
            return await _end_call(held, context, call=operation.call, entry=entry)


class NeverArrived(GatewayRejected):
    """The gateway has had time enough and knows nothing of this call: nothing ran."""

    def __init__(self) -> None:
        super().__init__(gateway_code="never_arrived")


async def _look_after_refusal(
    held: Held, adapter: GatewayAdapter, refusal: GatewayRejected | DomainError, entry: TimelineEntry, context: Context
) -> Operation:
    try:
        found = await _within_lease(adapter.find_operation(held.call), context)
    except (GatewayError, DomainError):
        return await _end_call(held, context, call=CallState.UNANSWERED, entry=entry)
    if found is not None:
        return await _adopt(held, found, FactSource.RESOLVER, entry, context)
    limits, sent_before_at = limits_of(adapter, held.operation.kind, context), held.sent_before_at
    if sent_before_at is None or not is_proof(limits, sent_before_at, context.clock.now()):
        # This call was refused; whether the one before it ran, its lists cannot prove yet.
        return await _end_call(held, context, call=CallState.UNANSWERED, entry=entry)
    return await _refuse(held, refusal, entry, context)


async def _follow_import(held: Held, adapter: GatewayAdapter, context: Context) -> Operation:
    """A refund that was made at the gateway knows no reference of ours: ask about the payment, and it is in there."""
    operation = held.operation
    stopwatch = Stopwatch("retrieve", held.payment.gateway, context.clock)
    try:
        snapshot = await _within_lease(
            adapter.retrieve(held.call.references, our_reference=held.call.our_reference), context
        )
    except (GatewayError, DomainError) as error:
        return await _end_call(held, context, call=operation.call, entry=stopwatch.entry(error, operation.reference))
    entry = stopwatch.entry(None, operation.reference)
    after = replace(operation, next_look_at=look_again_at(operation, context.clock.now()), looks=operation.looks + 1)
    facts, references = snapshot.observations, snapshot.references
    return await _record(held, after, facts, FactSource.RESOLVER, entry, context, references=references)


T = TypeVar("T")


async def _within_lease(call: Awaitable[T], context: Context) -> T:
    try:
        async with asyncio.timeout(context.operations.lease_seconds * CALL_SHARE_OF_LEASE):
            return await call
    except TimeoutError as error:
        raise GatewayOutcomeUnknown from error


# --- recording ------------------------------------------------------------------------------------------------------


async def _mark_sent(held: Held, context: Context, *, entry: TimelineEntry | None = None) -> Held:
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


async def _mark_unanswered(held: Held, context: Context) -> Held:
    """A call whose maker died under it: say so before asking about it."""
    if held.operation.call is not CallState.SENT:
        return held
    return await _write(held, replace(held.operation, call=CallState.UNANSWERED), context)


async def _end_call(
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


async def _take_new_key(held: Held, entry: TimelineEntry, context: Context) -> Operation:
    """The gateway replays a stored failure under this key, and nothing ran under it: the proof a new key needs."""
    operation = held.operation
    if operation.key_number >= MOST_KEYS:
        return await _refuse(
            held, GatewayRejected("too many stored failures", gateway_code="gateway_error"), entry, context
        )
    rotated = replace(operation, key_number=operation.key_number + 1)
    return await _end_call(replace(held, operation=rotated), context, call=CallState.UNSENT, entry=entry)


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


async def _adopt(held: Held, outcome: Outcome, source: FactSource, entry: TimelineEntry, context: Context) -> Operation:
    """The gateway has said what became of it. Facts are facts whoever holds the lease by now."""
    operation, now = held.operation, context.clock.now()
    is_pending = outcome.status is OutcomeStatus.PENDING
    looks = operation.looks + 1 if operation.status is OperationStatus.SUBMITTED else 0
    answered = replace(operation, call=CallState.ANSWERED, looks=looks, gateway_reference=outcome.gateway_reference)
    submitted = replace(answered, status=OperationStatus.SUBMITTED)
    answered = replace(answered, next_look_at=look_again_at(submitted, now) if is_pending else None)
    facts = (*outcome.observations, _fact_of(operation, outcome))
    return await _record(held, answered, facts, source, entry, context, references=outcome.references)


async def _refuse(
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
    return await _record(held, answered, (refused,), FactSource.API, entry, context, only_if_held=True)


async def _record(
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
        if references and await tx.parked.wake(held.payment.gateway, references):
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


async def _call_a_person_if_due(held: Held, limits: Limits, context: Context) -> Held:
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
