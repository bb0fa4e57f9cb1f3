"""The composition root of webhook_ingest: the only file that picks concrete classes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from services.webhook_ingest.api.dependencies import Edge
from services.webhook_ingest.api.rate_limit import REJECTS_KEPT_PER_MINUTE, FailureLimiter, RejectBudget
from services.webhook_ingest.db.delivery_writer import DeliveryWriter
from services.webhook_ingest.db.group_commit import GroupCommit, Limits
from services.webhook_ingest.db.retention import walks
from services.webhook_ingest.db.spool import Spool
from services.webhook_ingest.db.spooling import Drain, Outage, SpoolingWriter
from services.webhook_ingest.db.tables import SERVICE
from services.webhook_ingest.db.unit_of_work import IngestTransaction, build_unit_of_work
from services.webhook_ingest.settings import WebhookIngestSettings
from services.webhook_ingest.signatures.port import InvalidSchemeConfig
from services.webhook_ingest.signatures.registration import IngestGateway
from services.webhook_ingest.signatures.registry import build_registry
from services.webhook_ingest.signatures.values import GatewayValues
from shared.db.retention import Retention, shared_walks
from shared.db.session import Database
from shared.db.unit_of_work import UnitOfWork
from shared.health import HealthCheck
from shared.http import HttpCaller, build_http_client
from shared.messaging.bus import EventBus
from shared.ports import Ports
from shared.settings import ConfigurationError
from shared.web.auth import Authenticator, build_verifier

STATEMENT_TIMEOUT_SECONDS = 5.0  # a gateway waits 10 s or more; by then it has its 503 and retries

SPOOLED_AFTER_SECONDS = 2.0  # of a database that does not answer, where there is a spool to go to


@dataclass(frozen=True, slots=True)
class Container:
    settings: WebhookIngestSettings
    ports: Ports
    database: Database
    uow: UnitOfWork[IngestTransaction]
    bus: EventBus
    gateways: Mapping[str, IngestGateway]
    edge: Edge
    drain: Drain | None
    """Of the spool, where there is one; the process has to run it."""
    retention: Retention
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
        drain, store = await _delivery_store(settings, database, ports, stack)
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
                store=store,
                limiter=FailureLimiter(settings.webhook_failed_verifications_per_minute, ports.clock),
                reject_budget=RejectBudget(REJECTS_KEPT_PER_MINUTE, ports.clock),
                ports=ports,
                max_body_bytes=settings.webhook_max_body_bytes,
                trusted_proxy_hops=settings.trusted_proxy_hops,
            ),
            drain=drain,
            retention=Retention(database, [*shared_walks(settings), *walks(settings)], service=SERVICE, ports=ports),
            authenticator=Authenticator(build_verifier(settings, service=SERVICE, ports=ports, client=client)),
            checks=_checks(database, bus, drain),
        )


async def _delivery_store(
    settings: WebhookIngestSettings, database: Database, ports: Ports, stack: AsyncExitStack
) -> tuple[Drain | None, GroupCommit]:
    limits = Limits(waiting_rows=settings.webhook_queue_max_deliveries, waiting_bytes=settings.webhook_queue_max_bytes)
    if settings.webhook_spool_directory is None:
        store = GroupCommit([DeliveryWriter(database, statement_seconds=STATEMENT_TIMEOUT_SECONDS)], limits=limits)
        stack.push_async_callback(store.close)
        return None, store
    spool = Spool(settings.webhook_spool_directory, max_bytes=settings.webhook_spool_max_bytes, ports=ports)
    stack.push_async_callback(spool.close)
    outage = Outage(database.ping, ports=ports)
    stack.push_async_callback(outage.close)
    writer = DeliveryWriter(database, statement_seconds=SPOOLED_AFTER_SECONDS)
    store = GroupCommit([SpoolingWriter(writer, spool, outage)], limits=limits)
    stack.push_async_callback(store.close)
    return Drain(
        spool, DeliveryWriter(database, statement_seconds=STATEMENT_TIMEOUT_SECONDS), outage, ports=ports
    ), store


def _checks(database: Database, bus: EventBus, drain: Drain | None) -> Mapping[str, HealthCheck]:
    checks = {
        # With a spool, deliveries are taken without the database, and readiness only says so.
        "database": HealthCheck("database", database.ping, essential=drain is None),
        # Accepting needs no broker (failure W17): without it events wait, and readiness only says so.
        "broker": HealthCheck("broker", bus.check, essential=False),
    }
    if drain is not None:
        checks["spool"] = HealthCheck("spool", drain.check, essential=False)
        checks["spool_room"] = HealthCheck("spool_room", drain.check_room)
    return checks


def _gateways(settings: WebhookIngestSettings, http: HttpCaller) -> Mapping[str, IngestGateway]:
    values = GatewayValues(settings.gateway_variables, public_base_url=settings.public_base_url)
    try:
        return build_registry(values, production=settings.environment == "production", http=http)
    except InvalidSchemeConfig as problem:
        raise ConfigurationError(str(problem)) from None
