"""What a settlement format is: how it is recognised, and how its rows become typed lines.

A format is a module of this package with a ``FORMATS`` tuple; the registry finds it by that name. It knows no database,
no network and no clock. Reading is one pass over a stream: a format may keep totals, never rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from services.reconciler.domain.settlement import Parsed
from shared.errors import InfrastructureError


class Layout(StrEnum):
    """What the content is, before any format looks at it. CSV, TSV and XLSX all are tables."""

    TABLE = "table"
    JSON = "json"


class Row(NamedTuple):
    """A row of a table: its first physical line in the file, and its cells as text (a spreadsheet's numbers too)."""

    line_number: int
    cells: Sequence[str]


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of a content, enough to recognise it: the first rows, or the first items of a JSON document."""

    layout: Layout
    rows: tuple[Row, ...] = ()
    keys: frozenset[str] = frozenset()
    """JSON: the top-level keys seen in the beginning."""
    items: tuple[Mapping[str, Any], ...] = ()
    """JSON: the first items, decimals as ``decimal.Decimal``."""


@dataclass(frozen=True, slots=True)
class ReadingContext:
    """What a format needs beside the content. ``header_map``: the installation's own column names, for gateways whose
    files are arranged with each merchant: logical column → header in the file."""

    gateway: str
    account: str
    header_map: Mapping[str, str] = field(default_factory=dict)
    default_currency: str | None = None


class SettlementFormat(Protocol):
    """One layout of one gateway's file, in one version."""

    @property
    def name(self) -> str:
        """``stripe_payout_reconciliation``: stable, shown, stored with the file."""
        ...

    @property
    def version(self) -> int:
        """Grows when the same file would give other lines."""
        ...

    @property
    def gateway(self) -> str | None:
        """None: any gateway's (the payout statement)."""
        ...

    @property
    def layout(self) -> Layout: ...

    def recognises(self, head: Head) -> bool:
        """Whether this is its content, by names of columns or keys; False for a neighbour's. Money is never guessed:
        no format recognises a file whose columns it does not know (failure RC3)."""
        ...


class TableFormat(SettlementFormat, Protocol):
    def read(self, rows: Iterable[Row], context: ReadingContext) -> Iterator[Parsed]:
        """Header included. Raises Unreadable where the content as a whole makes no sense (no header, say)."""
        ...


class JsonFormat(SettlementFormat, Protocol):
    @property
    def items_path(self) -> str:
        """Where the items are, in ijson's words: ``items.item``, ``Txn_details`` with ``kvitems``…"""
        ...

    def read(self, items: Iterable[tuple[int, Mapping[str, Any]]], context: ReadingContext) -> Iterator[Parsed]:
        """Numbered items of the document (or of several concatenated pages), decimals as Decimal."""
        ...


class Unreadable(Exception):
    """The content as a whole is not what it claims to be. ``code`` and ``detail`` reach the person who sent it."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class Incomplete(Unreadable):
    """Its own trailer or totals say that a part of it is missing: nothing of it is applied (failure RC2)."""


class ReaderFailed(InfrastructureError):
    """The process that read the file ended before it was done; that says nothing about the file yet."""

    code = "reader_died"


class ReaderTimedOut(ReaderFailed):
    """Reading the file took too long; that says nothing about the file yet."""

    code = "reading_timeout"
