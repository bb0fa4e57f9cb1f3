"""Fakes of the clock and randomness ports: virtual time, and chance that a seed repeats."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from datetime import UTC, datetime, timedelta

import httpx

from shared.ids import TimeOrderedIds
from shared.ports import Ports

A_MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class FakeClock:
    """Virtual time. A sleeper waits until a test moves the time past its end, so a test decides what is due.

    With ``auto_advance=True`` a sleep moves the time itself and returns at once: for retries and back-off, where only
    the sum of the waits matters. Not for endless background loops, which would then never pause.
    """

    def __init__(self, now: datetime = A_MOMENT, *, auto_advance: bool = False) -> None:
        self._now = now
        self._monotonic = 1000.0
        self._auto_advance = auto_advance
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()
        self.sleeps: list[float] = []
        """Every wait asked for, in order, in seconds."""

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    async def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        if self._auto_advance or seconds <= 0:
            self.move(max(seconds, 0))
            await asyncio.sleep(0)
            return
        wake_up: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._monotonic + seconds, next(self._order), wake_up))
        await wake_up

    @property
    def sleeper_count(self) -> int:
        """How many tasks sleep now; wait for it with ``until`` before advancing past a task that starts up."""
        return sum(1 for _, _, wake_up in self._sleepers if not wake_up.done())

    def move(self, seconds: float) -> None:
        """Let time pass without giving anybody a turn."""
        self._now += timedelta(seconds=seconds)
        self._monotonic += seconds

    def step_wall_clock(self, seconds: float) -> None:
        """What NTP or a person does: the wall clock jumps, either way, and intervals do not notice."""
        self._now += timedelta(seconds=seconds)

    async def advance(self, seconds: float) -> None:
        """Let time pass, stopping at each sleeper's end so that what it does happens at its own moment."""
        target = self._monotonic + seconds
        await _settle()
        while self._sleepers and self._sleepers[0][0] <= target:
            due, _, wake_up = heapq.heappop(self._sleepers)
            if wake_up.done():
                continue  # its task was cancelled
            self.move(max(due - self._monotonic, 0))
            wake_up.set_result(None)
            await _settle()
        self.move(target - self._monotonic)
        await _settle()


class SeededRandomness:
    """Repeatable chance; never for anything secret."""

    def __init__(self, seed: int = 1) -> None:
        self._random = random.Random(seed)

    def token_bytes(self, count: int) -> bytes:
        return self._random.randbytes(count)

    def uniform(self, low: float, high: float) -> float:
        return self._random.uniform(low, high)


def fake_ports(
    *,
    seed: int = 1,
    clock: FakeClock | None = None,
    http_transport: httpx.AsyncBaseTransport | None = None,
) -> Ports:
    """Ports over virtual time and a seed; pass a clock to keep hold of it."""
    clock, randomness = clock or FakeClock(), SeededRandomness(seed)
    return Ports(
        clock=clock,
        ids=TimeOrderedIds(clock, randomness),
        randomness=randomness,
        http_transport=http_transport,
    )


async def _settle() -> None:
    """Give every ready task some turns; what waits for a socket is waited for with ``until`` instead."""
    for _ in range(10):
        await asyncio.sleep(0)
