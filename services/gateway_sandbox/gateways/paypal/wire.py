"""Reading PayPal's requests: JSON bodies, amounts, and what a new order needs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from services.gateway_sandbox.domain.json_text import from_json
from services.gateway_sandbox.domain.models import BookEntry, CaptureMode
from services.gateway_sandbox.gateways.paypal.errors import invalid, refused
from services.gateway_sandbox.gateways.port import Books, WireCall
from shared.errors import InvalidAmount
from shared.money import Money

Json = dict[str, Any]

CURRENCIES = frozenset(
    "AUD BRL CAD CNY CZK DKK EUR HKD HUF ILS JPY MYR MXN TWD NZD NOK PHP PLN GBP SGD SEK CHF THB USD".split()
)
WHOLE_ONLY = frozenset({"HUF", "JPY", "TWD"})
ORDER_WINDOW = timedelta(hours=3)

_LONGEST_ID = 127


def json_object(call: WireCall) -> Json:
    try:
        body = from_json(call.body) if call.body.strip() else {}
    except (ValueError, RecursionError):
        raise invalid("MALFORMED_REQUEST_JSON") from None
    if not isinstance(body, dict):
        raise invalid("MALFORMED_REQUEST_JSON")
    return body


def amount_of(source: Mapping[str, Any], key: str, field: str) -> tuple[int, str]:
    """ISO 4217 minor units and the currency, from ``{"currency_code": …, "value": …}``."""
    amount = source.get(key)
    if not isinstance(amount, dict):
        raise invalid("MISSING_REQUIRED_PARAMETER", field)
    currency, value = amount.get("currency_code"), amount.get("value")
    if not isinstance(currency, str) or not isinstance(value, str):
        raise invalid("INVALID_PARAMETER_SYNTAX", field)
    if currency not in CURRENCIES:
        raise refused("CURRENCY_NOT_SUPPORTED")
    if currency in WHOLE_ONLY and "." in value:
        raise refused("DECIMALS_NOT_SUPPORTED")
    try:
        minor = Money.from_major(value, currency).amount_minor
    except InvalidAmount:
        raise refused("DECIMAL_PRECISION") from None
    if minor <= 0:
        raise refused("CANNOT_BE_ZERO_OR_NEGATIVE")
    return minor, currency


def optional_amount(body: Mapping[str, Any], entry: BookEntry, otherwise_minor: int) -> int:
    if "amount" not in body:
        return otherwise_minor
    minor, currency = amount_of(body, "amount", "/amount")
    if currency != entry.currency:
        raise refused("CURRENCY_MISMATCH")
    return minor


def optional_text(source: Mapping[str, Any], key: str, longest: int = _LONGEST_ID) -> str | None:
    value = source.get(key)
    if value is None:
        return None
    if not isinstance(value, str):
        raise invalid("INVALID_PARAMETER_SYNTAX", f"/{key}")
    if not 0 < len(value) <= longest:
        raise invalid("INVALID_STRING_LENGTH", f"/{key}")
    return value


def new_order(body: Json, books: Books) -> BookEntry:
    """An order of one purchase unit, to be approved on the hosted page."""
    if body.get("intent") not in ("CAPTURE", "AUTHORIZE"):
        raise invalid("INVALID_PARAMETER_VALUE" if "intent" in body else "MISSING_REQUIRED_PARAMETER", "/intent")
    units = body.get("purchase_units")
    if not isinstance(units, list) or len(units) != 1 or not isinstance(units[0], dict):
        raise invalid("INVALID_ARRAY_LENGTH", "/purchase_units")
    unit = units[0]
    amount_minor, currency = amount_of(unit, "amount", "/purchase_units/@reference_id=='default'/amount")
    _check_items(unit, amount_minor, currency)
    context, with_source = _experience(body)
    custom_id, invoice_id = optional_text(unit, "custom_id"), optional_text(unit, "invoice_id")
    kept = {
        "custom_id": custom_id,
        "invoice_id": invoice_id,
        "items": unit.get("items", []),
        "with_source": with_source,
        "reference_id": optional_text(unit, "reference_id", 256) or "default",
    }
    return BookEntry(
        gateway="paypal",
        gateway_reference=books.new_id("", 17).upper(),
        reference=custom_id,
        order_id=None,
        amount_minor=amount_minor,
        currency=currency,
        capture=CaptureMode.MANUAL if body["intent"] == "AUTHORIZE" else CaptureMode.AUTOMATIC,
        success_url=str(context.get("return_url", "")),
        cancel_url=str(context.get("cancel_url", "")) or None,
        page_token=books.new_id("", 32),
        created_at=books.now,
        expires_at=books.now + ORDER_WINDOW,
        description=optional_text(unit, "description"),
        details=kept,
    )


def _experience(body: Json) -> tuple[Json, bool]:
    """Where the browser goes, from the payment source or the older application context."""
    source = body.get("payment_source")
    paypal = source.get("paypal") if isinstance(source, dict) else None
    context = paypal.get("experience_context") if isinstance(paypal, dict) else body.get("application_context")
    return (context if isinstance(context, dict) else {}), source is not None


def _check_items(unit: Json, amount_minor: int, currency: str) -> None:
    """Lines need a breakdown, and the breakdown has to add up (the parts that Payrail sends)."""
    items = unit.get("items")
    if not items:
        return
    breakdown = unit["amount"].get("breakdown")
    if not isinstance(items, list) or not isinstance(breakdown, dict) or "item_total" not in breakdown:
        raise refused("ITEM_TOTAL_REQUIRED")
    total = sum(_line_minor(item) for item in items)
    if amount_of(breakdown, "item_total", "/item_total") != (total, currency):
        raise refused("ITEM_TOTAL_MISMATCH")
    if total != amount_minor:
        raise refused("AMOUNT_MISMATCH")


def _line_minor(item: Any) -> int:
    if not isinstance(item, dict) or not optional_text(item, "name"):
        raise invalid("MISSING_REQUIRED_PARAMETER", "/items/name")
    quantity = optional_text(item, "quantity", 10)
    if quantity is None or not quantity.isdigit():
        raise invalid("INVALID_PARAMETER_SYNTAX", "/items/quantity")
    return amount_of(item, "unit_amount", "/items/unit_amount")[0] * int(quantity)
