"""The actor of the browser tests: a person with a browser, who sees what is on the page and nothing else."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Locator, Page, expect

from tests.support.waiting import until

DESKTOP: Final = (1280, 900)
PHONE: Final = (390, 844)
PATIENCE_SECONDS: Final = 30
"""On two busy cores; what is waited for comes in milliseconds when there is nothing else to do."""

expect.set_options(timeout=PATIENCE_SECONDS * 1000)  # Playwright's own patience is five seconds

_REPORT_VIOLATIONS = """
document.addEventListener("securitypolicyviolation", (event) => {
  window.reportViolation(`${event.violatedDirective} ${event.blockedURI} on ${event.documentURI}`);
});
"""
_LOST_CONNECTION = r"net::ERR_(CONNECTION_REFUSED|CONNECTION_RESET|EMPTY_RESPONSE|INCOMPLETE_CHUNKED_ENCODING)"


@dataclass
class Complaints:
    """What a browser holds against the pages it has seen."""

    console: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)

    def all(self) -> list[str]:
        return [*self.console, *self.violations, *self.outside]

    def without(self, expected: Sequence[str]) -> list[str]:
        """The rest, where a test makes trouble on purpose."""
        return [text for text in self.all() if not any(re.search(pattern, text) for pattern in expected)]


class Shopper:
    """One browser profile of its own, and the tab that is open in it."""

    def __init__(self, context: BrowserContext, page: Page, base_url: str) -> None:
        self.context = context
        self.page = page
        self.base_url = base_url
        self.complaints = Complaints()
        self._expected: list[str] = []

    @classmethod
    async def enter(
        cls, browser: Browser, base_url: str, *, viewport: tuple[int, int] = DESKTOP, **options: Any
    ) -> Shopper:
        width, height = viewport
        context = await browser.new_context(
            viewport={"width": width, "height": height},
            locale="en-GB",
            timezone_id="UTC",
            accept_downloads=True,
            reduced_motion="reduce",  # a turning spinner costs a core where there is no graphics card
            **options,
        )
        context.set_default_timeout(PATIENCE_SECONDS * 1000)
        shopper = cls(context, await context.new_page(), base_url)
        await shopper._listen()
        return shopper

    async def leave(self) -> list[str]:
        """Close the browser; returns what it has to complain about."""
        await self.context.close()
        return self.complaints.without(self._expected)

    def expects(self, complaint: str) -> None:
        """A pattern of what the browser is going to complain about, whenever it does."""
        self._expected.append(complaint)

    def expect_lost_connections(self) -> None:
        self.expects(_LOST_CONNECTION)

    # --- the shop ---

    async def open(self, path: str = "/") -> None:
        await self.page.goto(self.base_url + path)

    def see(self, test_id: str) -> Locator:
        return self.page.get_by_test_id(test_id)

    def card(self, sku: str) -> Locator:
        return self.page.locator(f'[data-testid="product-card"][data-sku="{sku}"]')

    async def stock_shown(self, sku: str) -> int:
        """What the shelves say; loads them anew."""
        await self.open("/")
        await self.page.reload()
        return int(await self.card(sku).get_attribute("data-stock") or "")

    async def add_to_cart(self, sku: str) -> None:
        await self.card(sku).get_by_test_id("add-to-cart").click()

    async def fill_cart(self, sku: str) -> None:
        await self.open("/")
        await self.add_to_cart(sku)
        await expect(self.see("cart-count")).to_have_text("1")

    async def fill_in_details(
        self, gateway: str, *, email: str = "shopper@example.com", name: str = "Zoë Müller"
    ) -> None:
        await self.open("/#/checkout")
        await self.see("name").fill(name)
        await self.see("email").fill(email)
        await self.see(f"gateway-{gateway}").click()

    async def order_and_go_to_pay(self, sku: str, gateway: str, **details: str) -> str:
        """From the shelf to the gateway's hosted page; returns the order's id."""
        await self.fill_cart(sku)
        await self.fill_in_details(gateway, **details)
        await self.see("pay").click()
        await self.wait_for_hosted_page(gateway)
        return await self.newest_order_id()

    # --- the gateway's page ---

    async def wait_for_hosted_page(self, gateway: str) -> None:
        await self.page.wait_for_url(re.compile(rf"/sandbox/{gateway}/checkout/"))

    @property
    def session_reference(self) -> str:
        """The hosted page that is open, as the gateway calls it."""
        return urlsplit(self.page.url).path.rpartition("/")[2]

    # --- the order's page ---

    async def wait_for_order_page(self, order_id: str) -> None:
        await self.page.wait_for_url(re.compile(rf"/#/orders/{order_id}$"))

    async def expect_status(self, words: str) -> None:
        await expect(self.see("order-status")).to_have_text(words)

    async def expect_live(self, mode: str = "stream") -> None:
        await expect(self.see("live-mode")).to_have_attribute("data-mode", mode)

    async def newest_order_id(self) -> str:
        """Of the orders that the shop's pages keep in this browser."""
        state = await self.context.storage_state()
        kept = {entry["name"]: entry["value"] for origin in state["origins"] for entry in origin["localStorage"]}
        found = re.search(r'"id":"(ord_[0-9a-z]+)"', kept["seven-ports.orders"])
        assert found is not None, kept
        return found.group(1)

    # --- what it looks like ---

    async def expect_fits_the_screen(self) -> None:
        """Nothing makes the page scroll sideways."""
        widths: list[int] = await self.page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
        assert widths[0] <= widths[1], f"{self.page.url} is {widths[0]} wide on a screen of {widths[1]}"

    async def screenshot(self, name: str) -> None:
        """Kept where PAYRAIL_SCREENSHOTS says; otherwise not taken."""
        folder = os.environ.get("PAYRAIL_SCREENSHOTS")
        if folder:
            await self.page.evaluate("for (const image of document.images) image.loading = 'eager'")
            await until(self._pictures_are_there, what="the pictures of the page")
            await self.page.screenshot(path=Path(folder) / f"{name}.png", full_page=True, animations="disabled")

    async def _pictures_are_there(self) -> bool:
        are_there: bool = await self.page.evaluate("[...document.images].every((image) => image.complete)")
        return are_there

    async def _listen(self) -> None:
        await self.context.expose_function("reportViolation", self._note_violation)
        await self.context.add_init_script(_REPORT_VIOLATIONS)
        self.context.on("console", self._hear)
        self.context.on("weberror", lambda error: self.complaints.console.append(str(error.error)))
        self.context.on("request", lambda request: self._notice(request.url))

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.console.append(f"{message.type} {message.text} at {message.location.get('url')}")

    def _note_violation(self, what: str) -> None:
        self.complaints.violations.append(what)

    def _notice(self, url: str) -> None:
        is_ours = url.startswith(self.base_url + "/") or urlsplit(url).scheme in ("blob", "data", "about")
        is_the_browsers_pdf_viewer = urlsplit(url).scheme in ("chrome", "chrome-extension")
        if not is_ours and not is_the_browsers_pdf_viewer:
            self.complaints.outside.append(f"a request to {url}")
