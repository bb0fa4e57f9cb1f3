"""The payment succeeded and its open order never heard of it: the order is confirmed, once (design.md §7.3, RC9)."""

from __future__ import annotations

import pytest

from shared.contracts.topology import ORDER_PAYMENTS
from tests.scenarios.town import Town

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def test_the_order_of_a_lost_event_is_confirmed_and_the_case_closes(town: Town) -> None:
    sku = await town.has_product(stock=3)
    order = await town.order(sku)
    payment = await town.pay(order)
    with town.losing(ORDER_PAYMENTS.name):
        await town.market.shopper(payment, "succeed")
        await town.market.becomes(payment, status="captured")
        await town.market.quiet()
    assert (await town.see_order(order))["status"] == "open"

    await town.run()
    confirmed = await town.order_becomes(order, status="confirmed", payment_status="paid")
    assert await town.stock(sku) == (2, 0)
    [case] = await town.cases(order_id=order["id"])
    assert (case["scenario"], case["status"]) == ("unconfirmed_order", "open")
    assert case["payment_id"] == payment["payment_id"]

    await town.run()
    [case] = await town.cases(order_id=order["id"])
    assert (case["status"], case["resolution"]) == ("resolved", "settled")
    await town.run()
    assert await town.commands_for(case) == ["order.confirm_requested.v1"]
    assert (await town.see_order(order))["version"] == confirmed["version"], "acted once"
