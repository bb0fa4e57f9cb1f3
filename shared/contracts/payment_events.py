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
    amount_disputed: MinorUnits = 0
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
)
