"""A gateway that is dead: how soon a shopper is told so, and what the shoppers of another gateway notice of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import pytest
import uvloop

from tests.bench.figures import Goal, percentile
from tests.bench.plan import PLAN
from tests.bench.report import MONEY, Report
from tests.bench.stack import BenchStack
from tests.e2e.shop import PlacedOrder, Shop
from tests.support.waiting import until

pytestmark = [pytest.mark.bench, pytest.mark.timeout(900)]

PAY_CALLS = 40
GOAL = Goal("<=", 50)
DEAD = {"operation": "create_session", "kind": "error_5xx", "status": 503, "count": 1_000_000}


async def _orders(shop: Shop, count: int) -> list[PlacedOrder]:
    turns = asyncio.Semaphore(4)

    async def one() -> PlacedOrder:
        async with turns:
            return await shop.order()

    return list(await asyncio.gather(*(one() for _ in range(count))))


async def _is_open(shop: Shop, gateway: str) -> bool:
    listed = (await shop.http.get(f"{shop.stack.payment_url}/api/v1/gateways")).json()["data"]
    return any(each["name"] == gateway and each["breakers"]["session"]["state"] == "open" for each in listed)


async def _kill(shop: Shop, gateway: str) -> None:
    """Dead, and known to be."""
    await shop.faults(gateway, DEAD)

    async def is_known() -> bool:
        if not await _is_open(shop, gateway):
            await shop.pay_answer(await shop.order(), gateway)
        return await _is_open(shop, gateway)

    await until(is_known, within_seconds=120, what="the breaker opening")


async def _revive(shop: Shop, gateway: str) -> None:
    await shop.faults(gateway)

    async def is_used_again() -> bool:
        return not await _is_open(shop, gateway) and (
            (await shop.pay_answer(await shop.order(), gateway)).status_code == 200
        )

    await until(is_used_again, within_seconds=120, what="the gateway being used again")


async def _pay(shop: Shop, order: PlacedOrder, gateway: str) -> tuple[float, bool]:
    """Seconds, and whether it was refused without a call; a probe of a dead gateway takes as long as it takes."""
    started = time.perf_counter()
    answer = await shop.pay_answer(order, gateway)
    seconds = time.perf_counter() - started
    return seconds, answer.status_code == 503 and answer.json()["code"] == "gateway_unavailable"


async def _refusals(shop: Shop, orders: Sequence[PlacedOrder]) -> list[float]:
    paid = [await _pay(shop, order, "stripe") for order in orders]
    return [seconds for seconds, is_refused in paid if is_refused]


async def _beside_stripe(shop: Shop) -> list[float]:
    """Pay calls with the generic gateway, each beside one with stripe."""
    orders = await _orders(shop, 2 * PAY_CALLS)
    found = []
    for ours, theirs in zip(orders[:PAY_CALLS], orders[PAY_CALLS:], strict=True):
        (seconds, _), _ = await asyncio.gather(_pay(shop, ours, "generic"), _pay(shop, theirs, "stripe"))
        found.append(seconds)
    return found


async def _round(stack: BenchStack) -> tuple[list[float], list[float], list[float]]:
    shop = Shop(stack)
    try:
        await shop.restock()
        healthy = await _beside_stripe(shop)
        orders = await _orders(shop, PAY_CALLS)  # before it is dead: a cool-down is short
        await _kill(shop, "stripe")
        refusals = await _refusals(shop, orders)
        beside_dead = await _beside_stripe(shop)
        await _revive(shop, "stripe")
        return refusals, healthy, beside_dead
    finally:
        await shop.no_faults()
        await shop.close()


def test_paying_beside_a_dead_gateway(bench_stack: BenchStack, report: Report) -> None:
    rounds = [uvloop.run(_round(bench_stack)) for _ in range(PLAN.rounds)]
    report.section = MONEY
    for part, name in ((0.5, "median"), (0.99, "p99")):
        refused = [percentile(refusals, part) * 1000 for refusals, _, _ in rounds]
        report.add(f"pay call at an open breaker: {name}", "ms", refused, goal=GOAL)
        healthy = [percentile(each, part) * 1000 for _, each, _ in rounds]
        dead = [percentile(each, part) * 1000 for _, _, each in rounds]
        ratio = sorted(after / before for before, after in zip(healthy, dead, strict=True))[len(rounds) // 2]
        report.add(f"pay call beside a healthy gateway: {name}", "ms", healthy)
        report.add(f"pay call beside a dead gateway: {name}", "ms", dead, ratio=f"{ratio:.2f} × healthy")
