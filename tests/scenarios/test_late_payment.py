"""The payment succeeded after its order was canceled, and its order does not know: fulfilled late, or refunded (O4)."""

from __future__ import annotations

from typing import Any

import pytest

from shared.contracts.topology import ORDER_PAYMENTS
from tests.scenarios.town import Town

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def paid_after_its_end(town: Town, sku: str) -> tuple[dict[str, Any], dict[str, Any]]:
    order = await town.order(sku)
    payment = await town.pay(order)
    assert (await town.cancels(order)).status_code == 200
    await town.order_becomes(order, status="canceled")
    with town.losing(ORDER_PAYMENTS.name):
        await town.market.shopper(payment, "succeed", late=True)
        await town.market.becomes(payment, status="captured")
        await town.market.quiet()
    assert (await town.see_order(order))["attention"] is None, "it does not know"
    return order, payment


async def test_it_is_refunded_where_the_product_says_so(town: Town) -> None:
    sku = await town.has_product(stock=3, policy="refund")
    order, payment = await paid_after_its_end(town, sku)
    await town.run()
    await town.market.becomes(payment, amount_refunded=3900)
    await town.order_becomes(order, status="canceled", payment_status="refunded", attention=None)
    assert await town.stock(sku) == (3, 0)
    entry = await town.market.entry(payment)
    assert (entry["captured_minor"], entry["refunded_minor"]) == (3900, 3900)
    [case] = await town.cases(order_id=order["id"])
    assert (case["scenario"], case["action"]) == ("late_payment", "confirm_order")
    await town.run()
    await town.run()
    assert (await town.case(case["case_id"]))["status"] == "resolved"
    assert await town.commands_for(case) == ["order.confirm_requested.v1"]
    assert [operation["operation"] for operation in entry["operations"]].count("refund") == 1


async def test_it_is_fulfilled_late_where_the_product_says_so_and_stock_allows(town: Town) -> None:
    sku = await town.has_product(stock=3, policy="fulfil")
    order, payment = await paid_after_its_end(town, sku)
    await town.run()
    await town.order_becomes(order, status="confirmed", payment_status="paid")
    assert await town.stock(sku) == (2, 0)
    assert (await town.market.entry(payment))["refunded_minor"] == 0
    await town.run()
    [case] = await town.cases(order_id=order["id"])
    assert (case["scenario"], case["status"]) == ("late_payment", "resolved")
