"""The text that the shopper's browser carries to CCAvenue's page, encrypted.

Nothing in it is URL-encoded, so a stray ``&`` in a name would be a field of its own (``amount``, for example): what
comes from shoppers is cut down to what cannot be misread, or left out.
"""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import urlsplit, urlunsplit

from services.payment_service.gateways.ccavenue.reading import to_ccavenue
from services.payment_service.gateways.port import CreateSession
from shared.errors import GatewayRejected

CHECKOUT = "/transaction/transaction.do?command=initiateTransaction"

LONGEST_URL = 100
LONGEST_PARAMETER = 100
LONGEST_NAME = 60
LONGEST_TELEPHONE = 20
LONGEST_EMAIL = 70
"""The three lengths of shoppers' fields are those that integrations keep to; no guide that we have seen names them."""

_MISREAD = re.compile(r"[^A-Za-z0-9 .,()/_-]+")
_EMAIL = re.compile(r"[A-Za-z0-9._+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}")
_TELEPHONE = re.compile(r"\+?[0-9]{6,19}")


def checkout_text(request: CreateSession, merchant_id: str) -> str:
    """Raises CurrencyNotSupported, and GatewayRejected for a return address that CCAvenue cannot take."""
    fields = {
        "merchant_id": merchant_id,
        "order_id": request.reference,
        "currency": request.amount.currency,
        "amount": to_ccavenue(request.amount),
        "redirect_url": _return_address(request.return_url),
        "cancel_url": _return_address(request.cancel_url),
        "language": "EN",
        **_shopper(request),
        "merchant_param1": _plain(request.payment_id, LONGEST_PARAMETER),
        "merchant_param2": request.capture.value,
        "merchant_param3": _plain(request.order_id, LONGEST_PARAMETER),
    }
    return "&".join(f"{name}={value}" for name, value in fields.items())


def _return_address(url: str) -> str:
    """Without its query: ``=`` and ``?`` are not among the documented characters, and both addresses lead to the same
    place, where nothing that the browser says is believed."""
    parts = urlsplit(url)
    plain = urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))
    if len(plain) > LONGEST_URL or re.search(r"[&=<>'\"\s]", plain):
        raise GatewayRejected(
            f"CCAvenue takes return addresses of up to {LONGEST_URL} characters: PUBLIC_BASE_URL is too long",
            gateway_code="return_url_too_long",
        )
    return plain


def _shopper(request: CreateSession) -> dict[str, str]:
    """What the page would otherwise ask for. An address or number that would have to be changed is left out."""
    customer = request.customer
    telephone = re.sub(r"[ ()-]", "", customer.phone or "")
    prefilled = {
        "billing_name": _plain(customer.name, LONGEST_NAME),
        "billing_tel": telephone if _TELEPHONE.fullmatch(telephone) else "",
        "billing_email": customer.email if _is_plain_email(customer.email) else "",
    }
    return {name: value for name, value in prefilled.items() if value}


def _is_plain_email(text: str) -> bool:
    return len(text) <= LONGEST_EMAIL and _EMAIL.fullmatch(text) is not None


def _plain(text: str, longest: int) -> str:
    """ASCII letters, digits and a few signs; accents are taken off, and other scripts leave nothing."""
    ascii_only = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return " ".join(_MISREAD.sub(" ", ascii_only).split())[:longest].strip()
