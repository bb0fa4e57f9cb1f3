"""What Tamara reads from a request, and how it refuses one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

from services.gateway_sandbox.domain.json_text import from_json
from services.gateway_sandbox.gateways.port import Books, WireAnswer, WireCall, WireError
from shared.errors import InvalidAmount
from shared.money import MAX_AMOUNT_MINOR, Money

Json = dict[str, Any]

_SHIPPING_REQUIRED = frozenset({"shipped_at", "shipping_company"})
_SHIPPING_OPTIONAL = frozenset({"tracking_number", "tracking_url"})

CURRENCY_OF: Mapping[str, str] = {"SA": "SAR", "AE": "AED", "BH": "BHD", "KW": "KWD", "OM": "OMR"}


def refused(status: int, code: str | None, message: str, data: Json | None = None) -> WireError:
    errors = [{"error_code": code, "data": data or {}}] if code else []
    body: Json = {"message": message, "errors": errors, "data": {}, "title": None, "screen_type": None}
    return WireError(WireAnswer.json(status, body), stored=False)


def invalid(field: str, why: str) -> WireError:
    return refused(400, f"{field}_invalid", f"{field}: {why}")


def not_found() -> WireError:
    return refused(404, "order_not_found", "Order not found")


def transition_not_allowed(order_id: str, old_state: str, new_state: str) -> WireError:
    message = f"The order cannot be moved to the status {new_state} from {old_state}"
    data = {"order_id": order_id, "old_state": old_state, "new_state": new_state}
    return refused(409, "transition_not_allowed", message, data)


def json_object(call: WireCall) -> Json:
    try:
        body = from_json(call.body)
    except (ValueError, ArithmeticError, RecursionError) as error:
        raise refused(400, "invalid_json", "invalid json") from error
    if not isinstance(body, dict) or call.headers.get("content-type", "").partition(";")[0] != "application/json":
        raise refused(400, "invalid_json", "invalid json")
    return body


def check_fields(body: Mapping[str, Any], required: frozenset[str], optional: frozenset[str], where: str = "") -> None:
    missing, unknown = sorted(required - set(body)), sorted(set(body) - required - optional)
    if missing:
        raise invalid(f"{where}{missing[0]}", "is required")
    if unknown:
        raise invalid(f"{where}{unknown[0]}", "is not known")


def object_of(body: Mapping[str, Any], key: str) -> Json:
    value = body.get(key)
    if not isinstance(value, dict):
        raise invalid(key, "must be an object")
    return value


def text_of(body: Mapping[str, Any], key: str, *, longest: int = 255, may_be_empty: bool = False) -> str:
    value = body.get(key)
    if not isinstance(value, str) or len(value) > longest or not (value.strip() or may_be_empty):
        raise invalid(key, f"must be text of at most {longest} characters")
    return value


def whole_number(body: Mapping[str, Any], key: str, least: int, most: int) -> int:
    value = body.get(key)
    if type(value) is not int or not least <= value <= most:
        raise invalid(key, f"must be a whole number between {least} and {most}")
    return value


def url_of(body: Mapping[str, Any], key: str) -> str:
    value = text_of(body, key, longest=2000)
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.netloc or any(ord(character) < 33 for character in value):
        raise invalid(key, "must be a URL")
    return value


def amount_of(body: Mapping[str, Any], key: str, currency: str, *, least_minor: int = 1) -> int:
    """Minor units of ``{"amount": 300.00, "currency": "SAR"}``; the amount may be a number or a string."""
    money = object_of(body, key)
    check_fields(money, frozenset({"amount", "currency"}), frozenset(), f"{key}.")
    value = money["amount"]
    if isinstance(value, bool) or not isinstance(value, int | str | Decimal):
        raise invalid(key, "must have an amount")
    if money["currency"] != currency:
        raise invalid(key, f"must be in {currency}")
    try:
        amount_minor = Money.from_major(Decimal(value) if isinstance(value, int) else value, currency).amount_minor
    except InvalidAmount as error:
        raise invalid(key, error.detail) from error
    if not least_minor <= amount_minor <= MAX_AMOUNT_MINOR:
        raise invalid(key, "is too small or too large")
    return amount_minor


def shipping_info(body: Json) -> Json:
    shipping = object_of(body, "shipping_info")
    check_fields(shipping, _SHIPPING_REQUIRED, _SHIPPING_OPTIONAL, "shipping_info.")
    shipped_at = text_of(shipping, "shipped_at")
    text_of(shipping, "shipping_company", longest=100)
    if "tracking_number" in shipping:
        text_of(shipping, "tracking_number", longest=100)
    try:
        datetime.fromisoformat(shipped_at)
    except ValueError:
        raise invalid("shipping_info.shipped_at", "must be a time") from None
    return shipping


def new_uuid(books: Books) -> str:
    return as_uuid(hashlib.sha256(books.new_id("", 32).encode()).hexdigest())


def as_uuid(digits: str) -> str:
    """Hexadecimal digits in the look of Tamara's ids."""
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:32]}"
