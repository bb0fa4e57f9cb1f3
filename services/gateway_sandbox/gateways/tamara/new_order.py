"""Reading ``POST /checkout``: what Tamara's schema asks for, and that the lines add up to the total."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from services.gateway_sandbox.domain.models import BookEntry, CaptureMode
from services.gateway_sandbox.gateways.port import Books
from services.gateway_sandbox.gateways.tamara.wire import (
    CURRENCY_OF,
    Json,
    amount_of,
    check_fields,
    invalid,
    new_uuid,
    object_of,
    refused,
    text_of,
    url_of,
    whole_number,
)
from shared.money import CURRENCY_EXPONENT

USUAL_MINUTES = 30

_REQUIRED = frozenset(
    "order_reference_id total_amount tax_amount shipping_amount description country_code payment_type instalments "
    "items consumer shipping_address merchant_url".split()
)
_OPTIONAL = frozenset(
    "order_number billing_address discount platform is_mobile locale risk_assessment expires_in_minutes "
    "additional_data".split()
)
_ITEM_REQUIRED = frozenset("reference_id type name sku quantity total_amount".split())
_ITEM_OPTIONAL = frozenset("unit_price tax_amount discount_amount image_url item_url".split())
_ADDRESS_REQUIRED = frozenset("first_name last_name line1 city country_code".split())
_ADDRESS_OPTIONAL = frozenset("line2 region phone_number".split())
_PAYMENT_TYPES = frozenset({"PAY_BY_INSTALMENTS", "PAY_NOW", "PAY_BY_LATER"})


def new_entry(body: Json, books: Books) -> BookEntry:
    """Raises WireError. Nothing is captured by itself, so every order is held first in the books."""
    check_fields(body, _REQUIRED, _OPTIONAL)
    currency = _currency(body)
    reference = text_of(body, "order_reference_id")
    urls = object_of(body, "merchant_url")
    check_fields(urls, frozenset({"success", "failure", "cancel"}), frozenset({"notification"}), "merchant_url.")
    consumer = _consumer(body)
    return BookEntry(
        gateway="tamara",
        gateway_reference=new_uuid(books),
        reference=reference,
        order_id=text_of(body, "order_number") if "order_number" in body else reference,
        amount_minor=_total(body, currency),
        currency=currency,
        capture=CaptureMode.MANUAL,
        success_url=url_of(urls, "success"),
        cancel_url=url_of(urls, "cancel"),
        page_token=books.new_id("", 32),
        created_at=books.now,
        expires_at=books.now + timedelta(minutes=_minutes(body)),
        customer_email=consumer.get("email"),
        description=text_of(body, "description", longest=256),
        details={
            "checkout_id": new_uuid(books),
            "failure_url": url_of(urls, "failure"),
            "payment_type": _payment_type(body),
            "instalments": whole_number(body, "instalments", 1, 36),
            "items": [_shown(item) for item in body["items"]],
        },
    )


def _currency(body: Json) -> str:
    country, currency = body["country_code"], object_of(body, "total_amount").get("currency")
    if not isinstance(country, str) or not isinstance(currency, str) or CURRENCY_OF.get(country) != currency:
        raise refused(400, "not_supported_country_currency", "The country and currency are not supported")
    return currency


def _payment_type(body: Json) -> str:
    value = text_of(body, "payment_type")
    if value not in _PAYMENT_TYPES:
        raise invalid("payment_type", "is not known")
    return value


def _total(body: Json, currency: str) -> int:
    """At least 0.1, and what lines, tax, shipping and discount come to."""
    total = amount_of(body, "total_amount", currency, least_minor=10 ** (CURRENCY_EXPONENT[currency] - 1))
    extra = sum(amount_of(body, key, currency, least_minor=0) for key in ("tax_amount", "shipping_amount"))
    discount = 0
    if "discount" in body:
        discount = amount_of(object_of(body, "discount"), "amount", currency)
    if _lines_total(body, currency) + extra - discount != total:
        raise refused(400, "total_amount_invalid", "The total amount does not match the items")
    return total


def _lines_total(body: Json, currency: str) -> int:
    items = body["items"]
    if not isinstance(items, list) or not items or not all(isinstance(item, dict) for item in items):
        raise invalid("items", "must be a list of at least one item")
    return sum(_line_total(item, currency) for item in items)


def _line_total(item: Mapping[str, Any], currency: str) -> int:
    check_fields(item, _ITEM_REQUIRED, _ITEM_OPTIONAL, "items.")
    text_of(item, "reference_id")
    text_of(item, "type")
    text_of(item, "name")
    text_of(item, "sku", longest=128)
    quantity = whole_number(item, "quantity", 1, 10**6)
    total = amount_of(item, "total_amount", currency, least_minor=0)
    if "unit_price" in item and amount_of(item, "unit_price", currency, least_minor=0) * quantity != total:
        raise invalid("items.total_amount", "does not match the unit price")
    return total


def _shown(item: Mapping[str, Any]) -> Json:
    """What the hosted page tells of a line."""
    return {"name": item["name"], "quantity": item["quantity"], "total": str(item["total_amount"]["amount"])}


def _consumer(body: Json) -> Json:
    """The number may be empty: the page asks for it then. What the real one does is not documented."""
    consumer, address = object_of(body, "consumer"), object_of(body, "shipping_address")
    required = frozenset({"first_name", "last_name", "phone_number"})
    check_fields(consumer, required, frozenset({"email"}), "consumer.")
    text_of(consumer, "first_name")
    text_of(consumer, "last_name")
    phone = text_of(consumer, "phone_number", longest=20, may_be_empty=True)
    if phone and not (phone.isascii() and phone.isdigit()):
        raise invalid("consumer.phone_number", "must be digits")
    if "email" in consumer:
        text_of(consumer, "email")
    check_fields(address, _ADDRESS_REQUIRED, _ADDRESS_OPTIONAL, "shipping_address.")
    for key in _ADDRESS_REQUIRED:
        text_of(address, key)
    return consumer


def _minutes(body: Json) -> int:
    return whole_number(body, "expires_in_minutes", 5, 1440) if "expires_in_minutes" in body else USUAL_MINUTES
