"""What no honest client sends: each is refused with a problem that says why, and nothing is half done."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.e2e.shop import SKU, Shop
from tests.e2e.stack import DistributedStack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300), pytest.mark.xdist_group("distributed")]

TEN_MEGABYTES = 10_000_000
JSON = {"content-type": "application/json"}


@dataclass(frozen=True)
class Door:
    """A request of one service that takes a JSON body, and what an honest one looks like."""

    service: str
    path: str
    body: Mapping[str, Any] = field(default_factory=dict)
    text_field: tuple[str, ...] = ()  # where a text goes that is stored

    def url(self, shop: Shop) -> str:
        base: str = getattr(shop.stack, f"{self.service}_url")
        return base + self.path

    def with_text(self, text: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(json.dumps(self.body))
        *parents, last = self.text_field
        inner = document
        for parent in parents:
            inner = inner[parent]
        inner[last] = text
        return document


ORDER = {
    "items": [{"sku": SKU, "quantity": 1}],
    "currency": "USD",
    "customer": {"email": "bad-input@example.com", "name": "Zoë"},
}
PAYMENT = {
    "payment_id": f"pay_{'0' * 26}",
    "order_id": f"ord_{'0' * 26}",
    "gateway": "generic",
    "amount": {"amount_minor": 100, "currency": "USD"},
    "description": "one order",
    "customer": {"email": "bad-input@example.com", "name": "Zoë"},
    "success_url": "https://shop.example/a",
    "failure_url": "https://shop.example/b",
    "cancel_url": "https://shop.example/c",
    "expires_at": "2100-01-01T00:00:00Z",
}
REPLAY = {"gateway": "generic", "from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z", "reason": "a test"}

DOORS = [
    pytest.param(Door("order", "/api/v1/orders", ORDER, ("customer", "name")), id="order"),
    pytest.param(Door("payment", "/api/v1/payments", PAYMENT, ("customer", "name")), id="payment"),
    pytest.param(Door("ingest", "/api/v1/webhook-replays", REPLAY, ("reason",)), id="ingest"),
    pytest.param(Door("reconciler", "/api/v1/reconciliation/runs", {"kind": "sweep"}, ("gateway",)), id="reconciler"),
]
WEBHOOK = Door("ingest", "/api/v1/webhooks/generic")


@pytest.fixture
def stack(distributed_stack: DistributedStack) -> DistributedStack:
    """Processes of their own, as in production: embedded, the same applications stand behind one port."""
    return distributed_stack


every_service = pytest.mark.parametrize("door", DOORS)
every_service_and_webhooks = pytest.mark.parametrize("door", [*DOORS, pytest.param(WEBHOOK, id="webhook")])


def assert_problem(answer: httpx.Response, status: int, code: str | None = None) -> dict[str, Any]:
    assert answer.status_code == status, (answer.status_code, answer.text)
    assert answer.headers["content-type"].startswith("application/problem+json"), answer.headers
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == status
    assert problem["code"]
    assert problem["detail"]
    assert problem["request_id"] == answer.headers["x-request-id"]
    if code is not None:
        assert problem["code"] == code, problem
    return problem


@asynccontextmanager
async def nothing_changes(shop: Shop) -> AsyncIterator[None]:
    """No order, payment, delivery or run more than before, and the stock as it was."""
    before = await _state(shop)
    yield
    after = await _state(shop)
    assert after.pop("deliveries") <= before.pop("deliveries"), "what comes in meanwhile pushes old ones off the page"
    assert after == before


async def _state(shop: Shop) -> dict[str, Any]:
    stack = shop.stack
    # What the sandbox still sends for other tests has an event id, and what the sweep does of itself is scheduled.
    deliveries = await _list(shop, f"{stack.ingest_url}/api/v1/webhook-deliveries?limit=50&gateway=generic")
    runs = await _list(shop, f"{stack.reconciler_url}/api/v1/reconciliation/runs?limit=50")
    return {
        "stock": await shop.stock(),
        "orders": [each["id"] for each in await _list(shop, f"{stack.order_url}/api/v1/orders?limit=1")],
        "payments": [each["payment_id"] for each in await _list(shop, f"{stack.payment_url}/api/v1/payments?limit=1")],
        "deliveries": {each["id"] for each in deliveries if each["event_id"] is None},
        "runs": {each["run_id"] for each in runs if each["trigger"] == "request"},
    }


async def _list(shop: Shop, url: str) -> list[dict[str, Any]]:
    answer = await shop.http.get(url, headers=shop.ops)
    assert answer.status_code == 200, answer.text
    data: list[dict[str, Any]] = answer.json()["data"]
    return data


async def post(shop: Shop, door: Door, body: Any, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await shop.http.post(door.url(shop), content=content, headers=shop.ops | JSON | headers)


@every_service
@pytest.mark.parametrize("body", [b"{", b'{"a": }', b"not json", b'{"a": 1} trailing', b"\xff\xfe{}", b"[" * 5000])
async def test_a_body_that_is_not_json_is_400(shop: Shop, door: Door, body: bytes) -> None:
    async with nothing_changes(shop):
        problem = assert_problem(await post(shop, door, body), 400)
        assert problem["code"] in ("malformed_json", "malformed_request")


@every_service
@pytest.mark.parametrize("body", [b"", b"null", b"[]", b'"text"', b"1", b"NaN", b"{}"])
async def test_json_that_is_no_such_request_is_422(shop: Shop, door: Door, body: bytes) -> None:
    if door.service == "reconciler" and body == b"{}":
        body = b'{"kind": null}'  # everything in it may be left out
    async with nothing_changes(shop):
        assert_problem(await post(shop, door, body), 422, "invalid_request")


@every_service
@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "application/xml", "?"])
async def test_a_body_of_another_type_is_refused(shop: Shop, door: Door, content_type: str) -> None:
    async with nothing_changes(shop):
        answer = await shop.http.post(
            door.url(shop),
            content=json.dumps(door.body),
            headers=shop.ops | {"content-type": content_type},
        )
        assert_problem(answer, 422, "invalid_request")


@every_service
async def test_a_field_that_is_not_known_is_refused(shop: Shop, door: Door) -> None:
    async with nothing_changes(shop):
        problem = assert_problem(await post(shop, door, {**door.body, "is_admin": True}), 422, "invalid_request")
        assert "/is_admin" in {error["pointer"] for error in problem["errors"]}


@every_service
@pytest.mark.parametrize("text", ["a\x00b", "a\ud800b", "\udfff"])
async def test_text_that_cannot_be_stored_is_refused(shop: Shop, door: Door, text: str) -> None:
    async with nothing_changes(shop):
        answer = await post(shop, door, door.with_text(text))
        assert answer.status_code in (400, 422), answer.text
        assert_problem(answer, answer.status_code)


@every_service_and_webhooks
async def test_a_path_that_is_not_there_is_404_and_a_wrong_method_405(shop: Shop, door: Door) -> None:
    url = door.url(shop)
    assert_problem(await shop.http.get(f"{url}/no/such/thing/here", headers=shop.ops), 404, "not_found")
    answer = await shop.http.patch(url, headers=shop.ops, json={})
    assert_problem(answer, 405, "method_not_allowed")
    assert "POST" in answer.headers["allow"]


@every_service_and_webhooks
@pytest.mark.parametrize("announced", [True, False], ids=["announced", "chunked"])
async def test_ten_megabytes_are_413_before_they_are_read(shop: Shop, door: Door, announced: bool) -> None:
    async with nothing_changes(shop):
        answer = await send_much(door.url(shop), shop.ops | JSON, announced=announced)
        assert_problem(answer, 413, "body_too_large")


@every_service_and_webhooks
async def test_a_body_that_claims_to_be_huge_is_413_without_sending_any(shop: Shop, door: Door) -> None:
    head = {"content-length": "9" * 18, **shop.ops, **JSON}
    assert_problem(await exchange(door.url(shop), head, b""), 413, "body_too_large")


@every_service_and_webhooks
async def test_headers_beyond_all_measure_are_400(shop: Shop, door: Door) -> None:
    answer = await exchange(door.url(shop), {**shop.ops, "x-filler": "a" * 200_000}, b"")
    assert answer.status_code == 400
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert (answer.json()["code"], answer.json()["status"]) == ("malformed_request", 400)


@pytest.mark.parametrize("name", ["x-request-id", "traceparent", "idempotency-key", "x-order-secret", "if-none-match"])
async def test_long_and_strange_values_of_our_own_headers_break_nothing(shop: Shop, name: str) -> None:
    order = await shop.order()
    url = f"{shop.stack.order_url}/api/v1/orders/{order.id}"
    for value in ("", "a" * 20_000, "é\x80", "'; drop table orders; --", "00-" + "0" * 32 + "-" + "0" * 16 + "-00"):
        headers = {b"x-order-secret": order.secret.encode(), name.encode(): value.encode("latin-1")}
        answer = await shop.http.get(url, headers=headers)
        assert answer.status_code in ((401, 404) if name == "x-order-secret" else (200,)), answer.text
        assert len(answer.headers["x-request-id"]) <= 128


BAD_QUANTITIES = [0, -1, 1.5, 1.0, "1", 1001, 10**30, True, None, [1], 1e308]


@pytest.mark.parametrize("quantity", BAD_QUANTITIES, ids=repr)
async def test_a_quantity_that_is_no_small_whole_number_is_refused(shop: Shop, quantity: Any) -> None:
    door = Door("order", "/api/v1/orders")
    async with nothing_changes(shop):
        answer = await post(shop, door, {**ORDER, "items": [{"sku": SKU, "quantity": quantity}]})
        problem = assert_problem(answer, 422, "invalid_request")
        assert [error["pointer"] for error in problem["errors"]] == ["/items/0/quantity"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"currency": "EUR"}, "currency_mismatch"),
        ({"currency": "usd"}, "invalid_request"),
        ({"currency": "XXY"}, "invalid_request"),
        ({"items": []}, "invalid_request"),
        ({"items": [{"sku": SKU, "quantity": 1}] * 2}, "duplicate_item"),
        ({"items": [{"sku": "no-such-product", "quantity": 1}]}, "unknown_product"),
        ({"items": [{"sku": SKU, "quantity": 1}] * 101}, "invalid_request"),
        ({"items": [{"sku": SKU, "quantity": 1, "price": 1}]}, "invalid_request"),
        ({"items": [{"sku": SKU, "quantity": 1, "unit_price": {"amount_minor": 1, "currency": "USD"}}]}, None),
        ({"total": {"amount_minor": 1, "currency": "USD"}}, "invalid_request"),
        ({"amount": 1}, "invalid_request"),
        ({"discount_minor": 1849}, "invalid_request"),
        ({"customer": {"email": "no address", "name": "Zoë"}}, "invalid_request"),
        ({"customer": {"email": "a@b.example\r\nBcc: all@example.com", "name": "Zoë"}}, "invalid_request"),
        ({"metadata": {f"key-{number}": "" for number in range(50)}}, "invalid_request"),
    ],
    ids=repr,
)
async def test_an_order_that_names_a_price_or_does_not_add_up_is_refused(
    shop: Shop, changes: Mapping[str, Any], code: str | None
) -> None:
    async with nothing_changes(shop):
        assert_problem(await post(shop, Door("order", "/api/v1/orders"), {**ORDER, **changes}), 422, code)


async def test_one_member_twice_is_refused_where_money_is_concerned(shop: Shop) -> None:
    twice = json.dumps(ORDER).replace('"quantity": 1', '"quantity": 1, "quantity": 1000').encode()
    payment = json.dumps(PAYMENT).replace('"amount_minor": 100', '"amount_minor": 100, "amount_minor": 1').encode()
    async with nothing_changes(shop):
        assert_problem(await post(shop, Door("order", "/api/v1/orders"), twice), 422)
        assert_problem(await post(shop, Door("payment", "/api/v1/payments"), payment), 422)


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"gateway": "no_such_gateway"}, 422, "gateway_not_enabled"),
        ({"gateway": "../stripe"}, 422, "invalid_request"),
        ({"amount": 1}, 422, "invalid_request"),
        ({"amount_minor": 1}, 422, "invalid_request"),
        ({"currency": "EUR"}, 422, "invalid_request"),
        ({"capture": "later"}, 422, "invalid_request"),
        ({"success_url": "https://evil.example/"}, 422, "return_url_not_allowed"),
        ({"failure_url": "javascript:alert(1)"}, 422, "return_url_not_allowed"),
        ({"cancel_url": "https://shop.example@evil.example/"}, 422, "return_url_not_allowed"),
    ],
    ids=repr,
)
async def test_a_pay_call_that_asks_for_something_else_is_refused_and_the_order_stays_payable(
    shop: Shop, changes: Mapping[str, Any], status: int, code: str
) -> None:
    order = await shop.order()
    gateway = changes.get("gateway", "generic")
    others = {name: value for name, value in changes.items() if name != "gateway"}
    answer = await shop.pay_answer(order, gateway, **others)
    assert_problem(answer, status, code)
    assert await shop.books("generic", order) == []
    assert (await shop.read(order))["status"] == "open"
    await shop.pay(order, "generic")
    assert len(await shop.books("generic", order)) == 1


@pytest.mark.parametrize("gateway", ["no_such_gateway", "adyen", "..%2Fgeneric", "generic%00", "GENERIC"])
async def test_a_webhook_of_an_unknown_gateway_is_404(shop: Shop, gateway: str) -> None:
    async with nothing_changes(shop):
        answer = await shop.http.post(
            f"{shop.stack.ingest_url}/api/v1/webhooks/{gateway}", json={"status": "completed"}
        )
        assert_problem(answer, 404)


@pytest.mark.parametrize("content_type", ["application/xml", "multipart/form-data; boundary=x", "image/png"])
async def test_a_webhook_of_another_type_is_415(shop: Shop, content_type: str) -> None:
    async with nothing_changes(shop):
        answer = await shop.http.post(WEBHOOK.url(shop), content=b"<a/>", headers={"content-type": content_type})
        assert_problem(answer, 415, "unsupported_media_type")


async def test_a_webhook_without_a_body_or_signature_is_refused(shop: Shop) -> None:
    async with nothing_changes(shop):
        assert_problem(await shop.http.post(WEBHOOK.url(shop), content=b"", headers=JSON), 400)
        assert_problem(await shop.http.post(WEBHOOK.url(shop), content=b"{", headers=JSON), 401)


@pytest.mark.parametrize(
    "body", [b"{", b"\x00", b"\xff\xfe", b'{"amount": 1e999999}', b"[" * 9000, b'{"status": "\\ud800"}']
)
async def test_a_signed_webhook_that_cannot_be_read_is_kept_and_changes_no_payment(shop: Shop, body: bytes) -> None:
    order = await shop.order()
    session = await shop.pay(order, "generic")
    answer = await shop.webhook(body)
    assert (answer.status_code, answer.json()["status"] in ("accepted", "duplicate")) == (200, True)
    assert (await shop.payment(session["payment_id"]))["status"] == "requires_action"
    kept = await shop.http.get(
        f"{shop.stack.ingest_url}/api/v1/webhook-deliveries/{answer.json()['delivery_id']}", headers=shop.ops
    )
    assert kept.status_code == 200


# --- raw HTTP, for what a client library would not send -----------------------------------------------------------


async def send_much(url: str, headers: Mapping[str, str], *, announced: bool) -> httpx.Response:
    """Ten megabytes, read while they are written: the server may answer and hang up before it has them all."""
    piece = b"a" * 50_000
    if announced:
        return await exchange(url, {**headers, "content-length": str(TEN_MEGABYTES)}, piece * (TEN_MEGABYTES // 50_000))
    chunk = b"%x\r\n%s\r\n" % (len(piece), piece)
    body = chunk * (TEN_MEGABYTES // len(piece)) + b"0\r\n\r\n"
    return await exchange(url, {**headers, "transfer-encoding": "chunked"}, body)


async def exchange(url: str, headers: Mapping[str, str], body: bytes) -> httpx.Response:
    """Reads while it writes, and what came before a reset counts: a stream of asyncio would forget it."""
    parts = urlsplit(url)
    lines = [f"POST {parts.path} HTTP/1.1", f"host: {parts.netloc}", "connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    loop = asyncio.get_running_loop()
    with socket.socket() as connection:
        connection.setblocking(False)
        await loop.sock_connect(connection, (parts.hostname, parts.port))
        data = "\r\n".join(lines).encode() + b"\r\n\r\n" + body
        sending = asyncio.create_task(_send(connection, data))
        try:
            async with asyncio.timeout(30):
                return await _receive(connection)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)


async def _send(connection: socket.socket, data: bytes) -> None:
    with suppress(ConnectionError):
        await asyncio.get_running_loop().sock_sendall(connection, data)


async def _receive(connection: socket.socket) -> httpx.Response:
    received = b""
    with suppress(ConnectionError):
        while piece := await asyncio.get_running_loop().sock_recv(connection, 65_536):
            received += piece
    head, _, content = received.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = [(name, value) for name, value in (line.split(": ", 1) for line in lines)]
    return httpx.Response(int(first.split(" ")[1]), headers=headers, content=content)
