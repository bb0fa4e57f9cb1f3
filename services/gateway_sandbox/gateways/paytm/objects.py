"""Paytm's orders, refunds and forms as it writes them, from the books."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from services.gateway_sandbox.domain.models import BookEntry, BookRefund, EntryStatus
from services.gateway_sandbox.gateways.paytm.wire import Json, indian_time, rupees

SUCCESS = ("TXN_SUCCESS", "01", "Txn Success")
DECLINED = ("TXN_FAILURE", "227", "Your payment has been declined by your bank.")
CANCELED = ("TXN_FAILURE", "141", "The payment was cancelled by the customer.")
PENDING = ("PENDING", "402", "The result of the payment is awaited from the bank.")
NO_RECORD = ("TXN_FAILURE", "331", "No record found for this order")

_RESULTS: dict[EntryStatus, tuple[str, str, str]] = {
    EntryStatus.COMPLETED: SUCCESS,
    EntryStatus.FAILED: DECLINED,
    EntryStatus.CANCELED: CANCELED,
    EntryStatus.PROCESSING: PENDING,
}
"""An order that nobody has tried to pay has no record, whether or not its token still lives."""

_REFUND_RESULTS = {
    "pending": ("PENDING", "601", "Refund request is accepted and in progress"),
    "succeeded": ("TXN_SUCCESS", "10", "Refund Successful"),
    "failed": ("TXN_FAILURE", "602", "The refund was declined by the bank"),
    "reversed": ("TXN_FAILURE", "602", "The refund was sent back by the bank"),
}
NO_REFUND = ("TXN_FAILURE", "631", "Refund record not found")
"""Its code is the sandbox's own choice."""


def result_info(result: tuple[str, str, str]) -> Json:
    status, code, message = result
    return {"resultStatus": status, "resultCode": code, "resultMsg": message}


def result_of(entry: BookEntry) -> tuple[str, str, str]:
    return _RESULTS.get(entry.status, NO_RECORD)


def order(entry: BookEntry, refunded_minor: int) -> Json:
    """``refunded_minor``: what has reached buyers, without what is under way."""
    result = result_of(entry)
    body: Json = {"resultInfo": result_info(result)}
    if result is NO_RECORD:
        return body
    return {
        **body,
        "mid": entry.details["mid"],
        "orderId": entry.gateway_reference,
        "txnId": entry.payment_reference,
        "bankTxnId": entry.details.get("bank_txn_id", ""),
        "txnAmount": rupees(entry.amount_minor),
        "txnType": "SALE",
        "gatewayName": "PPBLC",
        "bankName": "",
        "paymentMode": "UPI",
        "refundAmt": rupees(refunded_minor),
        "txnDate": indian_time(_paid_at(entry)),
    }


def refund_status(entry: BookEntry, refund: BookRefund, refunded_minor: int) -> Json:
    shown = {
        "resultInfo": result_info(_REFUND_RESULTS[refund.status]),
        **_refund_names(entry, refund),
        "mid": entry.details["mid"],
        "totalRefundAmount": rupees(refunded_minor),
        "txnTimestamp": indian_time(_paid_at(entry)),
        "acceptRefundStatus": "SUCCESS",
        "acceptRefundTimestamp": indian_time(refund.created_at),
    }
    if refund.status == "succeeded":
        shown |= {"userCreditInitiateStatus": "SUCCESS", **_credited(refund)}
    return shown


def refund_accepted(entry: BookEntry, refund: BookRefund) -> Json:
    """The answer to an application. It is under way, whatever the books say by now."""
    return {
        "resultInfo": result_info(_REFUND_RESULTS["pending"]),
        "mid": entry.details["mid"],
        "txnTimestamp": indian_time(_paid_at(entry)),
        **_refund_names(entry, refund),
    }


def refund_webhook(entry: BookEntry, refund: BookRefund, *, is_credited: bool, is_failed: bool) -> Json:
    body = {
        **_refund_names(entry, refund),
        "mid": entry.details["mid"],
        "txnTimestamp": indian_time(_paid_at(entry)),
        "acceptRefundTimestamp": indian_time(refund.created_at),
        "merchantRefundRequestTimestamp": indian_time(refund.created_at),
        "status": "FAILURE" if is_failed else "SUCCESS",
    }
    if is_failed:
        return {**body, "rejectRefundReasonCode": "602", "rejectRefundReasonMessage": "Declined by the bank"}
    return {**body, **_credited(refund), "source": "MERCHANT"} if is_credited else body


def callback_fields(entry: BookEntry) -> dict[str, str]:
    """What a browser carries home. On failure some keys are absent."""
    status, code, message = result_of(entry)
    fields = {
        "CURRENCY": entry.currency,
        "GATEWAYNAME": "PPBLC",
        "MID": entry.details["mid"],
        "ORDERID": entry.gateway_reference,
        "PAYMENTMODE": "UPI",
        "RESPCODE": code,
        "RESPMSG": message,
        "STATUS": status,
        "TXNAMOUNT": rupees(entry.amount_minor),
        "TXNID": entry.payment_reference or "",
    }
    if status != SUCCESS[0]:
        return fields
    paid_at = indian_time(_paid_at(entry))
    return {**fields, "BANKNAME": "", "BANKTXNID": entry.details["bank_txn_id"], "TXNDATE": paid_at}


def webhook_fields(entry: BookEntry) -> dict[str, str]:
    return {
        **callback_fields(entry),
        "TXNDATETIME": indian_time(_paid_at(entry)),
        "CUSTID": entry.details["cust_id"],
        "MERC_UNQ_REF": entry.order_id or "",
    }


def row(entry: BookEntry, refund: BookRefund | None = None) -> Json:
    """Of the passbook's list; what its columns are really called is not documented."""
    shown: Json = {"merchantOrderId": entry.gateway_reference, "txnId": entry.payment_reference}
    if refund is None:
        return {**shown, "amount": rupees(entry.amount_minor), "orderCreatedTime": indian_time(_paid_at(entry))}
    amount, created_at = rupees(refund.amount_minor), indian_time(refund.created_at)
    return {**shown, "refId": refund.refund_id, "amount": amount, "orderCreatedTime": created_at}


def _refund_names(entry: BookEntry, refund: BookRefund) -> dict[str, Any]:
    return {
        "orderId": entry.gateway_reference,
        "txnId": entry.payment_reference,
        "refId": refund.refund_id,
        "refundId": refund.details["refundId"],
        "txnAmount": rupees(entry.amount_minor),
        "refundAmount": rupees(refund.amount_minor),
    }


def _credited(refund: BookRefund) -> Json:
    detail = {"refundType": "TO_SOURCE", "payMethod": "UPI", "refundAmount": rupees(refund.amount_minor)}
    return {
        "userCreditInitiateTimestamp": indian_time(refund.created_at),
        "refundDetailInfoList": [{**detail, "rrn": "500100000002"}],
    }


def _paid_at(entry: BookEntry) -> datetime:
    return entry.payment_created_at or entry.created_at
