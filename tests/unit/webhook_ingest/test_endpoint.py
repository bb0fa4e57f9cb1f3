"""The endpoint in front of the framework answers as the framework's own route does, over a store that is a list."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import pytest

from services.webhook_ingest.api.rate_limit import RejectBudget
from services.webhook_ingest.bootstrap import build
from services.webhook_ingest.domain.models import Delivery
from services.webhook_ingest.main import create_application
from services.webhook_ingest.settings import WebhookIngestSettings
from services.webhook_ingest.use_cases.ports import AppendResult
from shared.errors import DatabaseUnavailable
from shared.messaging.in_process import InProcessBus
from shared.metrics import HTTP_REQUESTS
from shared.web.answering import ANSWER
from shared.web.app import Application
from tests.support.clock import FakeClock, fake_ports

SECRET = "a-webhook-secret-of-32-bytes-at-least"
ORIGIN = "https://shop.test"
BODY = b'{"event_id":"e1","event_type":"payment.completed"}'
SIGNED = {
    "Content-Type": "application/json",
    "X-Signature": hmac.digest(SECRET.encode(), BODY, hashlib.sha256).hex(),
}
# Of each request by itself, or of the layers that only the framework's way goes through.
CHANGING = {"x-request-id", "traceparent", "vary", "access-control-allow-origin", "access-control-expose-headers"}


@dataclass
class FakeStore:
    kept: list[Delivery] = field(default_factory=list)
    broken: Exception | None = None

    async def append(self, delivery: Delivery) -> AppendResult:
        if self.broken is not None:
            raise self.broken
        first = next((each for each in self.kept if each.dedupe_key == delivery.dedupe_key), None)
        self.kept.append(delivery)
        return AppendResult((first or delivery).id, first is not None, delivery.body_digest)


@dataclass
class Endpoint:
    app: Application
    store: FakeStore

    def client(self) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(app=self.app, client=("203.0.113.9", 50000), raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://ingest.test")

    async def post(self, path: str = "/api/v1/webhooks/generic", **options: Any) -> httpx.Response:
        async with self.client() as client:
            return await client.post(f"http://ingest.test{path}", **({"content": BODY, "headers": SIGNED} | options))


async def an_endpoint() -> AsyncIterator[Endpoint]:
    clock = FakeClock()
    settings = WebhookIngestSettings.load(
        database_url="postgresql://nobody@127.0.0.1:1/nothing",
        environment="development",
        jwt_shared_key="a-development-key-of-at-least-32-bytes",
        cors_allowed_origins=ORIGIN,
        webhook_max_body_bytes=1024,
        gateway_variables={"WEBHOOK_SECRET": SECRET},
    )
    async with build(settings, ports=fake_ports(clock=clock), bus=InProcessBus(clock)) as container:
        store = FakeStore()
        no_rejects = RejectBudget(0, clock)  # there is no database to keep them in
        edge = replace(container.edge, store=store, reject_budget=no_rejects)
        yield Endpoint(create_application(replace(container, edge=edge)), store)


@pytest.fixture
async def direct() -> AsyncIterator[Endpoint]:
    async for endpoint in an_endpoint():
        yield endpoint


@pytest.fixture
async def framework() -> AsyncIterator[Endpoint]:
    async for endpoint in an_endpoint():
        endpoint.app.shortcut = None
        yield endpoint


REQUESTS: dict[str, dict[str, Any]] = {
    "accepted": {},
    "with a slash": {"path": "/api/v1/webhooks/generic/"},
    "an account": {"path": "/api/v1/webhooks/generic/eu"},
    "an alias": {"path": "/api/webhooks/payment"},
    "an alias with a slash": {"path": "/api/v1/order-payments/webhooks/payment/"},
    "an alias of what is not enabled": {"path": "/api/v1/order-payments/webhooks/paypal"},
    "a query": {"path": "/api/v1/webhooks/generic?token=x"},
    "an unknown gateway": {"path": "/api/v1/webhooks/nobody"},
    "a gateway with a line feed": {"path": "/api/v1/webhooks/generic%0A"},
    "a slash inside": {"path": "/api/v1/webhooks/gen%2Feric"},
    "no gateway": {"path": "/api/v1/webhooks/"},
    "two slashes": {"path": "/api/v1/webhooks//generic"},
    "too many steps": {"path": "/api/v1/webhooks/generic/eu/x"},
    "an account with a slash behind": {"path": "/api/v1/webhooks/generic/eu/"},
    "another beginning": {"path": "/api/v1/webhooksgeneric"},
    "no signature": {"headers": {"Content-Type": "application/json"}},
    "another signature": {"headers": {**SIGNED, "X-Signature": "0" * 64}},
    "no body": {"content": b""},
    "another type": {"headers": {**SIGNED, "Content-Type": "text/xml"}},
    "compressed": {"headers": {**SIGNED, "Content-Encoding": "gzip"}},
    "compressed twice": {"headers": [*SIGNED.items(), ("Content-Encoding", "br"), ("Content-Encoding", "identity")]},
    "two types": {"headers": [*SIGNED.items(), ("Content-Type", "text/xml")]},
    "too large": {"content": b"x" * 1025},
    "a claim beyond all measure": {"headers": {**SIGNED, "Content-Length": "9" * 14}},
    "a request id": {"headers": {**SIGNED, "X-Request-Id": "abc-1"}},
}


async def test_the_shortcut_answers_as_the_framework_does(direct: Endpoint, framework: Endpoint) -> None:
    for name, request in REQUESTS.items():
        first, second = [await endpoint.post(**request) for endpoint in (direct, framework)]
        assert shown(first) == shown(second), name
        assert kept(direct) == kept(framework), name


def shown(answer: httpx.Response) -> Any:
    headers = sorted((name, value) for name, value in answer.headers.multi_items() if name not in CHANGING)
    return answer.status_code, headers, without_ids(answer.content)


def kept(endpoint: Endpoint) -> Sequence[Delivery]:
    return [replace(each, id="", request_id="", traceparent="") for each in endpoint.store.kept]


def without_ids(content: bytes) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(content)
    return {name: value for name, value in body.items() if name not in ("request_id", "delivery_id")}


async def test_it_carries_the_request_id_and_the_trace_into_the_delivery(direct: Endpoint) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    headers = SIGNED | {"X-Request-Id": "abc-1", "traceparent": f"00-{trace}-b7ad6b7169203331-01"}
    answer = await direct.post(headers=headers)
    [kept] = direct.store.kept
    assert answer.headers["x-request-id"] == kept.request_id == "abc-1"
    assert answer.headers["traceparent"] == kept.traceparent
    assert answer.headers["traceparent"].split("-")[1] == trace


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD"])
async def test_other_methods_are_405(direct: Endpoint, method: str) -> None:
    async with direct.client() as client:
        answer = await client.request(method, "/api/v1/webhooks/generic")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


async def test_a_page_of_the_shop_may_post_and_ask_beforehand(direct: Endpoint) -> None:
    answer = await direct.post(headers=SIGNED | {"Origin": ORIGIN})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, ORIGIN)
    async with direct.client() as client:
        headers = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
        assert (await client.options("/api/v1/webhooks/generic", headers=headers)).status_code == 200


async def test_a_database_that_is_away_is_503_with_its_headers(direct: Endpoint) -> None:
    direct.store.broken = DatabaseUnavailable()
    answer = await direct.post()
    assert (answer.status_code, answer.json()["retryable"]) == (503, True)
    assert answer.headers["retry-after"]
    assert answer.headers["ratelimit-remaining"] == "60"


async def test_a_bug_is_a_problem_that_says_nothing_and_is_counted(direct: Endpoint) -> None:
    direct.store.broken = ZeroDivisionError("canary")
    counted = requests_counted(500)
    answer = await direct.post()
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "canary" not in answer.text
    assert requests_counted(500) == counted + 1


async def test_labels_are_patterns_however_many_addresses_are_tried(direct: Endpoint) -> None:
    await direct.post("/api/v1/webhooks/somebody-unheard-of/account-unheard-of")
    labels = [sample.labels for metric in HTTP_REQUESTS.collect() for sample in metric.samples]
    assert not any("unheard-of" in str(each) for each in labels)
    assert "/api/v1/webhooks/{gateway}/{account}" in {each["route"] for each in labels}


async def test_an_address_with_failures_is_told_how_many_are_left_until_they_are_forgotten(direct: Endpoint) -> None:
    await direct.post(headers={})
    assert (await direct.post()).headers["ratelimit-remaining"] == "59"


async def test_a_server_that_takes_whole_answers_gets_one_with_the_same_headers(direct: Endpoint) -> None:
    written: list[tuple[int, bytes, bytes]] = []

    def answer(status: int, head: bytes, body: bytes) -> bool:
        written.append((status, head, body))
        return True

    expected = await direct.post()
    await direct.app(a_scope(answer), one_message, never)
    [(status, head, body)] = written
    lines = [line.partition(b": ") for line in head.split(b"\r\n")[:-1]]
    headers = {name.decode(): value.decode() for name, _, value in lines}
    assert (status, set(headers)) == (200, set(expected.headers))
    assert {name for name in headers if headers[name] != expected.headers[name]} == {
        "content-length",
        "x-request-id",
        "traceparent",
    }
    assert json.loads(body)["status"] == "duplicate"
    assert headers["content-length"] == str(len(body))


def a_scope(answer: Any) -> dict[str, Any]:
    headers: Sequence[tuple[bytes, bytes]] = [(k.lower().encode(), v.encode()) for k, v in SIGNED.items()]
    return {
        "type": "http",
        "method": "POST",
        "path": "/api/v1/webhooks/generic",
        "query_string": b"",
        "headers": headers,
        "client": ("203.0.113.9", 50000),
        "extensions": {ANSWER: answer},
    }


async def one_message() -> dict[str, Any]:
    return {"type": "http.request", "body": BODY, "more_body": False}


async def never(message: Any) -> None:
    raise AssertionError(message)


def requests_counted(status: int) -> float:
    return sum(
        sample.value
        for metric in HTTP_REQUESTS.collect()
        for sample in metric.samples
        if sample.name.endswith("_total") and sample.labels["status"] == str(status)
    )
