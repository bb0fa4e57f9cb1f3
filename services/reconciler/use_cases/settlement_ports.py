"""What the use cases need to keep settlement files and to read them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, Protocol

from services.reconciler.domain.settlement import BadRow, FileStatus, SettlementFile, StatedPayout, StatedTotal

SETTLEMENT_CHANNEL = "settlement"
"""Hints that a file waits to be read; the payload is its id."""

MAX_PROBLEMS = 1_000
"""Bad rows that a file's report keeps; all are counted."""


class RawFile(Protocol):
    """A file as it came: an upload's spool, a file of the watched folder. All of it is written and flushed.

    Only its descriptor is used, and never its position, which the reading process shares and moves.
    """

    def fileno(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a look at a whole file tells: what it is, and what identifies its content."""

    format: str
    format_version: int
    content_bytes: int
    """After expansion."""
    content_sha256: bytes
    """Of the expanded content, so that the same file packed otherwise is the same; a spreadsheet's as it is."""


@dataclass(frozen=True, slots=True)
class ReadingReport:
    """What is known when all of a file was read."""

    rows: int
    """Rows that hold anything, headers included, or items of a JSON document."""
    lines: int
    """Settlement lines that were made of them."""
    bad_rows: int
    problems: tuple[BadRow, ...]
    """The first MAX_PROBLEMS bad rows, in the order of the file."""
    payouts: tuple[StatedPayout, ...]
    """One per reference, currency and transfer: rows of the same are added up."""
    totals: tuple[StatedTotal, ...]
    covers_from: datetime | None
    covers_until: datetime | None
    """Times of the earliest and latest line about a payment."""


class Reading(Protocol):
    @property
    def lines(self) -> AsyncIterator[bytes]:
        """PostgreSQL's COPY text format, in pieces that end where they happen to: one row per SettlementLine, columns
        in the order of its fields, ``\\N`` for None.

        Raises Unreadable or Incomplete, possibly after all rows were given: nothing of them may be kept then.
        """
        ...

    def report(self) -> ReadingReport:
        """Once ``lines`` are exhausted; before that it is our bug to ask."""
        ...


class SettlementReader(Protocol):
    """Reads files that nobody vouches for: bounded in memory and time, apart from this process."""

    async def inspect(self, raw: RawFile, *, gateway: str, account: str, format_name: str | None) -> Inspection:
        """Recognise a file of that gateway and hash its content. Raises Unreadable (also Incomplete)."""
        ...

    def read(self, file: SettlementFile, content: AsyncIterator[bytes]) -> AbstractAsyncContextManager[Reading]:
        """``content`` is the file as it came (``receive_file.content_of``). Leaving the block ends the reading."""
        ...


@dataclass(frozen=True, slots=True)
class Intake:
    """What taking files in is bounded by, and where they may come from."""

    turn: asyncio.Semaphore
    """Files that are looked at and stored at the same time: each takes a core and a connection."""
    max_bytes: int
    folder: Path | None
    """The watched folder; None: there is none."""


@dataclass(frozen=True, slots=True)
class FileFilter:
    gateway: str | None = None
    status: FileStatus | None = None


class FileTotal(NamedTuple):
    """The lines of a file in one currency, but for those that an earlier file has told."""

    currency: str
    lines: int
    gross_minor: int
    fee_minor: int
    tax_minor: int
    net_minor: int


class FileRepository(Protocol):
    async def receive(self, file: SettlementFile, content: AsyncIterator[bytes]) -> tuple[SettlementFile, bool]:
        """Store it with its content, unless the same content is stored for this gateway and account; True: it is to be
        read now, because it is new, or is known and could not be read before.

        Of twins that arrive together the later one waits for the first one's commit and is given the first.
        """
        ...

    async def of_another_account(self, file: SettlementFile) -> SettlementFile | None:
        """The same content, booked or to be booked for another account of the gateway. One that could not be read, or
        says nothing, is in nobody's way. Twins of any account wait here for the end of this transaction."""
        ...

    async def find(self, gateway: str, account: str, content_sha256: bytes) -> SettlementFile | None: ...

    async def get(self, file_id: str, *, for_update: bool = False) -> SettlementFile | None: ...

    async def waiting(self, *, limit: int) -> list[SettlementFile]:
        """Received and not read yet, oldest first."""
        ...

    async def search(self, filter_: FileFilter, *, after: str | None, limit: int) -> list[SettlementFile]:
        """Newest first; ``after`` is the last id of the page before."""
        ...

    async def save(self, file: SettlementFile, problems: Sequence[BadRow] | None = None) -> None:
        """Write what reading it has shown; ``problems`` replace those that are kept."""
        ...

    async def problems(self, file_id: str, *, limit: int) -> list[BadRow]: ...

    async def totals(self, file_id: str) -> list[FileTotal]: ...

    async def chunks(self, file_id: str, *, after: int, limit: int) -> list[bytes]:
        """Pieces of the content with numbers above ``after``, in order; the first piece has number 1."""
        ...
