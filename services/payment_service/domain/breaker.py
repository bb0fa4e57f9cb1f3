"""A circuit breaker per gateway and operation class, as a pure state machine.

Times are seconds on the clock of whoever keeps the breaker (the database's for the shared row, a replica's monotonic
one for its copy); only differences count. ``db/breakers.py`` makes the same steps in SQL.

    closed ──too many failures──▶ open ──cool-down over, one caller──▶ half open ──it succeeds──▶ closed
                                   ▲                                       │
                                   └───── it fails: a longer cool-down ────┘
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace
from enum import StrEnum


class OperationClass(StrEnum):
    SESSION = "session"
    """Opening and closing hosted pages: what checkout needs."""
    READ = "read"
    MONEY = "money"
    """Captures, voids, refunds, completions."""


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Admission(StrEnum):
    CALL = "call"
    PROBE = "probe"
    """One caller may try, whose result decides for everybody."""
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    failures_in_a_row: int = 5
    failure_percent: int = 50
    minimum_calls: int = 10
    """With fewer calls in the window a share of them says nothing."""
    window_seconds: float = 30.0
    cool_down_seconds: float = 5.0
    longest_cool_down_seconds: float = 300.0
    probe_seconds: float = 30.0
    """How long a probe may take before another caller may try: longer than a call, so only a dead one is overtaken."""

    def cool_down(self, openings: int, jitter: float) -> float:
        """Doubles with every opening in a row up to the cap; ``jitter`` in 0.8 … 1 keeps replicas and gateways apart
        and still makes each wait longer than the one before."""
        doubled = self.cool_down_seconds * 2.0 ** min(openings - 1, 30)
        return min(doubled, self.longest_cool_down_seconds) * jitter


@dataclass(frozen=True, slots=True)
class Breaker:
    """``openings`` counts those in a row, without a success between them."""

    state: BreakerState = BreakerState.CLOSED
    openings: int = 0
    reason: str | None = None
    open_until: float = 0.0
    probe_until: float = 0.0
    probe_token: str | None = None

    def seen_at(self, now: float) -> BreakerState:
        """What to show: a breaker whose cool-down is over lets the next caller try, so it counts as half open."""
        if self.state is BreakerState.OPEN and now >= self.open_until:
            return BreakerState.HALF_OPEN
        return self.state

    def admission(self, now: float) -> Admission:
        match self.state:
            case BreakerState.CLOSED:
                return Admission.CALL
            case BreakerState.OPEN:
                return Admission.PROBE if now >= self.open_until else Admission.REFUSED
            case BreakerState.HALF_OPEN:  # the probe of a process that was killed ends with its lease
                return Admission.PROBE if now >= self.probe_until else Admission.REFUSED

    def opened(self, reason: str, *, until: float) -> Breaker:
        """From closed, or from half open after a probe that failed."""
        return Breaker(BreakerState.OPEN, self.openings + 1, reason, open_until=until)

    def probing(self, token: str, *, until: float) -> Breaker:
        return replace(self, state=BreakerState.HALF_OPEN, probe_token=token, probe_until=until)

    def without_probe(self, now: float) -> Breaker:
        """The probe ended without telling anything: the next caller may try at once."""
        return replace(self, probe_token=None, probe_until=now)

    def shifted(self, seconds: float) -> Breaker:
        """The same breaker on a clock that is that far ahead."""
        return replace(self, open_until=self.open_until + seconds, probe_until=self.probe_until + seconds)


CLOSED = Breaker()


@dataclass(slots=True)
class _Slice:
    number: int
    calls: int = 0
    failures: int = 0


SLICES = 10
"""The window moves in tenths, so that memory is bounded however many calls there are."""


class RecentCalls:
    """What became of the latest calls, and whether that is reason enough to open."""

    def __init__(self, policy: BreakerPolicy) -> None:
        self._policy = policy
        self._slices: deque[_Slice] = deque(maxlen=SLICES)
        self._in_a_row = 0

    def succeeded(self, now: float) -> None:
        self._in_a_row = 0
        self._slice(now).calls += 1

    def failed(self, now: float) -> str | None:
        """Why the breaker has to open, or None while it need not."""
        self._in_a_row += 1
        current = self._slice(now)
        current.calls += 1
        current.failures += 1
        calls = sum(each.calls for each in self._slices)
        failures = sum(each.failures for each in self._slices)
        if self._in_a_row >= self._policy.failures_in_a_row:
            return f"{self._in_a_row} failures in a row"
        if calls >= self._policy.minimum_calls and failures * 100 >= self._policy.failure_percent * calls:
            return f"{failures} of the last {calls} calls failed"
        return None

    def forget(self) -> None:
        self._slices.clear()
        self._in_a_row = 0

    def _slice(self, now: float) -> _Slice:
        number = math.floor(now * SLICES / self._policy.window_seconds)
        while self._slices and self._slices[0].number <= number - SLICES:
            self._slices.popleft()
        if not self._slices or self._slices[-1].number != number:
            self._slices.append(_Slice(number))
        return self._slices[-1]
