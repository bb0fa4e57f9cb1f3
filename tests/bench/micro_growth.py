"""What each hot step costs when few rows are stored and when very many are: PostgreSQL's CPU, WAL, pages.

``python -m tests.bench.micro_growth [many] [few] [rounds]`` (1 000 000, 10 000, 8). Two sets of databases take turns
with the same batches, so that a noisy neighbour meets both. Everything is committed, as in a service, and CPU is what
the kernel counts for the backends, so waiting costs nothing.

Three times: after a start, when nothing is in memory and every page is touched for the first time since a checkpoint;
when all of it is in memory, but a checkpoint has just been; and between checkpoints, which is nearly always.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import astuple, dataclass
from itertools import count
from pathlib import Path

from deploy.local.postgres import EmbeddedPostgres
from services.payment_service.bootstrap import build
from services.payment_service.settings import PaymentSettings
from services.webhook_ingest.db.delivery_rows import INSERT, columns_of, row_of
from services.webhook_ingest.domain.models import Delivery
from services.webhook_ingest.signatures.port import Trust
from shared.clock import SystemClock
from shared.db.migrations import upgrade
from shared.db.outbox import claim_waiting, mark_published, read_events
from shared.db.session import Database
from shared.ids import TimeOrderedIds
from shared.messaging.in_process import InProcessBus
from shared.ports import Ports
from shared.randomness import SystemRandomness
from tests.bench import history, micro_apply
from tests.bench.stack import connected
from tests.bench.webhooks import About

BATCH = 50
BATCHES = 8
"""In a round of each step."""
SETTINGS = {
    "autovacuum": "off",
    "shared_buffers": "1GB",
    "max_wal_size": "16GB",
    "checkpoint_timeout": "1h",
    "maintenance_work_mem": "512MB",
}
"""Of a server that is meant for so many rows, and has no checkpoint but those that are asked for."""
CLOCK = SystemClock()
PORTS = Ports(CLOCK, TimeOrderedIds(CLOCK, SystemRandomness()), SystemRandomness(), None)
NUMBERS = count(1)
BODY = json.dumps({"id": "x" * 30, "filler": "what a gateway says " * 40}).encode()
ABOUT = About("pay_01jf00000000000000" + "0" * 8, "gp_" + "0" * 8)

_PAYMENT = "'pay_01jf00000000000000' || lpad(n::text, 8, '0')"
PAYMENTS = {
    "payments": f"""INSERT INTO payments (payment_id, order_id, gateway, amount_minor, currency, capture, status,
        version, description, customer, items, success_url, failure_url, cancel_url, request_digest, created_at,
        updated_at, expires_at, gateway_reference, amount_captured, amount_authorized)
        SELECT {_PAYMENT}, 'ord_' || n, 'generic', 1999, 'EUR', 'automatic', 'captured', 3, 'Order', '{{}}', '[]', 'a',
        'b', 'c', 'd', now(), now(), now(), 'gp_' || md5(n::text), 1999, 1999 FROM generate_series(1, %rows%) n""",
    "payment_references": f"""INSERT INTO payment_references (gateway, reference, payment_id)
        SELECT 'generic', 'gp_' || md5(n::text), {_PAYMENT} FROM generate_series(1, %rows%) n""",
    "payment_attempts": f"""INSERT INTO payment_attempts (attempt_id, payment_id, reference, idempotency_key, status,
        session_expires_at, gateway_reference)
        SELECT 'att_01jf' || lpad(n::text, 22, '0'), {_PAYMENT}, lpad(n::text, 20, '0'), 'k' || n, 'open', now(),
        'gp_' || md5(n::text) FROM generate_series(1, %rows%) n""",
    "outbox_sequences": f"""INSERT INTO outbox_sequences (subject, last_sequence)
        SELECT {_PAYMENT}, 2 FROM generate_series(1, %rows%) n""",
}
"""Of gateways whose references are random."""


@dataclass(frozen=True)
class Cost:
    """Of one webhook. ``images``: whole pages in the WAL; ``read``: pages that were not in PostgreSQL's memory."""

    microseconds: float
    wal_bytes: float
    images: float
    read: float
    pages: float


Work = Callable[[], Awaitable[None]]
Step = Callable[[], Awaitable[Work]]
"""Prepares a round, and gives what is measured."""


class Side:
    """One set of databases."""

    def __init__(self, server: EmbeddedPostgres, rows: int) -> None:
        self._server = server
        self._rows = rows

    def url(self, service: str) -> str:
        return self._server.url(f"{service}_{self._rows}")

    async def fill(self) -> None:
        for service in ("webhook_ingest", "payment_service"):
            self._server.ensure_database(f"{service}_{self._rows}")
            await upgrade(service, self.url(service))
        await history.fill(self.url("webhook_ingest"), "webhook_ingest", history.ingest_fillings(self._rows))
        payments = [history.Filling(table, sql, max(1, self._rows // 4)) for table, sql in PAYMENTS.items()]
        payments += history.payment_fillings(self._rows, ABOUT)
        await history.fill(self.url("payment_service"), "payment_service", payments)
        for service in ("webhook_ingest", "payment_service"):
            await history.tidy(self.url(service), service)

    async def open(self, stack: AsyncExitStack) -> None:
        self._ingest = Database(
            self.url("webhook_ingest"), schema="webhook_ingest", application_name="micro", pool_size=1
        )
        stack.push_async_callback(self._ingest.dispose)
        settings = PaymentSettings.load(
            gateway_variables={"GENERIC_API_BASE": "https://gateway.test", "GENERIC_API_KEY": "gk"},
            environment="development",
            database_url=self.url("payment_service"),
            jwt_shared_key="a-development-key-of-more-than-32-bytes",
            public_base_url="https://pay.example",
        )
        container = await stack.enter_async_context(build(settings, ports=PORTS, bus=InProcessBus(CLOCK)))
        self._payments = micro_apply.Bench(container)
        self._worked_with = {"webhook_ingest": self._ingest, "payment_service": container.database}
        self._looking = {
            service: await stack.enter_async_context(connected(self.url(service), service))
            for service in ("webhook_ingest", "payment_service")
        }

    def steps(self) -> dict[str, tuple[str, Step]]:
        return {
            "store deliveries": ("webhook_ingest", self._storing),
            "claim and mark published": ("webhook_ingest", self._publishing),
            "read the newest events": ("webhook_ingest", self._catching_up),
            "apply webhooks": ("payment_service", self._applying),
        }

    async def _storing(self) -> Work:
        batches = [columns_of([row_of(a_delivery()) for _ in range(BATCH)]) for _ in range(BATCHES)]

        async def work() -> None:
            async with self._ingest.driver() as driver:
                for columns in batches:
                    await driver.fetch(INSERT, *columns)

        return work

    async def _publishing(self) -> Work:
        async def work() -> None:
            async with self._ingest.driver() as driver:
                for _ in range(BATCHES):
                    async with driver.transaction():
                        claimed = await claim_waiting(driver, limit=BATCH, renders=True)
                        bodies = {each.position: BODY for each in claimed}
                        await mark_published(driver, [each.position for each in claimed], bodies)

        return work

    async def _catching_up(self) -> Work:
        newest = "SELECT transaction_id, position - $1::int FROM outbox_messages ORDER BY position DESC LIMIT 1"
        cursor = tuple(await self._looking["webhook_ingest"].fetchrow(newest, BATCH))

        async def work() -> None:
            for _ in range(BATCHES):
                async with self._ingest.begin() as connection:
                    await read_events(connection, cursor=cursor, types=None, limit=BATCH)

        return work

    async def _applying(self) -> Work:
        messages = await self._payments.stock(BATCH * BATCHES)

        async def work() -> None:
            await self._payments.batches_of(BATCH)(messages)

        return work

    async def cost(self, service: str, step: Step, *, after_checkpoint: bool) -> Cost:
        looking, work = self._looking[service], await step()
        if after_checkpoint:
            await looking.execute("CHECKPOINT")
        before = await self._counters(service)
        await work()
        after = await self._counters(service)
        return Cost(*[(b - a) / (BATCH * BATCHES) for a, b in zip(before, after, strict=True)])

    async def _counters(self, service: str) -> list[float]:
        async with self._worked_with[service].driver() as driver:  # which tells its counts once a second otherwise
            await driver.execute("SELECT pg_stat_force_next_flush()")
        looking = self._looking[service]
        backends = await looking.fetch(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND backend_type = 'client backend'"
        )
        cpu = sum(_cpu_microseconds(row["pid"]) for row in backends)
        counted = await looking.fetchrow(_COUNTED, [row["pid"] for row in backends])
        return [cpu, *counted]


_COUNTED = """
    SELECT coalesce(sum(wal.wal_bytes), 0)::float8, coalesce(sum(wal.wal_fpi), 0)::float8,
        coalesce(sum(io.reads), 0)::float8, coalesce(sum(io.hits + io.reads), 0)::float8
    FROM unnest($1::int[]) AS pid
    CROSS JOIN LATERAL pg_stat_get_backend_wal(pid) AS wal
    CROSS JOIN LATERAL (
        SELECT sum(coalesce(reads, 0)) AS reads, sum(coalesce(hits, 0)) AS hits FROM pg_stat_get_backend_io(pid)
        WHERE object = 'relation') AS io
"""


def _cpu_microseconds(pid: int) -> float:
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1000


def a_delivery() -> Delivery:
    number = next(NUMBERS)
    return Delivery(
        id=PORTS.ids.new("whd"),
        gateway="stripe",
        account=None,
        dedupe_key=f"id:evt_{SystemRandomness().token_bytes(12).hex()}",
        event_id=None,
        event_type="payment_intent.succeeded",
        trust=Trust.FULL,
        key_id=None,
        signed_at=None,
        received_at=CLOCK.now(),
        method="POST",
        path="/api/v1/webhooks/stripe",
        query="",
        headers=(("content-type", "application/json"),),
        content_type="application/json",
        body=BODY,
        body_digest=number.to_bytes(32, "big"),
        body_size=len(BODY),
        remote_address="203.0.113.7",
        request_id=None,
    )


async def measured(server: EmbeddedPostgres, many: int, few: int, rounds: int) -> None:
    sides = {rows: Side(server, rows) for rows in (few, many)}
    for side in sides.values():
        await side.fill()
    server.stop()
    server.start()
    async with AsyncExitStack() as stack:
        for side in sides.values():
            await side.open(stack)
        await measure("after a start", sides, 2, after_checkpoint=True)
        for rows, side in sides.items():
            await history.stir(side.url("webhook_ingest"), rows)
        await measure("just after a checkpoint", sides, rounds, after_checkpoint=True)
        for rows, side in sides.items():
            await history.stir(side.url("webhook_ingest"), rows, again=True)
        await measure("between checkpoints", sides, rounds, after_checkpoint=False)


async def measure(when: str, sides: dict[int, Side], rounds: int, *, after_checkpoint: bool) -> None:
    found: dict[str, dict[int, list[Cost]]] = {}
    for turn in range(rounds):
        for rows, side in list(sides.items())[:: 1 if turn % 2 else -1]:
            for name, (service, step) in side.steps().items():
                cost = await side.cost(service, step, after_checkpoint=after_checkpoint)
                found.setdefault(name, {}).setdefault(rows, []).append(cost)
    print(f"\n{when}, of a webhook in batches of {BATCH}, medians of {rounds}: {' → '.join(map(str, sides))} rows")
    print(f"{'':26}{'µs of PostgreSQL':>22}{'':8}{'WAL bytes':>18}{'images':>16}{'pages read':>16}{'touched':>16}")
    for name, by_rows in found.items():
        few, many = (median(by_rows[rows]) for rows in sides)
        ratio = f"({many.microseconds / few.microseconds:.2f})"
        print(
            f"{name:26}{few.microseconds:10.1f} → {many.microseconds:9.1f}{ratio:>8}"
            f"{few.wal_bytes:8.0f} → {many.wal_bytes:7.0f}{few.images:7.2f} → {many.images:6.2f}"
            f"{few.read:7.2f} → {many.read:6.2f}{few.pages:7.1f} → {many.pages:6.1f}",
            flush=True,
        )


def median(costs: Sequence[Cost]) -> Cost:
    return Cost(*[statistics.median(column) for column in zip(*map(astuple, costs), strict=True)])


def main() -> None:
    many, few, rounds = ([int(each) for each in sys.argv[1:]] + [1_000_000, 10_000, 8][len(sys.argv) - 1 :])[:3]
    with tempfile.TemporaryDirectory(prefix="payrail-growth-", dir="/tmp") as directory:
        server = EmbeddedPostgres(Path(directory) / "pg", settings=SETTINGS)
        server.start()
        try:
            asyncio.run(measured(server, many, few, rounds))
        finally:
            server.stop("immediate")


if __name__ == "__main__":
    main()
