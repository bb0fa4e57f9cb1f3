"""What opens a session: the body that is signed, with a shopper's name and number as far as Paytm can take them."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from typing import Any

from services.payment_service.domain.models import Customer
from services.payment_service.gateways.paytm.reading import to_rupees
from services.payment_service.gateways.port import CreateSession

LONGEST_NAME = 50
LONGEST_EMAIL = 100
LONGEST_TEXT = 100
"""How long these may be is not documented; these lengths no name needs, and no limit is below them."""

_EMAIL = re.compile(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+")


def session_body(request: CreateSession, *, merchant_id: str, website: str) -> dict[str, Any]:
    """The same for every call of one attempt: changed content would be refused as a duplicate."""
    return {
        "requestType": "Payment",
        "mid": merchant_id,
        "websiteName": website,
        "orderId": request.reference,
        "callbackUrl": request.return_url,
        "txnAmount": {"value": to_rupees(request.amount), "currency": request.amount.currency},
        "userInfo": _user_info(request.customer),
        "extendInfo": {"mercUnqRef": request.order_id},
    }


def plain(text: str, longest: int) -> str:
    """Without accents and without anything that is not ASCII: what is left may be nothing."""
    letters = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return " ".join(re.sub(r"[^A-Za-z0-9 .,_-]", " ", letters).split())[:longest].strip()


def _user_info(customer: Customer) -> dict[str, str]:
    """``custId`` is required and tells shoppers apart; the address itself is nobody's id. The rest may be left out."""
    first, _, last = plain(customer.name, LONGEST_NAME).partition(" ")
    is_usual = _EMAIL.fullmatch(customer.email) is not None and len(customer.email) <= LONGEST_EMAIL
    found = {
        "custId": hashlib.sha256(customer.email.strip().lower().encode()).hexdigest()[:32],
        "mobile": _mobile(customer.phone),
        "email": customer.email if is_usual else "",
        "firstName": first,
        "lastName": last,
    }
    return {key: value for key, value in found.items() if value}


def _mobile(phone: str | None) -> str:
    """Ten digits, as numbers are written in India; any other number is left out."""
    digits = re.sub(r"[^0-9]", "", phone or "")
    if len(digits) == 12 and digits.startswith("91"):
        digits = digits[2:]
    return digits if len(digits) == 10 else ""
