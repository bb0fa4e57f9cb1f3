"""The order is confirmed, and the gateway has taken back what confirmed it: nothing fulfilled may stay unpaid (RC9).

The payment's failure is written into payment_service's rows as a later version of which no event was ever sent. What a
database that was restored to an older moment leaves (PG13) is something else, and cancels nothing.
"""

from __future__ import annotations

import pytest

from tests.scenarios.town import Town

pytestmark = pytest.mark.asyncio(loop_scope="package")

_FORGOTTEN = """
    UPDATE payments SET status = 'failed', version = version + 1, amount_authorized = 0, amount_captured = 0,
        failure_code = 'declined', updated_at = now()
    WHERE payment_id = :id
"""
_SET_BACK = """
    UPDATE payments SET status = 'requires_action', version = 1, amount_authorized = 0, amount_captured = 0
    WHERE payment_id = :id
"""


async def test_a_confirmed_order_whose_payment_failed_is_canceled_and_its_stock_comes_back(town: Town) -> None:
    sku = await town.has_product(stock=4)
    order, payment = await town.paid_order(sku)
    assert await town.stock(sku) == (3, 0)
    await town.rows(town.market.payment.database, _FORGOTTEN, id=payment["payment_id"])

    await town.run()
    canceled = await town.order_becomes(order, status="canceled")
    assert canceled["payment_status"] in ("failed", "unpaid")
    assert await town.stock(sku) == (4, 0)
    [case] = await town.cases(order_id=order["id"])
    assert (case["scenario"], case["action"]) == ("unpaid_order", "cancel_order")
    assert case["expected_minor"] == 3900
    assert case["difference_minor"] == -3900

    await town.run()
    await town.run()
    assert (await town.case(case["case_id"]))["status"] == "resolved"
    assert await town.stock(sku) == (4, 0), "restored once"
    assert await town.commands_for(case) == ["order.cancel_requested.v1"]


async def test_a_payment_service_that_was_set_back_cancels_no_order(town: Town) -> None:
    """PG13: it has an older version than it once told the order, or no payment at all; its events are the proof."""
    sku = await town.has_product(stock=4)
    order, payment = await town.paid_order(sku)
    await town.rows(town.market.payment.database, _SET_BACK, id=payment["payment_id"])
    lost, gone = await town.paid_order(sku)
    absent = f"pay_{'1' * 26}"
    for sql in (
        "UPDATE order_payments SET payment_id = :absent WHERE payment_id = :id",
        "UPDATE orders SET confirmed_by = :absent, updated_at = now() WHERE confirmed_by = :id",
    ):
        await town.rows(town.orders.database, sql, absent=absent, id=gone["payment_id"])

    for _ in range(2):
        await town.run()
    [case] = await town.cases(order_id=order["id"])
    assert (case["scenario"], case["action"], case["status"]) == ("rolled_back", None, "open")
    cases = {case["scenario"]: case for case in await town.cases(order_id=lost["id"])}
    assert cases["order_without_payment"]["action"] is None
    for each in (order, lost):
        assert (await town.see_order(each))["status"] == "confirmed"
    assert await town.stock(sku) == (2, 0)


async def test_a_confirmed_order_whose_payment_is_absent_is_canceled_too(town: Town) -> None:
    sku = await town.has_product(stock=4)
    order, payment = await town.paid_order(sku)
    absent = f"pay_{'0' * 26}"
    for sql in (
        "UPDATE order_payments SET payment_id = :absent, version = 0 WHERE payment_id = :id",
        "UPDATE orders SET confirmed_by = :absent, updated_at = now() WHERE confirmed_by = :id",
    ):
        await town.rows(town.orders.database, sql, absent=absent, id=payment["payment_id"])

    await town.run()
    await town.order_becomes(order, status="canceled")
    assert await town.stock(sku) == (4, 0)
    cases = {case["scenario"]: case for case in await town.cases(order_id=order["id"])}
    assert cases["order_without_payment"]["action"] == "cancel_order"
    await town.run()
    assert (await town.case(cases["order_without_payment"]["case_id"]))["status"] == "resolved"
    # The payment that nobody knew of has money for an order that is over now: it goes back.
    await town.market.becomes(payment, amount_refunded=3900)
