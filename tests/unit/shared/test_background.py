"""What runs without a request: repeating jobs, supervision, readiness."""

from __future__ import annotations

import asyncio

import pytest

import shared.health
from shared.errors import DatabaseUnavailable
from shared.health import HealthCheck, check_all
from shared.periodic import MAX_FAILURE_WAIT_SECONDS, Periodic
from shared.tasks import supervise
from tests.integration.messaging.tiny_service import running
from tests.support.clock import FakeClock, fake_ports
from tests.support.waiting import until


class Job:
    """A round that counts itself and does what the test says."""

    def __init__(self, *, interval_seconds: float = 10, auto_advance: bool = False) -> None:
        self.clock = FakeClock(auto_advance=auto_advance)
        self.rounds = 0
        self.more = 0
        self.errors: list[Exception] = []
        self.periodic = Periodic(
            "job", self._round, interval_seconds=interval_seconds, ports=fake_ports(clock=self.clock)
        )

    async def _round(self) -> bool:
        self.rounds += 1
        if self.errors:
            raise self.errors.pop()
        self.more -= 1
        return self.more >= 0


async def test_a_job_repeats_in_about_its_interval() -> None:
    job = Job(interval_seconds=10)
    async with running(job.periodic.run):
        await until(lambda: job.clock.sleeper_count == 1)
        for _ in range(5):
            await job.clock.advance(11)
    assert job.rounds == 6
    assert all(9 <= wait <= 11 for wait in job.clock.sleeps)
    assert len(set(job.clock.sleeps)) > 1


async def test_a_job_with_more_to_do_goes_on_at_once() -> None:
    job = Job()
    job.more = 3
    async with running(job.periodic.run):
        await until(lambda: job.clock.sleeper_count == 1)
    assert job.rounds == 4


async def test_a_job_is_woken_early_and_a_wake_during_its_round_is_not_lost() -> None:
    job = Job()
    async with running(job.periodic.run):
        await until(lambda: job.clock.sleeper_count == 1)
        job.periodic.wake()
        await until(lambda: job.rounds == 2)
        assert job.clock.now() == FakeClock().now()


async def test_trouble_of_the_world_is_tried_again_with_growing_bounded_waits() -> None:
    job = Job(interval_seconds=0.1)
    job.errors = [DatabaseUnavailable() for _ in range(1500)]  # an outage of hours
    async with running(job.periodic.run):
        while job.errors:
            await until(lambda: job.clock.sleeper_count == 1)
            await job.clock.advance(MAX_FAILURE_WAIT_SECONDS)
    waits = job.clock.sleeps[:1500]
    assert waits[0] < waits[2] < waits[4]
    assert max(waits) == MAX_FAILURE_WAIT_SECONDS


async def test_our_own_bug_ends_the_job() -> None:
    job = Job()
    job.errors = [ZeroDivisionError()]
    with pytest.raises(ZeroDivisionError):
        await job.periodic.run()


async def test_a_job_can_be_cancelled_at_any_moment() -> None:
    for turns in range(12):
        job = Job(interval_seconds=0)
        job.more = 10**9 if turns % 2 else 0
        task = asyncio.create_task(job.periodic.run())
        if turns % 2:
            job.more = 3
        for _ in range(turns):
            job.periodic.wake()
            await asyncio.wait([asyncio.ensure_future(asyncio.Event().wait())], timeout=0)
        task.cancel()
        await asyncio.wait([task], timeout=1)
        assert task.cancelled()


async def for_ever() -> None:
    await asyncio.Event().wait()


async def fails() -> None:
    raise ZeroDivisionError


async def returns() -> None:
    """A background task has no business to end."""


async def is_cancelled_by_nobody() -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


@pytest.mark.parametrize(
    ("job", "error"), [(fails, ZeroDivisionError), (returns, RuntimeError), (is_cancelled_by_nobody, RuntimeError)]
)
async def test_a_background_task_that_ends_takes_the_others_and_the_process_down(
    job: object, error: type[Exception]
) -> None:
    with pytest.raises(ExceptionGroup) as group:
        async with asyncio.timeout(2):
            await supervise({"steady": for_ever, "job": job})  # type: ignore[dict-item]
    assert group.group_contains(error)


async def test_supervised_tasks_are_cancelled_together() -> None:
    ended: list[str] = []

    async def notes() -> None:
        try:
            await for_ever()
        finally:
            ended.append("ended")

    task = asyncio.create_task(supervise({"one": notes, "other": notes}))
    await asyncio.wait([task], timeout=0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == ["ended", "ended"]


async def healthy() -> None:
    """This component is there."""


async def away() -> None:
    raise DatabaseUnavailable


async def wrong_password() -> None:
    class InvalidPasswordError(Exception):
        """What asyncpg raises; its text may name the user."""

    raise InvalidPasswordError("canary")


async def test_readiness_names_what_is_missing_and_shows_no_inner_detail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared.health, "CHECK_TIMEOUT_SECONDS", 0.05)
    checks = {
        name: HealthCheck(name, check)
        for name, check in {"fine": healthy, "down": away, "locked": wrong_password, "hung": for_ever}.items()
    }
    found = {component.name: (component.ok, component.detail) for component in await check_all(checks)}
    assert found["fine"] == (True, "ok")
    assert found["down"] == (False, DatabaseUnavailable().detail)
    assert found["locked"] == (False, "InvalidPasswordError")
    assert found["hung"][0] is False


async def test_a_cancellation_that_arrives_dressed_as_an_error_still_ends_a_job() -> None:
    started = asyncio.Event()

    async def turns_cancellation_into_an_error() -> bool:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise DatabaseUnavailable from None
        return False

    ports = fake_ports()
    task = asyncio.create_task(
        Periodic("job", turns_cancellation_into_an_error, interval_seconds=10, ports=ports).run()
    )
    await started.wait()
    task.cancel()
    await asyncio.wait([task], timeout=1)
    assert task.cancelled()
