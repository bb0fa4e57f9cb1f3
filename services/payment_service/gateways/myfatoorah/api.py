"""Calling MyFatoorah: every call is a POST of JSON, and every answer an envelope whose ``IsSuccess`` counts.

A success needs a 2xx **and** ``IsSuccess: true``. What is refused moved nothing; what cannot be read may have.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from services.payment_service.gateways.json_reading import UnexpectedShape, optional_text, parse_json_object
from shared.errors import GatewayOutcomeUnknown, GatewayRejected, GatewayUnavailable
from shared.http import CallPolicy, HttpAnswer, HttpCaller

Json = Mapping[str, Any]

UNGUARDED_WRITE = CallPolicy(budget_seconds=20, attempts=3, repeatable=False)
"""There are no idempotency keys: after an unknown outcome an invoice or a refund is looked for, never sent again."""

GUARDED_WRITE = CallPolicy(budget_seconds=20, attempts=3, repeatable=True)
"""A capture or a release: MyFatoorah takes one of the two per invoice, so a second one is refused."""

READ = CallPolicy(budget_seconds=10, attempts=3, repeatable=True)

_TOKEN_REFUSED = re.compile(
    r"\b(?:token|api key)\b[^.]{0,40}\b(?:invalid|expired|required)\b|\binvalid token\b|permission"
)
_FIELD = re.compile(r"[A-Za-z][A-Za-z0-9_.]{0,60}")


class TokenRefused(GatewayUnavailable):
    """Our token is refused: by all of MyFatoorah, or by one call that it has no permission for."""

    code = "gateway_unavailable"


class MyFatoorahApi:
    def __init__(self, base: str, key: str, http: HttpCaller) -> None:
        self._base = base
        self._headers = {
            "authorization": f"Bearer {key}",
            "accept": "application/json",
            "content-type": "application/json",
        }
        self._http = http

    async def call(self, path: str, fields: Json, policy: CallPolicy) -> dict[str, Any]:
        """The answer's ``Data``. Raises GatewayRejected for what was refused."""
        answer = await self._http.send(
            "POST", f"{self._base}/v2/{path}", policy=policy, headers=self._headers, content=to_json(fields)
        )
        return _data_of(answer)


def to_json(fields: Json) -> bytes:
    """Decimals become exact JSON numbers: a float would not keep 0.1, nor the digits of a dinar."""
    written = (f"{json.dumps(key)}:{_value(value)}" for key, value in fields.items())
    return ("{" + ",".join(written) + "}").encode()


def _value(value: Any) -> str:
    return f"{value:f}" if isinstance(value, Decimal) else json.dumps(value)


def _data_of(answer: HttpAnswer) -> dict[str, Any]:
    if answer.status in (401, 403):  # JSON, text or a page of the front gateway's: a rotated token moves nothing
        raise _token_refused(answer)
    if 300 <= answer.status < 400 or answer.status == 408:
        raise GatewayOutcomeUnknown(f"MyFatoorah answered {answer.status}")
    try:
        body = parse_json_object(answer.body)
    except UnexpectedShape as error:
        raise GatewayOutcomeUnknown("MyFatoorah's answer is not JSON") from error
    is_success = body.get("IsSuccess")
    if 200 <= answer.status < 300 and is_success is True:
        data = body.get("Data")
        if not isinstance(data, dict):
            raise GatewayOutcomeUnknown("MyFatoorah's answer has no data")
        return data
    if is_success is not False and answer.status < 400:  # neither yes nor no
        raise GatewayOutcomeUnknown("MyFatoorah's answer is not its envelope")
    raise _refusal(answer, body)


def _refusal(answer: HttpAnswer, body: Json) -> Exception:
    """The texts are for people and their wording is not documented; what counts is that it was refused."""
    if _TOKEN_REFUSED.search(_text(body).lower()):
        return _token_refused(answer)
    code = _first_field(body) or "refused"
    why = f"MyFatoorah refused the request ({code}, {answer.status})"
    return GatewayRejected(why, gateway_code=code, after_silence=answer.after_silence)


def _text(body: Json) -> str:
    try:
        return optional_text(body, "Message") or ""
    except UnexpectedShape:
        return ""


def _first_field(body: Json) -> str | None:
    """The field that the first validation error is about. Never its text, which may quote what we sent."""
    for name in ("ValidationErrors", "FieldsErrors"):
        errors = body.get(name)
        first = errors[0] if isinstance(errors, list) and errors else None
        field = first.get("Name") if isinstance(first, dict) else None
        if isinstance(field, str) and _FIELD.fullmatch(field):
            return field
    return None


def _token_refused(answer: HttpAnswer) -> TokenRefused | GatewayOutcomeUnknown:
    """No payment may be failed for a token that was rotated or belongs to another country (failure H9)."""
    why = "MyFatoorah refuses our token; check MYFATOORAH_API_TOKEN, its permissions and MYFATOORAH_COUNTRY"
    return GatewayOutcomeUnknown(why) if answer.after_silence else TokenRefused(why)
