"""PayPal's settlement report (STL): rows that say what they are, amounts without sign and point, CR and DR beside them.

Amounts are times 100 in every currency, as in PayPal's own example, yen too. Of the footers only the counts have a
documented shape; the section's totals are written as currency, gross credits, gross debits, fee credits, fee debits.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time, timedelta, timezone
from typing import Any

from services.gateway_sandbox.gateways.port import SettlementFile, SettlementLine
from shared.money import Money

ACCOUNT = "SANDBOXMERCHANT"
_ZONE = timezone(timedelta(hours=-8))
_CODE = {"capture": "T0006", "refund": "T1107", "dispute": "T1201"}
_COLUMNS = (
    "Transaction ID",
    "Invoice ID",
    "PayPal Reference ID",
    "PayPal Reference ID Type",
    "Transaction Event Code",
    "Transaction Initiation Date",
    "Transaction Completion Date",
    "Transaction Debit or Credit",
    "Gross Transaction Amount",
    "Gross Transaction Currency",
    "Fee Debit or Credit",
    "Fee Amount",
    "Fee Currency",
    "Custom Field",
    "Consumer ID",
    "Payment Tracking ID",
    "Store ID",
    "Bank Reference ID",
    "Credit Transactional Fee",
    "Credit Promotional Fee",
    "Credit Term",
)


def settlement_file(lines: Sequence[SettlementLine], day: date) -> SettlementFile:
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    start = datetime.combine(day, time(), _ZONE)
    writer.writerow(("RH", _written(start + timedelta(days=1, hours=5)), "A", ACCOUNT, "009"))
    text.write('"FH",01\n')
    writer.writerow(("SH", _written(start), _written(start + timedelta(days=1, seconds=-1)), ACCOUNT, ""))
    writer.writerow(("CH", *_COLUMNS))
    writer.writerows(("SB", *_row(line)) for line in lines)
    writer.writerows(("SF", *totals) for totals in _totals(lines))
    writer.writerows((footer, len(lines)) for footer in ("SC", "RC", "FC"))
    return SettlementFile(f"STL-{day:%Y%m%d}.01.009.CSV", "text/csv", text.getvalue().encode())


def _row(line: SettlementLine) -> tuple[Any, ...]:
    entry, fee = line.entry, _fee(line)
    parent = line.parent_id or ""
    return (
        line.object_id,
        line.reference or entry.details.get("invoice_id") or "",
        parent,
        "TXN" if parent else "",
        _CODE[line.kind],
        _written(line.at),
        _written(line.at),
        "CR" if line.kind == "capture" else "DR",
        line.written(_hundredths(line.amount_minor, entry.currency)),
        entry.currency,
        "DR" if fee else "",
        fee,
        entry.currency,
        (line.reference if line.kind == "refund" else None) or entry.details.get("custom_id") or "",
        *[""] * 3,
        line.payout.reference,
        *[""] * 3,
    )


def _totals(lines: Sequence[SettlementLine]) -> Iterator[tuple[Any, ...]]:
    """Of the rows that can be read. Where the payout is not what its rows come to, credits are what makes them so."""
    for payout in sorted({line.payout for line in lines}, key=lambda payout: payout.currency):
        currency = payout.currency
        own = [line for line in lines if line.payout == payout and not line.is_unreadable]
        off_minor = payout.amount_minor - sum(line.net_minor for line in own)
        credited = sum(_hundredths(line.amount_minor, currency) for line in own if line.kind == "capture")
        debited = sum(_hundredths(line.amount_minor, currency) for line in own if line.kind != "capture")
        yield currency, credited + _hundredths(off_minor, currency), debited, 0, sum(map(_fee, own))


def _fee(line: SettlementLine) -> int:
    return _hundredths(line.fee_minor + line.tax_minor, line.entry.currency)


def _hundredths(amount_minor: int, currency: str) -> int:
    return int(Money(amount_minor, currency).as_major() * 100)


def _written(moment: datetime) -> str:
    return moment.astimezone(_ZONE).strftime("%Y/%m/%d %H:%M:%S -0800")
