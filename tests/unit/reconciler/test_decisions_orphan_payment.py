"""RC7: a payment with money, of an order that order_service does not know."""

from __future__ import annotations

import pytest

from services.reconciler.domain.cases import Action, Scenario
from services.reconciler.domain.decisions import MoneyState, OrphanPolicy
from services.reconciler.domain.models import Standing
from services.reconciler.domain.schedule import PaymentStatus
from tests.unit.reconciler.deciding import STATES, a_payment, judged


@pytest.mark.parametrize("money", [MoneyState.TAKEN, MoneyState.HELD])
def test_its_money_waits_for_a_person_or_goes_back_by_policy(money: MoneyState) -> None:
    for status, standing in STATES[money]:
        payment = a_payment(status=status, standing=standing)
        for policy, action in ((OrphanPolicy.CASE, None), (OrphanPolicy.REFUND, Action.REFUND)):
            verdict = judged(None, payment, orphan_policy=policy)
            assert verdict is not None
            assert (verdict.scenario, verdict.action) == (Scenario.ORPHAN_PAYMENT, action)


def test_what_is_on_its_way_back_is_not_refunded_again() -> None:
    for status, standing in STATES[MoneyState.LEAVING]:
        verdict = judged(None, a_payment(status=status, standing=standing), orphan_policy=OrphanPolicy.REFUND)
        assert verdict is not None
        assert (verdict.scenario, verdict.action) == (Scenario.ORPHAN_PAYMENT, None)


def test_what_the_gateway_disputes_is_held_whatever_the_policy() -> None:
    conflicted = a_payment(status=PaymentStatus.CONFLICTED, standing=Standing())
    verdict = judged(None, conflicted, orphan_policy=OrphanPolicy.REFUND)
    assert verdict is not None
    assert (verdict.scenario, verdict.action) == (Scenario.ORPHAN_PAYMENT, None)


@pytest.mark.parametrize("money", [MoneyState.BACK, MoneyState.COMING, MoneyState.NONE, MoneyState.UNCLEAR])
def test_without_money_it_is_nobodys_matter(money: MoneyState) -> None:
    for status, standing in STATES[money]:
        payment = a_payment(status=status, standing=standing)
        assert judged(None, payment, orphan_policy=OrphanPolicy.REFUND) is None
