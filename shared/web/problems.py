"""RFC 9457 problem+json: one shape for every error of every service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from shared.correlation import current_correlation
from shared.errors import FieldError, GatewayOutcomeUnknown, InfrastructureError, PayrailError
from shared.masking import mask_card_numbers

log = structlog.get_logger()

MEDIA_TYPE = "application/problem+json"
DEFAULT_RETRY_AFTER_SECONDS = 2


class ProblemField(BaseModel):
    pointer: str = Field(description="JSON pointer into the request, e.g. /items/0/quantity")
    code: str
    detail: str


class Problem(BaseModel):
    """An error. ``code`` is stable; ``retryable`` and ``outcome_known`` say whether and how to try again."""

    type: str = "about:blank"
    title: str
    status: int
    code: str
    detail: str
    request_id: str | None = None
    retryable: bool = False
    outcome_known: bool = True
    errors: list[ProblemField] = []


def _inlined(schema: Any, definitions: Mapping[str, Any]) -> Any:
    """A JSON Schema without references, because it is put into documents that have no place for its definitions."""
    if isinstance(schema, dict):
        if "$ref" in schema:
            return _inlined(definitions[schema["$ref"].rpartition("/")[2]], definitions)
        return {key: _inlined(value, definitions) for key, value in schema.items() if key != "$defs"}
    return [_inlined(entry, definitions) for entry in schema] if isinstance(schema, list) else schema


_SCHEMA_WITH_REFERENCES = Problem.model_json_schema()
_PROBLEM_SCHEMA = _inlined(_SCHEMA_WITH_REFERENCES, _SCHEMA_WITH_REFERENCES.get("$defs", {}))

_TITLES: Mapping[int, str] = {
    400: "Bad request",
    401: "Unauthenticated",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    406: "Not acceptable",
    409: "Conflict",
    410: "Gone",
    413: "Content too large",
    415: "Unsupported media type",
    422: "Unprocessable content",
    429: "Too many requests",
    500: "Internal error",
    502: "Bad gateway",
    503: "Service unavailable",
}
_CODES: Mapping[int, str] = {
    400: "malformed_request",
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    413: "body_too_large",
    415: "unsupported_media_type",
}


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The ``responses=`` of a route, for its OpenAPI entry.

    The schema stands in the entry itself: FastAPI would list a model under application/json, which these are not.
    """
    return {
        status: {"description": _TITLES[status], "content": {MEDIA_TYPE: {"schema": _PROBLEM_SCHEMA}}}
        for status in statuses
    }


def problem_response(
    status: int,
    code: str,
    detail: str,
    *,
    errors: Sequence[FieldError] = (),
    retryable: bool = False,
    outcome_known: bool = True,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    correlation = current_correlation()
    problem = Problem(
        title=_TITLES.get(status, "Error"),
        status=status,
        code=code,
        detail=mask_card_numbers(detail),
        request_id=correlation.request_id if correlation else None,
        retryable=retryable,
        outcome_known=outcome_known,
        errors=[ProblemField(pointer=field.pointer, code=field.code, detail=field.detail) for field in errors],
    )
    return JSONResponse(problem.model_dump(), status_code=status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


def error_response(error: PayrailError) -> JSONResponse:
    headers: dict[str, str] = {}
    if error.retry_after_seconds is not None or error.status in (429, 503):
        headers["Retry-After"] = str(error.retry_after_seconds or DEFAULT_RETRY_AFTER_SECONDS)
    if error.status == 409 and error.retryable:
        headers["Retry-After"] = str(error.retry_after_seconds or 1)
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return problem_response(
        error.status,
        error.code,
        error.detail,
        errors=error.errors,
        retryable=error.retryable,
        outcome_known=error.outcome_known,
        headers=headers,
    )


def install_problem_handlers(app: FastAPI) -> None:
    app.add_exception_handler(PayrailError, _on_payrail_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)


async def _on_payrail_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, PayrailError)
    if isinstance(error, InfrastructureError | GatewayOutcomeUnknown):
        log.warning("request_failed", code=error.code, cause=type(error.__cause__).__name__)
    return error_response(error)


async def _on_validation_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    details = error.errors()
    if any(entry["type"] == "json_invalid" for entry in details):
        return problem_response(400, "malformed_json", "The body is not valid JSON.")
    fields = [FieldError(_pointer(entry["loc"]), entry["msg"], entry["type"]) for entry in details[:20]]
    return problem_response(422, "invalid_request", "Some fields are missing or wrong; see errors.", errors=fields)


async def _on_http_exception(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    code = _CODES.get(error.status_code, "http_error")
    detail = str(error.detail) if error.status_code != 404 else "There is no such resource."
    return problem_response(error.status_code, code, detail, headers=error.headers)


def body_too_large() -> JSONResponse:
    return problem_response(413, "body_too_large", "The body is larger than is accepted here.")


def internal_error() -> JSONResponse:
    """What a bug looks like from outside: nothing of it, but the request id to find it in the log."""
    return problem_response(500, "internal_error", "Something went wrong on our side; it has been recorded.")


def _pointer(location: Sequence[int | str]) -> str:
    parts = location[1:] if location and location[0] in ("body", "query", "path", "header") else location
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in parts) or "/"
