"""Unpaid orders end when their time is up, but never while money may be on its way."""

from __future__ import annotations

import asyncio

import pytest

from services.order_service.domain.models import PaymentStatus
from services.order_service.use_cases.expire_orders import expire_due_orders
from shared.errors import GatewayUnavailable
from tests.integration.order_service.conftest import World
from tests.support.clock import FakeClock

AFTER_EXPIRY = 31 * 60


async def sweep(world: World) -> None:
    await expire_due_orders(world.container.deps)


async def test_an_unpaid_order_expires_and_its_stock_goes_back(world: World, clock: FakeClock) -> None:
    order = await world.order(items=[{"sku": "moka-pot", "quantity": 3}])
    await sweep(world)
    assert (await world.see(order))["status"] == "open"
    clock.move(AFTER_EXPIRY)
    await sweep(world)
    await sweep(world)
    assert (await world.see(order))["status"] == "expired"
    assert await world.stock() == (10, 0)
    assert await world.events(order.id) == ["order.created.v1", "order.expired.v1"]


async def test_the_session_is_closed_at_the_gateway_first(world: World, clock: FakeClock) -> None:
    order = await world.order()
    payment_id = await world.open_session(order)
    clock.move(AFTER_EXPIRY)
    await sweep(world)
    assert world.payments.sessions[payment_id].status is PaymentStatus.CANCELED
    assert (await world.see(order))["status"] == "expired"


async def test_money_found_at_closing_pays_the_order(world: World, clock: FakeClock) -> None:
    order = await world.order()
    await world.open_session(order)
    world.payments.finds_at_closing(PaymentStatus.CAPTURED)
    clock.move(AFTER_EXPIRY)
    await sweep(world)
    seen = await world.see(order)
    assert (seen["status"], seen["payment_status"], seen["attention"]) == ("confirmed", "paid", None)
    assert await world.stock() == (9, 0)


@pytest.mark.parametrize("status", [PaymentStatus.PROCESSING, PaymentStatus.AUTHORIZED, PaymentStatus.CONFLICTED])
async def test_an_order_whose_payment_is_not_final_waits(world: World, clock: FakeClock, status: PaymentStatus) -> None:
    order = await world.order()
    payment_id = await world.open_session(order)
    await world.gateway_says(payment_id, status)
    clock.move(AFTER_EXPIRY)
    await sweep(world)
    assert (await world.see(order))["status"] == "open"
    assert await world.stock() == (10, 1)
    await world.gateway_says(payment_id, PaymentStatus.FAILED)
    clock.move(20)
    await sweep(world)
    assert (await world.see(order))["status"] == "expired"


async def test_a_gateway_that_cannot_be_asked_is_asked_again_later(world: World, clock: FakeClock) -> None:
    order = await world.order()
    await world.open_session(order)
    clock.move(AFTER_EXPIRY)
    world.payments.fails_once("close", GatewayUnavailable())
    await sweep(world)
    await sweep(world)  # too early
    assert (await world.see(order))["status"] == "open"
    assert world.payments.calls.count(("close", (await world.see(order))["payments"][0]["payment_id"])) == 1
    clock.move(16)
    await sweep(world)
    assert (await world.see(order))["status"] == "expired"


async def test_an_order_that_breaks_the_sweeper_holds_up_no_other(world: World, clock: FakeClock) -> None:
    broken, fine = await world.order(), await world.order()
    payment_id = await world.open_session(broken)
    await world.open_session(fine)
    clock.move(AFTER_EXPIRY)
    asked = asyncio.Event()

    async def break_on_one(closing: str) -> None:
        if closing == payment_id:
            asked.set()
            raise KeyError("a bug that this order shows")
        await asked.wait()  # the others are in the middle of their calls by then

    world.payments.before_close = break_on_one
    await sweep(world)
    assert (await world.see(fine))["status"] == "expired"
    assert (await world.see(broken))["status"] == "open"
    world.payments.before_close = None
    clock.move(16)
    await sweep(world)
    assert (await world.see(broken))["status"] == "expired"


async def test_a_sweeper_that_died_leaves_its_orders_to_the_next(world: World, clock: FakeClock) -> None:
    order = await world.order()
    await world.open_session(order)
    clock.move(AFTER_EXPIRY)

    async def die(_payment_id: str) -> None:
        world.payments.before_close = None
        raise asyncio.CancelledError  # as when its process ends

    world.payments.before_close = die
    await sweep(world)
    assert (await world.see(order))["status"] == "open"
    clock.move(121)
    await sweep(world)
    assert (await world.see(order))["status"] == "expired"


async def test_money_after_expiry_is_flagged_and_the_stock_stays(world: World, clock: FakeClock) -> None:
    order = await world.order()
    payment_id = await world.open_session(order)
    clock.move(AFTER_EXPIRY)
    await sweep(world)
    await world.gateway_says(payment_id, PaymentStatus.CAPTURED)
    seen = await world.see(order)
    assert (seen["status"], seen["payment_status"], seen["attention"]) == ("expired", "paid", "late_payment")
    assert seen["invoice_number"] is None
    assert await world.stock() == (10, 0)
