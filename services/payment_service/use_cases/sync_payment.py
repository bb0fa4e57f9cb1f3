"""Ask the gateway about a payment now, and record what it says."""

from __future__ import annotations

from dataclasses import dataclass

from services.payment_service.domain.models import FactSource, Payment
from services.payment_service.domain.operations import OperationKind
from services.payment_service.gateways.port import Snapshot
from services.payment_service.use_cases.ports import Context
from services.payment_service.use_cases.record_facts import Learnt, record_facts
from services.payment_service.use_cases.run_operations import complete_approved
from shared.errors import GatewayObjectNotFound, NotFound


@dataclass(frozen=True, slots=True)
class Synced:
    payment: Payment
    changed: bool
    """Whether the gateway told us something that changed the payment's state."""
    is_approved: bool = False
    """Whether a completion of it is to be made, or under way."""


async def sync_payment(payment_id: str, source: FactSource, context: Context, *, asked_by: str | None = None) -> Synced:
    """What the gateway says are facts like any other.

    A gateway that does not know the payment (yet) changes nothing: reads may lag behind writes (failure PY15). Raises
    NotFound, GatewayUnavailable, GatewayOutcomeUnknown.
    """
    async with context.uow() as tx:
        payment = await tx.payments.get(payment_id)
        if payment is None:
            raise NotFound
        references = await tx.payments.references(payment_id)
        attempt = await tx.attempts.latest(payment_id)
    assert attempt is not None, "a payment is stored with its first attempt"
    try:
        snapshot = await context.gateways.get(payment.gateway, payment.account).retrieve(
            references, our_reference=attempt.reference
        )
    except GatewayObjectNotFound:
        snapshot = Snapshot((), ())
    synced = await record_snapshot(payment_id, snapshot, source, context, learnt_by=asked_by)
    if not synced.is_approved:
        return synced
    # The shopper has agreed, at a gateway where that alone moves nothing: complete it now, while they wait.
    await complete_approved(payment_id, context)
    async with context.uow() as tx:
        completed = await tx.payments.get(payment_id)
    assert completed is not None
    return Synced(completed, changed=True)


async def record_snapshot(
    payment_id: str, snapshot: Snapshot, source: FactSource, context: Context, *, learnt_by: str | None = None
) -> Synced:
    now = context.clock.now()
    async with context.uow() as tx:
        payment = await tx.payments.get_for_update(payment_id)
        if payment is None:
            raise NotFound
        await tx.payments.mark_asked(payment_id, now)
        learnt = Learnt(source, now, by=learnt_by)
        recorded = await record_facts(tx, payment, snapshot.observations, learnt, references=snapshot.references)
        operations = recorded.operations or await tx.operations.of_payment(payment_id)
    is_approved = any(o.kind is OperationKind.COMPLETION and o.is_unsettled for o in operations)
    return Synced(recorded.payment, recorded.changed, is_approved)
