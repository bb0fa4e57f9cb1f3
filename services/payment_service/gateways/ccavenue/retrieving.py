"""Asking CCAvenue about an order: every try under our number, and their refunds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta

import structlog

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
from services.payment_service.gateways.listing import bad_cursor, code_of, said
from services.payment_service.gateways.port import Listed, ListPage, Snapshot
from shared.clock import Clock
from shared.errors import (
    GatewayError,
    GatewayObjectNotFound,
    GatewayOutcomeUnknown,
    InvalidAmount,
)
from shared.ids import time_of_reference

log = structlog.get_logger()

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
        """Raises GatewayObjectNotFound where no try under our number is known: nobody has opened the page yet.

        What cannot be looked up beside a try, other tries and refunds, withholds nothing of what it is itself.
        """
        try:
            orders = await self._known_orders(references, our_reference)
            is_all = await self._add_others(orders, our_reference)
            found: list[Observation] = []
            for order in orders.values():
                others_alive = not is_all or any(other.is_alive for other in orders.values() if other is not order)
                found += observations_of(order, our_reference, others_alive=others_alive, by_hand=self._by_hand)
                found += await self._returns_of(order)
        except (UnexpectedShape, InvalidAmount) as error:
            raise GatewayOutcomeUnknown("CCAvenue's answer is not understood") from error
        known = (our_reference, *orders)
        return Snapshot(tuple(dict.fromkeys(known)), tuple(dict.fromkeys(found)))

    async def _known_orders(self, references: Sequence[str], our_reference: str) -> dict[str, Order]:
        """The tries that we know, each by its own reference; else the one that CCAvenue shows under our number."""
        orders: dict[str, Order] = {}
        for reference in references:
            if reference.isascii() and reference.isdigit():
                await self._add(orders, {"reference_no": reference}, our_reference)
        if not orders:
            await self._add(orders, {"order_no": our_reference}, our_reference)
        if not orders:
            raise GatewayObjectNotFound("CCAvenue knows no order with our number")
        return orders

    async def _add_others(self, orders: dict[str, Order], our_reference: str) -> bool:
        """Every other try under our number, which CCAvenue lets be paid twice; by number it shows only one of them.

        False where that cannot be said. Then another one may be alive, and no try that failed ends the payment.
        """
        try:
            for row in await self._rows_under(our_reference):
                reference = id_of(row, "reference_no")
                if reference not in orders:
                    await self._add(orders, {"reference_no": reference}, our_reference)
        except (GatewayError, UnexpectedShape) as error:
            log.warning("ccavenue_tries_not_listed", code=code_of(error))
            return False
        return True

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
        """Lists are by day, so one more on each side is asked for, and the time decides here. ``cursor`` is the number
        of a page, and how many rows came before it."""
        number, before = _position(cursor)
        body = await self._page(since - _DAY, until + _DAY, number)
        try:
            rows = rows_of(body, "order_Status_List") if body is not None else ()
            seen = before + len(rows)
            is_last = _is_last(body, number, seen, len(rows))
        except UnexpectedShape as error:
            raise GatewayOutcomeUnknown("CCAvenue's list is not understood") from error
        entries = (self._listed(row) for row in rows if _within(row, since, until))
        return ListPage(tuple(entry for entry in entries if entry), None if is_last else f"{number + 1}:{seen}")

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
        rows: dict[str, Json] = {}
        for number in range(1, MOST_PAGES + 1):
            body = await self._page(since - _DAY, now + _DAY, number, order_no=our_reference)
            page = rows_of(body, "order_Status_List") if body is not None else ()
            before = len(rows)
            rows |= {id_of(row, "reference_no"): row for row in page}
            if _is_last(body, number, len(rows), len(rows) - before):
                return [row for row in rows.values() if id_of(row, "order_no") == our_reference]
        raise GatewayOutcomeUnknown("CCAvenue's list is too long to look through")

    async def _page(self, since: datetime, until: datetime, number: int, **wanted: str) -> Json | None:
        payload = {"from_date": _day(since), "to_date": _day(until), **wanted, "page_number": number}
        try:
            return await self._api.ask("orderLookup", payload, version=VERSION)
        except GatewayObjectNotFound:
            return None

    async def _returns_of(self, order: Order) -> list[Observation]:
        """Nothing where it cannot be said: not even that the money went back by itself."""
        if order.standing is not Standing.TAKEN:
            return []
        try:
            refunds = refund_observations(await self.refund_rows(order.reference), order)
        except (GatewayError, UnexpectedShape, InvalidAmount) as error:
            log.warning("ccavenue_refunds_not_listed", code=code_of(error))
            return []
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


def _position(cursor: str | None) -> tuple[int, int]:
    """Of nothing yet, the first page's. Cursors come back from callers, so they are not believed."""
    match = _POSITION.fullmatch(cursor or "1:0")
    if match is None:
        raise bad_cursor()
    return int(match[1]), int(match[2])


_POSITION = re.compile(r"([1-9][0-9]{0,5}):([0-9]{1,9})", re.ASCII)


def _is_last(body: Json | None, number: int, seen: int, fresh: int) -> bool:
    """Whether nothing follows this page. ``seen``: rows up to its end; ``fresh``: those that it brought. None is a page
    without rows. Raises UnexpectedShape where less is shown than was promised."""
    pages, total = (_count(body, "page_count"), _count(body, "total_records")) if body is not None else (number, None)
    if pages is not None and number < pages:
        return False
    if body is None and number > 1:
        raise UnexpectedShape("a page that was promised is not there")
    if total is None or seen >= total:
        return True
    if pages is not None or not fresh:
        raise UnexpectedShape("fewer rows than total_records")
    return False


def _count(body: Json, key: str) -> int | None:
    value = body.get(key)
    text = "" if value is None else str(value).strip()
    if text in ("", "null"):
        return None
    if isinstance(value, bool) or not text.isascii() or not text.isdigit() or len(text) > 9:
        raise UnexpectedShape(f"{key} is not a number")
    return int(text)


def _within(row: Json, since: datetime, until: datetime) -> bool:
    """One whose time cannot be read is shown: a list may contain more than its window, never less."""
    at = moment_of(row, "order_date_time")
    return at is None or since - timedelta(seconds=1) < at < until


def _day(moment: datetime) -> str:
    return f"{moment.astimezone(INDIA):%d-%m-%Y}"
