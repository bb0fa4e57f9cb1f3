"""The token that every call carries: one per account and process, renewed while it is still good."""

from __future__ import annotations

import asyncio
from urllib.parse import urlencode

from services.payment_service.gateways.json_reading import UnexpectedShape, parse_json_object, text_of, whole_number
from services.payment_service.gateways.phonepe.settings import PhonepeSettings
from shared.errors import GatewayOutcomeUnknown, GatewayUnavailable
from shared.http import CallPolicy, HttpAnswer, HttpCaller

TOKEN = CallPolicy(budget_seconds=6, attempts=2, repeatable=True)

LONGEST_TOKEN_SECONDS = 24 * 3600
"""PhonePe says about an hour; whatever it says, a day is enough."""

RENEW_AGAIN_AFTER_SECONDS = 30
"""A renewal that fails is tried again so much later, as long as the old token is good."""

NO_CREDENTIALS = "PhonePe refuses our credentials; check PHONEPE_CLIENT_ID, PHONEPE_CLIENT_SECRET and the version"
_NO_TOKEN = "PhonePe gave us no token"  # noqa: S105 - a sentence


class TokenCache:
    """Those who need a token at the same time wait for one call: fetched per request they would be throttled.

    A token is renewed when half of its time has gone by. PhonePe's clock counts only for how long a token lives, never
    against ours.
    """

    def __init__(self, settings: PhonepeSettings, http: HttpCaller) -> None:
        self._url = f"{settings.tokens_from}/v1/oauth/token"
        form = {
            "client_id": settings.client_id,
            "client_secret": settings.client_secret.get_secret_value(),
            "client_version": str(settings.client_version),
            "grant_type": "client_credentials",
        }
        self._form = urlencode(form).encode()
        self._http = http
        self._lock = asyncio.Lock()
        self._token: str | None = None
        self._renew_at = 0.0
        self._ends_at = 0.0

    async def usable(self) -> str:
        """Raises GatewayUnavailable: without a token nothing has been asked for."""
        if (token := self._good_until(self._renew_at)) is not None:
            return token
        async with self._lock:
            if (token := self._good_until(self._renew_at)) is not None:  # somebody else has renewed it meanwhile
                return token
            try:
                return await self._fetch()
            except GatewayUnavailable:
                if (token := self._good_until(self._ends_at)) is None:
                    raise
                self._renew_at = self._http.clock.monotonic() + RENEW_AGAIN_AFTER_SECONDS
                return token

    def drop(self, token: str) -> None:
        """Unless it has been replaced already: many calls may be told at once that it is no good."""
        if self._token == token:
            self._token = None

    def _good_until(self, moment: float) -> str | None:
        return self._token if self._http.clock.monotonic() < min(moment, self._ends_at) else None

    async def _fetch(self) -> str:
        asked_at = self._http.clock.monotonic()
        token, seconds = self._read(await self._ask())
        self._token = token
        self._renew_at, self._ends_at = asked_at + seconds / 2, asked_at + seconds
        return token

    async def _ask(self) -> HttpAnswer:
        headers = {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"}
        try:
            return await self._http.send("POST", self._url, policy=TOKEN, headers=headers, content=self._form)
        except GatewayOutcomeUnknown as error:  # whatever became of the token, no money has been asked for
            raise GatewayUnavailable(_NO_TOKEN) from error

    def _read(self, answer: HttpAnswer) -> tuple[str, int]:
        """The token and for how many seconds it is good. Its ``expires_in`` may be empty."""
        if answer.status != 200:
            raise GatewayUnavailable(NO_CREDENTIALS)
        try:
            body = parse_json_object(answer.body)
            token, expires_at = text_of(body, "access_token"), whole_number(body, "expires_at")
            now = int(self._http.clock.now().timestamp())
            issued_at = whole_number(body, "issued_at") if body.get("issued_at") is not None else now
        except UnexpectedShape as error:
            raise GatewayUnavailable(_NO_TOKEN) from error
        if not token.isascii() or not token.isprintable() or expires_at <= issued_at:
            raise GatewayUnavailable(_NO_TOKEN)
        return token, min(expires_at - issued_at, LONGEST_TOKEN_SECONDS)
