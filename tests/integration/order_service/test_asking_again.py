"""Money that was asked back and is still there: asked for again after growing waits, and at last a person is called."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from services.order_service.domain.models import PaymentSnapshot, PaymentStatus
from services.order_service.use_cases.ask_again import ask_again_for_money
from shared.contracts.payment_events import (
    RefundCreated,
    RefundEventData,
    RefundFailed,
    RefundReversed,
    RefundSucceeded,
)
from tests.integration.order_service.conftest import Answer, BuildWorld, World
from tests.integration.order_service.fakes import a_refund_event, all_together, deliver
from tests.integration.order_service.test_late_money import a_duplicate, resolutions
from tests.support.clock import FakeClock

CAPTURED = PaymentStatus.CAPTURED
HOUR = 3600


async def round_(world: World) -> list[str]:
    """One round of the job; the keys of all commands so far."""
    await ask_again_for_money(world.container.deps)
    return [command.command_key for command in await world.commands()]


async def an_order_paid_twice(world: World) -> tuple[Answer, PaymentSnapshot]:
    order = await world.paid_order()
    return order, await a_duplicate(world, order)


async def refund(
    world: World, type_: type[RefundEventData], *, pending: int = 0, refunded: int = 0, **more: Any
) -> None:
    """What becomes of the policy's refund of the second payment."""
    totals = {"amount_refund_pending": pending, "amount_refunded": refunded}
    snapshot = world.payments.becomes("pay_zzz", CAPTURED, **totals)
    await deliver(world.container, a_refund_event(snapshot, type_, refund_origin="policy", **more))


async def a_refund_that_comes_to_nothing(world: World, number: int, status: str = "failed") -> None:
    await refund(world, RefundCreated, pending=3900, refund_id=f"ref_{number}")
    await refund(world, RefundFailed, refund_id=f"ref_{number}", status=status, failure_code="insufficient_balance")


async def calls_for_a_person(world: World) -> int:
    sql = (
        "SELECT count(*) FROM outbox_messages WHERE type = 'order.attention_required.v1'"
        " AND convert_from(body, 'UTF8') LIKE '%\"reason\":\"refund_failed\"%'"
    )
    return int(await world.value(sql))


FIRST = "pay_zzz:duplicate_payment"


@pytest.mark.parametrize("status", ["failed", "canceled"])
async def test_a_refund_that_fails_is_asked_for_three_times_with_growing_waits_and_then_a_person_is_called(
    world: World, clock: FakeClock, status: str
) -> None:
    order, _ = await an_order_paid_twice(world)
    await a_refund_that_comes_to_nothing(world, 1, status)
    assert await round_(world) == [FIRST], "not at once"
    clock.move(HOUR - 1)
    assert await round_(world) == [FIRST]
    clock.move(2)
    assert await round_(world) == [FIRST, f"{FIRST}#2"]
    assert await round_(world) == [FIRST, f"{FIRST}#2"], "once"
    await a_refund_that_comes_to_nothing(world, 2, status)
    clock.move(4 * HOUR - 1)
    assert len(await round_(world)) == 2
    clock.move(2)
    commands = await round_(world)
    assert commands == [FIRST, f"{FIRST}#2", f"{FIRST}#3"]
    await a_refund_that_comes_to_nothing(world, 3, status)
    clock.move(HOUR + 1)
    for _ in range(2):
        assert await round_(world) == commands
        seen = await world.see(order)
        assert (resolutions(seen), seen["attention"]) == ([None, "refund_failed"], "duplicate_payment")
        assert (seen["status"], seen["payment_status"]) == ("confirmed", "paid")
        assert await calls_for_a_person(world) == 1
        clock.move(24 * HOUR)

    await refund(world, RefundSucceeded, refunded=3900, refund_id="ref_of_a_person")
    seen = await world.see(order)
    assert (resolutions(seen), seen["attention"]) == ([None, "refund_failed"], None)
    assert (await calls_for_a_person(world), await world.stock()) == (1, (9, 0))


async def test_a_command_that_led_to_no_refund_is_repeated(world: World, clock: FakeClock) -> None:
    """Everything was pending or disputed when payment_service read it, so nothing was ever said about a refund."""
    await an_order_paid_twice(world)
    clock.move(HOUR + 1)
    assert await round_(world) == [FIRST, f"{FIRST}#2"]


async def test_what_is_on_its_way_or_back_is_not_asked_for_again(world: World, clock: FakeClock) -> None:
    await an_order_paid_twice(world)
    await refund(world, RefundCreated, pending=3900)
    clock.move(30 * HOUR)
    assert await round_(world) == [FIRST]
    await refund(world, RefundSucceeded, refunded=3900)
    clock.move(30 * HOUR)
    assert await round_(world) == [FIRST]
    await refund(world, RefundReversed)
    assert await round_(world) == [FIRST], "a reversal, too, is waited out"
    clock.move(HOUR + 1)
    assert await round_(world) == [FIRST, f"{FIRST}#2"]


async def test_two_replicas_ask_again_once(build_world: BuildWorld, clock: FakeClock) -> None:
    replicas = [await build_world() for _ in range(2)]
    world = replicas[0]
    await world.has_product()
    await an_order_paid_twice(world)
    clock.move(HOUR + 1)
    rounds = [partial(ask_again_for_money, replicas[n % 2].container.deps) for n in range(8)]
    await all_together(*rounds)
    assert [command.command_key for command in await world.commands()] == [FIRST, f"{FIRST}#2"]


async def test_money_captured_after_the_refund_was_asked_for_is_asked_back_at_once(world: World) -> None:
    """A gateway without release went on capturing what was held."""
    order = await world.paid_order()
    await a_duplicate(world, order, PaymentStatus.AUTHORIZED)
    part = PaymentStatus.PARTIALLY_CAPTURED
    await world.gateway_says("pay_zzz", part, amount_captured=900)
    release = f"{FIRST}:release"
    assert await round_(world) == [release, FIRST]
    await world.gateway_says("pay_zzz", part, amount_captured=900, amount_refunded=900)
    assert await round_(world) == [release, FIRST]
    await world.gateway_says("pay_zzz", CAPTURED, amount_captured=3900, amount_refunded=900)
    await world.gateway_says("pay_zzz", CAPTURED, amount_captured=3900, amount_refunded=900)
    assert await round_(world) == [release, FIRST, f"{FIRST}#2"]
    await world.gateway_says("pay_zzz", CAPTURED, amount_captured=3900, amount_refunded=3900)
    assert (await world.see(order))["attention"] is None


async def test_an_order_that_has_lost_its_own_money_is_left_to_a_person(world: World, clock: FakeClock) -> None:
    order, _ = await an_order_paid_twice(world)
    (keeper,) = (each for each in world.payments.sessions if each != "pay_zzz")
    await world.gateway_says(keeper, PaymentStatus.FAILED, amount_captured=0)
    clock.move(HOUR + 1)
    version = (await world.see(order))["version"]
    assert await round_(world) == [FIRST]
    assert (await world.see(order))["version"] == version
    sql = "SELECT ask_again_at FROM order_payments WHERE payment_id = 'pay_zzz'"
    assert await world.value(sql) > clock.now(), "it does not stand in the way of others"
    await world.gateway_says(keeper, CAPTURED)
    clock.move(HOUR + 1)
    assert await round_(world) == [FIRST, f"{FIRST}#2"]


async def test_a_second_payment_that_went_back_does_not_refund_an_order_under_review(world: World) -> None:
    order, _ = await an_order_paid_twice(world)
    (keeper,) = (each for each in world.payments.sessions if each != "pay_zzz")
    await world.gateway_says(keeper, PaymentStatus.CONFLICTED, amount_captured=1000)
    await refund(world, RefundSucceeded, refunded=3900)
    seen = await world.see(order)
    assert (seen["status"], seen["payment_status"], seen["attention"]) == ("confirmed", "pending", "amount_mismatch")
    assert await world.stock() == (9, 0)
    assert "order.refunded.v1" not in await world.events(order.id)
    await world.gateway_says(keeper, CAPTURED, amount_captured=3900, amount_refunded=3900)
    assert (await world.see(order))["payment_status"] == "refunded"
    assert await world.stock() == (10, 0)
    assert (await world.events(order.id)).count("order.refunded.v1") == 1
