"""What a webhook costs over a large database, beside a small one: the same processes over two sets of databases.

Rounds of the two alternate, many and short ones, for a shared machine is never the same for long. Ingest is measured
until the last 200, applying until the last payment is captured, beginning with everything published: each in wall time,
and in CPU of our processes and of PostgreSQL. No checkpoint comes between (see ``history.stir``); what the first
webhooks after one cost is measured afterwards, and has no goal: there are few of them.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

import asyncpg
import pytest
import uvloop

from tests.bench import history
from tests.bench.figures import Goal, number, rate_after_the_first, ratios_of_rounds
from tests.bench.flow import APPLIED_AT, UNPUBLISHED, all_applied, moments
from tests.bench.measuring import Meter
from tests.bench.plan import PLAN
from tests.bench.report import GOALS, Report
from tests.bench.shopping import Clone, Payable, clone_abouts, clone_payments, clone_rows, identifiers
from tests.bench.stack import BenchStack, connected, until_value
from tests.bench.test_applied import meter_each, send_all
from tests.bench.test_paid import seeds_of
from tests.e2e.stack import Process
from tests.support.ports import free_port
from tests.support.rabbitmq import RabbitMQServer

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

GROWTH = Goal("<=", 1.2)
HISTORY_OF_PAYMENT = ("payments", "payment_attempts", "payment_references", "outbox_sequences")
TABLES_OF_SEED = (*HISTORY_OF_PAYMENT, "payment_facts", "payment_timeline")
CAPTURED = {
    "status": "'captured'",
    "amount_authorized": "source.amount_minor",
    "amount_captured": "source.amount_minor",
}
FIRST_MEASURED = 50_000_000
"""Clones that are paid are numbered from here, those of the history from 1."""


@dataclass
class Side:
    """One set of databases with its processes, and what its rounds found, each in microseconds a webhook."""

    name: str
    rows: int
    stack: BenchStack
    virtual_host: str
    url: str = ""
    found: dict[str, list[float]] = field(default_factory=dict)
    next_clone: int = FIRST_MEASURED

    def database(self, service: str) -> str:
        return self.stack.postgres.database_url(f"growth_{self.name}_{service}")

    def environment(self) -> dict[str, str]:
        rabbitmq: RabbitMQServer = self.stack.rabbitmq
        return {
            **self.stack.environment(),
            "WEBHOOK_INGEST_DATABASE_URL": self.database("webhook_ingest"),
            "PAYMENT_SERVICE_DATABASE_URL": self.database("payment_service"),
            "RABBITMQ_URL": rabbitmq.url(self.virtual_host),
        }

    def prepare(self) -> None:
        self.virtual_host = self.stack.rabbitmq.create_vhost()
        before, self.stack.extra = self.stack.extra, self.environment()
        try:
            self.stack.run("migrate", "webhook-ingest")
            self.stack.run("migrate", "payment-service")
            self.stack.run("topology", "apply")
        finally:
            self.stack.extra = before

    def process(self, role: str, service: str, **more: str) -> Process:
        environment = self.environment() | more
        return self.stack.new_process(f"{role}-{service}-{self.name}", [role, service], environment)

    def start(self) -> None:
        port = free_port()
        serving = self.process("serve", "webhook-ingest", PORT=str(port))
        for each in (serving, self.process("work", "webhook-ingest")):
            each.start()
        self.process("work", "payment-service")
        self.url = f"http://127.0.0.1:{port}/api/v1/webhooks/generic"
        self.stack.wait_ready(serving, f"http://127.0.0.1:{port}")

    def note(self, what: str, value: float) -> None:
        self.found.setdefault(what, []).append(value)


async def _history(side: Side, seed: Payable, source_url: str) -> None:
    """Copies the seed payment, then makes the old rows of both databases, side by side: there are two cores."""
    url = side.database("payment_service")
    async with connected(source_url, "payment_service") as source, connected(url, "payment_service") as target:
        names = await identifiers(source, seed.about.payment_id, seed.order.id)
        for table in TABLES_OF_SEED:
            await _copy_seed(source, target, table, seed.about.payment_id)
    ingest = history.fill(side.database("webhook_ingest"), "webhook_ingest", history.ingest_fillings(side.rows))
    await asyncio.gather(ingest, _payments_history(url, seed, names, side.rows))
    await asyncio.gather(
        history.tidy(url, "payment_service"), history.tidy(side.database("webhook_ingest"), "webhook_ingest")
    )
    await history.stir(side.database("webhook_ingest"), side.rows)


async def _copy_seed(source: asyncpg.Connection, target: asyncpg.Connection, table: str, payment_id: str) -> None:
    key = "subject" if table == "outbox_sequences" else "payment_id"
    rows = await source.fetch(f"SELECT * FROM {table} WHERE {key} = $1", payment_id)
    written = [
        row["column_name"]
        for row in await source.fetch(
            "SELECT column_name FROM information_schema.columns WHERE table_schema = current_schema()"
            " AND table_name = $1 AND is_identity = 'NO'",
            table,
        )
    ]
    places = ", ".join(f"${place}" for place in range(1, len(written) + 1))
    statement = f"INSERT INTO {table} ({', '.join(written)}) VALUES ({places})"
    await target.executemany(statement, [[row[name] for name in written] for row in rows])


async def _payments_history(url: str, seed: Payable, names: Sequence[str], rows: int) -> None:
    """Payments that were captured long ago, as copies of the seed; then what was said about them."""
    count = max(1, rows // history.PAYMENTS_SHARE)
    for table in HISTORY_OF_PAYMENT:
        key = "subject" if table == "outbox_sequences" else "payment_id"
        async with connected(url, "payment_service") as connection:
            await connection.execute("SET synchronous_commit = off; SET maintenance_work_mem = '768MB'")
            async with history.rebuilt(connection, table):
                captured = CAPTURED if table == "payments" else None
                await clone_rows(connection, table, key, seed.about.payment_id, names, 1, count, captured)
    await history.fill(url, "payment_service", history.payment_fillings(rows, seed.about))


@pytest.fixture(scope="module")
def sides(bench_stack: BenchStack) -> tuple[Payable, list[Side]]:
    (seed,) = uvloop.run(seeds_of(bench_stack, 1))
    for process in bench_stack.processes.values():
        process.terminate()
    found = [Side("small", PLAN.growth_base, bench_stack, ""), Side("large", PLAN.growth_rows, bench_stack, "")]
    for side in found:
        side.prepare()
        uvloop.run(_history(side, seed, bench_stack.postgres.url("payment_service")))
    for side in found:
        side.start()
    return seed, found  # what was started is the stack's to end


async def _round(side: Side, seed: Payable, names: Sequence[str], *, after_checkpoint: bool = False) -> None:
    stack, count = side.stack, PLAN.growth_webhooks
    first, side.next_clone = side.next_clone, side.next_clone + count
    clones = [Clone("", about) for about in clone_abouts(seed.about, first, count)]
    worker = stack.processes[f"work-payment-service-{side.name}"]
    async with connected(side.database("payment_service"), "payment_service") as payments:
        await clone_payments(payments, seed.about.payment_id, names, first, count)
        if after_checkpoint:
            await payments.execute("CHECKPOINT")
        await _ingest(side, clones)
        worker.start()
        await _apply(side, payments, clones, worker)
        worker.terminate()


async def _ingest(side: Side, clones: Sequence[Clone]) -> None:
    """Wall time until the last 200; CPU until the last is published too, for the relay works meanwhile."""
    ours = side.stack.roots(f"serve-webhook-ingest-{side.name}", f"work-webhook-ingest-{side.name}")
    groups = {"ours": ours, "PostgreSQL": side.stack.postgres.root}
    sample, meter = await send_all(side.url, clones, groups)
    side.note("ingest, wall", sample.seconds / len(clones) * 1e6)
    async with connected(side.database("webhook_ingest"), "webhook_ingest") as ingest:
        await until_value(ingest, UNPUBLISHED, 0, what="every delivery being published")
    side.note("ingest with announcing, CPU", sum(meter.cost().microseconds_each(len(clones)).values()))


async def _apply(side: Side, payments: asyncpg.Connection, clones: Sequence[Clone], worker: Process) -> None:
    """From the first that is applied to the last: the start of the process is not counted."""
    looks = all_applied(payments, clones)
    seen = await anext(looks)
    meter = Meter({"worker": [worker.pid], "PostgreSQL": side.stack.postgres.root})
    side.note("applying, CPU", sum(meter_each(meter, await anext(looks) - seen).values()))
    at = (await moments(payments, APPLIED_AT, [clone.about.payment_id for clone in clones])).values()
    side.note("applying, wall", 1e6 / rate_after_the_first([moment.timestamp() for moment in at]))


def test_cost_of_a_webhook_as_the_tables_grow(sides: tuple[Payable, list[Side]], report: Report) -> None:
    seed, (small, large) = sides
    names = uvloop.run(_names(large, seed))

    def rounds(count: int, *, after_checkpoint: bool = False) -> None:
        for turn in range(count):
            for side in (small, large) if turn % 2 else (large, small):
                uvloop.run(_round(side, seed, names, after_checkpoint=after_checkpoint))

    rounds(PLAN.growth_warmups)
    _forget(small, large)
    rounds(PLAN.growth_rounds)
    report.section = GOALS
    _tell(report, small, large, "", GROWTH)
    _forget(small, large)
    rounds(max(1, PLAN.growth_rounds // 3), after_checkpoint=True)
    _tell(report, small, large, ", just after a checkpoint", "")


def _forget(*sides: Side) -> None:
    for side in sides:
        side.found.clear()


def _tell(report: Report, small: Side, large: Side, when: str, goal: Goal | str) -> None:
    sizes = f"{PLAN.growth_rows:,} rows ÷ {PLAN.growth_base:,}{when}"
    for what in small.found:
        ratios = ratios_of_rounds(large.found[what], small.found[what])
        told = f"{number(statistics.median(large.found[what]))} ÷ {number(statistics.median(small.found[what]))} µs"
        report.add(f"cost of a webhook at {sizes}: {what}", "×", ratios, ratio=told, goal=goal)


async def _names(side: Side, seed: Payable) -> list[str]:
    async with connected(side.database("payment_service"), "payment_service") as connection:
        return await identifiers(connection, seed.about.payment_id, seed.order.id)
