"""A service that owns payment events: an outbox in a real database, the broker, and ``GET /api/v1/events`` over it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI
from sqlalchemy.schema import CreateSchema

from shared.contracts.envelope import EventData, EventEnvelope
from shared.contracts.payment_events import (
    PaymentCaptured,
    PaymentCreated,
    PaymentEventData,
    PaymentProcessing,
    PaymentRequiresAction,
    PaymentStatusName,
)
from shared.db.base import metadata_for
from shared.db.outbox import Outbox
from shared.db.session import Database
from shared.messaging.bus import BusMessage
from shared.messaging.rabbitmq import RabbitMQBus
from shared.ports import Ports
from shared.web.app import create_app
from shared.web.auth import Authenticator, StaticKeys, TokenSigner, TokenVerifier, VerificationKey
from shared.web.events import events_router
from tests.support.ports import free_port
from tests.support.waiting import until

SERVICE = "payment_service"
AMOUNT = 12500
_KEY = b"a-key-of-the-tests-of-at-least-32-bytes"
_LIFE: Sequence[tuple[type[PaymentEventData], PaymentStatusName]] = (
    (PaymentCreated, "created"),
    (PaymentRequiresAction, "requires_action"),
    (PaymentProcessing, "processing"),
    (PaymentCaptured, "captured"),
)


class EventOwner:
    """Commits events to its outbox and publishes those that a test says, in the order that a test says."""

    def __init__(self, database: Database, bus: RabbitMQBus | None, ports: Ports) -> None:
        self.database = database
        self.ports = ports
        self._bus = bus

    async def add(self, event: EventData, *, subject: str) -> EventEnvelope:
        async with self.database.begin() as connection:
            outbox = Outbox(connection, service=SERVICE, ports=self.ports)
            return await outbox.add(event, subject=subject, correlation_id="ord_01")

    async def add_payment(self, payment_id: str) -> list[EventEnvelope]:
        """The four events of a payment from its creation to its capture."""
        events = [
            model(
                payment_id=payment_id,
                order_id="ord_01",
                gateway="stripe",
                status=status,
                version=version,
                amount=AMOUNT,
                currency="KWD",
                amount_captured=AMOUNT if status == "captured" else 0,
            )
            for version, (model, status) in enumerate(_LIFE, start=1)
        ]
        return [await self.add(event, subject=payment_id) for event in events]

    async def publish(self, *envelopes: EventEnvelope) -> None:
        assert self._bus is not None
        for envelope in envelopes:
            await self._bus.publish(BusMessage(envelope.id, envelope.type, envelope.subject, envelope.to_json()))

    def token(self, scope: str = "events:read") -> str:
        signer = TokenSigner(key=_KEY, algorithm="HS256", key_id=None, issuer="payrail", ports=self.ports)
        return signer.sign(subject="payment_log", audience=SERVICE, scopes=scope, seconds=600)

    def application(self) -> FastAPI:
        verifier = TokenVerifier(
            StaticKeys({None: VerificationKey("HS256", _KEY)}),
            issuer="payrail",
            audiences=(SERVICE,),
            max_lifetime_seconds=900,
            clock=self.ports.clock,
        )
        return create_app(
            service=SERVICE,
            title="events",
            description="events",
            ports=self.ports,
            checks={},
            routers=[events_router(self.database, service=SERVICE)],
            state={"authenticator": Authenticator(verifier)},
        )


@asynccontextmanager
async def an_event_owner(
    database_url: str, *, ports: Ports, rabbitmq_url: str | None = None
) -> AsyncIterator[EventOwner]:
    """``database_url``: an empty database. Without a broker nothing can be published, only caught up with."""
    database = Database(database_url, schema=SERVICE, application_name=SERVICE)
    bus = RabbitMQBus(rabbitmq_url, name=SERVICE, ports=ports) if rabbitmq_url else None
    try:
        async with database.begin() as connection:
            await connection.execute(CreateSchema(SERVICE, if_not_exists=True))
            await connection.run_sync(metadata_for(SERVICE).create_all)
        yield EventOwner(database, bus, ports)
    finally:
        if bus is not None:
            await bus.close()
        await database.dispose()


@asynccontextmanager
async def served(application: FastAPI) -> AsyncIterator[str]:
    """The application on a port of this machine; its URL."""
    port = free_port()
    config = uvicorn.Config(application, host="127.0.0.1", port=port, log_level="critical", lifespan="off")
    server = uvicorn.Server(config)
    task = asyncio.create_task(server._serve())  # serve() would take over the test process's signals
    await until(lambda: server.started or task.done(), what="the events API serving")
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = server.force_exit = True
        await task
