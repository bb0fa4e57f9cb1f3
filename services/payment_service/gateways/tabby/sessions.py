"""Opening a checkout session: what goes out, and what comes back."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

from services.payment_service.domain.models import FactKind, NextAction, Observation
from services.payment_service.gateways.json_reading import (
    UnexpectedShape,
    entries_of,
    identifier_of,
    moment_of,
    object_of,
    optional_identifier,
    optional_web_address,
)
from services.payment_service.gateways.port import CreateSession, Session
from services.payment_service.gateways.tabby.api import Json, is_uuid
from services.payment_service.gateways.tabby.reading import page_of
from services.payment_service.gateways.tabby.settings import TabbySettings
from shared.clock import to_rfc3339
from shared.money import Money

PAYMENT_LIFE = timedelta(minutes=30)
"""Where the answer names no time: an unfinished payment expires half an hour after it was made."""

LONGEST_TEXT = 255
_PHONE = re.compile(r"\+?[0-9]{6,15}", re.ASCII)
_NOT_IN_A_PHONE = re.compile(r"[\s().\-]")
_REJECTIONS = frozenset({"not_available", "order_amount_too_high", "order_amount_too_low"})


def session_json(request: CreateSession, settings: TabbySettings) -> dict[str, Any]:
    """Every field that is required. What an order of ours does not know (address, history) is sent as settings and
    first meetings have it, and never made up."""
    return {
        "merchant_code": settings.merchant_code,
        "lang": settings.lang,
        "merchant_urls": {
            "success": request.return_url,
            "cancel": request.cancel_url,
            "failure": request.return_url,
        },
        "payment": {
            "amount": written(request.amount),
            "currency": request.amount.currency,
            "description": _text(request.description),
            "buyer": {
                "name": _text(request.customer.name) or request.customer.email[:LONGEST_TEXT],
                "email": request.customer.email,
                "phone": _phone(request.customer.phone),
            },
            "shipping_address": {
                "city": settings.shipping_city,
                "address": settings.shipping_address,
                "zip": settings.shipping_zip,
            },
            "buyer_history": {"registered_since": to_rfc3339(request.attempted_at), "loyalty_level": 0},
            "order_history": [],
            "order": {"reference_id": request.reference, "items": _items(request, settings)},
            "meta": {
                "order_id": request.order_id,
                "payment_id": request.payment_id,
                "capture": request.capture.value,
            },
        },
    }


def written(amount: Money) -> str:
    """With all of the currency's digits and never as a number: ``12.345`` KWD."""
    return f"{amount.as_major():f}"


def read_session(body: Json, request: CreateSession, settings: TabbySettings, now: datetime) -> Session:
    """Raises UnexpectedShape. A shopper whom Tabby does not take is told so at once: that is an answer, no error."""
    payment = object_of(body, "payment")
    reference = identifier_of(payment, "id")
    if not is_uuid(reference):
        raise UnexpectedShape("the payment's id is not one of Tabby's")
    references = tuple(dict.fromkeys((reference, identifier_of(body, "id"))))
    status = identifier_of(body, "status").lower()
    if status in ("rejected", "expired"):
        ended = (
            _rejected(body, reference) if status == "rejected" else Observation(FactKind.EXPIRED, page_of(reference))
        )
        back = NextAction("redirect", request.return_url)
        return Session(reference, back, None, references, (ended,))
    expires_at = moment_of(payment, "expires_at") or now + PAYMENT_LIFE
    opened = Observation(FactKind.SESSION_OPENED, page_of(reference))
    return Session(reference, NextAction("redirect", _page_url(body, settings)), expires_at, references, (opened,))


def _page_url(body: Json, settings: TabbySettings) -> str:
    products = entries_of(object_of(object_of(body, "configuration"), "available_products"), "installments")
    url = optional_web_address(products[0], "web_url") if products else None
    if url is None or not settings.is_checkout_address(url):
        raise UnexpectedShape("no address of a page of Tabby's")
    return url


def _rejected(body: Json, reference: str) -> Observation:
    products = object_of(object_of(body, "configuration"), "products")
    reason = optional_identifier(object_of(products, "installments"), "rejection_reason")
    known = reason if reason in _REJECTIONS else "not_available"
    return Observation(FactKind.FAILED, page_of(reference), reason=known)


def _items(request: CreateSession, settings: TabbySettings) -> list[dict[str, Any]]:
    currency = request.amount.currency
    lines = [(item.name, item.quantity, Money(item.unit_amount_minor, currency)) for item in request.items]
    return [
        {
            "title": _text(name) or "-",
            "quantity": quantity,
            "unit_price": written(price),
            "category": settings.item_category,
        }
        for name, quantity, price in lines or [(request.description, 1, request.amount)]
    ]


def _text(text: str) -> str:
    """Any script, on one line, cut to what Tabby takes."""
    printable = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(printable.split())[:LONGEST_TEXT]


def _phone(phone: str | None) -> str:
    """Empty where there is none that Tabby could read: its page asks for it."""
    digits = _NOT_IN_A_PHONE.sub("", phone or "")
    return digits if _PHONE.fullmatch(digits) else ""
