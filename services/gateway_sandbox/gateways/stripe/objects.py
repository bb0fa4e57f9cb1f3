"""Stripe's JSON objects, written from a book entry.

What only Stripe knows lives in ``entry.details``: ``intent`` (metadata, description, …), ``charges``, ``line_items``,
``last_payment_error``, ``cancellation_reason``, ``canceled_at``, ``capture_pending_minor``, ``disputed``, ``released``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from services.gateway_sandbox.domain.models import BookDispute, BookEntry, BookRefund, CaptureMode, EntryStatus
from services.gateway_sandbox.gateways.stripe.money import to_wire

API_VERSION = "2026-06-24.dahlia"

Json = dict[str, Any]

STATUS_KEYS = ("status", "payment_status")

_SESSION_STATUS = {EntryStatus.OPEN: "open", EntryStatus.EXPIRED: "expired"}
_INTENT_STATUS = {
    EntryStatus.AUTHORIZED: "requires_capture",
    EntryStatus.PROCESSING: "processing",
    EntryStatus.COMPLETED: "succeeded",
    EntryStatus.CANCELED: "canceled",
}
_REFUND_STATUS = {"pending": "pending", "succeeded": "succeeded", "failed": "failed", "reversed": "failed"}
_DISPUTE_STATUS = {"open": "needs_response", "won": "won", "lost": "lost"}
_EVIDENCE_TIME = timedelta(days=7)
_CARD = {
    "brand": "visa",
    "country": "US",
    "exp_month": 12,
    "exp_year": 2034,
    "funding": "credit",
    "last4": "4242",
    "network": "visa",
}


def unix(moment: datetime) -> int:
    return int(moment.timestamp())


def session(entry: BookEntry, url: str) -> Json:
    """A Checkout Session; ``url`` is its hosted page, told only while it is open."""
    total = to_wire(entry.amount_minor, entry.currency)
    status = "complete" if _has_lapsed(entry) else _SESSION_STATUS.get(entry.status, "complete")
    return {
        "id": entry.gateway_reference,
        "object": "checkout.session",
        "adaptive_pricing": {"enabled": False},
        "after_expiration": None,
        "allow_promotion_codes": None,
        "amount_subtotal": total,
        "amount_total": total,
        "automatic_tax": {"enabled": False, "liability": None, "provider": None, "status": None},
        "billing_address_collection": None,
        "cancel_url": entry.cancel_url,
        "client_reference_id": entry.details.get("client_reference_id"),
        "client_secret": None,
        "collected_information": None,
        "consent": None,
        "consent_collection": None,
        "created": unix(entry.created_at),
        "currency": entry.currency.lower(),
        "currency_conversion": None,
        "custom_fields": [],
        "customer": None,
        "customer_creation": "if_required",
        "customer_details": _customer_details(entry),
        "customer_email": entry.customer_email,
        "discounts": [],
        "expires_at": unix(entry.expires_at),
        "invoice": None,
        "invoice_creation": {"enabled": False},
        "livemode": False,
        "locale": entry.details.get("locale"),
        "metadata": entry.metadata,
        "mode": "payment",
        "origin_context": None,
        "payment_intent": entry.payment_reference,
        "payment_link": None,
        "payment_method_collection": "if_required",
        "payment_method_configuration_details": None,
        "payment_method_options": {},
        "payment_method_types": ["card"],
        "payment_status": "paid" if received_minor(entry) and not entry.is_held() else "unpaid",
        "permissions": None,
        "phone_number_collection": {"enabled": False},
        "recovered_from": None,
        "saved_payment_method_options": None,
        "setup_intent": None,
        "shipping_address_collection": None,
        "shipping_cost": None,
        "shipping_options": [],
        "status": status,
        "submit_type": None,
        "subscription": None,
        "success_url": entry.success_url,
        "total_details": {"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0},
        "ui_mode": "hosted_page",
        "url": url if status == "open" else None,
        "wallet_options": None,
    }


def line_items(entry: BookEntry) -> Json:
    """``expand[]=line_items``."""
    currency = entry.currency.lower()
    data = [
        {
            "id": f"li_{number}",
            "object": "item",
            "amount_discount": 0,
            "amount_subtotal": item["unit_amount"] * item["quantity"],
            "amount_tax": 0,
            "amount_total": item["unit_amount"] * item["quantity"],
            "currency": currency,
            "description": item["name"],
            "quantity": item["quantity"],
        }
        for number, item in enumerate(entry.details.get("line_items", []), start=1)
    ]
    return as_list(data, f"/v1/checkout/sessions/{entry.gateway_reference}/line_items")


def intent_status(entry: BookEntry) -> str:
    if entry.details.get("capture_pending_minor"):
        return "processing"
    if _has_lapsed(entry):
        return "canceled"
    return _INTENT_STATUS.get(entry.status, "requires_payment_method")


def received_minor(entry: BookEntry) -> int:
    """What was really captured; the books count a pending capture too."""
    return entry.captured_minor - int(entry.details.get("capture_pending_minor", 0))


def latest_charge_id(entry: BookEntry) -> str | None:
    charges = entry.details.get("charges", [])
    return charges[-1]["id"] if charges else None


def _has_lapsed(entry: BookEntry) -> bool:
    """The hold is over, not the session: a session that expired never held anything."""
    return entry.status is EntryStatus.EXPIRED and entry.hold_expires_at is not None


def payment_intent(entry: BookEntry) -> Json:
    assert entry.payment_reference is not None
    assert entry.payment_created_at is not None
    details, intent = entry.details, entry.details.get("intent", {})
    return {
        "id": entry.payment_reference,
        "object": "payment_intent",
        "amount": to_wire(entry.amount_minor, entry.currency),
        "amount_capturable": to_wire(entry.capturable_minor, entry.currency),
        "amount_details": {"tip": {}},
        "amount_received": to_wire(received_minor(entry), entry.currency),
        "application": None,
        "application_fee_amount": None,
        "automatic_payment_methods": None,
        "canceled_at": details.get("canceled_at"),
        "cancellation_reason": details.get("cancellation_reason"),
        "capture_method": intent.get("capture_method", "automatic_async"),
        "client_secret": f"{entry.payment_reference}_secret_{entry.page_token[:24]}",
        "confirmation_method": "automatic",
        "created": unix(entry.payment_created_at),
        "currency": entry.currency.lower(),
        "customer": None,
        "description": entry.description,
        "excluded_payment_method_types": None,
        "last_payment_error": details.get("last_payment_error"),
        "latest_charge": latest_charge_id(entry),
        "livemode": False,
        "metadata": intent.get("metadata", {}),
        "next_action": None,
        "on_behalf_of": None,
        "payment_method": f"pm_{entry.payment_reference[3:]}"
        if intent_status(entry) != "requires_payment_method"
        else None,
        "payment_method_configuration_details": None,
        "payment_method_options": {"card": {"request_three_d_secure": "automatic"}},
        "payment_method_types": ["card"],
        "processing": None,
        "receipt_email": intent.get("receipt_email"),
        "review": None,
        "setup_future_usage": intent.get("setup_future_usage"),
        "shipping": None,
        "source": None,
        "statement_descriptor": None,
        "statement_descriptor_suffix": intent.get("statement_descriptor_suffix"),
        "status": intent_status(entry),
        "transfer_data": None,
        "transfer_group": None,
    }


def charge(entry: BookEntry, charge_id: str | None = None) -> Json:
    """The latest charge, or the one named."""
    charges: Sequence[Json] = entry.details["charges"]
    record = next((each for each in charges if each["id"] == charge_id), charges[-1])
    failure = record.get("failure")
    is_paid = failure is None
    captured = received_minor(entry) if is_paid else 0
    return {
        "id": record["id"],
        "object": "charge",
        "amount": to_wire(entry.amount_minor, entry.currency),
        "amount_captured": to_wire(captured, entry.currency),
        "amount_refunded": to_wire(entry.refunded_minor if is_paid else 0, entry.currency),
        "application": None,
        "application_fee": None,
        "application_fee_amount": None,
        "balance_transaction": f"txn_{record['id'][3:]}" if captured else None,
        "billing_details": {"address": None, "email": entry.customer_email, "name": None, "phone": None},
        "calculated_statement_descriptor": "SANDBOX",
        "captured": captured > 0,
        "created": record["created"],
        "currency": entry.currency.lower(),
        "customer": None,
        "description": entry.description,
        "disputed": is_paid and bool(entry.details.get("disputed")),
        "failure_balance_transaction": None,
        "failure_code": failure["code"] if failure else None,
        "failure_message": failure["message"] if failure else None,
        "fraud_details": {},
        "livemode": False,
        "metadata": entry.details.get("intent", {}).get("metadata", {}),
        "on_behalf_of": None,
        "outcome": _outcome(failure),
        "paid": is_paid,
        "payment_intent": entry.payment_reference,
        "payment_method": f"pm_{record['id'][3:]}",
        "payment_method_details": {"card": _card(entry), "type": "card"},
        "receipt_email": None,
        "receipt_number": None,
        "receipt_url": None,
        "refunded": is_paid and 0 < captured == entry.refunded_minor,
        "review": None,
        "shipping": None,
        "source_transfer": None,
        "statement_descriptor": None,
        "statement_descriptor_suffix": None,
        "status": "succeeded" if is_paid else "failed",
        "transfer_data": None,
        "transfer_group": None,
    }


def refund(entry: BookEntry, record: BookRefund) -> Json:
    has_failed = record.status in ("failed", "reversed")
    body = _refund_body(entry, record.refund_id, record.amount_minor, record.created_at)
    return {
        **body,
        "balance_transaction": f"txn_{record.refund_id[3:]}",
        "charge": record.details.get("charge"),
        "failure_balance_transaction": f"txn_f{record.refund_id[3:]}" if has_failed else None,
        "failure_reason": record.details.get("failure_reason"),
        "metadata": record.metadata,
        "pending_reason": record.details.get("pending_reason") if record.status == "pending" else None,
        "reason": record.reason,
        "status": record.details.get("wire_status") or _REFUND_STATUS[record.status],
    }


def release_refunds(entry: BookEntry) -> list[Json]:
    """Stripe lists what it releases of a hold as a refund of its own: no money of ours is given back by it."""
    released = entry.details.get("released")
    if released is None:
        return []
    body = _refund_body(entry, released["id"], released["amount_minor"], datetime.fromisoformat(released["at"]))
    return [
        {
            **body,
            "balance_transaction": None,
            "charge": latest_charge_id(entry),
            "metadata": {},
            "reason": "expired_uncaptured_charge",
            "status": "succeeded",
        }
    ]


def _refund_body(entry: BookEntry, refund_id: str, amount_minor: int, created_at: datetime) -> Json:
    return {
        "id": refund_id,
        "object": "refund",
        "amount": to_wire(amount_minor, entry.currency),
        "created": unix(created_at),
        "currency": entry.currency.lower(),
        "destination_details": {
            "card": {"reference_status": "pending", "reference_type": "acquirer_reference_number", "type": "refund"},
            "type": "card",
        },
        "payment_intent": entry.payment_reference,
        "receipt_number": None,
        "source_transfer_reversal": None,
        "transfer_reversal": None,
    }


def dispute(entry: BookEntry, record: BookDispute, now: datetime) -> Json:
    due_by = record.created_at + _EVIDENCE_TIME
    return {
        "id": record.dispute_id,
        "object": "dispute",
        "amount": to_wire(record.amount_minor, entry.currency),
        "balance_transactions": [],
        "charge": record.details.get("charge"),
        "created": unix(record.created_at),
        "currency": entry.currency.lower(),
        "enhanced_eligibility_types": [],
        "evidence": {},
        "evidence_details": {
            "due_by": unix(due_by),
            "enhanced_eligibility": {},
            "has_evidence": False,
            "past_due": now > due_by,
            "submission_count": 0,
        },
        "is_charge_refundable": False,
        "livemode": False,
        "metadata": {},
        "payment_intent": entry.payment_reference,
        "payment_method_details": {
            "card": {"brand": "visa", "case_type": "chargeback", "network_reason_code": "10.4"},
            "type": "card",
        },
        "reason": record.reason,
        "status": _DISPUTE_STATUS[record.status],
    }


def balance_transaction(identifier: str, source: Json) -> Json:
    """The ledger line of a charge or a refund. Stripe's fee here is 2.9 % rounded down, and no fixed part."""
    is_refund = source["object"] == "refund"
    amount = -source["amount"] if is_refund else source["amount_captured"]
    fee = 0 if is_refund else amount * 29 // 1000
    kind = "refund" if is_refund else "charge"
    return {
        "id": identifier,
        "object": "balance_transaction",
        "amount": amount,
        "available_on": source["created"],
        "created": source["created"],
        "currency": source["currency"],
        "description": None,
        "exchange_rate": None,
        "fee": fee,
        "fee_details": [{"amount": fee, "currency": source["currency"], "type": "stripe_fee"}] if fee else [],
        "net": amount - fee,
        "reporting_category": kind,
        "source": source["id"],
        "status": "available",
        "type": kind,
    }


def as_list(data: Sequence[Json], url: str, *, has_more: bool = False) -> Json:
    return {"object": "list", "data": list(data), "has_more": has_more, "url": url}


def event(event_id: str, event_type: str, created: datetime, data: Json, idempotency_key: str | None) -> Json:
    """A webhook's envelope."""
    return {
        "id": event_id,
        "object": "event",
        "api_version": API_VERSION,
        "created": unix(created),
        "data": {"object": data},
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": idempotency_key},
        "type": event_type,
    }


def capture_mode(intent: Mapping[str, Any]) -> CaptureMode:
    return CaptureMode.MANUAL if intent.get("capture_method") == "manual" else CaptureMode.AUTOMATIC


def _customer_details(entry: BookEntry) -> Json | None:
    if entry.customer_email is None:
        return None
    names = ("address", "business_name", "individual_name", "name", "phone", "tax_exempt", "tax_ids")
    return {"email": entry.customer_email, **dict.fromkeys(names)}


def _card(entry: BookEntry) -> Json:
    """``capture_before`` and ``multicapture`` are there for a card whose money is taken by a later call."""
    if entry.capture is CaptureMode.AUTOMATIC or entry.hold_expires_at is None:
        return _CARD
    return {**_CARD, "capture_before": unix(entry.hold_expires_at), "multicapture": {"status": "available"}}


def _outcome(failure: Mapping[str, Any] | None) -> Json:
    if failure is None:
        return {
            "advice_code": None,
            "network_status": "approved_by_network",
            "reason": None,
            "risk_level": "normal",
            "risk_score": 20,
            "seller_message": "Payment complete.",
            "type": "authorized",
        }
    return {
        "advice_code": "try_again_later",
        "network_status": "declined_by_network",
        "reason": failure.get("decline_code"),
        "risk_level": "normal",
        "risk_score": 20,
        "seller_message": "The bank did not return any further details with this decline.",
        "type": "issuer_declined",
    }
