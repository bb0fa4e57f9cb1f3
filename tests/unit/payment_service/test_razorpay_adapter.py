"""The Razorpay adapter, against the fact sheet (gateways/razorpay.md): what goes out, and what each answer means."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from services.payment_service.domain.errors import CurrencyNotSupported
from services.payment_service.domain.models import CaptureMode, Customer
from services.payment_service.domain.operations import OperationKind
from services.payment_service.gateways.port import Capability, MoneyCall, OutcomeStatus
from services.payment_service.gateways.razorpay import DEFINITION, Razorpay, RazorpaySettings
from services.payment_service.gateways.razorpay.reading import CURRENCIES, to_razorpay_minor
from shared.errors import (
    GatewayObjectNotFound,
    GatewayOutcomeUnknown,
    GatewayRejected,
    GatewayServerError,
    GatewayUnavailable,
)
from shared.money import CURRENCY_EXPONENT, Money
from tests.support.adapter_calls import a_money_call
from tests.support.clock import A_MOMENT
from tests.unit.payment_service.gateway_world import EXPIRES_AT, Answer, ScriptedGateway, a_request, says, told

REFERENCE = "PR00000000000000001A"
OPERATION = "OP00000000000000001A"
INR_500, INR_100 = Money(50_000, "INR"), Money(10_000, "INR")
NOTHING = {"entity": "collection", "count": 0, "items": []}


def adapter_over(*answers: Answer) -> tuple[Razorpay, ScriptedGateway]:
    gateway = ScriptedGateway(list(answers))
    settings = RazorpaySettings(
        key_id="rzp_test_1", key_secret=SecretStr("key-secret"), api_base="https://razorpay.test/"
    )
    return Razorpay(settings, gateway.caller()), gateway


def refuses(description: str, status: int = 400, code: str = "BAD_REQUEST_ERROR", **more: Any) -> httpx.Response:
    return says({"error": {"code": code, "description": description, **more}}, status)


def a_collection(*items: dict[str, Any]) -> httpx.Response:
    return says({"entity": "collection", "count": len(items), "items": list(items)})


def a_link(status: str = "created", **changes: Any) -> dict[str, Any]:
    link = {
        "id": "plink_1",
        "amount": 50_000,
        "currency": "INR",
        "status": status,
        "reference_id": REFERENCE,
        "short_url": "https://rzp.test/i/1",
        "expire_by": int(EXPIRES_AT.timestamp()),
        "payments": None,
        "notes": [],
    }
    return link | changes


def an_order(status: str = "created", **changes: Any) -> dict[str, Any]:
    order = {
        "id": "order_1",
        "amount": 50_000,
        "currency": "INR",
        "receipt": REFERENCE,
        "status": status,
        "attempts": 0 if status == "created" else 1,
    }
    return order | changes


def a_payment(status: str = "captured", **changes: Any) -> dict[str, Any]:
    payment = {
        "id": "pay_1",
        "amount": 50_000,
        "currency": "INR",
        "status": status,
        "order_id": "order_1",
        "captured": status in ("captured", "refunded"),
        "notes": [],
    }
    return payment | changes


def a_refund(status: str = "processed", **changes: Any) -> dict[str, Any]:
    refund = {
        "id": "rfnd_1",
        "payment_id": "pay_1",
        "amount": 10_000,
        "currency": "INR",
        "status": status,
        "receipt": OPERATION,
    }
    return refund | changes


def a_call(kind: OperationKind = OperationKind.REFUND, amount: Money = INR_100, **changes: Any) -> MoneyCall:
    mine = {
        "kind": kind,
        "amount": amount,
        "target": "pay_1",
        "reason": "broken",
        "payment_id": "pmt_1",
        "first_sent_at": A_MOMENT,
    }
    return a_money_call(**{**mine, **changes})


A_CAPTURE = a_call(OperationKind.CAPTURE, INR_500)
REQUEST = a_request(amount=INR_500, customer=Customer("ada@example.com", "Ada"))
HELD_REQUEST = replace(REQUEST, capture=CaptureMode.MANUAL)


# --- what it can do ------------------------------------------------------------------------------------------------


def test_what_razorpay_lacks_is_not_promised() -> None:
    lacking = {Capability.VOID, Capability.PARTIAL_CAPTURE, Capability.SEVERAL_CAPTURES}
    assert not lacking & Razorpay.facts.capabilities
    assert {Capability.MANUAL_CAPTURE, Capability.REFUND, Capability.PARTIAL_REFUND} <= Razorpay.facts.capabilities


async def test_a_void_and_a_part_of_a_capture_are_refused_without_a_call() -> None:
    razorpay, gateway = adapter_over(says({}))
    for refused in (razorpay.void(A_CAPTURE), razorpay.complete(A_CAPTURE)):
        with pytest.raises(GatewayRejected):
            await refused
    with pytest.raises(GatewayRejected):
        await razorpay.capture(replace(A_CAPTURE, is_whole=False))
    assert gateway.requests == []


@pytest.mark.parametrize(
    ("minor", "currency"), [(100, "INR"), (295, "JPY"), (99_990, "KWD"), (10, "BHD"), (1, "USD"), (70, "OMR")]
)
def test_amounts_go_out_as_they_are(minor: int, currency: str) -> None:
    razorpay, _ = adapter_over()
    amount = Money(minor, currency)
    razorpay.check(amount, CaptureMode.AUTOMATIC)
    razorpay.check_operation(OperationKind.REFUND, amount)
    assert to_razorpay_minor(amount) == minor


@pytest.mark.parametrize(
    ("minor", "currency"), [(99, "INR"), (99_991, "KWD"), (5, "OMR"), (1230, "JOD"), (1230, "TND"), (0, "USD")]
)
def test_what_razorpay_cannot_take_exactly_is_refused_before_any_call(minor: int, currency: str) -> None:
    razorpay, _ = adapter_over()
    with pytest.raises(CurrencyNotSupported):
        razorpay.check(Money(minor, currency), CaptureMode.MANUAL)
    with pytest.raises(CurrencyNotSupported):
        razorpay.check_operation(OperationKind.REFUND, Money(minor, currency))


def test_the_currencies_offered_are_those_whose_digits_are_known() -> None:
    assert Razorpay.facts.currencies == CURRENCIES
    assert frozenset(CURRENCY_EXPONENT) - CURRENCIES == {"IQD", "JOD", "LYD", "TND"}


# --- payment links -------------------------------------------------------------------------------------------------


async def test_a_link_carries_our_reference_and_documented_fields_only() -> None:
    razorpay, gateway = adapter_over(says(a_link()))
    session = await razorpay.create_session(REQUEST, repeated=False)

    assert str(gateway.sent.url) == "https://razorpay.test/v1/payment_links"
    token = base64.b64encode(b"rzp_test_1:key-secret").decode()
    assert gateway.sent.headers["authorization"] == f"Basic {token}"
    assert json.loads(gateway.sent.content) == {
        "amount": 50_000,
        "currency": "INR",
        "accept_partial": False,
        "reference_id": REFERENCE,
        "description": "Order ord_1",
        "customer": {"name": "Ada", "email": "ada@example.com"},
        "notify": {"sms": False, "email": False},
        "reminder_enable": False,
        "expire_by": int(EXPIRES_AT.timestamp()),
        "notes": {"order_ref": REFERENCE, "payment_id": "pay_1", "order_id": "ord_1"},
        "callback_url": REQUEST.return_url,
        "callback_method": "get",
    }
    assert session.next_action.to_json() == {"type": "redirect", "url": "https://rzp.test/i/1"}
    assert (session.gateway_reference, session.references, session.expires_at) == ("plink_1", ("plink_1",), EXPIRES_AT)


ATTEMPTED = refuses("payment link creation with reference_id already attempted")


@pytest.mark.parametrize("name", ["payment_links", "items"])
async def test_a_link_that_was_attempted_before_is_looked_up_and_adopted(name: str) -> None:
    razorpay, gateway = adapter_over(ATTEMPTED, says({name: [a_link(reference_id="other", id="plink_2"), a_link()]}))
    session = await razorpay.create_session(REQUEST, repeated=True)
    assert session.gateway_reference == "plink_1"
    assert gateway.sent.url.params["reference_id"] == REFERENCE


@pytest.mark.parametrize("changes", [{"amount": 50_001}, {"currency": "USD"}, {"id": None}, {"short_url": "js:1"}])
async def test_a_link_that_is_not_the_one_asked_for_is_never_shown(changes: dict[str, Any]) -> None:
    for answers in ([says(a_link(**changes))], [ATTEMPTED, says({"payment_links": [a_link(**changes)]})]):
        razorpay, _ = adapter_over(*answers)
        with pytest.raises(GatewayOutcomeUnknown):
            await razorpay.create_session(REQUEST, repeated=True)


async def test_a_reference_without_a_link_is_waited_for_once_and_then_used_up() -> None:
    razorpay, _ = adapter_over(ATTEMPTED, says({"payment_links": []}))
    with pytest.raises(GatewayOutcomeUnknown):
        await razorpay.create_session(REQUEST, repeated=False)
    razorpay, _ = adapter_over(ATTEMPTED, says({"payment_links": []}))
    with pytest.raises(GatewayRejected):
        await razorpay.create_session(REQUEST, repeated=True)


async def test_an_adopted_link_that_was_paid_meanwhile_is_taken_as_paid() -> None:
    paid = a_link("paid", payments=[{"payment_id": "pay_1"}])
    razorpay, _ = adapter_over(
        ATTEMPTED,
        says({"payment_links": [paid]}),
        says(paid),
        a_collection(an_order("paid")),
        a_collection(a_payment()),
        a_collection(),
    )
    session = await razorpay.create_session(REQUEST, repeated=True)
    assert ("captured", "pay_1", INR_500) in told(session.observations)
    assert session.next_action.url == REQUEST.return_url


# --- orders --------------------------------------------------------------------------------------------------------


async def test_held_money_needs_an_order_and_a_form_without_secrets() -> None:
    razorpay, gateway = adapter_over(says(an_order()))
    session = await razorpay.create_session(HELD_REQUEST, repeated=False)
    assert json.loads(gateway.sent.content) == {
        "amount": 50_000,
        "currency": "INR",
        "receipt": REFERENCE,
        "notes": {"order_ref": REFERENCE, "payment_id": "pay_1", "order_id": "ord_1"},
        "partial_payment": False,
        "payment": {
            "capture": "manual",
            "capture_options": {"manual_expiry_period": 7200, "refund_speed": "normal"},
        },
    }
    assert session.next_action.to_json() == {
        "type": "form_post",
        "url": "https://razorpay.test/v1/checkout/embedded",
        "fields": {
            "key_id": "rzp_test_1",
            "order_id": "order_1",
            "amount": "50000",
            "currency": "INR",
            "name": "Order ord_1",
            "description": "Order ord_1",
            "prefill[name]": "Ada",
            "prefill[email]": "ada@example.com",
            "prefill[contact]": "",
            "callback_url": REQUEST.return_url,
            "cancel_url": REQUEST.cancel_url,
        },
    }
    assert "key-secret" not in str(session)


async def test_an_order_is_looked_for_by_its_receipt_before_it_is_made_again() -> None:
    razorpay, gateway = adapter_over(a_collection(an_order(id="order_2", receipt="other"), an_order()))
    session = await razorpay.create_session(HELD_REQUEST, repeated=True)
    assert session.gateway_reference == "order_1"
    assert [request.method for request in gateway.requests] == ["GET"]
    assert gateway.sent.url.params["receipt"] == REFERENCE

    razorpay, gateway = adapter_over(a_collection(), says(an_order()))
    await razorpay.create_session(HELD_REQUEST, repeated=True)
    assert [request.method for request in gateway.requests] == ["GET", "POST"]


async def test_an_unanswered_order_is_not_sent_again_blindly() -> None:
    razorpay, gateway = adapter_over(httpx.ReadTimeout("no answer"))
    with pytest.raises(GatewayOutcomeUnknown):
        await razorpay.create_session(HELD_REQUEST, repeated=False)
    assert len(gateway.requests) == 1


async def test_an_order_that_was_paid_meanwhile_shows_no_form() -> None:
    razorpay, _ = adapter_over(
        a_collection(an_order("attempted")),
        a_collection(an_order("attempted")),
        a_collection(a_payment("authorized")),
    )
    session = await razorpay.create_session(HELD_REQUEST, repeated=True)
    assert session.next_action.type == "redirect"
    assert ("authorized", "pay_1", INR_500) in told(session.observations)


# --- retrieving ----------------------------------------------------------------------------------------------------

LISTED: dict[str, Any] = {"payment_links": []}


@pytest.mark.parametrize(
    ("payments", "facts"),
    [
        ([a_payment("failed", error_reason="card_declined")], {("declined", "pay_1", None)}),
        ([a_payment("created")], set()),
        ([a_payment("authorized")], {("authorized", "pay_1", INR_500)}),
        ([a_payment("refunded", captured=False)], {("expired", "pay_1", None)}),
        (
            [a_payment("failed", id="pay_0"), a_payment("authorized")],
            {("declined", "pay_0", None), ("authorized", "pay_1", INR_500)},
        ),
        # Captured wins: a second hold beside it lets go by itself.
        ([a_payment("authorized", id="pay_0"), a_payment()], {("captured", "pay_1", INR_500)}),
        ([a_payment("refunded")], {("captured", "pay_1", INR_500)}),
    ],
)
async def test_the_tries_of_an_order_are_told_as_the_table_says(
    payments: list[dict[str, Any]], facts: set[Any]
) -> None:
    answers = [a_collection(an_order("paid")), a_collection(*payments), a_collection()]
    razorpay, _ = adapter_over(*answers)
    snapshot = await razorpay.retrieve(("order_1",), our_reference=REFERENCE)
    assert told(snapshot.observations) == facts
    assert "order_1" in snapshot.references


async def test_a_late_authorization_follows_its_failure() -> None:
    razorpay, _ = adapter_over(a_collection(an_order("attempted")), a_collection(a_payment("failed")))
    before = await razorpay.retrieve(("order_1",), our_reference=REFERENCE)
    razorpay, _ = adapter_over(a_collection(an_order("attempted")), a_collection(a_payment("authorized")))
    after = await razorpay.retrieve(("order_1",), our_reference=REFERENCE)
    assert ("declined", "pay_1", None) in told(before.observations)
    assert ("authorized", "pay_1", INR_500) in told(after.observations)


async def test_another_ones_link_and_order_are_not_taken_for_ours() -> None:
    """References that came with a webhook may be somebody else's: only what carries our reference counts."""
    razorpay, _ = adapter_over(
        says(a_link("paid", reference_id="PR0000000000000OTHER", payments=[{"payment_id": "pay_9"}])),
        a_collection(),
        says(an_order("paid", receipt="PR0000000000000OTHER")),
    )
    with pytest.raises(GatewayObjectNotFound):
        await razorpay.retrieve(("plink_9", "order_9", "pay_9"), our_reference=REFERENCE)


async def test_without_any_reference_it_is_looked_for_by_ours() -> None:
    razorpay, gateway = adapter_over(says({"payment_links": [a_link("expired")]}), a_collection())
    snapshot = await razorpay.retrieve((), our_reference=REFERENCE)
    assert told(snapshot.observations) == {("expired", "plink_1", None)}
    assert gateway.requests[0].url.params["reference_id"] == REFERENCE

    razorpay, _ = adapter_over(says(LISTED), a_collection())
    with pytest.raises(GatewayObjectNotFound):
        await razorpay.retrieve((), our_reference=REFERENCE)


async def test_refunds_are_read_page_by_page() -> None:
    many = [a_refund(id=f"rfnd_{number}", receipt=None, amount=100) for number in range(130)]
    razorpay, gateway = adapter_over(
        a_collection(an_order("paid")), a_collection(a_payment()), a_collection(*many[:100]), a_collection(*many[100:])
    )
    snapshot = await razorpay.retrieve(("order_1",), our_reference=REFERENCE)
    assert len(snapshot.observations) == 131
    assert [request.url.params["skip"] for request in gateway.requests[2:]] == ["0", "100"]


@pytest.mark.parametrize("body", [{}, {"items": 7}, {"items": [1]}, {"items": [{"id": 7, "receipt": REFERENCE}]}])
async def test_nonsense_proves_nothing(body: dict[str, Any]) -> None:
    razorpay, _ = adapter_over(says(body))
    with pytest.raises(GatewayOutcomeUnknown):
        await razorpay.retrieve(("order_1",), our_reference=REFERENCE)


# --- money ---------------------------------------------------------------------------------------------------------


async def test_a_refund_goes_out_with_its_key_and_receipt() -> None:
    razorpay, gateway = adapter_over(says(a_refund()))
    outcome = await razorpay.refund(a_call(reason="b" * 300))
    assert str(gateway.sent.url) == "https://razorpay.test/v1/payments/pay_1/refund"
    assert gateway.sent.headers["x-refund-idempotency"] == OPERATION
    assert json.loads(gateway.sent.content) == {
        "amount": 10_000,
        "speed": "normal",
        "receipt": OPERATION,
        "notes": {"payment_id": "pmt_1", "order_id": "ord_1", "reason": "b" * 250},
    }
    assert (outcome.status, outcome.gateway_reference) == (OutcomeStatus.SUCCEEDED, "rfnd_1")


@pytest.mark.parametrize(
    ("status", "expected", "code"),
    [
        ("pending", OutcomeStatus.PENDING, None),
        ("processed", OutcomeStatus.SUCCEEDED, None),
        ("failed", OutcomeStatus.FAILED, "refund_failed"),
        ("reversed", OutcomeStatus.PENDING, None),
        ("tomorrow", OutcomeStatus.PENDING, None),
    ],
)
async def test_a_refunds_status(status: str, expected: OutcomeStatus, code: str | None) -> None:
    razorpay, _ = adapter_over(says(a_refund(status)))
    outcome = await razorpay.refund(a_call())
    assert (outcome.status, outcome.failure_code) == (expected, code)


async def test_an_unanswered_refund_is_repeated_with_the_same_key_and_body() -> None:
    razorpay, gateway = adapter_over(httpx.ReadTimeout("no answer"), httpx.Response(502), says(a_refund()))
    await razorpay.refund(a_call())
    sent = {(request.content, request.headers["x-refund-idempotency"]) for request in gateway.requests}
    assert (len(gateway.requests), len(sent)) == (3, 1)


@pytest.mark.parametrize("status", [400, 409])
async def test_the_two_texts_about_keys_mean_different_things(status: int) -> None:
    running = refuses("Another request with the same idempotency key is still in progress.", status)
    razorpay, gateway = adapter_over(running)
    with pytest.raises(GatewayOutcomeUnknown):
        await razorpay.refund(a_call())
    different = refuses("Different request with the same idempotency key has already been processed.", status)
    razorpay, gateway = adapter_over(different, a_collection())
    with pytest.raises(GatewayRejected):
        await razorpay.refund(a_call())
    assert gateway.sent.url.path == "/v1/payments/pay_1/refunds"


async def test_a_refusal_is_followed_by_a_look_for_our_receipt() -> None:
    done = refuses("The payment has been fully refunded already")
    razorpay, _ = adapter_over(done, a_collection(a_refund(receipt="other", id="rfnd_0"), a_refund()))
    assert (await razorpay.refund(a_call())).gateway_reference == "rfnd_1"
    razorpay, _ = adapter_over(done, a_collection(a_refund(receipt="other")))
    with pytest.raises(GatewayRejected):
        await razorpay.refund(a_call())


async def test_a_refusal_whose_look_fails_leaves_it_open() -> None:
    razorpay, _ = adapter_over(refuses("fully refunded already"), httpx.ConnectError("gone"))
    with pytest.raises(GatewayOutcomeUnknown):
        await razorpay.refund(a_call())


@pytest.mark.parametrize(
    "changes", [{"payment_id": "pay_2"}, {"amount": 10_001}, {"currency": "USD"}, {"receipt": "x"}]
)
async def test_an_answer_about_another_refund_says_nothing(changes: dict[str, Any]) -> None:
    razorpay, _ = adapter_over(says(a_refund(**changes)))
    with pytest.raises(GatewayOutcomeUnknown):
        await razorpay.refund(a_call())


async def test_a_capture_takes_the_whole_amount() -> None:
    razorpay, gateway = adapter_over(says(a_payment()))
    outcome = await razorpay.capture(A_CAPTURE)
    assert str(gateway.sent.url) == "https://razorpay.test/v1/payments/pay_1/capture"
    assert json.loads(gateway.sent.content) == {"amount": 50_000, "currency": "INR"}
    assert (outcome.status, told(outcome.observations)) == (OutcomeStatus.SUCCEEDED, {("captured", "pay_1", INR_500)})


async def test_a_capture_that_is_done_already_is_read_and_is_a_success() -> None:
    razorpay, _ = adapter_over(refuses("This payment has already been captured"), says(a_payment("refunded")))
    outcome = await razorpay.capture(A_CAPTURE)
    assert (outcome.status, told(outcome.observations)) == (OutcomeStatus.SUCCEEDED, {("captured", "pay_1", INR_500)})


async def test_a_capture_refused_for_another_reason_stays_refused() -> None:
    razorpay, _ = adapter_over(refuses("Capture amount must be equal"), says(a_payment("authorized")))
    with pytest.raises(GatewayRejected):
        await razorpay.capture(A_CAPTURE)


@pytest.mark.parametrize("payment", [a_payment("authorized"), a_payment(amount=49_999), a_payment(id="pay_2")])
async def test_an_answer_that_is_not_the_capture_says_nothing(payment: dict[str, Any]) -> None:
    razorpay, _ = adapter_over(says(payment))
    with pytest.raises(GatewayOutcomeUnknown):
        await razorpay.capture(A_CAPTURE)


async def test_looking_for_operations() -> None:
    razorpay, _ = adapter_over(a_collection(a_refund("pending")))
    found = await razorpay.find_operation(a_call())
    assert found is not None
    assert found.status is OutcomeStatus.PENDING
    razorpay, _ = adapter_over(a_collection())
    assert await razorpay.find_operation(a_call()) is None
    razorpay, _ = adapter_over(says(a_payment("authorized")))
    assert await razorpay.find_operation(A_CAPTURE) is None
    razorpay, gateway = adapter_over(says({}))
    assert await razorpay.find_operation(replace(A_CAPTURE, kind=OperationKind.VOID)) is None
    assert gateway.requests == []


@pytest.mark.parametrize("answer", [refuses("The id provided does not exist"), refuses("no", 404), refuses("odd id")])
@pytest.mark.parametrize("call", [a_call(), A_CAPTURE], ids=["refund", "capture"])
async def test_another_account_or_mode_knows_nothing_and_proves_nothing(answer: Answer, call: MoneyCall) -> None:
    razorpay, _ = adapter_over(answer)
    with pytest.raises(GatewayOutcomeUnknown):
        await razorpay.find_operation(call)


SILENCE = httpx.ReadTimeout("no answer")
TAKES: dict[str, Callable[[Razorpay], Awaitable[Any]]] = {
    "capture": lambda razorpay: razorpay.capture(A_CAPTURE),
    "refund": lambda razorpay: razorpay.refund(a_call()),
    "create": lambda razorpay: razorpay.create_session(REQUEST, repeated=True),
}


@pytest.mark.parametrize("take", TAKES.values(), ids=TAKES)
@pytest.mark.parametrize(
    "refusal",
    [
        httpx.Response(401),
        httpx.Response(403),
        refuses("Authentication failed"),
        refuses("The id provided does not exist"),
        refuses("no", 404),
        refuses("The payment is being processed"),
        refuses("This has been done already"),
    ],
    ids=["401", "403", "key", "id", "404", "other", "already"],
)
async def test_no_refusal_after_a_try_without_answer_says_that_nothing_moved(
    take: Callable[[Razorpay], Awaitable[Any]], refusal: httpx.Response
) -> None:
    """The first try may still be at work when the look, of whatever kind, finds nothing."""

    def looks(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/pay_1"):
            return says(a_payment("authorized"))
        return says({"items": [], "payment_links": []})

    razorpay, _ = adapter_over(SILENCE, refusal, looks)
    with pytest.raises(GatewayOutcomeUnknown):
        await take(razorpay)


@pytest.mark.parametrize("refusal", [refuses("no", 404), refuses("The payment is being processed")])
async def test_what_ran_in_silence_is_found_after_the_refusal(refusal: httpx.Response) -> None:
    razorpay, _ = adapter_over(SILENCE, refusal, says(a_payment()))
    assert (await razorpay.capture(A_CAPTURE)).status is OutcomeStatus.SUCCEEDED
    razorpay, _ = adapter_over(SILENCE, refusal, a_collection(a_refund()))
    assert (await razorpay.refund(a_call())).gateway_reference == "rfnd_1"


async def test_a_first_refusal_of_an_unknown_id_moved_nothing() -> None:
    for take in (TAKES["capture"], TAKES["refund"]):
        razorpay, gateway = adapter_over(refuses("The id provided does not exist"))
        with pytest.raises(GatewayObjectNotFound):
            await take(razorpay)
        assert len(gateway.requests) == 1


@pytest.mark.parametrize("look", [refuses("odd id"), refuses("no", 404), httpx.Response(401), httpx.ConnectError("x")])
async def test_a_look_that_is_refused_leaves_a_refused_capture_open(look: Answer) -> None:
    for take in (TAKES["capture"], TAKES["refund"]):
        razorpay, _ = adapter_over(refuses("This payment has already been captured"), look)
        with pytest.raises(GatewayOutcomeUnknown):
            await take(razorpay)


async def test_a_list_of_refunds_that_is_nonsense_proves_no_absence() -> None:
    razorpay, _ = adapter_over(says({"items": None}))
    with pytest.raises(GatewayOutcomeUnknown):
        await razorpay.find_operation(a_call())


# --- errors --------------------------------------------------------------------------------------------------------

CALLS: dict[str, Callable[[Razorpay], Awaitable[Any]]] = {
    "create": lambda razorpay: razorpay.create_session(REQUEST, repeated=False),
    "retrieve": lambda razorpay: razorpay.retrieve(("plink_1",), our_reference=REFERENCE),
    "close": lambda razorpay: razorpay.close_session("plink_1", our_reference=REFERENCE),
    "capture": lambda razorpay: razorpay.capture(A_CAPTURE),
    "refund": lambda razorpay: razorpay.refund(a_call()),
    "find": lambda razorpay: razorpay.find_operation(a_call()),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (refuses("Authentication failed", 401), GatewayUnavailable),
        (refuses("Authentication failed", 400), GatewayUnavailable),
        (refuses("The api key provided is invalid", 400), GatewayUnavailable),
        (httpx.Response(403), GatewayUnavailable),
        (httpx.Response(429), GatewayUnavailable),
        (httpx.ConnectError("refused"), GatewayUnavailable),
        (httpx.Response(500), GatewayServerError),
        (httpx.ReadTimeout("slow"), GatewayOutcomeUnknown),
        (refuses("Server error", 400, "SERVER_ERROR"), GatewayOutcomeUnknown),
        (refuses("Bank is down", 400, "GATEWAY_ERROR"), GatewayOutcomeUnknown),
        (httpx.Response(302, headers={"location": "https://elsewhere.test"}), GatewayOutcomeUnknown),
        (httpx.Response(200, content=b"<html>"), GatewayOutcomeUnknown),
        (httpx.Response(400, content=b"<html>"), GatewayOutcomeUnknown),
    ],
)
async def test_errors_say_what_may_have_happened(
    call: Callable[[Razorpay], Awaitable[Any]], answer: Answer, error: type[Exception]
) -> None:
    razorpay, _ = adapter_over(answer)
    with pytest.raises(error):
        await call(razorpay)


@pytest.mark.parametrize("answer", [refuses("The id provided does not exist"), refuses("no", 404)])
async def test_what_razorpay_does_not_know_is_not_found(answer: Answer) -> None:
    razorpay, _ = adapter_over(answer)
    with pytest.raises(GatewayObjectNotFound):
        await razorpay.close_session("plink_1", our_reference=REFERENCE)


async def test_a_refusals_reason_is_its_code() -> None:
    razorpay, _ = adapter_over(refuses("no", reason="input_validation_failed"))
    with pytest.raises(GatewayRejected) as refusal:
        await razorpay.create_session(REQUEST, repeated=False)
    assert refusal.value.gateway_code == "input_validation_failed"


async def test_an_id_cannot_leave_its_place_in_the_path() -> None:
    razorpay, gateway = adapter_over(says(a_link("cancelled")))
    await razorpay.close_session("plink_1/../../orders?x=1", our_reference=REFERENCE)
    assert gateway.sent.url.raw_path == b"/v1/payment_links/plink_1%2F..%2F..%2Forders%3Fx%3D1/cancel"


def test_it_is_enabled_by_its_two_credentials_together() -> None:
    assert DEFINITION.required == ("RAZORPAY_KEY_ID", "RAZORPAY_KEY_SECRET")
