"""What reports need: settlement lines as they are shown, and the cases of a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from services.reconciler.domain.cases import Case


@dataclass(frozen=True, slots=True)
class ShownPayout:
    """Unexplained is ``stated_minor - lines_minor``; None: nobody has said yet what was paid out."""

    gateway: str
    account: str
    payout_reference: str
    currency: str
    lines: int
    lines_minor: int
    stated_minor: int | None
    paid_at: datetime | None
    bank_reference: str | None


@dataclass(frozen=True, slots=True)
class ShownLine:
    """A stored settlement line, with the file that told it and the payout that it was paid out with."""

    file_id: str
    position: int
    """In the file's order, from 1; with ``file_id`` it is the line's key."""
    file_name: str
    gateway: str
    account: str
    line_number: int
    part: int
    kind: str
    currency: str
    gross_minor: int
    fee_minor: int
    tax_minor: int
    net_minor: int
    occurred_at: datetime | None
    reference: str | None
    our_reference: str | None
    line_reference: str | None
    payout_reference: str | None
    payment_id: str | None
    matched_by: str | None
    repeats: bool
    payout: ShownPayout | None


@dataclass(frozen=True, slots=True)
class CaseScope:
    """Cases of one file; or those of a kind (and gateway) that were open at some moment of a time."""

    file_id: str | None = None
    kind: str | None = None
    gateway: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class LineScope:
    """Lines about payments that are matched to none: of one file, or of all files (of a gateway)."""

    file_id: str | None = None
    gateway: str | None = None


class ReportRepository(Protocol):
    async def lines_of_payment(self, payment_id: str, *, limit: int) -> list[ShownLine]:
        """In the order in which they were told; repetitions are among them, and marked."""
        ...

    async def lines_of_file(self, file_id: str, *, line_number: int | None, after: int, limit: int) -> list[ShownLine]:
        """In the order of the file; ``after`` is the last position of the page before."""
        ...

    async def next_file(self, scope: LineScope, *, after: str) -> str | None:
        """The first of its files behind this one."""
        ...

    async def unmatched_lines(self, file_id: str, *, after: int, limit: int) -> list[ShownLine]:
        """In the order of the file; ``after`` is the last position of the page before."""
        ...

    async def cases(self, scope: CaseScope, *, after: str, limit: int) -> list[Case]:
        """Oldest first; ``after`` is the last id of the page before."""
        ...

    async def payouts_of_file(self, file_id: str, *, limit: int) -> list[ShownPayout]: ...

    async def totals_of_file(self, file_id: str) -> list[Mapping[str, object]]:
        """Per currency, in the shape of a run's totals, as its lines are matched now."""
        ...
