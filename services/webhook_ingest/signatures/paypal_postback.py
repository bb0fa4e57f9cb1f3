"""Asking PayPal whether a delivery is its own: ``POST /v1/notifications/verify-webhook-signature``."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from services.webhook_ingest.signatures.port import EvidenceUnavailable, InvalidSchemeConfig
from services.webhook_ingest.signatures.values import GatewayValues
from shared.errors import GatewayError
from shared.http import CallPolicy, HttpAnswer, HttpCaller

CALL = CallPolicy(budget_seconds=8, attempts=2, repeatable=True)
REFRESH_BEFORE_SECONDS = 60
LONGEST_TOKEN_SECONDS = 24 * 3600


class Judge(Protocol):
    async def confirms(self, claim: Mapping[str, str], body: bytes) -> bool:
        """Raises EvidenceUnavailable."""
        ...


@dataclass(slots=True)
class PayPalJudge:
    """Over PayPal's API, with a token of its own that is kept while it is good."""

    base: str
    client_id: str
    client_secret: str = field(repr=False)
    http: HttpCaller | None = None
    _token: str | None = field(default=None, repr=False)
    _fresh_until: float = 0.0
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)

    @classmethod
    def of(cls, values: GatewayValues, http: HttpCaller | None) -> PayPalJudge:
        """Raises InvalidSchemeConfig."""
        client_id, secret = values.text("PAYPAL_CLIENT_ID"), values.text("PAYPAL_CLIENT_SECRET")
        if client_id is None or secret is None:
            raise InvalidSchemeConfig(
                "PAYPAL_WEBHOOK_VERIFICATION=postback needs PAYPAL_CLIENT_ID and PAYPAL_CLIENT_SECRET"
            )
        base = values.text("PAYPAL_API_BASE") or "https://api-m.paypal.com"
        return cls(base.rstrip("/"), client_id.strip(), secret.strip(), http)

    async def confirms(self, claim: Mapping[str, str], body: bytes) -> bool:
        question = spliced(claim, body)
        token = await self._usable_token()
        answer = await self._ask(question, token)
        if answer.status == 401:
            if self._token == token:
                self._token = None
            answer = await self._ask(question, await self._usable_token())
        if answer.status in (400, 422):
            return False  # PayPal finds the claim itself malformed: it is not one of theirs
        return _json_of(answer).get("verification_status") == "SUCCESS"

    async def _ask(self, question: bytes, token: str) -> HttpAnswer:
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        return await self._send("/v1/notifications/verify-webhook-signature", headers, question)

    async def _usable_token(self) -> str:
        async with self._lock:
            if self._token is not None and self._now() < self._fresh_until:
                return self._token
            asked_at = self._now()
            basic = base64.b64encode(f"{self.client_id}:{self.client_secret}".encode()).decode()
            headers = {"authorization": f"Basic {basic}", "content-type": "application/x-www-form-urlencoded"}
            body = _json_of(await self._send("/v1/oauth2/token", headers, b"grant_type=client_credentials"))
            token, lasts = body.get("access_token"), body.get("expires_in")
            if not isinstance(token, str) or type(lasts) is not int or not token.isascii() or not token.isprintable():
                raise EvidenceUnavailable("PayPal gave us no token")
            self._token, self._fresh_until = (
                token,
                asked_at + min(lasts, LONGEST_TOKEN_SECONDS) - REFRESH_BEFORE_SECONDS,
            )
            return token

    def _now(self) -> float:
        return self.http.clock.monotonic() if self.http is not None else 0.0

    async def _send(self, path: str, headers: Mapping[str, str], content: bytes) -> HttpAnswer:
        if self.http is None:
            raise EvidenceUnavailable("PayPal cannot be asked from here")
        try:
            return await self.http.send("POST", self.base + path, policy=CALL, headers=headers, content=content)
        except GatewayError as error:
            raise EvidenceUnavailable("PayPal could not be asked whether the delivery is its own") from error


def spliced(claim: Mapping[str, str], body: bytes) -> bytes:
    """The body goes back byte for byte: written anew, its CRC would be another, and PayPal would deny it."""
    prefix = json.dumps(dict(claim))[:-1].encode()
    return prefix + b',"webhook_event":' + body + b"}"


def _json_of(answer: HttpAnswer) -> dict[str, Any]:
    try:
        parsed = json.loads(answer.body) if answer.status == 200 else None
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        raise EvidenceUnavailable(f"PayPal answered {answer.status} when asked about a delivery")
    return parsed
