"""Calling PayU: one address, a command, up to five variables, and answers that are 200 even when they say no.

``form=2`` asks for JSON; without it PHP's own format comes. The hash covers key, command and the first variable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from services.payment_service.gateways.json_reading import UnexpectedShape, parse_json_object
from services.payment_service.gateways.payu.hashes import command_hash
from services.payment_service.gateways.payu.reading import scalar_text
from shared.errors import GatewayError, GatewayOutcomeUnknown, GatewayRateLimited, GatewayUnavailable
from shared.http import CallPolicy, HttpAnswer, HttpCaller

Json = Mapping[str, Any]

READ = CallPolicy(budget_seconds=10, attempts=3, repeatable=True)
GUARDED_WRITE = CallPolicy(budget_seconds=20, attempts=3, repeatable=True)
"""A capture, void or refund carries a token of ours, and PayU refuses a token that it has seen."""

THROTTLE_SECONDS = 60
"""What its own text asks for."""

_THROTTLED = ("too many requests", "requests limit reached")
_DENIED = ("hash", "key", "permission")


@dataclass(frozen=True, slots=True)
class Answer:
    """``code``: PayU's error code as text, which acceptances have too. ``after_silence``: see HttpAnswer."""

    body: Json
    after_silence: bool

    @property
    def is_ok(self) -> bool:
        return scalar_text(self.body.get("status")) == "1"

    @property
    def is_refusal(self) -> bool:
        """It says no. Neither this nor ``is_ok``: it says nothing that could be relied on."""
        return scalar_text(self.body.get("status")) == "0"

    @property
    def code(self) -> str | None:
        return scalar_text(self.body.get("error_code"))

    @property
    def message(self) -> str:
        return (scalar_text(self.body.get("msg")) or "").lower()


class PayuApi:
    def __init__(self, key: str, salt: str, api_base: str, http: HttpCaller) -> None:
        self._key = key
        self._salt = salt
        self._url = f"{api_base.rstrip('/')}/merchant/postservice.php"
        self._http = http

    async def call(self, command: str, *variables: str, policy: CallPolicy = READ) -> Answer:
        """What PayU says, a "no" included. Raises GatewayUnavailable where it surely did nothing, and
        GatewayOutcomeUnknown where that cannot be told."""
        fields = {"key": self._key, "command": command}
        fields |= {f"var{number}": value for number, value in enumerate(variables, start=1)}
        fields["hash"] = command_hash(self._key, command, variables[0], self._salt)
        answer = await self._http.send(
            "POST",
            self._url,
            policy=policy,
            headers={"content-type": "application/x-www-form-urlencoded", "accept": "application/json"},
            params={"form": "2"},
            content=urlencode(fields).encode(),
        )
        return _read(answer)


def _read(answer: HttpAnswer) -> Answer:
    if answer.status in (401, 403):
        raise _not_run(answer, GatewayUnavailable(_DENIAL))
    read = _parsed(answer)
    if _is_throttled(_page_text(answer) if read is None else read.message if not read.is_ok else ""):
        raise _not_run(answer, GatewayRateLimited(retry_after_seconds=THROTTLE_SECONDS))
    if not 200 <= answer.status < 300:
        raise GatewayOutcomeUnknown(f"PayU answered {answer.status}")
    if read is None:
        raise GatewayOutcomeUnknown("PayU's answer is not JSON")
    if not read.is_ok and read.code is None and _is_denied(read):
        raise _not_run(answer, GatewayUnavailable(_DENIAL))
    return read


_DENIAL = "PayU refuses our key or our hash; check PAYU_MERCHANT_KEY and PAYU_SALT"


def _not_run(answer: HttpAnswer, error: GatewayError) -> GatewayError:
    """This try did nothing; an earlier one of the same call, which was not answered, may have."""
    return GatewayOutcomeUnknown(error.detail) if answer.after_silence else error


def _parsed(answer: HttpAnswer) -> Answer | None:
    try:
        return Answer(parse_json_object(answer.body), answer.after_silence)
    except UnexpectedShape:
        return None


def _page_text(answer: HttpAnswer) -> str:
    """Of a page that stands in place of an answer. Broken JSON is none: a shopper's own words may be in it."""
    text = answer.body[:2000].decode("utf-8", "replace").lstrip("\ufeff \t\r\n")
    return "" if text.startswith(("{", "[", '"')) else text


def _is_throttled(text: str) -> bool:
    lowered = text.lower()
    return any(words in lowered for words in _THROTTLED)


def _is_denied(answer: Answer) -> bool:
    """A short sentence and nothing else; the exact ones are not documented (fact sheet: auth)."""
    has_content = any(isinstance(value, dict | list) for value in answer.body.values())
    return not has_content and any(word in answer.message for word in _DENIED)
