"""The alerting rules are rules, and ask only for what is measured, by labels that it has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import Counter, Gauge

from services.reconciler import metrics as reconciler_metrics
from services.webhook_ingest import metrics as ingest_metrics
from services.webhook_ingest.domain.errors import DeliveryNotStorable
from shared import metrics

GROUPS: list[dict[str, Any]] = yaml.safe_load(
    (Path(__file__).resolve().parents[3] / "deploy" / "alerts.yaml").read_text()
)["groups"]
RULES = {rule["alert"]: rule for group in GROUPS for rule in group["rules"]}
MEASURED = {
    f"{metric._name}_total" if isinstance(metric, Counter) else metric._name: metric
    for module in (metrics, reconciler_metrics, ingest_metrics)
    for metric in vars(module).values()
    if isinstance(metric, Counter | Gauge)
}
DURATION = r"\d+[smhd]"
METRIC = r"payrail_\w+"
# The few forms that the rules need: a gauge's worst, a time long ago, a gauge that rises, a counter that has grown or
# is new, what is gone.
GAUGE = re.compile(rf"max(?: by \((?P<labels>\w+(?:, \w+)*)\) )?\((?P<metric>{METRIC})\) (?:==|>) \d+")
AGE = re.compile(rf"time\(\) - max by \((?P<labels>\w+(?:, \w+)*)\) \((?P<metric>{METRIC})\) > \d+")
RISING = re.compile(rf"max by \((?P<labels>\w+(?:, \w+)*)\) \(delta\((?P<metric>{METRIC})\[{DURATION}\]\)\) > \d+")
COUNTER = re.compile(
    r"(?P<sum>sum(?: by \((?P<labels>\w+(?:, \w+)*)\) )?)"
    rf"\(increase\((?P<series>(?P<metric>{METRIC})(?:{{\w+=\"\w+\"}})?)\[(?P<window>{DURATION})\]\)\) > 0 "
    r"or (?P=sum)\((?P=series) unless (?P=series) offset (?P=window)\) > 0"
)
ABSENT = re.compile(rf"absent\((?P<metric>{METRIC})\)")


def parsed(expression: str) -> tuple[re.Pattern[str], str, set[str]]:
    """The form, the metric, and the labels that are left of it."""
    for form in (GAUGE, AGE, RISING, COUNTER, ABSENT):
        if match := form.fullmatch(expression):
            labels = match.groupdict().get("labels")
            return form, match["metric"], set(labels.split(", ")) if labels else set()
    raise AssertionError(f"no form that the rules have: {expression}")


@pytest.mark.parametrize("name", RULES)
def test_a_rule_is_complete_and_says_what_to_do(name: str) -> None:
    rule = RULES[name]
    assert set(rule) - {"for"} == {"alert", "expr", "labels", "annotations"}
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert set(rule["annotations"]) == {"summary", "action"}
    assert re.fullmatch(DURATION, rule.get("for", "0s"))


@pytest.mark.parametrize("name", RULES)
def test_an_expression_asks_for_what_is_measured_as_it_is_measured(name: str) -> None:
    form, metric, labels = parsed(RULES[name]["expr"])
    assert metric in MEASURED
    assert labels <= set(MEASURED[metric]._labelnames)
    # A counter only ever grows: what counts is that it has, in a while. A gauge is what it is.
    assert form is ABSENT or (form is COUNTER) == isinstance(MEASURED[metric], Counter)


@pytest.mark.parametrize("name", RULES)
def test_a_text_names_only_labels_that_are_left(name: str) -> None:
    _, _, labels = parsed(RULES[name]["expr"])
    assert set(re.findall(r"\$labels\.(\w+)", " ".join(RULES[name]["annotations"].values()))) <= labels


def test_what_must_not_go_unnoticed_has_a_rule() -> None:
    assert {parsed(rule["expr"])[1] for rule in RULES.values()} == {
        "payrail_ledger_imbalance",
        "payrail_operations_escalated_total",
        "payrail_commands_refused_total",
        "payrail_gateway_breaker_state",
        "payrail_parked_events",
        "payrail_dead_messages_total",
        "payrail_outbox_oldest_seconds",
        "payrail_case_oldest_seconds",
        "payrail_cases_open",
        "payrail_case_action_unverified_seconds",
        "payrail_settlement_files_refused_total",
        "payrail_retention_finished_timestamp_seconds",
        "payrail_webhook_spool_oldest_seconds",
        "payrail_webhook_spool_unreadable",
        "payrail_webhook_spool_set_aside_total",
        "payrail_webhooks_total",
    }
    assert f'result="{DeliveryNotStorable.code}"' in RULES["PayrailDeliveryNotStorable"]["expr"]
