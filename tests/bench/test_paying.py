"""What a shopper waits for: the pay call, from the order to a session at the sandbox, which answers at once."""

from __future__ import annotations

import pytest
import uvloop

from tests.bench.figures import percentile
from tests.bench.plan import PLAN
from tests.bench.report import MONEY, Report
from tests.bench.shopping import Payable, payable_orders
from tests.bench.stack import BenchStack
from tests.e2e.shop import Shop

pytestmark = [pytest.mark.bench, pytest.mark.timeout(900)]

PAY_CALLS = 40


async def _payable(stack: BenchStack, count: int, *, at_once: int) -> list[Payable]:
    shop = Shop(stack)
    try:
        return await payable_orders(shop, count, at_once=at_once)
    finally:
        await shop.close()


def test_pay_call(bench_stack: BenchStack, report: Report) -> None:
    report.section = MONEY
    rounds = [
        [payable.pay_seconds for payable in uvloop.run(_payable(bench_stack, PAY_CALLS, at_once=1))]
        for _ in range(PLAN.rounds)
    ]
    for part, name in ((0.5, "median"), (0.99, "p99")):
        report.add(
            f"pay call, order to session at the sandbox: {name}",
            "ms",
            [percentile(each, part) * 1000 for each in rounds],
        )
