"""Calling PhonePe under its token, and what its errors mean (fact sheet: error envelope)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from services.payment_service.gateways.json_reading import Understood, UnexpectedShape, parse_json_object
from services.payment_service.gateways.phonepe.settings import PhonepeSettings
from services.payment_service.gateways.phonepe.tokens import NO_CREDENTIALS, TokenCache
from shared.errors import (
    GatewayObjectNotFound,
    GatewayOutcomeUnknown,
    GatewayRejected,
    GatewayUnavailable,
)
from shared.http import CallPolicy, HttpAnswer, HttpCaller

understood = Understood("PhonePe")

Json = Mapping[str, Any]

# What a second create or refund under the same id answers is not documented: first it is asked what became of the one
# before, and that is for who calls.
WRITE = CallPolicy(budget_seconds=20, attempts=3, repeatable=False)
READ = CallPolicy(budget_seconds=10, attempts=3, repeatable=True)

NAME = re.compile(r"[A-Za-z0-9_-]{1,63}", re.ASCII)
"""What a ``merchantOrderId`` or ``merchantRefundId`` may be; nothing else is put into a path."""

_CODE = re.compile(r"[A-Za-z0-9_.-]{1,100}", re.ASCII)
_REQUEST_TIMEOUT = 408


class PhonepeApi:
    def __init__(self, settings: PhonepeSettings, http: HttpCaller) -> None:
        self._base = settings.api_base.rstrip("/")
        self._partner = {"x-merchant-id": settings.merchant_id} if settings.merchant_id else {}
        self._tokens = TokenCache(settings, http)
        self._http = http

    async def order_status(self, reference: str) -> dict[str, Any]:
        """``details=false``: the last try is enough, since only the order's own state decides."""
        query = {"details": "false", "errorContext": "false"}
        return await self._call("GET", f"/checkout/v2/order/{quote(reference, safe='')}/status", READ, query=query)

    async def refund_status(self, name: str) -> dict[str, Any]:
        """One page of the documentation prints POST; PhonePe's own package sends GET."""
        return await self._call("GET", f"/payments/v2/refund/{quote(name, safe='')}/status", READ)

    async def post(self, path: str, body: Json) -> dict[str, Any]:
        return await self._call("POST", path, WRITE, body=body)

    async def _call(
        self,
        method: str,
        path: str,
        policy: CallPolicy,
        *,
        body: Json | None = None,
        query: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """On a 401 the token is dropped, fetched once, and the call repeated once: it has done nothing."""
        content = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        for _ in range(2):
            token = await self._tokens.usable()
            headers = {"authorization": f"O-Bearer {token}", "accept": "application/json", **self._partner}
            if content is not None:
                headers["content-type"] = "application/json"
            url = self._base + path
            answer = await self._http.send(method, url, policy=policy, headers=headers, params=query, content=content)
            if answer.status != 401:
                return _body_of(answer)
            self._tokens.drop(token)
        # Revoked or mistyped credentials: nothing moved, and no payment may be failed for it (failure H9).
        raise GatewayUnavailable(NO_CREDENTIALS)


def _body_of(answer: HttpAnswer) -> dict[str, Any]:
    """The JSON of a success, or the error class that the status means: the texts of errors decide nothing."""
    if 300 <= answer.status < 400:
        raise GatewayOutcomeUnknown("PhonePe's address answered with a redirect, which is not followed")
    if answer.status == 403:
        raise GatewayUnavailable("PhonePe does not permit this account to do it; check what is enabled for it")
    try:
        body = parse_json_object(answer.body)
    except UnexpectedShape as error:  # an edge in front of PhonePe answers in HTML, and knows nothing of the call
        raise GatewayOutcomeUnknown("PhonePe's answer is not JSON") from error
    if 200 <= answer.status < 300:
        return body
    raise _refusal(answer, body)


def _refusal(answer: HttpAnswer, body: Json) -> Exception:
    """``code`` or ``errorCode``, whichever there is."""
    given = next((found for key in ("errorCode", "code") if (found := body.get(key))), None)
    code = given if isinstance(given, str) and _CODE.fullmatch(given) else f"http_{answer.status}"
    if answer.status == _REQUEST_TIMEOUT:
        return GatewayOutcomeUnknown("PhonePe gave up waiting for our request")
    silent = answer.after_silence
    if answer.status == 404:
        return GatewayObjectNotFound("PhonePe does not know this object", gateway_code=code, after_silence=silent)
    return GatewayRejected(f"PhonePe refused the request ({code})", gateway_code=code, after_silence=silent)
