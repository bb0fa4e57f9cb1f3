"""webhook_ingest is killed between each two steps of making a delivery durable (W17).

Nothing that was answered 200 is missing, and nothing is there twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.webhook_ingest.bootstrap import build
from services.webhook_ingest.db.spool import Spool
from services.webhook_ingest.main import create_application
from services.webhook_ingest.signatures.providers import GENERIC
from services.webhook_ingest.signatures.schemes import HmacScheme, sign
from shared.db.session import Database
from shared.messaging.in_process import InProcessBus
from tests.integration.webhook_ingest.conftest import JWT_KEY, WEBHOOK_SECRET, Ingest, settings_for_test
from tests.integration.webhook_ingest.crashing_service import EXIT_CODE
from tests.support.clock import A_MOMENT, FakeClock, fake_ports
from tests.support.ports import free_port
from tests.support.postgres import ServiceDatabase
from tests.support.waiting import until
from tests.unit.webhook_ingest.builders import a_row

BODY = b'{"event_id":"e1","payment_id":"p1","status":"completed"}'
NOBODY = "postgresql://nobody@127.0.0.1:{port}/nowhere"

pytestmark = pytest.mark.chaos


@dataclass
class World:
    """A database and a spool that outlive processes."""

    database_url: str
    spool: Path

    @contextlib.contextmanager
    def service(self, step: str, *, database_url: str | None = None) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
        port = free_port()
        environment = {
            **os.environ,
            "DATABASE_URL": database_url or self.database_url,
            "PAYRAIL_ENVIRONMENT": "development",
            "JWT_SHARED_KEY": JWT_KEY,
            "WEBHOOK_SECRET": WEBHOOK_SECRET,
            "WEBHOOK_SPOOL_DIRECTORY": str(self.spool),
            "LOG_LEVEL": "error",
        }
        command = [sys.executable, "-m", "tests.integration.webhook_ingest.crashing_service", str(port), step]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        try:
            yield process, f"http://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()

    async def restarted(self) -> tuple[dict[str, Any], int, int]:
        """The answer to the gateway's repetition, and how many deliveries and events there are in the end."""
        async with self._ingest() as ingest:
            assert ingest.container.drain is not None
            await ingest.container.drain.round()
            answer = await ingest.post_generic(BODY)
            assert answer.status_code == 200
            assert [path.name for path in self.spool.iterdir() if path.suffix == ".spool"] == []
            return answer.json(), await ingest.count("webhook_deliveries"), await ingest.count("outbox_messages")

    @asynccontextmanager
    async def _ingest(self) -> AsyncIterator[Ingest]:
        clock = FakeClock()
        ports = fake_ports(clock=clock, seed=5)
        settings = settings_for_test(self.database_url, webhook_spool_directory=self.spool)
        async with build(settings, ports=ports, bus=InProcessBus(clock)) as container:
            transport = httpx.ASGITransport(app=create_application(container))
            async with httpx.AsyncClient(transport=transport, base_url="http://ingest.test") as client:
                yield Ingest(container, client, clock, ports)

    def lose_power(self) -> None:
        """What was not synced is gone."""
        for segment in self.spool.glob("*.spool"):
            noted = segment.with_name(f"{segment.name}.synced")
            os.truncate(segment, int(noted.read_text()) if noted.exists() else 0)


@pytest.fixture
def world(service_database: ServiceDatabase, tmp_path: Path) -> World:
    return World(service_database("webhook_ingest"), tmp_path / "spool")


async def post(base: str) -> httpx.Response | None:
    """The answer, or None if the connection broke first. Waits for the process to listen."""
    headers = sign(HmacScheme(GENERIC), WEBHOOK_SECRET, BODY, A_MOMENT, "unused") | {"Content-Type": "application/json"}
    async with httpx.AsyncClient(base_url=base, timeout=20) as client:

        async def listens() -> bool:
            with contextlib.suppress(httpx.TransportError):
                return (await client.get("/healthz")).status_code == 200
            return False

        await until(listens, within_seconds=40, what="the service listening")
        try:
            return await client.post("/api/v1/webhooks/generic", content=BODY, headers=headers)
        except httpx.TransportError:
            return None


async def has_died(process: subprocess.Popen[bytes]) -> None:
    await until(lambda: process.poll() is not None, within_seconds=40, what="the crash")
    assert process.returncode == EXIT_CODE


@pytest.mark.parametrize(("step", "status"), [("before the statement", "accepted"), ("after the commit", "duplicate")])
async def test_killed_around_the_commit(world: World, step: str, status: str) -> None:
    with world.service(step) as (process, base):
        assert await post(base) is None
        await has_died(process)
    answer, deliveries, events = await world.restarted()
    assert (answer["status"], deliveries, events) == (status, 1, 1)


async def test_killed_while_the_server_executes_the_statement(world: World) -> None:
    database = Database(world.database_url, schema="webhook_ingest", application_name="blocker")
    with world.service("never") as (process, base):
        async with database.driver() as blocker:
            transaction = blocker.transaction()
            await transaction.start()
            await blocker.execute("LOCK TABLE webhook_deliveries IN SHARE MODE")
            delivering = asyncio.create_task(post(base))

            async def is_executing() -> bool:
                waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                async with database.driver() as observer:  # a transaction would see the same answer for ever
                    return bool(await observer.fetchval(waiting))

            await until(is_executing, within_seconds=40, what="the statement on the server")
            process.send_signal(signal.SIGKILL)
            assert await delivering is None
            await transaction.rollback()
    await database.dispose()
    _, deliveries, events = await world.restarted()
    assert (deliveries, events) == (1, 1)


@pytest.mark.parametrize("step", ["before the fsync", "after the fsync"])
async def test_killed_around_the_fsync_of_the_spool(world: World, step: str) -> None:
    with world.service(step, database_url=NOBODY.format(port=free_port())) as (process, base):
        assert await post(base) is None
        await has_died(process)
    world.lose_power()
    answer, deliveries, events = await world.restarted()
    status = "accepted" if step == "before the fsync" else "duplicate"
    assert (answer["status"], deliveries, events) == (status, 1, 1)


async def test_killed_after_the_answer_from_the_spool_and_the_power_fails_too(world: World) -> None:
    with world.service("never", database_url=NOBODY.format(port=free_port())) as (process, base):
        acknowledged = await post(base)
        assert acknowledged is not None
        process.send_signal(signal.SIGKILL)
    assert acknowledged.json()["status"] == "accepted"
    world.lose_power()
    answer, deliveries, events = await world.restarted()
    assert answer == {"status": "duplicate", "delivery_id": acknowledged.json()["delivery_id"]}
    assert (deliveries, events) == (1, 1)


async def test_killed_after_the_drain_has_inserted_and_before_the_segment_is_deleted(world: World) -> None:
    spool = Spool(world.spool, max_bytes=1 << 20, ports=fake_ports(seed=9))
    await spool.append([a_row("e1", gateway="generic"), a_row("e2")])
    await spool.close()
    with world.service("before the deletion") as (process, _):
        await has_died(process)
    assert list(world.spool.glob("*.spool")), "the segment is still there"
    answer, deliveries, events = await world.restarted()
    assert (answer["status"], deliveries, events) == ("duplicate", 2, 2)
