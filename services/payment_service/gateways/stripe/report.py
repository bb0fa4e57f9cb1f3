"""Stripe's balance transactions of a day in UTC, with what each is about."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date
from typing import Any

from services.payment_service.gateways.json_reading import UnexpectedShape, identifier_of
from services.payment_service.gateways.listing import whole_seconds
from services.payment_service.gateways.port import SettlementReport
from services.payment_service.gateways.reports import Room, Rows, day_in, json_report
from services.payment_service.gateways.stripe.api import READ, StripeApi, entries_of
from shared.errors import GatewayOutcomeUnknown

FORMAT = "stripe_balance_transactions"

_PATH = "/v1/balance_transactions"
_PAGE = "100"
_OF_THE_SOURCE = ("id", "object", "payment_intent", "charge", "metadata", "amount", "amount_captured", "currency")
"""What tells whose a line is, and what it was in the shopper's currency. The rest of a charge is nobody's business."""


async def balance_transactions(api: StripeApi, day: date) -> tuple[SettlementReport, ...]:
    """``{"object":"list","url":"/v1/balance_transactions","has_more":false,"data":[…]}``: all pages as one, newest
    first, payouts as rows of type ``payout``. Integers are Stripe's minor units. ``source`` is an id, null, or an
    object of ``id``, ``object``, ``payment_intent``, ``charge``, ``metadata``, ``amount``, ``amount_captured`` and
    ``currency``, as far as Stripe has them.

    Nothing where nothing moved. A day that is over gets no new rows, so its pages stay where they are.
    """
    first, last = whole_seconds(*day_in(UTC, day))
    asked = {"created[gte]": str(first), "created[lt]": str(last), "limit": _PAGE, "expand[]": "data.source"}
    rows = Rows(Room())
    while True:
        page = await api.call("GET", _PATH, READ, query=asked)
        try:
            entries, has_more = entries_of(page), page.get("has_more")
            if type(has_more) is not bool or (has_more and not entries):
                raise UnexpectedShape("it does not say whether there are more")
            rows.add(map(_without_shoppers, entries))
            if not has_more:
                break
            asked["starting_after"] = identifier_of(entries[-1], "id")
        except UnexpectedShape as error:
            raise GatewayOutcomeUnknown("Stripe's list is not understood") from error
    if not rows:
        return ()
    content = f'{{"object":"list","url":"{_PATH}","has_more":false,"data":{rows.text()}}}'
    return (json_report(f"stripe-balance-transactions-{day}.json", FORMAT, content),)


def _without_shoppers(row: Mapping[str, Any]) -> Mapping[str, Any]:
    source = row.get("source")
    if not isinstance(source, dict):
        return row
    return {**row, "source": {key: _id_of(source[key]) for key in _OF_THE_SOURCE if key in source}}


def _id_of(value: Any) -> Any:
    """Should Stripe expand deeper than was asked for: the id of what is nested."""
    return value["id"] if isinstance(value, dict) and "id" in value and "object" in value else value
