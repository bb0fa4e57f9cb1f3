"""Razorpay's error envelope. Nearly every refusal has the same code; clients tell them apart by the description."""

from __future__ import annotations

from typing import Any

from services.gateway_sandbox.gateways.port import WireAnswer, WireError


def _answer(status: int, code: str, description: str, **more: Any) -> WireAnswer:
    error = {
        "code": code,
        "description": description,
        "source": "business",
        "step": "payment_initiation",
        "reason": "input_validation_failed",
        "metadata": {},
    }
    return WireAnswer.json(status, {"error": {**error, **more}})


def invalid(description: str, *, field: str | None = None) -> WireError:
    more = {"field": field} if field else {}
    return WireError(_answer(400, "BAD_REQUEST_ERROR", description, **more), stored=False)


def refused(description: str, *, reason: str = "NA") -> WireError:
    """Understood, and not possible in the payment's present state; remembered under a refund's key."""
    return WireError(_answer(400, "BAD_REQUEST_ERROR", description, source="NA", step="NA", reason=reason))


def not_sent(names: list[str]) -> WireError:
    return invalid(f"{', '.join(names)} is/are not required and should not be sent", field=names[0])


def required(name: str) -> WireError:
    return invalid(f"The {name.replace('_', ' ')} field is required.", field=name)


def no_such_id() -> WireError:
    return invalid("The id provided does not exist")


def no_such_url() -> WireError:
    return WireError(_answer(404, "BAD_REQUEST_ERROR", "The requested URL was not found on the server."), stored=False)


def not_authenticated() -> WireError:
    answer = _answer(401, "BAD_REQUEST_ERROR", "Authentication failed", source="NA", step="NA", reason="NA")
    return WireError(answer, stored=False)


def key_in_use() -> WireError:
    description = "Another request with the same idempotency key is still in progress."
    return WireError(_answer(409, "BAD_REQUEST_ERROR", description), stored=False)


def key_reused() -> WireError:
    description = "Different request with the same idempotency key has already been processed."
    return WireError(_answer(400, "BAD_REQUEST_ERROR", description), stored=False)


def server_error(status: int) -> WireAnswer:
    description = "We are facing some trouble completing your request at the moment. Please try again shortly."
    return _answer(status, "SERVER_ERROR", description, source="internal", reason="server_error")


def too_many_requests() -> WireAnswer:
    return _answer(429, "BAD_REQUEST_ERROR", "Too many requests", reason="rate_limit_exceeded")
