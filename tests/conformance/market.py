"""A shop's whole way to its gateways, in one process: sandbox, ingest and payment service over real databases.

The gateways are those of the sandbox, over HTTP on a loopback port; their webhooks go into the real ingest service, and
from there over the in-process bus to the real payment worker. Nothing here knows a gateway by its name.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import httpx
from sqlalchemy import text

from deploy.local.dev import sandbox_addresses
from services.payment_service.bootstrap import Container as PaymentContainer
from services.payment_service.bootstrap import build as build_payment
from services.payment_service.main import create_application as payment_application
from services.payment_service.settings import PaymentSettings
from services.payment_service.settings import gateway_variables as payment_variables
from services.payment_service.worker import run_worker as run_payment_worker
from services.webhook_ingest.bootstrap import Container as IngestContainer
from services.webhook_ingest.bootstrap import build as build_ingest
from services.webhook_ingest.main import create_application as ingest_application
from services.webhook_ingest.settings import WebhookIngestSettings
from services.webhook_ingest.settings import gateway_variables as ingest_variables
from services.webhook_ingest.worker import run_worker as run_ingest_worker
from shared.clock import Clock, SystemClock, to_rfc3339
from shared.messaging.in_process import InProcessBus
from shared.money import Money
from shared.plugins import PLUGINS
from shared.ports import Ports, system_ports
from shared.web.auth import build_signer
from tests.support.gateway_sandbox import Receiver, RunningSandbox, gateway_secrets, running_sandbox
from tests.support.ports import free_port
from tests.support.postgres import PostgresServer
from tests.support.waiting import until

PUBLIC = "https://pay.example"
SHARED_KEY = "a-development-key-of-more-than-32-bytes"
SCOPES = "payments:read payments:write refunds:write captures:write webhooks:read"
_LATELY = "WHERE created_at > now() - interval '60 seconds'"
HELD_SECONDS = 0.05
"""How long a call waits that gets no answer."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A delivery as the gateway sent it."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    at: datetime


@dataclass
class Post(Receiver):
    """Carries the sandbox's webhooks to ingest, and remembers them."""

    ingest: httpx.AsyncClient | None = None
    clock: Clock = field(default_factory=SystemClock)
    sent: list[Sent] = field(default_factory=list)
    loses: bool = False
    """Whatever comes is lost on its way, and the sender is told that it arrived."""

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        assert self.ingest is not None
        if self.loses:
            return httpx.Response(200)
        body = await request.aread()
        headers = {name: value for name, value in request.headers.items() if name not in ("host", "content-length")}
        self.sent.append(Sent(request.url.path, headers, body, self.clock.now()))
        answer = await self.ingest.post(request.url.path, content=body, headers=headers)
        return httpx.Response(answer.status_code)


@dataclass
class Market:
    sandbox: RunningSandbox
    payment: PaymentContainer
    ingest: IngestContainer
    post: Post
    payments_http: httpx.AsyncClient
    ingest_http: httpx.AsyncClient
    variables: Mapping[str, str]
    numbers: itertools.count[int] = field(default_factory=itertools.count)
    signed: dict[str, Sent] = field(default_factory=dict)
    """One delivery about a payment by gateway, where any will do."""

    # --- paying ------------------------------------------------------------------------------------------------------

    async def call(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        signer = build_signer(self.payment.settings, ports=self.payment.ports)
        token = signer.sign(subject="operator", audience="payment_service", scopes=SCOPES)
        return await self.payments_http.request(
            method, f"/api/v1{path}", json=body, headers={"Authorization": f"Bearer {token}", **headers}
        )

    def order(self, gateway: str, amount: Money, **changes: Any) -> dict[str, Any]:
        ids = self.payment.ports.ids
        body = {
            "payment_id": ids.new("pay"),
            "order_id": ids.new("ord"),
            "gateway": gateway,
            "amount": {"amount_minor": amount.amount_minor, "currency": amount.currency},
            "description": "Two kinds of tea",
            "customer": {"email": "ada@example.com", "name": "Ada Lovelace", "phone": "+971500000001"},
            "items": [{"name": "Tea", "quantity": 1, "unit_amount_minor": amount.amount_minor}],
            "success_url": "https://shop.example/thanks",
            "failure_url": "https://shop.example/failed",
            "cancel_url": "https://shop.example/cart",
            "expires_at": to_rfc3339(self.payment.ports.clock.now() + timedelta(hours=1)),
        }
        return body | changes

    async def open(self, gateway: str, amount: Money, **changes: Any) -> dict[str, Any]:
        """A payment whose hosted page is open in the shopper's browser."""
        payment = await self.create(self.order(gateway, amount, **changes))
        await self.visit(payment)
        return payment

    async def create(self, order: Mapping[str, Any]) -> dict[str, Any]:
        answer = await self.call("POST", "/payments", order)
        assert answer.status_code in (200, 201), answer.text
        return dict(answer.json())

    async def create_somehow(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """However often it has to be asked for."""

        async def created() -> dict[str, Any] | None:
            answer = await self.call("POST", "/payments", order)
            assert answer.status_code < 500 or answer.status_code in (502, 503), answer.text
            return dict(answer.json()) if answer.status_code in (200, 201) else None

        found = await until(created, within_seconds=30, what="the page")
        return dict(found or {})

    async def visit(self, payment: Mapping[str, Any]) -> httpx.Response:
        """What the shopper's browser does with the next action, as far as the hosted page."""
        action = payment["next_action"]
        if action["type"] == "form_post":
            answer = await self.sandbox.client.post(action["url"], data=action["fields"])
        else:
            answer = await self.sandbox.client.get(action["url"])
        if answer.is_redirect:
            answer = await self.sandbox.client.get(answer.headers["location"])
        assert answer.status_code == 200, answer.text
        assert "<form" in answer.text, "the hosted page has no form"
        return answer

    async def shopper(self, payment: Mapping[str, Any], outcome: str, **more: Any) -> httpx.Response:
        """What the shopper decides on the hosted page."""
        answer = await self.sandbox.outcome(payment["gateway"], await self.session_of(payment), outcome, **more)
        assert answer.status_code == 200, answer.text
        return answer

    async def session_of(self, payment: Mapping[str, Any]) -> str:
        entry = await self.entry(payment)
        return str(entry["gateway_reference"])

    async def paid(self, gateway: str, amount: Money, **changes: Any) -> dict[str, Any]:
        payment = await self.open(gateway, amount, **changes)
        await self.shopper(payment, "succeed")
        wanted = "authorized" if changes.get("capture") == "manual" else "captured"
        return await self.becomes(payment, status=wanted)

    # --- looking -----------------------------------------------------------------------------------------------------

    async def see(self, payment: Mapping[str, Any]) -> dict[str, Any]:
        answer = await self.call("GET", f"/payments/{payment['payment_id']}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def sync(self, payment: Mapping[str, Any]) -> dict[str, Any]:
        answer = await self.call("POST", f"/payments/{payment['payment_id']}/sync")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def becomes(self, payment: Mapping[str, Any], **expected: Any) -> dict[str, Any]:
        async def reached() -> dict[str, Any]:
            seen = await self.see(payment)
            found = {name: seen[name] for name in expected}
            told = [(fact["kind"], fact["source"], fact["reason"]) for fact in seen["facts"]]
            assert found == expected, f"{found}, status {seen['status']}, facts {told}"
            return seen

        return await until(reached, within_seconds=20, what=f"{payment['gateway']}: {expected}")

    async def learns(self, payment: Mapping[str, Any], kinds: frozenset[str]) -> None:
        """Until a fact of one of these kinds is known, by the gateway's word or by asking."""

        async def is_known() -> bool:
            known = {fact["kind"] for fact in (await self.sync(payment), await self.see(payment))[1]["facts"]}
            assert known & kinds, f"{payment['gateway']} has told {sorted(known)}"
            return True

        await until(is_known, within_seconds=20, what=f"{payment['gateway']}: one of {sorted(kinds)}")

    async def trust_in(self, deliveries: Sequence[str]) -> set[str]:
        """How ingest has handed these deliveries on."""

        bodies: list[bytes] = []

        async def are_rendered() -> bool:
            async with self.ingest.database.begin() as connection:
                statement = text("SELECT body FROM outbox_messages WHERE subject = ANY(:ids)")
                bodies[:] = (await connection.execute(statement, {"ids": list(deliveries)})).scalars()
            return all(bodies)

        await until(are_rendered, what="the events of deliveries, which are rendered when they are published")
        return {json.loads(body)["data"]["trust"] for body in bodies}

    async def comes_to(self, payment: Mapping[str, Any], **expected: Any) -> dict[str, Any]:
        """As ``becomes``, with the gateway asked meanwhile."""

        async def reached() -> dict[str, Any]:
            await self.sync(payment)
            seen = await self.see(payment)
            found = {name: seen[name] for name in expected}
            assert found == expected, f"{found}, status {seen['status']}"
            return seen

        return await until(reached, within_seconds=20, what=f"{payment['gateway']}: {expected}")

    async def entry(self, payment: Mapping[str, Any]) -> dict[str, Any]:
        """What the gateway's books say: by the session that we know, else by our reference."""
        return (await self.entries(payment))[-1]

    async def entries(self, payment: Mapping[str, Any]) -> list[dict[str, Any]]:
        known = {attempt["reference"] for attempt in payment["attempts"]}
        known |= {attempt["gateway_reference"] for attempt in payment["attempts"]}
        payments = (await self._books_about(payment))["payments"]
        return [each for each in payments if {each["reference"], each["gateway_reference"]} & (known - {None})]

    async def _books_about(self, payment: Mapping[str, Any]) -> dict[str, Any]:
        """By our reference, where the gateway is told it when the page is opened; else all of its books."""
        for attempt in payment["attempts"]:
            books = await self.sandbox.books(payment["gateway"], reference=attempt["reference"])
            if books["payments"]:
                return books
        return await self.sandbox.books(payment["gateway"])

    async def quiet(self) -> None:
        """Until every delivery that ingest took was looked at by the payment service, and what followed is told."""

        async def all_looked_at() -> bool:
            async with self.ingest.database.begin() as connection:
                rows = await connection.execute(text(f"SELECT message_id FROM outbox_messages {_LATELY}"))
                sent = set(rows.scalars())
            async with self.payment.database.begin() as connection:
                rows = await connection.execute(text("SELECT message_id FROM inbox_messages WHERE status = 'done'"))
                looked_at = set(rows.scalars())
                untold = text("SELECT count(*) FROM outbox_messages WHERE published_at IS NULL")
                return sent <= looked_at and (await connection.execute(untold)).scalar() == 0

        await until(all_looked_at, within_seconds=20, what="every delivery to be looked at")

    async def deliveries_of(self, payment: Mapping[str, Any]) -> list[Sent]:
        """What the gateway has sent about a payment and seen accepted, oldest first."""
        reference = await self.session_of(payment)

        async def delivered() -> bool:
            hooks = (await self._books_about(payment))["webhooks"]
            about = [w for w in hooks if w["gateway_reference"] == reference]
            assert {w["state"] for w in about} <= {"delivered", "lost"}, about
            return bool(about)

        await until(delivered, what=f"the webhooks of {payment['gateway']}")
        return [sent for sent in self.post.sent if sent.path.endswith(f"/{payment['gateway']}")]

    async def ingested(self, gateway: str) -> list[tuple[str, str]]:
        """Content type and payload of the events that ingest has published about a gateway's deliveries."""
        async with self.ingest.database.begin() as connection:
            rows = await connection.execute(text("SELECT body FROM outbox_messages WHERE body <> '' ORDER BY position"))
            events = [json.loads(body)["data"] for body in rows.scalars()]
        return [(each["content_type"], each["payload"]) for each in events if each["gateway"] == gateway]

    async def deliver(self, sent: Sent, **changes: Any) -> httpx.Response:
        body = changes.get("body", sent.body)
        return await self.ingest_http.post(sent.path, content=body, headers=dict(sent.headers))

    # --- money -------------------------------------------------------------------------------------------------------

    async def move(
        self, payment: Mapping[str, Any], what: str, amount_minor: int | None = None, **more: Any
    ) -> httpx.Response:
        """``what``: captures, void or refunds."""
        body: dict[str, Any] = dict(more)
        if what != "captures":
            body["reason"] = "conformance"
        if amount_minor is not None:
            body["amount"] = {"amount_minor": amount_minor, "currency": payment["amount"]["currency"]}
        key = f"conformance-key-{next(self.numbers):08}"
        return await self.call("POST", f"/payments/{payment['payment_id']}/{what}", body, **{"Idempotency-Key": key})

    async def refund(self, payment: Mapping[str, Any], amount_minor: int | None = None) -> dict[str, Any]:
        answer = await self.move(payment, "refunds", amount_minor)
        assert answer.status_code in (201, 202), answer.text
        return dict(answer.json())

    async def operation(self, what: str, operation: Mapping[str, Any]) -> dict[str, Any]:
        answer = await self.call("GET", f"/{what}/{operation['id']}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    # --- faults ------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def faults(self, gateway: str, *faults: Mapping[str, Any]) -> AsyncIterator[None]:
        await self.sandbox.faults(gateway, *[dict(fault) for fault in faults])
        try:
            yield
        finally:
            await self.sandbox.client.delete(f"/sandbox/control/{gateway}/faults")

    async def faults_left(self, gateway: str) -> list[dict[str, Any]]:
        answer = await self.sandbox.client.get(f"/sandbox/control/{gateway}/faults")
        return [fault for fault in answer.json() if fault["remaining"] != 0]


@asynccontextmanager
async def open_market(
    server: PostgresServer, *, bus: InProcessBus | None = None, command_keys: str | None = None
) -> AsyncIterator[Market]:
    """``bus``: one that other services are on too; ``command_keys``: whose commands payment_service obeys."""
    names = [server.create_database(template=server.template_for(name)) for name in _SERVICES]
    urls = (server.url(name) for name in names)
    try:
        async with _market(*urls, bus=bus or InProcessBus(SystemClock()), command_keys=command_keys) as market:
            yield market
    finally:
        for name in names:
            server.drop_database(name)


_SERVICES = ("gateway_sandbox", "payment_service", "webhook_ingest")


@asynccontextmanager
async def _market(
    sandbox_url: str, payment_url: str, ingest_url: str, *, bus: InProcessBus, command_keys: str | None
) -> AsyncIterator[Market]:
    port = free_port()
    variables = {**gateway_secrets(), **sandbox_addresses(f"http://127.0.0.1:{port}")}
    post, ports = Post(), system_ports()
    real = Ports(ports.clock, ports.ids, ports.randomness, httpx.AsyncHTTPTransport())
    async with AsyncExitStack() as stack:
        sandbox = await stack.enter_async_context(
            running_sandbox(
                sandbox_url,
                receiver=post,
                port=port,
                gateway_variables=variables,
                sandbox_webhook_base_url=PUBLIC,
                database_pool_size=8,
            )
        )
        ingest = await stack.enter_async_context(
            build_ingest(_ingest_settings(ingest_url, variables), ports=real, bus=bus)
        )
        payment = await stack.enter_async_context(
            build_payment(_payment_settings(payment_url, variables, command_keys), ports=real, bus=bus)
        )
        ingest_http = await stack.enter_async_context(_client(ingest_application(ingest)))
        payments_http = await stack.enter_async_context(_client(payment_application(payment)))
        post.ingest = ingest_http
        await stack.enter_async_context(_running(run_ingest_worker(ingest)))
        await stack.enter_async_context(_running(run_payment_worker(payment)))
        yield Market(sandbox, payment, ingest, post, payments_http, ingest_http, variables)


def _payment_settings(url: str, variables: Mapping[str, str], command_keys: str | None) -> PaymentSettings:
    return PaymentSettings.load(
        environment="development",
        database_url=url,
        jwt_shared_key=SHARED_KEY,
        public_base_url=PUBLIC,
        database_pool_size=12,
        return_budget_seconds=20,
        command_keys=command_keys,
        gateway_variables=payment_variables(_with_plugins(variables)),
        gateway_breaker_failures_in_a_row=1_000_000,  # faults are no news here
        gateway_breaker_minimum_calls=1_000_000,
    )


def _ingest_settings(url: str, variables: Mapping[str, str]) -> WebhookIngestSettings:
    return WebhookIngestSettings.load(
        environment="development",
        database_url=url,
        jwt_shared_key=SHARED_KEY,
        public_base_url=PUBLIC,
        webhook_failed_verifications_per_minute=100_000,
        gateway_variables=ingest_variables(_with_plugins(variables)),
    )


def _with_plugins(variables: Mapping[str, str]) -> Mapping[str, str]:
    """Which settings are gateways' is said by the gateways that there are, also those outside the repository."""
    return {PLUGINS: os.environ.get(PLUGINS, ""), **variables}


@asynccontextmanager
async def _client(application: Any) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=application, client=("203.0.113.9", 50000))
    async with httpx.AsyncClient(transport=transport, base_url=PUBLIC, timeout=30) as client:
        yield client


@asynccontextmanager
async def _running(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
