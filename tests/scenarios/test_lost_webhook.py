"""The webhook was lost: the run reads the gateway's own list, and has the payment asked about (RC7, RC13)."""

from __future__ import annotations

import pytest

from tests.scenarios.town import Town

pytestmark = pytest.mark.asyncio(loop_scope="package")


@pytest.mark.parametrize("gateway", ["stripe", "generic"])
async def test_a_paid_order_whose_webhook_was_lost_is_paid_after_all(town: Town, gateway: str) -> None:
    sku = await town.has_product(stock=4)
    order = await town.order(sku)
    payment = await town.pay(order, gateway)
    with town.losing_webhooks():
        await town.market.shopper(payment, "succeed")
        assert (await town.market.see(payment))["status"] == "requires_action"
        await town.run(gateway=gateway)
    await town.order_becomes(order, status="confirmed", payment_status="paid")
    assert await town.stock(sku) == (3, 0)
    await town.run()
    assert {case["status"] for case in await town.cases(payment_id=payment["payment_id"])} <= {"resolved"}
