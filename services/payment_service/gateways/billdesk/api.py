"""Calling BillDesk: sealing what goes out, opening what comes back, and what its errors mean (billdesk.md: Errors).

A trace id is good for one request and a repeated one is refused for a day, so that tries are made here, each with its
own, and not by the HTTP caller.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from services.payment_service.gateways.billdesk.settings import BillDeskSettings
from services.payment_service.gateways.json_reading import UnexpectedShape, parse_json_object
from shared import jose
from shared.errors import (
    GatewayCallsExhausted,
    GatewayError,
    GatewayObjectNotFound,
    GatewayOutcomeUnknown,
    GatewayRejected,
    GatewayUnavailable,
)
from shared.http import CallPolicy, HttpAnswer, HttpCaller
from shared.ports import Ports

Json = Mapping[str, Any]

IST = timezone(timedelta(hours=5, minutes=30))

_ONE_TRY = CallPolicy(budget_seconds=8, attempts=1)
_REFUSES = frozenset({400, 404, 405, 406, 409, 410, 413, 415, 422})
_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 5
_ANY_KID = "HMAC"
"""What stands in a signature's ``kid`` for merchants whose key has no id."""


class AlreadyThere(GatewayRejected):
    """BillDesk has had this orderid, or this refund reference, before."""


class EmptyAnswer(GatewayOutcomeUnknown):
    """BillDesk answered 200 with nothing, as it is reported to do where BD-Timestamp is written otherwise."""


class KeysRefused(GatewayUnavailable):
    """BillDesk refuses our credentials, or our address; check BILLDESK_CLIENT_ID and BILLDESK_SIGNING_KEY."""


class BillDeskApi:
    def __init__(self, settings: BillDeskSettings, http: HttpCaller, ports: Ports) -> None:
        self._settings = settings
        self._seal = Seal(settings, ports)
        self._http = http
        self._ports = ports

    @property
    def now(self) -> datetime:
        return self._ports.clock.now()

    async def read(self, path: str, fields: Json) -> Json:
        """A question, asked once more where nothing usable came back."""
        try:
            return await self._post(path, fields)
        except GatewayCallsExhausted:
            raise
        except (GatewayUnavailable, GatewayOutcomeUnknown) as error:
            await self._pause(error)
        return await self._post(path, fields)

    async def write(self, path: str, fields: Json) -> Json:
        """Sent again only where it has not arrived: nothing is known to keep a second one from running."""
        try:
            return await self._post(path, fields)
        except GatewayCallsExhausted:
            raise
        except GatewayUnavailable as error:
            await self._pause(error)
        return await self._post(path, fields)

    async def _pause(self, error: GatewayError) -> None:
        """Raises the error itself where BillDesk asks for a longer wait than a caller has."""
        seconds = error.retry_after_seconds or _PAUSE_SECONDS
        if isinstance(error, KeysRefused) or seconds > _LONGEST_PAUSE_SECONDS:
            raise error
        await self._http.clock.sleep(seconds)

    async def _post(self, path: str, fields: Json) -> Json:
        url = f"{self._settings.api_base.rstrip('/')}/payments/{self._settings.api_version}/{path}"
        sealed = self._seal.close(fields)
        answer = await self._http.send("POST", url, policy=_ONE_TRY, headers=self._headers(), content=sealed.encode())
        return self._body_of(answer)

    def _headers(self) -> dict[str, str]:
        return {
            "content-type": "application/jose",
            "accept": "application/jose",
            "bd-traceid": self._ports.ids.new_reference(),
            "bd-timestamp": self._timestamp(),
        }

    def _timestamp(self) -> str:
        now = self._ports.clock.now()
        match self._settings.timestamp_format:
            case "ist":
                return f"{now.astimezone(IST):%Y%m%d%H%M%S}"
            case "seconds":
                return str(int(now.timestamp()))
            case _:
                return str(int(now.timestamp()) * 1000 + now.microsecond // 1000)

    def _body_of(self, answer: HttpAnswer) -> Json:
        """The content of a success, or the error that status and content together mean."""
        if answer.status in (401, 403):
            raise KeysRefused
        if 200 <= answer.status < 300:
            if not answer.body.strip():
                raise EmptyAnswer
            content = self._opened(answer.body)
            if "error_type" not in content:
                return content
            raise _error_of(content.get("status"), content)
        raise _error_of(answer.status, self._error_content(answer.body))

    def _opened(self, body: bytes) -> Json:
        try:
            return parse_json_object(self._seal.open(body.decode("ascii")))
        except (NotOurs, UnicodeDecodeError, UnexpectedShape) as error:
            raise GatewayOutcomeUnknown("BillDesk's answer cannot be verified") from error

    def _error_content(self, body: bytes) -> Json:
        """Errors are sealed as well, but for those that come before a merchant is known."""
        if not body.lstrip().startswith(b"{"):
            return self._opened(body)
        try:
            return parse_json_object(body)
        except UnexpectedShape as error:
            raise GatewayOutcomeUnknown("BillDesk's error is not understood") from error


class NotOurs(ValueError):
    """A message that BillDesk has not sealed for us."""


@dataclass(frozen=True, slots=True)
class Seal:
    """What makes a message ours, and tells theirs."""

    settings: BillDeskSettings
    ports: Ports

    def close(self, fields: Json) -> str:
        content = json.dumps(fields, separators=(",", ":")).encode()
        header = {"clientid": self.settings.client_id}
        if self.settings.scheme == "symmetric":
            header = {"kid": self.settings.key_id or "", **header}
            iv = self.ports.randomness.token_bytes(jose.IV_BYTES)
            content = jose.encrypt(header, content, self.settings.encryption_keys[0], iv).encode()
        return jose.sign(header, content, self.settings.signing_keys[0])

    def open(self, text: str) -> bytes:
        """Raises NotOurs."""
        try:
            signed = jose.open_signed(text, self.settings.signing_keys)
            self._check(signed.header, kids=(_ANY_KID, self.settings.key_id))
            if not jose.is_encrypted(signed.content):
                return signed.content
            encrypted = jose.decrypt(signed.content.decode("ascii"), self.settings.encryption_keys)
            self._check(encrypted.header, kids=(self.settings.key_id,))
        except (jose.Malformed, jose.WrongKey, UnicodeDecodeError) as error:
            raise NotOurs("not sealed for us") from error
        return encrypted.content

    def _check(self, header: Json, *, kids: tuple[str | None, ...]) -> None:
        if header.get("clientid", self.settings.client_id) != self.settings.client_id:
            raise NotOurs("sealed for another client")
        if self.settings.key_id is not None and header.get("kid", self.settings.key_id) not in kids:
            raise NotOurs("sealed with another key")


def _error_of(status: object, problem: Json) -> GatewayError:
    """Only an envelope of BillDesk's own says that nothing was done; a proxy's page says nothing."""
    kind, code = problem.get("error_type"), problem.get("error_code")
    status = int(status) if isinstance(status, str) and re.fullmatch(r"[45][0-9]{2}", status) else status
    if not isinstance(status, int) or status not in _REFUSES or not isinstance(kind, str):
        return GatewayOutcomeUnknown("BillDesk answered with an error that is not understood")
    code = code if isinstance(code, str) and 0 < len(code) <= 100 else kind[:100]
    if status == 404:
        return GatewayObjectNotFound("BillDesk does not know this", gateway_code=code)
    if status == 409:
        return AlreadyThere(f"BillDesk has had this before ({code})", gateway_code=code)
    return GatewayRejected(f"BillDesk refused the request ({code})", gateway_code=code)
