"""Our BillDesk adapter and scheme, and the sandbox's BillDesk, over HTTP: what one says the others understand."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import jwt
import pytest

from services.payment_service.domain.models import FactKind
from services.payment_service.gateways.port import OutcomeStatus
from shared.errors import GatewayObjectNotFound, GatewayOutcomeUnknown, GatewayRejected
from shared.money import Money
from tests.support.adapter_calls import OPERATION, REFERENCE
from tests.support.billdesk import (
    ENCRYPTED,
    INR_100,
    INR_499,
    SIGNING_KEY,
    Shop,
    a_refund_call,
    a_session_request,
    open_shop,
)
from tests.support.postgres import ServiceDatabase
from tests.support.waiting import until
from tests.unit.payment_service.gateway_world import told


@pytest.fixture
async def shop(service_database: ServiceDatabase) -> AsyncIterator[Shop]:
    async with open_shop(service_database("gateway_sandbox")) as opened:
        yield opened


async def test_a_paid_order_is_captured_by_retrieval_and_by_its_webhook_in_the_same_words(shop: Shop) -> None:
    session = await shop.billdesk.create_session(a_session_request(), repeated=False)
    page = await shop.post_page(session.next_action.fields)
    assert page.status_code == 303
    assert page.headers["location"] == f"{shop.sandbox.url}/sandbox/billdesk/checkout/{session.gateway_reference}"
    for name, value in (("rdata", "guessed"), ("merchantid", "SOMEBODYELSE"), ("bdorderid", "OAUNKNOWN00001")):
        made_up = await shop.post_page({**session.next_action.fields, name: value})
        assert made_up.status_code in (401, 404)
    with pytest.raises(GatewayObjectNotFound):  # nobody has begun
        await shop.billdesk.retrieve(session.references, our_reference=REFERENCE)
    await shop.sandbox.outcome("billdesk", REFERENCE, "succeed")
    paid = str((await shop.payment())["payment_reference"])

    snapshot = await shop.billdesk.retrieve(session.references, our_reference=REFERENCE)
    assert told(snapshot.observations) == {("captured", paid, INR_499)}
    await until(lambda: len(shop.sandbox.receiver.requests) == 1, what="the webhook")
    [event] = shop.told()
    assert event.observations == snapshot.observations
    assert (event.references, event.our_references, event.must_ask) == ((paid,), (REFERENCE, "pay_1"), True)


@pytest.mark.parametrize("outcome", ["fail", "cancel"])
async def test_a_try_that_failed_or_was_cancelled_is_declined_and_the_next_is_paid(shop: Shop, outcome: str) -> None:
    session = await shop.billdesk.create_session(a_session_request(), repeated=False)
    await shop.sandbox.outcome("billdesk", REFERENCE, outcome)
    declined = await shop.billdesk.retrieve(session.references, our_reference=REFERENCE)
    assert [each.kind for each in declined.observations] == [FactKind.DECLINED]
    await until(lambda: len(shop.sandbox.receiver.requests) == 1, what="the webhook")
    [event] = shop.told()
    assert event.must_ask
    assert event.observations == declined.observations
    await shop.sandbox.outcome("billdesk", REFERENCE, "succeed", late=True)
    paid = await shop.billdesk.retrieve((*session.references, *declined.references), our_reference=REFERENCE)
    assert [each.kind for each in paid.observations] == [FactKind.CAPTURED]


async def test_the_browser_goes_back_with_a_token_or_after_cancelling_without(shop: Shop) -> None:
    for reference, button in (("PR00000000000000002A", "succeed"), ("PR00000000000000003A", "cancel")):
        session = await shop.billdesk.create_session(a_session_request(reference=reference), repeated=False)
        path = f"/sandbox/billdesk/checkout/{session.gateway_reference}"
        page = (await shop.sandbox.client.get(path)).text
        token = page.split('name="token" value="')[1].split('"')[0]
        back = await shop.sandbox.client.post(f"{path}/outcome", data={"outcome": button, "token": token})
        assert f'value="{reference}"' in back.text
        assert ("transaction_response" in back.text) is (button == "succeed")


async def test_an_order_whose_creation_was_not_answered_needs_a_new_attempt_unless_it_was_paid(shop: Shop) -> None:
    fault = {"operation": "create_session", "kind": "error_5xx", "status": 503, "after_work": True}
    await shop.sandbox.faults("billdesk", fault)
    with pytest.raises(GatewayOutcomeUnknown):
        await shop.billdesk.create_session(a_session_request(), repeated=False)
    with pytest.raises(GatewayRejected) as refusal:  # its page was shown to nobody, and its form is lost
        await shop.billdesk.create_session(a_session_request(), repeated=True)
    assert refusal.value.gateway_code == "TRDRE0001"
    await shop.sandbox.outcome("billdesk", REFERENCE, "succeed")
    adopted = await shop.billdesk.create_session(a_session_request(), repeated=True)
    assert [each.kind for each in adopted.observations] == [FactKind.CAPTURED]
    assert adopted.next_action.url == a_session_request().return_url


async def test_a_refund_is_pending_until_it_is_a_day_old_and_one_that_was_not_answered_is_found(shop: Shop) -> None:
    transaction = await shop.paid()
    fault = {"operation": "refund", "kind": "error_5xx", "status": 503, "after_work": True}
    await shop.sandbox.faults("billdesk", fault)
    call = a_refund_call(transaction)
    assert await shop.billdesk.find_operation(call) is None
    with pytest.raises(GatewayOutcomeUnknown):
        await shop.billdesk.refund(call)
    found = await shop.billdesk.find_operation(call)
    assert found is not None
    assert found.status is OutcomeStatus.PENDING
    assert await shop.billdesk.refund(call) == found  # 409, and it is looked for
    assert (await shop.payment())["refunded_minor"] == INR_100.amount_minor
    with pytest.raises(GatewayRejected):
        await shop.billdesk.refund(a_refund_call(transaction, INR_499, reference="OP00000000000000002A"))


async def test_encrypted_both_ways_refunds_come_by_call_dashboard_and_webhook(
    service_database: ServiceDatabase,
) -> None:
    async with open_shop(service_database("gateway_sandbox"), ENCRYPTED, final_after_hours=0) as shop:
        transaction = await shop.paid()
        await shop.sandbox.faults("billdesk", {"operation": "refund", "kind": "pending"})
        pending = await shop.billdesk.refund(a_refund_call(transaction))
        assert pending.status is OutcomeStatus.PENDING
        await shop.sandbox.control("billdesk", f"refunds/{pending.gateway_reference}", status="succeeded")
        done = await shop.billdesk.find_operation(a_refund_call(transaction))
        assert done is not None
        assert done.status is OutcomeStatus.SUCCEEDED
        await shop.sandbox.control("billdesk", f"sessions/{REFERENCE}/refunds", amount_minor=100)
        await until(lambda: len(shop.sandbox.receiver.requests) == 4, what="one capture and three refund webhooks")
        told_of = {(str(o.kind), o.amount, o.operation) for event in shop.told() for o in event.observations}
        assert told_of == {
            ("captured", INR_499, None),
            ("refund_pending", INR_100, OPERATION),
            ("refund_succeeded", INR_100, OPERATION),
            ("refund_succeeded", Money(100, "INR"), None),
        }
        snapshot = await shop.billdesk.retrieve((transaction,), our_reference=REFERENCE)
        shown = {(str(o.kind), o.amount, o.operation) for o in snapshot.observations}
        assert shown == told_of - {("refund_pending", INR_100, OPERATION)}


async def test_what_the_wire_may_do_wrong_is_never_a_success(shop: Shop) -> None:
    transaction = await shop.paid()
    await shop.sandbox.faults("billdesk", {"operation": "retrieve", "kind": "unknown_status"})
    snapshot = await shop.billdesk.retrieve((), our_reference=REFERENCE)
    assert {each.kind for each in snapshot.observations} == {FactKind.PROCESSING}
    await shop.sandbox.faults("billdesk", {"operation": "retrieve", "kind": "wrong_amount", "amount_minor": 100})
    snapshot = await shop.billdesk.retrieve((), our_reference=REFERENCE)
    assert told(snapshot.observations) == {("captured", transaction, Money(100, "INR"))}
    await shop.sandbox.faults("billdesk", {"operation": "retrieve", "kind": "unparsable", "count": 2})
    with pytest.raises(GatewayOutcomeUnknown):
        await shop.billdesk.retrieve((), our_reference=REFERENCE)
    await shop.sandbox.faults("billdesk", {"operation": "retrieve", "kind": "rate_limit", "retry_after": 0})
    snapshot = await shop.billdesk.retrieve((), our_reference=REFERENCE)  # asked again, under another trace id
    assert told(snapshot.observations) == {("captured", transaction, INR_499)}


async def test_the_sandbox_is_as_strict_as_the_fact_sheet(shop: Shop) -> None:
    """Signed by PyJWT here, as any integration would."""
    now = datetime.now(UTC)
    stamp = f"{now + timedelta(hours=5, minutes=30):%Y%m%d%H%M%S}"
    headers = {
        "content-type": "application/jose",
        "accept": "application/jose",
        "bd-timestamp": stamp,
        "bd-traceid": "trace000000000001",
    }
    question = {"mercid": "TESTMERC1", "orderid": REFERENCE}

    async def ask(key: str = SIGNING_KEY, client: str = "testclient01", **changes: str) -> int:
        token = jwt.encode(question, key, algorithm="HS256", headers={"clientid": client})
        url = "/sandbox/billdesk/payments/ve1_2/transactions/get"
        answer = await shop.sandbox.client.post(url, content=token, headers={**headers, **changes})
        return answer.status_code if answer.content else -answer.status_code

    assert await ask() == 404
    assert await ask() == 409  # the trace id again
    assert await ask(**{"bd-traceid": "trace000000000002", "content-type": "application/json"}) == 415
    assert await ask(**{"bd-traceid": "short"}) == 422
    assert await ask(**{"bd-traceid": "trace000000000003", "bd-timestamp": str(int(now.timestamp()))}) == -200
    assert await ask(**{"bd-traceid": "trace000000000004", "bd-timestamp": f"{now:%Y%m%d%H%M%S}"}) == -200
    assert await ask(key=SIGNING_KEY[::-1]) == 401
    assert await ask(client="another") == 401


async def test_the_settlement_file_adds_up(shop: Shop) -> None:
    transaction = await shop.paid()
    await shop.billdesk.refund(a_refund_call(transaction))
    now = datetime.now(UTC)
    window = {"since": (now - timedelta(hours=1)).isoformat(), "until": (now + timedelta(hours=1)).isoformat()}
    answer = await shop.sandbox.client.get("/sandbox/control/billdesk/settlement", params=window)
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [(row["type"], row["transactionid"], row["gross"], row["net"]) for row in rows] == [
        ("sale", transaction, "499.00", "484.29"),
        ("refund", transaction, "-100.00", "-100.00"),
    ]
    assert {row["orderid"] for row in rows} == {REFERENCE}
