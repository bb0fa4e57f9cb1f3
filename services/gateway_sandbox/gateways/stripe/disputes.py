"""Stripe's disputes: the money is withdrawn when one is opened, and reinstated when it is won."""

from __future__ import annotations

from services.gateway_sandbox.domain.models import BookDispute, BookEntry, DisputeStatus
from services.gateway_sandbox.gateways.bookkeeping import book_dispute
from services.gateway_sandbox.gateways.port import Books, WireAnswer, WireCall
from services.gateway_sandbox.gateways.stripe import errors, objects
from services.gateway_sandbox.gateways.stripe.events import announce_all
from services.gateway_sandbox.gateways.stripe.expand import expand, expand_list
from services.gateway_sandbox.gateways.stripe.form import Parameters, parse_pairs
from services.gateway_sandbox.gateways.stripe.objects import STATUS_KEYS, Json
from services.gateway_sandbox.gateways.stripe.reading import charged_entry, slice_of
from services.gateway_sandbox.gateways.wording import worded


async def retrieve_dispute(call: WireCall, books: Books) -> WireAnswer:
    dispute = await books.find_dispute(call.path_values["id"])
    entry = await books.find(dispute.gateway_reference) if dispute else None
    if dispute is None or entry is None:
        raise errors.missing_resource("dispute", call.path_values["id"], "dispute")
    query = Parameters(parse_pairs(call.query))
    body = expand(objects.dispute(entry, dispute, books.now), entry, query.texts("expand"))
    return WireAnswer.json(200, worded(body, books, *STATUS_KEYS))


async def list_disputes(call: WireCall, books: Books) -> WireAnswer:
    query = Parameters(parse_pairs(call.query))
    entry = await charged_entry(query, books)
    bodies = [objects.dispute(entry, dispute, books.now) for dispute in await books.disputes_of(entry)]
    shown, has_more = slice_of(bodies, query)
    page = objects.as_list(shown, "/v1/disputes", has_more=has_more)
    page = expand_list(page, [entry] * len(shown), query.texts("expand"))
    return WireAnswer.json(200, worded(page, books, *STATUS_KEYS))


async def open_dispute(entry: BookEntry, amount_minor: int, reason: str | None, books: Books) -> BookDispute:
    entry.details["disputed"] = True
    about = {"charge": objects.latest_charge_id(entry)}
    reason = reason or "fraudulent"
    dispute = await book_dispute(entry, books.new_id("du_"), amount_minor, reason, books, details=about)
    _announce(entry, dispute, books, ("charge.dispute.created", "charge.dispute.funds_withdrawn"))
    return dispute


async def close_dispute(entry: BookEntry, dispute: BookDispute, status: DisputeStatus, books: Books) -> None:
    if not dispute.close(status, books.now):
        return
    await books.save_dispute(entry, dispute, f"dispute_{status}")
    reinstated = ("charge.dispute.funds_reinstated",) if status == "won" else ()
    _announce(entry, dispute, books, (*reinstated, "charge.dispute.closed"))


def _announce(entry: BookEntry, dispute: BookDispute, books: Books, event_types: tuple[str, ...]) -> None:
    def picture(shown: BookEntry) -> Json:
        return objects.dispute(shown, dispute, books.now)

    announce_all(entry, books, tuple((event_type, picture) for event_type in event_types))
