"""The rate limit of unverified traffic: failed deliveries per client address (SEC-45).

A verified delivery is never refused for it, so nobody behind the same address can shut a gateway out (W24).
"""

from __future__ import annotations

import ipaddress
import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

from limits import RateLimitItemPerMinute
from limits.aio.storage import Storage
from limits.aio.strategies import FixedWindowRateLimiter

from shared.clock import Clock

MAX_ADDRESSES = 50_000
"""Counters held in memory, about 10 MB; beyond it the oldest is forgotten."""


REJECTS_KEPT_PER_MINUTE = 1200
"""Of each gateway and process; a minute's worth fills the thousand places that there are."""


@dataclass(frozen=True)
class Allowance:
    limit: int
    remaining: int
    reset_seconds: int

    @property
    def is_used_up(self) -> bool:
        return self.remaining == 0

    @cached_property
    def raw_headers(self) -> tuple[tuple[bytes, bytes], ...]:
        values = {b"limit": self.limit, b"remaining": self.remaining, b"reset": self.reset_seconds}
        return tuple(
            (prefix + b"ratelimit-" + name, str(value).encode())
            for prefix in (b"", b"x-")
            for name, value in values.items()
        )

    @cached_property
    def lines(self) -> bytes:
        """The same headers as they are written."""
        return b"".join(name + b": " + value + b"\r\n" for name, value in self.raw_headers)


class FailureLimiter:
    """Counts in this process: replicas each allow the limit, which bounds the work all the same."""

    def __init__(self, per_minute: int, clock: Clock) -> None:
        self._clock = clock
        self._item = RateLimitItemPerMinute(per_minute)
        self._storage = _ClockedStorage(clock)
        self._limiter = FixedWindowRateLimiter(self._storage)
        self._untouched = Allowance(self._item.amount, self._item.amount, self._item.get_expiry())

    def untouched(self, address: str) -> Allowance | None:
        """The whole allowance of an address that has no failures, which is nearly every one that succeeds; None for one
        that may have some. A busy gateway costs a look into a dictionary here, and nothing is awaited."""
        if not self._storage.knows_any or not self._storage.knows(self._item.key_for(_known_bucket(address))):
            return self._untouched
        return None

    async def allowance(self, address: str) -> Allowance:
        stats = await self._limiter.get_window_stats(self._item, address_bucket(address))
        wait = max(0, math.ceil(stats.reset_time - self._clock.monotonic()))
        untouched = stats.remaining == self._item.amount
        return Allowance(self._item.amount, stats.remaining, self._item.get_expiry() if untouched else wait)

    async def count_failure(self, address: str) -> bool:
        """False when the address had used up its allowance before."""
        return await self._limiter.hit(self._item, address_bucket(address))


class RejectBudget:
    """How many copies of refused deliveries are kept: a flood from many addresses must not become a flood of writes."""

    def __init__(self, per_minute: int, clock: Clock) -> None:
        self._item = RateLimitItemPerMinute(per_minute)
        self._limiter = FixedWindowRateLimiter(_ClockedStorage(clock))

    async def take(self, gateway: str) -> bool:
        return await self._limiter.hit(self._item, gateway)


def address_bucket(address: str) -> str:
    """One counter per IPv4 address and per IPv6 /64: a single subscriber has 2^64 addresses of the latter (XS17)."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return "unknown"
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.IPv6Network((int(parsed) >> 64 << 64, 64)))
    return str(parsed)


_known_bucket = lru_cache(maxsize=4096)(address_bucket)


class _ClockedStorage(Storage):
    """The library's own in-memory storage reads the machine's clock and grows without bound; this one does neither."""

    STORAGE_SCHEME = ["async+payrail-memory"]  # noqa: RUF012 - the library declares it so

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self._windows: dict[str, tuple[int, float]] = {}

    @property
    def knows_any(self) -> bool:
        return bool(self._windows)

    def knows(self, key: str) -> bool:
        """Whether something was counted; perhaps in a window that has ended by now."""
        return key in self._windows

    @property
    def base_exceptions(self) -> type[Exception]:
        return OSError

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        count, ends_at = self._window(key) or (0, self._clock.monotonic() + expiry)
        if key not in self._windows and len(self._windows) >= MAX_ADDRESSES:
            del self._windows[next(iter(self._windows))]
        self._windows[key] = (count + amount, ends_at)
        return count + amount

    async def get(self, key: str) -> int:
        window = self._window(key)
        return window[0] if window else 0

    async def get_expiry(self, key: str) -> float:
        window = self._window(key)
        return window[1] if window else self._clock.monotonic()

    async def check(self) -> bool:
        return True

    async def reset(self) -> int:
        count = len(self._windows)
        self._windows.clear()
        return count

    async def clear(self, key: str) -> None:
        self._windows.pop(key, None)

    def _window(self, key: str) -> tuple[int, float] | None:
        window = self._windows.get(key)
        if window is not None and window[1] <= self._clock.monotonic():
            del self._windows[key]
            return None
        return window
