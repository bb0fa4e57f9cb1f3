"""Breakers over virtual time: the shared rows in memory, and a gateway that does as it is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from services.payment_service.domain.breaker import (
    CLOSED,
    Admission,
    Breaker,
    BreakerPolicy,
    BreakerState,
    OperationClass,
)
from services.payment_service.gateways.guarded import GuardedAdapter
from services.payment_service.gateways.port import Facts
from services.payment_service.use_cases.breakers import BreakerHealth, BreakerKey, Breakers
from shared.errors import DatabaseUnavailable
from shared.ports import Ports
from tests.support.clock import FakeClock, fake_ports

FACTS = Facts("generic", "Card", frozenset(), None)


@dataclass
class MemoryStore:
    """What db/breakers.py promises, by the steps of domain/breaker.py; ``queries`` counts what was asked."""

    clock: FakeClock
    rows: dict[BreakerKey, Breaker] = field(default_factory=dict)
    queries: list[str] = field(default_factory=list)
    is_down: bool = False

    async def load(self) -> Mapping[BreakerKey, Breaker]:
        self._ask("load")
        return {key: row.shifted(-self.clock.monotonic()) for key, row in self.rows.items()}

    async def open(self, key: BreakerKey, *, openings: int, reason: str, seconds: float) -> Breaker:
        self._ask("open")
        if self._row(key).state is BreakerState.CLOSED:
            until = self.clock.monotonic() + seconds
            self.rows[key] = Breaker(BreakerState.OPEN, openings, reason, open_until=until)
        return self._read(key)

    async def take_probe(self, key: BreakerKey, *, token: str, seconds: float) -> Breaker:
        self._ask("take_probe")
        now = self.clock.monotonic()
        if self._row(key).admission(now) is Admission.PROBE:
            self.rows[key] = self._row(key).probing(token, until=now + seconds)
        return self._read(key)

    async def close(self, key: BreakerKey, *, token: str) -> Breaker:
        self._ask("close")
        if self._row(key).probe_token == token:
            self.rows[key] = CLOSED
        return self._read(key)

    async def reopen(self, key: BreakerKey, *, token: str, reason: str, seconds: float) -> Breaker:
        self._ask("reopen")
        if self._row(key).probe_token == token:
            self.rows[key] = self._row(key).opened(reason, until=self.clock.monotonic() + seconds)
        return self._read(key)

    async def give_back(self, key: BreakerKey, *, token: str) -> Breaker:
        self._ask("give_back")
        if self._row(key).probe_token == token:
            self.rows[key] = self._row(key).without_probe(self.clock.monotonic())
        return self._read(key)

    def _ask(self, query: str) -> None:
        self.queries.append(query)
        if self.is_down:
            raise DatabaseUnavailable

    def _row(self, key: BreakerKey) -> Breaker:
        return self.rows.get(key, CLOSED)

    def _read(self, key: BreakerKey) -> Breaker:
        return self._row(key).shifted(-self.clock.monotonic())


@dataclass
class ObedientAdapter:
    """Every call answers, raises or does what ``does`` says; ``calls`` are those that reached it."""

    does: Any = None
    calls: list[str] = field(default_factory=list)
    facts: Facts = FACTS

    def __getattr__(self, name: str) -> Any:
        async def called(*_arguments: Any, **_named: Any) -> Any:
            self.calls.append(name)
            if isinstance(self.does, Exception):
                raise self.does
            return await self.does() if callable(self.does) else self.does

        return called


@dataclass
class Replica:
    """One process: its breakers, and the gateway that all replicas call."""

    breakers: Breakers
    adapter: ObedientAdapter
    guarded: GuardedAdapter
    clock: FakeClock
    store: MemoryStore

    async def refund(self) -> Any:
        call: Any = None  # nobody looks at it here
        return await self.guarded.refund(call)

    async def attempts(self, count: int, error: Exception) -> None:
        self.adapter.does = error
        for _ in range(count):
            try:
                await self.refund()
            except type(error):
                continue
        self.adapter.does = None

    def seen(self, operation_class: OperationClass = OperationClass.MONEY) -> BreakerHealth:
        return self.breakers.health("generic")[operation_class]


def a_replica(beside: Replica | None = None, *, seed: int = 1, **policy: Any) -> Replica:
    """Another one on the same rows and gateway, where ``beside`` is given."""
    clock = beside.clock if beside else FakeClock()
    store = beside.store if beside else MemoryStore(clock)
    adapter = beside.adapter if beside else ObedientAdapter()
    ports: Ports = fake_ports(seed=seed, clock=clock)
    breakers = Breakers(store, BreakerPolicy(**policy), ports)
    return Replica(breakers, adapter, GuardedAdapter(adapter, "generic", breakers), clock, store)
