"""What became of a payment, for people who open its page again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from services.gateway_sandbox.domain.models import BookDispute, BookEntry, BookRefund, EntryStatus
from services.gateway_sandbox.gateways.port import Books
from shared.money import Money


class StoryKind(StrEnum):
    HELD = "held"
    CAPTURED = "captured"
    RELEASED = "released"
    REFUNDED = "refunded"
    REFUND_PENDING = "refund-pending"
    REFUND_FAILED = "refund-failed"
    DISPUTED = "disputed"
    DISPUTE_WON = "dispute-won"
    DISPUTE_LOST = "dispute-lost"


@dataclass(frozen=True, slots=True)
class StoryLine:
    kind: StoryKind
    text: str
    amount: str


_REFUND_LINES = {
    "succeeded": (StoryKind.REFUNDED, "Refunded"),
    "pending": (StoryKind.REFUND_PENDING, "Refund under way"),
    "failed": (StoryKind.REFUND_FAILED, "Refund failed"),
    "reversed": (StoryKind.REFUND_FAILED, "Refund came back"),
}
_DISPUTE_LINES = {
    "open": (StoryKind.DISPUTED, "Disputed by the buyer"),
    "won": (StoryKind.DISPUTE_WON, "Dispute won by the shop"),
    "lost": (StoryKind.DISPUTE_LOST, "Dispute lost by the shop"),
}


async def tell_story(entry: BookEntry, books: Books) -> list[StoryLine]:
    """Nothing for a payment that took no money."""
    if not entry.captured_minor and not entry.is_held():
        return []
    refunds, disputes = await books.refunds_of(entry), await books.disputes_of(entry)
    return [*_money_lines(entry), *_record_lines(entry, refunds[::-1], disputes[::-1])]


def _money_lines(entry: BookEntry) -> list[StoryLine]:
    lines = []
    if entry.captured_minor:
        text = "Captured" if entry.captured_minor == entry.amount_minor else "Partly captured"
        lines.append(_line(entry, StoryKind.CAPTURED, text, entry.captured_minor))
    if entry.is_held():
        lines.append(_line(entry, StoryKind.HELD, "Held, not captured yet", entry.capturable_minor))
    elif entry.status is EntryStatus.COMPLETED and entry.captured_minor < entry.amount_minor:
        lines.append(_line(entry, StoryKind.RELEASED, "Released", entry.amount_minor - entry.captured_minor))
    return lines


def _record_lines(entry: BookEntry, refunds: Sequence[BookRefund], disputes: Sequence[BookDispute]) -> list[StoryLine]:
    told = [(_REFUND_LINES[refund.status], refund.amount_minor) for refund in refunds]
    told += [(_DISPUTE_LINES[dispute.status], dispute.amount_minor) for dispute in disputes]
    return [_line(entry, kind, text, amount_minor) for (kind, text), amount_minor in told]


def _line(entry: BookEntry, kind: StoryKind, text: str, amount_minor: int) -> StoryLine:
    return StoryLine(kind, text, f"{Money(amount_minor, entry.currency).as_major():f} {entry.currency}")
