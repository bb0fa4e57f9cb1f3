"""The CCAvenue adapter, against the fact sheet (gateways/ccavenue.md): what goes out, and what each answer means."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError
from structlog.testing import capture_logs

from services.payment_service.domain.errors import CapabilityNotSupported, CurrencyNotSupported
from services.payment_service.domain.models import (
    CaptureMode,
    Customer,
    Fact,
    FactSource,
    PaymentState,
    PaymentStatus,
    Terms,
)
from services.payment_service.domain.operations import OperationKind
from services.payment_service.domain.transitions import reduce_facts
from services.payment_service.gateways.ccavenue import DEFINITION, CCAvenue
from services.payment_service.gateways.ccavenue.reading import to_ccavenue
from services.payment_service.gateways.definition import Tools
from services.payment_service.gateways.port import Capability, Delivery, OutcomeStatus, UnreadableWebhook
from shared.ccavenue_cipher import CCAvenueCipher
from shared.errors import (
    GatewayObjectNotFound,
    GatewayOutcomeUnknown,
    GatewayRejected,
    GatewayServerError,
    GatewayUnavailable,
)
from shared.money import Money
from tests.support.adapter_calls import OPERATION
from tests.support.ccavenue import (
    API_ACCESS_CODE,
    API_WORKING_KEY,
    INR_100,
    INR_499,
    MERCHANT_ID,
    WORKING_KEY,
    a_money_call,
    some_settings,
)
from tests.support.clock import A_MOMENT, fake_ports
from tests.unit.payment_service.gateway_world import Answer, ScriptedGateway, a_request, told

REFERENCE = "PR00000000000000001A"
TRACKING = "313000000001"
INR_399 = INR_499 - INR_100
API_CIPHER = CCAvenueCipher(API_WORKING_KEY)
REQUEST = a_request(amount=INR_499, customer=Customer("ada@example.com", "Ada", "+91 90000-90000"))


def adapter_over(*answers: Answer, by_hand: bool = True, **changes: Any) -> tuple[CCAvenue, ScriptedGateway]:
    gateway = ScriptedGateway(list(answers))
    tools = Tools(gateway.caller(), fake_ports(clock=gateway.clock), "https://pay.example/hook", is_production=True)
    settings = some_settings(
        manual_capture=by_hand, api_base="https://api.test/", checkout_base="https://page.test/", **changes
    )
    return CCAvenue(settings, tools), gateway


def says(body: dict[str, Any], *, wrapped: str | None = None) -> httpx.Response:
    text = json.dumps({wrapped: body} if wrapped else body, default=str)
    return plain(f" status=0&enc_response={API_CIPHER.encrypt(text, fake_ports().randomness)}\r\n")


def refuses(code: str) -> httpx.Response:
    return plain(f"status=1&enc_response=Something = wrong & so on&enc_error_code={code}\r\n")


def plain(text: str, status: int = 200) -> httpx.Response:
    return httpx.Response(status, content=text.encode())


def an_order(status: str = "Shipped", **changes: Any) -> dict[str, Any]:
    order = {
        "status": 0,
        "reference_no": TRACKING,
        "order_no": REFERENCE,
        "order_currncy": "INR",
        "order_amt": 499.00,
        "order_gross_amt": 499.00,
        "order_capt_amt": 499.00,
        "order_status": status,
        "order_status_date_time": "2025-01-01 12:03:10.123",
        "order_date_time": "2025-01-01 12:00:00.0",
        "param_value1": "pay_1",
        "param_value2": "manual",
        "error_desc": "",
        "error_code": "",
    }
    return order | changes


def a_list(*orders: dict[str, Any], pages: int = 1) -> httpx.Response:
    return says({"order_Status_List": list(orders), "page_count": pages, "total_records": len(orders)})


def a_refund(status: str = "TS-REFC", **changes: Any) -> dict[str, Any]:
    refund = {
        "refund_amt": "100.00",
        "refund_issue_date": "2025-01-02 10:00:00.0",
        "refund_mer_ref_no": OPERATION,
        "refund_status": status,
    }
    return refund | changes


def refunds(*rows: dict[str, Any]) -> httpx.Response:
    return says({"refund_list": rows[0] if len(rows) == 1 else list(rows)})


def asked(gateway: ScriptedGateway, position: int = -1) -> tuple[str, str, dict[str, Any]]:
    """Command, version and the decrypted payload of a call."""
    form = dict(httpx.QueryParams(gateway.requests[position].content.decode()).multi_items())
    assert (form["access_code"], form["request_type"], form["response_type"]) == (API_ACCESS_CODE, "JSON", "JSON")
    assert len(form) == 6
    return form["command"], form["version"], json.loads(API_CIPHER.decrypt(form["enc_request"]))


def a_call(kind: OperationKind = OperationKind.REFUND, amount: Money = INR_100, **changes: Any) -> Any:
    return a_money_call(kind, TRACKING, REFERENCE, amount, **changes)


A_CAPTURE = a_call(OperationKind.CAPTURE, INR_499)
DONE = says({"success_count": 1, "failed_List": []})


A_HELD_ORDER = says(an_order("Successful"))


def not_done(code: str) -> httpx.Response:
    row = {"reference_no": int(TRACKING), "reason": "no", "error_code": code}
    return says({"success_count": 0, "failed_List": row})


# --- what it can do ------------------------------------------------------------------------------------------------


def test_an_account_that_confirms_by_itself_holds_nothing() -> None:
    by_hand, _ = adapter_over(plain(""))
    by_hand.check(INR_499, CaptureMode.MANUAL)
    by_itself, _ = adapter_over(plain(""), by_hand=False)
    with pytest.raises(CapabilityNotSupported):
        by_itself.check(INR_499, CaptureMode.MANUAL)
    by_itself.check(INR_499, CaptureMode.AUTOMATIC)
    assert by_hand.facts.capabilities - by_itself.facts.capabilities == {
        Capability.MANUAL_CAPTURE,
        Capability.PARTIAL_CAPTURE,
    }
    for facts in (by_hand.facts, by_itself.facts):
        assert facts.capabilities.isdisjoint(facts.not_offered)
        assert facts.capabilities | set(facts.not_offered) == set(Capability)


@pytest.mark.parametrize(
    ("amount", "text"), [(INR_499, "499.00"), (Money(1, "AED"), "0.01"), (Money(10**12 - 1, "INR"), "9999999999.99")]
)
def test_amounts_are_written_with_two_digits(amount: Money, text: str) -> None:
    assert to_ccavenue(amount) == text


@pytest.mark.parametrize("amount", [Money(1000, "KWD"), Money(5, "JPY"), Money(10**12, "INR"), Money(0, "INR")])
def test_what_cannot_be_written_is_refused_before_any_call(amount: Money) -> None:
    ccavenue, gateway = adapter_over(plain(""))
    with pytest.raises(CurrencyNotSupported):
        ccavenue.check(amount, CaptureMode.AUTOMATIC)
    with pytest.raises(CurrencyNotSupported):
        ccavenue.check_operation(OperationKind.REFUND, amount)
    assert gateway.requests == []


def test_settings_that_cannot_be_used_are_refused_without_saying_them() -> None:
    tools = Tools(ScriptedGateway().caller(), fake_ports(), "", is_production=True)
    with pytest.raises(ValueError, match="32 characters") as problem:
        DEFINITION.build(some_settings(encryption="GCM", working_key=SecretStr("short-key")), tools)
    assert "short-key" not in str(problem.value)
    with pytest.raises(ValidationError):
        some_settings(merchant_id="M-1")
    assert DEFINITION.required == ("CCAVENUE_MERCHANT_ID", "CCAVENUE_ACCESS_CODE", "CCAVENUE_WORKING_KEY")
    assert "CCAVENUE_CHECKOUT_BASE" in DEFINITION.variables


# --- sessions ------------------------------------------------------------------------------------------------------


async def opened_text(**changes: Any) -> str:
    ccavenue, gateway = adapter_over(plain(""))
    session = await ccavenue.create_session(replace(REQUEST, **changes), repeated=False)
    assert gateway.requests == []
    return CCAvenueCipher(WORKING_KEY).decrypt(session.next_action.fields["encRequest"])


async def test_a_session_is_a_form_that_the_browser_posts() -> None:
    ccavenue, _ = adapter_over(plain(""))
    first = await ccavenue.create_session(REQUEST, repeated=False)
    again = await ccavenue.create_session(REQUEST, repeated=True)
    assert first == again
    action = first.next_action
    assert (action.type, set(action.fields)) == ("form_post", {"encRequest", "access_code"})
    assert action.url == "https://page.test/transaction/transaction.do?command=initiateTransaction"
    assert (first.gateway_reference, first.references) == (REFERENCE, (REFERENCE,))
    assert first.expires_at == REQUEST.expires_at
    assert await opened_text() == (
        f"merchant_id={MERCHANT_ID}&order_id={REFERENCE}&currency=INR&amount=499.00"
        "&redirect_url=https://pay.example/api/v1/payments/pay_1/return"
        "&cancel_url=https://pay.example/api/v1/payments/pay_1/return&language=EN"
        "&billing_name=Ada&billing_tel=+919000090000&billing_email=ada@example.com"
        "&merchant_param1=pay_1&merchant_param2=automatic&merchant_param3=ord_1"
    )


async def test_with_gcm_two_forms_differ_and_open_alike() -> None:
    ccavenue, _ = adapter_over(plain(""), encryption="gcm")
    sealed = [
        (await ccavenue.create_session(REQUEST, repeated=False)).next_action.fields["encRequest"] for _ in range(2)
    ]
    assert sealed[0] != sealed[1]
    assert {CCAvenueCipher(WORKING_KEY, "gcm").decrypt(each) for each in sealed} == {await opened_text()}


async def test_the_newest_key_writes_while_keys_are_replaced() -> None:
    ccavenue, _ = adapter_over(plain(""), working_key=SecretStr(f"{WORKING_KEY}, {API_WORKING_KEY}"))
    session = await ccavenue.create_session(REQUEST, repeated=False)
    assert CCAvenueCipher(WORKING_KEY).decrypt(session.next_action.fields["encRequest"]).startswith("merchant_id=")


@pytest.mark.parametrize(
    ("customer", "shown"),
    [
        (Customer("a@b.example", "X&amount=1.00", None), "&billing_name=X amount 1.00&billing_email=a@b.example&m"),
        (Customer("a@b.example", "José <Ñandú>", None), "&billing_name=Jose Nandu&billing_email"),
        (Customer("a@b.example", "علياء", "123"), "&language=EN&billing_email=a@b.example&merchant_param1"),
        (Customer("o'neil@b.example", "A" * 300, None), f"&billing_name={'A' * 60}&merchant_param1"),
        (Customer("josé@b.example", "null=1\r\n&x", "+971 (50) 000-0001"), "&billing_name=null 1 x&billing_tel=+97150"),
    ],
)
async def test_what_shoppers_type_injects_no_field_and_fails_no_payment(customer: Customer, shown: str) -> None:
    text = await opened_text(customer=customer)
    assert shown in text
    assert text.count("&amount=") == 1
    assert text.isascii()


async def test_a_return_address_that_is_too_long_is_refused_and_one_hundred_characters_are_not() -> None:
    path = "https://pay.example/" + "a" * 80
    assert f"redirect_url={path}&" in await opened_text(return_url=f"{path}?from=page")
    with pytest.raises(GatewayRejected) as refused:
        await opened_text(return_url=f"{path}b")
    assert refused.value.gateway_code == "return_url_too_long"


# --- what it says of a payment ---------------------------------------------------------------------------------------


async def test_an_order_is_asked_about_by_our_number_and_then_by_its_own() -> None:
    ccavenue, gateway = adapter_over(says(an_order("Initiated")), a_list(an_order("Initiated")))
    snapshot = await ccavenue.retrieve((REFERENCE,), our_reference=REFERENCE)
    assert snapshot.references == (REFERENCE, TRACKING)
    assert asked(gateway, 0) == ("orderStatusTracker", "1.2", {"order_no": REFERENCE})
    command, version, payload = asked(gateway, 1)
    assert (command, version) == ("orderLookup", "1.2")
    assert payload == {
        "from_date": f"{A_MOMENT - timedelta(days=181):%d-%m-%Y}",
        "to_date": f"{A_MOMENT + timedelta(days=1):%d-%m-%Y}",
        "order_no": REFERENCE,
        "page_number": 1,
    }
    assert str(gateway.requests[0].url) == "https://api.test/apis/servlet/DoWebTrans"
    assert gateway.requests[0].headers["content-type"] == "application/x-www-form-urlencoded"

    ccavenue, gateway = adapter_over(says(an_order("Awaited")), refuses("51419"))
    await ccavenue.retrieve((REFERENCE, TRACKING), our_reference=REFERENCE)
    assert asked(gateway, 0) == ("orderStatusTracker", "1.2", {"reference_no": TRACKING})


NOW_HELD = ("authorized", TRACKING, INR_499)
TAKEN = ("captured", TRACKING, INR_499)
GONE = ("released", TRACKING, None)


@pytest.mark.parametrize(
    ("order", "facts"),
    [
        (an_order("Initiated"), {("session_opened", REFERENCE, None)}),
        (an_order("Awaited"), {("processing", TRACKING, None)}),
        (an_order("Successful"), {NOW_HELD}),
        (an_order("Success"), {NOW_HELD}),
        (an_order("Successful", param_value2="automatic"), {NOW_HELD, ("approved", TRACKING, INR_499)}),
        (an_order("Successful", param_value2=7), {NOW_HELD}),
        (an_order(), {TAKEN}),
        (an_order(order_capt_amt=399), {("captured", TRACKING, INR_399), ("released", TRACKING, None)}),
        (an_order(order_capt_amt="399.00"), {("captured", TRACKING, INR_399), ("released", TRACKING, None)}),
        (an_order(order_gross_amt=508.98, order_capt_amt=508.98), {TAKEN}),
        (an_order(order_capt_amt=599), {("captured", TRACKING, Money(59_900, "INR"))}),
        (an_order(order_capt_amt=0), {("processing", TRACKING, None)}),
        (an_order(order_capt_amt=None), {TAKEN}),
        (an_order(order_currncy="AED"), {("captured", TRACKING, Money(49_900, "AED"))}),
        (an_order(reference_no=int(TRACKING)), {TAKEN}),
        (an_order("Unsuccessful"), {("failed", REFERENCE, None), GONE}),
        (an_order("Failure"), {("failed", REFERENCE, None), GONE}),
        (an_order("Invalid"), {("failed", REFERENCE, None), GONE}),
        (an_order("Fraud"), {("failed", REFERENCE, None), GONE}),
        (an_order("Aborted"), {("canceled", REFERENCE, None)}),
        (an_order("Cancelled"), {("canceled", TRACKING, None)}),
        (an_order("Auto-Cancelled"), {("canceled", TRACKING, None)}),
        (an_order("Timeout"), {("expired", REFERENCE, None)}),
        (an_order("Auto-Reversed"), {("capture_reversed", TRACKING, INR_499), ("failed", TRACKING, None), GONE}),
        (an_order("Refunded"), {TAKEN}),
        (an_order("Refunded", order_capt_amt=0), {TAKEN}),
        (an_order("System refund"), {TAKEN, ("capture_reversed", TRACKING, INR_499)}),
        (an_order("Chargeback"), {TAKEN, ("dispute_opened", f"{TRACKING}-chargeback", INR_499)}),
        (an_order("Paid in full"), {("processing", TRACKING, None)}),
        (an_order("SHIPPED "), {TAKEN}),
    ],
)
async def test_every_status_is_told_as_the_table_says(order: dict[str, Any], facts: set[Any]) -> None:
    ccavenue, _ = adapter_over(says(order, wrapped="Order_Status_Result"), a_list(order), refuses("51419"))
    snapshot = await ccavenue.retrieve((), our_reference=REFERENCE)
    assert set(told(snapshot.observations)) == facts


async def test_beside_a_try_that_is_alive_another_has_only_been_declined() -> None:
    failed, second = an_order("Failure"), "313000000002"
    waiting = an_order("Awaited", reference_no=second)
    ccavenue, gateway = adapter_over(says(failed), a_list(failed, waiting), says(waiting))
    snapshot = await ccavenue.retrieve((), our_reference=REFERENCE)
    assert told(snapshot.observations) == {("declined", TRACKING, None), GONE, ("processing", second, None)}
    assert snapshot.references == (REFERENCE, TRACKING, second)
    assert asked(gateway)[2] == {"reference_no": second}

    voided = an_order("Cancelled")
    ccavenue, gateway = adapter_over(says(voided), a_list(voided, waiting), says(waiting))
    snapshot = await ccavenue.retrieve((), our_reference=REFERENCE)
    assert told(snapshot.observations) == {GONE, ("processing", second, None)}


async def test_a_number_that_was_paid_twice_shows_both() -> None:
    second = an_order(reference_no="313000000002")
    answers = (says(an_order()), a_list(an_order(), pages=2), a_list(second, pages=2), says(second), refuses("51419"))
    ccavenue, gateway = adapter_over(*answers)
    snapshot = await ccavenue.retrieve((), our_reference=REFERENCE)
    assert told(snapshot.observations) == {TAKEN, ("captured", "313000000002", INR_499)}
    assert [asked(gateway, position)[2].get("page_number") for position in (1, 2)] == [1, 2]


async def test_money_that_is_held_after_the_end_is_seen_as_held() -> None:
    """Held money shows although the page had ended; the core decides whether it is taken."""
    timeout, late = an_order("Timeout"), an_order("Successful", param_value2="automatic")
    ccavenue, _ = adapter_over(says(timeout), a_list(timeout))
    before = await ccavenue.retrieve((REFERENCE,), our_reference=REFERENCE)
    ccavenue, _ = adapter_over(says(late), a_list(late))
    after = await ccavenue.retrieve(before.references, our_reference=REFERENCE)
    assert NOW_HELD in told(after.observations)


async def seen_one_after_another(*words: str, capture: CaptureMode) -> PaymentState:
    facts: list[Fact] = []
    for word in words:
        order = an_order(word, order_capt_amt=499 if word == "Shipped" else 0)
        ccavenue, _ = adapter_over(says(order), a_list(order), refuses("51419"))
        snapshot = await ccavenue.retrieve((TRACKING,), our_reference=REFERENCE)
        facts += [Fact(each, FactSource.SWEEP, A_MOMENT) for each in snapshot.observations]
    return reduce_facts(Terms(INR_499, capture), facts)


@pytest.mark.parametrize("capture", list(CaptureMode))
@pytest.mark.parametrize("end", ["Auto-Reversed", "Fraud", "Invalid", "Unsuccessful", "Failure", "Auto-Cancelled"])
async def test_a_hold_that_ccavenue_ended_holds_nothing_any_more(end: str, capture: CaptureMode) -> None:
    held = await seen_one_after_another("Successful", capture=capture)
    assert (held.status, held.amount_authorized) == (PaymentStatus.AUTHORIZED, 49_900)
    ended = await seen_one_after_another("Successful", end, capture=capture)
    assert (ended.amount_authorized, ended.amount_captured, ended.conflict) == (0, 0, None)
    assert ended.status in (PaymentStatus.FAILED, PaymentStatus.CANCELED)
    never_held = await seen_one_after_another(end, capture=capture)
    assert never_held.status is ended.status


async def test_captured_money_that_went_back_leaves_nothing_held() -> None:
    state = await seen_one_after_another("Successful", "Shipped", "Auto-Reversed", capture=CaptureMode.AUTOMATIC)
    assert (state.status, state.amount_authorized, state.amount_captured) == (PaymentStatus.FAILED, 0, 0)
    assert state.failure_code == "capture_reversed"


@pytest.mark.parametrize("end", ["Timeout", "Aborted"])
async def test_the_end_of_the_page_does_not_hide_the_banks_late_yes(end: str) -> None:
    state = await seen_one_after_another(end, "Successful", capture=CaptureMode.MANUAL)
    assert (state.status, state.amount_authorized) == (PaymentStatus.AUTHORIZED, 49_900)


@pytest.mark.parametrize(
    ("trouble", "code"),
    [
        (refuses("51407"), "gateway_unavailable"),
        (refuses("51410"), "51410"),
        (refuses("51303"), "51303"),
        (refuses("51420"), "gateway_outcome_unknown"),
        (plain("", 503), "gateway_outcome_unknown"),
        (httpx.ReadTimeout("slow"), "gateway_outcome_unknown"),
        (plain("<html>"), "gateway_outcome_unknown"),
        (says({"order_Status_List": 7, "refund_list": 7}), "not_understood"),
    ],
)
async def test_what_cannot_be_looked_up_beside_it_withholds_no_captured_money(trouble: Answer, code: str) -> None:
    def after(*answers: httpx.Response) -> CCAvenue:
        """The trouble is repeated, since a question may be asked again; then it is over."""
        left = list(answers)

        def answer(request: httpx.Request) -> httpx.Response:
            if left:
                return left.pop(0)
            if isinstance(trouble, Exception):
                raise trouble
            assert isinstance(trouble, httpx.Response)
            return trouble

        return adapter_over(answer)[0]

    async def seen(ccavenue: CCAvenue) -> tuple[set[Any], list[tuple[str, str]]]:
        with capture_logs() as logs:
            snapshot = await ccavenue.retrieve((TRACKING,), our_reference=REFERENCE)
        mine = [(entry["event"], entry["code"]) for entry in logs if entry["event"].startswith("ccavenue")]
        assert all(set(entry) == {"event", "code", "log_level"} for entry in logs if entry["event"].startswith("ccav"))
        return set(told(snapshot.observations)), mine

    not_listed, no_refunds = ("ccavenue_tries_not_listed", code), ("ccavenue_refunds_not_listed", code)
    taken = says(an_order())
    assert await seen(after(taken)) == ({TAKEN}, [not_listed, no_refunds])
    assert await seen(after(taken, a_list(an_order()))) == ({TAKEN}, [no_refunds])
    # Money that went back by itself is only told where no refund explains it.
    assert await seen(after(says(an_order("System refund")), a_list())) == ({TAKEN}, [no_refunds])
    # Another try may be alive: this one has not ended the payment.
    assert await seen(after(says(an_order("Timeout")))) == ({("declined", TRACKING, None)}, [not_listed])
    with pytest.raises((GatewayOutcomeUnknown, GatewayUnavailable)):
        await after().find_operation(a_call())


async def test_another_ones_order_is_not_taken_for_ours() -> None:
    stranger = an_order(order_no="PR0000000000000OTHER")
    ccavenue, _ = adapter_over(says(stranger))
    with pytest.raises(GatewayObjectNotFound):
        await ccavenue.retrieve((TRACKING,), our_reference=REFERENCE)


async def test_refunds_are_told_with_our_references_where_they_have_them() -> None:
    in_panel = {"refund_mer_ref_no": None}
    rows = (
        a_refund(),
        a_refund("TS-REFA", refund_mer_ref_no="OP00000000000000002B"),
        a_refund("TS-REFF", refund_mer_ref_no="theirs1", refund_amt=50),
        a_refund("TS-REFD", **in_panel),
        a_refund("TS-WHAT", **in_panel),
    )
    ccavenue, gateway = adapter_over(says(an_order("Refunded")), a_list(an_order()), refunds(*rows))
    snapshot = await ccavenue.retrieve((TRACKING,), our_reference=REFERENCE)
    assert asked(gateway) == ("getRefundDetails", "1.1", {"reference_no": TRACKING})
    name = f"{TRACKING}-refund-20250102100000-10000"
    assert [(str(o.kind), o.object_reference, o.operation, o.reason) for o in snapshot.observations[1:]] == [
        ("refund_succeeded", OPERATION, OPERATION, None),
        ("refund_pending", "OP00000000000000002B", "OP00000000000000002B", None),
        ("refund_failed", "theirs1", None, "refund_failed"),
        ("refund_failed", name, None, "refund_declined"),
        ("refund_pending", f"{name}-2", None, None),
    ]
    assert {o.about for o in snapshot.observations[1:]} == {TRACKING}
    assert snapshot.observations[3].amount == Money(5_000, "INR")
    assert snapshot.observations[0].occurred_at == datetime(2025, 1, 1, 6, 33, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    "answer",
    [
        plain(""),
        plain("<html>Please wait</html>"),
        plain("status=0&enc_response=00"),
        plain("status=0"),
        plain("status=2&enc_response=00"),
        plain("status=1&enc_response=Error&enc_error_code="),
        refuses("51420"),
        plain("status=0&status=0&enc_response=00"),
        plain('{"status":"0","enc_response":"00"}'),
        plain("moved", 302),
        plain("no", 404),
        says({"status": 0}),
        says({"status": 1, "error_code": ""}),
        says(an_order(order_status=None)),
        says(an_order(order_amt=Decimal("499.001"))),
        says(an_order(order_amt=True)),
        says(an_order(order_currncy=356)),
        says(an_order(order_currncy="XXX")),
        says(an_order(order_no=["x"])),
        says(an_order(reference_no=None)),
        says(an_order(order_amt=10**30)),
    ],
)
async def test_what_is_not_understood_says_nothing(answer: httpx.Response) -> None:
    ccavenue, _ = adapter_over(answer, a_list())
    with pytest.raises(GatewayOutcomeUnknown):
        await ccavenue.retrieve((), our_reference=REFERENCE)


@pytest.mark.parametrize("code", ["51407", "51408", "-1"])
async def test_keys_that_are_refused_fail_no_payment(code: str) -> None:
    for answer in (refuses(code), plain("", 403)):
        ccavenue, _ = adapter_over(answer)
        with pytest.raises(GatewayUnavailable):
            await ccavenue.retrieve((), our_reference=REFERENCE)


@pytest.mark.parametrize("answer", [refuses("51313"), says({"status": 1, "error_code": 51419}), refuses("51308")])
async def test_an_order_that_nobody_has_opened_is_not_found(answer: httpx.Response) -> None:
    ccavenue, _ = adapter_over(answer)
    with pytest.raises(GatewayObjectNotFound):
        await ccavenue.retrieve((), our_reference=REFERENCE)


async def test_json_around_an_answer_is_understood_too() -> None:
    sealed = API_CIPHER.encrypt(json.dumps(an_order("Awaited")), fake_ports().randomness)
    ccavenue, _ = adapter_over(plain(json.dumps({"status": 0, "enc_response": sealed.upper()})), a_list())
    assert (await ccavenue.retrieve((), our_reference=REFERENCE)).observations


# --- closing and listing ---------------------------------------------------------------------------------------------


async def test_closing_is_our_own_decision_and_never_hides_money() -> None:
    ccavenue, _ = adapter_over(refuses("51313"))
    closed = await ccavenue.close_session(REFERENCE, our_reference=REFERENCE)
    assert told(closed.observations) == {("canceled", REFERENCE, None)}
    for status, facts in (
        ("Initiated", {("session_opened", REFERENCE, None), ("canceled", REFERENCE, None)}),
        ("Awaited", {("processing", TRACKING, None)}),
        ("Successful", {NOW_HELD}),
        ("Failure", {("failed", REFERENCE, None), GONE}),
    ):
        ccavenue, _ = adapter_over(says(an_order(status)), a_list())
        closed = await ccavenue.close_session(REFERENCE, our_reference=REFERENCE)
        assert set(told(closed.observations)) == facts
    opened = an_order("Initiated", reference_no="313000000002")
    ccavenue, _ = adapter_over(says(an_order("Failure")), a_list(opened), says(opened))
    closed = await ccavenue.close_session(REFERENCE, our_reference=REFERENCE)
    assert ("canceled", REFERENCE, None) in told(closed.observations)


async def test_a_window_is_listed_by_days_and_cut_by_time() -> None:
    since = datetime(2025, 1, 1, 6, 0, tzinfo=UTC)
    inside = an_order()  # at noon in India
    early = an_order(reference_no="1", order_date_time="2025-01-01 11:29:58.0")
    late = an_order(reference_no="2", order_date_time="2025-01-01 13:30:00.0")
    timeless = an_order(reference_no="3", order_date_time="yesterday", order_currncy="??")
    ccavenue, gateway = adapter_over(
        a_list(inside, early, late, timeless, {"order_no": 7}, pages=2), a_list(inside, pages=2)
    )
    page = await ccavenue.list_window(since, since + timedelta(hours=2))
    assert [entry.references for entry in page.entries] == [(TRACKING,), ("3",)]
    assert page.entries[0].our_references == (REFERENCE, "pay_1")
    assert told(page.entries[0].observations) == {TAKEN}
    assert page.entries[0].created_at == datetime(2025, 1, 1, 6, 30, tzinfo=UTC)
    assert page.entries[1].observations == ()
    assert asked(gateway)[2] == {"from_date": "31-12-2024", "to_date": "02-01-2025", "page_number": 1}
    assert page.next_cursor == "2:5"
    assert (await ccavenue.list_window(since, since + timedelta(hours=2), cursor="2:5")).next_cursor is None
    for strange in ("2", "0:0", "two:5", "2:5:1", "-1:5", "²:5"):
        with pytest.raises(GatewayRejected):
            await ccavenue.list_window(since, since, cursor=strange)
    ccavenue, _ = adapter_over(refuses("51419"))
    assert (await ccavenue.list_window(since, since)).entries == ()


def a_page(*orders: dict[str, Any], **counts: Any) -> httpx.Response:
    return says({"order_Status_List": list(orders), **counts})


SECOND = "313000000002"


async def test_where_pages_are_not_counted_the_number_of_rows_says_whether_there_are_more() -> None:
    failed, taken = an_order("Failure"), an_order(reference_no=SECOND)
    ccavenue, gateway = adapter_over(
        says(failed), a_page(failed, total_records=2), a_page(taken, total_records="2"), says(taken), refuses("51419")
    )
    snapshot = await ccavenue.retrieve((), our_reference=REFERENCE)
    assert ("captured", SECOND, INR_499) in told(snapshot.observations)
    assert [asked(gateway, position)[2].get("page_number") for position in (1, 2)] == [1, 2]

    window = (datetime(2025, 1, 1, tzinfo=UTC), datetime(2025, 1, 2, tzinfo=UTC))
    ccavenue, _ = adapter_over(a_page(failed, total_records=2), a_page(taken, total_records=2))
    first = await ccavenue.list_window(*window)
    assert first.next_cursor == "2:1"
    last = await ccavenue.list_window(*window, cursor=first.next_cursor)
    assert ([entry.references for entry in last.entries], last.next_cursor) == ([(SECOND,)], None)


@pytest.mark.parametrize(
    "pages",
    [
        (a_page(an_order("Failure"), page_count=1, total_records=2),),
        (a_page(an_order("Failure"), total_records=2), a_page(total_records=2)),
        (a_page(an_order("Failure"), page_count=2, total_records=2), refuses("51419")),
        (a_page(an_order("Failure"), page_count="many"),),
        (a_page(an_order("Failure"), total_records=-1),),
    ],
)
async def test_a_list_that_contradicts_itself_ends_no_payment_and_proves_nothing(
    pages: tuple[httpx.Response, ...],
) -> None:
    ccavenue, _ = adapter_over(says(an_order("Failure")), *pages)
    with capture_logs() as logs:
        snapshot = await ccavenue.retrieve((TRACKING,), our_reference=REFERENCE)
    assert told(snapshot.observations) == {("declined", TRACKING, None), GONE}
    assert [(entry["event"], entry["code"]) for entry in logs if "code" in entry] == [
        ("ccavenue_tries_not_listed", "not_understood")
    ]
    ccavenue, _ = adapter_over(*pages)

    async def look_through() -> None:
        cursor = None
        while True:
            cursor = (await ccavenue.list_window(A_MOMENT, A_MOMENT, cursor=cursor)).next_cursor
            assert cursor is not None

    with pytest.raises(GatewayOutcomeUnknown):
        await look_through()


# --- money -----------------------------------------------------------------------------------------------------------


async def test_a_capture_confirms_the_order() -> None:
    ccavenue, gateway = adapter_over(DONE, says(an_order()))
    outcome = await ccavenue.capture(A_CAPTURE)
    assert asked(gateway, 0) == (
        "confirmOrder",
        "1.1",
        {"order_List": [{"reference_no": TRACKING, "amount": "499.00"}]},
    )
    assert (outcome.status, told(outcome.observations)) == (OutcomeStatus.SUCCEEDED, {TAKEN})
    assert asked(gateway) == ("orderStatusTracker", "1.2", {"reference_no": TRACKING})
    ccavenue, _ = adapter_over(DONE, says(an_order(order_capt_amt=399)))
    part = await ccavenue.capture(replace(A_CAPTURE, amount=INR_399, is_whole=False))
    assert (part.status, told(part.observations)) == (
        OutcomeStatus.SUCCEEDED,
        {("captured", TRACKING, INR_399), GONE},
    )


async def test_how_much_was_captured_is_what_ccavenue_says() -> None:
    ccavenue, _ = adapter_over(DONE, says(an_order(order_capt_amt=399)))
    outcome = await ccavenue.capture(A_CAPTURE)
    assert (outcome.status, outcome.failure_code) == (OutcomeStatus.FAILED, "captured_otherwise")
    assert told(outcome.observations) == {("captured", TRACKING, INR_399), GONE}


@pytest.mark.parametrize(
    "look",
    [
        A_HELD_ORDER,
        says(an_order("Awaited")),
        says(an_order(order_capt_amt=0)),
        says(an_order(order_currncy="AED")),
        says(an_order(order_no="PR0000000000000OTHER")),
        refuses("51313"),
        refuses("51407"),
        refuses("51420"),
        plain("", 503),
        plain("<html>"),
        httpx.ConnectError("refused"),
    ],
)
async def test_a_capture_that_cannot_be_seen_afterwards_is_unknown_and_not_sent_again(look: Answer) -> None:
    ccavenue, gateway = adapter_over(DONE, look)
    with pytest.raises(GatewayOutcomeUnknown):
        await ccavenue.capture(A_CAPTURE)
    commands = [asked(gateway, position)[0] for position in range(len(gateway.requests))]
    assert commands.count("confirmOrder") == 1


async def test_a_void_cancels_the_order() -> None:
    ccavenue, gateway = adapter_over(DONE)
    outcome = await ccavenue.void(a_call(OperationKind.VOID, INR_499))
    assert asked(gateway)[0] == "cancelOrder"
    assert told(outcome.observations) == {("canceled", TRACKING, None)}


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (not_done("51303"), GatewayRejected),
        (not_done("51306"), GatewayRejected),
        (not_done("51301"), GatewayOutcomeUnknown),
        (not_done("51305"), GatewayUnavailable),
        (not_done("51420"), GatewayOutcomeUnknown),
        (not_done(""), GatewayOutcomeUnknown),
        (says({"success_count": 0, "failed_List": []}), GatewayOutcomeUnknown),
        (says({"success_count": 2}), GatewayOutcomeUnknown),
        (says({"success_count": 1, "failed_List": 7}), GatewayOutcomeUnknown),
        (refuses("51304"), GatewayRejected),
        (refuses("51407"), GatewayUnavailable),
        (plain("<html>"), GatewayOutcomeUnknown),
        (plain("", 503), GatewayServerError),
        (httpx.ReadTimeout("slow"), GatewayOutcomeUnknown),
        (httpx.ConnectError("refused"), GatewayUnavailable),
    ],
)
async def test_a_capture_says_whether_money_may_have_moved(answer: Answer, error: type[Exception]) -> None:
    ccavenue, gateway = adapter_over(*((answer,) if isinstance(answer, Exception) else (answer, A_HELD_ORDER)))
    with pytest.raises(error) as raised:
        await ccavenue.capture(A_CAPTURE)
    assert type(raised.value) is error
    commands = [asked(gateway, position)[0] for position in range(len(gateway.requests))]
    assert commands.count("confirmOrder") == (3 if isinstance(answer, httpx.ConnectError) else 1)


@pytest.mark.parametrize(
    ("order", "status", "code"),
    [
        (an_order(), OutcomeStatus.SUCCEEDED, None),
        (an_order("Refunded"), OutcomeStatus.SUCCEEDED, None),
        (an_order(order_capt_amt=399), OutcomeStatus.FAILED, "captured_otherwise"),
        (an_order("Auto-Cancelled"), OutcomeStatus.FAILED, "authorization_expired"),
        (an_order("Cancelled"), OutcomeStatus.FAILED, "authorization_expired"),
    ],
)
async def test_after_done_already_a_capture_is_what_is_there(
    order: dict[str, Any], status: OutcomeStatus, code: str | None
) -> None:
    for answer in (not_done("51301"), not_done("51303")):
        ccavenue, _ = adapter_over(answer, says(order))
        outcome = await ccavenue.capture(A_CAPTURE)
        assert (outcome.status, outcome.failure_code) == (status, code)
        ccavenue, _ = adapter_over(says(order))
        found = await ccavenue.find_operation(A_CAPTURE)
        assert found is not None
        assert found.status is status


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (an_order("Cancelled"), OutcomeStatus.SUCCEEDED),
        (an_order("Auto-Cancelled"), OutcomeStatus.SUCCEEDED),
        (an_order(), OutcomeStatus.FAILED),
        (an_order("Successful"), None),
        (an_order("Awaited"), None),
    ],
)
async def test_a_void_is_looked_for(order: dict[str, Any], expected: OutcomeStatus | None) -> None:
    ccavenue, _ = adapter_over(says(order))
    found = await ccavenue.find_operation(a_call(OperationKind.VOID, INR_499))
    assert (found.status if found else None) is expected


async def test_a_refund_carries_our_reference_and_is_only_accepted() -> None:
    ccavenue, gateway = adapter_over(says({"refund_status": 0, "reason": "", "error_code": ""}))
    outcome = await ccavenue.refund(a_call())
    assert asked(gateway) == (
        "refundOrder",
        "1.1",
        {"reference_no": TRACKING, "refund_amount": "100.00", "refund_ref_no": OPERATION},
    )
    assert (outcome.status, outcome.gateway_reference) == (OutcomeStatus.PENDING, OPERATION)
    [observation] = outcome.observations
    assert (observation.about, observation.operation) == (TRACKING, OPERATION)


def refund_refused(code: str) -> httpx.Response:
    return says({"refund_status": 1, "reason": "no", "error_code": code})


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        ((refund_refused("51314"), refunds(), says(an_order())), GatewayRejected),
        ((refund_refused("51310"), refuses("51419"), says(an_order())), GatewayRejected),
        ((refund_refused("51309"), refuses("51419"), says(an_order())), GatewayOutcomeUnknown),
        ((refund_refused("51308"),), GatewayObjectNotFound),
        ((refund_refused(""),), GatewayOutcomeUnknown),
        ((says({"refund_status": 7}),), GatewayOutcomeUnknown),
        ((refund_refused("51314"), plain("", 503)), GatewayOutcomeUnknown),
        ((refund_refused("51309"), refunds(a_refund(refund_amt="99.00"))), GatewayOutcomeUnknown),
    ],
)
async def test_a_refund_that_is_refused_is_looked_for(answers: tuple[Answer, ...], error: type[Exception]) -> None:
    ccavenue, _ = adapter_over(*answers)
    with pytest.raises(error):
        await ccavenue.refund(a_call())


@pytest.mark.parametrize(
    ("status", "expected", "code"),
    [
        ("TS-REFA", OutcomeStatus.PENDING, None),
        ("TS-REFC", OutcomeStatus.SUCCEEDED, None),
        ("TS-REFF", OutcomeStatus.FAILED, "refund_failed"),
        ("TS-REFD", OutcomeStatus.FAILED, "refund_declined"),
        ("TS-NEW", OutcomeStatus.PENDING, None),
    ],
)
async def test_a_refund_is_found_by_our_reference(status: str, expected: OutcomeStatus, code: str | None) -> None:
    rows = (a_refund("TS-REFC", refund_mer_ref_no="OP0000000000000OTHER"), a_refund(status))
    ccavenue, _ = adapter_over(refund_refused("51309"), refunds(*rows))
    outcome = await ccavenue.refund(a_call())
    assert (outcome.status, outcome.failure_code) == (expected, code)


async def test_nothing_found_is_only_proof_where_the_order_itself_is_known() -> None:
    ccavenue, _ = adapter_over(refuses("51419"), says(an_order()))
    assert await ccavenue.find_operation(a_call()) is None
    for unknown in (refuses("51313"), says(an_order(order_no="PR0000000000000OTHER")), refuses("51407")):
        ccavenue, _ = adapter_over(refuses("51419"), unknown)
        with pytest.raises((GatewayOutcomeUnknown, GatewayUnavailable)):
            await ccavenue.find_operation(a_call())


async def test_a_completion_confirms_only_what_was_agreed() -> None:
    call = a_call(OperationKind.COMPLETION, INR_499, capture=CaptureMode.AUTOMATIC)
    ccavenue, gateway = adapter_over(says(an_order("Successful")), DONE, says(an_order()))
    assert told((await ccavenue.complete(call)).observations) == {TAKEN}
    assert asked(gateway, 1)[0] == "confirmOrder"

    ccavenue, gateway = adapter_over(says(an_order("Successful", order_amt=1)))
    outcome = await ccavenue.complete(call)
    assert (outcome.status, outcome.failure_code) == (OutcomeStatus.FAILED, "amount_differs")
    assert told(outcome.observations) == {("authorized", TRACKING, Money(100, "INR"))}
    assert len(gateway.requests) == 1

    ccavenue, gateway = adapter_over(says(an_order("Successful")))
    held = await ccavenue.complete(replace(call, capture=CaptureMode.MANUAL))
    assert (told(held.observations), len(gateway.requests)) == ({NOW_HELD}, 1)

    ccavenue, _ = adapter_over(says(an_order()))
    assert (await ccavenue.complete(call)).status is OutcomeStatus.SUCCEEDED
    ccavenue, _ = adapter_over(says(an_order("Strange")))
    with pytest.raises(GatewayUnavailable):
        await ccavenue.complete(call)
    ccavenue, _ = adapter_over(refuses("51313"))
    with pytest.raises(GatewayObjectNotFound):
        await ccavenue.complete(call)


# --- webhooks --------------------------------------------------------------------------------------------------------


def a_delivery(payload: str, content_type: str = "application/x-www-form-urlencoded") -> Delivery:
    return Delivery(content_type, payload, None, A_MOMENT)


def form(**fields: str) -> str:
    return urlencode(fields)


def test_a_webhook_names_an_order_and_says_nothing_that_is_believed() -> None:
    ccavenue, _ = adapter_over(plain(""))
    text = form(order_id=REFERENCE, tracking_id=TRACKING, order_status="Success", merchant_param1="pay_1")
    event = ccavenue.translate_webhook(a_delivery(text))
    assert (event.event_type, event.references, event.our_references) == (
        "order_status",
        (TRACKING,),
        (REFERENCE, "pay_1"),
    )
    assert (event.must_ask, event.observations, event.ignored) == (True, (), None)
    risk = ccavenue.translate_webhook(a_delivery(form(reference_no=TRACKING, risk_status="High")))
    assert (risk.event_type, risk.references, risk.must_ask) == ("risk_status", (TRACKING,), True)
    option = ccavenue.translate_webhook(a_delivery(form(current_status="DOWN")))
    assert option.ignored is not None


@pytest.mark.parametrize(
    "delivery",
    [
        a_delivery(""),
        a_delivery("order_id"),
        a_delivery(form(amount="1.00")),
        a_delivery(form(order_id="")),
        a_delivery("order_id=A&order_id=B"),
        a_delivery(form(order_id="x" * 300)),
        a_delivery(form(order_id="ü")),
        a_delivery('{"order_id":"A"}', "application/json"),
        a_delivery("order_id=%ff"),
    ],
)
def test_what_names_no_order_is_unreadable(delivery: Delivery) -> None:
    ccavenue, _ = adapter_over(plain(""))
    with pytest.raises(UnreadableWebhook):
        ccavenue.translate_webhook(delivery)


_PIECES = st.sampled_from(["order_id", "tracking_id", "order_status", "=", "&", "Success", "%00", "%", "313000000001"])


@given(st.one_of(st.text(max_size=200), st.lists(_PIECES, max_size=20).map("".join)))
def test_any_text_is_an_event_or_unreadable_and_never_a_fact(text: str) -> None:
    ccavenue, _ = adapter_over(plain(""))
    try:
        event = ccavenue.translate_webhook(a_delivery(text))
    except UnreadableWebhook:
        return
    assert event.observations == ()
    assert event.must_ask or event.ignored
