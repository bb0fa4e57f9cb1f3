"""End a payment that has not been paid: close its page at the gateway, or learn that it was paid after all."""

from __future__ import annotations

from dataclasses import replace

from services.payment_service.domain.errors import PaymentEnded
from services.payment_service.domain.models import OPEN, AttemptStatus, FactKind, FactSource, Observation, Payment
from services.payment_service.domain.operations import OperationKind
from services.payment_service.gateways.port import Snapshot
from services.payment_service.use_cases.open_session import LEASE_SECONDS, open_session
from services.payment_service.use_cases.ports import Context
from services.payment_service.use_cases.record_facts import Learnt, record_facts
from services.payment_service.use_cases.sync_payment import record_snapshot, sync_payment
from shared.errors import GatewayRejected, NotFound


async def close_payment(payment_id: str, reason: str, context: Context) -> Payment:
    """The payment as it stands afterwards: canceled, or with the money that won (design.md §4).

    A session whose creation was never answered is found first (by repeating the call with its key), because a page that
    nobody knows of could still be paid. Raises NotFound, GatewayUnavailable, GatewayOutcomeUnknown: then it is not
    closed.
    """
    async with context.uow() as tx:
        payment = await tx.payments.get(payment_id)
        attempt = await tx.attempts.latest(payment_id)
    if payment is None or attempt is None:
        raise NotFound
    if payment.status not in OPEN:
        return payment
    if attempt.status in (AttemptStatus.CREATED, AttemptStatus.REJECTED):
        closed = await _cancel_unsent(payment_id, reason, context)
        if closed is not None:
            return closed
    if attempt.status is not AttemptStatus.OPEN:
        try:
            attempt = (await open_session(payment_id, context)).attempt
        except PaymentEnded:  # it has ended while we were at it
            return await _payment(payment_id, context)
        except GatewayRejected:  # the gateway refuses to make it, so there is none to be paid
            closed = await _cancel_unsent(payment_id, reason, context)
            if closed is not None:
                return closed
            raise
    if attempt.gateway_reference is None:  # paid, though its session was never confirmed
        return await _payment(payment_id, context)
    if await _is_being_completed(payment_id, context):
        # The shopper has approved and we are taking the money: whatever comes of it is known before the page can close.
        return (await sync_payment(payment_id, FactSource.API, context)).payment
    adapter = context.gateways.get(payment.gateway, payment.account)
    snapshot = await adapter.close_session(attempt.gateway_reference, our_reference=attempt.reference)
    named = Snapshot(snapshot.references, tuple(_with_reason(o, reason) for o in snapshot.observations))
    return (await record_snapshot(payment_id, named, FactSource.API, context)).payment


async def _is_being_completed(payment_id: str, context: Context) -> bool:
    async with context.uow() as tx:
        operations = await tx.operations.of_payment(payment_id)
    return any(o.kind is OperationKind.COMPLETION and o.is_unsettled for o in operations)


async def _payment(payment_id: str, context: Context) -> Payment:
    async with context.uow() as tx:
        payment = await tx.payments.get(payment_id)
    if payment is None:
        raise NotFound
    return payment


async def _cancel_unsent(payment_id: str, reason: str, context: Context) -> Payment | None:
    """Cancel a payment of which the gateway never heard; None where a call to the gateway has begun meanwhile."""
    token = context.ids.new("lse")
    async with context.uow() as tx:
        payment = await tx.payments.get_for_update(payment_id)
        attempt = await tx.attempts.latest(payment_id)
        if payment is None or attempt is None:
            raise NotFound
        if attempt.status not in (AttemptStatus.CREATED, AttemptStatus.REJECTED):
            return None
        rejected = replace(attempt, status=AttemptStatus.REJECTED)
        if not await tx.attempts.lease(rejected, token=token, seconds=LEASE_SECONDS):
            return None
        learnt = Learnt(FactSource.API, context.clock.now())
        never_sent = Observation(FactKind.CANCELED, attempt.reference, reason=reason)
        return (await record_facts(tx, payment, (never_sent,), learnt)).payment


def _with_reason(observation: Observation, reason: str) -> Observation:
    return replace(observation, reason=reason) if observation.reason == "closed_by_us" else observation
