"""order_service over a real PostgreSQL; only the payment service, the mail server and the clock are fakes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from services.order_service.bootstrap import Container, build
from services.order_service.domain.models import PaymentSnapshot, PaymentStatus
from services.order_service.main import create_application
from services.order_service.settings import OrderSettings
from services.order_service.use_cases.ports import InvoiceRenderer
from shared.clock import Clock
from shared.contracts.commands import RefundRequested
from shared.contracts.envelope import EventEnvelope
from shared.ids import TimeOrderedIds
from shared.messaging.in_process import InProcessBus
from shared.ports import Ports
from shared.randomness import SystemRandomness
from shared.web.auth import build_signer
from tests.integration.order_service.fakes import (
    FakeMailer,
    FakePayments,
    QuickInvoices,
    a_pay_body,
    an_event,
    an_order_body,
    deliver,
)
from tests.support.clock import FakeClock
from tests.support.postgres import ServiceDatabase

SHARED_KEY = "a-development-key-of-more-than-32-bytes"
COMMAND_KEY = bytes(range(32))
RECONCILER_KEY = bytes(range(32, 64))


@dataclass
class Answer:
    """An order as its creator holds it: the document and the secret's header."""

    document: dict[str, Any]

    @property
    def id(self) -> str:
        return str(self.document["id"])

    @property
    def secret(self) -> dict[str, str]:
        return {"X-Order-Secret": self.document["client_secret"]}


class World:
    """One order_service (or several replicas on one database) with its neighbours."""

    def __init__(self, container: Container, payments: FakePayments, mailer: FakeMailer, clock: Clock) -> None:
        self.container = container
        self.payments = payments
        self.mailer = mailer
        self.clock = clock
        self.application = create_application(container)
        transport = httpx.ASGITransport(app=self.application)
        self.http = httpx.AsyncClient(transport=transport, base_url="http://orders.test")

    def token(self, scopes: str = "", *, subject: str = "operator") -> dict[str, str]:
        signer = build_signer(self.container.settings, ports=self.container.ports)
        return {"Authorization": f"Bearer {signer.sign(subject=subject, audience='order_service', scopes=scopes)}"}

    async def has_product(
        self, sku: str = "moka-pot", *, price: int = 3900, currency: str = "EUR", stock: int = 10, **more: Any
    ) -> None:
        body = {"name": f"The {sku}", "price": {"amount_minor": price, "currency": currency}, "stock": stock} | more
        answer = await self.http.put(f"/api/v1/products/{sku}", json=body, headers=self.token("ops:write"))
        assert answer.status_code == 200, answer.text

    async def order(self, *, headers: dict[str, str] | None = None, **changes: Any) -> Answer:
        answer = await self.http.post("/api/v1/orders", json=an_order_body(**changes), headers=headers or {})
        assert answer.status_code == 201, answer.text
        return Answer(answer.json())

    async def pay(self, order: Answer, *, headers: dict[str, str] | None = None, **changes: Any) -> httpx.Response:
        url = f"/api/v1/orders/{order.id}/pay"
        return await self.http.post(url, json=a_pay_body(**changes), headers=order.secret | (headers or {}))

    async def cancel(self, order: Answer) -> httpx.Response:
        return await self.http.post(f"/api/v1/orders/{order.id}/cancel", headers=order.secret)

    async def see(self, order: Answer) -> dict[str, Any]:
        answer = await self.http.get(f"/api/v1/orders/{order.id}", headers=order.secret)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def open_session(self, order: Answer, **changes: Any) -> str:
        """Open a checkout and return its payment id."""
        answer = await self.pay(order, **changes)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["payment_id"])

    async def gateway_says(self, payment_id: str, status: PaymentStatus, **totals: int) -> PaymentSnapshot:
        """The gateway changes its mind and the payment service tells everybody."""
        snapshot = self.payments.becomes(payment_id, status, **totals)
        await deliver(self.container, an_event(snapshot))
        return snapshot

    async def paid_order(self, **changes: Any) -> Answer:
        order = await self.order(**changes)
        await self.gateway_says(await self.open_session(order), PaymentStatus.CAPTURED)
        return order

    async def rows(self, sql: str, **values: Any) -> list[dict[str, Any]]:
        async with self.container.database.begin() as connection:
            return [dict(row) for row in (await connection.execute(text(sql), values)).mappings()]

    async def value(self, sql: str, **values: Any) -> Any:
        return next(iter((await self.rows(sql, **values))[0].values()))

    async def stock(self, sku: str = "moka-pot") -> tuple[int, int]:
        """(on hand, reserved)"""
        row = (await self.rows("SELECT on_hand, reserved FROM products WHERE sku = :sku", sku=sku))[0]
        return row["on_hand"], row["reserved"]

    async def events(self, order_id: str | None = None) -> list[str]:
        sql = "SELECT type FROM outbox_messages WHERE CAST(:id AS text) IS NULL OR subject = :id ORDER BY position"
        return [row["type"] for row in await self.rows(sql, id=order_id)]

    async def commands(self) -> list[RefundRequested]:
        """What payment_service is told to give back, oldest first. Each is signed."""
        sql = "SELECT convert_from(body, 'UTF8') AS body FROM outbox_messages WHERE type = :type ORDER BY position"
        envelopes = [EventEnvelope.from_json(row["body"]) for row in await self.rows(sql, type=RefundRequested.TYPE)]
        commands = [RefundRequested.model_validate(envelope.data) for envelope in envelopes]
        assert all(command.is_signed_by([COMMAND_KEY]) for command in commands)
        return commands


BuildWorld = Callable[..., Awaitable[World]]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def build_world(service_database: ServiceDatabase, clock: FakeClock) -> AsyncIterator[BuildWorld]:
    """``await build_world(order_ttl_seconds=5)``; a second call is a replica on the same database."""
    async with AsyncExitStack() as stack:
        url = service_database("order_service")
        payments, mailer = FakePayments(), FakeMailer()

        async def build_one(
            *, real_clock: Clock | None = None, invoices: InvoiceRenderer | None = None, **settings: Any
        ) -> World:
            ticking = real_clock or clock
            randomness = SystemRandomness()
            ports = Ports(clock=ticking, ids=TimeOrderedIds(ticking, randomness), randomness=randomness)
            values: dict[str, Any] = {
                "environment": "development",
                "database_url": url,
                "jwt_shared_key": SHARED_KEY,
                "command_signing_key": COMMAND_KEY.hex(),
                "command_keys": f"reconciler:{RECONCILER_KEY.hex()}",
                "return_url_allowed_origins": "https://shop.example",
                "max_open_orders_per_email": 1000,
                "order_rate_per_minute": 100_000,
                "pay_rate_per_minute": 100_000,
                "database_pool_size": 16,
            }
            loaded = OrderSettings.load(**(values | settings))
            building = build(
                loaded,
                ports=ports,
                bus=InProcessBus(ticking),
                payments=payments,
                mailer=mailer,
                invoices=invoices or QuickInvoices(),
            )
            world = World(await stack.enter_async_context(building), payments, mailer, ticking)
            stack.push_async_callback(world.http.aclose)
            return world

        yield build_one


@pytest.fixture
async def world(build_world: BuildWorld) -> World:
    """One service with ten moka pots at 39.00 EUR."""
    built = await build_world()
    await built.has_product()
    return built
