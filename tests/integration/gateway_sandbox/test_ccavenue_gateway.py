"""Our CCAvenue adapter and the sandbox's CCAvenue, over HTTP: what one encrypts the other understands."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html import unescape

import pytest

from services.payment_service.domain.models import CaptureMode, FactKind
from services.payment_service.domain.operations import OperationKind
from services.payment_service.gateways.port import OutcomeStatus
from shared.ccavenue_cipher import CCAvenueCipher, split_pairs
from shared.errors import GatewayObjectNotFound, GatewayOutcomeUnknown, GatewayRejected, GatewayServerError
from tests.support.adapter_calls import OPERATION
from tests.support.ccavenue import INR_100, INR_499, WORKING_KEY, Shop, open_shop
from tests.support.postgres import ServiceDatabase
from tests.support.waiting import until
from tests.unit.payment_service.gateway_world import told

INR_399 = INR_499 - INR_100


@pytest.fixture
async def shop(service_database: ServiceDatabase) -> AsyncIterator[Shop]:
    async with open_shop(service_database("gateway_sandbox")) as opened:
        yield opened


async def facts(shop: Shop) -> set[tuple[str, str, object]]:
    snapshot = await shop.ccavenue.retrieve((shop.reference,), our_reference=shop.reference)
    return set(told(snapshot.observations))


async def test_a_purchase_is_approved_by_the_shopper_and_completed_by_us(shop: Shop) -> None:
    with pytest.raises(GatewayObjectNotFound):
        await shop.ccavenue.retrieve((shop.reference,), our_reference=shop.reference)
    await shop.open()
    tracking = await shop.tracking_id()
    assert await facts(shop) == {("session_opened", shop.reference, None)}

    await shop.decide("succeed")
    assert await facts(shop) == {("authorized", tracking, INR_499), ("approved", tracking, INR_499)}
    call = shop.call(OperationKind.COMPLETION, tracking, capture=CaptureMode.AUTOMATIC)
    outcome = await shop.ccavenue.complete(call)
    assert outcome.status is OutcomeStatus.SUCCEEDED
    assert await facts(shop) == {("captured", tracking, INR_499)}
    again = await shop.ccavenue.complete(call)
    assert again.status is OutcomeStatus.SUCCEEDED
    found = await shop.ccavenue.find_operation(call)
    assert found is not None
    assert found.status is OutcomeStatus.SUCCEEDED

    await until(lambda: len(shop.told()) == 2, what="the events of a success and of a confirmation")
    for event in shop.told():
        assert (event.references, event.our_references, event.must_ask) == (
            (tracking,),
            (shop.reference, "pay_1"),
            True,
        )
        assert event.observations == ()


async def test_an_account_that_confirms_by_itself_takes_the_money_at_once(service_database: ServiceDatabase) -> None:
    async with open_shop(service_database("gateway_sandbox"), by_hand=False) as shop:
        await shop.open()
        await shop.decide("succeed")
        assert await facts(shop) == {("captured", await shop.tracking_id(), INR_499)}


async def test_the_browser_is_posted_back_with_the_outcome_and_a_second_try_may_still_succeed(shop: Shop) -> None:
    session = await shop.open()
    page = (await shop.post(session)).headers["location"]  # a second try under the same number: the page of it
    html = (await shop.sandbox.client.get(page)).text
    token = re.search(r'name="token" value="([^"]+)"', html)
    assert token is not None
    back = await shop.sandbox.client.post(f"{page}/outcome", data={"outcome": "fail", "token": token[1]})
    action = re.search(r'action="([^"]+)"', back.text)
    sealed = re.search(r'name="encResp" value="([0-9a-f]+)"', back.text)
    assert action is not None
    assert sealed is not None
    assert unescape(action[1]) == "https://pay.example/api/v1/payments/pay_1/return"
    returned = dict(split_pairs(CCAvenueCipher(WORKING_KEY).decrypt(sealed[1])))
    assert (returned["order_id"], returned["order_status"]) == (shop.reference, "Failure")
    assert returned["mer_amount"] == "499.00"

    first, second = (payment["gateway_reference"] for payment in await shop.payments())
    declined = {("declined", second, None), ("released", second, None)}
    assert await facts(shop) == {("session_opened", shop.reference, None), *declined}
    await shop.sandbox.outcome("ccavenue", first, "succeed")
    held = {("authorized", first, INR_499), ("approved", first, INR_499)}
    assert await facts(shop) == {*held, *declined}


async def test_every_end_of_a_page_has_its_own_fact_and_late_money_wins(shop: Shop) -> None:
    await shop.open(CaptureMode.MANUAL)
    tracking = await shop.tracking_id()
    await shop.decide("cancel")
    assert await facts(shop) == {("canceled", shop.reference, None)}
    await shop.decide("succeed", late=True)
    assert await facts(shop) == {("authorized", tracking, INR_499)}


async def test_held_money_is_captured_once_in_part_or_released(shop: Shop) -> None:
    await shop.open(CaptureMode.MANUAL)
    await shop.decide("succeed")
    tracking = await shop.tracking_id()
    part = shop.call(OperationKind.CAPTURE, tracking, INR_399, is_whole=False)
    too_much = replace(part, amount=INR_499 + INR_100)
    with pytest.raises(GatewayRejected):
        await shop.ccavenue.capture(too_much)
    assert await shop.ccavenue.find_operation(part) is None

    fault = {"operation": "capture", "kind": "error_5xx", "status": 503, "after_work": True}
    await shop.sandbox.faults("ccavenue", fault)
    with pytest.raises(GatewayServerError):
        await shop.ccavenue.capture(part)
    found = await shop.ccavenue.find_operation(part)
    assert found is not None
    assert told(found.observations) == {("captured", tracking, INR_399), ("released", tracking, None)}
    repeated = await shop.ccavenue.capture(part)
    assert repeated.status is OutcomeStatus.SUCCEEDED
    other = await shop.ccavenue.capture(replace(part, amount=INR_100))
    assert (other.status, other.failure_code) == (OutcomeStatus.FAILED, "captured_otherwise")
    void = await shop.ccavenue.void(shop.call(OperationKind.VOID, tracking))
    assert (void.status, void.failure_code) == (OutcomeStatus.FAILED, "captured_before")

    await shop.open(CaptureMode.MANUAL)
    await shop.decide("succeed")
    held = await shop.tracking_id()
    call = shop.call(OperationKind.VOID, held)
    for _again in range(2):
        assert (await shop.ccavenue.void(call)).status is OutcomeStatus.SUCCEEDED
    assert ("canceled", held, None) not in await facts(shop)  # beside money it is no end of the payment
    assert ("released", held, None) in await facts(shop)


async def test_a_refund_is_accepted_and_later_confirmed_or_fails_and_is_never_made_twice(shop: Shop) -> None:
    await shop.open(CaptureMode.MANUAL)
    await shop.decide("succeed")
    tracking = await shop.tracking_id()
    await shop.ccavenue.capture(shop.call(OperationKind.CAPTURE, tracking))
    call = shop.call(OperationKind.REFUND, tracking, INR_100)
    assert await shop.ccavenue.find_operation(call) is None
    await shop.sandbox.faults("ccavenue", {"operation": "refund", "kind": "timeout_after", "seconds": 0})
    with pytest.raises(GatewayOutcomeUnknown):
        await shop.ccavenue.refund(call)
    for outcome in (await shop.ccavenue.find_operation(call), await shop.ccavenue.refund(call)):
        assert outcome is not None  # the second call is refused as a repetition (51309), which makes us look
        assert (outcome.status, outcome.gateway_reference) == (OutcomeStatus.SUCCEEDED, OPERATION)
    [payment] = await shop.payments()
    assert [refund["amount_minor"] for refund in payment["refunds"]] == [10_000]

    with pytest.raises(GatewayRejected) as refused:
        await shop.ccavenue.refund(shop.call(OperationKind.REFUND, tracking, reference="OP00000000000000002B"))
    assert refused.value.gateway_code == "51314"
    last = shop.call(OperationKind.REFUND, tracking, INR_399, reference="OP00000000000000003C")
    accepted = await shop.ccavenue.refund(last)
    assert accepted.status is OutcomeStatus.PENDING  # accepted is all that the answer says
    assert await facts(shop) == {
        ("captured", tracking, INR_499),
        ("refund_succeeded", OPERATION, INR_100),
        ("refund_succeeded", "OP00000000000000003C", INR_399),
    }


async def test_a_refund_made_in_the_panel_a_chargeback_and_a_refund_that_fails_are_told(shop: Shop) -> None:
    await shop.open(CaptureMode.MANUAL)
    await shop.decide("succeed")
    tracking = await shop.tracking_id()
    await shop.ccavenue.capture(shop.call(OperationKind.CAPTURE, tracking))
    await shop.sandbox.faults("ccavenue", {"operation": "refund", "kind": "pending"})
    await shop.ccavenue.refund(shop.call(OperationKind.REFUND, tracking, INR_100))
    await shop.sandbox.control("ccavenue", f"sessions/{tracking}/refunds", amount_minor=10_000)
    seen = await facts(shop)
    assert {kind for kind, *_ in seen} == {"captured", "refund_pending", "refund_succeeded"}
    assert ("refund_pending", OPERATION, INR_100) in seen
    await shop.sandbox.control("ccavenue", f"refunds/{OPERATION}", status="failed")
    await shop.sandbox.control("ccavenue", f"sessions/{tracking}/disputes")
    seen = await facts(shop)
    assert ("refund_failed", OPERATION, INR_100) in seen
    assert ("dispute_opened", f"{tracking}-chargeback", INR_499) in seen


async def test_lists_settlements_and_odd_words(shop: Shop) -> None:
    await shop.open(CaptureMode.MANUAL)
    await shop.decide("succeed")
    tracking = await shop.tracking_id()
    now = datetime.now(UTC)
    page = await shop.ccavenue.list_window(now - timedelta(minutes=5), now + timedelta(minutes=5))
    [listed] = page.entries
    assert (listed.references, listed.our_references) == ((tracking,), (shop.reference, "pay_1"))
    assert page.next_cursor is None
    assert (await shop.ccavenue.list_window(now - timedelta(hours=2), now - timedelta(hours=1))).entries == ()

    await shop.sandbox.faults("ccavenue", {"operation": "retrieve", "kind": "unknown_status"})
    assert {kind for kind, *_ in await facts(shop)} == {FactKind.PROCESSING}
    await shop.sandbox.faults("ccavenue", {"operation": "retrieve", "kind": "unparsable"})
    with pytest.raises(GatewayOutcomeUnknown):
        await facts(shop)

    await shop.ccavenue.capture(shop.call(OperationKind.CAPTURE, tracking))
    window = {"since": (now - timedelta(days=1)).isoformat(), "until": (now + timedelta(days=1)).isoformat()}
    report = (await shop.sandbox.client.get("/sandbox/control/ccavenue/settlement", params=window)).json()
    [payout] = report["payoutSummary"]["Payout_Summary_Result"]["pauyout_summary_list"]["pauyout_summary_details"]
    details = report["payIdDetails"][payout["pay_Id"]]["pay_id_details_Result"]["pay_id_txn_details_list"]
    [row] = details["pay_id_txn_details"]
    assert (row["ccavenue_ref_no"], row["order_no"], row["txn_type"]) == (tracking, shop.reference, "Shipped")
    assert payout["pay_amount"] == row["amt_payable"]
