"""When a confirmation is given up, and that an order which lost it stays canceled whatever comes later (RC9)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from services.order_service.domain.late_money import asks_the_shelf, decide
from services.order_service.domain.models import (
    Order,
    OrderPayment,
    OrderPaymentStatus,
    OrderStatus,
    PaymentStatus,
    Resolution,
)
from services.order_service.domain.revocation import KeptBecause, kept_because, revoked, without_its_order
from services.order_service.domain.transitions import Consequence, OrderState, consequences, derive, state_of
from tests.unit.order_service.test_transitions import NOW, a_payment, an_order

P, S, K = PaymentStatus, OrderStatus, KeptBecause


def changed(payment: OrderPayment, **totals: Any) -> OrderPayment:
    return replace(payment, snapshot=replace(payment.snapshot, **totals))


def a_confirmed_order() -> Order:
    return an_order(confirmed_by="pay_1")


def a_revoked_order() -> Order:
    order = revoked(a_confirmed_order(), now=NOW)
    after = derive(order, [a_payment(1, P.FAILED)])
    return replace(order, status=after.status, payment_status=after.payment_status, attention=after.attention)


@pytest.mark.parametrize(
    ("payment", "expected"),
    [
        (a_payment(1, P.FAILED), None),
        (a_payment(1, P.CANCELED), None),
        (a_payment(1, P.EXPIRED), None),
        (a_payment(1, P.CAPTURED, captured=0), None),
        (a_payment(1, P.FAILED, captured=3900, refunded=3900), None),
        (a_payment(1, P.CREATED), K.MONEY_MAY_COME),
        (a_payment(1, P.REQUIRES_ACTION), K.MONEY_MAY_COME),
        (a_payment(1, P.PROCESSING), K.MONEY_MAY_COME),
        (a_payment(1, P.FAILED, outcome_unknown=True), K.MONEY_MAY_COME),
        (a_payment(1, P.AUTHORIZED), K.MONEY_IS_THERE),
        (a_payment(1, P.PARTIALLY_CAPTURED, captured=100), K.MONEY_IS_THERE),
        (a_payment(1, P.CONFLICTED), K.MONEY_IS_THERE),
        (a_payment(1, P.CAPTURED), K.MONEY_IS_THERE),
        (a_payment(1, P.CAPTURED, refunded=3899), K.MONEY_IS_THERE),
        (a_payment(1, P.FAILED, captured=3900), K.MONEY_IS_THERE),
        (a_payment(1, P.FAILED, disputed=3900), K.MONEY_IS_THERE),
        (changed(a_payment(1, P.FAILED), amount_excess=1), K.MONEY_IS_THERE),
        (a_payment(1, P.CAPTURED, refunded=3900), K.REFUNDED),
    ],
)
def test_the_table(payment: OrderPayment, expected: KeptBecause | None) -> None:
    assert kept_because(a_confirmed_order(), [payment], "pay_1", is_absent=False) is expected
    assert kept_because(a_confirmed_order(), [payment], "pay_1", is_absent=True) is K.LOST_BY_ITS_OWNER


def test_only_a_payment_that_was_never_spoken_of_is_absent() -> None:
    """Its absence contradicts nothing then. Once told of, in whatever state, it is lost data."""
    opened = changed(a_payment(1, P.CREATED), version=0)
    assert kept_because(a_confirmed_order(), [opened], "pay_1", is_absent=True) is None
    told = changed(opened, version=1)
    assert kept_because(a_confirmed_order(), [told], "pay_1", is_absent=True) is K.LOST_BY_ITS_OWNER


@pytest.mark.parametrize(
    ("other", "is_kept"),
    [
        (a_payment(2, P.CAPTURED), True),
        (a_payment(2, P.CAPTURED, refunded=3899), True),
        (a_payment(2, P.AUTHORIZED), True),
        (a_payment(2, P.PARTIALLY_CAPTURED, captured=100), True),
        (a_payment(2, P.CAPTURED, refunded=3900), False),
        (a_payment(2, P.CAPTURED, disputed=3900), False),
        (changed(a_payment(2, P.CAPTURED), amount_refund_pending=3900), False),
        (a_payment(2, P.REQUIRES_ACTION), False),
        (a_payment(2, P.FAILED), False),
    ],
)
@pytest.mark.parametrize("is_absent", [True, False])
def test_an_order_that_another_payment_may_pay_is_kept(other: OrderPayment, is_kept: bool, is_absent: bool) -> None:
    """PY4: canceled, it would give back money that pays it."""
    keeper = changed(a_payment(1, P.CREATED), version=0) if is_absent else a_payment(1, P.FAILED)
    kept = kept_because(a_confirmed_order(), [keeper, other], "pay_1", is_absent=is_absent)
    assert kept is (K.OTHER_MONEY if is_kept else None)


@pytest.mark.parametrize("is_absent", [True, False])
@pytest.mark.parametrize(
    "order",
    [an_order(), an_order(confirmed_by="pay_2"), an_order(closed_as=S.CANCELED), an_order(closed_as=S.EXPIRED)],
)
def test_only_what_exactly_this_payment_confirmed_is_revoked(order: Order, is_absent: bool) -> None:
    payments = [a_payment(1, P.FAILED), a_payment(2, P.FAILED)]
    assert kept_because(order, payments, "pay_1", is_absent=is_absent) is K.NOT_CONFIRMED_BY_IT
    assert kept_because(a_confirmed_order(), [], "pay_1", is_absent=is_absent) is K.NOT_CONFIRMED_BY_IT
    assert kept_because(a_revoked_order(), payments, "pay_1", is_absent=is_absent) is K.NOT_CONFIRMED_BY_IT


def test_revoking_cancels_and_clears_what_the_payment_had_flagged() -> None:
    order, payments = a_confirmed_order(), [a_payment(1, P.FAILED)]
    before = derive(order, payments)
    after = derive(revoked(order, now=NOW), payments)
    assert before.attention is not None
    assert (after.status, after.payment_status) == (S.CANCELED, OrderPaymentStatus.FAILED)
    assert (after.attention, after.confirmed_by, after.was_revoked) == (None, None, True)
    assert consequences(before, after) == (Consequence.REVOKED,)


@pytest.mark.parametrize("after_status", [S.OPEN, S.EXPIRED, S.CANCELED])
def test_an_order_leaves_confirmed_in_no_other_way(after_status: OrderStatus) -> None:
    before = state_of(a_confirmed_order())
    after = OrderState(after_status, OrderPaymentStatus.UNPAID, None, None)
    with pytest.raises(AssertionError):
        consequences(before, after)
    if after_status is not S.CANCELED:
        with pytest.raises(AssertionError):
            consequences(before, replace(after, was_revoked=True))


def test_a_revoked_order_is_never_confirmed_again() -> None:
    before = state_of(a_revoked_order())
    with pytest.raises(AssertionError):
        consequences(before, replace(before, status=S.CONFIRMED))


@pytest.mark.parametrize("number", [1, 2])
def test_money_for_a_revoked_order_goes_back_even_where_it_could_be_fulfilled(number: int) -> None:
    order, payment = a_revoked_order(), a_payment(number, P.CAPTURED)
    payments = [payment] if number == 1 else [a_payment(1, P.FAILED), payment]
    assert derive(order, payments).status is S.CANCELED
    assert not asks_the_shelf(order, payments)
    (decision,) = decide(order, payments, confirmed_by=None, fulfillable=True, now=NOW)
    assert (decision.payment_id, decision.resolution) == (payment.payment_id, Resolution.REFUND_REQUESTED)
    assert decision.command_key == f"{payment.payment_id}:order_canceled"


def test_held_funds_for_a_revoked_order_are_released_at_once() -> None:
    held = changed(a_payment(1, P.AUTHORIZED), amount_authorized=3900)
    (decision,) = decide(a_revoked_order(), [held], confirmed_by=None, fulfillable=True, now=NOW)
    assert (decision.resolution, decision.reason) == (Resolution.RELEASE_REQUESTED, "order_canceled")


@pytest.mark.parametrize("is_absent", [True, False])
def test_what_its_payment_was_to_the_order_is_over(is_absent: bool) -> None:
    payment = replace(a_payment(1, P.FAILED, captured=3900, refunded=3900), resolution=Resolution.FULFILLED)
    after = without_its_order(payment, is_absent=is_absent, now=NOW)
    assert after.resolution is None
    if is_absent:
        assert after.snapshot == replace(payment.snapshot, status=P.CANCELED), "no proof of money is wiped out"
    else:
        assert after.snapshot == payment.snapshot
