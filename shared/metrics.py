"""Prometheus metrics with bounded labels; one registry a process, so the embedded mode shows all on one page."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any, TypeVar

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector

_PLACE = os.environ.get("PAYRAIL_SERVER_PROCESS", "")
IS_ONE_OF_SEVERAL = bool(_PLACE)
if IS_ONE_OF_SEVERAL:
    # Files are named by a server process's place and not by its pid, so a successor goes on with them and they do not
    # grow in number. Before any metric is made: this is read when they are.
    values.ValueClass = values.MultiProcessValue(lambda: _PLACE.partition(":")[0])  # type: ignore[no-untyped-call]

HTTP_REQUESTS = Counter(
    "payrail_http_requests_total", "Answered HTTP requests", ["service", "method", "route", "status"], registry=REGISTRY
)
HTTP_SECONDS = Histogram(
    "payrail_http_request_seconds",
    "Time from the first byte of a request to the end of its answer",
    ["service", "route"],
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
OUTBOX_WAITING = Gauge("payrail_outbox_waiting", "Events that are not published yet", ["service"])
OUTBOX_OLDEST_SECONDS = Gauge("payrail_outbox_oldest_seconds", "Age of the oldest event not published yet", ["service"])
EVENTS_PUBLISHED = Counter("payrail_events_published_total", "Events published", ["service", "type"])
EVENTS_HANDLED = Counter("payrail_events_handled_total", "Messages handled, by result", ["consumer", "result"])
EVENT_LAG_SECONDS = Histogram(
    "payrail_event_lag_seconds",
    "Time from an event's commit to the end of its handling",
    ["consumer"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300),
)
DEAD_MESSAGES = Counter("payrail_dead_messages_total", "Messages given up on after all attempts", ["consumer"])
GATEWAY_CALLS = Counter(
    "payrail_gateway_calls_total", "Calls to gateways, by result", ["gateway", "operation", "result"]
)
GATEWAY_SECONDS = Histogram(
    "payrail_gateway_call_seconds",
    "Time of one call to a gateway, retries included",
    ["gateway", "operation"],
    buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 40),
)
GATEWAY_BREAKER_STATE = Gauge(
    "payrail_gateway_breaker_state",
    "Circuit breaker: 0 closed, 1 half open (the next call, or a running one, decides), 2 open",
    ["gateway", "operation_class"],
    multiprocess_mode="livemax",
)
WEBHOOKS = Counter("payrail_webhooks_total", "Webhook deliveries, by what became of them", ["gateway", "result"])
PARKED_EVENTS = Gauge("payrail_parked_events", "Gateway events that wait for their payment to be known")
PAYMENT_TRANSITIONS = Counter(
    "payrail_payment_transitions_total", "Payments that reached a status", ["gateway", "status"]
)
LEARNT_BY_SWEEP = Counter(
    "payrail_learnt_by_sweep_total",
    "Payments of which the sweep learnt before any webhook (missed webhooks)",
    ["gateway"],
)
OPERATIONS_UNSETTLED = Gauge(
    "payrail_operations_unsettled", "Captures, voids, refunds and completions that are not settled", ["status"]
)
OPERATIONS_ESCALATED = Counter(
    "payrail_operations_escalated_total",
    "Operations without an answer beyond the gateway's horizon: a person has to look",
    ["gateway", "kind"],
)
LEDGER_IMBALANCE = Gauge(
    "payrail_ledger_imbalance",
    "What does not balance in the ledger: entries (trial_balance), payments whose totals say otherwise (payment)",
    ["kind"],
)
COMMANDS_REFUSED = Counter(
    "payrail_commands_refused_total", "Commands that were not signed by a sender we obey", ["type"]
)
RETENTION_PRUNED = Counter(
    "payrail_retention_pruned_total", "Rows deleted or emptied by retention", ["service", "table"]
)
RETENTION_OLDEST = Gauge(
    "payrail_retention_oldest_seconds",
    "Age of the oldest row that retention left, when it last ran",
    ["service", "table"],
)
RETENTION_FINISHED = Gauge(
    "payrail_retention_finished_timestamp_seconds", "When retention was last through with a table", ["service", "table"]
)

_Metric = TypeVar("_Metric", Counter, Gauge, Histogram)


def series(metric: _Metric, *labels: str | int) -> _Metric:
    """As ``metric.labels(…)``, remembered: a request counts four times, and looking the labels up costs as much as
    verifying a signature. For metrics whose labels are few, as all of ours are."""
    found: _Metric = _series(metric, *labels)
    return found


@lru_cache(maxsize=4096)
def _series(metric: Any, *labels: str | int) -> Any:
    return metric.labels(*labels)


def exposition() -> bytes:
    """The page of /metrics: of this process, or of all of a service's server processes (deploy/supervisor.py)."""
    if not IS_ONE_OF_SEVERAL:
        return generate_latest()
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)
