"""A whole Payrail in one process over real databases, in which things can be lost: events, webhooks, rows.

The market (sandbox, ingest, payment service) with an order service and a reconciler beside it, all on one bus. Nothing
is faked but the network between them. The reconciler does nothing by itself here: tests ask for its runs.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import httpx
from sqlalchemy import text

from services.order_service.bootstrap import Container as OrderContainer
from services.order_service.bootstrap import build as build_order
from services.order_service.main import create_application as order_application
from services.order_service.settings import OrderSettings
from services.order_service.worker import run_worker as run_order_worker
from services.payment_service.main import create_application as payment_application
from services.reconciler.bootstrap import Container as ReconcilerContainer
from services.reconciler.bootstrap import build as build_reconciler
from services.reconciler.main import create_application as reconciler_application
from services.reconciler.settings import ReconcilerSettings
from services.reconciler.worker import run_worker as run_reconciler_worker
from shared.clock import SystemClock
from shared.contracts.envelope import EventEnvelope
from shared.db.session import Database
from shared.messaging.bus import BatchHandler, ClaimedEvent, Subscription
from shared.messaging.in_process import InProcessBus
from shared.money import Money
from shared.ports import Ports
from shared.web.auth import build_signer
from tests.conformance.cases import subjects
from tests.conformance.market import SHARED_KEY, Market, open_market
from tests.conformance.market import _running as running
from tests.support.postgres import PostgresServer
from tests.support.waiting import until

COMMAND_KEY = "5c" * 32
COMMAND_KEYS = f"order_service:{COMMAND_KEY},reconciler:{COMMAND_KEY}"
NEVER = 3600.0
SANDBOX_FEES = {"basis_points": 250, "tax_percent": 18, "tolerance_minor": 0, "rounding": "down"}
PRICE = Money(3900, "EUR")


class LossyBus(InProcessBus):
    """Loses the messages of the queues that ``losing`` names: they are taken, and nothing comes of them."""

    def __init__(self) -> None:
        super().__init__(SystemClock())
        self.lost: set[str] = set()

    def subscribe(self, subscription: Subscription) -> None:
        handler, batch = subscription.handler, subscription.batch

        def is_lost() -> bool:
            return subscription.queue.name in self.lost

        async def may_lose(*arguments: Any) -> None:
            if not is_lost():
                await handler(*arguments)

        super().subscribe(replace(subscription, handler=may_lose, batch=batch and _NotWhileLosing(batch, is_lost)))


class _NotWhileLosing:
    """What is to be lost goes one by one, to where it is lost."""

    def __init__(self, batch: BatchHandler, is_lost: Callable[[], bool]) -> None:
        self._batch = batch
        self._is_lost = is_lost

    def takes(self, envelope: EventEnvelope) -> bool:
        return not self._is_lost() and self._batch.takes(envelope)

    async def __call__(self, events: Sequence[ClaimedEvent]) -> None:
        await self._batch(events)


class Hosts(httpx.AsyncBaseTransport):
    """Services by the host that they are asked at."""

    def __init__(self) -> None:
        self.by_host: dict[str, httpx.AsyncBaseTransport] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self.by_host[request.url.host].handle_async_request(request)


@dataclass
class Town:
    market: Market
    bus: LossyBus
    orders: OrderContainer
    reconciler: ReconcilerContainer
    http: httpx.AsyncClient
    settings: Mapping[str, Any]

    # --- what shoppers and operators do ------------------------------------------------------------------------------

    async def call(self, host: str, method: str, path: str, *, scopes: str = "", **more: Any) -> httpx.Response:
        container: Any = {"orders": self.orders, "reconciler": self.reconciler, "payments": self.market.payment}[host]
        signer = build_signer(container.settings, ports=container.ports)
        audience = container.settings.jwt_audience
        subject = more.pop("subject", "operator")
        headers = {"Authorization": f"Bearer {signer.sign(subject=subject, audience=audience, scopes=scopes)}"}
        url = f"http://{host}.test/api/v1{path}"
        return await self.http.request(method, url, headers=headers | more.pop("headers", {}), **more)

    async def has_product(self, *, stock: int = 10, policy: str = "refund", price: Money = PRICE) -> str:
        """A new one; returns its sku."""
        sku = f"moka-pot-{next(self.market.numbers)}"
        body = {
            "name": "Moka pot",
            "price": {"amount_minor": price.amount_minor, "currency": price.currency},
            "stock": stock,
            "reconcile_policy": policy,
        }
        answer = await self.call("orders", "PUT", f"/products/{sku}", json=body, scopes="ops:write")
        assert answer.status_code == 200, answer.text
        return sku

    async def order(self, sku: str, *, quantity: int = 1, currency: str = "EUR") -> dict[str, Any]:
        body = {
            "items": [{"sku": sku, "quantity": quantity}],
            "currency": currency,
            "customer": {"email": "ada@example.com", "name": "Ada Lovelace", "phone": "+971500000001"},
        }
        answer = await self.http.post("http://orders.test/api/v1/orders", json=body)
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    async def pay(self, order: Mapping[str, Any], gateway: str = "generic", **changes: Any) -> dict[str, Any]:
        """The payment, with its hosted page open."""
        body = {"gateway": gateway, **{f"{name}_url": f"https://shop.example/{name}" for name in _ENDS}} | changes
        answer = await self.http.post(
            f"http://orders.test/api/v1/orders/{order['id']}/pay",
            json=body,
            headers={"X-Order-Secret": order["client_secret"]},
        )
        assert answer.status_code == 200, answer.text
        payment = await self.market.see({"payment_id": answer.json()["payment_id"]})
        await self.market.visit({**payment, "next_action": answer.json()["next_action"]})
        return payment

    async def paid_order(self, sku: str, gateway: str = "generic") -> tuple[dict[str, Any], dict[str, Any]]:
        order = await self.order(sku)
        payment = await self.pay(order, gateway)
        await self.market.shopper(payment, "succeed")
        payment = await self.market.becomes(payment, status="captured")
        return await self.order_becomes(order, status="confirmed"), payment

    async def cancels(self, order: Mapping[str, Any]) -> httpx.Response:
        return await self.http.post(
            f"http://orders.test/api/v1/orders/{order['id']}/cancel",
            headers={"X-Order-Secret": order["client_secret"]},
        )

    async def see_order(self, order: Mapping[str, Any]) -> dict[str, Any]:
        answer = await self.call("orders", "GET", f"/orders/{order['id']}", scopes="orders:read")
        assert answer.status_code == 200, answer.text
        return {**answer.json(), "client_secret": order.get("client_secret")}

    async def order_becomes(self, order: Mapping[str, Any], **expected: Any) -> dict[str, Any]:
        async def reached() -> dict[str, Any]:
            seen = await self.see_order(order)
            found = {name: seen[name] for name in expected}
            assert found == expected, f"{found} instead of {expected}"
            return seen

        return await until(reached, within_seconds=20, what=f"the order: {expected}")

    async def stock(self, sku: str) -> tuple[int, int]:
        """On hand, and reserved."""
        [row] = await self.rows(
            self.orders.database, "SELECT on_hand, reserved FROM products WHERE sku = :sku", sku=sku
        )
        return row["on_hand"], row["reserved"]

    # --- what gets lost ----------------------------------------------------------------------------------------------

    @contextmanager
    def losing(self, *queues: str) -> Any:
        """Events on their way to these queues are lost meanwhile."""
        self.bus.lost |= set(queues)
        try:
            yield
        finally:
            self.bus.lost -= set(queues)

    @contextmanager
    def losing_webhooks(self) -> Any:
        self.market.post.loses = True
        try:
            yield
        finally:
            self.market.post.loses = False

    # --- the reconciler ----------------------------------------------------------------------------------------------

    async def run(self, kind: str = "orders", **body: Any) -> dict[str, Any]:
        answer = await self.call(
            "reconciler", "POST", "/reconciliation/runs", json={"kind": kind} | body, scopes="recon:write"
        )
        assert answer.status_code == 202, answer.text
        return await self.ended(answer.json()["run_id"])

    async def ended(self, run_id: str) -> dict[str, Any]:
        async def has_ended() -> dict[str, Any] | None:
            answer = await self.call("reconciler", "GET", f"/reconciliation/runs/{run_id}", scopes="recon:read")
            run = dict(answer.json())
            return run if run["status"] != "running" else None

        run = dict(await until(has_ended, within_seconds=30, what="the run to end") or {})
        assert run["status"] == "completed", run
        await self.is_told()
        return run

    async def is_told(self) -> None:
        """Until every event and command of the reconciler has been taken by whom it is for."""

        async def published() -> bool:
            sql = "SELECT count(*) AS waiting FROM outbox_messages WHERE published_at IS NULL"
            return bool((await self.rows(self.reconciler.database, sql))[0]["waiting"] == 0)

        await until(published, within_seconds=20, what="the reconciler's outbox to be empty")

    async def cases(self, **filter_: Any) -> list[dict[str, Any]]:
        answer = await self.call("reconciler", "GET", "/reconciliation/cases", params=filter_, scopes="recon:read")
        assert answer.status_code == 200, answer.text
        return list(answer.json()["data"])

    async def case(self, case_id: str) -> dict[str, Any]:
        answer = await self.call("reconciler", "GET", f"/reconciliation/cases/{case_id}", scopes="recon:read")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    # --- rows --------------------------------------------------------------------------------------------------------

    async def rows(self, database: Database, sql: str, **values: Any) -> list[dict[str, Any]]:
        async with database.begin() as connection:
            result = await connection.execute(text(sql), values)
            return [dict(row) for row in result.mappings()] if result.returns_rows else []

    async def eventually_rows(self, database: Database, sql: str, **values: Any) -> list[dict[str, Any]]:
        async def found() -> list[dict[str, Any]]:
            return await self.rows(database, sql, **values)

        return list(await until(found, within_seconds=30, what=sql) or [])

    async def commands_for(self, case: Mapping[str, Any]) -> list[str]:
        """The types of the commands that were sent for a case, oldest first."""
        sql = "SELECT body FROM outbox_messages WHERE type LIKE '%requested%' ORDER BY position"
        events = [json.loads(row["body"]) for row in await self.rows(self.reconciler.database, sql)]
        return [event["type"] for event in events if event["data"]["command_key"].startswith(case["case_id"])]


_ENDS = ("success", "failure", "cancel")


@asynccontextmanager
async def open_town(server: PostgresServer, **settings: Any) -> AsyncIterator[Town]:
    names = {
        name: server.create_database(template=server.template_for(name)) for name in ("order_service", "reconciler")
    }
    urls = {name: server.url(database) for name, database in names.items()}
    try:
        async with _town(server, urls, settings) as town:
            yield town
    finally:
        for name in names.values():
            server.drop_database(name)


@asynccontextmanager
async def _town(server: PostgresServer, urls: Mapping[str, str], settings: Mapping[str, Any]) -> AsyncIterator[Town]:
    bus, hosts = LossyBus(), Hosts()
    async with AsyncExitStack() as stack:
        market = await stack.enter_async_context(open_market(server, bus=bus, command_keys=COMMAND_KEYS))
        ports = Ports(market.payment.ports.clock, market.payment.ports.ids, market.payment.ports.randomness, hosts)
        order_settings = OrderSettings.load(**_common(urls["order_service"]), command_keys=f"reconciler:{COMMAND_KEY}")
        orders = await stack.enter_async_context(build_order(order_settings, ports=ports, bus=bus))
        reconciler_settings = ReconcilerSettings.load(**_common(urls["reconciler"]), **_at_once(), **settings)
        reconciler = await stack.enter_async_context(build_reconciler(reconciler_settings, ports=ports, bus=bus))
        for host, application in (
            ("payments.test", payment_application(market.payment)),
            ("orders.test", order_application(orders)),
            ("reconciler.test", reconciler_application(reconciler)),
        ):
            hosts.by_host[host] = httpx.ASGITransport(app=application, client=("203.0.113.9", 50000))
        http = await stack.enter_async_context(httpx.AsyncClient(transport=hosts, timeout=30))
        await stack.enter_async_context(running(run_order_worker(orders)))
        await stack.enter_async_context(running(run_reconciler_worker(reconciler)))
        yield Town(market, bus, orders, reconciler, http, settings)


def _common(url: str) -> dict[str, Any]:
    return {
        "environment": "development",
        "database_url": url,
        "jwt_shared_key": SHARED_KEY,
        "payment_service_url": "http://payments.test",
        "command_signing_key": COMMAND_KEY,
        "return_url_allowed_origins": "https://shop.example",
    }


def _at_once() -> dict[str, Any]:
    """Nothing happens by itself, and no difference is too young to be one."""
    return {
        "order_service_url": "http://orders.test",
        "sweep_interval_seconds": NEVER,
        "orders_run_interval_seconds": 0,
        "settlement_run_interval_seconds": 0,
        "settlement_report_days": 0,
        "orders_grace_seconds": 0,
        "gateway_list_lag_seconds": 0,
        "gateway_list_days": 0.02,  # some gateways list by the hour
        "pull_overlap_seconds": 60,
        "settlement_delay_days": dict.fromkeys(subjects(), 0),
        "settlement_fees": dict.fromkeys(subjects(), SANDBOX_FEES),
    }
