"""What the business of payments forbids."""

from __future__ import annotations

from shared.errors import Conflict, DomainError


class GatewayNotEnabled(DomainError):
    """This gateway is not enabled here."""

    code = "gateway_not_enabled"
    status = 422


class CurrencyNotSupported(DomainError):
    """The gateway does not take this currency or amount."""

    code = "currency_not_supported"
    status = 422


class CapabilityNotSupported(DomainError):
    """The gateway cannot do this."""

    code = "capability_not_supported"
    status = 422


class PaymentIdReused(Conflict):
    """A payment with this id exists and was created by a different request."""

    code = "payment_id_reused"


class SessionBusy(Conflict):
    """Another request is opening this payment's session; repeat it shortly."""

    code = "session_busy"
    retryable = True


class PaymentEnded(Conflict):
    """This payment has ended; a new one is needed."""

    code = "payment_ended"


class NotCapturable(Conflict):
    """Nothing is held on this payment that could be captured or released."""

    code = "payment_not_capturable"


class CaptureExceedsAuthorized(Conflict):
    """The amount is more than can still be captured."""

    code = "capture_exceeds_authorized"


class NotRefundable(Conflict):
    """Nothing was captured on this payment that could be refunded."""

    code = "payment_not_captured"


class RefundExceedsCaptured(Conflict):
    """The amount is more than can still be refunded."""

    code = "refund_exceeds_captured"


class RefundSpansCaptures(Conflict):
    """No single capture of this payment has so much left."""

    code = "refund_spans_captures"


class PaymentDisputed(Conflict):
    """A dispute of this payment is open: refunding it may pay the shopper twice. Repeat with `override` to do so."""

    code = "payment_disputed"


class OperationInProgress(Conflict):
    """Another operation of this payment has to end first."""

    code = "operation_in_progress"
    retryable = True


class ReferenceUsed(Conflict):
    """Another operation of this payment has this reference."""

    code = "reference_already_used"
