"""The circuit breaker's state machine, without database or network (failures H17, H18)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.payment_service.domain.breaker import (
    CLOSED,
    SLICES,
    Admission,
    Breaker,
    BreakerPolicy,
    BreakerState,
    RecentCalls,
)

POLICY = BreakerPolicy()
S, A = BreakerState, Admission


def test_five_failures_in_a_row_are_too_many() -> None:
    calls = RecentCalls(POLICY)
    assert [calls.failed(0.0) for _ in range(4)] == [None] * 4
    assert calls.failed(0.0) == "5 failures in a row"


def test_a_success_starts_the_row_again() -> None:
    calls = RecentCalls(BreakerPolicy(minimum_calls=100))
    for _ in range(10):
        assert [calls.failed(0.0) for _ in range(4)] == [None] * 4
        calls.succeeded(0.0)


def test_half_of_ten_calls_are_too_many() -> None:
    calls = RecentCalls(POLICY)
    for second in range(4):
        assert calls.failed(second) is None
        calls.succeeded(second)
    calls.succeeded(8.0)
    assert calls.failed(9.0) == "5 of the last 10 calls failed"


def test_a_share_of_few_calls_says_nothing() -> None:
    calls = RecentCalls(POLICY)
    for second in range(4):
        assert calls.failed(second) is None
        calls.succeeded(second)
    assert calls.failed(9.0) is None  # five of nine


def test_what_is_older_than_the_window_does_not_count() -> None:
    calls = RecentCalls(POLICY)
    for _ in range(4):
        calls.failed(0.0)
        calls.succeeded(0.0)
    calls.succeeded(31.0)
    assert [calls.failed(31.0) for _ in range(4)] == [None] * 4


def test_calls_that_are_forgotten_are_no_reason() -> None:
    calls = RecentCalls(POLICY)
    for _ in range(4):
        calls.failed(0.0)
    calls.forget()
    assert [calls.failed(0.0) for _ in range(4)] == [None] * 4


@given(st.lists(st.tuples(st.floats(0, 20), st.booleans()), max_size=200))
def test_memory_is_bounded_and_healthy_gateways_stay_open(steps: list[tuple[float, bool]]) -> None:
    calls, now = RecentCalls(POLICY), 1000.0
    for passed, fails in steps:
        now += passed
        if fails:
            reason = calls.failed(now)
            assert reason is None or "fail" in reason
        else:
            calls.succeeded(now)
        assert len(calls._slices) <= SLICES
    calls.forget()
    assert not calls._slices


def test_a_closed_breaker_lets_every_call_through() -> None:
    assert (CLOSED.admission(0.0), CLOSED.seen_at(0.0)) == (A.CALL, S.CLOSED)


def test_an_open_breaker_refuses_until_its_cool_down_is_over_and_then_wants_one_to_try() -> None:
    breaker = CLOSED.opened("5 failures in a row", until=15.0)
    assert [breaker.admission(now) for now in (10.0, 14.99, 15.0)] == [A.REFUSED, A.REFUSED, A.PROBE]
    # What is shown: available again by itself, though nobody has called since.
    assert [breaker.seen_at(now) for now in (14.99, 15.0)] == [S.OPEN, S.HALF_OPEN]


def test_while_one_tries_the_others_are_refused_until_its_lease_ends() -> None:
    breaker = CLOSED.opened("why", until=15.0).probing("prb_1", until=45.0)
    assert [breaker.admission(now) for now in (15.0, 44.9, 45.0)] == [A.REFUSED, A.REFUSED, A.PROBE]
    assert breaker.seen_at(20.0) is S.HALF_OPEN


def test_a_probe_that_tells_nothing_makes_room_at_once() -> None:
    breaker = CLOSED.opened("why", until=15.0).probing("prb_1", until=45.0).without_probe(16.0)
    assert breaker.admission(16.0) is A.PROBE
    assert breaker.probe_token is None


def test_openings_in_a_row_are_counted_and_forgotten_by_a_success() -> None:
    again = CLOSED.opened("why", until=15.0).probing("prb_1", until=45.0).opened("still", until=60.0)
    assert (again.openings, again.probe_token) == (2, None)
    assert Breaker().opened("why", until=1.0).openings == 1


@pytest.mark.parametrize(
    ("openings", "seconds"), [(1, 5), (2, 10), (3, 20), (6, 160), (7, 300), (8, 300), (10_000, 300)]
)
def test_the_cool_down_doubles_up_to_a_cap(openings: int, seconds: float) -> None:
    assert POLICY.cool_down(openings, 1.0) == seconds


@given(st.integers(1, 5), st.floats(0.8, 1), st.floats(0.8, 1))
def test_each_reopening_waits_longer_whatever_the_jitter(openings: int, first: float, second: float) -> None:
    assert POLICY.cool_down(openings + 1, second) > POLICY.cool_down(openings, first)


def test_a_breaker_can_be_carried_to_another_clock() -> None:
    breaker = CLOSED.opened("why", until=5.0).shifted(1000.0)
    assert [breaker.admission(now) for now in (1004.9, 1005.0)] == [A.REFUSED, A.PROBE]
