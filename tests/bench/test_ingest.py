"""Durable ingest beside endpoints that keep less, and beside what people use; alone on the machine, no workers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import uvloop

from tests.bench.endpoints import GENERATOR, Endpoint, in_turns, of_peer, start_peers
from tests.bench.figures import Goal, number, percentile, ratios_of_rounds
from tests.bench.generator import generator, paced, run, saturating
from tests.bench.peering import DJSTRIPE, HMAC, INGEST_PEERS, RAW, RunningPeer, peers_are_off
from tests.bench.plan import PLAN
from tests.bench.profiles import SAMPLER_STARTS, profiled
from tests.bench.report import ENDPOINTS, GOALS, Report
from tests.bench.stack import IngestStack, delivery_ids, serves_in_processes

pytestmark = [pytest.mark.bench, pytest.mark.timeout(900)]

TO_NOTHING_STORED = Goal(">=", 1.5, aim=2.0)
TO_DJSTRIPE = Goal(">=", 40, aim=60)
P99 = Goal("<=", 10)
CAPACITY = {RAW.name: 40_000, DJSTRIPE.name: 1_500}
OURS = "durable ingest"


@pytest.fixture(scope="module")
def peers(ingest_stack: IngestStack) -> Iterator[tuple[dict[str, RunningPeer], dict[str, str]]]:
    running, missing = start_peers(INGEST_PEERS, ingest_stack.postgres)
    yield running, missing
    for peer in running.values():
        peer.close()


def _ours(stack: IngestStack) -> dict[str, Endpoint]:
    found = {}
    for processes in (1, 2) if PLAN.name == "full" and serves_in_processes() else (1,):
        label = f"{OURS}, {processes} process{'es' if processes > 1 else ''}"
        url, process = stack.serve(f"serve-webhook-ingest-{processes}", processes=processes)
        found[f"ours_{processes}"] = Endpoint(label, url, {"server": [process.pid], "PostgreSQL": stack.postgres.root})
    return found


def _check_stored(stack: IngestStack, endpoints: list[Endpoint]) -> None:
    """Whatever got its 200 is stored, and nothing was answered twice with one delivery."""
    acknowledged = [found for each in endpoints for sample in each.samples for found in delivery_ids(sample.bodies)]
    stored = set(stack.query("webhook_ingest", "SELECT id FROM webhook_ingest.webhook_deliveries"))
    assert set(acknowledged) <= stored
    assert len(set(acknowledged)) == len(acknowledged)


def test_durable_ingest_at_saturation(
    ingest_stack: IngestStack, peers: tuple[dict[str, RunningPeer], dict[str, str]], report: Report
) -> None:
    running, missing = peers
    ours = _ours(ingest_stack)
    others = {name: of_peer(peer, ingest_stack.postgres, CAPACITY.get(name, 16_000)) for name, peer in running.items()}
    for endpoint in in_turns([*ours.values(), *others.values()], PLAN.rounds):
        endpoint.round(PLAN.saturated_seconds)
    _check_stored(ingest_stack, list(ours.values()))
    for name, goal in ((HMAC.name, TO_NOTHING_STORED), (DJSTRIPE.name, TO_DJSTRIPE)):
        _report_ratio(report, ours, others, name, goal, missing)
    report.section = ENDPOINTS
    for endpoint in (*others.values(), *ours.values()):
        cpu = endpoint.cpu_each()
        report.add(endpoint.label, "1/s", endpoint.rates, cpu=cpu)
    for name in missing:
        report.add_missing(next(peer.label for peer in INGEST_PEERS if peer.name == name), missing[name])
    _latency_at_half(ingest_stack, ours["ours_1"], report)
    if PLAN.profile_seconds:
        uvloop.run(_profile(ours["ours_1"], ingest_stack, report))
    for name in [name for name in ingest_stack.processes if name.startswith("serve-webhook-ingest-")]:
        ingest_stack.end(ingest_stack.processes[name])
    assert peers_are_off() or not missing, missing


async def _profile(endpoint: Endpoint, stack: IngestStack, report: Report) -> None:
    """One more round, which is not counted: sampling costs time."""
    seconds = PLAN.profile_seconds + SAMPLER_STARTS
    (pid,) = endpoint.groups["server"]
    job = saturating(endpoint.url, (), int(endpoint.capacity * seconds), seconds=seconds)
    async with generator(job) as load:
        load.begin()
        async with profiled(report, {"webhook ingest": pid}):
            sample = await load.sample()
    assert not sample.refused


def _report_ratio(
    report: Report,
    ours: dict[str, Endpoint],
    others: dict[str, Endpoint],
    peer: str,
    goal: Goal,
    missing: dict[str, str],
) -> None:
    report.section = GOALS
    label = next(each.label for each in INGEST_PEERS if each.name == peer)
    for endpoint in ours.values():
        measure = f"{endpoint.label} ÷ {label}"
        if peer in missing:
            report.add_missing(measure, missing[peer], goal=goal)
            continue
        mine, theirs = endpoint.cpu_each(), others[peer].cpu_each()
        by_cpu = theirs["server"] / mine["server"]
        ratios = ratios_of_rounds(endpoint.rates, others[peer].rates)
        shown_goal: Goal | str = goal if endpoint is ours["ours_1"] else ""
        report.add(measure, "×", ratios, ratio=f"by CPU of the server {number(by_cpu)} ×", goal=shown_goal)


def _latency_at_half(stack: IngestStack, endpoint: Endpoint, report: Report) -> None:
    rate = sorted(endpoint.rates)[len(endpoint.rates) // 2] / 2
    count = int(rate * PLAN.paced_seconds)
    samples = [uvloop.run(run(paced(endpoint.url, (), count, rate=rate))) for _ in range(PLAN.rounds)]
    for sample in samples:
        assert not sample.refused
    endpoint.samples += samples
    _check_stored(stack, [endpoint])
    latencies = [[seconds * 1000 for seconds in sample.latencies] for sample in samples]
    report.section = GOALS
    p99 = [percentile(each, 0.99) for each in latencies]
    report.add(f"ack p99 at half of the maximum rate ({number(rate)}/s)", "ms", p99, goal=P99)
    report.section = ENDPOINTS
    report.add("ack p50 at half of the maximum rate", "ms", [percentile(each, 0.5) for each in latencies])
    late = [percentile(sample.late, 0.99) * 1000 for sample in samples]
    report.add("of these, the generator behind its timetable, p99", "ms", late)
    cost = [sample.cpu_seconds / len(sample.numbers) * 1e6 for sample in samples]
    report.add(f"CPU of the {GENERATOR} at that rate", "µs/request", cost)
