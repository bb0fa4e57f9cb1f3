"""Captures, voids, refunds and disputes at Stripe, against the fact sheet (gateways/stripe.md §4 and §5)."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings

from services.payment_service.domain.errors import CurrencyNotSupported
from services.payment_service.domain.models import FactKind
from services.payment_service.domain.operations import OperationKind
from services.payment_service.gateways.port import Capability, GatewayEvent, KeyUsedUp, OutcomeStatus, UnreadableWebhook
from services.payment_service.gateways.stripe import Stripe, to_stripe_minor
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
from tests.unit.payment_service.gateway_world import Answer, a_delivery, json_around, says, told
from tests.unit.payment_service.money_world import OTHER_REFERENCE, REFERENCE, a_call, returned
from tests.unit.payment_service.stripe_world import (
    USD_1999,
    a_session,
    adapter_over,
    an_error,
    an_event,
    an_intent,
)

CAPTURE, VOID, REFUND = OperationKind.CAPTURE, OperationKind.VOID, OperationKind.REFUND
MANUAL = {"order_ref": "PR00000000000000001A", "payment_id": "pay_1", "capture": "manual"}


def usd(minor: int) -> Money:
    return Money(minor, "USD")


def marked(*captures: int, others: int = 0) -> dict[str, str]:
    """An intent's metadata after captures of ours: the first under our reference, the rest under others."""
    names = [REFERENCE, OTHER_REFERENCE, "PO00000000000000003C"]
    return MANUAL | {f"captured_{name}": str(minor) for name, minor in zip(names[others:], captures, strict=False)}


def a_captured(received: int = 1999, status: str = "succeeded", **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "amount_received": received,
        "amount_capturable": 1999 - received if status == "requires_capture" else 0,
        "capture_method": "manual",
        "latest_charge": "ch_1",
        "metadata": marked(received),
    }
    return an_intent(status, **(values | changes))


def a_refund(status: str = "succeeded", **changes: Any) -> dict[str, Any]:
    refund = {
        "id": "re_1",
        "object": "refund",
        "amount": 500,
        "currency": "usd",
        "status": status,
        "reason": None,
        "payment_intent": "pi_1",
        "charge": "ch_1",
        "metadata": {"refund_ref": REFERENCE, "payment_id": "pay_1"},
    }
    return refund | changes


def a_dispute(status: str = "needs_response", **changes: Any) -> dict[str, Any]:
    dispute = {
        "id": "dp_1",
        "object": "dispute",
        "amount": 1999,
        "currency": "usd",
        "status": status,
        "reason": "fraudulent",
        "payment_intent": "pi_1",
        "charge": "ch_1",
        "livemode": False,
        "metadata": {},
    }
    return dispute | changes


# --- what goes out -------------------------------------------------------------------------------------------------


async def test_a_capture_leaves_its_mark_on_the_intent() -> None:
    stripe, gateway = adapter_over(says(a_captured()))
    outcome = await stripe.capture(a_call(CAPTURE))
    assert (gateway.sent.method, gateway.sent.url.path) == ("POST", "/v1/payment_intents/pi_1/capture")
    assert gateway.sent.headers["idempotency-key"] == REFERENCE
    assert gateway.form == {
        "amount_to_capture": "1999",
        "final_capture": "true",
        f"metadata[captured_{REFERENCE}]": "1999",
        "metadata[capture_ref]": REFERENCE,
        "expand[0]": "latest_charge",
    }
    assert (outcome.status, outcome.gateway_reference) == (OutcomeStatus.SUCCEEDED, "pi_1")
    assert told(outcome.observations) == {("captured", "pi_1", USD_1999)}
    assert outcome.references == ("pi_1", "ch_1")


@pytest.mark.parametrize(
    ("is_whole", "is_final", "final_capture"),
    [(True, False, "true"), (True, True, "true"), (False, True, "true"), (False, False, "false")],
)
async def test_only_a_capture_that_is_not_the_last_keeps_the_rest_held(
    is_whole: bool, is_final: bool, final_capture: str
) -> None:
    stripe, gateway = adapter_over(says(a_captured()))
    await stripe.capture(a_call(CAPTURE, is_whole=is_whole, is_final=is_final))
    assert gateway.form["final_capture"] == final_capture


async def test_a_void_cancels_the_intent() -> None:
    stripe, gateway = adapter_over(says(an_intent("canceled", cancellation_reason="abandoned")))
    outcome = await stripe.void(a_call(VOID, reason="abandoned"))
    assert gateway.sent.url.path == "/v1/payment_intents/pi_1/cancel"
    assert gateway.form == {"cancellation_reason": "abandoned", "expand[0]": "latest_charge"}
    assert gateway.sent.headers["idempotency-key"] == REFERENCE
    assert outcome.status is OutcomeStatus.SUCCEEDED
    assert told(outcome.observations) == {("canceled", "pi_1", None)}


async def test_a_refund_carries_our_reference() -> None:
    stripe, gateway = adapter_over(says(a_refund()))
    outcome = await stripe.refund(a_call(REFUND, amount=usd(500), reason="requested_by_customer"))
    assert (gateway.sent.method, gateway.sent.url.path) == ("POST", "/v1/refunds")
    assert gateway.sent.headers["idempotency-key"] == REFERENCE
    assert gateway.form == {
        "payment_intent": "pi_1",
        "amount": "500",
        "metadata[refund_ref]": REFERENCE,
        "metadata[payment_id]": "pay_1",
        "metadata[order_id]": "ord_1",
        "reason": "requested_by_customer",
    }
    assert (outcome.status, outcome.gateway_reference, outcome.failure_code) == (OutcomeStatus.SUCCEEDED, "re_1", None)


@pytest.mark.parametrize(("kind", "field"), [(REFUND, "reason"), (VOID, "cancellation_reason")])
async def test_a_reason_that_stripe_does_not_know_is_not_sent_as_one(kind: OperationKind, field: str) -> None:
    stripe, gateway = adapter_over(says(a_refund(amount=1999) if kind is REFUND else an_intent("canceled")))
    call = a_call(kind, reason="too late & 100% sorry " * 40)
    await (stripe.refund(call) if kind is REFUND else stripe.void(call))
    assert field not in gateway.form
    if kind is REFUND:
        assert gateway.form["metadata[reason]"] == call.reason[:500] if call.reason else False


async def test_a_repeated_call_is_the_same_byte_for_byte() -> None:
    stripe, gateway = adapter_over(httpx.ReadTimeout("late"), httpx.Response(502), says(a_refund(amount=1999)))
    await stripe.refund(a_call(REFUND))
    assert len(gateway.requests) == 3
    assert {(sent.content, sent.headers["idempotency-key"]) for sent in gateway.requests} == {
        (gateway.sent.content, REFERENCE)
    }


# --- what the answers mean -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("intent", "expected"),
    [
        (
            a_captured(500, "requires_capture"),
            {("authorized", "pi_1", USD_1999), ("captured", "pi_1", usd(500))},
        ),
        (a_captured(500), {("captured", "pi_1", usd(500)), ("released", "pi_1", None)}),
        (a_captured(), {("captured", "pi_1", USD_1999)}),
    ],
)
async def test_what_a_capture_answers(intent: dict[str, Any], expected: set[Any]) -> None:
    stripe, _ = adapter_over(says(intent))
    outcome = await stripe.capture(a_call(CAPTURE, amount=usd(500), is_whole=False))
    assert outcome.status is OutcomeStatus.SUCCEEDED
    assert told(outcome.observations) == expected


async def test_a_last_capture_that_left_something_releases_it_whatever_it_was_thought_to_be() -> None:
    stripe, _ = adapter_over(says(a_captured(500)))
    outcome = await stripe.capture(a_call(CAPTURE, amount=usd(500), is_whole=True, is_final=True))
    assert told(outcome.observations) == {("captured", "pi_1", usd(500)), ("released", "pi_1", None)}


async def test_a_void_after_a_partial_capture_releases_the_rest() -> None:
    for intent in (a_captured(500), a_captured(500, "canceled")):
        stripe, _ = adapter_over(says(intent))
        outcome = await stripe.void(a_call(VOID))
        assert outcome.status is OutcomeStatus.SUCCEEDED
        assert told(outcome.observations) == {("captured", "pi_1", usd(500)), ("released", "pi_1", None)}


@pytest.mark.parametrize(
    ("status", "more", "expected", "code"),
    [
        ("pending", {}, OutcomeStatus.PENDING, None),
        ("requires_action", {}, OutcomeStatus.PENDING, None),
        ("succeeded", {}, OutcomeStatus.SUCCEEDED, None),
        ("failed", {"failure_reason": "lost_or_stolen_card"}, OutcomeStatus.FAILED, "lost_or_stolen_card"),
        ("failed", {}, OutcomeStatus.FAILED, "failed"),
        ("canceled", {}, OutcomeStatus.FAILED, "canceled"),
    ],
)
async def test_what_a_refund_answers(
    status: str, more: dict[str, Any], expected: OutcomeStatus, code: str | None
) -> None:
    stripe, _ = adapter_over(says(a_refund(status, **more)))
    outcome = await stripe.refund(a_call(REFUND, amount=usd(500)))
    assert (outcome.status, outcome.gateway_reference, outcome.failure_code) == (expected, "re_1", code)


@pytest.mark.parametrize(
    "answer",
    [
        a_captured(livemode=True),
        a_captured(id="pi_2"),
        a_captured(metadata=MANUAL),
        a_captured(1998, metadata=marked(1999)),
        a_captured(metadata=marked(1) | {"captured_x": "many"}),
        a_captured(metadata=7),
        a_captured(amount_received="1999"),
        a_captured(currency="xxx"),
        {},
    ],
)
async def test_an_answer_that_is_not_about_our_capture_leaves_it_unknown(answer: dict[str, Any]) -> None:
    stripe, _ = adapter_over(says(answer))
    with pytest.raises(GatewayOutcomeUnknown):
        await stripe.capture(a_call(CAPTURE))


@pytest.mark.parametrize(
    "changes",
    [
        {"amount": 499},
        {"currency": "eur"},
        {"amount": -500},
        {"payment_intent": "pi_2"},
        {"metadata": {}},
        {"metadata": {"refund_ref": OTHER_REFERENCE}},
        {"status": "something_new"},
        {"id": None},
        {"livemode": True},
    ],
)
async def test_an_answer_that_is_not_our_refund_leaves_it_unknown(changes: dict[str, Any]) -> None:
    stripe, _ = adapter_over(says(a_refund(**changes)))
    with pytest.raises(GatewayOutcomeUnknown):
        await stripe.refund(a_call(REFUND, amount=usd(500)))


async def test_a_void_that_answers_held_is_not_done() -> None:
    stripe, _ = adapter_over(says(an_intent("requires_capture")))
    with pytest.raises(GatewayOutcomeUnknown):
        await stripe.void(a_call(VOID))


# --- looking for what became of a call -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("intent", "status"),
    [
        (an_intent("requires_capture", metadata=MANUAL), None),
        (a_captured(500, "requires_capture", metadata=marked(500, others=1)), None),  # another capture of ours
        (a_captured(metadata=MANUAL), None),  # captured in the dashboard
        (a_captured(500, "requires_capture"), OutcomeStatus.SUCCEEDED),
        (a_captured(1000, "requires_capture", metadata=marked(500, 500)), OutcomeStatus.SUCCEEDED),
        (a_captured(500, "canceled"), OutcomeStatus.SUCCEEDED),
        (a_captured(0, "processing", metadata=marked(500)), OutcomeStatus.PENDING),
        (a_captured(0, "requires_payment_method", metadata=marked(500)), OutcomeStatus.FAILED),
    ],
)
async def test_a_capture_is_told_from_all_others_by_its_mark(
    intent: dict[str, Any], status: OutcomeStatus | None
) -> None:
    stripe, gateway = adapter_over(says(intent))
    outcome = await stripe.find_operation(a_call(CAPTURE, amount=usd(500), is_whole=False))
    assert (outcome.status if outcome else None) == status
    assert gateway.sent.url.params["expand[]"] == "latest_charge"


async def test_a_capture_that_failed_later_takes_the_hold_with_it() -> None:
    declined = {"last_payment_error": {"code": "card_declined", "decline_code": "insufficient_funds"}}
    stripe, _ = adapter_over(says(a_captured(0, "requires_payment_method", metadata=marked(1999), **declined)))
    outcome = await stripe.find_operation(a_call(CAPTURE))
    assert outcome is not None
    assert outcome.failure_code == "insufficient_funds"
    assert ("released", "pi_1", None) in told(outcome.observations)


@pytest.mark.parametrize("intent", [a_captured(1000, metadata=marked(500, 1000)), a_captured(0, "requires_capture")])
async def test_a_mark_without_its_money_is_not_believed(intent: dict[str, Any]) -> None:
    intent["metadata"] = marked(500, 1000)
    stripe, _ = adapter_over(says(intent))
    with pytest.raises(GatewayOutcomeUnknown):
        await stripe.find_operation(a_call(CAPTURE, amount=usd(500)))


@pytest.mark.parametrize(
    ("intent", "is_done"),
    [
        (an_intent("requires_capture"), False),
        (an_intent("succeeded", capture_method="manual"), False),
        (an_intent("canceled"), True),
        (an_intent("canceled", cancellation_reason="automatic"), True),
        (a_captured(500), True),
        (an_intent("succeeded", amount_received=500), False),  # automatic: no hold that could have been released
        (an_intent("requires_payment_method"), False),
    ],
)
async def test_a_void_is_done_where_nothing_is_held_any_more(intent: dict[str, Any], is_done: bool) -> None:
    stripe, _ = adapter_over(says(intent))
    outcome = await stripe.find_operation(a_call(VOID))
    assert (outcome is not None and outcome.status is OutcomeStatus.SUCCEEDED) is is_done


async def test_a_refund_is_found_among_others_by_our_reference() -> None:
    others = [a_refund(id="re_2", metadata={}), a_refund(id="re_3", metadata={"refund_ref": OTHER_REFERENCE})]
    stripe, gateway = adapter_over(says({}), refunds=[*others, a_refund("pending")])
    outcome = await stripe.find_operation(a_call(REFUND, amount=usd(500)))
    assert outcome is not None
    assert (outcome.status, outcome.gateway_reference) == (OutcomeStatus.PENDING, "re_1")
    assert dict(gateway.lists[-1].url.params) == {"payment_intent": "pi_1", "limit": "100"}
    gateway.refunds.pop()
    assert await stripe.find_operation(a_call(REFUND, amount=usd(500))) is None


@pytest.mark.parametrize("kind", [CAPTURE, VOID])
@pytest.mark.parametrize("answer", [an_error(404, code="resource_missing"), an_error(400), says({}), says([])])
async def test_what_is_not_understood_proves_no_absence(kind: OperationKind, answer: Answer) -> None:
    stripe, _ = adapter_over(answer)
    with pytest.raises(GatewayOutcomeUnknown):
        await stripe.find_operation(a_call(kind))


async def test_a_gateway_that_is_away_can_be_asked_later() -> None:
    stripe, _ = adapter_over(httpx.ConnectError("refused"))
    with pytest.raises(GatewayUnavailable):
        await stripe.find_operation(a_call(CAPTURE))


# --- refusals and stored failures ----------------------------------------------------------------------------------

STORED_500 = httpx.Response(
    500, headers={"idempotent-replayed": "true"}, content=b'{"error": {"type": "api_error", "message": "sorry"}}'
)


@pytest.mark.parametrize(
    "code",
    [
        "charge_already_captured",
        "payment_intent_unexpected_state",
        "amount_too_large",
        "charge_already_refunded",
        None,
    ],
)
async def test_done_already_is_answered_with_what_is_there(code: str | None) -> None:
    stripe, gateway = adapter_over(an_error(400, code=code), says(a_captured()))
    assert (await stripe.capture(a_call(CAPTURE))).status is OutcomeStatus.SUCCEEDED
    assert [sent.method for sent in gateway.requests] == ["POST", "GET"]


@pytest.mark.parametrize("code", ["charge_already_captured", "payment_intent_unexpected_state"])
async def test_done_by_somebody_else_is_a_refusal(code: str) -> None:
    stripe, _ = adapter_over(an_error(400, code=code), says(a_captured(metadata=MANUAL)))
    with pytest.raises(GatewayRejected) as raised:
        await stripe.capture(a_call(CAPTURE))
    assert raised.value.gateway_code == code


async def test_a_refund_that_is_there_already_is_ours_by_its_reference() -> None:
    stripe, gateway = adapter_over(an_error(400, code="charge_already_refunded"), refunds=[a_refund()])
    assert (await stripe.refund(a_call(REFUND, amount=usd(500)))).gateway_reference == "re_1"
    gateway.refunds.clear()
    with pytest.raises(GatewayRejected):
        await stripe.refund(a_call(REFUND, amount=usd(500)))


@pytest.mark.parametrize(
    "code",
    [
        "charge_disputed",
        "refund_disputed_payment",
        "charge_expired_for_capture",
        "capture_charge_authorization_expired",
        "balance_insufficient",
        "parameter_missing",
    ],
)
async def test_a_plain_refusal_needs_no_second_look_and_keeps_its_code(code: str) -> None:
    stripe, gateway = adapter_over(an_error(400, code=code))
    with pytest.raises(GatewayRejected) as raised:
        await stripe.capture(a_call(CAPTURE))
    assert (raised.value.gateway_code, len(gateway.requests)) == (code, 1)


@pytest.mark.parametrize("look", [an_error(401), httpx.ConnectError("refused"), an_error(404), httpx.Response(503)])
async def test_a_look_that_fails_leaves_the_outcome_unknown(look: Answer) -> None:
    stripe, _ = adapter_over(an_error(400, code="charge_already_captured"), look)
    with pytest.raises(GatewayOutcomeUnknown):
        await stripe.capture(a_call(CAPTURE))


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (an_error(402, "card_error", code="card_declined"), GatewayRejected),
        (an_error(404, code="resource_missing"), GatewayObjectNotFound),
        (an_error(400, "idempotency_error"), GatewayOutcomeUnknown),
        (an_error(409, code="idempotency_key_in_use"), GatewayOutcomeUnknown),
        (an_error(409, code="lock_timeout"), GatewayRateLimited),
        (an_error(429, code="lock_timeout"), GatewayRateLimited),
        (an_error(400, code="rate_limit"), GatewayRateLimited),
        (an_error(401), GatewayUnavailable),
        (httpx.Response(500), GatewayServerError),
        (httpx.Response(503, headers={"idempotent-replayed": "true"}), GatewayServerError),
        (httpx.ReadTimeout("late"), GatewayOutcomeUnknown),
        (httpx.ConnectError("refused"), GatewayUnavailable),
        (httpx.Response(200, content=b"<html>"), GatewayOutcomeUnknown),
        (httpx.Response(302, headers={"location": "https://evil.example"}), GatewayOutcomeUnknown),
    ],
)
async def test_what_went_wrong_says_what_may_have_happened(answer: Answer, error: type[PayrailError]) -> None:
    stripe, _ = adapter_over(answer)
    with pytest.raises(PayrailError) as raised:
        await stripe.capture(a_call(CAPTURE))
    assert type(raised.value) is error


@pytest.mark.parametrize("second", [an_error(401), an_error(403), an_error(400, code="rate_limit"), an_error(429)])
async def test_silence_and_then_no_entry_is_still_unknown(second: Answer) -> None:
    """The second answer only says that the second try did nothing."""
    stripe, _ = adapter_over(httpx.ReadTimeout("late"), second)
    with pytest.raises(GatewayOutcomeUnknown):
        await stripe.refund(a_call(REFUND))


async def test_a_stored_failure_whose_work_was_done_is_answered_with_it() -> None:
    stripe, _ = adapter_over(STORED_500, STORED_500, STORED_500, says(a_captured()))
    assert (await stripe.capture(a_call(CAPTURE))).status is OutcomeStatus.SUCCEEDED


async def test_a_stored_failure_that_did_nothing_uses_the_key_up() -> None:
    stripe, _ = adapter_over(STORED_500, STORED_500, STORED_500, says(an_intent("requires_capture", metadata=MANUAL)))
    with pytest.raises(KeyUsedUp):
        await stripe.capture(a_call(CAPTURE))
    stripe, _ = adapter_over(STORED_500)
    with pytest.raises(KeyUsedUp):
        await stripe.refund(a_call(REFUND))


async def test_a_failure_that_is_not_marked_as_stored_may_still_be_at_work() -> None:
    stripe, gateway = adapter_over(httpx.Response(500))
    with pytest.raises(GatewayServerError) as raised:
        await stripe.refund(a_call(REFUND))
    assert not isinstance(raised.value, KeyUsedUp)
    assert gateway.lists == []


# --- facts and amounts ---------------------------------------------------------------------------------------------


def test_what_stripe_offers_and_for_how_long() -> None:
    facts = Stripe.facts
    several = {Capability.PARTIAL_CAPTURE, Capability.SEVERAL_CAPTURES, Capability.PARTIAL_REFUND}
    assert several | {Capability.VOID, Capability.REFUND, Capability.DISPUTES} <= facts.capabilities
    assert facts.key_valid_for is not None
    assert facts.key_valid_for < timedelta(hours=24)
    assert facts.authorization_valid_for == timedelta(days=7)
    assert facts.absence_proves_after is not None


async def test_completion_is_not_offered() -> None:
    stripe, gateway = adapter_over(says({}))
    with pytest.raises(GatewayRejected):
        await stripe.complete(a_call(OperationKind.COMPLETION))
    assert gateway.requests == []


@pytest.mark.parametrize(("minor", "currency"), [(5124, "KWD"), (1, "TND"), (500_01, "MGA")])
def test_an_amount_that_stripe_cannot_express_is_refused_before_any_call(minor: int, currency: str) -> None:
    stripe, gateway = adapter_over(says({}))
    for kind in (CAPTURE, REFUND):
        with pytest.raises(CurrencyNotSupported):
            stripe.check_operation(kind, Money(minor, currency))
    stripe.check_operation(VOID, Money(minor, currency))
    assert gateway.requests == []


@pytest.mark.parametrize("currency", sorted(CURRENCY_EXPONENT))
async def test_every_currency_makes_the_round_trip(currency: str) -> None:
    amount = Money(123_000, currency)
    wire, code = to_stripe_minor(amount), currency.lower()
    refund = a_refund(amount=wire, currency=code)
    intent = a_captured(wire, amount=wire, currency=code)
    stripe, gateway = adapter_over(says(refund), says(intent), refunds=[refund], disputes=[])
    await stripe.refund(a_call(REFUND, amount=amount))
    assert gateway.form["amount"] == str(wire)
    outcome = await stripe.capture(a_call(CAPTURE, amount=amount))
    assert gateway.form["amount_to_capture"] == str(wire)
    assert told(outcome.observations) == {("captured", "pi_1", amount)}
    gateway.disputes = [a_dispute(amount=wire, currency=code)]
    snapshot = await stripe.retrieve(("pi_1",), our_reference="ours")
    assert {each.amount for each in snapshot.observations} == {amount}


# --- retrieving: refunds and disputes ------------------------------------------------------------------------------


async def test_what_was_captured_is_asked_about_to_its_end() -> None:
    session = a_session("complete", payment_intent=a_captured())
    by_hand = a_refund("failed", id="re_2", metadata={}, failure_reason="declined")
    release = a_refund(id="re_3", reason="expired_uncaptured_charge")
    stripe, gateway = adapter_over(says(session), refunds=[a_refund(), by_hand, release], disputes=[a_dispute()])
    snapshot = await stripe.retrieve(("cs_test_1",), our_reference="ours")
    assert returned(snapshot.observations) == {
        ("refund_succeeded", "re_1", usd(500), "pi_1", REFERENCE),
        ("refund_failed", "re_2", usd(500), "pi_1", None),
        ("dispute_opened", "dp_1", USD_1999, "pi_1", None),
    }
    assert snapshot.references == ("cs_test_1", "pi_1", "ch_1")
    assert [each.reason for each in snapshot.observations if each.object_reference == "re_2"] == ["declined"]
    assert {request.url.params["payment_intent"] for request in gateway.lists} == {"pi_1"}


async def test_what_was_not_captured_has_no_refunds_to_ask_about() -> None:
    held = a_session("complete", payment_intent=an_intent("requires_capture"))
    stripe, gateway = adapter_over(says(held), refunds=[a_refund(reason="expired_uncaptured_charge")])
    await stripe.retrieve(("cs_test_1",), our_reference="ours")
    assert gateway.lists == []


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("warning_needs_response", "dispute_opened"),
        ("needs_response", "dispute_opened"),
        ("under_review", "dispute_opened"),
        ("appeal_under_review", "dispute_opened"),
        ("won", "dispute_won"),
        ("warning_closed", "dispute_won"),
        ("prevented", "dispute_won"),
        ("lost", "dispute_lost"),
    ],
)
async def test_what_a_dispute_means(status: str, kind: str) -> None:
    stripe, _ = adapter_over(says(a_captured()), disputes=[a_dispute(status), a_dispute("something_new", id="dp_2")])
    snapshot = await stripe.retrieve(("pi_1",), our_reference="ours")
    assert returned(snapshot.observations) == {(kind, "dp_1", USD_1999, "pi_1", None)}


@pytest.mark.parametrize("dispute", [a_dispute(livemode=True), a_dispute(amount="1999"), a_dispute(id=7)])
async def test_a_list_that_is_not_understood_is_not_half_read(dispute: dict[str, Any]) -> None:
    stripe, _ = adapter_over(says(a_captured()), disputes=[dispute])
    with pytest.raises(GatewayOutcomeUnknown):
        await stripe.retrieve(("pi_1",), our_reference="ours")


async def test_a_list_is_read_to_its_end() -> None:
    refunds = [a_refund(id="re_2", metadata={}), a_refund(id="re_3", metadata={}), a_refund()]
    stripe, gateway = adapter_over(says(a_captured()), refunds=refunds, page_size=1)
    outcome = await stripe.find_operation(a_call(REFUND, amount=usd(500)))
    assert outcome is not None
    assert gateway.lists[-1].url.params["starting_after"] == "re_3"
    snapshot = await stripe.retrieve(("pi_1",), our_reference="ours")
    assert {each[1] for each in returned(snapshot.observations)} == {"re_1", "re_2", "re_3"}


async def test_the_moment_the_hold_ends_is_the_cards_where_it_is_told() -> None:
    card = {"payment_method_details": {"type": "card", "card": {"capture_before": 1767830400}}}
    intent = an_intent("requires_capture", latest_charge={"id": "ch_1", **card})
    stripe, _ = adapter_over(says(intent))
    (held,) = (await stripe.retrieve(("pi_1",), our_reference="ours")).observations
    assert held.capture_before == datetime(2026, 1, 8, tzinfo=UTC)
    for masked in ("[removed]", {"card": "[removed]"}, {"card": {"capture_before": "soon"}}, None):
        event = an_event(
            "payment_intent.amount_capturable_updated",
            intent | {"latest_charge": {"id": "ch_1", "payment_method_details": masked}},
        )
        (seen,) = translate(event).observations
        assert (seen.kind, seen.capture_before) == (FactKind.AUTHORIZED, None)


# --- webhooks ------------------------------------------------------------------------------------------------------


def translate(event: dict[str, Any] | str, *, key: str = "sk_test_1") -> GatewayEvent:
    stripe, _ = adapter_over(says({}), key=key)
    return stripe.translate_webhook(a_delivery(event))


@pytest.mark.parametrize("event_type", ["refund.created", "refund.updated", "refund.failed", "charge.refund.updated"])
@pytest.mark.parametrize(
    ("refund", "kind"),
    [
        (a_refund(), "refund_succeeded"),
        (a_refund("pending"), "refund_pending"),
        (a_refund("requires_action"), "refund_pending"),
        (a_refund("failed"), "refund_failed"),
        (a_refund("canceled"), "refund_failed"),
    ],
)
def test_what_an_event_about_a_refund_means(event_type: str, refund: dict[str, Any], kind: str) -> None:
    translated = translate(an_event(event_type, refund))
    assert returned(translated.observations) == {(kind, "re_1", usd(500), "pi_1", REFERENCE)}
    assert (translated.references, translated.our_references) == (("pi_1", "ch_1"), ("pay_1",))
    assert not translated.must_ask


def test_a_refund_made_in_the_dashboard_is_imported() -> None:
    translated = translate(an_event("refund.created", a_refund(metadata={})))
    assert returned(translated.observations) == {("refund_succeeded", "re_1", usd(500), "pi_1", None)}
    assert (translated.references, translated.our_references) == (("pi_1", "ch_1"), ())


def test_the_release_of_a_hold_is_no_refund() -> None:
    released = a_refund(reason="expired_uncaptured_charge")
    assert translate(an_event("refund.created", released)).ignored == "release_of_uncaptured_money"


def test_a_status_that_is_not_known_is_a_reason_to_ask() -> None:
    for event in (
        an_event("refund.updated", a_refund("something_new")),
        an_event("charge.dispute.updated", a_dispute("something_new")),
    ):
        translated = translate(event)
        assert (translated.must_ask, translated.observations) == (True, ())


@pytest.mark.parametrize(
    ("event_type", "status", "kind"),
    [
        ("charge.dispute.created", "needs_response", "dispute_opened"),
        ("charge.dispute.updated", "under_review", "dispute_opened"),
        ("charge.dispute.funds_withdrawn", "needs_response", "dispute_opened"),
        ("charge.dispute.closed", "won", "dispute_won"),
        ("charge.dispute.closed", "lost", "dispute_lost"),
        ("charge.dispute.closed", "warning_closed", "dispute_won"),
        ("charge.dispute.funds_reinstated", "won", "dispute_won"),
    ],
)
def test_what_an_event_about_a_dispute_means(event_type: str, status: str, kind: str) -> None:
    translated = translate(an_event(event_type, a_dispute(status, amount=700)))
    assert returned(translated.observations) == {(kind, "dp_1", usd(700), "pi_1", None)}
    assert translated.observations[0].reason == "fraudulent"
    assert translated.references == ("pi_1", "ch_1")


def a_charge(**changes: Any) -> dict[str, Any]:
    charge = {
        "id": "ch_1",
        "object": "charge",
        "payment_intent": "pi_1",
        "amount": 1999,
        "amount_captured": 0,
        "amount_refunded": 500,
        "currency": "usd",
        "metadata": MANUAL,
    }
    return charge | changes


@pytest.mark.parametrize(
    ("event_type", "charge", "expected"),
    [
        ("charge.captured", a_charge(amount_captured=700), {("captured", "pi_1", usd(700))}),
        ("charge.expired", a_charge(), {("expired", "pi_1", None)}),
        (
            "charge.expired",
            a_charge(amount_captured=700),
            {("captured", "pi_1", usd(700)), ("released", "pi_1", None)},
        ),
    ],
)
def test_what_an_event_about_a_charge_means(event_type: str, charge: dict[str, Any], expected: set[Any]) -> None:
    translated = translate(an_event(event_type, charge))
    assert told(translated.observations) == expected
    assert (translated.references, translated.our_references) == (
        ("pi_1", "ch_1"),
        ("pay_1", "PR00000000000000001A"),
    )
    assert not translated.must_ask


@pytest.mark.parametrize("refunds", [None, {}, {"data": [a_refund()], "has_more": True}, {"data": [a_refund()]}])
def test_a_refunded_charge_without_its_whole_list_is_a_reason_to_ask(refunds: object) -> None:
    translated = translate(an_event("charge.refunded", a_charge(refunds=refunds)))
    assert (translated.must_ask, translated.observations) == (True, ())


def test_a_refunded_charge_with_its_list_says_which() -> None:
    page = {"data": [a_refund(payment_intent=None), a_refund(id="re_2", reason="expired_uncaptured_charge")]}
    translated = translate(an_event("charge.refunded", a_charge(refunds=page | {"has_more": False})))
    assert returned(translated.observations) == {("refund_succeeded", "re_1", usd(500), "pi_1", REFERENCE)}
    assert not translated.must_ask


def test_a_refund_of_a_charge_without_an_intent_is_about_the_charge() -> None:
    translated = translate(an_event("refund.created", a_refund(payment_intent=None)))
    assert translated.references == ("ch_1",)


@pytest.mark.parametrize(
    "event",
    [
        an_event("refund.created", a_refund(amount=-1)),
        an_event("refund.created", a_refund(amount=19.99)),
        an_event("refund.created", a_refund(currency=None)),
        an_event("refund.created", a_refund(id="r" * 300)),
        an_event("refund.created", a_refund(payment_intent=None, charge=None)),
        an_event("refund.created", a_refund(metadata="x")),
        an_event("charge.refund.updated", a_charge()),
        an_event("charge.dispute.created", a_dispute(amount=None)),
        an_event("charge.dispute.created", {}),
        an_event("charge.refunded", a_charge(payment_intent=None)),
        an_event("charge.refunded", a_charge(refunds=[1])),
        an_event("charge.refunded", a_charge(refunds={"data": [1], "has_more": False})),
        an_event("charge.captured", a_charge(amount_captured="700")),
    ],
)
def test_what_is_not_as_documented_is_unreadable(event: dict[str, Any]) -> None:
    with pytest.raises(UnreadableWebhook):
        translate(event)


@pytest.mark.parametrize("subject", [a_refund(), a_dispute(livemode=True), a_charge(amount_captured=1)])
@pytest.mark.parametrize("event_type", ["refund.created", "charge.dispute.created", "charge.captured"])
def test_the_other_mode_is_ignored(event_type: str, subject: dict[str, Any]) -> None:
    assert translate(an_event(event_type, subject, livemode=True)).ignored == "other_mode"


KEYS = (
    "id object status amount amount_received amount_capturable amount_captured currency metadata refund_ref reason "
    "payment_intent charge latest_charge refunds data has_more livemode failure_reason payment_method_details card "
    f"capture_before capture_method captured_{REFERENCE}"
).split()
VALUES: list[Any] = ["pi_1", "ch_1", "re_1", "succeeded", "failed", "pending", "won", "lost", "requires_capture"]
VALUES += ["canceled", "manual", "usd", "kwd", "isk", REFERENCE, "500", 500, 1999, -1, False, True, "\ud800", "\x00"]
EVENTS = ("refund.created", "charge.refunded", "charge.dispute.closed", "charge.expired", "charge.captured")


@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(json_around(KEYS, VALUES))
def test_any_subject_is_understood_or_unreadable(subject: str) -> None:
    for event_type in EVENTS:
        body = f'{{"object":"event","type":"{event_type}","livemode":false,"data":{{"object":{subject}}}}}'
        try:
            translated = translate(body)
        except UnreadableWebhook:
            continue
        assert all(len(reference) <= 255 for reference in (*translated.references, *translated.our_references))
        assert all(each.amount is None or abs(each.amount.amount_minor) <= 10**15 for each in translated.observations)
        taken_back = [o for o in translated.observations if o.kind.startswith(("refund_", "dispute_"))]
        assert all(each.amount is not None and each.amount.amount_minor >= 0 for each in taken_back)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(json_around(KEYS, VALUES))
async def test_any_answer_to_a_money_call_is_an_outcome_or_a_known_error(body: str) -> None:
    answer = httpx.Response(200, content=body.encode("utf-8", "surrogatepass"))
    stripe, gateway = adapter_over(answer)
    with suppress(ValueError, KeyError, TypeError, RecursionError):
        entries = json.loads(body)["data"]
        gateway.refunds = gateway.disputes = entries if isinstance(entries, list) else []
    for kind, call in ((CAPTURE, stripe.capture), (VOID, stripe.void), (REFUND, stripe.refund)):
        for ask in (call, stripe.find_operation):
            try:
                await ask(a_call(kind))
            except (GatewayOutcomeUnknown, GatewayRejected):
                continue
    try:
        await stripe.retrieve(("pi_1",), our_reference="ours")
    except GatewayOutcomeUnknown:
        return
