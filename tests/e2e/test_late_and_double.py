"""Money that comes at the wrong time or twice: recorded, announced, flagged, and given back or fulfilled, once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.e2e.shop import Shop
from tests.e2e.stack import SECRETS, EmbeddedStack
from tests.support.waiting import until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

TTL_SECONDS = 12  # so that the first calls of a process that has just started are not too late


@pytest.fixture
async def hasty() -> AsyncIterator[Shop]:
    """A shop whose orders expire after seconds."""
    stack = EmbeddedStack({"ORDER_TTL_SECONDS": str(TTL_SECONDS)})
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, stack.start)
    shop = Shop(stack)
    yield shop
    await shop.close()
    await loop.run_in_executor(None, stack.close)


async def a_product(shop: Shop, sku: str, policy: str) -> str:
    """Five pieces, and what late money for one is to buy."""
    product = {
        "name": "Hand grinder",
        "price": {"amount_minor": 4200, "currency": "USD"},
        "stock": 5,
        "reconcile_policy": policy,
    }
    answer = await shop.http.put(f"{shop.stack.order_url}/api/v1/products/{sku}", json=product, headers=shop.ops)
    assert answer.status_code in (200, 201), answer.text
    return sku


@pytest.mark.xdist_group("late")
async def test_an_unpaid_order_expires_with_its_page_and_money_that_still_comes_is_refunded(hasty: Shop) -> None:
    sku = await a_product(hasty, "grinder-refund", "refund")
    order = await hasty.order(sku=sku, quantity=2)
    session = await hasty.pay(order, "generic")
    await hasty.wait_for(order, status="expired")
    assert await hasty.stock(sku) == 5
    (entry,) = await hasty.books("generic", order)
    assert (entry["status"], entry["captured_minor"]) == ("expired", 0)
    url = f"{hasty.stack.sandbox_url}/sandbox/control/generic/sessions/{session['gateway_reference']}"
    assert (await hasty.http.post(url, json={"outcome": "succeed", "late": True})).status_code == 200
    back = await hasty.wait_for(order, payment_status="refunded", attention=None)
    assert back["status"] == "expired"
    assert await hasty.stock(sku) == 5, "no stock is taken for an order that is over"
    (payment,) = [known for known in back["payments"] if known["payment_id"] == session["payment_id"]]
    assert payment["resolution"] == "refund_requested"
    (entry,) = await hasty.books("generic", order)
    assert (entry["captured_minor"], entry["refunded_minor"]) == (order.total_minor, order.total_minor)
    assert [operation["operation"] for operation in entry["operations"]].count("refund") == 1
    types = [event["type"] for event in await hasty.events_of(session["payment_id"], with_a="refund.succeeded.v1")]
    assert (
        types.index("payment.late_success.v1") < types.index("payment.captured.v1") < types.index("refund.created.v1")
    )
    assert types[-1] == "refund.succeeded.v1"
    told_by_order = await hasty.events_of(order.id, "order-service", with_a="refund.requested.v1")
    order_types = [event["type"] for event in told_by_order]
    assert order_types[:2] == ["order.created.v1", "order.expired.v1"]
    assert {"refund.requested.v1", "order.attention_required.v1"} <= set(order_types)
    told = await hasty.timeline(session["payment_id"])
    assert "late_payment" in {entry["details"].get("decision") for entry in told["data"]}, told


@pytest.mark.xdist_group("late")
async def test_late_money_for_a_product_that_is_to_be_fulfilled_reopens_the_order(hasty: Shop) -> None:
    sku = await a_product(hasty, "grinder-fulfil", "fulfil")
    order = await hasty.order(sku=sku, quantity=2)
    session = await hasty.pay(order, "stripe")
    await hasty.wait_for(order, status="expired")
    assert await hasty.stock(sku) == 5
    url = f"{hasty.stack.sandbox_url}/sandbox/control/stripe/sessions/{session['gateway_reference']}"
    assert (await hasty.http.post(url, json={"outcome": "succeed", "late": True})).status_code == 200
    confirmed = await hasty.wait_for(order, status="confirmed", payment_status="paid")
    assert confirmed["payments"][0]["resolution"] == "fulfilled"
    assert await hasty.stock(sku) == 3
    (entry,) = await hasty.books("stripe", order)
    assert entry["refunded_minor"] == 0


async def test_the_second_payment_of_one_order_is_refunded_by_itself(shop: Shop) -> None:
    order = await shop.order()
    first = await shop.pay(order, "stripe")
    # Neither page can be closed: not the first when the shopper turns to the other gateway, and not the second when the
    # first is paid. So both can be paid.
    for gateway in ("stripe", "generic"):
        unreachable = {"operation": "expire_session", "kind": "error_5xx", "status": 503, "after_work": False}
        await shop.faults(gateway, {**unreachable, "count": None})
    second = await shop.pay(order, "generic")
    await shop.settle("stripe", first["gateway_reference"])
    await shop.wait_for(order, payment_status="paid")
    await shop.settle("generic", second["gateway_reference"])
    loser = await shop.wait_for_payment(second["payment_id"], amount_refunded=order.total_minor)
    assert (loser["status"], loser["duplicate_of"]) == ("captured", first["payment_id"])
    kept = await shop.wait_for(order, attention=None, payment_status="paid", status="confirmed")
    resolutions = {payment["payment_id"]: payment["resolution"] for payment in kept["payments"]}
    assert resolutions == {first["payment_id"]: None, second["payment_id"]: "refund_requested"}
    types = [event["type"] for event in await shop.events_of(second["payment_id"], with_a="refund.succeeded.v1")]
    assert {"payment.duplicate_detected.v1", "refund.succeeded.v1"} <= set(types)
    (winner,) = await shop.books("stripe", order)
    (refunded,) = await shop.books("generic", order)
    assert (winner["refunded_minor"], refunded["refunded_minor"]) == (0, order.total_minor)
    await shop.events_of(order.id, "order-service", with_a="order.attention_required.v1")


async def test_a_payment_with_manual_capture_is_authorized_and_paid_when_the_gateway_captures(shop: Shop) -> None:
    order = await shop.order()
    session = await shop.pay(order, "stripe", capture="manual")
    await shop.settle("stripe", session["gateway_reference"])
    await shop.wait_for(order, payment_status="authorized", status="open")
    (entry,) = await shop.books("stripe", order)
    assert entry["captured_minor"] == 0

    intent = entry["payment_reference"]
    answer = await shop.http.post(
        f"{shop.stack.sandbox_url}/sandbox/stripe/v1/payment_intents/{intent}/capture",
        headers={"authorization": f"Bearer {SECRETS['STRIPE_API_KEY']}"},
    )
    assert answer.status_code == 200, answer.text
    await shop.wait_for(order, payment_status="paid", status="confirmed")

    async def captured() -> bool:
        payment = await shop.payment(session["payment_id"])
        return bool(payment["amount_captured"] == order.total_minor)

    await until(captured, what="the capture being recorded")
