"""What a shopper waits for: the pay call, and the time from the gateway's webhook to "paid" on the screen."""

from __future__ import annotations

import asyncio
import os

import pytest
import uvloop

from tests.bench.load import PATIENCE_SECONDS, pace, percentile, watch_order
from tests.bench.report import Report
from tests.bench.shopping import Payable, payable_orders
from tests.bench.stack import BenchStack
from tests.bench.webhooks import webhook_bytes
from tests.e2e.shop import Shop

pytestmark = [pytest.mark.bench, pytest.mark.timeout(900)]

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
ORDERS_AT_RATE = {2: 12, 20: 60}
PAY_CALLS = 40


async def _payable(stack: BenchStack, count: int, *, at_once: int) -> list[Payable]:
    shop = Shop(stack)
    try:
        return await payable_orders(shop, count, at_once=at_once)
    finally:
        await shop.close()


async def _webhook_to_paid(stack: BenchStack, count: int, rate: int) -> list[float]:
    """Seconds from the time that each webhook was due to the event that says "paid", on streams opened before."""
    url = f"{stack.ingest_url}/api/v1/webhooks/generic"
    payables = await _payable(stack, count, at_once=4)
    watchers = [await watch_order(stack.order_url, each.order.id, each.order.secret) for each in payables]
    sample = await pace(url, [webhook_bytes(url, each.about) for each in payables], rate=rate)
    assert sample.refused == []
    async with asyncio.timeout(PATIENCE_SECONDS):
        await asyncio.gather(*(watcher.paid.wait() for watcher in watchers))
    for watcher in watchers:
        watcher.close()
    return [watcher.paid_at - (sample.started + number / rate) for number, watcher in enumerate(watchers)]


def test_pay_call(bench_stack: BenchStack, report: Report) -> None:
    rounds = [
        [payable.pay_seconds for payable in uvloop.run(_payable(bench_stack, PAY_CALLS, at_once=1))]
        for _ in range(ROUNDS)
    ]
    for part, name in ((0.5, "median"), (0.99, "p99")):
        report.add(
            f"pay call, order to session at the sandbox: {name}",
            "ms",
            [percentile(each, part) * 1000 for each in rounds],
        )


def test_webhook_to_paid_order(bench_stack: BenchStack, report: Report) -> None:
    found: dict[int, list[list[float]]] = {rate: [] for rate in ORDERS_AT_RATE}
    for _ in range(ROUNDS):
        for rate, count in ORDERS_AT_RATE.items():
            found[rate].append(uvloop.run(_webhook_to_paid(bench_stack, count, rate)))
    for rate, rounds in found.items():
        for part, name, goal in ((0.5, "median", "median < 250 ms"), (0.99, "p99", "")):
            values = [percentile(each, part) * 1000 for each in rounds]
            report.add(f"webhook to paid order at {rate}/s: {name}", "ms", values, goal=goal)
