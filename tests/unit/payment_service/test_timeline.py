"""Entries of the timeline: what their sentences say, and what they never hold."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.payment_service.domain.errors import CurrencyNotSupported
from services.payment_service.domain.models import Fact, FactKind, FactSource, Observation, PaymentState, PaymentStatus
from services.payment_service.domain.operations import DisputeStatus, OperationKind, OperationStatus
from services.payment_service.domain.timeline import (
    EntryKind,
    TimelineEntry,
    call_entry,
    call_result,
    decision_entry,
    dispute_entry,
    event_entry,
    fact_entry,
    in_time_order,
    operation_entry,
    request_entry,
    status_entry,
    without_told,
)
from services.payment_service.gateways.port import KeyUsedUp
from shared.errors import (
    GatewayObjectNotFound,
    GatewayOutcomeUnknown,
    GatewayRejected,
    GatewayServerError,
    GatewayUnavailable,
)
from shared.money import Money
from tests.support.clock import A_MOMENT
from tests.unit.payment_service.builders import a_dispute, a_payment, an_operation

KWD = Money(12500, "KWD")
EVERYTHING_PERSONAL = "Ada Lovelace <ada@example.com>, card 4111 1111 1111 1111"


@dataclass(frozen=True)
class Learnt:
    source: FactSource = FactSource.WEBHOOK
    at: Any = A_MOMENT
    by: str | None = "whd_1"


def a_fact(kind: FactKind, reference: str = "re_1", amount: Money | None = None, **more: Any) -> Fact:
    return Fact(Observation(kind, reference, amount, **more), FactSource.WEBHOOK, A_MOMENT)


@pytest.mark.parametrize(
    ("fact", "summary"),
    [
        (a_fact(FactKind.REFUND_SUCCEEDED, amount=KWD), "Refund of 12.500 KWD confirmed by the gateway (re_1)"),
        (a_fact(FactKind.CAPTURED, "pi_1", Money(1999, "JPY")), "1999 JPY captured at the gateway (pi_1)"),
        (
            a_fact(FactKind.DECLINED, "pi_1", reason="insufficient_funds"),
            "One try by the shopper was declined: insufficient_funds (pi_1)",
        ),
        (
            a_fact(FactKind.APPROVED, "5O1", reason="2026-01-02T03:04:05Z"),
            "The shopper approved the payment; it has to be completed by us (5O1)",
        ),
        (a_fact(FactKind.REFUND_FAILED), "Refund of an unnamed amount failed at the gateway (re_1)"),
    ],
)
def test_a_fact_is_told_in_a_sentence(fact: Fact, summary: str) -> None:
    assert fact_entry(fact).summary == summary


@pytest.mark.parametrize("kind", FactKind)
def test_every_kind_of_fact_can_be_told(kind: FactKind) -> None:
    entry = fact_entry(a_fact(kind, amount=KWD))
    assert (entry.kind, entry.source, entry.at, entry.amount) == (EntryKind.FACT, "webhook", A_MOMENT, KWD)
    assert entry.details == {"fact": kind.value}
    assert entry.summary.endswith("(re_1)")
    assert "{" not in entry.summary


@pytest.mark.parametrize(
    ("learnt_by", "request_id", "details"),
    [
        ("whd_1", None, {"delivery_id": "whd_1"}),
        ("run_1", None, {"run_id": "run_1"}),
        ("att_1", None, {"attempt_id": "att_1"}),
        ("6f1c-9", "6f1c-9", {}),
        ("duplicate_payment:pay_1", None, {"learnt_by": "duplicate_payment:pay_1"}),
        (None, None, {}),
    ],
)
def test_what_brought_a_fact_is_named_by_its_sort(
    learnt_by: str | None, request_id: str | None, details: dict[str, str]
) -> None:
    entry = fact_entry(a_fact(FactKind.CAPTURED, amount=KWD), learnt_by)
    assert (entry.request_id, entry.details) == (request_id, {"fact": "captured"} | details)


def test_a_change_of_status_names_what_changed() -> None:
    before = a_payment(PaymentStatus.EXPIRED)
    state = PaymentState(PaymentStatus.CAPTURED, amount_authorized=1999, amount_captured=1999)
    entry = status_entry(before, replace(before, state=state, version=4, duplicate_of="pay_0"), Learnt())
    assert entry.summary == (
        "Status expired → captured; the order's second payment, after pay_0; authorized 0.00 EUR → 19.99 EUR; "
        "captured 0.00 EUR → 19.99 EUR"
    )
    assert entry.details == {
        "from": "expired",
        "to": "captured",
        "version": 4,
        "duplicate_of": "pay_0",
        "totals": {"amount_authorized": [0, 1999], "amount_captured": [0, 1999]},
        "delivery_id": "whd_1",
    }


def test_a_change_of_totals_alone_is_told_too() -> None:
    before = a_payment(PaymentStatus.CAPTURED, amount_authorized=1999, amount_captured=1999, amount_refund_pending=500)
    after = replace(before, state=replace(before.state, amount_refund_pending=0, amount_refunded=500))
    assert status_entry(before, after, Learnt()).summary == (
        "Refund pending 5.00 EUR → 0.00 EUR; refunded 0.00 EUR → 5.00 EUR"
    )


@pytest.mark.parametrize("status", OperationStatus)
@pytest.mark.parametrize("kind", OperationKind)
def test_every_status_of_an_operation_can_be_told(kind: OperationKind, status: OperationStatus) -> None:
    operation = an_operation(kind, status, amount=KWD, reason="requested_by_customer")
    entry = operation_entry(operation, OperationStatus.PENDING)
    assert entry.summary.startswith(f"{kind.value.capitalize()} of 12.500 KWD ")
    assert (entry.kind, entry.actor, entry.amount) == (EntryKind.OPERATION, "back-office", KWD)
    assert entry.details["from"] == "pending"
    assert (entry.details["to"], entry.details["reason"]) == (status.value, "requested_by_customer")


@pytest.mark.parametrize(("status", "words"), [("open", "is open"), ("won", "was won"), ("lost", "was lost")])
def test_a_dispute_is_told(status: str, words: str) -> None:
    entry = dispute_entry(a_dispute(DisputeStatus(status)), at=A_MOMENT, source="webhook")
    assert entry.summary.startswith(f"Dispute over 3.00 EUR {words}")
    assert entry.summary.endswith(": fraudulent (dp_1)")


@pytest.mark.parametrize(
    ("error", "result", "words"),
    [
        (None, "ok", "answered"),
        (GatewayRejected("no"), "rejected", "refused"),
        (GatewayObjectNotFound(), "not_found", "does not know"),
        (GatewayUnavailable(), "unavailable", "not reached"),
        (GatewayOutcomeUnknown(), "unknown", "may have run"),
        (GatewayServerError(500), "unknown", "may have run"),
        (KeyUsedUp(), "unknown", "may have run"),
        (CurrencyNotSupported("no"), "rejected", "refused"),
        (ValueError("our bug"), "unknown", "may have run"),
    ],
)
def test_a_call_is_told_by_how_certain_its_end_is(error: Exception | None, result: str, words: str) -> None:
    assert call_result(error) == result
    entry = call_entry("refund", result, 412, "re_1", at=A_MOMENT, gateway="stripe", amount=KWD)
    assert entry.summary.startswith("stripe refund of 12.500 KWD: ")
    assert entry.summary.endswith(" (412 ms)")
    assert words in entry.summary
    assert entry.details == {"operation": "refund", "result": result, "elapsed_ms": 412}


def test_who_asked_for_what_is_told() -> None:
    entry = request_entry("refund", "back-office", "req-1", at=A_MOMENT, amount=KWD, operation_id="ref_1")
    assert entry.summary == "back-office asked to refund (12.500 KWD)"
    assert (entry.actor, entry.request_id, entry.source) == ("back-office", "req-1", "api")
    assert entry.details == {"action": "refund", "operation_id": "ref_1"}
    assert request_entry("return", None, None, at=A_MOMENT).summary == "an anonymous browser asked to return"


def test_events_and_decisions_are_told() -> None:
    assert event_entry("payment.captured.v1", 3, at=A_MOMENT).details == {"type": "payment.captured.v1", "version": 3}
    decision = decision_entry("refund_duplicate", "The second payment is refunded", at=A_MOMENT, amount=KWD)
    assert (decision.source, decision.details) == ("policy", {"decision": "refund_duplicate"})
    assert decision_entry("override", "A person did it", at=A_MOMENT, actor="ops", source="operator").actor == "ops"


def test_free_text_is_never_kept() -> None:
    operation = an_operation(
        OperationKind.REFUND,
        OperationStatus.FAILED,
        reason=EVERYTHING_PERSONAL,
        merchant_reference=EVERYTHING_PERSONAL,
        failure_code=EVERYTHING_PERSONAL,
        actor="ada@example.com",
    )
    entries = [
        operation_entry(operation),
        fact_entry(a_fact(FactKind.FAILED, reason=EVERYTHING_PERSONAL)),
        dispute_entry(a_dispute(reason=EVERYTHING_PERSONAL), at=A_MOMENT),
        call_entry("refund", EVERYTHING_PERSONAL, 1, at=A_MOMENT, gateway="stripe", note=EVERYTHING_PERSONAL),
        request_entry("refund", "ada@example.com", "r", at=A_MOMENT, note=EVERYTHING_PERSONAL),
        event_entry("x.v1", 1, at=A_MOMENT, reason=EVERYTHING_PERSONAL),
        decision_entry("x", "We did it", at=A_MOMENT, actor="ada@example.com", note=EVERYTHING_PERSONAL),
    ]
    told = repr(entries)
    assert "Ada" not in told
    assert "example.com" not in told
    assert "4111" not in told


@given(st.text())
def test_whatever_a_gateway_writes_can_be_stored(text: str) -> None:
    entry = fact_entry(a_fact(FactKind.FAILED, text, reason=text, about=text))
    for stored in (entry.summary, entry.reference or ""):
        stored.encode()
        assert "\x00" not in stored


def test_entries_are_in_time_order_and_of_one_time_in_the_order_written() -> None:
    def entry(name: str, seconds: int) -> TimelineEntry:
        return TimelineEntry(EntryKind.EVENT, A_MOMENT + timedelta(seconds=seconds), name)

    told = in_time_order([entry("b", 1), entry("c", 1), entry("a", 0)], [entry("derived", 1)])
    assert [each.summary for each in told] == ["a", "derived", "b", "c"]


def test_only_facts_that_are_not_told_are_derived() -> None:
    old, new = a_fact(FactKind.CAPTURED, "pi_1", KWD), a_fact(FactKind.REFUND_SUCCEEDED, "re_1", KWD)
    told = [fact_entry(new, "whd_2")]
    assert without_told([(old, "whd_1"), (new, "whd_2")], told) == [fact_entry(old, "whd_1")]
    assert without_told([(old, None), (new, None)], [fact_entry(old), fact_entry(new)]) == []
