"""Creating payment links and orders, and the form that a shop's page posts to the hosted checkout."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from services.gateway_sandbox.domain.models import BookEntry, CaptureMode
from services.gateway_sandbox.gateways.port import Books
from services.gateway_sandbox.gateways.razorpay import errors, fields
from services.gateway_sandbox.gateways.razorpay.fields import Json

SHORTEST_LINK = timedelta(minutes=15)
LONGEST_LINK = timedelta(days=183)
_CLOCK_DIFFERENCE = timedelta(seconds=60)  # between a client that counts from its own now, and us
ORDER_LIFE = timedelta(days=3650)
"""An order does not expire."""

DEFAULT_HOLD_MINUTES = 7200
_SHORTEST_HOLD_MINUTES = 12

LINK_FIELDS = frozenset(
    "amount currency accept_partial first_min_partial_amount reference_id description customer notify reminder_enable "
    "expire_by notes callback_url callback_method upi_link options".split()
)
ORDER_FIELDS = frozenset(
    "amount currency receipt notes partial_payment first_payment_min_amount payment payment_capture".split()
)
_CUSTOMER_FIELDS = frozenset({"name", "email", "contact"})
_NOTIFY_FIELDS = frozenset({"sms", "email", "whatsapp"})
_PAYMENT_FIELDS = frozenset({"capture", "capture_options"})
_CAPTURE_FIELDS = frozenset({"automatic_expiry_period", "manual_expiry_period", "refund_speed"})

CHECKOUT_REQUIRED = (
    "key_id",
    "order_id",
    "amount",
    "currency",
    "name",
    "prefill[email]",
    "prefill[contact]",
    "callback_url",
)
"""``prefill[contact]`` may be empty: the page then asks for it."""


def new_link(body: Json, books: Books) -> BookEntry:
    """Raises WireError."""
    currency = fields.currency_of(body, default="INR")
    callback_url = fields.web_address(fields.text(body, "callback_url", longest=2000), "callback_url")
    if callback_url is not None and body.get("callback_method") != "get":
        raise errors.invalid("The selected callback method is invalid.", field="callback_method")
    if fields.boolean(body, "upi_link", default=False):
        raise errors.refused("UPI Payment Links is not supported in Test Mode")
    notes = fields.notes(body)
    customer = _object(body, "customer", _CUSTOMER_FIELDS)
    notify = _object(body, "notify", _NOTIFY_FIELDS)
    return BookEntry(
        gateway="razorpay",
        gateway_reference=books.new_id("plink_", 14),
        reference=fields.text(body, "reference_id", longest=40) or None,
        order_id=notes.get("order_id"),
        amount_minor=fields.amount_of(body, currency),
        currency=currency,
        capture=CaptureMode.AUTOMATIC,
        success_url=callback_url or "",
        cancel_url=None,
        page_token=books.new_id("", 32),
        created_at=books.now,
        expires_at=_expire_by(body, books),
        customer_email=fields.text(customer, "email", longest=200),
        description=fields.text(body, "description", longest=2048),
        metadata=notes,
        details={
            "order_id": books.new_id("order_", 14),
            "payments": [],
            "customer": customer,
            "notify": {"sms": False, "email": False, **notify},
            "expire_by": body.get("expire_by", 0),
            "reminder_enable": fields.boolean(body, "reminder_enable", default=False),
        },
    )


def new_order(body: Json, books: Books) -> BookEntry:
    """Raises WireError. Without ``payment`` the account's dashboard setting counts; here that is automatic capture."""
    currency = fields.currency_of(body)
    payment = _object(body, "payment", _PAYMENT_FIELDS)
    legacy = CaptureMode.AUTOMATIC if fields.boolean(body, "payment_capture", default=True) else CaptureMode.MANUAL
    capture = payment.get("capture", legacy.value)
    if capture not in ("automatic", "manual"):
        raise errors.invalid("The selected payment.capture is invalid.", field="payment.capture")
    notes = fields.notes(body)
    order_id = books.new_id("order_", 14)
    return BookEntry(
        gateway="razorpay",
        gateway_reference=order_id,
        reference=fields.text(body, "receipt", longest=40) or None,
        order_id=notes.get("order_id"),
        amount_minor=fields.amount_of(body, currency),
        currency=currency,
        capture=CaptureMode(capture),
        success_url="",  # known only when the shop's page has posted its form
        cancel_url=None,
        page_token=books.new_id("", 32),
        created_at=books.now,
        expires_at=books.now + ORDER_LIFE,
        metadata=notes,
        details={"order_id": order_id, "payments": [], "hold_minutes": _hold_minutes(payment, capture)},
    )


def open_checkout(form: Mapping[str, str], entry: BookEntry) -> None:
    """What the browser brought is kept: where to go back to, and what the page shows. Raises WireError."""
    if form["amount"] != str(entry.amount_minor) or form["currency"] != entry.currency:
        raise errors.invalid("The amount is not that of the order.", field="amount")
    entry.success_url = fields.web_address(form["callback_url"], "callback_url") or ""
    entry.cancel_url = fields.web_address(form.get("cancel_url") or None, "cancel_url")
    entry.customer_email = form["prefill[email]"][:200]
    entry.description = (form.get("description") or form["name"])[:2048]
    prefix = "notes["
    entry.details["checkout_notes"] = {
        name[len(prefix) : -1]: value[:255] for name, value in form.items() if name.startswith(prefix)
    }
    entry.details["contact"] = form["prefill[contact]"][:20]


def _object(body: Json, key: str, allowed: frozenset[str]) -> dict[str, Any]:
    value = body.get(key, {})
    if not isinstance(value, dict):
        raise errors.invalid(f"The {key} must be an object.", field=key)
    fields.only(value, allowed)
    return value


def _expire_by(body: Json, books: Books) -> Any:
    moment = fields.moment(body, "expire_by")
    if moment is None:
        return books.now + LONGEST_LINK
    if moment < books.now + SHORTEST_LINK - _CLOCK_DIFFERENCE:
        raise errors.invalid("expire_by should be at least 15 minutes after current time.", field="expire_by")
    if moment > books.now + LONGEST_LINK:
        raise errors.invalid("expire_by should be within 6 months from current time.", field="expire_by")
    return moment


def _hold_minutes(payment: Mapping[str, Any], capture: str) -> int:
    options = payment.get("capture_options", {})
    if not isinstance(options, dict):
        raise errors.invalid("The payment.capture_options must be an object.", field="payment.capture_options")
    fields.only(options, _CAPTURE_FIELDS)
    if options.get("refund_speed", "normal") not in ("normal", "optimum"):
        raise errors.invalid("The selected refund_speed is invalid.", field="refund_speed")
    if capture == "automatic" and options and "automatic_expiry_period" not in options:
        raise errors.required("automatic_expiry_period")
    for name in ("automatic_expiry_period", "manual_expiry_period"):
        minutes = options.get(name, DEFAULT_HOLD_MINUTES)
        if type(minutes) is not int or not _SHORTEST_HOLD_MINUTES <= minutes <= DEFAULT_HOLD_MINUTES:
            raise errors.invalid(f"The {name} must be between 12 and 7200.", field=name)
    return int(options.get("manual_expiry_period", DEFAULT_HOLD_MINUTES))
