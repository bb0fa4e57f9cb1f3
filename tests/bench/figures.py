"""The arithmetic of the harness: percentiles, medians with their spread, timetables, ratios and goals."""

from __future__ import annotations

import itertools
import math
import operator
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_COMPARISONS: dict[str, Callable[[float, float], bool]] = {"<=": operator.le, ">=": operator.ge}


def percentile(values: Sequence[float], part: float) -> float:
    """The nearest rank: the smallest value that at least ``part`` of all values do not exceed."""
    if not values:
        raise ValueError("a percentile of nothing")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]


def longest_gap(moments: Sequence[float]) -> float:
    """The longest time between two neighbours; 0 for fewer than two."""
    ordered = sorted(moments)
    return max((after - before for before, after in itertools.pairwise(ordered)), default=0.0)


def due_times(started: float, rate: float, count: int) -> list[float]:
    """The timetable of an open loop: evenly spaced, the first at once."""
    return [started + number / rate for number in range(count)]


def ratios_of_rounds(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Round by round: neighbours in time share whatever else the machine was doing."""
    return [mine / peer for mine, peer in zip(ours, theirs, strict=True)]


def rate_after_the_first(moments: Sequence[float]) -> float:
    """Things a second from the time of each, beginning when the first ones were done: what came before is unknown.

    Things that were done in one transaction share a moment, so all of the first moment are left out.
    """
    first, last = min(moments), max(moments)
    if first == last:
        raise ValueError("everything happened at one moment")
    return sum(moment > first for moment in moments) / (last - first)


@dataclass(frozen=True)
class Goal:
    """``aim`` is what we would like beyond the goal; both are printed, neither is asserted."""

    comparison: str
    value: float
    aim: float | None = None
    name: str = ""

    def is_met(self, found: float) -> bool:
        return _COMPARISONS[self.comparison](found, self.value)

    def __str__(self) -> str:
        aim = f", aim {self.comparison} {number(self.aim)}" if self.aim is not None else ""
        return f"{self.comparison} {number(self.value)}{aim}"


@dataclass(frozen=True)
class Spread:
    """The median of the rounds, and their extremes."""

    median: float
    low: float
    high: float
    rounds: int

    @classmethod
    def of(cls, rounds: Sequence[float]) -> Spread:
        return cls(statistics.median(rounds), min(rounds), max(rounds), len(rounds))


def number(value: float) -> str:
    """Three digits that say something: 12,345 and 12.3 and 1.23."""
    size = abs(value)
    if size >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}"
