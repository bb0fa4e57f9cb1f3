"""Our MyFatoorah adapter and the sandbox's MyFatoorah, over HTTP: what one says the other understands."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest

from services.gateway_sandbox.gateways.definition import Site
from services.gateway_sandbox.gateways.myfatoorah import DEFINITION
from services.gateway_sandbox.gateways.port import WireCall, WireError
from services.payment_service.domain.models import CaptureMode, FactKind
from services.payment_service.domain.operations import OperationKind
from services.payment_service.gateways.port import Delivery, OutcomeStatus
from services.webhook_ingest.signatures.myfatoorah import MyFatoorahScheme
from services.webhook_ingest.signatures.port import RawDelivery, SigningSecret, Trust
from shared.errors import GatewayOutcomeUnknown, GatewayRejected, GatewayUnavailable
from shared.masking import redact_body
from shared.money import Money
from tests.support.adapter_calls import OPERATION, REFERENCE
from tests.support.myfatoorah import KWD_12, WEBHOOK_SECRET, Shop, a_money_call, a_session_request, open_shop
from tests.support.postgres import ServiceDatabase
from tests.support.waiting import until
from tests.unit.payment_service.gateway_world import told

KWD_5 = Money(5_001, "KWD")
GATEWAY = "myfatoorah"


@pytest.fixture
async def shop(service_database: ServiceDatabase) -> AsyncIterator[Shop]:
    async with open_shop(service_database("gateway_sandbox")) as opened:
        yield opened


def verified(request: httpx.Request) -> tuple[Trust, Delivery]:
    """As webhook_ingest verifies it and hands it on: without personal data."""
    raw = RawDelivery("POST", "/", "", tuple(request.headers.items()), request.content)
    answer = MyFatoorahScheme().verify(raw, [SigningSecret(WEBHOOK_SECRET)], datetime.now(UTC))
    assert answer.verified, answer.refusal
    text = redact_body("application/json", request.content)
    return answer.trust, Delivery("application/json", text, answer.event_type, datetime.now(UTC))


async def test_a_declined_attempt_leaves_the_page_open_and_the_next_one_pays(shop: Shop) -> None:
    session = await shop.adapter.create_session(a_session_request(), repeated=False)
    assert session.next_action.url == f"{shop.sandbox.url}/sandbox/myfatoorah/checkout/{session.gateway_reference}"
    await shop.sandbox.outcome(GATEWAY, REFERENCE, "fail")
    failed = str((await shop.entry())["payment_reference"])
    snapshot = await shop.adapter.retrieve(session.references, our_reference=REFERENCE)
    assert told(snapshot.observations) == {
        ("session_opened", session.gateway_reference, None),
        ("declined", failed, None),
    }
    await shop.sandbox.outcome(GATEWAY, REFERENCE, "succeed")
    paid = str((await shop.entry())["payment_reference"])
    snapshot = await shop.adapter.retrieve(session.references, our_reference=REFERENCE)
    assert told(snapshot.observations) == {("captured", paid, KWD_12), ("declined", failed, None)}
    assert snapshot.references == (session.gateway_reference, failed, paid)
    await until(lambda: len(shop.sandbox.receiver.requests) == 2, what="an event for each attempt")
    for request in shop.sandbox.receiver.requests:
        trust, delivery = verified(request)
        event = shop.adapter.translate_webhook(delivery)
        assert (trust, event.must_ask, event.observations) == (Trust.HINT, True, ())
        assert event.references[0] == session.gateway_reference
        assert event.our_references == (REFERENCE, "pay_1")


async def test_a_link_that_has_expired_says_so_by_its_time_and_money_may_still_come(shop: Shop) -> None:
    session = await shop.adapter.create_session(a_session_request(), repeated=False)
    await shop.sandbox.outcome(GATEWAY, REFERENCE, "expire")
    snapshot = await shop.adapter.retrieve(session.references, our_reference=REFERENCE)
    assert told(snapshot.observations) == {("expired", session.gateway_reference, None)}
    await shop.sandbox.outcome(GATEWAY, REFERENCE, "succeed", late=True)
    snapshot = await shop.adapter.retrieve(session.references, our_reference=REFERENCE)
    assert {o.kind for o in snapshot.observations} == {FactKind.CAPTURED}


async def test_held_money_is_captured_in_part_once_and_the_rest_is_gone(shop: Shop) -> None:
    held = await shop.paid(CaptureMode.MANUAL)
    [before] = (await shop.adapter.retrieve((), our_reference=REFERENCE)).observations
    assert (before.kind, before.object_reference, before.amount) == (FactKind.AUTHORIZED, held, KWD_12)
    fault = {"operation": "capture", "kind": "error_5xx", "status": 503, "after_work": True}
    await shop.sandbox.faults(GATEWAY, fault)  # answered by an error, though it was done: the second is refused
    outcome = await shop.adapter.capture(a_money_call(OperationKind.CAPTURE, held, KWD_5, is_whole=False))
    assert outcome.status is OutcomeStatus.SUCCEEDED
    assert told(outcome.observations) == {("captured", held, KWD_5), ("released", held, None)}
    again = await shop.adapter.capture(a_money_call(OperationKind.CAPTURE, held, Money(7_344, "KWD")))
    assert (again.status, again.failure_code) == (OutcomeStatus.FAILED, "captured_otherwise")
    assert (await shop.entry())["captured_minor"] == 5_001


async def test_held_money_is_released_once_and_cannot_be_captured_then(shop: Shop) -> None:
    held = await shop.paid(CaptureMode.MANUAL)
    call = a_money_call(OperationKind.VOID, held)
    assert await shop.adapter.find_operation(call) is None
    await shop.sandbox.faults(GATEWAY, {"operation": "void", "kind": "reject"})
    with pytest.raises(GatewayRejected):
        await shop.adapter.void(call)
    outcome = await shop.adapter.void(call)
    assert (outcome.status, told(outcome.observations)) == (OutcomeStatus.SUCCEEDED, {("canceled", held, None)})
    capture = await shop.adapter.capture(a_money_call(OperationKind.CAPTURE, held))
    assert (capture.status, capture.failure_code) == (OutcomeStatus.FAILED, "released")
    other = "PR00000000000000002A"
    lapsing = await shop.paid(CaptureMode.MANUAL, reference=other)
    await shop.sandbox.control(GATEWAY, f"sessions/{other}/hold", expire=True)
    snapshot = await shop.adapter.retrieve((), our_reference=other)
    assert told(snapshot.observations) == {("canceled", lapsing, None)}


async def test_a_refund_is_pending_until_it_is_decided_and_found_after_silence(shop: Shop) -> None:
    paid = await shop.paid()
    call = a_money_call(OperationKind.REFUND, paid, KWD_5)
    assert await shop.adapter.find_operation(call) is None
    fault = {"operation": "refund", "kind": "error_5xx", "status": 502, "after_work": True}
    await shop.sandbox.faults(GATEWAY, fault)
    with pytest.raises(GatewayOutcomeUnknown):
        await shop.adapter.refund(call)
    found = await shop.adapter.find_operation(call)
    assert found is not None
    assert found.status is OutcomeStatus.PENDING
    second = await shop.adapter.refund(
        a_money_call(OperationKind.REFUND, paid, KWD_5, reference="OP00000000000000002A")
    )
    assert second.status is OutcomeStatus.PENDING
    await shop.sandbox.control(GATEWAY, f"refunds/{found.gateway_reference}", status="succeeded")
    await shop.sandbox.control(GATEWAY, f"refunds/{second.gateway_reference}", status="failed")
    snapshot = await shop.adapter.retrieve((), our_reference=REFERENCE)
    returned = {(o.kind, o.object_reference, o.amount, o.operation, o.about) for o in snapshot.observations if o.about}
    assert returned == {
        (FactKind.REFUND_SUCCEEDED, found.gateway_reference, KWD_5, OPERATION, paid),
        (FactKind.REFUND_FAILED, second.gateway_reference, KWD_5, "OP00000000000000002A", paid),
    }
    with pytest.raises(GatewayRejected):
        await shop.adapter.refund(a_money_call(OperationKind.REFUND, paid, KWD_12, reference="OP00000000000000003A"))
    await until(lambda: len(shop.sandbox.receiver.requests) == 3, what="the news of both refunds")
    events = [shop.adapter.translate_webhook(verified(each)[1]) for each in shop.sandbox.receiver.requests]
    invoice = snapshot.references[0]
    assert [event.references for event in events if event.event_type == "REFUND_STATUS_CHANGED"] == [(invoice,)] * 2


async def test_the_log_of_webhooks_lists_a_windows_payments_and_tells_of_disputes(shop: Shop) -> None:
    paid = await shop.paid()
    now = datetime.now(UTC)
    page = await shop.adapter.list_window(now - timedelta(minutes=5), now + timedelta(minutes=5))
    [listed] = page.entries
    assert (page.next_cursor, listed.references[1]) == (None, paid)
    assert listed.our_references == (REFERENCE, "pay_1")
    assert told(listed.observations) == {("captured", paid, KWD_12)}
    nothing = await shop.adapter.list_window(now - timedelta(hours=2), now - timedelta(hours=1))
    assert nothing.entries == ()
    await shop.sandbox.control(GATEWAY, f"sessions/{REFERENCE}/disputes", amount_minor=5_001)
    snapshot = await shop.adapter.retrieve((), our_reference=REFERENCE)
    [opened] = [o for o in snapshot.observations if o.kind is FactKind.DISPUTE_OPENED]
    assert (opened.amount, opened.about, opened.reason) == (KWD_5, paid, "FRAUD")
    await until(lambda: len(shop.sandbox.receiver.requests) == 2, what="the news of the dispute")
    assert shop.adapter.translate_webhook(verified(shop.sandbox.receiver.requests[1])[1]).must_ask


async def test_an_account_of_version_1_signs_all_of_the_data(service_database: ServiceDatabase) -> None:
    """And a deposit adds up, with the refund that it lists."""
    async with open_shop(service_database("gateway_sandbox"), SANDBOX_MYFATOORAH_WEBHOOKS="V1") as shop:
        paid = await shop.paid()
        refund = await shop.sandbox.control(GATEWAY, f"sessions/{REFERENCE}/refunds", amount_minor=5_001)
        assert refund.status_code == 201, refund.text
        await until(lambda: len(shop.sandbox.receiver.requests) == 2, what="the payment and its refund")
        told_by = [verified(request) for request in shop.sandbox.receiver.requests]
        events = [shop.adapter.translate_webhook(delivery) for _, delivery in told_by]
        assert {trust for trust, _ in told_by} == {Trust.FULL}
        assert {event.event_type for event in events} == {"PAYMENT_STATUS_CHANGED", "REFUND_STATUS_CHANGED"}
        assert all(event.must_ask and not event.observations for event in events)
        now = datetime.now(UTC)
        window = {"since": (now - timedelta(hours=1)).isoformat(), "until": (now + timedelta(hours=1)).isoformat()}
        answer = await shop.sandbox.client.get(f"/sandbox/control/{GATEWAY}/settlement", params=window)
        rows = answer.json()["Data"]
    assert {row["PaymentId"] for row in rows} == {paid}
    assert [row["DueValue"] for row in rows] == ["12.345", "-5.001"]
    assert sum(Decimal(row["DueDeposit"]) for row in rows) == Decimal("12.345") - Decimal("5.001") - _fees(rows)


def _fees(rows: list[dict[str, str]]) -> Decimal:
    return sum((Decimal(row["TotalServiceCharge"]) for row in rows), Decimal())


async def test_what_is_not_understood_is_no_success(shop: Shop) -> None:
    await shop.paid()
    await shop.sandbox.faults(GATEWAY, {"operation": "retrieve", "kind": "unknown_status"})
    snapshot = await shop.adapter.retrieve((), our_reference=REFERENCE)
    assert {o.kind for o in snapshot.observations} == {FactKind.PROCESSING}
    await shop.sandbox.faults(GATEWAY, {"operation": "retrieve", "kind": "wrong_amount", "currency": "USD"})
    [wrong] = (await shop.adapter.retrieve((), our_reference=REFERENCE)).observations
    assert wrong.amount is not None
    assert wrong.amount.currency == "USD"
    await shop.sandbox.faults(GATEWAY, {"operation": "retrieve", "kind": "unparsable", "count": 3})
    with pytest.raises(GatewayOutcomeUnknown):
        await shop.adapter.retrieve((), our_reference=REFERENCE)
    await shop.sandbox.faults(GATEWAY, {"operation": "*", "kind": "rate_limit", "retry_after": 60})
    with pytest.raises(GatewayUnavailable):
        await shop.adapter.refund(a_money_call(OperationKind.REFUND, "0100"))


@pytest.mark.parametrize(
    ("path", "change", "field"),
    [
        ("SendPayment", {"InvoiceValue": "12.345"}, "InvoiceValue"),
        ("SendPayment", {"InvoiceValue": 12.3456}, "InvoiceValue"),
        ("SendPayment", {"CustomerEmail": ""}, "CustomerEmail"),
        ("SendPayment", {"CustomerMobile": "965900000000"}, "CustomerMobile"),
        ("SendPayment", {"CallBackUrl": "https://pay.example/" + "x" * 250}, "CallBackUrl"),
        ("SendPayment", {"ProcessingDetails": {"AutoCapture": False}}, "ProcessingDetails"),
        ("MakeRefund", {"KeyType": "InvoiceId", "Key": "1", "Amount": 1, "Reason": "x"}, "Reason"),
    ],
)
async def test_the_sandbox_refuses_what_is_not_documented(path: str, change: dict[str, Any], field: str) -> None:
    """Without a server: what a request looks like is decided before any book is opened."""
    site = Site({"MYFATOORAH_WEBHOOK_SECRET": WEBHOOK_SECRET}, "http://sandbox.test", "Shop", None)  # type: ignore[arg-type]
    gateway = DEFINITION.build(site)
    assert gateway is not None
    body = (
        change
        if path == "MakeRefund"
        else {"CustomerName": "Sara", "NotificationOption": "LNK", "InvoiceValue": 1, **change}
    )
    [route] = [each for each in gateway.routes if each.path == f"/v2/{path}"]
    call = WireCall("POST", route.path, {}, (), json.dumps(body).encode())
    with pytest.raises(WireError) as refusal:
        await route.handler(call, _NoBooks())  # type: ignore[arg-type]
    assert json.loads(refusal.value.answer.body)["ValidationErrors"][0]["Name"] == field


class _NoBooks:
    now = datetime(2026, 3, 1, 9, tzinfo=UTC)

    def new_id(self, prefix: str, length: int = 24) -> str:
        return prefix + "A" * length
