"""Our PhonePe adapter and the sandbox's PhonePe, over HTTP: what one says the other understands."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from services.gateway_sandbox.gateways.phonepe import DEFINITION
from services.payment_service.domain.models import CaptureMode, Customer
from services.payment_service.gateways.definition import Tools
from services.payment_service.gateways.phonepe import Phonepe, PhonepeSettings
from services.payment_service.gateways.port import (
    CreateSession,
    Delivery,
    GatewayEvent,
    MoneyCall,
    OutcomeStatus,
    Session,
    Snapshot,
)
from services.webhook_ingest.signatures.phonepe import PhonepeScheme
from services.webhook_ingest.signatures.port import RawDelivery, SigningSecret, Trust, Verification
from shared.errors import GatewayObjectNotFound, GatewayOutcomeUnknown, GatewayRejected, GatewayUnavailable
from shared.http import HttpCaller, build_http_client
from shared.masking import redact_body
from shared.money import Money
from shared.ports import system_ports
from tests.support import adapter_calls
from tests.support.adapter_calls import OPERATION, REFERENCE, tools_over
from tests.support.gateway_sandbox import RunningSandbox, running_sandbox
from tests.support.postgres import ServiceDatabase
from tests.support.waiting import until
from tests.unit.payment_service.gateway_world import told

VARIABLES = DEFINITION.secrets(system_ports().randomness)
CLIENT_ID, SECRET = VARIABLES["PHONEPE_CLIENT_ID"], VARIABLES["PHONEPE_CLIENT_SECRET"]
OTHER = "PR00000000000000002B"
INR_499, INR_100 = Money(49_900, "INR"), Money(10_000, "INR")


@dataclass
class Shop:
    """Our adapter at a running sandbox, and what its webhooks say to our scheme and adapter."""

    sandbox: RunningSandbox
    phonepe: Phonepe
    settings: PhonepeSettings
    tools: Tools

    @property
    def address(self) -> str:
        return self.settings.api_base

    async def open(self, reference: str = REFERENCE) -> Session:
        return await self.phonepe.create_session(a_session_request(reference), repeated=False)

    async def press(self, session: Session, button: str) -> httpx.Response:
        """What the shopper does on the hosted page."""
        page = await self.sandbox.client.get(session.next_action.url)
        token = re.search(r'name="token" value="(\w+)"', page.text)
        assert token is not None, page.text
        form = {"token": token.group(1), "outcome": button}
        return await self.sandbox.client.post(f"{session.next_action.url}/outcome", data=form)

    async def look(self, session: Session, *more: str) -> Snapshot:
        return await self.phonepe.retrieve((*session.references, *more), our_reference=session.gateway_reference)

    async def books(self, reference: str = REFERENCE) -> dict[str, Any]:
        [payment] = (await self.sandbox.books("phonepe", reference=reference))["payments"]
        found: dict[str, Any] = payment
        return found

    async def heard(self, *wanted: str) -> list[GatewayEvent]:
        """Deliveries of these kinds, once all have come: verified by our scheme, and read without personal data."""
        receiver = self.sandbox.receiver
        await until(lambda: sorted(_event(body) for body in receiver.bodies) == sorted(wanted), what=str(wanted))
        assert all(each.verified and each.trust is Trust.HINT for each in map(_verified, receiver.requests))
        return [self.phonepe.translate_webhook(_delivery(request)) for request in receiver.requests]


@pytest.fixture
async def shop(service_database: ServiceDatabase) -> AsyncIterator[Shop]:
    ports = system_ports()
    async with (
        running_sandbox(service_database("gateway_sandbox"), gateway_variables=VARIABLES) as sandbox,
        build_http_client(ports, read_seconds=10.0) as client,
    ):
        address = f"{sandbox.url}/sandbox/phonepe/apis/pg-sandbox"
        settings = PhonepeSettings(client_id=CLIENT_ID, client_secret=SecretStr(SECRET), api_base=address)
        tools = tools_over(HttpCaller(client, ports), ports)
        yield Shop(sandbox, Phonepe(settings, tools), settings, tools)


def a_session_request(reference: str = REFERENCE) -> CreateSession:
    zoe = Customer("ada@example.com", "Zoë 山田", "+919000090000")
    return adapter_calls.a_session_request(
        reference=reference, amount=INR_499, customer=zoe, description="Tee für zwei"
    )


def a_refund_call(amount: Money = INR_100, **changes: Any) -> MoneyCall:
    mine = {"target": REFERENCE, "amount": amount, "is_whole": False, "capture": CaptureMode.AUTOMATIC}
    return adapter_calls.a_money_call(**{**mine, "references": (REFERENCE,), **changes})


def _event(body: dict[str, Any]) -> str:
    return str(body["event"])


def _verified(request: httpx.Request) -> Verification:
    scheme = PhonepeScheme((VARIABLES["PHONEPE_WEBHOOK_USERNAME"],))
    delivery = RawDelivery("POST", "/", "", tuple(request.headers.items()), request.content)
    return scheme.verify(delivery, [SigningSecret(VARIABLES["PHONEPE_WEBHOOK_PASSWORD"])], datetime.now(UTC))


def _delivery(request: httpx.Request) -> Delivery:
    payload = redact_body("application/json", request.content)
    return Delivery("application/json", payload, None, datetime.now(UTC))


async def test_a_declined_try_ends_nothing_and_the_next_one_pays(shop: Shop) -> None:
    session = await shop.open()
    assert session.expires_at is not None
    assert timedelta(minutes=39) < session.expires_at - datetime.now(UTC) <= timedelta(minutes=40)
    await shop.press(session, "fail")
    declined = await shop.look(session)
    assert [each.kind for each in declined.observations] == ["session_opened", "declined"]
    assert declined.observations[1].reason == "ZM"
    paid = await shop.press(session, "succeed")
    assert paid.headers["location"] == a_session_request().return_url  # nothing is added to it
    assert told((await shop.look(session)).observations) == {("captured", REFERENCE, INR_499)}
    tried, completed = await shop.heard("checkout.transaction.attempt.failed", "checkout.order.completed")
    assert tried.ignored is not None
    assert (completed.must_ask, completed.references) == (True, session.references)


async def test_who_leaves_and_who_is_too_late_end_the_order_and_late_money_is_money(shop: Shop) -> None:
    left, expired = await shop.open(), await shop.open(OTHER)
    assert (await shop.press(left, "cancel")).headers["location"] == a_session_request().return_url
    assert told((await shop.look(left)).observations) == {("canceled", REFERENCE, None)}
    order = (await shop.books(OTHER))["gateway_reference"]
    await shop.sandbox.outcome("phonepe", order, "expire")
    assert told((await shop.look(expired)).observations) == {("expired", OTHER, None)}
    await shop.sandbox.outcome("phonepe", order, "succeed", late=True)
    assert told((await shop.look(expired)).observations) == {("captured", OTHER, INR_499)}
    await shop.heard("checkout.order.failed", "checkout.order.failed", "checkout.order.completed")


async def test_refunds_are_pending_first_and_then_done_failed_or_made_by_somebody_else(shop: Shop) -> None:
    session = await shop.open()
    await shop.press(session, "succeed")
    first = await shop.phonepe.refund(a_refund_call())
    assert first.status is OutcomeStatus.PENDING
    found = await shop.phonepe.find_operation(a_refund_call())
    assert found is not None
    assert found.status is OutcomeStatus.SUCCEEDED
    await shop.sandbox.faults("phonepe", {"operation": "refund", "kind": "pending"})
    later = a_refund_call(reference="OP00000000000000002B")
    await shop.phonepe.refund(later)
    await shop.sandbox.control("phonepe", f"refunds/{later.reference}", status="failed")
    failed = await shop.phonepe.find_operation(later)
    assert failed is not None
    assert (failed.status, failed.failure_code) == (OutcomeStatus.FAILED, "REFUND_FAILED_AT_BANK")
    order = (await shop.books())["gateway_reference"]
    await shop.sandbox.control("phonepe", f"sessions/{order}/refunds", amount_minor=4_000)
    names = ("checkout.order.completed", "pg.refund.completed", "pg.refund.accepted", "pg.refund.failed")
    events = await shop.heard(*names, "pg.refund.completed")

    named = [name for event in events for name in event.asks_about]
    snapshot = await shop.look(session, *first.references, *named)
    done = {(each.kind, each.amount, each.operation) for each in snapshot.observations[1:]}
    assert done == {
        ("refund_succeeded", INR_100, OPERATION),
        ("refund_failed", INR_100, later.reference),
        ("refund_succeeded", Money(4_000, "INR"), None),
    }
    with pytest.raises(GatewayRejected) as refused:
        await shop.phonepe.refund(a_refund_call(INR_499, reference="OP00000000000000003C"))
    assert refused.value.gateway_code == "EXCESS_REFUND_AMOUNT"
    with pytest.raises(GatewayOutcomeUnknown):  # a name that is taken by a refund of another amount
        await shop.phonepe.refund(a_refund_call(Money(200, "INR")))


async def test_what_was_not_answered_is_looked_for_and_not_done_twice(shop: Shop) -> None:
    done = {"kind": "timeout_after", "seconds": 0}  # hangs up when the work is done
    await shop.sandbox.faults("phonepe", {"operation": "create_session", **done}, {"operation": "refund", **done})
    with pytest.raises(GatewayOutcomeUnknown):
        await shop.phonepe.create_session(a_session_request(), repeated=False)
    with pytest.raises(GatewayRejected) as refused:  # nobody saw its page: another order is as good
        await shop.phonepe.create_session(a_session_request(), repeated=True)
    assert refused.value.gateway_code == "page_lost"
    session = await shop.open(OTHER)
    await shop.press(session, "succeed")
    call = a_refund_call(target=OTHER, our_reference=OTHER)
    with pytest.raises(GatewayOutcomeUnknown):
        await shop.phonepe.refund(call)
    found = await shop.phonepe.find_operation(call)
    assert found is not None
    assert (await shop.phonepe.refund(call)) == found  # refused as a duplicate, and so found
    assert [each["refund_id"] for each in (await shop.books(OTHER))["refunds"]] == [OPERATION]
    with pytest.raises(GatewayObjectNotFound):
        await shop.phonepe.retrieve((), our_reference="PR00000000000000009Z")


async def test_the_sandbox_is_strict(shop: Shop) -> None:
    client, order = shop.sandbox.client, {"merchantOrderId": "ord_1", "amount": 49900}
    form = {"client_id": CLIENT_ID, "client_secret": SECRET, "client_version": "1", "grant_type": "client_credentials"}
    issued = (await client.post(f"{shop.address}/v1/oauth/token", data=form)).json()
    assert issued["expires_at"] - issued["issued_at"] == 3600
    for wrong in ({"client_secret": "x"}, {"client_version": "2"}):
        assert (await client.post(f"{shop.address}/v1/oauth/token", data=form | wrong)).status_code == 401
    assert (await client.post(f"{shop.address}/v1/oauth/token", data=form | {"more": "x"})).status_code == 400
    assert (await client.post(f"{shop.address}/v1/oauth/token", json=form)).status_code == 400

    async def pay(token: str = f"O-Bearer {issued['access_token']}", **changes: Any) -> int:
        flow = {"type": "PG_CHECKOUT", "merchantUrls": {"redirectUrl": "https://shop.example/r"}}
        body = {**order, "paymentFlow": flow, **changes}
        answer = await client.post(f"{shop.address}/checkout/v2/pay", json=body, headers={"authorization": token})
        return answer.status_code

    for token in (f"Bearer {issued['access_token']}", "O-Bearer x", "", f"O-Bearer {issued['access_token']}0"):
        assert await pay(token) == 401
    for changes in (
        {"amount": "49900"},
        {"amount": 99},
        {"merchantOrderId": "o" * 64},
        {"merchantOrderId": "a/b"},
        {"expireAfter": 299},
        {"expireAfter": 3601},
        {"metaInfo": {"udf16": "x"}},
        {"metaInfo": {"udf11": "ü"}},
        {"currency": "INR"},
        {"paymentFlow": {"type": "PG_CHECKOUT"}},
    ):
        assert await pay(**changes) == 400, changes
    assert [await pay(), await pay()] == [200, 409]
    stranger = Phonepe(shop.settings.model_copy(update={"client_secret": SecretStr("wrong")}), shop.tools)
    with pytest.raises(GatewayUnavailable):
        await stranger.create_session(a_session_request(), repeated=False)


async def test_one_try_only_and_the_settlement_adds_up(shop: Shop) -> None:
    single = Phonepe(shop.settings.model_copy(update={"retry_on_page": False}), shop.tools)
    once = await single.create_session(a_session_request(OTHER), repeated=False)
    assert (await shop.press(once, "fail")).headers["location"] == a_session_request().return_url
    [failed] = (await shop.look(once)).observations
    assert (failed.kind, failed.reason) == ("failed", "TXN_AUTO_FAILED")

    await shop.press(await shop.open(), "succeed")
    await shop.phonepe.refund(a_refund_call())
    now = datetime.now(UTC)
    window = {"since": (now - timedelta(hours=1)).isoformat(), "until": (now + timedelta(hours=1)).isoformat()}
    answer = await shop.sandbox.client.get("/sandbox/control/phonepe/settlement", params=window)
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [(row["order_id"], row["type"], row["gross"]) for row in rows] == [
        (REFERENCE, "PAYMENT", "499.00"),
        (REFERENCE, "REFUND", "-100.00"),
    ]
    paid = rows[0]
    assert (paid["fee"], paid["tax"], paid["net"]) == ("12.47", "2.24", "484.29")
    assert paid["transaction_id"] == (await shop.books())["payment_reference"]
