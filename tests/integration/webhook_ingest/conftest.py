"""A running webhook_ingest over a real PostgreSQL, called over ASGI, with a clock that the tests move."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from services.webhook_ingest.bootstrap import Container, build
from services.webhook_ingest.db.announcing import render_announcements
from services.webhook_ingest.main import create_application
from services.webhook_ingest.settings import WebhookIngestSettings
from services.webhook_ingest.signatures.providers import GENERIC, STRIPE
from services.webhook_ingest.signatures.schemes import HmacScheme, sign
from shared.db.outbox import WaitingMessage
from shared.db.session import driver_of
from shared.messaging.in_process import InProcessBus
from shared.ports import Ports
from shared.web.auth import build_signer
from tests.support.clock import FakeClock, fake_ports
from tests.support.postgres import ServiceDatabase

STRIPE_SECRET = "whsec_test_0123456789abcdefABCDEF"
WEBHOOK_SECRET = "generic-hmac-test-secret"
JWT_KEY = "a-development-key-of-at-least-32-bytes"


@dataclass
class Ingest:
    """The service, a client, and shorthands that read as sentences."""

    container: Container
    client: httpx.AsyncClient
    clock: FakeClock
    ports: Ports

    def stripe_headers(self, body: bytes, *, secret: str = STRIPE_SECRET) -> dict[str, str]:
        headers = sign(HmacScheme(STRIPE), secret, body, self.clock.now(), "unused")
        return {**headers, "Content-Type": "application/json; charset=utf-8"}

    async def post_stripe(
        self, body: bytes, *, path: str = "/api/v1/webhooks/stripe", **changes: str
    ) -> httpx.Response:
        return await self.client.post(path, content=body, headers=self.stripe_headers(body) | changes)

    async def post_generic(
        self, body: bytes, *, path: str = "/api/v1/webhooks/generic", **changes: str
    ) -> httpx.Response:
        headers = sign(HmacScheme(GENERIC), WEBHOOK_SECRET, body, self.clock.now(), "unused")
        return await self.client.post(
            path, content=body, headers=headers | {"Content-Type": "application/json"} | changes
        )

    def operator(self, scopes: str = "ops:*") -> Mapping[str, str]:
        signer = build_signer(self.container.settings, ports=self.ports)
        token = signer.sign(subject="operator@example.com", audience="payrail", scopes=scopes)
        return {"Authorization": f"Bearer {token}"}

    async def count(self, table: str) -> int:
        async with self.container.database.begin() as connection:
            return int((await connection.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one())

    async def outbox(self) -> list[dict[str, Any]]:
        """The events as they are, or will be, published: a delivery's first one is rendered by the relay."""
        async with self.container.database.begin() as connection:
            columns = "position, message_id, type, subject, sequence, body, attempts, created_at, false AS follows"
            rows = await connection.execute(text(f"SELECT {columns} FROM outbox_messages ORDER BY position"))
            waiting = [WaitingMessage(**row) for row in rows.mappings()]
            empty = [message for message in waiting if not message.body]
            rendered = await render_announcements(await driver_of(connection), empty, clock=self.clock)
        return [json.loads(message.body or rendered[message.position]) for message in waiting]


def a_stripe_event(event_id: str = "evt_1", **changes: Any) -> bytes:
    event = {
        "id": event_id,
        "object": "event",
        "type": "payment_intent.succeeded",
        "data": {"object": {"id": "pi_1", "amount": 1999, "currency": "usd"}},
    }
    return json.dumps(event | changes).encode()


def settings_for_test(database_url: str, **changes: Any) -> WebhookIngestSettings:
    values: dict[str, Any] = {
        "database_url": database_url,
        "environment": "development",
        "jwt_shared_key": JWT_KEY,
        "gateway_variables": {"STRIPE_WEBHOOK_SECRET": STRIPE_SECRET, "WEBHOOK_SECRET": WEBHOOK_SECRET},
    }
    return WebhookIngestSettings.load(**(values | changes))


@pytest.fixture
def settings_changes() -> dict[str, Any]:
    """Overridden by ``@pytest.mark.parametrize("settings_changes", [{...}])``."""
    return {}


@pytest.fixture
async def ingest(service_database: ServiceDatabase, settings_changes: dict[str, Any]) -> AsyncIterator[Ingest]:
    clock = FakeClock()
    ports = fake_ports(clock=clock)
    settings = settings_for_test(service_database("webhook_ingest"), **settings_changes)
    async with build(settings, ports=ports, bus=InProcessBus(clock)) as container:
        transport = httpx.ASGITransport(app=create_application(container), client=("203.0.113.9", 50000))
        async with httpx.AsyncClient(transport=transport, base_url="http://ingest.test") as client:
            yield Ingest(container, client, clock, ports)
