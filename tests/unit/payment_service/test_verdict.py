"""The verdict: one sentence for every standing of a payment."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.payment_service.domain.models import Attempt, AttemptStatus, CaptureMode, Payment, PaymentStatus, Terms
from services.payment_service.domain.operations import (
    CallState,
    Dispute,
    DisputeStatus,
    Operation,
    OperationKind,
    OperationStatus,
    Origin,
)
from services.payment_service.domain.verdict import verdict
from shared.money import Money
from tests.support.clock import A_MOMENT
from tests.unit.payment_service.builders import a_dispute, a_payment, an_attempt, an_operation

LATER = A_MOMENT + timedelta(minutes=5)
ALL = {"amount_authorized": 1999, "amount_captured": 1999}
S, K, O = PaymentStatus, OperationKind, OperationStatus  # noqa: E741 - one letter each, as in a table


@pytest.mark.parametrize(
    ("payment", "attempt", "sentence"),
    [
        (a_payment(), None, "stripe has not been asked for a payment page for 19.99 EUR yet."),
        (
            a_payment(),
            an_attempt(AttemptStatus.CREATED),
            "A payment page for 19.99 EUR is about to be opened at stripe.",
        ),
        (
            a_payment(),
            an_attempt(AttemptStatus.SENDING),
            "stripe is being asked for a payment page for 19.99 EUR.",
        ),
        (
            a_payment(session_unknown=True),
            an_attempt(AttemptStatus.UNKNOWN),
            "Unknown since 2026-01-02 03:04 UTC whether stripe opened a payment page for 19.99 EUR: it did not answer.",
        ),
        (
            a_payment(),
            an_attempt(AttemptStatus.REJECTED),
            "stripe refused to open a payment page for 19.99 EUR; nothing can have been paid.",
        ),
        (
            a_payment(S.REQUIRES_ACTION),
            an_attempt(),
            "Waiting for the shopper to pay 19.99 EUR on stripe's page, open until 2026-01-02 04:04 UTC.",
        ),
        (
            a_payment(S.REQUIRES_ACTION, failure_code="insufficient_funds"),
            an_attempt(),
            (
                "Waiting for the shopper to pay 19.99 EUR on stripe's page, open until 2026-01-02 04:04 UTC; "
                "a try was declined (insufficient_funds)."
            ),
        ),
        (
            a_payment(S.PROCESSING),
            an_attempt(),
            "stripe is processing the payment of 19.99 EUR, and its result is not known yet.",
        ),
        (
            a_payment(S.AUTHORIZED, amount_authorized=1999, capture_before=A_MOMENT + timedelta(days=7)),
            an_attempt(),
            "19.99 EUR held by stripe until 2026-01-09 03:04 UTC, nothing captured yet.",
        ),
        (
            a_payment(S.AUTHORIZED, amount_authorized=1999, capture_before=LATER, capture_warned_at=A_MOMENT),
            an_attempt(),
            "19.99 EUR held by stripe until 2026-01-02 03:09 UTC, which was warned of, nothing captured yet.",
        ),
        (
            a_payment(S.PARTIALLY_CAPTURED, amount_authorized=1999, amount_captured=500, capture_before=LATER),
            an_attempt(),
            "5.00 EUR of 19.99 EUR captured by stripe, 14.99 EUR still held until 2026-01-02 03:09 UTC.",
        ),
        (
            a_payment(S.PARTIALLY_CAPTURED, amount_authorized=500, amount_captured=500),
            an_attempt(),
            "5.00 EUR of 19.99 EUR captured by stripe, nothing more is held.",
        ),
        (a_payment(S.CAPTURED, **ALL), an_attempt(), "Paid: 19.99 EUR captured by stripe."),
        (
            a_payment(S.CAPTURED, amount_authorized=1998, amount_captured=1998),
            an_attempt(),
            "Paid: 19.98 EUR captured by stripe (the order asked for 19.99 EUR).",
        ),
        (
            a_payment(S.FAILED, failure_code="card_declined"),
            an_attempt(),
            "Failed at stripe (card_declined): no money was taken.",
        ),
        (a_payment(S.FAILED), an_attempt(), "Failed at stripe: no money was taken."),
        (
            a_payment(S.FAILED, failure_code="capture_reversed"),
            an_attempt(),
            "Failed: stripe captured the money and took all of it back.",
        ),
        (a_payment(S.CANCELED), an_attempt(), "Canceled before it was paid: stripe took no money."),
        (
            a_payment(S.CANCELED, capture_before=LATER),
            an_attempt(),
            "Canceled: what stripe held was released, and nothing was captured.",
        ),
        (
            a_payment(S.EXPIRED),
            an_attempt(),
            "Expired: the shopper did not pay in time, and stripe took no money.",
        ),
        (
            a_payment(S.EXPIRED, capture_before=LATER),
            an_attempt(),
            "Expired: stripe's hold ended without a capture, and no money was taken.",
        ),
        (
            a_payment(S.CONFLICTED, amount_authorized=2500, amount_captured=2500, conflict="amount_too_high"),
            an_attempt(),
            (
                "Conflicted, a person has to look (amount_too_high): stripe reports 25.00 EUR captured where the order "
                "asked for 19.99 EUR."
            ),
        ),
        (
            a_payment(S.CONFLICTED, amount_authorized=1500, conflict="amount_too_low"),
            an_attempt(),
            (
                "Conflicted, a person has to look (amount_too_low): stripe reports 15.00 EUR held where the order "
                "asked for 19.99 EUR."
            ),
        ),
        (
            a_payment(S.CONFLICTED, conflict="currency_mismatch"),
            an_attempt(),
            (
                "Conflicted, a person has to look (currency_mismatch): stripe reports money in another currency than "
                "EUR where the order asked for 19.99 EUR."
            ),
        ),
    ],
)
def test_the_sentence_of_every_status(payment: Payment, attempt: Attempt | None, sentence: str) -> None:
    assert verdict(payment, attempt) == sentence


def unknown(**changes: Any) -> Operation:
    sent: dict[str, Any] = {"first_sent_at": A_MOMENT, "next_look_at": LATER, "call": CallState.UNANSWERED}
    return an_operation(status=O.UNKNOWN, **(sent | changes))


@pytest.mark.parametrize(
    ("totals", "operations", "clauses"),
    [
        ({"amount_refunded": 500}, [an_operation()], "5.00 EUR refunded"),
        ({"amount_refunded": 1999}, [an_operation()], "all of it was refunded"),
        (
            {"amount_refund_pending": 500},
            [an_operation(status=O.SUBMITTED)],
            (
                "5.00 EUR reserved for refunds that are not confirmed yet; a refund of 5.00 EUR is accepted and "
                "waits for the gateway's confirmation"
            ),
        ),
        (
            {"amount_refund_pending": 500},
            [an_operation(status=O.PENDING, call=CallState.UNSENT, calls=1, next_look_at=LATER)],
            (
                "5.00 EUR reserved for refunds that are not confirmed yet; a refund of 5.00 EUR is reserved and "
                "not sent yet, next try 2026-01-02 03:09 UTC"
            ),
        ),
        ({}, [an_operation(status=O.PENDING, call=CallState.SENT)], "a refund of 5.00 EUR is being sent"),
        (
            {"amount_refund_pending": 500, "has_unknown_operation": True},
            [unknown()],
            (
                "5.00 EUR reserved for refunds that are not confirmed yet; the outcome of a refund of 5.00 EUR is "
                "unknown since 2026-01-02 03:04 UTC: stripe did not answer and money may have moved, "
                "next look 2026-01-02 03:09 UTC"
            ),
        ),
        (
            {},
            [unknown(kind=K.CAPTURE, escalated_at=LATER, next_look_at=None)],
            (
                "the outcome of a capture of 5.00 EUR is unknown since 2026-01-02 03:04 UTC: stripe did not answer and "
                "money may have moved, a person was called"
            ),
        ),
        (
            {},
            [an_operation(status=O.FAILED, failure_code="insufficient_balance")],
            "a refund of 5.00 EUR failed (insufficient_balance)",
        ),
        (
            {},
            [an_operation(status=O.REVERSED, failure_code="account_closed")],
            "a refund of 5.00 EUR had succeeded and was reversed (account_closed)",
        ),
        (
            {"amount_refunded": 1999},
            [an_operation(origin=Origin.POLICY, reason="late_payment", amount=Money(1999, "EUR"))],
            "all of it was refunded; the refund was made by policy (late_payment)",
        ),
        ({}, [an_operation(status=O.CANCELED)], ""),
    ],
)
def test_what_became_of_captured_money(totals: dict[str, Any], operations: Sequence[Operation], clauses: str) -> None:
    told = verdict(a_payment(S.CAPTURED, **ALL, **totals), an_attempt(), operations)
    assert told == f"Paid: 19.99 EUR captured by stripe{'; ' if clauses else ''}{clauses}."


def test_a_failed_refund_that_was_made_good_is_history() -> None:
    failed = an_operation(status=O.FAILED)
    repaired = an_operation(created_at=LATER)
    payment = a_payment(S.CAPTURED, **ALL, amount_refunded=500)
    assert "failed" not in verdict(payment, None, [failed, repaired])
    failed_later = an_operation(status=O.FAILED, created_at=LATER + timedelta(hours=1))
    assert "failed" in verdict(payment, None, [failed, repaired, failed_later])


@pytest.mark.parametrize(
    ("status", "words"),
    [("open", "is open, and the amount is withheld"), ("won", "was won"), ("lost", "was lost")],
)
def test_disputes_are_told(status: str, words: str) -> None:
    told = verdict(a_payment(S.CAPTURED, **ALL), None, (), [a_dispute(DisputeStatus(status))])
    assert told == f"Paid: 19.99 EUR captured by stripe; a dispute over 3.00 EUR (fraudulent) {words}."


@pytest.mark.parametrize(
    ("changes", "clause"),
    [
        ({"duplicate_of": "pay_0"}, "it is the second payment of its order, after pay_0"),
        ({"amount_excess": 250}, "2.50 EUR more was returned than was captured, a person has to look"),
        (
            {"conflict": "foreign_currency_returned"},
            "what was returned does not fit (foreign_currency_returned), a person has to look",
        ),
        ({"session_unknown": True}, "a call that opens its payment page was not answered"),
    ],
)
def test_what_a_person_should_know_comes_last(changes: dict[str, Any], clause: str) -> None:
    told = verdict(a_payment(S.CAPTURED, **ALL, **changes), an_attempt())
    assert told == f"Paid: 19.99 EUR captured by stripe; {clause}."


def test_money_that_came_late_is_told_while_it_is_there() -> None:
    late = verdict(a_payment(S.CAPTURED, **ALL), None, late_after=S.EXPIRED)
    assert late == "Paid: 19.99 EUR captured by stripe; the money came after the payment had been expired."
    gone = verdict(a_payment(S.CANCELED), None, late_after=S.EXPIRED)
    assert "came after" not in gone


@pytest.mark.parametrize(("currency", "money"), [("JPY", "1999 JPY"), ("KWD", "1.999 KWD"), ("USD", "19.99 USD")])
def test_money_has_its_currencys_digits(currency: str, money: str) -> None:
    payment = a_payment(S.CAPTURED, **ALL, terms=Terms(Money(1999, currency), CaptureMode.AUTOMATIC))
    assert verdict(payment, None) == f"Paid: {money} captured by stripe."


def test_of_many_operations_some_are_named_and_the_rest_counted() -> None:
    told = verdict(a_payment(S.CAPTURED, **ALL), None, [unknown() for _ in range(40)])
    assert told.count("money may have moved") == 3
    assert told.endswith("; 37 more outcomes are unknown.")


@given(
    status=st.sampled_from(PaymentStatus),
    attempt=st.none() | st.sampled_from(AttemptStatus).map(an_attempt),
    operations=st.lists(st.builds(an_operation, st.sampled_from(OperationKind), st.sampled_from(OperationStatus))),
    disputes=st.lists(st.sampled_from(DisputeStatus).map(a_dispute)),
    text=st.none() | st.text(),
)
def test_there_is_a_sentence_for_everything_and_free_text_is_not_in_it(
    status: PaymentStatus,
    attempt: Attempt | None,
    operations: list[Operation],
    disputes: list[Dispute],
    text: str | None,
) -> None:
    personal = f"Ada <{text}@example.com>"
    payment = a_payment(status, failure_code=personal, conflict=personal, **ALL)
    told = verdict(payment, attempt, operations, disputes, late_after=PaymentStatus.EXPIRED)
    assert told.endswith(".")
    assert "\n" not in told
    assert "Ada" not in told
