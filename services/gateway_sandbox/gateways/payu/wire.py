"""PayU's forms and hashes, and how it says no: with 200, a status of 0 and a code."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from html import escape
from urllib.parse import parse_qsl

from services.gateway_sandbox.gateways.port import WireAnswer, WireCall, WireError
from shared.money import Money

INDIA = timezone(timedelta(hours=5, minutes=30))

REQUEST_ORDER = ("key", "txnid", "amount", "productinfo", "firstname", "email", "udf1", "udf2", "udf3", "udf4", "udf5")
_RESPONSE_ORDER = tuple(reversed(REQUEST_ORDER))
_EMPTY_FIELDS = ("",) * 5
_HTML = {"Content-Type": "text/html; charset=utf-8"}
_RUPEES = re.compile(r"(?:0|[1-9][0-9]{0,8})\.[0-9]{2}")


def form_of(call: WireCall) -> dict[str, str]:
    """Raises WireError for a body that is no form, or has a field twice."""
    content_type = call.headers.get("content-type", "")
    if "application/x-www-form-urlencoded" not in content_type.lower():
        raise refused("Parameter missing", 124)
    try:
        text = call.body.decode()
        pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=bool(text), max_num_fields=100)
    except ValueError as error:
        raise refused("Parameter missing", 124) from error
    form = dict(pairs)
    if len(form) != len(pairs):
        raise refused("A parameter is sent twice", 124)
    return form


def request_hash(form: Mapping[str, str], salt: str) -> str:
    return _sha512((*(form.get(name, "") for name in REQUEST_ORDER), *_EMPTY_FIELDS, salt))


def command_hash(form: Mapping[str, str], salt: str) -> str:
    return _sha512((*(form.get(name, "") for name in ("key", "command", "var1")), salt))


def response_hash(fields: Mapping[str, str], salt: str) -> str:
    """On what goes back to the shop. A surcharge goes in front."""
    charges = fields.get("additionalCharges", "")
    front = (charges,) if charges else ()
    values = (fields.get(name, "") for name in _RESPONSE_ORDER)
    return _sha512((*front, salt, fields["status"], *_EMPTY_FIELDS, *values))


def same(first: str, second: str) -> bool:
    return hmac.compare_digest(first.encode(), second.encode())


def rupees(amount_minor: int) -> str:
    return f"{Money(amount_minor, 'INR').as_major():.2f}"


def paise(text: str) -> int | None:
    """The amount, or None for a text that is not rupees with two digits."""
    minor = Money.from_major(text, "INR").amount_minor if _RUPEES.fullmatch(text) else 0
    return minor or None


def written(moment: datetime) -> str:
    return f"{moment.astimezone(INDIA):%Y-%m-%d %H:%M:%S}"


def refused(message: str, code: int | str | None = None) -> WireError:
    body: dict[str, object] = {"status": 0, "msg": message}
    if code is not None:
        body["error_code"] = code
    return WireError(WireAnswer.json(200, body))


def form_refused(message: str) -> WireError:
    """The browser is told, on a page of PayU's."""
    page = (
        f'<!doctype html><html lang="en"><title>PayU</title><body><h1>Error</h1><p>{escape(message)}</p></body></html>'
    )
    return WireError(WireAnswer(400, page, _HTML))


def html(status: int, text: str) -> WireAnswer:
    return WireAnswer(status, f"<html><body><h1>{escape(text)}</h1></body></html>", _HTML)


def _sha512(values: Sequence[str]) -> str:
    return hashlib.sha512("|".join(values).encode()).hexdigest()
