"""Money after the payment at the sandbox's Stripe, called with Stripe's own Python package."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
import stripe

from services.gateway_sandbox.use_cases.expire_sessions import expire_sessions
from shared.ports import Ports, system_ports
from tests.support.clock import FakeClock
from tests.support.gateway_sandbox import STRIPE_SECRET, RunningSandbox, running_sandbox
from tests.support.postgres import ServiceDatabase
from tests.support.waiting import until

# The official package hands its form to httpx in a way that httpx has deprecated; that is theirs to change.
pytestmark = pytest.mark.filterwarnings("ignore:Use .content=:DeprecationWarning")

KEY = "sk_test_51Sandbox0000000000000000"
AMOUNT = 4498


class Shop:
    """One running sandbox and the official client that calls it."""

    def __init__(self, sandbox: RunningSandbox, client: stripe.StripeClient) -> None:
        self.sandbox = sandbox
        self.intents = client.v1.payment_intents
        self.refunds = client.v1.refunds
        self.disputes = client.v1.disputes
        self.sessions = client.v1.checkout.sessions

    async def paid(self, *, held: bool = False) -> str:
        """A paid PaymentIntent."""
        price = {"currency": "usd", "unit_amount": AMOUNT, "product_data": {"name": "Mug"}}
        parameters: Any = {
            "mode": "payment",
            "success_url": "https://shop.example/done",
            "line_items": [{"quantity": 1, "price_data": price}],
            "payment_intent_data": {
                "capture_method": "manual" if held else "automatic",
                "metadata": {"order_ref": "ORDER1"},
            },
        }
        session = await self.sessions.create_async(parameters)
        await self.sandbox.outcome("stripe", session.id, "succeed")
        intent = (await self.sessions.retrieve_async(session.id)).payment_intent
        assert isinstance(intent, str)
        return intent

    async def charge(self, intent: str) -> stripe.Charge:
        charge = (await self.intents.retrieve_async(intent, {"expand": ["latest_charge"]})).latest_charge
        assert isinstance(charge, stripe.Charge)
        return charge

    async def payment(self) -> dict[str, Any]:
        [payment] = (await self.sandbox.books("stripe"))["payments"]
        found: dict[str, Any] = payment
        return found

    async def control(self, path: str, **body: Any) -> dict[str, Any]:
        answer = await self.sandbox.control("stripe", path, **body)
        assert answer.status_code in (200, 201), answer.text
        shown: dict[str, Any] = answer.json()
        return shown

    async def told(self, first: str) -> list[str]:
        """The types of the events from the first of this type on."""
        types = [webhook["type"] for webhook in (await self.sandbox.books("stripe"))["webhooks"]]
        return types[types.index(first) :]

    async def event(self, event_type: str) -> stripe.Event:
        """The first event of a type, verified as Stripe's package does it."""

        def arrived() -> list[httpx.Request]:
            mark = f'"type":"{event_type}"'.encode()
            return [request for request in self.sandbox.receiver.requests if mark in request.content]

        await until(arrived, what=event_type)
        request = arrived()[0]
        signature = request.headers["stripe-signature"]
        event: stripe.Event = stripe.Webhook.construct_event(request.content, signature, STRIPE_SECRET)
        return event


@pytest.fixture
async def shop(service_database: ServiceDatabase) -> AsyncIterator[Shop]:
    transport = stripe.HTTPXClient()
    async with running_sandbox(service_database("gateway_sandbox")) as sandbox:
        base: Any = {"api": f"{sandbox.url}/sandbox/stripe"}
        yield Shop(sandbox, stripe.StripeClient(KEY, base_addresses=base, http_client=transport, max_network_retries=0))
    await transport.close_async()  # type: ignore[no-untyped-call]


async def test_several_captures_keep_the_hold_open_until_the_final_one(shop: Shop) -> None:
    reference = await shop.paid(held=True)
    first = await shop.intents.capture_async(
        reference,
        {"amount_to_capture": 1000, "final_capture": False, "metadata": {"operation_ref": "CAP1"}},
        {"idempotency_key": "cap-1"},
    )
    assert (first.status, first.amount_received, first.amount_capturable) == ("requires_capture", 1000, 3498)
    last = await shop.intents.capture_async(
        reference, {"amount_to_capture": 2000, "metadata": {"operation_ref": "CAP2"}}, {"idempotency_key": "cap-2"}
    )
    assert (last.status, last.amount_received, last.amount_capturable) == ("succeeded", 3000, 0)
    assert last.metadata.to_dict() == {"order_ref": "ORDER1", "operation_ref": "CAP2"}
    assert await shop.told("charge.captured") == [
        "charge.captured",
        "payment_intent.amount_capturable_updated",
        "charge.captured",
        "payment_intent.succeeded",
    ]
    assert [
        (capture["reference"], capture["amount_minor"], capture["idempotency_key"], capture["is_final"])
        for capture in (await shop.payment())["captures"]
    ] == [("CAP1", 1000, "cap-1", False), ("CAP2", 2000, "cap-2", True)]


async def test_a_cancel_after_a_capture_releases_only_the_rest(shop: Shop) -> None:
    reference = await shop.paid(held=True)
    await shop.intents.capture_async(reference, {"amount_to_capture": 1000, "final_capture": False})
    intent = await shop.intents.cancel_async(reference)
    assert (intent.status, intent.amount_received, intent.amount_capturable) == ("succeeded", 1000, 0)
    assert (intent.cancellation_reason, intent.canceled_at) == (None, None)
    assert (await shop.charge(reference)).amount_captured == 1000
    [released] = (await shop.refunds.list_async({"payment_intent": reference})).data
    assert (released.amount, released.reason) == (3498, "expired_uncaptured_charge")
    payment = await shop.payment()
    assert (payment["captured_minor"], payment["refunded_minor"], payment["refunds"]) == (1000, 0, [])


async def test_a_final_partial_capture_lists_the_released_rest_as_stripe_does(shop: Shop) -> None:
    reference = await shop.paid(held=True)
    await shop.intents.capture_async(reference, {"amount_to_capture": 4000})
    refund = await shop.refunds.create_async({"payment_intent": reference, "amount": 500})
    listed = (await shop.refunds.list_async({"payment_intent": reference})).data
    assert {(each.amount, each.reason) for each in listed} == {(498, "expired_uncaptured_charge"), (500, None)}
    assert refund.id in [each.id for each in listed]
    assert [each["refund_id"] for each in (await shop.payment())["refunds"]] == [refund.id]


async def test_a_hold_tells_until_when_it_can_be_captured(shop: Shop) -> None:
    held, taken = await shop.charge(await shop.paid(held=True)), await shop.charge(await shop.paid())
    assert held.payment_method_details is not None
    assert taken.payment_method_details is not None
    assert held.payment_method_details.card is not None
    assert held.payment_method_details.card.capture_before == held.created + 7 * 24 * 3600
    assert "capture_before" not in str(taken.payment_method_details)


async def test_a_lapsed_hold_is_an_expired_charge_and_a_canceled_intent(shop: Shop) -> None:
    reference = await shop.paid(held=True)
    await shop.control(f"sessions/{reference}/hold", expire=True)
    intent = await shop.intents.retrieve_async(reference)
    assert (intent.status, intent.cancellation_reason, intent.amount_capturable) == ("canceled", "automatic", 0)
    assert await shop.told("charge.expired") == ["charge.expired", "payment_intent.canceled"]
    assert (await shop.event("charge.expired")).data.object["object"] == "charge"
    [session] = (await shop.sessions.list_async({"payment_intent": reference})).data
    assert session.status == "complete"
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await shop.intents.capture_async(reference)
    assert caught.value.code == "payment_intent_unexpected_state"


async def test_a_hold_lapses_after_seven_days(service_database: ServiceDatabase) -> None:
    clock, real = FakeClock(), system_ports()
    ports = Ports(clock, real.ids, real.randomness)
    async with running_sandbox(service_database("gateway_sandbox"), ports=ports, with_worker=False) as sandbox:
        form = {
            "mode": "payment",
            "success_url": "https://shop.example/done",
            "line_items[0][quantity]": "1",
            "line_items[0][price_data][currency]": "usd",
            "line_items[0][price_data][unit_amount]": "1000",
            "line_items[0][price_data][product_data][name]": "Mug",
            "payment_intent_data[capture_method]": "manual",
        }
        headers = {"Authorization": f"Bearer {KEY}"}
        session = await sandbox.client.post("/sandbox/stripe/v1/checkout/sessions", data=form, headers=headers)
        await sandbox.outcome("stripe", session.json()["id"], "succeed")
        clock.move(timedelta(days=7).total_seconds())
        await expire_sessions(sandbox.container.sandbox)
        assert (await sandbox.books("stripe"))["payments"][0]["status"] == "expired"


@pytest.mark.parametrize(
    ("status", "received", "intent_status"),
    [("succeeded", AMOUNT, "succeeded"), ("failed", 0, "requires_payment_method")],
)
async def test_a_capture_can_be_answered_later(shop: Shop, status: str, received: int, intent_status: str) -> None:
    reference = await shop.paid(held=True)
    await shop.sandbox.faults("stripe", {"operation": "capture", "kind": "pending"})
    intent = await shop.intents.capture_async(reference)
    assert (intent.status, intent.amount_received) == ("processing", 0)
    with pytest.raises(stripe.InvalidRequestError):
        await shop.intents.capture_async(reference)
    capture_id = (await shop.payment())["captures"][0]["capture_id"]
    await shop.control(f"captures/{capture_id}", status=status)
    intent = await shop.intents.retrieve_async(reference)
    assert (intent.status, intent.amount_received) == (intent_status, received)


async def test_a_pending_refund_succeeds_later(shop: Shop) -> None:
    reference = await shop.paid()
    await shop.sandbox.faults("stripe", {"operation": "refund", "kind": "pending"})
    refund = await shop.refunds.create_async(
        {"payment_intent": reference, "amount": 1000, "metadata": {"operation_ref": "RF1"}},
        {"idempotency_key": "ref-1"},
    )
    assert (refund.status, refund.pending_reason) == ("pending", "processing")
    [made] = (await shop.payment())["refunds"]
    assert (made["reference"], made["idempotency_key"], made["status"]) == ("RF1", "ref-1", "pending")
    await shop.control(f"refunds/{refund.id}", status="succeeded")
    refund = await shop.refunds.retrieve_async(refund.id)
    assert (refund.status, refund.pending_reason, refund.failure_reason) == ("succeeded", None, None)
    assert await shop.told("refund.created") == [
        "refund.created",
        "charge.refunded",
        "refund.updated",
        "charge.refund.updated",
    ]
    legacy = await shop.event("charge.refund.updated")
    assert (legacy.data.object["object"], legacy.data.object["status"]) == ("refund", "succeeded")


@pytest.mark.parametrize("status", ["failed", "reversed"])
async def test_a_refund_that_succeeded_fails_later_and_can_be_made_again(shop: Shop, status: str) -> None:
    reference = await shop.paid()
    refund = await shop.refunds.create_async({"payment_intent": reference})
    assert (await shop.charge(reference)).refunded
    await shop.control(f"refunds/{refund.id}", status=status)
    refund = await shop.refunds.retrieve_async(refund.id)
    assert (refund.status, refund.failure_reason) == ("failed", "expired_or_canceled_card")
    assert refund.failure_balance_transaction is not None
    assert (await shop.told("refund.failed"))[0] == "refund.failed"
    charge = await shop.charge(reference)
    assert (charge.amount_refunded, charge.refunded) == (0, False)
    assert (await shop.refunds.create_async({"payment_intent": reference})).amount == AMOUNT


async def test_only_a_refund_that_waits_for_the_buyer_is_canceled(shop: Shop) -> None:
    reference = await shop.paid()
    await shop.sandbox.faults("stripe", {"operation": "refund", "kind": "pending", "code": "requires_action"})
    waiting = await shop.refunds.create_async({"payment_intent": reference, "amount": 1000})
    done = await shop.refunds.create_async({"payment_intent": reference, "amount": 500})
    assert (waiting.status, done.status) == ("requires_action", "succeeded")
    assert (await shop.refunds.cancel_async(waiting.id)).status == "canceled"
    for refund in (waiting, done):
        with pytest.raises(stripe.InvalidRequestError):
            await shop.refunds.cancel_async(refund.id)
    payment = await shop.payment()
    assert (payment["refunded_minor"], payment["refunds"][0]["status"]) == (500, "failed")


async def test_a_charge_is_refunded_by_its_id_too(shop: Shop) -> None:
    reference = await shop.paid()
    charge = await shop.charge(reference)
    refund = await shop.refunds.create_async({"charge": charge.id, "amount": 100})
    assert (refund.payment_intent, refund.charge) == (reference, charge.id)
    assert [each.id for each in (await shop.refunds.list_async({"charge": charge.id})).data] == [refund.id]
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await shop.refunds.create_async({"charge": refund.id})
    assert caught.value.code == "resource_missing"


async def test_refunds_are_listed_in_pages(shop: Shop) -> None:
    reference = await shop.paid()
    made = [(await shop.refunds.create_async({"payment_intent": reference, "amount": 100})).id for _ in range(3)]
    page = await shop.refunds.list_async({"payment_intent": reference, "limit": 2})
    assert ([refund.id for refund in page.data], page.has_more) == ([made[2], made[1]], True)
    rest = await shop.refunds.list_async({"payment_intent": reference, "limit": 2, "starting_after": made[1]})
    assert ([refund.id for refund in rest.data], rest.has_more) == ([made[0]], False)


async def test_a_refund_in_the_dashboard_carries_nothing_of_ours(shop: Shop) -> None:
    reference = await shop.paid()
    await shop.control(f"sessions/{reference}/refunds", amount_minor=1000)
    [refund] = (await shop.refunds.list_async({"payment_intent": reference})).data
    assert refund.metadata is not None
    assert (refund.amount, refund.status, refund.metadata.to_dict()) == (1000, "succeeded", {})
    event = await shop.event("refund.created")
    assert (event.data.object["id"], event.data.object["payment_intent"]) == (refund.id, reference)
    assert event.request is not None
    assert event.request.idempotency_key is None


@pytest.mark.parametrize(
    ("status", "last_events"),
    [("won", ["charge.dispute.funds_reinstated", "charge.dispute.closed"]), ("lost", ["charge.dispute.closed"])],
)
async def test_a_dispute_takes_the_money_until_it_is_won(shop: Shop, status: str, last_events: list[str]) -> None:
    reference = await shop.paid()
    [opened] = (await shop.control(f"sessions/{reference}/disputes", amount_minor=4000))["disputes"]
    [dispute] = (await shop.disputes.list_async({"payment_intent": reference})).data
    assert (dispute.id, dispute.amount, dispute.reason) == (opened["dispute_id"], 4000, "fraudulent")
    assert (dispute.status, dispute.payment_intent) == ("needs_response", reference)
    assert dispute.evidence_details.due_by is not None
    charge = await shop.charge(reference)
    assert (charge.disputed, dispute.charge) == (True, charge.id)
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await shop.refunds.create_async({"payment_intent": reference, "amount": 100})
    assert caught.value.code == "charge_disputed"
    await shop.control(f"disputes/{dispute.id}", status=status)
    assert (await shop.disputes.retrieve_async(dispute.id)).status == status
    created = ["charge.dispute.created", "charge.dispute.funds_withdrawn"]
    assert await shop.told("charge.dispute.created") == [*created, *last_events]
    assert (await shop.event("charge.dispute.closed")).data.object["status"] == status


@pytest.mark.parametrize(
    ("code", "error", "http_status", "expected"),
    [
        (None, stripe.InvalidRequestError, 400, "balance_insufficient"),
        ("card_declined", stripe.CardError, 402, "card_declined"),
    ],
)
async def test_a_refusal_comes_in_stripes_words(
    shop: Shop, code: str | None, error: type[stripe.StripeError], http_status: int, expected: str
) -> None:
    reference = await shop.paid()
    fault = {"operation": "refund", "kind": "reject", **({"code": code} if code else {})}
    await shop.sandbox.faults("stripe", fault)
    with pytest.raises(error) as caught:
        await shop.refunds.create_async({"payment_intent": reference})
    assert (caught.value.http_status, caught.value.code) == (http_status, expected)
    assert (await shop.payment())["refunds"] == []
