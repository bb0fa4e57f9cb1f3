"""What agrees is left alone: a paid order, a failed one, one that is still open (design.md §7.3, rows of no action)."""

from __future__ import annotations

import pytest

from tests.scenarios.town import Town

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def test_orders_in_step_give_no_case_and_no_command(town: Town) -> None:
    sku = await town.has_product(stock=9)
    paid, _ = await town.paid_order(sku)
    failed = await town.order(sku)
    payment = await town.pay(failed)
    await town.market.shopper(payment, "fail")
    await town.order_becomes(failed, payment_status="failed")
    waiting = await town.order(sku)
    await town.pay(waiting)
    canceled = await town.order(sku)
    await town.pay(canceled)
    assert (await town.cancels(canceled)).status_code == 200
    before = [(await town.see_order(order))["version"] for order in (paid, failed, waiting, canceled)]

    await town.run()
    for order in (paid, failed, waiting, canceled):
        assert await town.cases(order_id=order["id"]) == []
    assert [(await town.see_order(order))["version"] for order in (paid, failed, waiting, canceled)] == before
