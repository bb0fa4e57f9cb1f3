"""Creating, paying and canceling orders through HTTP, on a real database."""

from __future__ import annotations

from typing import Any

import pytest

from services.order_service.domain.errors import PaymentRefused
from services.order_service.domain.models import PaymentStatus
from services.order_service.use_cases.ports import PaymentRequest
from shared.errors import GatewayOutcomeUnknown, GatewayRejected, GatewayUnavailable, ServiceUnavailable
from tests.integration.order_service.conftest import BuildWorld, World
from tests.integration.order_service.fakes import a_pay_body, an_event, an_order_body, deliver
from tests.support.clock import FakeClock

A_KEY = {"Idempotency-Key": "a-key-of-this-test-0001"}


async def test_an_order_is_priced_by_the_catalogue_and_holds_its_stock(world: World) -> None:
    order = await world.order(items=[{"sku": "moka-pot", "quantity": 3}])

    assert order.document["total"] == {"amount_minor": 11700, "currency": "EUR"}
    assert order.document["items"][0]["unit_price"] == {"amount_minor": 3900, "currency": "EUR"}
    assert (order.document["status"], order.document["payment_status"]) == ("open", "unpaid")
    assert await world.stock() == (10, 3)
    assert await world.events(order.id) == ["order.created.v1"]


async def test_the_secret_is_answered_once_and_stored_as_a_digest(world: World) -> None:
    order = await world.order()
    secret = order.document["client_secret"]
    assert secret.startswith("ocs_")
    assert len(secret) == 47
    assert "client_secret" not in await world.see(order)
    dump = str(await world.rows("SELECT * FROM orders")) + str(await world.rows("SELECT body FROM outbox_messages"))
    assert secret not in dump


@pytest.mark.parametrize(
    ("changes", "status", "code", "pointer"),
    [
        ({"items": [{"sku": "no-such", "quantity": 1}]}, 422, "unknown_product", "/items/0/sku"),
        ({"currency": "USD"}, 422, "currency_mismatch", "/currency"),
        ({"items": [{"sku": "moka-pot", "quantity": 11}]}, 409, "out_of_stock", "/items/0/quantity"),
        ({"items": [{"sku": "moka-pot", "quantity": 1}] * 2}, 422, "duplicate_item", "/items/1/sku"),
        ({"items": [{"sku": "moka-pot", "quantity": 1.0}]}, 422, "invalid_request", "/items/0/quantity"),
        ({"items": [{"sku": "moka-pot", "quantity": -1}]}, 422, "invalid_request", "/items/0/quantity"),
        ({"items": [{"sku": "moka-pot", "quantity": 1, "price": 1}]}, 422, "invalid_request", "/items/0/price"),
        ({"total": {"amount_minor": 1, "currency": "EUR"}}, 422, "invalid_request", "/total"),
    ],
)
async def test_a_wrong_order_is_refused_and_leaves_nothing_behind(
    world: World, changes: dict[str, Any], status: int, code: str, pointer: str
) -> None:
    answer = await world.http.post("/api/v1/orders", json=an_order_body(**changes))
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert pointer in [error["pointer"] for error in answer.json()["errors"]]
    assert await world.value("SELECT count(*) FROM orders") == 0
    assert await world.stock() == (10, 0)


async def test_json_with_one_key_twice_is_refused(world: World) -> None:
    body = (
        '{"items":[{"sku":"moka-pot","quantity":1,"quantity":2}],"currency":"EUR",'
        '"customer":{"email":"a@b.example","name":"A"}}'
    )
    answer = await world.http.post("/api/v1/orders", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


async def test_a_total_over_the_bound_is_refused(world: World) -> None:
    await world.has_product("palace", price=10**12, stock=5)
    answer = await world.http.post("/api/v1/orders", json=an_order_body(items=[{"sku": "palace", "quantity": 2}]))
    assert (answer.status_code, answer.json()["code"]) == (422, "total_out_of_bounds")


async def test_the_same_key_creates_one_order_and_replays_its_answer(world: World) -> None:
    first = await world.http.post("/api/v1/orders", json=an_order_body(), headers=A_KEY)
    again = await world.http.post("/api/v1/orders", json=an_order_body(), headers=A_KEY)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    assert await world.value("SELECT count(*) FROM orders") == 1
    assert await world.stock() == (10, 1)


async def test_the_same_key_with_another_order_is_refused(world: World) -> None:
    await world.http.post("/api/v1/orders", json=an_order_body(), headers=A_KEY)
    other = an_order_body(items=[{"sku": "moka-pot", "quantity": 2}])
    answer = await world.http.post("/api/v1/orders", json=other, headers=A_KEY)
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")


async def test_a_refused_order_does_not_use_up_its_key(world: World) -> None:
    body = an_order_body(items=[{"sku": "moka-pot", "quantity": 11}])
    refused = await world.http.post("/api/v1/orders", json=body, headers=A_KEY)
    assert refused.status_code == 409
    await world.has_product(stock=20)
    accepted = await world.http.post("/api/v1/orders", json=body, headers=A_KEY)
    assert accepted.status_code == 201


async def test_an_order_keeps_price_and_name_when_the_catalogue_changes(world: World) -> None:
    order = await world.order()
    await world.has_product(price=9900, name="Dearer Pot")
    seen = await world.see(order)
    assert (seen["total"]["amount_minor"], seen["items"][0]["name"]) == (3900, "The moka-pot")
    payment_id = await world.open_session(order)
    assert world.payments.requests[payment_id].amount.amount_minor == 3900


async def test_a_retired_product_leaves_the_catalogue_and_its_orders_stand(world: World) -> None:
    order = await world.order()
    gone = await world.http.delete("/api/v1/products/moka-pot", headers=world.token("ops:write"))
    assert gone.status_code == 204
    assert (await world.http.get("/api/v1/products/moka-pot")).status_code == 404
    assert (await world.http.get("/api/v1/products")).json()["data"] == []
    refused = await world.http.post("/api/v1/orders", json=an_order_body())
    assert refused.json()["code"] == "unknown_product"
    await world.gateway_says(await world.open_session(order), PaymentStatus.CAPTURED)
    assert (await world.see(order))["payment_status"] == "paid"
    assert await world.stock() == (9, 0)


async def test_stock_cannot_be_set_below_what_open_orders_hold(world: World) -> None:
    await world.order(items=[{"sku": "moka-pot", "quantity": 3}])
    body = {"name": "Pot", "price": {"amount_minor": 3900, "currency": "EUR"}, "stock": 2}
    answer = await world.http.put("/api/v1/products/moka-pot", json=body, headers=world.token("ops:write"))
    assert (answer.status_code, answer.json()["code"]) == (409, "stock_below_reserved")


async def test_one_customer_cannot_hold_all_the_stock(build_world: BuildWorld) -> None:
    world = await build_world(max_open_orders_per_email=2)
    await world.has_product()
    await world.order()
    await world.order()
    answer = await world.http.post("/api/v1/orders", json=an_order_body())
    assert (answer.status_code, answer.json()["code"]) == (429, "too_many_open_orders")
    assert int(answer.headers["retry-after"]) > 0
    capitals = an_order_body(customer={"email": "ADA@example.com", "name": "Ada"})
    assert (await world.http.post("/api/v1/orders", json=capitals)).status_code == 429
    await world.order(customer={"email": "grace@example.com", "name": "Grace"})


async def test_too_many_orders_from_one_address_wait(build_world: BuildWorld) -> None:
    world = await build_world(order_rate_per_minute=3)
    await world.has_product()
    answers = [await world.http.post("/api/v1/orders", json=an_order_body()) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [201, 201, 201, 429]
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 60


async def test_an_order_is_paid_and_its_stock_goes_down_once(world: World) -> None:
    order = await world.order(items=[{"sku": "moka-pot", "quantity": 2}])
    payment_id = await world.open_session(order)
    assert (await world.see(order))["payment_status"] == "pending"

    await world.gateway_says(payment_id, PaymentStatus.CAPTURED)

    seen = await world.see(order)
    assert (seen["status"], seen["payment_status"], seen["attention"]) == ("confirmed", "paid", None)
    assert seen["invoice_number"] == "INV-000001"
    assert seen["payments"][0]["amount_captured"] == 7800
    assert await world.stock() == (8, 0)
    assert await world.events(order.id) == ["order.created.v1", "order.paid.v1"]


async def test_a_pay_call_answers_with_what_the_browser_does_next(world: World) -> None:
    order = await world.order()
    answer = (await world.pay(order)).json()
    assert answer["order_id"] == order.id
    assert answer["status"] == "requires_action"
    assert answer["gateway"] == "stripe"
    assert answer["gateway_reference"].startswith("cs_")
    assert answer["next_action"] == {"type": "redirect", "url": f"https://gateway.example/page/{answer['payment_id']}"}
    assert answer["expires_at"] == order.document["expires_at"]


async def test_paying_again_gives_the_same_session_with_its_first_terms(world: World) -> None:
    order = await world.order()
    first = (await world.pay(order)).json()
    again = (await world.pay(order, success_url="https://shop.example/elsewhere")).json()
    assert again == first
    assert world.payments.sessions_created[order.id] == 1


async def test_a_pay_call_with_a_key_is_replayed_and_marked(world: World) -> None:
    order = await world.order()
    first = await world.pay(order, headers=A_KEY)
    again = await world.pay(order, headers=A_KEY)
    assert again.json() == first.json()
    assert again.headers["idempotent-replayed"] == "true"
    other = await world.pay(order, headers=A_KEY, gateway="generic")
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


async def test_a_replay_is_for_those_who_may_see_the_order(world: World) -> None:
    order, foreign = await world.order(), await world.order()
    await world.pay(order, headers=A_KEY)
    url = f"/api/v1/orders/{order.id}/pay"
    answer = await world.http.post(url, json=a_pay_body(), headers=foreign.secret | A_KEY)
    assert answer.status_code == 404


@pytest.mark.parametrize("field", ["success_url", "failure_url", "cancel_url"])
@pytest.mark.parametrize(
    "url", ["https://evil.example/", "https://shop.example@evil.example/", "//shop.example", "http://shop.example/"]
)
async def test_a_return_url_elsewhere_is_refused_before_anything_happens(world: World, field: str, url: str) -> None:
    order = await world.order()
    changes: dict[str, Any] = {field: url}
    answer = await world.pay(order, **changes)
    assert (answer.status_code, answer.json()["code"]) == (422, "return_url_not_allowed")
    assert answer.json()["errors"][0]["pointer"] == f"/{field}"
    assert world.payments.calls == []


async def test_a_paid_order_cannot_be_paid_again(world: World) -> None:
    order = await world.paid_order()
    answer = await world.pay(order)
    assert (answer.status_code, answer.json()["code"]) == (409, "order_already_paid")


async def test_an_authorized_order_takes_no_second_payment(world: World) -> None:
    order = await world.order()
    await world.gateway_says(await world.open_session(order, capture="manual"), PaymentStatus.AUTHORIZED)
    assert (await world.see(order))["payment_status"] == "authorized"
    assert (await world.pay(order, gateway="generic")).json()["code"] == "order_already_paid"
    assert (await world.cancel(order)).json()["code"] == "order_already_paid"


async def test_after_a_failed_payment_the_next_call_opens_a_new_one(world: World) -> None:
    order = await world.order()
    first = await world.open_session(order)
    await world.gateway_says(first, PaymentStatus.FAILED)
    assert (await world.see(order))["payment_status"] == "failed"
    second = await world.open_session(order)
    assert second != first
    await world.gateway_says(second, PaymentStatus.CAPTURED)
    seen = await world.see(order)
    assert (seen["status"], [payment["status"] for payment in seen["payments"]]) == (
        "confirmed",
        ["failed", "captured"],
    )


@pytest.mark.parametrize("ended", [PaymentStatus.FAILED, PaymentStatus.EXPIRED, PaymentStatus.CANCELED])
async def test_a_session_that_died_unnoticed_is_replaced_at_once(world: World, ended: PaymentStatus) -> None:
    order = await world.order()
    first = await world.open_session(order)
    world.payments.becomes(first, ended)  # its event has not arrived
    second = await world.open_session(order)
    assert second != first


async def test_a_payment_that_succeeded_unnoticed_is_found_by_the_next_pay_call(world: World) -> None:
    order = await world.order()
    world.payments.becomes(await world.open_session(order), PaymentStatus.CAPTURED)
    answer = await world.pay(order)
    assert (answer.status_code, answer.json()["code"]) == (409, "order_already_paid")
    assert (await world.see(order))["status"] == "confirmed"


async def test_choosing_another_gateway_closes_the_first_session(world: World) -> None:
    order = await world.order()
    first = await world.open_session(order)
    second = await world.open_session(order, gateway="generic")
    assert world.payments.sessions[first].status is PaymentStatus.CANCELED
    assert [payment["status"] for payment in (await world.see(order))["payments"]] == ["canceled", "requires_action"]
    assert second != first


async def test_choosing_another_gateway_after_paying_at_the_first_finds_the_money(world: World) -> None:
    order = await world.order()
    await world.open_session(order)
    world.payments.finds_at_closing(PaymentStatus.CAPTURED)
    answer = await world.pay(order, gateway="generic")
    assert (answer.status_code, answer.json()["code"]) == (409, "order_already_paid")
    assert (await world.see(order))["status"] == "confirmed"
    assert world.payments.sessions_created[order.id] == 1


async def test_a_session_that_cannot_be_closed_does_not_block_another_gateway(world: World) -> None:
    order = await world.order()
    first = await world.open_session(order)
    world.payments.fails_once("close", GatewayUnavailable())
    second = await world.open_session(order, gateway="generic")
    await world.gateway_says(second, PaymentStatus.CAPTURED)
    await world.gateway_says(first, PaymentStatus.CAPTURED)
    seen = await world.see(order)
    assert (seen["status"], seen["payment_status"], seen["attention"]) == ("confirmed", "paid", "duplicate_payment")
    types = ["order.created.v1", "order.paid.v1", "refund.requested.v1", "order.attention_required.v1"]
    assert await world.events(order.id) == types
    assert await world.stock() == (9, 0)


async def test_a_payment_that_is_being_processed_is_waited_for(world: World) -> None:
    order = await world.order()
    await world.gateway_says(await world.open_session(order), PaymentStatus.PROCESSING)
    answer = await world.pay(order, gateway="generic")
    assert (answer.status_code, answer.json()["code"], answer.json()["retryable"]) == (409, "payment_in_progress", True)
    assert (await world.cancel(order)).json()["code"] == "payment_in_progress"


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (GatewayUnavailable(), 503, "gateway_unavailable"),
        (GatewayOutcomeUnknown(), 503, "gateway_outcome_unknown"),
        (GatewayRejected(), 502, "gateway_rejected"),
        (ServiceUnavailable(), 503, "service_unavailable"),
        (PaymentRefused("not enabled", code="gateway_not_enabled"), 422, "gateway_not_enabled"),
    ],
)
async def test_when_the_gateway_fails_the_order_stays_payable(
    world: World, error: Exception, status: int, code: str
) -> None:
    order = await world.order()
    world.payments.fails_once("open", error)
    answer = await world.pay(order)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json()["outcome_known"] is (code != "gateway_outcome_unknown")
    seen = await world.see(order)
    assert (seen["status"], seen["payment_status"] in ("unpaid", "failed")) == ("open", True)
    await world.open_session(order)


async def test_after_a_lost_answer_the_next_call_asks_for_the_same_payment(world: World) -> None:
    order = await world.order()
    world.payments.fails_once("open", GatewayOutcomeUnknown())
    await world.pay(order)
    await world.open_session(order)
    asked = [payment_id for operation, payment_id in world.payments.calls if operation == "open"]
    assert len(set(asked)) == 1


async def test_canceling_closes_the_session_and_restores_the_stock(world: World) -> None:
    order = await world.order(items=[{"sku": "moka-pot", "quantity": 4}])
    payment_id = await world.open_session(order)
    answer = await world.cancel(order)
    assert (answer.status_code, answer.json()["status"]) == (200, "canceled")
    assert world.payments.sessions[payment_id].status is PaymentStatus.CANCELED
    assert await world.stock() == (10, 0)
    assert await world.events(order.id) == ["order.created.v1", "order.canceled.v1"]
    again = await world.cancel(order)
    assert (again.status_code, again.json()["version"]) == (200, answer.json()["version"])
    assert await world.stock() == (10, 0)
    assert (await world.pay(order)).json()["code"] == "order_canceled"


async def test_canceling_an_order_that_was_just_paid_finds_the_money(world: World) -> None:
    order = await world.order()
    await world.open_session(order)
    world.payments.finds_at_closing(PaymentStatus.CAPTURED)
    answer = await world.cancel(order)
    assert (answer.status_code, answer.json()["code"]) == (409, "order_already_paid")
    assert (await world.see(order))["payment_status"] == "paid"
    assert await world.stock() == (9, 0)


async def test_an_order_whose_gateway_cannot_be_asked_is_not_canceled(world: World) -> None:
    order = await world.order()
    await world.open_session(order)
    world.payments.fails_once("close", GatewayUnavailable())
    assert (await world.cancel(order)).status_code == 503
    assert (await world.see(order))["status"] == "open"
    assert (await world.cancel(order)).json()["status"] == "canceled"


async def test_an_order_canceled_while_its_session_is_being_opened_leaves_no_open_session(world: World) -> None:
    order = await world.order()

    async def cancel_meanwhile(request: PaymentRequest) -> None:
        world.payments.before_open = None
        assert (await world.cancel(order)).status_code == 200

    world.payments.before_open = cancel_meanwhile
    answer = await world.pay(order)
    assert (answer.status_code, answer.json()["code"]) == (409, "order_canceled")
    assert {session.status for session in world.payments.sessions.values()} == {PaymentStatus.CANCELED}
    assert await world.stock() == (10, 0)


async def test_an_order_past_its_time_takes_no_payment(world: World, clock: FakeClock) -> None:
    order = await world.order()
    clock.move(31 * 60)
    answer = await world.pay(order)
    assert (answer.status_code, answer.json()["code"]) == (409, "order_expired")


async def test_money_for_a_canceled_order_is_flagged(world: World) -> None:
    order = await world.order()
    payment_id = await world.open_session(order)
    await world.cancel(order)
    await world.gateway_says(payment_id, PaymentStatus.CAPTURED)
    seen = await world.see(order)
    assert (seen["status"], seen["payment_status"], seen["attention"]) == ("canceled", "paid", "late_payment")
    types = ["order.created.v1", "order.canceled.v1", "refund.requested.v1", "order.attention_required.v1"]
    assert await world.events(order.id) == types
    assert await world.stock() == (10, 0)


async def test_a_wrong_amount_is_held_and_never_paid(world: World) -> None:
    order = await world.order()
    snapshot = world.payments.becomes(await world.open_session(order), PaymentStatus.CONFLICTED, amount_captured=1)
    await deliver(world.container, an_event(snapshot))
    seen = await world.see(order)
    assert (seen["status"], seen["payment_status"], seen["attention"]) == ("open", "pending", "amount_mismatch")
    assert (await world.pay(order)).json()["code"] == "payment_under_review"
    assert (await world.cancel(order)).json()["code"] == "payment_under_review"
