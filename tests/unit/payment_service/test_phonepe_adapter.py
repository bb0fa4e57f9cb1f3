"""The PhonePe adapter, against the fact sheet (gateways/phonepe.md): what goes out, and what each answer means."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from pydantic import SecretStr

from services.payment_service.domain.errors import CapabilityNotSupported, CurrencyNotSupported
from services.payment_service.domain.models import CaptureMode, FactKind, Observation
from services.payment_service.domain.operations import OperationKind
from services.payment_service.gateways.definition import Tools
from services.payment_service.gateways.phonepe import DEFINITION, Phonepe, PhonepeSettings
from services.payment_service.gateways.phonepe.refunds import MOST_REFUNDS, heard_of, names_in
from services.payment_service.gateways.port import Capability, MoneyCall, OutcomeStatus, UnreadableWebhook
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
from shared.money import Money
from tests.support.adapter_calls import a_money_call
from tests.support.clock import A_MOMENT, fake_ports
from tests.support.waiting import until
from tests.unit.payment_service.gateway_world import (
    Answer,
    ScriptedGateway,
    a_delivery,
    a_request,
    json_around,
    says,
    told,
)

CLIENT_ID, SECRET = "TESTCLIENT_1", "client-secret-of-the-tests"
REFERENCE, OPERATION, EARLIER = "PR00000000000000001A", "OP00000000000000001A", "PR00000000000000000Z"
ORDER_ID, REFUND_ID = "OMO2501011200000000001", "OMR2501020900000000001"
INR_499, INR_100 = Money(49_900, "INR"), Money(10_000, "INR")
REQUEST = a_request(amount=INR_499)
KNOWN = (REFERENCE, ORDER_ID)
EXPIRE_AT = 1_767_327_000_000
"""After A_MOMENT, in milliseconds."""

ISSUED_AT = int(A_MOMENT.timestamp())
TOKEN = {
    "access_token": "token-1",
    "token_type": "O-Bearer",
    "issued_at": ISSUED_AT,
    "expires_at": ISSUED_AT + 3600,
    "expires_in": None,
}
NEXT_TOKEN = TOKEN | {"access_token": "token-2"}
NOT_FOUND = says({"success": False, "code": "ORDER_NOT_FOUND", "message": "no"}, 404)


def adapter_over(*answers: Answer, token: Answer | None = None, **changes: Any) -> tuple[Phonepe, ScriptedGateway]:
    """The token is answered first, so ``answers`` are those of the calls themselves."""
    gateway = ScriptedGateway([token or says(TOKEN), *answers])
    ports = fake_ports(clock=gateway.clock, http_transport=httpx.MockTransport(gateway))
    values: dict[str, Any] = {
        "client_id": CLIENT_ID,
        "client_secret": SecretStr(SECRET),
        "api_base": "https://phonepe.test/apis/pg/",
    }
    tools = Tools(HttpCaller(build_http_client(ports), ports), ports, "https://us.test/webhooks", False)
    return Phonepe(PhonepeSettings(**(values | changes)), tools), gateway


def opened(**changes: Any) -> httpx.Response:
    answer = {
        "orderId": ORDER_ID,
        "state": "PENDING",
        "expireAt": EXPIRE_AT,
        "redirectUrl": "https://mercury.example/t",
    }
    return says(answer | changes)


def a_try(state: str = "COMPLETED", at: int = 1_735_713_100_000, **changes: Any) -> dict[str, Any]:
    return {"transactionId": "OM2501011200000000001", "timestamp": at, "amount": 49900, "state": state, **changes}


def an_order(state: str = "COMPLETED", *tries: dict[str, Any], **changes: Any) -> httpx.Response:
    order = {"orderId": ORDER_ID, "state": state, "amount": 49900, "payableAmount": 50900, "expireAt": EXPIRE_AT}
    return says({**order, "feeAmount": 1000, "paymentDetails": list(tries), **changes})


PAID = an_order("COMPLETED", a_try())


def a_refund(state: str = "COMPLETED", **changes: Any) -> httpx.Response:
    refund = {"originalMerchantOrderId": REFERENCE, "refundId": REFUND_ID, "amount": 10_000, "state": state}
    return says({**refund, "timestamp": 1_735_800_000_000, **changes})


ACCEPTED = says({"refundId": REFUND_ID, "amount": 10_000, "state": "PENDING"})


def a_call(kind: OperationKind = OperationKind.REFUND, **changes: Any) -> MoneyCall:
    mine = {
        "kind": kind,
        "amount": INR_100,
        "target": REFERENCE,
        "is_whole": False,
        "reason": "broken – zerbrochen",
        "capture": CaptureMode.AUTOMATIC,
        "references": KNOWN,
        "first_sent_at": A_MOMENT,
    }
    return a_money_call(**{**mine, **changes})


def paths(gateway: ScriptedGateway) -> list[str]:
    return [request.url.path.removeprefix("/apis/pg") for request in gateway.requests]


def refund_fact(kind: FactKind, reason: str | None = None, name: str = OPERATION) -> Observation:
    operation = name if name == OPERATION else None
    at = datetime(2025, 1, 2, 6, 40, tzinfo=UTC)
    return Observation(kind, name, INR_100, at, reason=reason, about=REFERENCE, operation=operation)


# --- what it can do ------------------------------------------------------------------------------------------------


def test_what_is_not_offered_is_refused_before_anything_is_made() -> None:
    phonepe, _ = adapter_over()
    phonepe.check(Money(100, "INR"), CaptureMode.AUTOMATIC)
    with pytest.raises(CapabilityNotSupported):
        phonepe.check(INR_499, CaptureMode.MANUAL)
    for amount in (Money(99, "INR"), Money(1000, "USD"), Money(12_345, "KWD")):
        with pytest.raises(CurrencyNotSupported):
            phonepe.check(amount, CaptureMode.AUTOMATIC)
    phonepe.check_operation(OperationKind.REFUND, Money(1, "INR"))
    with pytest.raises(CurrencyNotSupported):
        phonepe.check_operation(OperationKind.REFUND, Money(1000, "KWD"))
    facts = phonepe.facts
    assert facts.capabilities.isdisjoint(facts.not_offered)
    assert facts.capabilities | set(facts.not_offered) == set(Capability)


async def test_held_money_and_lists_are_refused_without_a_call() -> None:
    phonepe, gateway = adapter_over(opened())
    for call in (phonepe.capture, phonepe.void, phonepe.complete):
        with pytest.raises(GatewayRejected):
            await call(a_call(OperationKind.CAPTURE))
    with pytest.raises(GatewayRejected):
        await phonepe.list_window(A_MOMENT, A_MOMENT)
    assert await phonepe.find_operation(a_call(OperationKind.CAPTURE)) is None
    assert gateway.requests == []


def test_live_tokens_come_from_their_own_host_path_and_others_from_where_payments_are() -> None:
    assert DEFINITION.required == ("PHONEPE_CLIENT_ID", "PHONEPE_CLIENT_SECRET")
    live = PhonepeSettings(client_id="c", client_secret=SecretStr("s"))
    assert live.api_base == "https://api.phonepe.com/apis/pg"
    assert live.tokens_from == "https://api.phonepe.com/apis/identity-manager"
    base = "https://api-preprod.phonepe.com/apis/pg-sandbox"
    assert live.model_copy(update={"api_base": base + "/"}).tokens_from == base
    assert live.model_copy(update={"token_base": "https://t.test/"}).tokens_from == "https://t.test"


# --- the token -----------------------------------------------------------------------------------------------------


class SlowTokens(ScriptedGateway):
    """Keeps whoever asks for a token waiting, so that others come along meanwhile."""

    may_answer: asyncio.Event

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/oauth/token"):
            self.requests.append(request)
            await self.may_answer.wait()
            return says(TOKEN)
        return await super().__call__(request)


async def test_one_token_serves_all_who_need_it_at_the_same_time() -> None:
    gateway = SlowTokens([PAID])
    gateway.may_answer = asyncio.Event()
    ports = fake_ports(clock=gateway.clock, http_transport=httpx.MockTransport(gateway))
    phonepe = Phonepe(
        PhonepeSettings(client_id=CLIENT_ID, client_secret=SecretStr(SECRET), api_base="https://phonepe.test/apis/pg"),
        Tools(HttpCaller(build_http_client(ports), ports), ports, "", False),
    )
    calls = [asyncio.create_task(phonepe.retrieve(KNOWN, our_reference=REFERENCE)) for _ in range(5)]
    await until(lambda: bool(gateway.requests), what="the token being asked for")
    gateway.may_answer.set()
    await asyncio.gather(*calls)
    assert paths(gateway).count("/v1/oauth/token") == 1
    assert len(gateway.requests) == 6


async def test_the_token_is_asked_for_as_documented_and_sent_as_o_bearer() -> None:
    phonepe, gateway = adapter_over(PAID, client_version=3, merchant_id="M1")
    await phonepe.retrieve(KNOWN, our_reference=REFERENCE)
    asked, call = gateway.requests
    assert str(asked.url) == "https://phonepe.test/apis/pg/v1/oauth/token"
    assert asked.headers["content-type"] == "application/x-www-form-urlencoded"
    assert asked.content.decode() == (
        f"client_id={CLIENT_ID}&client_secret={SECRET}&client_version=3&grant_type=client_credentials"
    )
    assert (call.headers["authorization"], call.headers["x-merchant-id"]) == ("O-Bearer token-1", "M1")


async def test_a_token_is_renewed_at_half_of_its_time_and_used_on_where_that_fails() -> None:
    phonepe, gateway = adapter_over(PAID)

    async def seconds_later(seconds: float, *answers: Answer) -> str:
        gateway.clock.move(seconds)
        gateway.answers = [*answers, PAID]
        await phonepe.retrieve(KNOWN, our_reference=REFERENCE)
        return gateway.sent.headers["authorization"]

    assert await seconds_later(0, says(TOKEN)) == "O-Bearer token-1"
    assert await seconds_later(1790) == "O-Bearer token-1"
    refused = says({"code": "INVALID_CLIENT"}, 401)
    assert await seconds_later(20, refused) == "O-Bearer token-1"  # asked for anew, without luck
    assert await seconds_later(1) == "O-Bearer token-1"  # and not again at once
    assert await seconds_later(31, says(NEXT_TOKEN)) == "O-Bearer token-2"
    assert paths(gateway).count("/v1/oauth/token") == 3
    gateway.clock.move(4000)
    gateway.answers = [refused]
    with pytest.raises(GatewayUnavailable):
        await phonepe.retrieve(KNOWN, our_reference=REFERENCE)


async def test_a_refused_token_is_dropped_fetched_once_and_the_call_repeated_once() -> None:
    phonepe, gateway = adapter_over(says({}, 401), says(NEXT_TOKEN), ACCEPTED)
    await phonepe.refund(a_call())
    calls = [each for each in gateway.requests if each.url.path.endswith("/refund")]
    assert [each.headers["authorization"] for each in calls] == ["O-Bearer token-1", "O-Bearer token-2"]
    phonepe, gateway = adapter_over(says({}, 401), says(NEXT_TOKEN), says({}, 401))
    with pytest.raises(GatewayUnavailable):
        await phonepe.refund(a_call())
    assert len(gateway.requests) == 4


@pytest.mark.parametrize(
    "token",
    [
        httpx.ReadTimeout("slow"),
        httpx.Response(502),
        httpx.Response(200, content=b"<html>"),
        says({"code": "UNAUTHORIZED"}, 401),
        says(TOKEN | {"access_token": ""}),
        says(TOKEN | {"access_token": "a\nb"}),
        says(TOKEN | {"expires_at": ISSUED_AT}),
        says(TOKEN | {"expires_at": "soon"}),
    ],
)
async def test_without_a_token_nothing_can_have_moved(token: Answer) -> None:
    phonepe, gateway = adapter_over(token, token=token)
    with pytest.raises(GatewayUnavailable) as raised:
        await phonepe.refund(a_call())
    assert SECRET not in str(raised.value)
    assert set(paths(gateway)) == {"/v1/oauth/token"}


# --- sessions ------------------------------------------------------------------------------------------------------


async def test_an_order_is_opened_as_documented() -> None:
    phonepe, gateway = adapter_over(opened())
    session = await phonepe.create_session(REQUEST, repeated=False)
    assert (gateway.sent.method, str(gateway.sent.url)) == ("POST", "https://phonepe.test/apis/pg/checkout/v2/pay")
    assert json.loads(gateway.sent.content) == {
        "merchantOrderId": REFERENCE,
        "amount": 49900,
        "expireAfter": 2400,
        "metaInfo": {"udf1": "pay_1", "udf2": "ord_1"},
        "paymentFlow": {"type": "PG_CHECKOUT", "merchantUrls": {"redirectUrl": REQUEST.return_url}},
    }
    assert session.next_action.to_json() == {"type": "redirect", "url": "https://mercury.example/t"}
    assert (session.gateway_reference, session.references) == (REFERENCE, KNOWN)
    assert session.expires_at == datetime.fromtimestamp(EXPIRE_AT / 1000, UTC)
    assert told(session.observations) == {("session_opened", REFERENCE, None)}


@pytest.mark.parametrize(
    ("life", "seconds"), [(timedelta(days=1), 3600), (timedelta(seconds=1), 300), (timedelta(minutes=20), 1200)]
)
async def test_a_page_lives_from_five_minutes_to_an_hour(life: timedelta, seconds: int) -> None:
    phonepe, gateway = adapter_over(opened(), retry_on_page=False)
    await phonepe.create_session(replace(REQUEST, expires_at=A_MOMENT + life), repeated=False)
    sent = json.loads(gateway.sent.content)
    assert (sent["expireAfter"], sent["disablePaymentRetry"]) == (seconds, True)


async def test_an_unanswered_order_is_looked_for_and_never_opened_twice() -> None:
    phonepe, gateway = adapter_over(httpx.ReadTimeout("slow"), opened())
    with pytest.raises(GatewayOutcomeUnknown):
        await phonepe.create_session(REQUEST, repeated=False)
    assert paths(gateway).count("/checkout/v2/pay") == 1

    phonepe, gateway = adapter_over(NOT_FOUND, opened())  # it never arrived
    assert (await phonepe.create_session(REQUEST, repeated=True)).gateway_reference == REFERENCE
    assert paths(gateway)[1:] == [f"/checkout/v2/order/{REFERENCE}/status", "/checkout/v2/pay"]

    for state in ("PENDING", "FAILED", "SOMETHING_NEW"):  # its page is told once only, and nobody saw it
        phonepe, gateway = adapter_over(an_order(state))
        with pytest.raises(GatewayRejected) as refused:
            await phonepe.create_session(REQUEST, repeated=True)
        assert refused.value.gateway_code == "page_lost"
        assert "/checkout/v2/pay" not in paths(gateway)


@pytest.mark.parametrize(("order", "kind"), [(PAID, "captured"), (an_order("PENDING", a_try("PENDING")), "processing")])
async def test_an_order_that_somebody_pays_after_all_gets_no_second_page(order: Answer, kind: str) -> None:
    phonepe, gateway = adapter_over(order)
    session = await phonepe.create_session(REQUEST, repeated=True)
    assert [each.kind for each in session.observations] == [kind]
    assert (session.next_action.url, session.references) == (REQUEST.return_url, KNOWN)
    assert "/checkout/v2/pay" not in paths(gateway)


@pytest.mark.parametrize(
    ("answer", "error", "code"),
    [
        (says({"success": False, "code": "BAD_REQUEST"}, 400), GatewayRejected, "BAD_REQUEST"),
        (says({"errorCode": "CONFLICT", "data": {}}, 409), GatewayRejected, "CONFLICT"),
        (says({"code": "<b>"}, 422), GatewayRejected, "http_422"),
        (says({"code": 417}, 417), GatewayRejected, "http_417"),
        (NOT_FOUND, GatewayObjectNotFound, "ORDER_NOT_FOUND"),
        (says({"code": "FORBIDDEN"}, 403), GatewayUnavailable, None),
        (says({}, 408), GatewayOutcomeUnknown, None),
        (says({}, 429), GatewayRateLimited, None),
        (httpx.Response(404, content=b"<html>"), GatewayOutcomeUnknown, None),
        (httpx.Response(200, content=b"[]"), GatewayOutcomeUnknown, None),
        (httpx.Response(302, headers={"location": "/"}), GatewayOutcomeUnknown, None),
        (httpx.Response(503), GatewayServerError, None),
        (httpx.ConnectError("refused"), GatewayUnavailable, None),
        (opened(redirectUrl=""), GatewayOutcomeUnknown, None),
        (opened(redirectUrl="javascript:alert(1)"), GatewayOutcomeUnknown, None),
        (opened(orderId=None), GatewayOutcomeUnknown, None),
        (opened(expireAt=10**30), GatewayOutcomeUnknown, None),
    ],
)
async def test_every_other_answer_says_what_may_have_happened(
    answer: Answer, error: type[GatewayError], code: str | None
) -> None:
    phonepe, _ = adapter_over(answer)
    with pytest.raises(error) as raised:
        await phonepe.create_session(REQUEST, repeated=False)
    assert type(raised.value) is error
    assert getattr(raised.value, "gateway_code", None) == code


# --- orders --------------------------------------------------------------------------------------------------------

FAILED_TRY = a_try("FAILED", errorCode="TXN_FAILED", detailedErrorCode="ZM")
OVER = int(A_MOMENT.timestamp() * 1000)


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (PAID, [("captured", REFERENCE, INR_499, None)]),
        (an_order("COMPLETED", amount=1), [("captured", REFERENCE, Money(1, "INR"), None)]),
        (an_order("COMPLETED", currency="USD"), [("captured", REFERENCE, Money(49_900, "USD"), None)]),
        (an_order("PENDING"), [("session_opened", REFERENCE, None, None)]),
        (an_order("PENDING", a_try("PENDING")), [("processing", REFERENCE, None, None)]),
        (
            an_order("PENDING", a_try("PENDING", 2), FAILED_TRY | {"timestamp": 1}),
            [("processing", REFERENCE, None, None)],
        ),
        (
            an_order("PENDING", FAILED_TRY),
            [("session_opened", REFERENCE, None, None), ("declined", "OM2501011200000000001", None, "ZM")],
        ),
        (an_order("FAILED", FAILED_TRY, errorCode="TXN_FAILED"), [("failed", REFERENCE, None, "TXN_FAILED")]),
        (an_order("FAILED", errorCode="E", detailedErrorCode="Z9"), [("failed", REFERENCE, None, "Z9")]),
        (an_order("FAILED"), [("failed", REFERENCE, None, "declined")]),
        (an_order("FAILED", expireAt=OVER), [("expired", REFERENCE, None, None)]),
        (an_order("FAILED", FAILED_TRY, expireAt=OVER), [("failed", REFERENCE, None, "declined")]),
        (an_order("FAILED", FAILED_TRY, errorCode="ORDER_EXPIRED"), [("expired", REFERENCE, None, None)]),
        (an_order("FAILED", detailedErrorCode="txn_cancelled"), [("canceled", REFERENCE, None, "canceled_by_shopper")]),
        (an_order("SOMETHING_NEW", a_try()), [("processing", REFERENCE, None, None)]),
    ],
)
async def test_every_state_of_an_order_and_only_its_own_state_decides(order: Answer, expected: list[Any]) -> None:
    phonepe, gateway = adapter_over(order)
    snapshot = await phonepe.retrieve(KNOWN, our_reference=REFERENCE)
    seen = [(each.kind, each.object_reference, each.amount, each.reason) for each in snapshot.observations]
    assert (seen, snapshot.references) == (expected, KNOWN)
    assert str(gateway.requests[1].url).endswith(f"/order/{REFERENCE}/status?details=false&errorContext=false")


async def test_when_it_was_paid_is_told_in_milliseconds() -> None:
    phonepe, _ = adapter_over(an_order("COMPLETED", a_try(), FAILED_TRY | {"timestamp": 1_735_713_199_999}))
    [captured] = (await phonepe.retrieve(KNOWN, our_reference=REFERENCE)).observations
    assert captured.occurred_at == datetime(2025, 1, 1, 6, 31, 40, tzinfo=UTC)


@pytest.mark.parametrize(
    "order",
    [
        an_order(merchantOrderId="PR00000000000000009Z"),
        an_order(amount=None),
        an_order(amount="49900"),
        an_order(amount=499.5),
        an_order(amount=-1),
        an_order(amount=True),
        an_order(currency="XXXX"),
        an_order(""),
        an_order(paymentDetails={}),
        an_order("COMPLETED", a_try(at=10**30)),
    ],
)
async def test_what_is_not_understood_says_nothing(order: Answer) -> None:
    phonepe, _ = adapter_over(order)
    with pytest.raises(GatewayOutcomeUnknown):
        await phonepe.retrieve(KNOWN, our_reference=REFERENCE)


async def test_an_order_that_is_not_known_is_no_failure() -> None:
    phonepe, _ = adapter_over(NOT_FOUND)
    with pytest.raises(GatewayObjectNotFound):
        await phonepe.retrieve((), our_reference=REFERENCE)


async def test_of_an_earlier_order_only_money_counts() -> None:
    references = (*KNOWN, EARLIER)
    phonepe, _ = adapter_over(an_order("PENDING"), an_order("FAILED", orderId="OMO0"))
    assert told((await phonepe.retrieve(references, our_reference=REFERENCE)).observations) == {
        ("session_opened", REFERENCE, None)
    }
    phonepe, _ = adapter_over(an_order("PENDING"), an_order("COMPLETED", orderId="OMO0"))
    found = await phonepe.retrieve(references, our_reference=REFERENCE)
    assert ("captured", EARLIER, INR_499) in told(found.observations)
    assert found.references == (*KNOWN, EARLIER, "OMO0")


@pytest.mark.parametrize(
    ("order", "kinds"),
    [
        (an_order("PENDING"), ["session_opened", "canceled"]),
        (an_order("PENDING", FAILED_TRY), ["session_opened", "declined", "canceled"]),
        (an_order("PENDING", a_try("PENDING")), ["processing"]),
        (PAID, ["captured"]),
    ],
)
async def test_to_close_is_our_own_decision_and_money_wins(order: Answer, kinds: list[str]) -> None:
    phonepe, _ = adapter_over(order)
    snapshot = await phonepe.close_session(REFERENCE, our_reference=REFERENCE)
    assert [each.kind for each in snapshot.observations] == kinds


# --- refunds -------------------------------------------------------------------------------------------------------


async def test_a_refund_is_asked_for_as_documented_and_is_pending_at_first() -> None:
    phonepe, gateway = adapter_over(ACCEPTED)
    outcome = await phonepe.refund(a_call())
    assert str(gateway.sent.url) == "https://phonepe.test/apis/pg/payments/v2/refund"
    sent = {"merchantRefundId": OPERATION, "originalMerchantOrderId": REFERENCE, "amount": 10_000}
    assert json.loads(gateway.sent.content) == sent
    assert (outcome.status, outcome.gateway_reference) == (OutcomeStatus.PENDING, OPERATION)
    assert outcome.references == (f"refund:{OPERATION}",)
    [fact] = outcome.observations
    assert replace(fact, occurred_at=refund_fact(FactKind.REFUND_PENDING).occurred_at) == refund_fact(
        FactKind.REFUND_PENDING
    )


@pytest.mark.parametrize(
    ("state", "status", "kind"),
    [
        ("PENDING", OutcomeStatus.PENDING, FactKind.REFUND_PENDING),
        ("CONFIRMED", OutcomeStatus.PENDING, FactKind.REFUND_PENDING),
        ("SOMETHING_NEW", OutcomeStatus.PENDING, FactKind.REFUND_PENDING),
        ("COMPLETED", OutcomeStatus.SUCCEEDED, FactKind.REFUND_SUCCEEDED),
        ("FAILED", OutcomeStatus.FAILED, FactKind.REFUND_FAILED),
    ],
)
async def test_every_state_of_a_refund(state: str, status: OutcomeStatus, kind: FactKind) -> None:
    reason = "REFUND_NOT_POSSIBLE" if state == "FAILED" else None
    phonepe, gateway = adapter_over(a_refund(state, errorCode=reason))
    outcome = await phonepe.find_operation(a_call())
    assert outcome is not None
    assert (outcome.status, outcome.failure_code, outcome.observations) == (
        status,
        reason,
        (refund_fact(kind, reason),),
    )
    assert (gateway.sent.method, paths(gateway)[-1]) == ("GET", f"/payments/v2/refund/{OPERATION}/status")


async def test_a_refund_without_an_answer_is_not_sent_again_before_it_was_looked_for() -> None:
    phonepe, gateway = adapter_over(httpx.ReadTimeout("slow"), ACCEPTED)
    with pytest.raises(GatewayOutcomeUnknown):
        await phonepe.refund(a_call())
    assert paths(gateway) == ["/v1/oauth/token", "/payments/v2/refund"]


async def test_a_refusal_may_be_about_an_earlier_call_under_the_same_name() -> None:
    duplicate = says({"success": False, "code": "DUPLICATE_REFUND"}, 409)
    phonepe, _ = adapter_over(duplicate, a_refund("CONFIRMED"))
    assert (await phonepe.refund(a_call())).status is OutcomeStatus.PENDING
    excess = says({"success": False, "code": "EXCESS_REFUND_AMOUNT"}, 400)
    phonepe, _ = adapter_over(excess, NOT_FOUND, PAID)
    with pytest.raises(GatewayRejected) as refused:
        await phonepe.refund(a_call())
    assert refused.value.gateway_code == "EXCESS_REFUND_AMOUNT"
    phonepe, _ = adapter_over(excess, httpx.Response(500))
    with pytest.raises(GatewayOutcomeUnknown):
        await phonepe.refund(a_call())


async def test_that_a_refund_is_not_there_counts_only_where_its_order_is() -> None:
    phonepe, _ = adapter_over(NOT_FOUND, PAID)
    assert await phonepe.find_operation(a_call()) is None
    for look in ((NOT_FOUND, NOT_FOUND), (says({"code": "BAD_REQUEST"}, 400),)):
        phonepe, _ = adapter_over(*look)
        with pytest.raises(GatewayOutcomeUnknown):
            await phonepe.find_operation(a_call())


@pytest.mark.parametrize(
    "changes",
    [
        {"amount": 10_001},
        {"amount": None},
        {"merchantRefundId": "another"},
        {"originalMerchantOrderId": EARLIER},
        {"state": None},
    ],
)
async def test_another_refund_is_not_taken_for_ours(changes: dict[str, Any]) -> None:
    for call in ("refund", "find_operation"):
        phonepe, _ = adapter_over(a_refund(**changes))
        with pytest.raises(GatewayOutcomeUnknown):
            await getattr(phonepe, call)(a_call())


async def test_refunds_that_are_known_are_told_with_the_order() -> None:
    nameless = a_refund("FAILED", originalMerchantOrderId=None)
    phonepe, gateway = adapter_over(PAID, nameless, NOT_FOUND)
    references = (*KNOWN, f"refund:{OPERATION}", "refund:gone")
    snapshot = await phonepe.retrieve(references, our_reference=REFERENCE)
    assert snapshot.observations[1:] == (refund_fact(FactKind.REFUND_FAILED, "refund_failed"),)
    assert snapshot.references == (*KNOWN, f"refund:{OPERATION}")
    assert len(gateway.requests) == 4


# --- webhooks ------------------------------------------------------------------------------------------------------

ORDER_EVENT = {
    "event": "checkout.order.completed",
    "type": "CHECKOUT_ORDER_COMPLETED",
    "payload": {"merchantOrderId": REFERENCE, "orderId": ORDER_ID, "state": "COMPLETED", "amount": 49900},
}
REFUND_EVENT = {
    "event": "pg.refund.completed",
    "payload": {"merchantRefundId": "dash_1", "originalMerchantOrderId": REFERENCE, "refundId": REFUND_ID},
}


@pytest.mark.parametrize(
    "event",
    ["checkout.order.completed", "pg.order.completed", "checkout.order.failed", "pg.order.failed", "checkout.new.word"],
)
def test_an_order_event_only_makes_us_ask(event: str) -> None:
    phonepe, _ = adapter_over()
    translated = phonepe.translate_webhook(a_delivery(ORDER_EVENT | {"event": event}))
    assert (translated.event_type, translated.must_ask, translated.ignored) == (event, True, None)
    assert (translated.references, translated.our_references) == (KNOWN, (REFERENCE,))
    assert translated.observations == ()


def test_the_older_type_will_do_where_there_is_no_event() -> None:
    phonepe, _ = adapter_over()
    old = {"type": "CHECKOUT_TRANSACTION_ATTEMPT_FAILED", "payload": ORDER_EVENT["payload"]}
    assert phonepe.translate_webhook(a_delivery(old)).ignored is not None


@pytest.mark.parametrize(
    "event", ["checkout.transaction.attempt.failed", "pg.transaction.failed", "settlement.processed"]
)
def test_a_try_ends_nothing_and_settlements_are_no_payments(event: str) -> None:
    phonepe, _ = adapter_over()
    payload = ORDER_EVENT["payload"] if "transaction" in event else {"settlementId": "ST0001"}
    assert phonepe.translate_webhook(a_delivery({"event": event, "payload": payload})).ignored is not None


async def test_a_dashboards_refund_is_found_by_the_name_that_its_webhook_brings() -> None:
    phonepe, gateway = adapter_over(PAID, a_refund())
    event = phonepe.translate_webhook(a_delivery(REFUND_EVENT))
    assert (event.must_ask, event.our_references, event.observations) == (True, (REFERENCE,), ())
    snapshot = await phonepe.retrieve((*KNOWN, *event.asks_about), our_reference=REFERENCE)
    assert snapshot.observations[1:] == (refund_fact(FactKind.REFUND_SUCCEEDED, name="dash_1"),)
    assert snapshot.references == (*KNOWN, "refund:dash_1")
    assert paths(gateway)[-1] == "/payments/v2/refund/dash_1/status"


@pytest.mark.parametrize("named", [EARLIER, None])
async def test_a_forged_hint_lends_no_payment_another_ones_refund(named: str | None) -> None:
    phonepe, _ = adapter_over(PAID, a_refund(originalMerchantOrderId=named))
    event = phonepe.translate_webhook(a_delivery(REFUND_EVENT))
    snapshot = await phonepe.retrieve((*KNOWN, *event.asks_about), our_reference=REFERENCE)
    assert [each.kind for each in snapshot.observations] == [FactKind.CAPTURED]


async def test_what_is_heard_of_fits_into_a_path_and_not_everything_is_asked_about() -> None:
    assert [heard_of(name) for name in ("../../order", "a" * 64, "")] == [(), (), ()]
    assert names_in((*KNOWN, "refund:known", *heard_of("known"), *heard_of("new"))) == {"known": True, "new": False}
    many = [reference for number in range(MOST_REFUNDS + 5) for reference in heard_of(f"r{number}")]
    phonepe, gateway = adapter_over(PAID, *[NOT_FOUND] * MOST_REFUNDS)
    await phonepe.retrieve((*KNOWN, *many), our_reference=REFERENCE)
    assert len(gateway.requests) == 2 + MOST_REFUNDS


@pytest.mark.parametrize(
    "payload",
    [
        "",
        "[]",
        "{}",
        '{"event":5}',
        '{"event":"checkout.order.completed","payload":[]}',
        '{"event":"checkout.order.completed","payload":{"merchantOrderId":5}}',
        '{"event":"pg.refund.completed","payload":{"merchantRefundId":"r"}}',
        '{"event":"payment.dispute.created","payload":{"merchantOrderId":"o"}}',
        '{"type":"PAYMENT_DISPUTE_LOST","payload":{}}',
    ],
)
def test_what_nobody_documents_is_left_for_a_person(payload: str) -> None:
    with pytest.raises(UnreadableWebhook):
        adapter_over()[0].translate_webhook(a_delivery(payload))


PHONEPE = adapter_over()[0]


@settings(max_examples=60, deadline=None)
@given(
    json_around(
        ["event", "type", "payload", "merchantOrderId", "merchantRefundId", "originalMerchantOrderId", "state"],
        ["checkout.order.completed", "pg.refund.failed", ORDER_EVENT["payload"], REFUND_EVENT["payload"], REFERENCE],
    )
)
def test_no_payload_raises_anything_else_and_none_is_a_payment(payload: str) -> None:
    try:
        event = PHONEPE.translate_webhook(a_delivery(payload))
    except UnreadableWebhook:
        return
    assert event.observations == ()
    assert event.must_ask is (event.ignored is None)
