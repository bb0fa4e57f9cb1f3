"""The BillDesk adapter, against the fact sheet (gateways/billdesk.md): what goes out, and what each answer means."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import Any

import httpx
import jwt
import pytest
from hypothesis import given

from services.payment_service.domain.errors import CapabilityNotSupported, CurrencyNotSupported
from services.payment_service.domain.models import (
    CaptureMode,
    Customer,
    Fact,
    FactKind,
    FactSource,
    Observation,
    PaymentStatus,
    Terms,
)
from services.payment_service.domain.operations import OperationKind
from services.payment_service.domain.transitions import reduce_facts
from services.payment_service.gateways.billdesk import DEFINITION, BillDesk
from services.payment_service.gateways.port import Capability, CreateSession, OutcomeStatus, UnreadableWebhook
from shared import jose
from shared.errors import (
    GatewayObjectNotFound,
    GatewayOutcomeUnknown,
    GatewayRateLimited,
    GatewayRejected,
    GatewayServerError,
    GatewayUnavailable,
)
from shared.masking import redact_body
from shared.money import Money
from tests.support.adapter_calls import OPERATION, REFERENCE
from tests.support.billdesk import (
    CLIENT,
    ENCRYPTED,
    ENCRYPTION_KEY,
    INR_100,
    INR_499,
    KEY_ID,
    MERCHANT,
    SIGNED,
    SIGNING_KEY,
    a_refund_call,
    billdesk_over,
    billdesk_settings,
    delivery_of,
)
from tests.support.clock import A_MOMENT, FakeClock, fake_ports
from tests.unit.payment_service.gateway_world import EXPIRES_AT, Answer, ScriptedGateway, a_request, json_around, told

TRANSACTION, ORDER, REFUND = "X7890477676443", "OA78F1MDCV15BN7", "RF230005481021"
PAGE = "https://billdesk.test/u2/web/v1_2/embeddedsdk"
A_WHILE_AGO = "2026-01-02T08:00:00+05:30"
"""Four minutes before A_MOMENT, as BillDesk writes it."""


def adapter_over(*answers: Answer, **settings: Any) -> tuple[BillDesk, ScriptedGateway]:
    gateway = ScriptedGateway(list(answers))
    ports = fake_ports(clock=gateway.clock, http_transport=httpx.MockTransport(gateway))
    values = {"api_base": "https://billdesk.test/u2/"} | settings
    return billdesk_over(billdesk_settings(**values), gateway.caller(), ports), gateway


def seals(body: Any, status: int = 200, *, key: str = SIGNING_KEY, **header: str) -> httpx.Response:
    """An answer of BillDesk's, signed by PyJWT."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    token = jwt.PyJWS().encode(content, key.encode(), algorithm="HS256", headers={"clientid": CLIENT, **header})
    return httpx.Response(status, content=token.encode(), headers={"content-type": "application/jose"})


def refuses(status: int, error_type: str = "invalid_data", code: str = "XXXX0001") -> httpx.Response:
    return seals({"status": status, "error_type": error_type, "error_code": code, "message": "no"}, status)


def opened(request: httpx.Request) -> dict[str, Any]:
    """What we said, as PyJWT reads it."""
    found: dict[str, Any] = json.loads(jwt.PyJWS().decode(request.content, SIGNING_KEY.encode(), algorithms=["HS256"]))
    return found


def a_session(**changes: Any) -> CreateSession:
    return a_request(**{"amount": INR_499, "reference": REFERENCE, **changes})


def an_order(**changes: Any) -> dict[str, Any]:
    return {
        "objectid": "order",
        "orderid": REFERENCE,
        "bdorderid": ORDER,
        "mercid": MERCHANT,
        "status": "ACTIVE",
        "order_date": A_WHILE_AGO,
        "amount": "499.00",
        "currency": "356",
        "links": [
            {"rel": "self", "method": "GET", "href": "https://billdesk.test/u2/payments/ve1_2/orders/1"},
            {
                "rel": "redirect",
                "method": "POST",
                "href": PAGE,
                "parameters": {"mercid": MERCHANT, "bdorderid": ORDER, "rdata": "opaque"},
                "headers": {"authorization": "OToken opaque"},
                "valid_date": "2026-01-02T09:04:05+05:30",
            },
        ],
    } | changes


def a_transaction(auth_status: str = "0300", **changes: Any) -> dict[str, Any]:
    return {
        "objectid": "transaction",
        "transactionid": TRANSACTION,
        "orderid": REFERENCE,
        "mercid": MERCHANT,
        "transaction_date": A_WHILE_AGO,
        "amount": "499.00",
        "surcharge": "5.00",
        "discount": "0.00",
        "charge_amount": "504.00",
        "currency": "356",
        "auth_status": auth_status,
        "transaction_error_code": "TRS0000" if auth_status == "0300" else "TRX0001",
        "transaction_error_type": "success" if auth_status == "0300" else "payment_declined",
        "additional_info": {"additional_info1": "pay_1"},
    } | changes


def a_refund(refund_status: str = "0799", **changes: Any) -> dict[str, Any]:
    return {
        "objectid": "refund",
        "refundid": REFUND,
        "transactionid": TRANSACTION,
        "orderid": REFERENCE,
        "mercid": MERCHANT,
        "transaction_date": A_WHILE_AGO,
        "txn_amount": "499.00",
        "refund_amount": "100.00",
        "currency": "356",
        "refund_date": A_WHILE_AGO,
        "merc_refund_ref_no": OPERATION,
        "refund_status": refund_status,
    } | changes


NOT_FOUND = refuses(404, "not_found_error")
PAID_WORDS = {"auth_status": "0300", "transaction_error_type": "success"}


# --- what it is ----------------------------------------------------------------------------------------------------


def test_every_capability_is_offered_or_has_a_reason() -> None:
    facts = DEFINITION.facts
    assert facts.capabilities.isdisjoint(facts.not_offered)
    assert facts.capabilities | set(facts.not_offered) == set(Capability)
    assert facts.key_valid_for is None  # nothing is ever sent again blindly


def test_only_rupees_and_only_at_once() -> None:
    billdesk, _ = adapter_over(NOT_FOUND)
    billdesk.check(INR_499, CaptureMode.AUTOMATIC)
    for amount in (Money(499, "USD"), Money(499_000, "KWD"), Money(0, "INR")):
        with pytest.raises(CurrencyNotSupported):
            billdesk.check(amount, CaptureMode.AUTOMATIC)
        with pytest.raises(CurrencyNotSupported):
            billdesk.check_operation(OperationKind.REFUND, amount)
    with pytest.raises(CapabilityNotSupported):
        billdesk.check(INR_499, CaptureMode.MANUAL)


@pytest.mark.parametrize(
    "wrong",
    [
        {"signing_key": " , "},
        {"scheme": "symmetric"},
        {"scheme": "symmetric", "key_id": KEY_ID, "encryption_key": "BDTestEncryptKey"},
        {"encryption_key": ENCRYPTION_KEY},
        {"failed_codes": "0399,0002"},
        {"canceled_codes": "0300"},
        {"refund_failed_codes": "0799"},
        {"scheme": "asymmetric"},
        {"refund_final_after_hours": "-1"},
    ],
)
def test_settings_that_do_not_fit_together_are_refused_without_a_value(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the texts differ
        adapter_over(NOT_FOUND, **wrong)
    assert ENCRYPTION_KEY not in str(error.value)


# --- sessions ------------------------------------------------------------------------------------------------------


async def test_an_order_goes_out_as_the_fact_sheet_writes_it() -> None:
    billdesk, gateway = adapter_over(seals(an_order()))
    session = await billdesk.create_session(a_session(), repeated=False)
    sent = gateway.sent
    assert str(sent.url) == "https://billdesk.test/u2/payments/ve1_2/orders/create"
    assert sent.headers["content-type"] == sent.headers["accept"] == "application/jose"
    assert sent.headers["bd-timestamp"] == "20260102083405"  # 03:04:05 UTC, in IST
    assert re.fullmatch(r"[A-Za-z0-9]{10,35}", sent.headers["bd-traceid"])
    assert jwt.get_unverified_header(sent.content) == {"alg": "HS256", "clientid": CLIENT}
    assert opened(sent) == {
        "mercid": MERCHANT,
        "orderid": REFERENCE,
        "amount": "499.00",
        "order_date": "2026-01-02T08:34:05+05:30",
        "currency": "356",
        "ru": a_session().return_url,
        "itemcode": "DIRECT",
        "additional_info": {"additional_info1": "pay_1"},
        "device": {
            "init_channel": "internet",
            "ip": "127.0.0.1",
            "user_agent": "Mozilla/5.0 (compatible; Payrail)",
            "accept_header": "text/html",
        },
    }
    assert (session.gateway_reference, session.references) == (ORDER, (ORDER,))
    assert session.next_action.to_json() == {
        "type": "form_post",
        "url": PAGE,
        "fields": {"merchantid": MERCHANT, "bdorderid": ORDER, "rdata": "opaque"},
    }
    assert session.expires_at == A_MOMENT + timedelta(minutes=30)
    assert told(session.observations) == {("session_opened", ORDER, None)}


async def test_the_symmetric_scheme_encrypts_and_then_signs_and_opens_the_answer() -> None:
    header = {"kid": KEY_ID, "clientid": CLIENT}
    content = jose.encrypt(header, json.dumps(an_order()).encode(), ENCRYPTION_KEY.encode(), bytes(12))
    symmetric = {name.removeprefix("BILLDESK_").lower(): value for name, value in ENCRYPTED.items()}
    billdesk, gateway = adapter_over(seals(content.encode(), kid="HMAC"), **symmetric)
    assert (await billdesk.create_session(a_session(), repeated=False)).gateway_reference == ORDER
    assert jwt.get_unverified_header(gateway.sent.content) == {"alg": "HS256", **header}
    inner = jwt.PyJWS().decode(gateway.sent.content, SIGNING_KEY.encode(), algorithms=["HS256"]).decode()
    sealed = jose.decrypt(inner, [ENCRYPTION_KEY.encode()])
    assert sealed.header == {"alg": "dir", "enc": "A256GCM", **header}
    assert json.loads(sealed.content)["orderid"] == REFERENCE


async def test_no_name_in_any_alphabet_keeps_a_payment_from_being_made() -> None:
    customer = Customer("ada@example.com", "قهوة 漢字 " * 50, None)
    billdesk, gateway = adapter_over(seals(an_order()))
    await billdesk.create_session(a_session(customer=customer, description="☕" * 300), repeated=False)
    assert b"ada" not in opened(gateway.sent).__repr__().encode()


@pytest.mark.parametrize(
    ("written", "pattern"), [("seconds", r"1767323045"), ("milliseconds", r"1767323045000"), ("ist", r"20260102083405")]
)
async def test_the_timestamp_is_written_as_the_merchant_is_provisioned(written: str, pattern: str) -> None:
    billdesk, gateway = adapter_over(seals(an_order()), timestamp_format=written, api_version="v1_2")
    await billdesk.create_session(a_session(), repeated=False)
    assert re.fullmatch(pattern, gateway.sent.headers["bd-timestamp"])
    assert gateway.sent.url.path == "/u2/payments/v1_2/orders/create"


@pytest.mark.parametrize(
    "answer",
    [
        seals(an_order(amount="500.00")),
        seals(an_order(currency="840")),
        seals(an_order(orderid="PR00000000000000009Z")),
        seals(an_order(mercid="SOMEBODYELSE")),
        seals(an_order(links=[])),
        seals(an_order(links=[{"rel": "redirect", "href": "javascript:alert(1)", "parameters": {}}])),
        seals(an_order(bdorderid=None)),
        seals(an_order(), key=SIGNING_KEY[::-1]),
        seals(an_order(), clientid="another"),
        seals(b"[]"),
        httpx.Response(200, json=an_order()),  # not signed
        httpx.Response(200, content=b""),
        httpx.Response(302, headers={"location": "https://elsewhere.test"}),
        httpx.Response(404, text="<html>a proxy's page</html>"),
        httpx.Response(404, json={"message": "no such page"}),  # somebody's, not BillDesk's envelope
        refuses(408),
        seals({"status": {}, "error_type": "invalid_data"}),
    ],
)
async def test_an_answer_that_is_not_our_order_proves_nothing(answer: httpx.Response) -> None:
    billdesk, gateway = adapter_over(answer)
    with pytest.raises(GatewayOutcomeUnknown):
        await billdesk.create_session(a_session(), repeated=False)
    assert len(gateway.requests) == 1  # never sent again by itself


@pytest.mark.parametrize("status", [401, 403])
async def test_refused_credentials_move_nothing(status: int) -> None:
    billdesk, gateway = adapter_over(httpx.Response(status))
    with pytest.raises(GatewayUnavailable):
        await billdesk.create_session(a_session(), repeated=False)
    assert len(gateway.requests) == 1


@pytest.mark.parametrize(
    "answer",
    [
        refuses(422, code="ORIDE0001"),
        httpx.Response(422, json={"status": 422, "error_type": "invalid_data", "error_code": "ORIDE0001"}),
        seals({"status": "422", "error_type": "invalid_data", "error_code": "ORIDE0001"}),  # an error answered with 200
    ],
)
async def test_a_refusal_carries_billdesks_code(answer: httpx.Response) -> None:
    billdesk, _ = adapter_over(answer)
    with pytest.raises(GatewayRejected) as refusal:
        await billdesk.create_session(a_session(), repeated=False)
    assert refusal.value.gateway_code == "ORIDE0001"


async def test_what_never_arrived_is_sent_again_with_a_trace_id_of_its_own() -> None:
    limited = httpx.Response(429, headers={"retry-after": "1"})
    for first in (httpx.ConnectError("down"), limited):
        billdesk, gateway = adapter_over(first, seals(an_order()))
        await billdesk.create_session(a_session(), repeated=False)
        ids = [request.headers["bd-traceid"] for request in gateway.requests]
        assert len(set(ids)) == 2
    patient, _ = adapter_over(httpx.Response(429, headers={"retry-after": "30"}))
    with pytest.raises(GatewayRateLimited):  # longer than a caller waits
        await patient.create_session(a_session(), repeated=False)


@pytest.mark.parametrize("first", [httpx.ReadTimeout("silence"), httpx.Response(502)])
async def test_an_order_that_was_not_answered_is_not_made_twice(first: Answer) -> None:
    billdesk, gateway = adapter_over(first)
    with pytest.raises(GatewayOutcomeUnknown):
        await billdesk.create_session(a_session(), repeated=False)
    assert len(gateway.requests) == 1
    again, _ = adapter_over(seals(an_order()))  # BillDesk hands out the old one, or had not had the first
    assert (await again.create_session(a_session(), repeated=True)).gateway_reference == ORDER


async def test_an_order_that_billdesk_has_had_is_adopted_if_paid_and_else_needs_a_new_attempt() -> None:
    duplicate = refuses(409, "duplicate_request_error", "TRDRE0001")
    billdesk, _ = adapter_over(duplicate, seals(a_transaction()))
    adopted = await billdesk.create_session(a_session(), repeated=True)
    assert told(adopted.observations) == {("captured", TRANSACTION, INR_499)}
    assert adopted.next_action.url == a_session().return_url
    for answer in (NOT_FOUND, seals(a_transaction("0399"))):
        lost, _ = adapter_over(duplicate, answer)
        with pytest.raises(GatewayRejected) as refusal:
            await lost.create_session(a_session(), repeated=True)
        assert refusal.value.gateway_code == "TRDRE0001"
    silent, _ = adapter_over(duplicate, httpx.ConnectError("down"))
    with pytest.raises(GatewayOutcomeUnknown):
        await silent.create_session(a_session(), repeated=True)


# --- asking --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("transaction", "kind"),
    [
        (a_transaction("0300"), FactKind.CAPTURED),
        (a_transaction("0002"), FactKind.PROCESSING),
        (a_transaction("0001"), FactKind.PROCESSING),
        (a_transaction("0399"), FactKind.DECLINED),
        (a_transaction("NA"), FactKind.DECLINED),
        (a_transaction("0398"), FactKind.DECLINED),
        (a_transaction("0301"), FactKind.PROCESSING),
        (a_transaction("success"), FactKind.PROCESSING),
        (a_transaction("0300", transaction_error_type="payment_declined"), FactKind.PROCESSING),
        (a_transaction("0300", transaction_error_type=None), FactKind.PROCESSING),
    ],
)
async def test_each_status_and_only_both_words_of_success_are_money(
    transaction: dict[str, Any], kind: FactKind
) -> None:
    billdesk, gateway = adapter_over(seals(transaction))
    snapshot = await billdesk.retrieve((), our_reference=REFERENCE)
    [observation] = snapshot.observations
    assert (observation.kind, observation.object_reference, snapshot.references) == (kind, TRANSACTION, (TRANSACTION,))
    assert observation.amount == (INR_499 if kind is FactKind.CAPTURED else None)  # the order's, not what was charged
    assert opened(gateway.sent) == {"mercid": MERCHANT, "orderid": REFERENCE, "refund_details": "true"}
    event = billdesk.translate_webhook(delivery_of(json.dumps(transaction), A_MOMENT))
    assert event.observations == snapshot.observations


async def test_codes_that_are_not_documented_follow_the_settings() -> None:
    billdesk, _ = adapter_over(seals(a_transaction("0398")), canceled_codes="", failed_codes="0399")
    snapshot = await billdesk.retrieve((), our_reference=REFERENCE)
    assert [each.kind for each in snapshot.observations] == [FactKind.PROCESSING]


@pytest.mark.parametrize(("amount", "currency"), [("498.99", "356"), ("499.00", "840"), ("4990000.00", "356")])
async def test_another_amount_or_currency_than_ours_shows_as_such(amount: str, currency: str) -> None:
    billdesk, _ = adapter_over(seals(a_transaction(amount=amount, currency=currency)))
    [observation] = (await billdesk.retrieve((), our_reference=REFERENCE)).observations
    assert observation.amount == Money.from_major(amount, "INR" if currency == "356" else "USD")


@pytest.mark.parametrize(
    "changes",
    [
        {"currency": "INR"},
        {"currency": "999"},
        {"amount": 499.0},
        {"amount": "499.001"},
        {"amount": "-499.00"},
        {"amount": "4,99"},
        {"amount": None},
        {"transactionid": None},
        {"auth_status": {"0300": True}},
        {"mercid": "SOMEBODYELSE"},
        {"orderid": "PR00000000000000009Z"},
    ],
)
async def test_a_transaction_that_is_not_understood_is_no_success(changes: dict[str, Any]) -> None:
    billdesk, _ = adapter_over(seals(a_transaction(**changes)))
    with pytest.raises(GatewayOutcomeUnknown):
        await billdesk.retrieve((), our_reference=REFERENCE)


async def test_a_question_is_asked_once_more_and_then_given_up() -> None:
    for first in (httpx.Response(200), httpx.ReadTimeout("silence"), httpx.Response(503)):
        billdesk, gateway = adapter_over(first, seals(a_transaction()))
        assert (await billdesk.retrieve((), our_reference=REFERENCE)).references == (TRANSACTION,)
        assert len(gateway.requests) == 2
    dead, gateway = adapter_over(httpx.Response(503))
    with pytest.raises(GatewayServerError):
        await dead.retrieve((), our_reference=REFERENCE)
    assert len(gateway.requests) == 2


async def test_a_success_that_billdesk_hides_behind_a_later_failure_is_found_by_its_own_id() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        asked = opened(request)
        if "orderid" in asked:
            return seals(a_transaction("0399", transactionid="X2222222222222"))
        return seals(a_transaction()) if asked["transactionid"] == TRANSACTION else NOT_FOUND

    billdesk, _ = adapter_over(answer)
    snapshot = await billdesk.retrieve((ORDER, TRANSACTION), our_reference=REFERENCE)
    assert told(snapshot.observations) == {("declined", "X2222222222222", None), ("captured", TRANSACTION, INR_499)}


async def test_a_try_that_failed_fails_nothing_while_the_order_may_bring_another() -> None:
    """0399, and then 0002 and 0300 of the next try: pending money is never called failed."""
    first, second = a_transaction("0399"), a_transaction("0002", transactionid="X2222222222222")
    billdesk, _ = adapter_over(seals(first), seals(second), seals(first), seals({**second, **PAID_WORDS}))
    opened_page = Observation(FactKind.SESSION_OPENED, ORDER)
    heard = billdesk.translate_webhook(delivery_of(json.dumps(first)))
    assert heard.must_ask
    learnt = {opened_page, *heard.observations}
    for known, status in (
        ((), PaymentStatus.REQUIRES_ACTION),
        ((TRANSACTION,), PaymentStatus.PROCESSING),
        ((TRANSACTION, "X2222222222222"), PaymentStatus.CAPTURED),
    ):
        learnt |= set((await billdesk.retrieve(known, our_reference=REFERENCE)).observations)
        facts = [Fact(each, FactSource.WEBHOOK, A_MOMENT) for each in learnt]
        assert reduce_facts(Terms(INR_499, CaptureMode.AUTOMATIC), facts).status is status


@pytest.mark.parametrize(("code", "end"), [("0399", "failed"), ("NA", "failed"), ("0398", "canceled")])
async def test_the_payment_ends_with_its_tries_when_the_order_can_bring_no_other(code: str, end: str) -> None:
    reference = fake_ports(clock=FakeClock(auto_advance=True)).ids.new_reference()
    shown = seals(a_transaction(code, orderid=reference, transactionid="X2222222222222"))
    known = {word: seals(a_transaction(word, orderid=reference)) for word in (code, "0002")}
    young, _ = adapter_over(shown, known[code])
    declined = {("declined", "X2222222222222", None), ("declined", TRANSACTION, None)}
    assert told((await young.retrieve((TRANSACTION,), our_reference=reference)).observations) == declined
    for other, observations in (
        (code, {(end, "X2222222222222", None), (end, TRANSACTION, None)}),
        ("0002", {("declined", "X2222222222222", None), ("processing", TRANSACTION, None)}),  # one still lives
    ):
        old, gateway = adapter_over(shown, known[other])
        gateway.clock.move(24 * 3600 + 1)
        assert told((await old.retrieve((TRANSACTION,), our_reference=reference)).observations) == observations


async def test_a_transaction_of_another_order_is_not_ours_whoever_names_it() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if "orderid" in opened(request):
            return seals(a_transaction("0002"))
        return seals(a_transaction(transactionid="XFOREIGN000001", orderid="PR00000000000000009Z"))

    billdesk, _ = adapter_over(answer)
    snapshot = await billdesk.retrieve(("XFOREIGN000001",), our_reference=REFERENCE)
    assert told(snapshot.observations) == {("processing", TRANSACTION, None)}


async def test_an_order_that_nobody_began_expires_after_a_day() -> None:
    clock = FakeClock(auto_advance=True)
    reference = fake_ports(clock=clock).ids.new_reference()
    billdesk, gateway = adapter_over(NOT_FOUND)
    with pytest.raises(GatewayObjectNotFound):
        await billdesk.retrieve((ORDER,), our_reference=reference)
    gateway.clock.move(24 * 3600 + 1)
    snapshot = await billdesk.retrieve((ORDER,), our_reference=reference)
    assert told(snapshot.observations) == {("expired", ORDER, None)}


async def test_closing_is_ours_alone_and_never_hides_a_try() -> None:
    billdesk, _ = adapter_over(NOT_FOUND)
    assert told((await billdesk.close_session(ORDER, our_reference=REFERENCE)).observations) == {
        ("canceled", ORDER, None)
    }
    for status, kind in (("0002", "processing"), ("0300", "captured")):
        begun, _ = adapter_over(seals(a_transaction(status)))
        snapshot = await begun.close_session(ORDER, our_reference=REFERENCE)
        assert [str(each.kind) for each in snapshot.observations] == [kind]
    declined, _ = adapter_over(seals(a_transaction("0399")))  # its page is not shown any more either
    closed = await declined.close_session(ORDER, our_reference=REFERENCE)
    assert told(closed.observations) == {("declined", TRANSACTION, None), ("canceled", ORDER, None)}
    assert closed.observations[-1].reason == "closed_by_us"


# --- refunds -------------------------------------------------------------------------------------------------------


async def test_a_refund_repeats_the_transactions_own_words() -> None:
    odd = a_transaction(transaction_date="2026-01-02T08:00:00+0530", amount="499.0")
    billdesk, gateway = adapter_over(seals(odd), seals(a_refund()))
    outcome = await billdesk.refund(a_refund_call(TRANSACTION))
    asked, sent = (opened(request) for request in gateway.requests)
    assert asked == {"mercid": MERCHANT, "transactionid": TRANSACTION, "refund_details": "true"}
    assert gateway.sent.url.path == "/u2/payments/ve1_2/refunds/create"
    assert sent == {
        "mercid": MERCHANT,
        "orderid": REFERENCE,
        "transactionid": TRANSACTION,
        "transaction_date": "2026-01-02T08:00:00+0530",
        "txn_amount": "499.0",
        "refund_amount": "100.00",
        "currency": "356",
        "merc_refund_ref_no": OPERATION,
    }
    assert (outcome.status, outcome.gateway_reference) == (OutcomeStatus.PENDING, REFUND)
    [observation] = outcome.observations
    assert (observation.about, observation.operation, observation.amount) == (TRANSACTION, OPERATION, INR_100)


@pytest.mark.parametrize(
    ("code", "days", "hours_wanted", "status"),
    [
        ("0799", 0, 24, OutcomeStatus.PENDING),
        ("0699", 0, 24, OutcomeStatus.PENDING),
        ("0799", 2, 24, OutcomeStatus.SUCCEEDED),
        ("0699", 2, 24, OutcomeStatus.SUCCEEDED),
        ("0799", 0, 0, OutcomeStatus.SUCCEEDED),
        ("0600", 9, 24, OutcomeStatus.PENDING),
        ("0600", 9, 0, OutcomeStatus.PENDING),
        ("failed", 9, 0, OutcomeStatus.PENDING),
    ],
)
async def test_an_accepted_refund_is_done_when_it_is_old_enough(
    code: str, days: int, hours_wanted: int, status: OutcomeStatus
) -> None:
    billdesk, gateway = adapter_over(seals(a_refund(code)), refund_final_after_hours=hours_wanted)
    gateway.clock.move(days * 86_400)
    found = await billdesk.find_operation(a_refund_call(TRANSACTION))
    assert found is not None
    assert found.status is status
    assert opened(gateway.sent) == {"mercid": MERCHANT, "merc_refund_ref_no": OPERATION}


async def test_a_refund_has_failed_only_by_a_code_that_the_settings_name() -> None:
    billdesk, _ = adapter_over(seals(a_refund("0798")), refund_failed_codes="0798, 0797", refund_final_after_hours=0)
    found = await billdesk.find_operation(a_refund_call(TRANSACTION))
    assert found is not None
    assert (found.status, found.failure_code) == (OutcomeStatus.FAILED, "0798")
    assert [each.kind for each in found.observations] == [FactKind.REFUND_FAILED]
    event = billdesk.translate_webhook(delivery_of(json.dumps(a_refund("0798"))))
    assert event.observations == found.observations


async def test_only_a_404_of_billdesks_own_says_that_there_is_no_refund() -> None:
    absent, gateway = adapter_over(NOT_FOUND, seals(a_transaction()))
    assert await absent.find_operation(a_refund_call(TRANSACTION)) is None
    assert opened(gateway.sent)["transactionid"] == TRANSACTION
    for answer in (refuses(422), httpx.Response(404, text="not here"), httpx.Response(200), httpx.Response(500)):
        billdesk, _ = adapter_over(answer)
        with pytest.raises(GatewayOutcomeUnknown):
            await billdesk.find_operation(a_refund_call(TRANSACTION))
    assert await absent.find_operation(a_refund_call(TRANSACTION, kind=OperationKind.VOID)) is None


async def test_no_refund_proves_nothing_where_its_payment_is_not_known_either() -> None:
    for about_payment in (NOT_FOUND, refuses(422), httpx.Response(500), seals(a_transaction(mercid="SOMEBODYELSE"))):
        billdesk, _ = adapter_over(NOT_FOUND, about_payment)
        with pytest.raises(GatewayOutcomeUnknown):
            await billdesk.find_operation(a_refund_call(TRANSACTION))


async def test_a_refund_that_billdesk_has_had_is_found_and_never_refused() -> None:
    duplicate = refuses(409, "duplicate_request_error", "RFDRE0001")
    billdesk, _ = adapter_over(seals(a_transaction()), duplicate, seals(a_refund()))
    assert (await billdesk.refund(a_refund_call(TRANSACTION))).gateway_reference == REFUND
    hidden, _ = adapter_over(seals(a_transaction()), duplicate, NOT_FOUND)
    with pytest.raises(GatewayOutcomeUnknown):
        await hidden.refund(a_refund_call(TRANSACTION))
    refused, _ = adapter_over(seals(a_transaction()), refuses(422, code="RFIDE0001"))
    with pytest.raises(GatewayRejected):
        await refused.refund(a_refund_call(TRANSACTION))


@pytest.mark.parametrize(
    "answer",
    [
        seals(a_refund(merc_refund_ref_no="OP00000000000000009Z")),
        seals(a_refund(refund_amount="99.00")),
        seals(a_refund(transactionid="XFOREIGN000001")),
        seals(a_refund(mercid="SOMEBODYELSE")),
        seals(a_refund(refundid=None)),
        seals(a_refund(), key=SIGNING_KEY[::-1]),
        httpx.ReadTimeout("silence"),
        httpx.Response(500),
        httpx.Response(200),
    ],
)
async def test_a_refund_without_a_usable_answer_is_unknown_and_sent_once(answer: Answer) -> None:
    billdesk, gateway = adapter_over(seals(a_transaction()), answer)
    with pytest.raises(GatewayOutcomeUnknown):
        await billdesk.refund(a_refund_call(TRANSACTION))
    assert [request.url.path.rsplit("/", 2)[-2] for request in gateway.requests] == ["transactions", "refunds"]


async def test_a_refund_that_could_not_be_prepared_was_not_sent() -> None:
    silent, gateway = adapter_over(httpx.ReadTimeout("silence"))
    with pytest.raises(GatewayUnavailable):
        await silent.refund(a_refund_call(TRANSACTION))
    assert {request.url.path.rsplit("/", 1)[-1] for request in gateway.requests} == {"get"}
    absent, _ = adapter_over(NOT_FOUND)
    with pytest.raises(GatewayRejected):
        await absent.refund(a_refund_call(TRANSACTION))


async def test_refunds_made_in_the_dashboard_come_with_the_transaction() -> None:
    dashboard = {"refundid": "RFDASH", "refund_amount": "1.00", "refund_status": "0799", "refund_date": A_WHILE_AGO}
    listed = [a_refund(), dashboard, {"refundid": "RF?"}, "nonsense", {"refund_amount": {}}]
    billdesk, gateway = adapter_over(seals(a_transaction(refund_details=listed)))
    gateway.clock.move(2 * 86_400)
    snapshot = await billdesk.retrieve((), our_reference=REFERENCE)
    assert {(str(o.kind), o.object_reference, o.amount, o.operation) for o in snapshot.observations} == {
        ("captured", TRANSACTION, INR_499, None),
        ("refund_succeeded", REFUND, INR_100, OPERATION),
        ("refund_succeeded", "RFDASH", Money(100, "INR"), None),
    }
    other, _ = adapter_over(seals(a_transaction(refund_details={"total": "101.00"})))
    assert len((await other.retrieve((), our_reference=REFERENCE)).observations) == 1


@pytest.mark.parametrize("kind", [OperationKind.CAPTURE, OperationKind.VOID, OperationKind.COMPLETION])
async def test_what_billdesk_cannot_do_is_a_refusal(kind: OperationKind) -> None:
    billdesk, gateway = adapter_over(NOT_FOUND)
    calls = {
        OperationKind.CAPTURE: billdesk.capture,
        OperationKind.VOID: billdesk.void,
        OperationKind.COMPLETION: billdesk.complete,
    }
    with pytest.raises(GatewayRejected):
        await calls[kind](a_refund_call(TRANSACTION, kind=kind))
    with pytest.raises(GatewayRejected):
        await billdesk.list_window(A_MOMENT, EXPIRES_AT)
    assert not gateway.requests


# --- webhooks ------------------------------------------------------------------------------------------------------


def test_a_success_is_told_and_asked_about_and_nothing_that_is_needed_is_taken_out_on_its_way() -> None:
    billdesk, _ = adapter_over(NOT_FOUND)
    body = json.dumps(a_transaction(customer={"first_name": "Ada"}, device={"ip": "203.0.113.7"}))
    cleaned = redact_body("application/json", body.encode())
    assert "Ada" not in cleaned
    event = billdesk.translate_webhook(delivery_of(cleaned))
    assert (event.event_type, event.must_ask) == ("transaction.0300", True)
    assert (event.references, event.our_references) == ((TRANSACTION,), (REFERENCE, "pay_1"))
    for code, reason in (("0399", "payment_declined"), ("0398", "canceled_by_buyer")):
        declined = billdesk.translate_webhook(delivery_of(json.dumps(a_transaction(code))))
        assert declined.must_ask  # whether the payment ends with this try, the event does not know
        assert [(each.kind, each.reason) for each in declined.observations] == [(FactKind.DECLINED, reason)]
    assert not billdesk.translate_webhook(delivery_of(json.dumps(a_transaction("0002")))).must_ask


def test_an_id_that_looks_like_a_card_number_is_asked_about_by_our_reference() -> None:
    billdesk, _ = adapter_over(NOT_FOUND)
    for body in (a_transaction(transactionid="4111111111111111"), a_refund(refundid="4111111111111111")):
        cleaned = redact_body("application/json", json.dumps(body).encode())
        event = billdesk.translate_webhook(delivery_of(cleaned))
        assert (event.references, event.our_references[0], event.must_ask) == ((), REFERENCE, True)
        assert not event.observations


def test_a_refunds_webhook_counts_by_its_age() -> None:
    billdesk, _ = adapter_over(NOT_FOUND)
    for later, kind in ((0, FactKind.REFUND_PENDING), (2, FactKind.REFUND_SUCCEEDED)):
        delivery = delivery_of(json.dumps(a_refund("0699")), A_MOMENT + timedelta(days=later))
        event = billdesk.translate_webhook(delivery)
        assert (event.event_type, event.references, event.our_references) == (
            "refund.0699",
            (TRANSACTION,),
            (REFERENCE,),
        )
        assert [each.kind for each in event.observations] == [kind]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"objectid": "transaction"},
        a_transaction(mercid="SOMEBODYELSE"),
        a_transaction(mercid=None),
        a_transaction(amount="lots"),
        a_transaction(currency="999"),
        a_transaction(orderid=""),
        a_transaction(additional_info="x"),
        a_refund(refund_amount=None),
        a_refund("0799") | {"refund_status": None},
    ],
)
def test_a_webhook_that_is_not_understood_is_for_a_person(body: dict[str, Any]) -> None:
    billdesk, _ = adapter_over(NOT_FOUND)
    with pytest.raises(UnreadableWebhook):
        billdesk.translate_webhook(delivery_of(json.dumps(body)))


def test_other_objects_are_of_no_interest() -> None:
    billdesk, _ = adapter_over(NOT_FOUND)
    assert billdesk.translate_webhook(delivery_of('{"objectid":"mandate"}')).ignored


@given(
    json_around(
        sorted({*a_transaction(), *a_refund()}),
        ["transaction", "refund", "0300", "success", "356", "499.00", MERCHANT, REFERENCE, TRANSACTION, A_WHILE_AGO],
    )
)
def test_any_body_gives_an_event_or_is_unreadable_and_money_only_where_it_says_so(payload: str) -> None:
    billdesk, _ = adapter_over(NOT_FOUND)
    try:
        event = billdesk.translate_webhook(delivery_of(payload, A_MOMENT))
    except UnreadableWebhook:
        return
    if any(observation.kind is FactKind.CAPTURED for observation in event.observations):
        body = json.loads(payload)
        assert (body["auth_status"], body["transaction_error_type"], body["mercid"]) == ("0300", "success", MERCHANT)


def test_the_definition_builds_from_the_variables() -> None:
    assert DEFINITION.required == tuple(SIGNED)
    assert "BILLDESK_REFUND_FINAL_AFTER_HOURS" in DEFINITION.variables
