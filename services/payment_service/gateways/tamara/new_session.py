"""What a new order says, made of what the shop has told us."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from services.payment_service.domain.models import Customer, Item
from services.payment_service.gateways.port import CreateSession
from services.payment_service.gateways.tamara.amounts import COUNTRY_OF, to_tamara
from services.payment_service.gateways.tamara.settings import TamaraSettings
from shared.clock import to_rfc3339
from shared.money import Money

LONGEST_DESCRIPTION = 256
LONGEST_ITEM_NAME = 255
LONGEST_NAME = 100
LONGEST_PHONE = 20
NOT_KNOWN = "N/A"
"""An address is required, also where nothing is shipped or the shop has told us none."""


def new_order(request: CreateSession, settings: TamaraSettings) -> dict[str, Any]:
    """The same for every repetition."""
    nothing = to_tamara(Money(0, request.amount.currency))
    order: dict[str, Any] = {
        "order_reference_id": request.reference,
        "order_number": request.order_id,
        "description": clean(request.description, LONGEST_DESCRIPTION) or request.order_id,
        "country_code": COUNTRY_OF[request.amount.currency],
        "payment_type": settings.payment_type,
        "instalments": settings.instalments,
        "locale": settings.locale,
        "platform": "payrail",
        "total_amount": to_tamara(request.amount),
        "tax_amount": nothing,
        "shipping_amount": nothing,
        "items": _items(request, settings.item_type),
        "consumer": _consumer(request.customer),
        "shipping_address": _address(request),
        "merchant_url": {
            "success": request.return_url,
            "failure": request.return_url,
            "cancel": request.cancel_url,
        },
    }
    if settings.expires_in_minutes is not None:
        order["expires_in_minutes"] = settings.expires_in_minutes
    return order


def shipping_info(reference: str, company: str, at: Any) -> dict[str, str]:
    """A capture has no field for our reference but this one, which the order shows again with the capture."""
    return {"shipped_at": to_rfc3339(at), "shipping_company": company, "tracking_number": reference}


def clean(text: str, longest: int) -> str:
    """One line of printable text, letters of any script, cut to what fits."""
    plain = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(plain.split())[:longest].rstrip()


def _items(request: CreateSession, item_type: str) -> list[dict[str, Any]]:
    """The order's lines where they add up to the total to the last unit; else one line, because prices are never
    changed to make them fit."""
    total = sum(item.quantity * item.unit_amount_minor for item in request.items)
    items: Sequence[Item] = request.items
    if total != request.amount.amount_minor or any(item.unit_amount_minor < 0 or item.quantity < 1 for item in items):
        items = (Item(request.description, 1, request.amount.amount_minor),)
    return [_item(f"L{number}", item, request.amount.currency, item_type) for number, item in enumerate(items, start=1)]


def _item(reference: str, item: Item, currency: str, item_type: str) -> dict[str, Any]:
    unit = Money(item.unit_amount_minor, currency)
    return {
        "reference_id": reference,
        "type": item_type,
        "name": clean(item.name, LONGEST_ITEM_NAME) or reference,
        "sku": reference,
        "quantity": item.quantity,
        "unit_price": to_tamara(unit),
        "total_amount": to_tamara(unit * item.quantity),
    }


def _consumer(customer: Customer) -> dict[str, str]:
    """The phone number is required; without one the page asks for it."""
    first, last = _names(customer)
    phone = re.sub(r"[^0-9]", "", customer.phone or "").removeprefix("00")[:LONGEST_PHONE]
    return {"first_name": first, "last_name": last, "phone_number": phone, "email": customer.email}


def _address(request: CreateSession) -> dict[str, str]:
    first, last = _names(request.customer)
    return {
        "first_name": first,
        "last_name": last,
        "line1": NOT_KNOWN,
        "city": NOT_KNOWN,
        "country_code": COUNTRY_OF[request.amount.currency],
    }


def _names(customer: Customer) -> tuple[str, str]:
    first, _, last = clean(customer.name, 2 * LONGEST_NAME).partition(" ")
    return first[:LONGEST_NAME] or "-", last[:LONGEST_NAME] or "-"
