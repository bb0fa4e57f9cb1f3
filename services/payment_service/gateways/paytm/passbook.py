"""The merchant's passbook: orders and refunds by a window of time. It has to be switched on for each merchant id.

What its rows are called is not documented, so the names are settings, and nothing but ids is read from a row: what
became of an order or a refund, its own status call says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from services.payment_service.gateways.json_reading import UnexpectedShape, entries_of, identifier_of
from services.payment_service.gateways.paytm.api import READ, Json, PaytmApi
from services.payment_service.gateways.paytm.reading import IST
from services.payment_service.gateways.paytm.refunds import understood
from shared.errors import GatewayOutcomeUnknown

PAGE = 20
"""The smallest that there is: each row is a status call."""

PENDING, AGAIN, SUCCESS = "PENDING", "AGAIN", "SUCCESS"
STEPS = (PENDING, AGAIN, SUCCESS)
"""One status at a time, because there is no word for all; what failed holds no money, and is not looked for.

What is pending may be paid while we read, so it comes first: then it is in one list or the other. What leaves the
pending ones moves those behind it to pages that were read already, so these are read once more, backwards.
"""

MOST_PAGES = 10
_LISTS = ("orders", "orderList", "data")


class Kind(StrEnum):
    PAYMENTS = "TRANSACTION"
    REFUNDS = "REFUND"


@dataclass(frozen=True, slots=True)
class Window:
    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class Position:
    """A page on the way through both lists."""

    step: str
    number: int

    @property
    def status(self) -> str:
        return PENDING if self.step == AGAIN else self.step

    def after(self, rows: int) -> Position | None:
        """Where to go on when the page had so many rows; None: that was the last."""
        if self.step != AGAIN and rows >= PAGE:
            return Position(self.step, self.number + 1)
        if self.step == SUCCESS:
            return None
        return Position(AGAIN, self.number - 1) if self.number > 1 else Position(SUCCESS, 1)


START = Position(PENDING, 1)


class Passbook:
    def __init__(self, api: PaytmApi, *, order_field: str, refund_field: str) -> None:
        self._api = api
        self._names = {Kind.PAYMENTS: order_field, Kind.REFUNDS: refund_field}

    async def page(
        self, kind: Kind, position: Position, window: Window, *, order_id: str | None = None
    ) -> Sequence[str]:
        """The ids of one page's rows. Raises GatewayRejected, or GatewayOutcomeUnknown for what is not understood:
        nothing found in nonsense proves nothing."""
        body = {
            "mid": self._api.merchant_id,
            "fromDate": _moment(window.since),
            "toDate": _moment(window.until + timedelta(seconds=1)),  # their times have no fractions
            "orderSearchType": kind.value,
            "orderSearchStatus": position.status,
            "pageNumber": position.number,
            "pageSize": PAGE,
            "isSort": True,
            **({"merchantOrderId": order_id} if order_id else {}),
        }
        said = await self._api.call("/merchant-passbook/search/list/order/v2", body, READ, names_token_type=True)
        if said.means_absence:
            return ()
        if said.is_failure:
            raise said.refusal()
        return understood(lambda: [identifier_of(row, self._names[kind]) for row in _rows(said.body)], "list")

    async def refunds_of(self, order_id: str, window: Window) -> list[str]:
        """Names of all refunds of one order, whoever made them."""
        found: list[str] = []
        position: Position | None = START
        while position is not None:
            if position.number > MOST_PAGES:
                raise GatewayOutcomeUnknown("Paytm's list is too long to look through")
            rows = await self.page(Kind.REFUNDS, position, window, order_id=order_id)
            found += rows
            position = position.after(len(rows))
        return found


def _rows(body: Json) -> Sequence[Json]:
    name = next((name for name in _LISTS if name in body), None)
    if name is None:
        raise UnexpectedShape("no list")
    return entries_of(body, name)


def _moment(moment: datetime) -> str:
    return moment.astimezone(IST).isoformat(timespec="seconds")
