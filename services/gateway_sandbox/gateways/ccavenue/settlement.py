"""What CCAvenue paid out: its two reports, as they are fetched for a day, in one JSON document.

``payoutSummary`` lists the payouts, one per currency here; ``payIdDetails`` has the rows of each, by its ``pay_Id``.
The summary's keys are misspelled, as CCAvenue's are in JSON.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

from services.gateway_sandbox.domain.json_text import to_json
from services.gateway_sandbox.gateways.ccavenue.objects import major
from services.gateway_sandbox.gateways.ccavenue.wire import INDIA, Json
from services.gateway_sandbox.gateways.port import Payout, PayoutTerms, SettlementFile, SettlementLine

TERMS = PayoutTerms(("INR", "USD"), "{day:%Y%m%d}{number}", "UTR{day:%Y%m%d}{number}")
_TYPES = {"capture": "Shipped", "refund": "Refunded", "dispute": "Chargeback"}


def settlement_file(lines: Sequence[SettlementLine], day: date) -> SettlementFile:
    by_payout = {
        payout: [line for line in lines if line.payout == payout]
        for payout in sorted({line.payout for line in lines}, key=lambda payout: payout.reference)
    }
    body: Json = {
        "payoutSummary": {"Payout_Summary_Result": summary_list(list(by_payout), day)},
        "payIdDetails": {
            payout.reference: {
                "pay_id_details_Result": {**details_list(rows), "page_count": 1, "total_records": len(rows)}
            }
            for payout, rows in by_payout.items()
        },
    }
    return SettlementFile(f"ccavenue-payouts-{day:%Y-%m-%d}.json", "application/json", to_json(body).encode())


def _payout(payout: Payout, day: date) -> Json:
    return {
        "pay_Id": payout.reference,
        "pay_amount": major(payout.amount_minor, payout.currency),
        "settlement_date": f"{day + timedelta(days=1):%d-%m-%Y}",
        "settlement_bank": "Test bank",
        "settlement_currency": payout.currency,
        "trans_currency": payout.currency,
        "sub_acc_Id": "",
        "utr_no": payout.bank_reference,
    }


def summary_list(payouts: Sequence[Payout], day: date) -> Json:
    rows = [_payout(payout, day) for payout in payouts]
    return {"pauyout_summary_list": {"pauyout_summary_details": rows}}


def details_list(lines: Sequence[SettlementLine]) -> Json:
    return {"pay_id_txn_details_list": {"pay_id_txn_details": [_row(line) for line in lines]}}


def _row(line: SettlementLine) -> Json:
    currency = line.entry.currency
    return {
        "ccavenue_ref_no": line.entry.gateway_reference,
        "order_no": line.entry.reference,
        "txn_type": _TYPES[line.kind],
        "amount": line.written(major(line.amount_minor, currency)),
        "fees": major(line.fee_minor, currency),
        "tax": major(line.tax_minor, currency),
        "amt_payable": major(line.net_minor, currency),
        "currency": currency,
        "date_time": f"{line.at.astimezone(INDIA):%Y-%m-%d %H:%M:%S}",
        "order_option_type": "OPTUPI",
        "bank_ref_no": str(line.entry.details.get("bank_ref_no", "")),
        "bill_name": "",
        "bill_email": "",
        "sub_acc_id": "",
    }
