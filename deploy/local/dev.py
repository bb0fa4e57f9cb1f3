"""Everything in one process on one port: what ``payrail dev`` and ``make run`` run once PostgreSQL is there (start.py).

The services are the same as in production, over the same ports: only the bus is inside the process (unless
RABBITMQ_URL is
set), and PostgreSQL comes out of a wheel (unless DATABASE_URL is set). Killing it at any point loses nothing: every
accepted webhook and every event is a committed row, and the next start goes on with them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import structlog
import uvicorn

from deploy import garbage
from deploy.catalogue import SERVICES, ServiceEntry
from deploy.cli.tokens import OPERATOR_SCOPES
from deploy.local.embedded_app import EmbeddedApp
from deploy.local.postgres import EmbeddedPostgres
from deploy.local.seed import seed_catalogue
from deploy.running import StreamStoppingServer, cancel, run_event_loop, uvicorn_config
from services.gateway_sandbox.gateways.registry import sandbox_definitions
from shared.db.migrations import upgrade
from shared.logging import configure_logging
from shared.messaging.bus import EventBus
from shared.messaging.in_process import InProcessBus
from shared.messaging.rabbitmq import RabbitMQBus
from shared.messaging.topology import apply_topology
from shared.ports import Ports, system_ports
from shared.settings import ServiceSettings, settings_for, split_list
from shared.tasks import supervise
from shared.web.auth import build_signer

log = structlog.get_logger()

TOKEN_DAYS = 30
SECRETS_FILE = "development.json"
COMMAND_SENDERS = ("order_service", "reconciler")
SHOP_NAME = "Seven Ports"  # what the storefront calls itself: mails, invoices and hosted pages say the same
GRACEFUL_SHUTDOWN_SECONDS = 3  # nobody at a terminal waits longer for Ctrl-C; open event streams end by then


def run_everything(*, host: str, port: int, data: Path, postgres: EmbeddedPostgres | None) -> None:
    """Runs until Ctrl-C or SIGTERM. Raises ConfigurationError."""
    ports = system_ports()
    for name, value in development_environment(port=port, data=data, ports=ports).items():
        if name not in os.environ and f"{name}_FILE" not in os.environ:
            os.environ[name] = value
    configure_logging(
        level=os.environ.get("LOG_LEVEL", "warning").lower(),
        log_format=os.environ.get("LOG_FORMAT", "console" if sys.stderr.isatty() else "json"),
        service="payrail",
    )
    with contextlib.suppress(KeyboardInterrupt):
        run_event_loop(_run(host=host, port=port, data=data, ports=ports, postgres=postgres))


def development_environment(*, port: int, data: Path, ports: Ports) -> Mapping[str, str]:
    """What is filled in where the environment says nothing: secrets of this data directory, and the sandbox's
    addresses."""
    base = f"http://127.0.0.1:{port}"
    return {
        "PAYRAIL_ENVIRONMENT": "development",
        "PUBLIC_BASE_URL": base,
        "RETURN_URL_ALLOWED_ORIGINS": f"{base},http://localhost:{port}",
        "PAYMENT_SERVICE_URL": base,
        "ORDER_SERVICE_URL": base,
        "SANDBOX_WEBHOOK_BASE_URL": base,
        **sandbox_addresses(base),
        "GATEWAY_ORDER": "stripe,generic,paypal",
        "SHOP_NAME": SHOP_NAME,
        "SMTP_FROM": f"{SHOP_NAME} <orders@payrail.invalid>",
        "SANDBOX_MERCHANT_NAME": SHOP_NAME,
        "JWT_MAX_LIFETIME_SECONDS": str(TOKEN_DAYS * 24 * 3600),
        "DATABASE_POOL_SIZE": "5",
        **_secrets(data / SECRETS_FILE, ports),
    }


def sandbox_addresses(base: str) -> dict[str, str]:
    """What points every gateway at the sandbox that answers at ``base``."""
    return {
        variable: address
        for definition in sandbox_definitions().values()
        for variable, address in definition.addresses(f"{base}/sandbox/{definition.name}").items()
    }


def _secrets(path: Path, ports: Ports) -> dict[str, str]:
    """Random, made once for a data directory and kept, so that a restart goes on with them. What an older release has
    not made yet is added."""
    kept: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    command_key = kept.get("COMMAND_SIGNING_KEY") or ports.randomness.token_bytes(32).hex()
    made = {
        "JWT_SHARED_KEY": ports.randomness.token_bytes(32).hex(),
        "COMMAND_SIGNING_KEY": command_key,
        "COMMAND_KEYS": "",
    }
    for definition in sandbox_definitions().values():
        made.update(definition.secrets(ports.randomness))
    secrets = made | kept
    secrets["COMMAND_KEYS"] = _with_every_sender(secrets["COMMAND_KEYS"], command_key)
    if secrets != kept:
        _write_private(path, json.dumps(secrets, indent=2) + "\n")
    return secrets


def _with_every_sender(listed: str, command_key: str) -> str:
    """COMMAND_KEYS of an older release lack later senders. In this process they all sign with the same key."""
    entries = split_list(listed)
    known = {entry.partition(":")[0] for entry in entries}
    return ",".join((*entries, *(f"{sender}:{command_key}" for sender in COMMAND_SENDERS if sender not in known)))


def _write_private(path: Path, text: str) -> None:
    # Moved into place whole, so that a kill leaves the old file or the new one and never half of it.
    partial = path.with_suffix(".partial")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    partial.replace(path)


async def _run(*, host: str, port: int, data: Path, ports: Ports, postgres: EmbeddedPostgres | None) -> None:
    settings = {entry.name: _settings_of(entry, postgres) for entry in SERVICES.values()}
    for entry in SERVICES.values():  # one after the other: alembic keeps its context in module globals
        await upgrade(entry.package, settings[entry.name].database_url.get_secret_value(), finish=True)
    async with AsyncExitStack() as stack:
        buses = await _make_buses(settings, ports, stack)
        containers: dict[str, Any] = {}
        for entry in SERVICES.values():
            context = entry.build(settings[entry.name], ports=ports, bus=buses[entry.name])
            containers[entry.name] = await stack.enter_async_context(context)
        app = EmbeddedApp(containers)
        token = _operator_token(settings["order-service"], ports)
        await seed_catalogue(app, token=token, ports=ports)
        _write_private(data / "operator.token", token + "\n")
        await _serve(app, containers, host=host, port=port, data=data)


async def _make_buses(
    settings: Mapping[str, ServiceSettings], ports: Ports, stack: AsyncExitStack
) -> dict[str, EventBus]:
    url, batches = settings["payment-service"].rabbitmq_url, settings["payment-service"].event_batches
    if url is None:
        shared_bus = InProcessBus(ports.clock)
        return dict.fromkeys(SERVICES, shared_bus)
    await apply_topology(url.get_secret_value())
    buses: dict[str, EventBus] = {}
    for name in SERVICES:
        bus = buses[name] = RabbitMQBus(url.get_secret_value(), name=name, ports=ports, batches=batches)
        stack.push_async_callback(bus.close)
    return buses


def _settings_of(entry: ServiceEntry, postgres: EmbeddedPostgres | None) -> ServiceSettings:
    overrides = settings_for(entry.package)
    if postgres is not None and "database_url" not in overrides:
        overrides["database_url"] = postgres.url(entry.package)
    return entry.settings.load(**overrides)


def _operator_token(settings: ServiceSettings, ports: Ports) -> str:
    seconds = min(settings.jwt_max_lifetime_seconds, TOKEN_DAYS * 24 * 3600)
    signer = build_signer(settings, ports=ports)
    return signer.sign(subject="operator", audience=settings.jwt_audience, scopes=OPERATOR_SCOPES, seconds=seconds)


async def _serve(app: EmbeddedApp, containers: Mapping[str, Any], *, host: str, port: int, data: Path) -> None:
    config = uvicorn_config(app, host=host, port=port)
    config.timeout_graceful_shutdown = GRACEFUL_SHUTDOWN_SECONDS
    server = _AnnouncingServer(config, containers.values(), data=data)
    workers = asyncio.create_task(_work(containers, server), name="workers")
    garbage.settle()
    try:
        await server.serve()
    finally:
        await cancel(workers)


async def _work(containers: Mapping[str, Any], server: uvicorn.Server) -> None:
    try:
        await supervise({name: _worker_of(SERVICES[name], container) for name, container in containers.items()})
    except asyncio.CancelledError:
        raise
    except BaseException:
        log.exception("worker_died")
        server.should_exit = True
        raise


def _worker_of(entry: ServiceEntry, container: Any) -> Any:
    return lambda: entry.run_worker(container)


class _AnnouncingServer(StreamStoppingServer):
    """Says one line when it answers, because that is what a person and a script wait for."""

    def __init__(self, config: uvicorn.Config, containers: Iterable[Any], *, data: Path) -> None:
        super().__init__(config, containers)
        self._data = data

    async def startup(self, sockets: list[Any] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            port = self.servers[0].sockets[0].getsockname()[1]
            address = f"http://{self.config.host}:{port}/"
            token = self._data / "operator.token"
            sys.stdout.write(f"Payrail is ready: {address}  (operator token: {token})\n")
            sys.stdout.flush()
