"""Reading a request as Tabby does: JSON with documented fields only, amounts as text in major units."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from services.gateway_sandbox.domain.json_text import from_json
from services.gateway_sandbox.gateways.port import WireCall
from services.gateway_sandbox.gateways.tabby import errors
from shared.money import CURRENCY_EXPONENT, MAX_AMOUNT_MINOR, Money

Json = dict[str, Any]

CURRENCIES = frozenset({"AED", "SAR", "KWD"})
LONGEST_TEXT = 255
LONGEST_DESCRIPTION = 2000

_AMOUNT = re.compile(r"[0-9]{1,15}(?:\.([0-9]{1,3}))?", re.ASCII)
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
# The letters, digits and signs that a return address may hold; our own ids have an underscore, as Tabby's samples have.
_ADDRESS = re.compile(r"[A-Za-z0-9\u0600-\u06ff/:.,;+{}?&@=#%|\\_-]+")


def json_body(call: WireCall, allowed: frozenset[str]) -> Json:
    """Raises WireError for anything but one object of documented fields."""
    try:
        body = from_json(call.body)
    except (ValueError, RecursionError) as error:
        raise errors.bad_data("invalid JSON") from error
    return only(body, "body", allowed)


def only(value: Any, name: str, allowed: frozenset[str]) -> Json:
    if not isinstance(value, dict):
        raise errors.bad_data(f"{name} must be an object")
    unknown = sorted(set(value) - allowed)
    if unknown:
        raise errors.bad_data(f"{name}.{unknown[0]} is unknown")
    return value


def object_of(body: Mapping[str, Any], key: str, allowed: frozenset[str]) -> Json:
    if key not in body:
        raise errors.bad_data(f"{key} is required")
    return only(body[key], key, allowed)


def text(body: Mapping[str, Any], key: str, *, longest: int = LONGEST_TEXT, may_be_empty: bool = False) -> str:
    found = optional_text(body, key, longest=longest)
    if found is None or not (found or may_be_empty):
        raise errors.bad_data(f"{key} is required")
    return found


def optional_text(body: Mapping[str, Any], key: str, *, longest: int = LONGEST_TEXT) -> str | None:
    value = body.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > longest:
        raise errors.bad_data(f"{key} must be text of at most {longest} characters")
    return value


def currency_of(body: Mapping[str, Any]) -> str:
    currency = text(body, "currency")
    if currency not in CURRENCIES:
        raise errors.bad_data("currency is not supported for this merchant")
    return currency


def amount_of(body: Mapping[str, Any], currency: str, key: str = "amount", *, least: int = 1) -> int:
    """Text, and no more digits than the currency has."""
    value = body.get(key)
    match = _AMOUNT.fullmatch(value) if isinstance(value, str) else None
    if match is None or len(match.group(1) or "") > CURRENCY_EXPONENT[currency]:
        raise errors.bad_data(f"{key} must be a decimal string in {currency}")
    amount_minor = Money.from_major(value or "", currency).amount_minor
    if not least <= amount_minor <= MAX_AMOUNT_MINOR:
        raise errors.bad_data(f"{key} is out of range")
    return amount_minor


def web_address(body: Mapping[str, Any], key: str) -> str:
    """HTTPS, but for a shop that runs beside the sandbox."""
    value = text(body, key, longest=2000)
    parts = urlsplit(value)
    is_safe = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname is not None)
    if not is_safe or not parts.netloc or not _ADDRESS.fullmatch(value):
        raise errors.bad_data(f"{key} is not an address to return to")
    return value


def moment(body: Mapping[str, Any], key: str) -> datetime:
    try:
        found = datetime.fromisoformat(text(body, key))
    except ValueError as error:
        raise errors.bad_data(f"{key} must be an ISO 8601 time") from error
    if found.tzinfo is None:
        raise errors.bad_data(f"{key} has no zone")
    return found


def day(query: Mapping[str, str], key: str) -> datetime | None:
    """A date, which stands for its first moment."""
    value = query.get(key)
    if value is None:
        return None
    try:
        found = datetime.fromisoformat(value) if _DATE.fullmatch(value) else None
    except ValueError:
        found = None
    if found is None:
        raise errors.bad_data(f"{key} must be YYYY-MM-DD")
    return found.replace(tzinfo=UTC)


def whole_number(query: Mapping[str, str], key: str, *, default: int, most: int) -> int:
    value = query.get(key)
    if value is None:
        return default
    if not value.isascii() or not value.isdigit() or int(value[:12]) > most:
        raise errors.bad_data(f"{key} must be a whole number up to {most}")
    return int(value)
