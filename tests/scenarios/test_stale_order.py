"""The payment went on and its order did not hear of it: refunds and disputes reach the order after all."""

from __future__ import annotations

import pytest

from shared.contracts.topology import ORDER_PAYMENTS
from tests.scenarios.town import Town

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def test_a_refund_whose_events_were_lost_reaches_the_order(town: Town) -> None:
    sku = await town.has_product(stock=4)
    order, payment = await town.paid_order(sku)
    with town.losing(ORDER_PAYMENTS.name):
        await town.market.refund(payment)
        await town.market.becomes(payment, amount_refunded=3900)
        await town.market.quiet()
    assert (await town.see_order(order))["payment_status"] == "paid"

    await town.run()
    await town.order_becomes(order, payment_status="refunded")
    assert await town.stock(sku) == (4, 0), "all of it is back, and so are the goods"
    [case] = await town.cases(order_id=order["id"])
    assert (case["scenario"], case["action"]) == ("stale_order", "confirm_order")
    await town.run()
    assert (await town.case(case["case_id"]))["status"] == "resolved"


async def test_a_dispute_whose_webhook_and_event_were_lost_reaches_the_order(town: Town) -> None:
    sku = await town.has_product(stock=4)
    order, payment = await town.paid_order(sku)
    reference = await town.market.session_of(payment)
    with town.losing_webhooks(), town.losing(ORDER_PAYMENTS.name):
        answer = await town.market.sandbox.control("generic", f"sessions/{reference}/disputes", amount_minor=3900)
        assert answer.status_code == 201, answer.text
        await town.market.sync(payment)
        await town.market.becomes(payment, amount_disputed=3900)
    await town.run()
    await town.order_becomes(order, payment_status="disputed")
