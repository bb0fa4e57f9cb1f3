"""Buying with each gateway in a real Chromium, and what the shopper sees of money after the payment."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Route, expect

from tests.e2e.shop import Shop
from tests.e2e.shopper import PHONE, Shopper
from tests.e2e.stack import EmbeddedStack
from tests.support.waiting import until

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(300),
    pytest.mark.xdist_group("embedded"),
    pytest.mark.asyncio(loop_scope="session"),
]

SKU_OF = {"razorpay": "masala-chai"}  # it takes rupees
RECOVERY_SECONDS = 90


@pytest_asyncio.fixture(loop_scope="session")
async def shop(embedded_stack: EmbeddedStack) -> AsyncIterator[Shop]:
    shop = Shop(embedded_stack)
    yield shop
    await shop.no_faults()
    await shop.close()


@pytest_asyncio.fixture(loop_scope="session")
async def shopper(browser: Browser, embedded_stack: EmbeddedStack) -> AsyncIterator[Shopper]:
    shopper = await Shopper.enter(browser, embedded_stack.order_url, viewport=PHONE)
    yield shopper
    assert await shopper.leave() == []


async def buy(shopper: Shopper, gateway: str) -> str:
    order_id = await shopper.order_and_go_to_pay(SKU_OF.get(gateway, "trieste-blend"), gateway)
    await shopper.expect_fits_the_screen()
    await shopper.see("pay").click()
    await shopper.wait_for_order_page(order_id)
    await shopper.expect_status("Paid")
    return order_id


async def payment_of(order_id: str, shop: Shop) -> dict[str, Any]:
    """The payment that the order stands on, as the back office sees it."""
    answer = await shop.http.get(f"{shop.stack.order_url}/api/v1/orders/{order_id}", headers=shop.ops)
    (payment,) = answer.json()["payments"]
    return await shop.payment(payment["payment_id"])


def part_of(payment: dict[str, Any], amount_minor: int) -> dict[str, Any]:
    return {"amount_minor": amount_minor, "currency": payment["amount"]["currency"]}


async def titles(shopper: Shopper) -> list[str]:
    """What happened, as the page tells it."""
    return await shopper.see("timeline").locator(".step-title").all_inner_texts()


@pytest.mark.parametrize("gateway", ["generic", "paypal"])
async def test_a_shopper_buys_and_sees_each_refund_without_loading_the_page_again(
    shopper: Shopper, shop: Shop, gateway: str
) -> None:
    order_id = await buy(shopper, gateway)
    await shopper.expect_live()
    await shopper.page.evaluate("window.sameDocument = true")
    payment = await payment_of(order_id, shop)
    await shop.faults(gateway, {"operation": "refund", "kind": "pending"})
    made = await shop.money(payment["payment_id"], "refunds", amount=part_of(payment, 500), reason="one was broken")
    await shopper.expect_status("Refund pending")
    await shopper.screenshot(f"money-{gateway}-refund-pending")
    await shop.at_gateway(gateway, f"refunds/{made['gateway_reference']}", status="succeeded")
    await shopper.expect_status("Partly refunded")
    await expect(shopper.page.get_by_role("main")).to_contain_text(re.compile(r"5\.00 of .[\d.]+ went back to you"))
    await shop.money(payment["payment_id"], "refunds", reason="the rest too")
    await shopper.expect_status("Refunded")
    await expect(shopper.see("timeline").locator(".step-title")).to_have_count(5)
    told = await titles(shopper)
    assert [told[0], told[2]] == ["Order placed", "Order confirmed"]
    assert all(each.endswith("refunded") for each in told[3:]), told
    await shopper.expect_fits_the_screen()
    await shopper.screenshot(f"money-{gateway}-refunded")
    assert await shopper.page.evaluate("window.sameDocument") is True, "the page was loaded anew"


@pytest.mark.parametrize("gateway", ["stripe"])
async def test_a_dispute_is_shown_while_it_lasts(shopper: Shopper, shop: Shop, gateway: str) -> None:
    order_id = await buy(shopper, gateway)
    payment = await payment_of(order_id, shop)
    entry = await shop.at_gateway(gateway, f"sessions/{payment['gateway_reference']}/disputes", reason="fraudulent")
    await shopper.expect_status("In dispute")
    await shop.at_gateway(gateway, f"disputes/{entry['disputes'][-1]['dispute_id']}", status="won")
    await shopper.expect_status("Paid")


@pytest.mark.parametrize("gateway", ["paypal", "razorpay"])
async def test_money_that_is_only_held_is_said_to_be_and_becomes_paid_when_it_is_captured(
    shopper: Shopper, shop: Shop, gateway: str
) -> None:
    """Razorpay's page is reached by a posted form here, and it posts the shopper back."""

    async def hold_only(route: Route) -> None:
        asked = json.loads(route.request.post_data or "{}")
        await route.continue_(post_data=json.dumps(asked | {"capture": "manual"}))

    await shopper.page.route("**/api/v1/orders/*/pay", hold_only)
    await shopper.fill_cart(SKU_OF.get(gateway, "trieste-blend"))
    await shopper.fill_in_details(gateway)
    await shopper.see("pay").click()
    await shopper.see("decline").wait_for()
    await shopper.expect_fits_the_screen()
    order_id = await shopper.newest_order_id()
    await shopper.see("pay").click()
    await shopper.wait_for_order_page(order_id)
    await shopper.expect_status("Authorized")
    payment = await payment_of(order_id, shop)
    await shop.money(payment["payment_id"], "captures")
    await shopper.expect_status("Paid")


async def test_who_was_declined_at_paypal_is_told_to_choose_another_way_and_pays(
    shopper: Shopper,
) -> None:
    """PayPal's page approves, and the money is declined when we ask for it: waiting would be in vain."""
    order_id = await shopper.order_and_go_to_pay("trieste-blend", "paypal")
    await shopper.see("decline").click()
    await shopper.wait_for_order_page(order_id)
    await shopper.expect_status("Payment pending")
    await expect(shopper.see("checking-note")).to_contain_text("has not come through", timeout=60_000)
    await expect(shopper.see("checking-note").locator(".spinner")).to_have_count(0)
    await shopper.screenshot("money-paypal-declined")
    await shopper.see("pay-again").click()
    await shopper.wait_for_hosted_page("paypal")
    await shopper.see("pay").click()
    await shopper.wait_for_order_page(order_id)
    await shopper.expect_status("Paid")


async def test_a_gateway_whose_breaker_is_open_is_hidden_and_offered_again_when_it_is_back(
    shopper: Shopper, shop: Shop
) -> None:
    async def is_open() -> bool:
        listed = (await shop.http.get(f"{shop.stack.payment_url}/api/v1/gateways")).json()["data"]
        (found,) = [each for each in listed if each["name"] == "generic"]
        return bool(found["breakers"]["session"]["state"] == "open")

    async def is_hidden() -> bool:
        if not await is_open():
            await shop.pay_answer(await shop.order(), "generic")
        await shopper.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        await expect(shopper.see("gateway-generic")).to_have_count(0, timeout=1000)
        return True

    async def is_used_again() -> bool:
        return not await is_open() and (await shop.pay_answer(await shop.order(), "generic")).status_code == 200

    await shop.restock()
    await shopper.fill_cart("trieste-blend")
    await shopper.open("/#/checkout")
    await expect(shopper.see("gateway-generic")).to_be_visible()
    await shop.faults("generic", {"operation": "create_session", "kind": "error_5xx", "status": 503, "count": 1000})
    await until(is_hidden, within_seconds=RECOVERY_SECONDS, what="the gateway being hidden")
    await expect(shopper.see("gateway-stripe")).to_be_visible()
    await shopper.screenshot("money-gateway-hidden")
    await shop.no_faults()
    await until(is_used_again, within_seconds=RECOVERY_SECONDS, what="the gateway being used again")
    await shopper.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    await expect(shopper.see("gateway-generic")).to_be_visible()
