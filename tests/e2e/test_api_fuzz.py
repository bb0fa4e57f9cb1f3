"""Schemathesis over the OpenAPI documents of all four services: no 5xx, no answer that the document does not know.

What it generates is derived from a fixed seed, so a failure comes back with the same command. Ids in paths are partly
those of things that exist, since random ones would only ever meet the 404.

One operation is left out: the event stream of an order answers without end, so there is no response to judge (its
contract is tested by the streams' own tests). ``wait`` of the long poll is kept at a second for the same reason.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import APIOperation, Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.e2e.shop import Shop
from tests.e2e.stack import SECRETS, EmbeddedStack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600), pytest.mark.xdist_group("fuzz")]

SERVICES = ["order-service", "payment-service", "webhook-ingest", "reconciler"]
ENDLESS = {"/api/v1/orders/{order_id}/stream"}
EXAMPLES = 8  # of valid and as many of invalid requests, per operation and caller
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
]
# Limits that would answer 429 to most of what is tried here, and so hide the answers behind them.
UNLIMITED = {
    "WEBHOOK_FAILED_VERIFICATIONS_PER_MINUTE": "100000",
    "ORDER_RATE_PER_MINUTE": "1000000",
    "PAY_RATE_PER_MINUTE": "1000000",
    "LOG_LEVEL": "warning",
}
REQUEST_SECONDS = 15


@dataclass(frozen=True)
class Existing:
    """Things that are there, by the name of the path parameter that asks for them."""

    ids: Mapping[str, str]
    order_secret: str


@pytest.fixture(scope="module")
def fuzzed_stack() -> Iterator[EmbeddedStack]:
    """One of its own: what the fuzzer leaves behind is nobody else's business."""
    stack = EmbeddedStack(UNLIMITED)
    try:
        stack.start()
        yield stack
    finally:
        stack.close()


@pytest.fixture
async def existing(fuzzed_stack: EmbeddedStack) -> AsyncIterator[Existing]:
    shop = Shop(fuzzed_stack)
    order = await shop.order()
    session = await shop.pay(order, "generic")
    stored = (await shop.webhook({"event_id": f"evt-{order.id}", "status": "unheard_of"})).json()
    run = await shop.http.post(
        f"{fuzzed_stack.reconciler_url}/api/v1/reconciliation/runs", json={"kind": "sweep"}, headers=shop.ops
    )
    assert run.status_code == 202, run.text
    ids = {
        "order_id": order.id,
        "payment_id": session["payment_id"],
        "delivery_id": stored["delivery_id"],
        "run_id": run.json()["run_id"],
        "sku": "fuzzed-product",
        "gateway": "generic",
    }
    yield Existing(ids, order.secret)
    await shop.close()


@pytest.mark.parametrize("service", SERVICES)
def test_an_operator_gets_only_answers_that_the_document_knows(
    service: str, fuzzed_stack: EmbeddedStack, existing: Existing
) -> None:
    headers = {"authorization": f"Bearer {fuzzed_stack.operator_token}", "x-order-secret": existing.order_secret}
    assert _failures(service, fuzzed_stack, existing, headers) == []


@pytest.mark.parametrize("service", SERVICES)
def test_a_stranger_gets_only_answers_that_the_document_knows(
    service: str, fuzzed_stack: EmbeddedStack, existing: Existing
) -> None:
    assert _failures(service, fuzzed_stack, existing, {}) == []


def _failures(service: str, stack: EmbeddedStack, existing: Existing, headers: Mapping[str, str]) -> list[str]:
    """What went wrong, one text per operation: all operations are tried, whatever the first ones did."""
    document = requests.get(f"{stack.order_url}/openapi/{service}.json", timeout=REQUEST_SECONDS).json()
    schema = schemathesis.openapi.from_dict(document)
    failures: list[str] = []
    tried = 0
    with requests.Session() as session:
        session.trust_env = False
        for found in schema.get_all_operations():
            assert isinstance(found, Ok), found
            operation = found.ok()
            if operation.path in ENDLESS:
                continue
            tried += 1
            for mode in _modes(operation):
                try:
                    _try_operation(operation, mode, stack, existing, headers, session)
                except AssertionError as failure:
                    failures.append(f"{operation.label}: {failure}")
                except BaseExceptionGroup as group:
                    failures.append(f"{operation.label}: {[str(each) for each in group.exceptions]}")
    assert tried >= len(document["paths"]) - len(ENDLESS)
    return failures


def _modes(operation: APIOperation[Any, Any, Any, Any]) -> list[GenerationMode]:
    """Nothing can be wrong with a request that carries nothing."""
    takes_input = bool(list(operation.iter_parameters())) or bool(operation.body)
    return [GenerationMode.POSITIVE, GenerationMode.NEGATIVE] if takes_input else [GenerationMode.POSITIVE]


def _try_operation(
    operation: APIOperation[Any, Any, Any, Any],
    mode: GenerationMode,
    stack: EmbeddedStack,
    existing: Existing,
    headers: Mapping[str, str],
    session: requests.Session,
) -> None:
    exists = cycle([True, False])

    @seed(20_260_101)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(mode))
    def attempt(case: Case[Any]) -> None:
        if next(exists):
            _aim_at_what_exists(case, existing)
        if "wait" in case.query:
            case.query["wait"] = 1
        response = case.call(base_url=stack.order_url, session=session, headers=dict(headers), timeout=REQUEST_SECONDS)
        case.validate_response(response, checks=CHECKS)

    attempt()


def _aim_at_what_exists(case: Case[Any], existing: Existing) -> None:
    for name in case.path_parameters:
        if name in existing.ids:
            case.path_parameters[name] = existing.ids[name]


@pytest.mark.parametrize("gateway", ["generic", "stripe"])
def test_a_signed_delivery_of_anything_is_acknowledged(gateway: str, fuzzed_stack: EmbeddedStack) -> None:
    """What is signed is stored, whatever it says: an answer that is no 200 makes the gateway repeat it for days."""
    json_values = st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False) | st.integers() | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=8,
    )
    names = st.sampled_from(["event_id", "id", "type", "status", "payment_id", "amount", "currency", "created", "data"])
    documents = st.dictionaries(names, json_values) | json_values
    bodies = documents.map(lambda value: json.dumps(value).encode()) | st.binary(min_size=1, max_size=300)

    @seed(20_260_102)
    @settings(max_examples=80, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(body=bodies)
    def attempt(body: bytes) -> None:
        answer = requests.post(
            f"{fuzzed_stack.ingest_url}/api/v1/webhooks/{gateway}",
            data=body,
            headers={"content-type": "application/json", **_signature(gateway, body)},
            timeout=REQUEST_SECONDS,
        )
        assert answer.status_code == 200, (answer.status_code, answer.text)

    attempt()


def _signature(gateway: str, body: bytes) -> dict[str, str]:
    """As the gateway signs: Stripe puts a time of now before the body."""
    if gateway == "generic":
        return {"x-signature": hmac.new(SECRETS["WEBHOOK_SECRET"].encode(), body, hashlib.sha256).hexdigest()}
    at = str(int(time.time()))
    signed = hmac.new(SECRETS["STRIPE_WEBHOOK_SECRET"].encode(), at.encode() + b"." + body, hashlib.sha256)
    return {"stripe-signature": f"t={at},v1={signed.hexdigest()}"}
