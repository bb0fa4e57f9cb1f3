"""What was paid out, for any gateway: our own CSV, made of a bank statement or of what a portal shows.

``payout_reference,paid_at,amount,currency,bank_reference``; decimals in major units, negative where we owed. Several
rows of one payout add up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from services.reconciler.domain.settlement import BadRow, Parsed, StatedPayout
from services.reconciler.settlement_formats.cells import (
    ISO,
    UTC_ZONE,
    AmountStyle,
    BadCell,
    checked_text,
    currency_of,
    moment_reader,
)
from services.reconciler.settlement_formats.headers import Columns, find_header, is_header, resolve
from services.reconciler.settlement_formats.port import Head, Layout, ReadingContext, Row

_NAMES: Mapping[str, tuple[str, ...]] = {
    name: (name,) for name in ("payout_reference", "paid_at", "amount", "currency", "bank_reference")
}
_REQUIRED = frozenset({"payout_reference", "paid_at", "amount", "currency"})
_AMOUNTS = AmountStyle()
_moment = moment_reader((ISO,), UTC_ZONE)


@dataclass(frozen=True, slots=True)
class PayoutStatement:
    """Satisfies TableFormat."""

    name: str = "payout_statement"
    version: int = 1
    gateway: str | None = None

    @property
    def layout(self) -> Layout:
        return Layout.TABLE

    @property
    def needs(self) -> tuple[str, ...]:
        return tuple(name for name in _NAMES if name in _REQUIRED)

    def recognises(self, head: Head) -> bool:
        return head.layout is Layout.TABLE and any(is_header(row.cells, _NAMES, _REQUIRED) for row in head.rows[:1])

    def read(self, rows: Iterable[Row], context: ReadingContext) -> Iterator[Parsed]:  # noqa: ARG002 - the port's
        iterator = iter(rows)
        columns = resolve(find_header(iterator, _NAMES, _REQUIRED, self.name).cells, _NAMES, self.name)
        return _payouts(columns, iterator)


def _payouts(columns: Columns, rows: Iterable[Row]) -> Iterator[Parsed]:
    for row in rows:
        fitting = columns.fitted(row)
        if isinstance(fitting, Row):
            yield _payout(fitting, columns)
        elif fitting is not None:
            yield fitting


def _payout(row: Row, columns: Columns) -> Parsed:
    cells = {name: row.cells[place] for name, place in columns.at.items()}
    logical = "payout_reference"
    try:
        reference = checked_text(cells[logical]).strip()
        if not reference:
            raise BadCell("field_missing", "it is blank")
        logical = "currency"
        currency = currency_of(cells[logical])
        logical = "amount"
        amount = _AMOUNTS.read(cells[logical], currency)
        logical = "paid_at"
        paid_at = _moment(cells[logical])
        logical = "bank_reference"
        bank_reference = checked_text(cells.get(logical, "")).strip() or None
    except BadCell as bad:
        return BadRow(row.line_number, bad.code, f"{logical}: {bad.why}")
    return StatedPayout(row.line_number, reference, currency, amount, paid_at, bank_reference)


FORMATS = (PayoutStatement(),)
