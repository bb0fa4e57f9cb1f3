"""Events applied by one payment worker that begins with a backlog, beside a bare loop of SQLAlchemy Core."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest
import uvloop

from tests.bench.figures import Goal, Spread, number, rate_after_the_first, ratios_of_rounds
from tests.bench.flow import APPLIED_AT, UNPUBLISHED, all_applied, moments
from tests.bench.generator import generator, saturating
from tests.bench.load import Sample
from tests.bench.measuring import Meter
from tests.bench.peering import PEERS, PeersMissing, peers_are_off, peers_python
from tests.bench.plan import PLAN
from tests.bench.report import CONSUMERS, GOALS, Report
from tests.bench.shopping import Clone
from tests.bench.stack import BenchStack, until_value
from tests.bench.test_paid import clones_of, settle_down

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1200)]

TO_CORE_LOOP = Goal(">=", 4)
LOOP = "bare SQLAlchemy Core loop, one transaction a message, 8 at once"
ONE_WORKER = "work-payment-service"
OTHERS = ("work-payment-service-2", "work-order-service", "work-reconciler")


@dataclass
class Found:
    rates: list[float] = field(default_factory=list)
    cpu: list[dict[str, float]] = field(default_factory=list)

    def cpu_each(self) -> dict[str, float]:
        return {name: Spread.of([found[name] for found in self.cpu]).median for name in self.cpu[0]}


def core_loop(url: str) -> tuple[float, float]:
    """Transactions a second, and microseconds of CPU for each. Raises PeersMissing."""
    rows = int(6_000 * PLAN.core_loop_seconds)
    arguments = [str(peers_python()), "loop.py", url, str(PLAN.core_loop_seconds), str(rows)]
    done = subprocess.run(arguments, cwd=PEERS / "core_loop", capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout)
    return found["transactions"] / found["seconds"], found["cpu_seconds"] / found["transactions"] * 1e6


async def send_all(url: str, clones: Sequence[Clone], groups: Mapping[str, Sequence[int]]) -> tuple[Sample, Meter]:
    """One webhook for each, as fast as they are accepted; the meter counts from the first of them."""
    job = saturating(url, [each.about for each in clones], len(clones), seconds=120, budgeted=True)
    async with generator(job) as load:
        meter = Meter(groups)
        load.allow(len(clones))
        sample = await load.sample()
    assert not sample.refused
    assert sample.accepted == len(clones)
    return sample, meter


def meter_each(meter: Meter, count: int) -> dict[str, float]:
    return meter.cost().microseconds_each(max(1, count))


async def _backlog(stack: BenchStack) -> list[Clone]:
    """Accepted and published, and nobody there who applies them."""
    _, clones = await clones_of(stack, PLAN.backlog)
    for name in (ONE_WORKER, *OTHERS):
        stack.processes[name].terminate()
    await send_all(f"{stack.ingest_url}/api/v1/webhooks/generic", clones, {})
    async with stack.books("webhook_ingest") as connection:
        await until_value(connection, UNPUBLISHED, 0, what="every delivery being published")
    return clones


async def _applied(stack: BenchStack, found: Found) -> None:
    clones = await _backlog(stack)
    ids = [each.about.payment_id for each in clones]
    async with stack.books("payment_service") as connection:
        stack.processes[ONE_WORKER].start()
        looks = all_applied(connection, clones)
        seen = await anext(looks)
        meter = Meter({"payment worker": stack.roots(ONE_WORKER), "PostgreSQL": stack.postgres.root})
        found.cpu.append(meter_each(meter, await anext(looks) - seen))
        at = await moments(connection, APPLIED_AT, ids)
    assert len(at) == len(ids)
    found.rates.append(rate_after_the_first([moment.timestamp() for moment in at.values()]))
    for name in OTHERS:
        stack.processes[name].start()
    await settle_down(stack, clones)


def test_events_applied_by_one_worker(bench_stack: BenchStack, report: Report) -> None:
    ours, loop, missing = Found(), Found(), ""
    url = bench_stack.postgres.database_url("peer_core_loop")
    for _ in range(PLAN.rounds):
        uvloop.run(_applied(bench_stack, ours))
        try:
            rate, cpu = core_loop(url)
        except PeersMissing as why:
            missing = str(why)
        else:
            loop.rates.append(rate)
            loop.cpu.append({"loop": cpu})
    report.section = GOALS
    measure = f"events applied by one payment worker, from RabbitMQ ÷ {LOOP}"
    if missing:
        report.add_missing(measure, missing, goal=TO_CORE_LOOP)
    else:
        by_cpu = loop.cpu_each()["loop"] / ours.cpu_each()["payment worker"]
        ratios = ratios_of_rounds(ours.rates, loop.rates)
        report.add(measure, "×", ratios, ratio=f"by CPU of the process {number(by_cpu)} ×", goal=TO_CORE_LOOP)
    report.section = CONSUMERS
    report.add("events applied by one payment worker, from RabbitMQ", "1/s", ours.rates, cpu=ours.cpu_each())
    if not missing:
        report.add(LOOP, "1/s", loop.rates, cpu=loop.cpu_each())
    assert peers_are_off() or not missing, missing
