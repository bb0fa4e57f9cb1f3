"""Stripe's itemized payout reconciliation: decimals in major units, a positive fee that includes its tax, UTC times.

Each currency is paid out by itself. A client asks for the columns that it wants; these are the ones that tell whose
each line is.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta

from services.gateway_sandbox.gateways.port import SettlementFile, SettlementLine
from services.gateway_sandbox.gateways.stripe import objects
from shared.money import Money

_COLUMNS = (
    "automatic_payout_id",
    "automatic_payout_effective_at_utc",
    "balance_transaction_id",
    "created_utc",
    "currency",
    "gross",
    "fee",
    "net",
    "reporting_category",
    "source_id",
    "charge_id",
    "payment_intent_id",
    "payment_metadata[order_ref]",
    "refund_metadata[refund_ref]",
)
_CATEGORY = {"capture": "charge", "refund": "refund", "dispute": "dispute"}


def settlement_file(lines: Sequence[SettlementLine], day: date) -> SettlementFile:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows(_row(line, day) for line in lines)
    name = f"payout_reconciliation.itemized.5-{day:%Y-%m-%d}.csv"
    return SettlementFile(name, "text/csv", text.getvalue().encode())


def _row(line: SettlementLine, day: date) -> tuple[str, ...]:
    entry, charge = line.entry, objects.latest_charge_id(line.entry) or ""
    effective_at = datetime.combine(day, time(), UTC) + timedelta(days=1)
    return (
        line.payout.reference,
        _written(effective_at),
        f"txn_{line.object_id.partition('_')[2]}",
        _written(line.at),
        entry.currency.lower(),
        line.written(_major(line.gross_minor, entry.currency)),
        _major(line.fee_minor + line.tax_minor, entry.currency),
        _major(line.net_minor, entry.currency),
        _CATEGORY[line.kind],
        charge if line.kind == "capture" else line.object_id,
        charge,
        entry.payment_reference or "",
        entry.details.get("intent", {}).get("metadata", {}).get("order_ref", ""),
        (line.reference or "") if line.kind == "refund" else "",
    )


def _written(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def _major(amount_minor: int, currency: str) -> str:
    return f"{Money(amount_minor, currency).as_major():f}"
