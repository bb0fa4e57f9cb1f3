"""Money that comes at the wrong time or twice: recorded, announced, flagged, and never mistaken for the order's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.e2e.shop import Shop
from tests.e2e.stack import SECRETS, EmbeddedStack
from tests.support.waiting import until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

TTL_SECONDS = 4


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


@pytest.mark.xdist_group("embedded")
async def test_an_unpaid_order_expires_with_its_page_and_money_that_still_comes_is_flagged(hasty: Shop) -> None:
    before = await hasty.stock()
    order = await hasty.order(quantity=2)
    session = await hasty.pay(order, "generic")
    await hasty.wait_for(order, status="expired")
    assert await hasty.stock() == before
    (entry,) = await hasty.books("generic", order)
    assert (entry["status"], entry["captured_minor"]) == ("expired", 0)
    url = f"{hasty.stack.sandbox_url}/sandbox/control/generic/sessions/{session['gateway_reference']}"
    assert (await hasty.http.post(url, json={"outcome": "succeed", "late": True})).status_code == 200
    late = await hasty.wait_for(order, attention="late_payment")
    assert late["status"] == "expired"
    assert await hasty.stock() == before, "no stock is taken for an order that is over"
    types = [event["type"] for event in await hasty.events_of(session["payment_id"])]
    assert types[-2:] == ["payment.late_success.v1", "payment.captured.v1"]
    order_types = [event["type"] for event in await hasty.events_of(order.id, "order-service")]
    assert order_types == ["order.created.v1", "order.expired.v1", "order.attention_required.v1"]


async def test_the_second_payment_of_one_order_is_flagged_as_the_duplicate(shop: Shop) -> None:
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
    flagged = await shop.wait_for(order, attention="duplicate_payment")
    assert (flagged["status"], flagged["payment_status"]) == ("confirmed", "paid")
    loser = await shop.payment(second["payment_id"])
    assert (loser["status"], loser["duplicate_of"]) == ("captured", first["payment_id"])
    types = [event["type"] for event in await shop.events_of(second["payment_id"])]
    assert "payment.duplicate_detected.v1" in types


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
