"""Reading a request as Razorpay does: JSON with documented fields only, amounts in sub-units."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from services.gateway_sandbox.domain.json_text import from_json
from services.gateway_sandbox.gateways.port import WireCall
from services.gateway_sandbox.gateways.razorpay import errors
from shared.money import CURRENCY_EXPONENT, MAX_AMOUNT_MINOR

Json = dict[str, Any]

_SMALLEST_INR = 100
_MOST_NOTES = 15
_LONGEST_NOTE = 255


def json_body(call: WireCall, allowed: frozenset[str]) -> Json:
    """Raises WireError. A field that is not documented is refused, whatever its value, null too."""
    try:
        body = from_json(call.body or b"{}")
    except (ValueError, RecursionError) as error:
        raise errors.invalid("The request body is not valid JSON") from error
    if not isinstance(body, dict):
        raise errors.invalid("The request body must be an object")
    only(body, allowed)
    return body


def only(body: Mapping[str, Any], allowed: frozenset[str]) -> None:
    unknown = sorted(set(body) - allowed)
    if unknown:
        raise errors.not_sent(unknown)


def text(body: Mapping[str, Any], key: str, *, longest: int) -> str | None:
    value = body.get(key)
    if value is None:
        return None
    if not isinstance(value, str):
        raise errors.invalid(f"The {key.replace('_', ' ')} must be a string.", field=key)
    if len(value) > longest:
        raise errors.invalid(f"The {key.replace('_', ' ')} may not be greater than {longest} characters.", field=key)
    return value


def boolean(body: Mapping[str, Any], key: str, *, default: bool) -> bool:
    value = body.get(key, default)
    if type(value) is not bool and value not in (0, 1):
        raise errors.invalid(f"The {key.replace('_', ' ')} field must be true or false.", field=key)
    return bool(value)


def currency_of(body: Mapping[str, Any], *, default: str | None = None) -> str:
    currency = text(body, "currency", longest=3) or default
    if currency is None:
        raise errors.required("currency")
    if currency not in CURRENCY_EXPONENT:
        raise errors.invalid("Currency is not supported", field="currency")
    return currency


def amount_of(body: Mapping[str, Any], currency: str, key: str = "amount") -> int:
    if key not in body:
        raise errors.required(key)
    value = body[key]
    if type(value) is not int:
        raise errors.invalid(f"The {key} must be an integer.", field=key)
    if value > MAX_AMOUNT_MINOR:
        raise errors.invalid("Amount exceeds maximum amount allowed.", field=key)
    if value < (_SMALLEST_INR if currency == "INR" else 1):
        raise errors.invalid(
            "The amount must be atleast INR 1.00" if currency == "INR" else "Invalid amount", field=key
        )
    if CURRENCY_EXPONENT[currency] == 3 and value % 10:
        raise errors.invalid(f"The last digit of an amount in {currency} has to be 0.", field=key)
    return value


def notes(body: Mapping[str, Any]) -> dict[str, str]:
    value = body.get("notes") or {}
    if not isinstance(value, dict) or not all(isinstance(each, str | int) for each in value.values()):
        raise errors.invalid("The notes must be an object of strings.", field="notes")
    if len(value) > _MOST_NOTES:
        raise errors.invalid("Number of fields in notes should be less than or equal to 15", field="notes")
    if any(len(str(each)) > _LONGEST_NOTE for each in value.values()):
        raise errors.invalid("The notes value may not be greater than 255 characters.", field="notes")
    return {str(key): str(each) for key, each in value.items()}


def web_address(value: str | None, key: str) -> str | None:
    if value is None:
        return None
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.netloc or any(ord(letter) < 33 for letter in value):
        raise errors.invalid(f"The {key.replace('_', ' ')} format is invalid.", field=key)
    return value


def moment(body: Mapping[str, Any], key: str) -> datetime | None:
    value = body.get(key)
    if value is None:
        return None
    if type(value) is not int or not 0 < value < 10**11:
        raise errors.invalid(f"The {key.replace('_', ' ')} must be a Unix time.", field=key)
    return datetime.fromtimestamp(value, UTC)


def whole_number(query: Mapping[str, str], key: str, *, default: int, most: int) -> int:
    given = query.get(key)
    if given is None:
        return default
    if not given.isascii() or not given.isdigit() or int(given[:12]) > most:
        raise errors.invalid(f"The {key} may not be greater than {most}.", field=key)
    return int(given)
