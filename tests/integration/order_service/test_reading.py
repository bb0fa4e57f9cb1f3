"""Reading orders: ETag, long poll, lists and filters; the catalogue's pages."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from services.order_service.domain.models import PaymentStatus
from services.order_service.use_cases.order_view import view_of
from shared.clock import SystemClock
from shared.contracts.payment_events import RefundSucceeded
from tests.integration.order_service.conftest import BuildWorld, World
from tests.integration.order_service.fakes import a_refund_event, deliver
from tests.support.waiting import PATIENCE_SECONDS, until


async def test_an_unchanged_order_is_304(world: World) -> None:
    order = await world.order()
    url = f"/api/v1/orders/{order.id}"
    first = await world.http.get(url, headers=order.secret)
    etag = first.headers["etag"]
    assert etag == 'W/"1"'
    for header in (etag, '"1"', f'W/"9", {etag}', "*"):
        again = await world.http.get(url, headers=order.secret | {"If-None-Match": header})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    await world.open_session(order)
    changed = await world.http.get(url, headers=order.secret | {"If-None-Match": etag})
    assert changed.status_code == 200
    assert changed.json()["version"] > 1


async def test_a_long_poll_answers_at_once_when_the_version_is_another(world: World) -> None:
    order = await world.order()
    answer = await world.http.get(f"/api/v1/orders/{order.id}?wait=30&since_version=0", headers=order.secret)
    assert answer.json()["version"] == 1


async def test_a_long_poll_wakes_when_the_order_changes(build_world: BuildWorld) -> None:
    world = await build_world(real_clock=SystemClock())
    await world.has_product()
    order = await world.order()
    payment_id = await world.open_session(order)
    version = (await world.see(order))["version"]
    url = f"/api/v1/orders/{order.id}?wait=30&since_version={version}"
    waiting = asyncio.create_task(world.http.get(url, headers=order.secret))
    await until(lambda: order.id in world.container.watch._waiters, what="the long poll")
    await world.gateway_says(payment_id, PaymentStatus.CAPTURED)
    async with asyncio.timeout(PATIENCE_SECONDS):
        answer = await waiting
    assert answer.json()["payment_status"] == "paid"
    assert world.container.watch._waiters == {}


async def test_a_long_poll_ends_with_the_order_as_it_is(build_world: BuildWorld) -> None:
    world = await build_world(real_clock=SystemClock())
    await world.has_product()
    order = await world.order()
    answer = await world.http.get(f"/api/v1/orders/{order.id}?wait=1&since_version=1", headers=order.secret)
    assert (answer.status_code, answer.json()["version"]) == (200, 1)


async def test_a_long_poll_ends_when_the_process_shuts_down(build_world: BuildWorld) -> None:
    world = await build_world(real_clock=SystemClock())
    await world.has_product()
    order = await world.order()
    url = f"/api/v1/orders/{order.id}?wait=30&since_version=1"
    waiting = asyncio.create_task(world.http.get(url, headers=order.secret))
    await until(lambda: order.id in world.container.watch._waiters, what="the long poll")
    world.container.watch.stop()
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert (await waiting).status_code == 200


@pytest.mark.parametrize(
    "query", ["wait=31", "wait=-1", "wait=1.5", "wait=x", "since_version=-1", "since_version=9e99"]
)
async def test_a_wait_has_bounds(world: World, query: str) -> None:
    order = await world.order()
    answer = await world.http.get(f"/api/v1/orders/{order.id}?{query}", headers=order.secret)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


async def test_orders_are_listed_newest_first_in_pages(world: World) -> None:
    ids = [(await world.order()).id for _ in range(5)]
    staff, seen, cursor = world.token("orders:read"), [], ""
    page: dict[str, Any] = {}
    for _ in range(3):
        page = (await world.http.get(f"/api/v1/orders?limit=2{cursor}", headers=staff)).json()
        seen += [order["id"] for order in page["data"]]
        cursor = f"&cursor={page['next_cursor']}"
    assert seen == ids[::-1]
    assert page["next_cursor"] is None


async def test_orders_are_filtered(world: World) -> None:
    paid = await world.paid_order()
    unpaid = await world.order(customer={"email": "Grace@Example.com", "name": "Grace"})
    staff = world.token("orders:read")

    async def ids(query: str) -> list[str]:
        answer = await world.http.get(f"/api/v1/orders?{query}", headers=staff)
        return [order["id"] for order in answer.json()["data"]]

    assert await ids("status=confirmed") == [paid.id]
    assert await ids("payment_status=unpaid") == [unpaid.id]
    assert await ids("customer_email=grace@example.com") == [unpaid.id]
    assert await ids("attention=late_payment") == []
    answer = await world.http.get("/api/v1/orders?status=nonsense", headers=staff)
    assert answer.status_code == 422


async def test_the_catalogue_is_public_and_comes_in_pages(world: World) -> None:
    await world.has_product(
        "dallah", price=24000, currency="SAR", stock=3, reconcile_policy="fulfil", image_url="/x.svg"
    )
    await world.order(items=[{"sku": "moka-pot", "quantity": 4}])
    page = (await world.http.get("/api/v1/products?limit=1")).json()
    assert [product["sku"] for product in page["data"]] == ["dallah"]
    rest = (await world.http.get(f"/api/v1/products?limit=1&cursor={page['next_cursor']}")).json()
    assert rest["data"][0] == {
        "sku": "moka-pot",
        "name": "The moka-pot",
        "description": "",
        "image_url": None,
        "price": {"amount_minor": 3900, "currency": "EUR"},
        "available_stock": 6,
        "stock": 10,
        "reconcile_policy": "refund",
        "version": 1,
    }
    assert rest["next_cursor"] is None


async def test_searching_by_e_mail_reads_an_index_and_not_every_order(world: World) -> None:
    await world.order()
    copies = """
        INSERT INTO orders (id, status, payment_status, closed_as, total_minor, currency, secret_digest, customer_email,
            customer_name, metadata, expires_at, next_expiry_attempt_at, created_at, updated_at, version)
        SELECT id || number, 'expired', 'unpaid', 'expired', total_minor, currency, secret_digest,
            'other' || number || '@example.com', customer_name, metadata, expires_at, expires_at,
            created_at, updated_at, 2
        FROM orders, generate_series(1, 5000) AS number RETURNING 1"""
    await world.rows(copies)
    async with world.container.database.begin() as connection:
        await connection.exec_driver_sql("ANALYZE orders")
    plan = await world.rows(
        "EXPLAIN SELECT * FROM orders WHERE lower(customer_email) = 'ada@example.com' ORDER BY id DESC LIMIT 21"
    )
    assert "ix_orders_customer_email" in str(plan)


async def test_one_statement_reads_what_many_read(world: World) -> None:
    order = await world.paid_order()
    (payment_id,) = world.payments.sessions
    refund = a_refund_event(
        world.payments.becomes(payment_id, PaymentStatus.CAPTURED, amount_refunded=900), RefundSucceeded, amount=900
    )
    await deliver(world.container, refund)
    for order_id in (order.id, (await world.order()).id):
        async with world.container.uow() as tx:
            found = await tx.orders.find(order_id)
            assert found is not None
            assert await tx.pictures.find(order_id) == await view_of(tx, found)
            assert await tx.pictures.find("ord_nobody") is None
