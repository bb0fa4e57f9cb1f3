"""Money after the payment through the whole system: back office, gateway, webhooks, order, shopper."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.conftest import ONLY_DISTRIBUTED
from tests.e2e.shop import PlacedOrder, Shop
from tests.support.waiting import until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300), ONLY_DISTRIBUTED]

# What every gateway can is shown by the conformance suite and by test_every_gateway.py; here it is the system around.
CURRENCY_OF = {"razorpay": ("masala-chai", "INR")}


async def paid(
    shop: Shop, gateway: str, *, capture: str = "automatic", quantity: int = 2
) -> tuple[PlacedOrder, dict[str, Any]]:
    sku, currency = CURRENCY_OF.get(gateway, ("red-hook-espresso", "USD"))
    await shop.restock(sku)
    order = await shop.order(sku=sku, quantity=quantity, currency=currency)
    session = await shop.pay(order, gateway, capture=capture)
    await shop.settle(gateway, session["gateway_reference"])
    await shop.wait_for(order, payment_status="paid" if capture == "automatic" else "authorized")
    return order, await shop.payment(session["payment_id"])


def money(amount_minor: int, payment: dict[str, Any]) -> dict[str, Any]:
    return {"amount_minor": amount_minor, "currency": payment["amount"]["currency"]}


@pytest.mark.parametrize("gateway", ["stripe", "paypal"])
async def test_a_partial_and_then_a_full_refund_reach_the_shopper_and_the_shelf(shop: Shop, gateway: str) -> None:
    order, payment = await paid(shop, gateway)
    payment_id, total = payment["payment_id"], order.total_minor
    sku = order.document["items"][0]["sku"]
    sold = await shop.stock(sku)
    first = await shop.money(payment_id, "refunds", amount=money(total // 4, payment), reason="one was broken")
    assert first["amount"]["amount_minor"] == total // 4
    await shop.wait_for(order, payment_status="partially_refunded")
    await shop.money(payment_id, "refunds", reason="the other one too")
    document = await shop.wait_for(order, payment_status="refunded")
    assert sorted(refund["status"] for refund in document["refunds"]) == ["succeeded", "succeeded"]

    async def is_back_on_the_shelf() -> bool:
        return await shop.stock(sku) == sold + 2

    await until(is_back_on_the_shelf, what="the stock going back")
    (entry,) = [known for known in await shop.books(gateway, order) if known["captured_minor"]]
    assert (entry["captured_minor"], entry["refunded_minor"]) == (total, total)
    told = await shop.timeline(payment_id)
    assert "refunded" in told["verdict"].lower()


@pytest.mark.parametrize("gateway", ["generic", "razorpay"])
async def test_a_refund_made_in_the_gateways_dashboard_is_imported(shop: Shop, gateway: str) -> None:
    """RF6: by its webhook; nobody refunds a second time."""
    order, payment = await paid(shop, gateway)
    third = order.total_minor // 3
    await shop.at_gateway(gateway, f"sessions/{payment['gateway_reference']}/refunds", amount_minor=third)
    await shop.wait_for(order, payment_status="partially_refunded")
    known = await shop.wait_for_payment(payment["payment_id"], amount_refunded=third)
    (imported,) = known["refunds"]
    assert (imported["origin"], imported["status"]) == ("gateway", "succeeded")
    (entry,) = [each for each in await shop.books(gateway, order) if each["captured_minor"]]
    assert entry["refunded_minor"] == third


@pytest.mark.parametrize("gateway", ["paypal"])
async def test_a_part_of_what_is_held_is_captured_and_the_rest_released(shop: Shop, gateway: str) -> None:
    """RF14."""
    order, payment = await paid(shop, gateway, capture="manual")
    part = order.total_minor // 2
    await shop.money(payment["payment_id"], "captures", amount=money(part, payment), final=True)
    document = await shop.wait_for(order, status="confirmed", attention="amount_mismatch")
    assert document["payment_status"] == "paid"
    after = await shop.wait_for_payment(payment["payment_id"], amount_captured=part, amount_capturable=0)
    assert after["status"] == "partially_captured"
    assert after["is_final"]
    (entry,) = await shop.books(gateway, order)
    assert (entry["status"], entry["captured_minor"]) == ("completed", part), "nothing is held there any more"


@pytest.mark.parametrize("gateway", ["stripe"])
async def test_held_money_is_released_by_a_void(shop: Shop, gateway: str) -> None:
    order, payment = await paid(shop, gateway, capture="manual")
    await shop.money(payment["payment_id"], "void")
    await shop.wait_for_payment(payment["payment_id"], status="canceled")
    document = await shop.wait_for(order, payment_status="unpaid")
    assert document["status"] == "open"
    (entry,) = await shop.books(gateway, order)
    assert (entry["status"], entry["captured_minor"]) == ("canceled", 0), "nothing is held there any more"


async def test_a_whole_hold_is_captured_at_razorpay(shop: Shop) -> None:
    order, payment = await paid(shop, "razorpay", capture="manual")
    await shop.money(payment["payment_id"], "captures")
    await shop.wait_for(order, status="confirmed", payment_status="paid")
    assert (await shop.payment(payment["payment_id"]))["amount_captured"] == order.total_minor


@pytest.mark.parametrize("gateway", ["stripe", "razorpay"])
async def test_a_dispute_is_opened_and_won(shop: Shop, gateway: str) -> None:
    order, payment = await paid(shop, gateway)
    payment_id = payment["payment_id"]
    entry = await shop.at_gateway(gateway, f"sessions/{payment['gateway_reference']}/disputes", reason="fraudulent")
    await shop.wait_for(order, payment_status="disputed")
    url = f"{shop.stack.payment_url}/api/v1/payments/{payment_id}/refunds"
    headers = shop.ops | {"Idempotency-Key": f"refund-beside-dispute-{payment_id[-10:]}"}
    refused = await shop.http.post(url, json={"reason": "goodwill"}, headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (409, "payment_disputed")
    (dispute,) = entry["disputes"]
    await shop.at_gateway(gateway, f"disputes/{dispute['dispute_id']}", status="won")
    await shop.wait_for(order, payment_status="paid")
    types = [event["type"] for event in await shop.events_of(payment_id, with_a="dispute.won.v1")]
    assert {"dispute.opened.v1", "dispute.won.v1"} <= set(types)


@pytest.mark.parametrize("gateway", ["generic"])
async def test_a_refund_that_fails_days_later_gives_the_budget_back(shop: Shop, gateway: str) -> None:
    """RF4."""
    order, payment = await paid(shop, gateway)
    payment_id = payment["payment_id"]
    await shop.faults(gateway, {"operation": "refund", "kind": "pending"})
    made = await shop.money(payment_id, "refunds", reason="changed their mind")
    assert made["status"] == "submitted"
    pending = await shop.payment(payment_id)
    assert (pending["amount_refund_pending"], pending["amount_refundable"]) == (order.total_minor, 0)
    await shop.at_gateway(gateway, f"refunds/{made['gateway_reference']}", status="failed")
    after = await shop.wait_for_payment(payment_id, amount_refund_pending=0)
    assert (after["amount_refundable"], after["refunds"][0]["status"]) == (order.total_minor, "failed")
    types = [event["type"] for event in await shop.events_of(payment_id, with_a="refund.failed.v1")]
    assert types[-1] == "refund.failed.v1"
    assert (await shop.read(order))["payment_status"] == "paid"
