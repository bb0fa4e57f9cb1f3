"""RC9: the payment succeeded, and its open order does not know it, or did nothing about it."""

from __future__ import annotations

from services.reconciler.domain.cases import Action, Scenario
from services.reconciler.domain.decisions import Knowledge, MoneyState, Role
from tests.unit.reconciler.deciding import VERSION, a_payment, an_order, as_known, judged, where


def test_money_that_an_open_order_was_not_told_of_is_told() -> None:
    assert where(Scenario.UNCONFIRMED_ORDER) == {
        (Role.AWAITED, MoneyState.TAKEN, Knowledge.NOTHING): Action.CONFIRM_ORDER,
        (Role.AWAITED, MoneyState.TAKEN, Knowledge.OLDER): Action.CONFIRM_ORDER,
        (Role.AWAITED, MoneyState.TAKEN, Knowledge.UNDECIDED): Action.CONFIRM_ORDER,
        (Role.AWAITED, MoneyState.TAKEN, Knowledge.GAVE_UP): Action.REFUND,
        (Role.AWAITED, MoneyState.LEAVING, Knowledge.NOTHING): Action.CONFIRM_ORDER,
        (Role.AWAITED, MoneyState.LEAVING, Knowledge.OLDER): Action.CONFIRM_ORDER,
        (Role.AWAITED, MoneyState.LEAVING, Knowledge.GAVE_UP): None,
    }


def test_the_difference_is_the_money_that_the_order_does_not_have() -> None:
    verdict = judged(an_order(), a_payment())
    assert verdict is not None
    assert (verdict.expected_minor, verdict.actual_minor) == (0, 1000)


def test_a_version_that_was_not_told_is_a_disagreement_of_its_own() -> None:
    """Its command carries that version: a later one needs another command."""
    first = judged(an_order(as_known(Knowledge.OLDER)), a_payment())
    later = judged(an_order(as_known(Knowledge.OLDER)), a_payment(version=VERSION + 1))
    undecided = judged(an_order(as_known(Knowledge.UNDECIDED)), a_payment())
    assert first is not None
    assert later is not None
    assert undecided is not None
    keys = [each.key("ord_1", "pay_1") for each in (first, later, undecided)]
    assert keys == [
        "unconfirmed_order:ord_1:pay_1:v5",
        "unconfirmed_order:ord_1:pay_1:v6",
        "unconfirmed_order:ord_1:pay_1",
    ]
