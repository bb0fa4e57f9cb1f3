"""Webhook to 200: how many a second, and how long, beside an endpoint that verifies the same and keeps nothing."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Sequence

import pytest
import uvloop

from tests.bench.load import Sample, pace, percentile, saturate
from tests.bench.measuring import cpu_seconds
from tests.bench.report import Report
from tests.bench.shopping import payable_orders
from tests.bench.stack import BareEndpoint, BenchStack
from tests.bench.webhooks import About, numbered_unknown, webhook_requests
from tests.e2e.shop import Shop

pytestmark = [pytest.mark.bench, pytest.mark.timeout(900)]

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
SATURATED_SECONDS = 3.0
ENOUGH_REQUESTS = 12_000  # for a round at saturation; more than any of them answers
PACED_RATE = 200
PACED_SECONDS = 5
KNOWN_PAYMENTS = 40
KINDS = {"bare": "bare endpoint", "unknown": "webhooks, unknown payment", "known": "webhooks, known payment"}
GOAL = "p99 < 50 ms at 200/s"


async def _known(stack: BenchStack) -> list[About]:
    shop = Shop(stack)
    payables = await payable_orders(shop, KNOWN_PAYMENTS, at_once=4)
    await shop.close()
    return [payable.about for payable in payables]


def _check_kept(stack: BenchStack, samples: Sequence[Sample]) -> None:
    """No webhook is lost: whatever got its 200 is stored, published and applied."""
    assert [sample.refused for sample in samples if sample.refused] == []
    acknowledged = {json.loads(answer)["delivery_id"] for sample in samples for answer in sample.answers}
    assert len(acknowledged) == sum(len(sample.answers) for sample in samples)
    stack.wait_drained()
    stored = set(stack.query("webhook_ingest", "SELECT id FROM webhook_ingest.webhook_deliveries"))
    assert acknowledged <= stored


def test_acknowledgement_at_saturation(bench_stack: BenchStack, bare_endpoint: BareEndpoint, report: Report) -> None:
    url = f"{bench_stack.ingest_url}/api/v1/webhooks/generic"
    ingest = bench_stack.processes["serve-webhook-ingest"].pid
    known = uvloop.run(_known(bench_stack))
    rates: dict[str, list[float]] = {kind: [] for kind in KINDS}
    cpu: dict[str, list[float]] = {kind: [] for kind in KINDS}
    samples: list[Sample] = []
    for _ in range(ROUNDS):
        for kind in KINDS:
            target, pid = (bare_endpoint.url, bare_endpoint.pid) if kind == "bare" else (url, ingest)
            abouts = known if kind == "known" else list(numbered_unknown(ENOUGH_REQUESTS))
            requests = webhook_requests(target, abouts, ENOUGH_REQUESTS)
            before = cpu_seconds(pid)
            sample = uvloop.run(saturate(target, iter(requests), seconds=SATURATED_SECONDS))
            rates[kind].append(sample.rate)
            cpu[kind].append((cpu_seconds(pid) - before) / len(sample.latencies) * 1e6)
            if kind != "bare":
                samples.append(sample)
                bench_stack.wait_drained()  # what it left to be applied is not the next round's business
    _check_kept(bench_stack, samples)
    bare = statistics.median(rates["bare"])
    for kind, label in KINDS.items():
        share = "" if kind == "bare" else f"{statistics.median(rates[kind]) / bare:.2f} × bare"
        report.add(f"{label}: acknowledged at saturation", "1/s", rates[kind], ratio=share)
        report.add(f"{label}: CPU of the process", "µs/request", cpu[kind])


def test_acknowledgement_at_two_hundred_a_second(
    bench_stack: BenchStack, bare_endpoint: BareEndpoint, report: Report
) -> None:
    url = f"{bench_stack.ingest_url}/api/v1/webhooks/generic"
    known = uvloop.run(_known(bench_stack))
    kinds: dict[str, list[Sample]] = {kind: [] for kind in KINDS}
    for _ in range(ROUNDS):
        for kind, samples in kinds.items():
            count = PACED_RATE * PACED_SECONDS
            target = bare_endpoint.url if kind == "bare" else url
            abouts = known if kind == "known" else list(numbered_unknown(count))
            samples.append(uvloop.run(pace(target, webhook_requests(target, abouts, count), rate=PACED_RATE)))
            bench_stack.wait_drained()
    _check_kept(bench_stack, [*kinds["unknown"], *kinds["known"]])
    medians = {
        kind: statistics.median(percentile(sample.latencies, 0.5) for sample in samples)
        for kind, samples in kinds.items()
    }
    for kind, label in KINDS.items():
        for part, name in ((0.5, "p50"), (0.99, "p99")):
            values = [percentile(sample.latencies, part) * 1000 for sample in kinds[kind]]
            share = f"{medians[kind] / medians['bare']:.1f} × bare" if kind != "bare" and part == 0.5 else ""
            goal = GOAL if kind != "bare" and part == 0.99 else ""
            report.add(f"{label}: {name} at {PACED_RATE}/s", "ms", values, ratio=share, goal=goal)


def test_applied_webhooks_a_second(bench_stack: BenchStack, report: Report) -> None:
    """How fast what was acknowledged is published and applied by the two payment workers, beginning with a backlog."""
    url = f"{bench_stack.ingest_url}/api/v1/webhooks/generic"
    known = uvloop.run(_known(bench_stack))
    rates: list[float] = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        sample = uvloop.run(saturate(url, iter(webhook_requests(url, known, ENOUGH_REQUESTS)), seconds=1.5))
        bench_stack.wait_drained()
        rates.append(len(sample.latencies) / (time.perf_counter() - started))
        _check_kept(bench_stack, [sample])
    report.add("webhooks applied by two payment workers", "1/s", rates)
