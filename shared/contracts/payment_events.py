"""Events that payment_service publishes. Every one carries the payment's whole state: nobody adds up deltas."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from shared.contracts.envelope import CurrencyCode, EventData, MinorUnits, Rfc3339

PaymentStatusName = Literal[
    "created",
    "requires_action",
    "processing",
    "authorized",
    "partially_captured",
    "captured",
    "failed",
    "canceled",
    "expired",
    "conflicted",
]


class PaymentEventData(EventData):
    """The payment as it is after the change that the event's type names. Amounts are minor units of ``currency``."""

    payment_id: str
    order_id: str
    gateway: str
    gateway_reference: str | None = Field(default=None, description="the gateway's id of the session or payment")
    status: PaymentStatusName
    previous_status: PaymentStatusName | None = None
    version: int = Field(ge=1, description="grows by one with every change of this payment; an older one is ignored")
    amount: MinorUnits = Field(description="what the order asked for")
    currency: CurrencyCode
    amount_authorized: MinorUnits = 0
    amount_captured: MinorUnits = 0
    amount_refund_pending: MinorUnits = 0
    amount_refunded: MinorUnits = 0
    amount_disputed: MinorUnits = Field(default=0, description="open and lost disputes")
    amount_excess: MinorUnits = Field(
        default=0, description="what refunds and disputes take beyond what was captured: a person has to look"
    )
    outcome_unknown: bool = Field(
        default=False, description="a call to the gateway for this payment is unanswered: money may have moved"
    )
    method: str | None = Field(default=None, description="how the shopper pays, where that was chosen with the payment")
    reason: str | None = Field(default=None, description="a stable code: why, where the type alone does not say it")
    learnt_from: str | None = Field(default=None, description="webhook, return, sweep, api or operator")
    occurred_at: Rfc3339 | None = None


class PaymentCreated(PaymentEventData):
    TYPE: ClassVar[str] = "payment.created.v1"


class PaymentRequiresAction(PaymentEventData):
    """The hosted page is open: the shopper has to act."""

    TYPE: ClassVar[str] = "payment.requires_action.v1"


class PaymentProcessing(PaymentEventData):
    TYPE: ClassVar[str] = "payment.processing.v1"


class PaymentAuthorized(PaymentEventData):
    TYPE: ClassVar[str] = "payment.authorized.v1"


class PaymentCaptured(PaymentEventData):
    TYPE: ClassVar[str] = "payment.captured.v1"


class PaymentPartiallyCaptured(PaymentEventData):
    TYPE: ClassVar[str] = "payment.partially_captured.v1"


class PaymentFailed(PaymentEventData):
    TYPE: ClassVar[str] = "payment.failed.v1"


class PaymentExpired(PaymentEventData):
    TYPE: ClassVar[str] = "payment.expired.v1"


class PaymentCanceled(PaymentEventData):
    TYPE: ClassVar[str] = "payment.canceled.v1"


class PaymentLateSuccess(PaymentEventData):
    """Money arrived after the payment had been failed, canceled or expired. Money wins; the order decides what next."""

    TYPE: ClassVar[str] = "payment.late_success.v1"


class PaymentConflicted(PaymentEventData):
    """The gateway reports an amount or currency that is not what we asked for: held, never paid."""

    TYPE: ClassVar[str] = "payment.conflicted.v1"


class PaymentDuplicateDetected(PaymentEventData):
    """A second payment of the same order succeeded."""

    TYPE: ClassVar[str] = "payment.duplicate_detected.v1"


class PaymentOutcomeUnknown(PaymentEventData):
    """A call to the gateway was sent and not answered: money may have moved."""

    TYPE: ClassVar[str] = "payment.outcome_unknown.v1"


class PaymentOutcomeResolved(PaymentEventData):
    """What an unanswered call did is known now."""

    TYPE: ClassVar[str] = "payment.outcome_resolved.v1"


class PaymentAuthorizationExpiring(PaymentEventData):
    """Funds are still held, and the hold ends soon: capture or void."""

    TYPE: ClassVar[str] = "payment.authorization_expiring.v1"

    capture_before: Rfc3339


OperationStatusName = Literal["pending", "submitted", "unknown", "succeeded", "failed", "canceled", "reversed"]


class CaptureEventData(PaymentEventData):
    """A capture, with the payment as it is after it."""

    capture_id: str
    capture_status: OperationStatusName
    capture_amount: MinorUnits
    is_final: bool = Field(description="the rest of the hold is released")
    failure_code: str | None = None


class CaptureSucceeded(CaptureEventData):
    TYPE: ClassVar[str] = "capture.succeeded.v1"


class CaptureFailed(CaptureEventData):
    """It did not happen, or was taken back (``capture_status`` says which)."""

    TYPE: ClassVar[str] = "capture.failed.v1"


class RefundEventData(PaymentEventData):
    """A refund, with the payment as it is after it."""

    refund_id: str
    refund_status: OperationStatusName
    refund_amount: MinorUnits
    refund_reason: str | None = None
    refund_reference: str | None = Field(default=None, description="the merchant's own reference")
    refund_origin: Literal["api", "policy", "gateway"] = Field(
        default="api", description="who wanted it: a caller, one of our policies, or somebody at the gateway"
    )
    failure_code: str | None = None


class RefundCreated(RefundEventData):
    """Its amount is reserved."""

    TYPE: ClassVar[str] = "refund.created.v1"


class RefundSucceeded(RefundEventData):
    TYPE: ClassVar[str] = "refund.succeeded.v1"


class RefundFailed(RefundEventData):
    """It did not happen; its amount can be refunded again."""

    TYPE: ClassVar[str] = "refund.failed.v1"


class RefundReversed(RefundEventData):
    """It had succeeded, and the gateway took it back; its amount can be refunded again."""

    TYPE: ClassVar[str] = "refund.reversed.v1"


class DisputeEventData(PaymentEventData):
    """A dispute, with the payment as it is after it."""

    dispute_id: str
    dispute_status: Literal["open", "won", "lost"]
    dispute_amount: MinorUnits
    dispute_reason: str | None = None


class DisputeOpened(DisputeEventData):
    TYPE: ClassVar[str] = "dispute.opened.v1"


class DisputeWon(DisputeEventData):
    TYPE: ClassVar[str] = "dispute.won.v1"


class DisputeLost(DisputeEventData):
    TYPE: ClassVar[str] = "dispute.lost.v1"


class GatewayHealthChanged(EventData):
    """A circuit breaker changed its state. Its subject is the gateway's name."""

    TYPE: ClassVar[str] = "gateway.health_changed.v1"

    gateway: str
    operation_class: Literal["session", "read", "money"]
    state: Literal["closed", "open", "half_open"]
    previous_state: Literal["closed", "open", "half_open"]
    reason: str | None = None
    retry_after_seconds: int | None = Field(default=None, ge=0, description="until the next probe, while open")


STATUS_EVENTS: dict[str, type[PaymentEventData]] = {
    "created": PaymentCreated,
    "requires_action": PaymentRequiresAction,
    "processing": PaymentProcessing,
    "authorized": PaymentAuthorized,
    "partially_captured": PaymentPartiallyCaptured,
    "captured": PaymentCaptured,
    "failed": PaymentFailed,
    "expired": PaymentExpired,
    "canceled": PaymentCanceled,
    "conflicted": PaymentConflicted,
}
"""Which event announces that a payment has reached a status."""

PAYMENT_EVENTS: tuple[type[PaymentEventData], ...] = (
    *STATUS_EVENTS.values(),
    PaymentLateSuccess,
    PaymentDuplicateDetected,
    PaymentOutcomeUnknown,
    PaymentOutcomeResolved,
    PaymentAuthorizationExpiring,
    CaptureSucceeded,
    CaptureFailed,
    RefundCreated,
    RefundSucceeded,
    RefundFailed,
    RefundReversed,
    DisputeOpened,
    DisputeWon,
    DisputeLost,
)
"""Events with a payment's whole state in them, whatever they are about."""
