"""Captured payments go on being asked about: rarely, after all that is at risk, and until disputes have ended."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from prometheus_client import REGISTRY

from services.reconciler.domain.schedule import CAPTURED_LOOKS, DAY, HOUR, JITTER_HIGH, JITTER_LOW
from shared.contracts.payment_events import DisputeOpened
from tests.integration.reconciler.conftest import BuildWorld, World

A_REFUND_IN_THE_DASHBOARD = {"amount_refunded": 400}


def learnt(gateway: str) -> float:
    return REGISTRY.get_sample_value("payrail_learnt_by_sweep_total", {"gateway": gateway}) or 0.0


async def asked_at(world: World, payment_id: str, *, seconds: float, step: float | None = None) -> list[float]:
    """Sweep for a while, in steps or whenever it is due; when the payment was asked about, in seconds from now."""
    started, asked = world.clock.now(), []
    while (left := seconds - (world.clock.now() - started).total_seconds()) > 0:
        wait = step if step is not None else max(await until_due(world, payment_id), 1)
        before = world.payments.synced.count(payment_id)
        await world.sweeps(after_seconds=min(wait, left))
        times = world.payments.synced.count(payment_id) - before
        asked += [(world.clock.now() - started).total_seconds()] * times
    return asked


async def until_due(world: World, payment_id: str) -> float:
    due = (await world.watched(payment_id))["next_check_at"]
    return float((due - world.clock.now()).total_seconds())


async def test_a_dashboard_refund_whose_webhook_was_lost_is_found_by_the_sweep_and_counted(world: World) -> None:
    payment_id = await world.watches(status="captured", gateway="stripe")
    await world.sweeps(after_seconds=2 * HOUR)
    world.payments.gateway_says[payment_id] = A_REFUND_IN_THE_DASHBOARD
    before = learnt("stripe")
    await world.sweeps(after_seconds=6 * HOUR)
    watched = await world.watched(payment_id)
    assert (watched["status"], watched["amount_refunded"]) == ("captured", 400)
    assert learnt("stripe") == before + 1
    assert [(run["checked"], run["changed"]) for run in await world.runs()] == [(1, 0), (1, 1)]
    assert await world.events() == ["reconciliation.run_completed.v1"]
    # Its money has moved, so its looks begin again: the refund may yet fail or be reversed.
    assert timedelta(hours=0.9) <= watched["next_check_at"] - world.clock.now() <= timedelta(hours=1.1)


async def test_in_ninety_days_a_captured_payment_is_asked_about_exactly_as_often_as_the_schedule_says(
    world: World,
) -> None:
    payment_id = await world.watches(status="captured")
    days = 97  # the look after 90 days may come a tenth earlier or later
    asked = await asked_at(world, payment_id, seconds=2 * DAY, step=HOUR / 2)
    asked += [2 * DAY + at for at in await asked_at(world, payment_id, seconds=(days - 2) * DAY, step=DAY / 2)]
    due = [look for look in CAPTURED_LOOKS if look * JITTER_HIGH < days * DAY]
    assert len(due) == 8
    assert len(asked) in (len(due), len(due) + 1)
    for look, at in zip(due, asked, strict=False):
        assert look * JITTER_LOW <= at <= look * JITTER_HIGH + (HOUR / 2 if at <= 2 * DAY else DAY / 2)


async def test_after_its_last_look_it_is_dropped(world: World) -> None:
    payment_id = await world.watches(status="captured")
    asked = await asked_at(world, payment_id, seconds=140 * DAY, step=2 * DAY)
    assert len(asked) == len(CAPTURED_LOOKS) - 2  # the first three came with the first step: they are not made up for
    assert (await world.watched(payment_id))["next_check_at"] is None


async def test_final_payments_do_not_starve_those_that_are_not(build_world: BuildWorld) -> None:
    world = await build_world(sweep_calls_per_gateway=5, sweep_batch_size=13, sweep_concurrency_per_gateway=1)
    gateways = ("generic", "stripe", "tabby")
    for gateway in gateways:
        for _ in range(20):
            await world.watches(status="captured", amount_minor=900_000, gateway=gateway)
    world.clock.move(2 * HOUR)
    due = [await world.watches(amount_minor=5, gateway="generic") for _ in range(4)]
    unsettled = await world.watches(status="captured", amount_minor=1, amount_refund_pending=1)
    await world.execute("UPDATE watched_payments SET next_check_at = now() - interval '99 years'")
    await world.sweeps()
    generic = [each for each in world.payments.synced if world.payments.payments[each].gateway == "generic"]
    assert generic == [*sorted(due), unsettled]
    assert len(world.payments.synced) == 13


async def test_no_gateway_has_its_final_payments_asked_about_before_the_open_ones_of_another(
    build_world: BuildWorld,
) -> None:
    world = await build_world(sweep_batch_size=4)
    for _ in range(4):
        await world.watches(status="captured", gateway="generic")
    world.clock.move(2 * HOUR)
    open_ones = [await world.watches(gateway="stripe") for _ in range(4)]
    await world.sweeps(after_seconds=70)
    assert sorted(world.payments.synced) == sorted(open_ones)


async def test_what_is_not_final_keeps_its_pace_under_a_flood_of_final_ones(build_world: BuildWorld) -> None:
    world = await build_world(sweep_calls_per_gateway=5)
    for _ in range(60):
        await world.watches(status="captured", amount_minor=900_000)
    world.clock.move(2 * HOUR)
    open_ones = [await world.watches(amount_minor=5) for _ in range(3)]
    await world.sweeps(after_seconds=70)
    assert set(open_ones) <= set(world.payments.synced)
    assert len(world.payments.synced) == 5
    for _ in range(16):
        await world.sweeps(after_seconds=15)
    assert len(set(world.payments.synced)) == 63  # and the flood drains by what is left of the budget


OPEN_ENDS: list[dict[str, Any]] = [
    {"amount_refund_pending": 400},
    {"amount_disputed": 400},
    {"outcome_unknown": True},
]


@pytest.mark.parametrize("open_end", OPEN_ENDS, ids=lambda open_end: str(next(iter(open_end))))
async def test_while_something_of_it_is_open_it_is_asked_about_hourly_and_then_daily(
    world: World, open_end: dict[str, Any]
) -> None:
    payment_id = await world.watches(status="captured", **open_end)
    first_day = await asked_at(world, payment_id, seconds=DAY)
    assert 22 <= len(first_day) <= 25
    await asked_at(world, payment_id, seconds=DAY)
    later = await asked_at(world, payment_id, seconds=20 * DAY)
    assert 18 <= len(later) <= 22
    settled = {"amount_refund_pending": 0, "amount_disputed": 0, "outcome_unknown": False}
    world.payments.gateway_says[payment_id] = {**settled, "amount_refunded": 400}
    (learnt_at,) = await asked_at(world, payment_id, seconds=(await until_due(world, payment_id)) + 1)
    assert learnt_at > 0
    assert len(await asked_at(world, payment_id, seconds=9 * DAY)) == 5  # after 1 and 6 hours, 1, 3 and 7 days


async def test_a_dispute_that_was_lost_is_over(world: World) -> None:
    payment_id = await world.watches(status="captured")
    world.payments.becomes(payment_id, "captured", amount_disputed=1000)
    dispute = {"dispute_id": "dsp_1", "dispute_status": "open", "dispute_amount": 1000}
    await world.hears_of(payment_id, world.payments.event(payment_id, DisputeOpened, **dispute))
    world.payments.gateway_says[payment_id] = {"amount_disputed": 1000, "amount_dispute_lost": 1000}
    await world.sweeps(after_seconds=1.2 * HOUR)
    assert (await world.watched(payment_id))["amount_dispute_lost"] == 1000
    # Any later event leaves out what of it is lost; that is not forgotten.
    world.payments.becomes(payment_id, "captured", amount_refunded=0)
    await world.hears_of(payment_id)
    assert len(await asked_at(world, payment_id, seconds=2 * DAY)) == 3


async def test_an_open_breaker_pauses_its_gateway_at_once_for_as_long_as_it_says(build_world: BuildWorld) -> None:
    world = await build_world(sweep_concurrency_per_gateway=1)
    for _ in range(8):
        await world.watches(gateway="stripe")
    other = await world.watches(gateway="generic")
    world.payments.gateways_down.add("stripe")
    world.payments.retry_after_seconds = 40
    before = checks("unavailable")
    await world.sweeps(after_seconds=70)
    down = [each for each in world.payments.synced if each != other]
    assert len(down) == 1
    assert checks("unavailable") == before + len(down)
    (pause,) = await world.rows("SELECT * FROM gateway_pauses")
    assert pause["in_a_row"] == 1
    assert timedelta(seconds=40) <= pause["paused_until"] - world.clock.now() <= timedelta(seconds=44)
    assert (await world.watched(other))["checks"] == 1

    await world.sweeps(after_seconds=30)  # it rests
    assert len(world.payments.synced) == len(down) + 1
    await world.sweeps(after_seconds=15)  # one call finds out that it still is
    assert len(world.payments.synced) == len(down) + 2
    (pause,) = await world.rows("SELECT * FROM gateway_pauses")
    assert pause["in_a_row"] == 2

    world.payments.gateways_down.clear()
    for _ in range(4):
        await world.sweeps(after_seconds=60)
    assert await world.rows("SELECT 1 FROM gateway_pauses") == []
    watched = await world.rows("SELECT checks FROM watched_payments WHERE gateway = 'stripe'")
    assert min(row["checks"] for row in watched) >= 1


async def test_a_gateway_whose_silence_is_unexplained_is_not_paused_for_one_payment(world: World) -> None:
    poisoned = await world.watches()
    world.payments.poisoned.add(poisoned)
    world.payments.retry_after_seconds = 40  # every 503 has one
    await world.sweeps(after_seconds=70)
    assert await world.rows("SELECT 1 FROM gateway_pauses") == []


async def test_an_authorized_payment_is_asked_about_more_often_the_nearer_its_hold_ends(world: World) -> None:
    ends_at = world.clock.now() + timedelta(days=7)
    payment_id = await world.watches(status="authorized")
    world.payments.becomes(payment_id, "authorized", capture_before=ends_at.isoformat())
    await world.sweeps()
    first_three_days = await asked_at(world, payment_id, seconds=3 * DAY)
    await asked_at(world, payment_id, seconds=3.5 * DAY)
    last_half_day = await asked_at(world, payment_id, seconds=DAY / 2)
    assert len(first_three_days) in (2, 3)
    assert 6 <= len(last_half_day) <= 12


def checks(result: str) -> float:
    labels = {"gateway": "stripe", "result": result}
    return REGISTRY.get_sample_value("payrail_sweep_checks_total", labels) or 0.0
