"""PayPal's error envelope. Clients branch on ``details[0].issue``."""

from __future__ import annotations

from typing import Any

from services.gateway_sandbox.gateways.port import WireAnswer, WireError

_MESSAGES = {
    "INVALID_REQUEST": "Request is not well-formed, syntactically incorrect, or violates schema.",
    "AUTHENTICATION_FAILURE": "Authentication failed due to missing authorization header, or invalid authentication "
    "credentials.",
    "RESOURCE_NOT_FOUND": "The specified resource does not exist.",
    "RESOURCE_CONFLICT": "The server has detected a conflict while processing this request.",
    "UNPROCESSABLE_ENTITY": "The requested action could not be performed, semantically incorrect, or failed business "
    "validation.",
    "RATE_LIMIT_REACHED": "Too many requests. Blocked due to rate limiting.",
    "INTERNAL_SERVER_ERROR": "An internal server error has occurred.",
    "SERVICE_UNAVAILABLE": "Service Unavailable.",
}


def answer(status: int, name: str, issue: str | None = None, **detail: Any) -> WireAnswer:
    body: dict[str, Any] = {"name": name, "message": _MESSAGES[name]}
    if issue is not None:
        described = {"issue": issue, "description": issue.replace("_", " ").capitalize() + "."}
        body["details"] = [{**{key: value for key, value in detail.items() if value is not None}, **described}]
    body["links"] = []
    return WireAnswer.json(status, body)


def refused(issue: str, *, stored: bool = False) -> WireError:
    """422. PayPal's keys replay the latest state and keep no refusal; only a scripted one is kept."""
    return WireError(answer(422, "UNPROCESSABLE_ENTITY", issue), stored=stored)


def invalid(issue: str, field: str | None = None) -> WireError:
    return WireError(answer(400, "INVALID_REQUEST", issue, field=field, location="body"), stored=False)


def not_found() -> WireError:
    return WireError(answer(404, "RESOURCE_NOT_FOUND", "INVALID_RESOURCE_ID"), stored=False)


def no_token() -> WireError:
    body = {"error": "invalid_token", "error_description": "Token signature verification failed"}
    return WireError(WireAnswer.json(401, body), stored=False)


def wrong_client() -> WireError:
    body = {"error": "invalid_client", "error_description": "Client Authentication failed"}
    return WireError(WireAnswer.json(401, body), stored=False)


def key_in_use() -> WireError:
    return WireError(answer(409, "RESOURCE_CONFLICT", "PREVIOUS_REQUEST_IN_PROGRESS"), stored=False)


def broken(status: int) -> WireAnswer:
    name = "INTERNAL_SERVER_ERROR" if status == 500 else "SERVICE_UNAVAILABLE"
    return answer(status, name)


def too_busy() -> WireAnswer:
    return answer(429, "RATE_LIMIT_REACHED")
