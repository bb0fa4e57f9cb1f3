"""order_service and payment_service with a database each, over ASGI, and a gateway in memory that answers at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from services.order_service.bootstrap import Container as OrderContainer
from services.order_service.bootstrap import build as build_orders
from services.order_service.main import create_application as order_application
from services.order_service.settings import OrderSettings
from services.payment_service.bootstrap import Container as PaymentContainer
from services.payment_service.bootstrap import build as build_payments
from services.payment_service.main import create_application as payment_application
from services.payment_service.settings import PaymentSettings
from shared.messaging.in_process import InProcessBus
from shared.ports import Ports, system_ports
from shared.web.auth import build_signer
from tests.integration.payment_service.fake_gateway import FakeGateway
from tests.support.postgres import ServiceDatabase

SHARED_KEY = "a-development-key-of-more-than-32-bytes"
COMMAND_KEY = "5c" * 32
ENDS = ("success", "failure", "cancel")


class Network(httpx.AsyncBaseTransport):
    """Who is asked how often, by host."""

    def __init__(self) -> None:
        self.by_host: dict[str, httpx.AsyncBaseTransport] = {}
        self.calls: list[str] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.calls.append(f"{request.method} {request.url.host}")
        return await self.by_host[request.url.host].handle_async_request(request)


@dataclass
class PayPath:
    orders: OrderContainer
    payments: PaymentContainer
    gateway: FakeGateway
    network: Network
    http: httpx.AsyncClient
    numbers: list[int] = field(default_factory=list)

    async def has_products(self) -> None:
        signer = build_signer(self.orders.settings, ports=self.orders.ports)
        token = signer.sign(subject="operator", audience="order_service", scopes="ops:write")
        for sku in ("moka-pot", "finjan-set"):
            body = {"name": sku, "price": {"amount_minor": 3900, "currency": "EUR"}, "stock": 100_000}
            answer = await self.http.put(
                f"/api/v1/products/{sku}", json=body, headers={"Authorization": f"Bearer {token}"}
            )
            assert answer.status_code == 200, answer.text

    def key(self) -> dict[str, str]:
        self.numbers.append(len(self.numbers))
        return {"Idempotency-Key": f"a-key-of-the-shopper-{len(self.numbers):06}"}

    async def order(self, **headers: str) -> dict[str, Any]:
        body = {
            "items": [{"sku": "moka-pot", "quantity": 1}, {"sku": "finjan-set", "quantity": 2}],
            "currency": "EUR",
            "customer": {"email": f"ada{len(self.numbers)}@example.com", "name": "Ada Lovelace"},
        }
        answer = await self.http.post("/api/v1/orders", json=body, headers=headers)
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    async def pay(self, order: dict[str, Any], **headers: str) -> dict[str, Any]:
        body = {"gateway": "generic", **{f"{name}_url": f"https://shop.example/{name}" for name in ENDS}}
        answer = await self.http.post(
            f"/api/v1/orders/{order['id']}/pay",
            json=body,
            headers={"X-Order-Secret": order["client_secret"], **headers},
        )
        assert answer.status_code == 200, answer.text
        return dict(answer.json())


@pytest.fixture
async def path(service_database: ServiceDatabase) -> AsyncIterator[PayPath]:
    system = system_ports()
    network, gateway = Network(), FakeGateway()
    ports = Ports(system.clock, system.ids, system.randomness, network)
    common: dict[str, Any] = {"environment": "development", "jwt_shared_key": SHARED_KEY}
    async with AsyncExitStack() as stack:
        payments = await stack.enter_async_context(
            build_payments(
                PaymentSettings.load(
                    database_url=service_database("payment_service"),
                    public_base_url="https://pay.example",
                    gateway_variables={"GENERIC_API_BASE": "https://gateway.test", "GENERIC_API_KEY": "gk_test"},
                    **common,
                ),
                ports=ports,
                bus=InProcessBus(system.clock),
            )
        )
        orders = await stack.enter_async_context(
            build_orders(
                OrderSettings.load(
                    database_url=service_database("order_service"),
                    payment_service_url="http://payments.test",
                    return_url_allowed_origins="https://shop.example",
                    command_signing_key=COMMAND_KEY,
                    order_rate_per_minute=100_000,
                    pay_rate_per_minute=100_000,
                    max_open_orders_per_email=100_000,
                    **common,
                ),
                ports=ports,
                bus=InProcessBus(system.clock),
            )
        )
        network.by_host["payments.test"] = httpx.ASGITransport(app=payment_application(payments))
        network.by_host["gateway.test"] = gateway
        front = httpx.ASGITransport(app=order_application(orders))
        http = await stack.enter_async_context(httpx.AsyncClient(transport=front, base_url="http://orders.test"))
        built = PayPath(orders, payments, gateway, network, http)
        await built.has_products()
        yield built
