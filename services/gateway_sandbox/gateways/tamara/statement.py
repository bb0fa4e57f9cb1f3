"""The portal's report, with names of columns that are ours: its real ones are not documented."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from datetime import date
from io import StringIO

from services.gateway_sandbox.gateways.port import SettlementFile, SettlementLine
from shared.money import Money

_COLUMNS = "statement_date statement_reference order_id order_reference_id type gross fee fee_vat net currency".split()
_COLUMNS += ["reference"]


def statement(lines: Sequence[SettlementLine], day: date) -> SettlementFile:
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for line in lines:
        writer.writerow(_row(line, day))
    return SettlementFile(f"tamara-statement-{day:%Y-%m-%d}.csv", "text/csv; charset=utf-8", text.getvalue().encode())


def _row(line: SettlementLine, day: date) -> list[str]:
    entry = line.entry
    amounts = (line.gross_minor, line.fee_minor, line.tax_minor, line.net_minor)
    gross, fee, vat, net = (f"{Money(amount, entry.currency).as_major():f}" for amount in amounts)
    names = [day.isoformat(), line.payout.reference, entry.gateway_reference, entry.reference or "", line.kind]
    return [*names, line.written(gross), fee, vat, net, entry.currency, line.object_id]
