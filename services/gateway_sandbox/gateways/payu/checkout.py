"""The form that opens PayU's payment page: what it must hold, and the entry that it becomes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from urllib.parse import urlsplit

from services.gateway_sandbox.domain.models import BookEntry, CaptureMode
from services.gateway_sandbox.gateways.payu.wire import form_refused, paise, request_hash, same
from services.gateway_sandbox.gateways.port import Books

PAGE_LIFE = timedelta(minutes=30)
"""How long the real page lives is not documented."""

_REQUIRED = ("key", "txnid", "amount", "productinfo", "firstname", "email", "phone", "surl", "furl", "hash")
_OPTIONAL = frozenset(
    "curl udf1 udf2 udf3 udf4 udf5 lastname address1 address2 city state country zipcode enforce_paymethod "
    "drop_category pre_authorize".split()
)
_TXNID = re.compile(r"[A-Za-z0-9_-]{1,25}")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_PHONE = re.compile(r"[0-9]{6,15}")
_LONGEST = {"productinfo": 100, "firstname": 60, **{f"udf{number}": 255 for number in range(1, 6)}}


def check_form(form: Mapping[str, str], key: str, salt: str) -> None:
    """Raises WireError."""
    missing = [name for name in _REQUIRED if not form.get(name)]
    if missing:
        raise form_refused(f"Mandatory parameter missing: {missing[0]}")
    unknown = set(form) - set(_REQUIRED) - _OPTIONAL
    if unknown:
        raise form_refused(f"Parameter not known: {min(unknown)}")
    if not same(form["key"], key):
        raise form_refused("Invalid merchant key")
    if not same(form["hash"], request_hash(form, salt)):
        raise form_refused("Transaction failed due to incorrectly calculated hash parameter")
    _check_values(form)


def _check_values(form: Mapping[str, str]) -> None:
    problems = {
        "txnid": not _TXNID.fullmatch(form["txnid"]),
        "amount": paise(form["amount"]) is None,
        "email": not _EMAIL.fullmatch(form["email"]),
        "phone": not _PHONE.fullmatch(form["phone"]),
        "pre_authorize": form.get("pre_authorize", "1") != "1",
        **{name: not _is_web_address(form[name]) for name in ("surl", "furl", "curl") if name in form},
        **{name: len(form.get(name, "")) > longest for name, longest in _LONGEST.items()},
    }
    wrong = [name for name, is_wrong in problems.items() if is_wrong]
    wrong += [name for name, value in form.items() if "|" in value or not value.isascii()]
    if wrong:
        raise form_refused(f"Invalid value: {wrong[0]}")


def _is_web_address(text: str) -> bool:
    """Plain HTTP too: a shop in development has no certificate."""
    parts = urlsplit(text)
    return parts.scheme in ("http", "https") and bool(parts.netloc)


def new_entry(form: Mapping[str, str], books: Books) -> BookEntry:
    return BookEntry(
        gateway="payu",
        gateway_reference=form["txnid"],
        reference=form["txnid"],
        order_id=form.get("udf2") or None,
        amount_minor=paise(form["amount"]) or 0,
        currency="INR",
        capture=CaptureMode.MANUAL if "pre_authorize" in form else CaptureMode.AUTOMATIC,
        success_url=form["surl"],
        cancel_url=form.get("curl") or form["furl"],
        page_token=books.new_id("", 32),
        created_at=books.now,
        expires_at=books.now + PAGE_LIFE,
        customer_email=form["email"],
        description=form["productinfo"],
        metadata={name: form[name] for name in ("udf1", "udf2") if form.get(name)},
        details={"form": dict(form), "mihpayid": new_payu_id(books)},
    )


def new_payu_id(books: Books) -> str:
    return new_number("4039937", 18, books)


def new_number(prefix: str, length: int, books: Books) -> str:
    """An id of digits alone."""
    letters = books.new_id("", length - len(prefix))
    return prefix + "".join(str(ord(letter) % 10) for letter in letters)
