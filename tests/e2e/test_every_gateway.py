"""Each registered gateway is bought with: in a browser by the embedded shop, and through RabbitMQ by the distributed
one. Nothing here knows a gateway by its name."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from services.payment_service.gateways.catalogue import gateway_definitions
from tests.e2e.shop import Shop
from tests.e2e.shopper import PHONE, Shopper
from tests.e2e.stack import DistributedStack, EmbeddedStack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

GATEWAYS = sorted(gateway_definitions())
SHELVES = {
    "INR": "masala-chai",
    "USD": "red-hook-espresso",
    "SAR": "khawlani-light",
    "AED": "karak-tin",
    "KWD": "finjan-set",
    "EUR": "trieste-blend",
}


async def currency_of(gateway: str, base_url: str) -> str:
    """One that the shop has shelves for and the account here takes."""
    async with httpx.AsyncClient(base_url=base_url, trust_env=False, timeout=30) as http:
        offered = (await http.get("/api/v1/gateways")).json()["data"]
    [takes] = [each["currencies"] for each in offered if each["name"] == gateway]
    return next(each for each in SHELVES if takes is None or each in takes)


@pytest_asyncio.fixture(loop_scope="session")
async def shopper(browser: Browser, embedded_stack: EmbeddedStack) -> AsyncIterator[Shopper]:
    shopper = await Shopper.enter(browser, embedded_stack.order_url, viewport=PHONE)
    yield shopper
    assert await shopper.leave() == []


@pytest.fixture
async def distributed(distributed_stack: DistributedStack) -> AsyncIterator[Shop]:
    shop = Shop(distributed_stack)
    yield shop
    await shop.no_faults()
    await shop.close()


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.xdist_group("embedded")
@pytest.mark.parametrize("gateway", GATEWAYS)
async def test_a_shopper_buys_with_it_in_a_browser(
    shopper: Shopper, embedded_stack: EmbeddedStack, gateway: str
) -> None:
    await shopper.fill_cart(SHELVES[await currency_of(gateway, embedded_stack.payment_url)])
    await shopper.fill_in_details(gateway, name="Zoë Müller")
    await expect(shopper.see(f"gateway-{gateway}")).to_contain_text(gateway_definitions()[gateway].facts.blurb)
    await shopper.see("pay").click()
    await shopper.wait_for_hosted_page(gateway)
    order_id = await shopper.newest_order_id()
    await shopper.expect_fits_the_screen()
    await shopper.screenshot(f"every-{gateway}-page")
    await shopper.see("pay").click()
    await shopper.wait_for_order_page(order_id)
    await shopper.expect_status("Paid")


@pytest.mark.xdist_group("distributed")
@pytest.mark.parametrize("gateway", GATEWAYS)
async def test_an_order_is_paid_and_given_back_through_rabbitmq(distributed: Shop, gateway: str) -> None:
    shop, currency = distributed, await currency_of(gateway, distributed.stack.payment_url)
    await shop.restock(SHELVES[currency])
    order = await shop.order(sku=SHELVES[currency], quantity=2, currency=currency)
    session = await shop.pay(order, gateway)
    await shop.visit(session["next_action"])
    payment = await shop.payment(session["payment_id"])
    [opened] = await shop.books_of(gateway, payment)
    await shop.settle(gateway, opened["gateway_reference"])
    await shop.wait_for(order, payment_status="paid", status="confirmed")
    [entry] = [each for each in await shop.books_of(gateway, payment) if each["captured_minor"]]
    assert (entry["captured_minor"], entry["currency"]) == (order.total_minor, currency)
    refund = await shop.money(session["payment_id"], "refunds", reason="sent back")
    [entry] = [each for each in await shop.books_of(gateway, payment) if each["refunded_minor"]]
    for each in entry["refunds"]:
        if each["status"] == "pending":
            await shop.at_gateway(gateway, f"refunds/{each['refund_id']}", status="succeeded")
            await shop.sync(session["payment_id"])
    await shop.wait_for(order, payment_status="refunded")
    assert (await shop.payment(session["payment_id"]))["amount_refunded"] == order.total_minor, refund
