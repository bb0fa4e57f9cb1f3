"""Run settlement and orders runs, one at a time per kind among all replicas (failures L15, RC10).

A run is a row before anything is done for it. Whoever holds the kind's lease takes up the oldest one that is running:
one that was just asked for, or one whose runner died. Doing it again is harmless, because everything that a run does is
idempotent, so an interrupted run ends as if nothing had happened.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog

from services.reconciler.domain.errors import LeaseLost
from services.reconciler.domain.models import Run, RunKind, RunStatus
from services.reconciler.use_cases.finish_run import finish_run
from services.reconciler.use_cases.ports import Context
from services.reconciler.use_cases.running import Progress, RunOutcome
from services.reconciler.use_cases.settle_file import give_up_file
from shared.correlation import Correlation, child_traceparent, correlated
from shared.errors import PayrailError

log = structlog.get_logger()

MAX_ATTEMPTS = 3
"""Runners that one run may take down with it before it is given up."""

PROGRESS_INTERVAL_SECONDS = 0.5
HEARTBEATS_PER_LEASE = 3
RETRY_AFTER_FAILURE = timedelta(minutes=5)

Work = Callable[[Run, Progress], Awaitable[RunOutcome]]


@dataclass(frozen=True, slots=True)
class RunSchedule:
    """``interval_seconds`` from the start of one scheduled run to the next; 0: on demand only."""

    lease_seconds: float
    interval_seconds: float = 0


class RunRunner:
    """One replica's candidate for the runs of one kind."""

    def __init__(self, kind: RunKind, work: Work, schedule: RunSchedule, context: Context) -> None:
        self._kind = kind
        self._work = work
        self._schedule = schedule
        self._context = context
        self._lease = f"run:{kind.value}"
        self.holder = context.ids.new("rnr")

    async def round(self) -> bool:
        """Do one run, if this replica holds (or gets) the lease and one is waiting or due. True: look again at once."""
        token = await self._acquire()
        if token is None:
            return False
        run = await self._next(token)
        if run is None:
            return False
        if run.attempts > MAX_ATTEMPTS:
            if run.file_id is not None:
                await give_up_file(run.file_id, run.run_id, self._context)
            await self._finish(replace(run, status=RunStatus.FAILED, problem="given_up"), token)
            return True
        with correlated(Correlation(run.run_id, child_traceparent(None, self._context.randomness))):
            return await self._do(run, token)

    async def step_down(self) -> None:
        """Let another replica take over at once, when this one stops in good order."""
        async with self._context.uow() as tx:
            await tx.leases.release(self._lease, holder=self.holder)

    async def _acquire(self) -> int | None:
        async with self._context.uow() as tx:
            return await tx.leases.acquire(self._lease, holder=self.holder, seconds=self._schedule.lease_seconds)

    async def _next(self, token: int) -> Run | None:
        now, interval = self._context.clock.now(), self._schedule.interval_seconds
        async with self._context.uow() as tx:
            if await tx.leases.acquire(self._lease, holder=self.holder, seconds=self._schedule.lease_seconds) != token:
                return None
            if self._kind is RunKind.SETTLEMENT:
                for file_id in await tx.runs.files_without_run(now):
                    await tx.runs.add(self._new(now, file_id=file_id))
            waiting = await tx.runs.take_up(self._kind, holder=self.holder)
            if waiting is not None or not interval:
                return waiting
            last = await tx.runs.last_of_schedule(self._kind)
            if last is not None and now < _due_at(last, timedelta(seconds=interval)):
                return None
            await tx.runs.add(self._new(now))
            return await tx.runs.take_up(self._kind, holder=self.holder)

    def _new(self, now: datetime, *, file_id: str | None = None) -> Run:
        return Run(self._context.ids.new("run"), self._kind, RunStatus.RUNNING, now, file_id=file_id)

    async def _do(self, run: Run, token: int) -> bool:
        """The work beside a heartbeat that keeps the lease; a lost lease ends the work where it is. False: it failed,
        and what comes next may wait for the next round."""
        working = asyncio.ensure_future(self._work(run, self._progress(run, token)))
        beating = asyncio.ensure_future(self._heartbeat(token))
        try:
            await asyncio.wait((working, beating), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (working, beating):
                task.cancel()
            await asyncio.wait((working, beating))
        try:
            outcome = working.result() if not working.cancelled() else None
        except LeaseLost:
            outcome = None
        except PayrailError as error:
            log.warning("run_failed", run_id=run.run_id, kind=run.kind.value, code=error.code)
            await self._finish(replace(run, status=RunStatus.FAILED, problem=error.code), token)
            return False
        if outcome is None:
            log.warning("run_lease_lost", run_id=run.run_id, holder=self.holder)
            return False
        await self._finish(_with_outcome(run, outcome), token)
        return True

    async def _heartbeat(self, token: int) -> None:
        while True:
            await self._context.clock.sleep(self._schedule.lease_seconds / HEARTBEATS_PER_LEASE)
            with suppress(PayrailError):  # the database is away: the lease runs out, and the work fails by itself
                if await self._acquire() != token:
                    return

    def _progress(self, run: Run, token: int) -> Progress:
        told: tuple[str, float] | None = None

        async def tell(phase: str, done: int = 0, total: int | None = None) -> None:
            nonlocal told
            now = self._context.clock.monotonic()
            if told is not None and told[0] == phase and now - told[1] < PROGRESS_INTERVAL_SECONDS:
                return
            told = (phase, now)
            async with self._context.uow() as tx:
                seconds = self._schedule.lease_seconds
                if await tx.leases.acquire(self._lease, holder=self.holder, seconds=seconds) != token:
                    raise LeaseLost
                await tx.runs.save_progress(run.run_id, phase=phase, done=done, total=total)

        return tell

    async def _finish(self, run: Run, token: int) -> None:
        async with self._context.uow() as tx:
            seconds = self._schedule.lease_seconds
            if await tx.leases.acquire(self._lease, holder=self.holder, seconds=seconds) == token:
                await finish_run(tx, run, self._context)


def _due_at(last: Run, interval: timedelta) -> datetime:
    if last.status is RunStatus.FAILED and last.finished_at is not None:
        return min(last.started_at + interval, last.finished_at + RETRY_AFTER_FAILURE)
    return last.started_at + interval


def _with_outcome(run: Run, outcome: RunOutcome) -> Run:
    return replace(
        run,
        status=RunStatus.COMPLETED,
        matched=outcome.matched,
        checked=outcome.checked,
        failed=outcome.failed,
        cases_opened=outcome.cases_opened,
        cases_resolved=outcome.cases_resolved,
        totals=outcome.totals,
    )
