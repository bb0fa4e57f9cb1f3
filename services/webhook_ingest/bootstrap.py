"""The composition root of webhook_ingest: the only file that picks concrete classes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from services.webhook_ingest.api.dependencies import Edge
from services.webhook_ingest.api.rate_limit import REJECTS_KEPT_PER_MINUTE, FailureLimiter, RejectBudget
from services.webhook_ingest.db.tables import SERVICE
from services.webhook_ingest.db.unit_of_work import IngestTransaction, build_unit_of_work
from services.webhook_ingest.settings import WebhookIngestSettings
from services.webhook_ingest.signatures.port import InvalidSchemeConfig
from services.webhook_ingest.signatures.registration import IngestGateway
from services.webhook_ingest.signatures.registry import build_registry
from services.webhook_ingest.signatures.values import GatewayValues
from shared.db.session import Database
from shared.db.unit_of_work import UnitOfWork
from shared.health import HealthCheck
from shared.http import HttpCaller, build_http_client
from shared.messaging.bus import EventBus
from shared.ports import Ports
from shared.settings import ConfigurationError
from shared.web.auth import Authenticator, build_verifier

STATEMENT_TIMEOUT_SECONDS = 5.0  # a gateway waits 10 s or more; by then it has its 503 and retries


@dataclass(frozen=True, slots=True)
class Container:
    settings: WebhookIngestSettings
    ports: Ports
    database: Database
    uow: UnitOfWork[IngestTransaction]
    bus: EventBus
    gateways: Mapping[str, IngestGateway]
    edge: Edge
    authenticator: Authenticator
    checks: Mapping[str, HealthCheck]


@asynccontextmanager
async def build(settings: WebhookIngestSettings, *, ports: Ports, bus: EventBus) -> AsyncIterator[Container]:
    """Everything the HTTP process and the worker need; nothing is connected to before it is used.

    Raises ConfigurationError for a signature setting that proves nothing.
    """
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(build_http_client(ports))
        gateways = _gateways(settings, HttpCaller(client, ports))
        database = Database(
            settings.database_url.get_secret_value(),
            schema=SERVICE,
            application_name=SERVICE,
            pool_size=settings.database_pool_size,
            statement_timeout_seconds=STATEMENT_TIMEOUT_SECONDS,
        )
        stack.push_async_callback(database.dispose)
        uow = build_unit_of_work(database, ports)
        yield Container(
            settings=settings,
            ports=ports,
            database=database,
            uow=uow,
            bus=bus,
            gateways=gateways,
            edge=Edge(
                gateways=gateways,
                uow=uow,
                limiter=FailureLimiter(settings.webhook_failed_verifications_per_minute, ports.clock),
                reject_budget=RejectBudget(REJECTS_KEPT_PER_MINUTE, ports.clock),
                ports=ports,
                max_body_bytes=settings.webhook_max_body_bytes,
                trusted_proxy_hops=settings.trusted_proxy_hops,
            ),
            authenticator=Authenticator(build_verifier(settings, service=SERVICE, ports=ports, client=client)),
            checks={
                "database": HealthCheck("database", database.ping),
                # Accepting needs no broker (failure W17): without it events wait, and readiness only says so.
                "broker": HealthCheck("broker", bus.check, essential=False),
            },
        )


def _gateways(settings: WebhookIngestSettings, http: HttpCaller) -> Mapping[str, IngestGateway]:
    values = GatewayValues(settings.gateway_variables, public_base_url=settings.public_base_url)
    try:
        return build_registry(values, production=settings.environment == "production", http=http)
    except InvalidSchemeConfig as problem:
        raise ConfigurationError(str(problem)) from None
