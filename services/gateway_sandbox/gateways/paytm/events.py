"""Paytm's webhooks: a signed form about each payment, signed JSON about each refund."""

from __future__ import annotations

from urllib.parse import urlencode

from services.gateway_sandbox.domain.json_text import to_json
from services.gateway_sandbox.domain.models import BookEntry, BookRefund
from services.gateway_sandbox.gateways.paytm import objects
from services.gateway_sandbox.gateways.paytm.wire import Wire
from services.gateway_sandbox.gateways.port import Announcement, Books
from shared.paytm_checksum import CHECKSUM_FIELD, envelope, form_text

FORM = "application/x-www-form-urlencoded"
JSON = "application/json; charset=utf-8"


def signed_form(fields: dict[str, str], wire: Wire) -> dict[str, str]:
    return {**fields, CHECKSUM_FIELD: wire.sign(form_text(fields))}


def payment_moved(entry: BookEntry, wire: Wire, books: Books) -> None:
    status = objects.result_of(entry)[0]

    def render(shown: BookEntry) -> str:
        return urlencode(signed_form(objects.webhook_fields(shown), wire))

    books.announce(Announcement(books.new_id("", 20), status, entry, render))


def refund_moved(
    entry: BookEntry,
    refund: BookRefund,
    wire: Wire,
    books: Books,
    *,
    is_credited: bool = False,
    is_failed: bool = False,
) -> None:
    """Accepted or rejected first, and credited later."""
    event_type = "refund.credited" if is_credited else "refund.rejected" if is_failed else "refund.accepted"

    def render(shown: BookEntry) -> str:
        body = to_json(objects.refund_webhook(shown, refund, is_credited=is_credited, is_failed=is_failed))
        return envelope({"signature": wire.sign(body), "version": "v1"}, body)

    books.announce(Announcement(books.new_id("", 20), event_type, entry, render))


def content_type_of(body: bytes) -> str:
    return JSON if body.startswith(b"{") else FORM
