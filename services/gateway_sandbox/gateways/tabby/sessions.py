"""Opening a checkout session: what Tabby requires of a request, and what it keeps of it."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Any

from services.gateway_sandbox.domain.models import BookEntry, CaptureMode
from services.gateway_sandbox.gateways.port import Books
from services.gateway_sandbox.gateways.tabby import errors, fields
from services.gateway_sandbox.gateways.tabby.fields import Json

PAYMENT_LIFE = timedelta(minutes=30)
REFUSED_PHONES = frozenset({"+971500000002", "+966500000002", "+96590000002"})
"""Test numbers of shoppers whom Tabby does not take, before any page is shown."""

SESSION_FIELDS = frozenset({"merchant_code", "lang", "merchant_urls", "payment", "token"})
_URLS = frozenset({"success", "cancel", "failure"})
_PAYMENT = frozenset(
    "amount currency description buyer shipping_address order buyer_history order_history meta attachment".split()
)
_BUYER = frozenset({"name", "email", "phone", "dob"})
_ADDRESS = frozenset({"city", "address", "zip"})
_ORDER = frozenset("reference_id items tax_amount shipping_amount discount_amount updated_at".split())
_ITEM = frozenset(
    "title quantity unit_price category reference_id description discount_amount image_url product_url gender brand "
    "color size is_refundable barcode".split()
)
_HISTORY = frozenset(
    "registered_since loyalty_level wishlist_count is_social_networks_connected is_phone_number_verified "
    "is_email_verified".split()
)
_COUNTRY_CURRENCY = {"ae": "AED", "sa": "SAR", "kw": "KWD"}


def new_uuid(books: Books) -> str:
    """Every id of Tabby's is a UUID."""
    digits = hashlib.sha256(books.new_id("", 32).encode()).hexdigest()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:32]}"


def new_entry(body: Json, merchant_code: str | None, books: Books) -> BookEntry:
    """Raises WireError. The payment is made with its session, and always only held at first."""
    code = fields.text(body, "merchant_code")
    if merchant_code is not None and code != merchant_code:
        raise errors.bad_data("merchant_code is unknown")
    if fields.text(body, "lang") not in ("en", "ar"):
        raise errors.bad_data("lang must be en or ar")
    urls = fields.object_of(body, "merchant_urls", _URLS)
    payment = fields.object_of(body, "payment", _PAYMENT)
    currency = fields.currency_of(payment)
    if _COUNTRY_CURRENCY.get(code.rpartition("_")[2], currency) != currency:
        raise errors.bad_data("currency is not supported for this merchant")
    order = fields.object_of(payment, "order", _ORDER)
    buyer, meta = _buyer(payment), _meta(payment)
    _require_risk_data(payment)
    return BookEntry(
        gateway="tabby",
        gateway_reference=new_uuid(books),
        reference=fields.text(order, "reference_id"),
        order_id=meta.get("order_id"),
        amount_minor=fields.amount_of(payment, currency),
        currency=currency,
        capture=CaptureMode.MANUAL,
        success_url=fields.web_address(urls, "success"),
        cancel_url=fields.web_address(urls, "cancel"),
        page_token=books.new_id("", 32),
        created_at=books.now,
        expires_at=books.now + PAYMENT_LIFE,
        customer_email=buyer["email"],
        description=fields.optional_text(payment, "description", longest=fields.LONGEST_DESCRIPTION),
        metadata=meta,
        details={
            "session_id": new_uuid(books),
            "failure_url": fields.web_address(urls, "failure"),
            "buyer": buyer,
            "shipping_address": payment["shipping_address"],
            "items": _items(order, currency),
        },
    )


def _buyer(payment: Json) -> Json:
    buyer = fields.object_of(payment, "buyer", _BUYER)
    for name in ("name", "email"):
        fields.text(buyer, name)
    fields.text(buyer, "phone", may_be_empty=True)
    return buyer


def _require_risk_data(payment: Json) -> None:
    address = fields.object_of(payment, "shipping_address", _ADDRESS)
    for name in ("city", "address", "zip"):
        fields.text(address, name)
    history = fields.object_of(payment, "buyer_history", _HISTORY)
    fields.moment(history, "registered_since")
    if type(history.get("loyalty_level")) is not int:
        raise errors.bad_data("loyalty_level must be a whole number")
    if not isinstance(payment.get("order_history"), list):
        raise errors.bad_data("order_history is required")


def _items(order: Json, currency: str) -> list[Json]:
    items = order.get("items")
    if not isinstance(items, list) or not items:
        raise errors.bad_data("order.items is required")
    for item in items:
        fields.only(item, "item", _ITEM)
        fields.text(item, "title")
        fields.text(item, "category")
        fields.amount_of(item, currency, "unit_price", least=0)
        if type(item.get("quantity")) is not int or item["quantity"] < 1:
            raise errors.bad_data("quantity must be a whole number")
    return items


def _meta(payment: Json) -> dict[str, Any]:
    meta = payment.get("meta") or {}
    if not isinstance(meta, dict) or not all(isinstance(value, str) for value in meta.values()):
        raise errors.bad_data("meta must be an object of strings")
    return meta
