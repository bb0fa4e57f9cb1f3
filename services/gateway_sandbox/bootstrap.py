"""Composition root: the only file that picks concrete classes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from services.gateway_sandbox.db.repositories import unit_of_work
from services.gateway_sandbox.gateways.definition import Site
from services.gateway_sandbox.gateways.registry import build_gateways
from services.gateway_sandbox.settings import SandboxSettings
from services.gateway_sandbox.use_cases.control import forget_old_answers
from services.gateway_sandbox.use_cases.deliver_webhooks import Deliverer, WebhookSender
from services.gateway_sandbox.use_cases.expire_sessions import expire_sessions
from services.gateway_sandbox.use_cases.sandbox import Sandbox
from services.gateway_sandbox.webhook_sender import HttpWebhookSender
from shared.db.session import Database
from shared.health import HealthCheck
from shared.http import build_http_client
from shared.periodic import Periodic
from shared.ports import Ports
from shared.settings import ConfigurationError

SERVICE = "gateway_sandbox"
EXPIRY_INTERVAL_SECONDS = 1.0
CLEANING_INTERVAL_SECONDS = 600.0


@dataclass(slots=True)
class Container:
    settings: SandboxSettings
    ports: Ports
    database: Database
    sandbox: Sandbox
    deliverer: Deliverer
    deliveries: Periodic
    expiry: Periodic
    cleaning: Periodic

    @property
    def checks(self) -> dict[str, HealthCheck]:
        return {"database": HealthCheck("database", self.database.ping)}


@asynccontextmanager
async def build(settings: SandboxSettings, *, ports: Ports) -> AsyncIterator[Container]:
    """Raises ConfigurationError where a sandbox must not run. The schema is brought up by ``payrail migrate``."""
    if not settings.is_allowed():
        raise ConfigurationError(
            "the gateway sandbox is off: it never runs with PAYRAIL_ENVIRONMENT=production unless SANDBOX_ENABLED=true"
        )
    async with AsyncExitStack() as stack:
        database = _database(settings)
        stack.push_async_callback(database.dispose)
        client = build_http_client(
            ports,
            read_seconds=settings.sandbox_webhook_timeout_seconds,
            max_connections=settings.sandbox_webhook_concurrency,
        )
        await stack.enter_async_context(client)
        sender = HttpWebhookSender(client, timeout_seconds=settings.sandbox_webhook_timeout_seconds)
        yield _container(settings, ports, database, sender)


def _database(settings: SandboxSettings) -> Database:
    url = settings.database_url.get_secret_value()
    return Database(url, schema=SERVICE, application_name="gateway-sandbox", pool_size=settings.database_pool_size)


def _container(settings: SandboxSettings, ports: Ports, database: Database, sender: WebhookSender) -> Container:
    site = Site(settings.gateway_variables, settings.public_base_url, settings.sandbox_merchant_name, ports.randomness)
    gateways = build_gateways(site)
    sandbox = Sandbox(
        uow=unit_of_work(database, concurrency=settings.database_pool_size), gateways=gateways, ports=ports
    )
    deliverer = Deliverer(
        sandbox=sandbox,
        sender=sender,
        urls={name: settings.webhook_url(name) for name in gateways},
        concurrency=settings.sandbox_webhook_concurrency,
        timeout_seconds=settings.sandbox_webhook_timeout_seconds,
        wait_multiplier=settings.sandbox_webhook_wait_multiplier,
    )
    deliveries = Periodic(
        "webhook-deliveries", deliverer.deliver_due, interval_seconds=settings.sandbox_poll_seconds, ports=ports
    )
    sandbox.wake_deliverer = deliveries.wake
    return Container(
        settings=settings,
        ports=ports,
        database=database,
        sandbox=sandbox,
        deliverer=deliverer,
        deliveries=deliveries,
        expiry=Periodic(
            "expire-sessions", lambda: expire_sessions(sandbox), interval_seconds=EXPIRY_INTERVAL_SECONDS, ports=ports
        ),
        cleaning=Periodic(
            "forget-answers",
            lambda: forget_old_answers(sandbox),
            interval_seconds=CLEANING_INTERVAL_SECONDS,
            ports=ports,
        ),
    )
