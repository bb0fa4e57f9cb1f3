"""What several of Stripe's calls read from their parameters in the same way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Protocol, TypeVar

from services.gateway_sandbox.domain.models import BookEntry
from services.gateway_sandbox.gateways.port import Books, EntryFilter
from services.gateway_sandbox.gateways.stripe import errors
from services.gateway_sandbox.gateways.stripe.form import Parameters
from services.gateway_sandbox.gateways.stripe.money import to_books

_OUR_REFERENCES = ("operation_ref", "capture_ref", "refund_ref")


async def intent_of(identifier: str, books: Books, *, for_update: bool = False, param: str = "intent") -> BookEntry:
    entry = await books.find(identifier, for_update=for_update)
    if entry is None or entry.payment_reference != identifier:
        raise errors.missing_resource("payment_intent", identifier, param)
    return entry


async def charged_entry(parameters: Parameters, books: Books, *, for_update: bool = False) -> BookEntry:
    """By ``payment_intent`` or ``charge``, one of which has to be given."""
    intent, charge = parameters.text("payment_intent"), parameters.text("charge")
    if intent is not None:
        return await intent_of(intent, books, for_update=for_update, param="payment_intent")
    if charge is None:
        message = "One of the following params should be provided for this request: payment_intent or charge."
        raise errors.invalid_parameter(message, param="payment_intent", code="parameter_missing")
    entry = await books.find(charge, for_update=for_update)
    if entry is None or charge not in [each["id"] for each in entry.details.get("charges", [])]:
        raise errors.missing_resource("charge", charge, "charge")
    return entry


def amount_of(parameters: Parameters, key: str, entry: BookEntry) -> int | None:
    wire_amount = parameters.integer(key)
    if wire_amount is None:
        return None
    if wire_amount < 1:
        message = "Invalid positive integer"
        raise errors.invalid_parameter(message, param=parameters.name(key), code="parameter_invalid_integer")
    return to_books(wire_amount, entry.currency, param=parameters.name(key))


def our_reference(metadata: Mapping[str, str]) -> str | None:
    """Stripe echoes metadata and knows no reference; these are the names under which clients of ours put theirs."""
    return next((metadata[name] for name in _OUR_REFERENCES if name in metadata), None)


async def page_of(query: Parameters, books: Books, *, paid_only: bool) -> tuple[list[BookEntry], bool]:
    limit = limit_of(query)
    created_from, created_before = window_of(query)
    wanted = EntryFilter(
        paid_only=paid_only,
        created_from=created_from,
        created_before=created_before,
        after=query.text("starting_after"),
        limit=limit + 1,
    )
    found = await books.search(wanted)
    return found[:limit], len(found) > limit


def window_of(query: Parameters) -> tuple[datetime | None, datetime | None]:
    """From when, and before when."""
    created = query.nested("created") or Parameters({}, "created")
    since = _moment(created, "gte", 0) or _moment(created, "gt", 1)
    return since, _moment(created, "lt", 0) or _moment(created, "lte", 1)


class _Identified(Protocol):
    def __getitem__(self, name: str) -> object: ...


Body = TypeVar("Body", bound=_Identified)


def slice_of(bodies: Sequence[Body], query: Parameters) -> tuple[Sequence[Body], bool]:
    """One page of a short list, newest first, and whether there are more."""
    after = query.text("starting_after")
    identifiers = [body["id"] for body in bodies]
    start = identifiers.index(after) + 1 if after in identifiers else 0
    end = start + limit_of(query)
    return bodies[start:end], end < len(bodies)


def limit_of(query: Parameters) -> int:
    limit = query.integer("limit")
    if limit is None:
        return 10
    if not 1 <= limit <= 100:
        raise errors.invalid_parameter(
            "limit must be between 1 and 100", param="limit", code="parameter_invalid_integer"
        )
    return limit


def _moment(created: Parameters, key: str, later: int) -> datetime | None:
    seconds = created.integer(key)
    if seconds is None:
        return None
    if not 0 <= seconds < 2**33:
        raise errors.invalid_parameter("Invalid timestamp", param=created.name(key), code="parameter_invalid_integer")
    return datetime.fromtimestamp(seconds + later, UTC)
