"""The one way in for everything that is learnt about a payment: append facts, derive, write all that follows, in the
caller's transaction.

What follows from facts and calls is derived by ``domain.transitions.derive``; this module writes it down: the payment's
state, its operations and disputes, the ledger, the timeline, the events.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from services.payment_service.domain.ledger import postings
from services.payment_service.domain.models import (
    OPEN,
    WITH_MONEY,
    Fact,
    FactKind,
    FactSource,
    Observation,
    Payment,
)
from services.payment_service.domain.operation_state import DisputeClaim, RefundClaim
from services.payment_service.domain.operations import (
    CallState,
    Dispute,
    DisputeStatus,
    Operation,
    OperationKind,
    OperationStatus,
    Origin,
)
from services.payment_service.domain.timeline import (
    TimelineEntry,
    dispute_entry,
    event_entry,
    fact_entry,
    operation_entry,
    status_entry,
)
from services.payment_service.domain.transitions import Derived, derive
from services.payment_service.domain.unknown_outcome import look_again_at
from services.payment_service.use_cases.announce import Changes, announce, events_of_change
from services.payment_service.use_cases.ports import OPERATIONS_CHANNEL
from services.payment_service.use_cases.recording_ports import RecordingTransaction
from shared.money import Money
from shared.replacing import replaced

IMPORT_LOOKED_AT_AFTER = timedelta(minutes=10)
"""A refund from the gateway's dashboard that is pending: its own webhook usually comes first."""

_ID_PREFIXES = {
    OperationKind.CAPTURE: "cap",
    OperationKind.VOID: "voi",
    OperationKind.REFUND: "ref",
    OperationKind.COMPLETION: "cmp",
}


@dataclass(frozen=True, slots=True)
class Learnt:
    """Where facts come from: ``by`` is the delivery, request or run that brought them.

    ``at``: when it arrived here. ``recorded_at``: when it is written down, where that is later: a webhook may have been
    parked for days, and whoever asks what has changed since yesterday must be shown what it changes today.
    """

    source: FactSource
    at: datetime
    by: str | None = None
    recorded_at: datetime | None = None

    @property
    def updated_at(self) -> datetime:
        return max(self.at, self.recorded_at or self.at)


@dataclass(frozen=True, slots=True)
class Recorded:
    payment: Payment
    changed: bool
    """Whether the payment's state is another one than before."""
    operations: tuple[Operation, ...] = ()


async def record_facts(
    tx: RecordingTransaction,
    payment: Payment,
    observations: Sequence[Observation],
    learnt: Learnt,
    *,
    references: Sequence[str] = (),
    session_reference: str | None = None,
    session_known: bool = False,
    entries: Sequence[TimelineEntry] = (),
    derive_again: bool = False,
) -> Recorded:
    """Append what is new and derive the state again. ``payment`` must be locked by this transaction.

    Repeating it with the same observations changes nothing (failures W1, W2, PY14), whichever sources bring them.
    ``session_known``: the call that opens its session has been answered by now. ``entries``: what else the timeline
    tells. ``derive_again``: the caller has changed an operation's call, so derive even if no fact is new.
    """
    has_new_reference = bool(references) and await tx.payments.add_references(payment, references)
    fresh: list[Fact] = []
    for observation in dict.fromkeys(observations):
        fact = Fact(observation, learnt.source, learnt.at)
        if await tx.facts.add(payment.payment_id, fact, learnt_by=learnt.by):
            fresh.append(fact)
    # The session's own id is what the payment is called by, even where a webhook has named another one before.
    reference = session_reference or payment.gateway_reference or next(iter(references), None)
    named = _named(payment, reference, session_unknown=payment.session_unknown and not session_known)
    if not fresh and (named is payment or named == payment) and not derive_again:
        if has_new_reference:
            await tx.payments.touch(payment.payment_id, learnt.updated_at)
        if entries:
            await tx.timeline.add(payment.payment_id, *entries)
        return Recorded(payment, changed=False)
    if fresh and payment.state.has_unknown_operation:
        await tx.operations.look_now(payment.payment_id, learnt.at)
        tx.hint(OPERATIONS_CHANNEL)
    told = [*entries, *(fact_entry(fact, learnt.by) for fact in fresh)]
    has_more = bool(fresh) or has_new_reference
    return await settle(tx, payment, learnt, after=named, entries=told, has_more=has_more)


def _named(payment: Payment, reference: str | None, *, session_unknown: bool) -> Payment:
    if (reference, session_unknown) == (payment.gateway_reference, payment.session_unknown):
        return payment
    return replace(payment, gateway_reference=reference, session_unknown=session_unknown)


async def settle(
    tx: RecordingTransaction,
    before: Payment,
    learnt: Learnt,
    *,
    after: Payment | None = None,
    added: Sequence[Operation] = (),
    entries: Sequence[TimelineEntry] = (),
    has_more: bool = False,
) -> Recorded:
    """Derive from all facts and calls, and write what has changed. The caller holds the payment's lock.

    ``after``: the payment with what the caller has changed of it. ``added``: operations that begin with this
    transaction. ``entries``: what else the timeline tells. ``has_more``: it has a new fact or reference, which readers
    of its movements have to see even if its state stays as it is.
    """
    payment = after or before
    for operation in added:
        await tx.operations.add(operation)
    facts = await tx.facts.all(payment.payment_id)
    known = await tx.operations.of_payment(payment.payment_id)
    derived = derive(payment.terms, facts, known)
    changes = Changes(before=before, operations=[(None, operation) for operation in added])
    written = await _write_operations(tx, payment, known, derived, facts, learnt, changes)
    await _write_disputes(tx, payment, derived.disputes, learnt, changes)
    payment = replaced(
        payment,
        state=derived.state,
        capture_before=_capture_before(payment, facts),
        # Once the payment is decided, it no longer matters what an unanswered call to open its page did.
        session_unknown=payment.session_unknown and derived.state.status in OPEN,
    )
    if payment == before and not changes.operations and not changes.disputes:
        if has_more or written != list(known):
            await tx.payments.touch(payment.payment_id, learnt.updated_at)
        if entries:
            await tx.timeline.add(payment.payment_id, *entries)
        return Recorded(before, changed=False, operations=tuple(written))
    payment = await _mark_duplicate(tx, before, payment)
    events = events_of_change(payment, changes)
    version = before.version + 1 if events else before.version  # what no event tells of is no new version
    payment = replaced(payment, version=version, updated_at=max(before.updated_at, learnt.updated_at))
    await tx.payments.save(payment)
    lines = postings(before.state, payment.state)
    if lines:
        await tx.ledger.post(payment, lines, cause=learnt.source.value, at=learnt.at)
    told = [*entries, *_entries(before, payment, changes, learnt)]
    told += [event_entry(model.TYPE, payment.version, at=learnt.at, reason=reason) for model, reason, _ in events]
    await tx.timeline.add(payment.payment_id, *told)
    await announce(tx, payment, before, events, learnt)
    return Recorded(payment, changed=payment.state != before.state, operations=tuple(written))


async def _write_operations(
    tx: RecordingTransaction,
    payment: Payment,
    known: Sequence[Operation],
    derived: Derived,
    facts: Sequence[Fact],
    learnt: Learnt,
    changes: Changes,
) -> list[Operation]:
    written = []
    for old, settled in zip(known, derived.operations, strict=True):
        new = _stamped(settled, learnt) if settled != old else old
        if new is not old:
            await tx.operations.save(new)
        if new.status is not old.status:
            changes.operations.append((old.status, new))
        written.append(new)
    for claim in derived.imported:
        if _may_be_ours(claim, derived.operations):
            continue
        imported = _import(tx, payment, claim, learnt)
        if imported is not None:
            await tx.operations.add(imported)
            changes.operations.append((None, imported))
            written.append(imported)
    completion = _completion_due(tx, payment, derived, facts, learnt)
    if completion is not None:
        await tx.operations.add(completion)
        changes.operations.append((None, completion))
        written.append(completion)
        tx.hint(OPERATIONS_CHANNEL)
    return written


def _stamped(operation: Operation, learnt: Learnt) -> Operation:
    """An operation that is settled has nothing left to do; one that is taken up again later is looked at again."""
    settled_at = None if operation.is_unsettled else operation.settled_at or learnt.at
    next_look_at = None
    if operation.is_unsettled:  # also one that was settled before: nobody else would look at it again
        next_look_at = operation.next_look_at or look_again_at(operation, learnt.at)
    return replace(operation, updated_at=learnt.at, settled_at=settled_at, next_look_at=next_look_at)


def _may_be_ours(claim: RefundClaim, operations: Sequence[Operation]) -> bool:
    """A refund of ours can be known by its webhook before its call is answered, and not every webhook names our
    reference. It is counted meanwhile, beside our reservation; once our call has ended it is ours or a stranger's
    (failure RF9).
    """
    return any(
        operation.kind is OperationKind.REFUND
        and operation.is_unsettled
        and operation.call in (CallState.SENT, CallState.UNANSWERED)
        and operation.gateway_reference is None
        and (operation.amount.amount_minor, operation.amount.currency) == (claim.amount_minor, claim.currency)
        for operation in operations
    )


def _import(tx: RecordingTransaction, payment: Payment, claim: RefundClaim, learnt: Learnt) -> Operation | None:
    """The row of a refund that was made at the gateway without us (failure RF6)."""
    if claim.amount_minor <= 0 or claim.currency is None or claim.object_reference is None:
        return None
    return Operation(
        operation_id=tx.new_id("ref"),
        payment_id=payment.payment_id,
        kind=OperationKind.REFUND,
        reference=tx.new_reference(),
        amount=Money(claim.amount_minor, claim.currency),
        origin=Origin.GATEWAY,
        actor=payment.gateway,
        created_at=learnt.at,
        updated_at=learnt.at,
        target=claim.about,
        status=claim.status,
        call=CallState.ANSWERED,
        gateway_reference=claim.object_reference,
        failure_code=claim.failure_code,
        first_sent_at=learnt.at,
        settled_at=None if claim.status is OperationStatus.SUBMITTED else learnt.at,
        next_look_at=learnt.at + IMPORT_LOOKED_AT_AFTER if claim.status is OperationStatus.SUBMITTED else None,
    )


def _completion_due(
    tx: RecordingTransaction, payment: Payment, derived: Derived, facts: Sequence[Fact], learnt: Learnt
) -> Operation | None:
    """The shopper has approved, and at this gateway nothing moves before we say so.

    One completion at a time, and a new one only for a new approval: one that was declined sends the shopper back.
    """
    approvals = [fact.observation for fact in facts if fact.observation.kind is FactKind.APPROVED]
    if not approvals:
        return None
    done = [operation for operation in derived.operations if operation.kind is OperationKind.COMPLETION]
    if not _may_complete(payment, derived, facts) or len(done) >= len(approvals):
        return None
    if any(operation.is_unsettled or operation.status is OperationStatus.SUCCEEDED for operation in done):
        return None
    operation = new_operation(
        tx,
        payment,
        OperationKind.COMPLETION,
        payment.amount,
        origin=Origin.POLICY,
        actor="shopper_approved",
        learnt=learnt,
    )
    return replace(operation, target=approvals[-1].object_reference, request_key=f"approval:{len(done) + 1}")


def _may_complete(payment: Payment, derived: Derived, facts: Sequence[Fact]) -> bool:
    """Nothing is decided yet; or the gateway holds what it was to take at once, and waits for us to take it (Tabby)."""
    if derived.state.status in OPEN:
        return True
    is_given_up = any(fact.observation.kind is FactKind.CANCELED for fact in facts)
    return replace(payment, state=derived.state).waits_to_be_taken and not is_given_up


def new_operation(
    tx: RecordingTransaction,
    payment: Payment,
    kind: OperationKind,
    amount: Money,
    *,
    origin: Origin,
    actor: str,
    learnt: Learnt,
) -> Operation:
    """An operation that the runner sends at once; the caller adds its target and what makes it unique."""
    return Operation(
        operation_id=tx.new_id(_ID_PREFIXES[kind]),
        payment_id=payment.payment_id,
        kind=kind,
        reference=tx.new_reference(),
        amount=amount,
        origin=origin,
        actor=actor,
        created_at=learnt.at,
        updated_at=learnt.at,
        next_look_at=learnt.at,
    )


async def _write_disputes(
    tx: RecordingTransaction, payment: Payment, claims: Sequence[DisputeClaim], learnt: Learnt, changes: Changes
) -> None:
    if not claims:
        return
    known = {dispute.gateway_reference: dispute for dispute in await tx.disputes.of_payment(payment.payment_id)}
    for claim in claims:
        before = known.get(claim.object_reference)
        now = _dispute(tx, payment, claim, before, learnt)
        if now != before:
            await tx.disputes.save(now)
            changes.disputes.append((before.status if before else None, now))


def _dispute(
    tx: RecordingTransaction, payment: Payment, claim: DisputeClaim, before: Dispute | None, learnt: Learnt
) -> Dispute:
    is_over = claim.status is not DisputeStatus.OPEN
    return Dispute(
        dispute_id=before.dispute_id if before else tx.new_id("dsp"),
        payment_id=payment.payment_id,
        gateway_reference=claim.object_reference,
        amount=claim.amount or Money(0, payment.amount.currency),
        status=claim.status,
        reason=claim.reason,
        opened_at=before.opened_at if before else learnt.at,
        closed_at=((before.closed_at if before else None) or learnt.at) if is_over else None,
    )


def _capture_before(payment: Payment, facts: Sequence[Fact]) -> datetime | None:
    """When the hold ends: what the gateway named, else its usual time after the first authorization."""
    holds = [fact for fact in facts if fact.observation.kind is FactKind.AUTHORIZED]
    named = [fact.observation.capture_before for fact in holds if fact.observation.capture_before is not None]
    if named:
        return max(named)  # a hold that was renewed names a later moment
    if not holds or payment.authorization_valid_for is None:
        return None
    since = min(fact.observation.occurred_at or fact.received_at for fact in holds)
    return since + payment.authorization_valid_for


async def _mark_duplicate(tx: RecordingTransaction, before: Payment, payment: Payment) -> Payment:
    """The first payment of an order to succeed keeps the order; a later one is marked (failure PY7)."""
    if payment.status not in WITH_MONEY or before.status in WITH_MONEY:
        return payment
    others = await tx.payments.siblings_with_money(payment)
    return replace(payment, duplicate_of=others[0]) if others else payment


def _entries(before: Payment, after: Payment, changes: Changes, learnt: Learnt) -> list[TimelineEntry]:
    told = [operation_entry(operation, was) for was, operation in changes.operations]
    told += [dispute_entry(dispute, was, at=learnt.at, source=learnt.source.value) for was, dispute in changes.disputes]
    if after.state != before.state or after.duplicate_of != before.duplicate_of:
        told.append(status_entry(before, after, learnt))
    return told
