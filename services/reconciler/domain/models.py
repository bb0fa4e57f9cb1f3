"""Watched payments and runs: pure Python, no I/O, no clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Any

from services.reconciler.domain.schedule import MAX_FAILURE_WAIT_SECONDS, PLANS, PaymentStatus, Subject, Timetable
from shared.money import Money


@dataclass(frozen=True, slots=True)
class Moment:
    """Now, and one decision's jitter (JITTER_LOW to JITTER_HIGH), because the domain has neither clock nor chance."""

    now: datetime
    jitter: float


@dataclass(frozen=True, slots=True)
class Standing:
    """What has moved and what is under way, in minor units of the payment's currency."""

    amount_authorized: int = 0
    amount_captured: int = 0
    amount_refund_pending: int = 0
    amount_refunded: int = 0
    amount_disputed: int = 0
    """Open and lost disputes."""
    amount_dispute_lost: int = 0
    outcome_unknown: bool = False

    @property
    def is_unsettled(self) -> bool:
        is_disputed = self.amount_disputed > self.amount_dispute_lost
        return self.amount_refund_pending > 0 or is_disputed or self.outcome_unknown

    @property
    def is_taken(self) -> bool:
        return 0 < self.amount_authorized == self.amount_captured


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
    """When it came to be as it is."""
    standing: Standing = Standing()
    capture_before: datetime | None = None
    """When the hold ends, where that is told."""
    method: str | None = None
    """How the shopper pays, where that was chosen."""
    is_document: bool = False
    """The whole document; an event does not say what of the disputes is lost, nor when a hold ends."""


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
    """When it came to this status, or its money last moved: its plan begins there."""
    first_seen_at: datetime
    next_check_at: datetime | None
    checks: int = 0
    """Answered checks since then: the position in its plan."""
    failures: int = 0
    """Unanswered ones in a row."""
    last_checked_at: datetime | None = None
    last_error: str | None = None
    asked_by_run: str | None = None
    """The run on demand that waits for this payment's check."""
    standing: Standing = Standing()
    capture_before: datetime | None = None
    method: str | None = None

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
            standing=seen.standing,
            capture_before=seen.capture_before,
            method=seen.method,
        )
        return watched._scheduled(timetable, moment)

    def told(self, seen: SeenPayment, timetable: Timetable, moment: Moment) -> WatchedPayment:
        """After news of it. Older news change nothing; a new status, or money that moved, starts a plan; else it keeps
        its place. A document of the version that is known may still add what that version's event left out."""
        is_supplement = seen.is_document and seen.version == self.version
        if seen.version <= self.version and not is_supplement:
            return self
        standing = self._standing_after(seen)
        is_new_course = _course_of(seen.status, standing) != self._course
        now = replace(
            self,
            version=seen.version,
            status=seen.status,
            standing=standing,
            capture_before=seen.capture_before or self.capture_before,
            method=seen.method or self.method,
            status_since=min(seen.changed_at, moment.now) if is_new_course else self.status_since,
            checks=0 if is_new_course else self.checks,
            failures=0 if is_new_course else self.failures,
        )
        if not is_new_course and now.capture_before == self.capture_before:
            return now
        return now._scheduled(timetable, moment)

    def answered(self, seen: SeenPayment, timetable: Timetable, moment: Moment) -> WatchedPayment:
        """After the gateway's answer."""
        told = self.told(seen, timetable, moment)
        settled = replace(told, last_checked_at=moment.now, last_error=None, failures=0, asked_by_run=None)
        if told._course != self._course:
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

    @property
    def _course(self) -> tuple[PaymentStatus, Standing | None]:
        return _course_of(self.status, self.standing)

    def _standing_after(self, seen: SeenPayment) -> Standing:
        if seen.is_document:
            return seen.standing
        # An event does not say it: what was known to be lost stays lost, as far as it is still disputed.
        lost = min(self.standing.amount_dispute_lost, seen.standing.amount_disputed)
        is_told = lost == seen.standing.amount_dispute_lost
        return seen.standing if is_told else replace(seen.standing, amount_dispute_lost=lost)

    def _scheduled(self, timetable: Timetable, moment: Moment) -> WatchedPayment:
        subject = Subject(
            gateway=self.gateway,
            status=self.status,
            created_at=self.payment_created_at,
            since=self.status_since,
            checks=self.checks,
            is_unsettled=self.standing.is_unsettled,
            is_taken=self.standing.is_taken,
            capture_before=self.capture_before,
            method=self.method,
        )
        due = timetable.next_check_at(subject, now=moment.now, jitter=moment.jitter)
        return replace(self, next_check_at=due, asked_by_run=None if due is None else self.asked_by_run)


def _course_of(status: PaymentStatus, standing: Standing) -> tuple[PaymentStatus, Standing | None]:
    """What starts a plan anew when it changes. While a payment is open, no money of it has moved yet."""
    return status, None if PLANS[status].is_open else standing


class RunKind(StrEnum):
    SWEEP = "sweep"
    SETTLEMENT = "settlement"
    ORDERS = "orders"


class RunStatus(StrEnum):
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What a run is about. The window is of the payments' creation (sweep) or of what is compared; None is open."""

    gateway: str | None = None
    window_from: datetime | None = None
    window_to: datetime | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """One run. ``asked_by`` is who asked for it; None is the schedule.

    Counts are of payments (sweep), lines (settlement) or orders (orders).
    """

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
    """Of a sweep on demand what it has to check, of a scheduled one what it took up; of other runs, what agrees."""
    checked: int = 0
    changed: int = 0
    failed: int = 0
    file_id: str | None = None
    """The settlement file that it reads."""
    attempts: int = 0
    """How often a runner took it up: one that ends its runner each time is given up."""
    phase: str | None = None
    done: int = 0
    total: int | None = None
    cases_opened: int = 0
    cases_resolved: int = 0
    totals: tuple[Mapping[str, Any], ...] = ()
    """Per gateway and currency."""
    problem: str | None = None
    """Why it failed: a code."""


@dataclass(frozen=True, slots=True)
class SweepDay:
    """What the sweep found at a gateway on a day (UTC), and how many of that day's payments have money."""

    gateway: str
    day: date
    checked: int
    learnt_first: int
    """Payments of which it learnt before any webhook did."""
    failed: int
    payments: int
    """Of that gateway, created that day, with money, as far as they were pulled."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What one check adds to its run."""

    checked: int = 0
    changed: int = 0
    failed: int = 0
