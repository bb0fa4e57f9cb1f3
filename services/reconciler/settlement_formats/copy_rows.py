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

BATCH_LINES = 2_000
MAX_PROBLEMS = 1_000
MAX_PAYOUTS = 100_000
MAX_TOTALS = 1_000
LONGEST_REFERENCE = 200
"""Characters: ids are indexed, and an index entry has its limits."""
LARGEST_MINOR = 10**15

_NULL = "\\N"


class Summary:
    """Counts, problems, payouts and totals of a file while it is read."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self.lines = 0
        self.bad_rows = 0
        self._problems: list[BadRow] = []
        self._payouts: dict[tuple[str, str], StatedPayout] = {}
        self._totals: list[StatedTotal] = []
        self._earliest: datetime | None = None
        self._latest: datetime | None = None

    def copy_rows(self, parsed: Iterable[Parsed]) -> Iterator[bytes]:
        """COPY text of the lines among ``parsed``, in pieces of whole rows; the rest is kept for the report."""
        rows: list[str] = []
        undecodable = self._notes.undecodable
        for entry in parsed:
            if undecodable and entry.line_number in undecodable:
                continue
            if type(entry) is not SettlementLine:
                self._keep(entry)
                continue
            text = row_text(entry)
            if isinstance(text, BadRow):
                self._bad(text)
                continue
            rows.append(text)
            self._see(entry)
            if len(rows) == BATCH_LINES:
                yield self._flush(rows)
        yield self._flush(rows)
        self._take_notes()

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

    def _see(self, line: SettlementLine) -> None:
        at = line.occurred_at
        if at is None or line.kind not in ABOUT_A_PAYMENT:
            return
        if self._latest is None or self._earliest is None:
            self._earliest = self._latest = at
        elif at > self._latest:
            self._latest = at
        elif at < self._earliest:
            self._earliest = at

    def _flush(self, rows: list[str]) -> bytes:
        piece = "".join(rows).encode()
        self.lines += len(rows)
        rows.clear()
        self._take_notes()
        return piece

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
        key = (payout.payout_reference, payout.currency)
        known = self._payouts.get(key)
        if known is None:
            if len(self._payouts) >= MAX_PAYOUTS:
                raise Unreadable("too_many_payouts", f"the file names more than {MAX_PAYOUTS} payouts")
            self._payouts[key] = payout
            return
        self._payouts[key] = known._replace(
            amount_minor=known.amount_minor + payout.amount_minor,
            paid_at=known.paid_at or payout.paid_at,
            bank_reference=known.bank_reference or payout.bank_reference,
        )


def row_text(line: SettlementLine) -> str | BadRow:
    """One row with its newline, or why it can be none."""
    (
        number,
        part,
        kind,
        currency,
        gross,
        fee,
        tax,
        net,
        at,
        reference,
        parent,
        ours,
        line_reference,
        payout,
        presented,
        presented_currency,
        source,
    ) = line
    # One look at all texts together: what has to be escaped, or is too long, is rare.
    texts = f"{reference}{parent}{ours}{line_reference}{payout}{source}"
    if len(texts) > LONGEST_REFERENCE or "\\" in texts or not texts.isprintable():
        return _careful_row(line)
    if (
        net != gross - fee - tax
        or not -LARGEST_MINOR < gross < LARGEST_MINOR
        or not -LARGEST_MINOR < fee < LARGEST_MINOR
        or not -LARGEST_MINOR < net < LARGEST_MINOR
        or currency not in CURRENCY_EXPONENT
        or (presented_currency is not None and presented_currency not in CURRENCY_EXPONENT)
    ):
        return _fault(line)
    return (
        f"{number}\t{part}\t{kind._value_}\t{currency}\t{gross}\t{fee}\t{tax}\t{net}\t"
        f"{_NULL if at is None else at.isoformat()}\t{_NULL if reference is None else reference}\t"
        f"{_NULL if parent is None else parent}\t{_NULL if ours is None else ours}\t"
        f"{_NULL if line_reference is None else line_reference}\t{_NULL if payout is None else payout}\t"
        f"{_NULL if presented is None else presented}\t{_NULL if presented_currency is None else presented_currency}\t"
        f"{source}\n"
    )


_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r", "\b": "\\b", "\f": "\\f", "\v": "\\v"})
_TEXTS = ("reference", "parent_reference", "our_reference", "line_reference", "payout_reference", "source_type")


def _careful_row(line: SettlementLine) -> str | BadRow:
    for name in _TEXTS:
        text = getattr(line, name)
        if text is None:
            continue
        if len(text) > LONGEST_REFERENCE:
            return BadRow(
                line.line_number, "reference_too_long", f"{name} has more than {LONGEST_REFERENCE} characters"
            )
        if "\0" in text or not _is_text(text):
            return BadRow(line.line_number, "not_utf8", f"{name} has characters that are no text")
    fault = _fault_of(line)
    if fault is not None:
        return BadRow(line.line_number, *fault)
    return "\t".join([_field(value) for value in line]) + "\n"


def _field(value: Any) -> str:
    if value is None:
        return _NULL
    return value.isoformat() if isinstance(value, datetime) else str(value).translate(_ESCAPES)


def _fault(line: SettlementLine) -> BadRow:
    fault = _fault_of(line)
    assert fault is not None, "asked for the fault of a line that has none"
    return BadRow(line.line_number, *fault)


def _fault_of(line: SettlementLine) -> tuple[str, str] | None:
    if any(abs(amount) >= LARGEST_MINOR for amount in (line.gross_minor, line.fee_minor, line.net_minor)):
        return "amount_too_large", "an amount is larger than any settlement"
    if line.net_minor != line.gross_minor - line.fee_minor - line.tax_minor:
        return "sum_wrong", "gross less fee and tax is not net"
    if line.currency not in CURRENCY_EXPONENT or (
        line.presented_currency is not None and line.presented_currency not in CURRENCY_EXPONENT
    ):
        return "currency_unknown", "a currency is no ISO 4217 code"
    return None


def payout_fault(payout: StatedPayout) -> tuple[str, str] | None:
    """Code and detail of a BadRow, or None."""
    if abs(payout.amount_minor) >= LARGEST_MINOR:
        return "amount_too_large", "an amount is larger than any settlement"
    if payout.currency not in CURRENCY_EXPONENT:
        return "currency_unknown", "a currency is no ISO 4217 code"
    texts = f"{payout.payout_reference}{payout.bank_reference}"
    if len(texts) > LONGEST_REFERENCE or "\0" in texts or not _is_text(texts):
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
