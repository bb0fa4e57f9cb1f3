"""PayPal's reports by SFTP: the settlement report (STL) and the transaction detail report (TRR).

Each row says first what it is. Amounts carry neither sign nor point: they are times 100 in every currency, as in
PayPal's own example, and ``CR`` or ``DR`` stands beside them. The fee has its tax in it. Sections, the report and the
file end with a count of their rows, so that a part that is missing is noticed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from services.reconciler.domain.settlement import (
    BadRow,
    LineKind,
    Parsed,
    SettlementLine,
    StatedPayout,
    StatedTotal,
)
from services.reconciler.settlement_formats.cells import (
    SLASHES,
    UTC_ZONE,
    AmountStyle,
    BadCell,
    Memo,
    Unit,
    checked_text,
    currency_of,
    moment_reader,
    shown,
)
from services.reconciler.settlement_formats.headers import Columns, normalised, resolve
from services.reconciler.settlement_formats.paypal_kinds import kind_of
from services.reconciler.settlement_formats.port import Head, Incomplete, Layout, ReadingContext, Row, Unreadable
from services.reconciler.settlement_formats.table_format import Names

_COLUMNS: Mapping[str, str] = {
    "id": "transaction id",
    "invoice": "invoice id",
    "parent": "paypal reference id",
    "code": "transaction event code",
    "at": "transaction initiation date",
    "side": "transaction debit or credit",
    "gross": "gross transaction amount",
    "currency": "gross transaction currency",
    "fee_side": "fee debit or credit",
    "fee": "fee amount",
    "fee_currency": "fee currency",
    "custom": "custom field",
    "payout": "bank reference id",
    "status": "transactional status",
}
_REQUIRED = frozenset({"id", "code", "at", "side", "gross", "currency", "fee_side", "fee", "fee_currency"})
_STATUS = _COLUMNS["status"]

_ROW_TYPES = frozenset("RH FH SH CH SB SF SC RF RC FF FC".split())
_TOTALS = ("gross_credits", "gross_debits", "fee_credits", "fee_debits")
_DEPTH = {"SC": "section", "RC": "report", "FC": "file"}

_STYLE = AmountStyle(unit=Unit.HUNDREDTHS)
_moment = Memo(moment_reader((SLASHES,), UTC_ZONE))
_currency = Memo(currency_of)
_amounts: dict[str, Memo[int]] = {}


@dataclass(frozen=True, slots=True)
class Report:
    """Satisfies TableFormat. ``has_status``: the detail report, which also lists what is pending or denied."""

    name: str
    has_status: bool
    version: int = 1
    gateway: str = "paypal"

    @property
    def layout(self) -> Layout:
        return Layout.TABLE

    @property
    def required(self) -> frozenset[str]:
        return _REQUIRED | {"status"} if self.has_status else _REQUIRED

    @property
    def needs(self) -> tuple[str, ...]:
        return ("CH", *(name for logical, name in _COLUMNS.items() if logical in self.required))

    def recognises(self, head: Head) -> bool:
        if head.layout is not Layout.TABLE or not head.rows or _type_of(head.rows[0]) not in _ROW_TYPES:
            return False
        for row in head.rows:
            if _type_of(row) == "CH":
                there = set(map(normalised, row.cells))
                needed = {_COLUMNS[logical] for logical in _REQUIRED}
                return needed <= there and (_STATUS in there) is self.has_status
        return False

    def read(self, rows: Iterable[Row], context: ReadingContext) -> Iterator[Parsed]:  # noqa: ARG002 - the port's
        reading = _Reading(self)
        for row in rows:
            yield from reading.parsed(row)
        reading.end()


def _type_of(row: Row) -> str:
    return row.cells[0].replace("\ufeff", "").strip().upper() if row.cells else ""


@dataclass(slots=True)
class _Counts:
    section: int = 0
    report: int = 0
    file: int = 0

    def add(self) -> None:
        self.section += 1
        self.report += 1
        self.file += 1


@dataclass(slots=True)
class _Reading:
    format: Report
    columns: Columns | None = None
    counts: _Counts = field(default_factory=_Counts)
    in_section: bool = False
    ended: bool = False
    file_number: int | None = None
    sums: dict[str, dict[str, int]] = field(default_factory=dict)
    """Of this section, per currency."""

    def parsed(self, row: Row) -> Iterable[Parsed]:
        match _type_of(row):
            case "SB":
                return self._body(row)
            case "SH":
                self._open_section(row)
            case "CH":
                self.columns = self._columns_in(row)
            case "SF":
                return self._totals(row)
            case "SC" | "RC" | "FC" as row_type:
                self._compare(row, row_type)
            case "FH":
                self.file_number = _whole(row, 1)
            case "":
                if any(row.cells):
                    return [BadRow(row.line_number, "row_type_unknown", "the first cell is blank")]
            case unknown if unknown not in _ROW_TYPES:
                return [BadRow(row.line_number, "row_type_unknown", f"{shown(unknown)} is no type of row")]
        return ()

    def end(self) -> None:
        """Raises Incomplete where the file has no end: a part of it is missing."""
        if self.in_section:
            raise Incomplete("trailer_missing", "the last section has no SC row: a part of the file is missing")
        if not self.ended:
            raise Incomplete("trailer_missing", "the file has no FC row: a part of it is missing")

    def _columns_in(self, row: Row) -> Columns:
        columns = resolve(row.cells, {logical: (name,) for logical, name in _COLUMNS.items()}, self.format.name)
        missing = sorted(self.format.required - columns.at.keys())
        if missing:
            raise Unreadable("header_missing", f"row {row.line_number} has no column {shown(_COLUMNS[missing[0]])}")
        return columns

    def _open_section(self, row: Row) -> None:
        if self.in_section:
            raise Incomplete("trailer_missing", f"a section begins in row {row.line_number} before the last has ended")
        self.in_section, self.columns = True, None
        self.counts.section = 0
        self.sums = {}

    def _compare(self, row: Row, row_type: str) -> None:
        counted, stated = getattr(self.counts, _DEPTH[row_type]), _whole(row, 1)
        # A long report goes over several files, and its own count is about them all.
        is_about_this_file = row_type != "RC" or self.file_number in (None, 1)
        if stated is None or (is_about_this_file and stated != counted):
            said = "no count" if stated is None else str(stated)
            raise Incomplete(
                "rows_missing", f"{row_type} in row {row.line_number} says {said}; {counted} rows are there"
            )
        if row_type == "SC":
            self.in_section = False
        elif row_type == "RC":
            self.counts.report = 0
        else:
            self.ended = True

    def _body(self, row: Row) -> Iterable[Parsed]:
        self.counts.add()
        if self.columns is None:
            raise Unreadable("header_missing", f"row {row.line_number} comes before the names of its columns (CH)")
        fitting = self.columns.fitted(row)
        if not isinstance(fitting, Row):
            return [fitting] if fitting is not None else []
        try:
            return self._line(fitting, self.columns)
        except BadCell as bad:
            return [BadRow(row.line_number, bad.code, bad.why)]

    def _line(self, row: Row, columns: Columns) -> Iterable[Parsed]:
        cells = {logical: checked_text(row.cells[place]).strip() for logical, place in columns.at.items()}
        if self.format.has_status and cells["status"] in ("P", "D"):
            return ()
        currency = _currency[cells["currency"]]
        gross = _amount(cells["gross"], currency, cells["side"], "gross")
        fee = -_amount(cells["fee"], _fee_currency(cells, currency), cells["fee_side"], "fee")
        kind = kind_of(cells["code"], gross)
        if kind is None:
            return ()
        line = _line_of(row.line_number, kind, currency, gross, fee, cells)
        self._sum(currency, gross, fee)
        if kind is not LineKind.PAYOUT or not line.reference:
            return (line,)
        bank = cells.get("payout") or None
        return line, StatedPayout(row.line_number, line.reference, currency, -line.net_minor, line.occurred_at, bank)

    def _sum(self, currency: str, gross: int, fee: int) -> None:
        sums = self.sums.setdefault(currency, dict.fromkeys(_TOTALS, 0))
        sums["gross_credits" if gross >= 0 else "gross_debits"] += abs(gross)
        sums["fee_debits" if fee >= 0 else "fee_credits"] += abs(fee)

    def _totals(self, row: Row) -> Iterable[Parsed]:
        """The order of the fields is not documented: only a row of a currency and four numbers is taken for these."""
        try:
            currency, *numbers = row.cells[1:]
            if len(numbers) != len(_TOTALS):
                return ()
            code = currency_of(currency)
            stated = [_STYLE.read(number, code) for number in numbers]
        except (BadCell, ValueError):
            return ()
        counted = self.sums.get(code, dict.fromkeys(_TOTALS, 0))
        return [
            StatedTotal(row.line_number, name, code, total, counted[name])
            for name, total in zip(_TOTALS, stated, strict=True)
        ]


def _line_of(
    number: int, kind: LineKind, currency: str, gross: int, fee: int, cells: Mapping[str, str]
) -> SettlementLine:
    """No id of the line itself: a transaction's rows share theirs. They are told apart by what they move, how much and
    when it began; neither the event's code nor the time of completion makes two rows of one."""
    if kind is LineKind.PAYOUT:
        names = Names(cells["id"] or None)
    else:
        ours = cells.get("custom") or cells.get("invoice") or None
        names = Names(cells["id"] or None, cells.get("parent") or None, ours, None, cells.get("payout") or None)
    at = _moment[cells["at"]]
    net = gross - fee
    return SettlementLine(number, 0, kind, currency, gross, fee, 0, net, at, *names, None, None, cells["code"][:64])


def _amount(text: str, currency: str, side: str, name: str) -> int:
    """Signed by its side. Raises BadCell."""
    known = _amounts.get(currency)
    if known is None:
        known = _amounts[currency] = Memo(lambda each: _STYLE.read(each, currency))
    try:
        amount = known[text]
    except BadCell as bad:
        raise BadCell(bad.code, f"{name}: {bad.why}") from None
    if amount < 0 or side not in ("CR", "DR", "") or (amount and not side):
        raise BadCell("sign_unknown", f"{name}: {shown(text)} with {shown(side)} where CR or DR belongs")
    return -amount if side == "DR" else amount


def _fee_currency(cells: Mapping[str, str], currency: str) -> str:
    """A fee of nothing may be in no currency. Raises BadCell."""
    if cells["fee_currency"] and _currency[cells["fee_currency"]] != currency:
        raise BadCell("currency_unknown", "the fee is in another currency than the amount")
    return currency


def _whole(row: Row, place: int) -> int | None:
    text = row.cells[place].strip() if len(row.cells) > place else ""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


REPORTS: Sequence[Report] = (
    Report("paypal_settlement", has_status=False),
    Report("paypal_transaction_detail", has_status=True),
)
