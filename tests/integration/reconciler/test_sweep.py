"""The sweep over a real PostgreSQL: what it learns, how it is paced, and what trouble leaves behind."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from prometheus_client import REGISTRY

from services.reconciler.use_cases.ports import PaymentsPage, SyncAnswer
from services.reconciler.use_cases.sweep import Sweeper
from shared.errors import ServiceUnavailable
from shared.http import build_http_client
from shared.web.auth import build_verifier
from tests.integration.reconciler.conftest import BuildWorld, World
from tests.support.waiting import until


def learnt(gateway: str) -> float:
    return REGISTRY.get_sample_value("payrail_learnt_by_sweep_total", {"gateway": gateway}) or 0.0


async def test_a_missed_webhook_is_learnt_by_the_sweep(world: World) -> None:
    payment_id = await world.watches()
    world.payments.gateway_says[payment_id] = "captured"
    before = learnt("generic")
    await world.sweeps(after_seconds=70)
    watched = await world.watched(payment_id)
    assert (watched["status"], watched["amount_captured"], watched["last_error"]) == ("captured", 1000, None)
    assert learnt("generic") == before + 1
    assert await world.events() == ["reconciliation.run_completed.v1"]
    (run,) = await world.runs()
    assert (run["status"], run["matched"], run["checked"], run["changed"], run["failed"]) == ("completed", 1, 1, 1, 0)
    assert world.payments.request_ids == [run["run_id"]]


async def test_a_round_that_learns_nothing_is_recorded_but_not_announced(world: World) -> None:
    payment_id = await world.watches()
    before = learnt("generic")
    await world.sweeps(after_seconds=70)
    assert [run["checked"] for run in await world.runs()] == [1]
    assert await world.events() == []
    assert learnt("generic") == before
    assert (await world.watched(payment_id))["checks"] == 1


async def test_a_round_with_nothing_due_leaves_no_run(world: World) -> None:
    await world.watches()
    await world.sweeps()
    assert await world.runs() == []
    assert world.payments.synced == []


async def test_an_abandoned_payment_is_asked_about_ever_more_rarely(world: World) -> None:
    payment_id = await world.watches()
    for _ in range(24 * 6):
        await world.sweeps(after_seconds=600)
    checked_in_a_day = len(world.payments.synced)
    assert 7 <= checked_in_a_day <= 14
    assert (await world.watched(payment_id))["next_check_at"] - world.clock.now() > timedelta(hours=1)


async def test_late_money_on_an_expired_payment_is_found_within_its_tail(world: World) -> None:
    payment_id = await world.watches(status="expired")
    await world.sweeps(after_seconds=2 * 3600)
    world.payments.gateway_says[payment_id] = "captured"
    await world.sweeps(after_seconds=6 * 3600)
    assert world.payments.payments[payment_id].status == "captured"


async def test_an_expired_payment_is_dropped_after_its_tail(world: World) -> None:
    payment_id = await world.watches(status="expired")
    for _ in range(30):
        await world.sweeps(after_seconds=4 * 3600)
    assert len(world.payments.synced) == 4
    assert (await world.watched(payment_id))["next_check_at"] is None


async def test_each_gateway_has_a_budget_of_calls_per_round_and_a_limit_at_once(build_world: BuildWorld) -> None:
    world = await build_world(sweep_calls_per_gateway=6, sweep_concurrency_per_gateway=2)
    for gateway in ("generic", "stripe"):
        for _ in range(10):
            await world.watches(gateway=gateway)
    await world.sweeps(after_seconds=70)
    by_gateway = [world.payments.payments[each].gateway for each in world.payments.synced]
    assert (by_gateway.count("generic"), by_gateway.count("stripe")) == (6, 6)
    assert world.payments.most_at_once == 4


async def test_most_money_at_risk_is_asked_about_first(build_world: BuildWorld) -> None:
    world = await build_world(sweep_calls_per_gateway=4, sweep_concurrency_per_gateway=1)
    await world.watches(status="expired", amount_minor=900_000)
    small = await world.watches(amount_minor=100)
    large = await world.watches(amount_minor=90_000)
    moving = await world.watches(status="processing", amount_minor=50)
    held = await world.watches(status="authorized", amount_minor=70)
    await world.sweeps(after_seconds=2 * 86400)
    assert world.payments.synced == [held, moving, large, small]


async def test_a_silent_gateway_uses_up_no_checks_and_keeps_nobody_else_waiting(world: World) -> None:
    down = [await world.watches(gateway="stripe") for _ in range(12)]
    up = await world.watches(gateway="generic")
    world.payments.gateways_silent.add("stripe")
    await world.sweeps(after_seconds=70)
    assert (await world.watched(up))["checks"] == 1
    assert {(await world.watched(each))["checks"] for each in down} == {0}
    assert 3 <= sum(1 for each in world.payments.synced if each in down) <= 7  # three in a row, and what was under way
    await world.sweeps(after_seconds=15)  # it rests
    calls_before = sum(1 for each in world.payments.synced if each in down)
    assert calls_before <= 7
    world.payments.gateways_silent.clear()
    for _ in range(20):
        await world.sweeps(after_seconds=60)
    assert min([(await world.watched(each))["checks"] for each in down]) >= 1
    assert await world.rows("SELECT * FROM gateway_pauses") == []


async def test_a_gateway_that_stays_down_rests_longer_each_time(world: World) -> None:
    for _ in range(30):
        await world.watches(gateway="stripe")
    world.payments.gateways_down.add("stripe")
    for _ in range(40):
        await world.sweeps(after_seconds=60)
    (pause,) = await world.rows("SELECT * FROM gateway_pauses")
    assert pause["in_a_row"] >= 3
    assert len(world.payments.synced) < 60


async def test_one_payment_that_its_gateway_chokes_on_does_not_stop_the_others(build_world: BuildWorld) -> None:
    world = await build_world(sweep_concurrency_per_gateway=1)
    poisoned = await world.watches(amount_minor=999_999)
    others = [await world.watches() for _ in range(5)]
    world.payments.poisoned.add(poisoned)
    await world.sweeps(after_seconds=70)
    assert [(await world.watched(each))["checks"] for each in others] == [1] * 5
    watched = await world.watched(poisoned)
    assert (watched["checks"], watched["failures"], watched["last_error"]) == (0, 1, "gateway_outcome_unknown")


async def test_a_payment_that_cannot_be_asked_about_says_why_and_goes_on_in_its_schedule(world: World) -> None:
    payment_id = await world.watches()
    world.payments.problems[payment_id] = (422, "gateway_not_enabled")
    await world.sweeps(after_seconds=70)
    watched = await world.watched(payment_id)
    assert (watched["checks"], watched["last_error"]) == (1, "gateway_not_enabled")
    assert [run["failed"] for run in await world.runs()] == [1]


async def test_payment_service_away_leaves_everything_due(world: World) -> None:
    payment_id = await world.watches()
    due = (await world.watched(payment_id))["next_check_at"]
    world.payments.is_down = True
    with pytest.raises(ServiceUnavailable):
        await world.sweeps(after_seconds=70)
    watched = await world.watched(payment_id)
    assert (watched["next_check_at"], watched["checks"], watched["failures"]) == (due, 0, 0)
    assert await world.runs() == []
    world.payments.is_down = False
    await world.sweeps(after_seconds=15)
    assert (await world.watched(payment_id))["checks"] == 1


async def test_the_sweep_shows_a_token_that_payment_service_takes(world: World) -> None:
    container = world.container
    async with build_http_client(container.ports) as client:
        world.payments.verifier = build_verifier(
            container.settings, service="payment_service", ports=container.ports, client=client
        )
        payment_id = world.payments.opens()
        await world.sweeps()
        await world.sweeps(after_seconds=70)
    assert world.payments.synced == [payment_id]


async def test_a_token_that_payment_service_refuses_uses_up_nothing(world: World) -> None:
    payment_id = await world.watches()
    world.payments.problems[payment_id] = (403, "forbidden")
    with pytest.raises(ServiceUnavailable):
        await world.sweeps(after_seconds=70)
    assert (await world.watched(payment_id))["checks"] == 0


async def test_two_replicas_ask_once(build_world: BuildWorld) -> None:
    first, second = await build_world(), await build_world()
    for _ in range(8):
        await first.watches()
    first.clock.move(70)
    await asyncio.gather(first.sweeps(), second.sweeps())
    assert sorted(first.payments.synced) == sorted(set(first.payments.synced))
    assert len(first.payments.synced) == 8
    assert len({run["holder"] for run in await first.runs()}) == 1


async def test_while_one_replica_holds_the_lease_the_other_does_nothing(build_world: BuildWorld) -> None:
    first, second = await build_world(), await build_world()
    await first.sweeps()
    await first.watches()
    await second.sweeps(after_seconds=70)
    assert first.payments.synced == []


async def test_another_replica_takes_over_after_the_holder_died(build_world: BuildWorld) -> None:
    first, second = await build_world(), await build_world()
    payment_id = await first.watches()
    first.payments.hold = asyncio.Event()
    dying = asyncio.create_task(first.sweeps(after_seconds=70))
    await until(lambda: first.payments.synced, what="the first replica's call")
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)
    assert (await second.watched(payment_id))["checks"] == 0  # nothing was recorded, so it is still due
    first.payments.hold = None
    await second.sweeps()
    assert len(first.payments.synced) == 1  # the dead one's lease still lasts
    await second.lets_the_lease_run_out()
    await second.sweeps()
    assert (await second.watched(payment_id))["checks"] == 1


async def test_a_holder_that_stops_in_good_order_hands_over_at_once(build_world: BuildWorld) -> None:
    first, second = await build_world(), await build_world()
    await first.sweeps()
    await first.container.sweeper.step_down()
    payment_id = await first.watches()
    await second.sweeps(after_seconds=70)
    assert (await second.watched(payment_id))["checks"] == 1


async def test_a_runner_that_was_overtaken_records_nothing(build_world: BuildWorld) -> None:
    first, second = await build_world(), await build_world()
    payment_id = await first.watches()
    held = first.payments.hold = asyncio.Event()
    stale = asyncio.create_task(first.sweeps(after_seconds=70))
    await until(lambda: first.payments.synced, what="the first replica's call")
    await first.lets_the_lease_run_out()
    first.payments.hold = None
    await second.sweeps()
    recorded, runs = await second.watched(payment_id), await second.runs()
    assert recorded["checks"] == 1
    held.set()
    await stale
    assert await second.watched(payment_id) == recorded
    assert await second.runs() == runs


async def test_a_run_that_died_half_way_is_marked_and_what_it_left_is_checked(build_world: BuildWorld) -> None:
    first, second = await build_world(), await build_world()
    checked, left = await first.watches(gateway="generic"), await first.watches(gateway="stripe")
    first.clock.move(70)
    dying = DyingClient(first, dies_at=left)
    with pytest.raises(ExceptionGroup):
        await Sweeper(replace(first.container.context, payments=dying)).round()
    assert (await second.watched(checked))["checks"] == 1
    assert [run["status"] for run in await second.runs()] == ["running"]
    await second.lets_the_lease_run_out()
    await second.sweeps(after_seconds=1)  # ids of one moment are in no order
    assert [run["status"] for run in await second.runs()] == ["failed", "completed"]
    assert (await second.watched(left))["checks"] == 1
    assert first.payments.synced == [checked, left]


class DyingClient:
    """payment_service's client in a process that dies at one payment, after the other ones were recorded."""

    def __init__(self, world: World, *, dies_at: str) -> None:
        self._world = world
        self._client = world.container.context.payments
        self._dies_at = dies_at

    async def sync(self, payment_id: str) -> SyncAnswer:
        if payment_id == self._dies_at:
            await until(self._world.runs, what="the first check's record")
            raise SystemError("the process is gone")
        return await self._client.sync(payment_id)

    async def not_final(self, cursor: str | None) -> PaymentsPage:
        return await self._client.not_final(cursor)


async def test_missed_webhooks_are_counted_per_gateway_and_day(world: World) -> None:
    lost, seen = await world.watches(), await world.watches()
    world.payments.gateway_says[lost] = "captured"
    await world.sweeps(after_seconds=70)
    await world.execute(
        """
        INSERT INTO known_payments (payment_id, order_id, gateway, status, version, amount_minor, currency,
            amount_captured, created_at, updated_at)
        SELECT id, 'ord_1', 'generic', 'captured', 2, 100, 'EUR', 100, :now, :now FROM unnest(CAST(:ids AS text[])) id
        """,
        ids=[lost, seen],
        now=world.clock.now(),
    )
    headers = world.token("recon:read")
    answer = await world.http.get("/api/v1/reconciliation/sweep-days", params={"days": 2}, headers=headers)
    [day] = answer.json()["data"]
    assert (day["gateway"], day["checked"], day["learnt_first"], day["payments"]) == ("generic", 2, 1, 2)
    assert day["missed_webhooks_basis_points"] == 5_000


async def test_a_gateway_may_have_a_budget_of_its_own(build_world: BuildWorld) -> None:
    world = await build_world(sweep_calls_per_gateway=4, sweep_calls_by_gateway="stripe=1")
    for gateway in ("stripe", "generic"):
        for _ in range(5):
            await world.watches(gateway=gateway)
    await world.sweeps(after_seconds=70)
    gateways = [(await world.watched(each))["gateway"] for each in world.payments.synced]
    assert (gateways.count("stripe"), gateways.count("generic")) == (1, 4)
