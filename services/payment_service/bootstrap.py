"""The composition root of payment_service: the only file that picks concrete classes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from services.payment_service.db.breakers import StoredBreakers
from services.payment_service.db.retention import walks
from services.payment_service.db.unit_of_work import unit_of_work
from services.payment_service.domain.breaker import BreakerPolicy
from services.payment_service.gateways.registry import Gateways, build_gateways
from services.payment_service.messaging.bindings import subscriptions
from services.payment_service.settings import PaymentSettings
from services.payment_service.use_cases.breakers import BREAKERS_CHANNEL, Breakers
from services.payment_service.use_cases.ports import Context
from shared.db.idempotency import IdempotencyStore
from shared.db.retention import Retention, shared_walks
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
    breakers: Breakers
    context: Context
    relay: OutboxRelay
    authenticator: Authenticator
    idempotency: IdempotencyStore
    retention: Retention

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
        breakers = Breakers(StoredBreakers(database, ports), _breaker_policy(settings), ports)
        stack.push_async_callback(breakers.close)
        stack.enter_context(database.listener.subscribe(BREAKERS_CHANNEL, breakers.wake))
        gateways = build_gateways(settings, ports, breakers)
        stack.push_async_callback(gateways.close)
        jwks_client = await stack.enter_async_context(build_http_client(ports))
        context = Context(
            uow=unit_of_work(database, ports),
            gateways=gateways,
            clock=ports.clock,
            ids=ports.ids,
            public_base_url=settings.public_base_url,
            tolerance_minor=settings.tolerance_minor,
            operations=settings.operation_rules,
        )
        for subscription in subscriptions(context, database, settings.senders):
            bus.subscribe(subscription)
        yield Container(
            settings=settings,
            ports=ports,
            database=database,
            bus=bus,
            gateways=gateways,
            breakers=breakers,
            context=context,
            relay=OutboxRelay(database, bus, service=SERVICE, ports=ports),
            idempotency=IdempotencyStore(database, ports),
            retention=Retention(database, [*shared_walks(settings), *walks(settings)], service=SERVICE, ports=ports),
            authenticator=Authenticator(build_verifier(settings, service=SERVICE, ports=ports, client=jwks_client)),
        )


def _breaker_policy(settings: PaymentSettings) -> BreakerPolicy:
    return BreakerPolicy(
        failures_in_a_row=settings.gateway_breaker_failures_in_a_row,
        failure_percent=settings.gateway_breaker_failure_percent,
        minimum_calls=settings.gateway_breaker_minimum_calls,
        window_seconds=settings.gateway_breaker_window_seconds,
        cool_down_seconds=settings.gateway_breaker_cool_down_seconds,
        longest_cool_down_seconds=settings.gateway_breaker_longest_cool_down_seconds,
        probe_seconds=settings.gateway_breaker_probe_seconds,
    )
