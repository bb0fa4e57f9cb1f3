"""The distributed stack as it is measured: on a disk, with fsync, quiet logs, and nothing that starts by itself."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import asyncpg
from sqlalchemy.engine import make_url

from deploy.local.postgres import EmbeddedPostgres, run_psql
from tests.e2e.stack import REPOSITORY, DistributedStack, Process, assert_running
from tests.support import directories
from tests.support.directories import throwaway_directory
from tests.support.guard import process_guard
from tests.support.ports import free_port
from tests.support.rabbitmq import LocalRabbitMQ
from tests.support.waiting import until, until_blocking

UNDISTURBED = {
    "LOG_LEVEL": "warning",
    "ORDER_RATE_PER_MINUTE": "1000000",
    "PAY_RATE_PER_MINUTE": "1000000",
    "EXPIRY_INTERVAL_SECONDS": "30",
    "SWEEP_INTERVAL_SECONDS": "60",
    "SWEEP_FIRST_CHECK_SECONDS": "3600",
}
SERVER = {
    "shared_buffers": "1GB",
    "effective_cache_size": "4GB",
    "maintenance_work_mem": "256MB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "30min",
    "track_commit_timestamp": "on",  # when something became visible, not when its transaction began
}
"""What ADR 0023 recommends for ten million webhooks; the embedded one is sized for a laptop. The peers' databases are
on the same server."""


@contextmanager
def on_disk() -> Iterator[None]:
    """Tests keep their servers' data in memory; a benchmark that did so would measure no commit."""
    with mock.patch.object(directories, "_IN_MEMORY", Path(tempfile.gettempdir()) / "no-such-directory"):
        yield


class DurablePostgres(EmbeddedPostgres):
    """On the disk, with fsync; gone with the run, even when that is killed."""

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        self.directory = throwaway_directory("payrail-bench-pg-")
        process_guard().remove_afterwards(self.directory)
        super().__init__(self.directory, fsync=True, settings={**SERVER, **(settings or {})})

    def start(self, *, within_seconds: float = 30) -> None:
        super().start(within_seconds=within_seconds)
        assert self.pid is not None
        process_guard().watch(str(self.directory), pid=self.pid, command_contains=str(self.directory))

    def remove(self) -> None:
        self.stop("immediate")
        process_guard().forget(str(self.directory))
        shutil.rmtree(self.directory, ignore_errors=True)

    def database_url(self, name: str) -> str:
        """Of a database that is made if it is not there."""
        self.ensure_database(name)
        return self.url(name)

    @property
    def root(self) -> list[int]:
        return [self.pid] if self.pid is not None else []


class BenchStack(DistributedStack):
    REPLICAS = ()

    def __init__(self, extra: Mapping[str, str] | None = None) -> None:
        super().__init__({**UNDISTURBED, **(extra or {})})
        self.postgres: DurablePostgres = DurablePostgres()  # type: ignore[assignment]

    def wait_worker(self, process: Process) -> None:
        assert_running(process)  # at this log level it does not say that it started; the first paid order does

    def query(self, service: str, sql: str) -> list[str]:
        return run_psql(self.postgres.url(service), sql).splitlines()

    @asynccontextmanager
    async def books(self, service: str) -> AsyncIterator[asyncpg.Connection]:
        async with connected(self.postgres.url(service), service) as connection:
            yield connection

    def roots(self, *names: str) -> list[int]:
        """The pids of those processes of the stack whose name begins so, for measuring."""
        return [
            process.pid for name, process in self.processes.items() if name.startswith(names) and process.is_running
        ]

    def cpu_groups(self) -> dict[str, list[int]]:
        broker = self.rabbitmq.pid if isinstance(self.rabbitmq, LocalRabbitMQ) else None
        return {
            "ingest": self.roots("serve-webhook-ingest"),
            "relay": self.roots("work-webhook-ingest"),
            "payment worker": self.roots("work-payment-service"),
            "order worker": self.roots("work-order-service"),
            "reconciler": self.roots("work-reconciler"),
            "PostgreSQL": self.postgres.root,
            "RabbitMQ": [broker] if broker else [],
        }

    def wait_drained(self, within_seconds: float = 300) -> None:
        """Until every delivery that was acknowledged has been published and applied."""
        waiting = "SELECT count(*) FROM webhook_ingest.outbox_messages WHERE published_at IS NULL"
        stored = "SELECT count(*) FROM webhook_ingest.outbox_messages"
        done = "SELECT count(*) FROM payment_service.inbox_messages WHERE status = 'done'"

        def drained() -> bool:
            return self.query("webhook_ingest", waiting) == ["0"] and (
                self.query("payment_service", done) == self.query("webhook_ingest", stored)
            )

        until_blocking(drained, within_seconds=within_seconds, what="every delivery being applied")


class IngestStack(BenchStack):
    """PostgreSQL and webhook_ingest's HTTP process, and nothing that would take the cores: it needs no broker to
    accept. The announcements stay in the outbox."""

    def __init__(self) -> None:
        super().__init__({"RABBITMQ_URL": "amqp://guest:guest@127.0.0.1:9/"})

    def start(self) -> None:
        self.postgres.start()
        self.postgres.ensure_database("webhook_ingest")
        self.run("migrate", "webhook-ingest")

    def serve(
        self, name: str, *, processes: int = 1, environment: Mapping[str, str] | None = None
    ) -> tuple[str, Process]:
        """One more HTTP process over the same database; its address, and what to measure."""
        port = free_port()
        several = ["--processes", str(processes)] if processes > 1 else []
        settings = {**self.environment(), "PORT": str(port), **(environment or {})}
        process = self.new_process(name, ["serve", "webhook-ingest", *several], settings)
        process.start()
        self.wait_ready(process, f"http://127.0.0.1:{port}")
        return f"http://127.0.0.1:{port}/api/v1/webhooks/generic", process

    def end(self, process: Process) -> None:
        process.terminate()
        del self.processes[process.name]


@cache
def serves_in_processes() -> bool:
    """Whether ``payrail serve`` knows more than one process."""
    help_text = subprocess.run(
        [sys.executable, "-m", "deploy.cli", "serve", "--help"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return "--processes" in help_text


@asynccontextmanager
async def connected(url: str, schema: str) -> AsyncIterator[asyncpg.Connection]:
    host = make_url(url).query.get("host")
    connection = await asyncpg.connect(url, server_settings={"search_path": schema}, host=host, command_timeout=600)
    try:
        yield connection
    finally:
        await connection.close()


async def until_value(
    connection: asyncpg.Connection, sql: str, expected: Any, *arguments: Any, within_seconds: float = 300, what: str
) -> None:
    """Until a query has one answer."""

    async def is_there() -> bool:
        return bool(await connection.fetchval(sql, *arguments) == expected)

    await until(is_there, within_seconds=within_seconds, what=what)


def delivery_ids(bodies: Sequence[bytes]) -> list[str]:
    return [json.loads(body)["delivery_id"] for body in bodies]
