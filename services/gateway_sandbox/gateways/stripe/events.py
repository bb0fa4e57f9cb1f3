"""Stripe's events: an envelope around a picture of the object, rendered when it is announced."""

from __future__ import annotations

from collections.abc import Callable

from services.gateway_sandbox.domain.models import BookEntry
from services.gateway_sandbox.gateways.port import Announcement, Books, WireAnswer, WireCall
from services.gateway_sandbox.gateways.stripe import objects
from services.gateway_sandbox.gateways.stripe.objects import Json

Picture = Callable[[BookEntry], Json]


def announce(entry: BookEntry, books: Books, event_type: str, picture: Picture, call: WireCall | None = None) -> None:
    """``call`` is the request that caused the event, if one did."""
    event_id = books.new_id("evt_")
    key = call.headers.get("idempotency-key") if call else None

    def render(shown: BookEntry) -> str:
        return WireAnswer.json(200, objects.event(event_id, event_type, books.now, picture(shown), key)).body

    books.announce(Announcement(event_id, event_type, entry, render))


def announce_all(
    entry: BookEntry, books: Books, pictures: tuple[tuple[str, Picture], ...], call: WireCall | None = None
) -> None:
    for event_type, picture in pictures:
        announce(entry, books, event_type, picture, call)
