"""A table's format, as data: which columns, kinds and units a gateway's file has. ``table_rows`` reads by it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from services.reconciler.domain.settlement import LineKind, Parsed
from services.reconciler.settlement_formats.arrangement import Arrangement, arrangement_of
from services.reconciler.settlement_formats.cells import ISO, UTC_ZONE, AmountStyle, DateLayout
from services.reconciler.settlement_formats.headers import (
    MOST_ROWS_BEFORE_HEADER,
    find_header,
    is_header,
    resolve,
)
from services.reconciler.settlement_formats.port import Head, Layout, ReadingContext, Row
from services.reconciler.settlement_formats.table_rows import parsed_rows

LineNames = tuple[str | None, str | None, str | None, str | None, str | None]


class Names(NamedTuple):
    """A line's ids, each as the domain's SettlementLine has it. (A plain tuple of them is made in half the time.)"""

    reference: str | None = None
    parent_reference: str | None = None
    our_reference: str | None = None
    line_reference: str | None = None
    payout_reference: str | None = None


class Signs(StrEnum):
    STATED = "stated"
    """Amounts are signed, and what gives back is negative; a sign that does not suit the kind is an error."""
    BY_KIND = "by_kind"
    """Nobody documents the signs: the kind decides, for kinds that go one way only."""


@dataclass(frozen=True, slots=True)
class Table:
    """Satisfies TableFormat.

    ``columns``: logical column → its names in files, the first that is there counts. The engine itself reads kind,
    currency, gross, fee, tax, net and at; ``names`` gets the kind and the cells of ``ids``, '' where there is none.
    ``arranged``: the installation may name the columns itself (``header_map``).
    """

    name: str
    gateway: str
    columns: Mapping[str, tuple[str, ...]]
    required: frozenset[str]
    kinds: Mapping[str, LineKind]
    ids: tuple[str, ...]
    names: Callable[[LineKind, Sequence[str]], LineNames]
    version: int = 1
    signs: Signs = Signs.STATED
    style: AmountStyle = field(default_factory=AmountStyle)
    layouts: tuple[DateLayout, ...] = (ISO,)
    zone: str = UTC_ZONE
    """Of dates that name none."""
    currency: str | None = None
    """Of tables without a column for it."""
    arranged: bool = False
    settled: tuple[str, frozenset[str]] | None = None
    """A logical column and its words for "paid out", as ``worded`` gives them; other rows are reported and no lines."""
    presented: tuple[str, str] | None = None
    """The logical columns of what the shopper saw: amount and currency."""

    @property
    def layout(self) -> Layout:
        return Layout.TABLE

    @property
    def needs(self) -> tuple[str, ...]:
        """The headers that it is recognised by, for a person."""
        return tuple(names[0] for logical, names in self.columns.items() if logical in self.required)

    def recognises(self, head: Head) -> bool:
        return self.recognises_arranged(head, {})

    def recognises_arranged(self, head: Head, header_map: Mapping[str, str]) -> bool:
        if head.layout is not Layout.TABLE:
            return False
        names = self._arranged(header_map).in_files(self.columns)
        return any(is_header(row.cells, names, self.required) for row in head.rows[:MOST_ROWS_BEFORE_HEADER])

    def read(self, rows: Iterable[Row], context: ReadingContext) -> Iterator[Parsed]:
        arrangement = self._arranged(context.header_map)
        names = arrangement.in_files(self.columns)
        iterator = iter(rows)
        header = find_header(iterator, names, self.required, self.name)
        columns = resolve(header.cells, names, self.name)
        return parsed_rows(self, columns, arrangement.style, self.currency or context.default_currency, iterator)

    def _arranged(self, header_map: Mapping[str, str]) -> Arrangement:
        """Formats that are documented are not arranged, and the gateway's map is about its other ones."""
        return arrangement_of(header_map if self.arranged else {}, self.columns, self.style)
