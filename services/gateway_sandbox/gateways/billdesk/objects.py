"""BillDesk's JSON, written from the books, and the file that says what was settled."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from datetime import date, datetime
from typing import Any

from services.gateway_sandbox.domain.models import BookEntry, BookRefund
from services.gateway_sandbox.gateways.billdesk.wire import IST
from services.gateway_sandbox.gateways.port import SettlementFile, SettlementLine
from shared.money import Money

Json = dict[str, Any]
Transaction = dict[str, str]
"""One try of the buyer: its ``id``, ``at`` (the text that goes out) and ``status``."""

Writer = Callable[[BookEntry], Json]

SUCCESS, FAILED, CANCELED = "0300", "0399", "0398"
FULL_BEFORE_SETTLEMENT, REFUNDED = "0699", "0799"
NOT_YET_ACCEPTED, REFUND_FAILED = "0700", "0798"
"""No documentation names codes for these; what matters is that they are neither of the two above."""

_NUMBERS = {"INR": "356", "USD": "840", "EUR": "978", "GBP": "826", "AED": "784", "SGD": "702"}
_NO_CURRENCY = "999"
_ERRORS = {
    SUCCESS: ("TRS0000", "Transaction Successful", "success"),
    FAILED: ("TRPPE0033", "Payment declined by the bank", "payment_declined"),
    CANCELED: ("TRPUC0001", "Cancelled by the user", "user_cancelled"),
}
_UNDER_WAY = ("TRP0000", "Transaction is pending", "payment_processing_error")

_COLUMNS = (
    "transactionid",
    "orderid",
    "type",
    "transaction_date",
    "settlement_date",
    "gross",
    "fee",
    "tax",
    "net",
    "utr",
    "refundid",
    "merc_refund_ref_no",
)
_TYPES = {"capture": "sale", "refund": "refund", "dispute": "chargeback"}


def stamp(moment: datetime) -> str:
    return moment.astimezone(IST).isoformat(timespec="seconds")


def rupees(amount_minor: int, currency: str = "INR") -> str:
    return f"{Money(amount_minor, currency).as_major():f}"


def _number(currency: str) -> str:
    """ISO 4217's; orders are in rupees, and only a fault shows anything else."""
    return _NUMBERS.get(currency, _NO_CURRENCY)


def last_of(entry: BookEntry) -> Transaction | None:
    """The latest try, once there is one."""
    tries: Sequence[Transaction] = entry.details["transactions"]
    return tries[-1] if tries else None


def find_try(entry: BookEntry, identifier: str) -> Transaction | None:
    return next((each for each in entry.details["transactions"] if each["id"] == identifier), None)


def order(entry: BookEntry, api_base: str) -> Json:
    return {
        "objectid": "order",
        "orderid": entry.reference,
        "bdorderid": entry.gateway_reference,
        "mercid": entry.details["mercid"],
        "status": "ACTIVE",
        "order_date": entry.details["order_date"],
        "createdon": stamp(entry.created_at),
        "amount": rupees(entry.amount_minor, entry.currency),
        "currency": _number(entry.currency),
        "ru": entry.success_url,
        "itemcode": entry.details["itemcode"],
        "next_step": "redirect",
        "additional_info": entry.metadata,
        "links": [
            {"rel": "self", "method": "GET", "href": f"{api_base}/payments/ve1_2/orders/{entry.gateway_reference}"},
            {
                "rel": "redirect",
                "method": "POST",
                "href": f"{api_base}/web/v1_2/embeddedsdk",
                "parameters": {
                    "mercid": entry.details["mercid"],
                    "bdorderid": entry.gateway_reference,
                    "rdata": entry.details["rdata"],
                },
                "headers": {"authorization": f"OToken {entry.details['rdata']}"},
                "valid_date": stamp(entry.expires_at),
            },
        ],
    }


def transaction(entry: BookEntry, which: Transaction) -> Json:
    amount = rupees(entry.amount_minor, entry.currency)
    code, description, kind = _ERRORS.get(which["status"], _UNDER_WAY)
    return {
        "objectid": "transaction",
        "transactionid": which["id"],
        "orderid": entry.reference,
        "mercid": entry.details["mercid"],
        "transaction_date": which["at"],
        "amount": amount,
        "surcharge": "0.00",
        "discount": "0.00",
        "charge_amount": amount,
        "currency": _number(entry.currency),
        "payment_method_type": "netbanking",
        "txn_process_type": "nb",
        "bank_ref_no": which["id"][-12:],
        "bankid": "TBK",
        "itemcode": entry.details["itemcode"],
        "auth_status": which["status"],
        "transaction_error_code": code,
        "transaction_error_desc": description,
        "transaction_error_type": kind,
        "additional_info": entry.metadata,
        "ru": entry.success_url,
    }


def refund(entry: BookEntry, record: BookRefund) -> Json:
    body = {
        "objectid": "refund",
        "refundid": record.refund_id,
        "transactionid": record.details["transactionid"],
        "orderid": entry.reference,
        "mercid": entry.details["mercid"],
        "transaction_date": record.details["transaction_date"],
        "txn_amount": rupees(entry.amount_minor, entry.currency),
        "refund_amount": rupees(record.amount_minor, entry.currency),
        "currency": _number(entry.currency),
        "refund_date": stamp(record.created_at),
        "refund_status": _refund_status(record),
    }
    return body | ({"merc_refund_ref_no": record.reference} if record.reference else {})


def _refund_status(record: BookRefund) -> str:
    if record.status == "succeeded":
        return str(record.details["code"])
    return NOT_YET_ACCEPTED if record.status == "pending" else REFUND_FAILED


def settlement(lines: Sequence[SettlementLine], day: date) -> SettlementFile:
    """Our own column names: BillDesk's files are arranged with each merchant."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(_COLUMNS)
    writer.writerows(_row(line, day) for line in lines)
    return SettlementFile(f"billdesk-settlement-{day:%Y%m%d}.csv", "text/csv", text.getvalue().encode())


def _row(line: SettlementLine, day: date) -> tuple[str, ...]:
    is_sale = line.kind == "capture"
    amounts = (line.gross_minor, line.fee_minor, line.tax_minor, line.net_minor)
    gross, *rest = (rupees(amount, line.entry.currency) for amount in amounts)
    return (
        line.object_id if is_sale else line.entry.payment_reference or "",
        line.entry.reference or "",
        _TYPES[line.kind],
        f"{line.at.astimezone(IST):%Y-%m-%d %H:%M:%S}",
        f"{day:%Y-%m-%d}",
        line.written(gross),
        *rest,
        line.payout.reference,
        "" if is_sale else line.object_id,
        line.reference or "" if line.kind == "refund" else "",
    )
