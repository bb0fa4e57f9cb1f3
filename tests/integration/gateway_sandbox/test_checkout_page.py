from __future__ import annotations

import asyncio
import re

import httpx
import pytest

from tests.integration.gateway_sandbox.conftest import CreateSession
from tests.support.gateway_sandbox import RunningSandbox

STRIPE_KEY = {"Authorization": "Bearer sk_test_1234"}


async def a_stripe_session(sandbox: RunningSandbox, *, name: str = "Mug", currency: str = "kwd") -> dict[str, str]:
    form = {
        "mode": "payment",
        "success_url": "https://shop.example/ok?s={CHECKOUT_SESSION_ID}",
        "cancel_url": "https://shop.example/cart",
        "line_items[0][quantity]": "2",
        "line_items[0][price_data][currency]": currency,
        "line_items[0][price_data][unit_amount]": "5120",
        "line_items[0][price_data][product_data][name]": name,
    }
    answer = await sandbox.client.post("/sandbox/stripe/v1/checkout/sessions", data=form, headers=STRIPE_KEY)
    assert answer.status_code == 200, answer.text
    session: dict[str, str] = answer.json()
    return session


async def press(sandbox: RunningSandbox, url: str, outcome: str, *, token: str | None = None) -> httpx.Response:
    page = await sandbox.client.get(url)
    found = re.search(r'name="token" value="([^"]+)"', page.text)
    form = {"outcome": outcome, "token": token or (found[1] if found else "")}
    return await sandbox.client.post(f"{url}/outcome", data=form)


async def test_the_page_shows_what_is_to_be_paid_in_the_currencys_digits(sandbox: RunningSandbox) -> None:
    page = await sandbox.client.get((await a_stripe_session(sandbox))["url"])
    assert page.status_code == 200
    for shown in (
        "10.240",
        "KWD",
        "Mug",
        "Quantity 2",
        'data-testid="pay"',
        'data-testid="decline"',
        'data-testid="cancel"',
    ):
        assert shown in page.text


async def test_the_page_escapes_everything_and_runs_no_script(sandbox: RunningSandbox) -> None:
    page = await sandbox.client.get((await a_stripe_session(sandbox, name='"><script>alert(1)</script>'))["url"])
    assert "<script" not in page.text
    assert "&lt;script&gt;" in page.text
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert page.headers["x-frame-options"] == "DENY"


async def test_pay_charges_and_goes_to_the_success_url(sandbox: RunningSandbox) -> None:
    session = await a_stripe_session(sandbox)
    answer = await press(sandbox, session["url"], "succeed")
    assert (answer.status_code, answer.headers["location"]) == (303, f"https://shop.example/ok?s={session['id']}")
    [payment] = (await sandbox.books("stripe"))["payments"]
    assert (payment["status"], payment["captured_minor"]) == ("completed", 10240)
    assert 'data-testid="paid"' in (await sandbox.client.get(session["url"])).text


async def test_twenty_pay_clicks_at_once_charge_once(sandbox: RunningSandbox) -> None:
    session = await a_stripe_session(sandbox)
    page = await sandbox.client.get(session["url"])
    form = {"outcome": "succeed", "token": re.findall(r'name="token" value="([^"]+)"', page.text)[0]}
    answers = await asyncio.gather(*(sandbox.client.post(f"{session['url']}/outcome", data=form) for _ in range(20)))
    assert {answer.status_code for answer in answers} == {303}
    [payment] = (await sandbox.books("stripe"))["payments"]
    assert [operation["operation"] for operation in payment["operations"]] == ["create_session", "charge"]


async def test_a_declined_stripe_card_can_be_tried_again_on_the_page(sandbox: RunningSandbox) -> None:
    session = await a_stripe_session(sandbox)
    declined = await press(sandbox, session["url"], "fail")
    assert declined.status_code == 303
    page = await sandbox.client.get(declined.headers["location"])
    assert 'data-testid="declined"' in page.text
    assert "Pay again" in page.text
    paid = await press(sandbox, session["url"], "succeed")
    assert paid.headers["location"].startswith("https://shop.example/ok")


async def test_cancel_at_stripe_changes_nothing(sandbox: RunningSandbox) -> None:
    session = await a_stripe_session(sandbox)
    answer = await press(sandbox, session["url"], "cancel")
    assert answer.headers["location"] == "https://shop.example/cart"
    books = await sandbox.books("stripe")
    assert (books["payments"][0]["status"], books["webhooks"]) == ("open", [])


@pytest.mark.parametrize(
    ("outcome", "location", "status"),
    [
        ("succeed", "http://shop.example/return", "completed"),
        ("fail", "http://shop.example/return", "failed"),
        ("cancel", "http://shop.example/cancel", "canceled"),
    ],
)
async def test_every_button_of_the_generic_page_ends_the_payment(
    sandbox: RunningSandbox, create_session: CreateSession, outcome: str, location: str, status: str
) -> None:
    session = await create_session()
    answer = await press(sandbox, session["checkout_url"], outcome)
    assert answer.headers["location"] == location
    [payment] = (await sandbox.books("generic"))["payments"]
    assert payment["status"] == status
    other = "cancel" if outcome == "succeed" else "succeed"
    again = await sandbox.client.get(session["checkout_url"])
    assert 'data-testid="pay"' not in again.text
    assert (await press(sandbox, session["checkout_url"], other)).status_code == 403


async def test_a_form_that_did_not_come_from_the_page_is_refused(
    sandbox: RunningSandbox, create_session: CreateSession
) -> None:
    session = await create_session()
    assert (await press(sandbox, session["checkout_url"], "succeed", token="ä")).status_code == 403
    assert (await press(sandbox, session["checkout_url"], "explode")).status_code == 400
    assert (await sandbox.books("generic"))["payments"][0]["status"] == "open"


async def test_an_unknown_page_is_404(sandbox: RunningSandbox) -> None:
    for url in ("/sandbox/stripe/checkout/cs_test_none", "/sandbox/nobody/checkout/x"):
        assert (await sandbox.client.get(url)).status_code == 404


def told_on(page: httpx.Response) -> list[tuple[str, str, str]]:
    """Name, sentence and amount of each line that says what became of the payment."""
    return re.findall(
        r'<li data-testid="([a-z-]+)"><span>([^<]*)</span><span class="amount">([^<]*)</span></li>', page.text
    )


async def test_the_page_of_a_payment_says_what_became_of_its_money(
    sandbox: RunningSandbox, create_session: CreateSession
) -> None:
    session = await create_session(capture="manual")
    payment_id, url = session["payment_id"], session["checkout_url"]
    assert told_on(await sandbox.client.get(url)) == []
    await sandbox.outcome("generic", payment_id, "succeed")
    assert told_on(await sandbox.client.get(url)) == [("held", "Held, not captured yet", "150.00 USD")]
    await sandbox.control("generic", f"sessions/{payment_id}/captures", amount_minor=10000)
    refunded = await sandbox.control("generic", f"sessions/{payment_id}/refunds", amount_minor=2550)
    await sandbox.control("generic", f"sessions/{payment_id}/disputes", amount_minor=100)
    assert told_on(await sandbox.client.get(url)) == [
        ("captured", "Partly captured", "100.00 USD"),
        ("released", "Released", "50.00 USD"),
        ("refunded", "Refunded", "25.50 USD"),
        ("disputed", "Disputed by the buyer", "1.00 USD"),
    ]
    await sandbox.control("generic", f"refunds/{refunded.json()['refunds'][0]['refund_id']}", status="failed")
    assert ("refund-failed", "Refund failed", "25.50 USD") in told_on(await sandbox.client.get(url))


async def test_the_page_writes_amounts_in_the_currencys_digits(sandbox: RunningSandbox) -> None:
    session = await a_stripe_session(sandbox)
    await press(sandbox, session["url"], "succeed")
    assert told_on(await sandbox.client.get(session["url"])) == [("captured", "Captured", "10.240 KWD")]
