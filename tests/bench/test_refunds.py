"""Refunds through the API, to the gateway and back: how many a second, over one payment and over many."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from itertools import cycle, islice

import pytest
import uvloop

from tests.bench.figures import percentile
from tests.bench.plan import PLAN
from tests.bench.report import MONEY, Report
from tests.bench.stack import BenchStack
from tests.e2e.shop import PRICE_MINOR, Shop

pytestmark = [pytest.mark.bench, pytest.mark.timeout(900)]

REFUNDS = 120
AT_ONCE = 8
PAYMENTS = {"one payment": 1, "many payments": 40}
EACH_MINOR = PRICE_MINOR // REFUNDS


async def _paid(shop: Shop, count: int) -> list[str]:
    turns = asyncio.Semaphore(4)

    async def one() -> str:
        async with turns:
            order = await shop.order()
            session = await shop.pay(order, "generic")
            await shop.settle("generic", session["gateway_reference"])
            await shop.wait_for(order, payment_status="paid", within_seconds=60)
            payment_id: str = session["payment_id"]
            return payment_id

    return list(await asyncio.gather(*(one() for _ in range(count))))


async def _refund_all(shop: Shop, payment_ids: Sequence[str]) -> tuple[float, list[float]]:
    """Seconds for all of them, and of each; what was refunded is then what was asked for, to the cent."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(payment_id: str) -> float:
        async with turns:
            started = time.perf_counter()
            amount = {"amount_minor": EACH_MINOR, "currency": "USD"}
            made = await shop.money(payment_id, "refunds", amount=amount, reason="measured")
            seconds = time.perf_counter() - started
        assert made["status"] == "succeeded"
        return seconds

    started = time.perf_counter()
    each = await asyncio.gather(*(one(payment_id) for payment_id in islice(cycle(payment_ids), REFUNDS)))
    together = time.perf_counter() - started
    refunded = [(await shop.payment(payment_id))["amount_refunded"] for payment_id in payment_ids]
    assert sum(refunded) == REFUNDS * EACH_MINOR
    return together, list(each)


async def _round(stack: BenchStack, payments: int) -> tuple[float, list[float]]:
    shop = Shop(stack)
    try:
        await shop.restock()
        return await _refund_all(shop, await _paid(shop, payments))
    finally:
        await shop.close()


@pytest.mark.parametrize(("over", "payments"), PAYMENTS.items())
def test_refunds_a_second(bench_stack: BenchStack, report: Report, over: str, payments: int) -> None:
    rounds = [uvloop.run(_round(bench_stack, payments)) for _ in range(PLAN.rounds)]
    report.section = MONEY
    report.add(f"refunds over {over}, {AT_ONCE} at once", "1/s", [REFUNDS / together for together, _ in rounds])
    for part, name in ((0.5, "median"), (0.99, "p99")):
        values = [percentile(each, part) * 1000 for _, each in rounds]
        report.add(f"refunds over {over}, {AT_ONCE} at once: {name}", "ms", values)
