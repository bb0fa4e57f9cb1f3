"""Two payments of one order succeeded, and the order heard of one: the other is refunded, once (PY7, RF18)."""

from __future__ import annotations

import pytest

from shared.contracts.topology import ORDER_PAYMENTS
from tests.scenarios.town import Town

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def test_the_second_success_that_the_order_did_not_hear_of_goes_back(town: Town) -> None:
    sku = await town.has_product(stock=5)
    order = await town.order(sku)
    first = await town.pay(order, "generic")
    await town.market.shopper(first, "fail")
    await town.market.becomes(first, status="failed")
    await town.order_becomes(order, payment_status="failed")
    second = await town.pay(order, "stripe")
    await town.market.shopper(second, "succeed")
    await town.order_becomes(order, status="confirmed")
    with town.losing(ORDER_PAYMENTS.name):
        await town.market.shopper(first, "succeed", late=True)
        await town.market.becomes(first, status="captured")
        await town.market.quiet()

    await town.run()
    await town.market.becomes(first, amount_refunded=3900)
    [case] = await town.cases(order_id=order["id"])
    assert (case["scenario"], case["payment_id"]) == ("duplicate_payment", first["payment_id"])
    await town.order_becomes(order, status="confirmed", payment_status="paid", attention=None)
    await town.run()
    await town.run()
    assert (await town.case(case["case_id"]))["status"] == "resolved"
    assert (await town.market.entry(first))["refunded_minor"] == 3900
    assert (await town.market.entry(second))["refunded_minor"] == 0
    assert await town.stock(sku) == (4, 0)
