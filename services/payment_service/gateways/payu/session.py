"""The form that a browser posts to PayU's payment page. Making it is all that opening a session takes."""

from __future__ import annotations

import re
import unicodedata

from services.payment_service.domain.errors import CurrencyNotSupported
from services.payment_service.domain.models import CaptureMode
from services.payment_service.gateways.payu.hashes import form_hash
from services.payment_service.gateways.port import CreateSession
from shared.money import Money

CURRENCY = "INR"
LONGEST_PRODUCT = 100
LONGEST_NAME = 60
LONGEST_UDF = 255

NO_NAME = "Customer"
NO_EMAIL = "customer@example.com"
"""In place of an address that PayU's form cannot carry: reserved by RFC 2606, so that no stranger gets the receipt."""

_EMAIL = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{}~-]{1,64}@[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})+")
_LONGEST_EMAIL = 100
_PHONE_DIGITS = range(6, 16)


def rupees(amount: Money) -> str:
    """``"499.00"``: one text, hashed and sent as it is. Raises CurrencyNotSupported."""
    if amount.currency != CURRENCY:
        raise CurrencyNotSupported(f"PayU takes {CURRENCY} only")
    return f"{amount.as_major():.2f}"


def form_fields(
    request: CreateSession, key: str, salt: str, *, pre_authorize: str, fallback_phone: str
) -> dict[str, str]:
    fields = {
        "key": key,
        "txnid": request.reference,
        "amount": rupees(request.amount),
        "productinfo": plain(request.description, LONGEST_PRODUCT) or request.reference,
        "firstname": plain(request.customer.name, LONGEST_NAME) or NO_NAME,
        "email": _email(request.customer.email),
        "phone": _phone(request.customer.phone) or fallback_phone,
        "surl": request.return_url,
        "furl": request.return_url,
        "curl": request.cancel_url,
        "udf1": plain(request.payment_id, LONGEST_UDF),
        "udf2": plain(request.order_id, LONGEST_UDF),
        "udf3": "",
        "udf4": "",
        "udf5": "",
    }
    if request.capture is CaptureMode.MANUAL:
        fields["pre_authorize"] = pre_authorize
    return {**fields, "hash": form_hash(fields, salt)}


def plain(text: str, longest: int) -> str:
    """ASCII without pipes, accents taken off: what is left of a name in another script may be nothing."""
    decomposed = unicodedata.normalize("NFKD", text)
    kept = "".join(c for c in decomposed if c.isascii() and (c.isalnum() or c in " .,'#/&()_-"))
    return " ".join(kept.split())[:longest].strip()


def _email(address: str) -> str:
    return address if len(address) <= _LONGEST_EMAIL and _EMAIL.fullmatch(address) else NO_EMAIL


def _phone(number: str | None) -> str:
    """Digits only, as the form wants them; an Indian number without its country's code."""
    digits = "".join(c for c in number or "" if c.isascii() and c.isdigit())
    if len(digits) == 12 and digits.startswith("91"):
        digits = digits[2:]
    return digits if len(digits) in _PHONE_DIGITS else ""
