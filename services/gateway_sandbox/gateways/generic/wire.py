"""What the generic gateway reads from a request, and how it refuses one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

from services.gateway_sandbox.domain.json_text import from_json
from services.gateway_sandbox.domain.models import BookEntry, CaptureMode, IllegalMove, MoreThanThereIs
from services.gateway_sandbox.gateways.port import Books, WireAnswer, WireCall, WireError
from shared.errors import InvalidAmount
from shared.money import CURRENCY_EXPONENT, MAX_AMOUNT_MINOR, Money

_DEFAULT_LIFE = timedelta(hours=1)
_LONGEST_LIFE = timedelta(days=7)

Json = dict[str, Any]


def refused(status: int, code: str, message: str, *, stored: bool = True) -> WireError:
    return WireError(WireAnswer.json(status, {"error": {"code": code, "message": message}}), stored=stored)


def invalid(message: str) -> WireError:
    return refused(400, "invalid_request", message, stored=False)


async def entry_of(call: WireCall, books: Books, *, for_update: bool = False) -> BookEntry:
    identifier = call.path_values["id"]
    entry = await books.find(identifier, for_update=for_update)
    if entry is None or entry.gateway_reference != identifier:
        raise refused(404, "not_found", "There is no such payment.")
    return entry


def json_object(call: WireCall, *, allowed: frozenset[str]) -> Json:
    try:
        body = from_json(call.body or b"{}")
    except (ValueError, RecursionError) as error:
        raise invalid("the body is not valid JSON") from error
    if not isinstance(body, dict):
        raise invalid("the body must be a JSON object")
    unknown = sorted(set(body) - allowed)
    if unknown:
        raise invalid(f"unknown field: {unknown[0]}")
    return body


def new_entry(body: Json, books: Books) -> BookEntry:
    reference = _required_text(body, "reference")
    currency = _required_text(body, "currency")
    if currency not in CURRENCY_EXPONENT:
        raise invalid(f"unknown currency {currency!r}")
    capture = body.get("capture", "automatic")
    if capture not in ("automatic", "manual"):
        raise invalid("capture must be automatic or manual")
    return BookEntry(
        gateway="generic",
        gateway_reference=books.new_id("gp_"),
        reference=reference,
        order_id=text_of(body, "order_id"),
        amount_minor=amount_of(body, currency),
        currency=currency,
        capture=CaptureMode(capture),
        success_url=_url(body, "return_url"),
        cancel_url=_url(body, "cancel_url"),
        page_token=books.new_id("", 32),
        created_at=books.now,
        expires_at=_expiry(body, books.now),
        customer_email=text_of(body, "customer_email"),
        description=text_of(body, "description"),
        metadata=_metadata(body),
    )


def amount_of(body: Json, currency: str) -> int:
    value = body.get("amount")
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise invalid("amount must be a number in major units, for example 150.00")
    try:
        amount_minor = Money.from_major(Decimal(value), currency).amount_minor
    except InvalidAmount as error:
        raise refused(400, "invalid_amount", error.detail, stored=False) from error
    if not 0 < amount_minor <= MAX_AMOUNT_MINOR:
        raise refused(400, "invalid_amount", "the amount must be positive and not huge", stored=False)
    return amount_minor


def text_of(body: Json, key: str, *, longest: int = 500) -> str | None:
    value = body.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > longest:
        raise invalid(f"{key} must be text of at most {longest} characters")
    return value


def _required_text(body: Json, key: str) -> str:
    value = text_of(body, key)
    if not value:
        raise invalid(f"{key} is required")
    return value


def _url(body: Json, key: str) -> str:
    value = text_of(body, key, longest=2000)
    parts = urlsplit(value or "")
    if (
        parts.scheme not in ("http", "https")
        or not parts.netloc
        or any(ord(character) < 33 for character in value or "")
    ):
        raise invalid(f"{key} must be an http or https URL")
    return value or ""


def _expiry(body: Json, now: datetime) -> datetime:
    value = text_of(body, "expires_at")
    if value is None:
        return now + _DEFAULT_LIFE
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        moment = now.replace(tzinfo=None)
    if moment.tzinfo is None or not now < moment <= now + _LONGEST_LIFE:
        raise invalid("expires_at must be an RFC 3339 time within the next 7 days")
    return moment


def _metadata(body: Json) -> dict[str, str]:
    metadata = body.get("metadata") or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise invalid("metadata must be an object of strings")
    return metadata


@contextmanager
def refusals() -> Iterator[None]:
    """What the books forbid, in this gateway's words."""
    try:
        yield
    except MoreThanThereIs as error:
        raise refused(422, "amount_too_large", error.detail) from error
    except IllegalMove as error:
        raise refused(409, "illegal_state", error.detail) from error
