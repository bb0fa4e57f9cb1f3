"""Our Tabby adapter and the sandbox's Tabby, over HTTP: what one says the other understands."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from services.payment_service.domain.models import CaptureMode, Customer, Item
from services.payment_service.domain.operations import OperationKind
from services.payment_service.gateways.port import OutcomeStatus
from services.webhook_ingest.signatures.port import Trust
from shared.errors import GatewayObjectNotFound, GatewayRejected
from shared.money import Money
from tests.support.adapter_calls import OPERATION, REFERENCE
from tests.support.postgres import ServiceDatabase
from tests.support.tabby import AED_140, AED_200, AED_340, KWD_12, Shop, a_money_call, a_session_request, open_shop
from tests.support.waiting import until
from tests.unit.payment_service.gateway_world import told

OTHER = "OP00000000000000002B"


@pytest.fixture
async def shop(service_database: ServiceDatabase) -> AsyncIterator[Shop]:
    async with open_shop(service_database("gateway_sandbox")) as opened:
        yield opened


async def test_a_purchase_of_three_decimals_is_held_completed_and_told_in_the_same_words(shop: Shop) -> None:
    request = a_session_request(CaptureMode.AUTOMATIC, amount=KWD_12, items=(Item("قهوة", 3, 4_115),))
    session = await shop.tabby.create_session(request, repeated=False)
    payment = session.gateway_reference
    assert await shop.press(session, "succeed") == f"{request.return_url}&payment_id={payment}"
    held = await shop.tabby.retrieve(session.references, our_reference=REFERENCE)
    assert told(held.observations) == {("authorized", payment, KWD_12), ("approved", payment, KWD_12)}

    call = a_money_call(OperationKind.COMPLETION, payment, KWD_12, capture=CaptureMode.AUTOMATIC)
    outcome = await shop.tabby.complete(call)
    assert outcome.status is OutcomeStatus.SUCCEEDED
    again = await shop.tabby.complete(call)
    assert again == outcome
    taken = await shop.tabby.retrieve(session.references, our_reference=REFERENCE)
    assert told(taken.observations) == told(outcome.observations) == {("captured", payment, KWD_12)}

    await until(lambda: len(shop.sandbox.receiver.requests) == 3, what="authorize, capture and close")
    assert all(each.verified and each.trust is Trust.HINT for each in shop.verified())
    assert {each.event_type for each in shop.verified()} == {"authorized", "closed"}
    assert all(event.must_ask and event.references == (payment,) for event in shop.told())
    assert all(event.our_references == (REFERENCE, "pay_1") for event in shop.told())
    assert {("captured", payment, KWD_12)} in [told(event.observations) for event in shop.told()]


async def test_a_final_part_is_captured_and_the_rest_released_then_refunded_in_parts(shop: Shop) -> None:
    payment = (await shop.held()).gateway_reference
    first = a_money_call(OperationKind.CAPTURE, payment, AED_140, is_whole=False, is_final=False)
    partial = await shop.tabby.capture(first)
    assert told(partial.observations) == {("authorized", payment, AED_340), ("captured", payment, AED_140)}
    with pytest.raises(GatewayRejected):  # while a part is still held
        await shop.tabby.refund(a_money_call(OperationKind.REFUND, payment, Money(4_000, "AED"), reference=OTHER))
    with pytest.raises(GatewayRejected):
        await shop.tabby.capture(a_money_call(OperationKind.CAPTURE, payment, AED_340, reference=OTHER))

    last = a_money_call(OperationKind.CAPTURE, payment, Money(6_000, "AED"), reference=OTHER, is_whole=False)
    final = await shop.tabby.capture(last)
    assert told(final.observations) == {("captured", payment, AED_200), ("released", payment, None)}
    refund = a_money_call(OperationKind.REFUND, payment, AED_140, reference="OP00000000000000003C")
    refunded = await shop.tabby.refund(refund)
    assert await shop.tabby.refund(refund) == refunded == await shop.tabby.find_operation(refund)
    with pytest.raises(GatewayRejected):
        await shop.tabby.refund(a_money_call(OperationKind.REFUND, payment, AED_140, reference="OP4"))
    assert ("refund_succeeded", refunded.gateway_reference, AED_140) in told(refunded.observations)


async def test_a_void_releases_all_and_a_page_that_was_left_or_rejected_brings_nothing(shop: Shop) -> None:
    payment = (await shop.held()).gateway_reference
    call = a_money_call(OperationKind.VOID, payment)
    outcome = await shop.tabby.void(call)
    assert told(outcome.observations) == {("canceled", payment, None)}
    assert await shop.tabby.void(call) == outcome  # closed already: looked up
    for reference, decision, kind in (("PRL", "cancel", "expired"), ("PRR", "fail", "failed")):
        session = await shop.tabby.create_session(a_session_request(reference=reference), repeated=False)
        await shop.sandbox.outcome("tabby", session.gateway_reference, decision)
        snapshot = await shop.tabby.retrieve(session.references, our_reference=reference)
        assert told(snapshot.observations) == {(kind, f"page:{session.gateway_reference}", None)}


async def test_money_that_comes_after_we_closed_the_page_shows(shop: Shop) -> None:
    session = await shop.tabby.create_session(a_session_request(), repeated=False)
    page = f"page:{session.gateway_reference}"
    closed = await shop.tabby.close_session(session.gateway_reference, our_reference=REFERENCE)
    assert ("canceled", page, None) in told(closed.observations)
    await shop.sandbox.outcome("tabby", session.gateway_reference, "succeed")
    late = await shop.tabby.close_session(session.gateway_reference, our_reference=REFERENCE)
    assert told(late.observations) == {("authorized", session.gateway_reference, AED_340)}
    with pytest.raises(GatewayObjectNotFound):  # of somebody else's order
        await shop.tabby.retrieve(session.references, our_reference="PR00000000000000009Z")


async def test_what_was_not_answered_is_found_and_not_done_twice(shop: Shop) -> None:
    lost = {"kind": "error_5xx", "status": 502, "after_work": True}
    payment = (await shop.held()).gateway_reference
    await shop.sandbox.faults("tabby", {"operation": "capture", **lost}, {"operation": "refund", **lost})
    captured = await shop.tabby.capture(a_money_call(OperationKind.CAPTURE, payment))
    refunded = await shop.tabby.refund(a_money_call(OperationKind.REFUND, payment, AED_140, reference=OTHER))
    [books] = (await shop.sandbox.books("tabby", reference=REFERENCE))["payments"]
    assert [each["capture_id"] for each in books["captures"]] == [captured.gateway_reference]
    assert [each["refund_id"] for each in books["refunds"]] == [refunded.gateway_reference]
    assert books["refunds"][0]["reference"] == OTHER


async def test_disputes_are_told_with_the_payment_and_keep_refunds_back(shop: Shop) -> None:
    payment = (await shop.held()).gateway_reference
    await shop.tabby.capture(a_money_call(OperationKind.CAPTURE, payment))
    await shop.sandbox.control("tabby", f"sessions/{payment}/disputes", amount_minor=14_000)
    snapshot = await shop.tabby.retrieve((payment,), our_reference=REFERENCE)
    [dispute] = [each for each in snapshot.observations if each.kind == "dispute_opened"]
    assert (dispute.amount, dispute.about, dispute.reason) == (AED_140, payment, "not_delivered")
    with pytest.raises(GatewayRejected) as refusal:
        await shop.tabby.refund(a_money_call(OperationKind.REFUND, payment, AED_140))
    assert refusal.value.gateway_code == "conflict"
    await shop.sandbox.control("tabby", f"disputes/{dispute.object_reference}", status="lost")
    snapshot = await shop.tabby.retrieve((payment,), our_reference=REFERENCE)
    assert ("dispute_lost", dispute.object_reference, AED_140) in told(snapshot.observations)
    await until(lambda: len(shop.sandbox.receiver.requests) == 5, what="both events of the dispute")
    events = {event.event_type: event for event in shop.told()}
    assert events["dispute.pending"].references == (payment, dispute.object_reference)


async def test_the_list_of_a_window_has_what_brought_money_page_after_page(shop: Shop) -> None:
    references = [f"PR{number:018d}" for number in range(22)]
    for reference in references[:-1]:
        await shop.held(reference=reference)
    await shop.tabby.create_session(a_session_request(reference=references[-1]), repeated=False)
    now = datetime.now(UTC)
    first = await shop.tabby.list_window(now - timedelta(hours=1), now + timedelta(hours=1))
    assert first.next_cursor == "20"
    second = await shop.tabby.list_window(now - timedelta(hours=1), now + timedelta(hours=1), cursor="20")
    found = [entry.our_references[0] for entry in (*first.entries, *second.entries)]
    assert (found, second.next_cursor) == (references[-2::-1], None)
    assert (await shop.tabby.list_window(now + timedelta(hours=1), now + timedelta(hours=2))).entries == ()


async def test_the_sandbox_is_strict_and_its_statement_adds_up(shop: Shop) -> None:
    payment = (await shop.held(customer=Customer("a@example.com", "Zoë\n" + "x" * 300))).gateway_reference
    path, reference = f"/api/v2/payments/{payment}/captures", {"reference_id": OPERATION}
    for body in ({"amount": 340, **reference}, {"amount": "340.001", **reference}, {"amount": "340.00"}):
        assert (await shop.call("POST", path, json=body)).status_code == 400
    assert (await shop.call("POST", path, json={"amount": "1.00", **reference, "more": 1})).status_code == 400
    assert (await shop.call("POST", f"/api/v2/payments/{payment}/close", content=b"{}")).status_code == 400
    assert (await shop.sandbox.client.get(f"/sandbox/tabby/api/v2/payments/{payment}")).status_code == 401
    refused = a_session_request(customer=Customer("a@example.com", "A", "+971500000002"), reference="PRX")
    rejected = await shop.tabby.create_session(refused, repeated=False)
    assert [each.reason for each in rejected.observations] == ["not_available"]

    await shop.tabby.capture(a_money_call(OperationKind.CAPTURE, payment))
    await shop.sandbox.control("tabby", f"sessions/{payment}/refunds", amount_minor=4_000)
    begin, end = (datetime.now(UTC) + timedelta(hours=hours) for hours in (-1, 1))
    day, window = begin.date().isoformat(), {"since": begin, "until": end}
    query = {name: moment.isoformat() for name, moment in window.items()}
    answer = await shop.sandbox.client.get("/sandbox/control/tabby/settlement", params=query)
    header, *rows = [line.split(",") for line in answer.text.splitlines()]
    names = (
        "statement_date payment_id order_reference type gross fee fee_vat net currency reference statement_reference"
    )
    assert header == names.split()
    assert [row[:5] for row in rows] == [
        [day, payment, REFERENCE, "capture", "340.00"],
        [day, payment, REFERENCE, "refund", "-40.00"],
    ]
