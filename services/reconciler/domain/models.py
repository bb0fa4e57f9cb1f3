"""Watched payments and runs: pure Python, no I/O, no clock."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from services.reconciler.domain.schedule import MAX_FAILURE_WAIT_SECONDS, PaymentStatus, Timetable
from shared.money import Money


@dataclass(frozen=True, slots=True)
class Moment:
    """Now, and one decision's jitter (JITTER_LOW to JITTER_HIGH), because the domain has neither clock nor chance."""

    now: datetime
    jitter: float


@dataclass(frozen=True, slots=True)
class SeenPayment:
    """A payment as payment_service told it: in an event, on a page, or in the answer to a sync."""

    payment_id: str
    order_id: str
    gateway: str
    status: PaymentStatus
    version: int
    amount: Money
    created_at: datetime
    """In an event: when it was published, which is at most too late."""
    changed_at: datetime
    """When it came to this status."""


@dataclass(frozen=True, slots=True)
class WatchedPayment:
    """A payment that the sweep asks about. ``next_check_at`` None: no longer, kept so that old news count as old."""

    payment_id: str
    order_id: str
    gateway: str
    status: PaymentStatus
    version: int
    amount: Money
    payment_created_at: datetime
    status_since: datetime
    first_seen_at: datetime
    next_check_at: datetime | None
    checks: int = 0
    """Answered checks in this status: the position in its plan."""
    failures: int = 0
    """Unanswered ones in a row."""
    last_checked_at: datetime | None = None
    last_error: str | None = None
    asked_by_run: str | None = None
    """The run on demand that waits for this payment's check."""

    @classmethod
    def first_seen(cls, seen: SeenPayment, timetable: Timetable, moment: Moment) -> WatchedPayment:
        watched = cls(
            payment_id=seen.payment_id,
            order_id=seen.order_id,
            gateway=seen.gateway,
            status=seen.status,
            version=seen.version,
            amount=seen.amount,
            payment_created_at=min(seen.created_at, moment.now),
            status_since=min(seen.changed_at, moment.now),
            first_seen_at=moment.now,
            next_check_at=None,
        )
        return watched._scheduled(timetable, moment)

    def told(self, seen: SeenPayment, timetable: Timetable, moment: Moment) -> WatchedPayment:
        """After news of it. Older news change nothing; a new status starts its plan; the same one keeps its place."""
        if seen.version <= self.version:
            return self
        if seen.status is self.status:
            return replace(self, version=seen.version)
        changed = replace(
            self,
            version=seen.version,
            status=seen.status,
            status_since=min(seen.changed_at, moment.now),
            checks=0,
            failures=0,
        )
        return changed._scheduled(timetable, moment)

    def answered(self, seen: SeenPayment, timetable: Timetable, moment: Moment) -> WatchedPayment:
        """After the gateway's answer."""
        told = self.told(seen, timetable, moment)
        settled = replace(told, last_checked_at=moment.now, last_error=None, failures=0, asked_by_run=None)
        if told.status is not self.status:
            return settled
        return replace(settled, checks=self.checks + 1)._scheduled(timetable, moment)

    def refused(self, reason: str, timetable: Timetable, moment: Moment) -> WatchedPayment:
        """After an answer that will not get better by hurrying; it counts as a check, so the waits grow."""
        settled = replace(
            self, checks=self.checks + 1, last_checked_at=moment.now, last_error=reason, failures=0, asked_by_run=None
        )
        return settled._scheduled(timetable, moment)

    def unanswered(self, reason: str, *, wait_seconds: float, moment: Moment) -> WatchedPayment:
        """Nobody answered: it uses up no check. The waits double, so that one that never answers keeps nobody off."""
        if self.next_check_at is None:
            return self  # it ended while it was asked about
        wait = min(wait_seconds * 2 ** min(self.failures, 10), MAX_FAILURE_WAIT_SECONDS) * moment.jitter
        return replace(
            self,
            failures=self.failures + 1,
            last_error=reason,
            next_check_at=moment.now + timedelta(seconds=wait),
            asked_by_run=None,
        )

    def _scheduled(self, timetable: Timetable, moment: Moment) -> WatchedPayment:
        due = timetable.next_check_at(
            gateway=self.gateway,
            status=self.status,
            checks=self.checks,
            created_at=self.payment_created_at,
            status_since=self.status_since,
            now=moment.now,
            jitter=moment.jitter,
        )
        return replace(self, next_check_at=due, asked_by_run=None if due is None else self.asked_by_run)


class RunKind(StrEnum):
    SWEEP = "sweep"


class RunStatus(StrEnum):
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What a run on demand is about. The window is of the payments' creation; None is open."""

    gateway: str | None = None
    window_from: datetime | None = None
    window_to: datetime | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """One run. ``asked_by`` is who asked for it; None is the schedule. Counts are of payments."""

    run_id: str
    kind: RunKind
    status: RunStatus
    started_at: datetime
    request: RunRequest = RunRequest()
    finished_at: datetime | None = None
    asked_by: str | None = None
    holder: str | None = None
    """The runner: of a run on demand, the one that worked on it last."""
    matched: int = 0
    """What a run on demand has to check; of a scheduled one, what it took up."""
    checked: int = 0
    changed: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class Counts:
    """What one check adds to its run."""

    checked: int = 0
    changed: int = 0
    failed: int = 0
