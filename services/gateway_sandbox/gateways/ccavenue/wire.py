"""Reading what is sent to CCAvenue, strictly, and sealing what it answers."""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any
from urllib.parse import parse_qsl

from services.gateway_sandbox.domain.json_text import from_json, to_json
from services.gateway_sandbox.gateways.port import WireAnswer, WireCall, WireError
from shared.ccavenue_cipher import CannotDecrypt, CCAvenueCipher, split_pairs
from shared.money import Money
from shared.randomness import Randomness

Json = dict[str, Any]

API = "/apis/servlet/DoWebTrans"
PAGE = "/transaction/transaction.do"
CURRENCIES = frozenset({"INR", "USD", "SGD", "GBP", "EUR", "AED"})
INDIA = timezone(timedelta(hours=5, minutes=30))

_ENVELOPE = frozenset({"enc_request", "access_code", "command", "request_type", "response_type", "version"})
_AMOUNT = re.compile(r"[0-9]{1,10}\.[0-9]{2}")
_ORDER_ID = re.compile(r"[A-Za-z0-9/_-]{1,30}")
_REQUIRED = ("merchant_id", "order_id", "currency", "amount", "redirect_url", "cancel_url", "language")
_SHOPPER = "name address city state zip country tel email".split()
_OPTIONAL = frozenset(
    {
        *(f"billing_{field}" for field in _SHOPPER),
        *(f"delivery_{field}" for field in _SHOPPER),
        *(f"merchant_param{number}" for number in range(1, 6)),
        *("promo_code", "customer_identifier", "integration_type", "payment_option"),
    }
)


@dataclass(frozen=True, slots=True)
class Keys:
    """An access code with its working key. Without ``access_code`` any will do."""

    access_code: str | None
    cipher: CCAvenueCipher
    randomness: Randomness

    def knows(self, access_code: str) -> bool:
        wanted = self.access_code or access_code
        return bool(access_code) and hmac.compare_digest(access_code.encode(), wanted.encode())

    def seal(self, text: str) -> str:
        return self.cipher.encrypt(text, self.randomness)

    def answer(self, body: Json) -> WireAnswer:
        """With a line end that does not belong there, as CCAvenue's answers have."""
        return WireAnswer(200, f"status=0&enc_response={self.seal(to_json(body))}\r\n")


def form_of(call: WireCall) -> dict[str, str]:
    """Empty for what is no form, or one in which a name comes twice."""
    try:
        pairs = parse_qsl(call.body.decode(), keep_blank_values=True, strict_parsing=True, max_num_fields=100)
    except ValueError:
        return {}
    form = dict(pairs)
    return form if len(form) == len(pairs) else {}


def refused(code: str, text: str) -> WireError:
    """Not sealed: what is refused before anything is done is said in plain text, with 200."""
    return WireError(WireAnswer(200, f"status=1&enc_response={text}&enc_error_code={code}\r\n"), stored=False)


def command_payload(call: WireCall, keys: Keys, version: str, fields: frozenset[str], required: frozenset[str]) -> Json:
    """Raises WireError, in the order in which CCAvenue could notice."""
    form = form_of(call)
    if set(form) != _ENVELOPE or form["request_type"] != "JSON" or form["response_type"] != "JSON":
        raise refused("51401", "Required parameter missing")
    if form["version"] != version:
        raise refused("51421", "Version is invalid")
    try:
        payload = from_json(keys.cipher.decrypt(form["enc_request"]).encode())
    except CannotDecrypt:
        raise refused("-1", "The request could not be decrypted") from None
    except (ValueError, RecursionError):
        raise refused("51411", "Invalid JSON") from None
    if not isinstance(payload, dict):
        raise refused("51411", "Invalid JSON")
    check_fields(payload, fields, required)
    return payload


def check_fields(payload: Any, fields: frozenset[str], required: frozenset[str]) -> None:
    if not isinstance(payload, dict) or set(payload) - fields:
        raise refused("51405", "Invalid parameter")
    if required - set(payload):
        raise refused("51402", "Required parameter missing")


def text_of(payload: Mapping[str, Any], key: str) -> str:
    value = payload.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= 60:
        raise refused("51304" if key == "reference_no" else "51405", f"Invalid {key}")
    return value


def amount_of(value: Any, currency: str) -> int:
    """Minor units of ``"499.00"``. Raises WireError."""
    if not isinstance(value, str) or not _AMOUNT.fullmatch(value) or not value.strip("0."):
        raise refused("51306", "Invalid amount")
    return Money.from_major(value, currency).amount_minor


def day_of(payload: Mapping[str, Any], key: str) -> date | None:
    value = payload.get(key)
    if value is None:
        return None
    try:
        return datetime.strptime(str(value), "%d-%m-%Y").replace(tzinfo=INDIA).date()
    except ValueError:
        raise refused("51405", f"Invalid {key}") from None


def start_of(day: date) -> datetime:
    """The first moment of a day in India."""
    return datetime(day.year, day.month, day.day, tzinfo=INDIA).astimezone(UTC)


# --- the page's form ------------------------------------------------------------------------------------------------


def page_error(status: int, number: int, text: str) -> WireError:
    body = f"<!doctype html><title>CCAvenue</title><h1>{text}</h1><p>Error code {number}</p>"
    return WireError(WireAnswer(status, body, {"Content-Type": "text/html; charset=utf-8"}), stored=False)


def checkout_fields(call: WireCall, keys: Keys, merchant_id: str | None) -> dict[str, str]:
    """What the browser brought, opened and checked. Raises WireError with a page."""
    form = form_of(call)
    if dict(call.query) != {"command": "initiateTransaction"}:
        raise page_error(404, 10001, "Command not found")
    if set(form) != {"encRequest", "access_code"} or not keys.knows(form["access_code"]):
        raise page_error(403, 10002, "Merchant Authentication failed")
    try:
        fields = dict(split_pairs(keys.cipher.decrypt(form["encRequest"])))
    except (CannotDecrypt, ValueError):
        raise page_error(403, 10002, "Merchant Authentication failed") from None
    if fields.get("merchant_id") != (merchant_id or fields.get("merchant_id")):
        raise page_error(403, 10002, "Merchant Authentication failed")
    problem = _problem(fields)
    if problem is not None:
        raise page_error(400, 10003, f"Invalid parameter: {problem}")
    return fields


def _problem(fields: Mapping[str, str]) -> str | None:
    missing = next((name for name in _REQUIRED if not fields.get(name)), None)
    if missing is not None:
        return missing
    unknown = sorted(set(fields) - _OPTIONAL - set(_REQUIRED))
    if unknown:
        return unknown[0]
    if fields["currency"] not in CURRENCIES:
        return "currency"
    if not _AMOUNT.fullmatch(fields["amount"]) or not fields["amount"].strip("0."):
        return "amount"
    if not _ORDER_ID.fullmatch(fields["order_id"]):
        return "order_id"
    if fields["language"] != "EN" or not fields["merchant_id"].isdigit():
        return "language or merchant_id"
    return next((name for name, value in fields.items() if _is_bad(name, value)), None)


def _is_bad(name: str, value: str) -> bool:
    if name in ("redirect_url", "cancel_url"):
        return len(value) > 100 or not re.fullmatch(r"https?://[A-Za-z0-9.:/_-]+", value)
    return len(value) > 100 or re.search(r"[^ -~]|[&<>\"']", value) is not None
