"""The generic gateway's wire: JSON in and out, errors by class."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from services.payment_service.gateways.json_reading import UnexpectedShape, parse_json_object
from shared.errors import GatewayObjectNotFound, GatewayOutcomeUnknown, GatewayRejected, GatewayUnavailable
from shared.http import CallPolicy, HttpAnswer, HttpCaller
from shared.money import Money

CREATE = CallPolicy(budget_seconds=20, attempts=3, repeatable=True)
MONEY = CallPolicy(budget_seconds=20, attempts=3, repeatable=True)
READ = CallPolicy(budget_seconds=10, attempts=3, repeatable=True)

_EARLIER_CALL_LIVES = frozenset({"idempotency_key_in_use", "idempotency_key_reused"})
"""Our earlier call lives: a new key now could run it twice (failure H10)."""


class GenericApi:
    def __init__(self, base: str, key: str, http: HttpCaller) -> None:
        self._base = base.rstrip("/")
        self._key = key
        self._http = http

    async def call(
        self,
        method: str,
        path: str,
        policy: CallPolicy,
        *,
        payload: bytes | None = None,
        query: Mapping[str, str] | None = None,
        key: str | None = None,
    ) -> dict[str, Any]:
        headers = {"authorization": f"Bearer {self._key}", "accept": "application/json"}
        if payload is not None:
            headers["content-type"] = "application/json"
        if key is not None:
            headers["idempotency-key"] = key
        answer = await self._http.send(
            method, self._base + path, policy=policy, headers=headers, params=query, content=payload
        )
        return _body_of(answer)

    async def entries(self, path: str, query: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        """A list ``{data: […]}``: whole, never in pages. Nothing found in nonsense proves nothing."""
        return data_of(await self.call("GET", path, READ, query=query))


def data_of(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = body.get("data")
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise GatewayOutcomeUnknown("the gateway's answer is not understood")
    return found


def json_with_amount(amount: Money, fields: Mapping[str, Any]) -> bytes:
    """The amount goes out as an exact JSON number: a float would not keep 0.1, nor the digits of a dinar."""
    return b'{"amount":%s,%s' % (f"{amount.as_major():f}".encode(), json.dumps(fields).encode()[1:])


def _body_of(answer: HttpAnswer) -> dict[str, Any]:
    if answer.status in (401, 403):  # whatever the body is: a rotated key moves nothing (failure H9)
        raise GatewayUnavailable("the gateway refuses our API key; check GENERIC_API_KEY")
    if 300 <= answer.status < 400:
        raise GatewayOutcomeUnknown("the gateway answered with a redirect, which is not followed")
    try:
        body = parse_json_object(answer.body)
    except UnexpectedShape as error:
        raise GatewayOutcomeUnknown("the gateway's answer is not JSON") from error
    if 200 <= answer.status < 300:
        return body
    problem = body.get("error")
    code = problem.get("code") if isinstance(problem, dict) else None
    code = code if isinstance(code, str) else None
    if answer.status == 404:
        raise GatewayObjectNotFound("the gateway does not know this session", gateway_code=code)
    if code in _EARLIER_CALL_LIVES:
        raise GatewayOutcomeUnknown("the gateway has had an earlier call with this key")
    raise GatewayRejected(f"the gateway refused the request ({code or answer.status})", gateway_code=code)
