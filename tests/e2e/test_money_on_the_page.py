"""What the shop's page says about money after the payment, and how it goes to gateways: the page alone is judged here.

The documents are the server's own, with what a gateway would have to do first written into them.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Request, Route, expect

from tests.e2e.shopper import Shopper
from tests.e2e.stack import EmbeddedStack

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(300),
    pytest.mark.xdist_group("embedded"),
    pytest.mark.asyncio(loop_scope="session"),
]

TOTAL = 1490  # of a trieste-blend, in EUR


@pytest_asyncio.fixture(loop_scope="session")
async def shopper(browser: Browser, embedded_stack: EmbeddedStack) -> AsyncIterator[Shopper]:
    shopper = await Shopper.enter(browser, embedded_stack.order_url)
    yield shopper
    assert await shopper.leave() == []


def a_payment(status: str = "captured", **changes: Any) -> dict[str, Any]:
    is_money = status in ("authorized", "partially_captured", "captured")
    return {
        "payment_id": "pay_1",
        "gateway": "paypal",
        "status": status,
        "amount": {"amount_minor": TOTAL, "currency": "EUR"},
        "amount_authorized": TOTAL if is_money else 0,
        "amount_captured": TOTAL if status == "captured" else 0,
        "amount_refund_pending": 0,
        "amount_refunded": 0,
        "amount_disputed": 0,
        "outcome_unknown": False,
        "resolution": None,
        "refunds": [],
        "created_at": "2026-01-02T03:04:05Z",
        "updated_at": "2026-01-02T03:05:06Z",
    } | changes


def a_refund(status: str, amount: int = TOTAL) -> dict[str, Any]:
    return {
        "refund_id": "ref_1",
        "payment_id": "pay_1",
        "amount": {"amount_minor": amount, "currency": "EUR"},
        "status": status,
        "reason": None,
        "created_at": "2026-01-02T04:04:05Z",
        "updated_at": "2026-01-02T04:05:06Z",
    }


CONFIRMED: dict[str, Any] = {"status": "confirmed"}
EXPIRED: dict[str, Any] = {"status": "expired", "closed_at": "2026-01-02T03:00:00Z"}
PENDING: dict[str, Any] = {"amount_refund_pending": TOTAL, "refunds": [a_refund("submitted")]}
PART: dict[str, Any] = {"amount_refunded": 500, "refunds": [a_refund("succeeded", 500)]}
ALL: dict[str, Any] = {"amount_refunded": TOTAL, "refunds": [a_refund("succeeded")]}


@pytest.mark.parametrize(
    ("name", "document", "payments", "badge", "words"),
    [
        ("authorized", {"payment_status": "authorized"}, [a_payment("authorized")], "Authorized", ["reserved on your"]),
        (
            "partly-captured",
            CONFIRMED | {"payment_status": "paid", "attention": "amount_mismatch"},
            [a_payment("partially_captured", amount_captured=900, amount_authorized=900)],
            "Paid",
            ["A person is looking into it", "€9.00 of €14.90"],
        ),
        (
            "refund-pending",
            CONFIRMED | {"payment_status": "paid"},
            [a_payment(**PENDING)],
            "Refund pending",
            ["€14.90 is going back to you", "€14.90 refund on its way", "PayPal"],
        ),
        (
            "partly-refunded",
            CONFIRMED | {"payment_status": "partially_refunded"},
            [a_payment(**PART)],
            "Partly refunded",
            ["€5.00 of €14.90 went back", "€5.00 refunded"],
        ),
        ("refunded", CONFIRMED | {"payment_status": "refunded"}, [a_payment(**ALL)], "Refunded", ["€14.90 went back"]),
        (
            "disputed",
            CONFIRMED | {"payment_status": "disputed"},
            [a_payment(amount_disputed=TOTAL)],
            "In dispute",
            ["€14.90 is in dispute"],
        ),
        (
            "late-refunding",
            EXPIRED | {"payment_status": "paid", "attention": "late_payment"},
            [a_payment(resolution="refund_requested")],
            "Refund pending",
            ["after the order had expired", "€14.90 is being refunded", "Order expired"],
        ),
        (
            "late-refunded",
            EXPIRED | {"payment_status": "refunded"},
            [a_payment(resolution="refund_requested", **ALL)],
            "Expired",
            ["€14.90 went back to you"],
        ),
        (
            "late-held",
            EXPIRED | {"status": "canceled", "payment_status": "authorized", "attention": "late_payment"},
            [a_payment("authorized", resolution="release_requested")],
            "Refund pending",
            ["€14.90 reserved on your card is being released", "Order canceled"],
        ),
        (
            "late-waiting",
            EXPIRED | {"payment_status": "paid", "attention": "late_payment"},
            [a_payment()],
            "Paid late",
            ["A person is looking into it"],
        ),
        (
            "late-fulfilled",
            EXPIRED | {"status": "confirmed", "payment_status": "paid"},
            [a_payment(resolution="fulfilled")],
            "Paid",
            ["came late, and your order is confirmed"],
        ),
        (
            "duplicate",
            CONFIRMED | {"payment_status": "paid", "attention": "duplicate_payment"},
            [a_payment(), a_payment(payment_id="pay_2", gateway="razorpay", resolution="refund_requested")],
            "Paid",
            ["paid twice. €14.90 is being refunded", "Razorpay"],
        ),
        (
            "unknown-outcome",
            {"payment_status": "pending", "attention": "unknown_outcome"},
            [a_payment("processing", outcome_unknown=True)],
            "Payment pending",
            ["has not answered clearly", "nothing is charged twice"],
        ),
    ],
)
async def test_the_page_says_where_the_money_is(
    shopper: Shopper,
    name: str,
    document: dict[str, Any],
    payments: list[dict[str, Any]],
    badge: str,
    words: list[str],
) -> None:
    order_id = await shopper.order_and_go_to_pay("trieste-blend", "stripe")
    refunds = [refund for payment in payments for refund in payment["refunds"]]
    shopper.expects(r"status of 502")  # which the browser notes each time that the page tries its stream again

    async def tell(route: Route) -> None:
        if "/stream" in route.request.url:
            await route.fulfill(status=502)
            return
        answer = await route.fetch()
        told = await answer.json() | document | {"payments": payments, "refunds": refunds}
        await route.fulfill(response=answer, body=json.dumps(told))

    await shopper.page.route(re.compile(rf"/api/v1/orders/{order_id}"), tell)
    await shopper.open(f"/#/orders/{order_id}")
    await shopper.expect_status(badge)
    for each in words:
        await expect(shopper.page.get_by_role("main")).to_contain_text(each)
    await shopper.expect_fits_the_screen()
    await shopper.screenshot(f"order-{name}")
    await shopper.page.unroute_all(behavior="ignoreErrors")


async def test_a_gateway_that_cannot_be_reached_is_not_offered_until_it_is_back(shopper: Shopper) -> None:
    is_available = False

    async def tell(route: Route) -> None:
        answer = await route.fetch()
        told = await answer.json()
        for gateway in told["data"]:
            gateway["available"] = is_available or gateway["name"] != "generic"
        await route.fulfill(response=answer, body=json.dumps(told))

    await shopper.page.route("**/api/v1/gateways", tell)
    await shopper.fill_cart("trieste-blend")
    await shopper.open("/#/checkout")
    await expect(shopper.see("gateway-stripe")).to_be_visible()
    await expect(shopper.see("gateway-generic")).to_have_count(0)
    await shopper.see("name").fill("Zoë Müller")
    is_available = True
    await shopper.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    await expect(shopper.see("gateway-generic")).to_be_visible()
    await expect(shopper.see("gateway-stripe").get_by_role("radio")).to_be_checked()
    await expect(shopper.see("name")).to_have_value("Zoë Müller")


async def test_a_gateway_at_another_origin_gets_the_form_that_it_wants(shopper: Shopper) -> None:
    """Its page redirects once more, which the browser holds to the same policy."""
    received: list[Request] = []
    action = {"type": "form_post", "url": "https://gateway.example/pay", "fields": {"hash": "<0f>&", "amount": "14.90"}}

    async def answer_pay(route: Route) -> None:
        answer = await route.fetch()
        await route.fulfill(response=answer, body=json.dumps(await answer.json() | {"next_action": action}))

    async def take(route: Route) -> None:
        received.append(route.request)
        await route.fulfill(body="<!doctype html><title>Gateway</title>", content_type="text/html")

    await shopper.page.route("**/pay", answer_pay)
    await shopper.page.route("https://gateway.example/**", take)
    await shopper.fill_cart("trieste-blend")
    await shopper.fill_in_details("stripe")
    await shopper.see("pay").click()
    await shopper.page.wait_for_url("https://gateway.example/pay")
    assert [(request.method, request.post_data) for request in received] == [
        ("POST", "hash=%3C0f%3E%26&amount=14.90"),
    ]
    shopper.complaints.outside.clear()  # that was the point
    assert shopper.complaints.violations == []
