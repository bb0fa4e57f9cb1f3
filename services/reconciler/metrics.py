"""Metrics of this service alone; the labels are gateways and a handful of results."""

from __future__ import annotations

from prometheus_client import REGISTRY, Counter, Gauge

SWEEP_CHECKS = Counter(
    "payrail_sweep_checks_total",
    "Payments that the sweep asked about: changed, unchanged, refused, unanswered or unavailable",
    ["gateway", "result"],
    registry=REGISTRY,
)
SWEEP_LAST_ROUND = Gauge(
    "payrail_sweep_last_round_timestamp_seconds", "When this replica last ended a round of the sweep", registry=REGISTRY
)
