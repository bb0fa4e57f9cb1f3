"""CCAvenue's two settlement reports: what was paid out on a day, and the rows of one payout, in pages.

Here what moved on a day of India is paid out on the next, in one payout per currency.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta

from services.gateway_sandbox.gateways.bookkeeping import paid_out, payouts_of
from services.gateway_sandbox.gateways.ccavenue.money import NOTHING, command
from services.gateway_sandbox.gateways.ccavenue.settlement import TERMS, details_list, summary_list
from services.gateway_sandbox.gateways.ccavenue.wire import (
    INDIA,
    Keys,
    command_payload,
    day_of,
    refused,
    start_of,
    text_of,
)
from services.gateway_sandbox.gateways.port import Books, Payout, SettlementLine, WireAnswer, WireCall, WireRoute

ROWS_PER_PAGE = 25
_SUMMARY = frozenset({"settlement_date"})
_DETAILS = frozenset({"pay_id", "page_number"})


class PayoutReports:
    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self.routes: Sequence[WireRoute] = (
            command("payoutSummary", "list", self.summary),
            command("payIdDetails", "list", self.details),
        )

    async def summary(self, call: WireCall, books: Books) -> WireAnswer:
        payload = command_payload(call, self._keys, "1.2", _SUMMARY, _SUMMARY)
        settled = day_of(payload, "settlement_date")
        assert settled is not None, "it is required"
        moved_on = settled - timedelta(days=1)
        _, payouts = await _paid(moved_on, books)
        body = {**summary_list(payouts, moved_on), "error_desc": "", "error_code": ""} if payouts else NOTHING
        return self._keys.answer({"Payout_Summary_Result": body})

    async def details(self, call: WireCall, books: Books) -> WireAnswer:
        payload = command_payload(call, self._keys, "1.4", _DETAILS, _DETAILS)
        pay_id, number = text_of(payload, "pay_id"), payload["page_number"]
        if type(number) is not int or number < 1:
            raise refused("51405", "Invalid page_number")
        moved_on = _day_in(pay_id)
        lines, _ = await _paid(moved_on, books) if moved_on is not None else ([], [])
        rows = [line for line in lines if line.payout.reference == pay_id]
        shown = rows[(number - 1) * ROWS_PER_PAGE : number * ROWS_PER_PAGE]
        if not shown:
            return self._keys.answer({"pay_id_details_Result": NOTHING})
        totals = {"page_count": -(-len(rows) // ROWS_PER_PAGE), "total_records": len(rows)}
        return self._keys.answer(
            {"pay_id_details_Result": {**details_list(shown), **totals, "error_desc": "", "error_code": ""}}
        )


async def _paid(moved_on: date, books: Books) -> tuple[list[SettlementLine], list[Payout]]:
    lines = await books.movements(start_of(moved_on), start_of(moved_on + timedelta(days=1)))
    payouts = payouts_of(lines, TERMS, moved_on)
    return paid_out(lines, payouts), list(payouts.values())


def _day_in(pay_id: str) -> date | None:
    """A payout's number begins with the day whose money it is."""
    try:
        return datetime.strptime(pay_id[:8], "%Y%m%d").replace(tzinfo=INDIA).date()
    except ValueError:
        return None
