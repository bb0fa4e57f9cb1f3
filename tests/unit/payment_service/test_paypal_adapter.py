"""The PayPal adapter, against the fact sheet (gateways/paypal.md): what goes out, and what each answer means.

What a payment's whole life looks like is told by tests/integration/gateway_sandbox/test_paypal_gateway.py.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from services.payment_service.domain.errors import CurrencyNotSupported
from services.payment_service.domain.models import CaptureMode, FactKind, Item
from services.payment_service.domain.operations import OperationKind
from services.payment_service.gateways.paypal import PayPal, PayPalSettings
from services.payment_service.gateways.paypal.amounts import CURRENCIES, from_paypal, to_paypal
from services.payment_service.gateways.port import GatewayEvent, MoneyCall, OutcomeStatus, UnreadableWebhook
from shared.errors import (
    GatewayObjectNotFound,
    GatewayOutcomeUnknown,
    GatewayRejected,
    GatewayUnavailable,
    PayrailError,
)
from shared.ids import TimeOrderedIds, time_of_reference
from shared.money import CURRENCY_EXPONENT, Money
from tests.support.adapter_calls import a_money_call
from tests.support.clock import A_MOMENT, FakeClock, SeededRandomness
from tests.support.waiting import until
from tests.unit.payment_service.gateway_world import (
    POT,
    TEA,
    Answer,
    ScriptedGateway,
    a_delivery,
    a_request,
    json_around,
    says,
    told,
)

REFERENCE = "PR00000000000000001A"
TOKEN = {"access_token": "A21AAtoken", "token_type": "Bearer", "expires_in": 32400, "scope": "", "app_id": "APP"}
USD = {"currency_code": "USD", "value": "19.99"}
SETTINGS = PayPalSettings(client_id="client", client_secret=SecretStr("s3cr3t"), api_base="https://paypal.test/")


def adapter_over(*answers: Answer) -> tuple[PayPal, ScriptedGateway]:
    """The token is answered first, so ``answers`` are those of the calls themselves."""
    gateway = ScriptedGateway([says(TOKEN), *answers])
    return PayPal(SETTINGS, gateway.caller()), gateway


def an_order(status: str = "PAYER_ACTION_REQUIRED", **changes: Any) -> dict[str, Any]:
    unit = {"reference_id": "default", "custom_id": REFERENCE, "invoice_id": REFERENCE, "amount": USD}
    unit |= changes.pop("unit", {})
    order = {
        "id": "5O190127TN364715T",
        "intent": "CAPTURE",
        "status": status,
        "purchase_units": [unit],
        "create_time": "2026-01-01T00:00:00Z",
        "links": [
            {"href": "https://paypal.test/v2/checkout/orders/5O190127TN364715T", "rel": "self", "method": "GET"},
            {"href": "https://paypal.test/checkoutnow?token=5O190127TN364715T", "rel": "payer-action"},
        ],
    }
    return order | changes


def a_capture(status: str = "COMPLETED", **changes: Any) -> dict[str, Any]:
    capture = {
        "id": "CAP1",
        "status": status,
        "amount": USD,
        "final_capture": True,
        "custom_id": REFERENCE,
        "create_time": "2026-01-01T00:00:01Z",
        "supplementary_data": {"related_ids": {"order_id": "5O190127TN364715T"}},
    }
    return capture | changes


def an_authorization(status: str = "CREATED", **changes: Any) -> dict[str, Any]:
    authorization = {
        "id": "AUTH1",
        "status": status,
        "amount": USD,
        "custom_id": REFERENCE,
        "create_time": "2026-01-01T00:00:01Z",
        "update_time": "2026-01-02T00:00:00Z",
        "expiration_time": "2026-01-30T00:00:01Z",
    }
    return authorization | changes


def a_refund(status: str = "COMPLETED", **changes: Any) -> dict[str, Any]:
    refund = {
        "id": "REF1",
        "status": status,
        "amount": USD,
        "custom_id": "OP1",
        "links": [
            {"rel": "self", "href": "https://paypal.test/v2/payments/refunds/REF1"},
            {"rel": "up", "href": "https://paypal.test/v2/payments/captures/CAP1"},
        ],
    }
    return refund | changes


def refusal(issue: str, status: int = 422, name: str = "UNPROCESSABLE_ENTITY") -> httpx.Response:
    return says({"name": name, "message": "…", "debug_id": "f1", "details": [{"issue": issue}]}, status)


def a_call(kind: OperationKind = OperationKind.REFUND, **changes: Any) -> MoneyCall:
    target = {OperationKind.REFUND: "CAP1", OperationKind.COMPLETION: "5O190127TN364715T"}.get(kind, "AUTH1")
    mine = {
        "kind": kind,
        "reference": "OP1",
        "idempotency_key": "OP1-2",
        "amount": Money(1999, "USD"),
        "target": target,
        "is_final": False,
        "reason": None,
        "capture": CaptureMode.AUTOMATIC,
        "references": ("5O190127TN364715T",),
        "first_sent_at": A_MOMENT,
    }
    return a_money_call(**{**mine, **changes})


class SlowToken(ScriptedGateway):
    """Keeps whoever asks for a token waiting, so that others come along meanwhile."""

    def __init__(self, answers: list[Answer]) -> None:
        super().__init__(answers)
        self.is_asked = False
        self.may_answer = asyncio.Event()

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/oauth2/token":
            self.is_asked = True
            await self.may_answer.wait()
        return await super().__call__(request)


# --- the token -------------------------------------------------------------------------------------------------------


async def test_one_token_serves_many_calls_until_a_minute_before_its_end() -> None:
    gateway = SlowToken([says(TOKEN), says(an_order())])
    paypal = PayPal(SETTINGS, gateway.caller())
    calls = [asyncio.ensure_future(paypal.retrieve(("X",), our_reference=REFERENCE)) for _ in range(20)]
    await until(lambda: gateway.is_asked, what="the token being asked for")
    gateway.may_answer.set()
    await asyncio.gather(*calls)
    paths = [request.url.path for request in gateway.requests]
    assert paths.count("/v1/oauth2/token") == 1
    first = gateway.requests[0]
    assert first.headers["authorization"] == "Basic " + base64.b64encode(b"client:s3cr3t").decode()
    assert first.content == b"grant_type=client_credentials"
    assert gateway.sent.headers["authorization"] == "Bearer A21AAtoken"

    gateway.clock.move(32400 - 61)
    await paypal.retrieve(("X",), our_reference=REFERENCE)
    assert len(gateway.requests) == 22
    gateway.clock.move(1)
    gateway.answers = [says(TOKEN | {"access_token": "next"}), says(an_order())]
    await paypal.retrieve(("X",), our_reference=REFERENCE)
    assert gateway.sent.headers["authorization"] == "Bearer next"


async def test_a_refused_token_is_dropped_fetched_once_and_the_call_repeated_once_with_its_key() -> None:
    paypal, gateway = adapter_over(says({}, 401), says(TOKEN | {"access_token": "next"}), says(a_refund(), 201))
    outcome = await paypal.refund(a_call())
    assert outcome.status is OutcomeStatus.SUCCEEDED
    calls = [request for request in gateway.requests if "refund" in request.url.path]
    assert [request.headers["authorization"] for request in calls] == ["Bearer A21AAtoken", "Bearer next"]
    assert {request.headers["paypal-request-id"] for request in calls} == {"OP1-2"}


@pytest.mark.parametrize(
    "answers",
    [
        [says({}, 401), says(TOKEN), says({}, 401)],
        [says({}, 401), says({"error": "invalid_client"}, 401)],
        [refusal("PERMISSION_DENIED", 403, "NOT_AUTHORIZED")],
        [httpx.Response(429)],
        [httpx.ConnectError("refused")],
    ],
)
async def test_no_payment_fails_for_credentials_permissions_or_limits(answers: list[Answer]) -> None:
    paypal, _ = adapter_over(*answers)
    with pytest.raises(GatewayUnavailable):
        await paypal.refund(a_call())


SILENCE = httpx.ReadTimeout("no answer")
TAKES: dict[str, tuple[list[Answer], Callable[[PayPal], Awaitable[Any]]]] = {
    "capture": ([], lambda paypal: paypal.capture(a_call(OperationKind.CAPTURE))),
    "void": ([], lambda paypal: paypal.void(a_call(OperationKind.VOID))),
    "refund": ([], lambda paypal: paypal.refund(a_call())),
    "complete": ([says(an_order("APPROVED"))], lambda paypal: paypal.complete(a_call(OperationKind.COMPLETION))),
}


@pytest.mark.parametrize(("before", "take"), TAKES.values(), ids=TAKES)
@pytest.mark.parametrize(
    "after",
    [
        [says({}, 401), says(TOKEN), says({}, 401)],
        [says({}, 401), says({"error": "invalid_client"}, 401)],
        [says({}, 401), httpx.ConnectError("refused")],
        [refusal("PERMISSION_DENIED", 403, "NOT_AUTHORIZED")],
        [refusal("INVALID_RESOURCE_ID", 404)],
        [refusal("SOMETHING_ELSE")],
        [httpx.Response(429)],
    ],
    ids=["401", "401-no-token", "401-gone", "403", "404", "422", "429"],
)
async def test_no_refusal_after_a_try_without_answer_says_that_nothing_moved(
    before: list[Answer], take: Callable[[PayPal], Awaitable[Any]], after: list[Answer]
) -> None:
    paypal, _ = adapter_over(*before, SILENCE, *after)
    with pytest.raises(GatewayOutcomeUnknown):
        await take(paypal)


async def test_a_token_refused_after_silence_is_not_used_again() -> None:
    paypal, gateway = adapter_over(SILENCE, says({}, 401), says(TOKEN | {"access_token": "next"}), says(a_refund()))
    with pytest.raises(GatewayOutcomeUnknown):
        await paypal.refund(a_call())
    assert (await paypal.refund(a_call())).status is OutcomeStatus.SUCCEEDED
    assert gateway.sent.headers["authorization"] == "Bearer next"


async def test_what_ran_in_silence_is_found_after_a_refusal_of_any_kind() -> None:
    done = an_order("COMPLETED", unit={"payments": {"captures": [a_capture()], "refunds": [a_refund()]}})
    paypal, _ = adapter_over(SILENCE, refusal("SOMETHING_ELSE"), says(done))
    assert (await paypal.refund(a_call())).gateway_reference == "REF1"
    paypal, _ = adapter_over(SILENCE, refusal("CANNOT_BE_VOIDED"), says(an_authorization("VOIDED")))
    assert (await paypal.void(a_call(OperationKind.VOID))).status is OutcomeStatus.SUCCEEDED


@pytest.mark.parametrize(
    "look",
    [httpx.ConnectError("gone"), httpx.Response(429), refusal("INVALID_PARAMETER_VALUE", 400), says({}, 403)],
    ids=["gone", "429", "400", "403"],
)
@pytest.mark.parametrize(
    ("answer", "call"),
    [
        (refusal("CAPTURE_FULLY_REFUNDED"), a_call()),
        (refusal("AUTHORIZATION_ALREADY_CAPTURED"), a_call(OperationKind.CAPTURE)),
        (refusal("PREVIOUSLY_VOIDED"), a_call(OperationKind.VOID)),
        (httpx.Response(204), a_call(OperationKind.VOID)),
    ],
    ids=["refund", "capture", "void", "void-done"],
)
async def test_a_look_that_fails_leaves_the_call_before_it_unknown(
    answer: Answer, call: MoneyCall, look: Answer
) -> None:
    paypal, _ = adapter_over(answer, look)
    send = {OperationKind.REFUND: paypal.refund, OperationKind.CAPTURE: paypal.capture, OperationKind.VOID: paypal.void}
    with pytest.raises(GatewayOutcomeUnknown):
        await send[call.kind](call)


@pytest.mark.parametrize(
    "token",
    [httpx.ReadTimeout("slow"), httpx.Response(502), says({}, 400), says({"access_token": "x"}), httpx.Response(200)],
)
async def test_without_a_token_nothing_can_have_moved(token: Answer) -> None:
    gateway = ScriptedGateway([token])
    paypal = PayPal(SETTINGS, gateway.caller())
    with pytest.raises(GatewayUnavailable):
        await paypal.refund(a_call())
    assert {request.url.path for request in gateway.requests} == {"/v1/oauth2/token"}


def test_the_secret_is_not_shown() -> None:
    assert "s3cr3t" not in repr(SETTINGS)


# --- amounts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("amount", "value"),
    [
        (Money(1999, "USD"), "19.99"),
        (Money(1000, "USD"), "10.00"),
        (Money(1, "EUR"), "0.01"),
        (Money(500, "JPY"), "500"),
        (Money(12300, "HUF"), "123"),
        (Money(100, "TWD"), "1"),
        (Money(10**12, "USD"), "10000000000.00"),
    ],
)
def test_amounts_are_written_in_major_units_and_read_back_exactly(amount: Money, value: str) -> None:
    written = to_paypal(amount)
    assert written == {"currency_code": amount.currency, "value": value}
    assert from_paypal({"amount": written}) == amount


@given(st.integers(1, 10**12), st.sampled_from(sorted(CURRENCIES)))
def test_every_amount_that_paypal_takes_survives_both_ways(minor: int, currency: str) -> None:
    amount = Money(minor, currency)
    try:
        written = to_paypal(amount)
    except CurrencyNotSupported:
        assert currency in ("HUF", "TWD")
        assert minor % 100
        return
    assert from_paypal({"amount": written}) == amount


@pytest.mark.parametrize(
    "amount",
    [
        *(Money(1000, currency) for currency in ("INR", "KWD", "BHD", "AED", "SAR", "RUB", "KRW")),
        Money(101, "HUF"),
        Money(150, "TWD"),
    ],
)
def test_what_paypal_cannot_express_is_refused_before_any_call(amount: Money) -> None:
    paypal, gateway = adapter_over(says(an_order()))
    with pytest.raises(CurrencyNotSupported):
        paypal.check(amount, CaptureMode.AUTOMATIC)
    for kind in OperationKind:
        with pytest.raises(CurrencyNotSupported):
            paypal.check_operation(kind, amount)
    assert gateway.requests == []


def test_no_currency_of_paypals_has_three_decimals() -> None:
    assert {CURRENCY_EXPONENT[currency] for currency in CURRENCIES} <= {0, 2}
    assert PayPal.facts.currencies == CURRENCIES


# --- creating --------------------------------------------------------------------------------------------------------


async def test_an_order_carries_our_reference_and_the_shop_s_addresses() -> None:
    paypal, gateway = adapter_over(says(an_order(), 201))
    session = await paypal.create_session(a_request(), repeated=False)
    assert str(gateway.sent.url) == "https://paypal.test/v2/checkout/orders"
    assert gateway.sent.headers["paypal-request-id"] == "att_1"
    assert gateway.sent.headers["prefer"] == "return=representation"
    assert gateway.sent.headers["content-type"] == "application/json"
    assert json.loads(gateway.sent.content) == {
        "intent": "CAPTURE",
        "purchase_units": [
            {
                "reference_id": "default",
                "custom_id": REFERENCE,
                "invoice_id": REFERENCE,
                "description": "Order ord_1",
                "amount": USD,
            }
        ],
        "payment_source": {
            "paypal": {
                "experience_context": {
                    "return_url": "https://pay.example/api/v1/payments/pay_1/return?from=page",
                    "cancel_url": "https://pay.example/api/v1/payments/pay_1/return?from=cancel",
                    "shipping_preference": "NO_SHIPPING",
                    "user_action": "PAY_NOW",
                    "payment_method_preference": "IMMEDIATE_PAYMENT_REQUIRED",
                }
            }
        },
    }
    assert (session.gateway_reference, session.references) == ("5O190127TN364715T", ("5O190127TN364715T",))
    assert session.next_action.url == "https://paypal.test/checkoutnow?token=5O190127TN364715T"
    assert told(session.observations) == {("session_opened", "5O190127TN364715T", None)}


async def test_manual_capture_is_an_authorization_and_lines_that_add_up_are_sent() -> None:
    paypal, gateway = adapter_over(says(an_order(), 201))
    request = a_request(capture=CaptureMode.MANUAL, items=(TEA, POT))
    await paypal.create_session(request, repeated=False)
    body = json.loads(gateway.sent.content)
    assert body["intent"] == "AUTHORIZE"
    (unit,) = body["purchase_units"]
    assert unit["amount"]["breakdown"] == {"item_total": USD}
    assert [(item["name"], item["quantity"], item["unit_amount"]["value"]) for item in unit["items"]] == [
        ("Tea & cup = 100%", "2", "5.00"),
        ("قهوة", "1", "9.99"),
    ]


@pytest.mark.parametrize("items", [(TEA,), (Item("Half", 2, 6150),), tuple([TEA] * 101)])
async def test_lines_that_do_not_add_up_are_left_out(items: tuple[Item, ...]) -> None:
    order = an_order(unit={"amount": {"currency_code": "HUF", "value": "123"}})
    paypal, gateway = adapter_over(says(order, 201))
    await paypal.create_session(a_request(amount=Money(12300, "HUF"), items=items), repeated=False)
    assert "items" not in json.loads(gateway.sent.content)["purchase_units"][0]


async def test_an_order_created_without_a_source_names_its_page_otherwise() -> None:
    links = [{"rel": "approve", "href": "https://paypal.test/approve"}]
    paypal, _ = adapter_over(says(an_order("CREATED", links=links), 201))
    session = await paypal.create_session(a_request(), repeated=False)
    assert session.next_action.url == "https://paypal.test/approve"


async def test_a_replay_after_payment_has_no_page_and_says_what_happened() -> None:
    paid = an_order("COMPLETED", links=[], unit={"payments": {"captures": [a_capture()]}})
    paypal, _ = adapter_over(says(paid, 200))
    session = await paypal.create_session(a_request(), repeated=True)
    assert session.next_action.url == a_request().return_url
    assert ("captured", "CAP1", Money(1999, "USD")) in told(session.observations)


@pytest.mark.parametrize(
    "order",
    [
        an_order(unit={"custom_id": "SOMEBODYELSES"}),
        an_order(unit={"amount": {"currency_code": "USD", "value": "19.98"}}),
        an_order(unit={"amount": {"currency_code": "EUR", "value": "19.99"}}),
        an_order(links=[]),
        an_order(links=[{"rel": "payer-action", "href": "javascript:alert(1)"}]),
        an_order(purchase_units=[]),
        an_order(id=None),
        {},
    ],
)
async def test_an_answer_that_is_not_the_order_asked_for_is_no_session(order: dict[str, Any]) -> None:
    paypal, _ = adapter_over(says(order, 201))
    with pytest.raises(GatewayOutcomeUnknown):
        await paypal.create_session(a_request(), repeated=False)


# --- errors ----------------------------------------------------------------------------------------------------------

ERRORS: list[tuple[Answer, type[PayrailError]]] = [
    (refusal("PREVIOUS_REQUEST_IN_PROGRESS", 409, "RESOURCE_CONFLICT"), GatewayOutcomeUnknown),
    (refusal("DUPLICATE_REQUEST_ID"), GatewayOutcomeUnknown),
    (says({"name": "INTERNAL_SERVER_ERROR"}, 500), GatewayOutcomeUnknown),
    (httpx.Response(502, content=b"<html>"), GatewayOutcomeUnknown),
    (says({}, 503), GatewayOutcomeUnknown),
    (httpx.ReadTimeout("slow"), GatewayOutcomeUnknown),
    (httpx.Response(302, headers={"location": "https://evil.example"}), GatewayOutcomeUnknown),
    (httpx.Response(422, content=b"<html>"), GatewayOutcomeUnknown),
    (httpx.Response(404, content=b"<html>no such page"), GatewayOutcomeUnknown),
    (says(a_refund("LOST"), 201), GatewayOutcomeUnknown),
    (says(a_refund(amount={"currency_code": "USD", "value": "19.98"}), 201), GatewayOutcomeUnknown),
    (says({}, 201), GatewayOutcomeUnknown),
    (says([], 201), GatewayOutcomeUnknown),
    (refusal("INVALID_RESOURCE_ID", 404, "RESOURCE_NOT_FOUND"), GatewayObjectNotFound),
    (refusal("INVALID_PARAMETER_VALUE", 400, "INVALID_REQUEST"), GatewayRejected),
    (refusal("REFUND_FAILED_INSUFFICIENT_FUNDS"), GatewayRejected),
    (refusal("TRANSACTION_DISPUTED"), GatewayRejected),
]


@pytest.mark.parametrize(("answer", "error"), ERRORS)
async def test_each_answer_says_whether_money_may_have_moved(answer: Answer, error: type[PayrailError]) -> None:
    paypal, _ = adapter_over(answer)
    with pytest.raises(PayrailError) as raised:
        await paypal.refund(a_call())
    if error is GatewayOutcomeUnknown:
        assert isinstance(raised.value, GatewayOutcomeUnknown)
    else:
        assert type(raised.value) is error


async def test_a_refusal_carries_paypals_issue() -> None:
    paypal, _ = adapter_over(refusal("REFUND_TIME_LIMIT_EXCEEDED"))
    with pytest.raises(GatewayRejected) as raised:
        await paypal.refund(a_call())
    assert raised.value.gateway_code == "REFUND_TIME_LIMIT_EXCEEDED"


# --- money calls -----------------------------------------------------------------------------------------------------


async def test_a_capture_names_its_amount_its_reference_and_whether_it_is_the_last() -> None:
    amount = {"currency_code": "USD", "value": "7.00"}
    paypal, gateway = adapter_over(says(a_capture(amount=amount), 201))
    call = a_call(
        OperationKind.CAPTURE, amount=Money(700, "USD"), is_whole=False, is_final=True, reason="Shipped " + "x" * 300
    )
    outcome = await paypal.capture(call)
    assert gateway.sent.url.path == "/v2/payments/authorizations/AUTH1/capture"
    body = json.loads(gateway.sent.content)
    assert len(body.pop("note_to_payer")) == 255
    assert body == {"amount": amount, "final_capture": True, "invoice_id": "OP1"}
    assert gateway.sent.headers["paypal-request-id"] == "OP1-2"
    assert told(outcome.observations) == {("captured", "CAP1", Money(700, "USD")), ("released", "AUTH1", None)}


async def test_a_last_capture_releases_whatever_it_was_thought_to_be_once_it_is_taken() -> None:
    part = {"amount": {"currency_code": "USD", "value": "7.00"}}
    call = a_call(OperationKind.CAPTURE, amount=Money(700, "USD"), is_whole=True, is_final=True)
    taken = {("captured", "CAP1", Money(700, "USD")), ("released", "AUTH1", None)}
    for status, expected in (("COMPLETED", taken), ("PENDING", set()), ("DECLINED", set())):
        paypal, _ = adapter_over(says(a_capture(status, **part), 201))
        outcome = await paypal.capture(call)
        assert told(outcome.observations) == expected


async def test_what_a_pending_last_capture_leaves_is_held_until_paypal_decides() -> None:
    def order(status: str) -> dict[str, Any]:
        part = a_capture(status, amount={"currency_code": "USD", "value": "7.00"})
        payments = {"authorizations": [an_authorization("CAPTURED")], "captures": [part]}
        return an_order("COMPLETED", intent="AUTHORIZE", unit={"payments": payments})

    for status, is_released in (("PENDING", False), ("COMPLETED", True)):
        paypal, _ = adapter_over(says(order(status)))
        snapshot = await paypal.retrieve(("X",), our_reference=REFERENCE)
        assert (FactKind.RELEASED in {each.kind for each in snapshot.observations}) is is_released


async def test_a_refund_carries_our_reference_in_both_of_paypals_fields() -> None:
    paypal, gateway = adapter_over(says(a_refund("PENDING", status_details={"reason": "ECHECK"}), 201))
    outcome = await paypal.refund(a_call(reason="It broke"))
    assert gateway.sent.url.path == "/v2/payments/captures/CAP1/refund"
    assert json.loads(gateway.sent.content) == {
        "amount": USD,
        "custom_id": "OP1",
        "invoice_id": "OP1",
        "note_to_payer": "It broke",
    }
    assert outcome.status is OutcomeStatus.PENDING
    (fact,) = outcome.observations
    assert (fact.kind, fact.about, fact.operation) == (FactKind.REFUND_PENDING, "CAP1", "OP1")


async def test_a_void_has_no_key_and_is_looked_at_where_paypal_answers_without_a_body() -> None:
    paypal, gateway = adapter_over(httpx.Response(204), says(an_authorization("VOIDED")))
    outcome = await paypal.void(a_call(OperationKind.VOID))
    assert outcome.status is OutcomeStatus.SUCCEEDED
    void, look = gateway.requests[1:]
    assert (void.url.path, look.url.path) == (
        "/v2/payments/authorizations/AUTH1/void",
        "/v2/payments/authorizations/AUTH1",
    )
    assert "paypal-request-id" not in void.headers


async def test_a_void_that_left_the_hold_in_place_is_not_believed() -> None:
    paypal, _ = adapter_over(says(an_authorization("CREATED")))
    with pytest.raises(GatewayOutcomeUnknown):
        await paypal.void(a_call(OperationKind.VOID))


async def test_completing_looks_first_and_posts_an_empty_object() -> None:
    done = an_order("COMPLETED", unit={"payments": {"captures": [a_capture()]}})
    paypal, gateway = adapter_over(says(an_order("APPROVED")), says(done, 201))
    outcome = await paypal.complete(a_call(OperationKind.COMPLETION))
    assert gateway.sent.url.path == "/v2/checkout/orders/5O190127TN364715T/capture"
    assert (gateway.sent.content, gateway.sent.headers["paypal-request-id"]) == (b"{}", "OP1-2")
    assert (outcome.status, outcome.gateway_reference) == (OutcomeStatus.SUCCEEDED, "CAP1")


async def test_a_manual_payment_is_completed_by_authorizing_it() -> None:
    done = an_order("COMPLETED", intent="AUTHORIZE", unit={"payments": {"authorizations": [an_authorization()]}})
    paypal, gateway = adapter_over(says(an_order("APPROVED", intent="AUTHORIZE")), says(done, 201))
    outcome = await paypal.complete(a_call(OperationKind.COMPLETION, capture=CaptureMode.MANUAL))
    assert gateway.sent.url.path.endswith("/authorize")
    (fact,) = outcome.observations
    assert (fact.kind, fact.object_reference) == (FactKind.AUTHORIZED, "AUTH1")
    assert fact.capture_before == datetime(2026, 1, 30, 0, 0, 1, tzinfo=UTC)


@pytest.mark.parametrize("issue", ["ORDER_ALREADY_CAPTURED", "ORDER_ALREADY_AUTHORIZED", "ORDER_COMPLETED_OR_VOIDED"])
async def test_what_was_completed_meanwhile_is_answered_with_what_is_there(issue: str) -> None:
    done = an_order("COMPLETED", unit={"payments": {"captures": [a_capture()]}})
    paypal, _ = adapter_over(says(an_order("APPROVED")), refusal(issue), says(done))
    assert (await paypal.complete(a_call(OperationKind.COMPLETION))).gateway_reference == "CAP1"
    paypal, _ = adapter_over(says(an_order("APPROVED")), refusal(issue), says(an_order("VOIDED")))
    with pytest.raises(GatewayRejected) as raised:
        await paypal.complete(a_call(OperationKind.COMPLETION))
    assert raised.value.gateway_code == issue


@pytest.mark.parametrize("issue", ["INSTRUMENT_DECLINED", "PAYER_CANNOT_PAY", "ORDER_NOT_APPROVED", "ORDER_EXPIRED"])
async def test_a_decline_is_a_refusal(issue: str) -> None:
    paypal, _ = adapter_over(says(an_order("APPROVED")), refusal(issue))
    with pytest.raises(GatewayRejected) as raised:
        await paypal.complete(a_call(OperationKind.COMPLETION))
    assert raised.value.gateway_code == issue


async def test_a_completion_that_is_under_way_is_not_known() -> None:
    paypal, _ = adapter_over(says(an_order("APPROVED")), refusal("ORDER_COMPLETION_IN_PROGRESS"))
    with pytest.raises(GatewayOutcomeUnknown):
        await paypal.complete(a_call(OperationKind.COMPLETION))


async def test_a_capture_that_paypal_denies_is_a_failure_with_its_reason() -> None:
    denied = a_capture("DECLINED", status_details={"reason": "DECLINED_BY_RISK_FRAUD_FILTERS"})
    done = an_order("COMPLETED", unit={"payments": {"captures": [denied]}})
    paypal, _ = adapter_over(says(an_order("APPROVED")), says(done, 201))
    outcome = await paypal.complete(a_call(OperationKind.COMPLETION))
    assert (outcome.status, outcome.failure_code) == (OutcomeStatus.FAILED, "DECLINED_BY_RISK_FRAUD_FILTERS")


async def test_a_refusal_that_says_done_is_somebody_elses_doing_unless_it_carries_our_reference() -> None:
    theirs = an_order("COMPLETED", unit={"payments": {"captures": [a_capture()], "refunds": [a_refund(custom_id="X")]}})
    paypal, _ = adapter_over(refusal("CAPTURE_FULLY_REFUNDED"), says(theirs))
    with pytest.raises(GatewayRejected) as raised:
        await paypal.refund(a_call())
    assert raised.value.gateway_code == "CAPTURE_FULLY_REFUNDED"


async def test_an_order_that_is_gone_proves_nothing_about_an_operation() -> None:
    for kind in (OperationKind.REFUND, OperationKind.CAPTURE, OperationKind.COMPLETION, OperationKind.VOID):
        paypal, _ = adapter_over(refusal("INVALID_RESOURCE_ID", 404))
        with pytest.raises(GatewayOutcomeUnknown):
            await paypal.find_operation(a_call(kind))


# --- operations whose order PayPal no longer shows -----------------------------------------------------------------

GONE = refusal("INVALID_RESOURCE_ID", 404)


def without_order(**objects: dict[str, Any]) -> Callable[[httpx.Request], httpx.Response]:
    """Answers by the last word of the path; all else, the orders with it, is gone."""

    def answer(request: httpx.Request) -> httpx.Response:
        kind, name = request.url.path.rsplit("/", 2)[1:]
        found = objects.get(name)
        return says(found) if found is not None and (kind == "orders") == ("purchase_units" in found) else GONE

    return answer


REFUND_CALL = a_call(references=("5O190127TN364715T", "CAP1", "REF0", "REF1"))
CAPTURE_CALL = a_call(OperationKind.CAPTURE, references=("5O190127TN364715T", "AUTH1", "CAP0", "CAP1"))


async def test_operations_are_found_by_the_ids_that_outlive_their_order() -> None:
    told_of = without_order(
        CAP1=a_capture("PARTIALLY_REFUNDED"), REF0=a_refund(id="REF0", custom_id="OTHER"), REF1=a_refund()
    )
    paypal, _ = adapter_over(told_of)
    found = await paypal.find_operation(REFUND_CALL)
    assert found is not None
    assert (found.status, found.gateway_reference) == (OutcomeStatus.SUCCEEDED, "REF1")

    captured = without_order(
        AUTH1=an_authorization("CAPTURED"), CAP0=a_capture(id="CAP0"), CAP1=a_capture(invoice_id="OP1")
    )
    paypal, _ = adapter_over(captured)
    found = await paypal.find_operation(CAPTURE_CALL)
    assert found is not None
    assert (found.status, found.gateway_reference) == (OutcomeStatus.SUCCEEDED, "CAP1")


async def test_what_nothing_was_taken_of_proves_absence() -> None:
    for capture in (a_capture(), a_capture("PENDING")):
        paypal, _ = adapter_over(without_order(CAP1=capture))
        assert await paypal.find_operation(REFUND_CALL) is None
    paypal, _ = adapter_over(without_order(AUTH1=an_authorization()))
    assert await paypal.find_operation(CAPTURE_CALL) is None


async def test_a_known_refund_counts_before_what_the_capture_says() -> None:
    """A pending refund may not show on its capture yet."""
    paypal, _ = adapter_over(without_order(CAP1=a_capture(), REF1=a_refund("PENDING")))
    found = await paypal.find_operation(REFUND_CALL)
    assert found is not None
    assert found.status is OutcomeStatus.PENDING


@pytest.mark.parametrize(
    ("objects", "call"),
    [
        ({"CAP1": a_capture("PARTIALLY_REFUNDED")}, REFUND_CALL),
        ({"CAP1": a_capture("REFUNDED"), "REF1": a_refund(custom_id="OTHER")}, REFUND_CALL),
        ({"CAP1": a_capture("SOMETHING_NEW")}, REFUND_CALL),
        ({"REF0": a_refund(custom_id="OTHER")}, REFUND_CALL),
        ({"AUTH1": an_authorization("PARTIALLY_CAPTURED")}, CAPTURE_CALL),
        ({"AUTH1": an_authorization("VOIDED")}, CAPTURE_CALL),
        ({}, CAPTURE_CALL),
    ],
)
async def test_what_cannot_be_listed_proves_nothing(objects: dict[str, Any], call: MoneyCall) -> None:
    paypal, _ = adapter_over(without_order(**objects))
    with pytest.raises(GatewayOutcomeUnknown):
        await paypal.find_operation(call)


async def test_the_order_is_found_by_what_was_made_of_it() -> None:
    order = an_order("COMPLETED", unit={"payments": {"captures": [a_capture()], "refunds": [a_refund()]}})
    objects = {"CAP1": a_capture("PARTIALLY_REFUNDED"), "5O190127TN364715T": order}
    paypal, _ = adapter_over(without_order(**objects))
    found = await paypal.find_operation(a_call(references=("CAP1",)))
    assert found is not None
    assert found.gateway_reference == "REF1"


def test_each_kind_of_key_is_believed_as_long_as_paypal_keeps_it() -> None:
    assert PayPal.facts.key_valid_for == timedelta(days=40)  # of 45
    assert PayPal.facts.completion_key_valid_for == timedelta(hours=5)  # of 6


# --- retrieving ------------------------------------------------------------------------------------------------------

RETRIEVED: list[tuple[dict[str, Any], set[tuple[str, str, Money | None]]]] = [
    (an_order("CREATED"), {("session_opened", "5O190127TN364715T", None)}),
    (an_order("SAVED"), {("session_opened", "5O190127TN364715T", None)}),
    (an_order("PAYER_ACTION_REQUIRED"), {("session_opened", "5O190127TN364715T", None)}),
    (an_order("APPROVED"), {("approved", "5O190127TN364715T", Money(1999, "USD"))}),
    (an_order("VOIDED"), {("canceled", "5O190127TN364715T", None)}),
    (an_order("COMPLETED"), set()),
    (an_order("SOMETHING_NEW"), set()),
    *(
        (an_order("COMPLETED", unit={"payments": {"captures": [a_capture(status)]}}), {(fact, "CAP1", amount)})
        for status, fact, amount in (
            ("COMPLETED", "captured", Money(1999, "USD")),
            ("PARTIALLY_REFUNDED", "captured", Money(1999, "USD")),
            ("REFUNDED", "captured", Money(1999, "USD")),
            ("PENDING", "processing", None),
            ("DECLINED", "failed", None),
            ("FAILED", "failed", None),
        )
    ),
    *(
        (
            an_order("COMPLETED", intent="AUTHORIZE", unit={"payments": {"authorizations": [authorization]}}),
            {(fact, "AUTH1", amount) for fact, amount in facts},
        )
        for authorization, facts in (
            (an_authorization("CREATED"), [("authorized", Money(1999, "USD"))]),
            (an_authorization("PENDING"), [("processing", None)]),
            (an_authorization("DENIED"), [("failed", None)]),
            (an_authorization("VOIDED"), [("authorized", Money(1999, "USD")), ("canceled", None)]),
            (
                an_authorization("VOIDED", update_time="2026-01-30T00:00:01Z"),
                [("authorized", Money(1999, "USD")), ("expired", None)],
            ),
        )
    ),
]


@pytest.mark.parametrize(("order", "expected"), RETRIEVED)
async def test_the_deepest_object_says_what_happened(
    order: dict[str, Any], expected: set[tuple[str, str, Money | None]]
) -> None:
    paypal, _ = adapter_over(says(order))
    snapshot = await paypal.retrieve(("5O190127TN364715T",), our_reference=REFERENCE)
    assert told(snapshot.observations) == expected
    assert snapshot.references[0] == "5O190127TN364715T"


@pytest.mark.parametrize(
    ("status", "fact"),
    [
        ("COMPLETED", "refund_succeeded"),
        ("PENDING", "refund_pending"),
        ("FAILED", "refund_failed"),
        ("CANCELLED", "refund_failed"),
    ],
)
async def test_refunds_are_told_with_their_capture_and_operation(status: str, fact: str) -> None:
    payments = {
        "captures": [a_capture()],
        "refunds": [a_refund(status), a_refund("COMPLETED", id="REF2", custom_id=REFERENCE, links=[])],
    }
    paypal, _ = adapter_over(says(an_order("COMPLETED", unit={"payments": payments})))
    snapshot = await paypal.retrieve(("X",), our_reference=REFERENCE)
    ours, theirs = snapshot.observations[:2]
    assert (ours.kind, ours.object_reference, ours.about, ours.operation) == (fact, "REF1", "CAP1", "OP1")
    assert (theirs.object_reference, theirs.about, theirs.operation) == ("REF2", "CAP1", None)


async def test_ids_are_tried_in_turn_and_another_payments_order_is_not_believed() -> None:
    other = an_order("COMPLETED", unit={"custom_id": "SOMEBODYELSES", "payments": {"captures": [a_capture()]}})
    paypal, gateway = adapter_over(refusal("INVALID_RESOURCE_ID", 404), says(other), says(an_order("APPROVED")))
    snapshot = await paypal.retrieve(("CAP1", "OTHER", "5O190127TN364715T"), our_reference=REFERENCE)
    assert {fact for fact, _, _ in told(snapshot.observations)} == {"approved"}
    assert [request.url.path.rsplit("/", 1)[1] for request in gateway.requests[1:]] == [
        "CAP1",
        "OTHER",
        "5O190127TN364715T",
    ]


async def test_captures_and_refunds_outlive_their_order() -> None:
    gone = refusal("INVALID_RESOURCE_ID", 404)
    paypal, _ = adapter_over(gone, gone, says(a_capture()), gone, says(a_refund()))
    snapshot = await paypal.retrieve(("CAP1", "REF1"), our_reference=REFERENCE)
    assert told(snapshot.observations) == {
        ("captured", "CAP1", Money(1999, "USD")),
        ("refund_succeeded", "REF1", Money(1999, "USD")),
    }


@pytest.mark.parametrize("answer", [refusal("INVALID_RESOURCE_ID", 404), refusal("ORDER_EXPIRED")])
async def test_an_unknown_order_has_expired_once_it_is_old_and_not_before(answer: httpx.Response) -> None:
    paypal, gateway = adapter_over(answer)
    reference = TimeOrderedIds(gateway.clock, SeededRandomness()).new_reference()
    gateway.clock.move(timedelta(hours=6, minutes=59).total_seconds())
    with pytest.raises(GatewayObjectNotFound):
        await paypal.retrieve(("5O190127TN364715T",), our_reference=reference)
    gateway.clock.move(120)
    snapshot = await paypal.retrieve(("5O190127TN364715T",), our_reference=reference)
    assert told(snapshot.observations) == {("expired", "5O190127TN364715T", None)}


async def test_a_payment_without_references_is_not_asked_about() -> None:
    paypal, gateway = adapter_over(says(an_order()))
    with pytest.raises(GatewayObjectNotFound):
        await paypal.retrieve((), our_reference=REFERENCE)
    assert gateway.requests == []


def test_a_reference_tells_when_it_was_made() -> None:
    reference = TimeOrderedIds(FakeClock(), SeededRandomness()).new_reference()
    assert time_of_reference(reference) == A_MOMENT
    assert time_of_reference("PP000000000000000000u") is None
    assert time_of_reference("") is None


# --- webhooks --------------------------------------------------------------------------------------------------------


def an_event(event_type: str, resource: dict[str, Any], resource_type: str = "capture") -> dict[str, Any]:
    return {
        "id": "WH-1",
        "event_version": "1.0",
        "create_time": "2026-01-01T00:00:02.000Z",
        "resource_type": resource_type,
        "event_type": event_type,
        "resource": resource,
    }


def translated(event: dict[str, Any]) -> GatewayEvent:
    return adapter_over(says({}))[0].translate_webhook(a_delivery(event))


ASKED = [
    *(
        (f"PAYMENT.CAPTURE.{name}", a_capture(), ("5O190127TN364715T", "CAP1"))
        for name in ("COMPLETED", "PENDING", "DENIED", "DECLINED")
    ),
    ("PAYMENT.AUTHORIZATION.CREATED", an_authorization(), ("AUTH1",)),
    ("PAYMENT.AUTHORIZATION.VOIDED", an_authorization("VOIDED"), ("AUTH1",)),
    *(
        (name, a_refund(), ("CAP1", "REF1"))
        for name in (
            "PAYMENT.CAPTURE.REFUNDED",
            "PAYMENT.REFUND.PENDING",
            "PAYMENT.REFUND.COMPLETED",
            "PAYMENT.REFUND.FAILED",
        )
    ),
    ("CHECKOUT.ORDER.COMPLETED", an_order("COMPLETED"), ("5O190127TN364715T",)),
]


@pytest.mark.parametrize(("event_type", "resource", "references"), ASKED)
def test_events_about_money_are_a_reason_to_ask(
    event_type: str, resource: dict[str, Any], references: tuple[str, ...]
) -> None:
    event = translated(an_event(event_type, resource))
    assert (event.references, event.must_ask, event.observations) == (references, True, ())
    assert event.our_references[0] in (REFERENCE, "OP1")


def test_an_approval_is_believed_because_completing_looks_first() -> None:
    event = translated(an_event("CHECKOUT.ORDER.APPROVED", an_order("APPROVED", update_time="2026-01-01T00:00:05Z")))
    (fact,) = event.observations
    assert (event.must_ask, fact.kind, fact.reason) == (False, FactKind.APPROVED, "2026-01-01T00:00:05Z")
    without = translated(an_event("CHECKOUT.ORDER.APPROVED", an_order("APPROVED")))
    assert without.observations[0].reason == "2026-01-01T00:00:02.000Z"


def test_an_approval_that_paypal_took_back_ends_the_payment() -> None:
    resource = {"order_id": "5O190127TN364715T", "purchase_units": [{"custom_id": REFERENCE}]}
    event = translated(an_event("CHECKOUT.PAYMENT-APPROVAL.REVERSED", resource))
    assert told(event.observations) == {("expired", "5O190127TN364715T", None)}
    assert (event.references, event.our_references) == (("5O190127TN364715T",), (REFERENCE,))


def test_a_reversal_is_a_fact_of_its_own_or_a_refund_to_be_asked_for() -> None:
    event = translated(an_event("PAYMENT.CAPTURE.REVERSED", a_capture()))
    assert told(event.observations) == {("capture_reversed", "CAP1", Money(1999, "USD"))}
    refund = translated(an_event("PAYMENT.CAPTURE.REVERSED", a_refund(), "refund"))
    assert (refund.references, refund.must_ask, refund.observations) == (("CAP1", "REF1"), True, ())


def a_dispute(**changes: Any) -> dict[str, Any]:
    dispute = {
        "dispute_id": "PP-D-1",
        "disputed_transactions": [{"seller_transaction_id": "CAP1", "custom": REFERENCE}],
        "reason": "UNAUTHORISED",
        "status": "OPEN",
        "dispute_amount": {"currency_code": "USD", "value": "12.00"},
    }
    return dispute | changes


@pytest.mark.parametrize(
    ("event_type", "changes", "fact"),
    [
        ("CREATED", {}, "dispute_opened"),
        ("UPDATED", {"status": "UNDER_REVIEW"}, "dispute_opened"),
        ("UPDATED", {"status": "RESOLVED", "dispute_outcome": {"outcome_code": "ACCEPTED"}}, "dispute_lost"),
        *(
            ("RESOLVED", {"status": "RESOLVED", "dispute_outcome": {"outcome_code": code}}, fact)
            for code, fact in (
                ("RESOLVED_SELLER_FAVOUR", "dispute_won"),
                ("CANCELED_BY_BUYER", "dispute_won"),
                ("DENIED", "dispute_won"),
                ("RESOLVED_WITH_PAYOUT", "dispute_won"),
                ("NONE", "dispute_won"),
                ("RESOLVED_BUYER_FAVOUR", "dispute_lost"),
                ("ACCEPTED", "dispute_lost"),
            )
        ),
    ],
)
def test_disputes_follow_paypals_outcome(event_type: str, changes: dict[str, Any], fact: str) -> None:
    event = translated(an_event(f"CUSTOMER.DISPUTE.{event_type}", a_dispute(**changes), "dispute"))
    (observation,) = event.observations
    assert (observation.kind, observation.object_reference, observation.about) == (fact, "PP-D-1", "CAP1")
    assert observation.amount == Money(1200, "USD")
    assert (event.references, event.our_references, event.must_ask) == (("CAP1",), (REFERENCE,), False)


@pytest.mark.parametrize(
    "event",
    [
        an_event("CUSTOMER.DISPUTE.RESOLVED", a_dispute(status="RESOLVED"), "dispute"),
        an_event("CUSTOMER.DISPUTE.CREATED", a_dispute(disputed_transactions=[]), "dispute"),
        an_event(
            "CUSTOMER.DISPUTE.CREATED", a_dispute(dispute_amount={"currency_code": "XXX", "value": "1"}), "dispute"
        ),
        an_event("CHECKOUT.ORDER.APPROVED", an_order(purchase_units="none")),
        an_event("PAYMENT.CAPTURE.COMPLETED", {}),
        {"id": "WH-1"},
    ],
)
def test_what_is_not_as_documented_goes_to_a_person(event: dict[str, Any]) -> None:
    with pytest.raises(UnreadableWebhook):
        translated(event)


def test_other_events_are_ignored() -> None:
    assert translated(an_event("BILLING.PLAN.CREATED", {})).ignored == "event_type_not_used"


KEYS = (
    "id event_type resource resource_type create_time purchase_units amount value currency_code custom_id links rel "
    "href supplementary_data related_ids order_id disputed_transactions seller_transaction_id dispute_amount status "
    "dispute_outcome outcome_code dispute_id"
).split()
VALUES: list[Any] = [
    *(event_type for event_type, _, _ in ASKED),
    "CHECKOUT.ORDER.APPROVED",
    "CUSTOMER.DISPUTE.CREATED",
    "CUSTOMER.DISPUTE.RESOLVED",
    "PAYMENT.CAPTURE.REVERSED",
    "USD",
    "10.00",
    "2026-01-01T00:00:00Z",
    "up",
]


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(json_around(KEYS, VALUES))
def test_no_body_is_more_than_unreadable(body: str) -> None:
    paypal, _ = adapter_over(says({}))
    try:
        paypal.translate_webhook(a_delivery(body))
    except UnreadableWebhook:
        return


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(json_around(KEYS, VALUES))
async def test_no_answer_is_more_than_not_understood(body: str) -> None:
    content = body.encode("utf-8", "surrogatepass")
    for status in (200, 422):
        paypal, _ = adapter_over(httpx.Response(status, content=content))
        for ask in (partial(paypal.refund, a_call()), partial(paypal.retrieve, ("X",), our_reference=REFERENCE)):
            try:
                await ask()
            except PayrailError:
                continue
