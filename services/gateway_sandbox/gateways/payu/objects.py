"""PayU's objects, made from the book entries. Amounts are rupees as text; times are India's.

An entry is known by the shop's txnid; ``details["mihpayid"]`` is PayU's own id. What the form brought is kept under
``details["form"]``, because PayU sends it all back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from services.gateway_sandbox.domain.models import (
    BookCapture,
    BookDispute,
    BookEntry,
    BookRefund,
    CaptureMode,
    EntryStatus,
)
from services.gateway_sandbox.gateways.payu.wire import REQUEST_ORDER, response_hash, rupees, written

Json = dict[str, Any]

_STATES: Mapping[EntryStatus, tuple[str, str]] = {
    EntryStatus.OPEN: ("pending", "initiated"),
    EntryStatus.PROCESSING: ("pending", "in progress"),
    EntryStatus.AUTHORIZED: ("success", "auth"),
    EntryStatus.COMPLETED: ("success", "captured"),
    EntryStatus.FAILED: ("failure", "failed"),
    EntryStatus.CANCELED: ("failure", "userCancelled"),
    EntryStatus.EXPIRED: ("failure", "bounced"),
}
_CODES: Mapping[str, tuple[str, str]] = {
    "success": ("E000", "NO ERROR"),
    "pending": ("E000", "NO ERROR"),
    "failed": ("E308", "Bank was unable to authenticate."),
    "userCancelled": ("E1605", "Transaction failed by the customer."),
    "bounced": ("E1206", "The customer closed the page."),
}
_ACTION_STATUS = {"pending": "QUEUED", "succeeded": "SUCCESS", "failed": "FAILURE", "reversed": "FAILURE"}
_DISPUTE_STATUS = {"open": "New", "won": "Closed in Merchant Favour", "lost": "Closed Customer Favour"}


def payu_id(entry: BookEntry) -> str:
    return str(entry.details["mihpayid"])


def state_of(entry: BookEntry) -> tuple[str, str]:
    """A hold that was let go still reads as one here: only the list of actions tells."""
    if "cancel" in entry.details or is_being_captured(entry):
        return _STATES[EntryStatus.AUTHORIZED]
    return _STATES[entry.status]


def is_being_captured(entry: BookEntry) -> bool:
    return bool(entry.details.get("captures_later"))


def returned_form(entry: BookEntry, key: str, salt: str, state: tuple[str, str]) -> dict[str, str]:
    """What the browser brings back to the shop, and what the webhook of a payment is."""
    status, unmapped = state
    form: Mapping[str, str] = entry.details["form"]
    code, message = _CODES.get(unmapped) or _CODES[status]
    amount = rupees(entry.amount_minor)
    fields = {
        "mihpayid": payu_id(entry),
        "mode": "CC",
        "status": status,
        "unmappedstatus": unmapped,
        "key": key,
        "txnid": entry.gateway_reference,
        "amount": amount,
        "cardCategory": "domestic",
        "discount": "0.00",
        "net_amount_debit": amount.removesuffix(".00") if status == "success" else "0",
        "addedon": written(entry.created_at),
        **{name: form.get(name, "") for name in (*REQUEST_ORDER[3:], "lastname", "phone")},
        "field9": message,
        "payment_source": "payu",
        "PG_TYPE": "CC-PG",
        "bank_ref_num": payu_id(entry)[-12:] if status == "success" else "",
        "bankcode": "CC",
        "error": code,
        "error_Message": message,
    }
    return {**fields, "hash": response_hash(fields, salt)}


def verified(entry: BookEntry, status: str) -> Json:
    """One entry of ``verify_payment``. Numbers change their type here, as they do there."""
    unmapped = state_of(entry)[1]
    code, message = _CODES.get(unmapped) or _CODES["success"]
    amount = rupees(entry.amount_minor)
    form: Mapping[str, str] = entry.details["form"]
    return {
        "mihpayid": payu_id(entry),
        "request_id": "",
        "bank_ref_num": payu_id(entry)[-12:],
        "amt": amount,
        "transaction_amount": amount,
        "txnid": entry.gateway_reference,
        "additional_charges": "0.00",
        "productinfo": form["productinfo"],
        "firstname": form["firstname"],
        "bankcode": "CC",
        **{f"udf{number}": form.get(f"udf{number}", "") for number in range(1, 6)},
        "field9": message,
        "error_code": code,
        "error_Message": message,
        "addedon": written(entry.created_at),
        "payment_source": "payu",
        "net_amount_debit": entry.amount_minor // 100 if entry.amount_minor % 100 == 0 else amount,
        "disc": "0.00",
        "mode": "CC",
        "PG_TYPE": "CC-PG",
        "card_no": "512345XXXXXX2346",
        "status": status,
        "unmappedstatus": unmapped,
        "Merchant_UTR": None,
        "Settled_At": "0000-00-00 00:00:00",
    }


def not_found(txnid: str) -> Json:
    return {"mihpayid": "Not Found", "status": "Not Found", "txnid": txnid}


def actions_of(entry: BookEntry, captures: Sequence[BookCapture], refunds: Sequence[BookRefund]) -> list[Json]:
    """Every capture, refund and cancellation, the oldest first; an automatic capture carries no token."""
    found: list[Json] = []
    if entry.capture is CaptureMode.AUTOMATIC and entry.captured_minor:
        found.append(_action(entry, entry.details["capture_request_id"], entry.amount_minor, "capture", "", "SUCCESS"))
    for capture in reversed(captures):
        status = _ACTION_STATUS[capture.status]
        found.append(_action(entry, capture.capture_id, capture.amount_minor, "capture", capture.reference, status))
    cancel = entry.details.get("cancel")
    if cancel is not None:
        found.append(_action(entry, cancel["request_id"], entry.amount_minor, "cancel", cancel["token"], "SUCCESS"))
    for refund in reversed(refunds):
        status = _ACTION_STATUS[refund.status]
        found.append(_action(entry, refund.refund_id, refund.amount_minor, "refund", refund.reference, status))
    return found


def _action(entry: BookEntry, request_id: str, amount_minor: int, action: str, token: str | None, status: str) -> Json:
    return {
        "mihpayid": payu_id(entry),
        "bank_ref_num": request_id[-6:],
        "request_id": request_id,
        "amt": rupees(amount_minor),
        "mode": "CC",
        "action": action,
        "token": token or "",
        "status": status,
        "bank_arn": None,
        "settlement_id": None,
        "amount_settled": None,
        "UTR_no": None,
        "value_date": None,
        "refund_mode": "Back to Source" if action == "refund" else "-",
    }


def row(entry: BookEntry, key: str, merchant: str) -> Json:
    """One row of the lists; their status is the finer one."""
    form: Mapping[str, str] = entry.details["form"]
    amount = rupees(entry.amount_minor)
    return {
        "id": payu_id(entry),
        "status": state_of(entry)[1],
        "key": key,
        "merchantname": merchant,
        "txnid": entry.gateway_reference,
        "firstname": form["firstname"],
        "addedon": written(entry.created_at),
        "transaction_fee": amount,
        "amount": amount,
        "discount": "0.00",
        "additional_charges": "0.00",
        "productinfo": form["productinfo"],
        "error_code": "E000",
        "mode": "CC",
        "udf1": form.get("udf1", ""),
        "failure_reason": None,
        "mer_service_fee": "0.00",
        "mer_service_tax": "0.00",
    }


def refund_event(entry: BookEntry, refund: BookRefund, key: str) -> Json:
    """Unsigned, and with blanks around PayU's id, as its own samples have them."""
    return {
        "action": "refund",
        "status": "success" if refund.status == "succeeded" else "failure",
        "token": refund.reference or "",
        "request_id": refund.refund_id,
        "mihpayid": f" {payu_id(entry)} ",
        "merchantTxnId": entry.gateway_reference,
        "amt": rupees(refund.amount_minor),
        "bank_ref_num": refund.refund_id[-6:],
        "bank_arn": "",
        "refund_mode": "Back to Source",
        "key": key,
    }


def dispute_event(entry: BookEntry, dispute: BookDispute, at: datetime) -> Json:
    return {
        "type": "payments",
        "event": "dispute",
        "cb_id": dispute.dispute_id,
        "txn_id": payu_id(entry),
        "cb_amount": rupees(dispute.amount_minor),
        "cb_status": _DISPUTE_STATUS[dispute.status],
        "cb_type": "Chargeback",
        "reason_code": dispute.reason,
        "due_date": written(dispute.created_at)[:10],
        "created_at": written(dispute.created_at),
        "updated_at": written(at),
        "mid": "1",
    }
