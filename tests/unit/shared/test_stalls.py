"""Whose turn it is at the relay while the bus takes nothing of some rows."""

from __future__ import annotations

import pytest

from shared.messaging.relay import MAX_STALLED_WAIT_SECONDS, MOST_PASSES, STALLED_WAIT_SECONDS, _Stalls
from tests.support.clock import FakeClock

STUCK = [1, 2]


@pytest.fixture
def stalls() -> _Stalls:
    """Two rows have stalled once, and wait."""
    stalls = _Stalls(FakeClock())
    assert stalls.passed_by() == ()
    list(stalls.waits(stalls.note(STUCK, [9]), MAX_STALLED_WAIT_SECONDS))
    return stalls


def turns(stalls: _Stalls, count: int, *, full: bool) -> list[bool]:
    """Whether the stuck ones were passed by, claim after claim; the others may fill theirs."""
    found = []
    for number in range(count):
        is_passing = bool(stalls.passed_by())
        stalls.had_turn([10 + number], is_full=full and is_passing)
        found.append(is_passing)
    return found


def test_they_are_passed_by_every_other_time(stalls: _Stalls) -> None:
    assert turns(stalls, 6, full=False) == [True, False] * 3


def test_they_are_passed_by_more_often_while_others_are_many_and_never_for_ever(stalls: _Stalls) -> None:
    assert turns(stalls, 10, full=True) == ([True] * MOST_PASSES + [False]) * 2


def test_everybody_has_a_turn_again_once_one_of_them_is_safe(stalls: _Stalls) -> None:
    stalls.note([2], [1])
    assert any(turns(stalls, 2, full=False)), "another one is not"
    stalls.note([], [2])
    assert not any(turns(stalls, 2, full=True))


def test_they_are_forgotten_when_they_are_gone_and_their_wait_is_over() -> None:
    clock = FakeClock()
    stalls = _Stalls(clock)
    list(stalls.waits(stalls.note(STUCK, [9]), MAX_STALLED_WAIT_SECONDS))
    assert any(turns(stalls, 4, full=False))
    clock.move(STALLED_WAIT_SECONDS + 1)
    turns(stalls, 2, full=False)
    assert not any(turns(stalls, 2, full=False)), "another relay has published them"


def test_each_waits_by_its_own_number_of_tries(stalls: _Stalls) -> None:
    rounds = stalls.note([*STUCK, 3], [])
    assert dict(stalls.waits(rounds, MAX_STALLED_WAIT_SECONDS)) == {
        STALLED_WAIT_SECONDS: [3],
        STALLED_WAIT_SECONDS * 2: STUCK,
    }
    for _ in range(8):
        rounds = stalls.note(STUCK, [])
    assert dict(stalls.waits(rounds, MAX_STALLED_WAIT_SECONDS)) == {MAX_STALLED_WAIT_SECONDS: STUCK}
