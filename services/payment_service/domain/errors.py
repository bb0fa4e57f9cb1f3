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
