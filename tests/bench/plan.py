"""Sizes and durations of a run. ``BENCH_PLAN=quick`` is for a look in three minutes; any single value can be given as
``BENCH_<NAME>``, for example ``BENCH_ROUNDS=5`` or ``BENCH_GROWTH_ROWS=100000``."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields, replace


@dataclass(frozen=True)
class Plan:
    name: str
    rounds: int
    saturated_seconds: float  # of each endpoint in each round
    paced_seconds: float
    restart_seconds: float  # under load, with the stop in the first third
    restart_rate: int
    restart_away_seconds: float
    paid_rate: int
    paid_seconds: float
    watched_orders: int
    backlog: int  # events in RabbitMQ when the one worker starts
    core_loop_seconds: float
    sustained_seconds: float
    sustained_window: int  # webhooks accepted whose orders are not paid yet
    sustained_orders: int
    tutorial_seconds: float
    profile_seconds: float
    growth_rows: int
    growth_base: int
    growth_webhooks: int
    growth_rounds: int
    growth_warmups: int  # rounds that are not counted
    settling_seconds: float  # before the embedded process counts as idle
    idle_seconds: float


FULL = Plan(
    name="full",
    rounds=3,
    saturated_seconds=4,
    paced_seconds=10,
    restart_seconds=15,
    restart_rate=500,
    restart_away_seconds=2,
    paid_rate=100,
    paid_seconds=20,
    watched_orders=40,
    backlog=10_000,
    core_loop_seconds=4,
    sustained_seconds=25,
    sustained_window=2_000,
    sustained_orders=45_000,
    tutorial_seconds=4,
    profile_seconds=6,
    growth_rows=10_000_000,
    growth_base=10_000,
    growth_webhooks=2_000,
    growth_rounds=6,
    growth_warmups=1,
    settling_seconds=5,
    idle_seconds=10,
)

QUICK = replace(  # what `make bench-quick` leaves out is as in the full one
    FULL,
    name="quick",
    rounds=1,
    saturated_seconds=0.8,
    paced_seconds=1.5,
    restart_seconds=4,
    restart_rate=200,
    restart_away_seconds=1,
    paid_seconds=3,
    watched_orders=8,
    backlog=1_000,
    core_loop_seconds=1.5,
    sustained_seconds=3,
    sustained_window=800,
    sustained_orders=4_500,
    tutorial_seconds=1,
    profile_seconds=0,
    settling_seconds=1,
    idle_seconds=2,
)


def _chosen() -> Plan:
    plan = {"full": FULL, "quick": QUICK}[os.environ.get("BENCH_PLAN", "full")]
    given = {
        field.name: type(getattr(plan, field.name))(os.environ[f"BENCH_{field.name.upper()}"])
        for field in fields(plan)
        if field.name != "name" and f"BENCH_{field.name.upper()}" in os.environ
    }
    return replace(plan, **given)


PLAN = _chosen()
