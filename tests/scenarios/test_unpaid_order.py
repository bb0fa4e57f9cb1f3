"""The order is confirmed, and what confirmed it is not there: nothing fulfilled may stay unpaid (RC9), and no order is
canceled because one side's data is missing.

The payment's failure is written into payment_service's rows as news that nobody was told: a higher version, no event.
What a database that was restored to an older moment leaves (PG13) is something else: a lower version, or no row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from sqlalchemy import text

from tests.scenarios.town import Town

pytestmark = pytest.mark.asyncio(loop_scope="package")

_FAILED_UNTOLD = """
    UPDATE payments SET status = 'failed', version = version + 1, amount_authorized = 0, amount_captured = 0,
        failure_code = 'declined', updated_at = now()
    WHERE payment_id = :id
"""

_SET_BACK = """
    UPDATE payments SET status = 'requires_action', version = 1, amount_authorized = 0, amount_captured = 0
    WHERE payment_id = :id
"""

_NEVER_SPOKEN_OF = """
    WITH opened AS (
        UPDATE order_payments SET version = 0, status = 'created', amount_authorized = 0, amount_captured = 0
        WHERE payment_id = :id
        RETURNING order_id
    )
    UPDATE orders SET updated_at = now() WHERE id IN (SELECT order_id FROM opened)
"""


async def is_lost(town: Town, payment: Mapping[str, Any]) -> None:
    """Take the payment's row away and leave what refers to it: no foreign key and no trigger looks meanwhile."""
    async with town.market.payment.database.begin() as connection:
        await connection.execute(text("SET LOCAL session_replication_role = replica"))
        gone = await connection.execute(
            text("DELETE FROM payments WHERE payment_id = :id"), {"id": payment["payment_id"]}
        )
        assert gone.rowcount == 1


async def test_a_confirmed_order_whose_payment_failed_is_canceled_and_its_stock_comes_back(town: Town) -> None:
    sku = await town.has_product(stock=4)
    order, payment = await town.paid_order(sku)
    assert await town.stock(sku) == (3, 0)
    await town.rows(town.market.payment.database, _FAILED_UNTOLD, id=payment["payment_id"])

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
    """PG13: it has an older version than it once told the order; its events are the proof."""
    sku = await town.has_product(stock=4)
    order, payment = await town.paid_order(sku)
    await town.rows(town.market.payment.database, _SET_BACK, id=payment["payment_id"])

    for _ in range(2):
        await town.run()
    [case] = await town.cases(order_id=order["id"])
    assert (case["scenario"], case["action"], case["status"]) == ("rolled_back", None, "open")
    assert await town.commands_for(case) == []
    assert (await town.see_order(order))["status"] == "confirmed"
    assert await town.stock(sku) == (3, 0)


async def test_a_payment_that_payment_service_lost_is_a_case_for_a_person_and_cancels_nothing(town: Town) -> None:
    """It had told the order of it (PG13): its own word about money is not undone by its silence, whoever asks."""
    sku = await town.has_product(stock=4)
    order, payment = await town.paid_order(sku)
    await is_lost(town, payment)

    await town.run()
    [case] = await town.cases(order_id=order["id"])
    assert (case["scenario"], case["status"], case["action"]) == ("order_without_payment", "open", None)
    assert case["expected_minor"] == 3900
    assert await town.commands_for(case) == []

    await town.run()
    assert (await town.case(case["case_id"]))["status"] == "open"
    seen = await town.see_order(order)
    assert (seen["status"], seen["payment_status"]) == ("confirmed", "paid")
    assert await town.stock(sku) == (3, 0)


async def test_an_order_whose_payment_was_never_spoken_of_is_canceled(town: Town) -> None:
    """Version 0 is the order's own word alone: nobody contradicts the absence, payment_service least of all."""
    sku = await town.has_product(stock=4)
    order, payment = await town.paid_order(sku)
    await is_lost(town, payment)
    await town.rows(town.orders.database, _NEVER_SPOKEN_OF, id=payment["payment_id"])

    await town.run()
    await town.order_becomes(order, status="canceled")
    assert await town.stock(sku) == (4, 0)
    [case] = await town.cases(order_id=order["id"])
    assert (case["scenario"], case["action"]) == ("order_without_payment", "cancel_order")
    await town.run()
    assert (await town.case(case["case_id"]))["status"] == "resolved"
    assert await town.commands_for(case) == ["order.cancel_requested.v1"]
