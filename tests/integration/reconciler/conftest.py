"""The reconciler over a real PostgreSQL; only payment_service and the clock are fakes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from services.reconciler.bootstrap import Container, build
from services.reconciler.main import create_application
from services.reconciler.settings import ReconcilerSettings
from shared.contracts.envelope import EventEnvelope
from shared.contracts.topology import RECONCILER_PAYMENTS
from shared.ids import TimeOrderedIds
from shared.messaging.bus import BusMessage
from shared.messaging.in_process import InProcessBus
from shared.ports import Ports
from shared.web.auth import build_signer
from tests.integration.reconciler.fakes import FakePaymentService
from tests.support.clock import FakeClock, SeededRandomness
from tests.support.postgres import ServiceDatabase

JWT_KEY = "a-development-key-of-more-than-32-bytes"


class World:
    """One replica of the reconciler; another one built on the same database is a replica."""

    def __init__(self, container: Container, payments: FakePaymentService, clock: FakeClock) -> None:
        self.container = container
        self.payments = payments
        self.clock = clock
        transport = httpx.ASGITransport(app=create_application(container))
        self.http = httpx.AsyncClient(transport=transport, base_url="http://reconciler.test")

    def token(self, scopes: str, *, subject: str = "operator") -> dict[str, str]:
        signer = build_signer(self.container.settings, ports=self.container.ports)
        return {"Authorization": f"Bearer {signer.sign(subject=subject, audience='reconciler', scopes=scopes)}"}

    async def hears_of(self, payment_id: str, event: EventEnvelope | None = None) -> None:
        """The payment's event arrives, as the bus would bring it."""
        envelope = event or self.payments.event(payment_id)
        assert envelope.type in RECONCILER_PAYMENTS.types
        message = BusMessage(envelope.id, envelope.type, envelope.subject, envelope.to_json())
        await self.container.bus.publish(message)

    async def watches(self, **changes: Any) -> str:
        """A payment that payment_service opened and announced."""
        payment_id = self.payments.opens(**changes)
        await self.hears_of(payment_id)
        return payment_id

    async def sweeps(self, *, after_seconds: float = 0) -> None:
        self.clock.move(after_seconds)
        await self.container.sweeper.round()

    async def rows(self, sql: str, **values: Any) -> list[dict[str, Any]]:
        async with self.container.database.begin() as connection:
            return [dict(row) for row in (await connection.execute(text(sql), values)).mappings()]

    async def execute(self, sql: str, **values: Any) -> None:
        async with self.container.database.begin() as connection:
            await connection.execute(text(sql), values)

    async def watched(self, payment_id: str) -> dict[str, Any]:
        rows = await self.rows("SELECT * FROM watched_payments WHERE payment_id = :id", id=payment_id)
        assert rows, "the payment is not watched"
        return rows[0]

    async def runs(self) -> list[dict[str, Any]]:
        return await self.rows("SELECT * FROM reconciliation_runs ORDER BY run_id")

    async def events(self) -> list[str]:
        return [row["type"] for row in await self.rows("SELECT type FROM outbox_messages ORDER BY position")]

    async def lets_the_lease_run_out(self) -> None:
        await self.execute("UPDATE leases SET expires_at = now() - interval '1 second'")


BuildWorld = Callable[..., Awaitable[World]]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def payments(clock: FakeClock) -> FakePaymentService:
    return FakePaymentService(clock, TimeOrderedIds(clock, SeededRandomness(7)))


@pytest.fixture
async def build_world(
    service_database: ServiceDatabase, clock: FakeClock, payments: FakePaymentService
) -> AsyncIterator[BuildWorld]:
    """``await build_world(sweep_calls_per_gateway=5)``; a second call is a replica on the same database."""
    async with AsyncExitStack() as stack:
        url = service_database("reconciler")
        seeds = iter(range(1, 100))

        async def build_one(**settings: Any) -> World:
            randomness = SeededRandomness(next(seeds))
            ports = Ports(clock, TimeOrderedIds(clock, randomness), randomness, http_transport=payments)
            values: dict[str, Any] = {
                "environment": "development",
                "database_url": url,
                "jwt_shared_key": JWT_KEY,
                "payment_service_url": "http://payments.test",
                "orders_run_interval_seconds": 0,  # a test asks for its runs
                "settlement_run_interval_seconds": 0,
                "settlement_report_days": 0,
            }
            loaded = ReconcilerSettings.load(**(values | settings))
            container = await stack.enter_async_context(build(loaded, ports=ports, bus=InProcessBus(clock)))
            world = World(container, payments, clock)
            stack.push_async_callback(world.http.aclose)
            return world

        yield build_one


@pytest.fixture
async def world(build_world: BuildWorld) -> World:
    return await build_world()
