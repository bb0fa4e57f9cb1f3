"""The sandbox's PayPal and Payrail's adapter, over real HTTP: each payment's life, and every way it goes wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from services.payment_service.domain.models import CaptureMode, FactKind, Item
from services.payment_service.domain.operations import OperationKind
from services.payment_service.gateways.paypal import PayPal, PayPalSettings
from services.payment_service.gateways.port import Delivery, GatewayEvent, Outcome, OutcomeStatus
from shared.errors import GatewayObjectNotFound, GatewayOutcomeUnknown, GatewayRejected, GatewayUnavailable
from shared.money import Money
from tests.support.paypal_sandbox import CLIENT_ID, CLIENT_SECRET, WEBHOOK_ID, PayPalWorld, paypal_world
from tests.support.postgres import ServiceDatabase
from tests.support.waiting import until

COMPLETION, CAPTURE, VOID, REFUND = (
    OperationKind.COMPLETION,
    OperationKind.CAPTURE,
    OperationKind.VOID,
    OperationKind.REFUND,
)


@pytest.fixture
async def world(service_database: ServiceDatabase) -> AsyncIterator[PayPalWorld]:
    async with paypal_world(service_database("gateway_sandbox")) as running:
        yield running


async def facts(world: PayPalWorld, order: str, our_reference: str) -> set[tuple[FactKind, str, int | None]]:
    snapshot = await world.paypal.retrieve((order,), our_reference=our_reference)
    return {
        (each.kind, each.object_reference, each.amount.amount_minor if each.amount else None)
        for each in snapshot.observations
    }


async def deliveries(world: PayPalWorld, count: int) -> list[httpx.Request]:
    received = world.sandbox.receiver.requests
    await until(lambda: len(received) >= count, what=f"{count} webhooks")
    return sorted(received, key=lambda each: json.loads(each.content)["create_time"])


def translated(world: PayPalWorld, request: httpx.Request) -> GatewayEvent:
    return world.paypal.translate_webhook(
        Delivery("application/json", request.content.decode(), None, datetime.now(UTC))
    )


# --- automatic capture -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "amount", [Money(1999, "USD"), Money(1, "EUR"), Money(500, "JPY"), Money(12300, "HUF"), Money(10000, "TWD")]
)
async def test_an_approved_order_is_completed_and_every_digit_survives(world: PayPalWorld, amount: Money) -> None:
    request = world.request(amount)
    session = await world.paypal.create_session(request, repeated=False)
    order = session.gateway_reference
    assert session.next_action.url == f"{world.api_base}/checkout/{order}"
    assert await facts(world, order, request.reference) == {(FactKind.SESSION_OPENED, order, None)}

    answer = await world.sandbox.outcome("paypal", order, "succeed")
    assert answer.status_code == 200
    assert await facts(world, order, request.reference) == {(FactKind.APPROVED, order, amount.amount_minor)}
    assert (await world.payment(order))["captured_minor"] == 0

    outcome = await world.paypal.complete(world.call(COMPLETION, request, order))
    assert outcome.status is OutcomeStatus.SUCCEEDED
    capture = outcome.gateway_reference
    assert outcome.references == (order, capture)
    assert await facts(world, order, request.reference) == {(FactKind.CAPTURED, capture, amount.amount_minor)}
    assert (await world.payment(order))["captured_minor"] == amount.amount_minor


async def test_lines_are_shown_and_a_repeated_creation_is_the_same_order(world: PayPalWorld) -> None:
    request = world.request(items=(Item("Tea & cup", 2, 500), Item("قهوة", 1, 999)))
    first = await world.paypal.create_session(request, repeated=False)
    again = await world.paypal.create_session(request, repeated=True)
    assert again.gateway_reference == first.gateway_reference
    page = await world.sandbox.client.get(first.next_action.url)
    assert page.status_code == 200
    assert "Tea &amp; cup" in page.text


async def test_completing_twice_takes_the_money_once(world: PayPalWorld) -> None:
    request = world.request()
    order = await world.approved(request)
    call = world.call(COMPLETION, request, order)
    first = await world.paypal.complete(call)
    assert (await world.paypal.complete(call)).gateway_reference == first.gateway_reference
    other = replace(call, reference="OTHER", idempotency_key="OTHER")
    assert (await world.paypal.complete(other)).gateway_reference == first.gateway_reference
    assert await world.paypal.find_operation(call) == first
    payment = await world.payment(order)
    assert (payment["captured_minor"], len(payment["captures"])) == (1999, 1)


async def test_a_declined_instrument_leads_back_to_the_page_and_a_second_approval_is_another_fact(
    world: PayPalWorld,
) -> None:
    request = world.request()
    order = await world.approved(request, "fail")
    before = await world.paypal.retrieve((order,), our_reference=request.reference)
    with pytest.raises(GatewayRejected) as raised:
        await world.paypal.complete(world.call(COMPLETION, request, order))
    assert raised.value.gateway_code == "INSTRUMENT_DECLINED"
    assert await facts(world, order, request.reference) == {(FactKind.SESSION_OPENED, order, None)}

    await world.sandbox.outcome("paypal", order, "succeed")
    after = await world.paypal.retrieve((order,), our_reference=request.reference)
    assert before.observations[0].natural_key != after.observations[0].natural_key
    outcome = await world.paypal.complete(world.call(COMPLETION, request, order))
    assert outcome.status is OutcomeStatus.SUCCEEDED


async def test_what_is_not_approved_is_refused_and_what_is_not_ours_is_never_taken(world: PayPalWorld) -> None:
    request = world.request()
    session = await world.paypal.create_session(request, repeated=False)
    order = session.gateway_reference
    with pytest.raises(GatewayRejected) as refused:
        await world.paypal.complete(world.call(COMPLETION, request, order))
    assert refused.value.gateway_code == "ORDER_NOT_APPROVED"
    await world.sandbox.outcome("paypal", order, "succeed")
    for wrong in ({"our_reference": "SOMEBODYELSES"}, {"amount": Money(1998, "USD")}):
        with pytest.raises(GatewayRejected, match="another"):
            await world.paypal.complete(world.call(COMPLETION, request, order, **wrong))
    with pytest.raises(GatewayObjectNotFound):
        await world.paypal.retrieve((order,), our_reference="SOMEBODYELSES")
    assert (await world.payment(order))["captured_minor"] == 0


async def test_a_capture_under_review_is_pending_until_paypal_decides(world: PayPalWorld) -> None:
    for status, expected, fact in (
        ("succeeded", OutcomeStatus.SUCCEEDED, FactKind.CAPTURED),
        ("failed", OutcomeStatus.FAILED, FactKind.FAILED),
    ):
        request = world.request()
        order = await world.approved(request)
        await world.sandbox.faults("paypal", {"operation": "complete", "kind": "pending"})
        call = world.call(COMPLETION, request, order)
        outcome = await world.paypal.complete(call)
        assert outcome.status is OutcomeStatus.PENDING
        assert {each.kind for each in outcome.observations} == {FactKind.PROCESSING}
        answer = await world.sandbox.control("paypal", f"captures/{outcome.gateway_reference}", status=status)
        assert answer.status_code == 200, answer.text
        found = await world.paypal.find_operation(call)
        assert found is not None
        assert (found.status, found.gateway_reference) == (expected, outcome.gateway_reference)
        assert {kind for kind, _, _ in await facts(world, order, request.reference)} == {fact}


# --- authorizations --------------------------------------------------------------------------------------------------


async def test_held_money_is_taken_in_parts_and_the_rest_is_released_by_the_last(world: PayPalWorld) -> None:
    request = world.request(capture=CaptureMode.MANUAL)
    order, hold = await world.paid(request)
    (held,) = (await world.paypal.retrieve((order,), our_reference=request.reference)).observations
    assert (held.kind, held.object_reference, held.amount) == (FactKind.AUTHORIZED, hold, Money(1999, "USD"))
    assert held.capture_before is not None
    assert timedelta(days=28) < held.capture_before - datetime.now(UTC) < timedelta(days=30)

    first = world.call(CAPTURE, request, hold, amount=Money(1000, "USD"), is_whole=False, references=(order, hold))
    taken = await world.paypal.capture(first)
    assert taken.status is OutcomeStatus.SUCCEEDED
    assert (await world.paypal.capture(first)).gateway_reference == taken.gateway_reference
    assert await world.paypal.find_operation(first) == taken
    last = world.call(
        CAPTURE, request, hold, amount=Money(500, "USD"), is_whole=False, is_final=True, references=(order, hold)
    )
    rest = await world.paypal.capture(last)
    assert {each.kind for each in rest.observations} == {FactKind.CAPTURED, FactKind.RELEASED}
    assert await facts(world, order, request.reference) == {
        (FactKind.AUTHORIZED, hold, 1999),
        (FactKind.CAPTURED, taken.gateway_reference, 1000),
        (FactKind.CAPTURED, rest.gateway_reference, 500),
        (FactKind.RELEASED, hold, None),
    }
    with pytest.raises(GatewayRejected) as refused:
        await world.paypal.capture(world.call(CAPTURE, request, hold, references=(order, hold)))
    assert refused.value.gateway_code == "AUTHORIZATION_ALREADY_CAPTURED"
    payment = await world.payment(order)
    assert [each["reference"] for each in payment["captures"]] == [first.reference, last.reference]


async def test_a_void_is_done_once_and_says_what_it_released(world: PayPalWorld) -> None:
    request = world.request(capture=CaptureMode.MANUAL)
    order, hold = await world.paid(request)
    call = world.call(VOID, request, hold)
    assert await world.paypal.find_operation(call) is None
    for _ in range(2):  # the second is refused as PREVIOUSLY_VOIDED, and looked at
        outcome = await world.paypal.void(call)
        assert outcome.status is OutcomeStatus.SUCCEEDED
        assert {each.kind for each in outcome.observations} == {FactKind.AUTHORIZED, FactKind.CANCELED}
    assert await facts(world, order, request.reference) == {
        (FactKind.AUTHORIZED, hold, 1999),
        (FactKind.CANCELED, hold, None),
    }


async def test_a_void_after_a_partial_capture_releases_the_rest(world: PayPalWorld) -> None:
    request = world.request(capture=CaptureMode.MANUAL)
    order, hold = await world.paid(request)
    part = world.call(CAPTURE, request, hold, amount=Money(1000, "USD"), is_whole=False)
    taken = await world.paypal.capture(part)
    outcome = await world.paypal.void(world.call(VOID, request, hold, amount=Money(999, "USD")))
    assert [each.kind for each in outcome.observations] == [FactKind.RELEASED]
    assert await facts(world, order, request.reference) == {
        (FactKind.AUTHORIZED, hold, 1999),
        (FactKind.CAPTURED, taken.gateway_reference, 1000),
        (FactKind.RELEASED, hold, None),
    }


async def test_a_captured_hold_is_not_voided_and_a_lapsed_one_has_expired(world: PayPalWorld) -> None:
    request = world.request(capture=CaptureMode.MANUAL)
    _, hold = await world.paid(request)
    await world.paypal.capture(world.call(CAPTURE, request, hold, is_final=True))
    with pytest.raises(GatewayRejected) as refused:
        await world.paypal.void(world.call(VOID, request, hold))
    assert refused.value.gateway_code == "PREVIOUSLY_CAPTURED"

    other = world.request(capture=CaptureMode.MANUAL)
    order, hold = await world.paid(other)
    assert (await world.sandbox.control("paypal", f"sessions/{order}/hold", expire=True)).status_code == 200
    assert await facts(world, order, other.reference) == {
        (FactKind.AUTHORIZED, hold, 1999),
        (FactKind.EXPIRED, hold, None),
    }


# --- refunds, disputes -----------------------------------------------------------------------------------------------


async def test_refunds_carry_our_reference_and_are_found_by_it(world: PayPalWorld) -> None:
    request = world.request()
    order, capture = await world.paid(request)
    calls = [
        world.call(
            REFUND,
            request,
            capture,
            amount=Money(minor, "USD"),
            is_whole=False,
            reason=why,
            references=(order, capture),
        )
        for minor, why in ((500, "One cup broke"), (1499, None))
    ]
    assert await world.paypal.find_operation(calls[0]) is None
    for call in calls:
        outcome = await world.paypal.refund(call)
        assert outcome.status is OutcomeStatus.SUCCEEDED
        (told,) = outcome.observations
        assert (told.kind, told.about, told.operation) == (FactKind.REFUND_SUCCEEDED, capture, call.reference)
        assert await world.paypal.find_operation(call) == outcome
        assert await world.paypal.refund(call) == outcome
    payment = await world.payment(order)
    assert (payment["refunded_minor"], [each["reference"] for each in payment["refunds"]]) == (
        1999,
        [call.reference for call in calls],
    )
    over = world.call(REFUND, request, capture, amount=Money(1, "USD"), references=(order, capture))
    with pytest.raises(GatewayRejected) as refused:
        await world.paypal.refund(over)
    assert refused.value.gateway_code == "CAPTURE_FULLY_REFUNDED"


async def test_a_refund_whose_key_is_forgotten_is_found_and_not_made_again(world: PayPalWorld) -> None:
    request = world.request()
    order, capture = await world.paid(request)
    call = world.call(REFUND, request, capture, references=(order, capture))
    first = await world.paypal.refund(call)
    assert await world.paypal.refund(replace(call, idempotency_key="forgotten")) == first


async def test_a_pending_refund_may_fail_and_a_refund_in_the_dashboard_names_no_operation(world: PayPalWorld) -> None:
    request = world.request()
    order, capture = await world.paid(request)
    await world.sandbox.faults("paypal", {"operation": "refund", "kind": "pending"})
    call = world.call(REFUND, request, capture, amount=Money(500, "USD"), references=(order, capture))
    outcome = await world.paypal.refund(call)
    assert outcome.status is OutcomeStatus.PENDING
    await world.sandbox.control("paypal", f"refunds/{outcome.gateway_reference}", status="failed")
    found = await world.paypal.find_operation(call)
    assert found is not None
    assert (found.status, found.failure_code) == (OutcomeStatus.FAILED, "FAILED")

    answer = await world.sandbox.control("paypal", f"sessions/{order}/refunds", amount_minor=700)
    assert answer.status_code == 201
    snapshot = await world.paypal.retrieve((order,), our_reference=request.reference)
    refunds = [each for each in snapshot.observations if each.kind is FactKind.REFUND_SUCCEEDED]
    assert [(each.amount, each.about, each.operation) for each in refunds] == [(Money(700, "USD"), capture, None)]


async def test_a_dispute_is_told_by_its_webhook(world: PayPalWorld) -> None:
    request = world.request()
    order, capture = await world.paid(request)
    answer = await world.sandbox.control("paypal", f"sessions/{order}/disputes", amount_minor=1200)
    assert answer.status_code == 201
    (dispute,) = answer.json()["disputes"]
    await world.sandbox.control("paypal", f"disputes/{dispute['dispute_id']}", status="lost")
    events = [translated(world, each) for each in await deliveries(world, 4)]
    told = {event.event_type: event for event in events if event.event_type.startswith("CUSTOMER")}
    opened, lost = told["CUSTOMER.DISPUTE.CREATED"], told["CUSTOMER.DISPUTE.RESOLVED"]
    assert (opened.references, opened.our_references, opened.must_ask) == ((capture,), (request.reference,), False)
    assert [each.kind for each in (*opened.observations, *lost.observations)] == [
        FactKind.DISPUTE_OPENED,
        FactKind.DISPUTE_LOST,
    ]
    assert {each.amount for each in (*opened.observations, *lost.observations)} == {Money(1200, "USD")}


# --- closing ---------------------------------------------------------------------------------------------------------


async def test_closing_is_our_own_decision_unless_the_money_was_taken(world: PayPalWorld) -> None:
    for outcome in (None, "succeed"):
        request = world.request()
        session = await world.paypal.create_session(request, repeated=False)
        order = session.gateway_reference
        if outcome:
            await world.sandbox.outcome("paypal", order, outcome)
        closed = await world.paypal.close_session(order, our_reference=request.reference)
        assert [(each.kind, each.reason) for each in closed.observations] == [(FactKind.CANCELED, "closed_by_us")]
    request = world.request()
    order, capture = await world.paid(request)
    closed = await world.paypal.close_session(order, our_reference=request.reference)
    assert [(each.kind, each.object_reference) for each in closed.observations] == [(FactKind.CAPTURED, capture)]


async def test_an_order_that_has_expired_is_unknown_and_can_be_closed(world: PayPalWorld) -> None:
    request = world.request()
    order = await world.approved(request)
    await world.sandbox.outcome("paypal", order, "expire")
    with pytest.raises(GatewayObjectNotFound):
        await world.paypal.complete(world.call(COMPLETION, request, order))
    closed = await world.paypal.close_session(order, our_reference=request.reference)
    assert [each.kind for each in closed.observations] == [FactKind.CANCELED]
    events = [translated(world, each) for each in await deliveries(world, 2)]
    (given_back,) = [each for each in events if each.event_type == "CHECKOUT.PAYMENT-APPROVAL.REVERSED"]
    assert given_back.references == (order,)
    assert [each.kind for each in given_back.observations] == [FactKind.EXPIRED]


# --- webhooks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["local", "postback"])
async def test_the_webhooks_of_a_payments_life_verify_and_lead_to_it(world: PayPalWorld, way: str) -> None:
    request = world.request()
    order, capture = await world.paid(request)
    await world.paypal.refund(world.call(REFUND, request, capture))
    events: dict[str, GatewayEvent] = {}
    for delivered in await deliveries(world, 3):
        verification = await world.verified(delivered, way=way)
        assert verification.verified
        assert verification.event_id == json.loads(delivered.content)["id"]
        event = translated(world, delivered)
        events[event.event_type] = event
        tampered = httpx.Request("POST", delivered.url, headers=delivered.headers, content=delivered.content + b" ")
        assert not (await world.verified(tampered, way=way)).verified
    approved = events["CHECKOUT.ORDER.APPROVED"]
    assert [each.kind for each in approved.observations] == [FactKind.APPROVED]
    assert (approved.references, approved.our_references[0]) == ((order,), request.reference)
    captured, refunded = events["PAYMENT.CAPTURE.COMPLETED"], events["PAYMENT.CAPTURE.REFUNDED"]
    assert (captured.references, captured.must_ask) == ((order, capture), True)
    assert (refunded.references[0], refunded.must_ask) == (capture, True)
    # A refund names only its capture, and that is enough to find everything.
    snapshot = await world.paypal.retrieve((*refunded.references, order), our_reference=request.reference)
    assert {each.kind for each in snapshot.observations} == {FactKind.CAPTURED, FactKind.REFUND_SUCCEEDED}


async def test_an_approval_is_the_same_fact_by_webhook_and_by_asking(world: PayPalWorld) -> None:
    request = world.request()
    order = await world.approved(request)
    told = translated(world, (await deliveries(world, 1))[0]).observations[0]
    (asked,) = (await world.paypal.retrieve((order,), our_reference=request.reference)).observations
    assert told.natural_key == asked.natural_key


# --- when it goes wrong ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["capture", "refund"])
async def test_a_lost_answer_is_found_and_repeating_moves_nothing_again(world: PayPalWorld, operation: str) -> None:
    request = world.request(capture=CaptureMode.MANUAL if operation == "capture" else CaptureMode.AUTOMATIC)
    order, target = await world.paid(request)
    kind = CAPTURE if operation == "capture" else REFUND
    call = world.call(kind, request, target, amount=Money(700, "USD"), is_whole=False, references=(order, target))
    await world.sandbox.faults("paypal", {"operation": operation, "kind": "timeout_after", "seconds": 0.05, "count": 2})
    send = world.paypal.capture if operation == "capture" else world.paypal.refund
    with pytest.raises(GatewayOutcomeUnknown):
        await send(call)
    found = await world.paypal.find_operation(call)
    assert found is not None
    assert await send(call) == found
    payment = await world.payment(order)
    assert payment[f"{operation}d_minor" if operation == "capture" else "refunded_minor"] == 700


async def test_refunds_at_once_never_give_back_more_than_was_taken(world: PayPalWorld) -> None:
    request = world.request()
    order, capture = await world.paid(request)
    part = {"amount": Money(300, "USD"), "is_whole": False, "references": (order, capture)}
    calls = [world.call(REFUND, request, capture, **part) for _ in range(10)]
    answers = await asyncio.gather(*(world.paypal.refund(call) for call in calls), return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, GatewayRejected)]
    assert {answer.gateway_code for answer in refused} == {"REFUND_AMOUNT_EXCEEDED"}
    assert (len(refused), (await world.payment(order))["refunded_minor"]) == (4, 1800)


async def test_one_key_at_once_completes_once_and_the_other_call_does_not_know(world: PayPalWorld) -> None:
    request = world.request()
    order = await world.approved(request)
    call = world.call(COMPLETION, request, order)
    await world.sandbox.faults("paypal", {"operation": "complete", "kind": "delay", "seconds": 0.2, "count": 1})
    answers = await asyncio.gather(*(world.paypal.complete(call) for _ in range(3)), return_exceptions=True)
    assert all(isinstance(answer, Outcome | GatewayOutcomeUnknown) for answer in answers)
    found = await world.paypal.find_operation(call)
    assert found is not None
    assert {answer.gateway_reference for answer in answers if isinstance(answer, Outcome)} == {found.gateway_reference}
    assert (await world.payment(order))["captured_minor"] == 1999


async def test_a_lost_completion_is_found(world: PayPalWorld) -> None:
    request = world.request()
    order = await world.approved(request)
    call = world.call(COMPLETION, request, order)
    await world.sandbox.faults("paypal", {"operation": "complete", "kind": "error_5xx", "after_work": True, "count": 2})
    with pytest.raises(GatewayOutcomeUnknown):
        await world.paypal.complete(call)
    found = await world.paypal.find_operation(call)
    assert found is not None
    assert found.status is OutcomeStatus.SUCCEEDED


async def test_wrong_credentials_move_nothing_and_fail_no_payment(world: PayPalWorld) -> None:
    stranger = PayPal(
        PayPalSettings(client_id=CLIENT_ID, client_secret=SecretStr("wrong"), api_base=world.api_base), world.http
    )
    with pytest.raises(GatewayUnavailable, match="PAYPAL_CLIENT_SECRET"):
        await stranger.create_session(world.request(), repeated=False)
    assert (await world.sandbox.books("paypal"))["payments"] == []


# --- the wire --------------------------------------------------------------------------------------------------------


async def test_what_paypal_refuses_is_refused(world: PayPalWorld) -> None:
    token = await _token(world)

    async def create(**changes: Any) -> tuple[int, str]:
        amount = {"currency_code": "USD", "value": "10.00"} | changes.pop("amount", {})
        unit = {"amount": amount} | changes.pop("unit", {})
        body = {"intent": "CAPTURE", "purchase_units": [unit]} | changes
        answer = await world.sandbox.client.post(
            "/sandbox/paypal/v2/checkout/orders", json=body, headers={"authorization": f"Bearer {token}"}
        )
        details = answer.json().get("details", [{}])
        return answer.status_code, details[0].get("issue", "")

    assert await create() == (201, "")
    assert await create(intent="SALE") == (400, "INVALID_PARAMETER_VALUE")
    assert await create(payment_source={"paypal": {}}) == (400, "PAYPAL_REQUEST_ID_REQUIRED")
    assert await create(amount={"currency_code": "KWD", "value": "1.000"}) == (422, "CURRENCY_NOT_SUPPORTED")
    assert await create(amount={"currency_code": "JPY", "value": "10.5"}) == (422, "DECIMALS_NOT_SUPPORTED")
    assert await create(amount={"value": "1.001"}) == (422, "DECIMAL_PRECISION")
    assert await create(amount={"value": 10}) == (400, "INVALID_PARAMETER_SYNTAX")
    assert await create(amount={"value": "0.00"}) == (422, "CANNOT_BE_ZERO_OR_NEGATIVE")
    items = [{"name": "Tea", "quantity": "2", "unit_amount": {"currency_code": "USD", "value": "4.00"}}]
    assert await create(unit={"items": items}) == (422, "ITEM_TOTAL_REQUIRED")
    breakdown = {"item_total": {"currency_code": "USD", "value": "10.00"}}
    both = {"currency_code": "USD", "value": "10.00", "breakdown": breakdown}
    assert await create(unit={"items": items, "amount": both}) == (422, "ITEM_TOTAL_MISMATCH")


async def _token(world: PayPalWorld) -> str:
    answer = await world.sandbox.client.post(
        "/sandbox/paypal/v1/oauth2/token",
        content=b"grant_type=client_credentials",
        headers={"content-type": "application/x-www-form-urlencoded"},
        auth=(CLIENT_ID, CLIENT_SECRET),
    )
    assert answer.status_code == 200, answer.text
    token: str = answer.json()["access_token"]
    return token


async def test_the_ledger_of_transactions_is_written_from_the_books(world: PayPalWorld) -> None:
    request = world.request()
    _, capture = await world.paid(request)
    refund = await world.paypal.refund(world.call(REFUND, request, capture, amount=Money(500, "USD"), is_whole=False))
    now = datetime.now(UTC)
    query = {
        "start_date": (now - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "end_date": (now + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    headers = {"authorization": f"Bearer {await _token(world)}"}
    url = "/sandbox/paypal/v1/reporting/transactions"
    answer = await world.sandbox.client.get(url, params=query, headers=headers)
    rows = [each["transaction_info"] for each in answer.json()["transaction_details"]]
    shown = {(row["transaction_id"], row["transaction_event_code"], row["transaction_amount"]["value"]) for row in rows}
    assert shown == {(capture, "T0006", "19.99"), (refund.gateway_reference, "T1107", "-5.00")}
    too_long = query | {"start_date": "2020-01-01T00:00:00Z"}
    assert (await world.sandbox.client.get(url, params=too_long, headers=headers)).status_code == 400


async def test_the_certificate_needs_no_token_and_nothing_else_goes_without(world: PayPalWorld) -> None:
    assert (await world.sandbox.client.get("/sandbox/paypal/v2/checkout/orders/X")).status_code == 401
    other = await world.sandbox.client.get("/sandbox/paypal/v1/notifications/certs/CERT-other")
    assert other.status_code == 404
    request = world.request()
    await world.approved(request)
    (delivered,) = await deliveries(world, 1)
    assert WEBHOOK_ID not in str(delivered.headers)
    certificate = await world.sandbox.client.get(delivered.headers["paypal-cert-url"])
    assert certificate.text.startswith("-----BEGIN CERTIFICATE-----")
    assert "PRIVATE" not in certificate.text
