"""The Stripe adapter, against the fact sheet (gateways/stripe.md): what goes out, and what each answer means."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings

from services.payment_service.domain.errors import CurrencyNotSupported
from services.payment_service.domain.models import CaptureMode, FactKind, Item
from services.payment_service.gateways.port import GatewayEvent, UnreadableWebhook
from services.payment_service.gateways.stripe import to_stripe_minor
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
    POT,
    TEA,
    Answer,
    a_delivery,
    a_request,
    json_around,
    says,
    told,
)
from tests.unit.payment_service.stripe_world import (
    USD_1999,
    a_list,
    a_session,
    adapter_over,
    an_error,
    an_event,
    an_intent,
)

# --- creating ------------------------------------------------------------------------------------------------------


async def test_a_session_is_a_form_with_our_reference_in_every_place_that_is_echoed() -> None:
    stripe, gateway = adapter_over(says(a_session()))
    session = await stripe.create_session(a_request(), repeated=False)

    assert str(gateway.sent.url) == "https://stripe.test/v1/checkout/sessions"
    assert gateway.sent.headers["authorization"] == "Bearer sk_test_1"
    assert gateway.sent.headers["stripe-version"] == "2026-06-24.dahlia"
    assert gateway.sent.headers["idempotency-key"] == "att_1"
    assert gateway.sent.headers["content-type"] == "application/x-www-form-urlencoded"
    assert gateway.form == {
        "mode": "payment",
        "client_reference_id": "PR00000000000000001A",
        "success_url": "https://pay.example/api/v1/payments/pay_1/return?from=page",
        "cancel_url": "https://pay.example/api/v1/payments/pay_1/return?from=cancel",
        "expires_at": str(int(EXPIRES_AT.timestamp())),
        "customer_email": "ada@example.com",
        "payment_intent_data[capture_method]": "automatic",
        "payment_intent_data[description]": "Order ord_1",
        "metadata[order_ref]": "PR00000000000000001A",
        "metadata[order_id]": "ord_1",
        "metadata[payment_id]": "pay_1",
        "metadata[capture]": "automatic",
        "payment_intent_data[metadata][order_ref]": "PR00000000000000001A",
        "payment_intent_data[metadata][order_id]": "ord_1",
        "payment_intent_data[metadata][payment_id]": "pay_1",
        "payment_intent_data[metadata][capture]": "automatic",
        "line_items[0][quantity]": "1",
        "line_items[0][price_data][currency]": "usd",
        "line_items[0][price_data][unit_amount]": "1999",
        "line_items[0][price_data][product_data][name]": "Order ord_1",
    }
    assert (session.gateway_reference, session.references) == ("cs_test_1", ("cs_test_1",))
    assert session.next_action.to_json() == {"type": "redirect", "url": "https://stripe.test/c/pay/cs_test_1"}
    assert session.expires_at == EXPIRES_AT
    assert told(session.observations) == {("session_opened", "cs_test_1", None)}


async def test_lines_that_add_up_are_shown_and_any_character_survives_the_form() -> None:
    stripe, gateway = adapter_over(says(a_session()))
    await stripe.create_session(a_request(items=(TEA, POT)), repeated=False)
    lines = [
        (gateway.form[f"line_items[{number}][{part}]"])
        for number in (0, 1)
        for part in ("price_data][product_data][name", "quantity", "price_data][unit_amount")
    ]
    assert lines == ["Tea & cup = 100%", "2", "500", "قهوة", "1", "999"]


@pytest.mark.parametrize("items", [(TEA,), (Item("free", 1, 0),) * 101, (replace(POT, unit_amount_minor=2000),)])
async def test_lines_that_do_not_add_up_are_replaced_by_the_amount(items: tuple[Item, ...]) -> None:
    stripe, gateway = adapter_over(says(a_session()))
    await stripe.create_session(a_request(items=items), repeated=False)
    assert gateway.form["line_items[0][price_data][unit_amount]"] == "1999"
    assert "line_items[1][quantity]" not in gateway.form


async def test_manual_capture_is_asked_for_and_remembered_in_the_metadata() -> None:
    stripe, gateway = adapter_over(says(a_session()))
    await stripe.create_session(a_request(capture=CaptureMode.MANUAL), repeated=False)
    assert gateway.form["payment_intent_data[capture_method]"] == "manual"
    assert gateway.form["metadata[capture]"] == gateway.form["payment_intent_data[metadata][capture]"] == "manual"


async def test_a_repeated_creation_is_the_same_request_byte_for_byte() -> None:
    stripe, gateway = adapter_over(says(a_session()))
    await stripe.create_session(a_request(items=(TEA, POT)), repeated=False)
    await stripe.create_session(a_request(items=(TEA, POT)), repeated=True)
    first, second = gateway.requests
    assert first.content == second.content
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]


async def test_an_unanswered_creation_is_repeated_with_the_same_key_and_body() -> None:
    stripe, gateway = adapter_over(httpx.ReadTimeout("no answer"), httpx.Response(502), says(a_session()))
    await stripe.create_session(a_request(), repeated=False)
    assert len(gateway.requests) == 3
    assert {(sent.content, sent.headers["idempotency-key"]) for sent in gateway.requests} == {
        (gateway.sent.content, "att_1")
    }


async def test_a_replayed_session_that_was_paid_meanwhile_is_taken_as_paid() -> None:
    paid = a_session("complete", payment_status="paid", payment_intent="pi_1")
    stripe, _ = adapter_over(says(paid))
    session = await stripe.create_session(a_request(), repeated=True)
    assert ("captured", "pi_1", USD_1999) in told(session.observations)
    assert session.next_action.url == a_request().return_url


@pytest.mark.parametrize(
    "changes",
    [
        {"amount_total": 2000},
        {"currency": "eur"},
        {"currency": "xxx"},
        {"amount_total": "1999"},
        {"amount_total": True},
        {"amount_total": 10**30},
        {"id": None},
        {"id": "c" * 300},
        {"id": 7},
        {"livemode": True},
        {"livemode": None},
        {"expires_at": None},
        {"expires_at": 10**17},
        {"expires_at": 10**40},
        {"url": "javascript:alert(1)"},
        {"payment_intent": {"id": "pi_1"}},
    ],
)
async def test_an_answer_that_is_not_the_session_we_asked_for_is_not_used(changes: dict[str, Any]) -> None:
    stripe, _ = adapter_over(says(a_session(**changes)))
    with pytest.raises(GatewayOutcomeUnknown):
        await stripe.create_session(a_request(), repeated=False)


STORED_500 = httpx.Response(500, content=b'{"error": {"type": "api_error"}}')


async def test_a_session_that_a_stored_failure_left_behind_is_found_by_our_reference() -> None:
    other = a_session(id="cs_other", client_reference_id="PR0000000000000000OTHER")
    stripe, gateway = adapter_over(
        STORED_500, STORED_500, STORED_500, a_list(other, has_more=True), a_list(a_session())
    )
    session = await stripe.create_session(a_request(), repeated=True)
    assert session.gateway_reference == "cs_test_1"
    assert gateway.sent.url.params["starting_after"] == "cs_other"


async def test_a_stored_failure_that_left_nothing_behind_uses_the_key_up() -> None:
    stripe, _ = adapter_over(STORED_500, STORED_500, STORED_500, a_list())
    with pytest.raises(GatewayRejected):
        await stripe.create_session(a_request(), repeated=True)


@pytest.mark.parametrize("page", [{}, {"data": 7}, {"data": [1]}, {"data": [{"id": 7}], "has_more": True}])
async def test_nothing_found_in_a_list_that_is_nonsense_proves_nothing(page: dict[str, Any]) -> None:
    stripe, _ = adapter_over(STORED_500, STORED_500, STORED_500, says(page))
    with pytest.raises(GatewayOutcomeUnknown):
        await stripe.create_session(a_request(), repeated=True)


# --- currencies ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("minor", "currency", "sent"),
    [
        (500, "JPY", 500),
        (1999, "USD", 1999),
        (5120, "KWD", 5120),
        (5120, "BHD", 5120),
        (500, "ISK", 50_000),
        (3, "UGX", 300),
        (500_00, "MGA", 500),
        (1999, "HUF", 1999),
        (7, "KRW", 7),
    ],
)
async def test_amounts_go_out_in_stripes_own_units_and_come_back_as_ours(minor: int, currency: str, sent: int) -> None:
    amount = Money(minor, currency)
    assert to_stripe_minor(amount) == sent
    stripe, gateway = adapter_over(says(a_session(amount_total=sent, currency=currency.lower())))
    await stripe.create_session(a_request(amount=amount), repeated=False)
    assert gateway.form["line_items[0][price_data][unit_amount]"] == str(sent)
    assert gateway.form["line_items[0][price_data][currency]"] == currency.lower()


@pytest.mark.parametrize(("minor", "currency"), [(5124, "KWD"), (1, "TND"), (12_345, "OMR"), (500_01, "MGA")])
def test_what_stripe_cannot_charge_exactly_is_refused_before_any_call(minor: int, currency: str) -> None:
    stripe, gateway = adapter_over(says({}))
    with pytest.raises(CurrencyNotSupported):
        stripe.check(Money(minor, currency), CaptureMode.AUTOMATIC)
    assert gateway.requests == []


@pytest.mark.parametrize("currency", sorted(CURRENCY_EXPONENT))
async def test_every_currency_makes_the_round_trip(currency: str) -> None:
    amount = Money(123_000, currency)
    intent = an_intent(amount_received=to_stripe_minor(amount), currency=currency.lower())
    stripe, _ = adapter_over(says(intent))
    snapshot = await stripe.retrieve(("pi_1",), our_reference="ours")
    assert told(snapshot.observations) == {("captured", "pi_1", amount)}


# --- retrieving: the fact sheet's table, top to bottom ---------------------------------------------------------------

CLOSED_BY_STRIPE = an_intent("canceled", cancellation_reason="automatic")
DECLINE = {"last_payment_error": {"type": "card_error", "code": "card_declined", "decline_code": "insufficient_funds"}}


@pytest.mark.parametrize(
    ("session", "expected"),
    [
        (a_session("complete", payment_intent=CLOSED_BY_STRIPE), {("expired", "pi_1", None)}),
        (
            a_session("complete", payment_intent=an_intent("canceled", cancellation_reason="expired")),
            {("expired", "pi_1", None)},
        ),
        (
            a_session("complete", payment_intent=an_intent("canceled", cancellation_reason="requested_by_customer")),
            {("canceled", "pi_1", None)},
        ),
        (a_session("complete", payment_intent=an_intent("canceled")), {("canceled", "pi_1", None)}),
        (
            a_session("complete", payment_intent=an_intent(amount_received=500)),
            {("captured", "pi_1", Money(500, "USD"))},
        ),
        (a_session("complete", payment_intent=an_intent()), {("captured", "pi_1", USD_1999)}),
        (
            a_session(
                "complete",
                payment_intent=an_intent("requires_capture", amount_received=500, amount_capturable=1499),
            ),
            {("authorized", "pi_1", USD_1999), ("captured", "pi_1", Money(500, "USD"))},
        ),
        (
            a_session("complete", payment_status="paid", payment_intent=an_intent("requires_capture")),
            {("authorized", "pi_1", USD_1999)},
        ),
        (a_session("complete", payment_intent=an_intent("processing")), {("processing", "pi_1", None)}),
        (a_session("open", payment_intent=an_intent("requires_action")), {("session_opened", "cs_test_1", None)}),
        (a_session("expired"), {("expired", "cs_test_1", None)}),
        (
            a_session("expired", payment_intent=an_intent("requires_payment_method")),
            {("expired", "cs_test_1", None)},
        ),
        (
            a_session("expired", payment_intent=an_intent("requires_payment_method", **DECLINE)),
            {("expired", "cs_test_1", None), ("declined", "pi_1", None)},
        ),
        (
            a_session("open", payment_intent=an_intent("requires_payment_method")),
            {("session_opened", "cs_test_1", None)},
        ),
        (
            a_session("open", payment_intent=an_intent("requires_confirmation")),
            {("session_opened", "cs_test_1", None)},
        ),
        (
            a_session("open", payment_intent=an_intent("requires_payment_method", **DECLINE)),
            {("session_opened", "cs_test_1", None), ("declined", "pi_1", None)},
        ),
        (
            a_session("complete", payment_intent=an_intent("requires_payment_method", **DECLINE)),
            {("failed", "pi_1", None)},
        ),
        (a_session("open"), {("session_opened", "cs_test_1", None)}),
        (a_session("complete", payment_status="unpaid", payment_intent="pi_1"), set()),
        (a_session("complete", payment_status="paid", payment_intent="pi_1"), {("captured", "pi_1", USD_1999)}),
        (
            a_session("complete", payment_status="paid", payment_intent="pi_1", metadata={"capture": "manual"}),
            set(),  # held or taken? only the intent says
        ),
        (a_session("something_new", payment_intent=an_intent("something_new")), set()),
    ],
)
async def test_what_a_session_means(session: dict[str, Any], expected: set[Any]) -> None:
    stripe, gateway = adapter_over(says(session))
    snapshot = await stripe.retrieve(("pi_1", "cs_test_1"), our_reference="ours")
    assert told(snapshot.observations) == expected
    assert gateway.sent.url.path == "/v1/checkout/sessions/cs_test_1"
    assert gateway.sent.url.params["expand[]"] == "payment_intent.latest_charge"


async def test_the_decline_code_is_the_reason() -> None:
    stripe, _ = adapter_over(
        says(a_session("complete", payment_intent=an_intent("requires_payment_method", **DECLINE)))
    )
    (failed,) = (await stripe.retrieve(("cs_test_1",), our_reference="ours")).observations
    assert failed.reason == "insufficient_funds"


async def test_an_intent_alone_never_fails_a_payment_because_the_page_may_still_be_open() -> None:
    stripe, gateway = adapter_over(says(an_intent("requires_payment_method", **DECLINE)))
    snapshot = await stripe.retrieve(("pi_1",), our_reference="ours")
    assert told(snapshot.observations) == {("declined", "pi_1", None)}
    assert gateway.sent.url.path == "/v1/payment_intents/pi_1"


async def test_a_payment_of_which_stripe_never_heard_is_not_asked_about() -> None:
    stripe, gateway = adapter_over(says({}))
    with pytest.raises(GatewayObjectNotFound):
        await stripe.retrieve((), our_reference="ours")
    assert gateway.requests == []


@pytest.mark.parametrize(("key", "livemode"), [("sk_test_1", True), ("sk_live_1", False), ("rk_live_1", False)])
async def test_test_and_live_mode_do_not_mix(key: str, livemode: bool) -> None:
    stripe, _ = adapter_over(says(a_session("complete", payment_intent=an_intent(), livemode=livemode)), key=key)
    with pytest.raises(GatewayOutcomeUnknown):
        await stripe.retrieve(("cs_test_1",), our_reference="ours")


# --- closing -------------------------------------------------------------------------------------------------------


async def test_closing_an_open_page_cancels() -> None:
    stripe, gateway = adapter_over(says(a_session("expired")))
    snapshot = await stripe.close_session("cs_test_1", our_reference="ours")
    assert gateway.sent.url.path == "/v1/checkout/sessions/cs_test_1/expire"
    assert told(snapshot.observations) == {("canceled", "cs_test_1", None)}


async def test_a_page_that_is_no_longer_open_is_looked_at_instead() -> None:
    refusal = says({"error": {"type": "invalid_request_error", "message": "only open sessions"}}, 400)
    stripe, gateway = adapter_over(refusal, says(a_session("complete", payment_intent=an_intent())))
    snapshot = await stripe.close_session("cs_test_1", our_reference="ours")
    assert [sent.method for sent in gateway.requests] == ["POST", "GET"]
    assert told(snapshot.observations) == {("captured", "pi_1", USD_1999)}


async def test_an_answer_that_does_not_say_expired_is_not_taken_as_closed() -> None:
    held = a_session("complete", payment_intent=an_intent("requires_capture"))
    stripe, _ = adapter_over(says(held))
    snapshot = await stripe.close_session("cs_test_1", our_reference="ours")
    assert told(snapshot.observations) == {("authorized", "pi_1", USD_1999)}


# --- errors --------------------------------------------------------------------------------------------------------


ERRORS: list[tuple[Answer, type[PayrailError], int]] = [
    (an_error(400), GatewayRejected, 1),
    (an_error(400, code="amount_too_small"), GatewayRejected, 1),
    (an_error(400, code="rate_limit"), GatewayRateLimited, 1),
    (an_error(400, code="lock_timeout"), GatewayRateLimited, 1),
    (an_error(400, "idempotency_error"), GatewayOutcomeUnknown, 1),
    (an_error(401), GatewayUnavailable, 1),
    (httpx.Response(401, content=b"<html>who are you</html>"), GatewayUnavailable, 1),
    (an_error(402, "card_error", code="card_declined"), GatewayRejected, 1),
    (an_error(403), GatewayUnavailable, 1),
    (httpx.Response(403), GatewayUnavailable, 1),
    (an_error(404, code="resource_missing"), GatewayObjectNotFound, 1),
    (an_error(409, code="idempotency_key_in_use"), GatewayOutcomeUnknown, 1),
    (an_error(409), GatewayOutcomeUnknown, 1),
    (an_error(429, code="lock_timeout"), GatewayRateLimited, 3),
    (an_error(500, "api_error"), GatewayServerError, 3),
    (httpx.Response(503), GatewayServerError, 3),
    (httpx.ReadTimeout("late"), GatewayOutcomeUnknown, 3),
    (httpx.RemoteProtocolError("reset"), GatewayOutcomeUnknown, 3),
    (httpx.ConnectError("refused"), GatewayUnavailable, 3),
    (httpx.ConnectTimeout("no route"), GatewayUnavailable, 3),
    (httpx.Response(302, headers={"location": "https://evil.example"}), GatewayOutcomeUnknown, 1),
    (says({"id": "cs_1"}, 301), GatewayOutcomeUnknown, 1),
    (httpx.Response(200, content=b""), GatewayOutcomeUnknown, 1),
    (httpx.Response(200, content=b"<html>"), GatewayOutcomeUnknown, 1),
    (httpx.Response(200, content=b'{"id": "cs_1", "id": "cs_2"}'), GatewayOutcomeUnknown, 1),
    (httpx.Response(200, content=b'{"amount_total": NaN}'), GatewayOutcomeUnknown, 1),
    (httpx.Response(200, content=b'{"amount_total": 1e9999999999999999999}'), GatewayOutcomeUnknown, 1),
    (httpx.Response(200, content=b"[" * 100_000), GatewayOutcomeUnknown, 1),
    (httpx.Response(200, content=b"\xff\xfe{}"), GatewayOutcomeUnknown, 1),
    (httpx.Response(200, content=b"[]"), GatewayOutcomeUnknown, 1),
    (httpx.Response(200, content=b'{"id": "' + b"x" * 1_200_000), GatewayOutcomeUnknown, 3),
]


@pytest.mark.parametrize(("answer", "error", "calls"), ERRORS)
async def test_what_went_wrong_says_what_may_have_happened_to_the_money(
    answer: Answer, error: type[PayrailError], calls: int
) -> None:
    stripe, gateway = adapter_over(answer)
    with pytest.raises(PayrailError) as raised:
        await stripe.create_session(a_request(), repeated=False)
    assert type(raised.value) is error
    assert len(gateway.requests) == calls
    assert {sent.headers["idempotency-key"] for sent in gateway.requests} == {"att_1"}


async def test_one_unanswered_try_makes_the_outcome_unknown_whatever_the_next_say() -> None:
    stripe, _ = adapter_over(httpx.ReadTimeout("late"), httpx.ConnectError("refused"))
    with pytest.raises(GatewayOutcomeUnknown):
        await stripe.create_session(a_request(), repeated=False)


async def test_our_key_is_in_no_error() -> None:
    stripe, _ = adapter_over(an_error(401), key="sk_live_secret")
    with pytest.raises(GatewayUnavailable) as raised:
        await stripe.create_session(a_request(), repeated=False)
    assert "sk_live_secret" not in str(raised.value)


# --- webhooks: the fact sheet's table -------------------------------------------------------------------------------


def translate(event: dict[str, Any] | str, *, key: str = "sk_test_1") -> GatewayEvent:
    stripe, _ = adapter_over(says({}), key=key)
    return stripe.translate_webhook(a_delivery(event))


PAID = a_session("complete", payment_status="paid", payment_intent="pi_1")
UNPAID = a_session("complete", payment_status="unpaid", payment_intent="pi_1")
MANUAL_METADATA = {"payment_id": "pay_1", "capture": "manual"}


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (
            an_event("payment_intent.amount_capturable_updated", an_intent("requires_capture")),
            {("authorized", "pi_1", USD_1999)},
        ),
        (an_event("payment_intent.succeeded", an_intent()), {("captured", "pi_1", USD_1999)}),
        (
            an_event("payment_intent.succeeded", an_intent(amount_received=1)),
            {("captured", "pi_1", Money(1, "USD"))},
        ),
        (an_event("checkout.session.completed", PAID), {("captured", "pi_1", USD_1999)}),
        (an_event("checkout.session.async_payment_succeeded", PAID), {("captured", "pi_1", USD_1999)}),
        (an_event("checkout.session.async_payment_failed", UNPAID), {("failed", "cs_test_1", None)}),
        (
            an_event("payment_intent.payment_failed", an_intent("requires_payment_method", **DECLINE)),
            {("declined", "pi_1", None)},
        ),
        (an_event("checkout.session.expired", a_session("expired")), {("expired", "cs_test_1", None)}),
        (an_event("payment_intent.canceled", an_intent("canceled")), {("canceled", "pi_1", None)}),
        (an_event("payment_intent.canceled", CLOSED_BY_STRIPE), {("expired", "pi_1", None)}),
        (an_event("payment_intent.processing", an_intent("processing")), {("processing", "pi_1", None)}),
        (an_event("charge.expired", {"id": "ch_1", "payment_intent": "pi_1"}), {("expired", "pi_1", None)}),
    ],
)
def test_what_an_event_means(event: dict[str, Any], expected: set[Any]) -> None:
    translated = translate(event)
    assert told(translated.observations) == expected
    assert not translated.must_ask
    assert translated.ignored is None


@pytest.mark.parametrize(
    "session",
    [
        UNPAID,
        PAID | {"metadata": MANUAL_METADATA},
        PAID | {"metadata": {}},
        PAID | {"payment_intent": None},
        PAID | {"payment_status": "no_payment_required"},
    ],
)
def test_a_completed_page_that_does_not_say_enough_is_a_reason_to_ask(session: dict[str, Any]) -> None:
    translated = translate(an_event("checkout.session.completed", session))
    assert translated.must_ask
    assert translated.observations == ()


def test_an_event_carries_every_reference_that_it_may_be_found_by() -> None:
    translated = translate(an_event("checkout.session.completed", PAID))
    assert translated.references == ("cs_test_1", "pi_1")
    assert translated.our_references == ("pay_1", "PR00000000000000001A")


@pytest.mark.parametrize(
    "event_type",
    [
        "invoice.paid",
        "charge.succeeded",
        "payment_intent.created",
        "payment_intent.requires_action",
        "checkout.session.something_new",
    ],
)
def test_other_events_are_ignored(event_type: str) -> None:
    assert translate(an_event(event_type, PAID)).ignored == "event_type_not_used"


@pytest.mark.parametrize(("key", "livemode"), [("sk_test_1", True), ("sk_live_1", False), ("sk_test_1", None)])
def test_an_event_of_the_other_mode_is_ignored(key: str, livemode: bool | None) -> None:
    event = an_event("payment_intent.succeeded", an_intent(), livemode=livemode)
    assert translate(event, key=key) == GatewayEvent("payment_intent.succeeded", ignored="other_mode")


@pytest.mark.parametrize(
    "event",
    [
        "",
        "[]",
        "null",
        '{"type": 1}',
        '{"type": "a", "type": "b"}',
        an_event("payment_intent.succeeded", {}),
        an_event("payment_intent.succeeded", an_intent(amount_received="1999")),
        an_event("payment_intent.succeeded", an_intent(amount_received=19.99)),
        an_event("payment_intent.succeeded", an_intent(amount_received=True)),
        an_event("payment_intent.succeeded", an_intent(amount_received=10**25)),
        an_event("payment_intent.succeeded", an_intent(amount_received=10**17)),
        an_event("payment_intent.succeeded", an_intent(currency="xxx")),
        an_event("payment_intent.succeeded", an_intent(id="p" * 3000)),
        an_event("payment_intent.succeeded", an_intent(id="pi_\x00")),
        an_event("payment_intent.succeeded", an_intent(id="pi_\ud800")),
        an_event("payment_intent.succeeded", an_intent(), object="v2.core.event"),
        an_event("payment_intent.succeeded", an_intent(), data=[1]),
        an_event("charge.expired", {"id": "ch_1"}),
    ],
)
def test_what_is_not_as_documented_is_unreadable(event: dict[str, Any] | str) -> None:
    with pytest.raises(UnreadableWebhook):
        translate(event)


def test_the_fact_sheets_own_sample_is_understood() -> None:
    sample = (
        '{"id":"evt_test_0001","object":"event","type":"payment_intent.succeeded","data":{"object":{"id":"pi_test_0001",'
        '"object":"payment_intent","amount":1999,"amount_received":1999,"currency":"usd","status":"succeeded",'
        '"metadata":{"order_ref":"ORD-1001"}}}}'
    )
    translated = translate(sample)
    assert told(translated.observations) == {("captured", "pi_test_0001", USD_1999)}
    assert translated.our_references == ("ORD-1001",)


KEYS = (
    "id object type created livemode data payment_intent payment_status status amount_total amount_received "
    "amount_capturable currency metadata capture payment_id order_ref client_reference_id cancellation_reason "
    "last_payment_error decline_code code url expires_at"
).split()
VALUES: list[Any] = [
    "event",
    "payment_intent.succeeded",
    "payment_intent.canceled",
    "payment_intent.payment_failed",
    "checkout.session.completed",
    "checkout.session.expired",
    "charge.expired",
    "succeeded",
    "requires_capture",
    "requires_payment_method",
    "canceled",
    "paid",
    "complete",
    "automatic",
    "usd",
    "kwd",
    1999,
    -1,
    "\ud800",
    "\x00",
]
STRIPE_FOR_FUZZ, _ = adapter_over(says({}))


@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(json_around(KEYS, VALUES))
def test_any_body_is_understood_or_unreadable(body: str) -> None:
    check_translation(body)


@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(json_around(KEYS, VALUES), json_around(KEYS, VALUES))
def test_any_subject_in_a_good_envelope_is_understood_or_unreadable(subject: str, intent: str) -> None:
    for event_type in ("payment_intent.succeeded", "checkout.session.completed", "charge.expired"):
        inner = f'{{"id":"cs_1","payment_status":"paid","payment_intent":{intent},"x":{subject}}}'
        for about in (subject, inner):
            check_translation(
                f'{{"object":"event","type":"{event_type}","livemode":false,"data":{{"object":{about}}}}}'
            )


def check_translation(body: str) -> None:
    try:
        translated = STRIPE_FOR_FUZZ.translate_webhook(a_delivery(body))
    except UnreadableWebhook:
        return
    assert all(len(reference) <= 255 for reference in (*translated.references, *translated.our_references))
    if any(each.kind is FactKind.CAPTURED for each in translated.observations):
        subject = json.loads(body)["data"]["object"]
        assert subject.get("status") in ("succeeded", "requires_capture") or subject.get("payment_status") == "paid"


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(json_around(KEYS, VALUES))
async def test_any_answer_is_a_session_or_a_known_error(body: str) -> None:
    stripe, _ = adapter_over(httpx.Response(200, content=body.encode("utf-8", "surrogatepass")))
    for call in (
        stripe.create_session(a_request(), repeated=False),
        stripe.retrieve(("cs_1",), our_reference="ours"),
        stripe.retrieve(("pi_1",), our_reference="ours"),
        stripe.close_session("cs_1", our_reference="ours"),
    ):
        try:
            await call
        except (GatewayOutcomeUnknown, GatewayRejected):
            continue
