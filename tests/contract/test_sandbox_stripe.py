"""The sandbox's Stripe, called with Stripe's own Python package."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import stripe

from tests.support.gateway_sandbox import STRIPE_SECRET, Receiver, RunningSandbox, running_sandbox
from tests.support.postgres import ServiceDatabase
from tests.support.waiting import until

# The official package hands its form to httpx in a way that httpx has deprecated; that is theirs to change.
pytestmark = pytest.mark.filterwarnings("ignore:Use .content=:DeprecationWarning")

KEY = "sk_test_51Sandbox0000000000000000"

MakeClient = Callable[..., stripe.StripeClient]


@pytest.fixture
async def sandbox(service_database: ServiceDatabase) -> AsyncIterator[RunningSandbox]:
    async with running_sandbox(service_database("gateway_sandbox")) as running:
        yield running


@pytest.fixture
async def make_client(sandbox: RunningSandbox) -> AsyncIterator[MakeClient]:
    transports: list[stripe.HTTPXClient] = []

    def make(key: str = KEY) -> stripe.StripeClient:
        transports.append(stripe.HTTPXClient())
        base = f"{sandbox.url}/sandbox/stripe"
        return stripe.StripeClient(key, base_addresses={"api": base}, http_client=transports[-1], max_network_retries=0)

    yield make
    for transport in transports:
        await transport.close_async()  # type: ignore[no-untyped-call]


@pytest.fixture
def client(make_client: MakeClient) -> stripe.StripeClient:
    return make_client()


def a_session(**overrides: Any) -> Any:
    return {
        "mode": "payment",
        "success_url": "https://shop.example/done?session={CHECKOUT_SESSION_ID}",
        "cancel_url": "https://shop.example/back",
        "client_reference_id": "ORDER0001REF",
        "line_items": [
            {
                "quantity": 2,
                "price_data": {"currency": "usd", "unit_amount": 1999, "product_data": {"name": "Mug <b>"}},
            },
            {"quantity": 1, "price_data": {"currency": "usd", "unit_amount": 500, "product_data": {"name": "Post"}}},
        ],
        "metadata": {"order_ref": "ORDER0001REF"},
        "payment_intent_data": {"metadata": {"order_ref": "ORDER0001REF"}},
        **overrides,
    }


def with_unit_amount(unit_amount: int, currency: str = "usd") -> Any:
    price = {"currency": currency, "unit_amount": unit_amount, "product_data": {"name": "Thing"}}
    return a_session(line_items=[{"quantity": 1, "price_data": price}])


def headers_of(answered: stripe.StripeObject) -> Any:
    response = answered.last_response
    assert response is not None
    return response.headers


async def a_paid_intent(sandbox: RunningSandbox, client: stripe.StripeClient, **overrides: Any) -> str:
    session = await client.v1.checkout.sessions.create_async(a_session(**overrides))
    assert (await sandbox.outcome("stripe", session.id, "succeed")).status_code == 200
    session = await client.v1.checkout.sessions.retrieve_async(session.id)
    assert isinstance(session.payment_intent, str)
    return session.payment_intent


async def test_a_session_is_created_open_and_without_a_payment_intent(client: stripe.StripeClient) -> None:
    session = await client.v1.checkout.sessions.create_async(a_session())
    assert session.id.startswith("cs_test_")
    assert (session.status, session.payment_status, session.payment_intent) == ("open", "unpaid", None)
    assert (session.amount_total, session.currency, session.livemode) == (4498, "usd", False)
    assert session.client_reference_id == "ORDER0001REF"
    assert session.url is not None
    assert str(headers_of(session)["request-id"]).startswith("req_")


async def test_a_paid_session_shows_its_intent_and_charge_when_expanded(
    sandbox: RunningSandbox, client: stripe.StripeClient
) -> None:
    session = await client.v1.checkout.sessions.create_async(a_session())
    await sandbox.outcome("stripe", session.id, "succeed")
    session = await client.v1.checkout.sessions.retrieve_async(
        session.id, {"expand": ["payment_intent.latest_charge", "line_items"]}
    )
    assert (session.status, session.payment_status, session.url) == ("complete", "paid", None)
    intent = session.payment_intent
    assert isinstance(intent, stripe.PaymentIntent)
    assert (intent.status, intent.amount, intent.amount_received) == ("succeeded", 4498, 4498)
    assert intent.metadata.to_dict() == {"order_ref": "ORDER0001REF"}
    charge = intent.latest_charge
    assert isinstance(charge, stripe.Charge)
    assert (charge.paid, charge.captured, charge.amount_captured, charge.refunded) == (True, True, 4498, False)
    assert session.line_items is not None
    assert [item.amount_total for item in session.line_items.data] == [3998, 500]


async def test_the_same_key_and_parameters_replay_the_first_answer(
    sandbox: RunningSandbox, client: stripe.StripeClient
) -> None:
    first = await client.v1.checkout.sessions.create_async(a_session(), {"idempotency_key": "key-1"})
    again = await client.v1.checkout.sessions.create_async(a_session(), {"idempotency_key": "key-1"})
    assert again.id == first.id
    assert "Idempotent-Replayed" not in headers_of(first)
    assert headers_of(again)["Idempotent-Replayed"] == "true"
    assert len((await sandbox.books("stripe"))["payments"]) == 1


async def test_the_same_key_with_other_parameters_is_an_idempotency_error(client: stripe.StripeClient) -> None:
    await client.v1.checkout.sessions.create_async(a_session(), {"idempotency_key": "key-1"})
    with pytest.raises(stripe.IdempotencyError) as caught:
        await client.v1.checkout.sessions.create_async(with_unit_amount(777), {"idempotency_key": "key-1"})
    assert caught.value.http_status == 400


async def test_the_same_key_at_the_same_time_is_in_use(sandbox: RunningSandbox, client: stripe.StripeClient) -> None:
    await sandbox.faults("stripe", {"operation": "create_session", "kind": "delay", "seconds": 30})
    slow = asyncio.create_task(client.v1.checkout.sessions.create_async(a_session(), {"idempotency_key": "key-1"}))
    await until(lambda: sandbox.container.sandbox.keys_in_flight.count, what="the first call being at work")
    try:
        with pytest.raises(stripe.APIError) as caught:
            await client.v1.checkout.sessions.create_async(a_session(), {"idempotency_key": "key-1"})
    finally:
        slow.cancel()
        await asyncio.wait([slow])
    assert caught.value.http_status == 409
    assert '"code":"idempotency_key_in_use"' in str(caught.value.http_body)


async def test_failed_validation_leaves_the_key_free(client: stripe.StripeClient) -> None:
    with pytest.raises(stripe.InvalidRequestError):
        await client.v1.checkout.sessions.create_async(with_unit_amount(1), {"idempotency_key": "key-1"})
    session = await client.v1.checkout.sessions.create_async(a_session(), {"idempotency_key": "key-1"})
    assert session.status == "open"


async def test_a_stored_500_is_replayed_although_the_work_was_done(
    sandbox: RunningSandbox, client: stripe.StripeClient
) -> None:
    await sandbox.faults(
        "stripe", {"operation": "create_session", "kind": "error_5xx", "status": 500, "after_work": True}
    )
    for _ in range(2):
        with pytest.raises(stripe.APIError):
            await client.v1.checkout.sessions.create_async(a_session(), {"idempotency_key": "key-1"})
    assert len((await sandbox.books("stripe"))["payments"]) == 1


async def test_a_503_after_the_work_is_repaired_by_the_same_key(
    sandbox: RunningSandbox, client: stripe.StripeClient
) -> None:
    await sandbox.faults(
        "stripe", {"operation": "create_session", "kind": "error_5xx", "status": 503, "after_work": True}
    )
    with pytest.raises(stripe.APIError):
        await client.v1.checkout.sessions.create_async(a_session(), {"idempotency_key": "key-1"})
    session = await client.v1.checkout.sessions.create_async(a_session(), {"idempotency_key": "key-1"})
    [payment] = (await sandbox.books("stripe"))["payments"]
    assert payment["gateway_reference"] == session.id


async def test_a_refused_operation_is_remembered_too(sandbox: RunningSandbox, client: stripe.StripeClient) -> None:
    intent = await a_paid_intent(sandbox, client)
    for replayed in (None, "true"):
        with pytest.raises(stripe.InvalidRequestError) as caught:
            await client.v1.payment_intents.capture_async(intent, options={"idempotency_key": "cap-1"})
        assert caught.value.code == "payment_intent_unexpected_state"
        assert (caught.value.headers or {}).get("Idempotent-Replayed") == replayed


@pytest.mark.parametrize(
    ("parameters", "code", "param"),
    [
        ({k: v for k, v in a_session().items() if k != "line_items"}, "parameter_missing", "line_items"),
        ({k: v for k, v in a_session().items() if k != "mode"}, "parameter_missing", "mode"),
        ({k: v for k, v in a_session().items() if k != "success_url"}, "parameter_missing", "success_url"),
        (a_session(surprise="yes"), "parameter_unknown", "surprise"),
        (a_session(success_url="javascript:alert(1)"), "url_invalid", "success_url"),
        (with_unit_amount(49), "amount_too_small", "line_items"),
        (with_unit_amount(100_000_000), "amount_too_large", "line_items"),
        (with_unit_amount(-5), "parameter_invalid_integer", "line_items[0][price_data][unit_amount]"),
        (with_unit_amount(5123, "kwd"), None, "line_items"),
        (with_unit_amount(150, "isk"), None, "line_items"),
        (with_unit_amount(500, "xyz"), None, "line_items[0][price_data][currency]"),
        (a_session(expires_at=1), None, "expires_at"),
        (a_session(expand=["nonsense"]), None, "expand"),
    ],
)
async def test_wrong_parameters_are_named(
    sandbox: RunningSandbox, client: stripe.StripeClient, parameters: dict[str, Any], code: str | None, param: str
) -> None:
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await client.v1.checkout.sessions.create_async(parameters)  # type: ignore[arg-type]
    assert (caught.value.http_status, caught.value.code, caught.value.param) == (400, code, param)
    assert (await sandbox.books("stripe"))["payments"] == []


@pytest.mark.parametrize(
    ("currency", "wire_amount", "amount_minor"), [("kwd", 5120, 5120), ("jpy", 500, 500), ("isk", 50000, 500)]
)
async def test_the_books_count_in_iso_minor_units(
    sandbox: RunningSandbox, client: stripe.StripeClient, currency: str, wire_amount: int, amount_minor: int
) -> None:
    session = await client.v1.checkout.sessions.create_async(with_unit_amount(wire_amount, currency))
    assert session.amount_total == wire_amount
    [payment] = (await sandbox.books("stripe"))["payments"]
    assert (payment["amount_minor"], payment["currency"]) == (amount_minor, currency.upper())


@pytest.mark.parametrize("key", ["sk_live_51Sandbox0000", "nonsense"])
async def test_a_key_of_another_mode_is_refused(make_client: MakeClient, key: str) -> None:
    with pytest.raises(stripe.AuthenticationError):
        await make_client(key).v1.checkout.sessions.create_async(a_session())


async def test_unknown_objects_and_urls_are_404(sandbox: RunningSandbox, client: stripe.StripeClient) -> None:
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await client.v1.checkout.sessions.retrieve_async("cs_test_none")
    assert (caught.value.http_status, caught.value.code) == (404, "resource_missing")
    answer = await sandbox.client.get("/sandbox/stripe/v1/nothing", headers={"Authorization": f"Bearer {KEY}"})
    assert answer.status_code == 404
    assert "Unrecognized request URL" in answer.json()["error"]["message"]


async def test_a_call_without_a_key_is_401(sandbox: RunningSandbox) -> None:
    answer = await sandbox.client.get("/sandbox/stripe/v1/payment_intents")
    assert answer.status_code == 401
    assert answer.headers["request-id"].startswith("req_")


async def test_rate_limiting_is_recognised(sandbox: RunningSandbox, client: stripe.StripeClient) -> None:
    await sandbox.faults("stripe", {"operation": "*", "kind": "rate_limit", "retry_after": 7})
    with pytest.raises(stripe.RateLimitError) as caught:
        await client.v1.payment_intents.list_async()
    assert (caught.value.headers or {})["Retry-After"] == "7"


async def test_manual_capture_holds_the_money_until_it_is_captured(
    sandbox: RunningSandbox, client: stripe.StripeClient
) -> None:
    manual = {"capture_method": "manual", "metadata": {"order_ref": "ORDER0001REF"}}
    reference = await a_paid_intent(sandbox, client, payment_intent_data=manual)
    intent = await client.v1.payment_intents.retrieve_async(reference, {"expand": ["latest_charge"]})
    assert (intent.status, intent.amount_capturable, intent.amount_received) == ("requires_capture", 4498, 0)
    assert isinstance(intent.latest_charge, stripe.Charge)
    assert not intent.latest_charge.captured
    intent = await client.v1.payment_intents.capture_async(reference, {"amount_to_capture": 4000})
    assert (intent.status, intent.amount_received, intent.amount_capturable) == ("succeeded", 4000, 0)
    [payment] = (await sandbox.books("stripe"))["payments"]
    assert (payment["status"], payment["captured_minor"]) == ("completed", 4000)
    assert [operation["operation"] for operation in payment["operations"]] == ["create_session", "authorize", "capture"]


async def test_more_than_what_is_held_cannot_be_captured(sandbox: RunningSandbox, client: stripe.StripeClient) -> None:
    reference = await a_paid_intent(sandbox, client, payment_intent_data={"capture_method": "manual"})
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await client.v1.payment_intents.capture_async(reference, {"amount_to_capture": 4499})
    assert caught.value.code == "amount_too_large"


async def test_a_hold_is_released_by_cancel_and_a_capture_is_not(
    sandbox: RunningSandbox, client: stripe.StripeClient
) -> None:
    held = await a_paid_intent(sandbox, client, payment_intent_data={"capture_method": "manual"})
    intent = await client.v1.payment_intents.cancel_async(held, {"cancellation_reason": "requested_by_customer"})
    assert (intent.status, intent.cancellation_reason) == ("canceled", "requested_by_customer")
    captured = await a_paid_intent(sandbox, client)
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await client.v1.payment_intents.cancel_async(captured)
    assert caught.value.code == "payment_intent_unexpected_state"


async def test_refunds_never_exceed_what_was_captured(sandbox: RunningSandbox, client: stripe.StripeClient) -> None:
    intent = await a_paid_intent(sandbox, client)
    part = await client.v1.refunds.create_async(
        {"payment_intent": intent, "amount": 4000, "metadata": {"refund_ref": "R1"}}
    )
    assert (part.status, part.amount, part.payment_intent) == ("succeeded", 4000, intent)
    with pytest.raises(stripe.InvalidRequestError):
        await client.v1.refunds.create_async({"payment_intent": intent, "amount": 499})
    rest = await client.v1.refunds.create_async({"payment_intent": intent})
    assert rest.amount == 498
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await client.v1.refunds.create_async({"payment_intent": intent})
    assert caught.value.code == "charge_already_refunded"
    listed = await client.v1.refunds.list_async({"payment_intent": intent})
    assert [refund.id for refund in listed.data] == [rest.id, part.id]
    metadata = (await client.v1.refunds.retrieve_async(part.id)).metadata
    assert metadata is not None
    assert metadata.to_dict() == {"refund_ref": "R1"}
    [payment] = (await sandbox.books("stripe"))["payments"]
    assert payment["refunded_minor"] == 4498


async def test_a_decline_leaves_the_session_open_for_another_try(
    sandbox: RunningSandbox, client: stripe.StripeClient
) -> None:
    session = await client.v1.checkout.sessions.create_async(a_session())
    await sandbox.outcome("stripe", session.id, "fail")
    session = await client.v1.checkout.sessions.retrieve_async(session.id, {"expand": ["payment_intent"]})
    assert session.status == "open"
    intent = session.payment_intent
    assert isinstance(intent, stripe.PaymentIntent)
    assert intent.status == "requires_payment_method"
    assert intent.last_payment_error is not None
    assert intent.last_payment_error.code == "card_declined"
    await sandbox.outcome("stripe", intent.id, "succeed")
    paid = await client.v1.payment_intents.retrieve_async(intent.id)
    assert (paid.status, paid.last_payment_error) == ("succeeded", None)


async def test_a_session_can_be_expired_once(client: stripe.StripeClient) -> None:
    session = await client.v1.checkout.sessions.create_async(a_session())
    assert (await client.v1.checkout.sessions.expire_async(session.id)).status == "expired"
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await client.v1.checkout.sessions.expire_async(session.id)
    assert caught.value.http_status == 400


async def test_payments_are_found_by_list_and_by_search(sandbox: RunningSandbox, client: stripe.StripeClient) -> None:
    first = await a_paid_intent(sandbox, client)
    second = await a_paid_intent(sandbox, client, payment_intent_data={"metadata": {"order_ref": "OTHER"}})
    page = await client.v1.payment_intents.list_async({"limit": 1, "created": {"gte": 1_700_000_000}})
    assert ([intent.id for intent in page.data], page.has_more) == ([second], True)
    rest = await client.v1.payment_intents.list_async({"limit": 1, "starting_after": second})
    assert ([intent.id for intent in rest.data], rest.has_more) == ([first], False)
    found = await client.v1.payment_intents.search_async({"query": "metadata['order_ref']:'ORDER0001REF'"})
    assert [intent.id for intent in found.data] == [first]
    sessions = await client.v1.checkout.sessions.list_async({"payment_intent": first, "limit": 1})
    assert [session.payment_intent for session in sessions.data] == [first]


async def test_webhooks_verify_with_the_official_package(sandbox: RunningSandbox, client: stripe.StripeClient) -> None:
    session = await client.v1.checkout.sessions.create_async(a_session())
    await sandbox.outcome("stripe", session.id, "succeed")
    receiver: Receiver = sandbox.receiver
    await until(lambda: len(receiver.requests) == 2, what="two webhooks")
    events = {}
    for request in receiver.requests:
        event = stripe.Webhook.construct_event(request.content, request.headers["stripe-signature"], STRIPE_SECRET)
        events[event.type] = event
    assert set(events) == {"payment_intent.succeeded", "checkout.session.completed"}
    completed = events["checkout.session.completed"]
    assert completed.data.object["payment_status"] == "paid"
    assert (completed.api_version, completed.livemode) == ("2026-06-24.dahlia", False)
    assert str(receiver.requests[0].url) == "http://127.0.0.1:8000/api/v1/webhooks/stripe"


async def test_each_step_of_a_payments_life_is_announced(sandbox: RunningSandbox, client: stripe.StripeClient) -> None:
    held = await a_paid_intent(sandbox, client, payment_intent_data={"capture_method": "manual"})
    await client.v1.payment_intents.capture_async(held)
    await client.v1.refunds.create_async({"payment_intent": held})
    session = await client.v1.checkout.sessions.create_async(a_session())
    await sandbox.outcome("stripe", session.id, "fail")
    await client.v1.checkout.sessions.expire_async(session.id)
    webhooks = (await sandbox.books("stripe"))["webhooks"]
    assert [webhook["type"] for webhook in webhooks] == [
        "payment_intent.amount_capturable_updated",
        "checkout.session.completed",
        "charge.captured",
        "payment_intent.succeeded",
        "refund.created",
        "charge.refunded",
        "refund.updated",
        "payment_intent.payment_failed",
        "checkout.session.expired",
    ]
