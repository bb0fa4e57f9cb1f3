"""The unknown-outcome protocol, as pure functions: what to do next with an operation, for every gateway alike.

Sent and not answered is not failed. The key stays, nothing is resent blindly, and only proof frees the reservation:

1. Look: ask the gateway by our reference. What it finds is adopted.
2. It knows nothing of it: while it honours our key, the same call under the same key is safe, whatever the first did.
3. Its keys do not last (any more): absence proves that nothing ran once its lists have had time to catch up. Then it
   may be sent again; or, after too long, its reservation is freed.
4. No answer within the gateway's horizon: a person is called, and the asking goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto

from services.payment_service.domain.operations import CallState, Operation, OperationStatus

_LOOK_AFTER: Sequence[timedelta] = tuple(timedelta(seconds=s) for s in (1, 2, 5, 15, 60, 300, 900, 3600))
"""Waits between looks at an unknown outcome; the last one repeats."""

_TRY_AFTER = _LOOK_AFTER[:5]
"""Waits between tries to reach a gateway at all: when it is back, what waits for it is sent within a minute."""

_POLL_AFTER: Sequence[timedelta] = tuple(timedelta(seconds=s) for s in (30, 300, 1800, 7200, 6 * 3600, 12 * 3600))
"""Waits between looks at what the gateway has taken on and will settle in its own time."""

SUBMITTED_HORIZON = timedelta(days=30)
"""No refund or capture that a gateway has taken on is under way for longer; a person has to ask it."""

MOST_KEYS = 5
"""After so many stored failures under different keys, each proved to have moved nothing, the operation has failed."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What is known of a gateway: gateways/port.py ``Facts``, and how long we try to reach one."""

    key_valid_for: timedelta | None
    absence_proves_after: timedelta | None
    unknown_horizon: timedelta
    give_up_after: timedelta


class Step(Enum):
    NOTHING = auto()
    SEND = auto()
    LOOK = auto()
    WITHDRAW = auto()
    """It never reached the gateway, and has become too old to be done unasked."""


class Absence(Enum):
    """What it means that the gateway knows nothing of a call of ours."""

    SEND_AGAIN = auto()
    WAIT = auto()
    NEVER_RAN = auto()


def next_step(operation: Operation, limits: Limits, now: datetime) -> Step:
    """What the runner does with an operation that is due and that nobody else holds."""
    if not operation.is_unsettled:
        return Step.NOTHING
    if operation.call is not CallState.UNSENT or operation.status is not OperationStatus.PENDING:
        return Step.LOOK  # a lease that ran out on a sent call is a call without an answer
    return Step.WITHDRAW if now - operation.created_at >= limits.give_up_after else Step.SEND


def meaning_of_absence(operation: Operation, limits: Limits, now: datetime) -> Absence:
    """Only for an operation that was sent at least once."""
    assert operation.first_sent_at is not None
    assert operation.last_sent_at is not None
    if operation.status is OperationStatus.SUBMITTED:
        return Absence.WAIT  # it had said that it has it: its list lags, or hides it
    if limits.key_valid_for is not None and now - operation.first_sent_at < limits.key_valid_for:
        return Absence.SEND_AGAIN
    if not is_proof(limits, operation.last_sent_at, now):
        return Absence.WAIT
    is_too_old = now - operation.created_at >= limits.give_up_after
    return Absence.NEVER_RAN if is_too_old else Absence.SEND_AGAIN


def is_proof(limits: Limits, sent_at: datetime, now: datetime) -> bool:
    """Whether "the gateway knows nothing of it" proves by now that a call sent then never ran."""
    return limits.absence_proves_after is not None and now - sent_at >= limits.absence_proves_after


def must_call_a_person(operation: Operation, limits: Limits, now: datetime) -> bool:
    """Once, when the gateway's horizon has passed without an answer."""
    if operation.first_sent_at is None or operation.escalated_at is not None:
        return False
    horizons = {OperationStatus.UNKNOWN: limits.unknown_horizon, OperationStatus.SUBMITTED: SUBMITTED_HORIZON}
    horizon = horizons.get(operation.status)
    return horizon is not None and now - operation.first_sent_at >= horizon


def look_again_at(operation: Operation, now: datetime) -> datetime:
    waits = _POLL_AFTER if operation.status is OperationStatus.SUBMITTED else _LOOK_AFTER
    if operation.call is CallState.UNSENT:
        waits = _TRY_AFTER
    return now + waits[min(operation.looks, len(waits) - 1)]
