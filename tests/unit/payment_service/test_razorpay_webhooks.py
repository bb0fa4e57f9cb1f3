"""Razorpay's events, against the fact sheet's table (gateways/razorpay.md)."""

from __future__ import annotations

import contextlib
from itertools import permutations
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from services.payment_service.domain.models import FactKind
from services.payment_service.gateways.port import GatewayEvent, UnreadableWebhook
from services.payment_service.gateways.razorpay import Razorpay, RazorpaySettings
from services.payment_service.gateways.razorpay.webhooks import _READERS
from shared.masking import redact_body
from shared.money import Money
from tests.unit.payment_service.gateway_world import ScriptedGateway, a_delivery, json_around, told
from tests.unit.webhook_ingest.test_razorpay_signatures import BODY

INR_500, INR_100 = Money(50_000, "INR"), Money(10_000, "INR")
RAZORPAY = Razorpay(RazorpaySettings(key_id="rzp_test_1", key_secret=SecretStr("secret")), ScriptedGateway().caller())


def translated(event: str, **entities: dict[str, Any]) -> GatewayEvent:
    payload = {name: {"entity": entity} for name, entity in entities.items()}
    body = {"entity": "event", "event": event, "contains": list(entities), "payload": payload, "created_at": 1767225600}
    return RAZORPAY.translate_webhook(a_delivery(body))


def a_payment(status: str = "captured", **changes: Any) -> dict[str, Any]:
    payment = {
        "id": "pay_1",
        "entity": "payment",
        "amount": 50_000,
        "currency": "INR",
        "status": status,
        "order_id": "order_1",
        "captured": status in ("captured", "refunded"),
        "notes": [],
        "created_at": 1767225600,
    }
    return payment | changes


def an_order(**changes: Any) -> dict[str, Any]:
    return {"id": "order_1", "amount": 50_000, "currency": "INR", "receipt": "REF1", "status": "paid"} | changes


def a_link(status: str = "paid", **changes: Any) -> dict[str, Any]:
    link = {"id": "plink_1", "amount": 50_000, "currency": "INR", "reference_id": "REF1", "status": status, "notes": []}
    return link | changes


def a_refund(status: str = "processed", **changes: Any) -> dict[str, Any]:
    refund = {
        "id": "rfnd_1",
        "payment_id": "pay_1",
        "amount": 10_000,
        "currency": "INR",
        "status": status,
        "receipt": "OP00000000000000001A",
    }
    return refund | changes


def a_dispute(status: str = "open", **changes: Any) -> dict[str, Any]:
    dispute = {
        "id": "disp_1",
        "payment_id": "pay_1",
        "amount": 10_000,
        "currency": "INR",
        "amount_deducted": 0,
        "status": status,
        "phase": "chargeback",
        "reason_code": "goods_not_received",
    }
    return dispute | changes


def test_the_fact_sheets_vector_is_about_the_order_with_its_prefix() -> None:
    event = RAZORPAY.translate_webhook(a_delivery(BODY.decode()))
    assert event.references == ("plink_TEST0000000001", "pay_TEST0000000001", "order_TEST0000000001")
    assert event.our_references == ("ORD-1001",)
    assert told(event.observations) == {("captured", "pay_TEST0000000001", INR_500)}
    assert not event.must_ask


def test_the_masked_payload_that_ingest_hands_over_is_read_as_well() -> None:
    """Notes, descriptions and everything personal are gone by then, and none of it is needed."""
    event = RAZORPAY.translate_webhook(a_delivery(redact_body("application/json", BODY)))
    assert told(event.observations) == {("captured", "pay_TEST0000000001", INR_500)}
    assert event.our_references == ("ORD-1001",)


def test_the_events_of_one_paid_link_converge_on_one_payment_in_any_order() -> None:
    events = [
        translated("payment.authorized", payment=a_payment("authorized")),
        translated("payment.captured", payment=a_payment()),
        translated("order.paid", payment=a_payment(), order=an_order()),
        translated("payment_link.paid", payment_link=a_link(), order=an_order(id="1"), payment=a_payment()),
    ]
    for some_order in permutations(events):
        keys = {o.natural_key for event in some_order for o in event.observations}
        assert keys == {"authorized:pay_1:50000:INR", "captured:pay_1:50000:INR"}
    assert all("order_1" in event.references for event in events)


@pytest.mark.parametrize(
    ("event", "payment", "facts"),
    [
        ("payment.authorized", a_payment("authorized"), {("authorized", "pay_1", INR_500)}),
        ("payment.captured", a_payment(), {("captured", "pay_1", INR_500)}),
        ("payment.failed", a_payment("failed", error_reason="payment_timed_out"), {("declined", "pay_1", None)}),
        ("payment.authorized", a_payment(), {("captured", "pay_1", INR_500)}),  # a snapshot may be ahead of its event
        ("payment.failed", a_payment("created"), set()),
    ],
)
def test_payments(event: str, payment: dict[str, Any], facts: set[Any]) -> None:
    answer = translated(event, payment=payment)
    assert told(answer.observations) == facts
    assert answer.references == ("pay_1", "order_1")


def test_a_failed_payment_is_a_declined_try_with_its_reason() -> None:
    [declined] = translated(
        "payment.failed", payment=a_payment("failed", error_reason="insufficient_fund", error_code="BAD_REQUEST_ERROR")
    ).observations
    assert (declined.kind, declined.reason) == (FactKind.DECLINED, "insufficient_fund")


def test_a_payments_own_notes_never_say_whose_it_is() -> None:
    """They pass through the shopper's browser: one payment could otherwise be made to count for two orders."""
    forged = a_payment(notes={"payment_id": "pmt_of_somebody_else", "order_ref": "REF2"}, description="#2")
    for event in ("payment.captured", "payment.authorized", "payment.failed"):
        assert translated(event, payment=forged).our_references == ()
    paid = translated("order.paid", payment=forged, order=an_order())
    assert paid.our_references == ("REF1",)


def test_an_order_and_a_payment_that_do_not_belong_together_are_asked_about() -> None:
    event = translated("order.paid", payment=a_payment(), order=an_order(id="order_2"))
    assert event.must_ask
    assert event.observations == ()


@pytest.mark.parametrize(
    ("event", "status", "fact"),
    [("payment_link.expired", "expired", "expired"), ("payment_link.cancelled", "cancelled", "canceled")],
)
def test_links_that_end_unpaid(event: str, status: str, fact: str) -> None:
    answer = translated(event, payment_link=a_link(status))
    assert told(answer.observations) == {(fact, "plink_1", None)}
    assert (answer.references, answer.our_references) == (("plink_1",), ("REF1",))


def test_a_partial_payment_of_a_link_is_asked_about() -> None:
    event = translated(
        "payment_link.partially_paid", payment_link=a_link("partially_paid"), order=an_order(), payment=a_payment()
    )
    assert event.must_ask


@pytest.mark.parametrize(
    ("status", "fact"),
    [
        ("pending", "refund_pending"),
        ("processed", "refund_succeeded"),
        ("failed", "refund_failed"),
        ("reversed", "refund_pending"),  # only a FAQ knows it: kept pending until a person has looked
        ("tomorrow", "refund_pending"),
    ],
)
@pytest.mark.parametrize("event", ["refund.created", "refund.processed", "refund.failed"])
def test_refunds_go_by_their_own_status(event: str, status: str, fact: str) -> None:
    answer = translated(event, refund=a_refund(status), payment=a_payment())
    assert told(answer.observations) == {("captured", "pay_1", INR_500), (fact, "rfnd_1", INR_100)}
    [refund] = [o for o in answer.observations if o.object_reference == "rfnd_1"]
    assert (refund.about, refund.operation) == ("pay_1", "OP00000000000000001A")


@pytest.mark.parametrize("receipt", [None, "", "RF-1", "op00000000000000001a"])
def test_a_receipt_of_somebody_else_is_no_operation_of_ours(receipt: str | None) -> None:
    answer = translated("refund.processed", refund=a_refund(receipt=receipt), payment=a_payment())
    assert {o.operation for o in answer.observations} == {None}


def test_the_release_of_a_hold_is_no_refund() -> None:
    released = a_payment("refunded", captured=False)
    answer = translated("refund.processed", refund=a_refund(receipt=None, amount=50_000), payment=released)
    assert told(answer.observations) == {("expired", "pay_1", None)}


def test_a_refund_of_ours_proves_the_capture_whatever_the_flag_says() -> None:
    doubtful = a_payment("refunded", captured=False)
    answer = translated("refund.processed", refund=a_refund(amount=50_000), payment=doubtful)
    assert told(answer.observations) == {("captured", "pay_1", INR_500), ("refund_succeeded", "rfnd_1", INR_500)}


def test_a_refund_without_its_payment_is_asked_about() -> None:
    assert translated("refund.processed", refund=a_refund()).must_ask


@pytest.mark.parametrize(
    ("event", "dispute", "fact"),
    [
        ("created", a_dispute(), ("dispute_opened", "disp_1", INR_100)),
        ("under_review", a_dispute("under_review"), ("dispute_opened", "disp_1", INR_100)),
        ("action_required", a_dispute(), ("dispute_opened", "disp_1", INR_100)),
        ("won", a_dispute("won"), ("dispute_won", "disp_1", INR_100)),
        ("lost", a_dispute("lost", amount_deducted=10_000), ("dispute_lost", "disp_1", INR_100)),
        ("lost", a_dispute("lost", amount_deducted=4_000), ("dispute_lost", "disp_1", Money(4_000, "INR"))),
    ],
)
def test_disputes(event: str, dispute: dict[str, Any], fact: Any) -> None:
    answer = translated(f"payment.dispute.{event}", payment=a_payment(), dispute=dispute)
    assert told(answer.observations) == {("captured", "pay_1", INR_500), fact}
    assert answer.references == ("pay_1", "order_1", "disp_1")
    [observation] = [o for o in answer.observations if o.object_reference == "disp_1"]
    assert (observation.about, observation.reason) == ("pay_1", "goods_not_received")


def test_a_dispute_closed_without_a_ruling_is_read_again() -> None:
    answer = translated("payment.dispute.closed", payment=a_payment(), dispute=a_dispute("closed"))
    assert answer.must_ask
    assert "disp_1" in answer.references


@pytest.mark.parametrize(
    "event", ["refund.speed_changed", "settlement.processed", "payment.downtime.started", "invoice.paid"]
)
def test_events_that_say_nothing_about_money_are_ignored(event: str) -> None:
    assert translated(event, settlement={"id": "setl_1"}).ignored == "event_type_not_used"


@pytest.mark.parametrize("notes", [[], {}, None, "[removed]", {"payment_id": "pmt_1"}, {"payment_id": 7}])
def test_notes_of_every_shape_are_read(notes: Any) -> None:
    answer = translated("payment_link.paid", payment_link=a_link(notes=notes), order=an_order(), payment=a_payment())
    assert "REF1" in answer.our_references


@pytest.mark.parametrize(
    "changes",
    [
        {"amount": "50000"},
        {"amount": 500.5},
        {"amount": True},
        {"amount": 10**30},
        {"currency": "XYZ"},
        {"currency": "JOD"},
        {"currency": None},
        {"id": None},
        {"id": "p" * 300},
        {"status": None},
        {"order_id": ["order_1"]},
    ],
)
def test_what_is_not_documented_is_unreadable_and_never_money(changes: dict[str, Any]) -> None:
    with pytest.raises(UnreadableWebhook):
        translated("payment.captured", payment=a_payment(**changes))


def test_other_peoples_refunds_and_disputes_do_not_slip_in() -> None:
    with pytest.raises(UnreadableWebhook):
        translated("refund.processed", refund=a_refund(payment_id="pay_2"), payment=a_payment())
    with pytest.raises(UnreadableWebhook):
        translated("payment.dispute.created", dispute=a_dispute(payment_id="pay_2"), payment=a_payment())


_KEYS = ["entity", "event", "payload", "payment", "order", "refund", "dispute", "payment_link", "id", "status", "notes"]
_VALUES = ["event", "pay_1", "captured", "INR", 50_000, "order_1", *_READERS]


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(json_around(_KEYS, _VALUES))
def test_no_bytes_raise_anything_but_unreadable(text: str) -> None:
    with contextlib.suppress(UnreadableWebhook):
        RAZORPAY.translate_webhook(a_delivery(text))


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(sorted(_READERS)),
    st.dictionaries(
        st.sampled_from(list(a_payment())),
        st.one_of(st.none(), st.integers(), st.text(max_size=5), st.just([])),
        max_size=3,
    ),
)
def test_no_distorted_payment_raises_anything_but_unreadable(event: str, changes: dict[str, Any]) -> None:
    with contextlib.suppress(UnreadableWebhook):
        translated(event, payment=a_payment(**changes), order=an_order(), refund=a_refund(), dispute=a_dispute())
