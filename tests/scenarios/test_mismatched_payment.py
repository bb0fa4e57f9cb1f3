"""Amount or currency are not the order's: held, a case, and nothing moves (PY9–PY11, RC6)."""

from __future__ import annotations

import pytest

from tests.scenarios.town import Town

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def test_a_payment_of_another_amount_is_held_and_stays_a_case(town: Town) -> None:
    sku = await town.has_product(stock=4)
    order = await town.order(sku)
    payment = await town.pay(order)
    wrong = [{"operation": each, "kind": "wrong_amount", "amount_minor": 100} for each in ("retrieve", "webhook")]
    async with town.market.faults("generic", *wrong):
        await town.market.shopper(payment, "succeed")
        await town.market.becomes(payment, status="conflicted")
    await town.run()
    [case] = await town.cases(order_id=order["id"])
    assert (case["scenario"], case["status"]) == ("mismatched_payment", "open")
    before = await town.see_order(order)
    assert before["status"] == "open"
    await town.run()
    assert (await town.case(case["case_id"]))["status"] == "open", "a person decides"
    assert (await town.see_order(order))["status"] == "open"
    assert (await town.market.entry(payment))["refunded_minor"] == 0
    assert set(await town.commands_for(case)) <= {"order.confirm_requested.v1"}
