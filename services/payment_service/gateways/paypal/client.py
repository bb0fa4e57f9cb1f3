"""Calls to PayPal under one cached token, and the token itself."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping
from typing import Any

from pydantic import Field, SecretStr

from services.payment_service.gateways.definition import AccountSettings
from services.payment_service.gateways.json_reading import UnexpectedShape, parse_json_object, text_of, whole_number
from services.payment_service.gateways.paypal.errors import body_of
from shared.errors import GatewayDeniedAfterSilence, GatewayOutcomeUnknown, GatewayUnavailable
from shared.http import CallPolicy, HttpAnswer, HttpCaller

TOKEN = CallPolicy(budget_seconds=6, attempts=2, repeatable=True)

REFRESH_BEFORE_SECONDS = 60
"""A token that is about to expire could do so on the way."""

LONGEST_TOKEN_SECONDS = 24 * 3600
"""PayPal says about nine hours; whatever it says, a day is enough."""


class PayPalSettings(AccountSettings):
    client_id: str = Field(description="PayPal is enabled when this and the secret are set")
    client_secret: SecretStr
    api_base: str = "https://api-m.paypal.com"


class PayPalClient:
    """Sends JSON with a bearer token. On a 401 the token is dropped, fetched once, and the call repeated once.

    The token is one per app and process: a new one for each call is itself rate limited, so those who need one at the
    same time wait for a single call (fact sheet, token cache).
    """

    def __init__(self, settings: PayPalSettings, http: HttpCaller) -> None:
        self._base = settings.api_base.rstrip("/")
        client = f"{settings.client_id}:{settings.client_secret.get_secret_value()}"
        self._basic = base64.b64encode(client.encode()).decode()
        self._http = http
        self._lock = asyncio.Lock()
        self._token: str | None = None
        self._fresh_until = 0.0

    async def call(
        self,
        method: str,
        path: str,
        policy: CallPolicy,
        *,
        body: Mapping[str, Any] | None = None,
        key: str | None = None,
    ) -> dict[str, Any]:
        """The answer's JSON, empty where there is none. Raises as ``errors.body_of`` says.

        A write that is denied after a try without answer is not repeated: whatever a second one, or the token before
        it, came to, could not say what the first had done.
        """
        token = await self._usable_token()
        try:
            answer = await self._send(method, path, policy, token, body, key)
        except GatewayDeniedAfterSilence as denied:
            if denied.gateway_status == 401:
                self._drop(token)
            raise
        if answer.status == 401:
            self._drop(token)
            answer = await self._send(method, path, policy, await self._usable_token(), body, key)
        if answer.status == 401:
            # Revoked or mistyped credentials: nothing moved, and no payment may be failed for it (failure H9).
            raise GatewayUnavailable("PayPal refuses our credentials; check PAYPAL_CLIENT_ID and PAYPAL_CLIENT_SECRET")
        return body_of(answer)

    async def _send(
        self,
        method: str,
        path: str,
        policy: CallPolicy,
        token: str,
        body: Mapping[str, Any] | None,
        key: str | None,
    ) -> HttpAnswer:
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        if method == "POST":
            headers["prefer"] = "return=representation"  # the short form hides the ids of captures
        if key is not None:
            headers["paypal-request-id"] = key
        content = json.dumps(body, separators=(",", ":")).encode() if body is not None else None
        return await self._http.send(method, self._base + path, policy=policy, headers=headers, content=content)

    async def _usable_token(self) -> str:
        if (token := self._cached()) is not None:
            return token
        async with self._lock:
            if (token := self._cached()) is not None:  # somebody else has fetched it while we waited
                return token
            return await self._fetch_token()

    def _cached(self) -> str | None:
        return self._token if self._http.clock.monotonic() < self._fresh_until else None

    def _drop(self, token: str) -> None:
        """Unless it has been replaced already: many calls may be told at once that it is no good."""
        if self._token == token:
            self._token = None

    async def _fetch_token(self) -> str:
        asked_at = self._http.clock.monotonic()
        headers = {"authorization": f"Basic {self._basic}", "content-type": "application/x-www-form-urlencoded"}
        try:
            answer = await self._http.send(
                "POST",
                f"{self._base}/v1/oauth2/token",
                policy=TOKEN,
                headers=headers,
                content=b"grant_type=client_credentials",
            )
        except GatewayOutcomeUnknown as error:  # whatever became of the token, no money has been asked for
            raise GatewayUnavailable("PayPal gave us no token") from error
        if answer.status != 200:
            raise GatewayUnavailable("PayPal refuses our credentials; check PAYPAL_CLIENT_ID and PAYPAL_CLIENT_SECRET")
        try:
            body = parse_json_object(answer.body)
            token, lasts = text_of(body, "access_token"), whole_number(body, "expires_in")
        except UnexpectedShape as error:
            raise GatewayUnavailable("PayPal gave us no token") from error
        if not token.isascii() or not token.isprintable():
            raise GatewayUnavailable("PayPal gave us no token")
        self._token = token
        self._fresh_until = asked_at + min(lasts, LONGEST_TOKEN_SECONDS) - REFRESH_BEFORE_SECONDS
        return token
