"""What is no disagreement: both failed, paid and succeeded, money on its way back, whatever is too young to tell."""

from __future__ import annotations

from datetime import timedelta

import pytest

from services.reconciler.domain.decisions import Knowledge, MoneyState, Role
from tests.support.clock import A_MOMENT
from tests.unit.reconciler.deciding import a_payment, an_order, as_known, judged, where

UNTOLD = (Knowledge.NOTHING, Knowledge.OLDER)
TOLD = (Knowledge.UNDECIDED, Knowledge.ACTING, Knowledge.GAVE_UP)
WITHOUT_MONEY = (MoneyState.COMING, MoneyState.NONE, MoneyState.UNCLEAR)


def test_every_other_combination_is_in_step() -> None:
    closed_or_beside = (Role.BESIDE, Role.LATE)
    assert set(where(None)) == {
        # A payment that has no money (any more) and of which the order knows all, or never heard.
        *(
            (role, money, told)
            for role in (Role.AWAITED, *closed_or_beside)
            for money in WITHOUT_MONEY
            for told in TOLD
        ),
        *((role, money, Knowledge.NOTHING) for role in (Role.AWAITED, *closed_or_beside) for money in WITHOUT_MONEY),
        *((role, MoneyState.BACK, told) for role in Role for told in TOLD),
        *((role, MoneyState.BACK, Knowledge.NOTHING) for role in (Role.AWAITED, *closed_or_beside)),
        # Paid and succeeded.
        *((Role.KEEPER, MoneyState.TAKEN, told) for told in TOLD),
        *((Role.KEEPER, MoneyState.LEAVING, told) for told in TOLD),
        # All of it is on its way back, by whoever asked for that.
        *((role, MoneyState.LEAVING, Knowledge.UNDECIDED) for role in (Role.AWAITED, *closed_or_beside)),
        *((role, MoneyState.LEAVING, Knowledge.ACTING) for role in (Role.AWAITED, *closed_or_beside)),
        # Funds that wait for their capture.
        *((Role.AWAITED, MoneyState.HELD, told) for told in TOLD),
        (Role.LATE, MoneyState.HELD, Knowledge.UNDECIDED),
        # The order is about it.
        *((role, MoneyState.TAKEN, Knowledge.ACTING) for role in (Role.AWAITED, *closed_or_beside)),
        *((role, MoneyState.HELD, Knowledge.ACTING) for role in closed_or_beside),
    }


@pytest.mark.parametrize("younger", ["order", "payment", "both"])
def test_what_changed_within_the_grace_is_not_judged(younger: str) -> None:
    just_now = A_MOMENT + timedelta(minutes=30)
    order = an_order(updated_at=just_now if younger != "payment" else A_MOMENT)
    payment = a_payment(updated_at=just_now if younger != "order" else A_MOMENT)
    assert judged(order, payment, settled_before=just_now - timedelta(microseconds=1)) is None
    assert judged(order, payment, settled_before=just_now) is not None
    assert judged(order, payment) is not None, "without a grace it is judged whatever its age"


def test_two_payments_that_nobody_knows_are_nothing() -> None:
    assert judged(None, None) is None


def test_what_one_side_alone_says_has_its_grace_too() -> None:
    before = A_MOMENT - timedelta(minutes=1)
    assert judged(None, a_payment(), settled_before=before) is None
    order = an_order(as_known(Knowledge.UNDECIDED), status="confirmed", confirmed_by="pay_1")
    assert judged(order, None, settled_before=before) is None
    assert judged(order, None, settled_before=A_MOMENT) is not None
