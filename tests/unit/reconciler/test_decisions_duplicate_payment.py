"""RC9: another payment confirmed the order, and this one has money too."""

from __future__ import annotations

from services.reconciler.domain.cases import Action, Scenario
from services.reconciler.domain.decisions import Knowledge, MoneyState, Role
from tests.unit.reconciler.deciding import where


def test_the_second_payment_goes_back_once_the_order_knows_of_it() -> None:
    assert where(Scenario.DUPLICATE_PAYMENT) == {
        (Role.BESIDE, MoneyState.TAKEN, Knowledge.NOTHING): Action.CONFIRM_ORDER,
        (Role.BESIDE, MoneyState.TAKEN, Knowledge.OLDER): Action.CONFIRM_ORDER,
        (Role.BESIDE, MoneyState.TAKEN, Knowledge.UNDECIDED): Action.CONFIRM_ORDER,
        (Role.BESIDE, MoneyState.TAKEN, Knowledge.GAVE_UP): Action.REFUND,
        (Role.BESIDE, MoneyState.LEAVING, Knowledge.NOTHING): Action.CONFIRM_ORDER,
        (Role.BESIDE, MoneyState.LEAVING, Knowledge.OLDER): Action.CONFIRM_ORDER,
        (Role.BESIDE, MoneyState.LEAVING, Knowledge.GAVE_UP): None,
        (Role.BESIDE, MoneyState.HELD, Knowledge.NOTHING): Action.CONFIRM_ORDER,
        (Role.BESIDE, MoneyState.HELD, Knowledge.OLDER): Action.CONFIRM_ORDER,
        (Role.BESIDE, MoneyState.HELD, Knowledge.UNDECIDED): Action.CONFIRM_ORDER,
        (Role.BESIDE, MoneyState.HELD, Knowledge.GAVE_UP): Action.REFUND,
    }
