"""MyFatoorah's JSON, written from the books: invoices with their attempts, refunds, events and deposits.

Amounts are strings here, with thousands commas and a local label where the real ones have them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, TypedDict

from services.gateway_sandbox.domain.models import BookDispute, BookEntry, BookRefund, EntryStatus
from services.gateway_sandbox.gateways.port import SettlementLine
from shared.money import Money

Json = dict[str, Any]

_LABELS: Mapping[str, str] = {"KWD": "KD", "SAR": "SR"}
_REFUND_STATUS = {"pending": "Pending", "succeeded": "Refunded", "failed": "Canceled", "reversed": "Canceled"}
_DISPUTE_STATUS = {"open": "PENDING", "won": "RESOLVED", "lost": "LOST"}
_EVENT_STATUS = {"Succss": "SUCCESS", "Failed": "FAILED", "Authorize": "AUTHORIZE", "Canceled": "CANCELED"}

METHODS: Sequence[tuple[int, str, str]] = ((1, "KNET", "kn"), (2, "VISA/MASTER", "vm"), (6, "mada", "md"))


class Attempt(TypedDict):
    """One try of the shopper's, as an entry's details keep it. ``at`` is when it last changed, in RFC 3339."""

    id: str
    status: str
    code: str
    at: str


def attempts_of(entry: BookEntry) -> Sequence[Attempt]:
    found: Sequence[Attempt] = entry.details["attempts"]
    return found


def method(number: int, name: str, code: str, total: int, currency: str) -> Json:
    return {
        "PaymentMethodId": number,
        "PaymentMethodAr": name,
        "PaymentMethodEn": name,
        "PaymentMethodCode": code,
        "IsDirectPayment": False,
        "ServiceCharge": 0,
        "TotalAmount": Money(total, currency).as_major(),
        "CurrencyIso": currency,
        "ImageUrl": "",
        "IsEmbeddedSupported": False,
        "PaymentCurrencyIso": currency,
    }


def invoice(entry: BookEntry, zone: timezone) -> Json:
    expires_at = entry.expires_at.astimezone(zone)
    value_minor = _value_minor(entry)
    return {
        "InvoiceId": int(entry.gateway_reference),
        "InvoiceStatus": "Paid" if entry.status is EntryStatus.COMPLETED else "Pending",
        "InvoiceReference": entry.details["invoice_reference"],
        "CustomerReference": entry.reference,
        "CreatedDate": local(entry.created_at, zone),
        "ExpiryDate": f"{expires_at:%B} {expires_at.day}, {expires_at.year}",
        "ExpiryTime": f"{expires_at:%H:%M:%S.%f}0",
        "InvoiceValue": Money(value_minor, entry.currency).as_major(),
        "Comments": None,
        "CustomerName": entry.details["customer"].get("name"),
        "CustomerMobile": entry.details["customer"].get("mobile"),
        "CustomerEmail": entry.customer_email,
        "UserDefinedField": entry.details["user_field"],
        "InvoiceDisplayValue": f"{grouped(value_minor, entry.currency)} {label(entry.currency)}",
        "InvoiceItems": [],
        "InvoiceTransactions": [_transaction(entry, attempt, zone) for attempt in attempts_of(entry)],
        "Suppliers": [],
    }


def _value_minor(entry: BookEntry) -> int:
    """A partial capture rewrites the invoice's value."""
    return (
        entry.captured_minor if entry.status is EntryStatus.COMPLETED and entry.captured_minor else entry.amount_minor
    )


def _transaction(entry: BookEntry, attempt: Attempt, zone: timezone) -> Json:
    minor = _value_minor(entry)
    return {
        "TransactionDate": local(datetime.fromisoformat(attempt["at"]), zone),
        "PaymentGateway": entry.details["method"],
        "ReferenceId": attempt["id"][-12:],
        "TrackId": f"{attempt['at'][:10]}_{entry.gateway_reference}",
        "TransactionId": attempt["id"][-12:],
        "PaymentId": attempt["id"],
        "AuthorizationId": "B12345" if not attempt["code"] else "",
        "TransactionStatus": attempt["status"],
        "TransationValue": grouped(minor, entry.currency),
        "CustomerServiceCharge": "0.000",
        "TotalServiceCharge": "0.000",
        "DueValue": grouped(minor, entry.currency),
        "PaidCurrency": label(entry.currency),
        "PaidCurrencyValue": grouped(minor, entry.currency),
        "VatAmount": "0.000",
        "Currency": label(entry.currency),
        "Error": "The bank declined the payment" if attempt["code"] else None,
        "ErrorCode": attempt["code"],
        "ECI": "",
        "Card": None,
    }


def refund(entry: BookEntry, record: BookRefund) -> Json:
    amount = Money(record.amount_minor, entry.currency).as_major()
    return {
        "RefundId": int(record.refund_id),
        "RefundStatus": _REFUND_STATUS[record.status],
        "InvoiceId": int(entry.gateway_reference),
        "Amount": amount,
        "RefundReference": record.details["reference"],
        "ExternalIdentifier": record.reference,
        "RRN": None,
        "RefundAmount": amount,
        "BaseCurrency": entry.currency,
    }


# --- events ----------------------------------------------------------------------------------------------------------


def payment_event(entry: BookEntry, attempt: Attempt) -> Json:
    """The ``Data`` of version 2."""
    is_paid = attempt["status"] == "Succss"
    return {
        "Invoice": _event_invoice(entry, is_paid=is_paid),
        "Transaction": {
            "Id": attempt["id"][-12:],
            "Status": _EVENT_STATUS[attempt["status"]],
            "PaymentMethod": entry.details["method"],
            "PaymentId": attempt["id"],
            "ReferenceId": attempt["id"][-12:],
            "Error": {"Code": attempt["code"] or None, "Message": None},
        },
        "Amount": amounts(entry, _value_minor(entry)),
    }


def refund_event(entry: BookEntry, record: BookRefund) -> Json:
    return {
        "Refund": {
            "Id": record.refund_id,
            "Status": _REFUND_STATUS[record.status].upper(),
            "Reference": record.details["reference"],
            "InvoiceId": str(int(record.refund_id) + 1),
        },
        "Amount": amounts(entry, record.amount_minor),
        "ReferencedInvoice": _event_invoice(entry, is_paid=True),
    }


def dispute_event(entry: BookEntry, record: BookDispute, attempt: Attempt) -> Json:
    return {
        "Dispute": {
            "Type": "CHARGEBACK",
            "Status": _DISPUTE_STATUS[record.status],
            "CreatedDate": record.created_at.isoformat(),
            "ChargeBackType": record.reason,
            "Reason": None,
            "DisputeTransactionId": record.dispute_id,
        },
        **payment_event(entry, attempt),
        "Amount": amounts(entry, record.amount_minor),
    }


def _event_invoice(entry: BookEntry, *, is_paid: bool) -> Json:
    return {
        "Id": entry.gateway_reference,
        "Status": "PAID" if is_paid else "PENDING",
        "Reference": entry.details["invoice_reference"],
        "ExternalIdentifier": entry.details["identifier"],
        "UserDefinedField": entry.details["user_field"],
    }


def amounts(entry: BookEntry, minor: int) -> Json:
    value = plain(minor, entry.currency)
    return {
        "BaseCurrency": entry.currency,
        "ValueInBaseCurrency": value,
        "DisplayCurrency": entry.currency,
        "ValueInDisplayCurrency": value,
        "PayCurrency": entry.currency,
        "ValueInPayCurrency": value,
    }


def payment_event_v1(entry: BookEntry, attempt: Attempt, zone: timezone) -> Json:
    value = plain(_value_minor(entry), entry.currency)
    return {
        "InvoiceId": int(entry.gateway_reference),
        "InvoiceReference": entry.details["invoice_reference"],
        "CreatedDate": f"{entry.created_at.astimezone(zone):%d%m%Y%H%M%S}",
        "CustomerReference": entry.reference,
        "CustomerName": entry.details["customer"].get("name"),
        "CustomerMobile": entry.details["customer"].get("mobile"),
        "CustomerEmail": entry.customer_email,
        "TransactionStatus": _EVENT_STATUS[attempt["status"]],
        "PaymentMethod": entry.details["method"],
        "UserDefinedField": entry.details["user_field"],
        "ReferenceId": attempt["id"][-12:],
        "TrackId": f"{attempt['at'][:10]}_{entry.gateway_reference}",
        "PaymentId": attempt["id"],
        "AuthorizationId": "B12345",
        "InvoiceValueInBaseCurrency": value,
        "BaseCurrency": entry.currency,
        "InvoiceValueInDisplayCurreny": value,
        "DisplayCurrency": entry.currency,
        "InvoiceValueInPayCurrency": value,
        "PayCurrency": entry.currency,
    }


def refund_event_v1(entry: BookEntry, record: BookRefund, zone: timezone) -> Json:
    return {
        "RefundId": int(record.refund_id),
        "RefundReference": record.details["reference"],
        "CreatedDate": f"{record.created_at.astimezone(zone):%d%m%Y%H%M%S}",
        "RefundStatus": _REFUND_STATUS[record.status].upper(),
        "Amount": plain(record.amount_minor, entry.currency),
        "Comments": record.reason,
        "InvoiceId": int(entry.gateway_reference),
        "GatewayReference": None,
    }


# --- deposits --------------------------------------------------------------------------------------------------------


def deposited(line: SettlementLine, zone: timezone) -> Json:
    """One invoice of a deposit. That refunds appear, and negative, is our guess: nothing documents them here."""
    entry = line.entry
    amount = line.written(plain(line.gross_minor, entry.currency))
    return {
        "InvoiceId": int(entry.gateway_reference),
        "PaymentGateway": entry.details["method"],
        "PaymentId": entry.payment_reference,
        "InvoiceReference": entry.details["invoice_reference"],
        "CustomerReference": entry.reference,
        "CreatedDate": local(entry.created_at, zone),
        "InvoiceValue": amount,
        "PaidCurrencyValue": amount,
        "PaidCurrency": label(entry.currency),
        "InvoiceDisplayValue": amount,
        "DueValue": amount,
        "PaidDate": local(line.at, zone),
        "TotalServiceCharge": plain(line.fee_minor + line.tax_minor, entry.currency),
        "DueDeposit": plain(line.net_minor, entry.currency),
        "DepositReference": line.payout.reference,
        "DepositDate": local(line.at, zone),
    }


def plain(minor: int, currency: str) -> str:
    return f"{Money(minor, currency).as_major():f}"


def grouped(minor: int, currency: str) -> str:
    return f"{Money(minor, currency).as_major():,f}"


def label(currency: str) -> str:
    return _LABELS.get(currency, currency)


def local(at: datetime, zone: timezone) -> str:
    """The account's own time, without its zone."""
    return at.astimezone(zone).strftime("%Y-%m-%dT%H:%M:%S.%f")
