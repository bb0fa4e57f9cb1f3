"""What the reconciler is told of a payment: which money moved at the gateway, under which names, and since when a call
of ours is unanswered. Pure; derived from the same facts, by the same functions, as the payment's totals.

Only money in the payment's own currency moved by our books. Sums of ``movements`` tie to the totals: sales to
``amount_captured``, always; refunds to ``amount_refunded`` and chargebacks to ``amount_dispute_lost``, unless the
gateway tells of more than was captured (``amount_excess``): then they are what it tells.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from services.payment_service.domain.models import AttemptStatus, Fact, FactKind, Observation
from services.payment_service.domain.operation_state import (
    DisputeClaim,
    RefundClaim,
    disputes_claimed,
    refunds_claimed,
)
from services.payment_service.domain.operations import (
    DisputeStatus,
    Operation,
    OperationKind,
    OperationStatus,
    Origin,
)
from services.payment_service.domain.transitions import captured_by_object

MAX_REFERENCE = 255
"""What the contract allows; no gateway's ids are as long."""

MOVING_KINDS = frozenset(
    {
        FactKind.CAPTURED,
        FactKind.CAPTURE_REVERSED,
        FactKind.REFUND_PENDING,
        FactKind.REFUND_SUCCEEDED,
        FactKind.REFUND_FAILED,
        FactKind.REFUND_REVERSED,
        FactKind.OPERATION_SUCCEEDED,
        FactKind.DISPUTE_OPENED,
        FactKind.DISPUTE_WON,
        FactKind.DISPUTE_LOST,
    }
)
"""No other fact decides which money moved, or when."""

_TAKES = frozenset({OperationKind.CAPTURE, OperationKind.COMPLETION})
_UNANSWERED = frozenset({AttemptStatus.UNKNOWN, AttemptStatus.SENDING})


class MovementKind(StrEnum):
    SALE = "sale"
    REFUND = "refund"
    CHARGEBACK = "chargeback"
    """A dispute that is lost."""
    WITHHELD = "withheld"
    """One that is open: the gateway may hold the money back until it is decided."""


@dataclass(frozen=True, slots=True)
class Movement:
    """One capture, refund or chargeback that succeeded. ``amount_minor`` is positive, in the payment's currency."""

    kind: MovementKind
    reference: str
    """The gateway's object; ours where the gateway names none."""
    our_reference: str | None
    amount_minor: int
    occurred_at: datetime
    """When the gateway says that it happened, else when we learnt of it."""


@dataclass(frozen=True, slots=True)
class SentAttempt:
    """Of an attempt what names it at the gateway."""

    reference: str
    gateway_reference: str | None
    status: AttemptStatus
    created_at: datetime


@dataclass(frozen=True, slots=True)
class PaymentSnapshot:
    """A payment as the database shows it at one moment, with all that its export is made of. No personal data."""

    payment_id: str
    order_id: str
    gateway: str
    account: str | None
    status: str
    version: int
    amount_minor: int
    currency: str
    totals: Mapping[str, int]
    """``amount_authorized`` and the others, by name, in minor units."""
    session_unknown: bool
    has_unknown_operation: bool
    conflict: str | None
    duplicate_of: str | None
    gateway_reference: str | None
    created_at: datetime
    updated_at: datetime
    facts: Sequence[Fact] = ()
    """Of MOVING_KINDS."""
    operations: Sequence[Operation] = ()
    """Settled, as they are stored."""
    attempts: Sequence[SentAttempt] = ()
    """The oldest first."""
    references: Sequence[str] = ()
    """What the gateway calls it, as far as webhooks and answers said."""

    @property
    def outcome_unknown(self) -> bool:
        return self.session_unknown or self.has_unknown_operation


def movements(snapshot: PaymentSnapshot) -> tuple[Movement, ...]:
    """The oldest first; one of each kind and reference."""
    if not snapshot.facts:
        return ()  # most payments of a bad day: nothing has moved
    found: dict[tuple[MovementKind, str], Movement] = {}
    for movement in (*_sales(snapshot), *_refunds(snapshot), *_chargebacks(snapshot)):
        known = found.get((movement.kind, movement.reference))
        found[movement.kind, movement.reference] = movement if known is None else _together(known, movement)
    return tuple(sorted(found.values(), key=lambda each: (each.occurred_at, each.kind, each.reference)))


def references(snapshot: PaymentSnapshot, moved: Iterable[Movement]) -> list[str]:
    """Every id by which the gateway knows it, and ours that were sent to the gateway; each once."""
    names: dict[str | None, None] = dict.fromkeys(snapshot.references)
    names[snapshot.gateway_reference] = None
    for attempt in snapshot.attempts:
        names[attempt.reference] = None
        names[attempt.gateway_reference] = None
    for operation in snapshot.operations:
        if operation.origin is not Origin.GATEWAY:  # the reference of an imported one never left this house
            names[operation.reference] = None
        names[operation.gateway_reference] = None
    for movement in moved:
        names[movement.reference] = None
    return [name for name in names if name]


def unknown_since(snapshot: PaymentSnapshot) -> datetime | None:
    """When the oldest call was sent that is still unanswered; None where no outcome is unknown."""
    if not snapshot.outcome_unknown:
        return None
    sent = [o.first_sent_at or o.created_at for o in snapshot.operations if o.status is OperationStatus.UNKNOWN]
    if snapshot.session_unknown:
        sent += [attempt.created_at for attempt in snapshot.attempts if attempt.status in _UNANSWERED]
    return min(sent, default=snapshot.created_at)


def _sales(snapshot: PaymentSnapshot) -> Iterator[Movement]:
    """What is captured of each object of the gateway. Cumulative facts of one object count once, with the largest."""
    ours = [fact for fact in snapshot.facts if _is_in(fact.observation, snapshot.currency)]
    for reference, amount in captured_by_object(fact.observation for fact in ours).items():
        if amount > 0:
            yield Movement(
                MovementKind.SALE,
                reference[:MAX_REFERENCE],
                _our_reference(snapshot, reference),
                amount,
                _captured_at(ours, reference) or snapshot.updated_at,
            )


def _captured_at(facts: Iterable[Fact], reference: str) -> datetime | None:
    """When the object had all that was ever captured of it."""
    of_object = [
        fact
        for fact in facts
        if fact.observation.kind is FactKind.CAPTURED and fact.observation.object_reference == reference
    ]
    largest = max((_amount(fact.observation) for fact in of_object), default=0)
    return min((_time(fact) for fact in of_object if _amount(fact.observation) == largest), default=None)


def _our_reference(snapshot: PaymentSnapshot, reference: str) -> str | None:
    """The operation that captured it, if it was one; else the attempt that its page was opened with."""
    made_by = [o.reference for o in snapshot.operations if o.kind in _TAKES and o.gateway_reference == reference]
    if len(made_by) == 1:
        return made_by[0]
    opened_by = [each.reference for each in snapshot.attempts if each.gateway_reference == reference]
    if opened_by:
        return opened_by[-1]
    return snapshot.attempts[-1].reference if snapshot.attempts else None


def _refunds(snapshot: PaymentSnapshot) -> Iterator[Movement]:
    for claim in refunds_claimed(snapshot.operations, (fact.observation for fact in snapshot.facts)):
        is_ours = claim.currency in (None, snapshot.currency) and claim.amount_minor > 0
        if claim.status is OperationStatus.SUCCEEDED and is_ours:
            operation = claim.operation
            own = operation.reference if operation is not None and operation.origin is not Origin.GATEWAY else None
            reference = claim.object_reference or own or snapshot.payment_id
            at = _refunded_at(snapshot, claim)
            yield Movement(MovementKind.REFUND, reference[:MAX_REFERENCE], own, claim.amount_minor, at)


def _refunded_at(snapshot: PaymentSnapshot, claim: RefundClaim) -> datetime:
    own = claim.operation.reference if claim.operation is not None else None
    told = [
        _time(fact)
        for fact in snapshot.facts
        if fact.observation.kind in (FactKind.REFUND_SUCCEEDED, FactKind.OPERATION_SUCCEEDED)
        and (
            (claim.object_reference is not None and fact.observation.object_reference == claim.object_reference)
            or (own is not None and fact.observation.operation == own)
        )
    ]
    if told:
        return min(told)
    settled = claim.operation.settled_at if claim.operation is not None else None
    return settled or snapshot.updated_at


_OF_DISPUTE = {
    DisputeStatus.LOST: (MovementKind.CHARGEBACK, FactKind.DISPUTE_LOST),
    DisputeStatus.OPEN: (MovementKind.WITHHELD, FactKind.DISPUTE_OPENED),
}


def _chargebacks(snapshot: PaymentSnapshot) -> Iterator[Movement]:
    for claim in disputes_claimed(fact.observation for fact in snapshot.facts):
        amount = claim.amount
        if claim.status not in _OF_DISPUTE or amount is None or amount.currency != snapshot.currency:
            continue
        if amount.amount_minor > 0:
            kind, told_by = _OF_DISPUTE[claim.status]
            reference, at = claim.object_reference[:MAX_REFERENCE], _first_told(snapshot, claim, told_by)
            yield Movement(kind, reference, None, amount.amount_minor, at)


def _first_told(snapshot: PaymentSnapshot, claim: DisputeClaim, kind: FactKind) -> datetime:
    return min(
        _time(fact)
        for fact in snapshot.facts
        if fact.observation.kind is kind and fact.observation.object_reference == claim.object_reference
    )


def _together(one: Movement, other: Movement) -> Movement:
    """Two under one name: a gateway that gives refunds no ids of their own. The reader knows a movement by its name."""
    ours = one.our_reference if one.our_reference == other.our_reference else None
    amount, at = one.amount_minor + other.amount_minor, max(one.occurred_at, other.occurred_at)
    return Movement(one.kind, one.reference, ours, amount, at)


def _is_in(observation: Observation, currency: str) -> bool:
    return observation.amount is None or observation.amount.currency == currency


def _amount(observation: Observation) -> int:
    return observation.amount.amount_minor if observation.amount is not None else 0


def _time(fact: Fact) -> datetime:
    return fact.observation.occurred_at or fact.received_at
