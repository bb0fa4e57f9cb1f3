"""The sweep's schedule: starts within minutes, grows, tails off to days, and ends where nothing more is expected."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.reconciler.domain.schedule import (
    DAY,
    HOUR,
    JITTER_HIGH,
    JITTER_LOW,
    MINUTE,
    PLANS,
    PaymentStatus,
    Timetable,
    plan_for,
)
from shared.contracts.payment_events import STATUS_EVENTS
from tests.support.clock import A_MOMENT

OPEN = (PaymentStatus.CREATED, PaymentStatus.REQUIRES_ACTION, PaymentStatus.PROCESSING)
ENDED = (PaymentStatus.FAILED, PaymentStatus.CANCELED, PaymentStatus.EXPIRED)
WATCHED = [status for status, plan in PLANS.items() if plan is not None]

gateways = st.sampled_from(["stripe", "generic", "tabby"])
counts = st.integers(min_value=0, max_value=60)
ages = st.integers(min_value=0, max_value=60 * DAY)
jitters = st.floats(min_value=JITTER_LOW, max_value=JITTER_HIGH)
timetables = st.builds(
    Timetable,
    first_check_seconds=st.floats(min_value=0.1, max_value=3600),
    factor=st.sampled_from([0.001, 0.1, 1.0, 3.0]),
)


def next_check(
    status: PaymentStatus,
    *,
    gateway: str = "generic",
    checks: int = 0,
    age: float = 0,
    in_status: float = 0,
    jitter: float = 1.0,
    timetable: Timetable | None = None,
) -> datetime | None:
    return (timetable or Timetable()).next_check_at(
        gateway=gateway,
        status=status,
        checks=checks,
        created_at=A_MOMENT - timedelta(seconds=age),
        status_since=A_MOMENT - timedelta(seconds=in_status),
        now=A_MOMENT,
        jitter=jitter,
    )


def seconds_until(due: datetime | None) -> float:
    assert due is not None
    return (due - A_MOMENT).total_seconds()


def test_every_status_of_payment_service_has_a_plan_or_none_on_purpose() -> None:
    assert {status.value for status in PLANS} == set(STATUS_EVENTS)


@pytest.mark.parametrize("status", OPEN)
def test_an_open_payment_is_first_asked_about_after_a_minute(status: PaymentStatus) -> None:
    assert seconds_until(next_check(status)) == 60


def test_the_first_check_is_a_setting() -> None:
    assert seconds_until(next_check(PaymentStatus.CREATED, timetable=Timetable(first_check_seconds=5))) == 5


def test_a_captured_payment_is_dropped_at_once() -> None:
    assert next_check(PaymentStatus.CAPTURED) is None


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


@given(gateway=gateways, status=st.sampled_from(WATCHED), age=ages, timetable=timetables)
def test_waits_never_shrink_with_more_checks(
    gateway: str, status: PaymentStatus, age: int, timetable: Timetable
) -> None:
    plan = plan_for(gateway, status)
    assert plan is not None
    waits = [timetable.wait_seconds(plan, checks=checks, age_seconds=age) for checks in range(30)]
    known = [wait for wait in waits if wait is not None]
    assert known == waits[: len(known)]  # once ended, it stays ended
    assert all(shorter <= longer for shorter, longer in pairwise(known))


@given(gateway=gateways, status=st.sampled_from(OPEN), checks=counts, younger=ages, more=ages)
def test_waits_never_shrink_with_more_age(
    gateway: str, status: PaymentStatus, checks: int, younger: int, more: int
) -> None:
    plan = plan_for(gateway, status)
    assert plan is not None
    waits = [Timetable().wait_seconds(plan, checks=checks, age_seconds=age) for age in (younger, younger + more)]
    assert waits[0] is not None
    assert waits[1] is not None
    assert waits[0] <= waits[1]


@given(gateway=gateways, status=st.sampled_from(WATCHED), checks=counts, age=ages, jitter=jitters)
def test_waits_are_bounded(gateway: str, status: PaymentStatus, checks: int, age: int, jitter: float) -> None:
    due = next_check(status, gateway=gateway, checks=checks, age=age, in_status=age, jitter=jitter)
    if due is not None:
        assert 0 <= seconds_until(due) <= 4 * DAY * JITTER_HIGH


@given(gateway=gateways, status=st.sampled_from(WATCHED), checks=st.integers(1, 60), age=ages, jitter=jitters)
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


def test_a_jitter_out_of_range_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="jitter"):
        next_check(PaymentStatus.CREATED, jitter=2)
