"""What a capture, void or refund may take, and from which object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from services.payment_service.domain import budget
from services.payment_service.domain.budget import (
    refund_target,
    refundable_by_object,
    void_target,
)
from services.payment_service.domain.errors import (
    CaptureExceedsAuthorized,
    NotCapturable,
    NotRefundable,
    OperationInProgress,
    PaymentDisputed,
    RefundExceedsCaptured,
    RefundSpansCaptures,
)
from services.payment_service.domain.models import (
    CaptureMode,
    Fact,
    FactKind,
    FactSource,
    Observation,
    Payment,
    PaymentStatus,
    Terms,
)
from services.payment_service.domain.operations import Operation, OperationKind, OperationStatus
from services.payment_service.domain.transitions import derive
from shared.money import Money
from tests.support.clock import A_MOMENT
from tests.unit.payment_service.builders import a_payment, an_operation

F = FactKind
UNSETTLED = ["pending", "submitted", "unknown"]
SETTLED = ["succeeded", "failed", "canceled", "reversed"]
MANUAL = Terms(Money(1000, "EUR"), CaptureMode.MANUAL)


def seen(kind: FactKind, reference: str, amount: int | None = None, **changes: Any) -> Observation:
    return Observation(kind, reference, None if amount is None else Money(amount, "EUR"), **changes)


def ground(*observations: Observation, operations: tuple[Operation, ...] = ()) -> tuple[Payment, list[Fact]]:
    """A payment of 10.00 EUR as the reducer makes it."""
    facts = [Fact(each, FactSource.WEBHOOK, A_MOMENT) for each in observations]
    state = derive(MANUAL, facts, operations).state
    changes = {name: getattr(state, name) for name in type(state).__dataclass_fields__ if name != "status"}
    return a_payment(state.status, terms=MANUAL, **changes), facts


def one(kind: OperationKind, status: str, amount: int = 400, **changes: Any) -> Operation:
    return an_operation(kind, OperationStatus(status), amount=Money(amount, "EUR"), **changes)


def capture(
    payment: Payment, facts: list[Fact], operations: Sequence[Operation], amount: int, *, is_final: bool = False
) -> str:
    return budget.capture_target(payment, facts, operations, amount, is_final=is_final)


HELD = seen(F.AUTHORIZED, "AUTH-1", 1000)


@pytest.mark.parametrize("amount", [1, 999, 1000])
def test_a_capture_takes_from_the_hold(amount: int) -> None:
    payment, facts = ground(HELD)
    assert capture(payment, facts, (), amount) == "AUTH-1"


def test_a_capture_of_more_than_is_held_is_refused() -> None:
    """RF13."""
    payment, facts = ground(HELD)
    with pytest.raises(CaptureExceedsAuthorized):
        capture(payment, facts, (), 1001)


def test_what_another_capture_reserves_is_not_there() -> None:
    payment, facts = ground(HELD)
    reserved = a_payment(payment.status, terms=MANUAL, amount_authorized=1000, amount_capture_pending=400)
    assert capture(reserved, facts, (), 600) == "AUTH-1"
    with pytest.raises(CaptureExceedsAuthorized):
        capture(reserved, facts, (), 601)


@pytest.mark.parametrize("status", sorted(set(PaymentStatus) - {"authorized", "partially_captured"}))
def test_only_a_hold_can_be_captured(status: PaymentStatus) -> None:
    with pytest.raises(NotCapturable):
        capture(a_payment(status, amount_authorized=1000), [], (), 1)


@pytest.mark.parametrize("status", UNSETTLED)
def test_nothing_is_captured_beside_a_void_that_may_run(status: str) -> None:
    payment, facts = ground(HELD)
    with pytest.raises(OperationInProgress):
        capture(payment, facts, [one(OperationKind.VOID, status)], 1)


@pytest.mark.parametrize("status", UNSETTLED)
def test_a_hold_that_is_being_completed_is_left_alone(status: str) -> None:
    payment, facts = ground(HELD)
    with pytest.raises(OperationInProgress):
        capture(payment, facts, [one(OperationKind.COMPLETION, status)], 1)
    with pytest.raises(OperationInProgress):
        void_target(payment, facts, [one(OperationKind.COMPLETION, status)])


@pytest.mark.parametrize("status", UNSETTLED)
def test_nothing_is_captured_beside_a_final_capture(status: str) -> None:
    payment, facts = ground(HELD)
    with pytest.raises(OperationInProgress):
        capture(payment, facts, [one(OperationKind.CAPTURE, status, is_final=True)], 1)
    assert capture(payment, facts, [one(OperationKind.CAPTURE, status)], 1) == "AUTH-1"


@pytest.mark.parametrize("status", UNSETTLED)
def test_a_final_capture_waits_for_the_captures_before_it(status: str) -> None:
    payment, facts = ground(HELD)
    with pytest.raises(OperationInProgress):
        capture(payment, facts, [one(OperationKind.CAPTURE, status)], 1, is_final=True)


@pytest.mark.parametrize("status", SETTLED)
@pytest.mark.parametrize("kind", [OperationKind.VOID, OperationKind.CAPTURE])
def test_what_has_ended_is_in_nobodys_way(status: str, kind: OperationKind) -> None:
    payment, facts = ground(HELD)
    assert capture(payment, facts, [one(kind, status, is_final=True)], 1) == "AUTH-1"
    assert void_target(payment, facts, [one(kind, status)]) == "AUTH-1"


@pytest.mark.parametrize("status", UNSETTLED)
@pytest.mark.parametrize("kind", [OperationKind.VOID, OperationKind.CAPTURE])
def test_a_void_waits_for_a_capture_whose_outcome_is_open(status: str, kind: OperationKind) -> None:
    """RF16, RF17."""
    payment, facts = ground(HELD)
    with pytest.raises(OperationInProgress):
        void_target(payment, facts, [one(kind, status)])


def test_the_rest_of_a_hold_can_be_released() -> None:
    payment, facts = ground(HELD, seen(F.CAPTURED, "CAP-1", 400))
    assert void_target(payment, facts, ()) == "AUTH-1"


@pytest.mark.parametrize(
    "observations",
    [
        (),
        (HELD, seen(F.CAPTURED, "CAP-1", 1000)),
        (HELD, seen(F.CAPTURED, "CAP-1", 400), seen(F.RELEASED, "AUTH-1")),
        (HELD, seen(F.CANCELED, "AUTH-1")),
        (HELD, seen(F.EXPIRED, "AUTH-1")),
    ],
)
def test_a_void_needs_something_held(observations: tuple[Observation, ...]) -> None:
    payment, facts = ground(*observations)
    with pytest.raises(NotCapturable):
        void_target(payment, facts, ())


def refund(payment: Payment, facts: list[Fact], amount: int, *, override: bool = False, operations: Any = ()) -> str:
    return refund_target(payment, facts, operations, amount, override=override)


def test_nothing_is_refunded_before_it_is_captured() -> None:
    """RF3."""
    payment, facts = ground(HELD)
    with pytest.raises(NotRefundable):
        refund(payment, facts, 1)


@pytest.mark.parametrize("status", [*UNSETTLED, "succeeded"])
def test_what_another_refund_has_or_may_have_taken_is_not_there(status: str) -> None:
    taken = one(OperationKind.REFUND, status, 600, target="pi_1")
    calls = {"pending": "sent", "submitted": "answered", "unknown": "unanswered", "succeeded": "answered"}
    facts_of = {"submitted": F.REFUND_PENDING, "succeeded": F.REFUND_SUCCEEDED}
    observations = [seen(F.CAPTURED, "pi_1", 1000)]
    if status in facts_of:
        observations.append(seen(facts_of[status], "re_1", 600, operation=taken.reference))
    taken = one(OperationKind.REFUND, status, 600, target="pi_1", call=type(taken.call)(calls[status]))
    payment, facts = ground(*observations, operations=(taken,))
    assert refund(payment, facts, 400, operations=(taken,)) == "pi_1"
    with pytest.raises(RefundExceedsCaptured):
        refund(payment, facts, 401, operations=(taken,))


@pytest.mark.parametrize("status", ["failed", "canceled", "reversed"])
def test_a_refund_that_did_not_stay_gives_its_budget_back(status: str) -> None:
    gone = one(OperationKind.REFUND, status, 600, target="pi_1")
    payment, facts = ground(seen(F.CAPTURED, "pi_1", 1000))
    assert refundable_by_object(payment, facts, [gone]) == {"pi_1": 1000}


def test_a_dispute_that_is_open_needs_an_override_and_keeps_its_amount_even_so() -> None:
    """RF11."""
    payment, facts = ground(seen(F.CAPTURED, "pi_1", 1000), seen(F.DISPUTE_OPENED, "dp_1", 700))
    with pytest.raises(PaymentDisputed):
        refund(payment, facts, 1)
    assert refund(payment, facts, 300, override=True) == "pi_1"
    with pytest.raises(RefundExceedsCaptured):
        refund(payment, facts, 301, override=True)


def test_a_lost_dispute_is_over_and_its_amount_is_gone() -> None:
    payment, facts = ground(seen(F.CAPTURED, "pi_1", 1000), seen(F.DISPUTE_LOST, "dp_1", 700))
    assert refund(payment, facts, 300) == "pi_1"
    with pytest.raises(RefundExceedsCaptured):
        refund(payment, facts, 301)


def test_a_refund_is_not_taken_from_the_capture_that_was_lost_in_a_dispute() -> None:
    payment, facts = ground(
        HELD,
        seen(F.CAPTURED, "pi_1", 600),
        seen(F.CAPTURED, "pi_2", 400),
        seen(F.DISPUTE_LOST, "dp_1", 400, about="pi_2"),
    )
    assert refundable_by_object(payment, facts, ()) == {"pi_1": 600, "pi_2": 0}
    assert refund(payment, facts, 300) == "pi_1"


def test_a_won_dispute_takes_nothing() -> None:
    payment, facts = ground(
        seen(F.CAPTURED, "pi_1", 1000), seen(F.DISPUTE_OPENED, "dp_1", 700), seen(F.DISPUTE_WON, "dp_1", 700)
    )
    assert refund(payment, facts, 1000) == "pi_1"


def test_of_several_captures_the_smallest_that_has_enough_is_taken() -> None:
    payment, facts = ground(HELD, seen(F.CAPTURED, "CAP-1", 700), seen(F.CAPTURED, "CAP-2", 300))
    assert refund(payment, facts, 300) == "CAP-2"
    assert refund(payment, facts, 301) == "CAP-1"
    with pytest.raises(RefundSpansCaptures, match="at most 700"):
        refund(payment, facts, 701)


def test_what_was_refunded_of_a_capture_is_taken_off_that_capture() -> None:
    payment, facts = ground(
        seen(F.CAPTURED, "CAP-1", 700),
        seen(F.CAPTURED, "CAP-2", 300),
        seen(F.REFUND_SUCCEEDED, "re_1", 600, about="CAP-1"),
        seen(F.REFUND_PENDING, "re_2", 50, about="CAP-2"),
    )
    assert refundable_by_object(payment, facts, ()) == {"CAP-1": 100, "CAP-2": 250}


def test_money_that_went_back_in_another_currency_needs_an_override() -> None:
    """It cannot be added up with ours, so nobody knows by itself what is left."""
    payment, facts = ground(
        HELD,
        seen(F.CAPTURED, "pi_1", 1000),
        Observation(F.REFUND_SUCCEEDED, "re_1", Money(500, "USD"), about="pi_1"),
    )
    assert payment.state.conflict == "foreign_currency_returned"
    assert payment.state.amount_refunded == 0
    with pytest.raises(PaymentDisputed):
        refund(payment, facts, 100)
    assert refund(payment, facts, 100, override=True) == "pi_1"
