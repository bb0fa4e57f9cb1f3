"""Calling Tabby: authentication, and what its errors mean (fact sheet: Errors)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote

from services.payment_service.gateways.json_reading import UnexpectedShape, parse_json_object
from shared.errors import GatewayObjectNotFound, GatewayOutcomeUnknown, GatewayRejected, GatewayUnavailable
from shared.http import CallPolicy, HttpAnswer, HttpCaller

Json = Mapping[str, Any]

# A repeated capture or refund is known by its reference_id, and a closed payment cannot be closed again: each of these
# may be sent again after an unknown outcome.
GUARDED_WRITE = CallPolicy(budget_seconds=20, attempts=3, repeatable=True)
UNGUARDED_WRITE = CallPolicy(budget_seconds=20, attempts=3, repeatable=False)
"""Nothing keeps a second session from being made."""

READ = CallPolicy(budget_seconds=10, attempts=3, repeatable=True)

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)
_REQUEST_TIMEOUT = 408
_CODE = re.compile(r"[a-z_]{1,60}", re.ASCII)


class TabbyApi:
    def __init__(self, secret_key: str, api_base: str, http: HttpCaller) -> None:
        self._base = api_base.rstrip("/")
        self._headers = {"authorization": f"Bearer {secret_key}", "accept": "application/json"}
        self._http = http
        self.is_test = secret_key.startswith("sk_test_")
        """The key alone decides which books a call reads and writes."""

    def now(self) -> datetime:
        return self._http.clock.now()

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> dict[str, Any]:
        url = self._base + path
        return _body_of(await self._http.send("GET", url, policy=READ, headers=self._headers, params=query))

    async def post(self, path: str, payload: Json | None, policy: CallPolicy) -> dict[str, Any]:
        headers = self._headers if payload is None else {**self._headers, "content-type": "application/json"}
        content = None if payload is None else json.dumps(payload, separators=(",", ":")).encode()
        url = self._base + path
        return _body_of(await self._http.send("POST", url, policy=policy, headers=headers, content=content))


def is_uuid(identifier: str) -> bool:
    """Every id of Tabby's is one; nothing else is put into a path."""
    return _UUID.fullmatch(identifier) is not None


def payment_path(identifier: str, action: str = "") -> str:
    return f"/api/v2/payments/{quote(identifier, safe='')}{action and '/' + action}"


def _body_of(answer: HttpAnswer) -> dict[str, Any]:
    """The JSON of a success, or the error class that the status means: the texts of errors decide nothing."""
    if 300 <= answer.status < 400:
        raise GatewayOutcomeUnknown("Tabby's address answered with a redirect, which is not followed")
    if 200 <= answer.status < 300:
        try:
            return parse_json_object(answer.body)
        except UnexpectedShape as error:
            raise GatewayOutcomeUnknown("Tabby's answer is not JSON") from error
    raise _error_of(answer)


def _error_of(answer: HttpAnswer) -> Exception:
    silent = answer.after_silence
    if answer.status in (401, 403):
        why = "Tabby refuses our key; check TABBY_SECRET_KEY, and TABBY_API_BASE for the account's region"
        return GatewayOutcomeUnknown(why) if silent else GatewayUnavailable(why)
    code = _error_type(answer.body)
    if answer.status == _REQUEST_TIMEOUT or code == "internal":
        return GatewayOutcomeUnknown("Tabby answered with an error of its own")
    if answer.status == 404:
        return GatewayObjectNotFound("Tabby does not know this object", gateway_code=code, after_silence=silent)
    why = f"Tabby refused the request ({code or answer.status})"
    return GatewayRejected(why, gateway_code=code or f"http_{answer.status}", after_silence=silent)


def _error_type(body: bytes) -> str | None:
    """Errors may be objects, bare strings or text, and any of their fields may be missing."""
    try:
        found = parse_json_object(body).get("errorType")
    except UnexpectedShape:
        return None
    return found if isinstance(found, str) and _CODE.fullmatch(found) else None
