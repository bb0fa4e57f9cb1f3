"""What settling files needs: lines stored and matched, what disagrees among them, payouts and what is booked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from services.reconciler.domain.loose_lines import LooseLine
from services.reconciler.domain.payment_books import PaymentBooks
from services.reconciler.domain.payouts import Payout
from services.reconciler.domain.settlement import SettlementFile, StatedPayout
from services.reconciler.domain.settlement_changes import ChangedLine
from services.reconciler.domain.settlement_holding import Acquaintance
from services.reconciler.domain.settlement_rules import Coverage, Due, FeeRule

Told = Callable[[int], Awaitable[None]]
"""Called with the number of lines that are stored so far; what it raises ends the storing."""


@dataclass(frozen=True, slots=True)
class StoredLines:
    lines: int
    repeated: int
    """Told by an earlier file already."""
    unmatched: int
    """About a payment that is not known; repeated ones not counted."""
    digest: bytes
    """Of all lines and what they are matched with, whatever the order of the rows."""


class Booking(NamedTuple):
    """What a file adds to the ledger for one payout and currency; costs are positive."""

    payout_reference: str | None
    currency: str
    fees_minor: int
    tax_minor: int
    reserve_minor: int
    adjustment_minor: int
    conversion_minor: int
    """Of what shoppers paid in this currency and the gateway settled in another; negative in that other one."""
    payout_minor: int
    settled_at: datetime | None


class KindSum(NamedTuple):
    currency: str
    kind: str
    repeats: bool
    matched: bool
    lines: int
    gross_minor: int
    fee_minor: int
    tax_minor: int
    net_minor: int


class SettlementRepository(Protocol):
    """``store_lines`` first, in the same transaction, for all that is about "the file"."""

    async def lock_account(self, gateway: str, account: str) -> None:
        """Until the commit: files of one account are stored one after the other."""
        ...

    async def has_earlier_files(self, file: SettlementFile) -> bool: ...

    async def store_lines(self, file: SettlementFile, lines: AsyncIterator[bytes], *, told: Told) -> StoredLines:
        """``lines`` is COPY text, one row a SettlementLine. Raises what ``lines`` and ``told`` raise."""
        ...

    async def changed_lines(self, *, limit: int) -> tuple[list[ChangedLine], int]:
        """Lines that the file tells with other amounts than an earlier one did: the first ones, and how many."""
        ...

    async def match_again(self, gateway: str, account: str) -> list[str]:
        """Match lines without a payment with payments that are known by now; the ids of those, to be touched."""
        ...

    async def match_by_person(self, file_id: str, line_number: int, payment_id: str) -> bool:
        """The lines of that place in the file that are matched with no payment; False: there is none."""
        ...

    async def pair_touched(self) -> None:
        """Pair anew all lines of touched payments that name no movement, of whatever file."""
        ...

    async def touch_file(self, file: SettlementFile, due: Due, *, has_earlier: bool) -> None:
        """Remember the payments that this file gives reason to judge."""
        ...

    async def touch_open(self, gateway: str, account: str, due: Due) -> None:
        """Remember the payments of unresolved cases, and those that should have been settled by now."""
        ...

    async def touch(self, payment_ids: Sequence[str]) -> None: ...

    def touched_books(self) -> AsyncIterator[list[PaymentBooks]]:
        """The books of the payments that are remembered, in pages, in the order of their ids."""
        ...

    async def unmatched(self, file_id: str, *, limit: int) -> tuple[list[LooseLine], int]:
        """Lines of the file about payments that are not known: the first ones, and how many there are."""
        ...

    async def fees_that_differ(self, file_id: str, rule: FeeRule, *, limit: int) -> tuple[list[LooseLine], int]: ...

    async def named(self, gateway: str, account: str, identities: Sequence[int]) -> list[LooseLine]:
        """Lines of these contents that count, matched or not."""
        ...

    async def candidates(self, lines: Sequence[LooseLine]) -> list[list[dict[str, Any]]]:
        """For each line, payments of its amount and time that no line has settled yet."""
        ...

    async def touched_cases(self, file: SettlementFile) -> list[str]:
        """Unresolved cases that this file's lines, payouts or the file itself give reason to look at again."""
        ...

    async def covered(self, gateway: str, account: str) -> Coverage: ...

    async def accounts(self, gateway: str | None) -> list[tuple[str, str]]: ...

    async def sum_lines(self, file: SettlementFile) -> int:
        """Before what follows. The result is the size of what moves in the file in one currency, however signed."""
        ...

    async def acquaintance(self) -> Acquaintance:
        """Of the file whose lines were summed last."""
        ...

    async def hold_booking(self, file: SettlementFile, *, is_held: bool) -> None: ...

    async def held_files(self, gateway: str, account: str, *, limit: int) -> list[str]:
        """Ids, oldest first."""
        ...

    async def total_payouts(self, file: SettlementFile, stated: Sequence[StatedPayout], *, now: datetime) -> None: ...

    async def payouts_of_file(self, file: SettlementFile, *, limit: int) -> list[Payout]:
        """Those that the file names and that are not just what their lines add up to."""
        ...

    async def payouts_to_judge(
        self, gateway: str, account: str, *, before: datetime, tolerance_minor: int, limit: int
    ) -> list[Payout]: ...

    async def states_payouts(self, gateway: str, account: str) -> bool: ...

    async def bookings(
        self, file: SettlementFile, *, tolerance_minor: int, after: tuple[str, str], limit: int
    ) -> list[Booking]:
        """What the file adds to the ledger, per payout and currency; of payouts, what was not booked before."""
        ...

    async def mark_booked(self, file: SettlementFile, *, tolerance_minor: int) -> None: ...

    async def sums_by_kind(self) -> list[KindSum]: ...

    async def unexplained(self, gateway: str, account: str, *, in_all: bool) -> Mapping[str, int]: ...

    async def in_transit(self, gateway: str, account: str, *, since: datetime) -> Mapping[str, int]: ...
