"""Tabby's JSON, written from the books. Amounts are text with all of the currency's digits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from services.gateway_sandbox.domain.models import BookCapture, BookDispute, BookEntry, BookRefund, EntryStatus
from services.gateway_sandbox.gateways.port import Books
from shared.clock import to_rfc3339
from shared.money import Money

Json = dict[str, Any]
Word = Callable[[str], str]

_STATUS = {
    EntryStatus.OPEN: "CREATED",
    EntryStatus.PROCESSING: "CREATED",
    EntryStatus.AUTHORIZED: "AUTHORIZED",
    EntryStatus.COMPLETED: "CLOSED",
    EntryStatus.FAILED: "REJECTED",
    EntryStatus.EXPIRED: "EXPIRED",
}
_DISPUTE_STATUS = {"open": "new", "won": "declined", "lost": "refunded"}
_DISPUTE_STATUS_IN_WEBHOOKS = {"open": "pending", "won": "declined", "lost": "approved"}


@dataclass(frozen=True, slots=True)
class Records:
    """What was taken and given back of one payment, oldest first."""

    captures: Sequence[BookCapture] = ()
    refunds: Sequence[BookRefund] = ()


async def records_of(entry: BookEntry, books: Books) -> Records:
    return Records((await books.captures_of(entry))[::-1], (await books.refunds_of(entry))[::-1])


def status_of(entry: BookEntry) -> str:
    """Who leaves the page ends the payment as time does; one that was closed unpaid was held before."""
    if entry.status is EntryStatus.CANCELED:
        return "CLOSED" if entry.details.get("closed_at") else "EXPIRED"
    return _STATUS[entry.status]


def session(entry: BookEntry, page_url: str, word: Word, *, rejection: str | None = None) -> Json:
    is_taken = rejection is None
    shown = {"web_url": page_url, "qr_code": f"{page_url}?qr"}
    status = "rejected" if not is_taken else "created" if entry.is_payable() else _ended(entry)
    return {
        "id": entry.details["session_id"],
        "status": word(status),
        "payment": {
            "id": entry.gateway_reference,
            "created_at": to_rfc3339(entry.created_at),
            "expires_at": to_rfc3339(entry.expires_at),
            "status": status_of(entry),
            "amount": major(entry.amount_minor, entry),
            "currency": entry.currency,
        },
        "configuration": {
            "available_products": {"installments": [shown]} if is_taken else {},
            "products": {"installments": {"is_available": is_taken, "rejection_reason": rejection}},
        },
    }


def _ended(entry: BookEntry) -> str:
    return {"REJECTED": "rejected", "EXPIRED": "expired"}.get(status_of(entry), "approved")


def payment(entry: BookEntry, records: Records, word: Word = str) -> Json:
    return {
        "id": entry.gateway_reference,
        "created_at": to_rfc3339(entry.created_at),
        "expires_at": to_rfc3339(entry.expires_at),
        "status": word(status_of(entry)),
        "is_test": True,
        "amount": major(entry.amount_minor, entry),
        "currency": entry.currency,
        "description": entry.description,
        "buyer": entry.details["buyer"],
        "shipping_address": entry.details["shipping_address"],
        "order": {"reference_id": entry.reference, "items": entry.details["items"]},
        "captures": _captures(entry, records) or None,
        "refunds": [_refund(entry, each) for each in records.refunds] or None,
        "meta": entry.metadata,
    }


def webhook(entry: BookEntry, records: Records) -> Json:
    """The same for every event of a payment: flat, statuses in small letters, nothing that names the event."""
    return {
        "id": entry.gateway_reference,
        "created_at": to_rfc3339(entry.created_at),
        "expires_at": to_rfc3339(entry.expires_at),
        "closed_at": entry.details.get("closed_at"),
        "status": status_of(entry).lower(),
        "is_test": True,
        "is_expired": entry.status is EntryStatus.EXPIRED,
        "amount": major(entry.amount_minor, entry),
        "currency": entry.currency,
        "order": {"reference_id": entry.reference},
        "captures": _captures(entry, records),
        "refunds": [_refund(entry, each) for each in records.refunds],
        "meta": entry.metadata,
        "token": None,
    }


def dispute(entry: BookEntry, record: BookDispute) -> Json:
    return {
        "id": record.dispute_id,
        "payment_id": entry.gateway_reference,
        "order_number": entry.reference,
        "status": _DISPUTE_STATUS[record.status],
        "reason": record.reason,
        "amount": major(record.amount_minor, entry),
        "currency": entry.currency,
        "created_at": to_rfc3339(record.created_at),
        "expired_at": None,
        "days_left": 7,
    }


def dispute_webhook(entry: BookEntry, record: BookDispute) -> Json:
    return {
        "dispute_id": record.dispute_id,
        "payment_id": entry.gateway_reference,
        "status": _DISPUTE_STATUS_IN_WEBHOOKS[record.status],
        "amount": major(record.amount_minor, entry),
        "currency": entry.currency,
        "created_at": to_rfc3339(record.created_at),
    }


def major(amount_minor: int, entry: BookEntry) -> str:
    return f"{Money(amount_minor, entry.currency).as_major():f}"


def _captures(entry: BookEntry, records: Records) -> list[Json]:
    """An entry that shows a wrong amount shows it in its last capture too."""
    amounts = [each.amount_minor for each in records.captures]
    if amounts:
        amounts[-1] += entry.captured_minor - sum(amounts)
    return [
        {
            "id": each.capture_id,
            "created_at": to_rfc3339(each.created_at),
            "amount": major(amount_minor, entry),
            "tax_amount": major(0, entry),
            "shipping_amount": major(0, entry),
            "discount_amount": major(0, entry),
            "reference_id": each.reference or "",
            "items": [],
        }
        for each, amount_minor in zip(records.captures, amounts, strict=True)
    ]


def _refund(entry: BookEntry, record: BookRefund) -> Json:
    return {
        "id": record.refund_id,
        "created_at": to_rfc3339(record.created_at),
        "amount": major(record.amount_minor, entry),
        "reason": record.reason or "",
        "reference_id": record.reference or "",
        "items": [],
    }
