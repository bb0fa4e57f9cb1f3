"""The storefront, the hosted page, the mailbox and the documentation in a real Chromium, as a shopper uses them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from tests.e2e.shop import Shop
from tests.e2e.shopper import DESKTOP, PHONE, Shopper
from tests.e2e.stack import EmbeddedStack

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(300),
    pytest.mark.xdist_group("embedded"),
    pytest.mark.asyncio(loop_scope="session"),  # the browser lives as long as the session, and so must its loop
]

DOCUMENTED = ["order-service", "payment-service", "webhook-ingest", "reconciler", "gateway-sandbox"]
MARKUP = '<img src=x onerror="window.hacked=1"><b>bold</b>'


@pytest_asyncio.fixture(loop_scope="session")
async def shop(embedded_stack: EmbeddedStack) -> AsyncIterator[Shop]:
    shop = Shop(embedded_stack)
    yield shop
    await shop.no_faults()
    await shop.close()


@pytest_asyncio.fixture(loop_scope="session")
async def shopper(browser: Browser, embedded_stack: EmbeddedStack) -> AsyncIterator[Shopper]:
    shopper = await Shopper.enter(browser, embedded_stack.order_url)
    yield shopper
    assert await shopper.leave() == []


@pytest_asyncio.fixture(loop_scope="session")
async def phone_shopper(browser: Browser, embedded_stack: EmbeddedStack) -> AsyncIterator[Shopper]:
    shopper = await Shopper.enter(
        browser, embedded_stack.order_url, viewport=PHONE, is_mobile=True, has_touch=True, device_scale_factor=2
    )
    yield shopper
    assert await shopper.leave() == []


async def remember_page(page: Page) -> None:
    await page.evaluate("window.sameDocument = true")


async def expect_same_document(page: Page) -> None:
    assert await page.evaluate("window.sameDocument") is True, "the page was loaded anew"


@pytest.mark.parametrize("gateway", ["stripe"])
async def test_a_shopper_buys_and_sees_paid_and_has_the_invoice_and_a_mail(
    shopper: Shopper, gateway: str, tmp_path: Path
) -> None:
    order_id = await shopper.order_and_go_to_pay("trieste-blend", gateway, email=f"{gateway}@example.com")
    await expect(shopper.see("amount")).to_contain_text("14.90")
    await shopper.see("pay").click()
    await shopper.wait_for_order_page(order_id)
    await shopper.expect_status("Paid")
    await shopper.see("invoice").click()
    await expect(shopper.see("invoice-open")).to_have_attribute("href", re.compile("^blob:"))
    async with shopper.page.expect_download() as download:
        await shopper.see("invoice-download").click()
    invoice = tmp_path / "invoice.pdf"
    await (await download.value).save_as(invoice)
    assert invoice.read_bytes().startswith(b"%PDF")
    number = (await download.value).suggested_filename.removesuffix(".pdf")
    await shopper.open("/mailbox")
    mail = shopper.see("mail-item").filter(has_text=f"{gateway}@example.com")
    await mail.click()
    await expect(shopper.see("mail-subject")).to_contain_text(number)
    await expect(shopper.see("mail-text")).to_contain_text(order_id)
    await expect(shopper.see("mail-text")).to_contain_text("14.90 EUR")
    await expect(shopper.see("mail-attachments")).to_have_text(f"{number}.pdf")


async def test_paid_appears_on_the_open_page_by_the_live_stream_alone(shopper: Shopper, shop: Shop) -> None:
    order_id = await shopper.order_and_go_to_pay("moka-pot", "generic")
    session = shopper.session_reference
    await shopper.open(f"/#/orders/{order_id}")
    await shopper.expect_status("Payment pending")
    await shopper.expect_live()
    await remember_page(shopper.page)
    reads: list[str] = []
    shopper.page.on("request", lambda request: reads.append(request.url))
    await shop.settle("generic", session)
    await shopper.expect_status("Paid")
    await expect_same_document(shopper.page)
    asked = [url for url in reads if re.search(rf"/orders/{order_id}(\?|$)", url)]
    assert asked == [], "the page asked instead of being told"


async def test_without_streams_the_page_asks_and_still_becomes_paid(shopper: Shopper, shop: Shop) -> None:
    await shopper.page.route("**/stream?*", lambda route: route.fulfill(status=502))
    order_id = await shopper.order_and_go_to_pay("trieste-blend", "stripe")
    session = shopper.session_reference
    await shopper.open(f"/#/orders/{order_id}")
    await expect(shopper.see("live-mode")).to_be_visible()
    await remember_page(shopper.page)
    await shop.settle("stripe", session)
    await shopper.expect_status("Paid")
    await shopper.expect_live("poll")
    await expect_same_document(shopper.page)
    shopper.complaints.console.clear()  # the browser notes the 502 itself


async def test_the_invoice_opens_in_a_tab_of_its_own(shopper: Shopper) -> None:
    order_id = await shopper.order_and_go_to_pay("trieste-blend", "stripe")
    await shopper.see("pay").click()
    await shopper.wait_for_order_page(order_id)
    await shopper.expect_status("Paid")
    async with shopper.page.expect_popup() as popup:
        await shopper.see("invoice").click()
    assert (await popup.value).url.startswith("blob:")
    await shopper.screenshot("order-paid-with-invoice")


async def test_a_failed_payment_says_so_and_the_order_can_be_paid_again_another_way(shopper: Shopper) -> None:
    order_id = await shopper.order_and_go_to_pay("trieste-blend", "generic")
    await shopper.see("decline").click()
    await shopper.wait_for_order_page(order_id)
    await shopper.expect_status("Payment failed")
    await shopper.screenshot("order-failed")
    await shopper.see("gateway-stripe").click()
    await shopper.see("pay-again").click()
    await shopper.wait_for_hosted_page("stripe")
    await shopper.see("pay").click()
    await shopper.wait_for_order_page(order_id)
    await shopper.expect_status("Paid")
    await expect(shopper.see("timeline")).to_contain_text("declined")


async def test_a_card_declined_at_the_hosted_page_can_be_tried_again_there(shopper: Shopper) -> None:
    order_id = await shopper.order_and_go_to_pay("trieste-blend", "stripe")
    await shopper.see("decline").click()
    await expect(shopper.see("declined")).to_be_visible()
    await shopper.screenshot("hosted-declined")
    await shopper.see("pay").click()
    await shopper.wait_for_order_page(order_id)
    await shopper.expect_status("Paid")


async def test_canceling_on_the_order_page_closes_the_hosted_page_and_frees_the_goods(shopper: Shopper) -> None:
    before = await shopper.stock_shown("harbor-dripper")
    order_id = await shopper.order_and_go_to_pay("harbor-dripper", "generic")
    hosted_page = shopper.page.url
    assert await shopper.stock_shown("harbor-dripper") == before - 1
    await shopper.open(f"/#/orders/{order_id}")
    await shopper.see("cancel-order").click()
    await shopper.see("keep-order").click()
    await shopper.expect_status("Payment pending")
    await shopper.see("cancel-order").click()
    await shopper.see("confirm-cancel").click()
    await shopper.expect_status("Canceled")
    assert await shopper.stock_shown("harbor-dripper") == before
    await shopper.page.goto(hosted_page)
    await expect(shopper.see("ended")).to_be_visible()
    await expect(shopper.see("pay")).to_have_count(0)
    await shopper.see("back").click()
    await shopper.wait_for_order_page(order_id)
    await shopper.expect_status("Canceled")


async def test_canceling_at_the_hosted_page_leads_back_to_an_order_that_can_still_be_paid(shopper: Shopper) -> None:
    order_id = await shopper.order_and_go_to_pay("trieste-blend", "stripe")
    await shopper.see("cancel").click()
    await shopper.wait_for_order_page(order_id)
    await shopper.see("pay-again").click()
    await shopper.wait_for_hosted_page("stripe")
    await shopper.see("pay").click()
    await shopper.wait_for_order_page(order_id)
    await shopper.expect_status("Paid")


async def test_a_tab_closed_instead_of_returning_still_ends_with_a_paid_order(shopper: Shopper, shop: Shop) -> None:
    order_id = await shopper.order_and_go_to_pay("trieste-blend", "stripe")
    session = shopper.session_reference
    await shopper.page.close()
    await shop.settle("stripe", session)
    shopper.page = await shopper.context.new_page()
    await shopper.open("/#/orders")
    await shopper.page.locator(f'[data-order-id="{order_id}"] a').click()
    await shopper.expect_status("Paid")


async def test_the_stock_on_the_shelf_goes_down_once_when_an_order_is_paid(shopper: Shopper) -> None:
    before = await shopper.stock_shown("finjan-set")
    order_id = await shopper.order_and_go_to_pay("finjan-set", "stripe")
    assert await shopper.stock_shown("finjan-set") == before - 1
    await shopper.open(f"/#/orders/{order_id}")
    await shopper.see("pay-again").click()
    await shopper.wait_for_hosted_page("stripe")
    await shopper.see("pay").click()
    await shopper.wait_for_order_page(order_id)
    await shopper.expect_status("Paid")
    assert await shopper.stock_shown("finjan-set") == before - 1


async def test_a_product_in_another_currency_asks_before_the_cart_is_emptied(shopper: Shopper) -> None:
    await shopper.fill_cart("trieste-blend")
    await shopper.add_to_cart("nambu-tetsubin")
    await expect(shopper.see("currency-dialog")).to_be_visible()
    await shopper.screenshot("currency-dialog")
    await shopper.see("keep-cart").click()
    await shopper.open("/#/cart")
    await expect(shopper.see("cart-lines")).to_contain_text("Trieste Dark Blend")
    await shopper.open("/#/")
    await shopper.add_to_cart("nambu-tetsubin")
    await shopper.see("start-new-cart").click()
    await shopper.see("nav-cart").click()
    await expect(shopper.see("cart-lines").get_by_role("listitem")).to_have_count(1)
    await expect(shopper.see("cart-lines")).to_contain_text("Nambu Tetsubin")


@pytest.mark.parametrize(
    ("gateway", "currency", "shown", "hosted"),
    [("generic", "JPY", r"¥[\d,]+", r"[\d,]+"), ("stripe", "KWD", r"KWD.\d+\.\d{3}", r"\d+\.\d{3}")],
)
async def test_a_currency_without_cents_or_with_three_digits_is_shown_and_charged_exactly(
    shopper: Shopper, shop: Shop, gateway: str, currency: str, shown: str, hosted: str
) -> None:
    product = await a_product_in(currency, shop)
    await shopper.open("/")
    await expect(shopper.card(product["sku"]).get_by_test_id("price")).to_have_text(re.compile(f"^{shown}$"))
    order_id = await shopper.order_and_go_to_pay(product["sku"], gateway)
    await expect(shopper.see("amount")).to_have_text(re.compile(rf"^{hosted}\s+{currency}$"))
    amount = re.sub(r"\D", "", await shopper.see("amount").inner_text())
    assert int(amount) == product["price"]["amount_minor"]
    await shopper.see("pay").click()
    await shopper.wait_for_order_page(order_id)
    await shopper.expect_status("Paid")
    await expect(shopper.see("order-total")).to_have_text(re.compile(f"^{shown}$"))
    (entry,) = await books_of(order_id, gateway, shop)
    assert (entry["captured_minor"], entry["currency"]) == (product["price"]["amount_minor"], currency)


async def test_a_purchase_on_a_phone(phone_shopper: Shopper) -> None:
    shopper = phone_shopper
    await shopper.fill_cart("trieste-blend")
    await shopper.expect_fits_the_screen()
    await shopper.see("nav-cart").tap()
    await shopper.see("checkout").tap()
    await shopper.see("name").fill("Zoë Müller")
    await shopper.see("email").fill("phone@example.com")
    await shopper.see("gateway-stripe").tap()
    await shopper.expect_fits_the_screen()
    await shopper.see("pay").tap()
    await shopper.wait_for_hosted_page("stripe")
    await shopper.expect_fits_the_screen()
    await shopper.see("pay").tap()
    await shopper.expect_status("Paid")
    await shopper.expect_fits_the_screen()


async def test_the_history_of_this_browser_knows_its_orders_and_another_browser_does_not(
    shopper: Shopper, browser: Browser, embedded_stack: EmbeddedStack
) -> None:
    order_id = await shopper.order_and_go_to_pay("trieste-blend", "stripe")
    await shopper.see("pay").click()
    await shopper.wait_for_order_page(order_id)
    await shopper.expect_status("Paid")
    await shopper.see("nav-orders").click()
    line = shopper.page.locator(f'[data-order-id="{order_id}"]')
    await expect(line).to_have_attribute("data-status", "paid")
    await expect(line).to_contain_text("Trieste Dark Blend")
    stranger = await Shopper.enter(browser, embedded_stack.order_url)
    await stranger.open("/#/orders")
    await expect(stranger.see("order-history")).to_contain_text("No orders")
    await stranger.open(f"/#/orders/{order_id}")
    await expect(stranger.page.get_by_role("main")).to_contain_text("does not know that order")
    assert await stranger.leave() == []
    await shopper.see("forget-orders").click()
    await shopper.see("confirm-forget").click()
    await expect(shopper.see("order-history")).to_contain_text("No orders")


async def test_an_order_reopened_in_a_browser_without_its_secret_shows_nothing_and_asks_nothing(
    shopper: Shopper, shop: Shop
) -> None:
    order = await shop.order()
    asked: list[str] = []
    shopper.page.on("request", lambda request: asked.append(request.url))
    await shopper.open(f"/#/orders/{order.id}")
    await expect(shopper.page.get_by_role("main")).to_contain_text("does not know that order")
    assert [url for url in asked if "/api/v1/orders" in url] == []


async def test_markup_in_names_is_text_everywhere(shopper: Shopper, shop: Shop) -> None:
    sku = "markup-in-its-name"
    product = {
        "name": MARKUP,
        "description": "<script>window.hacked=1</script>",
        "price": {"amount_minor": 1234, "currency": "USD"},
        "stock": 50,
    }
    url = f"{shop.stack.order_url}/api/v1/products/{sku}"
    assert (await shop.http.put(url, json=product, headers=shop.ops)).status_code == 200
    try:
        await shopper.open("/")
        await expect(shopper.card(sku).get_by_test_id("product-name")).to_have_text(MARKUP)
        order_id = await shopper.order_and_go_to_pay(sku, "stripe", name=MARKUP, email="markup@example.com")
        await expect(shopper.page.get_by_role("listitem")).to_contain_text(MARKUP)
        await shopper.see("pay").click()
        await shopper.wait_for_order_page(order_id)
        await shopper.expect_status("Paid")
        await expect(shopper.page.get_by_role("complementary")).to_contain_text(MARKUP)
        await shopper.see("nav-orders").click()
        await expect(shopper.see("order-history-item")).to_contain_text(MARKUP)
        await shopper.open("/mailbox")
        await shopper.see("mail-item").filter(has_text="markup@example.com").click()
        await expect(shopper.see("mail-text")).to_contain_text(f"Hello {MARKUP}")
        assert await shopper.page.evaluate("window.hacked") is None
        assert await shopper.page.locator("b", has_text="bold").count() == 0
    finally:
        assert (await shop.http.delete(url, headers=shop.ops)).status_code == 204


async def test_a_status_in_the_address_pays_nothing(shopper: Shopper) -> None:
    order_id = await shopper.order_and_go_to_pay("trieste-blend", "stripe")
    for address in (f"/?order={order_id}&status=paid#/orders/{order_id}", f"/?order_id={order_id}&status=succeeded"):
        await shopper.open(address)
        await shopper.wait_for_order_page(order_id)  # the address is cleaned of what it came with
        await shopper.expect_status("Payment pending")
        await expect(shopper.see("checking-note")).to_be_visible()
        await expect(shopper.see("invoice")).to_have_count(0)


async def test_pressing_pay_twice_makes_one_order(shopper: Shopper, shop: Shop) -> None:
    await shopper.fill_cart("trieste-blend")
    await shopper.fill_in_details("generic", email="twice@example.com")
    await shopper.see("pay").dblclick()
    await shopper.wait_for_hosted_page("generic")
    url = f"{shop.stack.order_url}/api/v1/orders?customer_email=twice@example.com"
    (order,) = (await shop.http.get(url, headers=shop.ops)).json()["data"]
    assert len(order["payments"]) == 1


async def test_going_back_from_the_hosted_page_leads_to_the_order_and_on_again(shopper: Shopper) -> None:
    order_id = await shopper.order_and_go_to_pay("trieste-blend", "stripe")
    hosted_page = shopper.page.url
    await shopper.page.go_back()
    await shopper.wait_for_order_page(order_id)
    await shopper.expect_status("Payment pending")
    await expect(shopper.see("hand-over")).to_have_count(0)
    await shopper.see("pay-again").click()
    await shopper.wait_for_hosted_page("stripe")
    assert shopper.page.url == hosted_page


async def test_what_is_wrong_with_the_details_is_said_at_the_field(shopper: Shopper) -> None:
    await shopper.fill_cart("trieste-blend")
    await shopper.fill_in_details("stripe", name="Zoë", email="not an address")
    await shopper.see("pay").click()
    await expect(shopper.see("email")).to_have_attribute("aria-invalid", "true")
    await expect(shopper.see("email")).to_be_focused()
    await shopper.see("email").fill("zoe@example.com")
    await expect(shopper.see("email")).to_have_attribute("aria-invalid", "false")


async def test_an_address_is_taken_along(shopper: Shopper, shop: Shop) -> None:
    await shopper.fill_cart("trieste-blend")
    await shopper.fill_in_details("stripe")
    await shopper.see("phone").fill("+965 1234 5678")
    await shopper.see("shipping-address").locator("summary").click()
    for name, value in {
        "line1": "Gulf Road 1",
        "city": "Kuwait City",
        "state": "Capital",
        "postal_code": "13001",
    }.items():
        await shopper.see(name).fill(value)
    await shopper.see("country").select_option("KW")
    await shopper.see("pay").click()
    await shopper.wait_for_hosted_page("stripe")
    url = f"{shop.stack.order_url}/api/v1/orders/{await shopper.newest_order_id()}"
    order = (await shop.http.get(url, headers=shop.ops)).json()
    assert order["shipping_address"]["state"] == "Capital"
    assert (order["shipping_address"]["country"], order["customer"]["phone"]) == ("KW", "+965 1234 5678")


async def test_a_gateway_that_is_down_is_said_on_the_order_page_and_paying_works_when_it_is_back(
    shopper: Shopper, shop: Shop
) -> None:
    await shopper.fill_cart("trieste-blend")
    await shop.faults("generic", {"operation": "create_session", "kind": "error_5xx", "count": 20})
    await shopper.fill_in_details("generic")
    await shopper.see("pay").click()
    await expect(shopper.see("order-error")).to_contain_text("Your goods stay set aside", timeout=60_000)
    await shopper.screenshot("order-gateway-down")
    shopper.complaints.console.clear()  # the browser notes the 503 itself
    await shop.no_faults()
    order_id = await shopper.newest_order_id()
    await shopper.see("gateway-stripe").click()
    await shopper.see("pay-again").click()
    await shopper.wait_for_hosted_page("stripe")
    await shopper.see("pay").click()
    await shopper.wait_for_order_page(order_id)
    await shopper.expect_status("Paid")


async def test_the_page_lives_through_a_killed_server_and_shows_the_final_state(
    shopper: Shopper, shop: Shop, embedded_stack: EmbeddedStack
) -> None:
    shopper.expect_lost_connections()
    order_id = await shopper.order_and_go_to_pay("trieste-blend", "stripe")
    session = shopper.session_reference
    await shopper.open(f"/#/orders/{order_id}")
    await shopper.expect_live()
    await remember_page(shopper.page)
    embedded_stack.process.kill9()
    try:
        await shopper.expect_live("connecting")
        await shopper.expect_status("Payment pending")
    finally:
        embedded_stack.start_after_a_kill()
    await shop.settle("stripe", session)
    await shopper.expect_status("Paid")
    await shopper.expect_live()
    await expect_same_document(shopper.page)


@pytest.mark.parametrize("service", DOCUMENTED)
async def test_the_documentation_of_a_service_lists_its_operations(shopper: Shopper, service: str) -> None:
    await shopper.open("/docs")
    await shopper.page.locator(f'a[href="/docs/{service}"]').click()
    operations = shopper.page.locator(".opblock")
    await expect(operations.first).to_be_visible()
    await operations.first.locator(".opblock-summary").click()
    await expect(operations.first.locator(".opblock-body")).to_be_visible()
    await shopper.screenshot(f"docs-{service}")


async def test_every_link_of_the_documentation_index_leads_somewhere(shopper: Shopper, shop: Shop) -> None:
    await shopper.open("/docs")
    links = await shopper.page.locator("main a").evaluate_all("links => links.map((link) => link.href)")
    assert len(links) >= 14
    for link in links:
        assert (await shop.http.get(link)).status_code == 200, link


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [pytest.param(DESKTOP, id="desktop"), pytest.param(PHONE, id="phone")])
async def test_every_page_fits_its_screen(
    browser: Browser, embedded_stack: EmbeddedStack, viewport: tuple[int, int], scheme: str
) -> None:
    shopper = await Shopper.enter(browser, embedded_stack.order_url, viewport=viewport, color_scheme=scheme)
    names = iter(f"{viewport[0]}-{scheme}-{number:02}" for number in range(1, 100))

    async def look(name: str) -> None:
        await shopper.expect_fits_the_screen()
        await shopper.screenshot(f"{next(names)}-{name}")

    await shopper.open("/")
    await expect(shopper.card("moka-pot")).to_be_visible()
    await look("shop")
    await shopper.add_to_cart("moka-pot")
    await shopper.add_to_cart("trieste-blend")
    await shopper.open("/#/cart")
    await expect(shopper.see("cart-total")).to_be_visible()
    await look("cart")
    await shopper.fill_in_details("stripe")
    await look("checkout")
    await shopper.see("pay").click()
    await shopper.wait_for_hosted_page("stripe")
    await look("hosted")
    hosted_page = shopper.page.url
    order_id = await shopper.newest_order_id()
    await shopper.open(f"/#/orders/{order_id}")
    await shopper.expect_live()
    await look("order-pending")
    await shopper.page.goto(hosted_page)
    await shopper.see("pay").click()
    await shopper.wait_for_order_page(order_id)
    await shopper.expect_status("Paid")
    await shopper.expect_live()
    await look("order-paid")
    await shopper.see("nav-orders").click()
    await expect(shopper.see("order-history-item")).to_have_count(1)
    await look("orders")
    await shopper.page.goto(hosted_page)
    await look("hosted-done")
    await shopper.open("/mailbox")
    await expect(shopper.see("mail-item").first).to_be_visible()
    await look("mailbox")
    await shopper.open("/docs")
    await look("docs")
    assert await shopper.leave() == []


async def a_product_in(currency: str, shop: Shop) -> dict[str, Any]:
    products = (await shop.http.get(f"{shop.stack.order_url}/api/v1/products?limit=100")).json()["data"]
    found: dict[str, Any] = next(
        each for each in products if each["price"]["currency"] == currency and each["available_stock"] > 3
    )
    return found


async def books_of(order_id: str, gateway: str, shop: Shop) -> list[dict[str, Any]]:
    answer = await shop.http.get(f"{shop.stack.sandbox_url}/sandbox/control/{gateway}/books")
    return [entry for entry in answer.json()["payments"] if entry.get("order_id") == order_id]
