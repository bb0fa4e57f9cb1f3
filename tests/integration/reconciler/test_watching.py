"""How payments become watched: by events, in any order and number, and by the pull when events were lost."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from shared.contracts.payment_events import RefundCreated
from tests.integration.reconciler.conftest import BuildWorld, World


async def test_a_payment_that_is_announced_is_watched_from_a_minute_on(world: World) -> None:
    payment_id = await world.watches(gateway="stripe", amount_minor=12500)
    watched = await world.watched(payment_id)
    assert (watched["gateway"], watched["status"], watched["amount_minor"]) == ("stripe", "requires_action", 12500)
    wait = watched["next_check_at"] - world.clock.now()
    assert timedelta(seconds=54) <= wait <= timedelta(seconds=66)


async def test_an_event_that_comes_twice_counts_once(world: World) -> None:
    payment_id = world.payments.opens()
    event = world.payments.event(payment_id)
    await asyncio.gather(*(world.hears_of(payment_id, event) for _ in range(5)))
    assert len(await world.rows("SELECT payment_id FROM watched_payments")) == 1


async def test_events_in_the_wrong_order_leave_the_newest_state(world: World) -> None:
    payment_id = world.payments.opens()
    older = world.payments.event(payment_id)
    world.payments.becomes(payment_id, "captured")
    await world.hears_of(payment_id)
    await world.hears_of(payment_id, older)
    watched = await world.watched(payment_id)
    assert (watched["status"], watched["version"]) == ("captured", 3)


async def test_captured_payments_can_be_left_alone_by_a_setting(build_world: BuildWorld) -> None:
    world = await build_world(sweep_captured_looks_hours="")
    payment_id = await world.watches()
    world.payments.becomes(payment_id, "captured")
    await world.hears_of(payment_id)
    await world.sweeps(after_seconds=7 * 86400)
    assert world.payments.synced == []


async def test_a_refund_under_way_is_heard_of_and_asked_about_within_the_hour(world: World) -> None:
    payment_id = await world.watches(status="captured")
    await world.sweeps(after_seconds=10 * 86400)
    world.payments.becomes(payment_id, "captured", amount_refund_pending=300)
    refund = {"refund_id": "ref_1", "refund_status": "submitted", "refund_amount": 300}
    await world.hears_of(payment_id, world.payments.event(payment_id, RefundCreated, **refund))
    wait = (await world.watched(payment_id))["next_check_at"] - world.clock.now()
    assert timedelta(minutes=54) <= wait <= timedelta(minutes=66)


async def test_the_end_of_a_hold_is_learnt_from_the_list_where_the_events_do_not_tell_it(world: World) -> None:
    ends_at = world.clock.now() + timedelta(hours=12)
    payment_id = await world.watches(status="authorized", capture_before=ends_at.isoformat())
    assert (await world.watched(payment_id))["capture_before"] is None
    await world.sweeps()
    watched = await world.watched(payment_id)
    assert watched["capture_before"] == ends_at
    assert watched["next_check_at"] - world.clock.now() <= timedelta(hours=3.3)


async def test_the_pull_finds_a_payment_whose_events_were_lost(world: World) -> None:
    payment_id = world.payments.opens()
    await world.sweeps()
    assert (await world.watched(payment_id))["version"] == 2
    world.payments.gateway_says[payment_id] = "captured"
    await world.sweeps(after_seconds=70)
    assert world.payments.payments[payment_id].status == "captured"


async def test_the_pull_reads_every_page(world: World) -> None:
    for _ in range(230):
        world.payments.opens()
    await world.sweeps()
    assert world.payments.pages_read == 3
    assert len(await world.rows("SELECT 1 FROM watched_payments")) == 230


async def test_the_pull_has_its_own_pace(build_world: BuildWorld) -> None:
    world = await build_world(sweep_pull_interval_seconds=60)
    for _ in range(4):
        await world.sweeps(after_seconds=15)
    assert world.payments.pages_read == 1
    await world.sweeps(after_seconds=15)
    assert world.payments.pages_read == 2


async def test_the_pull_and_an_event_at_the_same_time_watch_a_payment_once(world: World) -> None:
    ids = [world.payments.opens() for _ in range(20)]
    await asyncio.gather(world.sweeps(), *(world.hears_of(payment_id) for payment_id in ids))
    assert len(await world.rows("SELECT 1 FROM watched_payments")) == 20


async def test_what_was_dropped_long_ago_is_forgotten(world: World) -> None:
    kept = await world.watches()
    dropped = await world.watches(status="canceled")
    for _ in range(4):
        await world.sweeps(after_seconds=3 * 86400)
    assert (await world.watched(dropped))["next_check_at"] is None
    world.clock.move(31 * 86400)
    await world.container.retention.run()
    assert [row["payment_id"] for row in await world.rows("SELECT payment_id FROM watched_payments")] == [kept]
