"""The events of a change: every one carries the payment's whole state, and one of a child its own fields besides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from services.payment_service.domain.models import FactSource, Payment, PaymentState
from services.payment_service.domain.operations import (
    Dispute,
    DisputeStatus,
    Operation,
    OperationKind,
    OperationStatus,
)
from services.payment_service.domain.transitions import is_late_success
from services.payment_service.use_cases.recording_ports import RecordingTransaction
from shared.contracts.payment_events import (
    STATUS_EVENTS,
    CaptureFailed,
    CaptureSucceeded,
    DisputeLost,
    DisputeOpened,
    DisputeWon,
    PaymentDuplicateDetected,
    PaymentEventData,
    PaymentLateSuccess,
    PaymentOutcomeResolved,
    PaymentOutcomeUnknown,
    RefundCreated,
    RefundFailed,
    RefundReversed,
    RefundSucceeded,
)
from shared.correlation import current_correlation
from shared.metrics import PAYMENT_TRANSITIONS
from shared.unit_of_work import NewEvent


class Learning(Protocol):
    """record_facts.Learnt, without the import back."""

    @property
    def source(self) -> FactSource: ...

    @property
    def at(self) -> datetime: ...

    @property
    def by(self) -> str | None: ...


@dataclass(slots=True)
class Changes:
    """What one transaction changes: the payment as it was, and each child with the status that it had (None: new)."""

    before: Payment
    operations: list[tuple[OperationStatus | None, Operation]] = field(default_factory=list)
    disputes: list[tuple[DisputeStatus | None, Dispute]] = field(default_factory=list)


_CAPTURE_EVENTS: dict[OperationStatus, type[PaymentEventData]] = {
    OperationStatus.SUCCEEDED: CaptureSucceeded,
    OperationStatus.FAILED: CaptureFailed,
    OperationStatus.CANCELED: CaptureFailed,
    OperationStatus.REVERSED: CaptureFailed,
}
_REFUND_EVENTS: dict[OperationStatus, type[PaymentEventData]] = {
    OperationStatus.SUCCEEDED: RefundSucceeded,
    OperationStatus.FAILED: RefundFailed,
    OperationStatus.CANCELED: RefundFailed,
    OperationStatus.REVERSED: RefundReversed,
}
_DISPUTE_EVENTS: dict[DisputeStatus, type[PaymentEventData]] = {
    DisputeStatus.OPEN: DisputeOpened,
    DisputeStatus.WON: DisputeWon,
    DisputeStatus.LOST: DisputeLost,
}


Event = tuple[type[PaymentEventData], str | None, dict[str, Any]]
"""An event to come: its model, its reason, and the fields of the child that it is about."""


def events_of_change(payment: Payment, changes: Changes) -> list[Event]:
    """What a change is worth saying, the payment's own first."""
    before = changes.before
    events = [*_payment_events(before, payment), *_child_events(changes)]
    if not events and payment.state != before.state:  # a total changed that no child explains
        events = [(STATUS_EVENTS[payment.status], payment.state.conflict, {})]
    return events


async def announce(
    tx: RecordingTransaction, payment: Payment, before: Payment, events: Sequence[Event], learnt: Learning
) -> None:
    """Put the change's events into the outbox."""
    if payment.status is not before.status:
        PAYMENT_TRANSITIONS.labels(payment.gateway, payment.status).inc()
    correlation = current_correlation()
    traceparent = correlation.traceparent if correlation else None
    new = []
    for model, reason, extra in events:
        event = event_of(
            model, payment, previous=before.state, learnt_from=learnt.source.value, reason=reason, at=learnt.at, **extra
        )
        new.append(NewEvent(event, payment.payment_id, payment.order_id, learnt.by, traceparent))
    await tx.outbox.add_many(new)


def _payment_events(before: Payment, after: Payment) -> Iterator[Event]:
    if is_late_success(before.status, after.status):
        yield PaymentLateSuccess, f"after_{before.status}", {}
    if after.duplicate_of is not None and before.duplicate_of is None:
        yield PaymentDuplicateDetected, f"duplicate_of:{after.duplicate_of}", {}
    if _standing(before.state) != _standing(after.state):
        yield STATUS_EVENTS[after.status], after.state.conflict or after.state.failure_code, {}
    if before.session_unknown is not after.session_unknown:
        is_unknown = after.session_unknown
        model = PaymentOutcomeUnknown if is_unknown else PaymentOutcomeResolved
        yield model, "session_not_confirmed" if is_unknown else "session_confirmed", {}


def _standing(state: PaymentState) -> tuple[Any, ...]:
    """What the payment's own events are about; refunds and disputes have theirs."""
    return (state.status, state.amount_authorized, state.amount_captured, state.failure_code, state.conflict)


def _child_events(changes: Changes) -> Iterator[Event]:
    for was, operation in changes.operations:
        yield from _operation_events(was, operation)
    for was_dispute, dispute in changes.disputes:
        if was_dispute is None and dispute.status is not DisputeStatus.OPEN:
            yield DisputeOpened, None, _dispute_fields(dispute)
        if was_dispute is not dispute.status:
            yield _DISPUTE_EVENTS[dispute.status], None, _dispute_fields(dispute)


def _operation_events(was: OperationStatus | None, operation: Operation) -> Iterator[Event]:
    status = operation.status
    if operation.kind is OperationKind.REFUND:
        if was is None:
            yield RefundCreated, None, _refund_fields(operation)
        if status in _REFUND_EVENTS:
            yield _REFUND_EVENTS[status], None, _refund_fields(operation)
    elif operation.kind is OperationKind.CAPTURE and status in _CAPTURE_EVENTS:
        yield _CAPTURE_EVENTS[status], None, _capture_fields(operation)
    if status is OperationStatus.UNKNOWN and was is not OperationStatus.UNKNOWN:
        yield PaymentOutcomeUnknown, f"{operation.kind}_not_confirmed", {}
    if was is OperationStatus.UNKNOWN and status is not OperationStatus.UNKNOWN:
        yield PaymentOutcomeResolved, f"{operation.kind}_{status}", {}


def _refund_fields(operation: Operation) -> dict[str, Any]:
    return {
        "refund_id": operation.operation_id,
        "refund_status": operation.status.value,
        "refund_amount": operation.amount.amount_minor,
        "refund_reason": operation.reason,
        "refund_reference": operation.merchant_reference,
        "refund_origin": operation.origin.value,
        "failure_code": operation.failure_code,
    }


def _capture_fields(operation: Operation) -> dict[str, Any]:
    return {
        "capture_id": operation.operation_id,
        "capture_status": operation.status.value,
        "capture_amount": operation.amount.amount_minor,
        "is_final": operation.is_final,
        "failure_code": operation.failure_code,
    }


def _dispute_fields(dispute: Dispute) -> dict[str, Any]:
    return {
        "dispute_id": dispute.dispute_id,
        "dispute_status": dispute.status.value,
        "dispute_amount": dispute.amount.amount_minor,
        "dispute_reason": dispute.reason,
    }


def event_of(
    model: type[PaymentEventData],
    payment: Payment,
    *,
    previous: PaymentState | None = None,
    learnt_from: str | None = None,
    reason: str | None = None,
    at: datetime | None = None,
    **extra: Any,
) -> PaymentEventData:
    """The payment's whole state as one event: a consumer never adds up deltas (design.md §5)."""
    state = payment.state
    return model(
        payment_id=payment.payment_id,
        order_id=payment.order_id,
        gateway=payment.gateway,
        gateway_reference=payment.gateway_reference,
        status=state.status.value,
        previous_status=previous.status.value if previous is not None else None,
        version=payment.version,
        amount=payment.amount.amount_minor,
        currency=payment.amount.currency,
        amount_authorized=state.amount_authorized,
        amount_captured=state.amount_captured,
        amount_refund_pending=state.amount_refund_pending,
        amount_refunded=state.amount_refunded,
        amount_disputed=state.amount_disputed,
        amount_excess=state.amount_excess,
        outcome_unknown=payment.outcome_unknown,
        method=payment.method,
        reason=reason,
        learnt_from=learnt_from,
        occurred_at=at,
        **extra,
    )
