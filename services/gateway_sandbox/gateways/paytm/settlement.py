"""The settlement as the dashboard's CSV is said to have it. Its columns' real names and signs are not documented."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from datetime import date

from services.gateway_sandbox.gateways.paytm.wire import IST, rupees
from services.gateway_sandbox.gateways.port import SettlementFile, SettlementLine

COLUMNS = (
    "order_id",
    "transaction_id",
    "transaction_type",
    "transaction_date",
    "gross_amount",
    "commission",
    "gst",
    "net_amount",
    "settlement_date",
    "utr",
    "status",
)
_TYPES = {"capture": "SALE", "refund": "REFUND", "dispute": "CHARGEBACK"}


def settlement_file(lines: Sequence[SettlementLine], day: date) -> SettlementFile:
    """Gross less commission less GST is net, line by line; what goes back is negative."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for line in lines:
        writer.writerow(_row(line, day))
    return SettlementFile(f"settlement_{day:%Y-%m-%d}.csv", "text/csv; charset=utf-8", text.getvalue().encode())


def _row(line: SettlementLine, day: date) -> tuple[str, ...]:
    return (
        line.entry.gateway_reference,
        line.object_id,
        _TYPES[line.kind],
        f"{line.at.astimezone(IST):%Y-%m-%d %H:%M:%S}",
        line.written(rupees(line.gross_minor)),
        rupees(line.fee_minor),
        rupees(line.tax_minor),
        rupees(line.net_minor),
        f"{day:%Y-%m-%d}",
        line.payout.reference,
        "PAYOUT_SETTLED",
    )
