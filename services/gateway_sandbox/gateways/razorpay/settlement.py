"""Razorpay's settlement reconciliation, as its API gives it: integers in sub-units, a fee that includes its tax."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta

from services.gateway_sandbox.domain.json_text import to_json
from services.gateway_sandbox.gateways.port import SettlementFile, SettlementLine
from services.gateway_sandbox.gateways.razorpay import objects
from services.gateway_sandbox.gateways.razorpay.objects import Json

_TYPE = {"capture": "payment", "refund": "refund", "dispute": "adjustment"}


def settlement_file(lines: Sequence[SettlementLine], day: date) -> SettlementFile:
    body = objects.collection([_row(line, day) for line in lines])
    return SettlementFile(f"settlement-recon-{day:%Y-%m-%d}.json", "application/json", to_json(body).encode())


def _row(line: SettlementLine, day: date) -> Json:
    """A payment's row names itself by ``entity_id`` alone; only what takes from a payment has a ``payment_id``."""
    entry, is_payment = line.entry, line.kind == "capture"
    row = {
        "entity_id": f"adj_{line.object_id.partition('_')[2]}" if line.kind == "dispute" else line.object_id,
        "type": _TYPE[line.kind],
        "debit": max(-line.net_minor, 0),
        "credit": max(line.net_minor, 0),
        "amount": line.written(line.amount_minor),
        "currency": entry.currency,
        "fee": line.fee_minor + line.tax_minor,
        "tax": line.tax_minor,
        "on_hold": False,
        "settled": True,
        "created_at": objects.unix(line.at),
        "settled_at": objects.unix(datetime.combine(day, time(), UTC) + timedelta(days=1, seconds=-1)),
        "settlement_id": line.payout.reference,
        "settlement_utr": line.payout.bank_reference,
        "payment_id": None if is_payment else entry.payment_reference,
    }
    if line.kind == "dispute":  # adjustments lack the rest
        return {**row, "dispute_id": line.object_id}
    return {
        **row,
        "order_id": entry.details["order_id"],
        "order_receipt": entry.reference,
        "method": "card",
        "description": None,
        "notes": to_json(entry.metadata),
        "dispute_id": None,
    }
