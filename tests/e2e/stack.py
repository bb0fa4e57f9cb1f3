"""A whole Payrail, run as a user would run it: embedded in one process, or distributed over real processes and
RabbitMQ."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from deploy.catalogue import SERVICES
from deploy.local.dev import sandbox_addresses
from deploy.local.postgres import EmbeddedPostgres
from tests.support.directories import throwaway_directory
from tests.support.gateway_sandbox import gateway_secrets
from tests.support.guard import process_guard
from tests.support.ports import free_ports
from tests.support.postgres import ThrowawayPostgres
from tests.support.rabbitmq import RabbitMQServer, make_own_rabbitmq
from tests.support.waiting import until_blocking

REPOSITORY = Path(__file__).resolve().parents[2]
START_SECONDS = 180  # on two busy cores; alone it takes a twentieth
SECRETS = gateway_secrets() | {
    "JWT_SHARED_KEY": "e2e-shared-key-of-at-least-32-bytes!",
    "WEBHOOK_SECRET": "e2e-generic-webhook-secret",
    "STRIPE_API_KEY": "sk_test_e2e",
    "STRIPE_WEBHOOK_SECRET": "whsec_e2e_0123456789abcdef",
    "GENERIC_API_KEY": "gk_e2e",
    "COMMAND_SIGNING_KEY": "e2" * 32,
    "COMMAND_KEYS": f"order_service:{'e2' * 32},reconciler:{'e2' * 32}",
}
# What makes things happen soon enough for a test; nothing that changes what happens.
QUICK = {
    "EXPIRY_INTERVAL_SECONDS": "0.5",
    "SWEEP_INTERVAL_SECONDS": "1",
    "SWEEP_FIRST_CHECK_SECONDS": "3",
    "OPERATION_LEASE_SECONDS": "8",
    "LOG_LEVEL": "info",
}


class Process:
    """One process of the stack, with its log in a file (never a pipe: a full one would stop it)."""

    def __init__(self, name: str, arguments: list[str], environment: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.log = log
        self._arguments = [sys.executable, "-m", "deploy.cli", *arguments]
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self._arguments,
                cwd=REPOSITORY,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        process_guard().watch(f"{self.name} {self.log}", pid=self._process.pid, command_contains="deploy.cli")

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill9(self) -> None:
        self._end(signal.SIGKILL)

    def terminate(self) -> int:
        """End it in order; returns its exit status."""
        return self._end(signal.SIGTERM)

    def interrupt(self) -> int:
        """What Ctrl-C does."""
        return self._end(signal.SIGINT)

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def output(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def _end(self, number: signal.Signals) -> int:
        assert self._process is not None
        with suppress(ProcessLookupError):
            os.kill(self._process.pid, number)
        return self.wait()

    def wait(self) -> int:
        """Until it has ended; returns its exit status."""
        assert self._process is not None
        status = self._process.wait(30)
        process_guard().forget(f"{self.name} {self.log}")
        return status


@dataclass
class EventsRead:
    """What the tests have read of one service's feed of events: nobody reads it from the start for every question."""

    cursor: str = "0.0"
    of_subject: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


class Stack(ABC):
    """Where the parts are, however they run."""

    kind: str
    order_url: str
    payment_url: str
    ingest_url: str
    reconciler_url: str
    sandbox_url: str

    def __init__(self, extra: Mapping[str, str] | None = None) -> None:
        self.directory = throwaway_directory("payrail-e2e-")
        process_guard().remove_afterwards(self.directory)
        self.extra = dict(extra or {})
        self.processes: dict[str, Process] = {}
        self.events_read: dict[str, EventsRead] = {}

    @property
    @abstractmethod
    def operator_token(self) -> str: ...

    @abstractmethod
    def start(self) -> None:
        """Returns when every part answers."""

    @abstractmethod
    def close(self) -> None: ...

    def environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "USER") if name in os.environ}
        return {**kept, "PAYRAIL_ENVIRONMENT": "development", "LOG_FORMAT": "json", **SECRETS, **QUICK, **self.extra}

    def log_text(self) -> str:
        """Everything that every process has logged, for what must never be in a log."""
        return "\n".join(process.output() for process in self.processes.values())

    def new_process(self, name: str, arguments: list[str], environment: Mapping[str, str]) -> Process:
        process = Process(name, arguments, environment, self.directory / f"{name}.log")
        self.processes[name] = process
        return process

    def wait_ready(self, process: Process, url: str) -> None:
        def ready() -> bool:
            assert_running(process)
            with suppress(httpx.HTTPError):
                return httpx.get(f"{url}/healthz", timeout=2, trust_env=False).status_code == 200
            return False

        until_blocking(ready, within_seconds=START_SECONDS, what=f"the start of {process.name}")


def assert_running(process: Process) -> None:
    if not process.is_running:
        raise RuntimeError(f"{process.name} ended:\n{process.output()[-4000:]}")


class EmbeddedStack(Stack):
    """``payrail dev``: one process, one port, embedded PostgreSQL, in-process bus."""

    kind = "embedded"

    def __init__(self, extra: Mapping[str, str] | None = None) -> None:
        super().__init__(extra)
        (self.port,) = free_ports(1)
        url = f"http://127.0.0.1:{self.port}"
        self.order_url = self.payment_url = self.ingest_url = self.reconciler_url = self.sandbox_url = url
        environment = self.environment() | {"PORT": str(self.port), "PAYRAIL_DATA": str(self.directory / "data")}
        self.process = self.new_process("dev", ["dev"], environment)

    @property
    def operator_token(self) -> str:
        return (self.directory / "data" / "operator.token").read_text().strip()

    def start(self) -> None:
        self.process.start()
        self.wait_ready(self.process, self.order_url)

    def start_after_a_kill(self) -> None:
        """The killed process still holds its leases, for up to 90 s in which its successor does not sweep. Here they
        run out at once; that they do so by themselves is shown in tests/integration/reconciler."""
        self.start()
        postgres = EmbeddedPostgres(self.directory / "data" / "postgres")
        postgres.execute("UPDATE reconciler.leases SET expires_at = now()", database="reconciler")

    def close(self) -> None:
        if self.process.is_running:
            self.process.terminate()
        else:  # it was killed: its PostgreSQL is still there, and ours to end
            self.process.start()
            self.wait_ready(self.process, self.order_url)
            self.process.terminate()
        shutil.rmtree(self.directory, ignore_errors=True)


class DistributedStack(Stack):
    """Every service in processes of its own, over a real PostgreSQL and a real RabbitMQ; two replicas of
    order_service and of payment_service."""

    kind = "distributed"
    REPLICAS: Sequence[str] = ("order-service-2", "payment-service-2")
    """Of HTTP processes. There are two workers of payment_service in any case."""

    def __init__(self, extra: Mapping[str, str] | None = None) -> None:
        super().__init__(extra)
        self.postgres = ThrowawayPostgres()
        self.rabbitmq: RabbitMQServer = make_own_rabbitmq()
        names = [*SERVICES, *self.REPLICAS]
        *ports, metrics_port = free_ports(len(names) + 1)
        self.ports = dict(zip(names, ports, strict=True))
        self.order_url = self._url("order-service")
        self.payment_url = self._url("payment-service")
        self.ingest_url = self._url("webhook-ingest")
        self.reconciler_url = self._url("reconciler")
        self.sandbox_url = self._url("gateway-sandbox")
        self.worker_metrics_url = f"http://127.0.0.1:{metrics_port}"
        self._token = ""

    @property
    def second_order_url(self) -> str:
        return self._url("order-service-2")

    @property
    def second_payment_url(self) -> str:
        return self._url("payment-service-2")

    @property
    def operator_token(self) -> str:
        return self._token

    def environment(self) -> dict[str, str]:
        databases = {
            f"{entry.package.upper()}_DATABASE_URL": self.postgres.url(entry.package) for entry in SERVICES.values()
        }
        return {
            **super().environment(),
            **databases,
            "RABBITMQ_URL": self.rabbitmq.url(),
            "PAYMENT_SERVICE_URL": self.payment_url,
            "ORDER_SERVICE_URL": self.order_url,
            "PUBLIC_BASE_URL": self.payment_url,
            "RETURN_URL_ALLOWED_ORIGINS": f"{self.order_url},https://shop.example",
            "SANDBOX_WEBHOOK_BASE_URL": self.ingest_url,
            **sandbox_addresses(self.sandbox_url),
            "DATABASE_POOL_SIZE": "5",
            "JWT_MAX_LIFETIME_SECONDS": "86400",
            **self.extra,
        }

    def start(self) -> None:
        with ThreadPoolExecutor() as at_once:
            broker, databases = at_once.submit(self._start_broker), at_once.submit(self._start_databases)
            self._token = self.run("token", "--minutes", "1440").strip()
            broker.result()
            databases.result()
        for name in self.ports:
            environment = self._environment_of(name) | {"PORT": str(self.ports[name])}
            self.new_process(f"serve-{name}", ["serve", name.removesuffix("-2")], environment).start()
        for name in SERVICES:
            environment = self._environment_of(name)
            if name == "payment-service":
                environment["WORKER_METRICS_PORT"] = self.worker_metrics_url.rpartition(":")[2]
            self.new_process(f"work-{name}", ["work", name], environment).start()
        second = "work-payment-service-2"
        self.new_process(second, ["work", "payment-service"], self._environment_of("payment-service")).start()
        for name in self.ports:
            self.wait_ready(self.processes[f"serve-{name}"], self._url(name))
        for name in (*SERVICES, "payment-service-2"):
            self.wait_worker(self.processes[f"work-{name}"])
        self.run("catalogue", "load", "--url", self.order_url, "--token", self._token)

    def _start_broker(self) -> None:
        self.rabbitmq.start()
        self.run("topology", "apply")

    def _start_databases(self) -> None:
        self.postgres.start()
        for entry in SERVICES.values():
            self.postgres.ensure_database(entry.package)
        self.run("migrate", "all")

    def wait_worker(self, process: Process) -> None:
        def started() -> bool:
            assert_running(process)
            return "worker_started" in process.output()

        until_blocking(started, within_seconds=START_SECONDS, what=f"the start of {process.name}")

    def run(self, *arguments: str) -> str:
        """Run one command of the command line and return what it prints."""
        done = subprocess.run(
            [sys.executable, "-m", "deploy.cli", *arguments],
            cwd=REPOSITORY,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"payrail {' '.join(arguments)} failed:\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def close(self) -> None:
        running = [process for process in self.processes.values() if process.is_running]
        for process in running:
            process.send_signal(signal.SIGCONT)
            process.send_signal(signal.SIGTERM)
        for process in running:
            process.wait()
        self.rabbitmq.close()
        self.postgres.remove()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _environment_of(self, name: str) -> dict[str, str]:
        # The sandbox stands for hosts of its own: its pages are not behind our proxy.
        own = {"PUBLIC_BASE_URL": self.sandbox_url} if name == "gateway-sandbox" else {}
        return self.environment() | own

    def restart(self, name: str) -> None:
        """Start a process again that has been ended, and wait until it works."""
        process = self.processes[name]
        process.log.unlink(missing_ok=True)
        process.start()
        if name.startswith("serve-"):
            self.wait_ready(process, self._url(name.removeprefix("serve-")))
        else:
            self.wait_worker(process)

    def _url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.ports[name]}"
