"""Why a delivery is not taken in. The caller learns the status and a stable code, never more about the signature."""

from __future__ import annotations

from shared.errors import DomainError, InfrastructureError, NotFound, PayrailError


class UnknownGateway(NotFound):
    """There is no such gateway here, or it is not enabled."""

    code = "unknown_gateway"


class MalformedDelivery(DomainError):
    """The delivery has no body."""

    code = "malformed_delivery"
    status = 400


class TimestampOutOfTolerance(DomainError):
    """The signature is right, but it was made too long ago or in the future; check both clocks and send it again."""

    code = "timestamp_out_of_tolerance"
    status = 401


class SignatureMissing(DomainError):
    """The delivery carries no signature."""

    code = "signature_missing"
    status = 401


class SignatureInvalid(DomainError):
    """The delivery's signature does not verify."""

    code = "signature_invalid"
    status = 401


class BodyTooLarge(DomainError):
    """The body is larger than a webhook may be."""

    code = "body_too_large"
    status = 413


class UnsupportedContentType(DomainError):
    """A webhook's body is JSON, a form or plain text, and is sent uncompressed: the raw bytes are what is signed."""

    code = "unsupported_media_type"
    status = 415


class TooManyFailedDeliveries(DomainError):
    """Too many deliveries from this address failed verification; wait as long as Retry-After says."""

    code = "rate_limited"
    status = 429
    retryable = True


class DeliveryForgotten(DomainError):
    """The delivery's contents are not kept any more; have the gateway send its event again, or sync the payment."""

    code = "delivery_forgotten"
    status = 410


class StoreFull(InfrastructureError):
    """More deliveries wait to be stored than may wait; nothing was stored. Wait as long as Retry-After says."""

    code = "store_full"


class DeliveryNotStorable(PayrailError):
    """The delivery is genuine, and something in it cannot be stored."""

    code = "delivery_not_storable"
    status = 500
