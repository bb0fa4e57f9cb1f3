"""The generic gateway's JSON, written from the books. Amounts are decimals with all of the currency's digits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from services.gateway_sandbox.domain.models import BookCapture, BookDispute, BookEntry, BookRefund, EntryStatus
from services.gateway_sandbox.gateways.port import Books
from shared.clock import to_rfc3339
from shared.money import Money

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Records:
    """What belongs to one payment, oldest first."""

    captures: Sequence[BookCapture] = ()
    refunds: Sequence[BookRefund] = ()
    disputes: Sequence[BookDispute] = ()

    @property
    def capture_pending_minor(self) -> int:
        return sum(capture.amount_minor for capture in self.captures if capture.status == "pending")

    @property
    def refund_pending_minor(self) -> int:
        return sum(refund.amount_minor for refund in self.refunds if refund.status == "pending")


async def records_of(entry: BookEntry, books: Books) -> Records:
    captures, refunds = await books.captures_of(entry), await books.refunds_of(entry)
    return Records(captures[::-1], refunds[::-1], (await books.disputes_of(entry))[::-1])


def status_of(entry: BookEntry, records: Records) -> str:
    """Until the bank has said yes to a capture, its money is only held."""
    return EntryStatus.AUTHORIZED.value if records.capture_pending_minor else entry.status.value


def session(entry: BookEntry, records: Records, page_url: str) -> Json:
    was_held = entry.hold_expires_at is not None or entry.captured_minor > 0
    return {
        "payment_id": entry.gateway_reference,
        "reference": entry.reference,
        "order_id": entry.order_id,
        "status": status_of(entry, records),
        "amount": major(entry.amount_minor, entry),
        "authorized_amount": major(entry.amount_minor if was_held else 0, entry),
        "captured_amount": major(entry.captured_minor - records.capture_pending_minor, entry),
        "refunded_amount": major(entry.refunded_minor - records.refund_pending_minor, entry),
        "currency": entry.currency,
        "capture": entry.capture.value,
        "voided": bool(entry.details.get("voided")),
        "hold_expires_at": to_rfc3339(entry.hold_expires_at) if entry.hold_expires_at else None,
        "captures": [capture(entry, each) for each in records.captures],
        "refunds": [refund(entry, each) for each in records.refunds],
        "disputes": [dispute(entry, each) for each in records.disputes],
        "description": entry.description,
        "customer_email": entry.customer_email,
        "checkout_url": page_url,
        "return_url": entry.success_url,
        "cancel_url": entry.cancel_url,
        "created_at": to_rfc3339(entry.created_at),
        "expires_at": to_rfc3339(entry.expires_at),
        "metadata": entry.metadata,
    }


def capture(entry: BookEntry, record: BookCapture) -> Json:
    return {
        "capture_id": record.capture_id,
        "reference": record.reference,
        "amount": major(record.amount_minor, entry),
        "status": record.status,
        "is_final": record.is_final,
        "created_at": to_rfc3339(record.created_at),
    }


def refund(entry: BookEntry, record: BookRefund) -> Json:
    return {
        "refund_id": record.refund_id,
        "payment_id": entry.gateway_reference,
        "reference": record.reference,
        "status": record.status,
        "amount": major(record.amount_minor, entry),
        "currency": entry.currency,
        "reason": record.reason,
        "failure_code": record.details.get("failure_code"),
        "created_at": to_rfc3339(record.created_at),
    }


def dispute(entry: BookEntry, record: BookDispute) -> Json:
    return {
        "dispute_id": record.dispute_id,
        "amount": major(record.amount_minor, entry),
        "status": record.status,
        "reason": record.reason,
        "created_at": to_rfc3339(record.created_at),
    }


def webhook(entry: BookEntry, event_id: str, status: str, amount_minor: int, now: datetime) -> Json:
    """design.md §3. ``amount`` is the payment's; of a completed one what was captured so far."""
    body: Json = {
        "event_id": event_id,
        "payment_id": entry.gateway_reference,
        "transaction_id": entry.reference,
        "status": status,
        "amount": major(amount_minor, entry),
        "currency": entry.currency,
        "created_at": to_rfc3339(now),
        "metadata": entry.metadata,
    }
    if entry.order_id is not None:
        body["order_id"] = entry.order_id
    return body


def about_refund(entry: BookEntry, record: BookRefund) -> Json:
    """What a webhook about a refund says more."""
    more: Json = {
        "refund_id": record.refund_id,
        "refund_amount": major(record.amount_minor, entry),
        "reference": record.reference,
    }
    if "failure_code" in record.details:
        more["failure_code"] = record.details["failure_code"]
    return more


def about_dispute(entry: BookEntry, record: BookDispute) -> Json:
    return {
        "dispute_id": record.dispute_id,
        "dispute_amount": major(record.amount_minor, entry),
        "reason": record.reason,
    }


def major(amount_minor: int, entry: BookEntry) -> Decimal:
    """With all of the currency's digits: 150.00 USD, 12.500 KWD, 500 JPY."""
    return Money(amount_minor, entry.currency).as_major()
