"""The main job, embedded and distributed: order, hosted checkout, signed webhook, paid."""

from __future__ import annotations

import asyncio

import pytest

from tests.e2e.conftest import ONLY_DISTRIBUTED
from tests.e2e.shop import PRICE_MINOR, Shop
from tests.support.waiting import until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

GATEWAYS = ["stripe", "generic"]
CAPTURED = "payment.captured.v1"


@pytest.mark.parametrize("gateway", GATEWAYS)
async def test_an_order_paid_at_the_hosted_page_becomes_paid_and_its_stock_goes_down_once(
    shop: Shop, gateway: str
) -> None:
    before = await shop.stock()
    order = await shop.order(quantity=2)
    session = await shop.pay(order, gateway)
    assert session["next_action"]["url"].startswith(shop.stack.sandbox_url)
    await shop.settle(gateway, session["gateway_reference"])
    paid = await shop.wait_for(order, payment_status="paid", status="confirmed")
    assert paid["attention"] is None
    assert await shop.stock() == before - 2
    (entry,) = await shop.books(gateway, order)
    assert (entry["captured_minor"], entry["currency"]) == (2 * PRICE_MINOR, "USD")
    payment = await shop.payment(session["payment_id"])
    assert (payment["status"], payment["amount_captured"]) == ("captured", entry["captured_minor"])
    invoice = await shop.http.get(f"{shop.stack.order_url}/api/v1/orders/{order.id}/invoice", headers=order.headers)
    assert invoice.status_code == 200
    assert invoice.content.startswith(b"%PDF")


@pytest.mark.parametrize("gateway", ["stripe"])
async def test_the_events_of_a_payment_count_without_gaps_and_end_captured(shop: Shop, gateway: str) -> None:
    order = await shop.order()
    session = await shop.pay(order, gateway)
    await shop.settle(gateway, session["gateway_reference"])
    await shop.wait_for(order, payment_status="paid")
    events = await shop.events_of(session["payment_id"], with_a=CAPTURED)
    assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
    types = [event["type"] for event in events]
    assert types[0] == "payment.created.v1"
    assert types[-1] == CAPTURED
    assert all(event["correlationid"] == order.id for event in events)
    order_events = await shop.events_of(order.id, "order-service", with_a="order.paid.v1")
    order_types = [event["type"] for event in order_events]
    assert order_types == ["order.created.v1", "order.paid.v1"]


async def test_a_failed_payment_leaves_the_order_open_and_it_can_be_paid_again(shop: Shop) -> None:
    order = await shop.order()
    first = await shop.pay(order, "generic")
    await shop.settle("generic", first["gateway_reference"], "fail")
    await shop.wait_for(order, status="open", payment_status="failed")
    second = await shop.pay(order, "stripe")
    assert second["payment_id"] != first["payment_id"]
    await shop.settle("stripe", second["gateway_reference"])
    await shop.wait_for(order, status="confirmed", payment_status="paid")


async def test_a_decline_inside_the_page_is_not_the_end_of_the_payment(shop: Shop) -> None:
    order = await shop.order()
    session = await shop.pay(order, "stripe")
    await shop.settle("stripe", session["gateway_reference"], "fail")

    async def declined() -> bool:
        facts = (await shop.payment(session["payment_id"]))["facts"]
        return "declined" in {fact["kind"] for fact in facts}

    await until(declined, within_seconds=20, what="the decline being recorded")
    assert (await shop.read(order))["status"] == "open"
    await shop.settle("stripe", session["gateway_reference"])
    await shop.wait_for(order, payment_status="paid")


@pytest.mark.parametrize("gateway", ["generic"])
async def test_canceling_closes_the_page_at_the_gateway_and_gives_the_stock_back(shop: Shop, gateway: str) -> None:
    before = await shop.stock()
    order = await shop.order(quantity=3)
    await shop.pay(order, gateway)
    answer = await shop.http.post(f"{shop.stack.order_url}/api/v1/orders/{order.id}/cancel", headers=order.headers)
    assert answer.status_code == 200, answer.text
    await shop.wait_for(order, status="canceled")
    assert await shop.stock() == before
    (entry,) = await shop.books(gateway, order)
    assert entry["status"] in ("expired", "canceled")
    assert entry["captured_minor"] == 0


async def test_ten_pay_calls_at_once_open_one_session(shop: Shop) -> None:
    for keys in ([None] * 10, [f"same-key-for-all-{i:04d}" for i in range(10)]):
        order = await shop.order()
        answers = await asyncio.gather(*(shop.pay_answer(order, "stripe", key=key) for key in keys))
        assert {answer.status_code for answer in answers} == {200}, [answer.text for answer in answers]
        assert len({answer.json()["gateway_reference"] for answer in answers}) == 1
        assert len(await shop.books("stripe", order)) == 1


async def test_one_idempotency_key_pays_once_replays_its_answer_and_refuses_another_body(shop: Shop) -> None:
    order = await shop.order()
    key = "one-key-for-this-order"
    answers = await asyncio.gather(*(shop.pay_answer(order, "generic", key=key) for _ in range(10)))
    assert {answer.status_code for answer in answers} <= {200, 409}
    assert all(answer.headers["retry-after"] for answer in answers if answer.status_code == 409)
    assert len(await shop.books("generic", order)) == 1
    replay = await shop.pay_answer(order, "generic", key=key)
    assert (replay.status_code, replay.headers["idempotent-replayed"]) == (200, "true")
    other = await shop.pay_answer(order, "stripe", key=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


async def test_the_same_webhook_fifty_times_at_once_has_one_effect(shop: Shop) -> None:
    order = await shop.order()
    session = await shop.pay(order, "generic")
    body = {
        "event_id": f"evt-{order.id}",
        "payment_id": session["gateway_reference"],
        "transaction_id": session["payment_id"],
        "status": "completed",
        "amount": 18.50,
        "currency": "USD",
    }
    answers = await asyncio.gather(*(shop.webhook(body) for _ in range(50)))
    assert {answer.status_code for answer in answers} == {200}
    assert [answer.json()["status"] for answer in answers].count("accepted") == 1
    assert len({answer.json()["delivery_id"] for answer in answers}) == 1
    await shop.wait_for(order, payment_status="paid")
    events = [event["type"] for event in await shop.events_of(session["payment_id"], with_a=CAPTURED)]
    assert events.count(CAPTURED) == 1


async def test_a_webhook_before_its_payment_is_known_is_parked_and_then_applied(shop: Shop) -> None:
    order = await shop.order()
    body = {
        "event_id": f"early-{order.id}",
        "payment_id": f"early_{order.id}",
        "order_id": order.id,
        "status": "completed",
        "amount": 18.50,
        "currency": "USD",
    }
    assert (await shop.webhook(body)).status_code == 200
    answer = await shop.pay_answer(order, "generic")
    # The parked success may be applied before the session's answer is on its way.
    assert answer.status_code == 200 or answer.json()["code"] == "order_already_paid"
    await shop.wait_for(order, payment_status="paid")


async def test_a_tampered_webhook_is_refused_and_changes_nothing(shop: Shop) -> None:
    order = await shop.order()
    session = await shop.pay(order, "generic")
    body = {"payment_id": session["gateway_reference"], "status": "completed", "amount": 18.50, "currency": "USD"}
    answer = await shop.webhook(body, secret="somebody-elses-secret-000")
    assert answer.status_code == 401
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert (await shop.payment(session["payment_id"]))["status"] == "requires_action"


@pytest.mark.parametrize(("amount", "currency"), [(18.49, "USD"), (185.00, "USD"), (18.50, "EUR")])
async def test_an_amount_that_is_not_ours_is_held_and_never_paid(shop: Shop, amount: float, currency: str) -> None:
    order = await shop.order()
    session = await shop.pay(order, "generic")
    body = {
        "payment_id": session["gateway_reference"],
        "transaction_id": session["payment_id"],
        "status": "completed",
        "amount": amount,
        "currency": currency,
    }
    assert (await shop.webhook(body)).status_code == 200
    await shop.wait_for(order, attention="amount_mismatch")
    assert (await shop.payment(session["payment_id"]))["status"] == "conflicted"
    assert (await shop.read(order))["payment_status"] != "paid"


async def test_a_lost_webhook_is_made_up_for_by_the_sweep(shop: Shop) -> None:
    await shop.faults("generic", {"operation": "webhook", "kind": "lose", "count": 10})
    order = await shop.order()
    session = await shop.pay(order, "generic")
    await shop.settle("generic", session["gateway_reference"])  # else the sweep's first look is too early
    await shop.wait_for(order, payment_status="paid", within_seconds=180)  # it looks again after two minutes
    facts = (await shop.payment(session["payment_id"]))["facts"]
    assert "sweep" in {fact["source"] for fact in facts}


async def test_the_browsers_return_asks_the_gateway_before_any_webhook_comes(shop: Shop) -> None:
    await shop.faults("generic", {"operation": "webhook", "kind": "late", "seconds": 120, "count": 1})
    order = await shop.order()
    session = await shop.pay(order, "generic")
    await shop.settle("generic", session["gateway_reference"])
    url = f"{shop.stack.payment_url}/api/v1/payments/{session['payment_id']}/return?from=page&status=failed&paid=0"

    async def is_captured() -> bool:  # not at the first time, where the sweep asked a moment ago
        answer = await shop.http.get(url)
        assert answer.status_code == 303
        assert f"order_id={order.id}" in answer.headers["location"]
        return "status=captured" in answer.headers["location"]

    await until(is_captured, what="the gateway being asked")
    await shop.wait_for(order, payment_status="paid")


async def test_a_forged_return_proves_nothing(shop: Shop) -> None:
    order = await shop.order()
    session = await shop.pay(order, "stripe")
    url = f"{shop.stack.payment_url}/api/v1/payments/{session['payment_id']}/return"
    forged = {"status": "captured", "redirect_status": "succeeded"}
    answer = await shop.http.post(url, params=forged, data={"status": "success"})
    assert answer.status_code == 303
    assert answer.headers["location"].startswith(shop.stack.order_url)
    assert (await shop.payment(session["payment_id"]))["status"] == "requires_action"


async def test_a_gateway_that_is_down_answers_503_at_once_and_the_order_stays_payable(shop: Shop) -> None:
    order = await shop.order()
    await shop.faults(
        "stripe", {"operation": "create_session", "kind": "error_5xx", "status": 503, "after_work": False, "count": 20}
    )
    answer = await shop.pay_answer(order, "stripe")
    assert answer.status_code == 503
    problem = answer.json()
    assert problem["retryable"] is True
    assert answer.headers["retry-after"]
    await shop.no_faults()
    session = await shop.pay(order, "stripe")
    assert len(await shop.books("stripe", order)) == 1
    await shop.settle("stripe", session["gateway_reference"])
    await shop.wait_for(order, payment_status="paid")


@pytest.mark.parametrize("gateway", GATEWAYS)
async def test_a_session_whose_creation_was_never_answered_is_found_again(shop: Shop, gateway: str) -> None:
    order = await shop.order()
    await shop.faults(
        gateway, {"operation": "create_session", "kind": "error_5xx", "status": 500, "after_work": True, "count": 5}
    )
    unanswered = await shop.pay_answer(order, gateway)
    assert unanswered.status_code == 503
    await shop.no_faults()
    session = await shop.pay(order, gateway)
    assert len(await shop.books(gateway, order)) == 1
    await shop.settle(gateway, session["gateway_reference"])
    await shop.wait_for(order, payment_status="paid")
    types = [event["type"] for event in await shop.events_of(session["payment_id"], with_a=CAPTURED)]
    assert types.index("payment.outcome_unknown.v1") < types.index("payment.outcome_resolved.v1")


async def test_duplicated_and_reordered_webhooks_apply_once(shop: Shop) -> None:
    order = await shop.order()
    session = await shop.pay(order, "stripe")
    await shop.faults(
        "stripe",
        {"operation": "webhook", "kind": "duplicate", "copies": 5, "count": 3},
        {"operation": "webhook", "kind": "reorder", "count": 1},
    )
    await shop.settle("stripe", session["gateway_reference"])
    await shop.wait_for(order, payment_status="paid")
    types = [event["type"] for event in await shop.events_of(session["payment_id"], with_a=CAPTURED)]
    assert types.count(CAPTURED) == 1


@ONLY_DISTRIBUTED
@pytest.mark.parametrize("currency", ["JPY", "KWD", "INR", "SAR", "AED", "EUR"])
async def test_every_currency_is_charged_to_its_last_digit(shop: Shop, currency: str) -> None:
    """By both where a currency's digits are special."""
    products = (await shop.http.get(f"{shop.stack.order_url}/api/v1/products?limit=100")).json()["data"]
    product = next(each for each in products if each["price"]["currency"] == currency)
    for gateway in GATEWAYS if currency in ("JPY", "KWD") else ["generic"]:
        order = await shop.order(product["sku"], 1, currency)
        session = await shop.pay(order, gateway)
        await shop.settle(gateway, session["gateway_reference"])
        await shop.wait_for(order, payment_status="paid")
        (entry,) = await shop.books(gateway, order)
        assert (entry["amount_minor"], entry["currency"]) == (product["price"]["amount_minor"], currency)


async def test_another_orders_secret_opens_nothing(shop: Shop) -> None:
    mine, theirs = await shop.order(), await shop.order()
    url = f"{shop.stack.order_url}/api/v1/orders/{theirs.id}"
    for method, path in (("GET", ""), ("POST", "/cancel"), ("POST", "/stream-tickets"), ("GET", "/invoice")):
        answer = await shop.http.request(method, url + path, headers=mine.headers)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert (await shop.read(theirs))["status"] == "open"


async def test_nothing_secret_or_personal_is_in_any_log_or_event(shop: Shop) -> None:
    order = await shop.order()
    session = await shop.pay(order, "stripe")
    await shop.settle("stripe", session["gateway_reference"])
    await shop.wait_for(order, payment_status="paid")
    logs = shop.stack.log_text()
    of_payment = await shop.events_of(session["payment_id"], with_a=CAPTURED)
    events = str(of_payment + await shop.events_of(order.id, "order-service", with_a="order.paid.v1"))
    for secret in (
        order.secret,
        "@example.com",
        "Zoë Müller",
        "sk_test_e2e",
        "e2e-generic-webhook-secret",
        "whsec_e2e",
    ):
        assert secret not in logs, secret
        assert secret not in events, secret
