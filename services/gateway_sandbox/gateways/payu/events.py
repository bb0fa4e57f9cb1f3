"""What PayU tells the shop's server: payments as signed forms, refunds and disputes as JSON without a signature."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlencode

from services.gateway_sandbox.domain.json_text import to_json
from services.gateway_sandbox.domain.models import BookDispute, BookEntry, BookRefund
from services.gateway_sandbox.gateways.payu import objects
from services.gateway_sandbox.gateways.port import Announcement, Books


class Events:
    def __init__(self, key: str, salt: str) -> None:
        self._key = key
        self._salt = salt

    def payment_moved(self, entry: BookEntry, books: Books) -> None:
        state = objects.state_of(entry)
        self._announce(
            f"payment.{state[0]}",
            entry,
            lambda shown: urlencode(objects.returned_form(shown, self._key, self._salt, state)),
            books,
        )

    def refund_moved(self, entry: BookEntry, refund: BookRefund, books: Books) -> None:
        body = to_json(objects.refund_event(entry, refund, self._key))
        self._announce(f"refund.{refund.status}", entry, lambda _shown: body, books)

    def dispute_moved(self, entry: BookEntry, dispute: BookDispute, books: Books) -> None:
        body = to_json(objects.dispute_event(entry, dispute, books.now))
        self._announce(f"dispute.{dispute.status}", entry, lambda _shown: body, books)

    def _announce(self, event_type: str, entry: BookEntry, render: Callable[[BookEntry], str], books: Books) -> None:
        books.announce(Announcement(books.new_id("", 14), event_type, entry, render))
