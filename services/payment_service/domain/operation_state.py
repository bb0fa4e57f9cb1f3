"""What facts say about operations, refunds and disputes. Part of the reducer (transitions.py): pure, order-free.

A refund is one thing under two names: our operation's reference, and the gateway's id. Facts that carry both link them;
a refund without an operation of ours was made at the gateway and is imported.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from services.payment_service.domain.models import FactKind, Observation
from services.payment_service.domain.operations import (
    CallState,
    DisputeStatus,
    Operation,
    OperationKind,
    OperationStatus,
    Origin,
)
from shared.money import Money

_REFUND_KINDS = frozenset(
    {FactKind.REFUND_PENDING, FactKind.REFUND_SUCCEEDED, FactKind.REFUND_FAILED, FactKind.REFUND_REVERSED}
)
_OPERATION_KINDS = frozenset(
    {
        FactKind.OPERATION_PENDING,
        FactKind.OPERATION_SUCCEEDED,
        FactKind.OPERATION_FAILED,
        FactKind.OPERATION_REFUSED,
    }
)
_DISPUTE_KINDS = frozenset({FactKind.DISPUTE_OPENED, FactKind.DISPUTE_WON, FactKind.DISPUTE_LOST})
_SAYS_WHY = frozenset(
    {FactKind.REFUND_FAILED, FactKind.REFUND_REVERSED, FactKind.OPERATION_FAILED, FactKind.OPERATION_REFUSED}
)
_BY_CALL: Mapping[CallState, OperationStatus] = {
    CallState.UNSENT: OperationStatus.PENDING,
    CallState.SENT: OperationStatus.PENDING,
    CallState.UNANSWERED: OperationStatus.UNKNOWN,
    CallState.ANSWERED: OperationStatus.PENDING,  # with its fact in the same transaction, so this is never seen
    CallState.WITHDRAWN: OperationStatus.CANCELED,
}


COUNTED_AS_OURS = "counted_as_ours"
"""The failure code of an imported refund that turned out to be one of ours."""


@dataclass(frozen=True, slots=True)
class RefundClaim:
    """One refund as facts and calls tell it. ``operation`` is ours, or None where it was made at the gateway."""

    object_reference: str | None
    operation: Operation | None
    status: OperationStatus
    amount_minor: int
    currency: str | None
    about: str | None
    failure_code: str | None = None


@dataclass(frozen=True, slots=True)
class DisputeClaim:
    object_reference: str
    status: DisputeStatus
    amount: Money | None
    reason: str | None
    about: str | None = None


def settle_operations(operations: Sequence[Operation], observations: Iterable[Observation]) -> tuple[Operation, ...]:
    """The operations with status, gateway reference and failure code as the facts and their calls have it."""
    if not operations:
        return ()
    observations = tuple(observations)
    by_operation = _facts_by_operation(operations, observations)
    return tuple(
        _settled_import(operation, by_operation.get(operation.reference, ()))
        if operation.origin is Origin.GATEWAY
        else _settled(operation, by_operation.get(operation.reference, ()), observations)
        for operation in operations
    )


def _settled_import(operation: Operation, facts: Sequence[Observation]) -> Operation:
    """A refund that was taken for the gateway's own is all that its facts say, amount included.

    Where they turn out to be about a refund of ours, whose answer came after its webhook, it counts for nothing (RF9).
    """
    if not facts:
        return replace(operation, status=OperationStatus.CANCELED, failure_code=COUNTED_AS_OURS)
    claim = _imported(operation.gateway_reference or "", facts)
    amount = operation.amount
    if claim.amount_minor > 0 and claim.currency is not None:
        amount = Money(claim.amount_minor, claim.currency)
    is_bad = claim.status in (OperationStatus.FAILED, OperationStatus.REVERSED)
    return replace(
        operation,
        status=claim.status,
        amount=amount,
        target=claim.about or operation.target,
        failure_code=claim.failure_code if is_bad else None,
    )


def _settled(operation: Operation, facts: Sequence[Observation], observations: Sequence[Observation]) -> Operation:
    # A refund is called by what facts about refunds call it: named otherwise, it would lose those very facts.
    telling = [f for f in facts if f.kind in _REFUND_KINDS] if operation.kind is OperationKind.REFUND else facts
    names = sorted(fact.object_reference for fact in telling if fact.object_reference != operation.reference)
    reference = operation.gateway_reference or next(iter(names), None)
    status = _status(operation, {fact.kind for fact in facts})
    if status is OperationStatus.SUCCEEDED and _was_taken_back(operation, reference, observations):
        status = OperationStatus.REVERSED
    codes = [fact.reason for fact in facts if fact.kind in _SAYS_WHY and fact.reason]
    is_bad = status in (OperationStatus.FAILED, OperationStatus.REVERSED)
    code = min(codes, default=None) if is_bad else None
    if status is OperationStatus.CANCELED:
        code = "never_sent"
    return replace(operation, status=status, gateway_reference=reference, failure_code=code)


def _status(operation: Operation, kinds: set[FactKind]) -> OperationStatus:
    if operation.kind is OperationKind.REFUND:
        of_refund = _refund_status(kinds)
        if of_refund is not None:
            return of_refund
    if FactKind.OPERATION_SUCCEEDED in kinds:
        return OperationStatus.SUCCEEDED
    if FactKind.OPERATION_FAILED in kinds:
        return OperationStatus.FAILED
    if FactKind.OPERATION_PENDING in kinds:
        return OperationStatus.SUBMITTED
    if FactKind.OPERATION_REFUSED in kinds:  # last: a success learnt otherwise outweighs a refusal
        return OperationStatus.FAILED
    if operation.call is CallState.SENT and operation.calls > 1:
        return OperationStatus.UNKNOWN  # an earlier call of it was not answered, and this one has not been yet
    return _BY_CALL[operation.call]


def _refund_status(kinds: set[FactKind]) -> OperationStatus | None:
    """A refund that has succeeded and also failed was taken back later: gateways document that order, and no other."""
    if FactKind.REFUND_REVERSED in kinds or {FactKind.REFUND_SUCCEEDED, FactKind.REFUND_FAILED} <= kinds:
        return OperationStatus.REVERSED
    if FactKind.REFUND_SUCCEEDED in kinds:
        return OperationStatus.SUCCEEDED
    if FactKind.REFUND_FAILED in kinds:
        return OperationStatus.FAILED
    return OperationStatus.SUBMITTED if FactKind.REFUND_PENDING in kinds else None


def _was_taken_back(operation: Operation, reference: str | None, observations: Sequence[Observation]) -> bool:
    """A capture that is an object of its own, of which nothing is left."""
    if operation.kind is not OperationKind.CAPTURE or reference is None or reference == operation.target:
        return False
    return any(o.kind is FactKind.CAPTURE_REVERSED and o.object_reference == reference for o in observations)


def _facts_by_operation(
    operations: Sequence[Operation], observations: Sequence[Observation]
) -> dict[str, list[Observation]]:
    ours = {operation.reference for operation in operations}
    named = _names_of_refunds(operations, observations)
    found: dict[str, list[Observation]] = {}
    for observation in observations:
        reference = None
        if observation.kind in _REFUND_KINDS:
            reference = named.get(observation.object_reference)
        elif observation.kind in _OPERATION_KINDS and observation.operation in ours:
            reference = observation.operation
        if reference is not None:
            found.setdefault(reference, []).append(observation)
    return found


def _names_of_refunds(operations: Sequence[Operation], observations: Sequence[Observation]) -> dict[str, str]:
    """The gateway's id of a refund → our operation's reference. One of ours comes before one that was imported.

    One refund of the gateway's belongs to one of ours: a second that echoes the same reference, or one that echoes
    the reference of something else than a refund, is money of its own and counts as made at the gateway.
    """
    refunds = sorted((o for o in operations if o.kind is OperationKind.REFUND), key=lambda o: o.reference)
    own = [operation for operation in refunds if operation.origin is not Origin.GATEWAY]
    imported = [operation for operation in refunds if operation.origin is Origin.GATEWAY]
    named = {o.gateway_reference: o.reference for o in own if o.gateway_reference is not None}
    nameless = {operation.reference for operation in own if operation.gateway_reference is None}
    for observation in sorted(observations, key=lambda o: (o.object_reference, o.operation or "")):
        is_free = observation.object_reference not in named
        if observation.kind in _REFUND_KINDS and observation.operation in nameless and is_free:
            named[observation.object_reference] = observation.operation
            nameless.discard(observation.operation)
    for operation in imported:
        if operation.gateway_reference is not None:
            named.setdefault(operation.gateway_reference, operation.reference)
    return named


def refunds_claimed(operations: Sequence[Operation], observations: Iterable[Observation]) -> tuple[RefundClaim, ...]:
    """Every refund once: those of our (settled) operations, and those that were made at the gateway."""
    observations = tuple(o for o in observations if o.kind in _REFUND_KINDS or o.kind in _OPERATION_KINDS)
    if not observations and not operations:
        return ()
    named = _names_of_refunds(operations, observations)
    strangers: dict[str, list[Observation]] = {}
    for observation in observations:
        if observation.kind in _REFUND_KINDS and observation.object_reference not in named:
            strangers.setdefault(observation.object_reference, []).append(observation)
    by_operation = _facts_by_operation(operations, observations)
    own = [
        _claim_of(operation, by_operation.get(operation.reference, ()))
        for operation in operations
        if operation.kind is OperationKind.REFUND
    ]
    return (*own, *(_imported(reference, facts) for reference, facts in sorted(strangers.items())))


def _claim_of(operation: Operation, facts: Sequence[Observation]) -> RefundClaim:
    """What the gateway says that it gives back counts, where it says so; else what we asked for."""
    said = [fact.amount for fact in facts if fact.amount is not None and fact.kind in _REFUND_KINDS]
    amount = max(said, key=lambda money: (money.amount_minor, money.currency), default=operation.amount)
    return RefundClaim(
        operation.gateway_reference,
        operation,
        operation.status,
        amount.amount_minor,
        amount.currency,
        operation.target,
        operation.failure_code,
    )


def _imported(reference: str, facts: Sequence[Observation]) -> RefundClaim:
    amounts = sorted(((f.amount.amount_minor, f.amount.currency) for f in facts if f.amount is not None), reverse=True)
    amount, currency = amounts[0] if amounts else (0, None)
    status = _refund_status({fact.kind for fact in facts})
    assert status is not None, "grouped by facts about refunds"
    about = min((fact.about for fact in facts if fact.about), default=None)
    code = min((fact.reason for fact in facts if fact.kind in _SAYS_WHY and fact.reason), default=None)
    return RefundClaim(reference, None, status, amount, currency, about, code)


def disputes_claimed(observations: Iterable[Observation]) -> tuple[DisputeClaim, ...]:
    """A dispute that was ever lost is lost; one that was won takes nothing; else it is open (failure RF12)."""
    grouped: dict[str, list[Observation]] = {}
    for observation in observations:
        if observation.kind in _DISPUTE_KINDS:
            grouped.setdefault(observation.object_reference, []).append(observation)
    return tuple(_dispute(reference, facts) for reference, facts in sorted(grouped.items()))


def _dispute(reference: str, facts: Sequence[Observation]) -> DisputeClaim:
    kinds = {fact.kind for fact in facts}
    status = DisputeStatus.OPEN
    if FactKind.DISPUTE_LOST in kinds:
        status = DisputeStatus.LOST
    elif FactKind.DISPUTE_WON in kinds:
        status = DisputeStatus.WON
    # Where the end of a dispute names an amount, that is what it came to; else the largest that was claimed.
    final = [f for f in facts if f.kind is FactKind.DISPUTE_LOST and f.amount is not None]
    amounts = [f.amount for f in (final or facts) if f.amount is not None]
    amount = max(amounts, key=lambda money: (money.amount_minor, money.currency), default=None)
    reason = min((fact.reason for fact in facts if fact.reason), default=None)
    about = min((fact.about for fact in facts if fact.about), default=None)
    return DisputeClaim(reference, status, amount, reason, about)
