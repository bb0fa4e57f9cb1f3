"""What a format reads, as rows of PostgreSQL's COPY text format, and what is said about them at the end.

Fast, because it is done for each of millions of lines, and strict, because one row that the table refuses would cost
all others of the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from services.reconciler.domain.settlement import (
    ABOUT_A_PAYMENT,
    BadRow,
    Parsed,
    SettlementLine,
    StatedPayout,
    StatedTotal,
)
from services.reconciler.settlement_formats.content import Notes
from services.reconciler.settlement_formats.port import Unreadable
from shared.money import CURRENCY_EXPONENT

BATCH_LINES = 500
MAX_PROBLEMS = 1_000
MAX_PAYOUTS = 100_000
MAX_TOTALS = 1_000
LONGEST_TEXT = 500
"""Characters: ids are indexed, and an index entry has its limits."""
LARGEST_MINOR = 10**15

_NULL, _EMPTY = "\\N", "\t\\N\t"
_TABS = len(SettlementLine._fields) - 1
_MOST_MOMENTS = 100_000
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
IDS = ("reference", "parent_reference", "our_reference", "line_reference", "payout_reference")
_TEXTS = (*IDS, "source_type")


class Summary:
    """Counts, problems, payouts and totals of a file while it is read."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self.lines = 0
        self.bad_rows = 0
        self._problems: list[BadRow] = []
        self._payouts: dict[tuple[str, str, str], StatedPayout] = {}
        self._totals: list[StatedTotal] = []
        self._earliest: datetime | None = None
        self._latest: datetime | None = None

    def copy_rows(self, parsed: Iterable[Parsed]) -> Iterator[bytes]:
        """COPY text of the lines among ``parsed``, in pieces of whole rows; the rest is kept for the report."""
        lines: list[SettlementLine] = []
        undecodable = self._notes.undecodable
        for entry in parsed:
            if undecodable and entry.line_number in undecodable:
                continue
            if type(entry) is SettlementLine:
                lines.append(entry)
                if len(lines) == BATCH_LINES:
                    yield self._rows_of(lines)
                    lines.clear()
            else:
                self._keep(entry)
        yield self._rows_of(lines)

    def report(self) -> dict[str, Any]:
        """JSON."""
        return {
            "rows": self._notes.rows,
            "lines": self.lines,
            "bad_rows": self.bad_rows,
            "problems": [list(problem) for problem in sorted(self._problems)],
            "payouts": [
                list(payout._replace(paid_at=_iso(payout.paid_at)))  # type: ignore[arg-type]
                for payout in self._payouts.values()
            ],
            "totals": [list(total) for total in self._totals],
            "covers_from": _iso(self._earliest),
            "covers_until": _iso(self._latest),
        }

    def _rows_of(self, lines: list[SettlementLine]) -> bytes:
        self._take_notes()
        piece = rows_at_once(lines)
        if piece is None:
            rows, kept = [], []
            for line in lines:
                row = careful_row(line)
                if isinstance(row, BadRow):
                    self._bad(row)
                else:
                    rows.append(row)
                    kept.append(line)
            piece, lines = "".join(rows).encode(), kept
        self.lines += len(lines)
        self._see(lines)
        return piece

    def _see(self, lines: list[SettlementLine]) -> None:
        times = [line.occurred_at for line in lines if line.kind in ABOUT_A_PAYMENT and line.occurred_at is not None]
        if times:
            self._earliest = min(times) if self._earliest is None else min(self._earliest, *times)
            self._latest = max(times) if self._latest is None else max(self._latest, *times)

    def _take_notes(self) -> None:
        for problem in self._notes.bad_rows:
            self._bad(problem)
        self._notes.bad_rows.clear()

    def _keep(self, entry: Parsed) -> None:
        if isinstance(entry, BadRow):
            self._bad(entry)
        elif isinstance(entry, StatedPayout):
            self._add_payout(entry)
        elif isinstance(entry, StatedTotal):
            if len(self._totals) < MAX_TOTALS:
                self._totals.append(entry)
        else:
            raise AssertionError(f"a format gave {type(entry).__name__}")

    def _bad(self, problem: BadRow) -> None:
        self.bad_rows += 1
        if len(self._problems) < MAX_PROBLEMS:
            self._problems.append(problem._replace(detail=_printable(problem.detail)))

    def _add_payout(self, payout: StatedPayout) -> None:
        wrong = payout_fault(payout)
        if wrong is not None:
            self._bad(BadRow(payout.line_number, *wrong))
            return
        key = (payout.payout_reference, payout.currency, payout.transfer)
        known = self._payouts.get(key)
        if known is None:
            if len(self._payouts) >= MAX_PAYOUTS:
                raise Unreadable("too_many_payouts", f"the file names more than {MAX_PAYOUTS} payouts")
            self._payouts[key] = payout
            return
        self._payouts[key] = known._replace(
            amount_minor=known.amount_minor + payout.amount_minor, paid_at=known.paid_at or payout.paid_at
        )


def rows_at_once(lines: list[SettlementLine]) -> bytes | None:
    """None: something in these lines needs care. What has to be escaped is rare, so it is looked for in all of them
    together, and what None becomes is put in afterwards: an empty field, which no text of ours is, between two tabs."""
    moments = _moments
    currencies = CURRENCY_EXPONENT
    limit = LARGEST_MINOR
    rows = []
    for (
        number,
        part,
        kind,
        currency,
        gross,
        fee,
        tax,
        net,
        at,
        one,
        two,
        three,
        four,
        five,
        shown,
        shown_in,
        word,
    ) in lines:
        if net != gross - fee - tax or currency not in currencies:
            return None
        if not (-limit < gross < limit and -limit < fee < limit and -limit < net < limit):
            return None
        if at is None and not (one or two or three or four or five):
            return None
        if shown is None:
            presented = "\t"
        elif shown_in in currencies and -limit < shown < limit:
            presented = f"{shown}\t{shown_in}"
        else:
            return None
        row = (
            f"{number}\t{part}\t{kind._value_}\t{currency}\t{gross}\t{fee}\t{tax}\t{net}\t{moments[at]}\t"
            f"{one or ''}\t{two or ''}\t{three or ''}\t{four or ''}\t{five or ''}\t{presented}\t{word}\n"
        )
        if len(row) > LONGEST_TEXT:
            return None
        rows.append(row)
    text = "".join(rows)
    is_plain = text.count("\t") == _TABS * len(rows) and text.count("\n") == len(rows)
    if not is_plain or "\\" in text or "\r" in text or "\0" in text or not _is_text(text):
        return None
    return text.replace("\t\t", _EMPTY).replace("\t\t", _EMPTY).encode()


class _Moments(dict[datetime | None, str]):
    """How PostgreSQL reads a moment. Formats give the same object for the same text, so most are found here."""

    def __missing__(self, at: datetime | None) -> str:
        text = "" if at is None else at.isoformat()
        if len(self) >= _MOST_MOMENTS:
            self.clear()
        self[at] = text
        return text


_moments = _Moments()


def careful_row(line: SettlementLine) -> str | BadRow:
    """One row with its newline, or why it can be none."""
    fault = fault_of(line)
    if fault is not None:
        return BadRow(line.line_number, *fault)
    return "\t".join([_field(value) for value in line]) + "\n"


def _field(value: Any) -> str:
    if value is None or value == "":
        return _NULL
    return value.isoformat() if isinstance(value, datetime) else str(value).translate(_ESCAPES)


def fault_of(line: SettlementLine) -> tuple[str, str] | None:
    """Code and detail of a BadRow, or None."""
    amounts = (line.gross_minor, line.fee_minor, line.tax_minor, line.net_minor, line.presented_minor or 0)
    if any(abs(amount) >= LARGEST_MINOR for amount in amounts):
        return "amount_too_large", "an amount is larger than any settlement"
    if line.net_minor != line.gross_minor - line.fee_minor - line.tax_minor:
        return "sum_wrong", "gross less fee and tax is not net"
    if any(code not in CURRENCY_EXPONENT for code in (line.currency, line.presented_currency or line.currency)):
        return "currency_unknown", "a currency is no ISO 4217 code"
    if line.occurred_at is None and not any(getattr(line, name) for name in IDS):
        return "not_identified", "neither its time, an id nor its payout is said: told again it could not be known"
    for name in _TEXTS:
        text = getattr(line, name) or ""
        if len(text) > LONGEST_TEXT:
            return "reference_too_long", f"{name} has more than {LONGEST_TEXT} characters"
        if "\0" in text or not _is_text(text):
            return "not_utf8", f"{name} has characters that are no text"
    return None


def payout_fault(payout: StatedPayout) -> tuple[str, str] | None:
    """Code and detail of a BadRow, or None."""
    if abs(payout.amount_minor) >= LARGEST_MINOR:
        return "amount_too_large", "an amount is larger than any settlement"
    if payout.currency not in CURRENCY_EXPONENT:
        return "currency_unknown", "a currency is no ISO 4217 code"
    texts = f"{payout.payout_reference}{payout.bank_reference}"
    if len(texts) > LONGEST_TEXT or "\0" in texts or not _is_text(texts):
        return "reference_too_long", "a reference of the payout is too long, or no text"
    return None


def _is_text(text: str) -> bool:
    """Whether PostgreSQL can hold it: bytes that were no UTF-8 have become lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _printable(detail: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in detail[:300])


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()
