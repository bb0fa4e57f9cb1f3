"""Metrics of this service alone; the labels are gateways and a handful of results."""

from __future__ import annotations

from prometheus_client import REGISTRY, Counter, Gauge

SWEEP_CHECKS = Counter(
    "payrail_sweep_checks_total",
    "Payments that the sweep asked about: changed, unchanged, refused, unanswered or unavailable",
    ["gateway", "result"],
    registry=REGISTRY,
)
CHANGES_LEARNT = Counter(
    "payrail_payment_changes_learnt_total",
    "Changes of status, by what told us first; sweep against webhook is the rate of missed webhooks",
    ["gateway", "learnt_from"],
    registry=REGISTRY,
)
CASES_OPEN = Gauge("payrail_cases_open", "Cases that are not resolved", ["scenario", "gateway"], registry=REGISTRY)
CASE_OLDEST_SECONDS = Gauge(
    "payrail_case_oldest_seconds",
    "Age of the oldest case that is not resolved",
    ["scenario", "gateway"],
    registry=REGISTRY,
)
CASE_ACTION_UNVERIFIED_SECONDS = Gauge(
    "payrail_case_action_unverified_seconds",
    "Age of the oldest command of a case whose effect no run has seen yet",
    ["action"],
    registry=REGISTRY,
)
SWEEP_LAST_ROUND = Gauge(
    "payrail_sweep_last_round_timestamp_seconds", "When this replica last ended a round of the sweep", registry=REGISTRY
)
SETTLEMENT_FILES_REFUSED = Counter(
    "payrail_settlement_files_refused_total",
    "Settlement files, and gateways' reports, that came by themselves and could not be taken in, where from, each try",
    ["gateway", "source"],
    registry=REGISTRY,
)
