"""Where a table's columns are: by their names, never by position."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from services.reconciler.domain.settlement import BadRow
from services.reconciler.settlement_formats.cells import shown
from services.reconciler.settlement_formats.port import Row, Unreadable

MOST_ROWS_BEFORE_HEADER = 20
"""Reports may begin with a title and the account's name."""

NamesInFiles = Mapping[str, tuple[str, ...]]
"""Logical column → the normalised headers that it may have; the first that is there counts."""


def normalised(header: str) -> str:
    """A header without what differs between files of one format: case, white space, a byte order mark."""
    return " ".join(header.replace("\ufeff", "").split()).casefold()


@dataclass(frozen=True, slots=True)
class Columns:
    at: Mapping[str, int]
    header: tuple[str, ...]
    """Normalised, without empty columns at its end."""

    @property
    def width(self) -> int:
        return len(self.header)

    def place(self, logical: str) -> int:
        """The place of a missing column is right behind the last: there the reader puts a blank cell."""
        return self.at.get(logical, self.width)

    def title(self, logical: str) -> str:
        return self.header[self.at[logical]] if logical in self.at else logical

    def is_nothing(self, cells: Sequence[str]) -> bool:
        """A blank row, or the header once more: pages that were put one after the other."""
        return not any(map(str.strip, cells)) or tuple(map(normalised, cells)) == self.header

    def fitted(self, row: Row) -> Row | BadRow | None:
        """A row of the header's width: blank cells too many are cut off; None for a row that says nothing."""
        number, cells = row
        width = self.width
        if len(cells) != width and any(cells):
            if len(cells) < width or any(cells[width:]):
                code = "columns_missing" if len(cells) < width else "columns_extra"
                return BadRow(number, code, f"{len(cells)} cells where the header has {width}")
            cells = cells[:width]
        return None if self.is_nothing(cells) else Row(number, cells)


def is_header(cells: Sequence[str], names: NamesInFiles, required: Iterable[str]) -> bool:
    there = set(map(normalised, cells))
    return all(not there.isdisjoint(names[logical]) for logical in required)


def find_header(rows: Iterator[Row], names: NamesInFiles, required: frozenset[str], format_name: str) -> Row:
    """Raises Unreadable where none of the first rows is this format's header."""
    is_empty = True
    for _, row in zip(range(MOST_ROWS_BEFORE_HEADER), rows, strict=False):
        is_empty = False
        if is_header(row.cells, names, required):
            return row
    if is_empty:
        raise Unreadable("empty", "the file has no rows")
    needed = ", ".join(names[logical][0] for logical in names if logical in required)
    raise Unreadable("header_missing", f"{format_name} needs the columns {needed}, and no row has them all")


def resolve(header: Sequence[str], names: NamesInFiles, format_name: str) -> Columns:
    """Raises Unreadable where two columns have the name of one that is read: which is meant is not guessed."""
    titles = tuple(map(normalised, header))
    while titles and not titles[-1]:
        titles = titles[:-1]
    found: dict[str, int] = {}
    for logical, candidates in names.items():
        name = next((candidate for candidate in candidates if candidate in titles), None)
        if name is None:
            continue
        if titles.count(name) > 1:
            raise Unreadable("columns_twice", f"{format_name}: two columns are called {shown(name)}")
        found[logical] = titles.index(name)
    return Columns(found, titles)
