"""RC9: the order is confirmed by a payment that failed, or whose money is gone without a refund."""

from __future__ import annotations

from datetime import timedelta

from services.reconciler.domain.cases import Action, Scenario
from services.reconciler.domain.decisions import Knowledge, MoneyState, Role, decide
from services.reconciler.domain.models import Standing
from services.reconciler.domain.schedule import PaymentStatus
from tests.support.clock import A_MOMENT
from tests.unit.reconciler.deciding import STATES, VERSION, a_payment, an_order, as_known, judged, where


def test_it_is_canceled_only_where_no_money_can_come_any_more() -> None:
    assert where(Scenario.UNPAID_ORDER) == {
        **{(Role.KEEPER, MoneyState.NONE, knowledge): Action.CANCEL_ORDER for knowledge in Knowledge},
        **{(Role.KEEPER, MoneyState.UNCLEAR, knowledge): Action.SYNC for knowledge in Knowledge},
        **{(Role.KEEPER, MoneyState.COMING, knowledge): Action.SYNC for knowledge in Knowledge},
        **{(Role.KEEPER, MoneyState.HELD, knowledge): Action.SYNC for knowledge in Knowledge},
    }


def test_what_is_missing_is_the_whole_order() -> None:
    payment = a_payment(status=PaymentStatus.FAILED, standing=Standing())
    verdict = judged(an_order(as_known(Knowledge.OLDER), status="confirmed", confirmed_by="pay_1"), payment)
    assert verdict is not None
    assert (verdict.expected_minor, verdict.actual_minor) == (1000, 0)


def test_an_older_copy_of_the_payment_cancels_nothing() -> None:
    """The order was read later than its payment and knows more: the next pull brings the newer one. Where it does not,
    payment_service was set back to an older moment, and a person has to look (PG13)."""
    order = an_order(as_known(Knowledge.UNDECIDED), status="confirmed", confirmed_by="pay_1")
    older = a_payment(status=PaymentStatus.FAILED, standing=Standing(), version=VERSION - 1)
    assert judged(order, older, settled_before=A_MOMENT - timedelta(seconds=1)) is None
    verdict = judged(order, older, settled_before=A_MOMENT)
    assert verdict is not None
    assert (verdict.scenario, verdict.action) == (Scenario.ROLLED_BACK, None)
    assert (verdict.expected_minor, verdict.actual_minor) == (1000, 0)
    assert verdict.key("ord_1", "pay_1") == f"rolled_back:ord_1:pay_1:v{VERSION}"


def test_it_is_not_canceled_while_another_payment_has_the_money_for_it() -> None:
    """Canceling would give that back too. One whose money is gone, or still to come, keeps nothing alive."""
    order = an_order(as_known(Knowledge.UNDECIDED), status="confirmed", confirmed_by="pay_1")
    payment = a_payment(status=PaymentStatus.FAILED, standing=Standing())
    found = {}
    for money, states in STATES.items():
        for status, standing in states:
            other = a_payment(payment_id="pay_2", status=status, standing=standing)
            verdict = decide(order, payment, payment_id="pay_1", settled_before=None, others=[other])
            assert verdict is not None
            assert verdict.key("ord_1", "pay_1") == "unpaid_order:ord_1:pay_1"
            found[money] = verdict.action
    assert {money for money, action in found.items() if action is None} == {MoneyState.TAKEN, MoneyState.HELD}
    assert set(found.values()) == {None, Action.CANCEL_ORDER}


def test_a_canceled_order_without_money_is_in_step() -> None:
    payment = a_payment(status=PaymentStatus.FAILED, standing=Standing())
    assert judged(an_order(as_known(Knowledge.UNDECIDED), status="canceled"), payment) is None
