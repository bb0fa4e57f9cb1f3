"""The CSV report: RFC 4180, one table, written while it is read. No cell of it is executed by a spreadsheet (RC15).

Amounts are numbers in major units, with the currency's digits: a negative one begins with its sign, and stays a number.
Everything else is text. What a spreadsheet would take for a formula gets an apostrophe in front, which shows as text.
So does what stands after a semicolon: where a comma is the decimal sign, spreadsheets take the table apart there.
"""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal

from services.reconciler.domain.cases import Case
from services.reconciler.domain.reporting import Place, Totals, as_major
from services.reconciler.domain.settlement import BadRow
from services.reconciler.use_cases.read_report import Report
from services.reconciler.use_cases.report_ports import ShownLine, ShownPayout
from shared.clock import to_rfc3339

Cell = str | int | Decimal | datetime | None

COLUMNS = (
    "record",
    "id",
    "kind",
    "status",
    "gateway",
    "account",
    "order_id",
    "payment_id",
    "file_id",
    "line_number",
    "payout_reference",
    "reference",
    "currency",
    "expected",
    "actual",
    "difference",
    *Place,
    "fees",
    "tax",
    "payouts",
    "payouts_unexplained",
    "count",
    "action",
    "owner",
    "opened_at",
    "resolved_at",
    "resolution",
    "age_seconds",
    "occurred_at",
    "detail",
)
"""Every record fills those that it has; ``record`` is totals, payout, case, unmatched_line or bad_row."""

_STARTS_A_FORMULA = frozenset("=+-@|%＝＋－＠﹢﹣﹦﹫−")


_SEPARATES = frozenset(";,|")


def escaped(text: str) -> str:
    """One line of text of which no spreadsheet takes anything for a formula, whatever stands before its sign and
    wherever it splits lines into cells."""
    line = "".join(" " if unicodedata.category(each) in _BREAKS else each for each in text)
    first = next((each for each in line if not _is_skipped(each)), "")
    is_moved = text[:1] in ("\t", "\r", "\n")
    begins = is_moved or first in _STARTS_A_FORMULA
    return ("'" if begins else "") + (_split_safely(line) if _SEPARATES & {*line} else line)


def _split_safely(line: str) -> str:
    shown, begins = "", False
    for each in line:
        shown += f"'{each}" if begins and each in _STARTS_A_FORMULA else each
        begins = each in _SEPARATES or (begins and _is_skipped(each))
    return shown


def _is_skipped(character: str) -> bool:
    """It may stand between a cell's beginning and its formula."""
    return character.isspace() or character == '"' or unicodedata.category(character) == "Cf"


_BREAKS = frozenset({"Cc", "Zl", "Zp"})


async def csv_report(
    report: Report, cases: AsyncIterator[Sequence[Case]], lines: AsyncIterator[Sequence[ShownLine]]
) -> AsyncIterator[bytes]:
    yield _written([dict(zip(COLUMNS, COLUMNS, strict=True))])
    yield _written(_short_records(report))
    async for case_page in cases:
        yield _written(_case(case, report.made_at) for case in case_page)
    async for line_page in lines:
        yield _written(_line(line) for line in line_page)


def _short_records(report: Report) -> Iterator[Mapping[str, Cell]]:
    yield from (_totals(each) for each in report.totals)
    yield from (_payout(each) for each in report.payouts)
    yield from (_bad_row(each, report) for each in report.problems)


def _totals(totals: Totals) -> Mapping[str, Cell]:
    currency = totals.currency
    return {
        "record": "totals",
        "gateway": totals.gateway,
        "currency": currency,
        **{place.value: _amount(amount, currency) for place, amount in totals.places.items()},
        "fees": _amount(totals.fees_minor, currency),
        "tax": _amount(totals.tax_minor, currency),
        "payouts": _amount(totals.payouts_minor, currency),
        "payouts_unexplained": _amount(totals.payouts_unexplained_minor, currency),
        "count": sum(totals.counts.values()),
    }


def _payout(payout: ShownPayout) -> Mapping[str, Cell]:
    stated = payout.stated_minor
    return {
        "record": "payout",
        "gateway": payout.gateway,
        "account": payout.account,
        "payout_reference": payout.payout_reference,
        "reference": payout.bank_reference,
        "currency": payout.currency,
        "expected": _amount(payout.lines_minor, payout.currency),
        "actual": _amount(stated, payout.currency),
        "difference": None if stated is None else _amount(stated - payout.lines_minor, payout.currency),
        "count": payout.lines,
        "occurred_at": payout.paid_at,
    }


def _bad_row(row: BadRow, report: Report) -> Mapping[str, Cell]:
    file_id = report.file.file_id if report.file else None
    return {
        "record": "bad_row",
        "kind": row.code,
        "file_id": file_id,
        "line_number": row.line_number,
        "detail": row.detail,
    }


def _case(case: Case, now: datetime) -> Mapping[str, Cell]:
    subject, currency = case.subject, case.currency
    return {
        "record": "case",
        "id": case.case_id,
        "kind": case.scenario.value,
        "status": case.status.value,
        "gateway": subject.gateway,
        "account": subject.account,
        "order_id": subject.order_id,
        "payment_id": subject.payment_id,
        "file_id": subject.file_id,
        "line_number": subject.line_number,
        "payout_reference": subject.payout_reference,
        "currency": currency,
        "expected": _amount(case.expected_minor, currency),
        "actual": _amount(case.actual_minor, currency),
        "difference": _amount(case.difference_minor, currency),
        "action": case.action,
        "owner": case.owner,
        "opened_at": case.opened_at,
        "resolved_at": case.resolved_at,
        "resolution": case.resolution,
        "age_seconds": int(case.age_at(now).total_seconds()),
        "detail": case.reason,
    }


def _line(line: ShownLine) -> Mapping[str, Cell]:
    return {
        "record": "unmatched_line",
        "kind": line.kind,
        "gateway": line.gateway,
        "account": line.account,
        "file_id": line.file_id,
        "line_number": line.line_number,
        "payout_reference": line.payout_reference,
        "reference": line.reference,
        "currency": line.currency,
        "actual": _amount(line.gross_minor, line.currency),
        "fees": _amount(line.fee_minor, line.currency),
        "tax": _amount(line.tax_minor, line.currency),
        "occurred_at": line.occurred_at,
        "detail": line.our_reference,
    }


def _amount(amount_minor: int | None, currency: str | None) -> Decimal | None:
    return None if amount_minor is None else as_major(amount_minor, currency)


def _written(records: Iterable[Mapping[str, Cell]]) -> bytes:
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\r\n")
    writer.writerows([_text(record.get(column)) for column in COLUMNS] for record in records)
    return buffer.getvalue().encode()


def _text(value: Cell) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return to_rfc3339(value)
    if isinstance(value, int | Decimal):
        return f"{value:f}" if isinstance(value, Decimal) else str(value)
    return escaped(value)
