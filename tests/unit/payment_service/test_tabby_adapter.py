"""The Tabby adapter, against the fact sheet (gateways/tabby.md): what goes out, and what each answer means."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from structlog.testing import capture_logs

from services.payment_service.domain.errors import CapabilityNotSupported, CurrencyNotSupported
from services.payment_service.domain.models import CaptureMode, Customer, Fact, FactSource, PaymentStatus, Terms
from services.payment_service.domain.operations import OperationKind
from services.payment_service.domain.transitions import reduce_facts
from services.payment_service.gateways.port import Capability, MoneyCall, OutcomeStatus, UnreadableWebhook
from services.payment_service.gateways.tabby import DEFINITION, Tabby
from services.payment_service.gateways.tabby.sessions import written
from shared.errors import (
    GatewayObjectNotFound,
    GatewayOutcomeUnknown,
    GatewayRejected,
    GatewayUnavailable,
)
from shared.money import Money
from tests.support.clock import A_MOMENT
from tests.support.tabby import AED_140, AED_200, AED_340, KWD_12, a_money_call, tabby_settings
from tests.unit.payment_service.gateway_world import (
    Answer,
    ScriptedGateway,
    a_delivery,
    a_request,
    json_around,
    says,
    told,
)

REFERENCE = "PR00000000000000001A"
OPERATION = "OP00000000000000001A"
PAYMENT = "5f1c2b7e-3d44-4c58-9a0e-8b1f6a2d9c31"
SESSION = "0b0f6f0e-6a0e-4a5a-9c7a-3d0a7a1f0001"
PAGE = f"page:{PAYMENT}"
CREATED_AT = datetime(2026, 3, 1, 9, tzinfo=UTC)
REQUEST = a_request(
    amount=AED_340, customer=Customer("ada@example.com", "Ada", "+971 (50) 000-0001"), description="Order 1001"
)


def adapter_over(*answers: Answer, **changes: Any) -> tuple[Tabby, ScriptedGateway]:
    gateway = ScriptedGateway(list(answers))
    options: dict[str, Any] = {"api_base": "https://tabby.test/", "disputes": False}
    return Tabby(tabby_settings(**(options | changes)), gateway.caller()), gateway


def refuses(status: int = 400, error_type: str | None = "bad_data", text: str | None = "no") -> httpx.Response:
    found = {"status": "error", "errorType": error_type, "error": text}
    return says({key: value for key, value in found.items() if value is not None}, status)


def a_session(**changes: Any) -> dict[str, Any]:
    session = {
        "id": SESSION,
        "status": "created",
        "payment": {"id": PAYMENT, "status": "CREATED"},
        "configuration": {
            "available_products": {"installments": [{"web_url": "https://checkout.tabby.ai/?sessionId=x"}]},
            "products": {"installments": {"is_available": True, "rejection_reason": None}},
        },
    }
    return session | changes


def a_capture(amount: str = "140.00", reference: str = OPERATION, number: int = 1) -> dict[str, Any]:
    identifier = f"c0a80101-0000-4000-8000-{number:012d}"
    return {"id": identifier, "amount": amount, "created_at": "2026-03-02T10:00:00Z", "reference_id": reference}


def a_refund(amount: str = "40.00", reference: str = OPERATION, number: int = 1) -> dict[str, Any]:
    return a_capture(amount, reference, number) | {"id": f"d0a80101-0000-4000-8000-{number:012d}", "reason": "damaged"}


def a_payment(status: str = "AUTHORIZED", **changes: Any) -> dict[str, Any]:
    payment = {
        "id": PAYMENT,
        "created_at": "2026-03-01T09:00:00Z",
        "expires_at": "2026-03-01T09:30:00Z",
        "status": status,
        "is_test": True,
        "amount": "340.00",
        "currency": "AED",
        "order": {"reference_id": REFERENCE},
        "captures": None,
        "refunds": None,
        "meta": {"order_id": "ord_1", "payment_id": "pay_1", "capture": "manual"},
    }
    return payment | changes


def a_call(kind: OperationKind, amount: Money = AED_140, **changes: Any) -> MoneyCall:
    values = {"is_whole": False, "is_final": False, "first_sent_at": A_MOMENT}
    return a_money_call(kind, PAYMENT, amount, **(values | changes))


A_CAPTURE = a_call(OperationKind.CAPTURE)
A_REFUND = a_call(OperationKind.REFUND, Money(4_000, "AED"))
A_VOID = a_call(OperationKind.VOID, AED_340)
A_COMPLETION = a_call(OperationKind.COMPLETION, AED_340, capture=CaptureMode.AUTOMATIC)


# --- what it can do ------------------------------------------------------------------------------------------------


def test_every_capability_is_offered_or_its_absence_has_a_reason() -> None:
    for facts in (
        DEFINITION.facts,
        adapter_over(says({}))[0].facts,
        adapter_over(says({}), auto_capture=True)[0].facts,
    ):
        assert facts.capabilities | facts.not_offered.keys() == frozenset(Capability)
        assert not facts.capabilities & facts.not_offered.keys()
    assert DEFINITION.required == ("TABBY_SECRET_KEY", "TABBY_MERCHANT_CODE")


@pytest.mark.parametrize(
    ("host", "currencies"),
    [
        ("api.tabby.ai", frozenset({"AED", "KWD"})),
        ("api.tabby.sa", frozenset({"SAR"})),
        ("tabby.test", frozenset({"AED", "KWD", "SAR"})),
    ],
)
def test_the_region_says_which_currencies_there_are(host: str, currencies: frozenset[str]) -> None:
    tabby, _ = adapter_over(says({}), api_base=f"https://{host}")
    assert tabby.facts.currencies == currencies
    for currency in ("AED", "KWD", "SAR"):
        if currency in currencies:
            tabby.check(Money(1, currency), CaptureMode.MANUAL)
        else:
            with pytest.raises(CurrencyNotSupported):
                tabby.check(Money(1, currency), CaptureMode.MANUAL)
    narrowed, _ = adapter_over(says({}), api_base=f"https://{host}", currencies="kwd,sar")
    assert narrowed.facts.currencies == currencies & {"KWD", "SAR"}


def test_a_currency_that_the_region_does_not_have_is_refused_at_the_start() -> None:
    with pytest.raises(ValueError, match="TABBY_API_BASE"):
        Tabby.build(tabby_settings("https://api.tabby.sa", currencies="AED"), tools=None)  # type: ignore[arg-type]


def test_an_account_that_captures_by_itself_holds_nothing_for_us() -> None:
    tabby, _ = adapter_over(says({}), auto_capture=True)
    tabby.check(AED_340, CaptureMode.AUTOMATIC)
    with pytest.raises(CapabilityNotSupported):
        tabby.check(AED_340, CaptureMode.MANUAL)
    for amount in (Money(100, "USD"), Money(0, "AED")):
        with pytest.raises(CurrencyNotSupported):
            tabby.check_operation(OperationKind.REFUND, amount)


@pytest.mark.parametrize(
    ("minor", "currency", "text"),
    [(34_000, "AED", "340.00"), (5, "SAR", "0.05"), (12_345, "KWD", "12.345"), (10, "KWD", "0.010")],
)
def test_amounts_have_the_currencys_own_digits(minor: int, currency: str, text: str) -> None:
    assert written(Money(minor, currency)) == text


# --- sessions ------------------------------------------------------------------------------------------------------


async def test_a_session_is_asked_for_with_every_required_field() -> None:
    tabby, gateway = adapter_over(says(a_session()), api_base="https://api.tabby.ai")
    session = await tabby.create_session(REQUEST, repeated=False)
    assert str(gateway.sent.url) == "https://api.tabby.ai/api/v2/checkout"
    assert gateway.sent.headers["authorization"] == "Bearer sk_test_00000000-0000-0000-0000-00000000000a"
    assert json.loads(gateway.sent.content) == {
        "merchant_code": "ourstore",
        "lang": "en",
        "merchant_urls": {"success": REQUEST.return_url, "cancel": REQUEST.cancel_url, "failure": REQUEST.return_url},
        "payment": {
            "amount": "340.00",
            "currency": "AED",
            "description": "Order 1001",
            "buyer": {"name": "Ada", "email": "ada@example.com", "phone": "+971500000001"},
            "shipping_address": {"city": "N/A", "address": "N/A", "zip": "00000"},
            "buyer_history": {"registered_since": "2026-01-02T03:04:05Z", "loyalty_level": 0},
            "order_history": [],
            "order": {
                "reference_id": REFERENCE,
                "items": [{"title": "Order 1001", "quantity": 1, "unit_price": "340.00", "category": "general"}],
            },
            "meta": {"order_id": "ord_1", "payment_id": "pay_1", "capture": "automatic"},
        },
    }
    assert session.next_action.to_json() == {"type": "redirect", "url": "https://checkout.tabby.ai/?sessionId=x"}
    assert (session.gateway_reference, session.references) == (PAYMENT, (PAYMENT, SESSION))
    assert session.expires_at == A_MOMENT + timedelta(minutes=30)
    assert told(session.observations) == {("session_opened", PAGE, None)}


@pytest.mark.parametrize(
    ("customer", "name", "phone"),
    [
        (Customer("a@example.com", "نورة\n الراشد"), "نورة الراشد", ""),
        (Customer("a@example.com", "x" * 400, "call me"), "x" * 255, ""),
        (Customer("a@example.com", "\x00", "0500000001"), "a@example.com", "0500000001"),
    ],
)
async def test_a_name_or_a_phone_never_fails_a_payment(customer: Customer, name: str, phone: str) -> None:
    tabby, gateway = adapter_over(says(a_session()))
    await tabby.create_session(replace(REQUEST, customer=customer), repeated=False)
    buyer = json.loads(gateway.sent.content)["payment"]["buyer"]
    assert (buyer["name"], buyer["phone"]) == (name, phone)


@pytest.mark.parametrize("reason", ["not_available", "order_amount_too_high", "order_amount_too_low", "news", None])
async def test_a_shopper_whom_tabby_does_not_take_has_failed_and_goes_back(reason: str | None) -> None:
    products = {"products": {"installments": {"is_available": False, "rejection_reason": reason}}}
    tabby, _ = adapter_over(says(a_session(status="rejected", configuration=products)))
    session = await tabby.create_session(REQUEST, repeated=False)
    [failed] = session.observations
    assert (failed.kind, failed.object_reference) == ("failed", PAGE)
    assert failed.reason == (reason if reason and reason != "news" else "not_available")
    assert session.next_action.url == REQUEST.return_url


def a_session_at(url: str | None) -> dict[str, Any]:
    return a_session(configuration={"available_products": {"installments": [{"web_url": url}] if url else []}})


@pytest.mark.parametrize(
    "answer",
    [
        says(a_session_at("https://checkout.tabby.ai.evil.example/")),
        says(a_session_at("http://checkout.tabby.ai/")),
        says(a_session_at("javascript:alert(1)")),
        says(a_session_at(None)),
        says(a_session(payment={"id": "../payments", "status": "CREATED"})),
        says(a_session(payment=None)),
        httpx.Response(200, content=b"<html>"),
        httpx.Response(302, headers={"location": "https://elsewhere.example"}),
        httpx.Response(500, content=b'"internal"'),
        httpx.ReadTimeout("silence"),
    ],
)
async def test_what_is_no_page_of_tabbys_is_shown_to_nobody(answer: Answer) -> None:
    tabby, gateway = adapter_over(answer, api_base="https://api.tabby.ai")
    with pytest.raises(GatewayOutcomeUnknown):
        await tabby.create_session(REQUEST, repeated=False)
    assert len(gateway.requests) == 1  # nothing keeps a second session from being made


# --- retrieving ----------------------------------------------------------------------------------------------------

CAPTURED_140, CAPTURED_340 = ("captured", PAYMENT, AED_140), ("captured", PAYMENT, AED_340)
HELD = ("authorized", PAYMENT, AED_340)


@pytest.mark.parametrize(
    ("payment", "expected", "status"),
    [
        (a_payment("CREATED"), {("session_opened", PAGE, None)}, PaymentStatus.REQUIRES_ACTION),
        (a_payment(), {HELD}, PaymentStatus.AUTHORIZED),
        (a_payment(captures=[a_capture()]), {HELD, CAPTURED_140}, PaymentStatus.PARTIALLY_CAPTURED),
        (a_payment("CLOSED", captures=[]), {("canceled", PAYMENT, None)}, PaymentStatus.CANCELED),
        (
            a_payment("CLOSED", captures=[a_capture()]),
            {CAPTURED_140, ("released", PAYMENT, None)},
            PaymentStatus.PARTIALLY_CAPTURED,
        ),
        (
            a_payment("CLOSED", captures=[a_capture(), a_capture("200.00", "OP2", 2)], refunds=[a_refund()]),
            {CAPTURED_340, ("refund_succeeded", a_refund()["id"], Money(4_000, "AED"))},
            PaymentStatus.CAPTURED,
        ),
        (a_payment("REJECTED"), {("failed", PAGE, None)}, PaymentStatus.FAILED),
        (a_payment("EXPIRED"), {("expired", PAGE, None)}, PaymentStatus.EXPIRED),
        (
            a_payment("PARTLY_PAID", captures=[a_capture("340.00")]),
            {("processing", PAGE, None)},
            PaymentStatus.PROCESSING,
        ),
    ],
)
async def test_each_status_is_read_with_its_sums(
    payment: dict[str, Any], expected: set[Any], status: PaymentStatus
) -> None:
    tabby, gateway = adapter_over(says(payment))
    snapshot = await tabby.retrieve((PAYMENT, SESSION), our_reference=REFERENCE)
    assert gateway.sent.url.path == f"/api/v2/payments/{PAYMENT}"
    assert told(snapshot.observations) == expected
    facts = [Fact(observation, FactSource.SWEEP, A_MOMENT) for observation in snapshot.observations]
    assert reduce_facts(Terms(AED_340, CaptureMode.MANUAL), facts).status is status


async def test_a_hold_for_automatic_capture_is_also_an_approval_to_complete() -> None:
    payment = a_payment(meta={"capture": "automatic"})
    tabby, _ = adapter_over(says(payment))
    snapshot = await tabby.retrieve((PAYMENT,), our_reference=REFERENCE)
    assert told(snapshot.observations) == {HELD, ("approved", PAYMENT, AED_340)}
    [held] = [each for each in snapshot.observations if each.kind == "authorized"]
    assert held.capture_before == CREATED_AT + timedelta(days=21)
    by_itself, _ = adapter_over(says(payment), auto_capture=True)
    assert told((await by_itself.retrieve((PAYMENT,), our_reference=REFERENCE)).observations) == {HELD}


async def test_three_decimals_are_exact_and_a_wrong_amount_or_currency_shows() -> None:
    tabby, _ = adapter_over(
        says(a_payment(amount="12.345", currency="KWD")),
        says(a_payment(amount="339.99")),
        says(a_payment(currency="SAR")),
    )
    for amount in (KWD_12, Money(33_999, "AED"), Money(34_000, "SAR")):
        snapshot = await tabby.retrieve((PAYMENT,), our_reference=REFERENCE)
        assert told(snapshot.observations) == {("authorized", PAYMENT, amount)}


@pytest.mark.parametrize(
    "changes",
    [
        {"amount": "340.001"},
        {"amount": 340},
        {"amount": None},
        {"amount": "-1.00"},
        {"currency": "XXY"},
        {"captures": {}},
        {"captures": [{"id": "c", "amount": "1e2"}]},
        {"created_at": "yesterday"},
        {"created_at": "9999-12-31T00:00:00Z"},
        {"status": None},
    ],
)
async def test_an_answer_that_is_not_understood_says_nothing(changes: dict[str, Any]) -> None:
    tabby, _ = adapter_over(says(a_payment(**changes)))
    with pytest.raises(GatewayOutcomeUnknown):
        await tabby.retrieve((PAYMENT,), our_reference=REFERENCE)


@pytest.mark.parametrize("changes", [{"order": {"reference_id": "PRother"}}, {"order": None}, {"is_test": False}])
async def test_a_payment_of_another_order_or_of_the_other_mode_is_not_ours(changes: dict[str, Any]) -> None:
    tabby, gateway = adapter_over(says(a_payment(**changes)))
    with pytest.raises(GatewayObjectNotFound):
        await tabby.retrieve((PAYMENT, "not/a/uuid"), our_reference=REFERENCE)
    assert len(gateway.requests) == 1


async def test_a_page_that_we_closed_does_not_hide_money_that_comes_late() -> None:
    tabby, _ = adapter_over(says(a_payment("CREATED")), says(a_payment()))
    closed = await tabby.close_session(PAYMENT, our_reference=REFERENCE)
    assert told(closed.observations) == {("session_opened", PAGE, None), ("canceled", PAGE, None)}
    late = await tabby.close_session(PAYMENT, our_reference=REFERENCE)
    facts = [Fact(each, FactSource.API, A_MOMENT) for each in (*closed.observations, *late.observations)]
    terms = Terms(AED_340, CaptureMode.AUTOMATIC)
    assert reduce_facts(terms, facts[:2]).status is PaymentStatus.CANCELED
    assert reduce_facts(terms, facts).status is PaymentStatus.AUTHORIZED


async def test_disputes_are_looked_for_page_after_page_where_they_are_enabled() -> None:
    dispute = {"id": "dsp", "payment_id": PAYMENT, "amount": "140.00", "currency": "AED", "reason": "not_delivered"}
    pages = (
        {"disputes": [dispute | {"status": "new"}, dispute | {"payment_id": SESSION}], "next_page_token": "more"},
        {"disputes": [dispute | {"id": "dsp2", "status": "refunded"}, dispute | {"id": "dsp3", "status": "news"}]},
    )
    tabby, gateway = adapter_over(says(a_payment("CLOSED", captures=[a_capture()])), *map(says, pages), disputes=True)
    snapshot = await tabby.retrieve((PAYMENT,), our_reference=REFERENCE)
    assert gateway.sent.url.params["page_token"] == "more"
    assert gateway.sent.url.params["created_at_gte"] == "2026-03-01T09:00:00Z"
    assert told(snapshot.observations) >= {("dispute_opened", "dsp", AED_140), ("dispute_lost", "dsp2", AED_140)}
    assert len(snapshot.observations) == 4


@pytest.mark.parametrize(
    ("trouble", "code"),
    [
        (refuses(403, "no_permission"), "gateway_unavailable"),
        (refuses(404, "not_found"), "not_found"),
        (refuses(400), "bad_data"),
        (httpx.Response(500), "gateway_outcome_unknown"),
        (httpx.Response(200, content=b"<html>"), "gateway_outcome_unknown"),
        (httpx.ReadTimeout("silence"), "gateway_outcome_unknown"),
        (says({"data": [], "next_page_token": None}), "not_understood"),
        (says({"disputes": {}}), "not_understood"),
        (says({"disputes": [], "next_page_token": 7}), "not_understood"),
    ],
)
async def test_disputes_that_cannot_be_listed_withhold_no_captured_money(trouble: Answer, code: str) -> None:
    tabby, _ = adapter_over(says(TAKEN), trouble, disputes=True)
    with capture_logs() as logs:
        snapshot = await tabby.retrieve((PAYMENT,), our_reference=REFERENCE)
    assert told(snapshot.observations) == {CAPTURED_340}
    mine = [entry for entry in logs if entry["event"].startswith("tabby")]
    assert mine == [{"event": "tabby_disputes_not_listed", "code": code, "log_level": "warning"}]


async def test_a_dispute_that_cannot_be_read_hides_only_itself() -> None:
    dispute = {"id": "dsp", "payment_id": PAYMENT, "amount": "140.00", "currency": "AED", "status": "new"}
    strange = (dispute | {"id": "dsp2", "amount": "1.001"}, dispute | {"id": None}, "?")
    page = says({"disputes": [*strange, dispute], "next_page_token": "more"})
    tabby, _ = adapter_over(says(TAKEN), page, httpx.Response(500), disputes=True)
    snapshot = await tabby.retrieve((PAYMENT,), our_reference=REFERENCE)
    assert told(snapshot.observations) == {CAPTURED_340, ("dispute_opened", "dsp", AED_140)}


# --- money ---------------------------------------------------------------------------------------------------------

Send = Callable[[Tabby], Any]
CAPTURED = a_payment(captures=[a_capture()])
REFUNDED = a_payment("CLOSED", captures=[a_capture()], refunds=[a_refund()])
CLOSED = a_payment("CLOSED")
TAKEN = a_payment("CLOSED", captures=[a_capture("340.00")])
CALLS: list[tuple[str, MoneyCall, dict[str, Any], str, dict[str, str] | None]] = [
    ("capture", A_CAPTURE, CAPTURED, "captures", {"amount": "140.00", "reference_id": OPERATION}),
    ("refund", A_REFUND, REFUNDED, "refunds", {"amount": "40.00", "reference_id": OPERATION, "reason": "damaged"}),
    ("void", A_VOID, CLOSED, "close", None),
]


@pytest.mark.parametrize(("name", "call", "done", "path", "sent"), CALLS, ids=lambda value: str(value)[:8])
async def test_each_money_call_is_sent_as_documented_and_answered_at_once(
    name: str, call: MoneyCall, done: dict[str, Any], path: str, sent: dict[str, str] | None
) -> None:
    tabby, gateway = adapter_over(says(done))
    outcome = await getattr(tabby, name)(call)
    assert outcome.status is OutcomeStatus.SUCCEEDED
    assert gateway.sent.url.path == f"/api/v2/payments/{PAYMENT}/{path}"
    assert (json.loads(gateway.sent.content) if gateway.sent.content else None) == sent
    assert await tabby.find_operation(call) == outcome


@pytest.mark.parametrize(("name", "call", "done", "path", "sent"), CALLS, ids=lambda value: str(value)[:8])
async def test_after_a_refusal_we_look_and_only_then_believe_it(
    name: str, call: MoneyCall, done: dict[str, Any], path: str, sent: dict[str, str] | None
) -> None:
    tabby, _ = adapter_over(refuses(text="already closed"), says(done))
    assert (await getattr(tabby, name)(call)).status is OutcomeStatus.SUCCEEDED
    untouched = says(a_payment("CLOSED", captures=[a_capture("340.00", "OP2")]))
    tabby, _ = adapter_over(refuses(409, "conflict"), untouched)
    with pytest.raises(GatewayRejected) as refusal:
        await getattr(tabby, name)(call)
    assert refusal.value.gateway_code == "conflict"
    tabby, _ = adapter_over(httpx.ReadTimeout("silence"), refuses(), untouched)  # the first try may be at work
    with pytest.raises(GatewayOutcomeUnknown):
        await getattr(tabby, name)(call)


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        ([httpx.ConnectError("refused")], GatewayUnavailable),
        ([httpx.Response(429)], GatewayUnavailable),
        ([refuses(401, "not_authorized", None)], GatewayUnavailable),
        ([refuses(403, None, None)], GatewayUnavailable),
        ([httpx.ReadTimeout("silence")], GatewayOutcomeUnknown),
        ([httpx.Response(502, content=b"bad gateway")], GatewayOutcomeUnknown),
        ([refuses(400, "internal"), says(a_payment())], GatewayOutcomeUnknown),
        ([httpx.Response(200, content=b"[]")], GatewayOutcomeUnknown),
        ([says(a_payment(id=SESSION, captures=[a_capture()], refunds=[a_refund()]))], GatewayOutcomeUnknown),
        ([says(a_payment())], GatewayOutcomeUnknown),
        ([httpx.Response(404, content=b'"not found"')], GatewayObjectNotFound),
        ([httpx.Response(400, content=b'{"errors":[]}'), says(a_payment())], GatewayRejected),
    ],
)
async def test_an_answer_says_whether_money_may_have_moved(answers: list[Answer], error: type[Exception]) -> None:
    for name, call, *_ in CALLS:
        tabby, _ = adapter_over(*answers)
        with pytest.raises(error):
            await getattr(tabby, name)(call)


async def test_a_final_part_is_captured_and_then_the_rest_is_closed() -> None:
    final = replace(A_CAPTURE, is_final=True)
    closed = a_payment("CLOSED", captures=[a_capture()])
    tabby, gateway = adapter_over(says(CAPTURED), says(closed))
    outcome = await tabby.capture(final)
    assert [request.url.path.rpartition("/")[2] for request in gateway.requests] == ["captures", "close"]
    assert told(outcome.observations) == {CAPTURED_140, ("released", PAYMENT, None)}
    tabby, _ = adapter_over(says(CAPTURED), refuses(text="already closed"), says(closed))
    assert await tabby.capture(final) == outcome


@pytest.mark.parametrize(
    "trouble", [httpx.ConnectError("away"), httpx.Response(503), httpx.Response(429), refuses(401)]
)
async def test_a_rest_that_could_not_be_closed_leaves_the_capture_open_and_a_look_closes_it(trouble: Answer) -> None:
    final = replace(A_CAPTURE, is_final=True)
    tabby, _ = adapter_over(says(CAPTURED), trouble)
    with pytest.raises(GatewayOutcomeUnknown):
        await tabby.capture(final)
    tabby, gateway = adapter_over(says(CAPTURED), says(a_payment("CLOSED", captures=[a_capture()])))
    found = await tabby.find_operation(final)
    assert found is not None
    assert ("released", PAYMENT, None) in told(found.observations)
    assert [request.method for request in gateway.requests] == ["GET", "POST"]


async def test_a_completion_takes_the_whole_once_and_nothing_of_another_amount() -> None:
    tabby, gateway = adapter_over(says(a_payment()), says(TAKEN))
    outcome = await tabby.complete(A_COMPLETION)
    assert json.loads(gateway.sent.content) == {"amount": "340.00", "reference_id": OPERATION}
    assert told(outcome.observations) == {CAPTURED_340}
    by_tabby = a_payment("CLOSED", captures=[a_capture("340.00", "")])
    for payment, status in ((TAKEN, "succeeded"), (by_tabby, "succeeded"), (CLOSED, "failed")):
        tabby, gateway = adapter_over(says(payment))
        found = await tabby.complete(A_COMPLETION)
        assert (found.status, len(gateway.requests)) == (status, 1)
    for payment, call in (
        (a_payment(amount="340.01"), A_COMPLETION),
        (a_payment(), replace(A_COMPLETION, capture=CaptureMode.MANUAL)),
    ):
        tabby, gateway = adapter_over(says(payment))
        with pytest.raises(GatewayRejected):
            await tabby.complete(call)
        assert len(gateway.requests) == 1


async def test_a_look_finds_only_what_is_ours_and_of_our_amount() -> None:
    for call in (A_CAPTURE, A_REFUND, A_VOID, A_COMPLETION):
        tabby, _ = adapter_over(says(a_payment()))
        assert await tabby.find_operation(call) is None
        tabby, _ = adapter_over(httpx.Response(404, content=b'"not found"'))
        with pytest.raises(GatewayOutcomeUnknown):
            await tabby.find_operation(call)
    tabby, _ = adapter_over(says(TAKEN))
    assert await tabby.find_operation(A_VOID) is None  # it is closed because it was taken
    for call in (A_CAPTURE, A_REFUND):
        tabby, _ = adapter_over(says(a_payment(captures=[a_capture("1.00")], refunds=[a_refund("1.00")])))
        with pytest.raises(GatewayOutcomeUnknown):
            await tabby.find_operation(call)


async def test_a_void_after_a_part_keeps_the_part() -> None:
    tabby, _ = adapter_over(says(a_payment("CLOSED", captures=[a_capture()])))
    outcome = await tabby.void(replace(A_VOID, amount=AED_200))
    assert told(outcome.observations) == {CAPTURED_140, ("released", PAYMENT, None)}


# --- lists ---------------------------------------------------------------------------------------------------------


async def test_a_window_is_asked_for_by_days_and_filtered_by_moments() -> None:
    payments = [a_payment(id=SESSION, created_at="2026-03-02T00:00:00Z"), a_payment()]
    tabby, gateway = adapter_over(
        says({"payments": payments, "pagination": {"limit": 20, "offset": 0, "total_count": 3}}),
        says({"payments": None, "pagination": {"limit": 20, "offset": 2, "total_count": 2}}),
    )
    since, until = CREATED_AT, datetime(2026, 3, 2, tzinfo=UTC)
    page = await tabby.list_window(since, until)
    query = {"created_at__gte": "2026-03-01", "created_at__lte": "2026-03-03", "limit": "20", "offset": "0"}
    assert dict(gateway.sent.url.params) == query
    [entry] = page.entries
    assert (entry.references, entry.our_references, entry.created_at) == ((PAYMENT,), (REFERENCE, "pay_1"), since)
    assert told(entry.observations) == {HELD}
    last = await tabby.list_window(since, until, cursor=page.next_cursor)
    assert (page.next_cursor, gateway.sent.url.params["offset"], last.next_cursor, last.entries) == ("2", "2", None, ())
    tabby, _ = adapter_over(says({"pagination": {"total_count": 0}}))
    with pytest.raises(GatewayOutcomeUnknown):
        await tabby.list_window(since, until)
    for strange in ("-1", "two", "²"):
        with pytest.raises(GatewayRejected):
            await tabby.list_window(since, until, cursor=strange)


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"meta": {"payment_id": 17}}, (REFERENCE,)),
        ({"meta": 17}, (REFERENCE,)),
        ({"order": {"reference_id": 17}}, ("pay_1",)),
        ({"amount": "340.0001"}, (REFERENCE, "pay_1")),
        ({"currency": "XXY"}, (REFERENCE, "pay_1")),
        ({"created_at": "yesterday"}, (REFERENCE, "pay_1")),
        ({"id": None}, None),
    ],
)
async def test_a_payment_that_cannot_be_read_hides_no_other(
    changes: dict[str, Any], shown: tuple[str, ...] | None
) -> None:
    strange = a_payment(**({"id": SESSION} | changes))
    payments = [strange, "?", a_payment()]
    tabby, _ = adapter_over(says({"payments": payments, "pagination": {"total_count": 4}}))
    page = await tabby.list_window(CREATED_AT, CREATED_AT + timedelta(days=1))
    listed = {entry.references: entry.our_references for entry in page.entries}
    assert listed == {(PAYMENT,): (REFERENCE, "pay_1")} | ({(SESSION,): shown} if shown else {})
    assert told(page.entries[-1].observations) == {HELD}
    assert page.next_cursor == "3"


# --- webhooks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "changes", "event_type", "expected"),
    [
        ("authorized", {}, "authorized", {HELD}),
        ("authorized", {"captures": [a_capture()]}, "capture", {HELD, CAPTURED_140}),
        ("closed", {}, "close", {("canceled", PAYMENT, None)}),
        ("closed", {"captures": [a_capture("340.00")]}, "capture", {CAPTURED_340}),
        ("rejected", {}, "rejected", {("failed", PAGE, None)}),
        ("expired", {}, "expired", {("expired", PAGE, None)}),
        ("news", {}, "news", {("processing", PAGE, None)}),
    ],
)
def test_every_event_finds_its_payment_and_is_only_a_reason_to_ask(
    status: str, changes: dict[str, Any], event_type: str, expected: set[Any]
) -> None:
    tabby, _ = adapter_over(says({}))
    event = tabby.translate_webhook(a_delivery(a_payment(status, buyer="[removed]", token=None, **changes)))
    assert (event.event_type, event.must_ask, event.ignored) == (event_type, True, None)
    assert (event.references, event.our_references) == ((PAYMENT,), (REFERENCE, "pay_1"))
    assert told(event.observations) == expected


def test_a_delivery_without_our_reference_is_found_by_the_payment() -> None:
    tabby, _ = adapter_over(says({}))
    event = tabby.translate_webhook(a_delivery(a_payment("authorized", order=None, meta=None)))
    assert (event.references, event.our_references) == ((PAYMENT,), ())
    dispute = {"dispute_id": "dsp", "payment_id": PAYMENT, "status": "pending", "amount": "1.00", "currency": "AED"}
    event = tabby.translate_webhook(a_delivery(dispute))
    assert (event.event_type, event.references, event.must_ask) == ("dispute.pending", (PAYMENT, "dsp"), True)


@settings(max_examples=60)
@given(
    json_around(
        ["id", "status", "amount", "currency", "order", "captures", "refunds", "meta", "reference_id", "dispute_id"],
        [PAYMENT, "authorized", "closed", "340.00", "AED", [a_capture()], {"reference_id": REFERENCE}, "KWD"],
    )
)
def test_any_body_is_an_event_that_is_asked_about_or_unreadable(payload: str) -> None:
    tabby, _ = adapter_over(says({}))
    try:
        event = tabby.translate_webhook(a_delivery(payload))
    except UnreadableWebhook:
        return
    assert event.must_ask
