"""Orders with an open page at the gateway, made over HTTP as shoppers make them."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from tests.bench.webhooks import About
from tests.e2e.shop import PlacedOrder, Shop


@dataclass(frozen=True)
class Payable:
    order: PlacedOrder
    about: About
    pay_seconds: float


async def payable_orders(shop: Shop, count: int, *, at_once: int = 1) -> list[Payable]:
    await shop.restock()
    turns = asyncio.Semaphore(at_once)

    async def one() -> Payable:
        async with turns:
            order = await shop.order()
            started = time.perf_counter()
            session = await shop.pay(order, "generic")
            seconds = time.perf_counter() - started
        return Payable(order, About(session["payment_id"], session["gateway_reference"]), seconds)

    return list(await asyncio.gather(*(one() for _ in range(count))))
