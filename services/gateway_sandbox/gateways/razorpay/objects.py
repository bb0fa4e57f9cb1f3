"""Razorpay's objects, made from the book entries. Amounts are sub-units, which are ISO 4217's minor units.

An entry's ``details["payments"]`` lists the shopper's tries, oldest first: ``{id, created_at, failure}``. The last one
without a failure is the payment that the entry's own status is about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from services.gateway_sandbox.domain.models import BookDispute, BookEntry, BookRefund, EntryStatus

Json = dict[str, Any]
Try = Mapping[str, Any]

ACCOUNT = "acc_SANDBOX0000001"

_LINK_STATUS = {
    EntryStatus.COMPLETED: "paid",
    EntryStatus.CANCELED: "cancelled",
    EntryStatus.EXPIRED: "expired",
}
_REFUND_STATUS = {"pending": "pending", "succeeded": "processed", "failed": "failed", "reversed": "failed"}

DECLINE = {
    "code": "BAD_REQUEST_ERROR",
    "description": "Your payment was declined by the bank. Try another payment method or contact your bank.",
    "source": "issuer_bank",
    "step": "payment_authorization",
    "reason": "card_declined",
}


def unix(moment: datetime) -> int:
    return int(moment.timestamp())


def is_link(entry: BookEntry) -> bool:
    return entry.gateway_reference.startswith("plink_")


def tries_of(entry: BookEntry) -> Sequence[Try]:
    tries: Sequence[Try] = entry.details["payments"]
    return tries


def good_try(entry: BookEntry) -> Try | None:
    """The one that brought money, if any did."""
    return next((each for each in reversed(tries_of(entry)) if each["failure"] is None), None)


def link_status(entry: BookEntry) -> str:
    """A link that had ended stays so, though money may have come late."""
    ended: str | None = entry.details.get("link_ended")
    return ended or _LINK_STATUS.get(entry.status, "created")


def payment_link(entry: BookEntry, short_url: str) -> Json:
    status, paid = link_status(entry), good_try(entry)
    is_paid = status == "paid" and paid is not None
    details = entry.details
    return {
        "accept_partial": False,
        "amount": entry.amount_minor,
        "amount_paid": entry.amount_minor if is_paid else 0,
        "callback_method": "get" if entry.success_url else "",
        "callback_url": entry.success_url,
        "cancelled_at": details.get("cancelled_at", 0),
        "created_at": unix(entry.created_at),
        "currency": entry.currency,
        "customer": details["customer"],
        "description": entry.description or "",
        "expire_by": details["expire_by"],
        "expired_at": details.get("expired_at", 0),
        "first_min_partial_amount": 0,
        "id": entry.gateway_reference,
        "notes": entry.metadata or [],
        "notify": details["notify"],
        "payments": [_payment_of_link(entry, paid)] if is_paid and paid else None,
        "reference_id": entry.reference or "",
        "reminder_enable": details["reminder_enable"],
        "reminders": [],
        "short_url": short_url,
        "status": status,
        "updated_at": details.get("updated_at", unix(entry.created_at)),
        "upi_link": False,
        "user_id": "",
    }


def _payment_of_link(entry: BookEntry, paid: Try) -> Json:
    return {
        "amount": entry.amount_minor,
        "created_at": paid["created_at"],
        "method": "card",
        "payment_id": paid["id"],
        "plink_id": entry.gateway_reference,
        "status": "captured",
    }


def order(entry: BookEntry) -> Json:
    tries = tries_of(entry)
    is_paid = entry.captured_minor > 0
    return {
        "id": entry.details["order_id"],
        "entity": "order",
        "amount": entry.amount_minor,
        "amount_paid": entry.amount_minor if is_paid else 0,
        "amount_due": 0 if is_paid else entry.amount_minor,
        "currency": entry.currency,
        "receipt": entry.reference,
        "offer_id": None,
        "status": "paid" if is_paid else "attempted" if tries else "created",
        "attempts": len(tries),
        "notes": entry.metadata or [],
        "created_at": unix(entry.created_at),
    }


def payment_status(entry: BookEntry, which: Try) -> str:
    if which["failure"] is not None:
        return "failed"
    if entry.details.get("lapsed") or 0 < entry.captured_minor == entry.refunded_minor:
        return "refunded"
    return "captured" if entry.captured_minor else "authorized"


def payment(entry: BookEntry, which: Try, *, status: str | None = None) -> Json:
    """One try. ``status`` shows it as it was at an earlier moment, for the events of that moment."""
    shown = status or payment_status(entry, which)
    failure = which["failure"] or {}
    is_captured = shown in ("captured", "refunded") and entry.captured_minor > 0
    has_lapsed = shown == "refunded" and not is_captured
    refunded = entry.amount_minor if has_lapsed else entry.refunded_minor if is_captured else 0
    fee = _fee(entry.amount_minor) if is_captured else None
    return {
        "id": which["id"],
        "entity": "payment",
        "amount": entry.amount_minor,
        "currency": entry.currency,
        "status": shown,
        "order_id": entry.details["order_id"],
        "invoice_id": None,
        "international": False,
        "method": "card",
        "amount_refunded": refunded,
        "refund_status": None if not refunded else "full" if refunded == entry.amount_minor else "partial",
        "captured": is_captured,
        "description": f"#{entry.gateway_reference[6:]}" if is_link(entry) else entry.description,
        "card_id": f"card_{which['id'][4:]}",
        "bank": None,
        "wallet": None,
        "vpa": None,
        "email": entry.customer_email,
        "contact": entry.details.get("contact") or None,
        "notes": entry.metadata if is_link(entry) else entry.details.get("checkout_notes") or [],
        "fee": fee,
        "tax": fee * 18 // 118 if fee is not None else None,
        "error_code": failure.get("code"),
        "error_description": failure.get("description"),
        "error_source": failure.get("source"),
        "error_step": failure.get("step"),
        "error_reason": failure.get("reason"),
        "acquirer_data": {"auth_code": None if failure else "828553"},
        "created_at": which["created_at"],
    }


def _fee(amount_minor: int) -> int:
    """2 % and on top of that 18 % tax, which the fee includes."""
    return amount_minor * 236 // 10_000


def refund(record: BookRefund, currency: str) -> Json:
    return {
        "id": record.refund_id,
        "entity": "refund",
        "amount": record.amount_minor,
        "currency": currency,
        "payment_id": record.details["payment_id"],
        "notes": record.metadata or [],
        "receipt": record.reference,
        "acquirer_data": {"arn": None},
        "created_at": unix(record.created_at),
        "batch_id": None,
        "status": _REFUND_STATUS[record.status],
        "speed_processed": "normal",
        "speed_requested": record.details.get("speed", "normal"),
    }


def release(entry: BookEntry) -> Json | None:
    """The refund with which Razorpay lets a hold go that nobody captured."""
    lapsed: Mapping[str, Any] | None = entry.details.get("lapsed")
    if lapsed is None:
        return None
    return {
        "id": lapsed["refund_id"],
        "entity": "refund",
        "amount": entry.amount_minor,
        "currency": entry.currency,
        "payment_id": entry.payment_reference,
        "notes": [],
        "receipt": None,
        "acquirer_data": {"arn": None},
        "created_at": lapsed["at"],
        "batch_id": None,
        "status": "processed",
        "speed_processed": "normal",
        "speed_requested": "normal",
    }


def dispute(entry: BookEntry, record: BookDispute) -> Json:
    is_lost = record.status == "lost"
    return {
        "id": record.dispute_id,
        "entity": "dispute",
        "payment_id": entry.payment_reference,
        "amount": record.amount_minor,
        "currency": entry.currency,
        "amount_deducted": record.amount_minor if is_lost else 0,
        "reason_code": record.reason,
        "reason_description": None,
        "respond_by": unix(record.created_at) + 7 * 86_400,
        "status": record.status,
        "phase": "chargeback",
        "created_at": unix(record.created_at),
        "comments": None,
        "evidence": None,
    }


def collection(items: Sequence[Json]) -> Json:
    return {"entity": "collection", "count": len(items), "items": list(items)}


def event(event_type: str, payload: Mapping[str, Json], at: datetime) -> Json:
    """A webhook's envelope. In ``payment_link.paid`` the order's id lacks its prefix, as in Razorpay's own samples."""
    entities = {name: {"entity": dict(body)} for name, body in payload.items()}
    if event_type == "payment_link.paid":
        entities["order"]["entity"]["id"] = str(entities["order"]["entity"]["id"]).removeprefix("order_")
    return {
        "entity": "event",
        "account_id": ACCOUNT,
        "event": event_type,
        "contains": list(payload),
        "payload": entities,
        "created_at": unix(at),
    }
