"""RC9: the payment succeeded, and its order was canceled or has expired."""

from __future__ import annotations

from services.reconciler.domain.cases import Action, Scenario
from services.reconciler.domain.decisions import Knowledge, MoneyState, Role
from services.reconciler.domain.models import Standing
from tests.unit.reconciler.deciding import VERSION, a_payment, an_order, as_known, judged, where


def test_the_order_decides_unless_it_gave_up() -> None:
    assert where(Scenario.LATE_PAYMENT) == {
        (Role.LATE, MoneyState.TAKEN, Knowledge.NOTHING): Action.CONFIRM_ORDER,
        (Role.LATE, MoneyState.TAKEN, Knowledge.OLDER): Action.CONFIRM_ORDER,
        (Role.LATE, MoneyState.TAKEN, Knowledge.UNDECIDED): Action.CONFIRM_ORDER,
        (Role.LATE, MoneyState.TAKEN, Knowledge.GAVE_UP): Action.REFUND,
        (Role.LATE, MoneyState.LEAVING, Knowledge.NOTHING): Action.CONFIRM_ORDER,
        (Role.LATE, MoneyState.LEAVING, Knowledge.OLDER): Action.CONFIRM_ORDER,
        (Role.LATE, MoneyState.LEAVING, Knowledge.GAVE_UP): None,
        (Role.LATE, MoneyState.HELD, Knowledge.NOTHING): Action.CONFIRM_ORDER,
        (Role.LATE, MoneyState.HELD, Knowledge.OLDER): Action.CONFIRM_ORDER,
        (Role.LATE, MoneyState.HELD, Knowledge.GAVE_UP): Action.REFUND,
    }


def test_a_refund_under_way_keeps_the_case_open_under_the_same_key() -> None:
    """RF18: were it settled by that, a refund that comes to nothing would be asked for anew, again and again."""
    order = an_order(as_known(Knowledge.GAVE_UP), status="expired")
    pending = a_payment(standing=Standing(amount_authorized=1000, amount_captured=1000, amount_refund_pending=1000))
    idle, waiting = judged(order, a_payment()), judged(order, pending)
    assert idle is not None
    assert waiting is not None
    assert idle.key("o", "p") == waiting.key("o", "p")
    gone = a_payment(standing=Standing(amount_authorized=1000, amount_captured=1000, amount_refunded=1000))
    assert judged(order, gone) is None


def test_tries_of_the_refund_are_no_new_disagreement() -> None:
    """The key of a command that moves money has no version in it: each try makes one."""
    known = as_known(Knowledge.GAVE_UP)
    assert known is not None
    verdict = judged(an_order(known, status="canceled"), a_payment(version=VERSION))
    assert verdict is not None
    assert verdict.version is None
