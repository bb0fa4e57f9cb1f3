"""Call the gateway for an operation: the second of reserve, call, record (record_call.py is the third).

Whoever drives an operation holds its lease. Everything that a crash can leave behind is in the row: ``unsent`` is sent
by the runner, ``sent`` whose lease has run out is an unanswered call, ``unanswered`` is looked up
(domain/unknown_outcome.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from datetime import timedelta
from typing import TypeVar

import structlog

from services.payment_service.domain.breaker import OperationClass
from services.payment_service.domain.models import OPEN, FactSource
from services.payment_service.domain.operations import CallState, Operation, OperationKind, OperationStatus, Origin
from services.payment_service.domain.timeline import TimelineEntry
from services.payment_service.domain.unknown_outcome import (
    Absence,
    Limits,
    Step,
    is_proof,
    look_again_at,
    meaning_of_absence,
    next_step,
)
from services.payment_service.gateways.port import GatewayAdapter, KeyUsedUp, MoneyCall
from services.payment_service.use_cases.ports import Context
from services.payment_service.use_cases.record_call import (
    Held,
    LeaseLost,
    adopt,
    call_a_person_if_due,
    end_call,
    mark_sent,
    mark_unanswered,
    record,
    refuse,
    take_new_key,
)
from services.payment_service.use_cases.stopwatch import Stopwatch
from shared.errors import (
    DomainError,
    GatewayError,
    GatewayOutcomeUnknown,
    GatewayRejected,
    GatewayUnavailable,
    NotFound,
)

log = structlog.get_logger()

CALL_SHARE_OF_LEASE = 0.75
"""A call ends, answered or not, well before the lease that protects it."""


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
    adapter = context.gateways.get(held.payment.gateway, held.payment.account)
    limits = limits_of(adapter, held.operation.kind, context)
    match next_step(held.operation, limits, context.clock.now()):
        case Step.SEND:
            return await _send_if_it_may(held, context)
        case Step.LOOK:
            return await _look(await mark_unanswered(held, context), adapter, limits, context)
        case Step.WITHDRAW:
            return await end_call(held, context, call=CallState.WITHDRAWN, look_again=False)
        case _:
            return await end_call(held, context, call=held.operation.call, look_again=False)


async def _send_if_it_may(held: Held, context: Context) -> Operation:
    """What was never sent: not while the breaker is open, and no completion of a payment that has ended."""
    try:
        context.gateways.require_available(held.payment.gateway, OperationClass.MONEY, held.payment.account)
    except GatewayUnavailable:
        return await _put_off(held, context)
    marked = await mark_sent(held, context)
    may_complete = marked.payment.status in OPEN or marked.payment.waits_to_be_taken
    if marked.operation.kind is OperationKind.COMPLETION and not may_complete:
        return await end_call(marked, context, call=CallState.WITHDRAWN, look_again=False)
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
        return await end_call(held, context, call=CallState.ANSWERED, look_again=is_open)
    operation, adapter = held.operation, context.gateways.get(held.payment.gateway, held.payment.account)
    is_repeated = operation.calls > 1
    if _has_waited_too_long(operation, context):  # a pause of ours: the lease might end before the call does
        state = CallState.UNANSWERED if is_repeated else CallState.UNSENT
        return await end_call(held, context, call=state)
    stopwatch = Stopwatch(operation.kind.value, held.payment.gateway, context.clock)
    try:
        outcome = await _within_lease(_CALLS[operation.kind](adapter, held.call), context)
    except KeyUsedUp as error:
        entry = stopwatch.entry(error, operation.reference, result="key_used_up")
        return await take_new_key(held, entry, context)
    except GatewayUnavailable as error:
        # This call never arrived. An earlier one of the same operation may have.
        state = CallState.UNANSWERED if is_repeated else CallState.UNSENT
        return await end_call(held, context, call=state, entry=stopwatch.entry(error, operation.reference))
    except (GatewayRejected, DomainError) as error:
        entry = stopwatch.entry(error, operation.reference)
        if is_repeated:  # the refusal may be about what an earlier, unanswered call has done
            return await _look_after_refusal(held, adapter, error, entry, context)
        return await refuse(held, error, entry, context)
    except GatewayOutcomeUnknown as error:
        entry = stopwatch.entry(error, operation.reference)
        return await end_call(held, context, call=CallState.UNANSWERED, entry=entry)
    return await adopt(held, outcome, FactSource.API, stopwatch.entry(None, operation.reference), context)


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
        held = await call_a_person_if_due(held, limits, context)
        return await end_call(held, context, call=operation.call, entry=stopwatch.entry(error, operation.reference))
    if found is not None:
        return await adopt(held, found, FactSource.RESOLVER, stopwatch.entry(None, operation.reference), context)
    held = await call_a_person_if_due(held, limits, context)
    entry = stopwatch.entry(None, operation.reference, result="absent")
    match meaning_of_absence(operation, limits, context.clock.now()):
        case Absence.SEND_AGAIN:
            return await _send(await mark_sent(held, context, entry=entry), context)
        case Absence.NEVER_RAN:
            return await refuse(held, NeverArrived(), entry, context)
        case _:
            return await end_call(held, context, call=operation.call, entry=entry)


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
        return await end_call(held, context, call=CallState.UNANSWERED, entry=entry)
    if found is not None:
        return await adopt(held, found, FactSource.RESOLVER, entry, context)
    limits, sent_before_at = limits_of(adapter, held.operation.kind, context), held.sent_before_at
    if sent_before_at is None or not is_proof(limits, sent_before_at, context.clock.now()):
        # This call was refused; whether the one before it ran, its lists cannot prove yet.
        return await end_call(held, context, call=CallState.UNANSWERED, entry=entry)
    return await refuse(held, refusal, entry, context)


async def _follow_import(held: Held, adapter: GatewayAdapter, context: Context) -> Operation:
    """A refund that was made at the gateway knows no reference of ours: ask about the payment, and it is in there."""
    operation = held.operation
    stopwatch = Stopwatch("retrieve", held.payment.gateway, context.clock)
    try:
        snapshot = await _within_lease(
            adapter.retrieve(held.call.references, our_reference=held.call.our_reference), context
        )
    except (GatewayError, DomainError) as error:
        return await end_call(held, context, call=operation.call, entry=stopwatch.entry(error, operation.reference))
    entry = stopwatch.entry(None, operation.reference)
    after = replace(operation, next_look_at=look_again_at(operation, context.clock.now()), looks=operation.looks + 1)
    facts, references = snapshot.observations, snapshot.references
    return await record(held, after, facts, FactSource.RESOLVER, entry, context, references=references)


T = TypeVar("T")


async def _within_lease(call: Awaitable[T], context: Context) -> T:
    try:
        async with asyncio.timeout(context.operations.lease_seconds * CALL_SHARE_OF_LEASE):
            return await call
    except TimeoutError as error:
        raise GatewayOutcomeUnknown from error
