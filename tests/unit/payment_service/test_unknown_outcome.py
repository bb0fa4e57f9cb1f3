"""The unknown-outcome protocol as tables: what each situation of a call leads to, for any gateway."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.payment_service.domain.operations import CallState, Operation, OperationStatus
from services.payment_service.domain.unknown_outcome import (
    Absence,
    Limits,
    Step,
    look_again_at,
    meaning_of_absence,
    must_call_a_person,
    next_step,
)
from tests.support.clock import A_MOMENT
from tests.unit.payment_service.builders import an_operation

HOUR, MINUTE, SECOND = timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1)
KEYED = Limits(timedelta(hours=23), timedelta(minutes=5), timedelta(hours=24), timedelta(hours=24))
KEYLESS = replace(KEYED, key_valid_for=None)
SILENT = replace(KEYED, key_valid_for=None, absence_proves_after=None)
"""A gateway without keys, whose lists prove nothing."""
BLIND = replace(KEYED, absence_proves_after=None)


def unanswered(status: OperationStatus = OperationStatus.UNKNOWN, **changes: Any) -> Operation:
    values: dict[str, Any] = {
        "call": CallState.UNANSWERED,
        "calls": 1,
        "first_sent_at": A_MOMENT,
        "last_sent_at": A_MOMENT,
    }
    return an_operation(status=status, **(values | changes))


@pytest.mark.parametrize(
    ("call", "status", "age", "step"),
    [
        (CallState.UNSENT, "pending", timedelta(0), Step.SEND),
        (CallState.UNSENT, "pending", 24 * HOUR - SECOND, Step.SEND),
        (CallState.UNSENT, "pending", 24 * HOUR, Step.WITHDRAW),
        (CallState.UNSENT, "succeeded", timedelta(0), Step.NOTHING),
        (CallState.SENT, "pending", timedelta(0), Step.LOOK),  # due, so its lease has run out: nobody waits for it
        (CallState.SENT, "pending", 90 * 24 * HOUR, Step.LOOK),
        (CallState.SENT, "unknown", timedelta(0), Step.LOOK),
        (CallState.UNANSWERED, "unknown", timedelta(0), Step.LOOK),
        (CallState.UNANSWERED, "unknown", 90 * 24 * HOUR, Step.LOOK),  # never withdrawn: it may have run
        (CallState.ANSWERED, "submitted", timedelta(0), Step.LOOK),
        (CallState.ANSWERED, "succeeded", timedelta(0), Step.NOTHING),
        (CallState.ANSWERED, "failed", timedelta(0), Step.NOTHING),
        (CallState.ANSWERED, "reversed", timedelta(0), Step.NOTHING),
        (CallState.UNANSWERED, "succeeded", timedelta(0), Step.NOTHING),  # a webhook has said so
        (CallState.WITHDRAWN, "canceled", 90 * 24 * HOUR, Step.NOTHING),
    ],
)
def test_what_the_runner_does(call: CallState, status: str, age: timedelta, step: Step) -> None:
    operation = an_operation(status=OperationStatus(status), call=call)
    for limits in (KEYED, KEYLESS, SILENT, BLIND):
        assert next_step(operation, limits, A_MOMENT + age) is step


@pytest.mark.parametrize(
    ("limits", "age", "meaning"),
    [
        # Its key is alive: the same call under the same key is safe, whatever the first did.
        (KEYED, timedelta(0), Absence.SEND_AGAIN),
        (KEYED, 23 * HOUR - SECOND, Absence.SEND_AGAIN),
        (BLIND, 23 * HOUR - SECOND, Absence.SEND_AGAIN),
        # Its key is dead, and its lists have long caught up: nothing ran.
        (KEYED, 23 * HOUR, Absence.SEND_AGAIN),
        (KEYED, 24 * HOUR, Absence.NEVER_RAN),
        # No keys: never blindly, only after its lists have had time.
        (KEYLESS, timedelta(0), Absence.WAIT),
        (KEYLESS, 5 * MINUTE - SECOND, Absence.WAIT),
        (KEYLESS, 5 * MINUTE, Absence.SEND_AGAIN),
        (KEYLESS, 24 * HOUR - SECOND, Absence.SEND_AGAIN),
        (KEYLESS, 24 * HOUR, Absence.NEVER_RAN),
        # Neither keys nor lists that prove: for ever unknown, until somebody says.
        (SILENT, timedelta(0), Absence.WAIT),
        (SILENT, 365 * 24 * HOUR, Absence.WAIT),
        (BLIND, 23 * HOUR, Absence.WAIT),
        (BLIND, 365 * 24 * HOUR, Absence.WAIT),
    ],
)
def test_what_it_means_that_the_gateway_knows_nothing(limits: Limits, age: timedelta, meaning: Absence) -> None:
    assert meaning_of_absence(unanswered(), limits, A_MOMENT + age) is meaning


def test_absence_is_measured_from_the_last_call_and_the_key_from_the_first() -> None:
    again = unanswered(calls=2, last_sent_at=A_MOMENT + 30 * HOUR)
    assert meaning_of_absence(again, KEYED, A_MOMENT + 30 * HOUR + MINUTE) is Absence.WAIT
    assert meaning_of_absence(again, KEYED, A_MOMENT + 30 * HOUR + 5 * MINUTE) is Absence.NEVER_RAN
    young = replace(again, created_at=A_MOMENT + 29 * HOUR)
    assert meaning_of_absence(young, KEYED, A_MOMENT + 30 * HOUR + 5 * MINUTE) is Absence.SEND_AGAIN


@pytest.mark.parametrize("limits", [KEYED, KEYLESS, SILENT, BLIND])
@pytest.mark.parametrize("age", [timedelta(0), 6 * MINUTE, 25 * HOUR, 90 * 24 * HOUR])
def test_what_the_gateway_said_it_has_is_waited_for(limits: Limits, age: timedelta) -> None:
    taken_on = unanswered(OperationStatus.SUBMITTED, call=CallState.ANSWERED)
    assert meaning_of_absence(taken_on, limits, A_MOMENT + age) is Absence.WAIT


durations = st.integers(0, 10**6).map(lambda seconds: timedelta(seconds=seconds))
limits_of_any_gateway = st.builds(Limits, st.none() | durations, st.none() | durations, durations, durations)


@given(limits_of_any_gateway, durations, durations, durations)
def test_it_is_never_sent_again_blindly_and_freed_on_proof_alone(
    limits: Limits, first: timedelta, later: timedelta, age: timedelta
) -> None:
    operation = unanswered(first_sent_at=A_MOMENT + first, last_sent_at=A_MOMENT + first + later)
    now = A_MOMENT + first + later + age
    has_key = limits.key_valid_for is not None and later + age < limits.key_valid_for
    is_proved = limits.absence_proves_after is not None and age >= limits.absence_proves_after
    meaning = meaning_of_absence(operation, limits, now)
    if meaning is Absence.SEND_AGAIN:
        assert has_key or is_proved
    if meaning is Absence.NEVER_RAN:
        assert is_proved
        assert not has_key
    if not has_key and not is_proved:
        assert meaning is Absence.WAIT


@pytest.mark.parametrize(
    ("operation", "age", "is_due"),
    [
        (unanswered(), 24 * HOUR - SECOND, False),
        (unanswered(), 24 * HOUR, True),
        (unanswered(escalated_at=A_MOMENT + 24 * HOUR), 48 * HOUR, False),  # once
        (unanswered(OperationStatus.SUBMITTED), 48 * HOUR, False),  # it has it
        (unanswered(OperationStatus.SUBMITTED), 30 * 24 * HOUR - SECOND, False),
        (unanswered(OperationStatus.SUBMITTED), 30 * 24 * HOUR, True),  # for too long
        (unanswered(OperationStatus.SUCCEEDED), 48 * HOUR, False),
        (unanswered(OperationStatus.PENDING, call=CallState.UNSENT, first_sent_at=None), 48 * HOUR, False),
    ],
)
def test_a_person_is_called_once_after_the_gateways_horizon(operation: Operation, age: timedelta, is_due: bool) -> None:
    assert must_call_a_person(operation, SILENT, A_MOMENT + age) is is_due


@pytest.mark.parametrize(
    ("operation", "waits"),
    [
        (unanswered(), [1, 2, 5, 15, 60, 300, 900, 3600, 3600, 3600]),
        (unanswered(OperationStatus.PENDING, call=CallState.UNSENT), [1, 2, 5, 15, 60, 60]),
        (unanswered(OperationStatus.SUBMITTED, call=CallState.ANSWERED), [30, 300, 1800, 7200, 21600, 43200, 43200]),
    ],
)
def test_the_waits_grow_up_to_a_limit(operation: Operation, waits: list[int]) -> None:
    found = [look_again_at(replace(operation, looks=looks), A_MOMENT) - A_MOMENT for looks in range(len(waits))]
    assert found == [timedelta(seconds=seconds) for seconds in waits]


def test_the_key_belongs_to_the_operation_and_not_to_a_call() -> None:
    operation = unanswered()
    assert operation.idempotency_key == replace(operation, calls=7, looks=9).idempotency_key == operation.reference
    rotated = replace(operation, key_number=2)
    assert rotated.idempotency_key == f"{operation.reference}-2"
