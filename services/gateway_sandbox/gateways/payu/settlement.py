"""What ``get_settlement_details`` answers for a day: rupees as text with four digits, a negative net for refunds."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

from services.gateway_sandbox.domain.json_text import to_json
from services.gateway_sandbox.gateways.payu import objects
from services.gateway_sandbox.gateways.payu.wire import rupees, written
from services.gateway_sandbox.gateways.port import PayoutTerms, SettlementFile, SettlementLine

_ACTION = {"capture": "capture", "refund": "refund", "dispute": "chargeback"}


TERMS = PayoutTerms(("INR",), "UTR{day:%Y%m%d}01")


def settlement_file(lines: Sequence[SettlementLine], day: date) -> SettlementFile:
    body = to_json(settlement_body(lines, day))
    return SettlementFile(f"payu_settlement_{day}.json", "application/json", body.encode())


def settlement_body(lines: Sequence[SettlementLine], day: date) -> dict[str, Any]:
    rows = {str(number): _row(line) for number, line in enumerate(lines, start=1)}
    return {"status": 1, "msg": f"{len(rows)} transactions settled on {day}", "Txn_details": rows}


def _row(line: SettlementLine) -> dict[str, Any]:
    entry = line.entry
    is_own_request = line.object_id != entry.payment_reference
    half, other_half = line.tax_minor // 2, line.tax_minor - line.tax_minor // 2
    return {
        "payuid": objects.payu_id(entry),
        "txnid": entry.gateway_reference,
        "txndate": written(entry.created_at),
        "mode": "CC",
        "amount": rupees(entry.amount_minor),
        "requestid": line.object_id if is_own_request else entry.details.get("capture_request_id", ""),
        "requestdate": written(line.at),
        "requestaction": _ACTION[line.kind],
        "requestamount": line.written(rupees(line.amount_minor)),
        "mer_utr": line.payout.reference,
        "mer_service_fee": _four_digits(line.fee_minor),
        "mer_service_tax": _four_digits(line.tax_minor),
        "mer_net_amount": _four_digits(line.net_minor),
        "bank_name": "Credit Card",
        "issuing_bank": "SANDBOX",
        "merchant_subvention_amount": "0.00",
        "cgst": _four_digits(half),
        "igst": "0.0000",
        "sgst": _four_digits(other_half),
        "PG_TYPE": "CC-PG",
        "Card Type": "Visa",
        "token": line.reference if line.kind == "refund" and line.reference else "",
    }


def _four_digits(minor: int) -> str:
    return f"{rupees(minor)}00"
