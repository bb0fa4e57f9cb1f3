"""From a webhook to a paid order, everything on this machine: how soon at a steady rate, and how many a second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field

import pytest
import uvloop

from tests.bench.endpoints import GENERATOR, Endpoint, of_peer, start_peers
from tests.bench.figures import Goal, Spread, percentile, ratios_of_rounds
from tests.bench.flow import LOOK_SECONDS, PAID, PaidCounter, seconds_to_paid
from tests.bench.generator import generator, paced, saturating
from tests.bench.load import PATIENCE_SECONDS, watch_order
from tests.bench.measuring import Meter
from tests.bench.peering import FLASK, PEERS, TUTORIAL, RunningPeer, peers_are_off
from tests.bench.plan import PLAN
from tests.bench.profiles import SAMPLER_STARTS, profiled
from tests.bench.report import ENDPOINTS, GOALS, Report
from tests.bench.shopping import Clone, Payable, payable_clones, payable_orders
from tests.bench.stack import BenchStack, connected, until_value
from tests.bench.webhooks import About, numbered_unknown
from tests.e2e.shop import Shop

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1200)]

MEDIAN, P99 = Goal("<=", 50), Goal("<=", 250)
SUSTAINED, TO_TUTORIAL = Goal(">=", 1000), Goal(">=", 6)
TUTORIAL_CAPACITY = 3_000
PARTS = ((0.5, "median", MEDIAN), (0.99, "p99", P99))


async def seeds_of(stack: BenchStack, count: int) -> list[Payable]:
    shop = Shop(stack)
    try:
        return await payable_orders(shop, count)
    finally:
        await shop.close()


async def clones_of(stack: BenchStack, count: int) -> tuple[Payable, list[Clone]]:
    (seed,) = await seeds_of(stack, 1)
    return seed, await payable_clones(stack, seed, count)


async def settle_down(stack: BenchStack, clones: Sequence[Clone]) -> None:
    """Until every one of these orders is paid: nothing that got its 200 is lost."""
    async with stack.books("order_service") as connection:
        ids = [each.order_id for each in clones]
        await until_value(connection, PAID, len(clones), ids, what="every accepted webhook's order being paid")


async def _at_rate(stack: BenchStack) -> tuple[list[float], list[float]]:
    """Seconds to paid by the books, and for some of the orders by their event streams."""
    count = int(PLAN.paid_rate * PLAN.paid_seconds)
    seed, clones = await clones_of(stack, count)
    job = paced(f"{stack.ingest_url}/api/v1/webhooks/generic", _abouts(clones), count, rate=PLAN.paid_rate)
    watched = range(count // 2, count, max(1, count // 2 // PLAN.watched_orders))
    watchers = {each: await watch_order(stack.order_url, clones[each].order_id, seed.order.secret) for each in watched}
    async with generator(job) as load:
        load.begin()
        sample = await load.sample()
    assert not sample.refused
    async with asyncio.timeout(PATIENCE_SECONDS):
        await asyncio.gather(*(watcher.paid.wait() for watcher in watchers.values()))
    await settle_down(stack, clones)
    seen = [watcher.paid_at - (sample.started + each / PLAN.paid_rate) for each, watcher in watchers.items()]
    for watcher in watchers.values():
        watcher.close()
    await _check_alike(stack, seed, clones[0])
    return await seconds_to_paid(stack, sample, clones), seen


async def _check_alike(stack: BenchStack, seed: Payable, clone: Clone) -> None:
    """A clone that was paid is what its seed becomes when that is paid."""
    shop = Shop(stack)
    try:
        body = {"event_id": f"seed-{seed.order.id}", "payment_id": seed.about.gateway_reference, "amount": 18.5}
        told = await shop.webhook(
            body | {"transaction_id": seed.about.payment_id, "status": "completed", "currency": "USD"}
        )
        assert told.status_code == 200, told.text
        original = await shop.wait_for(seed.order, payment_status="paid")
        url = f"{stack.order_url}/api/v1/orders/{clone.order_id}"
        copy = (await shop.http.get(url, headers=seed.order.headers)).json()
    finally:
        await shop.close()
    names = ("status", "payment_status", "attention", "total", "items", "version")
    assert {name: copy[name] for name in names} == {name: original[name] for name in names}


def _abouts(clones: Sequence[Clone]) -> list[About]:
    return [clone.about for clone in clones]


def test_webhook_to_paid_at_a_steady_rate(bench_stack: BenchStack, report: Report) -> None:
    rounds = [uvloop.run(_at_rate(bench_stack)) for _ in range(PLAN.rounds)]
    report.section = GOALS
    for part, name, goal in PARTS:
        values = [percentile(books, part) * 1000 for books, _ in rounds]
        report.add(f"webhook received → order paid at {PLAN.paid_rate}/s: {name}", "ms", values, goal=goal)
    for part, name, _ in PARTS:
        values = [percentile(seen, part) * 1000 for _, seen in rounds]
        report.add(f"of these, webhook due → paid on a shopper's event stream: {name}", "ms", values)


@dataclass
class Sustained:
    """What rounds of the whole way found: paid orders a second while the clock ran, and what they cost."""

    rates: list[float] = field(default_factory=list)
    accepted: list[float] = field(default_factory=list)
    cpu: list[dict[str, float]] = field(default_factory=list)

    def cpu_each(self) -> dict[str, float]:
        return {name: Spread.of([found[name] for found in self.cpu]).median for name in self.cpu[0]}


@pytest.fixture(scope="module")
def tutorials(bench_stack: BenchStack) -> Iterator[tuple[dict[str, RunningPeer], dict[str, str]]]:
    url = bench_stack.postgres.database_url(TUTORIAL.database)
    uvloop.run(_tutorial_tables(url))
    running, missing = start_peers((TUTORIAL, FLASK), bench_stack.postgres)
    yield running, missing
    for peer in running.values():
        peer.close()


async def _tutorial_tables(url: str) -> None:
    async with connected(url, "public") as connection:
        await connection.execute((PEERS / TUTORIAL.name / "schema.sql").read_text())
        rows = int(TUTORIAL_CAPACITY * PLAN.tutorial_seconds) * 2 * PLAN.rounds
        numbered = "lpad(n::text, 26, '0')"
        series = f"FROM generate_series(1, {rows}) n"
        await connection.execute(f"INSERT INTO orders SELECT 'ord_' || {numbered}, 'pending', 1850 {series}")
        await connection.execute(
            f"INSERT INTO payments SELECT 'pay_' || {numbered}, 'ord_' || {numbered}, 1850, 'pending' {series}"
        )
        await connection.execute("ANALYZE")


def test_ingest_to_paid_order_sustained(
    bench_stack: BenchStack, tutorials: tuple[dict[str, RunningPeer], dict[str, str]], report: Report
) -> None:
    running, missing = tutorials
    ours = Sustained()
    others = {name: of_peer(peer, bench_stack.postgres, TUTORIAL_CAPACITY) for name, peer in running.items()}
    for turn in range(max(1, PLAN.rounds - 1)):
        uvloop.run(_sustained(bench_stack, ours, PLAN.sustained_seconds))
        for each in others.values():
            _tutorial_round(each, turn)
    uvloop.run(_check_tutorials(bench_stack, others))
    if PLAN.profile_seconds:
        uvloop.run(_profile(bench_stack, report))
    report.section = GOALS
    way = "ingest → paid order, sustained"
    report.add(f"{way}: webhooks whose orders are paid", "1/s", ours.rates, goal=SUSTAINED, cpu=ours.cpu_each())
    for peer in (TUTORIAL, FLASK):
        goal: Goal | str = TO_TUTORIAL if peer is TUTORIAL else ""
        if peer.name in missing:
            report.add_missing(f"{way} ÷ {peer.label}", missing[peer.name], goal=goal)
        else:
            their = others[peer.name]
            report.add(f"{way} ÷ {peer.label}", "×", ratios_of_rounds(ours.rates, their.rates), goal=goal)
            report.section = ENDPOINTS
            report.add(their.label, "1/s", their.rates, cpu=their.cpu_each())
            report.section = GOALS
    assert peers_are_off() or not missing, missing


_paid_by_tutorials = [1]
"""The first of their payments that no webhook has paid yet."""


def _tutorial_round(endpoint: Endpoint, turn: int) -> None:
    count = int(endpoint.capacity * PLAN.tutorial_seconds)
    first = _paid_by_tutorials[0]
    _paid_by_tutorials[0] += count
    endpoint.round(PLAN.tutorial_seconds, list(numbered_unknown(first, count)))


async def _check_tutorials(stack: BenchStack, endpoints: dict[str, Endpoint]) -> None:
    """They too have done what they answered."""
    async with connected(stack.postgres.url(TUTORIAL.database), "public") as connection:
        paid = await connection.fetchval("SELECT count(*) FROM orders WHERE status = 'paid'")
    assert paid == sum(sample.accepted for each in endpoints.values() for sample in each.samples)


async def _profile(stack: BenchStack, report: Report) -> None:
    """One more round, which is not counted: sampling costs time."""
    pids = {f"{name} worker": stack.processes[f"work-{name}-service"].pid for name in ("payment", "order")}
    await _sustained(stack, Sustained(), PLAN.profile_seconds + SAMPLER_STARTS, beside=profiled(report, pids))


async def _sustained(
    stack: BenchStack, found: Sustained, clock: float, beside: AbstractAsyncContextManager[None] | None = None
) -> None:
    """A closed loop over the whole way: so many webhooks may be accepted whose orders are not paid yet."""
    _, clones = await clones_of(stack, PLAN.sustained_orders)
    url = f"{stack.ingest_url}/api/v1/webhooks/generic"
    job = saturating(url, _abouts(clones), len(clones), seconds=clock, budgeted=True)
    async with generator(job) as load, stack.books("order_service") as orders, beside or nullcontext():
        counter, meter, started = PaidCounter(orders, clones), Meter(stack.cpu_groups()), time.perf_counter()
        paid, allowed, seconds = 0, PLAN.sustained_window, 0.0
        load.allow(allowed)
        while seconds < clock and load.is_running:
            await asyncio.sleep(LOOK_SECONDS)
            paid, seconds = await counter.count(allowed), time.perf_counter() - started
            allowed = paid + PLAN.sustained_window
            load.allow(allowed)
        cost = meter.cost().microseconds_each(max(paid, 1))
        sample = await load.sample()
    assert not sample.refused
    await settle_down(stack, [clones[each] for each in sample.numbers])
    found.rates.append(paid / seconds)
    found.accepted.append(sample.accepted / seconds)
    found.cpu.append(cost | {GENERATOR: sample.cpu_seconds / sample.accepted * 1e6})
