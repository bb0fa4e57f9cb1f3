"""From an opened content to what formats read: a head to recognise it by, then numbered rows or items.

What is wrong with one row is noted and stops nothing; what is wrong with the content as a whole is raised.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Protocol, cast

from services.reconciler.domain.settlement import BadRow, Parsed
from services.reconciler.settlement_formats.limits import ReadingLimits
from services.reconciler.settlement_formats.opening import BUFFER_BYTES, Kind, Opened
from services.reconciler.settlement_formats.port import (
    Head,
    Incomplete,
    Layout,
    ReadingContext,
    Row,
    SettlementFormat,
    TableFormat,
    Unreadable,
)

HEAD_ROWS = 40
HEAD_CHARACTERS = 64 * 1024
DELIMITERS = ",;\t|"
MAX_UNDECODABLE_ROWS = 10_000

_UNDECODABLE = re.compile("[\udc80-\udcff]").search
"""What ``surrogateescape`` makes of a byte that is no UTF-8."""


class Notes:
    """What is noticed beside the rows while they are read."""

    def __init__(self) -> None:
        self.bad_rows: list[BadRow] = []
        """To be taken by whoever reads."""
        self.undecodable: set[int] = set()
        """First lines of rows with bytes that are no text. The format sees such a row, so that its own counts are
        right, but nothing that is made of it may be kept."""
        self.rows = 0

    def undecodable_row(self, line_number: int) -> None:
        if len(self.undecodable) >= MAX_UNDECODABLE_ROWS:
            raise Unreadable("encoding", "the file is not UTF-8: save it as UTF-8 and send it again")
        self.undecodable.add(line_number)
        self.bad_rows.append(BadRow(line_number, "not_utf8", "the row has bytes that are no UTF-8 text"))


class Readable(Protocol):
    """A content, or one sheet of it: what a format may recognise, and read then."""

    @property
    def head(self) -> Head: ...

    def parsed(self, format_: SettlementFormat, context: ReadingContext, notes: Notes) -> Iterator[Parsed]: ...


def readables(opened: Opened, limits: ReadingLimits) -> Iterator[Readable]:
    """In the order in which formats are asked about them. Raises Unreadable."""
    if opened.kind is Kind.WORKBOOK:
        # openpyxl takes half a second to import, and most files are no workbooks.
        from services.reconciler.settlement_formats.workbook import sheets

        yield from sheets(opened, limits)
    elif opened.kind is Kind.JSON:
        from services.reconciler.settlement_formats.json_content import JsonContent

        yield JsonContent(opened, limits)
    else:
        yield Table(opened, limits)


class Table:
    """Delimited text."""

    def __init__(self, opened: Opened, limits: ReadingLimits) -> None:
        self._opened = opened
        self._limits = limits
        try:
            self._delimiter = delimiter_of(self._text().read(HEAD_CHARACTERS))
        except UnicodeDecodeError:
            raise _no_utf16() from None
        self.head = Head(Layout.TABLE, rows=tuple(islice(self.rows(Notes()), HEAD_ROWS)))

    def rows(self, notes: Notes) -> Iterator[Row]:
        csv.field_size_limit(self._limits.max_cell_length)
        lines = _Lines(self._text(), self._limits.max_line_length)
        reader = csv.reader(lines.read(), delimiter=self._delimiter, strict=True)
        first_line = 1
        while True:
            try:
                for cells in reader:
                    line_number, first_line = first_line, reader.line_num + 1
                    if not cells or not (cells[0] or any(cells)):
                        continue
                    if lines.undecodable:
                        lines.undecodable = False
                        notes.undecodable_row(line_number)
                    _count(notes, cells, self._limits)
                    yield _row(Row, (line_number, cells))
                return
            except csv.Error as error:
                line_number, first_line = first_line, reader.line_num + 1
                notes.rows += 1
                notes.bad_rows.append(self._misquoted(line_number, reader.line_num, str(error)))

    def parsed(self, format_: SettlementFormat, context: ReadingContext, notes: Notes) -> Iterator[Parsed]:
        return cast("TableFormat", format_).read(self.rows(notes), context)

    def _text(self) -> io.TextIOWrapper:
        stream = io.BufferedReader(self._opened.stream(), BUFFER_BYTES)
        # UTF-16 has no way to let a wrong byte through, so a wrong one stops the reading.
        errors = "strict" if self._opened.encoding == "utf-16" else "surrogateescape"
        return io.TextIOWrapper(stream, encoding=self._opened.encoding, errors=errors, newline="")

    def _misquoted(self, first: int, last: int, message: str) -> BadRow:
        if "end of data" in message:
            raise Incomplete("truncated", f"the file ends within the quoted cell that begins in line {first}")
        if "field larger" in message:
            detail = f"a cell has more than {self._limits.max_cell_length} characters"
            if last > first:
                detail += f"; the text up to line {last} was taken as a part of it, because a quote is not closed"
            return BadRow(first, "cell_too_long", detail)
        return BadRow(first, "quoting", "a closing quote is followed by something else than a delimiter")


_row: Callable[[type[Row], tuple[int, list[str]]], Row] = tuple.__new__
"""Row(...) without the detour over its __new__: it is made once for each row of millions."""


def _count(notes: Notes, cells: list[str], limits: ReadingLimits) -> None:
    notes.rows += 1
    if len(cells) > limits.max_columns:
        raise Unreadable("too_many_columns", f"a row has {len(cells)} columns; {limits.max_columns} are accepted")
    if notes.rows > limits.max_rows:
        raise Unreadable("too_many_rows", f"the file has more than {limits.max_rows} rows")


class _Lines:
    """Physical lines with their ends, none longer than the limit."""

    def __init__(self, text: io.TextIOWrapper, max_length: int) -> None:
        self._text = text
        self._max_length = max_length
        self.undecodable = False
        """A line since this was last reset has bytes that are no text."""

    def read(self) -> Iterator[str]:
        limit = self._max_length
        try:
            for line in iter(partial(self._text.readline, limit), ""):
                if len(line) >= limit and not line.endswith(("\n", "\r")):
                    raise Unreadable("line_too_long", f"a line has more than {limit} characters")
                if not line.isascii() and _UNDECODABLE(line):
                    self.undecodable = True
                yield line
        except UnicodeDecodeError:
            raise _no_utf16() from None


def _no_utf16() -> Unreadable:
    return Unreadable("encoding", "the file is not the UTF-16 text that it begins as")


def delimiter_of(start: str) -> str:
    """Of the first lines, the character that one of them has most often outside quotes: the header has most columns.

    A file of one column has none, and any would do.
    """
    lines = [re.sub(r'"[^"]*"', "", line) for line in start.splitlines()[:HEAD_ROWS]]
    most = {delimiter: max((line.count(delimiter) for line in lines), default=0) for delimiter in DELIMITERS}
    return max(DELIMITERS, key=lambda delimiter: most[delimiter])
