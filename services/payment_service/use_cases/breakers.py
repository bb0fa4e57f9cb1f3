"""The circuit breakers of the gateways: each replica counts in memory, and all agree through the database.

A closed breaker costs no query. When a replica has seen too many failures it opens the shared row; the others hear of
it by a hint, by a look every few seconds, and every second while anything is open. After the cool-down exactly one
caller over all replicas may try (a lease in that row, by the database's clock); its success closes the breaker for
everybody, its failure opens it again for longer. Only a caller's own call is ever the probe, and that is why there is
none of our own: what is harmless to ask differs from gateway to gateway, and an answer to a question says little about
opening a page. So that recovery does not depend on it, a breaker whose cool-down is over counts as available, and the
next shopper, sweep or refund finds out (every money call carries a key, so it may be a probe as well).

Without our own database a replica goes on by what it remembers: no call is held up or refused for that.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, TypeVar

import structlog

from services.payment_service.domain.breaker import (
    CLOSED,
    Admission,
    Breaker,
    BreakerPolicy,
    BreakerState,
    OperationClass,
    RecentCalls,
)
from services.payment_service.gateways.port import KeyUsedUp
from shared.errors import (
    DatabaseUnavailable,
    GatewayCallsExhausted,
    GatewayError,
    GatewayOutcomeUnknown,
    GatewayRateLimited,
    GatewayServerError,
    GatewayUnavailable,
    PayrailError,
)
from shared.metrics import GATEWAY_BREAKER_STATE, GATEWAY_CALLS, GATEWAY_SECONDS
from shared.periodic import Periodic
from shared.ports import Ports

log = structlog.get_logger()

BREAKERS_CHANNEL = "breakers"
"""Tells the other replicas that a breaker has changed."""

LOOK_SECONDS = 1.0
"""How old a replica's picture may be while a breaker is not closed."""
IDLE_LOOK_SECONDS = 5.0
"""How late it may learn of an opening, should the hint be lost: until then it only counts its own failures."""
STORE_PATIENCE_SECONDS = 0.5
"""How long a call waits for our database before it goes on by what this replica remembers."""
SLOW_SECONDS = 3.0
"""A caller that gave up after this long was let down by the gateway; one that left sooner says nothing about it."""
WAIT_DURING_PROBE_SECONDS = 2
"""What to tell a caller while another one finds out whether the gateway is back."""
LEAST_JITTER = 0.8

_GAUGE = {BreakerState.CLOSED: 0, BreakerState.HALF_OPEN: 1, BreakerState.OPEN: 2}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BreakerKey:
    gateway: str
    operation_class: OperationClass


class BreakerStore(Protocol):
    """The shared rows. In the breakers that it returns, times count from the moment of reading, which is 0.

    Every method is one transaction, in which a changed state is announced as well. Raises DatabaseUnavailable.
    """

    async def load(self) -> Mapping[BreakerKey, Breaker]: ...

    async def open(self, key: BreakerKey, *, openings: int, reason: str, seconds: float) -> Breaker:
        """Opens it if it is closed; returns what is there afterwards, which may be somebody else's opening."""
        ...

    async def take_probe(self, key: BreakerKey, *, token: str, seconds: float) -> Breaker:
        """Take the right to try; the caller has it if the breaker comes back with its token."""
        ...

    async def close(self, key: BreakerKey, *, token: str) -> Breaker:
        """The probe succeeded. Does nothing where the lease has passed on."""
        ...

    async def reopen(self, key: BreakerKey, *, token: str, reason: str, seconds: float) -> Breaker:
        """The probe failed. Does nothing where the lease has passed on."""
        ...

    async def give_back(self, key: BreakerKey, *, token: str) -> Breaker:
        """The probe ended without telling anything."""
        ...


class Verdict(StrEnum):
    """What the end of a call says about the gateway's health."""

    HEALTHY = "healthy"
    FAILED = "failed"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class BreakerHealth:
    """``retry_after_seconds`` until the next try, while open."""

    state: BreakerState
    retry_after_seconds: int | None
    reason: str | None


@dataclass(slots=True)
class _Kept:
    """This replica's picture of one breaker. ``version`` grows with each change of its own, so that what was read
    before it is not taken for news. The database has not heard yet of an opening while ``is_stored`` is False, nor of
    the success of the probe ``closing``. ``own_probe`` is the token of a probe that runs here: until it ends, or its
    lease does, nothing that is read is newer than it."""

    calls: RecentCalls
    breaker: Breaker = CLOSED
    version: int = 0
    is_stored: bool = True
    closing: str | None = None
    own_probe: str | None = None
    throttled_until: float = 0.0


class Breakers:
    """Let calls through, or refuse them at once with GatewayUnavailable, and learn from how they end."""

    def __init__(self, store: BreakerStore, policy: BreakerPolicy, ports: Ports) -> None:
        self._store = store
        self._policy = policy
        self._ports = ports
        self._kept: dict[BreakerKey, _Kept] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._looked_at = -math.inf
        self._is_hinted = False
        self._looking = asyncio.Lock()
        self._periodic = Periodic("breakers", self._round, interval_seconds=LOOK_SECONDS, ports=ports)

    def watch_over(self, gateway: str) -> None:
        for operation_class in OperationClass:
            self._kept[key := BreakerKey(gateway, operation_class)] = _Kept(RecentCalls(self._policy))
            self._show(key)

    async def run(self) -> None:
        """Follows the shared rows until cancelled."""
        await self._periodic.run()

    def wake(self, _payload: str = "") -> None:
        """Another process has changed a breaker."""
        self._is_hinted = True
        self._periodic.wake()

    async def close(self) -> None:
        """Lets what is being written end, briefly."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=1)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=1)  # else their connections come back to a pool that is closed

    def health(self, gateway: str) -> Mapping[OperationClass, BreakerHealth]:
        self._look_if_open()
        return {each: self._health(BreakerKey(gateway, each)) for each in OperationClass}

    def require_available(self, gateway: str, operation_class: OperationClass) -> None:
        """Raises GatewayUnavailable where a call would be refused now: ask before writing a row (failure PY16)."""
        kept = self._kept[BreakerKey(gateway, operation_class)]
        now = self._ports.clock.monotonic()
        _refuse_if_throttled(kept, now)
        if kept.breaker.state is not BreakerState.CLOSED:
            self._look_if_open()
            if kept.breaker.admission(now) is Admission.REFUSED:
                raise _refusal(kept.breaker, now)

    async def call(
        self, gateway: str, operation_class: OperationClass, operation: str, send: Callable[[], Awaitable[T]]
    ) -> T:
        """Send it if the breaker lets it through; while that is open, nothing is sent and no query is made.

        Raises GatewayUnavailable with what remains of the cool-down, or what ``send`` raises.
        """
        key = BreakerKey(gateway, operation_class)
        try:
            token = await self._admit(key)
        except GatewayUnavailable:
            GATEWAY_CALLS.labels(gateway, operation, "refused_by_us").inc()
            raise
        started = self._ports.clock.monotonic()
        try:
            answer = await send()
        except asyncio.CancelledError as gone:
            self._learn(key, token, gone, started)
            _count(key, operation, "abandoned", self._ports.clock.monotonic() - started)
            raise
        except Exception as error:
            _count(key, operation, _result_of(error), self._ports.clock.monotonic() - started)
            await self._soon(self._learn(key, token, error, started))
            raise
        _count(key, operation, "ok", self._ports.clock.monotonic() - started)
        await self._soon(self._learn(key, token, None, started))
        return answer

    async def refresh(self) -> None:
        """Take over what the shared rows say. Raises DatabaseUnavailable.

        One at a time, or what an earlier one has read could make the later one's news look old.
        """
        async with self._looking:
            await self._refresh()

    async def _refresh(self) -> None:
        self._looked_at, self._is_hinted = self._ports.clock.monotonic(), False
        for key, kept in self._kept.items():
            if kept.closing is not None:
                await self._store_closing(key, kept.closing)
            if not kept.is_stored and kept.breaker.open_until > self._ports.clock.monotonic():
                await self._store_opening(key)
        versions = {key: kept.version for key, kept in self._kept.items()}
        found = await self._store.load()
        for key, version in versions.items():
            self._adopt(key, found.get(key, CLOSED), version=version)

    async def _round(self) -> bool:
        age = self._ports.clock.monotonic() - self._looked_at
        if self._is_hinted or self._is_any_open() or age >= IDLE_LOOK_SECONDS:
            await self.refresh()
        for key in self._kept:
            self._show(key)
        return False

    def _look_if_open(self) -> None:
        """Look again in the background, at most every second: nobody waits for it."""
        now = self._ports.clock.monotonic()
        if self._is_any_open() and now - self._looked_at >= LOOK_SECONDS and not self._looking.locked():
            self._looked_at = now
            self._start(self.refresh())

    async def _admit(self, key: BreakerKey) -> str | None:
        """None for an ordinary call, the probe's token for the one that finds out."""
        kept, now = self._kept[key], self._ports.clock.monotonic()
        _refuse_if_throttled(kept, now)
        if kept.breaker.state is BreakerState.CLOSED:
            return None
        self._look_if_open()
        if kept.breaker.admission(now) is Admission.REFUSED:
            raise _refusal(kept.breaker, now)
        token = kept.own_probe = self._ports.ids.new("prb")
        # At once, so that the other callers of this replica do not even ask the database.
        self._change(key, kept.breaker.probing(token, until=now + self._policy.probe_seconds))
        return await self._take_probe(key, token) if kept.is_stored else token

    async def _take_probe(self, key: BreakerKey, token: str) -> str | None:
        kept = self._kept[key]
        taking = self._start(self._store.take_probe(key, token=token, seconds=self._policy.probe_seconds))
        try:
            stored = await self._soon(taking)
        except asyncio.CancelledError:
            kept.own_probe = None
            self._change(key, kept.breaker.without_probe(self._ports.clock.monotonic()))
            self._start(self._give_back_after(taking, key, token))
            raise
        if stored is None:
            return token  # our database does not answer: this replica alone decides
        if stored.probe_token == token:
            return token
        kept.own_probe = None
        self._adopt(key, stored)
        now = self._ports.clock.monotonic()
        if kept.breaker.state is BreakerState.CLOSED:
            return None  # another replica has found the gateway well
        raise _refusal(kept.breaker, now)

    async def _give_back_after(self, taking: asyncio.Task[Any], key: BreakerKey, token: str) -> None:
        await asyncio.wait({taking})
        await self._store.give_back(key, token=token)

    def _learn(
        self, key: BreakerKey, token: str | None, error: BaseException | None, started: float
    ) -> asyncio.Task[Any] | None:
        """Draw the conclusions in memory at once; what the database has to be told is under way when this returns."""
        kept, now = self._kept[key], self._ports.clock.monotonic()
        if isinstance(error, GatewayRateLimited) and error.retry_after_seconds:
            kept.throttled_until = max(kept.throttled_until, now + error.retry_after_seconds)
        verdict = _verdict(error, now - started)
        if token is not None:
            return self._learn_from_probe(key, token, verdict, error)
        if kept.breaker.state is not BreakerState.CLOSED or verdict is Verdict.NOTHING:
            return None  # sent before it opened: only the probe decides now
        if verdict is Verdict.HEALTHY:
            kept.calls.succeeded(now)
            return None
        why = kept.calls.failed(now)
        return self._open(key, why, error) if why else None

    def _open(self, key: BreakerKey, why: str, error: BaseException | None) -> asyncio.Task[Any]:
        kept = self._kept[key]
        self._change(key, kept.breaker.opened(why, until=self._until(kept.breaker.openings + 1)))
        kept.is_stored = False
        log.warning(
            "gateway_breaker_opened",
            gateway=key.gateway,
            operation_class=key.operation_class.value,
            reason=why,
            last_failure=str(error) if isinstance(error, PayrailError) else "the caller gave up",
        )
        return self._start(self._store_opening(key))

    async def _store_opening(self, key: BreakerKey) -> None:
        kept = self._kept[key]
        opened, version = kept.breaker, kept.version
        left = opened.open_until - self._ports.clock.monotonic()
        stored = await self._store.open(
            key, openings=opened.openings, reason=opened.reason or "", seconds=max(left, 0.0)
        )
        if kept.version == version:
            kept.is_stored = True
            self._adopt(key, stored, version=version)

    async def _store_closing(self, key: BreakerKey, token: str) -> None:
        await self._store.close(key, token=token)
        if self._kept[key].closing == token:
            self._kept[key].closing = None

    def _learn_from_probe(
        self, key: BreakerKey, token: str, verdict: Verdict, error: BaseException | None
    ) -> asyncio.Task[Any] | None:
        kept = self._kept[key]
        kept.own_probe = None if kept.own_probe == token else kept.own_probe
        if kept.breaker.probe_token != token:
            return None  # it outlasted its lease: somebody newer finds out, or has found out
        if isinstance(error, GatewayRateLimited):
            verdict = Verdict.HEALTHY  # it is there, and it says so
        match verdict:
            case Verdict.HEALTHY:
                self._change(key, CLOSED)
                log.info("gateway_breaker_closed", gateway=key.gateway, operation_class=key.operation_class.value)
                if kept.is_stored:
                    kept.closing = token
                    return self._start(self._store_closing(key, token))
                kept.is_stored = True  # nobody else ever heard that it was open
                return None
            case Verdict.FAILED:
                return self._reopen(key, token)
            case Verdict.NOTHING:
                self._change(key, kept.breaker.without_probe(self._ports.clock.monotonic()))
                return self._start(self._store.give_back(key, token=token)) if kept.is_stored else None

    def _reopen(self, key: BreakerKey, token: str) -> asyncio.Task[Any]:
        kept = self._kept[key]
        openings, why = kept.breaker.openings + 1, "still failing when tried again"
        until = self._until(openings)
        self._change(key, kept.breaker.opened(why, until=until))
        log.warning(
            "gateway_breaker_stays_open",
            gateway=key.gateway,
            operation_class=key.operation_class.value,
            openings=openings,
        )
        if not kept.is_stored:
            return self._start(self._store_opening(key))
        left = until - self._ports.clock.monotonic()
        return self._start(self._store.reopen(key, token=token, reason=why, seconds=left))

    def _until(self, openings: int) -> float:
        jitter = self._ports.randomness.uniform(LEAST_JITTER, 1.0)
        return self._ports.clock.monotonic() + self._policy.cool_down(openings, jitter)

    def _change(self, key: BreakerKey, breaker: Breaker) -> None:
        kept = self._kept[key]
        if breaker.state is not kept.breaker.state:
            kept.calls.forget()
        kept.breaker = breaker
        kept.version += 1
        self._show(key)

    def _adopt(self, key: BreakerKey, stored: Breaker, *, version: int | None = None) -> None:
        kept, now = self._kept[key], self._ports.clock.monotonic()
        finds_out = kept.own_probe is not None and now < kept.breaker.probe_until
        if kept.is_stored and not finds_out and (version is None or version == kept.version):
            here = stored.shifted(now)
            # Where both are closed there is no news, and no reason to forget or to overtake anything.
            if here.state is not BreakerState.CLOSED or kept.breaker.state is not BreakerState.CLOSED:
                self._change(key, here)

    def _is_any_open(self) -> bool:
        return any(kept.breaker.state is not BreakerState.CLOSED for kept in self._kept.values())

    def _health(self, key: BreakerKey) -> BreakerHealth:
        breaker, now = self._kept[key].breaker, self._ports.clock.monotonic()
        state = breaker.seen_at(now)
        wait = max(1, math.ceil(breaker.open_until - now)) if state is BreakerState.OPEN else None
        return BreakerHealth(state, wait, breaker.reason)

    def _show(self, key: BreakerKey) -> None:
        state = self._kept[key].breaker.seen_at(self._ports.clock.monotonic())
        GATEWAY_BREAKER_STATE.labels(key.gateway, key.operation_class.value).set(_GAUGE[state])

    def _start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T | None]:
        """A task of its own, so that neither a slow database nor a caller that leaves decides what is written."""
        task = asyncio.create_task(_unless_the_database_is_away(work), name="breakers")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("breaker_task_failed", exc_info=task.exception())

    async def _soon(self, task: asyncio.Task[T | None] | None) -> T | None:
        """Its result, or None where it does not come soon; it is never cancelled."""
        if task is None:
            return None
        done, _ = await asyncio.wait({task}, timeout=STORE_PATIENCE_SECONDS)
        return task.result() if done else None


async def _unless_the_database_is_away(work: Coroutine[Any, Any, T]) -> T | None:
    try:
        return await work
    except DatabaseUnavailable:
        log.warning("breaker_not_stored")
        return None


def _verdict(error: BaseException | None, seconds: float) -> Verdict:
    match error:
        case None:
            return Verdict.HEALTHY
        case GatewayRateLimited():  # has a throttle of its own (failure H7)
            return Verdict.NOTHING
        case GatewayCallsExhausted():  # our own connections are all busy: the gateway was not even asked (failure H15)
            return Verdict.NOTHING
        case KeyUsedUp():  # the look that has shown it was answered
            return Verdict.HEALTHY
        case GatewayServerError(is_replay=True):  # an old failure, kept under our key
            return Verdict.NOTHING
        case GatewayUnavailable() | GatewayOutcomeUnknown():  # a refused API key is among these (failure H9)
            return Verdict.FAILED
        case GatewayError():  # refused, or not known there: an answer
            return Verdict.HEALTHY
        case asyncio.CancelledError():
            return Verdict.FAILED if seconds >= SLOW_SECONDS else Verdict.NOTHING
        case _:
            return Verdict.NOTHING  # our own affair


def _result_of(error: Exception) -> str:
    if isinstance(error, GatewayRateLimited):
        return "rate_limited"
    return error.code if isinstance(error, GatewayError) else "error"


def _count(key: BreakerKey, operation: str, result: str, seconds: float) -> None:
    GATEWAY_CALLS.labels(key.gateway, operation, result).inc()
    GATEWAY_SECONDS.labels(key.gateway, operation).observe(seconds)


def _refuse_if_throttled(kept: _Kept, now: float) -> None:
    if now < kept.throttled_until:
        raise GatewayRateLimited(retry_after_seconds=math.ceil(kept.throttled_until - now))


def _refusal(breaker: Breaker, now: float) -> GatewayUnavailable:
    if breaker.state is BreakerState.OPEN:
        return GatewayUnavailable(
            "the gateway has been failing and is not called until its cool-down is over; nothing moved",
            retry_after_seconds=max(1, math.ceil(breaker.open_until - now)),
        )
    return GatewayUnavailable(
        "the gateway has been failing and is being tried again by another call; nothing moved",
        retry_after_seconds=WAIT_DURING_PROBE_SECONDS,
    )
