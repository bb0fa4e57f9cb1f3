"""CCAvenue's payouts of a day, and the rows of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from services.payment_service.gateways.ccavenue.api import CCAvenueApi, Json, rows_of
from services.payment_service.gateways.json_reading import UnexpectedShape
from services.payment_service.gateways.port import SettlementReport
from services.payment_service.gateways.reports import Room, Rows, exact_json, json_report
from shared.errors import GatewayObjectNotFound, GatewayOutcomeUnknown

FORMAT = "ccavenue_settlement"

_SUMMARY_VERSION, _DETAILS_VERSION = "1.2", "1.4"
_LISTS = (("pauyout_summary_list", "pauyout_summary_details"), ("payout_summary_list", "payout_summary_details"))
"""Misspelled in JSON answers."""
_OF_PEOPLE = frozenset({"bill_name", "bill_email"})
_LONGEST_ID = 40


async def payouts(api: CCAvenueApi, day: date) -> tuple[SettlementReport, ...]:
    """``{"payoutSummary":{"Payout_Summary_Result":{"pauyout_summary_list":{"pauyout_summary_details":[…]}}},
    "payIdDetails":{"<pay_Id>":{"pay_id_details_Result":{"pay_id_txn_details_list":{"pay_id_txn_details":[…]},
    "page_count":1,"total_records":…}}}}``: always lists, all pages of a payout as one, no names or addresses of people.

    Nothing where nothing was paid out.
    """
    room = Room()
    try:
        summary = await api.ask("payoutSummary", {"settlement_date": f"{day:%d-%m-%Y}"}, version=_SUMMARY_VERSION)
    except GatewayObjectNotFound:
        return ()
    try:
        found = _summary_rows(summary)
        details = {pay_id: await _details(api, pay_id, room) for pay_id in map(_pay_id, found)}
        if not found:
            return ()
        listed = exact_json({"pauyout_summary_list": {"pauyout_summary_details": list(found)}})
        written = ",".join(f"{exact_json(pay_id)}:{_result(rows)}" for pay_id, rows in details.items())
    except UnexpectedShape as error:
        raise GatewayOutcomeUnknown("CCAvenue's payouts are not understood") from error
    content = f'{{"payoutSummary":{{"Payout_Summary_Result":{room.take(listed)}}},"payIdDetails":{{{written}}}}}'
    return (json_report(f"ccavenue-payouts-{day}.json", FORMAT, content),)


async def _details(api: CCAvenueApi, pay_id: str, room: Room) -> Rows:
    rows, number = Rows(room), 1
    while True:
        body = await api.ask("payIdDetails", {"pay_id": pay_id, "page_number": number}, version=_DETAILS_VERSION)
        page = rows_of(_object(body, "pay_id_txn_details_list"), "pay_id_txn_details")
        rows.add({key: value for key, value in row.items() if key not in _OF_PEOPLE} for row in page)
        if not page or number >= _count(body, "page_count"):
            break
        number += 1
    if len(rows) != _count(body, "total_records"):
        raise UnexpectedShape("not as many rows as it says")
    return rows


def _summary_rows(summary: Json) -> Sequence[Json]:
    for outer, inner in _LISTS:
        if outer in summary:
            return rows_of(_object(summary, outer), inner)
        if inner in summary:
            return rows_of(summary, inner)
    raise UnexpectedShape("no list of payouts")


def _result(rows: Rows) -> str:
    inner = f'"pay_id_txn_details_list":{{"pay_id_txn_details":{rows.text()}}}'
    return f'{{"pay_id_details_Result":{{{inner},"page_count":1,"total_records":{len(rows)}}}}}'


def _object(source: Json, key: str) -> Json:
    """An empty one may come as an empty text."""
    value = source.get(key)
    if value is None or value == "":
        return {}
    if not isinstance(value, Mapping):
        raise UnexpectedShape(f"{key} is not an object")
    return value


def _pay_id(row: Json) -> str:
    text = _scalar(row.get("pay_Id"))
    if text is None or len(text) > _LONGEST_ID:
        raise UnexpectedShape("a payout has no id")
    return text


def _count(body: Json, key: str) -> int:
    text = _scalar(body.get(key)) or ""
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise UnexpectedShape(f"{key} is not a number")
    return int(text)


def _scalar(value: Any) -> str | None:
    """Ids and numbers come as either."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    return str(value).strip() or None
