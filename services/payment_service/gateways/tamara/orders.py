"""Finding an order of ours at Tamara, by any of its ids or by our reference."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from services.payment_service.gateways.json_reading import Understood
from services.payment_service.gateways.tamara.api import TamaraApi, segment
from services.payment_service.gateways.tamara.reading import Order, names_a_hold, read_order

understood = Understood("Tamara")

MOST_LOOKS = 4


class Orders:
    def __init__(self, api: TamaraApi, failed_refund_words: tuple[str, ...]) -> None:
        self._api = api
        self._failed_refund_words = failed_refund_words

    async def find(self, references: Iterable[str], our_reference: str) -> Order | None:
        """What belongs to another reference of ours is somebody else's money, whatever id led to it."""
        theirs = [reference for reference in dict.fromkeys(references) if not names_a_hold(reference)]
        for reference in theirs[:MOST_LOOKS]:
            order = await self._read(f"/orders/{segment(reference)}")
            if order is not None and order.our_reference == our_reference:
                return order
        order = await self._read(f"/merchants/orders/reference-id/{segment(our_reference)}")
        return order if order is not None and order.our_reference == our_reference else None

    async def _read(self, path: str) -> Order | None:
        body = await self._api.find(path)
        return None if body is None else understood(partial(read_order, body, self._failed_refund_words))
