"""RC9: the order is confirmed by a payment that failed, or whose money is gone without a refund."""

from __future__ import annotations

from services.reconciler.domain.cases import Action, Scenario
from services.reconciler.domain.decisions import Knowledge, MoneyState, Role
from services.reconciler.domain.models import Standing
from services.reconciler.domain.schedule import PaymentStatus
from tests.unit.reconciler.deciding import VERSION, a_payment, an_order, as_known, judged, where


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
    """The order was read later than its payment and knows more: the next pull brings the newer one."""
    order = an_order(as_known(Knowledge.UNDECIDED), status="confirmed", confirmed_by="pay_1")
    older = a_payment(status=PaymentStatus.FAILED, standing=Standing(), version=VERSION - 1)
    assert judged(order, older) is None


def test_a_canceled_order_without_money_is_in_step() -> None:
    payment = a_payment(status=PaymentStatus.FAILED, standing=Standing())
    assert judged(an_order(as_known(Knowledge.UNDECIDED), status="canceled"), payment) is None
