"""MyFatoorah's envelope, and reading a request as strictly as its documentation is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

from services.gateway_sandbox.domain.json_text import from_json
from services.gateway_sandbox.domain.models import BookEntry
from services.gateway_sandbox.gateways.port import Books, EntryFilter, WireAnswer, WireCall, WireError
from shared.errors import InvalidAmount
from shared.money import MAX_AMOUNT_MINOR, Money

Json = dict[str, Any]

LONGEST_URL = 254


def accepted(data: Any) -> WireAnswer:
    return WireAnswer.json(200, {"IsSuccess": True, "Message": "", "ValidationErrors": None, "Data": data})


def refused(message: str, *, status: int = 400, errors: Sequence[Mapping[str, str]] | None = None) -> WireError:
    body = {"IsSuccess": False, "Message": message, "ValidationErrors": errors, "Data": None}
    return WireError(WireAnswer.json(status, body), stored=False)


def invalid(name: str, error: str) -> WireError:
    return refused("Invalid data", errors=[{"Name": name, "Error": error}])


def json_body(call: WireCall, required: frozenset[str], optional: frozenset[str] = frozenset()) -> Json:
    """Raises WireError: for a field that is missing, and for one that is not documented."""
    try:
        body = from_json(call.body or b"{}")
    except (ValueError, RecursionError) as error:
        raise refused("The request is not valid JSON") from error
    if not isinstance(body, dict):
        raise refused("The request must be an object")
    missing, unknown = sorted(required - set(body)), sorted(set(body) - required - optional)
    if missing:
        raise invalid(missing[0], "is required")
    if unknown:
        raise invalid(unknown[0], "is not a parameter of this endpoint")
    return body


def text(body: Mapping[str, Any], key: str, *, longest: int) -> str | None:
    value = body.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or not value or len(value) > longest:
        raise invalid(key, f"must be null or text of 1 to {longest} characters")
    return value


def required_text(body: Mapping[str, Any], key: str, *, longest: int) -> str:
    value = text(body, key, longest=longest)
    if value is None:
        raise invalid(key, "is required")
    return value


def one_of(body: Mapping[str, Any], key: str, allowed: Sequence[str]) -> str:
    value = body.get(key)
    if value not in allowed:
        raise invalid(key, f"must be one of {', '.join(allowed)}")
    return str(value)


def web_address(body: Mapping[str, Any], key: str) -> str | None:
    value = text(body, key, longest=LONGEST_URL)
    parts = urlsplit(value or "")
    if value is not None and (parts.scheme not in ("http", "https") or not parts.netloc or " " in value):
        raise invalid(key, "must be a URL")
    return value


def amount_of(body: Mapping[str, Any], key: str, currency: str) -> int:
    """A JSON number in major units, with no more digits than the currency has."""
    value = body.get(key)
    if type(value) is not int and not isinstance(value, Decimal):
        raise invalid(key, "must be a number")
    try:
        minor = Money.from_major(Decimal(value), currency).amount_minor
    except InvalidAmount as error:
        raise invalid(key, f"has digits that {currency} does not have") from error
    if not 0 < minor <= MAX_AMOUNT_MINOR:
        raise invalid(key, "must be greater than 0")
    return minor


def moment(body: Mapping[str, Any], key: str) -> datetime:
    """RFC 3339 with a zone."""
    value = required_text(body, key, longest=40)
    try:
        found = datetime.fromisoformat(value)
    except ValueError as error:
        raise invalid(key, "must be a date and time") from error
    if found.tzinfo is None:
        raise invalid(key, "must have a zone")
    return found


async def entry_of(
    body: Mapping[str, Any], books: Books, types: Sequence[str], *, for_update: bool = False
) -> BookEntry:
    """By ``Key`` and ``KeyType``: of a customer's reference the newest invoice only."""
    key_type, key = one_of(body, "KeyType", types), required_text(body, "Key", longest=100)
    if key_type == "CustomerReference":
        newest = await books.search(EntryFilter(reference=key, limit=1))
        entry = newest[0] if newest else None
    else:
        entry = await books.find(key, for_update=for_update)
        if entry is not None and (entry.gateway_reference == key) is not (key_type == "InvoiceId"):
            entry = None
    if entry is None:
        raise refused("No data match the provided values!")
    return entry
