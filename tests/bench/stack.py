"""The distributed stack as it is measured: on a disk, with fsync, quiet logs, and nothing that starts by itself."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from unittest import mock

import httpx

from deploy.local.postgres import EmbeddedPostgres, run_psql
from tests.e2e.stack import REPOSITORY, SECRETS, DistributedStack, Process, assert_running
from tests.support import directories
from tests.support.directories import throwaway_directory
from tests.support.guard import process_guard
from tests.support.ports import free_port
from tests.support.postgres import ThrowawayPostgres
from tests.support.waiting import until_blocking

UNDISTURBED = {
    "LOG_LEVEL": "warning",
    "ORDER_RATE_PER_MINUTE": "1000000",
    "PAY_RATE_PER_MINUTE": "1000000",
    "EXPIRY_INTERVAL_SECONDS": "30",
    "SWEEP_INTERVAL_SECONDS": "60",
    "SWEEP_FIRST_CHECK_SECONDS": "600",
}


@contextmanager
def on_disk() -> Iterator[None]:
    """Tests keep their servers' data in memory; a benchmark that did so would measure no commit."""
    with mock.patch.object(directories, "_IN_MEMORY", Path(tempfile.gettempdir()) / "no-such-directory"):
        yield


class DurablePostgres(ThrowawayPostgres):
    def __init__(self) -> None:
        self.directory = throwaway_directory("payrail-bench-pg-")
        process_guard().remove_afterwards(self.directory)
        EmbeddedPostgres.__init__(self, self.directory, fsync=True)


class BenchStack(DistributedStack):
    def __init__(self) -> None:
        super().__init__(UNDISTURBED)
        self.postgres = DurablePostgres()

    def wait_worker(self, process: Process) -> None:
        assert_running(process)  # at this log level it does not say that it started; the first paid order does

    def query(self, service: str, sql: str) -> list[str]:
        return run_psql(self.postgres.url(service), sql).splitlines()

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


class BareEndpoint:
    """The bare endpoint in a process of its own."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/webhooks"
        arguments = [sys.executable, "-m", "tests.bench.bare", str(self.port), SECRETS["WEBHOOK_SECRET"]]
        self._process = subprocess.Popen(arguments, cwd=REPOSITORY)
        process_guard().watch("bare endpoint", pid=self._process.pid, command_contains="tests.bench.bare")
        until_blocking(self._answers, within_seconds=30, what="the start of the bare endpoint")

    def _answers(self) -> bool:
        with suppress(httpx.HTTPError):
            return httpx.get(self.url, trust_env=False).status_code == 405
        return False

    @property
    def pid(self) -> int:
        return self._process.pid

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(20)
        process_guard().forget("bare endpoint")
