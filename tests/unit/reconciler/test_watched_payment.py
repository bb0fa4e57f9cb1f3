"""What becomes of a watched payment after news, answers, refusals and silence."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from services.reconciler.domain.models import Moment, SeenPayment, WatchedPayment
from services.reconciler.domain.schedule import PaymentStatus, Timetable
from shared.money import Money
from tests.support.clock import A_MOMENT

TIMETABLE = Timetable()
NOW = Moment(A_MOMENT, 1.0)


def seen(status: PaymentStatus = PaymentStatus.REQUIRES_ACTION, *, version: int = 1) -> SeenPayment:
    return SeenPayment("pay_1", "ord_1", "generic", status, version, Money(1000, "EUR"), A_MOMENT, A_MOMENT)


def watched(status: PaymentStatus = PaymentStatus.REQUIRES_ACTION, *, version: int = 1) -> WatchedPayment:
    return WatchedPayment.first_seen(seen(status, version=version), TIMETABLE, NOW)


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


def test_a_captured_payment_is_dropped_and_no_run_waits_for_it() -> None:
    known = replace(watched(), asked_by_run="run_1")
    told = known.told(seen(PaymentStatus.CAPTURED, version=2), TIMETABLE, NOW)
    assert (told.next_check_at, told.asked_by_run) == (None, None)


def test_a_refusal_uses_up_a_check_and_says_why() -> None:
    refused = watched().refused("gateway_not_enabled", TIMETABLE, NOW)
    assert (refused.checks, refused.last_error) == (1, "gateway_not_enabled")


def test_silence_about_a_payment_that_was_dropped_meanwhile_does_not_revive_it() -> None:
    known = watched(PaymentStatus.CAPTURED)
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
