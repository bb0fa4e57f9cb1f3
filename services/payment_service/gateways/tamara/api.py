"""Calling Tamara: the token, how often a call may be sent, and what its errors mean (../tamara.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from services.payment_service.gateways.json_reading import UnexpectedShape, parse_json_object
from services.payment_service.gateways.tamara.amounts import to_json
from shared.errors import GatewayObjectNotFound, GatewayOutcomeUnknown, GatewayRejected, GatewayUnavailable
from shared.http import CallPolicy, HttpAnswer, HttpCaller

Json = Mapping[str, Any]

READ = CallPolicy(budget_seconds=8, attempts=3, repeatable=True)
CREATE = CallPolicy(budget_seconds=20, attempts=2, repeatable=True)
"""A second order with one reference is a page that nobody is shown, and it expires by itself."""

MOVE = CallPolicy(budget_seconds=20, attempts=3, repeatable=False)
"""Tamara has no keys: after an unknown outcome a call is looked for, and only then made again."""

_ACCEPTED = frozenset({200, 201, 204})
LONGEST_CODE = 100


class TamaraApi:
    def __init__(self, token: str, api_base: str, http: HttpCaller) -> None:
        self._base = api_base.rstrip("/")
        self._headers = {"authorization": f"Bearer {token}", "accept": "application/json"}
        self._http = http

    async def get(self, path: str) -> dict[str, Any]:
        return _body_of(await self._http.send("GET", self._base + path, policy=READ, headers=self._headers))

    async def find(self, path: str) -> dict[str, Any] | None:
        """None for what Tamara does not know."""
        try:
            return await self.get(path)
        except GatewayObjectNotFound:
            return None

    async def post(self, path: str, policy: CallPolicy, payload: Json | None = None) -> dict[str, Any]:
        headers = self._headers if payload is None else {**self._headers, "content-type": "application/json"}
        content = None if payload is None else to_json(payload).encode()
        return _body_of(
            await self._http.send("POST", self._base + path, policy=policy, headers=headers, content=content)
        )


def segment(identifier: str) -> str:
    """An id as a part of a path: whatever it holds, it stays one part."""
    return quote(identifier, safe="")


def _body_of(answer: HttpAnswer) -> dict[str, Any]:
    """The JSON of a success, empty where there is none; or the error class that the status means.

    Raises GatewayOutcomeUnknown for what nobody documents: another 2xx, a redirect, or what is not JSON.
    """
    if answer.status in (401, 403):  # whatever the body is: a rotated token moves nothing (failure H9)
        raise _token_refused()
    if answer.status == 204:
        return {}
    try:
        body = parse_json_object(answer.body)
    except UnexpectedShape as error:
        raise GatewayOutcomeUnknown("Tamara's answer is not JSON") from error
    if answer.status in _ACCEPTED:
        return body
    if answer.status < 400:
        raise GatewayOutcomeUnknown(f"Tamara answered {answer.status}, which it does not document")
    raise _error_of(answer, body)


def _error_of(answer: HttpAnswer, body: Json) -> Exception:
    code, silent = _code_of(body), answer.after_silence
    message = body.get("message")
    if isinstance(message, str) and "merchant is not found" in message.lower():
        # The token of the other environment; a try before this one may still have been understood.
        return GatewayOutcomeUnknown("Tamara does not know our account") if silent else _token_refused()
    if answer.status == 404:
        return GatewayObjectNotFound("Tamara does not know this order", gateway_code=code, after_silence=silent)
    code = code or f"http_{answer.status}"
    return GatewayRejected(f"Tamara refused the request ({code})", gateway_code=code, after_silence=silent)


def _code_of(body: Json) -> str | None:
    """The first error's code. The message beside it is free text and is never read for its meaning."""
    errors = body.get("errors")
    first = errors[0] if isinstance(errors, list) and errors else None
    code = first.get("error_code") if isinstance(first, dict) else None
    is_usable = isinstance(code, str) and code.isascii() and code.isprintable() and 0 < len(code) <= LONGEST_CODE
    return code if is_usable else None


def _token_refused() -> GatewayUnavailable:
    return GatewayUnavailable("Tamara refuses our token; check TAMARA_API_TOKEN and TAMARA_API_BASE")
