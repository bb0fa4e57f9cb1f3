"""The reducer: a payment's state as a pure function of the set of its facts and of its operations' calls. Status is
derived here and nowhere else.

Facts are a set: the same ones in any order, any number of times, give the same state (failures PY9, W3). Precedence, in
place of an order of arrival:

1. An amount or currency that is not ours makes the payment conflicted, never paid (failures PY10, PY11).
2. Money taken wins over everything else, however late it is learnt (failure PY8).
3. Funds held count until the object that holds them is canceled, expired or released.
4. Without money: canceled, failed, expired; then processing; then an open session.

What refunds, disputes and reservations take is then fitted into what was captured, so that no set of facts leaves
captured less than refunded plus disputed; what a gateway tells beyond that is ``amount_excess``, for a person.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from services.payment_service.domain.models import (
    ENDED_WITHOUT_MONEY,
    WITH_MONEY,
    CaptureMode,
    Fact,
    FactKind,
    Observation,
    PaymentState,
    PaymentStatus,
    Terms,
)
from services.payment_service.domain.operation_state import (
    DisputeClaim,
    RefundClaim,
    disputes_claimed,
    refunds_claimed,
    settle_operations,
)
from services.payment_service.domain.operations import DisputeStatus, Operation, OperationKind, OperationStatus

_MONEY_KINDS = frozenset({FactKind.AUTHORIZED, FactKind.CAPTURED})

_WITHOUT_MONEY: tuple[tuple[FactKind, PaymentStatus], ...] = (
    (FactKind.CANCELED, PaymentStatus.CANCELED),  # ours or the shopper's wish explains a failure seen beside it
    (FactKind.FAILED, PaymentStatus.FAILED),
    (FactKind.EXPIRED, PaymentStatus.EXPIRED),
    (FactKind.APPROVED, PaymentStatus.PROCESSING),
    (FactKind.PROCESSING, PaymentStatus.PROCESSING),
    (FactKind.SESSION_OPENED, PaymentStatus.REQUIRES_ACTION),
)

FOREIGN_CURRENCY = "foreign_currency_returned"
"""The conflict of a payment of which money went back, or is disputed, in a currency that is not its own."""

_ENDS_A_HOLD = frozenset({FactKind.CANCELED, FactKind.EXPIRED, FactKind.RELEASED})


@dataclass(frozen=True, slots=True)
class Derived:
    """All that follows from facts and calls: the payment's state, its operations' statuses, and what was claimed at the
    gateway without us."""

    state: PaymentState
    operations: tuple[Operation, ...]
    imported: tuple[RefundClaim, ...]
    """Refunds that no operation of ours made."""
    disputes: tuple[DisputeClaim, ...]


def derive(terms: Terms, facts: Iterable[Fact], operations: Sequence[Operation] = ()) -> Derived:
    """Total over every set of facts and operations; never raises."""
    observations = frozenset(fact.observation for fact in facts)
    settled = settle_operations(operations, observations)
    refunds = refunds_claimed(settled, observations)
    disputes = disputes_claimed(observations)
    base = _from_money(terms, _without_used_approvals(settled, observations))
    state = _with_returns(base, terms, settled, refunds, disputes)
    imported = tuple(refund for refund in refunds if refund.operation is None)
    return Derived(state, settled, imported, disputes)


def reduce_facts(terms: Terms, facts: Iterable[Fact], operations: Sequence[Operation] = ()) -> PaymentState:
    """The state that these facts and calls amount to."""
    return derive(terms, facts, operations).state


def _without_used_approvals(
    operations: Sequence[Operation], observations: frozenset[Observation]
) -> frozenset[Observation]:
    """An approval whose completion was declined sends the shopper back to the page, so it says nothing any more."""
    declined = [o for o in operations if o.kind is OperationKind.COMPLETION and not o.is_unsettled]
    approvals = [o for o in observations if o.kind is FactKind.APPROVED]
    if len(declined) < len(approvals):
        return observations
    return observations - frozenset(approvals)


def _from_money(terms: Terms, observations: frozenset[Observation]) -> PaymentState:
    money = [observation for observation in observations if observation.kind in _MONEY_KINDS]
    if any(observation.amount is None or observation.amount.currency != terms.amount.currency for observation in money):
        return _conflicted(terms, observations, "currency_mismatch")
    taken = captured = captured_total(money)
    if reversals := _reversals(terms, observations):
        captured = captured_total([*money, *reversals])
    held = max(captured, _held(observations))
    was_reversed = captured < taken
    if captured or held:
        is_short = captured < terms.amount.amount_minor - terms.tolerance_minor
        if was_reversed and is_short:
            return _conflicted(terms, observations, "capture_reversed")
        return _with_money(terms, observations, captured=captured, held=held)
    if was_reversed:  # it was ours, and all of it was taken back
        return PaymentState(PaymentStatus.FAILED, failure_code="capture_reversed")
    if _claims_money(observations):  # a success of nothing is not a success (failure PY10)
        return _conflicted(terms, observations, "amount_too_low")
    kinds = {observation.kind for observation in observations}
    status = next((status for kind, status in _WITHOUT_MONEY if kind in kinds), PaymentStatus.CREATED)
    return PaymentState(status=status, failure_code=_failure_code(observations))


def _reversals(terms: Terms, observations: frozenset[Observation]) -> list[Observation]:
    """What the gateway took back, as far as it can be taken off what was captured."""
    return [
        observation
        for observation in observations
        if observation.kind is FactKind.CAPTURE_REVERSED
        and observation.amount is not None
        and observation.amount.currency == terms.amount.currency
    ]


def _with_money(terms: Terms, observations: frozenset[Observation], *, captured: int, held: int) -> PaymentState:
    expected, tolerance = terms.amount.amount_minor, terms.tolerance_minor
    if max(captured, held) > expected + tolerance:
        return _conflicted(terms, observations, "amount_too_high")
    if captured >= expected - tolerance and captured > 0:
        return PaymentState(PaymentStatus.CAPTURED, amount_authorized=held, amount_captured=captured)
    if captured and terms.capture is CaptureMode.AUTOMATIC:
        return _conflicted(terms, observations, "amount_too_low")
    if captured:
        return PaymentState(PaymentStatus.PARTIALLY_CAPTURED, amount_authorized=held, amount_captured=captured)
    if held < expected - tolerance:
        return _conflicted(terms, observations, "amount_too_low")
    return PaymentState(PaymentStatus.AUTHORIZED, amount_authorized=held)


def _conflicted(terms: Terms, observations: frozenset[Observation], why: str) -> PaymentState:
    # Totals say what the gateway holds of our currency; a foreign currency cannot be added up here.
    ours = [o for o in observations if o.amount is None or o.amount.currency == terms.amount.currency]
    captured = captured_total(ours)
    return PaymentState(
        PaymentStatus.CONFLICTED,
        amount_authorized=max(captured, _held(ours)),
        amount_captured=captured,
        conflict=why,
    )


def _with_returns(
    state: PaymentState,
    terms: Terms,
    operations: Sequence[Operation],
    refunds: Sequence[RefundClaim],
    disputes: Sequence[DisputeClaim],
) -> PaymentState:
    """Fit what goes back, and what is reserved, into what was captured and held."""
    if not operations and not refunds and not disputes:
        return state
    currency = terms.amount.currency
    foreign = any(refund.currency not in (None, currency) for refund in refunds)
    foreign |= any(dispute.amount is not None and dispute.amount.currency != currency for dispute in disputes)
    refunded = _sum(refunds, OperationStatus.SUCCEEDED, currency=currency)
    pending = _sum(refunds, *_RESERVED, currency=currency)
    disputed = _claimed(disputes, DisputeStatus.OPEN, DisputeStatus.LOST, currency=currency)
    lost = _claimed(disputes, DisputeStatus.LOST, currency=currency)
    captured = state.amount_captured
    fitting_refunded = min(refunded, captured)
    fitting_disputed = min(disputed, captured - fitting_refunded)
    return replace(
        state,
        amount_capture_pending=min(_captures_pending(operations), state.amount_authorized - captured),
        amount_refunded=fitting_refunded,
        amount_disputed=fitting_disputed,
        amount_dispute_lost=min(lost, fitting_disputed),
        # A refund of ours can be known by its webhook before the two are linked, so a reservation is never an excess.
        amount_refund_pending=min(pending, captured - fitting_refunded - fitting_disputed),
        amount_excess=refunded + disputed - fitting_refunded - fitting_disputed,
        has_unknown_operation=any(operation.status is OperationStatus.UNKNOWN for operation in operations),
        conflict=state.conflict or (FOREIGN_CURRENCY if foreign else None),
    )


_RESERVED = (OperationStatus.PENDING, OperationStatus.SUBMITTED, OperationStatus.UNKNOWN)


def _sum(refunds: Sequence[RefundClaim], *statuses: OperationStatus, currency: str) -> int:
    return sum(
        refund.amount_minor for refund in refunds if refund.status in statuses and refund.currency in (None, currency)
    )


def _claimed(disputes: Sequence[DisputeClaim], *statuses: DisputeStatus, currency: str) -> int:
    counted = (dispute.amount for dispute in disputes if dispute.status in statuses)
    return sum(amount.amount_minor for amount in counted if amount is not None and amount.currency == currency)


def _captures_pending(operations: Sequence[Operation]) -> int:
    return sum(
        operation.amount.amount_minor
        for operation in operations
        if operation.kind is OperationKind.CAPTURE and operation.is_unsettled
    )


def captured_total(observations: Iterable[Observation]) -> int:
    return sum(captured_by_object(observations).values())


def captured_by_object(observations: Iterable[Observation]) -> Mapping[str, int]:
    """What is captured of each object of the gateway: its largest cumulative amount, less what was taken back."""
    observations = tuple(observations)
    taken_back = _largest(observations, FactKind.CAPTURE_REVERSED)
    captured = _largest(observations, FactKind.CAPTURED)
    return {reference: max(0, amount - taken_back.get(reference, 0)) for reference, amount in captured.items()}


def held_by_object(observations: Iterable[Observation]) -> Mapping[str, int]:
    """What each object holds or held for us, captures included, while the hold has not ended."""
    observations = tuple(observations)
    ended = frozenset(o.object_reference for o in observations if o.kind in _ENDS_A_HOLD)
    held = _largest(observations, FactKind.AUTHORIZED)
    return {reference: amount for reference, amount in held.items() if reference not in ended}


def _largest(observations: Iterable[Observation], kind: FactKind) -> dict[str, int]:
    """Amounts are cumulative per gateway object, so the largest of each object counts, once."""
    largest: dict[str, int] = {}
    for observation in observations:
        if observation.kind is kind and observation.amount is not None:
            reference = observation.object_reference
            largest[reference] = max(largest.get(reference, 0), observation.amount.amount_minor)
    return largest


def _held(observations: Iterable[Observation]) -> int:
    return sum(held_by_object(observations).values())


def _claims_money(observations: frozenset[Observation]) -> bool:
    """Whether the gateway says that it took money, or holds some, however little."""
    return any(o.kind is FactKind.CAPTURED for o in observations) or bool(held_by_object(observations))


def _failure_code(observations: frozenset[Observation]) -> str | None:
    """Why it failed, as far as the gateway said; the smallest code, so that the answer does not depend on any order."""
    codes = [o.reason for o in observations if o.kind in (FactKind.FAILED, FactKind.DECLINED) and o.reason]
    return min(codes, default=None)


def is_late_success(before: PaymentStatus, after: PaymentStatus) -> bool:
    """Money after the payment had been given up on."""
    return before in ENDED_WITHOUT_MONEY and after in WITH_MONEY
