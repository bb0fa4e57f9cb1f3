"""PayPal's transactions of a day in UTC, by Transaction Search, up to three hours behind."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date
from typing import Any
from urllib.parse import urlencode

from services.payment_service.gateways.json_reading import UnexpectedShape, entries_of, object_of, whole_number
from services.payment_service.gateways.listing import whole_seconds
from services.payment_service.gateways.paypal.client import PayPalClient
from services.payment_service.gateways.paypal.errors import NotPermitted
from services.payment_service.gateways.paypal.listing import LIST, NOT_ENABLED, PAGE, stamp
from services.payment_service.gateways.port import SettlementReport
from services.payment_service.gateways.reports import Room, Rows, day_in, json_report
from shared.errors import GatewayOutcomeUnknown, GatewayRejected

FORMAT = "paypal_transactions"

_TOO_MANY = "RESULTSET_TOO_LARGE"
_SHORTEST_SECONDS = 60
_KEPT = (
    "transaction_id",
    "paypal_reference_id",
    "paypal_reference_id_type",
    "transaction_event_code",
    "transaction_initiation_date",
    "transaction_updated_date",
    "transaction_amount",
    "fee_amount",
    "transaction_status",
    "bank_reference_id",
    "invoice_id",
    "custom_field",
)
"""What says what moved and whose it is. Accounts, notes and subjects of people are left where they are."""


async def transactions(client: PayPalClient, day: date) -> tuple[SettlementReport, ...]:
    """``{"transaction_details":[{"transaction_info":{…}}],"start_date":…,"end_date":…,"page":1,"total_items":…,
    "total_pages":1}``: all pages as one, amounts as signed text in major units.

    Nothing where nothing moved. Raises GatewayRejected where the app may not search.
    """
    first, after = whole_seconds(*day_in(UTC, day))
    rows = Rows(Room())
    await _collect(client, first, after - 1, rows)
    if not rows:
        return ()
    about = f'"start_date":"{stamp(first)}","end_date":"{stamp(after - 1)}","page":1,"total_items":{len(rows)}'
    content = f'{{"transaction_details":{rows.text()},{about},"total_pages":1}}'
    return (json_report(f"paypal-transactions-{day}.json", FORMAT, content),)


async def _collect(client: PayPalClient, first: int, last: int, rows: Rows) -> None:
    """Both ends count. A window with more than PayPal lists at once is asked for in halves."""
    page = total = 1
    while page <= total:
        query = {
            "start_date": stamp(first),
            "end_date": stamp(last),
            "fields": "transaction_info",
            "page_size": str(PAGE),
            "page": str(page),
        }
        try:
            body = await client.call("GET", f"/v1/reporting/transactions?{urlencode(query)}", LIST)
        except NotPermitted as error:
            raise GatewayRejected(NOT_ENABLED, gateway_code="transaction_search_not_enabled") from error
        except GatewayRejected as error:
            if page > 1 or error.gateway_code != _TOO_MANY or last - first < _SHORTEST_SECONDS:
                raise
            middle = (first + last) // 2
            await _collect(client, first, middle, rows)
            await _collect(client, middle + 1, last, rows)
            return
        try:
            found = entries_of(body, "transaction_details")
            total = whole_number(body, "total_pages")
            if page < total and not found:
                raise UnexpectedShape("a page in the middle is empty")
            rows.add(map(_cut, found))
        except UnexpectedShape as error:
            raise GatewayOutcomeUnknown("PayPal's list is not understood") from error
        page += 1


def _cut(row: Mapping[str, Any]) -> Mapping[str, Any]:
    info = object_of(row, "transaction_info")
    return {"transaction_info": {key: info[key] for key in _KEPT if key in info}}
