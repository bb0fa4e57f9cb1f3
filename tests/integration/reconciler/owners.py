"""payment_service and order_service as the comparison sees them (exports, lists), and a reconciler over them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import httpx
from sqlalchemy import text

from services.reconciler.bootstrap import Container, build
from services.reconciler.domain.models import RunRequest
from services.reconciler.settings import ReconcilerSettings
from services.reconciler.use_cases.compare_orders import compare_orders
from services.reconciler.use_cases.ports import Context
from services.reconciler.use_cases.pull_exports import pull_exports
from services.reconciler.use_cases.running import RunOutcome
from shared.clock import to_rfc3339
from shared.ids import TimeOrderedIds
from shared.messaging.in_process import InProcessBus
from shared.ports import Ports
from tests.support.clock import FakeClock, SeededRandomness

JWT_KEY = "a-development-key-of-more-than-32-bytes"
COMMAND_KEY = "5b" * 32
LONG = timedelta(hours=2)
"""Longer than any grace."""


class Killed(BaseException):
    """The process ends here."""


async def no_progress(phase: str, done: int = 0, total: int | None = None) -> None:
    """Nobody looks."""


class Owners(httpx.AsyncBaseTransport):
    """Speaks the contract of contracts/exports.py, and can break off, be away, or answer something else."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.payments: dict[str, dict[str, Any]] = {}
        self.orders: dict[str, dict[str, Any]] = {}
        self.parked: dict[str, dict[str, Any]] = {}
        self.lists: dict[str, list[dict[str, Any]]] = {}
        self.lists_away: set[str] = set()
        self.page_size = 2
        self.raw: dict[str, bytes] = {}
        """What an export answers instead of its documents."""
        self.breaks_after: dict[str, int] = {}
        """Lines of an export after which the connection is lost."""
        self.status: dict[str, int] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []

    def now(self) -> str:
        return to_rfc3339(self._clock.now())

    def ago(self, **delta: float) -> str:
        return to_rfc3339(self._clock.now() - timedelta(**delta))

    def pays(self, payment_id: str = "pay_1", order_id: str = "ord_1", **changes: Any) -> str:
        """A payment that was captured two hours ago, unless the changes say otherwise."""
        at = to_rfc3339(self._clock.now() - LONG)
        document = {
            "payment_id": payment_id,
            "order_id": order_id,
            "gateway": "generic",
            "status": "captured",
            "version": 3,
            "amount": {"amount_minor": 1000, "currency": "EUR"},
            "amount_authorized": 1000,
            "amount_captured": 1000,
            "gateway_reference": f"gw_{payment_id}",
            "created_at": at,
            "updated_at": at,
            "references": [f"gw_{payment_id}", f"our{payment_id}"],
            "movements": [
                {
                    "kind": "sale",
                    "reference": f"gw_{payment_id}",
                    "our_reference": f"our{payment_id}",
                    "amount_minor": 1000,
                    "currency": "EUR",
                    "occurred_at": at,
                }
            ],
        }
        if changes.get("status", "captured") not in ("captured", "partially_captured", "authorized"):
            document |= {"amount_authorized": 0, "amount_captured": 0, "movements": []}
        self.payments[payment_id] = document | changes
        return payment_id

    def orders_it(self, order_id: str = "ord_1", *, knows: Sequence[dict[str, Any]] = (), **changes: Any) -> str:
        at = to_rfc3339(self._clock.now() - LONG)
        document = {
            "order_id": order_id,
            "status": "open",
            "payment_status": "pending",
            "total": {"amount_minor": 1000, "currency": "EUR"},
            "confirmed_by": None,
            "version": 1,
            "created_at": at,
            "updated_at": at,
            "payments": list(knows),
        }
        self.orders[order_id] = document | changes
        return order_id

    def knowing(self, payment_id: str = "pay_1", **changes: Any) -> dict[str, Any]:
        """A payment as an order knows it."""
        document = {"payment_id": payment_id, "status": "captured", "version": 3, "amount_captured": 1000}
        return document | {"amount_refunded": 0, "resolution": None} | changes

    def confirms(self, order_id: str = "ord_1", payment_id: str = "pay_1", **known: Any) -> str:
        return self.orders_it(
            order_id,
            knows=[self.knowing(payment_id, **known)],
            status="confirmed",
            payment_status="paid",
            confirmed_by=payment_id,
        )

    def changes(self, documents: dict[str, dict[str, Any]], key: str, **changes: Any) -> None:
        """It is so now, as a new version of just this moment."""
        version = documents[key]["version"] + 1
        documents[key] = documents[key] | {"version": version, "updated_at": self.now()} | changes

    def parks(self, parked_id: str = "prk_1", *references: str) -> str:
        self.parked[parked_id] = {
            "parked_id": parked_id,
            "gateway": "generic",
            "delivery_id": f"whd_{parked_id}",
            "event_type": "payment.captured",
            "status": "unclaimed",
            "references": list(references),
            "received_at": self.ago(days=1),
        }
        return parked_id

    def lists_it(self, reference: str, *, payment_id: str | None = None, minor: int = 1000, **changes: Any) -> None:
        entry = {
            "payment_id": payment_id,
            "references": [reference],
            "our_references": [],
            "created_at": self.ago(hours=5),
            "observations": [
                {
                    "kind": "captured",
                    "object_reference": reference,
                    "amount": {"amount_minor": minor, "currency": "EUR"},
                }
            ],
        }
        self.lists.setdefault("generic", []).append(entry | changes)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        params = dict(request.url.params)
        self.asked.append((request.url.path, params))
        assert request.headers["authorization"].startswith("Bearer ")
        if request.url.path.startswith("/api/v1/exports/"):
            return self._export(request.url.host, request.url.path.rpartition("/")[2], params.get("updated_since"))
        if request.url.path == "/api/v1/gateways":
            named = [{"name": name, "capabilities": ["capture", "list_by_window"]} for name in self.lists]
            return _answer({"data": [*named, {"name": "blind", "capabilities": []}]})
        gateway = request.url.path.split("/")[4]
        if gateway in self.lists_away:
            return _answer({"code": "gateway_unavailable"}, status=503)
        start = int(params.get("cursor", "0"))
        page = self.lists[gateway][start : start + self.page_size]
        more = start + self.page_size < len(self.lists[gateway])
        return _answer({"data": page, "next_cursor": str(start + self.page_size) if more else None})

    def _export(self, host: str, what: str, since: str | None) -> httpx.Response:
        assert host == ("orders.test" if what == "orders" else "payments.test")
        if what in self.status:
            return _answer({"code": "forbidden"}, status=self.status[what])
        if what in self.raw:
            return httpx.Response(200, stream=_Stream([self.raw[what]]))
        name, documents = {
            "payments": ("payment", self.payments),
            "orders": ("order", self.orders),
            "parked-events": ("parked_event", self.parked),
        }[what]
        chosen = [each for each in documents.values() if since is None or each.get("updated_at", since) >= since]
        lines = [json.dumps({name: each}).encode() + b"\n" for each in chosen]
        lines.append(json.dumps({"end": {"count": len(chosen)}}).encode() + b"\n")
        return httpx.Response(200, stream=_Stream(lines, self.breaks_after.get(what)))


class _Stream(httpx.AsyncByteStream):
    """The lines in pieces that do not end where lines end."""

    def __init__(self, lines: Sequence[bytes], breaks_after: int | None = None) -> None:
        self._lines = lines
        self._breaks_after = breaks_after

    async def __aiter__(self) -> AsyncIterator[bytes]:
        rest = b""
        for number, line in enumerate(self._lines):
            if number == self._breaks_after:
                raise httpx.ReadError("reset")
            content = rest + line
            if len(content) > 1 << 16:
                yield content[:-7]
                rest = content[-7:]
            else:
                rest = content
        yield rest


def _answer(body: dict[str, Any], *, status: int = 200) -> httpx.Response:
    return httpx.Response(status, stream=_Stream([json.dumps(body).encode()]))


class Comparing:
    """A reconciler over the owners, and what it does."""

    def __init__(self, container: Container, owners: Owners, clock: FakeClock) -> None:
        self.container = container
        self.owners = owners
        self.clock = clock
        self.runs = 0

    @property
    def context(self) -> Context:
        return self.container.context

    async def pulls(self) -> None:
        await pull_exports(self.context, no_progress)

    async def compares(
        self, *, run_id: str | None = None, context: Context | None = None, **request: Any
    ) -> RunOutcome:
        self.runs += 1
        self.clock.move(1)
        run_id = run_id or f"run_{self.runs}"
        return await compare_orders(run_id, RunRequest(**request), context or self.context, no_progress)

    def without(self, **rules: Any) -> Context:
        """The context with other rules."""
        return replace(self.context, order_rules=replace(self.context.order_rules, **rules))

    async def rows(self, sql: str, **values: Any) -> list[dict[str, Any]]:
        async with self.container.database.begin() as connection:
            return [dict(row) for row in (await connection.execute(text(sql), values)).mappings()]

    async def execute(self, sql: str, values: Any = None) -> None:
        async with self.container.database.begin() as connection:
            await connection.execute(text(sql), values or {})

    async def cases(self) -> list[dict[str, Any]]:
        return await self.rows("SELECT * FROM cases ORDER BY key, case_id")

    async def found(self) -> list[tuple[str, str | None, str]]:
        """Scenario, action and status of every case."""
        return [(each["scenario"], each["action"], each["status"]) for each in await self.cases()]

    async def commands(self) -> list[dict[str, Any]]:
        """What was sent, oldest first: the type, and the command's own fields."""
        rows = await self.rows("SELECT type, body FROM outbox_messages ORDER BY position")
        return [
            {"type": row["type"], **json.loads(row["body"])["data"]}
            for row in rows
            if not row["type"].startswith("reconciliation.")
        ]

    async def mark(self, source: str) -> datetime | None:
        rows = await self.rows("SELECT pulled_until FROM pull_marks WHERE source = :source", source=source)
        return rows[0]["pulled_until"] if rows else None


@asynccontextmanager
async def comparing(url: str, **settings: Any) -> AsyncIterator[Comparing]:
    """``url``: an empty database of the reconciler; another one on the same is a replica."""
    clock = FakeClock()
    owners = Owners(clock)
    async with AsyncExitStack() as stack:
        randomness = SeededRandomness(3)
        ports = Ports(clock, TimeOrderedIds(clock, randomness), randomness, http_transport=owners)
        values: dict[str, Any] = {
            "environment": "development",
            "database_url": url,
            "jwt_shared_key": JWT_KEY,
            "payment_service_url": "http://payments.test",
            "order_service_url": "http://orders.test",
            "command_signing_key": COMMAND_KEY,
        }
        loaded = ReconcilerSettings.load(**(values | settings))
        container = await stack.enter_async_context(build(loaded, ports=ports, bus=InProcessBus(clock)))
        yield Comparing(container, owners, clock)
