"""What becomes of a watched payment after news, answers, refusals and silence."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.reconciler.domain.models import Moment, SeenPayment, Standing, WatchedPayment
from services.reconciler.domain.schedule import PaymentStatus, Timetable
from shared.money import Money
from tests.support.clock import A_MOMENT

TIMETABLE = Timetable()
NOW = Moment(A_MOMENT, 1.0)


CAPTURED = PaymentStatus.CAPTURED
NOTHING = Standing()
TAKEN = Standing(amount_authorized=1000, amount_captured=1000)


def seen(
    status: PaymentStatus = PaymentStatus.REQUIRES_ACTION,
    *,
    version: int = 1,
    standing: Standing = NOTHING,
    is_document: bool = False,
    capture_before: datetime | None = None,
) -> SeenPayment:
    return SeenPayment(
        payment_id="pay_1",
        order_id="ord_1",
        gateway="generic",
        status=status,
        version=version,
        amount=Money(1000, "EUR"),
        created_at=A_MOMENT,
        changed_at=A_MOMENT,
        standing=standing,
        capture_before=capture_before,
        is_document=is_document,
    )


def watched(
    status: PaymentStatus = PaymentStatus.REQUIRES_ACTION, *, version: int = 1, standing: Standing = NOTHING
) -> WatchedPayment:
    return WatchedPayment.first_seen(seen(status, version=version, standing=standing), TIMETABLE, NOW)


def test_older_news_change_nothing() -> None:
    known = watched(PaymentStatus.CAPTURED, version=3)
    assert known.told(seen(PaymentStatus.REQUIRES_ACTION, version=2), TIMETABLE, NOW) is known


def test_a_new_status_starts_its_own_plan() -> None:
    known = replace(watched(), checks=7, failures=2)
    told = known.told(seen(PaymentStatus.PROCESSING, version=2), TIMETABLE, NOW)
    assert (told.checks, told.failures) == (0, 0)
    assert told.next_check_at == A_MOMENT + timedelta(minutes=1)


def test_the_same_status_keeps_its_place_in_the_plan() -> None:
    known = replace(watched(), checks=7)
    told = known.told(seen(version=2), TIMETABLE, NOW)
    assert (told.version, told.checks, told.next_check_at) == (2, 7, known.next_check_at)


def test_an_answer_moves_on_in_the_plan() -> None:
    answered = watched().answered(seen(), TIMETABLE, NOW)
    assert (answered.checks, answered.last_checked_at) == (1, A_MOMENT)
    assert answered.next_check_at == A_MOMENT + timedelta(minutes=2)


def test_an_answer_that_is_older_than_what_an_event_told_meanwhile_counts_as_a_check_only() -> None:
    known = watched(PaymentStatus.PROCESSING, version=5)
    answered = known.answered(seen(PaymentStatus.REQUIRES_ACTION, version=4), TIMETABLE, NOW)
    assert (answered.status, answered.version, answered.checks) == (PaymentStatus.PROCESSING, 5, 1)


def test_where_captured_payments_are_left_alone_one_is_dropped_and_no_run_waits_for_it() -> None:
    known = replace(watched(), asked_by_run="run_1")
    told = known.told(seen(CAPTURED, version=2), Timetable(captured_looks=()), NOW)
    assert (told.next_check_at, told.asked_by_run) == (None, None)


@pytest.mark.parametrize(
    "moved",
    [
        Standing(1000, 1000, amount_refund_pending=1),
        Standing(1000, 1000, amount_refunded=1),
        Standing(1000, 1000, amount_disputed=1),
        Standing(1000, 1000, outcome_unknown=True),
    ],
)
def test_money_that_moves_on_a_captured_payment_starts_its_looks_again(moved: Standing) -> None:
    known = replace(watched(CAPTURED, standing=TAKEN), checks=6)
    told = known.told(seen(CAPTURED, version=2, standing=moved), TIMETABLE, NOW)
    assert (told.checks, told.next_check_at) == (0, A_MOMENT + timedelta(hours=1))
    assert told.told(seen(CAPTURED, version=3, standing=moved), TIMETABLE, NOW).next_check_at == told.next_check_at


def test_a_call_without_an_answer_leaves_an_open_payment_its_place() -> None:
    known = replace(watched(), checks=6)
    told = known.told(seen(version=2, standing=Standing(outcome_unknown=True)), TIMETABLE, NOW)
    assert (told.checks, told.next_check_at) == (6, known.next_check_at)


def test_a_document_adds_what_the_event_of_its_version_left_out_and_an_event_takes_nothing_of_it_away() -> None:
    disputed = replace(TAKEN, amount_disputed=500)
    known = watched(CAPTURED, version=4, standing=disputed)
    assert known.standing.is_unsettled
    lost = replace(disputed, amount_dispute_lost=500)
    told = known.told(seen(CAPTURED, version=4, standing=lost, is_document=True), TIMETABLE, NOW)
    assert not told.standing.is_unsettled
    assert told.told(seen(CAPTURED, version=4, standing=disputed), TIMETABLE, NOW) is told
    assert told.told(seen(CAPTURED, version=5, standing=disputed), TIMETABLE, NOW).standing == lost
    assert told.told(seen(CAPTURED, version=5, standing=TAKEN), TIMETABLE, NOW).standing == TAKEN


def test_an_older_document_changes_nothing() -> None:
    known = watched(CAPTURED, version=4, standing=TAKEN)
    assert known.told(seen(CAPTURED, version=3, is_document=True), TIMETABLE, NOW) is known


def test_the_end_of_a_hold_brings_its_next_check_nearer() -> None:
    known = watched(PaymentStatus.AUTHORIZED, version=2)
    ends_at = A_MOMENT + timedelta(hours=8)
    told = known.told(
        seen(PaymentStatus.AUTHORIZED, version=2, is_document=True, capture_before=ends_at), TIMETABLE, NOW
    )
    assert (told.capture_before, told.next_check_at) == (ends_at, A_MOMENT + timedelta(hours=2))
    later = told.told(seen(PaymentStatus.AUTHORIZED, version=3), TIMETABLE, NOW)
    assert (later.capture_before, later.next_check_at) == (ends_at, told.next_check_at)


def test_a_refusal_uses_up_a_check_and_says_why() -> None:
    refused = watched().refused("gateway_not_enabled", TIMETABLE, NOW)
    assert (refused.checks, refused.last_error) == (1, "gateway_not_enabled")


def test_silence_about_a_payment_that_was_dropped_meanwhile_does_not_revive_it() -> None:
    known = replace(watched(CAPTURED), next_check_at=None)
    assert known.unanswered("gateway_outcome_unknown", wait_seconds=60, moment=NOW) is known


@given(failures=st.integers(min_value=1, max_value=40), jitter=st.floats(min_value=0.9, max_value=1.1))
def test_silence_uses_up_no_check_and_its_waits_grow_to_an_hour(failures: int, jitter: float) -> None:
    known = watched()
    waits = []
    for _ in range(failures):
        known = known.unanswered("gateway_outcome_unknown", wait_seconds=60, moment=Moment(A_MOMENT, jitter))
        assert known.next_check_at is not None
        waits.append((known.next_check_at - A_MOMENT).total_seconds())
    assert known.checks == 0
    assert waits == sorted(waits)
    assert waits[-1] <= 3600 * 1.1
