"""One round of one endpoint at saturation: throughput, and the CPU that it took, beside the database's and ours."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import uvloop

from tests.bench.figures import Spread
from tests.bench.generator import run, saturating
from tests.bench.load import Sample
from tests.bench.measuring import Meter
from tests.bench.peering import Peer, PeersMissing, RunningPeer, peers_python, start_peer
from tests.bench.stack import DurablePostgres
from tests.bench.webhooks import About, Scheme

GENERATOR = "generator"


@dataclass
class Endpoint:
    """What is saturated, and what each round of it found. ``capacity`` is more than it answers in a second."""

    label: str
    url: str
    groups: Mapping[str, Sequence[int]]
    capacity: int = 16_000
    scheme: Scheme = Scheme.GENERIC
    secret: str = ""
    rates: list[float] = field(default_factory=list)
    cpu: list[dict[str, float]] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)

    def round(self, seconds: float, abouts: Sequence[About] = ()) -> Sample:
        # The generator begins anew when its requests are used up, so there must be enough of them where it matters.
        count = int(self.capacity * seconds)
        job = saturating(self.url, abouts, count, seconds=seconds, scheme=self.scheme, secret=self.secret)
        meter = Meter(self.groups)
        sample = uvloop.run(run(job))
        each = meter.cost().microseconds_each(sample.accepted) | {GENERATOR: sample.cpu_seconds / sample.accepted * 1e6}
        assert not sample.refused, f"{self.label} refused {len(sample.refused)}: {set(sample.refused)}"
        self.rates.append(sample.rate)
        self.cpu.append(each)
        self.samples.append(sample)
        return sample

    def cpu_each(self) -> dict[str, float]:
        return {name: Spread.of([found[name] for found in self.cpu]).median for name in self.cpu[0]}


def of_peer(running: RunningPeer, postgres: DurablePostgres, capacity: int = 16_000) -> Endpoint:
    database = {"PostgreSQL": postgres.root} if running.peer.database else {}
    return Endpoint(
        running.peer.label,
        running.url,
        {"server": [running.pid], **database},
        capacity,
        running.peer.scheme,
        running.peer.secret,
    )


def start_peers(peers: Sequence[Peer], postgres: DurablePostgres) -> tuple[dict[str, RunningPeer], dict[str, str]]:
    """Those that run, and of the others why not."""
    try:
        peers_python()
    except PeersMissing as why:
        return {}, {peer.name: str(why) for peer in peers}
    with ThreadPoolExecutor() as at_once:
        starts = {peer.name: at_once.submit(start_peer, peer, postgres.database_url) for peer in peers}
    return {name: start.result() for name, start in starts.items()}, {}


def in_turns(endpoints: Sequence[Endpoint], rounds: int) -> list[Endpoint]:
    """Ours, peers, ours, peers: every other round in the other direction, so that nobody is always first."""
    turns = (endpoints if number % 2 == 0 else endpoints[::-1] for number in range(rounds))
    return list(itertools.chain.from_iterable(turns))
