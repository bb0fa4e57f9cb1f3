"""Errors say what may have happened to the money.

* DomainError               the caller asks for what the business forbids (code, 4xx)
* GatewayError              no usable answer from the gateway
  x GatewayRejected         refused, nothing moved: fix it, do not retry
  x GatewayUnavailable      never reached, nothing moved: safe to retry
  x GatewayOutcomeUnknown   may have been processed: ask; resend only with the same key, if the fact sheet allows it
* InfrastructureError       one of our own parts (database, broker) is missing: nothing was decided, try again
* AssertionError            our bug: roll back, keep the message, page someone

``shared.web.problems`` renders the first three as RFC 9457 problem+json.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class FieldError:
    """One entry of a problem's ``errors[]``: a JSON pointer into the request, and what is wrong there."""

    pointer: str
    detail: str
    code: str = "invalid"


class PayrailError(Exception):
    """The root. ``code`` is stable and for programs, the sentence is for people."""

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False
    outcome_known: ClassVar[bool] = True

    def __init__(
        self, detail: str | None = None, *, errors: Sequence[FieldError] = (), retry_after_seconds: int | None = None
    ):
        self.detail = detail or " ".join((self.__doc__ or self.code).split())
        self.errors = tuple(errors)
        self.retry_after_seconds = retry_after_seconds
        super().__init__(self.detail)


class DomainError(PayrailError):
    """The business forbids this."""

    code = "request_refused"
    status = 400


class InvalidAmount(DomainError):
    """The amount cannot be expressed in its currency."""

    code = "invalid_amount"
    status = 422


class InvalidRequest(DomainError):
    """The request is not understood."""

    code = "invalid_request"
    status = 422


class NotFound(DomainError):
    """There is no such object, or it is not yours."""

    code = "not_found"
    status = 404


class Unauthenticated(DomainError):
    """A valid bearer token or order secret is required."""

    code = "unauthenticated"
    status = 401


class Forbidden(DomainError):
    """The token does not carry the scope that this operation needs."""

    code = "forbidden"
    status = 403


class Conflict(DomainError):
    """The object's present state does not allow this."""

    code = "conflict"
    status = 409


class CursorExpired(DomainError):
    """Events after this cursor are not kept any more: read the objects themselves, then start without a cursor."""

    code = "cursor_expired"
    status = 410


class TooManyRequests(DomainError):
    """Too many requests; wait as long as Retry-After says."""

    code = "rate_limited"
    status = 429
    retryable = True


class IdempotencyKeyMissing(DomainError):
    """This operation needs an Idempotency-Key header."""

    code = "idempotency_key_missing"
    status = 400


class IdempotencyKeyInvalid(DomainError):
    """An Idempotency-Key is 16 to 64 letters, digits, hyphens or underscores."""

    code = "idempotency_key_invalid"
    status = 400


class IdempotencyKeyReused(DomainError):
    """This Idempotency-Key was used with a different request."""

    code = "idempotency_key_reused"
    status = 422


class IdempotencyKeyInFlight(DomainError):
    """A request with this Idempotency-Key is still running; repeat it shortly."""

    code = "idempotency_key_in_flight"
    status = 409
    retryable = True


class GatewayError(PayrailError):
    """No usable answer from the gateway."""

    code = "gateway_error"
    status = 502


class GatewayRejected(GatewayError):
    """The gateway refused the request; nothing moved."""

    code = "gateway_rejected"
    status = 502

    def __init__(self, detail: str | None = None, *, gateway_code: str | None = None, after_silence: bool = False):
        super().__init__(detail)
        self.gateway_code = gateway_code
        self.after_silence = after_silence
        """An earlier try of the same call was not answered: that one may have run, whatever is refused now."""


class GatewayObjectNotFound(GatewayRejected):
    """The gateway does not know this object (or does not know it yet)."""

    code = "gateway_object_not_found"


class GatewayUnavailable(GatewayError):
    """The gateway could not be reached; nothing moved. Try again shortly."""

    code = "gateway_unavailable"
    status = 503
    retryable = True


class GatewayRateLimited(GatewayUnavailable):
    """The gateway limits our rate; nothing moved. Wait as long as Retry-After says."""

    code = "gateway_unavailable"


class GatewayCallsExhausted(GatewayUnavailable):
    """We have too many calls to this gateway under way; nothing moved. Try again shortly."""

    code = "gateway_unavailable"


class GatewayOutcomeUnknown(GatewayError):
    """The gateway did not answer in time and may have processed the request; repeating the same call is safe."""

    code = "gateway_outcome_unknown"
    status = 503
    retryable = True
    outcome_known = False


class GatewayServerError(GatewayOutcomeUnknown):
    """The gateway answered with an error of its own and may have processed the request."""

    code = "gateway_outcome_unknown"

    def __init__(self, gateway_status: int, *, is_replay: bool = False):
        super().__init__(f"the gateway answered {gateway_status}")
        self.gateway_status = gateway_status
        self.is_replay = is_replay
        """It says that this error is stored under our key: the first run has ended, and repeating changes nothing."""


class GatewayDeniedAfterSilence(GatewayOutcomeUnknown):
    """The gateway refuses our credentials, but had not answered an earlier try of this call, which may have run."""

    code = "gateway_outcome_unknown"

    def __init__(self, gateway_status: int):
        super().__init__()
        self.gateway_status = gateway_status


class InfrastructureError(PayrailError):
    """A part that this service needs is not available; nothing was decided. Try again shortly."""

    code = "service_unavailable"
    status = 503
    retryable = True


class DatabaseUnavailable(InfrastructureError):
    """The database is not available; nothing was stored. Try again shortly."""

    code = "database_unavailable"


class DatabaseContended(DatabaseUnavailable):
    """The database is there, but others hold what this needs; nothing was stored. Try again shortly."""


class BusUnavailable(InfrastructureError):
    """The message broker is not available; the event stays in the outbox."""

    code = "bus_unavailable"


class ServiceUnavailable(InfrastructureError):
    """A service behind this one is not available; nothing was decided. Try again shortly."""

    code = "service_unavailable"
