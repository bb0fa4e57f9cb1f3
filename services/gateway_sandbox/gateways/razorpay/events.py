"""Razorpay's events, from what happened to an entry. Each carries snapshots as they were at that moment."""

from __future__ import annotations

from collections.abc import Callable

from services.gateway_sandbox.domain.models import BookDispute, BookEntry, BookRefund
from services.gateway_sandbox.gateways.port import Announcement, Books, WireAnswer
from services.gateway_sandbox.gateways.razorpay import objects
from services.gateway_sandbox.gateways.razorpay.objects import Json, Try

Payload = Callable[[BookEntry], dict[str, Json]]


def payment_moved(entry: BookEntry, which: Try, event_type: str, books: Books, *, status: str | None = None) -> None:
    shown = status or objects.payment_status(entry, which)
    _announce(entry, event_type, books, lambda e: {"payment": objects.payment(e, which, status=shown)})


def taken(entry: BookEntry, which: Try, short_url: str, books: Books) -> None:
    """``payment.captured`` and ``order.paid``, and for a link that was still open ``payment_link.paid``."""
    payment_moved(entry, which, "payment.captured", books, status="captured")

    def order_paid(e: BookEntry) -> dict[str, Json]:
        return {"payment": objects.payment(e, which, status="captured"), "order": objects.order(e)}

    def link_paid(e: BookEntry) -> dict[str, Json]:
        link = {**objects.payment_link(e, short_url), "order_id": e.details["order_id"]}
        return {
            "payment_link": link,
            "order": objects.order(e),
            "payment": objects.payment(e, which, status="captured"),
        }

    _announce(entry, "order.paid", books, order_paid)
    if objects.is_link(entry) and objects.link_status(entry) == "paid":
        _announce(entry, "payment_link.paid", books, link_paid)


def link_ended(entry: BookEntry, short_url: str, books: Books) -> None:
    event_type = f"payment_link.{objects.link_status(entry)}"
    order_id = entry.details["order_id"]
    _announce(
        entry,
        event_type,
        books,
        lambda e: {"payment_link": {**objects.payment_link(e, short_url), "order_id": order_id}},
    )


def refund_moved(entry: BookEntry, refund: BookRefund, event_type: str, books: Books) -> None:
    shown, which = objects.refund(refund, entry.currency), objects.good_try(entry)
    assert which is not None, "only a captured payment is refunded"
    _announce(entry, event_type, books, lambda e: {"refund": shown, "payment": objects.payment(e, which)})


def hold_released(entry: BookEntry, books: Books) -> None:
    released, which = objects.release(entry), objects.good_try(entry)
    assert released is not None and which is not None, "only a hold is released"  # noqa: PT018 - one condition
    for event_type in ("refund.created", "refund.processed"):
        _announce(entry, event_type, books, lambda e: {"refund": released, "payment": objects.payment(e, which)})


def dispute_moved(entry: BookEntry, dispute: BookDispute, event_type: str, books: Books) -> None:
    shown, which = objects.dispute(entry, dispute), objects.good_try(entry)
    assert which is not None, "only a captured payment is disputed"
    _announce(entry, event_type, books, lambda e: {"payment": objects.payment(e, which), "dispute": shown})


def _announce(entry: BookEntry, event_type: str, books: Books, payload: Payload) -> None:
    at = books.now

    def render(shown: BookEntry) -> str:
        return WireAnswer.json(200, objects.event(event_type, payload(shown), at)).body

    books.announce(Announcement(books.new_id("", 14), event_type, entry, render))
