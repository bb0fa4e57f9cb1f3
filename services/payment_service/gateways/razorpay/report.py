"""Razorpay's settlement reconciliation of a day in India, and the settlements of that day."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta, timezone

from services.payment_service.gateways.listing import whole_seconds
from services.payment_service.gateways.port import SettlementReport
from services.payment_service.gateways.razorpay.api import RazorpayApi, entries_of
from services.payment_service.gateways.reports import Room, Rows, day_in, json_report

RECON = "razorpay_recon"
SETTLEMENTS = "razorpay_settlements"

_INDIA = timezone(timedelta(hours=5, minutes=30))
_RECON_PAGE = 500
"""It gives up to 1000, but one with long notes could be larger than an answer may be."""
_SETTLEMENTS_PAGE = 100


async def settlement_reports(api: RazorpayApi, day: date) -> tuple[SettlementReport, ...]:
    """Both as ``{"entity":"collection","count":…,"items":[…]}``, all pages as one; integers in sub-units.

    The reconciliation's items are its rows; the settlements' are ``id, amount, status, fees, tax, utr, created_at``.
    Which of the two has nothing is left out.
    """
    room = Room()
    since, until = whole_seconds(*day_in(_INDIA, day))
    on = {"year": str(day.year), "month": str(day.month), "day": str(day.day)}
    made = {"from": str(since), "to": str(until - 1)}
    recon = await _pages(api, "/settlements/recon/combined", on, _RECON_PAGE, room)
    settlements = await _pages(api, "/settlements", made, _SETTLEMENTS_PAGE, room)
    found = (("recon", RECON, recon), ("settlements", SETTLEMENTS, settlements))
    return tuple(
        json_report(f"razorpay-{name}-{day}.json", format_, _collection(rows)) for name, format_, rows in found if rows
    )


async def _pages(api: RazorpayApi, path: str, query: Mapping[str, str], size: int, room: Room) -> Rows:
    rows = Rows(room)
    while True:
        page = entries_of(await api.get(path, {**query, "count": str(size), "skip": str(len(rows))}))
        rows.add(page)
        if len(page) < size:
            return rows


def _collection(rows: Rows) -> str:
    return f'{{"entity":"collection","count":{len(rows)},"items":{rows.text()}}}'
