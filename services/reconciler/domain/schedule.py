"""When a payment is asked about next: data per status and gateway, and one pure function that reads it.

Waits start in minutes, because a lost webhook is a shopper who waits, and tail off to days, because most of what is
still open then was abandoned. Ended payments get a few late looks (money that comes after all, design.md §4) and are
dropped. Captured ones get a slow tail of looks (refunds made in the gateway's dashboard, disputes, whose webhook was
lost), and are asked about more often while a refund, a dispute or an unanswered call of theirs is open.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

MINUTE = 60
HOUR = 60 * MINUTE
DAY = 24 * HOUR

JITTER_LOW = 0.9
JITTER_HIGH = 1.1

AGE_DIVISOR = 8
"""A payment that is open for a day already is asked about every three hours at most, however few checks it has had:
after an outage of ours the backlog must not be treated as if it were fresh (failure RC14)."""

CLOCK_GRAIN_SECONDS = 0.001
"""Dates are whole microseconds: one that was rounded down does not make its look due once more."""

MAX_OVERDUE_SPREAD_SECONDS = 10 * MINUTE
MAX_FAILURE_WAIT_SECONDS = float(HOUR)

HOLD_DIVISOR = 4
"""A hold that ends in (or ended before) two days is asked about after half a day: never more rarely than daily, never
more often than hourly. Near its end it is captured, voided or lapses, and what is left undone then is lost money."""

CAPTURED_LOOKS = (HOUR, 6 * HOUR, *(days * DAY for days in (1, 3, 7, 14, 30, 60, 90, 120)))
"""Seconds after the money last moved. Card schemes take disputes until about 120 days after the payment."""


class PaymentStatus(StrEnum):
    """payment_service's statuses, as its events name them."""

    CREATED = "created"
    REQUIRES_ACTION = "requires_action"
    PROCESSING = "processing"
    AUTHORIZED = "authorized"
    PARTIALLY_CAPTURED = "partially_captured"
    CAPTURED = "captured"
    FAILED = "failed"
    CANCELED = "canceled"
    EXPIRED = "expired"
    CONFLICTED = "conflicted"


@dataclass(frozen=True, slots=True)
class Plan:
    """The waits between checks in seconds, the first counted from when the payment came to where it is.

    ``repeats``: the last wait goes on; else the payment is dropped after the last check. ``is_open``: the first wait is
    the setting SWEEP_FIRST_CHECK_SECONDS, and later ones grow with the payment's age too. ``from_start``: every wait is
    counted from that beginning, and those that are over are not made up for.
    """

    waits: tuple[int, ...]
    repeats: bool
    is_open: bool = False
    from_start: bool = False


_OPEN = Plan(
    waits=(
        MINUTE, 2 * MINUTE, 5 * MINUTE, 10 * MINUTE, 20 * MINUTE, 40 * MINUTE,
        HOUR, 2 * HOUR, 4 * HOUR, 8 * HOUR, 12 * HOUR, DAY, 2 * DAY, 3 * DAY,
    ),
    repeats=True,
    is_open=True,
)  # fmt: skip
_HELD = Plan((DAY,), repeats=True)  # somebody has to capture or void it; the gateway only lets it lapse
_CAPTURED = Plan(CAPTURED_LOOKS, repeats=False, from_start=True)
_ENDED = Plan((HOUR, 5 * HOUR, 18 * HOUR, 2 * DAY), repeats=False)  # 1, 6, 24 and 72 hours after its end
_CONFLICTED = Plan((DAY, 2 * DAY, 4 * DAY), repeats=False)  # a person has it; a correction by the gateway is still seen

UNSETTLED = Plan((HOUR,) * 24 + (DAY,), repeats=True)
"""While a refund is pending, a dispute is open or a call is unanswered: hourly for a day, then daily until it ends."""

PLANS: Mapping[PaymentStatus, Plan] = {
    PaymentStatus.CREATED: _OPEN,
    PaymentStatus.REQUIRES_ACTION: _OPEN,
    PaymentStatus.PROCESSING: _OPEN,
    PaymentStatus.AUTHORIZED: _HELD,
    PaymentStatus.PARTIALLY_CAPTURED: _HELD,
    PaymentStatus.CAPTURED: _CAPTURED,
    PaymentStatus.FAILED: _ENDED,
    PaymentStatus.CANCELED: _ENDED,
    PaymentStatus.EXPIRED: _ENDED,
    PaymentStatus.CONFLICTED: _CONFLICTED,
}

_LATE_AUTHORIZATION = Plan((HOUR, 5 * HOUR, 18 * HOUR, *(DAY,) * 5), repeats=False)
"""1, 6 and 24 hours after its end, then daily until the sixth day."""

GATEWAY_PLANS: Mapping[tuple[str, PaymentStatus], Plan] = {
    # Razorpay authorizes a payment that failed for want of a bank's answer up to five days later, by one of its pages.
    **{("razorpay", status): _LATE_AUTHORIZATION for status in (PaymentStatus.FAILED, PaymentStatus.EXPIRED)},
    ("razorpay", PaymentStatus.CANCELED): _LATE_AUTHORIZATION,
    # Stripe's delayed-notification methods (bank debits) are processing for days; hurrying learns nothing.
    ("stripe", PaymentStatus.PROCESSING): Plan(
        (MINUTE, 10 * MINUTE, HOUR, 4 * HOUR, 12 * HOUR, DAY), repeats=True, is_open=True
    ),
}

_BY_BANK = Plan((10 * MINUTE, HOUR, 4 * HOUR, 12 * HOUR, DAY), repeats=True, is_open=True)
_IN_AN_APP = Plan(
    (MINUTE, MINUTE, 2 * MINUTE, 5 * MINUTE, 10 * MINUTE, 20 * MINUTE, 40 * MINUTE, HOUR, 4 * HOUR, 12 * HOUR, DAY),
    repeats=True,
    is_open=True,
)

METHOD_PLANS: Mapping[tuple[str, PaymentStatus], Plan] = {
    # Money that a bank moves overnight, or that the shopper carries to a counter: hurrying learns nothing.
    **{
        (method, PaymentStatus.PROCESSING): _BY_BANK
        for method in ("bank_debit", "bank_transfer", "sepa_debit", "ach_debit", "boleto", "oxxo", "konbini", "cash")
    },
    # The shopper agrees in another app within minutes, and the page in the browser is often closed by then.
    **{
        (method, status): _IN_AN_APP
        for method in ("upi", "wallet")
        for status in (PaymentStatus.REQUIRES_ACTION, PaymentStatus.PROCESSING)
    },
}
"""By the payment's ``method``, as the caller named it; it counts before the gateway's own plan."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What of a payment decides when it is asked about next."""

    gateway: str
    status: PaymentStatus
    created_at: datetime
    since: datetime
    """When it came to this status, or its money last moved: its plan begins there."""
    checks: int = 0
    """Answered checks since then."""
    is_unsettled: bool = False
    """A refund is pending, a dispute is open, or a call to the gateway is unanswered."""
    is_taken: bool = False
    """All that was held was captured, or what was not was given back: a hold that is none any more."""
    capture_before: datetime | None = None
    method: str | None = None
    """How the shopper pays, where that was chosen with the payment."""

    @property
    def is_held(self) -> bool:
        return self.status in (PaymentStatus.AUTHORIZED, PaymentStatus.PARTIALLY_CAPTURED) and not self.is_taken


@dataclass(frozen=True, slots=True)
class Timetable:
    """The plans, with the settings applied: ``factor`` multiplies every wait but the first of an open payment.

    ``captured_looks``: seconds after the money last moved; empty: captured payments are not asked about.
    """

    first_check_seconds: float = MINUTE
    factor: float = 1.0
    captured_looks: tuple[int, ...] = CAPTURED_LOOKS

    def plan_for(self, subject: Subject) -> Plan:
        by_gateway = GATEWAY_PLANS.get((subject.gateway, subject.status), PLANS[subject.status])
        plan = METHOD_PLANS.get((subject.method or "", subject.status), by_gateway)
        if plan.is_open:
            return plan
        if subject.is_unsettled:
            return UNSETTLED
        if plan is _CAPTURED or (plan is _HELD and subject.is_taken):
            return (
                _CAPTURED if self.captured_looks == _CAPTURED.waits else replace(_CAPTURED, waits=self.captured_looks)
            )
        return plan

    def wait_seconds(self, subject: Subject, now: datetime) -> float | None:
        """The wait before the next check, without jitter; None where the plan has ended.

        It never shrinks, neither with more checks nor with more age, but for a hold's that nears its end.
        """
        plan, checks = self.plan_for(subject), subject.checks
        if plan.from_start:
            return self._until_next_look(plan, subject, now)
        if checks >= len(plan.waits) and not plan.repeats:
            return None
        planned = plan.waits[min(checks, len(plan.waits) - 1)] * self.factor
        if subject.is_held and subject.capture_before is not None:
            distance = abs((subject.capture_before - now).total_seconds())
            return min(planned, max(distance / HOLD_DIVISOR, HOUR) * self.factor)
        if not plan.is_open:
            return planned
        if checks == 0:
            return self.first_check_seconds
        age = (now - subject.created_at).total_seconds()
        by_age = min(age / AGE_DIVISOR, plan.waits[-1] * self.factor)
        return max(self.first_check_seconds, planned, by_age)

    def next_check_at(self, subject: Subject, *, now: datetime, jitter: float) -> datetime | None:
        """When to ask next, or None: never again. ``jitter`` is a factor between JITTER_LOW and JITTER_HIGH.

        A first check that is overdue (found by the pull, or after an outage) is spread over a short while, so that a
        backlog does not arrive in one moment (failure L17).
        """
        assert JITTER_LOW <= jitter <= JITTER_HIGH, "jitter out of range"
        wait = self.wait_seconds(subject, now)
        if wait is None:
            return None
        is_counted_from_start = subject.checks == 0 or self.plan_for(subject).from_start
        if not is_counted_from_start:
            return now + timedelta(seconds=wait * jitter)
        spread = min(wait, MAX_OVERDUE_SPREAD_SECONDS) * (jitter - JITTER_LOW)
        return max(subject.since + timedelta(seconds=wait * jitter), now + timedelta(seconds=spread))

    def _until_next_look(self, plan: Plan, subject: Subject, now: datetime) -> float | None:
        """From the beginning of the plan to the next look; one that is over is made up for only if it is the first."""
        elapsed = (now - subject.since).total_seconds()
        looks = [look * self.factor for look in plan.waits]
        # Jitter may have brought the check that has just been made before the look that it was made for.
        ahead = [look for look in looks if subject.checks == 0 or look * JITTER_LOW > elapsed + CLOCK_GRAIN_SECONDS]
        return ahead[0] if ahead else None
