"""Our Tamara adapter, our scheme and the sandbox's Tamara, over HTTP: what one says the other understands."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from services.payment_service.domain.models import CaptureMode, Customer, FactKind, Item
from services.payment_service.domain.operations import OperationKind
from services.payment_service.gateways.port import Delivery, OutcomeStatus
from services.webhook_ingest.signatures.port import RawDelivery, SigningSecret, Trust
from services.webhook_ingest.signatures.tamara import TamaraScheme
from shared.errors import GatewayOutcomeUnknown, GatewayRejected
from shared.money import Money
from tests.support.adapter_calls import OPERATION, REFERENCE
from tests.support.postgres import ServiceDatabase
from tests.support.tamara import NOTIFICATION_TOKEN, SAR_300, Shop, a_money_call, a_session_request, open_shop
from tests.support.waiting import until
from tests.unit.payment_service.gateway_world import told
from tests.unit.payment_service.money_world import returned

SAR_100, SAR_40 = Money(10_000, "SAR"), Money(4_000, "SAR")


@pytest.fixture
async def shop(service_database: ServiceDatabase) -> AsyncIterator[Shop]:
    async with open_shop(service_database("gateway_sandbox")) as opened:
        yield opened


async def test_an_approved_order_is_authorised_and_captured_in_one_completion_and_all_its_events_are_hints(
    shop: Shop,
) -> None:
    order_id = await shop.approved_order()
    approved = await shop.snapshot(order_id)
    assert told(approved.observations) == {("approved", order_id, SAR_300)}

    call = a_money_call(OperationKind.COMPLETION, order_id, capture=CaptureMode.AUTOMATIC)
    outcome = await shop.tamara.complete(call)
    assert outcome.status is OutcomeStatus.SUCCEEDED
    assert told(outcome.observations) == {("captured", order_id, SAR_300)}
    again = await shop.tamara.complete(call)
    assert again.gateway_reference == outcome.gateway_reference
    order = await shop.order()
    assert [capture["reference"] for capture in order["captures"]] == [OPERATION]

    await until(lambda: len(shop.event_types) == 3, what="the three events of a paid order")
    assert sorted(shop.event_types) == ["order_approved", "order_authorised", "order_captured"]
    for request in shop.sandbox.receiver.requests:
        headers = tuple((name, value) for name, value in request.headers.items())
        delivery = RawDelivery("POST", "/", "", headers, request.content)
        verified = TamaraScheme().verify(delivery, [SigningSecret(NOTIFICATION_TOKEN)], datetime.now(UTC))
        assert (verified.verified, verified.trust) == (True, Trust.HINT)
        event = shop.tamara.translate_webhook(
            Delivery("application/json", request.content.decode(), None, datetime.now(UTC))
        )
        assert (event.references, event.our_references, event.must_ask) == ((order_id,), (REFERENCE,), True)


async def test_the_page_takes_names_of_any_script_and_a_dinars_digits_and_sends_back_with_an_order_id(
    shop: Shop,
) -> None:
    amount = Money(12_345, "KWD")
    request = a_session_request(
        amount=amount,
        description="قهوة " * 200,
        customer=Customer("noor@example.com", "نور العتيبي"),
        items=(Item("شاي", 2, 1_500), Item("x" * 400, 1, 9_345)),
    )
    order_id = await shop.approved_order(request)
    assert told((await shop.snapshot(order_id)).observations) == {("approved", order_id, amount)}
    assert (await shop.call("GET", f"/orders/{order_id}")).text.count('"amount":12.345') == 1

    second = await shop.tamara.create_session(a_session_request(reference="PR00000000000000002B"), repeated=False)
    page = await shop.sandbox.client.get(second.next_action.url)
    assert "300.00" in page.text
    [token] = re.findall(r'name="token" value="([^"]+)"', page.text)
    form = {"outcome": "cancel", "token": token}
    left = await shop.sandbox.client.post(f"{second.next_action.url}/outcome", data=form)
    assert parse_qs(urlsplit(left.headers["location"]).query)["orderId"] == [second.gateway_reference]


async def test_a_declined_order_and_one_that_nobody_finished_have_ended(shop: Shop) -> None:
    for outcome, kind in (("fail", FactKind.FAILED), ("expire", FactKind.EXPIRED)):
        session = await shop.tamara.create_session(a_session_request(), repeated=False)
        await shop.sandbox.outcome("tamara", session.gateway_reference, outcome)
        [observation] = (await shop.snapshot(session.gateway_reference)).observations
        assert observation.kind is kind


async def test_a_hold_is_captured_in_parts_and_the_last_one_lets_the_rest_go_before(shop: Shop) -> None:
    order_id = await shop.authorised_order()
    final = a_money_call(OperationKind.CAPTURE, order_id, SAR_100, is_whole=False, is_final=True)
    outcome = await shop.tamara.capture(final)
    assert told(outcome.observations) == {("captured", order_id, SAR_100), ("released", order_id, None)}

    other = a_session_request(reference="PR00000000000000002B")
    session = await shop.tamara.create_session(other, repeated=False)
    second = session.gateway_reference
    await shop.sandbox.outcome("tamara", second, "succeed")
    mine: dict[str, Any] = {"our_reference": other.reference}
    await shop.tamara.complete(a_money_call(OperationKind.COMPLETION, second, **mine))
    for number, total in ((1, 10_000), (2, 20_000), (3, 30_000)):
        part = a_money_call(OperationKind.CAPTURE, second, SAR_100, reference=f"OP{number}", **mine)
        outcome = await shop.tamara.capture(part)
        assert ("captured", second, Money(total, "SAR")) in told(outcome.observations)
    with pytest.raises(GatewayRejected):
        await shop.tamara.capture(a_money_call(OperationKind.CAPTURE, second, SAR_100, reference="OP4", **mine))


async def test_a_final_part_whose_capture_is_refused_has_let_the_rest_go_and_all_that_is_left_can_be_taken(
    shop: Shop,
) -> None:
    order_id = await shop.authorised_order()
    await shop.sandbox.faults("tamara", {"operation": "capture", "kind": "reject"})
    final = a_money_call(OperationKind.CAPTURE, order_id, SAR_100, is_whole=False, is_final=True)
    outcome = await shop.tamara.capture(final)
    assert (outcome.status, outcome.failure_code) == (OutcomeStatus.FAILED, "rest_released_capture_not_allowed")
    held = await shop.snapshot(order_id)
    assert told(held.observations) == {("authorized", order_id, SAR_300)}
    whole = a_money_call(OperationKind.CAPTURE, order_id, is_final=True, reference="OP00000000000000002B")
    outcome = await shop.tamara.capture(whole)
    assert told(outcome.observations) == {("captured", order_id, SAR_100), ("released", order_id, None)}


async def test_a_hold_that_lapses_ends_under_its_own_name(shop: Shop) -> None:
    order_id = await shop.authorised_order()
    held = await shop.snapshot(order_id)
    await shop.sandbox.control("tamara", f"sessions/{order_id}/hold", expire=True)
    lapsed = await shop.tamara.retrieve(held.references, our_reference=REFERENCE)
    assert told(lapsed.observations) == {("expired", order_id, None)}


async def test_a_void_releases_all_and_is_refused_once_something_was_captured(shop: Shop) -> None:
    order_id = await shop.authorised_order()
    void = a_money_call(OperationKind.VOID, order_id)
    outcome = await shop.tamara.void(void)
    assert told(outcome.observations) == {("canceled", order_id, None)}
    assert (await shop.tamara.void(void)).gateway_reference == outcome.gateway_reference

    request = a_session_request(reference="PR00000000000000002B")
    session = await shop.tamara.create_session(request, repeated=False)
    await shop.sandbox.outcome("tamara", session.gateway_reference, "succeed")
    mine: dict[str, Any] = {"our_reference": request.reference}
    await shop.tamara.complete(a_money_call(OperationKind.COMPLETION, session.gateway_reference, **mine))
    await shop.tamara.capture(a_money_call(OperationKind.CAPTURE, session.gateway_reference, SAR_100, **mine))
    with pytest.raises(GatewayRejected) as refusal:
        await shop.tamara.void(a_money_call(OperationKind.VOID, session.gateway_reference, **mine))
    assert refusal.value.gateway_code == "transition_not_allowed"


async def test_what_was_not_answered_is_found_and_never_done_twice(shop: Shop) -> None:
    order_id = await shop.authorised_order()
    after = {"kind": "error_5xx", "status": 503, "after_work": True}
    for operation, kind, amount in (
        ("capture", OperationKind.CAPTURE, SAR_300),
        ("refund", OperationKind.REFUND, SAR_40),
    ):
        await shop.sandbox.faults("tamara", {"operation": operation, **after})
        call = a_money_call(kind, order_id, amount)
        send = shop.tamara.capture if kind is OperationKind.CAPTURE else shop.tamara.refund
        with pytest.raises(GatewayOutcomeUnknown):
            await send(call)
        found = await shop.tamara.find_operation(call)
        assert found is not None
        assert (await send(call)).gateway_reference == found.gateway_reference
    order = await shop.order()
    assert (order["captured_minor"], order["refunded_minor"], len(order["refunds"])) == (30_000, 4_000, 1)
    absent = a_money_call(OperationKind.REFUND, order_id, SAR_40, reference="OP00000000000000002B")
    assert await shop.tamara.find_operation(absent) is None


async def test_refunds_of_ours_and_of_the_portal_and_one_under_way_are_told_apart_and_settled(shop: Shop) -> None:
    order_id = await shop.authorised_order()
    await shop.tamara.capture(a_money_call(OperationKind.CAPTURE, order_id))
    await shop.sandbox.faults("tamara", {"operation": "refund", "kind": "pending"})
    call = a_money_call(OperationKind.REFUND, order_id, SAR_40)
    outcome = await shop.tamara.refund(call)
    assert outcome.status is OutcomeStatus.PENDING
    await shop.sandbox.control("tamara", f"refunds/{outcome.gateway_reference}", status="succeeded")
    settled = await shop.tamara.find_operation(call)
    assert settled is not None
    assert settled.status is OutcomeStatus.SUCCEEDED

    await shop.sandbox.control("tamara", f"sessions/{order_id}/refunds", amount_minor=10_000)
    [portal] = [each for each in (await shop.order())["refunds"] if each["reference"] is None]
    assert returned((await shop.snapshot(order_id)).observations) == {
        ("refund_succeeded", outcome.gateway_reference, SAR_40, order_id, OPERATION),
        ("refund_succeeded", portal["refund_id"], SAR_100, order_id, None),
    }

    now = datetime.now(UTC)
    window = {"since": (now - timedelta(hours=1)).isoformat(), "until": (now + timedelta(hours=1)).isoformat()}
    file = await shop.sandbox.client.get("/sandbox/control/tamara/settlement", params=window)
    rows = [line.split(",")[2:] for line in file.text.splitlines()[1:]]
    assert [row[2] for row in rows] == ["capture", "refund", "refund"]
    assert rows[0][:8] == [order_id, REFERENCE, "capture", "300.00", "7.50", "1.35", "291.15", "SAR"]
    assert rows[1][3:8] in (["-40.00", "0.00", "0.00", "-40.00", "SAR"], ["-100.00", "0.00", "0.00", "-100.00", "SAR"])


async def test_a_completion_whose_capture_was_refused_leaves_the_money_held_and_a_repetition_takes_it(
    shop: Shop,
) -> None:
    order_id = await shop.approved_order()
    call = a_money_call(OperationKind.COMPLETION, order_id, capture=CaptureMode.AUTOMATIC)
    await shop.sandbox.faults(
        "tamara",
        {"operation": "complete", "kind": "error_5xx", "status": 503, "after_work": True},
        {"operation": "capture", "kind": "reject"},
    )
    outcome = await shop.tamara.complete(call)
    assert told(outcome.observations) == {("authorized", order_id, SAR_300)}
    assert await shop.tamara.find_operation(replace(call, reference="OP00000000000000002B")) is None
    assert told((await shop.tamara.complete(call)).observations) == {("captured", order_id, SAR_300)}
