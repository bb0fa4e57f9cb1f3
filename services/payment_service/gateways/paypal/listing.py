"""The captures of a window of time, by Transaction Search: PayPal's only list, up to three hours behind."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

from services.payment_service.domain.models import FactKind, Observation
from services.payment_service.gateways.json_reading import (
    UnexpectedShape,
    entries_of,
    identifier_of,
    object_of,
    optional_identifier,
    whole_number,
)
from services.payment_service.gateways.listing import bad_cursor, number_in, said, whole_seconds
from services.payment_service.gateways.paypal.amounts import from_paypal
from services.payment_service.gateways.paypal.client import PayPalClient
from services.payment_service.gateways.paypal.errors import NotPermitted
from services.payment_service.gateways.paypal.reading import Json, moment
from services.payment_service.gateways.port import Listed, ListPage
from shared.errors import GatewayOutcomeUnknown, GatewayRejected
from shared.http import CallPolicy

LIST = CallPolicy(budget_seconds=20, attempts=3, repeatable=True)
PAGE = 500
NOT_ENABLED = "Transaction Search is not enabled for this PayPal app"
LONGEST_WINDOW_SECONDS = int(timedelta(days=30).total_seconds())
"""PayPal allows 31 days; a longer window is asked for in parts."""

_PAYMENTS = "T00"
"""How the event codes of payments begin; others are refunds, fees, disputes and transfers."""


async def captures_of_window(client: PayPalClient, since: datetime, until: datetime, cursor: str | None) -> ListPage:
    """``cursor``: where the present part of the window begins, and the page in it."""
    first, last = whole_seconds(since, until)
    start, page = _position(cursor, first, last) if cursor is not None else (first, 1)
    end = min(start + LONGEST_WINDOW_SECONDS, last)
    query = {
        "start_date": stamp(start),
        "end_date": stamp(end),
        "fields": "transaction_info",
        "page_size": str(PAGE),
        "page": str(page),
    }
    try:
        body = await client.call("GET", f"/v1/reporting/transactions?{urlencode(query)}", LIST)
    except NotPermitted as error:  # a feature of the app, which all other calls can do without
        raise GatewayRejected(NOT_ENABLED, gateway_code="transaction_search_not_enabled") from error
    try:
        rows = [object_of(each, "transaction_info") for each in entries_of(body, "transaction_details")]
        entries = tuple(_listed(row) for row in rows if identifier_of(row, "transaction_event_code")[:3] == _PAYMENTS)
        if page < whole_number(body, "total_pages"):
            return ListPage(entries, f"{start}:{page + 1}")
    except UnexpectedShape as error:
        raise GatewayOutcomeUnknown("PayPal's list is not understood") from error
    return ListPage(entries, f"{end}:1" if end < last else None)


def _position(cursor: str, first: int, last: int) -> tuple[int, int]:
    """Raises GatewayRejected for what no page of ours gave."""
    start, _, page = cursor.partition(":")
    position = number_in(start), number_in(page)
    if not first <= position[0] <= last or position[1] < 1:
        raise bad_cursor()
    return position


def _listed(row: Json) -> Listed:
    """The order's own id is not in it. Ours is: what we put into ``custom_id`` comes back as ``custom_field``."""
    reference = identifier_of(row, "transaction_id")
    return Listed(
        (reference,),
        said(lambda: _ours(row)),
        said(lambda: _observations(row, reference)),
        moment(row, "transaction_initiation_date"),
    )


def _ours(row: Json) -> tuple[str, ...]:
    found = optional_identifier(row, "custom_field")
    return (found,) if found else ()


def _observations(row: Json, reference: str) -> tuple[Observation, ...]:
    """Only what has succeeded. Whether a pending capture is the payment or a part of a hold, the row does not say."""
    if row.get("transaction_status") != "S":
        return ()
    amount = from_paypal(row, "transaction_amount")
    if amount.amount_minor <= 0:  # money that we have sent
        return ()
    at = moment(row, "transaction_initiation_date")
    return (Observation(FactKind.CAPTURED, reference, amount, at),)


def stamp(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
