"""The composition root of payment_service: the only file that picks concrete classes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from services.payment_service.db.unit_of_work import unit_of_work
from services.payment_service.gateways.registry import Gateways, build_gateways
from services.payment_service.messaging.bindings import subscriptions
from services.payment_service.settings import PaymentSettings
from services.payment_service.use_cases.ports import Context
from shared.db.session import Database
from shared.health import HealthCheck
from shared.http import build_http_client
from shared.messaging.bus import EventBus
from shared.messaging.relay import OutboxRelay
from shared.ports import Ports
from shared.web.auth import Authenticator, build_verifier

SERVICE = "payment_service"


@dataclass(frozen=True, slots=True)
class Container:
    settings: PaymentSettings
    ports: Ports
    database: Database
    bus: EventBus
    gateways: Gateways
    context: Context
    relay: OutboxRelay
    authenticator: Authenticator

    @property
    def checks(self) -> Mapping[str, HealthCheck]:
        # Accepting work needs the database only; without the broker events wait in the outbox.
        return {
            "database": HealthCheck("database", self.database.ping),
            "broker": HealthCheck("broker", self.bus.check, essential=False),
        }


@asynccontextmanager
async def build(settings: PaymentSettings, *, ports: Ports, bus: EventBus) -> AsyncIterator[Container]:
    async with AsyncExitStack() as stack:
        database = Database(
            settings.database_url.get_secret_value(),
            schema=SERVICE,
            application_name=SERVICE,
            pool_size=settings.database_pool_size,
        )
        stack.push_async_callback(database.dispose)
        gateways = build_gateways(settings, ports)
        stack.push_async_callback(gateways.close)
        jwks_client = await stack.enter_async_context(build_http_client(ports))
        context = Context(
            uow=unit_of_work(database, ports),
            gateways=gateways,
            clock=ports.clock,
            ids=ports.ids,
            public_base_url=settings.public_base_url,
            tolerance_minor=settings.tolerance_minor,
        )
        for subscription in subscriptions(context, database):
            bus.subscribe(subscription)
        yield Container(
            settings=settings,
            ports=ports,
            database=database,
            bus=bus,
            gateways=gateways,
            context=context,
            relay=OutboxRelay(database, bus, service=SERVICE, ports=ports),
            authenticator=Authenticator(build_verifier(settings, service=SERVICE, ports=ports, client=jwks_client)),
        )
