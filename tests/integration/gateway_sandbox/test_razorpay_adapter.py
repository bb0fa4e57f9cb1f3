"""Our Razorpay adapter and the sandbox's Razorpay, over HTTP: what one says the other understands."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import AsyncIterator
from html import unescape
from urllib.parse import parse_qs, urlsplit

import pytest

from services.payment_service.domain.models import CaptureMode, FactKind
from services.payment_service.domain.operations import OperationKind
from services.payment_service.gateways.port import OutcomeStatus, Session
from shared.errors import GatewayOutcomeUnknown, GatewayRejected, GatewayUnavailable
from shared.money import Money
from tests.support.adapter_calls import REFERENCE, RETURN_URL
from tests.support.postgres import ServiceDatabase
from tests.support.razorpay import (
    INR_500,
    KEY_SECRET,
    Shop,
    a_money_call,
    a_session_request,
    open_shop,
    running_razorpay,
)
from tests.support.waiting import until
from tests.unit.payment_service.gateway_world import told

INR_100 = Money(10_000, "INR")


@pytest.fixture
async def shop(service_database: ServiceDatabase) -> AsyncIterator[Shop]:
    async with running_razorpay(service_database("gateway_sandbox")) as sandbox, open_shop(sandbox) as opened:
        yield opened


async def a_paid_link(shop: Shop) -> str:
    await shop.razorpay.create_session(a_session_request(), repeated=False)
    await shop.sandbox.outcome("razorpay", REFERENCE, "succeed")
    return str((await shop.payment())["payment_reference"])


async def an_open_order(shop: Shop) -> Session:
    session = await shop.razorpay.create_session(a_session_request(CaptureMode.MANUAL), repeated=False)
    answer = await shop.post_checkout(session.next_action.fields)
    assert answer.status_code == 303
    return session


async def a_held_payment(shop: Shop) -> str:
    await an_open_order(shop)
    await shop.sandbox.outcome("razorpay", REFERENCE, "succeed")
    return str((await shop.payment())["payment_reference"])


# --- sessions ------------------------------------------------------------------------------------------------------


async def test_a_paid_link_is_captured_by_retrieval_and_by_each_of_its_events_in_the_same_words(shop: Shop) -> None:
    session = await shop.razorpay.create_session(a_session_request(), repeated=False)
    assert session.next_action.url.startswith(f"{shop.sandbox.url}/sandbox/razorpay/checkout/plink_")
    await shop.sandbox.outcome("razorpay", REFERENCE, "succeed")
    paid = str((await shop.payment())["payment_reference"])

    snapshot = await shop.razorpay.retrieve(session.references, our_reference=REFERENCE)
    assert told(snapshot.observations) == {("captured", paid, INR_500)}
    await until(lambda: len(shop.event_types) == 4, what="the four events of a paid link")
    assert shop.event_types == ["order.paid", "payment.authorized", "payment.captured", "payment_link.paid"]
    for event_type in ("order.paid", "payment.captured", "payment_link.paid"):
        [event] = shop.told(event_type)
        assert {o.natural_key for o in event.observations} == {o.natural_key for o in snapshot.observations}
        assert set(event.references) <= set(snapshot.references)
    [by_link] = shop.told("payment_link.paid")
    assert by_link.references == (session.gateway_reference, paid, snapshot.references[1])
    assert REFERENCE in by_link.our_references


async def test_a_repeated_link_is_the_first_one(shop: Shop) -> None:
    first = await shop.razorpay.create_session(a_session_request(), repeated=False)
    second = await shop.razorpay.create_session(a_session_request(), repeated=True)
    assert second.gateway_reference == first.gateway_reference
    assert second.next_action == first.next_action


async def test_a_link_whose_creation_was_not_answered_is_adopted(shop: Shop) -> None:
    await shop.sandbox.faults(
        "razorpay", {"operation": "create_session", "kind": "error_5xx", "status": 503, "after_work": True}
    )
    session = await shop.razorpay.create_session(a_session_request(), repeated=False)
    assert (await shop.payment())["gateway_reference"] == session.gateway_reference


async def test_an_order_whose_creation_was_not_answered_is_looked_for_before_it_is_made_again(shop: Shop) -> None:
    fault = {"operation": "create_session", "kind": "error_5xx", "status": 503, "after_work": True}
    await shop.sandbox.faults("razorpay", fault)
    request = a_session_request(CaptureMode.MANUAL)
    with pytest.raises(GatewayOutcomeUnknown):
        await shop.razorpay.create_session(request, repeated=False)
    session = await shop.razorpay.create_session(request, repeated=True)
    assert (await shop.payment())["gateway_reference"] == session.gateway_reference


async def test_a_declined_try_leaves_the_link_open_and_the_next_may_succeed(shop: Shop) -> None:
    session = await shop.razorpay.create_session(a_session_request(), repeated=False)
    await shop.sandbox.outcome("razorpay", REFERENCE, "fail")
    declined = str((await shop.payment())["payment_reference"])
    snapshot = await shop.razorpay.retrieve(session.references, our_reference=REFERENCE)
    assert told(snapshot.observations) == {
        ("session_opened", session.gateway_reference, None),
        ("declined", declined, None),
    }
    await shop.sandbox.outcome("razorpay", REFERENCE, "succeed")
    paid = str((await shop.payment())["payment_reference"])
    snapshot = await shop.razorpay.retrieve(session.references, our_reference=REFERENCE)
    assert told(snapshot.observations) == {("captured", paid, INR_500), ("declined", declined, None)}
    assert paid != declined


async def test_a_failed_payment_of_a_link_that_has_expired_turns_authorized_days_later(shop: Shop) -> None:
    session = await shop.razorpay.create_session(a_session_request(), repeated=False)
    await shop.sandbox.outcome("razorpay", REFERENCE, "fail")
    failed = str((await shop.payment())["payment_reference"])
    await shop.sandbox.outcome("razorpay", REFERENCE, "expire")
    await shop.sandbox.outcome("razorpay", REFERENCE, "succeed", late=True)

    snapshot = await shop.razorpay.retrieve(session.references, our_reference=REFERENCE)
    assert told(snapshot.observations) == {
        ("expired", session.gateway_reference, None),
        ("captured", failed, INR_500),
    }
    await until(lambda: "order.paid" in shop.event_types, what="the late order.paid")
    assert "payment_link.paid" not in shop.event_types
    [late] = shop.told("order.paid")
    assert REFERENCE in late.our_references


async def test_closing_a_link_cancels_it_and_closing_a_paid_one_says_what_became_of_it(shop: Shop) -> None:
    session = await shop.razorpay.create_session(a_session_request(), repeated=False)
    closed = await shop.razorpay.close_session(session.gateway_reference, our_reference=REFERENCE)
    assert told(closed.observations) == {("canceled", session.gateway_reference, None)}
    await until(lambda: "payment_link.cancelled" in shop.event_types, what="the cancellation")
    [event] = shop.told("payment_link.cancelled")
    assert {o.natural_key for o in event.observations} == {o.natural_key for o in closed.observations}

    other = "PR00000000000000002B"
    session = await shop.razorpay.create_session(a_session_request(reference=other), repeated=False)
    await shop.sandbox.outcome("razorpay", other, "succeed")
    closed = await shop.razorpay.close_session(session.gateway_reference, our_reference=other)
    assert {o.kind for o in closed.observations} == {FactKind.CAPTURED}


async def test_closing_an_order_is_our_own_decision_and_never_hides_held_money(shop: Shop) -> None:
    session = await an_open_order(shop)
    await shop.sandbox.outcome("razorpay", REFERENCE, "fail")
    closed = await shop.razorpay.close_session(session.gateway_reference, our_reference=REFERENCE)
    assert ("canceled", session.gateway_reference, None) in told(closed.observations)
    await shop.sandbox.outcome("razorpay", REFERENCE, "succeed", late=True)
    closed = await shop.razorpay.close_session(session.gateway_reference, our_reference=REFERENCE)
    assert {o.kind for o in closed.observations} == {FactKind.SESSION_OPENED, FactKind.AUTHORIZED}


async def test_the_way_back_is_a_signed_get_for_links(shop: Shop) -> None:
    session = await shop.razorpay.create_session(a_session_request(), repeated=False)
    page = await shop.sandbox.client.get(session.next_action.url)
    token = re.search(r'name="token" value="(\w+)"', page.text)
    assert token is not None
    form = {"token": token.group(1), "outcome": "succeed"}
    back = await shop.sandbox.client.post(f"{session.next_action.url}/outcome", data=form)
    query = {name: value for name, [value] in parse_qs(urlsplit(back.headers["location"]).query).items()}
    parts = ("payment_link_id", "payment_link_reference_id", "payment_link_status", "payment_id")
    message = "|".join(query[f"razorpay_{part}"] for part in parts)
    expected = hmac.new(KEY_SECRET.encode(), message.encode(), hashlib.sha256).hexdigest()
    assert query["razorpay_signature"] == expected
    assert query["from"] == "page"


@pytest.mark.parametrize(("outcome", "posted"), [("succeed", "razorpay_signature"), ("fail", "error[code]")])
async def test_the_way_back_of_an_order_is_a_form_that_posts_itself(shop: Shop, outcome: str, posted: str) -> None:
    session = await shop.razorpay.create_session(a_session_request(CaptureMode.MANUAL), repeated=False)
    assert session.next_action.type == "form_post"
    assert session.next_action.url == f"{shop.sandbox.url}/sandbox/razorpay/v1/checkout/embedded"
    to_page = await shop.post_checkout(session.next_action.fields)
    page = await shop.sandbox.client.get(to_page.headers["location"])
    token = re.search(r'name="token" value="(\w+)"', page.text)
    assert token is not None
    form = {"token": token.group(1), "outcome": outcome}
    back = await shop.sandbox.client.post(f"{to_page.headers['location']}/outcome", data=form)
    posting = await shop.sandbox.client.get(back.headers["location"])
    assert posting.headers["content-type"].startswith("text/html")
    assert f'action="{RETURN_URL}"' in unescape(posting.text)
    assert f'name="{posted}"' in unescape(posting.text)
    without_token = back.headers["location"].split("?")[0]
    assert (await shop.sandbox.client.get(without_token)).status_code == 401


# --- held money ----------------------------------------------------------------------------------------------------


async def test_held_money_is_captured_whole_and_a_second_capture_finds_the_first(shop: Shop) -> None:
    held = await a_held_payment(shop)
    snapshot = await shop.razorpay.retrieve((held,), our_reference=REFERENCE)
    assert ("authorized", held, INR_500) in told(snapshot.observations)

    call = a_money_call(OperationKind.CAPTURE, held)
    assert await shop.razorpay.find_operation(call) is None
    for _ in range(2):
        outcome = await shop.razorpay.capture(call)
        assert (outcome.status, outcome.gateway_reference) == (OutcomeStatus.SUCCEEDED, held)
        assert told(outcome.observations) == {("captured", held, INR_500)}
    payment = await shop.payment()
    assert (payment["captured_minor"], [o["operation"] for o in payment["operations"]].count("capture")) == (50_000, 1)


async def test_a_capture_whose_answer_was_lost_is_repeated_and_found_done(shop: Shop) -> None:
    held = await a_held_payment(shop)
    await shop.sandbox.faults(
        "razorpay", {"operation": "capture", "kind": "timeout_after", "seconds": 0.05, "count": 1}
    )
    outcome = await shop.razorpay.capture(a_money_call(OperationKind.CAPTURE, held))
    assert outcome.status is OutcomeStatus.SUCCEEDED


@pytest.mark.parametrize("operation", ["capture", "refund"])
async def test_a_refusal_that_is_none_of_ours_is_a_refusal(shop: Shop, operation: str) -> None:
    target = await (a_held_payment if operation == "capture" else a_paid_link)(shop)
    await shop.sandbox.faults("razorpay", {"operation": operation, "kind": "reject", "code": "insufficient_balance"})
    call = a_money_call(OperationKind(operation), target)
    with pytest.raises(GatewayRejected) as refusal:
        await getattr(shop.razorpay, operation)(call)
    assert refusal.value.gateway_code == "insufficient_balance"


async def test_a_hold_that_lapses_is_expired_and_no_refund(shop: Shop) -> None:
    held = await a_held_payment(shop)
    assert (await shop.control(f"sessions/{REFERENCE}/hold", {"expire": True})).status_code == 200
    snapshot = await shop.razorpay.retrieve((held,), our_reference=REFERENCE)
    assert {o.kind for o in snapshot.observations} == {FactKind.SESSION_OPENED, FactKind.EXPIRED}
    await until(lambda: "refund.processed" in shop.event_types, what="the release")
    [event] = shop.told("refund.processed")
    assert told(event.observations) == {("expired", held, None)}

    found = await shop.razorpay.find_operation(a_money_call(OperationKind.CAPTURE, held))
    assert found is not None
    assert (found.status, found.failure_code) == (OutcomeStatus.FAILED, "authorization_expired")


# --- refunds -------------------------------------------------------------------------------------------------------


async def test_refunds_carry_our_reference_and_are_told_alike_by_answer_webhook_and_retrieval(shop: Shop) -> None:
    paid = await a_paid_link(shop)
    call = a_money_call(OperationKind.REFUND, paid, INR_100, is_whole=False)
    assert await shop.razorpay.find_operation(call) is None
    outcome = await shop.razorpay.refund(call)
    assert outcome.status is OutcomeStatus.SUCCEEDED
    [observation] = outcome.observations
    assert (observation.about, observation.operation) == (paid, call.reference)

    assert await shop.razorpay.find_operation(call) == outcome
    snapshot = await shop.razorpay.retrieve((), our_reference=REFERENCE)
    assert observation.natural_key in {o.natural_key for o in snapshot.observations}
    await until(lambda: "refund.processed" in shop.event_types, what="the refund's events")
    for event_type in ("refund.created", "refund.processed"):
        [event] = shop.told(event_type)
        assert observation.natural_key in {o.natural_key for o in event.observations}
    [refund] = (await shop.payment())["refunds"]
    assert (refund["reference"], refund["idempotency_key"]) == (call.reference, call.idempotency_key)


async def test_a_refund_whose_answers_are_lost_is_made_once(shop: Shop) -> None:
    paid = await a_paid_link(shop)
    await shop.sandbox.faults("razorpay", {"operation": "refund", "kind": "timeout_after", "seconds": 0.05, "count": 2})
    call = a_money_call(OperationKind.REFUND, paid, INR_100, is_whole=False)
    first = await shop.razorpay.refund(call)
    again = await shop.razorpay.refund(call)
    assert first == again
    assert (await shop.payment())["refunded_minor"] == 10_000


async def test_another_body_under_the_same_key_is_refused_and_moves_nothing(shop: Shop) -> None:
    paid = await a_paid_link(shop)
    await shop.razorpay.refund(a_money_call(OperationKind.REFUND, paid, INR_100))
    other = a_money_call(OperationKind.REFUND, paid, INR_100, reference="OP00000000000000002B")
    with pytest.raises(GatewayRejected):
        await shop.razorpay.refund(other)
    assert (await shop.payment())["refunded_minor"] == 10_000


async def test_a_refused_repetition_under_a_new_key_finds_our_refund_by_its_receipt(shop: Shop) -> None:
    paid = await a_paid_link(shop)
    call = a_money_call(OperationKind.REFUND, paid)
    first = await shop.razorpay.refund(call)
    again = await shop.razorpay.refund(a_money_call(OperationKind.REFUND, paid, idempotency_key="another-key-2"))
    assert again == first


async def test_what_is_more_than_there_is_is_refused(shop: Shop) -> None:
    paid = await a_paid_link(shop)
    await shop.razorpay.refund(a_money_call(OperationKind.REFUND, paid, Money(45_000, "INR")))
    more = {"reference": "OP00000000000000002B", "idempotency_key": "OP00000000000000002B"}
    with pytest.raises(GatewayRejected):
        await shop.razorpay.refund(a_money_call(OperationKind.REFUND, paid, INR_100, **more))


@pytest.mark.parametrize(("status", "outcome"), [("succeeded", "succeeded"), ("failed", "failed")])
async def test_a_pending_refund_ends_by_webhook(shop: Shop, status: str, outcome: str) -> None:
    paid = await a_paid_link(shop)
    await shop.sandbox.faults("razorpay", {"operation": "refund", "kind": "pending"})
    call = a_money_call(OperationKind.REFUND, paid, INR_100)
    pending = await shop.razorpay.refund(call)
    assert pending.status is OutcomeStatus.PENDING
    assert (await shop.control(f"refunds/{pending.gateway_reference}", {"status": status})).status_code == 200
    event_type = "refund.processed" if status == "succeeded" else "refund.failed"
    await until(lambda: event_type in shop.event_types, what=event_type)
    [event] = shop.told(event_type)
    assert (f"refund_{outcome}", pending.gateway_reference, INR_100) in told(event.observations)
    found = await shop.razorpay.find_operation(call)
    assert found is not None
    assert found.status == outcome


async def test_a_refund_made_in_the_dashboard_is_imported_without_an_operation(shop: Shop) -> None:
    paid = await a_paid_link(shop)
    assert (await shop.control(f"sessions/{REFERENCE}/refunds", {"amount_minor": 10_000})).status_code == 201
    snapshot = await shop.razorpay.retrieve((), our_reference=REFERENCE)
    [imported] = [o for o in snapshot.observations if o.kind is FactKind.REFUND_SUCCEEDED]
    assert (imported.amount, imported.about, imported.operation) == (INR_100, paid, None)


# --- disputes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ruling", ["won", "lost"])
async def test_disputes_open_and_close_and_are_read_again_once_they_are_known(shop: Shop, ruling: str) -> None:
    paid = await a_paid_link(shop)
    opened = await shop.control(f"sessions/{REFERENCE}/disputes", {"amount_minor": 10_000})
    dispute = opened.json()["disputes"][0]["dispute_id"]
    await shop.control(f"disputes/{dispute}", {"status": ruling})
    await until(lambda: f"payment.dispute.{ruling}" in shop.event_types, what="the ruling")
    [created], [closed] = shop.told("payment.dispute.created"), shop.told(f"payment.dispute.{ruling}")
    assert ("dispute_opened", dispute, INR_100) in told(created.observations)
    assert (f"dispute_{ruling}", dispute, INR_100) in told(closed.observations)
    assert dispute in closed.references
    snapshot = await shop.razorpay.retrieve((dispute,), our_reference=REFERENCE)
    [reread] = [o for o in snapshot.observations if o.object_reference == dispute]
    assert reread.natural_key in {o.natural_key for o in closed.observations}
    assert reread.about == paid


# --- trouble -------------------------------------------------------------------------------------------------------


async def test_a_wrong_key_moves_nothing_and_fails_no_payment(shop: Shop) -> None:
    paid = await a_paid_link(shop)
    shop.razorpay._api._headers["authorization"] = "Basic cnpwX3Rlc3RfMTpub25zZW5zZQ=="
    for call in (
        shop.razorpay.retrieve((), our_reference=REFERENCE),
        shop.razorpay.refund(a_money_call(OperationKind.REFUND, paid)),
        shop.razorpay.create_session(a_session_request(), repeated=False),
    ):
        with pytest.raises(GatewayUnavailable):
            await call


@pytest.mark.parametrize("amount", [Money(5000, "JPY"), Money(1999, "USD"), Money(99_990, "KWD")])
async def test_every_kind_of_currency_goes_out_and_comes_back_exactly(shop: Shop, amount: Money) -> None:
    await shop.razorpay.create_session(a_session_request(amount=amount), repeated=False)
    await shop.sandbox.outcome("razorpay", REFERENCE, "succeed")
    payment = await shop.payment()
    assert (payment["captured_minor"], payment["currency"]) == (amount.amount_minor, amount.currency)
    snapshot = await shop.razorpay.retrieve((), our_reference=REFERENCE)
    assert told(snapshot.observations) == {("captured", payment["payment_reference"], amount)}
