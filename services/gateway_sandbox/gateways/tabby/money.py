"""Captures, closes and refunds in the books, and the webhooks that follow from them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from services.gateway_sandbox.domain.models import (
    BookCapture,
    BookDispute,
    BookEntry,
    BookRefund,
    EntryStatus,
    IllegalMove,
)
from services.gateway_sandbox.gateways.bookkeeping import book_refund
from services.gateway_sandbox.gateways.port import Announcement, Books, WireAnswer
from services.gateway_sandbox.gateways.tabby import objects
from services.gateway_sandbox.gateways.tabby.sessions import new_uuid
from shared.clock import to_rfc3339

REFUND_WINDOW = timedelta(days=180)


async def capture(
    entry: BookEntry, amount_minor: int, reference: str | None, books: Books, *, is_final: bool = False
) -> BookCapture:
    """Done at once; the last part closes the payment, and so does a capture in the dashboard.

    Raises IllegalMove, MoreThanThereIs.
    """
    entry.take(amount_minor, final=is_final)
    taken = BookCapture(
        gateway=entry.gateway,
        capture_id=new_uuid(books),
        gateway_reference=entry.gateway_reference,
        reference=reference,
        amount_minor=amount_minor,
        status="succeeded",
        is_final=is_final,
        created_at=books.now,
    )
    _note_end(entry, books)
    await books.add_capture(entry, taken)
    await announce(entry, "capture", books)
    if entry.status is EntryStatus.COMPLETED:
        await announce(entry, "close", books)
    return taken


async def close(entry: BookEntry, books: Books) -> None:
    """Release whatever is not captured. Raises IllegalMove."""
    released_minor = entry.capturable_minor
    entry.release()
    _note_end(entry, books)
    await books.record(entry, "void", released_minor)
    await announce(entry, "close", books)


async def refund(
    entry: BookEntry, amount_minor: int, reference: str | None, reason: str | None, books: Books
) -> BookRefund:
    """Done at once: Tabby knows no pending refund. Raises IllegalMove, MoreThanThereIs."""
    if entry.status is not EntryStatus.COMPLETED:
        raise IllegalMove("payment has no captures and is not closed")
    if books.now > entry.created_at + REFUND_WINDOW:
        raise IllegalMove("the payment is too old to be refunded")
    made = await book_refund(
        entry, new_uuid(books), amount_minor, books, is_pending=False, reference=reference, reason=reason
    )
    await announce(entry, "refund", books)
    return made


async def announce(entry: BookEntry, what: str, books: Books) -> None:
    """The payment as it is now; what happened is for whoever compares it with what they knew."""
    now, records = replace(entry), await objects.records_of(entry, books)

    def render(shown: BookEntry) -> str:
        return WireAnswer.json(200, objects.webhook(now if shown is entry else shown, records)).body

    books.announce(Announcement(books.new_id("evt_"), what, entry, render))


def announce_dispute(entry: BookEntry, dispute: BookDispute, books: Books) -> None:
    body = objects.dispute_webhook(entry, dispute)
    event_type = f"dispute.{body['status']}"
    books.announce(
        Announcement(books.new_id("evt_"), event_type, entry, lambda _shown: WireAnswer.json(200, body).body)
    )


def _note_end(entry: BookEntry, books: Books) -> None:
    if not entry.is_held():
        entry.details["closed_at"] = to_rfc3339(books.now)
