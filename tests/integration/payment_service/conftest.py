"""payment_service over a real PostgreSQL, called over ASGI or by its use cases; the gateway is in memory."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import httpx
import pytest
from sqlalchemy import text

from services.payment_service.bootstrap import Container, build
from services.payment_service.gateways.catalogue import gateway_definitions
from services.payment_service.main import create_application
from services.payment_service.settings import PaymentSettings
from services.payment_service.use_cases.apply_webhook import apply_webhook
from shared.clock import Clock, SystemClock, to_rfc3339
from shared.contracts.webhook_events import WebhookReceived
from shared.gateway_variables import base_name
from shared.ids import TimeOrderedIds
from shared.messaging.in_process import InProcessBus
from shared.ports import Ports
from shared.randomness import SystemRandomness
from shared.unit_of_work import InboxClaim
from shared.web.auth import build_signer
from tests.integration.payment_service.fake_gateway import FakeGateway
from tests.support.postgres import ServiceDatabase

SHARED_KEY = "a-development-key-of-more-than-32-bytes"
EVENTS = text("SELECT body FROM outbox_messages WHERE :subject = subject OR :subject = '' ORDER BY position")


@dataclass
class World:
    """One payment_service (or one of several replicas on a database) with its gateway."""

    container: Container
    gateway: FakeGateway
    clock: Clock
    http: httpx.AsyncClient
    numbers: itertools.count[int]

    def token(self, scopes: str = "payments:read payments:write events:read") -> dict[str, str]:
        signer = build_signer(self.container.settings, ports=self.container.ports)
        return {"Authorization": f"Bearer {signer.sign(subject='orders', audience='payment_service', scopes=scopes)}"}

    def new_id(self, prefix: str) -> str:
        return self.container.ports.ids.new(prefix)

    def body(self, **changes: Any) -> dict[str, Any]:
        body = {
            "payment_id": self.new_id("pay"),
            "order_id": self.new_id("ord"),
            "gateway": "generic",
            "amount": {"amount_minor": 1999, "currency": "EUR"},
            "description": "Order",
            "customer": {"email": "ada@example.com", "name": "Ada"},
            "items": [{"name": "Tea", "quantity": 1, "unit_amount_minor": 1999}],
            "success_url": "https://shop.example/thanks",
            "failure_url": "https://shop.example/failed",
            "cancel_url": "https://shop.example/cart",
            "expires_at": to_rfc3339(self.clock.now() + timedelta(hours=1)),
        }
        return body | changes

    async def post(self, path: str, body: Any = None) -> httpx.Response:
        content = None if body is None else json.dumps(body).encode()  # escapes what UTF-8 does not have
        headers = self.token() | {"content-type": "application/json"}
        return await self.http.post(f"/api/v1/payments{path}", content=content, headers=headers)

    async def get(self, path: str, **params: Any) -> httpx.Response:
        return await self.http.get(f"/api/v1/payments{path}", params=params, headers=self.token())

    async def opened(self, **changes: Any) -> dict[str, Any]:
        answer = await self.post("", self.body(**changes))
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    async def see(self, payment_id: str) -> dict[str, Any]:
        answer = await self.get(f"/{payment_id}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def sync(self, payment_id: str) -> dict[str, Any]:
        answer = await self.post(f"/{payment_id}/sync")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def close(self, payment_id: str) -> dict[str, Any]:
        answer = await self.post(f"/{payment_id}/close", {"reason": "order_expired"})
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def webhook(self, payment: dict[str, Any], status: str = "completed", **changes: Any) -> WebhookReceived:
        body = {
            "payment_id": payment.get("gateway_reference"),
            "transaction_id": payment.get("payment_id"),
            "status": status,
            "amount": "19.99",
            "currency": "EUR",
        }
        return self.delivery(body | changes)

    def delivery(
        self, body: Any, *, trust: Literal["full", "hint"] = "full", gateway: str = "generic"
    ) -> WebhookReceived:
        return WebhookReceived(
            delivery_id=f"whd_{next(self.numbers)}",
            gateway=gateway,
            trust=trust,
            received_at=self.clock.now(),
            content_type="application/json",
            payload=body if isinstance(body, str) else json.dumps(body),
        )

    async def receive(self, event: WebhookReceived, *, message_id: str | None = None) -> None:
        claim = InboxClaim("payment.webhooks", message_id or f"evt_{next(self.numbers)}")
        await apply_webhook(event, claim, self.container.context)

    async def rows(self, sql: str, **values: Any) -> list[dict[str, Any]]:
        async with self.container.database.begin() as connection:
            return [dict(row) for row in (await connection.execute(text(sql), values)).mappings()]

    async def run(self, sql: str, **values: Any) -> int:
        async with self.container.database.begin() as connection:
            return (await connection.execute(text(sql), values)).rowcount

    async def events(self, subject: str = "") -> list[dict[str, Any]]:
        async with self.container.database.begin() as connection:
            return [json.loads(body) for body in (await connection.execute(EVENTS, {"subject": subject})).scalars()]

    async def event_types(self, subject: str) -> list[str]:
        return [str(event["type"]).removeprefix("payment.").removesuffix(".v1") for event in await self.events(subject)]

    async def forget_leases(self) -> None:
        """As if their time were over."""
        await self.run("UPDATE payment_attempts SET leased_until = now() - interval '1 second'")

    async def parked(self) -> list[str]:
        return [row["status"] for row in await self.rows("SELECT status FROM parked_events ORDER BY parked_at")]


BuildWorld = Callable[..., Awaitable[World]]


@pytest.fixture
async def build_world(service_database: ServiceDatabase) -> AsyncIterator[BuildWorld]:
    """``await build_world(return_budget_seconds=0.1)``; a second call is a replica on the same database and gateway."""
    async with AsyncExitStack() as stack:
        url, gateway, numbers = service_database("payment_service"), FakeGateway(), itertools.count(1)
        known = {variable for definition in gateway_definitions().values() for variable in definition.variables}

        def is_gateways(setting: str) -> bool:
            return base_name(setting.upper()) in known

        async def build_one(
            *, clock: Clock | None = None, transport: httpx.AsyncBaseTransport | None = None, **settings: Any
        ) -> World:
            ticking, randomness = clock or SystemClock(), SystemRandomness()
            ports = Ports(ticking, TimeOrderedIds(ticking, randomness), randomness, transport or gateway)
            values: dict[str, Any] = {
                "environment": "development",
                "database_url": url,
                "jwt_shared_key": SHARED_KEY,
                "public_base_url": "https://pay.example",
                "database_pool_size": 16,
            }
            variables = {"generic_api_base": "https://gateway.test", "generic_api_key": "gk_test"} | settings
            gateways = {
                name.upper(): value for name, value in variables.items() if base_name(name.upper()) in known and value
            }
            others = {name: value for name, value in settings.items() if base_name(name.upper()) not in known}
            loaded = PaymentSettings.load(gateway_variables=gateways, **(values | others))
            container = await stack.enter_async_context(build(loaded, ports=ports, bus=InProcessBus(ticking)))
            asgi = httpx.ASGITransport(app=create_application(container))
            http = await stack.enter_async_context(httpx.AsyncClient(transport=asgi, base_url="http://payments.test"))
            return World(container, gateway, ticking, http, numbers)

        yield build_one


@pytest.fixture
async def world(build_world: BuildWorld) -> World:
    return await build_world()
