"""Asking CCAvenue about an order: every try under our number, and their refunds."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from services.payment_service.domain.models import Observation
from services.payment_service.gateways.ccavenue.api import CCAvenueApi, Json, rows_of
from services.payment_service.gateways.ccavenue.reading import (
    INDIA,
    Order,
    Standing,
    id_of,
    moment_of,
    observations_of,
    order_of,
    refund_observations,
    sent_back_by_itself,
)
from services.payment_service.gateways.json_reading import UnexpectedShape
from services.payment_service.gateways.listing import said
from services.payment_service.gateways.port import Listed, ListPage, Snapshot
from shared.clock import Clock
from shared.errors import GatewayObjectNotFound, GatewayOutcomeUnknown, InvalidAmount
from shared.ids import time_of_reference

VERSION = "1.2"
"""Of the commands that look for orders."""

MOST_PAGES = 20
_DAY = timedelta(days=1)
_LONGEST_LOOK_BACK = timedelta(days=180)


class Retriever:
    """``by_hand``: the account confirms nothing by itself (reading.py)."""

    def __init__(self, api: CCAvenueApi, clock: Clock, *, by_hand: bool) -> None:
        self._api = api
        self._clock = clock
        self._by_hand = by_hand

    async def retrieve(self, references: Sequence[str], *, our_reference: str) -> Snapshot:
        """Raises GatewayObjectNotFound where no try under our number is known: nobody has opened the page yet."""
        try:
            orders = await self.orders_of(references, our_reference)
            found: list[Observation] = []
            for order in orders:
                others_alive = any(other.is_alive for other in orders if other is not order)
                found += observations_of(order, our_reference, others_alive=others_alive, by_hand=self._by_hand)
                found += await self._returns_of(order)
        except (UnexpectedShape, InvalidAmount) as error:
            raise GatewayOutcomeUnknown("CCAvenue's answer is not understood") from error
        known = (our_reference, *(order.reference for order in orders))
        return Snapshot(tuple(dict.fromkeys(known)), tuple(dict.fromkeys(found)))

    async def orders_of(self, references: Sequence[str], our_reference: str) -> list[Order]:
        """Every try under our number. CCAvenue lets a number be paid twice, and by number it shows only one of them.

        Those that we know are asked about by their own reference; the list tells of others.
        """
        orders: dict[str, Order] = {}
        for reference in references:
            if reference.isascii() and reference.isdigit():
                await self._add(orders, {"reference_no": reference}, our_reference)
        if not orders:
            await self._add(orders, {"order_no": our_reference}, our_reference)
        if not orders:
            raise GatewayObjectNotFound("CCAvenue knows no order with our number")
        for row in await self._rows_under(our_reference):
            reference = id_of(row, "reference_no")
            if reference not in orders:
                await self._add(orders, {"reference_no": reference}, our_reference)
        return list(orders.values())

    async def order_by(self, reference: str, our_reference: str) -> Order | None:
        orders: dict[str, Order] = {}
        await self._add(orders, {"reference_no": reference}, our_reference)
        return orders.get(reference)

    async def refund_rows(self, reference: str) -> Sequence[Json]:
        try:
            body = await self._api.ask("getRefundDetails", {"reference_no": reference})
        except GatewayObjectNotFound:  # the order is known: it has no refunds
            return ()
        return rows_of(body, "refund_list")

    async def list_window(self, since: datetime, until: datetime, cursor: str | None) -> ListPage:
        """Lists are by day, so one more on each side is asked for, and the time decides here."""
        number = int(cursor) if cursor is not None else 1
        body = await self._page(since - _DAY, until + _DAY, number)
        if body is None:
            return ListPage(())
        try:
            entries = [self._listed(row) for row in rows_of(body, "order_Status_List") if _within(row, since, until)]
            is_last = number >= _page_count(body)
        except UnexpectedShape as error:
            raise GatewayOutcomeUnknown("CCAvenue's list is not understood") from error
        return ListPage(tuple(entry for entry in entries if entry), None if is_last else str(number + 1))

    # --- asking ----------------------------------------------------------------------------------------------------

    async def _add(self, orders: dict[str, Order], payload: Json, our_reference: str) -> None:
        """An order with another number is not ours, whatever we asked for."""
        try:
            body = await self._api.ask("orderStatusTracker", payload, version=VERSION)
        except GatewayObjectNotFound:
            return
        order = order_of(body)
        if order.order_no == our_reference:
            orders.setdefault(order.reference, order)

    async def _rows_under(self, our_reference: str) -> list[Json]:
        now = self._clock.now()
        made = time_of_reference(our_reference)
        since = max(made, now - _LONGEST_LOOK_BACK) if made is not None and made < now else now - _LONGEST_LOOK_BACK
        rows: list[Json] = []
        for number in range(1, MOST_PAGES + 1):
            body = await self._page(since - _DAY, now + _DAY, number, order_no=our_reference)
            if body is None:
                return rows
            rows += [row for row in rows_of(body, "order_Status_List") if id_of(row, "order_no") == our_reference]
            if number >= _page_count(body):
                return rows
        raise GatewayOutcomeUnknown("CCAvenue's list is too long to look through")

    async def _page(self, since: datetime, until: datetime, number: int, **wanted: str) -> Json | None:
        payload = {"from_date": _day(since), "to_date": _day(until), **wanted, "page_number": number}
        try:
            return await self._api.ask("orderLookup", payload, version=VERSION)
        except GatewayObjectNotFound:
            return None

    async def _returns_of(self, order: Order) -> list[Observation]:
        if order.standing is not Standing.TAKEN:
            return []
        refunds = refund_observations(await self.refund_rows(order.reference), order)
        by_itself = sent_back_by_itself(order, refunds)
        return [*refunds, by_itself] if by_itself is not None else refunds

    def _listed(self, row: Json) -> Listed | None:
        """None for what cannot be understood: the account is not ours alone."""
        try:
            order = order_of(row)
        except UnexpectedShape:
            return None
        ours = (order.order_no, row.get("param_value1"))
        return Listed(
            (order.reference,),
            tuple(dict.fromkeys(each for each in ours if isinstance(each, str) and each)),
            said(lambda: tuple(observations_of(order, order.order_no, others_alive=False, by_hand=False))),
            moment_of(row, "order_date_time"),
        )


def _page_count(body: Json) -> int:
    value = body.get("page_count", 1)
    text = str(value).strip()
    if isinstance(value, bool) or not text.isascii() or not text.isdigit() or len(text) > 9:
        raise UnexpectedShape("page_count is not a number")
    return int(text)


def _within(row: Json, since: datetime, until: datetime) -> bool:
    """One whose time cannot be read is shown: a list may contain more than its window, never less."""
    at = moment_of(row, "order_date_time")
    return at is None or since - timedelta(seconds=1) < at < until


def _day(moment: datetime) -> str:
    return f"{moment.astimezone(INDIA):%d-%m-%Y}"
