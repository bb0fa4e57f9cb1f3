"""When a payment is asked about next: data per status and gateway, and one pure function that reads it.

Waits start in minutes, because a lost webhook is a shopper who waits, and tail off to days, because most of what is
still open then was abandoned. Ended payments get a few late looks (money that comes after all, design.md §4) and are
dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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

MAX_OVERDUE_SPREAD_SECONDS = 10 * MINUTE
MAX_FAILURE_WAIT_SECONDS = float(HOUR)


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
    """The waits between checks in seconds, the first counted from when the payment came to its status.

    ``repeats``: the last wait goes on; else the payment is dropped after the last check. ``is_open``: the first wait is
    the setting SWEEP_FIRST_CHECK_SECONDS, and later ones grow with the payment's age too.
    """

    waits: tuple[int, ...]
    repeats: bool
    is_open: bool = False


_OPEN = Plan(
    waits=(
        MINUTE, 2 * MINUTE, 5 * MINUTE, 10 * MINUTE, 20 * MINUTE, 40 * MINUTE,
        HOUR, 2 * HOUR, 4 * HOUR, 8 * HOUR, 12 * HOUR, DAY, 2 * DAY, 3 * DAY,
    ),
    repeats=True,
    is_open=True,
)  # fmt: skip
_HELD = Plan((DAY,), repeats=True)  # somebody has to capture or void it; the gateway only lets it lapse
_ENDED = Plan((HOUR, 5 * HOUR, 18 * HOUR, 2 * DAY), repeats=False)  # 1, 6, 24 and 72 hours after its end
_CONFLICTED = Plan((DAY, 2 * DAY, 4 * DAY), repeats=False)  # a person has it; a correction by the gateway is still seen

PLANS: Mapping[PaymentStatus, Plan | None] = {
    PaymentStatus.CREATED: _OPEN,
    PaymentStatus.REQUIRES_ACTION: _OPEN,
    PaymentStatus.PROCESSING: _OPEN,
    PaymentStatus.AUTHORIZED: _HELD,
    PaymentStatus.PARTIALLY_CAPTURED: _HELD,
    PaymentStatus.CAPTURED: None,  # nothing more is expected: refunds and disputes are not the sweep's
    PaymentStatus.FAILED: _ENDED,
    PaymentStatus.CANCELED: _ENDED,
    PaymentStatus.EXPIRED: _ENDED,
    PaymentStatus.CONFLICTED: _CONFLICTED,
}

GATEWAY_PLANS: Mapping[tuple[str, PaymentStatus], Plan] = {
    # Stripe's delayed-notification methods (bank debits) are processing for days; hurrying learns nothing.
    ("stripe", PaymentStatus.PROCESSING): Plan(
        (MINUTE, 10 * MINUTE, HOUR, 4 * HOUR, 12 * HOUR, DAY), repeats=True, is_open=True
    ),
}


def plan_for(gateway: str, status: PaymentStatus) -> Plan | None:
    return GATEWAY_PLANS.get((gateway, status), PLANS[status])


@dataclass(frozen=True, slots=True)
class Timetable:
    """The plans, with the settings applied: ``factor`` multiplies every wait but the first of an open payment."""

    first_check_seconds: float = MINUTE
    factor: float = 1.0

    def wait_seconds(self, plan: Plan, *, checks: int, age_seconds: float) -> float | None:
        """The wait before check number ``checks`` + 1, without jitter; None where the plan has ended.

        It never shrinks, neither with more checks nor with more age.
        """
        if checks >= len(plan.waits) and not plan.repeats:
            return None
        planned = plan.waits[min(checks, len(plan.waits) - 1)] * self.factor
        if not plan.is_open:
            return planned
        if checks == 0:
            return self.first_check_seconds
        by_age = min(age_seconds / AGE_DIVISOR, plan.waits[-1] * self.factor)
        return max(self.first_check_seconds, planned, by_age)

    def next_check_at(
        self,
        *,
        gateway: str,
        status: PaymentStatus,
        checks: int,
        created_at: datetime,
        status_since: datetime,
        now: datetime,
        jitter: float,
    ) -> datetime | None:
        """When to ask next, or None: never again. ``jitter`` is a factor between JITTER_LOW and JITTER_HIGH.

        A first check that is overdue (found by the pull, or after an outage) is spread over a short while, so that a
        backlog does not arrive in one moment (failure L17).
        """
        assert JITTER_LOW <= jitter <= JITTER_HIGH, "jitter out of range"
        plan = plan_for(gateway, status)
        if plan is None:
            return None
        wait = self.wait_seconds(plan, checks=checks, age_seconds=(now - created_at).total_seconds())
        if wait is None:
            return None
        if checks > 0:
            return now + timedelta(seconds=wait * jitter)
        spread = min(wait, MAX_OVERDUE_SPREAD_SECONDS) * (jitter - JITTER_LOW)
        return max(status_since + timedelta(seconds=wait * jitter), now + timedelta(seconds=spread))
