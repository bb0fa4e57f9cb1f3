"""The sandbox's Razorpay, called and judged by Razorpay's own Python package."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from html import unescape
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import razorpay
from razorpay.errors import BadRequestError, ServerError

from tests.support.gateway_sandbox import RunningSandbox
from tests.support.postgres import ServiceDatabase
from tests.support.razorpay import KEY_ID, KEY_SECRET, WEBHOOK_SECRET, running_razorpay
from tests.support.waiting import until


@pytest.fixture
async def sandbox(service_database: ServiceDatabase) -> AsyncIterator[RunningSandbox]:
    async with running_razorpay(service_database("gateway_sandbox")) as running:
        yield running


@pytest.fixture
def client(sandbox: RunningSandbox) -> Any:
    official = razorpay.Client(auth=(KEY_ID, KEY_SECRET), base_url=f"{sandbox.url}/sandbox/razorpay")
    official.session.trust_env = False
    yield official
    official.session.close()


async def ask(call: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
    """The package blocks, so it waits in a thread."""
    return await asyncio.to_thread(call, *arguments, **more)


def a_link(**changes: Any) -> dict[str, Any]:
    return {
        "amount": 50_000,
        "currency": "INR",
        "reference_id": "ORD-1001",
        "description": "Order ORD-1001",
        "notify": {"sms": False, "email": False},
        "notes": {"order_ref": "ORD-1001"},
        "callback_url": "https://shop.example/return",
        "callback_method": "get",
        **changes,
    }


def an_order(**changes: Any) -> dict[str, Any]:
    manual = {"capture": "manual", "capture_options": {"manual_expiry_period": 7200, "refund_speed": "normal"}}
    return {"amount": 50_000, "currency": "INR", "receipt": "ORD-1001", "payment": manual, **changes}


async def a_held_payment(sandbox: RunningSandbox, client: Any, order: dict[str, Any]) -> str:
    form = {
        "key_id": KEY_ID,
        "order_id": order["id"],
        "amount": "50000",
        "currency": "INR",
        "name": "Shop",
        "prefill[email]": "ada@example.com",
        "prefill[contact]": "",
        "callback_url": "https://shop.example/return",
    }
    opened = await sandbox.client.post("/sandbox/razorpay/v1/checkout/embedded", data=form)
    assert opened.status_code == 303, opened.text
    await sandbox.outcome("razorpay", order["id"], "succeed")
    [payment] = (await ask(client.order.payments, order["id"]))["items"]
    return str(payment["id"])


async def test_a_link_lives_from_creation_to_refund(sandbox: RunningSandbox, client: Any) -> None:
    link = await ask(client.payment_link.create, a_link())
    assert (link["status"], link["payments"], link["amount_paid"]) == ("created", None, 0)
    [listed] = (await ask(client.payment_link.all, {"reference_id": "ORD-1001"}))["payment_links"]
    assert listed == link

    await sandbox.outcome("razorpay", link["id"], "succeed")
    paid = await ask(client.payment_link.fetch, link["id"])
    [payment] = paid["payments"]
    assert (paid["status"], paid["amount_paid"], payment["status"]) == ("paid", 50_000, "captured")
    fetched = await ask(client.payment.fetch, payment["payment_id"])
    assert (fetched["captured"], fetched["fee"], fetched["tax"]) == (True, 1180, 180)

    part = {"amount": 10_000, "receipt": "RF-1", "notes": {"why": "broken"}}
    refund = await ask(client.payment.refund, payment["payment_id"], part)
    assert (refund["status"], refund["receipt"]) == ("processed", "RF-1")
    assert await ask(client.refund.fetch, refund["id"]) == refund
    assert (await ask(client.payment.fetch_multiple_refund, payment["payment_id"]))["items"] == [refund]
    fetched = await ask(client.payment.fetch, payment["payment_id"])
    assert (fetched["status"], fetched["refund_status"], fetched["amount_refunded"]) == ("captured", "partial", 10_000)
    await ask(client.payment.refund, payment["payment_id"], {})
    fetched = await ask(client.payment.fetch, payment["payment_id"])
    assert (fetched["status"], fetched["refund_status"], fetched["captured"]) == ("refunded", "full", True)
    assert (await ask(client.payment_link.fetch, link["id"]))["status"] == "paid"
    [listed] = (await ask(client.payment.all, {"count": 5}))["items"]
    assert listed == fetched


async def test_an_order_is_held_captured_once_and_listed(sandbox: RunningSandbox, client: Any) -> None:
    order = await ask(client.order.create, an_order())
    assert (order["status"], order["attempts"], order["notes"]) == ("created", 0, [])
    payment = await a_held_payment(sandbox, client, order)
    assert (await ask(client.order.fetch, order["id"]))["status"] == "attempted"
    assert (await ask(client.payment.fetch, payment))["status"] == "authorized"

    with pytest.raises(BadRequestError, match="equal to the amount authorized"):
        await ask(client.payment.capture, payment, 20_000, {"currency": "INR"})
    with pytest.raises(BadRequestError, match="should be captured"):
        await ask(client.payment.refund, payment, {})
    captured = await ask(client.payment.capture, payment, 50_000, {"currency": "INR"})
    assert (captured["status"], captured["captured"]) == ("captured", True)
    with pytest.raises(BadRequestError, match="already been captured"):
        await ask(client.payment.capture, payment, 50_000, {"currency": "INR"})
    [listed] = (await ask(client.order.all, {"receipt": "ORD-1001"}))["items"]
    assert (listed["id"], listed["status"], listed["amount_due"]) == (order["id"], "paid", 0)


async def test_a_hold_that_lapses_is_refunded_though_it_was_never_captured(
    sandbox: RunningSandbox, client: Any
) -> None:
    order = await ask(client.order.create, an_order())
    payment = await a_held_payment(sandbox, client, order)
    await sandbox.client.post(f"/sandbox/control/razorpay/sessions/{payment}/hold", json={"expire": True})
    fetched = await ask(client.payment.fetch, payment)
    assert (fetched["status"], fetched["captured"], fetched["amount_refunded"]) == ("refunded", False, 50_000)
    [release] = (await ask(client.payment.fetch_multiple_refund, payment))["items"]
    assert (release["receipt"], release["amount"]) == (None, 50_000)
    assert await ask(client.refund.fetch, release["id"]) == release


async def test_every_delivery_is_signed_for_the_official_package_and_keeps_its_id_on_retries(
    sandbox: RunningSandbox, client: Any
) -> None:
    sandbox.receiver.answers += [500]
    link = await ask(client.payment_link.create, a_link())
    await sandbox.outcome("razorpay", link["id"], "succeed")
    await until(lambda: len(sandbox.receiver.requests) == 5, what="four events and one retry")
    for request in sandbox.receiver.requests:
        signature = request.headers["x-razorpay-signature"]
        assert client.utility.verify_webhook_signature(request.content.decode(), signature, WEBHOOK_SECRET)
    ids = [request.headers["x-razorpay-event-id"] for request in sandbox.receiver.requests]
    assert len(set(ids)) == 4
    [paid] = [body for body in sandbox.receiver.bodies if body["event"] == "payment_link.paid"][:1]
    entity = paid["payload"]["order"]["entity"]
    assert f"order_{entity['id']}" == paid["payload"]["payment"]["entity"]["order_id"]


async def test_the_link_return_verifies(sandbox: RunningSandbox, client: Any) -> None:
    link = await ask(client.payment_link.create, a_link())
    back = await _press(sandbox, link["short_url"], "succeed")
    query = {name: value for name, [value] in parse_qs(urlsplit(back).query).items()}
    returned = {name.removeprefix("razorpay_") if "link" in name else name: value for name, value in query.items()}
    assert client.utility.verify_payment_link_signature(returned)


async def test_the_form_that_comes_back_from_an_order_verifies(sandbox: RunningSandbox, client: Any) -> None:
    order = await ask(client.order.create, an_order())
    await a_held_payment(sandbox, client, order)
    entry = await sandbox.outcome("razorpay", order["id"], "succeed")
    assert entry.status_code == 200
    page = f"{sandbox.url}/sandbox/razorpay/checkout/{order['id']}"
    assert 'data-testid="paid"' in (await sandbox.client.get(page)).text
    other = await ask(client.order.create, an_order(receipt="ORD-1002"))
    form = {"key_id": KEY_ID, "order_id": other["id"], "amount": "50000", "currency": "INR", "name": "Shop"}
    form |= {"prefill[email]": "a@b.c", "prefill[contact]": "", "callback_url": "https://shop.example/return"}
    await sandbox.client.post("/sandbox/razorpay/v1/checkout/embedded", data=form)
    back = await _press(sandbox, f"{sandbox.url}/sandbox/razorpay/checkout/{other['id']}", "succeed")
    posting = unescape((await sandbox.client.get(back)).text)
    values = dict(re.findall(r'name="(razorpay_\w+)" value="([^"]+)"', posting))
    assert values["razorpay_order_id"] == other["id"]
    assert client.utility.verify_payment_signature(values)


async def _press(sandbox: RunningSandbox, page: str, outcome: str) -> str:
    token = re.search(r'name="token" value="(\w+)"', (await sandbox.client.get(page)).text)
    assert token is not None
    pressed = await sandbox.client.post(f"{page}/outcome", data={"token": token.group(1), "outcome": outcome})
    return str(pressed.headers["location"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"surprise": None}, "not required and should not be sent"),
        ({"customer": {"vip": True}}, "not required and should not be sent"),
        ({"amount": 99}, "atleast INR 1.00"),
        ({"amount": 500.0}, "must be an integer"),
        ({"amount": 99_991, "currency": "KWD"}, "has to be 0"),
        ({"currency": "XXX"}, "not supported"),
        ({"callback_method": "post"}, "callback method is invalid"),
        ({"expire_by": 1_767_225_600}, "at least 15 minutes"),
        ({"upi_link": True}, "not supported in Test Mode"),
        ({"reference_id": "R" * 41}, "40 characters"),
        ({"notes": {"a": "b" * 256}}, "255 characters"),
        ({"notes": {str(number): "x" for number in range(16)}}, "less than or equal to 15"),
    ],
)
async def test_what_razorpay_refuses_is_refused_and_leaves_nothing(
    sandbox: RunningSandbox, client: Any, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(BadRequestError, match=said):
        await ask(client.payment_link.create, a_link(**changes))
    assert (await sandbox.books("razorpay"))["payments"] == []


async def test_a_second_link_with_the_same_reference_is_refused(client: Any) -> None:
    await ask(client.payment_link.create, a_link())
    with pytest.raises(BadRequestError, match="already attempted"):
        await ask(client.payment_link.create, a_link())


async def test_only_an_open_link_can_be_cancelled(sandbox: RunningSandbox, client: Any) -> None:
    link = await ask(client.payment_link.create, a_link())
    assert (await ask(client.payment_link.cancel, link["id"]))["status"] == "cancelled"
    with pytest.raises(BadRequestError, match="can't be cancelled"):
        await ask(client.payment_link.cancel, link["id"])
    assert (await sandbox.outcome("razorpay", link["id"], "succeed")).status_code == 409


async def test_disputes_are_listed_and_fetched(sandbox: RunningSandbox, client: Any) -> None:
    link = await ask(client.payment_link.create, a_link())
    await sandbox.outcome("razorpay", link["id"], "succeed")
    await sandbox.client.post(f"/sandbox/control/razorpay/sessions/{link['id']}/disputes", json={"amount_minor": 100})
    [listed] = (await ask(client.dispute.all))["items"]
    assert await ask(client.dispute.fetch, listed["id"]) == listed
    assert (listed["status"], listed["amount"], listed["amount_deducted"]) == ("open", 100, 0)


async def test_lists_are_paged_by_count_and_skip(sandbox: RunningSandbox, client: Any) -> None:
    for number in range(3):
        link = await ask(client.payment_link.create, a_link(reference_id=f"ORD-{number}"))
        await sandbox.outcome("razorpay", link["id"], "succeed")
    everything = (await ask(client.payment.all, {"count": 100}))["items"]
    pages = [await ask(client.payment.all, {"count": 2, "skip": skip}) for skip in (0, 2)]
    assert [each["id"] for page in pages for each in page["items"]] == [each["id"] for each in everything]
    assert (await ask(client.payment.all, {"from": everything[0]["created_at"] + 10}))["items"] == []
    with pytest.raises(BadRequestError):
        await ask(client.payment.all, {"count": 101})


async def test_a_wrong_secret_and_unknown_ids_are_told_in_razorpays_words(sandbox: RunningSandbox, client: Any) -> None:
    with pytest.raises(BadRequestError, match="The id provided does not exist"):
        await ask(client.payment.fetch, "pay_00000000000000")
    client.auth = (KEY_ID, "wrong")
    with pytest.raises(BadRequestError, match="Authentication failed"):
        await ask(client.payment.all)
    client.auth = (KEY_ID, KEY_SECRET)
    await sandbox.faults("razorpay", {"operation": "list", "kind": "error_5xx", "status": 502})
    with pytest.raises(ServerError):
        await ask(client.payment.all)


@pytest.mark.parametrize(
    "change",
    [{"amount": "49999"}, {"key_id": "rzp_test_other"}, {"order_id": "order_00000000000000"}, {"callback_url": "x:y"}],
)
async def test_a_checkout_form_that_does_not_fit_its_order_is_refused(
    sandbox: RunningSandbox, client: Any, change: dict[str, str]
) -> None:
    order = await ask(client.order.create, an_order())
    form = {"key_id": KEY_ID, "order_id": order["id"], "amount": "50000", "currency": "INR", "name": "Shop"}
    form |= {"prefill[email]": "a@b.c", "prefill[contact]": "", "callback_url": "https://shop.example/return"}
    answer = await sandbox.client.post("/sandbox/razorpay/v1/checkout/embedded", data={**form, **change})
    assert answer.status_code in (400, 401)
