"""The Paytm adapter, against the fact sheet (gateways/paytm.md): what goes out, and what each answer means."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from paytmchecksum import PaytmChecksum
from pydantic import SecretStr

from services.payment_service.domain.errors import CapabilityNotSupported, CurrencyNotSupported
from services.payment_service.domain.models import CaptureMode, Customer, FactKind
from services.payment_service.domain.operations import OperationKind
from services.payment_service.gateways.definition import Tools
from services.payment_service.gateways.paytm import DEFINITION, Paytm, PaytmSettings
from services.payment_service.gateways.port import (
    Capability,
    Delivery,
    GatewayEvent,
    MoneyCall,
    OutcomeStatus,
    UnreadableWebhook,
)
from shared.errors import (
    GatewayError,
    GatewayObjectNotFound,
    GatewayOutcomeUnknown,
    GatewayRateLimited,
    GatewayRejected,
    GatewayServerError,
    GatewayUnavailable,
)
from shared.http import HttpCaller, build_http_client
from shared.ids import TimeOrderedIds
from shared.money import Money
from shared.paytm_checksum import checksum_of, envelope, key_of
from tests.support.adapter_calls import a_money_call
from tests.support.clock import A_MOMENT, FakeClock, SeededRandomness, fake_ports
from tests.unit.payment_service.gateway_world import Answer, ScriptedGateway, a_request, json_around, told

MID, SECRET, OLD_SECRET = "TESTMID0000000000001", "TestMerchantKy16", "AnotherMerchKy16"
REFERENCE, OPERATION = "PR00000000000000001A", "OP00000000000000001A"
TXN = "20250101111212800110168000000000001"
INR_499, INR_100 = Money(49_900, "INR"), Money(10_000, "INR")
REQUEST = a_request(amount=INR_499, customer=Customer("Ada@example.com", "Ada Lovelace", "+91 90000 90000"))
OPEN = (REFERENCE,)


def adapter_over(*answers: Answer, **changes: Any) -> tuple[Paytm, ScriptedGateway]:
    gateway = ScriptedGateway(list(answers))
    ports = fake_ports(clock=gateway.clock, http_transport=httpx.MockTransport(gateway))
    values: dict[str, Any] = {
        "merchant_id": MID,
        "merchant_key": SecretStr(SECRET),
        "website_name": "WEBSTAGING",
        "api_base": "https://paytm.test/",
    }
    caller = HttpCaller(build_http_client(ports), ports)
    return Paytm(PaytmSettings(**(values | changes)), Tools(caller, ports, "https://us.test/webhooks", False)), gateway


def answers(body: Mapping[str, Any], status: int = 200, *, secret: str | None = SECRET) -> httpx.Response:
    """In an envelope; signed as Paytm signs, or not at all."""
    text = json.dumps(body)
    head = {"responseTimestamp": "1735713000400", "version": "v1"}
    signed = {**head, "signature": checksum_of(text, key_of(secret), "aB3x")} if secret else head
    return httpx.Response(status, content=envelope(signed, text).encode())


def result(status: str, code: str = "", message: str = "", **more: Any) -> dict[str, Any]:
    return {"resultInfo": {"resultStatus": status, "resultCode": code, "resultMsg": message}, **more}


def opened(code: str = "0000", **changes: Any) -> httpx.Response:
    return answers(result("S", code, "Success", txnToken="token-1", isPromoCodeValid=False) | changes)


def an_order(status: str = "TXN_SUCCESS", code: str = "01", message: str = "Txn Success", **changes: Any) -> Any:
    order = {
        "mid": MID,
        "orderId": REFERENCE,
        "txnId": TXN,
        "bankTxnId": "500100000001",
        "txnAmount": "499.00",
        "txnType": "SALE",
        "refundAmt": "0.00",
        "txnDate": "2025-01-01 12:00:00.0",
    }
    return answers(result(status, code, message, **order) | changes)


NO_RECORD = answers(result("TXN_FAILURE", "331", "No Record Found"))
NO_REFUND = answers(result("TXN_FAILURE", "631", "Refund record not found"))


def a_refund(status: str = "TXN_SUCCESS", code: str = "10", message: str = "", **changes: Any) -> httpx.Response:
    refund = {
        "mid": MID,
        "orderId": REFERENCE,
        "refId": OPERATION,
        "refundId": "20250101111212801300168000000000002",
        "txnId": TXN,
        "refundAmount": "100.00",
        "acceptRefundStatus": "SUCCESS",
    }
    return answers(result(status, code, message, **refund) | changes)


ACCEPTED = a_refund("PENDING", "601")


def a_call(kind: OperationKind = OperationKind.REFUND, **changes: Any) -> MoneyCall:
    mine = {
        "kind": kind,
        "amount": INR_100,
        "target": TXN,
        "is_whole": False,
        "reason": "broken – zerbrochen",
        "capture": CaptureMode.AUTOMATIC,
        "references": (REFERENCE, TXN),
        "first_sent_at": A_MOMENT,
    }
    return a_money_call(**{**mine, **changes})


def sent_body(request: httpx.Request) -> dict[str, Any]:
    """The body, after Paytm's own package has found its signature good over exactly these characters."""
    text = request.content.decode()
    body_text = text[text.index(',"body":') + len(',"body":') : -1]
    assert PaytmChecksum.verifySignature(body_text, SECRET, json.loads(text)["head"]["signature"])
    found: dict[str, Any] = json.loads(body_text)
    return found


def sent_head(request: httpx.Request) -> dict[str, str]:
    head: dict[str, str] = json.loads(request.content)["head"]
    return {name: value for name, value in head.items() if name != "signature"}


# --- what it can do ------------------------------------------------------------------------------------------------


def test_what_is_not_documented_is_refused_before_anything_is_made() -> None:
    paytm, _ = adapter_over()
    paytm.check(INR_499, CaptureMode.AUTOMATIC)
    with pytest.raises(CapabilityNotSupported):
        paytm.check(INR_499, CaptureMode.MANUAL)
    for currency in ("USD", "KWD"):
        with pytest.raises(CurrencyNotSupported):
            paytm.check(Money(1000, currency), CaptureMode.AUTOMATIC)
        with pytest.raises(CurrencyNotSupported):
            paytm.check_operation(OperationKind.REFUND, Money(1000, currency))


def test_every_capability_is_there_or_says_why_not() -> None:
    for passbook in (True, False):
        facts = adapter_over(passbook=passbook)[0].facts
        assert facts.capabilities.isdisjoint(facts.not_offered)
        assert facts.capabilities | set(facts.not_offered) == set(Capability)
        assert (Capability.LIST_BY_WINDOW in facts.capabilities) is passbook


@pytest.mark.parametrize("key", ["short", "k" * 24, "k" * 32, ","])
def test_a_key_that_is_not_sixteen_bytes_is_refused_at_the_start(key: str) -> None:
    with pytest.raises(ValueError, match="key"):
        adapter_over(merchant_key=SecretStr(key))


def test_the_settings_are_those_that_the_design_names() -> None:
    assert DEFINITION.required == ("PAYTM_MERCHANT_ID", "PAYTM_MERCHANT_KEY", "PAYTM_WEBSITE_NAME")
    assert "PAYTM_API_BASE" in DEFINITION.variables


async def test_held_money_is_refused_without_a_call() -> None:
    paytm, gateway = adapter_over(opened())
    for call in (paytm.capture, paytm.void, paytm.complete):
        with pytest.raises(GatewayRejected):
            await call(a_call(OperationKind.CAPTURE))
    assert await paytm.find_operation(a_call(OperationKind.CAPTURE)) is None
    assert gateway.requests == []


# --- sessions ------------------------------------------------------------------------------------------------------


async def test_an_order_is_opened_as_documented_and_its_page_is_a_form() -> None:
    paytm, gateway = adapter_over(opened())
    session = await paytm.create_session(REQUEST, repeated=False)
    assert str(gateway.sent.url) == (
        f"https://paytm.test/theia/api/v1/initiateTransaction?mid={MID}&orderId={REFERENCE}"
    )
    body = sent_body(gateway.sent)
    assert body.pop("userInfo") == {
        "custId": hashlib.sha256(b"ada@example.com").hexdigest()[:32],
        "mobile": "9000090000",
        "email": "Ada@example.com",
        "firstName": "Ada",
        "lastName": "Lovelace",
    }
    assert body == {
        "requestType": "Payment",
        "mid": MID,
        "websiteName": "WEBSTAGING",
        "orderId": REFERENCE,
        "callbackUrl": REQUEST.return_url,
        "txnAmount": {"value": "499.00", "currency": "INR"},
        "extendInfo": {"mercUnqRef": "ord_1"},
    }
    sent_at = str(int(A_MOMENT.timestamp()))
    assert sent_head(gateway.sent) == {"version": "v1", "channelId": "WEB", "requestTimestamp": sent_at}
    assert session.next_action.to_json() == {
        "type": "form_post",
        "url": f"https://paytm.test/theia/api/v1/showPaymentPage?mid={MID}&orderId={REFERENCE}",
        "fields": {"mid": MID, "orderId": REFERENCE, "txnToken": "token-1"},
    }
    assert (session.gateway_reference, session.references) == (REFERENCE, OPEN)
    assert session.expires_at == A_MOMENT + timedelta(minutes=15)
    assert told(session.observations) == {("session_opened", REFERENCE, None)}


async def test_the_client_id_goes_out_only_where_it_is_set() -> None:
    paytm, gateway = adapter_over(opened(), client_id="C11")
    await paytm.create_session(REQUEST, repeated=False)
    assert sent_head(gateway.sent)["clientId"] == "C11"


@pytest.mark.parametrize(
    ("customer", "expected"),
    [
        (Customer("zoe@example.com", "Zoë Łukasiewicz 山田", None), {"firstName": "Zoe", "lastName": "ukasiewicz"}),
        (Customer("zoë@example.com", "山田太郎", "+971500000001"), {}),
        (Customer("a" * 200 + "@x.example", "A" * 200, "0049 123"), {"firstName": "A" * 50}),
        (Customer("a@b.example", "<b>&'\"|~^", "+919876543210"), {"firstName": "b", "mobile": "9876543210"}),
    ],
)
async def test_no_name_and_no_number_fails_a_payment(customer: Customer, expected: dict[str, str]) -> None:
    paytm, gateway = adapter_over(opened())
    await paytm.create_session(replace(REQUEST, customer=customer), repeated=False)
    user = sent_body(gateway.sent)["userInfo"]
    user.pop("email", None)
    assert len(user.pop("custId")) == 32
    assert user == expected


async def test_the_same_order_again_brings_its_token_again() -> None:
    paytm, _ = adapter_over(httpx.ReadTimeout("slow"), opened("0002"))
    session = await paytm.create_session(REQUEST, repeated=False)
    assert session.next_action.fields["txnToken"] == "token-1"
    assert session.expires_at is not None
    assert session.expires_at > A_MOMENT + timedelta(minutes=14)


async def test_a_repeated_token_counts_from_the_first_time_it_may_have_been_made() -> None:
    paytm, gateway = adapter_over(opened("0002"))
    gateway.clock.move(600)
    session = await paytm.create_session(REQUEST, repeated=True)
    assert session.expires_at == A_MOMENT + timedelta(minutes=15)
    gateway.clock.move(301)
    with pytest.raises(GatewayRejected) as refused:  # it may be dead: a new order, and nobody saw this one
        await paytm.create_session(REQUEST, repeated=True)
    assert refused.value.gateway_code == "token_expired"


async def test_a_new_token_of_an_old_attempt_lives_from_now_on() -> None:
    paytm, gateway = adapter_over(opened("0000"))
    gateway.clock.move(3600)
    session = await paytm.create_session(REQUEST, repeated=True)
    assert session.expires_at == gateway.clock.now() + timedelta(minutes=15)


@pytest.mark.parametrize(
    ("answer", "error", "code"),
    [
        (answers(result("F", "1005", "Duplicate order id")), GatewayRejected, "1005"),
        (answers(result("F", "1001", "Request parameters are not valid"), secret=None), GatewayRejected, "1001"),
        (answers(result("F", "7777", "Something new")), GatewayRejected, "7777"),
        (answers(result("F", "1006", "Session expired")), GatewayRejected, "1006"),
        (answers(result("U", "900", "Unknown")), GatewayOutcomeUnknown, None),
        (answers(result("F", "501", "System Error")), GatewayOutcomeUnknown, None),
        (answers(result("S", "0003", "?", txnToken="t")), GatewayOutcomeUnknown, None),
        (answers(result("S", "0000", "Success")), GatewayOutcomeUnknown, None),
        (answers(result("S", "0000", "Success", txnToken=5)), GatewayOutcomeUnknown, None),
        (answers(result("zz", "0000", "", txnToken="t")), GatewayOutcomeUnknown, None),
        (answers(result("F", "2005", "Checksum provided is invalid"), secret=None), GatewayUnavailable, None),
        (answers(result("F", "8", "Paytm checksum mismatch."), secret=None), GatewayUnavailable, None),
        (answers(result("F", "2004", "Authentication failed"), secret=None), GatewayUnavailable, None),
        (httpx.Response(401), GatewayUnavailable, None),
        (httpx.Response(302, headers={"location": "/"}), GatewayOutcomeUnknown, None),
        (httpx.Response(200, content=b"<html>"), GatewayOutcomeUnknown, None),
        (httpx.Response(200, content=b'{"body":[]}'), GatewayOutcomeUnknown, None),
        (httpx.Response(200, content=b"\xff"), GatewayOutcomeUnknown, None),
        (httpx.Response(404, content=b"{}"), GatewayRejected, "404"),
        (httpx.Response(503), GatewayServerError, None),
        (httpx.ConnectError("refused"), GatewayUnavailable, None),
        (opened(), None, None),
        (answers(result("S", "0000", "", txnToken="t"), secret=OLD_SECRET), GatewayOutcomeUnknown, None),
    ],
)
async def test_every_other_answer_says_what_may_have_happened(
    answer: Answer, error: type[GatewayError] | None, code: str | None
) -> None:
    paytm, _ = adapter_over(answer)
    if error is None:
        await paytm.create_session(REQUEST, repeated=False)
        return
    with pytest.raises(error) as raised:
        await paytm.create_session(REQUEST, repeated=False)
    assert type(raised.value) is error
    assert getattr(raised.value, "gateway_code", None) == code
    assert SECRET not in str(raised.value)


async def test_a_refusal_after_silence_is_no_proof() -> None:
    for refusal in (answers(result("F", "7777")), answers(result("F", "2005", "checksum"), secret=None)):
        paytm, _ = adapter_over(httpx.ReadTimeout("slow"), refusal)
        with pytest.raises(GatewayOutcomeUnknown):
            await paytm.create_session(REQUEST, repeated=False)


async def test_while_a_key_is_replaced_the_first_signs_and_either_is_believed() -> None:
    keys = SecretStr(f"{SECRET},{OLD_SECRET}")
    signed_with_old = answers(result("S", "0000", "", txnToken="t"), secret=OLD_SECRET)
    paytm, gateway = adapter_over(signed_with_old, merchant_key=keys)
    await paytm.create_session(REQUEST, repeated=False)
    assert sent_body(gateway.sent)["orderId"] == REFERENCE


# --- what became of an order ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "kind", "amount"),
    [
        (an_order(), "captured", INR_499),
        (an_order(txnAmount="1.00"), "captured", Money(100, "INR")),
        (an_order(txnType="PREAUTH"), "authorized", INR_499),
        (an_order("PENDING", "402", "in progress"), "processing", None),
        (an_order("PENDING", "12345"), "processing", None),
        (an_order("U", "900"), "processing", None),
        (an_order("zz_unheard_of", "01"), "processing", None),
        (an_order(txnType="LOYALTY"), "processing", None),
        (an_order("TXN_FAILURE", "227", "declined by the bank"), "failed", None),
        (an_order("TXN_FAILURE", "810"), "failed", None),
        (an_order("TXN_FAILURE", "141", "no words"), "canceled", None),
        (an_order("TXN_FAILURE", "14112", "User has cancelled the transaction"), "canceled", None),
        (an_order("TXN_FAILURE", "1006", "Session expired"), "expired", None),
        (an_order("TXN_FAILURE", "295", "The beneficiary account does not exist"), "failed", None),
        (an_order("TXN_FAILURE", "843", "Transaction not found at the bank"), "failed", None),
    ],
)
async def test_every_status_of_an_order(answer: httpx.Response, kind: str, amount: Money | None) -> None:
    paytm, gateway = adapter_over(answer)
    snapshot = await paytm.retrieve(OPEN, our_reference=REFERENCE)
    assert str(gateway.sent.url) == "https://paytm.test/v3/order/status"
    assert sent_body(gateway.sent) == {"mid": MID, "orderId": REFERENCE}
    about = TXN if kind in ("captured", "authorized") else REFERENCE
    assert told(snapshot.observations) == {(kind, about, amount)}
    assert set(snapshot.references) == {REFERENCE, about}


async def test_a_failure_says_its_code_and_a_payment_its_time() -> None:
    paytm, _ = adapter_over(an_order("TXN_FAILURE", "227"), an_order(), an_order(txnDate="yesterday"))
    [failed] = (await paytm.retrieve(OPEN, our_reference=REFERENCE)).observations
    assert failed.reason == "227"
    [paid] = (await paytm.retrieve(OPEN, our_reference=REFERENCE)).observations
    assert paid.occurred_at == datetime(2025, 1, 1, 6, 30, tzinfo=UTC)
    [undated] = (await paytm.retrieve(OPEN, our_reference=REFERENCE)).observations
    assert undated.occurred_at is None


@pytest.mark.parametrize(
    "answer",
    [
        an_order(orderId="somebody-elses"),
        an_order(mid="SOMEBODYELSE"),
        an_order(orderId=None),
        an_order(txnId=""),
        an_order(txnAmount="4.999"),
        an_order(txnAmount="-1.00"),
        an_order(txnAmount=None),
        an_order(txnAmount="1e3"),
        an_order(txnAmount="٤٩٩.00"),
        answers(result("TXN_FAILURE", "501", "System Error")),
        answers(result("TXN_FAILURE", "1234", "Something went wrong, please try again")),
        answers(result("TXN_FAILURE", "", "Request could not be processed")),
        answers(result("TXN_FAILURE", "141", "Cancelled")),
        answers(result("TXN_FAILURE", "1006", "Session expired")),
        answers(result("F", "1234", "Something went wrong")),
        answers(result("TXN_FAILURE", "8001", "Merchant does not exist")),
        answers(result("TXN_FAILURE", "227", "declined", orderId=REFERENCE)),
        answers(result("TXN_FAILURE", "227", "declined", mid=MID)),
        answers(result("TXN_FAILURE", "999", "Order not found", mid=MID, orderId=REFERENCE)),
        an_order("TXN_FAILURE", "227", "declined", orderId=None),
        an_order("TXN_FAILURE", "227", "declined", mid="SOMEBODYELSE"),
        httpx.Response(200, content=b"{}{}"),
        httpx.Response(200, content=an_order().content.replace(b"499.00", b"999.00")),
    ],
)
async def test_what_is_not_understood_or_not_ours_is_unknown(answer: httpx.Response) -> None:
    paytm, _ = adapter_over(answer)
    with pytest.raises(GatewayOutcomeUnknown):
        await paytm.retrieve(OPEN, our_reference=REFERENCE)


@pytest.mark.parametrize("code", ["334", "335"])
async def test_our_own_mistakes_fail_no_payment(code: str) -> None:
    paytm, _ = adapter_over(answers(result("TXN_FAILURE", code, "invalid")))
    with pytest.raises(GatewayRejected):
        await paytm.retrieve(OPEN, our_reference=REFERENCE)


@pytest.mark.parametrize(("code", "message"), [("429", ""), ("1234", "Rate limit exceeded"), ("", "Too many requests")])
async def test_too_many_questions_fail_no_payment_and_are_asked_later(code: str, message: str) -> None:
    throttled = answers(result("TXN_FAILURE", code, message))
    paytm, _ = adapter_over(throttled)
    with pytest.raises(GatewayRateLimited):
        await paytm.retrieve(OPEN, our_reference=REFERENCE)
    with pytest.raises(GatewayRateLimited):
        await paytm.refund(a_call())
    silent, _ = adapter_over(httpx.ReadTimeout("slow"), throttled)
    with pytest.raises(GatewayOutcomeUnknown):  # the try that was not answered may have given money back
        await silent.refund(a_call())


async def test_no_record_is_an_open_order_if_we_opened_it_and_else_nothing() -> None:
    paytm, _ = adapter_over(NO_RECORD)
    assert told((await paytm.retrieve(OPEN, our_reference=REFERENCE)).observations) == {
        ("session_opened", REFERENCE, None)
    }
    with pytest.raises(GatewayObjectNotFound):
        await paytm.retrieve((), our_reference=REFERENCE)


async def test_no_record_is_an_expired_order_a_day_later() -> None:
    paytm, gateway = adapter_over(NO_RECORD)
    ours = TimeOrderedIds(FakeClock(), SeededRandomness()).new_reference()
    gateway.clock.move(23 * 3600)
    [still_open] = (await paytm.retrieve((ours,), our_reference=ours)).observations
    gateway.clock.move(2 * 3600)
    [expired] = (await paytm.retrieve((ours,), our_reference=ours)).observations
    assert (still_open.kind, expired.kind) == (FactKind.SESSION_OPENED, FactKind.EXPIRED)


async def test_closing_is_our_own_decision_and_never_hides_a_payment() -> None:
    paytm, _ = adapter_over(NO_RECORD, an_order("PENDING", "402"), an_order())
    closed = await paytm.close_session(REFERENCE, our_reference=REFERENCE)
    assert told(closed.observations) == {("canceled", REFERENCE, None)}
    assert closed.observations[0].reason == "closed_by_us"
    assert told((await paytm.close_session(REFERENCE, our_reference=REFERENCE)).observations) == {
        ("processing", REFERENCE, None)
    }
    assert told((await paytm.close_session(REFERENCE, our_reference=REFERENCE)).observations) == {
        ("captured", TXN, INR_499)
    }


# --- refunds -------------------------------------------------------------------------------------------------------


async def test_a_refund_is_applied_for_as_documented_and_is_pending() -> None:
    paytm, gateway = adapter_over(ACCEPTED)
    outcome = await paytm.refund(a_call())
    assert gateway.sent.url.path == "/refund/apply"
    assert sent_head(gateway.sent) == {"tokenType": "AES"}
    assert sent_body(gateway.sent) == {
        "mid": MID,
        "txnType": "REFUND",
        "orderId": REFERENCE,
        "txnId": TXN,
        "refId": OPERATION,
        "refundAmount": "100.00",
        "comments": "broken zerbrochen",
    }
    assert (outcome.status, outcome.gateway_reference) == (OutcomeStatus.PENDING, OPERATION)
    [fact] = outcome.observations
    assert (fact.kind, fact.amount, fact.about, fact.operation) == (
        FactKind.REFUND_PENDING,
        INR_100,
        TXN,
        OPERATION,
    )


async def test_where_refunds_are_applied_for_is_a_setting() -> None:
    paytm, gateway = adapter_over(ACCEPTED, refund_path="/v2/refund/apply")
    await paytm.refund(a_call(reason=None))
    assert gateway.sent.url.path == "/v2/refund/apply"
    assert "comments" not in sent_body(gateway.sent)


@pytest.mark.parametrize(
    ("answer", "status", "failure"),
    [
        (a_refund(), OutcomeStatus.SUCCEEDED, None),
        (a_refund("TXN_SUCCESS", "01"), OutcomeStatus.PENDING, None),
        (a_refund("PENDING", "601"), OutcomeStatus.PENDING, None),
        (a_refund("zz_unheard_of", "10"), OutcomeStatus.PENDING, None),
        (a_refund("TXN_FAILURE", "602"), OutcomeStatus.FAILED, "602"),
        (a_refund("TXN_FAILURE", "805", "Refund failed: account not found"), OutcomeStatus.FAILED, "805"),
        (a_refund("TXN_FAILURE", "806", "Transaction not found at the bank"), OutcomeStatus.FAILED, "806"),
        (
            answers(result("TXN_FAILURE", "602", "", refId=OPERATION)),
            OutcomeStatus.FAILED,
            "602",
        ),
    ],
)
async def test_every_status_of_a_refund(answer: httpx.Response, status: OutcomeStatus, failure: str | None) -> None:
    paytm, gateway = adapter_over(answer)
    outcome = await paytm.find_operation(a_call())
    assert gateway.sent.url.path == "/v2/refund/status"
    assert sent_body(gateway.sent) == {"mid": MID, "orderId": REFERENCE, "refId": OPERATION}
    assert outcome is not None
    assert (outcome.status, outcome.failure_code, outcome.gateway_reference) == (status, failure, OPERATION)


@pytest.mark.parametrize("absent", [NO_REFUND, NO_RECORD])
async def test_a_refund_that_paytm_does_not_know_is_nothing(absent: httpx.Response) -> None:
    paytm, gateway = adapter_over(absent, an_order())
    assert await paytm.find_operation(a_call()) is None
    assert sent_body(gateway.sent) == {"mid": MID, "orderId": REFERENCE}


@pytest.mark.parametrize(
    "about_payment",
    [
        NO_RECORD,
        an_order(txnId="ANOTHER"),
        an_order(orderId="ANOTHER"),
        an_order("TXN_FAILURE", "227"),
        answers(result("TXN_FAILURE", "335", "Mid is invalid")),
        httpx.Response(503),
    ],
)
async def test_no_refund_proves_nothing_where_its_payment_is_not_known_either(about_payment: httpx.Response) -> None:
    paytm, _ = adapter_over(NO_REFUND, about_payment)
    with pytest.raises(GatewayOutcomeUnknown):
        await paytm.find_operation(a_call())


@pytest.mark.parametrize(
    "answer",
    [
        answers(result("TXN_FAILURE", "8001", "Merchant does not exist")),
        answers(result("TXN_FAILURE", "631", "Refund record not found", refId=OPERATION)),
        answers(result("TXN_FAILURE", "335", "Mid is invalid")),
        answers(result("TXN_FAILURE", "2005", "checksum"), secret=None),
        answers(result("TXN_FAILURE", "999", "Not now")),
        a_refund(refId="ANOTHER"),
        a_refund(orderId="ANOTHER"),
        a_refund(refundAmount="99.00"),
        httpx.Response(200, content=b"<html>"),
        httpx.Response(404, content=b"{}"),
        httpx.Response(503),
    ],
)
async def test_a_look_that_says_nothing_proves_nothing(answer: httpx.Response) -> None:
    paytm, _ = adapter_over(answer)
    with pytest.raises((GatewayOutcomeUnknown, GatewayUnavailable)):
        await paytm.find_operation(a_call())


async def test_a_refused_refund_is_refused_when_a_look_shows_nothing() -> None:
    refusal = answers(result("TXN_FAILURE", "619", "Invalid refund amount"))
    paytm, gateway = adapter_over(refusal, NO_REFUND, an_order())
    with pytest.raises(GatewayRejected) as refused:
        await paytm.refund(a_call())
    assert refused.value.gateway_code == "619"
    asked = ["/refund/apply", "/v2/refund/status", "/v3/order/status"]
    assert [request.url.path for request in gateway.requests] == asked


async def test_a_refund_refused_as_done_already_is_the_one_that_is_there() -> None:
    paytm, _ = adapter_over(answers(result("TXN_FAILURE", "617", "already raised")), a_refund())
    assert (await paytm.refund(a_call())).status is OutcomeStatus.SUCCEEDED


async def test_a_refund_refused_after_silence_with_nothing_there_is_unknown() -> None:
    refused = answers(result("TXN_FAILURE", "617", "already raised"))
    paytm, _ = adapter_over(httpx.ReadTimeout("slow"), refused, NO_REFUND, an_order())
    with pytest.raises(GatewayOutcomeUnknown):
        await paytm.refund(a_call())


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (answers(result("U", "900")), GatewayOutcomeUnknown),
        (answers(result("zz", "10")), GatewayOutcomeUnknown),
        (a_refund("PENDING", "601", refId="ANOTHER"), GatewayOutcomeUnknown),
        (a_refund("PENDING", "601", refundAmount="499.00"), GatewayOutcomeUnknown),
        (answers(result("TXN_FAILURE", "501", "System Error")), GatewayOutcomeUnknown),
        (answers(result("PENDING", "601"), secret=OLD_SECRET), GatewayOutcomeUnknown),
        (httpx.Response(200, content=b"<html>"), GatewayOutcomeUnknown),
        (httpx.Response(503), GatewayServerError),
        (httpx.ConnectError("refused"), GatewayUnavailable),
        (httpx.ReadTimeout("slow"), GatewayOutcomeUnknown),
    ],
)
async def test_what_may_have_given_money_back_is_never_refused(answer: Answer, error: type[GatewayError]) -> None:
    paytm, _ = adapter_over(answer)
    with pytest.raises(error) as raised:
        await paytm.refund(a_call())
    assert not isinstance(raised.value, GatewayRejected)


# --- refunds beside a payment --------------------------------------------------------------------------------------


async def test_a_payment_brings_the_refunds_that_we_know_of_by_name() -> None:
    paytm, gateway = adapter_over(an_order(refundAmt="100.00"), a_refund(), NO_REFUND)
    snapshot = await paytm.retrieve((REFERENCE, TXN, OPERATION, "old-id"), our_reference=REFERENCE)
    assert told(snapshot.observations) == {
        ("captured", TXN, INR_499),
        ("refund_succeeded", OPERATION, INR_100),
    }
    assert snapshot.references == (REFERENCE, TXN, OPERATION)
    assert len(gateway.requests) == 3


async def test_a_refund_that_nobody_named_is_looked_for_in_the_passbook() -> None:
    listed = answers(result("SUCCESS", "0000", orders=[{"refId": "DASH_1"}, {"refId": OPERATION}]))
    none = answers(result("SUCCESS", "0000", orders=[]))
    made_there = a_refund(refId="DASH_1", refundAmount="50.00")
    paytm, gateway = adapter_over(an_order(refundAmt="150.00"), a_refund(), none, listed, made_there, passbook=True)
    snapshot = await paytm.retrieve((REFERENCE, TXN, OPERATION), our_reference=REFERENCE)
    assert ("refund_succeeded", "DASH_1", Money(5000, "INR")) in told(snapshot.observations)
    [imported] = [each for each in snapshot.observations if each.object_reference == "DASH_1"]
    assert (imported.operation, imported.about) == (None, TXN)
    assert sent_body(gateway.requests[3]) == {
        "mid": MID,
        "fromDate": "2025-12-03T08:34:05+05:30",
        "toDate": "2026-01-02T08:34:06+05:30",
        "orderSearchType": "REFUND",
        "orderSearchStatus": "SUCCESS",
        "pageNumber": 1,
        "pageSize": 20,
        "isSort": True,
        "merchantOrderId": REFERENCE,
    }


async def test_a_refund_that_settles_while_the_passbook_is_read_is_in_one_list_or_the_other() -> None:
    listed = {"DASH_1": "PENDING"}

    def answer(request: httpx.Request) -> httpx.Response:
        asked = json.loads(request.content)["body"]
        if "orderSearchStatus" not in asked:
            return a_refund(refId="DASH_1") if "refId" in asked else an_order(refundAmt="100.00")
        rows = [{"refId": name} for name, status in listed.items() if status == asked["orderSearchStatus"]]
        listed["DASH_1"] = "SUCCESS"  # right after the first page
        return answers(result("SUCCESS", "0000", orders=rows))

    paytm, _ = adapter_over(answer, passbook=True)
    snapshot = await paytm.retrieve(OPEN, our_reference=REFERENCE)
    assert ("refund_succeeded", "DASH_1", INR_100) in told(snapshot.observations)


async def test_the_newest_refunds_are_asked_about_and_one_that_cannot_be_is_passed_over() -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)["body"]
        if "refId" not in body:
            found: httpx.Response = an_order()
            return found
        asked.append(body["refId"])
        if body["refId"] == "R24":
            return answers(result("TXN_FAILURE", "334", "refId is invalid"))
        if body["refId"] == "R25":
            return answers(result("TXN_FAILURE", "600", "Invalid refund request"))
        return a_refund(refId=body["refId"]) if body["refId"] == "R26" else NO_REFUND

    paytm, _ = adapter_over(answer)
    names = [f"R{number:02}" for number in range(1, 27)]
    with structlog.testing.capture_logs() as logs:
        snapshot = await paytm.retrieve((REFERENCE, TXN, *names), our_reference=REFERENCE)
    assert asked == names[-20:]
    assert told(snapshot.observations) == {("captured", TXN, INR_499), ("refund_succeeded", "R26", INR_100)}
    assert [(each["event"], each["refund"]) for each in logs] == [
        ("refund_not_told", "R24"),
        ("refund_not_told", "R25"),
    ]


async def test_without_the_passbook_the_payment_is_told_all_the_same() -> None:
    paytm, gateway = adapter_over(an_order(refundAmt="150.00"))
    assert told((await paytm.retrieve(OPEN, our_reference=REFERENCE)).observations) == {("captured", TXN, INR_499)}
    assert len(gateway.requests) == 1
    refused = answers(result("F", "403", "Not enabled"))
    paytm, _ = adapter_over(an_order(refundAmt="150.00"), refused, passbook=True)
    assert told((await paytm.retrieve(OPEN, our_reference=REFERENCE)).observations) == {("captured", TXN, INR_499)}


# --- lists ---------------------------------------------------------------------------------------------------------


async def test_the_list_goes_through_both_statuses_and_reads_nothing_but_ids() -> None:
    rows = answers(result("SUCCESS", "0000", orders=[{"merchantOrderId": REFERENCE, "amount": "1.00"}]))
    none = answers(result("TXN_FAILURE", "331", "No record found"))
    paytm, gateway = adapter_over(none, rows, an_order(), passbook=True)
    first = await paytm.list_window(A_MOMENT, A_MOMENT + timedelta(hours=1, milliseconds=1))
    assert (first.entries, first.next_cursor) == ((), "SUCCESS:1")
    page = await paytm.list_window(A_MOMENT, A_MOMENT, cursor=first.next_cursor)
    [listed] = page.entries
    assert (listed.references, listed.our_references) == ((REFERENCE, TXN), (REFERENCE,))
    assert told(listed.observations) == {("captured", TXN, INR_499)}
    assert listed.created_at == datetime(2025, 1, 1, 6, 30, tzinfo=UTC)
    body = sent_body(gateway.requests[0])
    assert (body["fromDate"], body["toDate"]) == ("2026-01-02T08:34:05+05:30", "2026-01-02T09:34:06+05:30")
    assert sent_head(gateway.requests[0]) == {"tokenType": "AES"}
    assert page.next_cursor is None


async def test_an_order_that_is_paid_while_the_list_is_read_is_in_it() -> None:
    """And so is one that moves to a page that was read already, because those before it were paid."""
    books = {f"ord-{number:02}": "PENDING" for number in range(41)}

    def answer(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)["body"]
        if "orderSearchStatus" not in body:
            found: httpx.Response = an_order(orderId=body["orderId"], txnId=f"txn-{body['orderId']}")
            return found
        of_status = [name for name, status in books.items() if status == body["orderSearchStatus"]]
        first = (body["pageNumber"] - 1) * 20
        if body["orderSearchStatus"] == "PENDING" and first == 0:
            books.update(dict.fromkeys(of_status[:2], "SUCCESS"))  # a moment later
        return answers(result("SUCCESS", "", orders=[{"merchantOrderId": each} for each in of_status[first:][:20]]))

    paytm, _ = adapter_over(answer, passbook=True)
    seen, visited, cursor = set(), [], None
    while True:
        page = await paytm.list_window(A_MOMENT, A_MOMENT + timedelta(hours=1), cursor=cursor)
        seen |= {listed.our_references[0] for listed in page.entries}
        cursor = page.next_cursor
        if cursor is None:
            break
        visited.append(cursor)
    assert seen == set(books)
    assert visited == ["PENDING:2", "AGAIN:1", "SUCCESS:1"]


@pytest.mark.parametrize(
    "strange",
    [
        answers(result("TXN_SUCCESS", "01", mid=MID, orderId="foreign", txnAmount="499.00")),
        answers(result("TXN_SUCCESS", "01", mid=MID, orderId="foreign", txnId="T", txnAmount="many")),
        answers(result("TXN_FAILURE", "334", "Order id is invalid")),
        answers(result("TXN_FAILURE", "1234", "Something went wrong")),
    ],
)
async def test_one_order_that_cannot_be_understood_hides_no_other_from_the_list(strange: httpx.Response) -> None:
    rows = answers(result("SUCCESS", "", orders=[{"merchantOrderId": "foreign"}, {"merchantOrderId": REFERENCE}]))
    paytm, _ = adapter_over(rows, strange, an_order(), passbook=True)
    foreign, ours = (await paytm.list_window(A_MOMENT, A_MOMENT, cursor="SUCCESS:1")).entries
    assert (foreign.our_references, foreign.references, foreign.observations) == (("foreign",), ("foreign",), ())
    assert told(ours.observations) == {("captured", TXN, INR_499)}
    down, _ = adapter_over(rows, httpx.Response(503), passbook=True)
    with pytest.raises(GatewayServerError):  # no order's fault: the page is asked for again
        await down.list_window(A_MOMENT, A_MOMENT, cursor="SUCCESS:1")


async def test_a_full_page_has_a_next_one_and_rows_may_be_called_something_else() -> None:
    full = answers(result("S", "", orderList=[{"orderId": f"ord-{number}"} for number in range(20)]))

    def status(request: httpx.Request) -> httpx.Response:
        found: httpx.Response = an_order(orderId=json.loads(request.content)["body"]["orderId"])
        return found

    paytm, _ = adapter_over(full, status, passbook=True, passbook_order_field="orderId")
    page = await paytm.list_window(A_MOMENT, A_MOMENT, cursor="PENDING:3")
    assert [listed.our_references for listed in page.entries] == [(f"ord-{number}",) for number in range(20)]
    assert page.next_cursor == "PENDING:4"


@pytest.mark.parametrize(
    "answer",
    [
        answers(result("SUCCESS", "0000")),
        answers(result("SUCCESS", "0000", orders={"a": 1})),
        answers(result("SUCCESS", "0000", orders=[{"orderId": "x"}])),
    ],
)
async def test_a_list_that_is_not_understood_is_not_an_empty_one(answer: httpx.Response) -> None:
    paytm, _ = adapter_over(answer, passbook=True)
    with pytest.raises(GatewayOutcomeUnknown):
        await paytm.list_window(A_MOMENT, A_MOMENT)


async def test_without_the_passbook_and_for_strange_pages_there_is_no_list() -> None:
    paytm, gateway = adapter_over(an_order())
    with pytest.raises(GatewayRejected):
        await paytm.list_window(A_MOMENT, A_MOMENT)
    paytm, gateway = adapter_over(an_order(), passbook=True)
    for cursor in ("SUCCESS", "FAILURE:1", "SUCCESS:0", "SUCCESS:x", "SUCCESS:٣", "SUCCESS:9999999", ""):
        with pytest.raises(GatewayRejected):
            await paytm.list_window(A_MOMENT, A_MOMENT, cursor=cursor)
    assert gateway.requests == []


# --- webhooks ------------------------------------------------------------------------------------------------------

FORM = {"MID": MID, "ORDERID": REFERENCE, "TXNID": TXN, "TXNAMOUNT": "499.00", "STATUS": "TXN_SUCCESS"}
NOTICE = {
    "orderId": REFERENCE,
    "txnId": TXN,
    "refId": OPERATION,
    "refundId": "2",
    "refundAmount": "100.00",
    "status": "SUCCESS",
}


TRANSLATOR, _ = adapter_over()


def translated(payload: str, content_type: str) -> GatewayEvent:
    return TRANSLATOR.translate_webhook(Delivery(content_type, payload, None, A_MOMENT))


def of_form(**changes: str) -> GatewayEvent:
    return translated(urlencode(FORM | changes), "application/x-www-form-urlencoded; charset=UTF-8")


def of_notice(**changes: Any) -> GatewayEvent:
    body = {key: value for key, value in (NOTICE | changes).items() if value is not None}
    return translated(json.dumps({"head": {"signature": "[removed]"}, "body": body}), "application/json")


@pytest.mark.parametrize("status", ["TXN_SUCCESS", "TXN_FAILURE", "PENDING", "zz_unheard_of"])
def test_a_form_only_makes_us_ask_about_its_order(status: str) -> None:
    event = of_form(STATUS=status)
    assert event == GatewayEvent(status, (REFERENCE,), (REFERENCE,), must_ask=True)


@pytest.mark.parametrize(
    ("changes", "kind", "reason"),
    [
        ({}, "refund_pending", None),
        ({"userCreditInitiateTimestamp": "2025-01-02 12:00:00.0"}, "refund_succeeded", None),
        ({"userCreditInitiateTimestamp": "2025-01-02 12:00:00.0", "status": None}, "refund_succeeded", None),
        ({"status": "FAILURE", "rejectRefundReasonCode": "602"}, "refund_failed", "602"),
        ({"status": "FAILED"}, "refund_failed", "refund_failed"),
    ],
)
def test_a_notice_about_a_refund_is_a_fact(changes: dict[str, Any], kind: str, reason: str | None) -> None:
    event = of_notice(**changes)
    [fact] = event.observations
    assert (fact.kind, fact.object_reference, fact.amount) == (kind, OPERATION, INR_100)
    assert (fact.about, fact.operation, fact.reason) == (TXN, OPERATION, reason)
    assert (event.references, event.our_references) == ((REFERENCE, TXN, OPERATION), (REFERENCE,))
    assert not event.must_ask


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "zz_unheard_of"},
        {"status": None},
        {"userCreditInitiateTimestamp": "x", "status": "zz"},
        {"refId": None},
        {"txnId": None},
        {"refundAmount": None},
    ],
)
def test_a_notice_that_leaves_something_open_makes_us_ask(changes: dict[str, Any]) -> None:
    event = of_notice(**changes)
    assert (event.must_ask, event.observations, event.our_references) == (True, (), (REFERENCE,))


def test_a_refund_of_the_dashboards_has_no_operation_of_ours() -> None:
    [fact] = of_notice(refId="dash-1").observations
    assert (fact.object_reference, fact.operation) == ("dash-1", None)


@pytest.mark.parametrize(
    ("payload", "content_type"),
    [
        ("", "application/json"),
        ("", "application/x-www-form-urlencoded"),
        ("a", "application/x-www-form-urlencoded"),
        (urlencode(FORM | {"MID": "ANOTHER"}), "application/x-www-form-urlencoded"),
        ("ORDERID=x", "application/x-www-form-urlencoded"),
        ("STATUS=TXN_SUCCESS", "application/x-www-form-urlencoded"),
        ("ORDERID=a%00b&STATUS=TXN_SUCCESS", "application/x-www-form-urlencoded"),
        (urlencode(FORM), "application/json"),
        ('{"body":{}}', "application/json"),
        ('{"body":[]}', "application/json"),
        (json.dumps({"body": NOTICE | {"refundAmount": "1.001"}}), "application/json"),
        (json.dumps({"body": NOTICE | {"mid": "ANOTHER"}}), "application/json"),
    ],
)
def test_anything_else_is_unreadable(payload: str, content_type: str) -> None:
    with pytest.raises(UnreadableWebhook):
        translated(payload, content_type)


@settings(max_examples=60, deadline=None)
@given(
    json_around(["head", "body", "status", *NOTICE], [NOTICE, "SUCCESS", "FAILURE", OPERATION, "100.00"]),
    st.sampled_from(["application/json", "application/x-www-form-urlencoded", ""]),
)
def test_no_payload_raises_anything_else_and_none_is_a_payment(payload: str, content_type: str) -> None:
    try:
        event = translated(payload, content_type)
    except UnreadableWebhook:
        return
    assert FactKind.CAPTURED not in {observation.kind for observation in event.observations}
