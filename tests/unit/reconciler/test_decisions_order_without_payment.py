"""RC9: an order lives by a payment that payment_service does not know."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.reconciler.domain.cases import Action, Scenario
from services.reconciler.domain.decisions import Knowledge, MoneyState, decide
from tests.unit.reconciler.deciding import KNOWN, STATES, a_payment, an_order, as_known, judged


@pytest.mark.parametrize("known", [None, KNOWN[Knowledge.OLDER][1]])
def test_an_order_confirmed_by_nothing_is_canceled(known: object) -> None:
    order = an_order(known, status="confirmed", confirmed_by="pay_1", payment_status="paid")  # type: ignore[arg-type]
    verdict = judged(order, None)
    assert verdict is not None
    assert (verdict.scenario, verdict.action) == (Scenario.ORDER_WITHOUT_PAYMENT, Action.CANCEL_ORDER)
    assert (verdict.expected_minor, verdict.actual_minor) == (1000, 0)


@pytest.mark.parametrize("known", [KNOWN[Knowledge.OLDER][0], *KNOWN[Knowledge.UNDECIDED], *KNOWN[Knowledge.GAVE_UP]])
def test_a_payment_that_payment_service_itself_spoke_of_is_lost_data_and_cancels_nothing(known: object) -> None:
    order = an_order(known, status="confirmed", confirmed_by="pay_1", payment_status="paid")  # type: ignore[arg-type]
    verdict = judged(order, None)
    assert verdict is not None
    assert (verdict.scenario, verdict.action) == (Scenario.ORDER_WITHOUT_PAYMENT, None)
    assert (verdict.expected_minor, verdict.actual_minor) == (1000, 0)


@pytest.mark.parametrize("money", [MoneyState.TAKEN, MoneyState.HELD])
def test_an_order_that_another_payment_pays_for_is_not_canceled(money: MoneyState) -> None:
    order = an_order(None, status="confirmed", confirmed_by="pay_1", payment_status="paid")
    for status, standing in STATES[money]:
        other = a_payment(payment_id="pay_2", status=status, standing=standing)
        verdict = decide(order, None, payment_id="pay_1", settled_before=None, others=[other])
        assert verdict is not None
        assert (verdict.scenario, verdict.action) == (Scenario.ORDER_WITHOUT_PAYMENT, None)


def test_one_that_was_refunded_in_full_owes_nothing() -> None:
    order = an_order(None, status="confirmed", confirmed_by="pay_1", payment_status="refunded")
    assert judged(order, None) is None


@pytest.mark.parametrize("status", ["open", "canceled", "expired", "confirmed"])
def test_money_that_only_the_order_knows_is_a_persons_matter(status: str) -> None:
    order = an_order(as_known(Knowledge.UNDECIDED), status=status, confirmed_by="pay_0")
    verdict = judged(order, None)
    assert verdict is not None
    assert (verdict.scenario, verdict.action) == (Scenario.ORDER_WITHOUT_PAYMENT, None)
    assert (verdict.expected_minor, verdict.actual_minor) == (1000, 0)


@pytest.mark.parametrize("status", ["open", "canceled", "expired"])
def test_a_payment_that_never_came_to_be_is_no_matter(status: str) -> None:
    """The pay call was not answered, or refused: the order knows a payment without money, and nobody else any."""
    known = as_known(Knowledge.UNDECIDED)
    assert known is not None
    assert judged(an_order(replace(known, version=0, amount_captured=0), status=status), None) is None
    assert judged(an_order(None, status=status), None) is None
    assert judged(an_order(replace(known, amount_refunded=1000), status=status), None) is None
