"""Runs of settlement and orders: one runner among replicas, killed anywhere and done again (failures L15, RC10)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from services.reconciler.domain.models import Run, RunKind, RunRequest
from services.reconciler.use_cases.run_runner import MAX_ATTEMPTS, RunRunner, RunSchedule
from services.reconciler.use_cases.running import Progress, RunOutcome
from services.reconciler.use_cases.start_run import start_run
from shared.errors import ServiceUnavailable
from tests.integration.reconciler.conftest import BuildWorld, World
from tests.support.waiting import until

ON_DEMAND = RunSchedule(lease_seconds=90)


class Work:
    """What a run does: it counts how often, and ends as ``does`` says."""

    def __init__(self, does: Callable[[Run, Progress], Awaitable[RunOutcome]] | None = None) -> None:
        self.runs: list[str] = []
        self._does = does

    async def __call__(self, run: Run, progress: Progress) -> RunOutcome:
        self.runs.append(run.run_id)
        return await self._does(run, progress) if self._does else RunOutcome(matched=7, checked=9, cases_opened=1)


def a_runner(world: World, work: Work, schedule: RunSchedule = ON_DEMAND, kind: RunKind = RunKind.ORDERS) -> RunRunner:
    return RunRunner(kind, work, schedule, world.container.context)


async def asked(world: World, kind: RunKind = RunKind.ORDERS, request: RunRequest | None = None) -> str:
    run = await start_run(kind, request or RunRequest(), asked_by="operator", context=world.container.context)
    return run.run_id


async def row(world: World, run_id: str) -> dict[str, object]:
    return (await world.rows("SELECT * FROM reconciliation_runs WHERE run_id = :id", id=run_id))[0]


async def test_a_run_on_demand_is_done_once_and_announced(world: World) -> None:
    work = Work()
    run_id = await asked(world)
    runner = a_runner(world, work)
    assert await runner.round()
    assert not await runner.round()
    done = await row(world, run_id)
    assert (done["status"], done["matched"], done["checked"], done["cases_opened"]) == ("completed", 7, 9, 1)
    assert work.runs == [run_id]
    assert await world.events() == ["reconciliation.run_completed.v1"]


async def test_runs_of_another_kind_are_left_to_their_own_runner(world: World) -> None:
    await asked(world, RunKind.SETTLEMENT)
    work = Work()
    assert not await a_runner(world, work).round()
    assert work.runs == []


async def test_progress_is_seen_while_it_runs(world: World) -> None:
    seen: list[dict[str, object]] = []

    async def works(run: Run, progress: Progress) -> RunOutcome:
        await progress("comparing", 3, 10)
        seen.append(await row(world, run.run_id))
        await progress("comparing", 4, 10)  # within half a second of the last: not worth a transaction
        seen.append(await row(world, run.run_id))
        await progress("acting", 0, 2)
        seen.append(await row(world, run.run_id))
        return RunOutcome()

    await asked(world)
    await a_runner(world, Work(works)).round()
    assert [(each["phase"], each["done"], each["total"]) for each in seen] == [
        ("comparing", 3, 10),
        ("comparing", 3, 10),
        ("acting", 0, 2),
    ]


async def test_a_run_whose_runner_was_killed_is_done_again_by_another_replica(build_world: BuildWorld) -> None:
    first, second = await build_world(), await build_world()
    began = asyncio.Event()

    async def hangs(run: Run, progress: Progress) -> RunOutcome:
        began.set()
        await asyncio.Event().wait()
        raise AssertionError("nobody lets it go on")

    run_id = await asked(first)
    killed = asyncio.create_task(a_runner(first, Work(hangs)).round())
    await began.wait()
    killed.cancel()
    await asyncio.gather(killed, return_exceptions=True)
    assert (await row(first, run_id))["status"] == "running"

    work = Work()
    runner = a_runner(second, work)
    assert not await runner.round(), "the dead one's lease still lasts"
    await second.lets_the_lease_run_out()
    assert await runner.round()
    assert work.runs == [run_id]
    assert (await row(second, run_id))["status"] == "completed"


async def test_one_that_takes_its_runners_down_is_given_up(world: World) -> None:
    async def dies(run: Run, progress: Progress) -> RunOutcome:
        raise RuntimeError("our bug")

    run_id = await asked(world)
    work = Work(dies)
    for _ in range(MAX_ATTEMPTS):
        with pytest.raises(RuntimeError):
            await a_runner(world, work).round()
        await world.lets_the_lease_run_out()
    assert await a_runner(world, work).round()
    ended = await row(world, run_id)
    assert (ended["status"], ended["problem"]) == ("failed", "given_up")
    assert len(work.runs) == MAX_ATTEMPTS


async def test_trouble_of_the_world_fails_the_run_and_says_which(world: World) -> None:
    async def fails(run: Run, progress: Progress) -> RunOutcome:
        raise ServiceUnavailable("order_service is away")

    run_id = await asked(world)
    assert not await a_runner(world, Work(fails)).round()
    ended = await row(world, run_id)
    assert (ended["status"], ended["problem"]) == ("failed", ServiceUnavailable.code)


async def test_a_runner_that_was_overtaken_writes_nothing_more(build_world: BuildWorld) -> None:
    first, second = await build_world(), await build_world()
    overtaken, other = Work(), Work()

    async def is_overtaken(run: Run, progress: Progress) -> RunOutcome:
        await first.lets_the_lease_run_out()
        assert await a_runner(second, other).round()
        await progress("comparing", 1, 2)
        raise AssertionError("progress tells that the lease is lost")

    overtaken = Work(is_overtaken)
    run_id = await asked(first)
    assert not await a_runner(first, overtaken).round()
    done = await row(first, run_id)
    assert (done["status"], done["matched"], done["phase"]) == ("completed", 7, None)
    assert other.runs == overtaken.runs == [run_id]


async def test_a_lease_that_is_lost_ends_work_that_tells_nothing(build_world: BuildWorld) -> None:
    first, second = await build_world(), await build_world()
    began = asyncio.Event()

    async def hangs(run: Run, progress: Progress) -> RunOutcome:
        began.set()
        await asyncio.Event().wait()
        raise AssertionError("nobody lets it go on")

    await asked(first)
    stuck = asyncio.create_task(a_runner(first, Work(hangs)).round())
    await began.wait()
    await first.lets_the_lease_run_out()
    assert await a_runner(second, Work()).round()
    await first.clock.advance(90)
    assert not await asyncio.wait_for(stuck, 10)


async def test_the_heartbeat_keeps_the_lease_of_long_work(world: World) -> None:
    began, may_end = asyncio.Event(), asyncio.Event()

    async def waits(run: Run, progress: Progress) -> RunOutcome:
        began.set()
        await may_end.wait()
        return RunOutcome()

    await asked(world)
    running = asyncio.create_task(a_runner(world, Work(waits)).round())
    await began.wait()
    await world.execute("UPDATE leases SET expires_at = now() + interval '1 second'")
    await world.clock.advance(31)
    await until(lambda: world.rows("SELECT 1 FROM leases WHERE expires_at > now() + interval '60 seconds'"), what="it")
    may_end.set()
    assert await running


async def test_the_schedule_starts_one_run_per_interval_and_retries_a_failed_one_sooner(world: World) -> None:
    outcomes = iter([ServiceUnavailable("away"), None, None])

    async def works(run: Run, progress: Progress) -> RunOutcome:
        error = next(outcomes)
        if error is not None:
            raise error
        return RunOutcome()

    work = Work(works)
    runner = a_runner(world, work, replace(ON_DEMAND, interval_seconds=3600))
    await runner.round()
    assert len(work.runs) == 1
    await runner.round()
    assert len(work.runs) == 1, "it failed just now"
    world.clock.move(301)
    await runner.round()
    assert len(work.runs) == 2
    world.clock.move(3000)
    await runner.round()
    assert len(work.runs) == 2, "an hour has not passed"
    world.clock.move(700)
    await runner.round()
    assert len(work.runs) == 3
    assert await world.events() == [], "a scheduled run that found nothing is no news"


async def test_two_replicas_do_a_scheduled_run_once(build_world: BuildWorld) -> None:
    worlds = [await build_world() for _ in range(3)]
    work = Work()
    schedule = replace(ON_DEMAND, interval_seconds=3600)
    await asyncio.gather(*(a_runner(world, work, schedule).round() for world in worlds))
    assert len(work.runs) == 1


async def test_each_received_file_gets_a_run_of_its_own(world: World) -> None:
    for number in (1, 2):
        await world.execute(
            """
            INSERT INTO settlement_files (file_id, gateway, format, format_version, name, source, received_by,
                size_bytes, content_bytes, content_sha256, status, received_at)
            VALUES (:id, 'stripe', 'f', 1, 'x.csv', 'upload', 'ops', 1, 1, sha256(:content), 'received', now())
            """,
            id=f"stf_{number}",
            content=bytes([number]),
        )

    files: list[str | None] = []

    async def reads(run: Run, progress: Progress) -> RunOutcome:
        files.append(run.file_id)
        await world.execute("UPDATE settlement_files SET status = 'read' WHERE file_id = :id", id=run.file_id)
        return RunOutcome()

    runner = a_runner(world, Work(reads), kind=RunKind.SETTLEMENT)
    while await runner.round():
        pass
    assert files == ["stf_1", "stf_2"]
    assert (await world.events()).count("reconciliation.run_completed.v1") == 2
