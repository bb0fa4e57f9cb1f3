"""The generic gateway's settlement file. Its contract: payment_service/gateways/generic.md."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from datetime import date

from services.gateway_sandbox.gateways.port import SettlementFile, SettlementLine
from shared.clock import to_rfc3339
from shared.money import Money

_COLUMNS = (
    "settlement_id",
    "type",
    "id",
    "payment_id",
    "reference",
    "session_reference",
    "order_id",
    "created_at",
    "currency",
    "amount",
    "fee",
    "tax",
    "net",
)


def settlement_file(lines: Sequence[SettlementLine], day: date) -> SettlementFile:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows(_row(line) for line in lines)
    return SettlementFile(f"settlement-{day:%Y-%m-%d}.csv", "text/csv", text.getvalue().encode())


def _row(line: SettlementLine) -> tuple[str, ...]:
    entry = line.entry
    gross, *deducted = (
        f"{Money(minor, entry.currency).as_major():f}"
        for minor in (line.gross_minor, line.fee_minor, line.tax_minor, line.net_minor)
    )
    return (
        line.payout.reference,
        line.kind,
        line.object_id,
        entry.gateway_reference,
        line.reference or "",
        entry.reference or "",
        entry.order_id or "",
        to_rfc3339(line.at),
        entry.currency,
        line.written(gross),
        *deducted,
    )
