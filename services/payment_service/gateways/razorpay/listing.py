"""The orders of a window of time with their payments.

Orders, because only they say whose a payment is: their receipt is kept by Razorpay's servers, while a payment's notes
have been in the shopper's browser. An order is made with its page, before anybody pays.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from services.payment_service.domain.models import Observation
from services.payment_service.gateways.json_reading import UnexpectedShape, identifier_of, object_of
from services.payment_service.gateways.listing import number_in, said, whole_seconds
from services.payment_service.gateways.port import Listed, ListPage
from services.payment_service.gateways.razorpay.api import PAGE, Json, RazorpayApi, entries_of
from services.payment_service.gateways.razorpay.reading import (
    moment_of,
    observations_of_payment,
    order_id_of,
    our_references,
    was_captured,
)
from services.payment_service.gateways.razorpay.retrieving import that_count
from shared.errors import GatewayOutcomeUnknown

LOOK_BACK = timedelta(days=1)
"""A payment may be made so long after its order: no page of ours is shown for longer."""


async def orders_of_window(api: RazorpayApi, since: datetime, until: datetime, cursor: str | None) -> ListPage:
    """``cursor``: how many orders have been seen. New ones do not move them, because the window has an end."""
    first, last = whole_seconds(since - LOOK_BACK, until)
    skip = number_in(cursor) if cursor is not None else 0
    query = {"from": str(first), "to": str(last), "count": str(PAGE), "skip": str(skip), "expand[]": "payments"}
    orders = entries_of(await api.get("/orders", query))
    try:
        entries = tuple(_listed(order) for order in orders if order.get("attempts") != 0)
    except UnexpectedShape as error:
        raise GatewayOutcomeUnknown("Razorpay's list is not understood") from error
    return ListPage(entries, str(skip + PAGE) if len(orders) == PAGE else None)


def _listed(order: Json) -> Listed:
    payments = _payments_of(order)
    references = (order_id_of(order, "id"), *(identifier_of(payment, "id") for payment in payments))
    return Listed(
        tuple(reference for reference in references if reference),
        said(lambda: our_references(order, "receipt")),
        said(lambda: _observations(payments)),
        moment_of(order),
    )


def _payments_of(order: Json) -> Sequence[Json]:
    """Nothing where the list came without them: then the order only says that somebody has tried to pay."""
    payments = object_of(order, "payments")
    return entries_of(payments) if payments else []


def _observations(payments: Sequence[Json]) -> tuple[Observation, ...]:
    """Whether a payment marked refunded was ever taken, its refunds tell, which do not come with it."""
    clear = [payment for payment in payments if payment.get("status") != "refunded" or was_captured(payment)]
    return tuple(each for payment in that_count(clear) for each in observations_of_payment(payment))
