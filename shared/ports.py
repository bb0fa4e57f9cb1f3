"""The ports every service is built over, in one value, so that tests and the simulation swap them together."""

from __future__ import annotations

from dataclasses import dataclass

import httpx

from shared.clock import Clock, SystemClock
from shared.ids import Ids, TimeOrderedIds
from shared.randomness import Randomness, SystemRandomness


@dataclass(frozen=True, slots=True)
class Ports:
    clock: Clock
    ids: Ids
    randomness: Randomness
    http_transport: httpx.AsyncBaseTransport | None = None
    """What outgoing HTTP goes through; None is the real network."""


def system_ports() -> Ports:
    """The real clock, entropy and network: what main.py and worker.py run on."""
    clock, randomness = SystemClock(), SystemRandomness()
    return Ports(clock=clock, ids=TimeOrderedIds(clock, randomness), randomness=randomness)
