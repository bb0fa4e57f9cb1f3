"""Making an invoice: with a link for all methods, or with the page of one method, which may hold the money first."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

from services.gateway_sandbox.domain.models import BookEntry, CaptureMode
from services.gateway_sandbox.gateways.myfatoorah import objects
from services.gateway_sandbox.gateways.myfatoorah.wire import (
    Json,
    amount_of,
    invalid,
    one_of,
    required_text,
    text,
    web_address,
)
from services.gateway_sandbox.gateways.port import Books

_COMMON = frozenset(
    "DisplayCurrencyIso CustomerEmail MobileCountryCode CustomerMobile Language CallBackUrl ErrorUrl CustomerReference "
    "CustomerIdentifier UserDefinedField ExpiryDate InvoiceItems ProcessingDetails WebhookUrl Suppliers "
    "CustomerAddress".split()
)
LINK_REQUIRED = frozenset({"CustomerName", "NotificationOption", "InvoiceValue"})
LINK_OPTIONAL = (_COMMON - {"ProcessingDetails"}) | {"InvoicePaymentMethods"}
EXECUTE_REQUIRED = frozenset({"PaymentMethodId", "InvoiceValue"})
EXECUTE_OPTIONAL = _COMMON | {"CustomerName", "RecurringModel"}

_USUAL_LIFE = timedelta(days=3)
_MOBILE = re.compile(r"[0-9]{1,11}", re.ASCII)
_COUNTRY_CODE = re.compile(r"\+?[0-9]{1,4}", re.ASCII)


def new_invoice(body: Json, books: Books, *, currency: str, zone: timezone) -> BookEntry:
    """Raises WireError. An account of one country converts other currencies; this one refuses them instead, because its
    books have no rates."""
    if (text(body, "DisplayCurrencyIso", longest=3) or currency) != currency:
        raise invalid("DisplayCurrencyIso", f"this sandbox account is in {currency} and has no rates")
    one_of({"Language": body.get("Language") or "EN"}, "Language", ("EN", "AR", "en", "ar"))
    success_url = web_address(body, "CallBackUrl")
    return BookEntry(
        gateway="myfatoorah",
        gateway_reference=new_number(books, 9),
        reference=text(body, "CustomerReference", longest=100),
        order_id=None,
        amount_minor=amount_of(body, "InvoiceValue", currency),
        currency=currency,
        capture=CaptureMode.MANUAL if _is_held(body) else CaptureMode.AUTOMATIC,
        success_url=success_url or "",
        cancel_url=web_address(body, "ErrorUrl") or success_url,
        page_token=books.new_id("", 32),
        created_at=books.now,
        expires_at=_expiry(body, books.now, zone),
        customer_email=text(body, "CustomerEmail", longest=200),
        details={
            "attempts": [],
            "customer": _customer(body),
            "identifier": text(body, "CustomerIdentifier", longest=100),
            "invoice_reference": f"{books.now.year}{new_number(books, 6)}",
            "method": _method(body),
            "user_field": text(body, "UserDefinedField", longest=500),
            "webhook_url": _webhook_url(body),
        },
    )


def new_number(books: Books, digits: int) -> str:
    """MyFatoorah's ids are numbers."""
    drawn = int.from_bytes(books.new_id("", 16).encode(), "big")
    return str(10 ** (digits - 1) + drawn % (9 * 10 ** (digits - 1)))


def _customer(body: Mapping[str, Any]) -> dict[str, str | None]:
    mobile, code = text(body, "CustomerMobile", longest=20), text(body, "MobileCountryCode", longest=6)
    if mobile is not None and not _MOBILE.fullmatch(mobile):
        raise invalid("CustomerMobile", "must be at most 11 Latin digits")
    if code is not None and not _COUNTRY_CODE.fullmatch(code):
        raise invalid("MobileCountryCode", "must be a country code")
    name = text(body, "CustomerName", longest=254)
    if name is not None and not all(letter.isalnum() or letter in " .'-" for letter in name):
        raise invalid("CustomerName", "has characters that are not allowed")
    return {"name": name, "mobile": f"{(code or '').lstrip('+')}{mobile}" if mobile else None}


def _is_held(body: Mapping[str, Any]) -> bool:
    details = body.get("ProcessingDetails")
    if details is None:
        return False
    if not isinstance(details, dict) or set(details) - {"AutoCapture", "Bypass3DS"}:
        raise invalid("ProcessingDetails", "must be an object")
    captures = details.get("AutoCapture", True)
    if type(captures) is not bool:
        raise invalid("AutoCapture", "must be true or false")
    return not captures


def _method(body: Mapping[str, Any]) -> str:
    if "PaymentMethodId" not in body:
        one_of(body, "NotificationOption", ("LNK", "EML", "SMS", "ALL"))
        required_text(body, "CustomerName", longest=254)
        return "VISA/MASTER"
    found = next((name for number, name, _ in objects.METHODS if number == body["PaymentMethodId"]), None)
    if found is None:
        raise invalid("PaymentMethodId", "is not a method of this account")
    return found


def _webhook_url(body: Mapping[str, Any]) -> str | None:
    """Kept and not used: the sandbox sends to the one address that it is set up with."""
    url = web_address(body, "WebhookUrl")
    if url is not None and not url.startswith("https://"):
        raise invalid("WebhookUrl", "must be an HTTPS URL")
    return url


def _expiry(body: Mapping[str, Any], now: datetime, zone: timezone) -> datetime:
    value = text(body, "ExpiryDate", longest=30)
    if value is None:
        return now + _USUAL_LIFE
    try:
        found = datetime.strptime(value, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=zone)
    except ValueError as error:
        raise invalid("ExpiryDate", "must be a date and time") from error
    if found <= now:
        raise invalid("ExpiryDate", "must be in the future")
    return found
