"""What facts say about operations, refunds and disputes: rule by rule, and whichever way they are named."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from services.payment_service.domain.models import (
    CaptureMode,
    Fact,
    FactKind,
    FactSource,
    Observation,
    PaymentState,
    Terms,
)
from services.payment_service.domain.operation_state import COUNTED_AS_OURS, disputes_claimed, settle_operations
from services.payment_service.domain.operations import (
    CallState,
    Operation,
    OperationKind,
    OperationStatus,
    Origin,
)
from services.payment_service.domain.transitions import Derived, derive
from shared.money import Money
from tests.support.clock import A_MOMENT
from tests.unit.payment_service.builders import an_operation

OURS = "OURREFERENCE00000001"
TERMS = Terms(Money(1999, "EUR"), CaptureMode.AUTOMATIC)
CAPTURED = Observation(FactKind.CAPTURED, "pi_1", Money(1999, "EUR"))
F = FactKind


def money(amount: int = 500) -> Money:
    return Money(amount, "EUR")


def of_refund(kind: FactKind, *, refund: str = "re_1", operation: str | None = None, **changes: Any) -> Observation:
    values: dict[str, Any] = {"amount": money(), "about": "pi_1", "operation": operation}
    return Observation(kind, refund, **(values | changes))


def derived(*observations: Observation, operations: Sequence[Operation] = ()) -> Derived:
    return derive(TERMS, [Fact(each, FactSource.WEBHOOK, A_MOMENT) for each in (CAPTURED, *observations)], operations)


def totals(state: PaymentState) -> tuple[int, int]:
    return state.amount_refunded, state.amount_refund_pending


def a_refund(call: CallState = CallState.SENT, **changes: Any) -> Operation:
    values: dict[str, Any] = {"status": OperationStatus.PENDING, "call": call, "calls": 1, "target": "pi_1"}
    return an_operation(OperationKind.REFUND, **(values | changes))


REFUND_STATUS = [
    ((), "pending"),
    ((F.REFUND_PENDING,), "submitted"),
    ((F.REFUND_SUCCEEDED,), "succeeded"),
    ((F.REFUND_PENDING, F.REFUND_SUCCEEDED), "succeeded"),
    ((F.REFUND_FAILED,), "failed"),
    ((F.REFUND_PENDING, F.REFUND_FAILED), "failed"),
    ((F.REFUND_SUCCEEDED, F.REFUND_FAILED), "reversed"),  # RF4: it had succeeded, so it came back later
    ((F.REFUND_REVERSED,), "reversed"),
    ((F.REFUND_SUCCEEDED, F.REFUND_REVERSED), "reversed"),
    ((F.OPERATION_REFUSED,), "failed"),
    ((F.OPERATION_REFUSED, F.REFUND_PENDING), "submitted"),  # the gateway has it, whatever one call was answered
    ((F.OPERATION_REFUSED, F.REFUND_SUCCEEDED), "succeeded"),
]


@pytest.mark.parametrize(("kinds", "status"), REFUND_STATUS)
def test_the_status_of_a_refund(kinds: tuple[FactKind, ...], status: str) -> None:
    for order in itertools.permutations(kinds):
        (settled,) = derived(*(of_refund(kind, operation=OURS) for kind in order), operations=[a_refund()]).operations
        assert settled.status == status


@pytest.mark.parametrize(
    ("kinds", "status"),
    [
        ((), "pending"),
        ((F.OPERATION_PENDING,), "submitted"),
        ((F.OPERATION_SUCCEEDED,), "succeeded"),
        ((F.OPERATION_FAILED,), "failed"),
        ((F.OPERATION_REFUSED,), "failed"),
        ((F.OPERATION_PENDING, F.OPERATION_SUCCEEDED), "succeeded"),
        ((F.OPERATION_PENDING, F.OPERATION_FAILED), "failed"),
        ((F.OPERATION_REFUSED, F.OPERATION_SUCCEEDED), "succeeded"),
        ((F.OPERATION_REFUSED, F.OPERATION_PENDING), "submitted"),
    ],
)
@pytest.mark.parametrize("kind", [OperationKind.CAPTURE, OperationKind.VOID, OperationKind.COMPLETION])
def test_the_status_of_a_capture_void_or_completion(
    kind: OperationKind, kinds: tuple[FactKind, ...], status: str
) -> None:
    operation = an_operation(kind, OperationStatus.PENDING, call=CallState.SENT, calls=1)
    for order in itertools.permutations(kinds):
        facts = [Observation(each, "pi_1", money(), operation=OURS) for each in order]
        assert settle_operations([operation], facts)[0].status == status


@pytest.mark.parametrize(
    ("call", "calls", "status"),
    [
        (CallState.UNSENT, 0, "pending"),
        (CallState.SENT, 1, "pending"),
        (CallState.SENT, 2, "unknown"),  # sent again: what the first call did is as unknown as before
        (CallState.UNANSWERED, 1, "unknown"),
        (CallState.WITHDRAWN, 0, "canceled"),
    ],
)
def test_without_facts_the_call_says_it(call: CallState, calls: int, status: str) -> None:
    (settled,) = settle_operations([a_refund(call, calls=calls)], ())
    assert settled.status == status
    assert settled.failure_code == ("never_sent" if status == "canceled" else None)


def test_a_capture_of_its_own_that_was_taken_back_is_reversed() -> None:
    capture = an_operation(OperationKind.CAPTURE, target="AUTH-1", call=CallState.ANSWERED)
    done = Observation(F.OPERATION_SUCCEEDED, "CAP-1", money(), operation=OURS)
    taken_back = Observation(F.CAPTURE_REVERSED, "CAP-1", money())
    assert settle_operations([capture], [done])[0].status == "succeeded"
    assert settle_operations([capture], [done, taken_back])[0].status == "reversed"
    other = replace(taken_back, object_reference="CAP-2")
    assert settle_operations([capture], [done, other])[0].status == "succeeded"


def test_why_it_failed_is_kept_and_does_not_depend_on_who_spoke_first() -> None:
    one = of_refund(F.REFUND_FAILED, operation=OURS, reason="expired_or_canceled_card")
    two = replace(one, reason="declined")
    assert one.natural_key != two.natural_key  # else the database would keep the first alone
    for facts in ((one, two), (two, one)):
        assert settle_operations([a_refund()], facts)[0].failure_code == "declined"
    assert settle_operations([a_refund()], [of_refund(F.REFUND_SUCCEEDED, operation=OURS)])[0].failure_code is None


@pytest.mark.parametrize(
    "observations",
    [
        [of_refund(F.REFUND_SUCCEEDED, operation=OURS)],
        [of_refund(F.REFUND_SUCCEEDED, operation=OURS), of_refund(F.REFUND_SUCCEEDED)],
        [of_refund(F.REFUND_PENDING), of_refund(F.REFUND_SUCCEEDED, operation=OURS)],
        [of_refund(F.REFUND_SUCCEEDED), of_refund(F.REFUND_PENDING, operation=OURS)],
        [of_refund(F.REFUND_SUCCEEDED, about=None), of_refund(F.REFUND_PENDING, operation=OURS)],
        [of_refund(F.REFUND_SUCCEEDED, amount=None), of_refund(F.REFUND_PENDING, operation=OURS)],
    ],
)
def test_a_refund_of_ours_is_counted_once_whichever_way_it_is_named(observations: list[Observation]) -> None:
    for order in itertools.permutations(observations):
        found = derived(*order, operations=[a_refund()])
        assert totals(found.state) == (500, 0)
        assert found.imported == ()
        assert found.operations[0].gateway_reference == "re_1"


def test_its_webhook_counts_beside_our_reservation_until_the_two_are_linked() -> None:
    found = derived(of_refund(F.REFUND_SUCCEEDED), operations=[a_refund()])
    assert totals(found.state) == (500, 500)
    all_of_it = derived(of_refund(F.REFUND_SUCCEEDED, amount=money(1999)), operations=[a_refund(amount=money(1999))])
    assert totals(all_of_it.state) == (1999, 0)
    assert all_of_it.state.amount_excess == 0


def test_an_answer_that_named_it_links_every_later_word() -> None:
    answered = a_refund(CallState.ANSWERED, gateway_reference="re_1")
    found = derived(of_refund(F.REFUND_SUCCEEDED), operations=[answered])
    assert (totals(found.state), found.imported) == ((500, 0), ())


def an_import(**changes: Any) -> Operation:
    values: dict[str, Any] = {
        "operation_id": "ref_2",
        "reference": "MADEATTHEGATEWAY0001",
        "origin": Origin.GATEWAY,
        "call": CallState.ANSWERED,
        "gateway_reference": "re_1",
        "target": "pi_1",
    }
    return an_operation(OperationKind.REFUND, **(values | changes))


@pytest.mark.parametrize(("kinds", "status"), [case for case in REFUND_STATUS if case[0] and "OP" not in str(case[0])])
def test_a_refund_made_at_the_gateway_is_told_by_its_facts(kinds: tuple[FactKind, ...], status: str) -> None:
    if F.OPERATION_REFUSED in kinds:
        return  # nobody but us is refused
    facts = [of_refund(kind) for kind in kinds]
    (claim,) = derived(*facts).imported
    (imported,) = derived(*facts, operations=[an_import()]).operations
    assert claim.status == imported.status == status
    assert derived(*facts).state == derived(*facts, operations=[an_import()]).state


def test_an_imported_refund_that_was_ours_all_along_counts_for_nothing() -> None:
    """RF9: its webhook did not name us and came first; then our answer named it."""
    linked = of_refund(F.REFUND_SUCCEEDED, operation=OURS)
    for operations in ([a_refund(), an_import()], [an_import(), a_refund()]):
        found = derived(of_refund(F.REFUND_SUCCEEDED), linked, operations=operations)
        assert totals(found.state) == (500, 0)
        status = {operation.operation_id: operation.status for operation in found.operations}
        assert status == {"ref_1": "succeeded", "ref_2": "canceled"}
        assert [o.failure_code for o in found.operations if o.operation_id == "ref_2"] == [COUNTED_AS_OURS]


def test_an_imported_refund_follows_its_facts() -> None:
    """The row says what was known when it was written; what is learnt later counts as if it had been known then."""
    known_late = of_refund(F.REFUND_SUCCEEDED, amount=money(700))
    at_once = derived(of_refund(F.REFUND_PENDING), known_late)
    one_by_one = derived(of_refund(F.REFUND_PENDING), known_late, operations=[an_import()])
    assert totals(at_once.state) == totals(one_by_one.state) == (700, 0)


def test_two_refunds_at_the_gateway_are_two() -> None:
    found = derived(of_refund(F.REFUND_SUCCEEDED), of_refund(F.REFUND_SUCCEEDED, refund="re_2"))
    assert totals(found.state) == (1000, 0)


def test_one_refund_told_by_two_events_is_one() -> None:
    """RF10: keyed by the refund, not by the event."""
    event = of_refund(F.REFUND_SUCCEEDED)
    assert event.natural_key == replace(event, occurred_at=A_MOMENT).natural_key
    assert totals(derived(event, replace(event, occurred_at=A_MOMENT)).state) == (500, 0)


def test_what_goes_back_beyond_what_was_taken_is_an_excess_for_a_person() -> None:
    found = derived(of_refund(F.REFUND_SUCCEEDED, amount=money(1500)), of_refund(F.REFUND_SUCCEEDED, refund="re_2"))
    assert (totals(found.state), found.state.amount_excess) == ((1999, 0), 1)


def test_a_refund_in_another_currency_is_told_and_not_added_up() -> None:
    found = derived(of_refund(F.REFUND_SUCCEEDED, amount=Money(500, "USD")))
    assert (totals(found.state), found.state.conflict) == ((0, 0), "foreign_currency_returned")


D = tuple[FactKind, ...]


@pytest.mark.parametrize(
    ("kinds", "status", "disputed", "lost"),
    [
        ((F.DISPUTE_OPENED,), "open", 800, 0),
        ((F.DISPUTE_OPENED, F.DISPUTE_WON), "won", 0, 0),
        ((F.DISPUTE_WON,), "won", 0, 0),
        ((F.DISPUTE_OPENED, F.DISPUTE_LOST), "lost", 800, 800),
        ((F.DISPUTE_OPENED, F.DISPUTE_WON, F.DISPUTE_LOST), "lost", 800, 800),  # RF12: reopened and lost
    ],
)
def test_what_a_dispute_takes(kinds: D, status: str, disputed: int, lost: int) -> None:
    for order in itertools.permutations(kinds):
        found = derived(*(Observation(kind, "dp_1", money(800), about="pi_1") for kind in order))
        assert [claim.status for claim in found.disputes] == [status]
        assert (found.state.amount_disputed, found.state.amount_dispute_lost) == (disputed, lost)


def test_the_end_of_a_dispute_says_what_it_came_to() -> None:
    opened = Observation(F.DISPUTE_OPENED, "dp_1", money(800), reason="fraudulent")
    lost = Observation(F.DISPUTE_LOST, "dp_1", money(300), reason="general")
    for order in ((opened, lost), (lost, opened)):
        (claim,) = disputes_claimed(order)
        assert (claim.amount, claim.reason) == (money(300), "fraudulent")


def test_disputes_fit_into_what_refunds_left() -> None:
    refunded = of_refund(F.REFUND_SUCCEEDED, amount=money(1500))
    found = derived(refunded, Observation(F.DISPUTE_OPENED, "dp_1", money(1999)))
    assert (found.state.amount_refunded, found.state.amount_disputed, found.state.amount_excess) == (1500, 499, 1500)


def test_a_capture_under_way_reserves_what_is_held() -> None:
    terms = replace(TERMS, capture=CaptureMode.MANUAL)
    held = Fact(Observation(F.AUTHORIZED, "pi_1", Money(1999, "EUR")), FactSource.WEBHOOK, A_MOMENT)
    capture = an_operation(OperationKind.CAPTURE, OperationStatus.PENDING, call=CallState.SENT, amount=money(1500))
    state = derive(terms, [held], [capture]).state
    assert (state.amount_capture_pending, state.amount_capturable) == (1500, 499)


def test_a_renewed_hold_is_another_fact() -> None:
    hold = Observation(F.AUTHORIZED, "AUTH-1", money(), capture_before=A_MOMENT)
    assert hold.natural_key != replace(hold, capture_before=A_MOMENT.replace(day=9)).natural_key
