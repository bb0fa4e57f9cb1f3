"""The arithmetic of the benchmark: a wrong percentile would be a wrong promise."""

from __future__ import annotations

import pytest

from tests.bench.figures import (
    Goal,
    Spread,
    due_times,
    longest_gap,
    number,
    percentile,
    rate_after_the_first,
    ratios_of_rounds,
)


@pytest.mark.parametrize(
    ("part", "expected"), [(0.0, 1), (0.01, 1), (0.5, 50), (0.501, 51), (0.99, 99), (0.991, 100), (1.0, 100)]
)
def test_a_percentile_is_the_nearest_rank(part: float, expected: int) -> None:
    assert percentile(list(range(100, 0, -1)), part) == expected


def test_a_percentile_of_few_values_is_one_of_them() -> None:
    assert percentile([7.0], 0.99) == 7.0
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    with pytest.raises(ValueError, match="nothing"):
        percentile([], 0.5)


def test_the_timetable_is_even_and_begins_at_once() -> None:
    assert due_times(10.0, 4.0, 5) == [10.0, 10.25, 10.5, 10.75, 11.0]


def test_the_longest_gap_is_between_neighbours_whatever_the_order() -> None:
    assert longest_gap([5.0, 1.0, 2.0]) == 3.0
    assert longest_gap([5.0]) == 0.0


def test_a_spread_is_the_median_and_the_extremes() -> None:
    assert Spread.of([5.0, 1.0, 3.0]) == Spread(3.0, 1.0, 5.0, 3)
    assert Spread.of([2.0, 4.0]).median == 3.0


def test_ratios_are_taken_round_by_round() -> None:
    assert ratios_of_rounds([10.0, 30.0], [5.0, 10.0]) == [2.0, 3.0]
    with pytest.raises(ValueError, match="shorter"):
        ratios_of_rounds([1.0, 2.0], [1.0])


def test_a_rate_does_not_count_what_came_with_the_first_moment() -> None:
    """A batch of three is done at 0: how long it took is not known. Then four more in two seconds."""
    assert rate_after_the_first([0.0, 0.0, 0.0, 1.0, 1.0, 2.0, 2.0]) == 2.0
    with pytest.raises(ValueError, match="one moment"):
        rate_after_the_first([1.0, 1.0])


@pytest.mark.parametrize(
    ("comparison", "found", "is_met"), [("<=", 10.0, True), ("<=", 10.1, False), (">=", 10.0, True), (">=", 9.9, False)]
)
def test_a_goal_is_met_at_its_value(comparison: str, found: float, is_met: bool) -> None:
    assert Goal(comparison, 10.0).is_met(found) is is_met


def test_a_goal_says_what_it_aims_at() -> None:
    assert str(Goal(">=", 1.5, aim=2.0)) == ">= 1.50, aim >= 2"


@pytest.mark.parametrize(
    ("value", "text"),
    [(12345.6, "12,346"), (99.95, "100.0"), (12.34, "12.3"), (1.234, "1.23"), (0.05, "0.05"), (2, "2")],
)
def test_numbers_keep_three_digits(value: float, text: str) -> None:
    assert number(value) == text
