"""The Tamara adapter, against the fact sheet (gateways/tamara.md): what goes out, and what each answer means."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from services.payment_service.domain.errors import CurrencyNotSupported
from services.payment_service.domain.models import (
    CaptureMode,
    Customer,
    Fact,
    FactKind,
    FactSource,
    Item,
    PaymentState,
    Terms,
)
from services.payment_service.domain.operations import OperationKind
from services.payment_service.domain.transitions import reduce_facts
from services.payment_service.gateways.port import Capability, MoneyCall, OutcomeStatus, Snapshot, UnreadableWebhook
from services.payment_service.gateways.tamara import DEFINITION, Tamara, TamaraSettings
from shared.clock import to_rfc3339
from shared.errors import (
    GatewayError,
    GatewayObjectNotFound,
    GatewayOutcomeUnknown,
    GatewayRejected,
    GatewayServerError,
    GatewayUnavailable,
)
from shared.masking import redact_body
from shared.money import Money
from tests.support.clock import A_MOMENT
from tests.unit.payment_service.gateway_world import (
    Answer,
    ScriptedGateway,
    a_delivery,
    a_request,
    json_around,
    says,
    told,
)
from tests.unit.payment_service.money_world import a_call, returned

ORDER = "7d0b4a63-2f5e-4d0a-9b5d-0f6f7f1f2a11"
PAGE, HOLD = f"page:{ORDER}", f"hold:{ORDER}"
REFERENCE = "PR00000000000000001A"
OPERATION = "PO00000000000000001A"
SAR_300, SAR_100, SAR_40 = Money(30_000, "SAR"), Money(10_000, "SAR"), Money(4_000, "SAR")
REQUEST = a_request(amount=SAR_300, customer=Customer("sara@example.com", "Sara Test", "+966 54-433 7866"))
CREATED = {"order_id": ORDER, "checkout_id": "c-1", "checkout_url": "https://checkout.tamara.test/x", "status": "new"}
NOT_FOUND = says({"message": "Order not found", "errors": []}, 404)
OK = says({})


def adapter_over(*answers: Answer, **more: Any) -> tuple[Tamara, ScriptedGateway]:
    gateway = ScriptedGateway(list(answers))
    values = {"api_token": "token-1", "api_base": "https://tamara.test/", **more}
    return Tamara(TamaraSettings.model_validate(values), gateway.caller()), gateway


def sar(amount: int | str) -> dict[str, Any]:
    return {"amount": amount, "currency": "SAR"}


def an_order(status: str = "authorised", **changes: Any) -> dict[str, Any]:
    order = {
        "order_id": ORDER,
        "order_reference_id": REFERENCE,
        "status": status,
        "total_amount": sar(300),
        "captured_amount": sar(0),
        "canceled_amount": sar(0),
        "refunded_amount": sar(0),
        "processing": False,
        "transactions": {"cancels": [], "captures": [], "refunds": []},
    }
    return order | changes


def transactions(**changes: Any) -> dict[str, Any]:
    return {"cancels": [], "captures": [], "refunds": []} | changes


def a_capture(amount: int = 300, tracking: str | None = OPERATION, **changes: Any) -> dict[str, Any]:
    shipping = {"shipping_company": "N/A"} | ({"tracking_number": tracking} if tracking else {})
    return {"capture_id": "cap-1", "total_amount": sar(amount), "shipping_info": shipping} | changes


def a_refund(status: str | None = "success", **changes: Any) -> dict[str, Any]:
    refund = {"refund_id": "ref-1", "capture_id": "cap-1", "total_amount": sar(40), "merchant_refund_id": OPERATION}
    return refund | {"refund_status": status} | changes


def captured_order(status: str = "fully_captured", **changes: Any) -> dict[str, Any]:
    return an_order(status, captured_amount=sar(300), transactions=transactions(captures=[a_capture()])) | changes


def refuses(status: int, code: str | None, message: str = "no") -> httpx.Response:
    return says({"message": message, "errors": [{"error_code": code, "data": {}}] if code else []}, status)


def call_of(kind: OperationKind, amount: Money = SAR_300, **changes: Any) -> MoneyCall:
    return a_call(kind, **{"amount": amount, "target": ORDER, "references": (ORDER,), "is_final": False} | changes)


def paths(gateway: ScriptedGateway) -> list[str]:
    return [f"{request.method} {request.url.path}" for request in gateway.requests]


async def seen(order: dict[str, Any], *references: str) -> Snapshot:
    tamara, _ = adapter_over(says(order))
    return await tamara.retrieve((ORDER, *references), our_reference=REFERENCE)


def state_after(*snapshots: Snapshot, capture: CaptureMode = CaptureMode.MANUAL) -> PaymentState:
    observations = [each for snapshot in snapshots for each in snapshot.observations]
    return reduce_facts(Terms(SAR_300, capture), [Fact(each, FactSource.SWEEP, A_MOMENT) for each in observations])


def status_after(*snapshots: Snapshot, capture: CaptureMode) -> str:
    return state_after(*snapshots, capture=capture).status


COMPLETION = call_of(OperationKind.COMPLETION, capture=CaptureMode.AUTOMATIC)
CAPTURE, VOID = call_of(OperationKind.CAPTURE), call_of(OperationKind.VOID)
REFUND = call_of(OperationKind.REFUND, SAR_40, reason="damaged")


# --- what it can do ------------------------------------------------------------------------------------------------


def test_every_capability_is_offered_or_has_its_reason() -> None:
    assert Tamara.facts.capabilities | set(Tamara.facts.not_offered) == set(Capability)
    assert not Tamara.facts.capabilities & set(Tamara.facts.not_offered)
    assert Tamara.facts.key_valid_for is None
    assert (DEFINITION.name, DEFINITION.required) == ("tamara", ("TAMARA_API_TOKEN",))


@pytest.mark.parametrize(("minor", "currency"), [(10, "SAR"), (9, "AED"), (99, "KWD"), (1, "OMR"), (1999, "USD")])
def test_what_tamara_does_not_take_is_refused_before_any_call(minor: int, currency: str) -> None:
    tamara, _ = adapter_over()
    if (minor, currency) == (10, "SAR"):
        tamara.check(Money(minor, currency), CaptureMode.MANUAL)
        return
    with pytest.raises(CurrencyNotSupported):
        tamara.check(Money(minor, currency), CaptureMode.AUTOMATIC)


def test_a_part_of_an_order_may_be_smaller_than_an_order() -> None:
    tamara, _ = adapter_over()
    tamara.check_operation(OperationKind.REFUND, Money(1, "KWD"))
    with pytest.raises(CurrencyNotSupported):
        tamara.check_operation(OperationKind.REFUND, Money(1, "USD"))


async def test_there_is_no_list() -> None:
    tamara, gateway = adapter_over()
    with pytest.raises(GatewayRejected):
        await tamara.list_window(A_MOMENT, A_MOMENT)
    assert gateway.requests == []


# --- sessions ------------------------------------------------------------------------------------------------------


async def test_an_order_goes_out_with_all_that_the_schema_asks_for_and_nothing_else() -> None:
    tamara, gateway = adapter_over(says(CREATED))
    session = await tamara.create_session(REQUEST, repeated=False)

    assert str(gateway.sent.url) == "https://tamara.test/checkout"
    assert gateway.sent.headers["authorization"] == "Bearer token-1"
    money = '{"amount":300.00,"currency":"SAR"}'
    assert f'"total_amount":{money}' in gateway.sent.content.decode()
    total, zero = {"amount": 300.0, "currency": "SAR"}, {"amount": 0.0, "currency": "SAR"}
    name = {"first_name": "Sara", "last_name": "Test"}
    item = {"reference_id": "L1", "type": "Physical", "name": "Order ord_1", "sku": "L1", "quantity": 1}
    assert json.loads(gateway.sent.content) == {
        "order_reference_id": REFERENCE,
        "order_number": "ord_1",
        "description": "Order ord_1",
        "country_code": "SA",
        "payment_type": "PAY_BY_INSTALMENTS",
        "instalments": 3,
        "locale": "en_US",
        "platform": "payrail",
        "total_amount": total,
        "tax_amount": zero,
        "shipping_amount": zero,
        "items": [{**item, "unit_price": total, "total_amount": total}],
        "consumer": {**name, "phone_number": "966544337866", "email": "sara@example.com"},
        "shipping_address": {**name, "line1": "N/A", "city": "N/A", "country_code": "SA"},
        "merchant_url": {
            "success": REQUEST.return_url,
            "failure": REQUEST.return_url,
            "cancel": REQUEST.cancel_url,
        },
    }
    assert session.next_action.to_json() == {"type": "redirect", "url": CREATED["checkout_url"]}
    assert (session.gateway_reference, session.references) == (ORDER, (ORDER,))
    assert session.expires_at == REQUEST.attempted_at + timedelta(minutes=30)
    assert told(session.observations) == {("session_opened", PAGE, None)}


@pytest.mark.parametrize(
    ("amount", "country", "written"),
    [
        (Money(12_345, "KWD"), "KW", "12.345"),
        (Money(1_000, "BHD"), "BH", "1.000"),
        (Money(100, "OMR"), "OM", "0.100"),
        (Money(10_050, "AED"), "AE", "100.50"),
    ],
)
async def test_each_currency_keeps_its_digits_and_names_its_country(amount: Money, country: str, written: str) -> None:
    tamara, gateway = adapter_over(says(CREATED))
    await tamara.create_session(replace(REQUEST, amount=amount), repeated=False)
    text = gateway.sent.content.decode()
    assert f'"total_amount":{{"amount":{written},"currency":"{amount.currency}"}}' in text
    assert json.loads(text)["country_code"] == country


async def test_lines_that_add_up_are_told_and_others_become_one() -> None:
    tamara, gateway = adapter_over(says(CREATED))
    tea, pot = Item("شاي\n" + "x" * 300, 2, 10_000), Item("", 1, 10_000)
    await tamara.create_session(replace(REQUEST, items=(tea, pot)), repeated=False)
    lines = json.loads(gateway.sent.content, parse_float=Decimal)["items"]
    assert [(line["quantity"], line["total_amount"]["amount"], line["sku"]) for line in lines] == [
        (2, Decimal("200.00"), "L1"),
        (1, Decimal("100.00"), "L2"),
    ]
    assert (len(lines[0]["name"]), lines[0]["name"][:5], lines[1]["name"]) == (255, "شاي x", "L2")
    await tamara.create_session(replace(REQUEST, items=(tea,)), repeated=False)
    [line] = json.loads(gateway.sent.content)["items"]
    assert (line["name"], line["total_amount"]["amount"]) == ("Order ord_1", 300)


@pytest.mark.parametrize(
    ("name", "phone", "sent"),
    [
        ("نور العتيبي", None, ("نور", "العتيبي", "")),
        ("Madonna", "00971501234567", ("Madonna", "-", "971501234567")),
        ("\u0000\n ", "call me", ("-", "-", "")),
        ("A" * 300 + " " + "B" * 300, "0" * 40, ("A" * 100, "B" * 99, "0" * 20)),
    ],
)
async def test_no_payment_fails_for_a_name_or_a_phone(name: str, phone: str | None, sent: tuple[str, ...]) -> None:
    tamara, gateway = adapter_over(says(CREATED))
    await tamara.create_session(replace(REQUEST, customer=Customer("a@b.c", name, phone)), repeated=False)
    consumer = json.loads(gateway.sent.content)["consumer"]
    assert consumer["phone_number"] == sent[2]
    assert sent[0].startswith(consumer["first_name"])
    assert all(consumer[key] and len(consumer[key]) <= 100 for key in ("first_name", "last_name"))


async def test_what_is_agreed_with_tamara_is_a_setting() -> None:
    more = {"expires_in_minutes": "60", "instalments": "4", "locale": "ar_SA", "item_type": "Digital"}
    tamara, gateway = adapter_over(says(CREATED), **more)
    session = await tamara.create_session(REQUEST, repeated=False)
    body = json.loads(gateway.sent.content)
    assert (body["expires_in_minutes"], body["instalments"], body["locale"]) == (60, 4, "ar_SA")
    assert body["items"][0]["type"] == "Digital"
    assert session.expires_at == REQUEST.expires_at  # ours is the earlier one
    for wrong in ({"instalments": 0}, {"expires_in_minutes": 4}, {"payment_type": "PAY_SOMETIME"}, {"unknown": 1}):
        with pytest.raises(ValidationError):
            TamaraSettings.model_validate({"api_token": "t", **wrong})


@pytest.mark.parametrize(
    "body",
    [
        {**CREATED, "checkout_url": "javascript:alert(1)"},
        {**CREATED, "checkout_url": None},
        {**CREATED, "order_id": 7},
        {},
    ],
)
async def test_an_answer_without_a_usable_page_is_no_session(body: dict[str, Any]) -> None:
    tamara, _ = adapter_over(says(body))
    with pytest.raises(GatewayOutcomeUnknown):
        await tamara.create_session(REQUEST, repeated=False)


async def test_a_repeated_session_is_looked_for_and_only_an_unpaid_one_is_made_again() -> None:
    tamara, gateway = adapter_over(says(an_order("new")), says(CREATED))
    assert (await tamara.create_session(REQUEST, repeated=True)).gateway_reference == ORDER
    assert paths(gateway) == [f"GET /merchants/orders/reference-id/{REFERENCE}", "POST /checkout"]

    tamara, gateway = adapter_over(says(an_order("approved")))
    adopted = await tamara.create_session(REQUEST, repeated=True)
    assert adopted.next_action.url == REQUEST.return_url
    assert told(adopted.observations) == {("approved", ORDER, SAR_300)}
    assert len(gateway.requests) == 1


async def test_a_refusal_after_silence_is_no_refusal() -> None:
    tamara, _ = adapter_over(httpx.ReadTimeout("silence"), refuses(400, "duplicate_reference"))
    with pytest.raises(GatewayOutcomeUnknown):
        await tamara.create_session(REQUEST, repeated=False)
    tamara, _ = adapter_over(refuses(400, "not_supported_country_currency"))
    with pytest.raises(GatewayRejected) as refusal:
        await tamara.create_session(REQUEST, repeated=False)
    assert refusal.value.gateway_code == "not_supported_country_currency"


# --- what an order says --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "facts"),
    [
        (an_order("new"), {("session_opened", PAGE, None)}),
        (an_order("on_hold"), {("processing", PAGE, None)}),
        (an_order("approved"), {("approved", ORDER, SAR_300)}),
        (an_order("authorised"), {("authorized", ORDER, SAR_300)}),
        (an_order("updated", canceled_amount=sar(200)), {("authorized", ORDER, SAR_300)}),
        (
            an_order("partially_captured", captured_amount=sar(100)),
            {("captured", ORDER, SAR_100), ("authorized", ORDER, SAR_300)},
        ),
        (captured_order(), {("captured", ORDER, SAR_300)}),
        (
            captured_order(captured_amount=sar(100), canceled_amount=sar("200.00")),
            {("captured", ORDER, SAR_100), ("released", ORDER, None)},
        ),
        (an_order("declined"), {("failed", PAGE, None)}),
        (an_order("canceled", canceled_amount=sar(300)), {("canceled", ORDER, None)}),
        (an_order("expired"), {("expired", PAGE, None)}),
        (an_order("canceled"), {("canceled", PAGE, None)}),
        (an_order("expired", canceled_amount=sar(100)), {("expired", ORDER, None)}),
        (
            an_order("expired", captured_amount=sar(100)),
            {("captured", ORDER, SAR_100), ("released", ORDER, None)},
        ),
        (captured_order("zz_unheard_of"), {("processing", PAGE, None)}),
        (an_order("fully_captured"), {("captured", ORDER, Money(0, "SAR"))}),
    ],
)
async def test_statuses(order: dict[str, Any], facts: set[Any]) -> None:
    tamara, gateway = adapter_over(says(order))
    snapshot = await tamara.retrieve((ORDER,), our_reference=REFERENCE)
    assert told(snapshot.observations) == facts
    is_held = any(kind == "authorized" for kind, _, _ in facts)
    assert snapshot.references == ((ORDER, HOLD) if is_held else (ORDER,))
    assert paths(gateway) == [f"GET /orders/{ORDER}"]


async def test_without_sums_the_captures_add_up_and_refunds_are_told_with_whose_they_are() -> None:
    both = [a_capture(100), a_capture(60, capture_id="cap-2")]
    refunds = [a_refund(), a_refund("processing", refund_id="ref-2", merchant_refund_id=None)]
    order = an_order("partially_refunded", transactions=transactions(captures=both, refunds=refunds))
    del order["captured_amount"], order["canceled_amount"]
    tamara, _ = adapter_over(says(order))
    snapshot = await tamara.retrieve((ORDER,), our_reference=REFERENCE)
    assert ("captured", ORDER, Money(16_000, "SAR")) in told(snapshot.observations)
    assert returned(snapshot.observations) == {
        ("refund_succeeded", "ref-1", SAR_40, ORDER, OPERATION),
        ("refund_pending", "ref-2", SAR_40, ORDER, None),
    }


async def test_another_payments_order_is_nobodys_evidence() -> None:
    stranger = says(an_order("authorised", order_reference_id="PR00000000000000002B"))
    tamara, gateway = adapter_over(stranger, says(captured_order()))
    snapshot = await tamara.retrieve(("a/../b",), our_reference=REFERENCE)
    assert told(snapshot.observations) == {("captured", ORDER, SAR_300)}
    assert gateway.requests[0].url.raw_path == b"/orders/a%2F..%2Fb"
    for last in (NOT_FOUND, stranger):
        tamara, _ = adapter_over(stranger, last)
        with pytest.raises(GatewayObjectNotFound):
            await tamara.retrieve((ORDER,), our_reference=REFERENCE)


@pytest.mark.parametrize(
    "broken",
    [
        {"total_amount": None},
        {"total_amount": {"amount": 3.005, "currency": "SAR"}},
        {"total_amount": {"amount": True, "currency": "SAR"}},
        {"status": 7},
        {"captured_amount": {"amount": 1, "currency": "AED"}},
        {"captured_amount": sar(-1)},
        {"transactions": {"refunds": "none"}},
        {"transactions": {"refunds": [a_refund(total_amount=sar(-40))]}},
    ],
)
async def test_an_order_that_is_not_understood_is_asked_for_again(broken: dict[str, Any]) -> None:
    tamara, _ = adapter_over(says(an_order("fully_captured") | broken))
    with pytest.raises(GatewayOutcomeUnknown):
        await tamara.retrieve((ORDER,), our_reference=REFERENCE)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (says({"message": "Unauthorized"}, 401), GatewayUnavailable),
        (says({}, 403), GatewayUnavailable),
        (refuses(400, None, "Merchant is not found"), GatewayUnavailable),
        (httpx.Response(429, headers={"retry-after": "60"}), GatewayUnavailable),
        (httpx.Response(200, content=b"<html>"), GatewayOutcomeUnknown),
        (says(an_order(), 202), GatewayOutcomeUnknown),
        (httpx.Response(302, headers={"location": "/x"}, content=b"{}"), GatewayOutcomeUnknown),
        (says({}, 500), GatewayServerError),
        (refuses(400, "x" * 200), GatewayRejected),
        (says({"errors": "nonsense"}, 422), GatewayRejected),
    ],
)
async def test_errors_say_what_may_have_happened(answer: httpx.Response, error: type[GatewayError]) -> None:
    tamara, _ = adapter_over(answer)
    with pytest.raises(error) as raised:
        await tamara.retrieve((ORDER,), our_reference=REFERENCE)
    if isinstance(raised.value, GatewayRejected):
        assert raised.value.gateway_code == f"http_{answer.status_code}"


async def test_a_page_is_closed_by_our_decision_but_never_over_the_head_of_a_shopper_who_has_agreed() -> None:
    tamara, gateway = adapter_over(says(an_order("new")))
    [closed] = (await tamara.close_session(ORDER, our_reference=REFERENCE)).observations
    assert (closed.kind, closed.object_reference, closed.reason) == (FactKind.CANCELED, PAGE, "closed_by_us")
    for order in (an_order("approved"), captured_order(), an_order("zz_unheard_of")):
        tamara, gateway = adapter_over(says(order))
        snapshot = await tamara.close_session(ORDER, our_reference=REFERENCE)
        assert FactKind.CANCELED not in {observation.kind for observation in snapshot.observations}
    assert [request.method for request in gateway.requests] == ["GET"]


@pytest.mark.parametrize("capture", list(CaptureMode))
async def test_money_that_is_held_after_the_page_has_ended_counts_and_its_end_does_too(capture: CaptureMode) -> None:
    tamara, _ = adapter_over(says(an_order("new")))
    closed = await tamara.close_session(ORDER, our_reference=REFERENCE)
    ended = [await seen(an_order(word)) for word in ("declined", "expired", "canceled")]
    held = await seen(an_order())
    for before in (closed, *ended):
        assert status_after(before, capture=capture) in ("canceled", "failed", "expired")
        assert status_after(before, held, capture=capture) == "authorized"
        for word in ("expired", "canceled"):
            let_go = await seen(an_order(word), *held.references)
            assert told(let_go.observations) == {(word, ORDER, None)}
            assert status_after(before, held, let_go, capture=capture) in ("canceled", "failed", "expired")
    part = await seen(an_order("partially_captured", captured_amount=sar(100)))
    state = state_after(closed, part)
    assert (state.status, state.amount_authorized, state.amount_captured) == ("partially_captured", 30_000, 10_000)


async def test_a_hold_that_ended_ends_in_what_money_calls_tell_too() -> None:
    for call in (CAPTURE, VOID):
        tamara, gateway = adapter_over(says(an_order("expired")), refuses(409, "x"), says(an_order("expired")))
        with suppress(GatewayRejected):
            outcome = await (tamara.capture if call is CAPTURE else tamara.void)(call)
            assert told(outcome.observations) == {("expired", ORDER, None)}
    tamara, gateway = adapter_over(NOT_FOUND, says(an_order()))
    await tamara.retrieve((HOLD, "another"), our_reference=REFERENCE)
    assert paths(gateway) == ["GET /orders/another", f"GET /merchants/orders/reference-id/{REFERENCE}"]


# --- completion ----------------------------------------------------------------------------------------------------


async def test_an_approved_order_is_authorised_and_captured_under_our_reference() -> None:
    tamara, gateway = adapter_over(says(an_order("approved")), OK, says(an_order()), OK, says(captured_order()))
    outcome = await tamara.complete(COMPLETION)
    assert paths(gateway) == [
        f"GET /orders/{ORDER}",
        f"POST /orders/{ORDER}/authorise",
        f"GET /orders/{ORDER}",
        "POST /payments/capture",
        f"GET /orders/{ORDER}",
    ]
    assert gateway.requests[1].content == b""
    assert json.loads(gateway.requests[3].content) == {
        "order_id": ORDER,
        "total_amount": {"amount": 300.0, "currency": "SAR"},
        "shipping_info": {
            "shipped_at": to_rfc3339(A_MOMENT),
            "shipping_company": "N/A",
            "tracking_number": OPERATION,
        },
    }
    assert (outcome.status, outcome.gateway_reference) == (OutcomeStatus.SUCCEEDED, "cap-1")
    assert told(outcome.observations) == {("captured", ORDER, SAR_300)}


async def test_a_payment_that_is_only_to_be_held_is_authorised_and_nothing_more() -> None:
    tamara, gateway = adapter_over(says(an_order("approved")), OK, says(an_order()))
    outcome = await tamara.complete(replace(COMPLETION, capture=CaptureMode.MANUAL))
    assert told(outcome.observations) == {("authorized", ORDER, SAR_300)}
    assert len(gateway.requests) == 3


async def test_what_is_done_already_is_not_done_again() -> None:
    tamara, gateway = adapter_over(says(captured_order()))  # an account that captures by itself, or a repetition
    assert told((await tamara.complete(COMPLETION)).observations) == {("captured", ORDER, SAR_300)}
    assert len(gateway.requests) == 1
    tamara, gateway = adapter_over(says(an_order()), OK, says(captured_order()))  # an account that authorises by itself
    assert told((await tamara.complete(COMPLETION)).observations) == {("captured", ORDER, SAR_300)}
    assert paths(gateway)[1] == "POST /payments/capture"


@pytest.mark.parametrize(
    "answer", [refuses(409, "transition_not_allowed"), says({}, 500), httpx.ReadTimeout("silence"), says({}, 202)]
)
async def test_whatever_authorise_answers_the_order_decides(answer: Answer) -> None:
    tamara, _ = adapter_over(says(an_order("approved")), answer, says(an_order()), OK, says(captured_order()))
    assert told((await tamara.complete(COMPLETION)).observations) == {("captured", ORDER, SAR_300)}
    tamara, gateway = adapter_over(says(an_order("approved")), answer, says(an_order("approved")))
    is_refused = isinstance(answer, httpx.Response) and answer.status_code == 409
    with pytest.raises(GatewayRejected if is_refused else GatewayOutcomeUnknown):
        await tamara.complete(COMPLETION)
    assert "POST /payments/capture" not in paths(gateway)


async def test_an_order_that_has_ended_meanwhile_fails_and_one_about_another_amount_is_left_alone() -> None:
    for status in ("declined", "expired", "canceled"):
        tamara, gateway = adapter_over(says(an_order(status)))
        outcome = await tamara.complete(COMPLETION)
        assert (outcome.status, outcome.failure_code) == (OutcomeStatus.FAILED, status)
        assert len(gateway.requests) == 1
    tamara, gateway = adapter_over(says(an_order("approved", total_amount=sar(299))))
    with pytest.raises(GatewayRejected):
        await tamara.complete(COMPLETION)
    assert len(gateway.requests) == 1


@pytest.mark.parametrize("answer", [says(an_order("new")), says(an_order("zz_unheard_of")), NOT_FOUND, says({}, 500)])
async def test_an_approval_that_is_not_shown_now_is_asked_for_again_and_nothing_is_sent(answer: Answer) -> None:
    tamara, gateway = adapter_over(answer)
    with pytest.raises((GatewayUnavailable, GatewayOutcomeUnknown)):
        await tamara.complete(COMPLETION)
    assert {request.method for request in gateway.requests} == {"GET"}


async def test_a_capture_that_is_refused_or_not_reached_within_a_completion_is_no_failure_of_it() -> None:
    tamara, _ = adapter_over(says(an_order()), refuses(400, "capture_not_allowed"), says(an_order()))
    outcome = await tamara.complete(COMPLETION)
    assert outcome.status is OutcomeStatus.SUCCEEDED
    assert told(outcome.observations) == {("authorized", ORDER, SAR_300)}
    tamara, _ = adapter_over(says(an_order()), httpx.ConnectError("down"))
    with pytest.raises(GatewayOutcomeUnknown):
        await tamara.complete(COMPLETION)


@pytest.mark.parametrize("word", ["on_hold", "zz_unheard_of", "new", "approved"])
async def test_a_completion_whose_capture_was_refused_has_succeeded_only_where_the_money_is_held(word: str) -> None:
    tamara, _ = adapter_over(says(an_order()), refuses(409, "x"), says(an_order(word)))
    with pytest.raises(GatewayOutcomeUnknown):
        await tamara.complete(COMPLETION)


# --- captures, voids, refunds --------------------------------------------------------------------------------------


async def test_a_capture_looks_sends_once_and_reads_what_came_of_it() -> None:
    part = replace(CAPTURE, amount=SAR_100)
    after = an_order(
        "partially_captured", captured_amount=sar(100), transactions=transactions(captures=[a_capture(100)])
    )
    tamara, gateway = adapter_over(says(an_order()), OK, says(after), shipping_company="Aramex")
    outcome = await tamara.capture(part)
    body = json.loads(gateway.requests[1].content)
    assert body["total_amount"] == {"amount": 100.0, "currency": "SAR"}
    assert (body["shipping_info"]["shipping_company"], body["shipping_info"]["tracking_number"]) == (
        "Aramex",
        OPERATION,
    )
    assert outcome.gateway_reference == "cap-1"
    assert told(outcome.observations) == {("captured", ORDER, SAR_100), ("authorized", ORDER, SAR_300)}

    tamara, gateway = adapter_over(says(after))
    assert (await tamara.capture(part)).gateway_reference == "cap-1"
    assert len(gateway.requests) == 1


async def test_a_final_part_lets_the_rest_go_first_while_nothing_is_captured() -> None:
    final = replace(CAPTURE, amount=SAR_100, is_final=True)
    after = captured_order(
        captured_amount=sar(100), canceled_amount=sar(200), transactions=transactions(captures=[a_capture(100)])
    )
    tamara, gateway = adapter_over(says(an_order()), OK, OK, says(after))
    outcome = await tamara.capture(final)
    assert paths(gateway)[1:3] == [f"POST /orders/{ORDER}/cancel", "POST /payments/capture"]
    assert json.loads(gateway.requests[1].content) == {"total_amount": {"amount": 200.0, "currency": "SAR"}}
    assert told(outcome.observations) == {("captured", ORDER, SAR_100), ("released", ORDER, None)}

    # Again after the first half has run: the rest is gone already.
    tamara, gateway = adapter_over(says(an_order("updated", canceled_amount=sar(200))), OK, says(after))
    await tamara.capture(final)
    assert paths(gateway)[1] == "POST /payments/capture"


def at(seconds: float) -> str:
    return (A_MOMENT + timedelta(seconds=seconds)).isoformat()


def a_nameless_capture(amount: int = 100, **changes: Any) -> dict[str, Any]:
    return a_capture(amount, None, **{"created_at": at(1)} | changes)


def captured_by(*captures: dict[str, Any]) -> dict[str, Any]:
    total = sum(each["total_amount"]["amount"] for each in captures)
    return an_order(
        "partially_captured", captured_amount=sar(total), transactions=transactions(captures=list(captures))
    )


PART = replace(CAPTURE, amount=SAR_100)


async def test_a_capture_that_shows_no_reference_is_told_by_amount_and_time_once_it_was_not_answered() -> None:
    tamara, _ = adapter_over(says(captured_by(a_nameless_capture())))
    found = await tamara.find_operation(PART)
    assert found is not None
    assert (found.gateway_reference, found.references) == ("cap-1", (ORDER, HOLD, "cap-1"))
    for another in (
        a_nameless_capture(created_at=at(-300)),
        a_nameless_capture(99),
        a_capture(100, "other", created_at=at(1)),
    ):
        tamara, _ = adapter_over(says(captured_by(another)))
        assert await tamara.find_operation(PART) is None


@pytest.mark.parametrize(
    ("captures", "references"),
    [
        ([a_nameless_capture(), a_nameless_capture(capture_id="cap-2")], (ORDER,)),
        ([a_nameless_capture()], (ORDER, "cap-1")),
        ([a_nameless_capture(created_at=None)], (ORDER,)),
        ([a_nameless_capture(created_at="soon")], (ORDER,)),
    ],
    ids=["two of them", "another operation's", "of no time", "of a time that is none"],
)
async def test_a_capture_that_may_be_another_one_leaves_the_outcome_unknown(
    captures: list[dict[str, Any]], references: tuple[str, ...]
) -> None:
    tamara, _ = adapter_over(says(captured_by(*captures)))
    with pytest.raises(GatewayOutcomeUnknown):
        await tamara.find_operation(replace(PART, references=references))


async def test_a_second_equal_capture_is_sent_and_told_by_the_id_that_its_answer_names() -> None:
    first, second = a_nameless_capture(), a_nameless_capture(capture_id="cap-2", created_at=at(50))
    call = replace(PART, reference="PO00000000000000002B", first_sent_at=A_MOMENT + timedelta(seconds=50))
    tamara, gateway = adapter_over(
        says(captured_by(first)), says({"capture_id": "cap-2"}), says(captured_by(first, second))
    )
    outcome = await tamara.capture(call)
    assert paths(gateway)[1] == "POST /payments/capture"
    assert outcome.gateway_reference == "cap-2"

    tamara, _ = adapter_over(says(captured_by(first)), refuses(400, "total_amount_invalid"), says(captured_by(first)))
    with pytest.raises(GatewayRejected):  # what is there is the first one, and this one has not run
        await tamara.capture(call)
    tamara, _ = adapter_over(says(captured_by(first)), OK, says(captured_by(first, second)))
    with pytest.raises(GatewayOutcomeUnknown):  # an answer that names nothing
        await tamara.capture(call)


HIDDEN: list[Any] = [None, [], {}, {"captures": None, "refunds": None}, {"captures": [], "refunds": []}]


@pytest.mark.parametrize("hidden", HIDDEN)
async def test_what_a_missing_list_does_not_show_is_not_absent(hidden: Any) -> None:
    refunded = an_order("partially_refunded", captured_amount=sar(300), refunded_amount=sar(40), transactions=hidden)
    captured = an_order("partially_captured", captured_amount=sar(100), transactions=hidden)
    for order, call in ((refunded, REFUND), (captured, PART)):
        tamara, gateway = adapter_over(says(order))
        with pytest.raises(GatewayOutcomeUnknown):
            await tamara.find_operation(call)
        with pytest.raises(GatewayUnavailable):
            await (tamara.refund if call is REFUND else tamara.capture)(call)
        assert {request.method for request in gateway.requests} == {"GET"}


async def test_lists_that_do_not_come_to_the_orders_sums_prove_nothing() -> None:
    other = a_refund(merchant_refund_id="other")
    short = captured_order(refunded_amount=sar(80))
    short["transactions"]["refunds"] = [other]
    failed = captured_order(refunded_amount=sar(40))
    failed["transactions"]["refunds"] = [a_refund("failed", merchant_refund_id="other")]
    less = captured_order(refunded_amount=sar(0))
    less["transactions"]["refunds"] = [other]
    for order in (short, failed, less):
        tamara, _ = adapter_over(says(order), failed_refund_words="failed")
        with pytest.raises(GatewayOutcomeUnknown):
            await tamara.find_operation(REFUND)
    unsummed = captured_order()
    del unsummed["refunded_amount"]
    pending = captured_order(refunded_amount=sar(40))
    pending["transactions"]["refunds"] = [other, a_refund("pending", refund_id="ref-2", merchant_refund_id="another")]
    for order in (unsummed, pending):
        tamara, _ = adapter_over(says(order))
        assert await tamara.find_operation(REFUND) is None
    unsummed["transactions"] = None
    tamara, _ = adapter_over(says(unsummed))
    with pytest.raises(GatewayOutcomeUnknown):
        await tamara.find_operation(REFUND)
    more = captured_by(a_capture(50, "other"), a_capture(50, "another", capture_id="cap-2"))
    tamara, _ = adapter_over(says(more | {"captured_amount": sar(200)}))
    with pytest.raises(GatewayOutcomeUnknown):
        await tamara.find_operation(PART)


@pytest.mark.parametrize("kind", [OperationKind.CAPTURE, OperationKind.VOID, OperationKind.REFUND])
async def test_nothing_is_sent_while_tamara_is_at_work_on_the_order(kind: OperationKind) -> None:
    order = an_order(processing=True) if kind is not OperationKind.REFUND else captured_order(processing=True)
    tamara, gateway = adapter_over(says(order))
    sends = {
        OperationKind.CAPTURE: tamara.capture,
        OperationKind.VOID: tamara.void,
        OperationKind.REFUND: tamara.refund,
    }
    with pytest.raises(GatewayUnavailable):
        await sends[kind](call_of(kind))
    assert paths(gateway) == [f"GET /orders/{ORDER}"]


async def test_all_that_is_left_of_an_order_that_was_canceled_in_part_is_taken_and_told() -> None:
    updated = an_order("updated", canceled_amount=sar(200))
    after = captured_order(
        captured_amount=sar(100), canceled_amount=sar(200), transactions=transactions(captures=[a_capture(100)])
    )
    whole = replace(CAPTURE, is_whole=True, is_final=True)
    tamara, gateway = adapter_over(says(updated), OK, says(after))
    outcome = await tamara.capture(whole)
    assert paths(gateway)[1:] == ["POST /payments/capture", f"GET /orders/{ORDER}"]
    assert json.loads(gateway.requests[1].content)["total_amount"] == {"amount": 100.0, "currency": "SAR"}
    assert outcome.status is OutcomeStatus.SUCCEEDED
    assert told(outcome.observations) == {("captured", ORDER, SAR_100), ("released", ORDER, None)}
    tamara, _ = adapter_over(says(after))
    assert (await tamara.find_operation(whole)) == outcome

    # After a part: all that we know of is 250 of 300, and 50 are left.
    parts = [a_capture(50, "other", capture_id="cap-0"), a_capture(50)]
    before = captured_by(parts[0]) | {"canceled_amount": sar(200)}
    done = captured_by(*parts) | {"canceled_amount": sar(200), "status": "fully_captured"}
    tamara, gateway = adapter_over(says(before), OK, says(done))
    await tamara.capture(replace(CAPTURE, amount=Money(25_000, "SAR"), is_final=True))
    assert json.loads(gateway.requests[1].content)["total_amount"] == {"amount": 50.0, "currency": "SAR"}


async def test_a_final_part_that_is_refused_after_the_rest_was_let_go_has_failed_and_says_what_is_there() -> None:
    final, updated = replace(PART, is_final=True), an_order("updated", canceled_amount=sar(200))
    refusal = refuses(400, "shipping_info")
    for answers in ((says(an_order()), OK, refusal, says(updated)), (says(updated), refusal, says(updated))):
        tamara, _ = adapter_over(*answers)
        outcome = await tamara.capture(final)
        assert (outcome.status, outcome.failure_code) == (OutcomeStatus.FAILED, "rest_released_shipping_info")
        assert told(outcome.observations) == {("authorized", ORDER, SAR_300)}
    gone = an_order("canceled", canceled_amount=sar(300))
    tamara, _ = adapter_over(says(an_order()), OK, refusal, says(gone))
    outcome = await tamara.capture(final)
    assert (outcome.status, told(outcome.observations)) == (OutcomeStatus.FAILED, {("canceled", ORDER, None)})
    tamara, _ = adapter_over(says(an_order()), OK, httpx.ConnectError("down"))
    with pytest.raises(GatewayOutcomeUnknown):  # the half that did arrive has run
        await tamara.capture(final)
    tamara, gateway = adapter_over(says(an_order()), refuses(409, "transition_not_allowed"))
    with pytest.raises(GatewayRejected):
        await tamara.capture(final)
    assert len(gateway.requests) == 2


async def test_a_void_cancels_all_that_is_held() -> None:
    after = an_order(
        "canceled",
        canceled_amount=sar(300),
        transactions=transactions(cancels=[{"cancel_id": "can-1", "total_amount": sar(300)}]),
    )
    tamara, gateway = adapter_over(says(an_order("updated", canceled_amount=sar(100))), OK, says(after))
    outcome = await tamara.void(VOID)
    assert json.loads(gateway.requests[1].content) == {"total_amount": {"amount": 200.0, "currency": "SAR"}}
    assert (outcome.gateway_reference, told(outcome.observations)) == ("can-1", {("canceled", ORDER, None)})
    tamara, gateway = adapter_over(says(after))
    assert (await tamara.void(VOID)).gateway_reference == "can-1"
    assert len(gateway.requests) == 1


async def test_a_refund_carries_our_reference_and_the_shops_reason() -> None:
    after = captured_order("partially_refunded")
    after["transactions"]["refunds"] = [a_refund()]
    tamara, gateway = adapter_over(says(captured_order()), OK, says(after))
    outcome = await tamara.refund(REFUND)
    assert gateway.requests[1].url.path == f"/payments/simplified-refund/{ORDER}"
    assert gateway.requests[1].content == (
        b'{"total_amount":{"amount":40.00,"currency":"SAR"},"comment":"damaged","merchant_refund_id":"%s"}'
        % OPERATION.encode()
    )
    assert (outcome.status, outcome.gateway_reference) == (OutcomeStatus.SUCCEEDED, "ref-1")
    tamara, gateway = adapter_over(says(after))
    assert (await tamara.refund(REFUND)).gateway_reference == "ref-1"
    assert len(gateway.requests) == 1


@pytest.mark.parametrize("word", ["pending", "failed", None])
async def test_any_word_but_success_leaves_a_refund_pending(word: str | None) -> None:
    order = captured_order("partially_refunded")
    order["transactions"]["refunds"] = [a_refund(word)]
    tamara, _ = adapter_over(says(order))
    found = await tamara.find_operation(REFUND)
    assert found is not None
    assert found.status is OutcomeStatus.PENDING


@pytest.mark.parametrize("kind", [OperationKind.CAPTURE, OperationKind.VOID, OperationKind.REFUND])
async def test_nothing_is_sent_twice_and_only_a_known_refusal_is_one(kind: OperationKind) -> None:
    call = {OperationKind.CAPTURE: CAPTURE, OperationKind.VOID: VOID, OperationKind.REFUND: REFUND}[kind]
    before = says(captured_order() if kind is OperationKind.REFUND else an_order())

    def send(tamara: Tamara) -> Awaitable[Any]:
        sends: dict[OperationKind, Callable[[MoneyCall], Awaitable[Any]]] = {
            OperationKind.CAPTURE: tamara.capture,
            OperationKind.VOID: tamara.void,
            OperationKind.REFUND: tamara.refund,
        }
        return sends[kind](call)

    for silence in (httpx.ReadTimeout("silence"), says({}, 503), httpx.Response(200, content=b"<html>")):
        tamara, gateway = adapter_over(before, silence)
        with pytest.raises(GatewayOutcomeUnknown):
            await send(tamara)
        assert [request.method for request in gateway.requests] == ["GET", "POST"]
    tamara, _ = adapter_over(before, refuses(409, "transition_not_allowed"), before)
    with pytest.raises(GatewayRejected) as refusal:
        await send(tamara)
    assert refusal.value.gateway_code == "transition_not_allowed"
    tamara, _ = adapter_over(before, refuses(409, "transition_not_allowed"), says({}, 500))
    with pytest.raises(GatewayOutcomeUnknown):  # what is there could not be read, so nothing is proved
        await send(tamara)
    tamara, _ = adapter_over(before, OK, before)
    with pytest.raises(GatewayOutcomeUnknown):  # taken, and not shown yet
        await send(tamara)
    tamara, gateway = adapter_over(says({}, 500))
    with pytest.raises(GatewayUnavailable):  # the first look has failed: nothing was sent
        await send(tamara)
    assert {request.method for request in gateway.requests} == {"GET"}


async def test_a_look_proves_nothing_where_the_order_is_hidden_or_tamara_is_at_work() -> None:
    for answer in (NOT_FOUND, refuses(400, "nonsense"), says(an_order(processing=True))):
        tamara, _ = adapter_over(answer)
        with pytest.raises(GatewayOutcomeUnknown):
            await tamara.find_operation(CAPTURE)
    tamara, _ = adapter_over(says(an_order()))
    for call in (CAPTURE, VOID, REFUND, COMPLETION):
        assert await tamara.find_operation(call) is None


async def test_another_amount_under_our_reference_is_for_a_person() -> None:
    order = captured_order("partially_refunded")
    order["transactions"]["refunds"] = [a_refund(total_amount=sar(41))]
    tamara, _ = adapter_over(says(order))
    for call in (REFUND, replace(CAPTURE, amount=SAR_100)):
        with pytest.raises(GatewayOutcomeUnknown):
            await tamara.find_operation(call)


async def test_a_word_that_an_account_knows_as_failed_frees_the_refund() -> None:
    order = captured_order(transactions=transactions(captures=[a_capture()], refunds=[a_refund("failed")]))
    tamara, _ = adapter_over(says(order), failed_refund_words="failed, rejected")
    found = await tamara.find_operation(REFUND)
    assert found is not None
    assert (found.status, found.failure_code) == (OutcomeStatus.FAILED, "failed")
    assert ("refund_failed", "ref-1", SAR_40, ORDER, OPERATION) in returned(found.observations)


# --- webhooks ------------------------------------------------------------------------------------------------------

TAMARA, _ = adapter_over()
VECTOR = (
    '{"order_id":"7d0b4a63-2f5e-4d0a-9b5d-0f6f7f1f2a11","order_reference_id":"ord_1001","order_number":"1001",'
    '"event_type":"order_approved","data":[]}'
)


def test_every_event_is_only_a_reason_to_ask_and_survives_the_masking() -> None:
    for text in (VECTOR, redact_body("application/json", VECTOR.encode())):
        event = TAMARA.translate_webhook(a_delivery(text))
        assert (event.event_type, event.references, event.our_references) == ("order_approved", (ORDER,), ("ord_1001",))
        assert (event.must_ask, event.observations) == (True, ())
    told_more = {"order_id": ORDER, "event_type": "order_captured", "data": {"captured_amount": sar(300)}}
    assert TAMARA.translate_webhook(a_delivery(told_more)).observations == ()
    older = {"order_id": ORDER, "order_reference_id": REFERENCE, "order_status": "approved"}
    assert TAMARA.translate_webhook(a_delivery(older)).event_type == "order_approved"


@pytest.mark.parametrize(
    "body",
    [
        "",
        "[]",
        "{}",
        '{"event_type":"order_approved"}',
        {"order_id": ORDER},
        {"order_id": ORDER, "event_type": "dispute_opened"},
    ],
)
def test_what_names_no_order_and_what_nobody_documents_is_for_a_person(body: Any) -> None:
    with pytest.raises(UnreadableWebhook):
        TAMARA.translate_webhook(a_delivery(body))


@settings(max_examples=60, deadline=None)
@given(
    st.one_of(
        st.text(max_size=50),
        json_around(
            ["order_id", "event_type", "order_reference_id", "order_status", "data"], [ORDER, "order_approved"]
        ),
    )
)
def test_no_delivery_breaks_the_translation(text: str) -> None:
    with suppress(UnreadableWebhook):
        assert TAMARA.translate_webhook(a_delivery(text)).observations == ()
