"""Whose order is it: every route, every kind of caller; somebody else's order looks like no order (XS6, SEC-13)."""

from __future__ import annotations

import httpx
import pytest

from tests.integration.order_service.conftest import Answer, World
from tests.integration.order_service.fakes import a_pay_body, an_order_body
from tests.support.clock import FakeClock

NO_ORDER = f"ord_{'z' * 26}"
ROUTES = [
    ("GET", ""),
    ("GET", "?wait=1&since_version=0"),
    ("POST", "/pay"),
    ("POST", "/cancel"),
    ("POST", "/stream-tickets"),
    ("GET", "/stream"),
    ("GET", "/stream?ticket=ost_guess"),
    ("GET", "/invoice"),
]
READING = {"", "?wait=1&since_version=0", "/invoice"}


async def call(world: World, method: str, order_id: str, path: str, headers: dict[str, str]) -> httpx.Response:
    body = a_pay_body() if path == "/pay" else None
    return await world.http.request(method, f"/api/v1/orders/{order_id}{path}", json=body, headers=headers)


def without_request_id(answer: httpx.Response) -> dict[str, object]:
    return {name: value for name, value in answer.json().items() if name != "request_id"}


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_somebody_elses_order_is_no_order(world: World, method: str, path: str) -> None:
    mine, foreign = await world.order(), await world.paid_order()
    callers = {
        "another order's secret": mine.secret,
        "a wrong secret": {"X-Order-Secret": "ocs_" + "A" * 43},
        "a secret cut short": {"X-Order-Secret": foreign.secret["X-Order-Secret"][:-1]},
        "a secret with more": {"X-Order-Secret": foreign.secret["X-Order-Secret"] + "A"},
        "a secret that is none": {"X-Order-Secret": "x" * 5000},
        "another customer": world.token(subject="customer-2"),
        "a service without the scope": world.token("payments:write captures:write refunds:write recon:*"),
    }
    before = await world.see(foreign)
    for who, headers in callers.items():
        absent = await call(world, method, NO_ORDER, path, headers)
        refused = await call(world, method, foreign.id, path, headers)
        assert (refused.status_code, absent.status_code) == (404, 404), who
        assert without_request_id(refused) == without_request_id(absent), who
    assert await world.see(foreign) == before


@pytest.mark.parametrize(("method", "path"), [route for route in ROUTES if "ticket" not in route[1]])
async def test_without_any_credential_the_answer_is_401_whether_the_order_exists_or_not(
    world: World, method: str, path: str
) -> None:
    order = await world.order()
    for order_id in (order.id, NO_ORDER, "nonsense", "ord_%00"):
        answer = await call(world, method, order_id, path, {})
        assert answer.status_code == 401, order_id
        assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "order_id", ["nonsense", "ord_%00", "ord_" + "a" * 200, "%E2%82%AC", "ord_1'--", "ORD_" + "0" * 26]
)
async def test_what_is_no_id_is_no_order(world: World, order_id: str) -> None:
    answer = await call(world, "GET", order_id, "", world.token("orders:*"))
    assert answer.status_code in (404, 422)


async def test_an_orders_secret_reads_pays_and_cancels_and_nothing_else(world: World) -> None:
    order = await world.order()
    assert (await world.http.get(f"/api/v1/orders/{order.id}", headers=order.secret)).status_code == 200
    assert (await world.pay(order)).status_code == 200
    assert (await world.cancel(order)).status_code == 200
    assert (await world.http.get("/api/v1/orders", headers=order.secret)).status_code == 401
    body = {"name": "Free Pot", "price": {"amount_minor": 1, "currency": "EUR"}, "stock": 1}
    assert (await world.http.put("/api/v1/products/moka-pot", json=body, headers=order.secret)).status_code == 401
    assert (await world.http.delete("/api/v1/products/moka-pot", headers=order.secret)).status_code == 401


async def test_a_customer_sees_their_own_orders_only(world: World) -> None:
    ada, grace = world.token(subject="ada"), world.token(subject="grace")
    hers = [await world.order(headers=ada) for _ in range(2)]
    await world.order(headers=grace)
    await world.order()
    listed = (await world.http.get("/api/v1/orders", headers=ada)).json()["data"]
    assert [order["id"] for order in listed] == [order.id for order in reversed(hers)]
    url = f"/api/v1/orders/{hers[0].id}"
    assert (await world.http.get(url, headers=ada)).status_code == 200
    assert (await world.http.get(url, headers=grace)).status_code == 404
    assert (await world.http.post(f"{url}/pay", json=a_pay_body(), headers=ada)).status_code == 200
    assert (await world.http.post(f"{url}/cancel", headers=ada)).json()["status"] == "canceled"


async def test_the_back_office_reads_with_one_scope_and_changes_with_the_other(world: World) -> None:
    order = await world.order()
    url = f"/api/v1/orders/{order.id}"
    reader, writer = world.token("orders:read"), world.token("orders:*")
    assert (await world.http.get(url, headers=reader)).status_code == 200
    assert (await world.http.post(f"{url}/cancel", headers=reader)).status_code == 404
    assert (await world.http.post(f"{url}/cancel", headers=writer)).status_code == 200


async def test_an_order_made_by_the_back_office_belongs_to_no_customer(world: World) -> None:
    order = await world.order(headers=world.token("orders:write", subject="clerk"))
    answer = await world.http.get(f"/api/v1/orders/{order.id}", headers=world.token(subject="clerk"))
    assert answer.status_code == 404


async def test_a_bad_token_is_refused_even_with_a_good_secret(world: World) -> None:
    order = await world.order()
    headers = order.secret | {"Authorization": "Bearer nonsense"}
    assert (await world.http.get(f"/api/v1/orders/{order.id}", headers=headers)).status_code == 401


@pytest.mark.parametrize(
    ("scopes", "status"), [("", 403), ("orders:*", 403), ("ops:read", 403), ("ops:write", 200), ("ops:*", 200)]
)
async def test_the_catalogue_is_changed_by_operators(world: World, scopes: str, status: int) -> None:
    body = {"name": "Pot", "price": {"amount_minor": 1, "currency": "EUR"}, "stock": 1}
    answer = await world.http.put("/api/v1/products/moka-pot", json=body, headers=world.token(scopes))
    assert answer.status_code == status


async def test_a_secret_dies_a_month_after_its_order_ended(world: World, clock: FakeClock) -> None:
    order = await world.paid_order()
    clock.move(29 * 24 * 3600)
    assert (await world.http.get(f"/api/v1/orders/{order.id}", headers=order.secret)).status_code == 200
    clock.move(2 * 24 * 3600)
    assert (await world.http.get(f"/api/v1/orders/{order.id}", headers=order.secret)).status_code == 404


async def test_one_guests_key_does_not_find_a_customers_answer(world: World) -> None:
    key = {"Idempotency-Key": "the-same-key-for-two"}
    hers = Answer(
        (await world.http.post("/api/v1/orders", json=an_order_body(), headers=key | world.token(subject="ada"))).json()
    )
    guests = Answer((await world.http.post("/api/v1/orders", json=an_order_body(), headers=key)).json())
    assert hers.id != guests.id
