"""Which sessions a list call wants: by our reference, by the order, or by the window in which they were opened."""

from __future__ import annotations

from datetime import datetime

from services.gateway_sandbox.domain.models import BookEntry
from services.gateway_sandbox.gateways.generic.wire import invalid
from services.gateway_sandbox.gateways.port import Books, EntryFilter, WireCall

PAGE = 100
_QUERY = frozenset({"reference", "order_id", "created_from", "created_before", "cursor"})


async def page_of(call: WireCall, books: Books) -> tuple[list[BookEntry], str | None]:
    """A page, newest first, and where the next one begins. Raises WireError."""
    query = dict(call.query)
    unknown = sorted(set(query) - _QUERY)
    if unknown:
        raise invalid(f"unknown parameter: {unknown[0]}")
    cursor = query.get("cursor")
    if cursor is not None and await books.find(cursor) is None:
        raise invalid("cursor is not one that this list has given")
    wanted = EntryFilter(
        reference=query.get("reference"),
        order_id=query.get("order_id"),
        created_from=_moment(query, "created_from"),
        created_before=_moment(query, "created_before"),
        after=cursor,
        limit=PAGE + 1,
    )
    found = await books.search(wanted)
    return found[:PAGE], found[PAGE - 1].gateway_reference if len(found) > PAGE else None


def _moment(query: dict[str, str], key: str) -> datetime | None:
    text = query.get(key)
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise invalid(f"{key} must be an RFC 3339 time") from error
    if moment.tzinfo is None:
        raise invalid(f"{key} must have a zone")
    return moment
