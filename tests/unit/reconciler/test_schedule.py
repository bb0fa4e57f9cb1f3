"""The sweep's schedule: starts within minutes, grows, tails off to days, and ends where nothing more is expected."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.reconciler.domain.schedule import (
    CAPTURED_LOOKS,
    DAY,
    HOUR,
    JITTER_HIGH,
    JITTER_LOW,
    MINUTE,
    PLANS,
    UNSETTLED,
    PaymentStatus,
    Subject,
    Timetable,
)
from shared.contracts.payment_events import STATUS_EVENTS
from tests.support.clock import A_MOMENT

OPEN = (PaymentStatus.CREATED, PaymentStatus.REQUIRES_ACTION, PaymentStatus.PROCESSING)
ENDED = (PaymentStatus.FAILED, PaymentStatus.CANCELED, PaymentStatus.EXPIRED)
HELD = (PaymentStatus.AUTHORIZED, PaymentStatus.PARTIALLY_CAPTURED)
BY_CHECKS = [status for status, plan in PLANS.items() if not plan.from_start]

gateways = st.sampled_from(["stripe", "generic", "tabby"])
counts = st.integers(min_value=0, max_value=60)
ages = st.integers(min_value=0, max_value=60 * DAY)
jitters = st.floats(min_value=JITTER_LOW, max_value=JITTER_HIGH)
timetables = st.builds(
    Timetable,
    first_check_seconds=st.floats(min_value=0.1, max_value=3600),
    factor=st.sampled_from([0.001, 0.1, 1.0, 3.0]),
)


def a_subject(
    status: PaymentStatus,
    *,
    gateway: str = "generic",
    checks: int = 0,
    age: float = 0,
    in_status: float = 0,
    is_unsettled: bool = False,
    is_taken: bool = False,
    hold_ends_in: float | None = None,
) -> Subject:
    return Subject(
        gateway=gateway,
        status=status,
        created_at=A_MOMENT - timedelta(seconds=age),
        since=A_MOMENT - timedelta(seconds=in_status),
        checks=checks,
        is_unsettled=is_unsettled,
        is_taken=is_taken,
        capture_before=None if hold_ends_in is None else A_MOMENT + timedelta(seconds=hold_ends_in),
    )


def next_check(
    status: PaymentStatus, *, jitter: float = 1.0, timetable: Timetable | None = None, **subject: Any
) -> datetime | None:
    return (timetable or Timetable()).next_check_at(a_subject(status, **subject), now=A_MOMENT, jitter=jitter)


def looks_of(
    status: PaymentStatus, *, jitter: float = 1.0, timetable: Timetable | None = None, seconds: float = 150 * DAY
) -> list[float]:
    """When a payment that is always asked about as soon as it is due is asked about, in seconds from its beginning."""
    timetable, now, looks = timetable or Timetable(), A_MOMENT, list[float]()
    while (now - A_MOMENT).total_seconds() < seconds and len(looks) < 200:
        subject = replace(a_subject(status), checks=len(looks))
        due = timetable.next_check_at(subject, now=now, jitter=jitter)
        if due is None:
            break
        now = due
        looks.append((now - A_MOMENT).total_seconds())
    return looks


def seconds_until(due: datetime | None) -> float:
    assert due is not None
    return (due - A_MOMENT).total_seconds()


def test_every_status_of_payment_service_has_a_plan() -> None:
    assert {status.value for status in PLANS} == set(STATUS_EVENTS)


@pytest.mark.parametrize("status", OPEN)
def test_an_open_payment_is_first_asked_about_after_a_minute(status: PaymentStatus) -> None:
    assert seconds_until(next_check(status)) == 60


def test_the_first_check_is_a_setting() -> None:
    assert seconds_until(next_check(PaymentStatus.CREATED, timetable=Timetable(first_check_seconds=5))) == 5


def test_a_captured_payment_is_looked_at_ten_times_in_a_hundred_and_twenty_days_and_dropped() -> None:
    days = [look / DAY for look in looks_of(PaymentStatus.CAPTURED)]
    assert days == pytest.approx([1 / 24, 1 / 4, 1, 3, 7, 14, 30, 60, 90, 120])


def test_the_looks_at_captured_payments_are_a_setting() -> None:
    assert looks_of(PaymentStatus.CAPTURED, timetable=Timetable(captured_looks=(10, 30))) == [10, 30]
    assert next_check(PaymentStatus.CAPTURED, timetable=Timetable(captured_looks=())) is None


@given(jitter=jitters, factor=st.sampled_from([0.001, 0.1, 1.0, 3.0]))
def test_each_look_is_made_once_whatever_the_jitter(jitter: float, factor: float) -> None:
    timetable = Timetable(factor=factor)
    looks = looks_of(PaymentStatus.CAPTURED, jitter=jitter, timetable=timetable, seconds=500 * DAY)
    assert looks == pytest.approx([look * factor * jitter for look in CAPTURED_LOOKS], abs=0.001)


@given(seen_late_by=st.integers(min_value=2 * HOUR, max_value=200 * DAY), jitter=jitters)
def test_looks_that_are_over_are_made_up_for_by_one(seen_late_by: int, jitter: float) -> None:
    first = seconds_until(next_check(PaymentStatus.CAPTURED, in_status=seen_late_by, jitter=jitter))
    assert 0 <= first <= 10 * MINUTE
    second = next_check(PaymentStatus.CAPTURED, checks=1, in_status=seen_late_by, jitter=jitter)
    left = [look for look in CAPTURED_LOOKS if look * JITTER_LOW > seen_late_by]
    assert (second is None) == (not left)
    if left:
        assert seconds_until(second) + seen_late_by == pytest.approx(left[0] * jitter, abs=10 * MINUTE)


@given(seen_late_by=ages, checks=st.integers(1, 60), jitter=jitters, factor=st.sampled_from([0.001, 1.0]))
def test_a_look_is_never_behind_us(seen_late_by: int, checks: int, jitter: float, factor: float) -> None:
    timetable = Timetable(factor=factor)
    due = next_check(PaymentStatus.CAPTURED, checks=checks, in_status=seen_late_by, jitter=jitter, timetable=timetable)
    assert due is None or due >= A_MOMENT


SETTLED_STATUSES = (*HELD, *ENDED, PaymentStatus.CAPTURED, PaymentStatus.CONFLICTED)


@pytest.mark.parametrize("status", SETTLED_STATUSES)
def test_what_is_unsettled_is_asked_about_hourly_for_a_day_and_then_daily_without_end(status: PaymentStatus) -> None:
    waits = [seconds_until(next_check(status, checks=checks, is_unsettled=True)) for checks in range(300)]
    assert waits == [HOUR] * 24 + [DAY] * 276


@pytest.mark.parametrize("status", OPEN)
def test_an_open_payment_is_asked_about_no_less_because_a_call_is_unanswered(status: PaymentStatus) -> None:
    assert [next_check(status, checks=checks, is_unsettled=True) for checks in range(20)] == [
        next_check(status, checks=checks) for checks in range(20)
    ]


@pytest.mark.parametrize("status", HELD)
@pytest.mark.parametrize(
    ("hold_ends_in", "wait"),
    [
        (30 * DAY, DAY),
        (4 * DAY, DAY),
        (2 * DAY, DAY / 2),
        (DAY, 6 * HOUR),
        (5 * HOUR, 1.25 * HOUR),
        (HOUR, HOUR),
        (0, HOUR),
        (-HOUR, HOUR),
        (-2 * DAY, DAY / 2),
        (-30 * DAY, DAY),
    ],
)
def test_a_hold_is_asked_about_more_often_around_its_end(
    status: PaymentStatus, hold_ends_in: float, wait: float
) -> None:
    assert seconds_until(next_check(status, checks=3, hold_ends_in=hold_ends_in)) == wait


@given(status=st.sampled_from(HELD), far=ages, nearer=ages, checks=counts, is_unsettled=st.booleans())
def test_a_nearer_end_of_a_hold_never_makes_it_asked_about_more_rarely(
    status: PaymentStatus, far: int, nearer: int, checks: int, is_unsettled: bool
) -> None:
    far, nearer = max(far, nearer), min(far, nearer)
    waits = [
        seconds_until(next_check(status, checks=checks, hold_ends_in=distance, is_unsettled=is_unsettled))
        for distance in (nearer, far)
    ]
    assert HOUR <= waits[0] <= waits[1] <= DAY


def test_a_hold_of_which_nothing_is_left_is_looked_at_like_a_captured_payment() -> None:
    assert seconds_until(next_check(PaymentStatus.PARTIALLY_CAPTURED, is_taken=True)) == HOUR
    late = next_check(PaymentStatus.PARTIALLY_CAPTURED, is_taken=True, checks=10, in_status=120 * DAY)
    assert late is None


def test_an_authorized_payment_is_asked_about_daily_for_as_long_as_it_is_held() -> None:
    assert {seconds_until(next_check(PaymentStatus.AUTHORIZED, checks=checks)) for checks in range(100)} == {DAY}


@pytest.mark.parametrize("status", ENDED)
def test_an_ended_payment_is_looked_at_after_1_6_24_and_72_hours_and_dropped(status: PaymentStatus) -> None:
    looks, waited = [], 0.0
    for checks in range(4):
        waited += seconds_until(next_check(status, checks=checks))
        looks.append(waited / HOUR)
    assert looks == [1, 6, 24, 72]
    assert next_check(status, checks=4) is None


def test_an_open_payment_tails_off_to_days() -> None:
    waits = [seconds_until(next_check(PaymentStatus.REQUIRES_ACTION, checks=checks)) for checks in range(40)]
    assert waits[0] == MINUTE
    assert waits[-1] == 3 * DAY


def test_a_backlog_after_an_outage_is_not_treated_as_fresh() -> None:
    fresh = seconds_until(next_check(PaymentStatus.REQUIRES_ACTION, checks=1, age=70))
    old = seconds_until(next_check(PaymentStatus.REQUIRES_ACTION, checks=1, age=2 * DAY))
    assert (fresh, old) == (2 * MINUTE, 6 * HOUR)


@given(gateway=gateways, status=st.sampled_from(BY_CHECKS), age=ages, timetable=timetables, is_unsettled=st.booleans())
def test_waits_never_shrink_with_more_checks(
    gateway: str, status: PaymentStatus, age: int, timetable: Timetable, is_unsettled: bool
) -> None:
    subject = a_subject(status, gateway=gateway, age=age, is_unsettled=is_unsettled)
    waits = [timetable.wait_seconds(replace(subject, checks=checks), A_MOMENT) for checks in range(30)]
    known = [wait for wait in waits if wait is not None]
    assert known == waits[: len(known)]  # once ended, it stays ended
    assert all(shorter <= longer for shorter, longer in pairwise(known))


@given(gateway=gateways, status=st.sampled_from(OPEN), checks=counts, younger=ages, more=ages)
def test_waits_never_shrink_with_more_age(
    gateway: str, status: PaymentStatus, checks: int, younger: int, more: int
) -> None:
    waits = [
        Timetable().wait_seconds(a_subject(status, gateway=gateway, checks=checks, age=age), A_MOMENT)
        for age in (younger, younger + more)
    ]
    assert waits[0] is not None
    assert waits[1] is not None
    assert waits[0] <= waits[1]


@given(gateway=gateways, status=st.sampled_from(BY_CHECKS), checks=counts, age=ages, jitter=jitters)
def test_waits_are_bounded(gateway: str, status: PaymentStatus, checks: int, age: int, jitter: float) -> None:
    due = next_check(status, gateway=gateway, checks=checks, age=age, in_status=age, jitter=jitter)
    if due is not None:
        assert 0 <= seconds_until(due) <= 4 * DAY * JITTER_HIGH


@given(gateway=gateways, status=st.sampled_from(BY_CHECKS), checks=st.integers(1, 60), age=ages, jitter=jitters)
def test_jitter_moves_a_check_by_a_tenth_at_most(
    gateway: str, status: PaymentStatus, checks: int, age: int, jitter: float
) -> None:
    plain = next_check(status, gateway=gateway, checks=checks, age=age)
    moved = next_check(status, gateway=gateway, checks=checks, age=age, jitter=jitter)
    assert (plain is None) == (moved is None)
    if plain is not None:
        assert seconds_until(moved) == pytest.approx(seconds_until(plain), rel=0.1001)


@given(status=st.sampled_from(OPEN), overdue=st.integers(min_value=10 * MINUTE, max_value=60 * DAY), jitter=jitters)
def test_an_overdue_first_check_comes_soon_but_spread(status: PaymentStatus, overdue: int, jitter: float) -> None:
    wait = seconds_until(next_check(status, age=overdue, in_status=overdue, jitter=jitter))
    assert 0 <= wait <= MINUTE * (JITTER_HIGH - JITTER_LOW) + 0.001


def test_the_plan_of_the_unsettled_is_what_the_readme_says() -> None:
    assert (UNSETTLED.waits, UNSETTLED.repeats) == ((HOUR,) * 24 + (DAY,), True)


def test_a_jitter_out_of_range_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="jitter"):
        next_check(PaymentStatus.CREATED, jitter=2)


def test_a_bank_debit_is_not_hurried_whatever_its_gateway() -> None:
    by_bank = replace(a_subject(PaymentStatus.PROCESSING), gateway="razorpay", method="bank_debit", checks=2)
    usual = replace(by_bank, method=None)
    assert Timetable().wait_seconds(by_bank, A_MOMENT) == 4 * HOUR
    assert Timetable().wait_seconds(usual, A_MOMENT) == 5 * MINUTE


def test_a_payment_that_razorpay_gave_up_on_is_looked_at_until_late_authorization_is_over() -> None:
    looks, at = 0, 0.0
    subject = replace(a_subject(PaymentStatus.FAILED), gateway="razorpay")
    while (wait := Timetable().wait_seconds(replace(subject, checks=looks), A_MOMENT)) is not None:
        looks, at = looks + 1, at + wait
    assert at == 6 * DAY
