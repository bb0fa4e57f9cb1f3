"""What a capture, void or refund may take, and from which of the gateway's objects.

Called under the payment's row lock; the CHECKs of the payments table hold the same rules a second time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from services.payment_service.domain.errors import (
    CaptureExceedsAuthorized,
    NotCapturable,
    NotRefundable,
    OperationInProgress,
    PaymentDisputed,
    RefundExceedsCaptured,
    RefundSpansCaptures,
)
from services.payment_service.domain.models import HOLDING, Fact, Payment
from services.payment_service.domain.operation_state import disputes_claimed, refunds_claimed
from services.payment_service.domain.operations import (
    UNSETTLED,
    DisputeStatus,
    Operation,
    OperationKind,
    OperationStatus,
)
from services.payment_service.domain.transitions import FOREIGN_CURRENCY, captured_by_object, held_by_object


def capture_target(
    payment: Payment, facts: Iterable[Fact], operations: Sequence[Operation], amount_minor: int, *, is_final: bool
) -> str:
    """The held object to capture ``amount_minor`` of. A final capture closes the hold, so nothing may be under way
    beside it.

    Raises NotCapturable, OperationInProgress (a void or completion is under way), CaptureExceedsAuthorized.
    """
    if payment.status not in HOLDING:
        raise NotCapturable(f"this payment is {payment.status}: nothing is held that could be captured")
    _refuse_beside(operations, OperationKind.VOID, OperationKind.COMPLETION)
    if is_final:
        _refuse_beside(operations, OperationKind.CAPTURE)
    if any(o.kind is OperationKind.CAPTURE and o.is_unsettled and o.is_final for o in operations):
        raise OperationInProgress("a final capture of this payment is under way", retry_after_seconds=2)
    if amount_minor > payment.state.amount_capturable:
        raise CaptureExceedsAuthorized(f"{payment.state.amount_capturable} minor units can still be captured")
    return _held_object(facts)


def void_target(payment: Payment, facts: Iterable[Fact], operations: Sequence[Operation]) -> str:
    """The held object to release. Raises NotCapturable, OperationInProgress (failures RF16, RF17)."""
    if payment.state.amount_authorized <= payment.state.amount_captured:
        raise NotCapturable(f"this payment is {payment.status}: nothing is held that could be released")
    _refuse_beside(operations, OperationKind.CAPTURE, OperationKind.VOID, OperationKind.COMPLETION)
    return _held_object(facts)


def refund_target(
    payment: Payment, facts: Sequence[Fact], operations: Sequence[Operation], amount_minor: int, *, override: bool
) -> str:
    """The captured object to refund ``amount_minor`` of: the one with the least left that still has enough.

    Raises NotRefundable (nothing was captured), PaymentDisputed, RefundExceedsCaptured, RefundSpansCaptures.
    """
    state = payment.state
    if state.amount_captured == 0:
        raise NotRefundable(f"this payment is {payment.status}: nothing was captured; a held amount is voided instead")
    contested = contested_because(payment, facts)
    if contested is not None and not override:
        raise contested
    if amount_minor > state.amount_refundable:
        raise RefundExceedsCaptured(f"{state.amount_refundable} minor units can still be refunded")
    left = refundable_by_object(payment, facts, operations)
    enough = [(rest, reference) for reference, rest in left.items() if rest >= amount_minor]
    if not enough:
        raise RefundSpansCaptures(
            f"the payment was captured in parts, and a refund takes from one of them: at most {max(left.values())}"
        )
    return min(enough)[1]


def contested_because(payment: Payment, facts: Iterable[Fact]) -> PaymentDisputed | None:
    """Why nothing of this payment is refunded unless a person insists: it might go back twice, or too much of it."""
    disputes = disputes_claimed([fact.observation for fact in facts])
    if any(dispute.status is DisputeStatus.OPEN for dispute in disputes):
        return PaymentDisputed()
    if payment.state.conflict == FOREIGN_CURRENCY:
        return PaymentDisputed("money of this payment went back in another currency; repeat with `override` to refund")
    return None


def refundable_by_object(payment: Payment, facts: Iterable[Fact], operations: Sequence[Operation]) -> dict[str, int]:
    """What each captured object still has in the payment's own currency, open refunds taken off."""
    observations = [fact.observation for fact in facts]
    ours = [o for o in observations if o.amount is None or o.amount.currency == payment.amount.currency]
    left = dict(captured_by_object(ours))
    counted = UNSETTLED | {OperationStatus.SUCCEEDED}
    for refund in refunds_claimed(operations, observations):
        if refund.status in counted:
            # One that does not say what it takes from can only mean the only capture there is.
            about = refund.about if refund.about in left else next(iter(left), None)
            if about is not None:
                left[about] = max(0, left[about] - refund.amount_minor)
    for dispute in disputes_claimed(ours):
        if dispute.about in left and dispute.amount is not None and dispute.status is not DisputeStatus.WON:
            left[dispute.about] = max(0, left[dispute.about] - dispute.amount.amount_minor)
    return left


def _held_object(facts: Iterable[Fact]) -> str:
    held = held_by_object(fact.observation for fact in facts)
    if not held:  # the state says that something is held, so a fact names it
        raise NotCapturable
    return max(held, key=lambda reference: (held[reference], reference))


def _refuse_beside(operations: Sequence[Operation], *kinds: OperationKind) -> None:
    """Also while the other one is unknown: whichever ran decides what this one may do."""
    for operation in operations:
        if operation.kind in kinds and operation.is_unsettled:
            raise OperationInProgress(
                f"a {operation.kind} of this payment is {operation.status}", retry_after_seconds=2
            )
