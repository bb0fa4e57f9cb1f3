"""Tamara's JSON, written from the books."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from services.gateway_sandbox.domain.models import BookCapture, BookEntry, BookRefund, EntryStatus
from services.gateway_sandbox.gateways.port import Books
from services.gateway_sandbox.gateways.tamara.wire import Json
from shared.clock import to_rfc3339
from shared.money import Money

TOKEN_LIFE = timedelta(seconds=900)

_ENDED = {EntryStatus.FAILED: "declined", EntryStatus.CANCELED: "canceled", EntryStatus.EXPIRED: "expired"}
FAILED_REFUND = "failed"
_REFUND_STATUS = {"succeeded": "success", "pending": "pending", "failed": FAILED_REFUND, "reversed": FAILED_REFUND}
_JOSE = {"typ": "JWT", "alg": "HS256"}


@dataclass(frozen=True, slots=True)
class Records:
    """What belongs to one order, oldest first."""

    captures: Sequence[BookCapture] = ()
    refunds: Sequence[BookRefund] = ()

    @property
    def settled(self) -> list[BookCapture]:
        return [capture for capture in self.captures if capture.status == "succeeded"]

    @property
    def is_at_work(self) -> bool:
        return any(capture.status == "pending" for capture in self.captures)

    @property
    def capture_pending_minor(self) -> int:
        return sum(capture.amount_minor for capture in self.captures if capture.status == "pending")

    @property
    def refund_pending_minor(self) -> int:
        return sum(refund.amount_minor for refund in self.refunds if refund.status == "pending")


async def records_of(entry: BookEntry, books: Books) -> Records:
    return Records((await books.captures_of(entry))[::-1], (await books.refunds_of(entry))[::-1])


def is_approved(entry: BookEntry) -> bool:
    return entry.status is EntryStatus.OPEN and "approved_at" in entry.details


def canceled_minor(entry: BookEntry) -> int:
    return sum(int(cancel["amount_minor"]) for cancel in entry.details.get("cancels", []))


def rest_minor(entry: BookEntry) -> int:
    """What is still held: neither captured nor canceled."""
    return max(0, entry.capturable_minor - canceled_minor(entry))


def status_of(entry: BookEntry, records: Records) -> str:
    if entry.status is EntryStatus.OPEN:
        return "approved" if is_approved(entry) else "new"
    if entry.status in _ENDED or entry.details.get("lapsed"):
        return _ENDED.get(entry.status, "expired")
    captured = entry.captured_minor - records.capture_pending_minor
    refunded = entry.refunded_minor - records.refund_pending_minor
    if refunded:
        return "fully_refunded" if refunded == captured else "partially_refunded"
    if not captured:
        return "updated" if canceled_minor(entry) else "authorised"
    return "fully_captured" if captured + canceled_minor(entry) == entry.amount_minor else "partially_captured"


def order(entry: BookEntry, records: Records, books: Books) -> Json:
    details = entry.details
    return {
        "order_id": entry.gateway_reference,
        "order_reference_id": entry.reference,
        "order_number": entry.order_id,
        "description": entry.description,
        "status": books.word(status_of(entry, records)),
        "payment_type": details["payment_type"],
        "instalments": details["instalments"],
        "total_amount": money(entry, entry.amount_minor),
        "shipping_amount": money(entry, 0),
        "tax_amount": money(entry, 0),
        "captured_amount": money(entry, entry.captured_minor - records.capture_pending_minor),
        "refunded_amount": money(entry, entry.refunded_minor - records.refund_pending_minor),
        "canceled_amount": money(entry, canceled_minor(entry)),
        "paid_amount": money(entry, 0),
        "wallet_prepaid_amount": money(entry, 0),
        "settlement_status": "not_settled",
        "settlement_date": None,
        "created_at": to_rfc3339(entry.created_at),
        "processing": records.is_at_work,
        "store_code": "",
        "additional_data": {},
        "transactions": {
            "cancels": [cancel(entry, each) for each in details.get("cancels", [])],
            "captures": [capture(entry, each) for each in records.settled],
            "refunds": [refund(entry, each) for each in records.refunds],
        },
    }


def capture(entry: BookEntry, record: BookCapture) -> Json:
    return {
        "capture_id": record.capture_id,
        "order_id": entry.gateway_reference,
        "total_amount": money(entry, record.amount_minor),
        "refunded_amount": money(entry, 0),
        "shipping_info": record.details.get("shipping_info", {}),
        "created_at": to_rfc3339(record.created_at),
    }


def cancel(entry: BookEntry, record: Mapping[str, Any]) -> Json:
    return {
        "cancel_id": record["cancel_id"],
        "order_id": entry.gateway_reference,
        "total_amount": money(entry, int(record["amount_minor"])),
        "items": [],
        "created_at": record["created_at"],
    }


def refund(entry: BookEntry, record: BookRefund) -> Json:
    """``success`` is the only word that Tamara's samples show; the others are this sandbox's own."""
    return {
        "refund_id": record.refund_id,
        "capture_id": record.details["capture_id"],
        "total_amount": money(entry, record.amount_minor),
        "comment": record.reason,
        "merchant_refund_id": record.reference,
        "refund_status": _REFUND_STATUS[record.status],
        "created_at": to_rfc3339(record.created_at),
        "updated_at": to_rfc3339(record.created_at),
    }


def webhook(entry: BookEntry, event_type: str, data: Json | None = None) -> Json:
    """Where there is nothing to tell, ``data`` is an empty list."""
    return {
        "order_id": entry.gateway_reference,
        "order_reference_id": entry.reference,
        "order_number": entry.order_id,
        "event_type": event_type,
        "data": data or [],
    }


def money(entry: BookEntry, amount_minor: int) -> Json:
    return {"amount": Money(amount_minor, entry.currency).as_major(), "currency": entry.currency}


def notification_jwt(token: str, at: datetime) -> str:
    """What a delivery is signed with. It covers no body: any other body passes with it as well."""
    issued = int(at.timestamp())
    claims = {"exp": issued + int(TOKEN_LIFE.total_seconds()), "iat": issued, "iss": "Tamara"}
    signed = f"{_part(_JOSE)}.{_part(claims)}"
    digest = hmac.new(token.encode(), signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{_base64url(digest)}"


def _part(content: Mapping[str, Any]) -> str:
    return _base64url(json.dumps(content, separators=(",", ":")).encode())


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
