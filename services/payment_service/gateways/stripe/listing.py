"""The intents of a window of time. They are made when a shopper first tries to pay, so abandoned pages have none."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from services.payment_service.gateways.json_reading import UnexpectedShape, identifier_of, object_of
from services.payment_service.gateways.listing import said, whole_seconds
from services.payment_service.gateways.port import Listed, ListPage
from services.payment_service.gateways.stripe.api import READ, StripeApi, entries_of
from services.payment_service.gateways.stripe.reading import (
    moment,
    observations_of_intent,
    our_references,
    references_of_intent,
)
from shared.errors import GatewayOutcomeUnknown

PAGE = "100"


async def intents_of_window(
    api: StripeApi, since: datetime, until: datetime, cursor: str | None, *, live: bool
) -> ListPage:
    first, last = whole_seconds(since, until)
    query = {
        "created[gte]": str(first),
        "created[lt]": str(last),
        "limit": PAGE,
        "expand[]": "data.latest_charge",  # a card's charge knows when its hold ends
    }
    if cursor is not None:
        query["starting_after"] = cursor
    page = await api.call("GET", "/v1/payment_intents", READ, query=query)
    try:
        return _read(page, live=live)
    except UnexpectedShape as error:
        raise GatewayOutcomeUnknown("Stripe's list is not understood") from error


def _read(page: Mapping[str, Any], *, live: bool) -> ListPage:
    intents, has_more = entries_of(page), page.get("has_more")
    if any(intent.get("livemode") is not live for intent in intents):
        raise UnexpectedShape("test and live mode are mixed")
    if type(has_more) is not bool or (has_more and not intents):
        raise UnexpectedShape("it does not say whether there are more")
    return ListPage(tuple(map(_listed, intents)), identifier_of(intents[-1], "id") if has_more else None)


def _listed(intent: Mapping[str, Any]) -> Listed:
    return Listed(
        references_of_intent(intent),
        said(lambda: our_references(object_of(intent, "metadata"))),
        said(lambda: tuple(observations_of_intent(intent, session_open=True))),
        moment(intent.get("created")),
    )
