"""Tabby's error envelope; its 404 is a bare string, and its 403 says no more than its type."""

from __future__ import annotations

from services.gateway_sandbox.gateways.port import WireAnswer, WireError


def bad_data(text: str) -> WireError:
    return _error(400, "bad_data", text)


def conflict() -> WireError:
    return _error(409, "conflict", "the payment is disputed")


def refused(code: str) -> WireError:
    return _error(400, code, "the operation was refused")


def not_authorized() -> WireError:
    return _error(401, "not_authorized", "a valid secret key is required")


def no_permission() -> WireError:
    answer = WireAnswer.json(403, {"status": "error", "errorType": "no_permission"})
    return WireError(answer, stored=False)


def not_found() -> WireError:
    return WireError(WireAnswer.json(404, "not found"), stored=False)


def server_error(status: int) -> WireAnswer:
    return _error(status, "internal", "something went wrong").answer


def too_many_requests() -> WireAnswer:
    return _error(429, "too_many_requests", "rate limit exceeded").answer


def _error(status: int, error_type: str, text: str) -> WireError:
    body = {"status": "error", "errorType": error_type, "error": text}
    return WireError(WireAnswer.json(status, body), stored=False)
