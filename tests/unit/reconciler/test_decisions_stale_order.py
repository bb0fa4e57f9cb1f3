"""RC9: the order knows an older state of its payment, and would become no worse by the newer one."""

from __future__ import annotations

from services.reconciler.domain.cases import Action, Scenario
from services.reconciler.domain.decisions import Knowledge, MoneyState, Role
from services.reconciler.domain.models import Standing
from tests.unit.reconciler.deciding import a_payment, an_order, as_known, judged, where


def test_what_an_order_was_not_told_is_told() -> None:
    assert where(Scenario.STALE_ORDER) == {
        (Role.KEEPER, MoneyState.TAKEN, Knowledge.NOTHING): Action.CONFIRM_ORDER,
        (Role.KEEPER, MoneyState.TAKEN, Knowledge.OLDER): Action.CONFIRM_ORDER,
        (Role.KEEPER, MoneyState.LEAVING, Knowledge.NOTHING): Action.CONFIRM_ORDER,
        (Role.KEEPER, MoneyState.LEAVING, Knowledge.OLDER): Action.CONFIRM_ORDER,
        (Role.KEEPER, MoneyState.BACK, Knowledge.NOTHING): Action.CONFIRM_ORDER,
        (Role.KEEPER, MoneyState.BACK, Knowledge.OLDER): Action.CONFIRM_ORDER,
        (Role.AWAITED, MoneyState.HELD, Knowledge.NOTHING): Action.CONFIRM_ORDER,
        (Role.AWAITED, MoneyState.HELD, Knowledge.OLDER): Action.CONFIRM_ORDER,
        (Role.AWAITED, MoneyState.BACK, Knowledge.OLDER): Action.CONFIRM_ORDER,
        (Role.AWAITED, MoneyState.COMING, Knowledge.OLDER): Action.CONFIRM_ORDER,
        (Role.AWAITED, MoneyState.NONE, Knowledge.OLDER): Action.CONFIRM_ORDER,
        (Role.AWAITED, MoneyState.UNCLEAR, Knowledge.OLDER): Action.CONFIRM_ORDER,
        (Role.BESIDE, MoneyState.BACK, Knowledge.OLDER): Action.CONFIRM_ORDER,
        (Role.BESIDE, MoneyState.COMING, Knowledge.OLDER): Action.CONFIRM_ORDER,
        (Role.BESIDE, MoneyState.NONE, Knowledge.OLDER): Action.CONFIRM_ORDER,
        (Role.BESIDE, MoneyState.UNCLEAR, Knowledge.OLDER): Action.CONFIRM_ORDER,
        (Role.LATE, MoneyState.BACK, Knowledge.OLDER): Action.CONFIRM_ORDER,
        (Role.LATE, MoneyState.COMING, Knowledge.OLDER): Action.CONFIRM_ORDER,
        (Role.LATE, MoneyState.NONE, Knowledge.OLDER): Action.CONFIRM_ORDER,
        (Role.LATE, MoneyState.UNCLEAR, Knowledge.OLDER): Action.CONFIRM_ORDER,
    }


def test_the_difference_is_what_the_order_believes_less_what_is_there() -> None:
    refunded = a_payment(standing=Standing(amount_authorized=1000, amount_captured=1000, amount_refunded=400))
    known = as_known(Knowledge.OLDER)
    verdict = judged(an_order(known, status="confirmed", confirmed_by="pay_1"), refunded)
    assert verdict is not None
    assert (verdict.expected_minor, verdict.actual_minor) == (0, 600)
