"""Rows of a table become lines, by the format's declaration.

A file has millions of rows: the loop looks each cell's text up in a memory of what has been read before, and reads with
care only what is new. Whatever is wrong raises BadCell, and the row is looked at again to say which column it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, cast

from services.reconciler.domain.settlement import BadRow, LineKind, Parsed, SettlementLine, StatedPayout
from services.reconciler.settlement_formats.cells import (
    LARGEST_MINOR,
    LONGEST_CELL,
    MOST_REMEMBERED,
    AmountStyle,
    BadCell,
    Memo,
    Unit,
    checked_text,
    currency_of,
    kind_reader,
    moment_reader,
    shown,
    worded,
)
from services.reconciler.settlement_formats.headers import Columns
from services.reconciler.settlement_formats.port import Row
from shared.money import CURRENCY_EXPONENT

if TYPE_CHECKING:
    from services.reconciler.settlement_formats.table_format import Table

COSTS = (LineKind.FEE, LineKind.TAX)
MONEY = ("kind", "currency", "gross", "fee", "tax", "net", "at")


def parsed_rows(
    table: Table, columns: Columns, style: AmountStyle, currency: str | None, rows: Iterable[Row]
) -> Iterator[Parsed]:
    """``currency``: of rows where no column says it."""
    reader = _RowReader(table, columns, style, currency)
    line_of, width = reader.line_reader(), columns.width
    payout = LineKind.PAYOUT
    for row in rows:
        number, cells = row
        if len(cells) != width:
            fitting = columns.fitted(row)
            if not isinstance(fitting, Row):
                if fitting is not None:
                    yield fitting
                continue
            cells = fitting.cells
        try:
            line = line_of(number, cells)
        except BadCell as bad:
            if not columns.is_nothing(cells):
                yield BadRow(number, bad.code, reader.blamed(bad, cells))
            continue
        yield line
        if line[2] is payout and line.reference:
            yield StatedPayout(number, line.reference, line.currency, -line.net_minor, line.occurred_at, None)


class Amounts(Memo[int]):
    """The texts of amounts in one currency, and what they come to."""

    def __init__(self, currency: str, style: AmountStyle) -> None:
        super().__init__(lambda text: style.read(text, currency))
        self.currency = currency
        self._decimals = CURRENCY_EXPONENT[currency] if style.unit is Unit.MAJOR else -1

    def __missing__(self, text: str) -> int:
        """``1234.50``, digits and a point where it belongs, needs no more than this; ``style.read`` has the same answer
        and looks at everything else."""
        whole, _, rest = text.partition(".")
        if len(rest) == self._decimals and whole.isdecimal() and rest.isdecimal() and text.isascii():
            amount = int(whole + rest)
            if amount < LARGEST_MINOR:
                if len(self) < MOST_REMEMBERED:
                    self[text] = amount
                return amount
        return super().__missing__(text)


class _RowReader:
    def __init__(self, table: Table, columns: Columns, style: AmountStyle, currency: str | None) -> None:
        self._table, self._columns, self._style, self._default = table, columns, style, currency
        self._in_currency: dict[str, Amounts] = {}
        self._currencies = Memo(self._amounts)
        self._kinds = Memo(kind_reader(table.kinds))
        self._moments = Memo(moment_reader(table.layouts, table.zone))

    def _amounts(self, text: str) -> Amounts:
        if "currency" in self._columns.at:
            code = currency_of(text)
        elif self._default is not None:
            code = self._default
        else:
            raise BadCell("currency_unknown", "neither the file nor the installation says its currency")
        return self._in_currency.setdefault(code, Amounts(code, self._style))

    def line_reader(self) -> Callable[[int, Sequence[str]], SettlementLine]:
        """The function that makes a line of a row; it raises BadCell."""
        table, columns = self._table, self._columns
        pick = _picker([columns.place(logical) for logical in MONEY])
        pick_ids = _picker([columns.place(logical) for logical in table.ids])
        has_fee, has_tax, has_net, has_at = (logical in columns.at for logical in ("fee", "tax", "net", "at"))
        has_presented = table.presented is not None and table.presented[1] in columns.at
        must_look = has_presented or (table.settled is not None and table.settled[0] in columns.at)
        currencies, kinds, moments, names = self._currencies, self._kinds, self._moments, table.names
        by_kind = table.signs == "by_kind"
        new = cast("Callable[[type[SettlementLine], tuple[object, ...]], SettlementLine]", tuple.__new__)
        nothing: tuple[int | None, str | None] = (None, None)

        def line(number: int, cells: Sequence[str]) -> SettlementLine:
            if len("".join(cells)) > LONGEST_CELL:
                _check_lengths(cells)
            cells = (*cells, "")
            word, currency, gross_text, fee_text, tax_text, net_text, at = pick(cells)
            kind, sign = kinds[word]
            amounts = currencies[currency]
            gross = amounts[gross_text]
            fee = amounts[fee_text] if has_fee else 0
            tax = amounts[tax_text] if has_tax else 0
            if gross * sign < 0 or by_kind:
                gross = _signed(gross, sign, by_kind)
            net = gross - fee - tax
            if has_net and amounts[net_text] != net:
                _check_net(gross, fee, tax, amounts[net_text], may_be_unsigned=by_kind and sign < 0)
            if by_kind and net > 0 and kind in COSTS:
                raise BadCell("sign_unknown", f"{shown(word)} of {net}: whether it is a cost or given back is not said")
            ids = pick_ids(cells)
            content = "|".join(ids)
            if " " in content or not content.isprintable():
                ids = self._checked(ids)
            shown_to_shopper = self._looked_at(cells, gross, amounts.currency) if must_look else nothing
            return new(
                SettlementLine,
                (
                    number,
                    0,
                    kind,
                    amounts.currency,
                    gross,
                    fee,
                    tax,
                    net,
                    moments[at] if has_at else None,
                    *names(kind, ids),
                    *shown_to_shopper,
                    word[:64],
                ),
            )

        return line

    # --- what few rows need -----------------------------------------------------------------------------------------

    def _checked(self, ids: Sequence[str]) -> tuple[str, ...]:
        """Without blanks around them. Raises BadCell for characters that no id has."""
        for logical, cell in zip(self._table.ids, ids, strict=True):
            try:
                checked_text(cell)
            except BadCell as bad:
                raise BadCell(bad.code, f"{self._columns.title(logical)}: {bad.why}") from None
        return tuple(cell.strip() for cell in ids)

    def _looked_at(self, cells: Sequence[str], gross: int, currency: str) -> tuple[int | None, str | None]:
        """What the shopper saw, where that is in another currency. Raises BadCell for a row that is not settled."""
        table, columns = self._table, self._columns
        if table.settled is not None and table.settled[0] in columns.at:
            logical, words = table.settled
            word = cells[columns.at[logical]]
            if worded(word) not in words:
                raise BadCell("not_settled", f"{columns.title(logical)} is {shown(word)}: it has not been paid out")
        if table.presented is None or table.presented[1] not in columns.at:
            return None, None
        amount, other = (cells[columns.place(logical)] for logical in table.presented)
        if not amount.strip() or not other.strip():
            return None, None
        amounts = self._amounts_of_presented(other)
        if amounts.currency == currency:
            return None, None
        return -abs(amounts[amount]) if gross < 0 else abs(amounts[amount]), amounts.currency

    def _amounts_of_presented(self, text: str) -> Amounts:
        code = currency_of(text)
        return self._in_currency.setdefault(code, Amounts(code, self._style))

    def blamed(self, bad: BadCell, cells: Sequence[str]) -> str:
        """What was wrong, with the column's name where it is one column's fault."""
        for logical, read in self._readers(cells):
            place = self._columns.at.get(logical)
            if place is None:
                continue
            try:
                read(cells[place])
            except BadCell as found:
                return f"{self._columns.title(logical)}: {found.why}"
        return bad.why

    def _readers(self, cells: Sequence[str]) -> Iterator[tuple[str, Callable[[str], object]]]:
        yield "kind", self._kinds.__getitem__
        yield "currency", self._currencies.__getitem__
        try:
            amounts = self._currencies[(*cells, "")[self._columns.place("currency")]]
        except BadCell:
            return
        for logical in ("gross", "fee", "tax", "net"):
            yield logical, amounts.__getitem__
        yield "at", self._moments.__getitem__


def _check_lengths(cells: Sequence[str]) -> None:
    if any(len(cell) > LONGEST_CELL for cell in cells):
        raise BadCell("cell_too_long", f"a cell has more than {LONGEST_CELL} characters")


def _picker(places: Sequence[int]) -> Callable[[Sequence[str]], tuple[str, ...]]:
    """The cells at these places. (Of one place itemgetter gives no tuple.)"""
    if len(places) > 1:
        return cast("Callable[[Sequence[str]], tuple[str, ...]]", itemgetter(*places))
    return lambda cells: tuple(cells[place] for place in places)


def _signed(gross: int, sign: int, by_kind: bool) -> int:
    if by_kind:
        return abs(gross) * sign if sign else gross
    raise BadCell("sign_wrong", f"{'a positive' if gross > 0 else 'a negative'} amount does not suit its kind")


def _check_net(gross: int, fee: int, tax: int, stated: int, *, may_be_unsigned: bool) -> None:
    """Where signs are the kind's business, the net of what goes back may be written without one as well."""
    net = gross - fee - tax
    if not (may_be_unsigned and stated == -net):
        raise BadCell("sum_wrong", f"{gross} less {fee} less {tax} is {net}, not {stated} (minor units)")
