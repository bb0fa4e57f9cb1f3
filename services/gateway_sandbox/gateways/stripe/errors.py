"""Stripe's error envelope, with the codes and sentences its clients look at."""

from __future__ import annotations

from typing import Any

from services.gateway_sandbox.gateways.port import WireAnswer, WireError


def _answer(status: int, type_: str, message: str, **more: Any) -> WireAnswer:
    error: dict[str, Any] = {name: value for name, value in more.items() if value is not None}
    if "code" in error:
        error["doc_url"] = f"https://stripe.com/docs/error-codes/{str(error['code']).replace('_', '-')}"
    return WireAnswer.json(status, {"error": {**error, "message": message, "type": type_}})


def invalid_parameter(message: str, *, param: str, code: str | None = None) -> WireError:
    """A parameter did not pass validation: nothing ran, and nothing is stored under the idempotency key."""
    answer = _answer(400, "invalid_request_error", message, param=param, code=code)
    return WireError(answer, stored=False)


def missing_parameter(param: str) -> WireError:
    return invalid_parameter(f"Missing required param: {param}.", param=param, code="parameter_missing")


def unknown_parameter(param: str) -> WireError:
    return invalid_parameter(f"Received unknown parameter: {param}", param=param, code="parameter_unknown")


def refused(message: str, *, code: str | None = None, param: str | None = None, **more: Any) -> WireError:
    """The request was understood and its execution refused; this answer is stored."""
    return WireError(_answer(400, "invalid_request_error", message, param=param, code=code, **more))


def card_declined(code: str) -> WireError:
    """The card said no."""
    return WireError(_answer(402, "card_error", "Your card was declined.", code=code, decline_code="generic_decline"))


def missing_resource(kind: str, identifier: str, param: str) -> WireError:
    message = f"No such {kind}: '{identifier}'"
    return WireError(_answer(404, "invalid_request_error", message, code="resource_missing", param=param))


def no_such_url(method: str, path: str) -> WireError:
    message = f"Unrecognized request URL ({method}: {path}). Please see https://stripe.com/docs or we can help at https://support.stripe.com/."
    return WireError(_answer(404, "invalid_request_error", message), stored=False)


def no_key() -> WireError:
    message = (
        "You did not provide an API key. You need to provide your API key in the Authorization header, using "
        "Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY')."
    )
    return WireError(_answer(401, "invalid_request_error", message), stored=False)


def wrong_key(key: str) -> WireError:
    shown = f"{key[:8]}{'*' * 8}{key[-4:]}" if len(key) > 16 else "****"
    return WireError(_answer(401, "invalid_request_error", f"Invalid API Key provided: {shown}"), stored=False)


def key_in_use() -> WireError:
    message = (
        "There is currently another in-progress request using this Idempotent Key (that probably means you submitted "
        "twice, and the other request is still going through). Please try again later."
    )
    return WireError(_answer(409, "idempotency_error", message, code="idempotency_key_in_use"), stored=False)


def key_reused(key: str) -> WireError:
    message = (
        f"Keys for idempotent requests can only be used with the same parameters they were first used with. "
        f"Try using a key other than '{key}' if you meant to execute a different request."
    )
    return WireError(_answer(400, "idempotency_error", message), stored=False)


def key_too_long() -> WireError:
    message = "Idempotency keys can be at most 255 characters long."
    return WireError(_answer(400, "idempotency_error", message), stored=False)


def api_error(status: int) -> WireAnswer:
    message = "An error occurred while processing your request. Please try again."
    return _answer(status, "api_error", message)


def rate_limited() -> WireAnswer:
    message = "Request rate limit exceeded. Learn more about rate limits at https://stripe.com/docs/rate-limits."
    return _answer(429, "invalid_request_error", message, code="rate_limit")
