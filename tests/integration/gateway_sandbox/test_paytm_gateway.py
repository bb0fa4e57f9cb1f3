"""Our Paytm adapter and the sandbox's Paytm, over HTTP: what one says the other understands; the official package is
the judge of what either signs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl

import httpx
import pytest
from paytmchecksum import PaytmChecksum
from pydantic import SecretStr

from services.gateway_sandbox.gateways.paytm import DEFINITION
from services.payment_service.domain.models import CaptureMode, Customer
from services.payment_service.gateways.paytm import Paytm, PaytmSettings
from services.payment_service.gateways.port import CreateSession, Delivery, GatewayEvent, MoneyCall, OutcomeStatus
from services.webhook_ingest.signatures.paytm import PaytmScheme
from services.webhook_ingest.signatures.port import RawDelivery, SigningSecret, Trust, Verification
from shared.errors import GatewayRejected, GatewayUnavailable
from shared.http import HttpCaller, build_http_client
from shared.masking import redact_body
from shared.money import Money
from shared.paytm_checksum import envelope
from shared.ports import system_ports
from tests.support import adapter_calls
from tests.support.adapter_calls import OPERATION, REFERENCE, RETURN_URL, tools_over
from tests.support.gateway_sandbox import RunningSandbox, running_sandbox
from tests.support.postgres import ServiceDatabase
from tests.support.waiting import until
from tests.unit.payment_service.gateway_world import told

VARIABLES = DEFINITION.secrets(system_ports().randomness)
MID, SECRET = VARIABLES["PAYTM_MERCHANT_ID"], VARIABLES["PAYTM_MERCHANT_KEY"]
INR_499, INR_100 = Money(49_900, "INR"), Money(10_000, "INR")


@dataclass
class Shop:
    """Our adapter at a running sandbox, and what its webhooks say to our scheme and adapter."""

    sandbox: RunningSandbox
    paytm: Paytm
    address: str

    async def open(self, reference: str = REFERENCE) -> dict[str, Any]:
        """The page's fields, after a shopper's browser has posted them."""
        session = await self.paytm.create_session(a_session_request(reference), repeated=False)
        answer = await self.sandbox.client.post(session.next_action.url, data=session.next_action.fields)
        assert answer.status_code == 303, answer.text
        assert answer.headers["location"].endswith(f"/sandbox/paytm/checkout/{reference}")
        return session.next_action.fields

    async def pay(self) -> str:
        await self.open()
        await self.sandbox.outcome("paytm", REFERENCE, "succeed")
        return str((await self.payment())["payment_reference"])

    async def payment(self) -> dict[str, Any]:
        [payment] = (await self.sandbox.books("paytm", reference=REFERENCE))["payments"]
        found: dict[str, Any] = payment
        return found

    async def raw(self, path: str, body: Any, *, secret: str = SECRET, text: str | None = None) -> dict[str, Any]:
        """A call as anybody could make it; ``text`` goes out instead of what was signed."""
        written = json.dumps(body)
        head = {"signature": PaytmChecksum.generateSignature(written, secret), "version": "v1"}
        answer = await self.sandbox.client.post(self.address + path, content=envelope(head, text or written))
        assert answer.status_code == 200, answer.text
        result: dict[str, Any] = answer.json()["body"]["resultInfo"]
        return result

    def heard(self) -> list[tuple[Verification, GatewayEvent]]:
        """Every delivery, as webhook_ingest verifies it and as we translate what it hands on."""
        return [self._heard(request) for request in self.sandbox.receiver.requests]

    def _heard(self, request: httpx.Request) -> tuple[Verification, GatewayEvent]:
        content_type, body = request.headers["content-type"], request.content
        headers = tuple(request.headers.items())
        delivery = RawDelivery("POST", "/webhooks/paytm", "", headers, body)
        verification = PaytmScheme().verify(delivery, [SigningSecret(SECRET)], datetime.now(UTC))
        payload = redact_body(content_type, body)
        return verification, self.paytm.translate_webhook(Delivery(content_type, payload, None, datetime.now(UTC)))


@pytest.fixture
async def shop(service_database: ServiceDatabase) -> AsyncIterator[Shop]:
    ports = system_ports()
    async with (
        running_sandbox(service_database("gateway_sandbox"), gateway_variables=VARIABLES) as sandbox,
        build_http_client(ports, read_seconds=10.0) as client,
    ):
        address = f"{sandbox.url}/sandbox/paytm"
        settings = PaytmSettings(
            merchant_id=MID,
            merchant_key=SecretStr(SECRET),
            website_name="WEBSTAGING",
            api_base=address,
            passbook=True,
        )
        yield Shop(sandbox, Paytm(settings, tools_over(HttpCaller(client, ports), ports)), address)


def a_session_request(reference: str = REFERENCE) -> CreateSession:
    zoe = Customer("ada@example.com", "Zoë 山田", "+919000090000")
    return adapter_calls.a_session_request(
        reference=reference, amount=INR_499, customer=zoe, description="Tee für zwei"
    )


def a_refund_call(target: str, amount: Money = INR_100, reference: str = OPERATION) -> MoneyCall:
    return adapter_calls.a_money_call(
        reference=reference,
        idempotency_key=reference,
        amount=amount,
        target=target,
        is_whole=False,
        capture=CaptureMode.AUTOMATIC,
        references=(REFERENCE, target),
    )


async def test_a_payment_is_told_by_a_form_that_the_official_package_accepts_and_by_its_status(shop: Shop) -> None:
    await shop.open()
    page_token = (await shop.sandbox.client.get(f"{shop.sandbox.url}/sandbox/paytm/checkout/{REFERENCE}")).text
    token = page_token.split('name="token" value="')[1].split('"')[0]
    way_back = await shop.sandbox.client.post(
        f"/sandbox/paytm/checkout/{REFERENCE}/outcome", data={"outcome": "succeed", "token": token}
    )
    assert f'action="{RETURN_URL}"' in way_back.text
    assert "CHECKSUMHASH" in way_back.text

    txn = str((await shop.payment())["payment_reference"])
    snapshot = await shop.paytm.retrieve((REFERENCE,), our_reference=REFERENCE)
    assert told(snapshot.observations) == {("captured", txn, INR_499)}
    await until(lambda: len(shop.sandbox.receiver.requests) == 1, what="the webhook")
    form = dict(parse_qsl(shop.sandbox.receiver.requests[0].content.decode(), keep_blank_values=True))
    checksum = form.pop("CHECKSUMHASH")
    assert PaytmChecksum.verifySignature(dict(form), SECRET, checksum)
    assert (form["STATUS"], form["TXNAMOUNT"], form["TXNID"]) == ("TXN_SUCCESS", "499.00", txn)
    [(verification, event)] = shop.heard()
    assert (verification.verified, verification.trust) == (True, Trust.HINT)
    assert (event.must_ask, event.our_references, event.observations) == (True, (REFERENCE,), ())


@pytest.mark.parametrize(
    ("outcome", "kind", "reason"), [("fail", "failed", "227"), ("cancel", "canceled", "canceled_by_shopper")]
)
async def test_an_order_is_one_try(shop: Shop, outcome: str, kind: str, reason: str) -> None:
    await shop.open()
    await shop.sandbox.outcome("paytm", REFERENCE, outcome)
    [observation] = (await shop.paytm.retrieve((REFERENCE,), our_reference=REFERENCE)).observations
    assert (observation.kind, observation.reason) == (kind, reason)
    with pytest.raises(GatewayRejected) as refused:
        await shop.paytm.create_session(a_session_request(), repeated=False)
    assert refused.value.gateway_code == "1005"
    await until(lambda: len(shop.sandbox.receiver.requests) == 1, what="the webhook")
    assert shop.heard()[0][0].verified


async def test_a_dead_token_opens_no_page_and_money_may_still_come_late(shop: Shop) -> None:
    fields = await shop.open()
    again = await shop.paytm.create_session(a_session_request(), repeated=False)
    assert again.next_action.fields == fields
    await shop.sandbox.outcome("paytm", REFERENCE, "expire")
    page = await shop.sandbox.client.post(again.next_action.url, data=fields)
    assert (page.status_code, "expired" in page.text) == (400, True)
    forged = await shop.sandbox.client.post(again.next_action.url, data={**fields, "txnToken": "x"})
    assert forged.status_code == 400
    assert told((await shop.paytm.retrieve((REFERENCE,), our_reference=REFERENCE)).observations) == {
        ("session_opened", REFERENCE, None)
    }
    await shop.sandbox.outcome("paytm", REFERENCE, "succeed", late=True)
    [late] = (await shop.paytm.retrieve((REFERENCE,), our_reference=REFERENCE)).observations
    assert (late.kind, late.amount) == ("captured", INR_499)


async def test_a_refund_is_accepted_first_and_credited_later_in_the_same_words_everywhere(shop: Shop) -> None:
    txn = await shop.pay()
    await shop.sandbox.faults("paytm", {"operation": "refund", "kind": "pending"})
    applied = await shop.paytm.refund(a_refund_call(txn))
    assert applied.status is OutcomeStatus.PENDING
    await until(lambda: len(shop.sandbox.receiver.requests) == 2, what="the notice that it was accepted")
    verification, accepted = shop.heard()[-1]
    assert (verification.trust, verification.event_type) == (Trust.FULL, "refund.accepted")
    assert {o.natural_key for o in accepted.observations} == {o.natural_key for o in applied.observations}

    await shop.sandbox.control("paytm", f"refunds/{OPERATION}", status="succeeded")
    found = await shop.paytm.find_operation(a_refund_call(txn))
    assert found is not None
    assert found.status is OutcomeStatus.SUCCEEDED
    await until(lambda: len(shop.sandbox.receiver.requests) == 3, what="the notice that it was credited")
    verification, credited = shop.heard()[-1]
    assert (verification.verified, verification.event_type) == (True, "refund.credited")
    assert {o.natural_key for o in credited.observations} == {o.natural_key for o in found.observations}
    snapshot = await shop.paytm.retrieve((REFERENCE, txn, OPERATION), our_reference=REFERENCE)
    assert {o.natural_key for o in found.observations} < {o.natural_key for o in snapshot.observations}


async def test_a_refund_fails_later_and_one_without_an_answer_is_found_and_never_made_twice(shop: Shop) -> None:
    txn = await shop.pay()
    await shop.sandbox.faults("paytm", {"operation": "refund", "kind": "timeout_after", "seconds": 0.05})
    outcome = await shop.paytm.refund(a_refund_call(txn))  # sent again, refused as done already, looked for, found
    assert (outcome.status, outcome.gateway_reference) == (OutcomeStatus.SUCCEEDED, OPERATION)
    assert (await shop.payment())["refunded_minor"] == 10_000

    await shop.sandbox.control("paytm", f"refunds/{OPERATION}", status="failed")
    failed = await shop.paytm.find_operation(a_refund_call(txn))
    assert failed is not None
    assert (failed.status, failed.failure_code) == (OutcomeStatus.FAILED, "602")
    with pytest.raises(GatewayRejected):
        await shop.paytm.refund(a_refund_call(txn, Money(50_000, "INR"), "OP00000000000000002B"))
    assert await shop.paytm.find_operation(a_refund_call(txn, reference="OP00000000000000003C")) is None


async def test_a_refund_in_the_dashboard_is_found_though_nobody_told_of_it(shop: Shop) -> None:
    txn = await shop.pay()
    await shop.sandbox.faults("paytm", {"operation": "webhook", "kind": "lose", "count": None})
    await shop.sandbox.control("paytm", f"sessions/{REFERENCE}/refunds", amount_minor=20_000)
    snapshot = await shop.paytm.retrieve((REFERENCE,), our_reference=REFERENCE)
    [refund] = [each for each in snapshot.observations if each.kind == "refund_succeeded"]
    assert (refund.amount, refund.about, refund.operation) == (Money(20_000, "INR"), txn, None)
    now = datetime.now(UTC)
    window = (now - timedelta(hours=1), now + timedelta(hours=1))
    pending = await shop.paytm.list_window(*window)
    assert pending.entries == ()
    [listed] = (await shop.paytm.list_window(*window, cursor=pending.next_cursor)).entries
    assert told(listed.observations) == told(snapshot.observations)


async def test_the_sandbox_is_as_strict_as_paytm(shop: Shop) -> None:
    txn = await shop.pay()
    order = {"mid": MID, "orderId": REFERENCE}
    assert (await shop.raw("/v3/order/status", order))["resultCode"] == "01"
    spaced = json.dumps(order, indent=1)
    assert (await shop.raw("/v3/order/status", order, text=spaced))["resultCode"] == "2005"
    assert (await shop.raw("/v3/order/status", order, secret="AnotherMerchKy16"))["resultCode"] == "2005"
    for wrong in ({**order, "mid": "X"}, {"mid": MID}, {**order, "more": 1}, {**order, "orderId": "a/b"}):
        assert (await shop.raw("/v3/order/status", wrong))["resultStatus"] == "TXN_FAILURE"
    refund = {**order, "txnType": "REFUND", "txnId": txn, "refId": "R1", "refundAmount": "100.00"}
    for change in ({"refundAmount": "100"}, {"refundAmount": 100}, {"refundAmount": "0.00"}, {"txnId": "1"}):
        assert (await shop.raw("/refund/apply", {**refund, **change}))["resultStatus"] == "TXN_FAILURE"
    assert (await shop.raw("/refund/apply", refund))["resultCode"] == "601"
    assert (await shop.raw("/refund/apply", refund))["resultStatus"] == "TXN_FAILURE"  # its refId is used up
    assert (await shop.raw("/refund/apply", {**refund, "refId": "R2", "refundAmount": "400.00"}))["resultStatus"] == (
        "TXN_FAILURE"
    )
    assert (await shop.payment())["refunded_minor"] == 10_000
    others = PaytmSettings(
        merchant_id=MID, merchant_key=SecretStr("AnotherMerchKy16"), website_name="X", api_base=shop.address
    )
    ports = system_ports()
    async with build_http_client(ports) as client:
        stranger = Paytm(others, tools_over(HttpCaller(client, ports), ports))
        with pytest.raises(GatewayUnavailable):
            await stranger.retrieve((REFERENCE,), our_reference=REFERENCE)


async def test_the_settlement_adds_up_line_by_line(shop: Shop) -> None:
    txn = await shop.pay()
    await shop.paytm.refund(a_refund_call(txn))
    now = datetime.now(UTC)
    window = {"since": (now - timedelta(hours=1)).isoformat(), "until": (now + timedelta(hours=1)).isoformat()}
    answer = await shop.sandbox.client.get("/sandbox/control/paytm/settlement", params=window)
    sale, refund = list(csv.DictReader(io.StringIO(answer.text)))
    assert (sale["order_id"], sale["transaction_id"], sale["gross_amount"]) == (REFERENCE, txn, "499.00")
    assert (refund["transaction_type"], refund["gross_amount"], refund["net_amount"]) == (
        "REFUND",
        "-100.00",
        "-100.00",
    )
    for row in (sale, refund):
        parts = Decimal(row["gross_amount"]) - Decimal(row["commission"]) - Decimal(row["gst"])
        assert parts == Decimal(row["net_amount"])
