"""Captures, voids, refunds and disputes at the generic gateway, against its contract (gateways/generic.md)."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from pydantic import SecretStr

from services.payment_service.domain.models import CaptureMode
from services.payment_service.domain.operations import OperationKind
from services.payment_service.gateways.generic import Generic, GenericSettings
from services.payment_service.gateways.port import Capability, GatewayEvent, KeyUsedUp, OutcomeStatus, UnreadableWebhook
from shared.clock import to_rfc3339
from shared.errors import (
    GatewayDeniedAfterSilence,
    GatewayObjectNotFound,
    GatewayOutcomeUnknown,
    GatewayRejected,
    GatewayServerError,
    GatewayUnavailable,
    PayrailError,
)
from shared.money import CURRENCY_EXPONENT, Money
from tests.support.clock import A_MOMENT
from tests.unit.payment_service.gateway_world import Answer, ScriptedGateway, a_delivery, json_around, says, told
from tests.unit.payment_service.money_world import OTHER_REFERENCE, REFERENCE, a_call, returned

CAPTURE, VOID, REFUND = OperationKind.CAPTURE, OperationKind.VOID, OperationKind.REFUND
USD_1999, USD_500 = Money(1999, "USD"), Money(500, "USD")


def adapter_over(*answers: Answer) -> tuple[Generic, ScriptedGateway]:
    gateway = ScriptedGateway(list(answers))
    return Generic(
        GenericSettings(api_base="https://generic.test", api_key=SecretStr("gk_1")), gateway.caller()
    ), gateway


def calls(kind: OperationKind, **changes: Any) -> Any:
    return a_call(kind, **({"target": "gp_1", "references": ("gp_1",)} | changes))


def a_session(status: str = "completed", **changes: Any) -> dict[str, Any]:
    session: dict[str, Any] = {
        "payment_id": "gp_1",
        "reference": "PR00000000000000001A",
        "status": status,
        "amount": "19.99",
        "authorized_amount": "19.99",
        "captured_amount": "19.99" if status == "completed" else "0.00",
        "currency": "USD",
        "capture": "manual",
        "voided": False,
        "hold_expires_at": to_rfc3339(A_MOMENT + timedelta(days=7)),
        "captures": [],
        "refunds": [],
        "disputes": [],
    }
    return session | changes


def a_capture(status: str = "succeeded", **changes: Any) -> dict[str, Any]:
    capture = {"capture_id": "gc_1", "reference": REFERENCE, "amount": "5.00", "status": status, "is_final": False}
    return capture | changes


def a_refund(status: str = "succeeded", **changes: Any) -> dict[str, Any]:
    refund = {
        "refund_id": "gr_1",
        "payment_id": "gp_1",
        "reference": REFERENCE,
        "amount": "5.00",
        "currency": "USD",
        "status": status,
        "reason": "too late",
        "failure_code": None,
    }
    return refund | changes


def a_dispute(status: str = "open", **changes: Any) -> dict[str, Any]:
    return {"dispute_id": "gd_1", "amount": "19.99", "status": status, "reason": "fraudulent"} | changes


def a_captured(captured: str = "5.00", status: str = "authorized", **changes: Any) -> dict[str, Any]:
    capture = changes.pop("capture_entry", a_capture())
    return a_session(status, captured_amount=captured, capture_id="gc_1", capture=capture, **changes)


def by_path(**answers: Any) -> Callable[[httpx.Request], httpx.Response]:
    """Answers by the last word of the path, ``session`` for a session."""

    def answer(request: httpx.Request) -> httpx.Response:
        word = request.url.path.rsplit("/", 1)[-1]
        found = answers.get(word, answers.get("session"))
        return found if isinstance(found, httpx.Response) else says(found)

    return answer


def listed(*entries: dict[str, Any]) -> dict[str, Any]:
    return {"data": list(entries)}


# --- what goes out, and what is answered -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("is_whole", "is_final", "final"),
    [(True, False, True), (False, True, True), (False, False, False)],
)
async def test_a_capture_is_one_json_object_with_an_exact_amount(is_whole: bool, is_final: bool, final: bool) -> None:
    generic, gateway = adapter_over(says(a_captured(), 201))
    outcome = await generic.capture(calls(CAPTURE, amount=USD_500, is_whole=is_whole, is_final=is_final))
    assert (gateway.sent.method, gateway.sent.url.path) == ("POST", "/v1/payments/gp_1/captures")
    assert gateway.sent.headers["idempotency-key"] == REFERENCE
    sent = json.loads(gateway.sent.content, parse_float=Decimal)
    assert sent == {"amount": Decimal("5.00"), "reference": REFERENCE, "final": final}
    assert (outcome.status, outcome.gateway_reference) == (OutcomeStatus.SUCCEEDED, "gc_1")
    assert told(outcome.observations) == {("authorized", "gp_1", USD_1999), ("captured", "gp_1", USD_500)}
    assert outcome.references == ("gp_1",)


async def test_a_last_capture_of_a_part_releases_the_rest() -> None:
    generic, _ = adapter_over(says(a_captured(status="completed"), 201))
    outcome = await generic.capture(calls(CAPTURE, amount=USD_500, is_whole=False, is_final=True))
    assert told(outcome.observations) == {("captured", "gp_1", USD_500), ("released", "gp_1", None)}


@pytest.mark.parametrize("mode", CaptureMode)
@pytest.mark.parametrize("held", ["19.99", None], ids=["says", "older"])
async def test_a_last_capture_releases_by_the_amounts_whatever_it_was_thought_to_be(
    held: str | None, mode: CaptureMode
) -> None:
    """``captured`` without ``authorized_amount`` is what older gateways say, and then ``amount`` is what was held."""
    for captured, released in (("5.00", {("released", "gp_1", None)}), ("19.99", set())):
        entry = a_capture(amount=captured)
        generic, _ = adapter_over(
            says(a_captured(captured, "completed", authorized_amount=held, capture_entry=entry), 201)
        )
        taken = Money.from_major(captured, "USD")
        outcome = await generic.capture(calls(CAPTURE, amount=taken, is_whole=True, is_final=True, capture=mode))
        assert told(outcome.observations) == {("captured", "gp_1", taken)} | released


async def test_a_capture_that_is_pending_has_taken_nothing_yet() -> None:
    generic, _ = adapter_over(says(a_captured("0.00", capture_entry=a_capture("pending")), 201))
    outcome = await generic.capture(calls(CAPTURE, amount=USD_500))
    assert outcome.status is OutcomeStatus.PENDING
    assert told(outcome.observations) == {("authorized", "gp_1", USD_1999)}


async def test_a_void_releases_the_hold_or_its_rest() -> None:
    generic, gateway = adapter_over(says(a_session("canceled", voided=True)))
    outcome = await generic.void(calls(VOID))
    assert (gateway.sent.url.path, json.loads(gateway.sent.content)) == (
        "/v1/payments/gp_1/void",
        {"reference": REFERENCE},
    )
    assert (outcome.status, told(outcome.observations)) == (OutcomeStatus.SUCCEEDED, {("canceled", "gp_1", None)})

    generic, _ = adapter_over(says(a_session("completed", voided=True, captured_amount="5.00")))
    outcome = await generic.void(calls(VOID))
    assert told(outcome.observations) == {("captured", "gp_1", USD_500), ("released", "gp_1", None)}


@pytest.mark.parametrize("reason", [None, "too late"])
@pytest.mark.parametrize(
    ("status", "expected", "code"),
    [
        ("succeeded", OutcomeStatus.SUCCEEDED, None),
        ("pending", OutcomeStatus.PENDING, None),
        ("failed", OutcomeStatus.FAILED, "account_closed"),
        ("reversed", OutcomeStatus.FAILED, "account_closed"),
    ],
)
async def test_what_a_refund_asks_and_answers(
    reason: str | None, status: str, expected: OutcomeStatus, code: str | None
) -> None:
    generic, gateway = adapter_over(says(a_refund(status, failure_code=code), 201))
    outcome = await generic.refund(calls(REFUND, amount=USD_500, reason=reason))
    assert gateway.sent.url.path == "/v1/payments/gp_1/refunds"
    sent = json.loads(gateway.sent.content, parse_float=Decimal)
    assert sent == {"amount": Decimal("5.00"), "reference": REFERENCE} | ({"reason": reason} if reason else {})
    assert (outcome.status, outcome.gateway_reference, outcome.failure_code) == (expected, "gr_1", code)


@pytest.mark.parametrize("currency", sorted(CURRENCY_EXPONENT))
async def test_every_currency_makes_the_round_trip(currency: str) -> None:
    amount = Money(123_457, currency)
    written = f"{amount.as_major():f}"
    generic, gateway = adapter_over(says(a_refund(amount=written, currency=currency)))
    generic.check_operation(REFUND, amount)
    assert (await generic.refund(calls(REFUND, amount=amount))).status is OutcomeStatus.SUCCEEDED
    assert gateway.sent.content.startswith(f'{{"amount":{written},'.encode())
    entry = a_capture(amount=written, currency=currency)
    session = a_captured(written, "completed", authorized_amount=written, currency=currency, capture_entry=entry)
    generic, _ = adapter_over(says(session))
    assert told((await generic.capture(calls(CAPTURE, amount=amount))).observations) == {("captured", "gp_1", amount)}


@pytest.mark.parametrize(
    "answer",
    [
        {},
        a_session(),
        a_captured(capture_entry=a_capture(reference=OTHER_REFERENCE)),
        a_captured(capture_entry=a_capture(amount="5.01")),
        a_captured(capture_entry=a_capture(currency="EUR")),
        a_captured(capture_entry=a_capture("something_new")),
        a_captured(capture_entry=a_capture(capture_id=None)),
        a_captured(capture_entry=a_capture() | {"status": 7}),
        a_captured("5.001"),
        a_captured(payment_id=None),
        a_captured(refunds=[1]),
    ],
)
async def test_an_answer_that_is_not_about_our_capture_leaves_it_unknown(answer: dict[str, Any]) -> None:
    generic, _ = adapter_over(says(answer))
    with pytest.raises(GatewayOutcomeUnknown):
        await generic.capture(calls(CAPTURE, amount=USD_500))


@pytest.mark.parametrize(
    "changes", [{"reference": None}, {"amount": "5.01"}, {"currency": "EUR"}, {"refund_id": None}, {"status": "new"}]
)
async def test_an_answer_that_is_not_our_refund_leaves_it_unknown(changes: dict[str, Any]) -> None:
    generic, _ = adapter_over(says(a_refund(**changes)))
    with pytest.raises(GatewayOutcomeUnknown):
        await generic.refund(calls(REFUND, amount=USD_500))


# --- looking, refusals, stored failures ------------------------------------------------------------------------------


async def test_a_capture_is_found_by_our_reference_and_told_with_what_it_took() -> None:
    other = a_capture(capture_id="gc_2", reference=OTHER_REFERENCE)
    generic, gateway = adapter_over(
        by_path(captures=listed(other, a_capture()), session=a_session("authorized", captured_amount="10.00"))
    )
    outcome = await generic.find_operation(calls(CAPTURE, amount=USD_500))
    assert outcome is not None
    assert (outcome.status, outcome.gateway_reference) == (OutcomeStatus.SUCCEEDED, "gc_1")
    assert ("captured", "gp_1", Money(1000, "USD")) in told(outcome.observations)
    assert [request.url.path for request in gateway.requests] == ["/v1/payments/gp_1/captures", "/v1/sessions/gp_1"]


@pytest.mark.parametrize(("kind", "path"), [(CAPTURE, "captures"), (REFUND, "refunds")])
async def test_what_is_not_listed_is_not_known(kind: OperationKind, path: str) -> None:
    generic, _ = adapter_over(by_path(**{path: listed(a_capture(reference=None))}))
    assert await generic.find_operation(calls(kind, amount=USD_500)) is None


@pytest.mark.parametrize(
    ("session", "is_done"),
    [
        (a_session("authorized"), False),
        (a_session("completed"), False),
        (a_session("canceled", voided=True), True),
        (a_session("expired"), True),
        (a_session("completed", captured_amount="5.00"), True),
        (a_session("completed", captured_amount="5.00", capture="automatic"), False),
    ],
)
async def test_a_void_is_done_where_nothing_is_held_any_more(session: dict[str, Any], is_done: bool) -> None:
    generic, _ = adapter_over(says(session))
    assert (await generic.find_operation(calls(VOID)) is not None) is is_done


@pytest.mark.parametrize("kind", [CAPTURE, VOID, REFUND])
@pytest.mark.parametrize("answer", [says({"error": {"code": "not_found"}}, 404), says({}), says({"data": [1]})])
async def test_what_is_not_understood_proves_no_absence(kind: OperationKind, answer: Answer) -> None:
    generic, _ = adapter_over(answer)
    with pytest.raises(GatewayOutcomeUnknown):
        await generic.find_operation(calls(kind))


REFUSAL = says({"error": {"code": "amount_too_large", "message": "no"}}, 422)
STORED_500 = httpx.Response(500, headers={"idempotent-replayed": "true"}, content=b'{"error": {"code": "x"}}')


async def test_done_already_is_answered_with_what_is_there() -> None:
    generic, _ = adapter_over(REFUSAL, says(listed(a_refund())))
    assert (await generic.refund(calls(REFUND, amount=USD_500))).gateway_reference == "gr_1"
    generic, _ = adapter_over(REFUSAL, says(listed(a_refund(reference=OTHER_REFERENCE))))
    with pytest.raises(GatewayRejected) as raised:
        await generic.refund(calls(REFUND, amount=USD_500))
    assert raised.value.gateway_code == "amount_too_large"


async def test_a_stored_failure_is_looked_behind() -> None:
    stored = (STORED_500, STORED_500, STORED_500)
    generic, _ = adapter_over(*stored, says(listed(a_refund())))
    assert (await generic.refund(calls(REFUND, amount=USD_500))).status is OutcomeStatus.SUCCEEDED
    generic, _ = adapter_over(*stored, says(listed()))
    with pytest.raises(KeyUsedUp):
        await generic.refund(calls(REFUND, amount=USD_500))
    generic, gateway = adapter_over(httpx.Response(500))
    with pytest.raises(GatewayServerError):
        await generic.refund(calls(REFUND, amount=USD_500))
    assert {request.method for request in gateway.requests} == {"POST"}


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        ((says({"error": {"code": "not_found"}}, 404),), GatewayObjectNotFound),
        ((says({"error": {"code": "idempotency_key_in_use"}}, 409),), GatewayOutcomeUnknown),
        ((httpx.Response(401),), GatewayUnavailable),
        ((httpx.ReadTimeout("late"), httpx.Response(401)), GatewayDeniedAfterSilence),
        ((httpx.ReadTimeout("late"),), GatewayOutcomeUnknown),
        ((httpx.ConnectError("refused"),), GatewayUnavailable),
        ((REFUSAL, httpx.ConnectError("refused")), GatewayOutcomeUnknown),
        ((REFUSAL, httpx.Response(403)), GatewayOutcomeUnknown),
    ],
)
async def test_what_went_wrong_says_what_may_have_happened(
    answers: tuple[Answer, ...], error: type[PayrailError]
) -> None:
    generic, _ = adapter_over(*answers)
    with pytest.raises(PayrailError) as raised:
        await generic.refund(calls(REFUND))
    assert type(raised.value) is error


async def test_completion_is_not_offered() -> None:
    generic, gateway = adapter_over(says({}))
    with pytest.raises(GatewayRejected):
        await generic.complete(calls(OperationKind.COMPLETION))
    assert gateway.requests == []
    assert {Capability.REFUND, Capability.VOID, Capability.SEVERAL_CAPTURES} <= generic.facts.capabilities
    assert generic.facts.key_valid_for == timedelta(hours=23)


# --- retrieving ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("session", "expected"),
    [
        (a_session("authorized"), {("authorized", "gp_1", USD_1999)}),
        (
            a_session("authorized", captured_amount="5.00"),
            {("authorized", "gp_1", USD_1999), ("captured", "gp_1", USD_500)},
        ),
        (a_session("completed"), {("captured", "gp_1", USD_1999)}),
        (
            a_session("completed", captured_amount="5.00"),
            {("captured", "gp_1", USD_500), ("released", "gp_1", None)},
        ),
        (a_session("completed", captured_amount="5.00", capture="automatic"), {("captured", "gp_1", USD_500)}),
        (a_session("expired", captured_amount="5.00"), {("captured", "gp_1", USD_500), ("released", "gp_1", None)}),
        (a_session("canceled", voided=True), {("canceled", "gp_1", None)}),
        (a_session("expired"), {("expired", "gp_1", None)}),
        (a_session("partly_refunded", captured_amount="5.00"), set()),  # whatever stands beside a word nobody knows
    ],
)
async def test_what_a_session_means(session: dict[str, Any], expected: set[Any]) -> None:
    generic, _ = adapter_over(says(session))
    assert told((await generic.retrieve(("gp_1",), our_reference="ours")).observations) == expected


async def test_a_hold_says_when_it_ends() -> None:
    generic, _ = adapter_over(says(a_session("authorized")))
    (held,) = (await generic.retrieve(("gp_1",), our_reference="ours")).observations
    assert held.capture_before == A_MOMENT + timedelta(days=7)


async def test_refunds_and_disputes_of_a_session_are_imported() -> None:
    refunds = [
        a_refund(),
        a_refund("failed", refund_id="gr_2", reference=None, failure_code="account_closed"),
        a_refund("reversed", refund_id="gr_3", reference=None),
        a_refund("pending", refund_id="gr_4", currency=None) | {"currency": "USD"},
        a_refund("something_new", refund_id="gr_5"),
    ]
    disputes = [a_dispute(), a_dispute("won", dispute_id="gd_2"), a_dispute("lost", dispute_id="gd_3")]
    generic, _ = adapter_over(says(a_session(refunds=refunds, disputes=disputes)))
    snapshot = await generic.retrieve(("gp_1",), our_reference="ours")
    assert returned(snapshot.observations) == {
        ("refund_succeeded", "gr_1", USD_500, "gp_1", REFERENCE),
        ("refund_failed", "gr_2", USD_500, "gp_1", None),
        ("refund_reversed", "gr_3", USD_500, "gp_1", None),
        ("refund_pending", "gr_4", USD_500, "gp_1", REFERENCE),
        ("dispute_opened", "gd_1", USD_1999, "gp_1", None),
        ("dispute_won", "gd_2", USD_1999, "gp_1", None),
        ("dispute_lost", "gd_3", USD_1999, "gp_1", None),
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"refunds": "x"},
        {"refunds": [a_refund(amount="-5.00")]},
        {"refunds": [a_refund(amount="5.001")]},
        {"refunds": [a_refund(refund_id=None)]},
        {"disputes": [a_dispute(amount=None)]},
        {"disputes": [a_dispute(dispute_id=7)]},
        {"hold_expires_at": "soon"},
        {"hold_expires_at": "2026-01-02T03:04:05"},
        {"captured_amount": True},
        {"authorized_amount": "NaN"},
    ],
)
async def test_a_session_that_is_not_understood_is_not_half_read(changes: dict[str, Any]) -> None:
    generic, _ = adapter_over(says(a_session("authorized", **changes)))
    with pytest.raises(GatewayOutcomeUnknown):
        await generic.retrieve(("gp_1",), our_reference="ours")


# --- webhooks --------------------------------------------------------------------------------------------------------


def translate(body: dict[str, Any] | str) -> GatewayEvent:
    generic, _ = adapter_over(says({}))
    return generic.translate_webhook(a_delivery(body))


def a_webhook(status: str, **changes: Any) -> dict[str, Any]:
    body = {
        "payment_id": "gp_1",
        "transaction_id": "pay_1",
        "status": status,
        "amount": 19.99,
        "currency": "USD",
    }
    return {key: value for key, value in (body | changes).items() if value is not ...}


REFUNDED = {"refund_id": "gr_1", "refund_amount": "5.00", "reference": REFERENCE}
DISPUTED = {"dispute_id": "gd_1", "dispute_amount": "5.00", "reason": "fraudulent"}


@pytest.mark.parametrize(
    ("status", "more", "expected"),
    [
        ("refunded", REFUNDED, ("refund_succeeded", "gr_1", USD_500, "gp_1", REFERENCE)),
        ("REFUNDED", REFUNDED, ("refund_succeeded", "gr_1", USD_500, "gp_1", REFERENCE)),
        ("refund_pending", REFUNDED, ("refund_pending", "gr_1", USD_500, "gp_1", REFERENCE)),
        ("refund_failed", REFUNDED, ("refund_failed", "gr_1", USD_500, "gp_1", REFERENCE)),
        ("refund_reversed", REFUNDED | {"reference": None}, ("refund_reversed", "gr_1", USD_500, "gp_1", None)),
        ("refunded", REFUNDED | {"refund_id": 7}, ("refund_succeeded", "7", USD_500, "gp_1", REFERENCE)),
        ("disputed", DISPUTED, ("dispute_opened", "gd_1", USD_500, "gp_1", None)),
        ("dispute_won", DISPUTED, ("dispute_won", "gd_1", USD_500, "gp_1", None)),
        ("dispute_lost", DISPUTED, ("dispute_lost", "gd_1", USD_500, "gp_1", None)),
    ],
)
def test_what_an_event_about_money_that_goes_back_means(status: str, more: dict[str, Any], expected: Any) -> None:
    translated = translate(a_webhook(status, **more))
    assert returned(translated.observations) == {expected}
    assert len(translated.observations) == 1
    assert (translated.references, translated.our_references) == (("gp_1",), ("pay_1",))
    assert not translated.must_ask


@pytest.mark.parametrize("status", ["refunded", "refund_failed", "disputed", "dispute_lost"])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"refund_id": "gr_1", "dispute_id": "gd_1"},
        {"refund_amount": "5.00", "dispute_amount": "5.00"},
        {**REFUNDED, **DISPUTED, "payment_id": ...},
    ],
)
def test_an_event_that_does_not_say_which_and_how_much_is_a_reason_to_ask(status: str, more: dict[str, Any]) -> None:
    translated = translate(a_webhook(status, **more))
    assert (translated.must_ask, translated.observations) == (True, ())


def test_a_partial_capture_tells_what_was_taken_so_far() -> None:
    translated = translate(a_webhook("completed", amount="5.00"))
    assert told(translated.observations) == {("captured", "gp_1", USD_500)}
    translated = translate(a_webhook("authorized", captured_amount="5.00"))
    assert told(translated.observations) == {("captured", "gp_1", USD_500), ("authorized", "gp_1", USD_1999)}


@pytest.mark.parametrize(
    "body",
    [
        a_webhook("refunded", **REFUNDED | {"refund_amount": "-5.00"}),
        a_webhook("refunded", **REFUNDED | {"refund_amount": "5.001"}),
        a_webhook("refunded", **REFUNDED | {"refund_amount": True}),
        a_webhook("refunded", **REFUNDED | {"refund_id": {"id": 1}}),
        a_webhook("refunded", **REFUNDED | {"refund_id": "r" * 300}),
        a_webhook("refunded", **REFUNDED, currency=...),
        a_webhook("refunded", **REFUNDED | {"reference": 5}),
        a_webhook("disputed", **DISPUTED | {"dispute_amount": "NaN"}),
        a_webhook("disputed", **DISPUTED | {"reason": ["x"]}),
    ],
)
def test_what_is_not_as_documented_is_unreadable(body: dict[str, Any]) -> None:
    with pytest.raises(UnreadableWebhook):
        translate(body)


KEYS = (
    "payment_id transaction_id status amount currency captured_amount authorized_amount voided capture capture_id "
    "hold_expires_at refunds refund_id refund_amount disputes dispute_id dispute_amount reference reason data"
).split()
VALUES: list[Any] = ["completed", "authorized", "canceled", "refunded", "disputed", "succeeded", "pending", "open"]
VALUES += ["manual", "USD", "kwd", "gp_1", "gr_1", REFERENCE, "5.00", "19.99", 19.99, 0, -5, True, "\x00", "\ud800"]


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(json_around(KEYS, VALUES))
def test_any_webhook_is_understood_or_unreadable(body: str) -> None:
    try:
        translated = translate(body)
    except UnreadableWebhook:
        return
    assert all(each.amount is None or abs(each.amount.amount_minor) <= 10**15 for each in translated.observations)
    assert all(each[2] is not None and each[2].amount_minor >= 0 for each in returned(translated.observations))


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(json_around(KEYS, VALUES))
async def test_any_answer_is_an_outcome_or_a_known_error(body: str) -> None:
    generic, _ = adapter_over(httpx.Response(200, content=body.encode("utf-8", "surrogatepass")))
    for kind, send in ((CAPTURE, generic.capture), (VOID, generic.void), (REFUND, generic.refund)):
        for ask in (send, generic.find_operation):
            try:
                await ask(calls(kind))
            except (GatewayOutcomeUnknown, GatewayRejected):
                continue
    try:
        await generic.retrieve(("gp_1",), our_reference="ours")
    except GatewayOutcomeUnknown:
        return
