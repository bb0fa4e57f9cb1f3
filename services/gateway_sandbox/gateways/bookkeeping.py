"""How ends, captures, refunds and disputes come into the books, and what is paid out for them: for every gateway the
same but for their prefixes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from typing import Any

from services.gateway_sandbox.domain.models import (
    BookCapture,
    BookDispute,
    BookEntry,
    BookRefund,
    EntryStatus,
    IllegalMove,
    MoreThanThereIs,
)
from services.gateway_sandbox.gateways.port import Books, Payout, PayoutTerms, SettlementLine, WireError


@contextmanager
def refusals(words: Callable[[str], WireError]) -> Iterator[None]:
    """What the books forbid, in the words of a gateway that has the same ones for all of it."""
    try:
        yield
    except (IllegalMove, MoreThanThereIs) as error:
        raise words(error.detail) from error


async def book_end(entry: BookEntry, status: EntryStatus, operation: str, books: Books) -> bool:
    """End a session without money. Whether that was news: whoever presses twice changes nothing, and nobody is told
    again. Raises IllegalMove."""
    if entry.status is status:
        return False
    entry.end(status)
    await books.record(entry, operation)
    return True


async def book_capture(
    entry: BookEntry,
    capture_id: str,
    amount_minor: int,
    books: Books,
    *,
    is_final: bool,
    reference: str | None = None,
    details: Mapping[str, Any] | None = None,
) -> BookCapture:
    """Take held money, as pending where the fault ``pending`` says so. Raises IllegalMove, MoreThanThereIs."""
    entry.take(amount_minor, final=is_final)
    capture = BookCapture(
        gateway=entry.gateway,
        capture_id=capture_id,
        gateway_reference=entry.gateway_reference,
        reference=reference,
        amount_minor=amount_minor,
        status="pending" if books.answers_later else "succeeded",
        is_final=is_final,
        created_at=books.now,
        details=dict(details or {}),
    )
    await books.add_capture(entry, capture)
    return capture


async def book_refund(
    entry: BookEntry,
    refund_id: str,
    amount_minor: int,
    books: Books,
    *,
    is_pending: bool | None = None,
    reference: str | None = None,
    reason: str | None = None,
    metadata: Mapping[str, str] | None = None,
    details: Mapping[str, Any] | None = None,
) -> BookRefund:
    """Give captured money back. ``is_pending`` None: only where the fault ``pending`` says so, for gateways that
    usually refund at once. Raises IllegalMove, MoreThanThereIs."""
    entry.give_back(amount_minor)
    waits = books.answers_later if is_pending is None else is_pending
    refund = BookRefund(
        gateway=entry.gateway,
        refund_id=refund_id,
        gateway_reference=entry.gateway_reference,
        reference=reference,
        amount_minor=amount_minor,
        status="pending" if waits else "succeeded",
        reason=reason,
        created_at=books.now,
        metadata=dict(metadata or {}),
        details=dict(details or {}),
    )
    await books.add_refund(entry, refund)
    return refund


async def book_dispute(
    entry: BookEntry,
    dispute_id: str,
    amount_minor: int,
    reason: str,
    books: Books,
    *,
    details: Mapping[str, Any] | None = None,
) -> BookDispute:
    dispute = BookDispute(
        gateway=entry.gateway,
        dispute_id=dispute_id,
        gateway_reference=entry.gateway_reference,
        amount_minor=amount_minor,
        status="open",
        reason=reason,
        created_at=books.now,
        details=dict(details or {}),
    )
    await books.add_dispute(entry, dispute)
    return dispute


def in_order(lines: Iterable[SettlementLine]) -> list[SettlementLine]:
    return sorted(lines, key=lambda line: (line.at, line.object_id))


def payouts_of(lines: Sequence[SettlementLine], terms: PayoutTerms, day: date) -> dict[str, Payout]:
    """By currency: what the readable lines come to."""
    totals: dict[str, int] = {}
    for line in lines:
        moved_minor = 0 if line.is_unreadable else line.net_minor
        totals[line.entry.currency] = totals.get(line.entry.currency, 0) + moved_minor
    return {currency: terms.payout(currency, day, total) for currency, total in sorted(totals.items())}


def paid_out(lines: Sequence[SettlementLine], payouts: Mapping[str, Payout]) -> list[SettlementLine]:
    return [replace(line, payout=payouts[line.entry.currency]) for line in lines]
