"""PhonePe's orders, refunds and events as it writes them, from the books. Times are milliseconds."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from services.gateway_sandbox.domain.models import BookEntry, BookRefund, EntryStatus
from services.gateway_sandbox.gateways.phonepe.wire import Json
from services.gateway_sandbox.gateways.port import SettlementFile, SettlementLine
from shared.money import Money

MERCHANT = "PAYRAILUAT"
REFUND_FAILED = "REFUND_FAILED_AT_BANK"

# What an order that was left, and one that nobody paid in time, is coded as is the sandbox's own choice.
_ENDED: dict[EntryStatus, tuple[str, str]] = {
    EntryStatus.FAILED: ("TXN_FAILED", "TXN_AUTO_FAILED"),
    EntryStatus.CANCELED: ("TXN_CANCELLED", "CANCELLED_BY_CUSTOMER"),
    EntryStatus.EXPIRED: ("ORDER_EXPIRED", "ORDER_EXPIRED"),
}
DECLINED = ("TXN_FAILED", "ZM")
_REFUND_STATE = {"pending": "CONFIRMED", "succeeded": "COMPLETED", "failed": "FAILED", "reversed": "FAILED"}
_SETTLEMENT = "order_id transaction_id type transaction_time settlement_date gross fee tax net utr".split()
_TYPES = {"capture": "PAYMENT", "refund": "REFUND", "dispute": "DISPUTE"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INDIA = timedelta(hours=5, minutes=30)


def milliseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def new_try(transaction_id: str, at: datetime, *, is_paid: bool) -> Json:
    """One attempt on the page, as the entry keeps it; its amount is the entry's."""
    attempt: Json = {
        "transactionId": transaction_id,
        "paymentMode": "UPI_INTENT",
        "timestamp": milliseconds(at),
        "state": "COMPLETED" if is_paid else "FAILED",
    }
    return attempt if is_paid else {**attempt, "errorCode": DECLINED[0], "detailedErrorCode": DECLINED[1]}


def state_of(entry: BookEntry) -> str:
    if entry.is_payable():
        return "PENDING"
    return "COMPLETED" if entry.status is EntryStatus.COMPLETED else "FAILED"


def order(entry: BookEntry) -> Json:
    """As the status call answers: without our reference, which the caller has put into the path."""
    shown: Json = {
        "orderId": entry.gateway_reference,
        "state": state_of(entry),
        "amount": entry.amount_minor,
        "payableAmount": entry.amount_minor,
        "feeAmount": 0,
        "expireAt": milliseconds(entry.expires_at),
        "metaInfo": entry.metadata,
        "paymentDetails": [_shown_try(entry, attempt) for attempt in entry.details["tries"]],
    }
    if entry.status in _ENDED:
        code, detailed = _ENDED[entry.status]
        shown |= {"errorCode": code, "detailedErrorCode": detailed}
    return shown


def accepted(refund: BookRefund) -> Json:
    """A refund is always answered as pending first, however fast it is."""
    return {"refundId": refund.details["refundId"], "amount": refund.amount_minor, "state": "PENDING"}


def refund(entry: BookEntry, record: BookRefund) -> Json:
    shown: Json = {
        "merchantId": MERCHANT,
        "merchantRefundId": record.refund_id,
        "originalMerchantOrderId": entry.reference,
        "refundId": record.details["refundId"],
        "amount": record.amount_minor,
        "state": _REFUND_STATE[record.status],
        "timestamp": milliseconds(record.created_at),
        "paymentDetails": [],
    }
    return shown if shown["state"] != "FAILED" else {**shown, "errorCode": REFUND_FAILED}


def event(name: str, payload: Any) -> Json:
    """``type`` is the older name of ``event``, and still sent."""
    return {"event": name, "type": name.upper().replace(".", "_"), "payload": payload}


def order_payload(entry: BookEntry) -> Json:
    return {"merchantId": MERCHANT, "merchantOrderId": entry.reference, **order(entry)}


def settlement_file(lines: Sequence[SettlementLine], day: date) -> SettlementFile:
    """Rupees, as the dashboard is said to write them; the columns are logical ones, and their real names not known."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_SETTLEMENT)
    writer.writerows(_row(line, day) for line in lines)
    return SettlementFile(f"phonepe-settlement-{day:%Y-%m-%d}.csv", "text/csv", text.getvalue().encode())


def _shown_try(entry: BookEntry, attempt: Json) -> Json:
    rail = {"type": "UPI", "utr": attempt["transactionId"][-12:], "vpa": "shopper@ybl"}
    return {**attempt, "amount": entry.amount_minor, "rail": rail, "instrument": {"type": "ACCOUNT"}}


def _row(line: SettlementLine, day: date) -> list[str]:
    amounts = (line.gross_minor, line.fee_minor, line.tax_minor, line.net_minor)
    gross, *rest = (f"{Money(each, line.entry.currency).as_major():f}" for each in amounts)
    at = f"{line.at.astimezone(UTC) + _INDIA:%Y-%m-%d %H:%M:%S}"
    named = [line.entry.reference or "", line.object_id, _TYPES[line.kind], at, f"{day:%Y-%m-%d}"]
    return [*named, line.written(gross), *rest, line.payout.reference]
