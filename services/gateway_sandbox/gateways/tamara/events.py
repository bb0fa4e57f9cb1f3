"""Tamara's events. They say little, and nobody signs their bodies: a client asks what they are about."""

from __future__ import annotations

from collections.abc import Callable

from services.gateway_sandbox.domain.models import BookCapture, BookEntry, BookRefund
from services.gateway_sandbox.gateways.port import Announcement, Books, WireAnswer
from services.gateway_sandbox.gateways.tamara import objects
from services.gateway_sandbox.gateways.tamara.wire import Json


def announce(
    entry: BookEntry, books: Books, event_type: str, data: Callable[[BookEntry], Json] | Json | None = None
) -> None:
    """Deliveries carry no id, so the books' own is never shown."""

    def render(shown: BookEntry) -> str:
        told = data(shown) if callable(data) else data
        return WireAnswer.json(200, objects.webhook(shown, event_type, told)).body

    books.announce(Announcement(books.new_id("evt_"), event_type, entry, render))


def announce_captured(entry: BookEntry, record: BookCapture, books: Books) -> None:
    def data(shown: BookEntry) -> Json:
        amount_minor = record.amount_minor if shown is entry else shown.amount_minor
        return {"capture_id": record.capture_id, "captured_amount": objects.money(shown, amount_minor)}

    announce(entry, books, "order_captured", data)


def announce_refunded(entry: BookEntry, record: BookRefund, books: Books) -> None:
    data = {
        "refund_id": record.refund_id,
        "capture_id": record.details["capture_id"],
        "refunded_amount": objects.money(entry, record.amount_minor),
        "comment": record.reason,
    }
    announce(entry, books, "order_refunded", data)
