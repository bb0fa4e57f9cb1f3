"""Measure how old cases get (and so what nobody looks at). The worker does it every minute or so."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from prometheus_client import Gauge

from services.reconciler.domain.cases import MONEY_ACTIONS
from services.reconciler.metrics import CASE_ACTION_UNVERIFIED_SECONDS, CASE_OLDEST_SECONDS, CASES_OPEN
from services.reconciler.use_cases.ports import Context

NO_GATEWAY = "none"
"""Of cases that are about an order alone."""


async def measure_cases(context: Context) -> None:
    """Labels are scenarios, gateways that we have cases of, and commands: a few hundred series at the most."""
    now = context.clock.now()
    async with context.uow() as tx:
        ages = await tx.cases.ages()
        unverified = await tx.cases.unverified()
    open_ = {(scenario, gateway or NO_GATEWAY): each for (scenario, gateway), each in ages.items()}
    _set(CASES_OPEN, {labels: float(count) for labels, (count, _) in open_.items()})
    _set(CASE_OLDEST_SECONDS, {labels: _age(oldest, now) for labels, (_, oldest) in open_.items()})
    waiting = {action: _age(at, now) for action, at in unverified.items()}
    told = dict.fromkeys(MONEY_ACTIONS, 0.0) | waiting  # always some, so that an alert can see that nobody measures
    _set(CASE_ACTION_UNVERIFIED_SECONDS, {(action.value,): age for action, age in told.items()})


def _age(since: datetime, now: datetime) -> float:
    return max((now - since).total_seconds(), 0.0)


def _set(gauge: Gauge, values: Mapping[tuple[str, ...], float]) -> None:
    """What there was and is no more goes to 0, so that its alert ends."""
    (family,) = gauge.collect()
    known = {tuple(sample.labels.values()) for sample in family.samples}
    for labels in known | set(values):
        gauge.labels(*labels).set(values.get(labels, 0.0))
