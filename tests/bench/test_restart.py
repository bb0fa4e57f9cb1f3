"""Acknowledgement while PostgreSQL is stopped like at a power cut and started again, with and without the spool."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvloop

from tests.bench.figures import Goal, longest_gap, number, percentile
from tests.bench.generator import generator, paced
from tests.bench.load import Sample
from tests.bench.plan import PLAN
from tests.bench.report import GOALS, Report
from tests.bench.stack import IngestStack, delivery_ids, until_value

pytestmark = [pytest.mark.bench, pytest.mark.timeout(600)]

NOTHING_LOST = Goal("<=", 0)
FOUND = "SELECT count(*) FROM webhook_deliveries WHERE id = ANY($1)"
SPOOL = {"on": True, "off": False} if PLAN.name == "full" else {"on": True}


def spool_environment(directory: Path, is_on: bool) -> dict[str, str]:
    """How the spool is switched: unset means off."""
    return {"WEBHOOK_SPOOL_DIRECTORY": str(directory)} if is_on else {}


@dataclass
class Restarted:
    sample: Sample
    forgotten: int


def accepted_ids(sample: Sample) -> list[str]:
    return delivery_ids([body for status, body in zip(sample.statuses, sample.bodies, strict=True) if status == 200])


async def _restart_under_load(stack: IngestStack, url: str) -> Restarted:
    count = int(PLAN.restart_rate * PLAN.restart_seconds)
    async with generator(paced(url, (), count, rate=PLAN.restart_rate, connections=128)) as load:
        load.begin()
        await asyncio.sleep(PLAN.restart_seconds / 3)
        await asyncio.to_thread(stack.postgres.stop, "immediate")
        await asyncio.sleep(PLAN.restart_away_seconds)
        await asyncio.to_thread(stack.postgres.start)
        sample = await load.sample()
    ids = accepted_ids(sample)
    assert len(sample.statuses) == count  # every request had its answer
    assert len(set(ids)) == len(ids)
    async with stack.books("webhook_ingest") as connection:
        what = "every delivery that got its 200 being in the table"
        await until_value(connection, FOUND, len(ids), ids, within_seconds=60, what=what)
        found = await connection.fetchval(FOUND, ids)
    return Restarted(sample, len(ids) - found)


@pytest.mark.parametrize("spool", SPOOL)
def test_restart_of_the_database(ingest_stack: IngestStack, report: Report, spool: str) -> None:
    name = f"serve-webhook-ingest-spool-{spool}"
    environment = spool_environment(ingest_stack.directory / "spool", SPOOL[spool])
    url, process = ingest_stack.serve(name, environment=environment)
    found = uvloop.run(_restart_under_load(ingest_stack, url))
    ingest_stack.end(process)
    sample = found.sample
    answers = Counter(sample.statuses)
    told = ", ".join(f"{count:,} × {status or 'no answer'}" for status, count in sorted(answers.items()))
    what = f"database stopped for {number(PLAN.restart_away_seconds)} s at {PLAN.restart_rate}/s, spool {spool}"
    report.section = GOALS
    report.add(f"{what}: answered 200 and forgotten", "", [found.forgotten], ratio=told, goal=NOTHING_LOST)
    lost = len([status for status in sample.statuses if status not in (200, 503)])
    report.add(f"{what}: neither stored nor refused with 503", "", [lost], goal=NOTHING_LOST)
    report.add(f"{what}: ack p99", "ms", [percentile(sample.accepted_latencies(), 0.99) * 1000])
    ends = [sample.started, sample.started + sample.seconds]  # a 200 that never came again is a gap until the end
    at = [moment for status, moment in zip(sample.statuses, sample.answered_at, strict=True) if status == 200]
    report.add(f"{what}: longest time without a 200", "ms", [longest_gap(at + ends) * 1000])
