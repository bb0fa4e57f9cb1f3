"""PayPal's JSON objects, written from a book entry and its captures, refunds and disputes.

What only PayPal knows lives in ``entry.details``: ``custom_id``, ``invoice_id``, ``items``, ``approved_at``,
``authorization`` (``id``, ``created_at``, ``ended_at``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from services.gateway_sandbox.domain.models import (
    BookCapture,
    BookDispute,
    BookEntry,
    BookRefund,
    CaptureMode,
    EntryStatus,
)
from services.gateway_sandbox.gateways.paypal.wire import WHOLE_ONLY, Json
from services.gateway_sandbox.gateways.port import Books
from shared.money import Money

_REFUND_STATUS = {"pending": "PENDING", "succeeded": "COMPLETED", "failed": "FAILED", "reversed": "FAILED"}
_OUTCOME_CODE = {"won": "RESOLVED_SELLER_FAVOUR", "lost": "RESOLVED_BUYER_FAVOUR"}


@dataclass(frozen=True, slots=True)
class Records:
    """Everything that was done under an order, oldest first."""

    captures: Sequence[BookCapture]
    refunds: Sequence[BookRefund]

    def refunded_of(self, capture: BookCapture) -> int:
        return sum(
            refund.amount_minor
            for refund in self.refunds
            if refund.details["capture_id"] == capture.capture_id and refund.status in ("pending", "succeeded")
        )


async def records_of(entry: BookEntry, books: Books) -> Records:
    captures, refunds = await books.captures_of(entry), await books.refunds_of(entry)
    return Records(tuple(reversed(captures)), tuple(reversed(refunds)))


def stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def money(amount_minor: int, currency: str) -> Json:
    major = Money(amount_minor, currency).as_major()
    value = f"{major.to_integral_value():f}" if currency in WHOLE_ONLY else f"{major:f}"
    return {"currency_code": currency, "value": value}


def link(href: str, rel: str, method: str = "GET") -> Json:
    return {"href": href, "rel": rel, "method": method}


def order_status(entry: BookEntry) -> str:
    """Once captured or authorized an order is COMPLETED, whatever becomes of the money."""
    if entry.status is not EntryStatus.OPEN:
        return "COMPLETED"
    if entry.details.get("approved_at"):
        return "APPROVED"
    return "PAYER_ACTION_REQUIRED" if entry.details.get("with_source") else "CREATED"


def order(entry: BookEntry, records: Records, base_url: str, page_url: str) -> Json:
    details, status = entry.details, order_status(entry)
    own = f"{base_url}/v2/checkout/orders/{entry.gateway_reference}"
    links = [link(own, "self")]
    if entry.status is EntryStatus.OPEN:
        links.append(link(page_url, "payer-action" if details.get("with_source") else "approve"))
        action = "authorize" if entry.capture is CaptureMode.MANUAL else "capture"
        links.append(link(f"{own}/{action}", action, "POST"))
    unit: Json = {
        "reference_id": details["reference_id"],
        "amount": money(entry.amount_minor, entry.currency),
        "payee": {"email_address": "seller@payrail.invalid", "merchant_id": "SANDBOXMERCHANT"},
    }
    unit |= {name: details[name] for name in ("custom_id", "invoice_id") if details.get(name)}
    if entry.description:
        unit["description"] = entry.description
    payments = _payments(entry, records, base_url)
    if payments:
        unit["payments"] = payments
    body: Json = {
        "id": entry.gateway_reference,
        "intent": "AUTHORIZE" if entry.capture is CaptureMode.MANUAL else "CAPTURE",
        "status": status,
        "purchase_units": [unit],
        "create_time": stamp(entry.created_at),
        "links": links,
    }
    if details.get("approved_at"):
        body["update_time"] = details["approved_at"]
        body["payer"] = {"payer_id": "SANDBOXPAYER1", "email_address": "buyer@payrail.invalid"}
    if details.get("with_source"):
        body["payment_source"] = {"paypal": {}}
    return body


def minimal_order(body: Json) -> Json:
    """What PayPal answers unless it is asked for the representation."""
    return {key: body[key] for key in ("id", "status", "payment_source", "links") if key in body}


def _payments(entry: BookEntry, records: Records, base_url: str) -> Json:
    payments: Json = {}
    if entry.details.get("authorization"):
        payments["authorizations"] = [authorization(entry, base_url)]
    if records.captures:
        payments["captures"] = [capture(entry, each, records, base_url) for each in records.captures]
    if records.refunds:
        payments["refunds"] = [refund(entry, each, base_url) for each in records.refunds]
    return payments


def authorization_status(entry: BookEntry) -> str:
    if entry.status is EntryStatus.AUTHORIZED:
        return "PARTIALLY_CAPTURED" if entry.captured_minor else "CREATED"
    return "VOIDED" if entry.details["authorization"].get("ended_at") else "CAPTURED"


def authorization(entry: BookEntry, base_url: str) -> Json:
    held = entry.details["authorization"]
    assert entry.hold_expires_at is not None
    return {
        "id": held["id"],
        "status": authorization_status(entry),
        "amount": money(entry.amount_minor, entry.currency),
        **_named(entry.details.get("custom_id"), entry.details.get("invoice_id")),
        "seller_protection": {"status": "NOT_ELIGIBLE"},
        "expiration_time": stamp(entry.hold_expires_at),
        "create_time": held["created_at"],
        "update_time": held.get("ended_at") or held["created_at"],
        "supplementary_data": {"related_ids": {"order_id": entry.gateway_reference}},
        "links": [link(f"{base_url}/v2/payments/authorizations/{held['id']}", "self")],
    }


def capture_status(record: BookCapture, records: Records) -> str:
    if record.status != "succeeded":
        return "PENDING" if record.status == "pending" else "DECLINED"
    refunded = records.refunded_of(record)
    if refunded == 0:
        return "COMPLETED"
    return "REFUNDED" if refunded == record.amount_minor else "PARTIALLY_REFUNDED"


def capture(entry: BookEntry, record: BookCapture, records: Records, base_url: str) -> Json:
    # An order with intent CAPTURE has exactly one capture, of all of it; so a faulty read shows a wrong one here too.
    is_manual = entry.capture is CaptureMode.MANUAL
    amount_minor = record.amount_minor if is_manual else entry.amount_minor
    status = capture_status(record, records)
    related = {"order_id": entry.gateway_reference}
    if is_manual:
        related["authorization_id"] = entry.details["authorization"]["id"]
    body: Json = {
        "id": record.capture_id,
        "status": status,
        "amount": money(amount_minor, entry.currency),
        "final_capture": record.is_final,
        **_named(entry.details.get("custom_id"), record.details.get("invoice_id")),
        "seller_protection": {"status": "NOT_ELIGIBLE"},
        "create_time": stamp(record.created_at),
        "update_time": stamp(record.created_at),
        "supplementary_data": {"related_ids": related},
        "links": [link(f"{base_url}/v2/payments/captures/{record.capture_id}", "self")],
    }
    if status == "PENDING":
        body["status_details"] = {"reason": record.details.get("pending_reason", "PENDING_REVIEW")}
    else:
        body["seller_receivable_breakdown"] = {"gross_amount": money(amount_minor, entry.currency)}
    return body


def refund(entry: BookEntry, record: BookRefund, base_url: str) -> Json:
    own = f"{base_url}/v2/payments/refunds/{record.refund_id}"
    body: Json = {
        "id": record.refund_id,
        "status": _REFUND_STATUS[record.status],
        "amount": money(record.amount_minor, entry.currency),
        **_named(record.details.get("custom_id"), record.details.get("invoice_id")),
        "create_time": stamp(record.created_at),
        "update_time": stamp(record.created_at),
        "links": [link(own, "self"), link(f"{base_url}/v2/payments/captures/{record.details['capture_id']}", "up")],
    }
    if record.status == "pending":
        body["status_details"] = {"reason": "ECHECK"}
    if record.reason:
        body["note_to_payer"] = record.reason
    return body


def dispute(entry: BookEntry, record: BookDispute, base_url: str) -> Json:
    body: Json = {
        "dispute_id": record.dispute_id,
        "create_time": stamp(record.created_at),
        "update_time": stamp(record.closed_at or record.created_at),
        "disputed_transactions": [
            {
                "seller_transaction_id": record.details["capture_id"],
                "custom": entry.details.get("custom_id"),
                "invoice_number": entry.details.get("invoice_id"),
                "gross_amount": money(entry.amount_minor, entry.currency),
            }
        ],
        "reason": record.reason,
        "status": "OPEN" if record.status == "open" else "RESOLVED",
        "dispute_amount": money(record.amount_minor, entry.currency),
        "dispute_life_cycle_stage": "CHARGEBACK",
        "links": [link(f"{base_url}/v1/customer/disputes/{record.dispute_id}", "self")],
    }
    if record.status != "open":
        body["dispute_outcome"] = {"outcome_code": _OUTCOME_CODE[record.status]}
    return body


def event(event_id: str, event_type: str, resource_type: str, at: datetime, resource: Json) -> Json:
    return {
        "id": event_id,
        "event_version": "1.0",
        "create_time": stamp(at),
        "resource_type": resource_type,
        "resource_version": "2.0",
        "event_type": event_type,
        "summary": event_type.replace(".", " ").capitalize(),
        "resource": resource,
        "links": [],
    }


def _named(custom_id: str | None, invoice_id: str | None) -> Json:
    named = {"custom_id": custom_id, "invoice_id": invoice_id}
    return {name: value for name, value in named.items() if value}
