"""Nobody pays twice: once an order is settled, pages that are still open for it are closed (failure PY4)."""

from __future__ import annotations

import asyncio

import pytest

from services.order_service.domain.models import PaymentStatus
from services.order_service.use_cases.close_leftovers import close_leftover_sessions
from services.order_service.use_cases.ports import PaymentRequest
from shared.errors import GatewayUnavailable
from tests.integration.order_service.conftest import Answer, World
from tests.support.clock import FakeClock


async def round_(world: World) -> None:
    await close_leftover_sessions(world.container.deps)


async def an_order_with_two_open_pages(world: World) -> tuple[Answer, str, str]:
    """The first gateway could not be asked when the shopper chose another one."""
    order = await world.order()
    first = await world.open_session(order)
    world.payments.fails_once("close", GatewayUnavailable())
    return order, first, await world.open_session(order, gateway="generic")


async def test_the_other_page_is_closed_once_the_order_is_paid(world: World) -> None:
    order, first, second = await an_order_with_two_open_pages(world)
    await round_(world)
    assert world.payments.sessions[first].status is PaymentStatus.REQUIRES_ACTION  # the shopper may still use either
    await world.gateway_says(second, PaymentStatus.CAPTURED)
    await round_(world)
    assert world.payments.sessions[first].status is PaymentStatus.CANCELED
    seen = await world.see(order)
    assert (seen["status"], seen["payment_status"], seen["attention"]) == ("confirmed", "paid", None)
    assert [payment["status"] for payment in seen["payments"]] == ["canceled", "captured"]
    calls = len(world.payments.calls)
    await round_(world)
    assert len(world.payments.calls) == calls


async def test_two_gateways_chosen_at_once_leave_one_page_after_the_payment(world: World) -> None:
    """Neither call can close the other's page, which does not exist yet when it looks for it."""
    order = await world.order()
    other: list[str] = []

    async def choose_another(_request: PaymentRequest) -> None:
        world.payments.before_open = None
        other.append(await world.open_session(order, gateway="generic"))

    world.payments.before_open = choose_another
    first = await world.open_session(order)
    assert {each.status for each in world.payments.sessions.values()} == {PaymentStatus.REQUIRES_ACTION}
    await world.gateway_says(first, PaymentStatus.CAPTURED)
    await round_(world)
    assert world.payments.sessions[other[0]].status is PaymentStatus.CANCELED


async def test_closing_is_tried_again_with_growing_waits(world: World, clock: FakeClock) -> None:
    _, first, second = await an_order_with_two_open_pages(world)
    await world.gateway_says(second, PaymentStatus.CAPTURED)
    world.payments.fails_once("close", GatewayUnavailable())
    world.payments.fails_once("close", GatewayUnavailable())
    await round_(world)
    await round_(world)  # too early
    clock.move(16)
    await round_(world)
    clock.move(16)
    await round_(world)  # too early again
    assert world.payments.sessions[first].status is PaymentStatus.REQUIRES_ACTION
    clock.move(15)
    await round_(world)
    assert world.payments.sessions[first].status is PaymentStatus.CANCELED


async def test_one_that_broke_off_is_taken_over(world: World, clock: FakeClock) -> None:
    _, first, second = await an_order_with_two_open_pages(world)
    await world.gateway_says(second, PaymentStatus.CAPTURED)

    async def die(_payment_id: str) -> None:
        world.payments.before_close = None
        raise asyncio.CancelledError  # as when its process ends

    world.payments.before_close = die
    await round_(world)
    await round_(world)  # still claimed by the one that died
    assert world.payments.sessions[first].status is PaymentStatus.REQUIRES_ACTION
    clock.move(121)
    await round_(world)
    assert world.payments.sessions[first].status is PaymentStatus.CANCELED


async def test_money_found_at_closing_is_flagged_as_a_duplicate(world: World) -> None:
    order, _, second = await an_order_with_two_open_pages(world)
    await world.gateway_says(second, PaymentStatus.CAPTURED)
    world.payments.finds_at_closing(PaymentStatus.CAPTURED)
    await round_(world)
    assert (await world.see(order))["attention"] == "duplicate_payment"


async def test_a_page_that_opened_while_its_order_was_canceled_is_closed_later(world: World) -> None:
    order = await world.order()
    opened: list[PaymentRequest] = []

    async def cancel_first(request: PaymentRequest) -> None:
        opened.append(request)
        assert (await world.cancel(order)).status_code == 200
        world.payments.fails_once("close", GatewayUnavailable())

    world.payments.before_open = cancel_first
    assert (await world.pay(order)).json()["code"] == "order_canceled"
    (request,) = opened
    assert world.payments.sessions[request.payment_id].status is PaymentStatus.REQUIRES_ACTION
    await round_(world)
    assert world.payments.sessions[request.payment_id].status is PaymentStatus.CANCELED
    assert (await world.see(order))["status"] == "canceled"


@pytest.mark.parametrize("can_be_closed", [True, False])
async def test_a_page_that_opens_after_the_order_was_paid_says_so(world: World, can_be_closed: bool) -> None:
    order, first, _ = await an_order_with_two_open_pages(world)

    async def paid_meanwhile(_request: PaymentRequest) -> None:
        world.payments.before_open = None
        await world.gateway_says(first, PaymentStatus.CAPTURED)
        if not can_be_closed:
            world.payments.fails_once("close", GatewayUnavailable())

    world.payments.before_open = paid_meanwhile
    world.payments.fails_once("close", GatewayUnavailable())
    answer = await world.pay(order, gateway="generic")
    assert (answer.status_code, answer.json()["code"]) == (409, "order_already_paid")
