"""The generic adapter, against its contract (services/payment_service/gateways/generic.md)."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from pydantic import SecretStr

from services.payment_service.domain.models import CaptureMode, FactKind
from services.payment_service.gateways.generic import STATUS, Generic, GenericSettings
from services.payment_service.gateways.port import GatewayEvent, UnreadableWebhook
from shared.clock import to_rfc3339
from shared.errors import (
    GatewayObjectNotFound,
    GatewayOutcomeUnknown,
    GatewayRateLimited,
    GatewayRejected,
    GatewayServerError,
    GatewayUnavailable,
    PayrailError,
)
from shared.money import CURRENCY_EXPONENT, Money
from tests.unit.payment_service.gateway_world import (
    EXPIRES_AT,
    Answer,
    ScriptedGateway,
    a_delivery,
    a_request,
    json_around,
    says,
    told,
)

USD_1999 = Money(1999, "USD")
REFERENCE = a_request().reference


def adapter_over(*answers: Answer) -> tuple[Generic, ScriptedGateway]:
    gateway = ScriptedGateway(list(answers))
    return Generic(
        GenericSettings(api_base="https://generic.test/", api_key=SecretStr("gk_1")), gateway.caller()
    ), gateway


def a_session(status: str = "open", **changes: Any) -> dict[str, Any]:
    session = {
        "payment_id": "gp_1",
        "reference": REFERENCE,
        "status": status,
        "checkout_url": "https://generic.test/pay/gp_1",
        "amount": 19.99,
        "currency": "USD",
        "expires_at": to_rfc3339(EXPIRES_AT),
    }
    return session | changes


def a_list(*sessions: dict[str, Any]) -> httpx.Response:
    return says({"data": list(sessions)})


# --- creating ------------------------------------------------------------------------------------------------------


async def test_a_session_is_one_json_object_with_an_exact_amount() -> None:
    generic, gateway = adapter_over(says(a_session(), 201))
    session = await generic.create_session(a_request(), repeated=False)

    assert (gateway.sent.method, str(gateway.sent.url)) == ("POST", "https://generic.test/v1/sessions")
    assert gateway.sent.headers["authorization"] == "Bearer gk_1"
    assert gateway.sent.headers["idempotency-key"] == "att_1"
    assert json.loads(gateway.sent.content, parse_float=Decimal) == {
        "amount": Decimal("19.99"),
        "reference": REFERENCE,
        "order_id": "ord_1",
        "currency": "USD",
        "description": "Order ord_1",
        "customer_email": "ada@example.com",
        "return_url": "https://pay.example/api/v1/payments/pay_1/return?from=page",
        "cancel_url": "https://pay.example/api/v1/payments/pay_1/return?from=cancel",
        "capture": "automatic",
        "expires_at": to_rfc3339(EXPIRES_AT),
        "metadata": {"payment_id": "pay_1"},
    }
    assert session.gateway_reference == "gp_1"
    assert session.next_action.to_json() == {"type": "redirect", "url": "https://generic.test/pay/gp_1"}
    assert session.expires_at == EXPIRES_AT
    assert told(session.observations) == {("session_opened", "gp_1", None)}


@pytest.mark.parametrize(
    ("minor", "currency", "written"),
    [
        (500, "JPY", "500"),
        (10, "USD", "0.10"),
        (12_345, "KWD", "12.345"),
        (1, "BHD", "0.001"),
        (10**12, "EUR", "10000000000.00"),
    ],
)
async def test_amounts_are_written_with_the_currencys_digits(minor: int, currency: str, written: str) -> None:
    answer = httpx.Response(201, content=json.dumps(a_session(amount="@", currency=currency)).replace('"@"', written))
    generic, gateway = adapter_over(answer)
    await generic.create_session(a_request(amount=Money(minor, currency)), repeated=False)
    assert gateway.sent.content.startswith(f'{{"amount":{written},'.encode())


@pytest.mark.parametrize("currency", sorted(CURRENCY_EXPONENT))
async def test_every_currency_makes_the_round_trip(currency: str) -> None:
    amount = Money(123_457, currency)

    def echo(request: httpx.Request) -> httpx.Response:
        sent = request.content.decode().partition('"amount":')[2].partition(",")[0]
        body = json.dumps(a_session("completed", amount="@", currency=currency)).replace('"@"', sent)
        return httpx.Response(201, stream=httpx.ByteStream(body.encode()))

    generic, _ = adapter_over(echo)
    session = await generic.create_session(a_request(amount=amount), repeated=False)
    assert ("captured", "gp_1", amount) in told(session.observations)


async def test_an_unanswered_creation_is_looked_up_and_adopted() -> None:
    generic, gateway = adapter_over(a_list(a_session(reference="other", payment_id="gp_0"), a_session()))
    session = await generic.create_session(a_request(), repeated=True)
    assert session.gateway_reference == "gp_1"
    assert [sent.method for sent in gateway.requests] == ["GET"]
    assert gateway.sent.url.params["reference"] == REFERENCE


async def test_what_is_not_found_is_made_with_the_same_key() -> None:
    generic, gateway = adapter_over(a_list(), says(a_session(), 201))
    await generic.create_session(a_request(), repeated=True)
    assert [sent.method for sent in gateway.requests] == ["GET", "POST"]
    assert gateway.sent.headers["idempotency-key"] == "att_1"


async def test_a_stored_failure_that_left_a_session_behind_is_adopted() -> None:
    failure = httpx.Response(500)
    generic, _ = adapter_over(a_list(), failure, failure, failure, a_list(a_session()))
    assert (await generic.create_session(a_request(), repeated=True)).gateway_reference == "gp_1"


async def test_a_stored_failure_that_left_nothing_behind_uses_the_key_up() -> None:
    failure = httpx.Response(500)
    generic, _ = adapter_over(a_list(), failure, failure, failure, a_list())
    with pytest.raises(GatewayRejected):
        await generic.create_session(a_request(), repeated=True)


async def test_a_failure_before_the_gateway_says_nothing_about_the_key() -> None:
    generic, _ = adapter_over(a_list(), httpx.Response(503))
    with pytest.raises(GatewayServerError):
        await generic.create_session(a_request(), repeated=True)


async def test_a_lookup_that_fails_makes_no_second_page() -> None:
    generic, gateway = adapter_over(httpx.Response(502))
    with pytest.raises(GatewayOutcomeUnknown):
        await generic.create_session(a_request(), repeated=True)
    assert {sent.method for sent in gateway.requests} == {"GET"}


@pytest.mark.parametrize(
    "changes",
    [
        {"amount": 20.00},
        {"amount": 19.999},
        {"amount": True},
        {"amount": None},
        {"amount": "nineteen"},
        {"amount": 10**20},
        {"currency": "EUR"},
        {"currency": "XXX"},
        {"reference": "somebody else's"},
        {"payment_id": None},
        {"payment_id": "g" * 300},
        {"expires_at": None},
        {"expires_at": "soon"},
        {"expires_at": "2026-01-02T03:04:05"},
        {"status": None},
        {"checkout_url": "javascript:alert(1)"},
        {"checkout_url": ["https://generic.test"]},
    ],
)
async def test_an_answer_that_is_not_the_session_we_asked_for_is_not_used(changes: dict[str, Any]) -> None:
    generic, _ = adapter_over(says(a_session(**changes), 201))
    with pytest.raises(GatewayOutcomeUnknown):
        await generic.create_session(a_request(), repeated=False)


# --- asking and closing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "kind"), sorted(STATUS.items()))
async def test_what_a_status_means(status: str, kind: FactKind) -> None:
    generic, gateway = adapter_over(says(a_session(status.upper())))
    snapshot = await generic.retrieve(("gp_1",), our_reference=REFERENCE)
    with_amount = kind in (FactKind.CAPTURED, FactKind.AUTHORIZED)
    assert told(snapshot.observations) == {(str(kind), "gp_1", USD_1999 if with_amount else None)}
    assert gateway.sent.url.path == "/v1/sessions/gp_1"


@pytest.mark.parametrize("status", ["settled", "ok", "approved", "1", "completed_not"])
async def test_an_unknown_status_is_never_a_success(status: str) -> None:
    generic, _ = adapter_over(says(a_session(status)))
    assert (await generic.retrieve(("gp_1",), our_reference=REFERENCE)).observations == ()


async def test_a_payment_without_known_references_is_found_by_ours() -> None:
    generic, gateway = adapter_over(a_list(a_session("completed")))
    snapshot = await generic.retrieve((), our_reference=REFERENCE)
    assert told(snapshot.observations) == {("captured", "gp_1", USD_1999)}
    assert gateway.sent.url.params["reference"] == REFERENCE


async def test_a_reference_that_names_no_session_does_not_hide_the_others() -> None:
    """Existing integrations call the payment by ids of their own in their webhooks."""
    nothing = says({"error": {"code": "not_found"}}, 404)
    generic, gateway = adapter_over(nothing, says(a_session("completed")))
    snapshot = await generic.retrieve(("legacy/7", "gp_1"), our_reference=REFERENCE)
    assert snapshot.references == ("gp_1",)
    assert gateway.requests[0].url.raw_path == b"/v1/sessions/legacy%2F7"


async def test_a_payment_that_the_gateway_does_not_know() -> None:
    generic, _ = adapter_over(a_list())
    with pytest.raises(GatewayObjectNotFound):
        await generic.retrieve((), our_reference=REFERENCE)


async def test_closing_an_open_session_cancels() -> None:
    generic, gateway = adapter_over(says(a_session("expired")))
    snapshot = await generic.close_session("gp_1", our_reference=REFERENCE)
    assert gateway.sent.url.path == "/v1/sessions/gp_1/expire"
    assert told(snapshot.observations) == {("canceled", "gp_1", None)}


async def test_a_session_that_is_no_longer_open_is_looked_at_instead() -> None:
    generic, _ = adapter_over(says({"error": {"code": "session_not_open"}}, 409), says(a_session("completed")))
    snapshot = await generic.close_session("gp_1", our_reference=REFERENCE)
    assert told(snapshot.observations) == {("captured", "gp_1", USD_1999)}


@pytest.mark.parametrize("status", ["completed", "authorized", "processing"])
async def test_an_answer_that_does_not_say_expired_is_not_taken_as_closed(status: str) -> None:
    generic, _ = adapter_over(says(a_session(status)))
    snapshot = await generic.close_session("gp_1", our_reference=REFERENCE)
    assert {str(each.kind) for each in snapshot.observations} == {str(STATUS[status])}


# --- errors --------------------------------------------------------------------------------------------------------


def an_error(status: int, code: str = "nope") -> httpx.Response:
    return says({"error": {"code": code, "message": "no"}}, status)


@pytest.mark.parametrize(
    ("answer", "error", "calls"),
    [
        (an_error(400), GatewayRejected, 1),
        (an_error(401), GatewayUnavailable, 1),
        (httpx.Response(401, content=b"<html>"), GatewayUnavailable, 1),
        (an_error(403), GatewayUnavailable, 1),
        (an_error(404), GatewayObjectNotFound, 1),
        (an_error(409, "idempotency_key_in_use"), GatewayOutcomeUnknown, 1),
        (an_error(422, "idempotency_key_reused"), GatewayOutcomeUnknown, 1),
        (an_error(409, "amount_not_supported"), GatewayRejected, 1),
        (says({"error": ["odd"]}, 400), GatewayRejected, 1),
        (an_error(429), GatewayRateLimited, 3),
        (an_error(500), GatewayServerError, 3),
        (httpx.Response(504), GatewayServerError, 3),
        (httpx.ReadTimeout("late"), GatewayOutcomeUnknown, 3),
        (httpx.RemoteProtocolError("reset"), GatewayOutcomeUnknown, 3),
        (httpx.ConnectError("refused"), GatewayUnavailable, 3),
        (says(a_session(), 302), GatewayOutcomeUnknown, 1),
        (httpx.Response(200), GatewayOutcomeUnknown, 1),
        (httpx.Response(200, content=b'{"payment_id":"gp_1","payment_id":"gp_2"}'), GatewayOutcomeUnknown, 1),
        (httpx.Response(200, content=b'{"amount":-Infinity}'), GatewayOutcomeUnknown, 1),
        (httpx.Response(200, content=b'{"a":' * 100_000), GatewayOutcomeUnknown, 1),
    ],
)
async def test_what_went_wrong_says_what_may_have_happened_to_the_money(
    answer: Answer, error: type[PayrailError], calls: int
) -> None:
    generic, gateway = adapter_over(answer)
    with pytest.raises(PayrailError) as raised:
        await generic.create_session(a_request(), repeated=False)
    assert type(raised.value) is error
    assert len(gateway.requests) == calls


# --- webhooks ------------------------------------------------------------------------------------------------------


def translate(body: dict[str, Any] | str) -> GatewayEvent:
    generic, _ = adapter_over(says({}))
    return generic.translate_webhook(a_delivery(body))


def a_webhook(status: Any = "completed", **changes: Any) -> dict[str, Any]:
    body = {
        "payment_id": "gp_1",
        "transaction_id": "pay_1",
        "status": status,
        "amount": 19.99,
        "currency": "USD",
        "metadata": {},
    }
    return {key: value for key, value in (body | changes).items() if value is not ...}


@pytest.mark.parametrize(("status", "kind"), sorted(STATUS.items()))
def test_what_an_event_means(status: str, kind: FactKind) -> None:
    translated = translate(a_webhook(status))
    with_amount = kind in (FactKind.CAPTURED, FactKind.AUTHORIZED)
    assert told(translated.observations) == {(str(kind), "gp_1", USD_1999 if with_amount else None)}
    assert (translated.references, translated.our_references) == (("gp_1",), ("pay_1",))
    assert not translated.must_ask


@pytest.mark.parametrize("status", ["settled", "refunded", "ok"])
def test_an_unknown_status_is_a_reason_to_ask(status: str) -> None:
    translated = translate(a_webhook(status))
    assert translated.must_ask
    assert translated.observations == ()


@pytest.mark.parametrize(
    ("amount", "currency", "expected"),
    [
        ("150.00", "USD", Money(15_000, "USD")),
        (150, "usd", Money(15_000, "USD")),
        ("12.345", "KWD", Money(12_345, "KWD")),
        ("500", "JPY", Money(500, "JPY")),
        ("0", "USD", Money(0, "USD")),
        ("-1.00", "USD", Money(-100, "USD")),
    ],
)
def test_amounts_are_decimals_in_major_units(amount: object, currency: str, expected: Money) -> None:
    assert translate(a_webhook(amount=amount, currency=currency)).observations[0].amount == expected


def test_a_number_keeps_its_digits() -> None:
    body = json.dumps(a_webhook(amount="@")).replace('"@"', "0.10")
    assert translate(body).observations[0].amount == Money(10, "USD")


@pytest.mark.parametrize(
    ("changes", "theirs", "ours"),
    [
        ({"payment_id": 77}, ("77",), ("pay_1",)),
        ({"transaction_id": ..., "order_id": "ord_1"}, ("gp_1",), ("ord_1",)),
        ({"transaction_id": "ord_1", "order_id": 5}, ("gp_1",), ("ord_1", "5")),
        ({"payment_id": ...}, (), ("pay_1",)),
        ({"transaction_id": ...}, ("gp_1",), ()),
    ],
)
def test_what_existing_integrations_call_the_payment(
    changes: dict[str, Any], theirs: tuple[str, ...], ours: tuple[str, ...]
) -> None:
    translated = translate(a_webhook(**changes))
    assert (translated.references, translated.our_references) == (theirs, ours)


@pytest.mark.parametrize(
    "body",
    [
        "",
        "true",
        "status=completed",
        '{"status":"completed","status":"failed"}',
        a_webhook(payment_id=..., transaction_id=...),
        a_webhook(status=...),
        a_webhook(status=1),
        a_webhook(amount=...),
        a_webhook(amount=True),
        a_webhook(amount="1.999"),
        a_webhook(amount="1e400"),
        a_webhook(amount=10**16),
        a_webhook(amount="NaN"),
        a_webhook(currency="XXX"),
        a_webhook(currency=...),
        a_webhook(payment_id={"id": "gp_1"}),
        a_webhook(payment_id="g" * 300),
        a_webhook(payment_id=10**300),
        a_webhook(transaction_id="\ud800"),
        json.dumps(a_webhook(amount="@")).replace('"@"', "1e9999999999999999999"),
    ],
)
def test_what_is_not_as_documented_is_unreadable(body: dict[str, Any] | str) -> None:
    with pytest.raises(UnreadableWebhook):
        translate(body)


def test_it_takes_any_amount_of_any_currency() -> None:
    generic, _ = adapter_over(says({}))
    generic.check(Money(1, "KWD"), CaptureMode.MANUAL)


KEYS = (
    "payment_id transaction_id order_id status amount currency failure_code metadata data reference expires_at".split()
)
VALUES: list[Any] = [*STATUS, "refunded", "USD", "kwd", "gp_1", "19.99", 19.99, 0, -5, "\x00", "\ud800", REFERENCE]
GENERIC_FOR_FUZZ, _ = adapter_over(says({}))


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(json_around(KEYS, VALUES))
def test_any_body_is_understood_or_unreadable(body: str) -> None:
    try:
        translated = GENERIC_FOR_FUZZ.translate_webhook(a_delivery(body))
    except UnreadableWebhook:
        return
    assert all(len(reference) <= 255 for reference in (*translated.references, *translated.our_references))
    if any(each.kind is FactKind.CAPTURED for each in translated.observations):
        assert STATUS[json.loads(body)["status"].lower()] is FactKind.CAPTURED


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(json_around(KEYS, VALUES))
async def test_any_answer_is_a_session_or_a_known_error(body: str) -> None:
    generic, _ = adapter_over(httpx.Response(200, content=body.encode("utf-8", "surrogatepass")))
    for call in (
        generic.create_session(a_request(), repeated=False),
        generic.create_session(a_request(), repeated=True),
        generic.retrieve(("gp_1",), our_reference=REFERENCE),
        generic.close_session("gp_1", our_reference=REFERENCE),
    ):
        try:
            await call
        except (GatewayOutcomeUnknown, GatewayRejected):
            continue
