"""The sweep (design.md §7.1): ask about payments on their schedule, those at risk first, by one of the replicas."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, timedelta
from itertools import groupby

import structlog

from services.reconciler.domain.errors import LeaseLost, SyncRefused
from services.reconciler.domain.models import Counts, Run, RunKind, RunStatus, WatchedPayment
from services.reconciler.metrics import SWEEP_CHECKS, SWEEP_LAST_ROUND
from services.reconciler.use_cases.finish_run import finish_run
from services.reconciler.use_cases.ports import SWEEP_LEASE, Context, ReconcilerTransaction, SyncAnswer
from services.reconciler.use_cases.watch_payments import watch_payments
from shared.correlation import Correlation, child_traceparent, correlated
from shared.errors import GatewayOutcomeUnknown, GatewayUnavailable, PayrailError, ServiceUnavailable
from shared.metrics import LEARNT_BY_SWEEP

log = structlog.get_logger()

PULL_PAGES_PER_ROUND = 20
"""A longer list goes on in the next round, so that pulling never keeps the sweep waiting."""

FAILURES_BEFORE_PAUSE = 3
"""Unanswered calls in a row before a gateway is left alone: one payment that its gateway chokes on is not an outage."""

MAX_PAUSE_SECONDS = 600.0

Outcome = SyncAnswer | SyncRefused | GatewayOutcomeUnknown | GatewayUnavailable


@dataclass
class _Round:
    """One round's own state. ``stopped_by`` makes every lane end after the call that it is in."""

    run: Run
    token: int
    stopped_by: PayrailError | None = None

    def stop(self, error: PayrailError) -> None:
        """The first reason counts, but for a lost lease: then nothing may be written any more."""
        if self.stopped_by is None or isinstance(error, LeaseLost):
            self.stopped_by = error


@dataclass
class _Lane:
    """One gateway's payments in a round."""

    gateway: str
    waiting: deque[WatchedPayment]
    pauses_in_a_row: int
    failures_in_a_row: int = 0
    is_paused: bool = False

    def workers(self, at_once: int) -> int:
        """A gateway that was paused before gets one probe at first, and all its calls one by one in that round."""
        return 1 if self.pauses_in_a_row else min(at_once, len(self.waiting))

    def should_pause(self, outcome: Outcome) -> bool:
        """One payment's silence is no outage, but payment_service's word that its gateway cannot be asked is."""
        if isinstance(outcome, GatewayUnavailable):
            return True
        return self.failures_in_a_row >= (1 if self.pauses_in_a_row else FAILURES_BEFORE_PAUSE)

    def pause_seconds(self, first: float) -> float:
        """Each further pause is longer."""
        return min(first * float(2 ** min(self.pauses_in_a_row, 10)), MAX_PAUSE_SECONDS)


@dataclass
class _Pull:
    """Where the pull stands. It lives in the runner: a successor starts with a pull of its own."""

    cursor: str | None = None
    next_at: float | None = None


class Sweeper:
    """One replica's candidate for running the sweep; ``holder`` is its name on the lease."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._pull = _Pull()
        self.holder = context.ids.new("swp")

    async def round(self) -> bool:
        """One round, if this replica holds (or gets) the lease. Never asks for another at once: rounds are the pace.

        Every check is recorded by itself, together with its payment's next date, and only while the lease is held: a
        crash leaves what was not recorded due, and a runner that was overtaken records nothing. Raises
        ServiceUnavailable or DatabaseUnavailable when payment_service or the database is away; what was not checked
        stays due.
        """
        async with self._context.uow() as tx:
            token = await tx.leases.acquire(SWEEP_LEASE, holder=self.holder, seconds=self._context.rules.lease_seconds)
            if token is None:
                return False
            for abandoned in await tx.runs.abandoned():
                await finish_run(tx, replace(abandoned, status=RunStatus.FAILED), self._context)
        try:
            await self._pull_if_due(token)
            await self._check_due(token)
        except LeaseLost:
            log.warning("sweep_lease_lost", holder=self.holder)
        return False

    async def step_down(self) -> None:
        """Let another replica take over at once, when this one stops in good order."""
        async with self._context.uow() as tx:
            await tx.leases.release(SWEEP_LEASE, holder=self.holder)

    async def _check_due(self, token: int) -> None:
        rules = self._context.rules
        started_at = self._context.clock.now()
        async with self._context.uow() as tx:
            due = await tx.watched.due(
                started_at,
                per_gateway=rules.calls_per_gateway,
                by_gateway=rules.calls_by_gateway,
                limit=rules.batch_size,
            )
            pauses = await tx.pauses.lengths()
        scheduled = sum(1 for payment in due if payment.asked_by_run is None)
        run = Run(
            run_id=self._context.ids.new("run"),
            kind=RunKind.SWEEP,
            status=RunStatus.RUNNING,
            started_at=started_at,
            holder=self.holder,
            matched=scheduled,
        )
        this_round = _Round(run, token)
        # The run's id travels with each call, so that payment_service's facts say which run brought them.
        with correlated(Correlation(run.run_id, child_traceparent(None, self._context.randomness))):
            async with asyncio.TaskGroup() as group:
                for gateway, payments in _by_gateway(due):
                    lane = _Lane(gateway, deque(payments), pauses.get(gateway, 0))
                    for _ in range(lane.workers(rules.concurrency_per_gateway)):
                        group.create_task(self._work(lane, this_round))
        await self._end_round(this_round)

    async def _work(self, lane: _Lane, this_round: _Round) -> None:
        """Take one payment after the other until the lane is empty or paused, or the round stops."""
        while lane.waiting and not lane.is_paused and this_round.stopped_by is None:
            try:
                await self._check(lane.waiting.popleft(), lane, this_round)
            except PayrailError as error:  # the lease, the database, or payment_service: it concerns every lane
                this_round.stop(error)

    async def _check(self, payment: WatchedPayment, lane: _Lane, this_round: _Round) -> None:
        try:
            outcome: Outcome = await self._context.payments.sync(payment.payment_id)
        except (SyncRefused, GatewayOutcomeUnknown, GatewayUnavailable) as error:
            outcome = error
        _measure(payment, outcome)
        is_answered = isinstance(outcome, SyncAnswer | SyncRefused)
        lane.failures_in_a_row = 0 if is_answered else lane.failures_in_a_row + 1
        async with self._context.uow() as tx:
            await self._keep_lease(tx, this_round.token)
            await self._record(tx, payment, outcome, this_round)
            if is_answered and lane.pauses_in_a_row:
                await tx.pauses.clear(lane.gateway)
                lane.pauses_in_a_row = 0
            if not lane.is_paused and lane.should_pause(outcome):
                await self._pause(tx, lane, outcome)

    async def _record(
        self,
        tx: ReconcilerTransaction,
        asked: WatchedPayment,
        outcome: Outcome,
        this_round: _Round,
    ) -> None:
        known = await tx.watched.get_for_update(asked.payment_id)
        if known is None:
            return  # forgotten meanwhile: it had been dropped
        moment, timetable = self._context.moment(), self._context.timetable
        if isinstance(outcome, SyncAnswer):
            after, counts = known.answered(outcome.payment, timetable, moment), Counts(1, int(outcome.changed))
        elif isinstance(outcome, SyncRefused):
            after, counts = known.refused(outcome.reason, timetable, moment), Counts(failed=1)
        else:
            wait_seconds = self._context.rules.gateway_pause_seconds
            after = known.unanswered(outcome.code, wait_seconds=wait_seconds, moment=moment)
            counts = Counts(failed=1)
        await tx.watched.save(after)
        run = this_round.run
        if known.asked_by_run is not None:
            run = replace(run, run_id=known.asked_by_run, holder=self.holder)
        await tx.runs.count(run, counts)
        await tx.sweep_days.count(asked.gateway, moment.now.astimezone(UTC).date(), counts)

    async def _pause(self, tx: ReconcilerTransaction, lane: _Lane, outcome: Outcome) -> None:
        lane.is_paused = True  # before the first await: the lane's other workers look at it
        moment = self._context.moment()
        retry_after = outcome.retry_after_seconds if isinstance(outcome, GatewayUnavailable) else None
        if retry_after is not None:  # the breaker's own cool-down grows: it knows better, and nobody comes before it
            seconds = retry_after * max(1.0, moment.jitter)
        else:
            seconds = lane.pause_seconds(self._context.rules.gateway_pause_seconds) * moment.jitter
        await tx.pauses.pause(lane.gateway, until=moment.now + timedelta(seconds=seconds))
        log.warning("sweep_pauses_gateway", gateway=lane.gateway, seconds=round(seconds))

    async def _end_round(self, this_round: _Round) -> None:
        stopped_by = this_round.stopped_by
        if isinstance(stopped_by, LeaseLost):
            raise stopped_by
        status = RunStatus.COMPLETED if stopped_by is None else RunStatus.FAILED
        async with self._context.uow() as tx:
            await self._keep_lease(tx, this_round.token)
            await finish_run(tx, replace(this_round.run, status=status), self._context)
            for asked in await tx.runs.asked_and_done():
                await finish_run(tx, replace(asked, status=RunStatus.COMPLETED), self._context)
        SWEEP_LAST_ROUND.set(self._context.clock.now().timestamp())
        if stopped_by is not None:
            raise stopped_by

    async def _keep_lease(self, tx: ReconcilerTransaction, token: int) -> None:
        """Renew the lease in the transaction that records something; once it has passed on, the token differs (L15)."""
        seconds = self._context.rules.lease_seconds
        if await tx.leases.acquire(SWEEP_LEASE, holder=self.holder, seconds=seconds) != token:
            raise LeaseLost

    async def _pull_if_due(self, token: int) -> None:
        """Look through payment_service's list of payments that are not final. Trouble there does not stop the sweep."""
        pull, now = self._pull, self._context.clock.monotonic()
        if pull.cursor is None and pull.next_at is not None and now < pull.next_at:
            return
        try:
            await self._pull_pages(token)
        except (ServiceUnavailable, GatewayOutcomeUnknown) as error:
            log.warning("sweep_pull_failed", code=error.code)
            pull.cursor = None
        if pull.cursor is None:
            pull.next_at = now + self._context.rules.pull_interval_seconds

    async def _pull_pages(self, token: int) -> None:
        for _ in range(PULL_PAGES_PER_ROUND):
            page = await self._context.payments.not_final(self._pull.cursor)
            async with self._context.uow() as tx:
                await self._keep_lease(tx, token)
                found = await watch_payments(tx, page.payments, self._context)
            if found:
                log.info("payments_found_by_pull", count=found)
            self._pull.cursor = page.next_cursor
            if page.next_cursor is None:
                return


def _by_gateway(due: Sequence[WatchedPayment]) -> list[tuple[str, list[WatchedPayment]]]:
    """Each gateway's payments, in the order in which they came."""
    ordered = sorted(due, key=lambda payment: payment.gateway)  # stable
    return [(gateway, list(payments)) for gateway, payments in groupby(ordered, key=lambda payment: payment.gateway)]


def _measure(payment: WatchedPayment, outcome: Outcome) -> None:
    """Before anything is recorded: payment_service has learnt it, whatever becomes of our own record."""
    SWEEP_CHECKS.labels(payment.gateway, _result(outcome)).inc()
    if isinstance(outcome, SyncAnswer) and outcome.changed:
        LEARNT_BY_SWEEP.labels(payment.gateway).inc()
        log.info("learnt_by_sweep", payment_id=payment.payment_id, status=outcome.payment.status.value)


def _result(outcome: Outcome) -> str:
    if isinstance(outcome, SyncAnswer):
        return "changed" if outcome.changed else "unchanged"
    if isinstance(outcome, SyncRefused):
        return "refused"
    return "unavailable" if isinstance(outcome, GatewayUnavailable) else "unanswered"
