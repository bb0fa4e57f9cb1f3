"""Kills, restarts and outages in the middle of the main job: nothing acknowledged is lost, nothing is done twice."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from typing import Any

import httpx
import pytest

from tests.e2e.shop import PlacedOrder, Shop
from tests.e2e.stack import DistributedStack, EmbeddedStack
from tests.support.waiting import until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

on_distributed = pytest.mark.xdist_group("distributed")
on_embedded = pytest.mark.xdist_group("embedded")

PAYMENT_WORKERS = ("work-payment-service", "work-payment-service-2")

RECOVERY_SECONDS = 90


@pytest.fixture
async def distributed(distributed_stack: DistributedStack) -> AsyncIterator[Shop]:
    async for shop in _shop(distributed_stack):
        yield shop


@pytest.fixture
async def embedded(embedded_stack: EmbeddedStack) -> AsyncIterator[Shop]:
    async for shop in _shop(embedded_stack):
        yield shop


async def _shop(stack: DistributedStack | EmbeddedStack) -> AsyncIterator[Shop]:
    shop = Shop(stack)
    await shop.restock()
    yield shop
    await shop.no_faults()
    await shop.close()


async def orders_at_the_page(shop: Shop, count: int) -> list[tuple[PlacedOrder, dict[str, Any]]]:
    orders = await asyncio.gather(*(shop.order() for _ in range(count)))
    sessions = await asyncio.gather(
        *(shop.pay(order, gateway) for order, gateway in zip(orders, ["stripe", "generic"] * count, strict=False))
    )
    return list(zip(orders, sessions, strict=True))


async def settle_all(shop: Shop, pairs: list[tuple[PlacedOrder, dict[str, Any]]]) -> None:
    await asyncio.gather(*(shop.settle(session["gateway"], session["gateway_reference"]) for _, session in pairs))


async def assert_each_paid_once(shop: Shop, pairs: list[tuple[PlacedOrder, dict[str, Any]]], stock_before: int) -> None:
    for order, session in pairs:
        await shop.wait_for(order, payment_status="paid", status="confirmed", within_seconds=RECOVERY_SECONDS)
        types = [event["type"] for event in await shop.events_of(session["payment_id"], with_a="payment.captured.v1")]
        assert types.count("payment.captured.v1") == 1
        assert await until(partial(paid_events, shop, order), what=f"order.paid of {order.id}") == 1
        (entry,) = await shop.books(session["gateway"], order)
        assert (
            entry["captured_minor"]
            == order.total_minor
            == (await shop.payment(session["payment_id"]))["amount_captured"]
        )
    assert await shop.stock() == stock_before - len(pairs)


async def paid_events(shop: Shop, order: PlacedOrder) -> int:
    """How often the order was announced as paid. Catching up shows an event once no older transaction is open."""
    return [event["type"] for event in await shop.events_of(order.id, "order-service")].count("order.paid.v1")


async def webhooks_answered(shop: Shop, pairs: list[tuple[PlacedOrder, dict[str, Any]]]) -> bool:
    """Whether the gateway's books say that every webhook it sent about these got its 2xx."""
    for order, session in pairs:
        url = f"{shop.stack.sandbox_url}/sandbox/control/{session['gateway']}/books?order_id={order.id}"
        webhooks = (await shop.http.get(url)).json()["webhooks"]
        if not webhooks or any(webhook["delivered_at"] is None for webhook in webhooks):
            return False
    return True


@on_distributed
async def test_payment_workers_killed_between_webhook_and_paid_lose_nothing(
    distributed: Shop, distributed_stack: DistributedStack
) -> None:
    before = await distributed.stock()
    pairs = await orders_at_the_page(distributed, 6)
    for name in PAYMENT_WORKERS:
        distributed_stack.processes[name].kill9()
    await settle_all(distributed, pairs)
    await until(
        lambda: webhooks_answered(distributed, pairs), within_seconds=30, what="the webhooks being acknowledged"
    )
    assert {(await distributed.read(order))["payment_status"] for order, _ in pairs} == {"pending"}
    for name in PAYMENT_WORKERS:
        distributed_stack.restart(name)
    await assert_each_paid_once(distributed, pairs, before)


@on_distributed
async def test_workers_killed_while_they_work_lose_nothing(
    distributed: Shop, distributed_stack: DistributedStack
) -> None:
    before = await distributed.stock()
    pairs = await orders_at_the_page(distributed, 12)
    settling = asyncio.create_task(settle_all(distributed, pairs))
    for name in (*PAYMENT_WORKERS, "work-order-service", "work-webhook-ingest"):
        distributed_stack.processes[name].kill9()
    await settling
    for name in (*PAYMENT_WORKERS, "work-order-service", "work-webhook-ingest"):
        distributed_stack.restart(name)
    await assert_each_paid_once(distributed, pairs, before)


@on_distributed
async def test_a_broker_restarted_in_mid_flow_only_delays(
    distributed: Shop, distributed_stack: DistributedStack
) -> None:
    before = await distributed.stock()
    pairs = await orders_at_the_page(distributed, 8)
    settling = asyncio.create_task(settle_all(distributed, pairs))
    await asyncio.get_running_loop().run_in_executor(None, distributed_stack.rabbitmq.restart)
    await settling
    await assert_each_paid_once(distributed, pairs, before)


@on_distributed
async def test_a_broker_killed_in_mid_flow_only_delays(distributed: Shop, distributed_stack: DistributedStack) -> None:
    before = await distributed.stock()
    pairs = await orders_at_the_page(distributed, 8)
    settling = asyncio.create_task(settle_all(distributed, pairs))
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, distributed_stack.rabbitmq.kill9)
    await loop.run_in_executor(None, distributed_stack.rabbitmq.start)
    await settling
    await assert_each_paid_once(distributed, pairs, before)


@on_distributed
async def test_webhooks_that_arrive_while_the_broker_is_down_are_acknowledged_and_applied_later(
    distributed: Shop, distributed_stack: DistributedStack
) -> None:
    before = await distributed.stock()
    pairs = await orders_at_the_page(distributed, 8)
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, distributed_stack.rabbitmq.stop)
    try:
        await settle_all(distributed, pairs)
        await until(
            lambda: webhooks_answered(distributed, pairs), within_seconds=40, what="every webhook being acknowledged"
        )
        ready = await distributed.http.get(f"{distributed_stack.ingest_url}/readyz")
        assert ready.status_code == 200, "accepting webhooks needs no broker"
        payment_ready = await distributed.http.get(f"{distributed_stack.payment_url}/readyz")
        assert "broker" in payment_ready.json()["missing"]
    finally:
        await loop.run_in_executor(None, distributed_stack.rabbitmq.start)
    await assert_each_paid_once(distributed, pairs, before)


@on_distributed
async def test_the_stream_of_a_replica_that_did_not_consume_the_event_shows_paid(
    distributed: Shop, distributed_stack: DistributedStack
) -> None:
    order = await distributed.order()
    session = await distributed.pay(order, "stripe")
    seen: list[dict[str, Any]] = []

    async def follow(base_url: str) -> None:
        url = f"{base_url}/api/v1/orders/{order.id}/stream"
        async with distributed.http.stream("GET", url, headers=order.headers, timeout=60) as stream:
            assert stream.status_code == 200
            async for line in stream.aiter_lines():
                if line.startswith("data:"):
                    seen.append(json.loads(line.removeprefix("data:")))
                    if seen[-1]["payment_status"] == "paid":
                        return

    followers = [
        asyncio.create_task(follow(url)) for url in (distributed_stack.order_url, distributed_stack.second_order_url)
    ]
    await until(lambda: len(seen) >= 2, what="both streams beginning")
    await distributed.settle("stripe", session["gateway_reference"])
    async with asyncio.timeout(40):
        await asyncio.gather(*followers)


@on_distributed
async def test_a_database_outage_is_answered_503_and_heals_by_itself(
    distributed: Shop, distributed_stack: DistributedStack
) -> None:
    order = await distributed.order()
    session = await distributed.pay(order, "generic")
    body = {
        "payment_id": session["gateway_reference"],
        "transaction_id": session["payment_id"],
        "status": "completed",
        "amount": 18.50,
        "currency": "USD",
    }
    distributed_stack.postgres.stop(mode="immediate")
    try:
        refused = await distributed.webhook(body)
        assert (refused.status_code, refused.json()["code"]) == (503, "database_unavailable")
        assert refused.headers["retry-after"]
        answer = await distributed.http.get(
            f"{distributed_stack.order_url}/api/v1/orders/{order.id}", headers=order.headers
        )
        assert (answer.status_code, answer.json()["retryable"]) == (503, True)
        ready = await distributed.http.get(f"{distributed_stack.order_url}/readyz")
        assert (ready.status_code, "database" in ready.json()["missing"]) == (503, True)
    finally:
        distributed_stack.postgres.start()

    async def accepted() -> bool:
        return (await distributed.webhook(body)).status_code == 200

    await until(accepted, within_seconds=30, what="the webhook being accepted again")
    await distributed.wait_for(order, payment_status="paid", within_seconds=RECOVERY_SECONDS)


@on_embedded
async def test_the_embedded_process_killed_right_after_a_200_goes_on_where_it_stopped(
    embedded: Shop, embedded_stack: EmbeddedStack
) -> None:
    before = await embedded.stock()
    pairs = []
    for _ in range(3):
        order = await embedded.order()
        session = await embedded.pay(order, "generic")
        body = {
            "event_id": f"kill-{order.id}",
            "payment_id": session["gateway_reference"],
            "transaction_id": session["payment_id"],
            "status": "completed",
            "amount": 18.50,
            "currency": "USD",
        }
        answer = await embedded.webhook(body)
        embedded_stack.process.kill9()
        assert answer.status_code == 200
        embedded_stack.start_after_a_kill()
        pairs.append((order, session))
    for order, session in pairs:
        await embedded.wait_for(order, payment_status="paid", within_seconds=RECOVERY_SECONDS)
        types = [
            event["type"] for event in await embedded.events_of(session["payment_id"], with_a="payment.captured.v1")
        ]
        assert types.count("payment.captured.v1") == 1
    assert await embedded.stock() == before - len(pairs)


@on_embedded
async def test_the_embedded_process_stops_cleanly_when_interrupted_with_a_stream_open(
    embedded: Shop, embedded_stack: EmbeddedStack
) -> None:
    order = await embedded.order()
    opened = asyncio.Event()

    async def follow() -> None:
        url = f"{embedded_stack.order_url}/api/v1/orders/{order.id}/stream"
        with suppress(httpx.HTTPError):
            async with embedded.http.stream("GET", url, headers=order.headers, timeout=60) as stream:
                async for _ in stream.aiter_lines():
                    opened.set()

    following = asyncio.create_task(follow())
    await asyncio.wait_for(opened.wait(), 20)
    length = len(embedded_stack.process.output())
    status = await asyncio.get_running_loop().run_in_executor(None, embedded_stack.process.interrupt)
    await following
    assert status == 0
    assert "Traceback" not in embedded_stack.process.output()[length:]
    embedded_stack.start()
    assert (await embedded.read(order))["status"] == "open"
