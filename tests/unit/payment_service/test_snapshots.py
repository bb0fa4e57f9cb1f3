"""What is exported of a payment ties to its totals, whatever was learnt and in whatever order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.payment_service.domain.models import AttemptStatus, Fact, FactKind, FactSource, Observation, Terms
from services.payment_service.domain.operations import CallState, Operation, OperationKind, OperationStatus, Origin
from services.payment_service.domain.snapshots import (
    MOVING_KINDS,
    Movement,
    MovementKind,
    PaymentSnapshot,
    SentAttempt,
    movements,
    references,
    unknown_since,
)
from services.payment_service.domain.transitions import derive
from services.payment_service.use_cases.export_payments import payment_document
from shared.contracts.exports import ExportedPayment
from shared.money import Money
from tests.support.clock import A_MOMENT
from tests.unit.payment_service.builders import an_operation
from tests.unit.payment_service.test_reducer import all_terms, any_facts, some_operations

LATER = A_MOMENT + timedelta(minutes=5)
ATTEMPT = SentAttempt("ATTEMPT0000000000001", "cs_1", AttemptStatus.OPEN, A_MOMENT)


def a_snapshot(facts: Sequence[Fact] = (), operations: Sequence[Operation] = (), **changes: Any) -> PaymentSnapshot:
    values: dict[str, Any] = {
        "payment_id": "pay_1",
        "order_id": "ord_1",
        "gateway": "stripe",
        "account": None,
        "status": "captured",
        "version": 3,
        "amount_minor": 1999,
        "currency": "EUR",
        "totals": {"amount_captured": 1999},
        "session_unknown": False,
        "has_unknown_operation": False,
        "conflict": None,
        "duplicate_of": None,
        "gateway_reference": "cs_1",
        "created_at": A_MOMENT,
        "updated_at": LATER,
        "facts": facts,
        "operations": operations,
        "attempts": (ATTEMPT,),
        "references": ("cs_1", "pi_1"),
    }
    return PaymentSnapshot(**(values | changes))


def fact(kind: FactKind, reference: str, amount: int | None = None, currency: str = "EUR", **more: Any) -> Fact:
    money = Money(amount, currency) if amount is not None else None
    return Fact(Observation(kind, reference, money, **more), FactSource.WEBHOOK, A_MOMENT)


def told(*facts: Fact, operations: Sequence[Operation] = ()) -> list[tuple[str, str, str | None, int]]:
    moved = movements(a_snapshot(facts, operations))
    return [(each.kind.value, each.reference, each.our_reference, each.amount_minor) for each in moved]


def total(moved: Sequence[Movement], kind: MovementKind) -> int:
    return sum(movement.amount_minor for movement in moved if movement.kind is kind)


def with_imports(terms: Terms, facts: Sequence[Fact], operations: Sequence[Operation]) -> list[Operation]:
    """The operations as they are stored: settled, and with a row for each refund made at the gateway."""
    derived = derive(terms, facts, operations)
    imported = [
        an_operation(
            OperationKind.REFUND,
            claim.status,
            operation_id=f"imp_{number}",
            reference=f"IMPORTED000000000{number}",
            amount=Money(claim.amount_minor, claim.currency),
            origin=Origin.GATEWAY,
            call=CallState.ANSWERED,
            gateway_reference=claim.object_reference,
        )
        for number, claim in enumerate(derived.imported)
        if claim.currency is not None and claim.amount_minor > 0
    ]
    return list(derive(terms, facts, [*derived.operations, *imported]).operations)


@given(any_facts, some_operations(), all_terms, st.booleans())
def test_movements_tie_to_the_totals(
    facts: list[Fact], operations: list[Operation], terms: Terms, are_imported: bool
) -> None:
    stored = (
        with_imports(terms, facts, operations) if are_imported else list(derive(terms, facts, operations).operations)
    )
    state = derive(terms, facts, stored).state
    moved = movements(a_snapshot([each for each in facts if each.observation.kind in MOVING_KINDS], stored))
    assert total(moved, MovementKind.SALE) == state.amount_captured
    refunded, lost = total(moved, MovementKind.REFUND), total(moved, MovementKind.CHARGEBACK)
    if state.amount_excess == 0:
        assert (refunded, lost) == (state.amount_refunded, state.amount_dispute_lost)
    assert refunded >= state.amount_refunded
    assert lost >= state.amount_dispute_lost
    assert refunded + lost <= state.amount_refunded + state.amount_disputed + state.amount_excess


@given(any_facts, some_operations(), all_terms, st.data())
def test_movements_are_positive_named_once_and_in_no_order_of_arrival(
    facts: list[Fact], operations: list[Operation], terms: Terms, data: st.DataObject
) -> None:
    stored = with_imports(terms, facts, operations)
    moved = movements(a_snapshot(facts, stored))
    assert all(movement.amount_minor > 0 for movement in moved)
    assert len({(movement.kind, movement.reference) for movement in moved}) == len(moved)
    assert movements(a_snapshot(data.draw(st.permutations(facts)), stored)) == moved
    document = ExportedPayment.model_validate(payment_document(a_snapshot(facts, stored)))
    assert [(m.kind, m.reference, m.amount_minor) for m in document.movements] == [
        (m.kind, m.reference, m.amount_minor) for m in moved
    ]


CAPTURED = fact(FactKind.CAPTURED, "pi_1", 1999)


def test_an_automatic_capture_is_known_by_its_attempt() -> None:
    assert told(CAPTURED) == [("sale", "pi_1", ATTEMPT.reference, 1999)]


def test_a_capture_of_ours_is_known_by_its_operation() -> None:
    capture = an_operation(OperationKind.CAPTURE, gateway_reference="pi_1")
    assert told(CAPTURED, operations=[capture]) == [("sale", "pi_1", capture.reference, 1999)]


def test_cumulative_facts_of_one_object_count_once_and_two_objects_are_two() -> None:
    facts = [fact(FactKind.CAPTURED, "pi_1", amount) for amount in (500, 1200, 700)]
    moved = told(*facts, fact(FactKind.CAPTURED, "pi_2", 300))
    assert [(reference, amount) for _, reference, _, amount in moved] == [("pi_1", 1200), ("pi_2", 300)]


@pytest.mark.parametrize(("taken_back", "left"), [(1999, []), (999, [1000]), (5000, [])])
def test_a_capture_that_was_reversed_is_no_movement(taken_back: int, left: list[int]) -> None:
    moved = told(CAPTURED, fact(FactKind.CAPTURE_REVERSED, "pi_1", taken_back))
    assert [amount for *_, amount in moved] == left


def test_money_in_another_currency_did_not_move_by_our_books() -> None:
    assert told(fact(FactKind.CAPTURED, "pi_1", 1999, "USD"), fact(FactKind.REFUND_SUCCEEDED, "re_1", 5, "USD")) == []


def test_refunds_are_named_by_the_gateway_and_the_dashboards_have_no_name_of_ours() -> None:
    ours = an_operation(gateway_reference="re_1")
    nameless = an_operation(operation_id="ref_2", reference="OURREFERENCE00000002")
    imported = an_operation(
        operation_id="ref_3", reference="NEVERSENT00000000003", origin=Origin.GATEWAY, gateway_reference="re_3"
    )
    moved = told(
        CAPTURED,
        fact(FactKind.REFUND_SUCCEEDED, "re_1", 500, operation=ours.reference),
        fact(FactKind.REFUND_SUCCEEDED, "re_3", 300),
        fact(FactKind.REFUND_SUCCEEDED, "re_4", 200),  # not imported yet: it may be ours
        operations=[ours, nameless, imported],
    )
    assert {each for each in moved if each[0] == "refund"} == {
        ("refund", "re_1", ours.reference, 500),
        ("refund", nameless.reference, nameless.reference, 500),
        ("refund", "re_3", None, 300),
        ("refund", "re_4", None, 200),
    }


@pytest.mark.parametrize("status", [s for s in OperationStatus if s is not OperationStatus.SUCCEEDED])
def test_a_refund_that_did_not_succeed_is_no_movement(status: OperationStatus) -> None:
    assert [kind for kind, *_ in told(CAPTURED, operations=[an_operation(status=status)])] == ["sale"]


def test_refunds_without_ids_of_their_own_add_up_under_the_one_they_have() -> None:
    two = [an_operation(operation_id=f"ref_{n}", reference=f"REF{n}", gateway_reference="pi_1") for n in (1, 2)]
    assert ("refund", "pi_1", None, 1000) in told(CAPTURED, operations=two)


def test_only_a_lost_dispute_is_a_chargeback() -> None:
    opened = [fact(FactKind.DISPUTE_OPENED, f"dp_{n}", 100 * n) for n in (1, 2, 3)]
    moved = told(CAPTURED, *opened, fact(FactKind.DISPUTE_LOST, "dp_2", 150), fact(FactKind.DISPUTE_WON, "dp_3"))
    assert [each for each in moved if each[0] == "chargeback"] == [("chargeback", "dp_2", None, 150)]


def test_a_movement_happened_when_the_gateway_says_so() -> None:
    early, late = A_MOMENT - timedelta(days=2), A_MOMENT - timedelta(days=1)
    (sale,) = movements(
        a_snapshot(
            [
                fact(FactKind.CAPTURED, "pi_1", 500, occurred_at=early),
                fact(FactKind.CAPTURED, "pi_1", 1999, occurred_at=late),
                CAPTURED,  # the same, as the sweep learnt it later and without a time
            ]
        )
    )
    assert sale.occurred_at == late
    (refund,) = movements(a_snapshot([fact(FactKind.REFUND_SUCCEEDED, "re_1", 5, occurred_at=early)]))
    assert refund.occurred_at == early
    (lost,) = movements(a_snapshot([fact(FactKind.DISPUTE_LOST, "dp_1", 5, occurred_at=late)]))
    assert lost.occurred_at == late
    (open_one,) = movements(a_snapshot([fact(FactKind.DISPUTE_OPENED, "dp_1", 5, occurred_at=early)]))
    assert (open_one.kind, open_one.occurred_at) == (MovementKind.WITHHELD, early)
    won = [fact(kind, "dp_1", 5, occurred_at=early) for kind in (FactKind.DISPUTE_OPENED, FactKind.DISPUTE_WON)]
    assert movements(a_snapshot(won)) == ()


def test_a_reference_beyond_the_contract_does_not_break_the_reader() -> None:
    moved = movements(a_snapshot([fact(FactKind.CAPTURED, "x" * 400, 1999)]))
    assert [len(movement.reference) for movement in moved] == [255]


def test_references_are_all_names_at_the_gateway_once() -> None:
    ours = an_operation(gateway_reference="re_1")
    imported = replace(
        ours, operation_id="ref_2", reference="NEVERSENT", origin=Origin.GATEWAY, gateway_reference="re_2"
    )
    snapshot = a_snapshot([CAPTURED, fact(FactKind.DISPUTE_LOST, "dp_1", 10)], [ours, imported])
    found = references(snapshot, movements(snapshot))
    assert found == ["cs_1", "pi_1", ATTEMPT.reference, ours.reference, "re_1", "re_2", "dp_1"]


def test_an_outcome_is_unknown_since_the_oldest_call_without_an_answer() -> None:
    unknown = an_operation(status=OperationStatus.UNKNOWN, first_sent_at=LATER)
    older = replace(unknown, first_sent_at=LATER - timedelta(minutes=2))
    answered = an_operation(first_sent_at=A_MOMENT - timedelta(days=1))
    assert unknown_since(a_snapshot(operations=[answered])) is None
    assert unknown_since(a_snapshot(operations=[answered, unknown, older], has_unknown_operation=True)) == (
        older.first_sent_at
    )
    sent = replace(ATTEMPT, status=AttemptStatus.UNKNOWN, created_at=A_MOMENT - timedelta(minutes=1))
    opened = replace(ATTEMPT, created_at=A_MOMENT - timedelta(days=3))
    session = a_snapshot(operations=[older], attempts=(opened, sent), has_unknown_operation=True, session_unknown=True)
    assert unknown_since(session) == sent.created_at
