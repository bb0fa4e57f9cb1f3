"""RC6, RC9: amount, currency or account are not the order's. It is held: nobody confirms, cancels or refunds by it."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from services.reconciler.domain.cases import Action, Scenario
from services.reconciler.domain.decisions import Knowledge, MoneyState, Role
from services.reconciler.domain.models import Standing
from services.reconciler.domain.schedule import PaymentStatus
from shared.money import Money
from tests.unit.reconciler.deciding import KNOWN, ROLES, STATES, a_payment, an_order, judged

DIFFERING: dict[str, dict[str, Any]] = {
    "conflicted": {"status": PaymentStatus.CONFLICTED, "standing": Standing(), "conflict": "amount"},
    "amount": {"amount": Money(999, "EUR")},
    "currency": {"amount": Money(1000, "USD")},
    "account": {"conflict": "account"},
    "held, and another amount": {
        "status": PaymentStatus.AUTHORIZED,
        "standing": Standing(amount_authorized=999),
        "amount": Money(999, "EUR"),
    },
    "more than was asked for": {"standing": Standing(amount_authorized=1001, amount_captured=1001)},
    "more went back than came": {
        "standing": Standing(amount_authorized=1000, amount_captured=1000, amount_refunded=1000),
        "amount_excess": 1,
    },
}


@pytest.mark.parametrize("differing", DIFFERING.values(), ids=DIFFERING)
def test_it_is_a_case_whatever_the_order_is_and_at_most_told(differing: dict[str, Any]) -> None:
    for role, knowledge in itertools.product(Role, Knowledge):
        for order, known in itertools.product(ROLES[role], KNOWN[knowledge]):
            verdict = judged(an_order(known, **order), a_payment(**differing))
            assert verdict is not None, (role, knowledge)
            untold = knowledge in (Knowledge.NOTHING, Knowledge.OLDER)
            action = Action.CONFIRM_ORDER if untold else None
            assert (verdict.scenario, verdict.action) == (Scenario.MISMATCHED_PAYMENT, action)


def test_amounts_of_two_currencies_have_no_difference() -> None:
    other = judged(an_order(), a_payment(amount=Money(1000, "USD")))
    less = judged(an_order(), a_payment(amount=Money(999, "EUR"), standing=Standing(amount_captured=999)))
    assert other is not None
    assert less is not None
    assert (other.expected_minor, other.actual_minor) == (None, None)
    assert (less.expected_minor, less.actual_minor) == (1000, 999)


@pytest.mark.parametrize("money", [MoneyState.COMING, MoneyState.NONE, MoneyState.UNCLEAR])
def test_where_no_money_is_no_amount_can_differ(money: MoneyState) -> None:
    for status, standing in STATES[money]:
        payment = a_payment(status=status, standing=standing, amount=Money(999, "EUR"))
        assert judged(an_order(KNOWN[Knowledge.UNDECIDED][0]), payment) is None


def test_a_part_that_was_captured_for_good_is_what_the_merchant_chose() -> None:
    part = a_payment(
        status=PaymentStatus.PARTIALLY_CAPTURED, standing=Standing(amount_authorized=600, amount_captured=600)
    )
    order = an_order(KNOWN[Knowledge.UNDECIDED][0], status="confirmed", confirmed_by="pay_1")
    assert judged(order, part) is None
