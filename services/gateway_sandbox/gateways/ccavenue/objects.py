"""CCAvenue's orders as its API and its callbacks write them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

from services.gateway_sandbox.domain.models import BookEntry, BookRefund, EntryStatus
from services.gateway_sandbox.gateways.ccavenue.wire import INDIA, Json
from shared.money import Money

_WORDS = {
    EntryStatus.OPEN: "Initiated",
    EntryStatus.PROCESSING: "Awaited",
    EntryStatus.AUTHORIZED: "Successful",
    EntryStatus.COMPLETED: "Shipped",
    EntryStatus.FAILED: "Unsuccessful",
}
_CALLBACK_WORDS = {"Successful": "Success", "Shipped": "Success", "Unsuccessful": "Failure"}
"""Callbacks have words of their own; a confirmed order is a success there, and no more."""

_REFUND_WORDS = {"pending": "TS-REFA", "succeeded": "TS-REFC", "failed": "TS-REFF", "reversed": "TS-REFF"}


def status_word(entry: BookEntry) -> str:
    details = entry.details
    if details.get("chargeback"):
        return "Chargeback"
    if details.get("has_refund"):
        return "Refunded"
    if entry.status is EntryStatus.CANCELED:
        return "Cancelled" if details.get("voided") else "Aborted"
    if entry.status is EntryStatus.EXPIRED:
        return "Auto-Cancelled" if details.get("lapsed") else "Timeout"
    return _WORDS[entry.status]


def major(minor: int, currency: str) -> Decimal:
    return Money(minor, currency).as_major()


def order(entry: BookEntry, word: str) -> Json:
    """A row of ``orderLookup``, and all but the envelope of ``orderStatusTracker``."""
    currency = entry.currency
    fee = entry.captured_minor * 2 // 100
    shown = {
        "reference_no": entry.gateway_reference,
        "order_no": entry.reference,
        "order_currncy": currency,
        "order_amt": major(entry.amount_minor, currency),
        "order_gross_amt": major(entry.amount_minor, currency),
        "order_capt_amt": major(entry.captured_minor, currency),
        "order_status": word,
        "order_status_date_time": f"{_moved_at(entry):%Y-%m-%d %H:%M:%S}.{_moved_at(entry).microsecond // 1000:03d}",
        "order_date_time": f"{entry.created_at.astimezone(INDIA):%Y-%m-%d %H:%M:%S}.0",
        "order_bank_ref_no": entry.details.get("bank_ref_no", ""),
        "order_bank_response": "Approved" if entry.captured_minor else "",
        "order_card_name": "UPI",
        "order_option_type": "OPTUPI",
        "order_fee_flat": Decimal("0.0"),
        "order_fee_perc": Decimal("2.0"),
        "order_fee_perc_value": major(fee, currency),
        "order_tax": major(fee * 18 // 100, currency),
        "order_discount": Decimal("0.0"),
        "order_fraud_status": "NR",
    }
    return {**shown, **{f"param_value{name[-1]}": value for name, value in entry.metadata.items()}}


def found(entry: BookEntry, word: str) -> Json:
    return {"status": 0, **order(entry, word), "error_desc": "", "error_code": ""}


def refund(record: BookRefund, currency: str, word: str) -> Json:
    """One that was made in the panel has no reference of the shop's."""
    return {
        "refund_amt": major(record.amount_minor, currency),
        "refund_issue_date": f"{record.created_at.astimezone(INDIA):%Y-%m-%d %H:%M:%S}.0",
        "refund_processed_on": "",
        "refund_completion_date": "",
        "refund_bank_ref_no": "",
        "refund_mer_ref_no": record.reference or "",
        "refund_status": word,
    }


def refund_word(record: BookRefund) -> str:
    return _REFUND_WORDS[record.status]


def has_refund(refunds: Sequence[BookRefund]) -> bool:
    return any(record.status == "succeeded" for record in refunds)


def callback_text(entry: BookEntry, bank_ref_no: str) -> str:
    """What the browser brings back, and what is posted to the shop's server: ``k=v&k=v``, nothing URL-encoded."""
    word = status_word(entry)
    amount = f"{major(entry.amount_minor, entry.currency):f}"
    fields = {
        "order_id": entry.reference or "",
        "tracking_id": entry.gateway_reference,
        "bank_ref_no": bank_ref_no,
        "order_status": _CALLBACK_WORDS.get(word, word),
        "failure_message": "",
        "payment_mode": "UPI",
        "card_name": "UPI",
        "status_code": "null",
        "status_message": "Declined by the bank" if word == "Unsuccessful" else "null",
        "currency": entry.currency,
        "amount": amount,
        **entry.details.get("billing", {}),
        **entry.metadata,
        "mer_amount": amount,
        "trans_date": f"{_moved_at(entry):%d/%m/%Y %H:%M:%S}",
    }
    return "&".join(f"{name}={value}" for name, value in fields.items())


def _moved_at(entry: BookEntry) -> datetime:
    text = entry.details.get("moved_at")
    return (datetime.fromisoformat(text) if text else entry.created_at).astimezone(INDIA)
