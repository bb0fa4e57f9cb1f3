"""What an order is follows from its facts and its payments' newest states, in whatever order the news came."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.order_service.domain.models import (
    Attention,
    Customer,
    LineItem,
    Order,
    OrderPayment,
    OrderPaymentStatus,
    OrderStatus,
    PaymentSnapshot,
    PaymentStatus,
)
from services.order_service.domain.transitions import (
    STANDING,
    Consequence,
    consequences,
    derive,
    may_end_without_money,
    state_of,
)
from shared.money import Money

NOW = datetime(2026, 1, 2, tzinfo=UTC)
TOTAL = Money(3900, "EUR")
P, PS, S, A = PaymentStatus, OrderPaymentStatus, OrderStatus, Attention


def an_order(*, closed_as: OrderStatus | None = None, confirmed_by: str | None = None) -> Order:
    status = closed_as or (OrderStatus.CONFIRMED if confirmed_by else OrderStatus.OPEN)
    return Order(
        id="ord_1",
        total=TOTAL,
        items=(LineItem("moka-pot", "Moka Pot", 1, TOTAL),),
        customer=Customer("ada@example.com", "Ada"),
        customer_subject=None,
        secret_digest=bytes(32),
        expires_at=NOW + timedelta(minutes=30),
        created_at=NOW,
        updated_at=NOW,
        closed_as=closed_as,
        confirmed_by=confirmed_by,
        status=status,
    )


def a_payment(
    number: int,
    status: PaymentStatus,
    *,
    captured: int | None = None,
    currency: str = "EUR",
    refunded: int = 0,
    disputed: int = 0,
    outcome_unknown: bool = False,
) -> OrderPayment:
    taken = TOTAL.amount_minor if status is P.CAPTURED else 0
    snapshot = PaymentSnapshot(
        payment_id=f"pay_{number}",
        order_id="ord_1",
        gateway="stripe",
        status=status,
        version=3,
        amount=Money(TOTAL.amount_minor, currency),
        amount_captured=taken if captured is None else captured,
        amount_refunded=refunded,
        amount_disputed=disputed,
        outcome_unknown=outcome_unknown,
    )
    return OrderPayment(snapshot, None, NOW, NOW)


@pytest.mark.parametrize(
    ("payments", "expected"),
    [
        ([], (S.OPEN, PS.UNPAID, None)),
        ([P.CREATED], (S.OPEN, PS.UNPAID, None)),
        ([P.REQUIRES_ACTION], (S.OPEN, PS.PENDING, None)),
        ([P.PROCESSING], (S.OPEN, PS.PENDING, None)),
        ([P.AUTHORIZED], (S.OPEN, PS.AUTHORIZED, None)),
        ([P.PARTIALLY_CAPTURED], (S.OPEN, PS.AUTHORIZED, None)),
        ([P.CAPTURED], (S.CONFIRMED, PS.PAID, None)),
        ([P.FAILED], (S.OPEN, PS.FAILED, None)),
        ([P.CANCELED], (S.OPEN, PS.UNPAID, None)),
        ([P.EXPIRED], (S.OPEN, PS.UNPAID, None)),
        ([P.CONFLICTED], (S.OPEN, PS.PENDING, A.AMOUNT_MISMATCH)),
        ([P.FAILED, P.CAPTURED], (S.CONFIRMED, PS.PAID, None)),
        ([P.FAILED, P.REQUIRES_ACTION], (S.OPEN, PS.PENDING, None)),
        ([P.CANCELED, P.FAILED], (S.OPEN, PS.FAILED, None)),
        ([P.CAPTURED, P.CAPTURED], (S.CONFIRMED, PS.PAID, A.DUPLICATE_PAYMENT)),
        ([P.CAPTURED, P.AUTHORIZED], (S.CONFIRMED, PS.PAID, A.DUPLICATE_PAYMENT)),
        ([P.CAPTURED, P.CONFLICTED], (S.CONFIRMED, PS.PAID, A.AMOUNT_MISMATCH)),
    ],
)
def test_the_state_of_an_open_order(payments: list[PaymentStatus], expected: tuple[object, ...]) -> None:
    state = derive(an_order(), [a_payment(number, status) for number, status in enumerate(payments)])
    assert (state.status, state.payment_status, state.attention) == expected


@pytest.mark.parametrize("closed_as", [S.CANCELED, S.EXPIRED])
@pytest.mark.parametrize(("status", "payment_status"), [(P.CAPTURED, PS.PAID), (P.AUTHORIZED, PS.AUTHORIZED)])
def test_money_for_an_ended_order_is_flagged_and_does_not_reopen_it(
    closed_as: OrderStatus, status: PaymentStatus, payment_status: OrderPaymentStatus
) -> None:
    state = derive(an_order(closed_as=closed_as), [a_payment(1, status)])
    assert (state.status, state.payment_status, state.attention) == (closed_as, payment_status, A.LATE_PAYMENT)


def test_late_money_that_went_back_needs_no_attention_any_more() -> None:
    state = derive(an_order(closed_as=S.EXPIRED), [a_payment(1, P.CAPTURED, refunded=3900)])
    assert (state.status, state.payment_status, state.attention) == (S.EXPIRED, PS.REFUNDED, None)


@pytest.mark.parametrize(
    "payment",
    [
        a_payment(1, P.CAPTURED, captured=0),
        a_payment(1, P.CAPTURED, currency="USD"),
        a_payment(1, P.CAPTURED, currency="KWD"),
    ],
)
def test_only_money_for_the_total_in_the_orders_currency_pays(payment: OrderPayment) -> None:
    state = derive(an_order(), [payment])
    assert (state.status, state.payment_status, state.attention) == (S.OPEN, PS.PENDING, A.AMOUNT_MISMATCH)


@pytest.mark.parametrize("captured", [3899, 3901])
def test_an_amount_that_the_payment_service_accepts_within_its_tolerance_pays_and_is_flagged(captured: int) -> None:
    state = derive(an_order(), [a_payment(1, P.CAPTURED, captured=captured)])
    assert (state.status, state.payment_status, state.attention) == (S.CONFIRMED, PS.PAID, A.AMOUNT_MISMATCH)


@pytest.mark.parametrize(
    ("totals", "expected"),
    [
        ({"refunded": 1}, PS.PARTIALLY_REFUNDED),
        ({"refunded": 3900}, PS.REFUNDED),
        ({"disputed": 3900}, PS.DISPUTED),
        ({"refunded": 100, "disputed": 100}, PS.DISPUTED),
    ],
)
def test_refunds_and_disputes_of_a_paid_order_show(totals: dict[str, Any], expected: OrderPaymentStatus) -> None:
    state = derive(an_order(confirmed_by="pay_1"), [a_payment(1, P.CAPTURED, **totals)])
    assert (state.status, state.payment_status) == (S.CONFIRMED, expected)


def test_the_payment_that_confirmed_the_order_keeps_it() -> None:
    state = derive(an_order(confirmed_by="pay_2"), [a_payment(1, P.CAPTURED), a_payment(2, P.CAPTURED, refunded=100)])
    assert (state.confirmed_by, state.payment_status) == ("pay_2", PS.PARTIALLY_REFUNDED)
    assert state.attention is A.DUPLICATE_PAYMENT


def test_a_duplicate_that_was_refunded_is_settled() -> None:
    state = derive(an_order(confirmed_by="pay_1"), [a_payment(1, P.CAPTURED), a_payment(2, P.CAPTURED, refunded=3900)])
    assert (state.payment_status, state.attention) == (PS.PAID, None)


def test_an_unanswered_call_is_flagged() -> None:
    assert derive(an_order(), [a_payment(1, P.PROCESSING, outcome_unknown=True)]).attention is A.UNKNOWN_OUTCOME


def a_part(number: int, *, captured: int, authorized: int) -> OrderPayment:
    payment = a_payment(number, P.PARTIALLY_CAPTURED, captured=captured)
    return replace(payment, snapshot=replace(payment.snapshot, amount_authorized=authorized))


@pytest.mark.parametrize(
    ("captured", "authorized", "expected"),
    [
        (900, 3900, (S.OPEN, PS.AUTHORIZED, None)),
        (900, 900, (S.CONFIRMED, PS.PAID, A.AMOUNT_MISMATCH)),
        (0, 0, (S.OPEN, PS.AUTHORIZED, None)),
    ],
)
def test_a_part_pays_when_nothing_of_the_hold_is_left(
    captured: int, authorized: int, expected: tuple[object, ...]
) -> None:
    state = derive(an_order(), [a_part(1, captured=captured, authorized=authorized)])
    assert (state.status, state.payment_status, state.attention) == expected


def test_an_order_that_late_money_reopened_is_confirmed_by_it() -> None:
    order = replace(an_order(closed_as=S.EXPIRED), reopened_by="pay_2")
    state = derive(order, [a_payment(1, P.CAPTURED, refunded=3900), a_payment(2, P.CAPTURED)])
    assert (state.status, state.confirmed_by, state.payment_status) == (S.CONFIRMED, "pay_2", PS.PAID)
    assert state.attention is None
    assert consequences(state_of(an_order(closed_as=S.EXPIRED)), state) == (Consequence.REOPENED, Consequence.PAID)


def test_a_full_refund_has_its_consequence_once() -> None:
    paid, back = [a_payment(1, P.CAPTURED)], [a_payment(1, P.CAPTURED, refunded=3900)]
    confirmed = replace(an_order(confirmed_by="pay_1"), payment_status=PS.PAID)
    assert consequences(state_of(confirmed), derive(confirmed, back)) == (Consequence.REFUNDED,)
    restored = replace(confirmed, refunded_at=NOW)
    assert consequences(state_of(restored), derive(restored, paid)) == ()
    assert consequences(state_of(restored), derive(restored, back)) == ()


def test_paid_and_refunded_learnt_at_once_are_both_done() -> None:
    after = derive(an_order(), [a_payment(1, P.CAPTURED, refunded=3900)])
    assert consequences(state_of(an_order()), after) == (Consequence.PAID, Consequence.REFUNDED)


def test_an_order_whose_money_the_gateway_took_back_is_flagged() -> None:
    state = derive(an_order(confirmed_by="pay_1"), [a_payment(1, P.FAILED)])
    assert (state.status, state.attention) == (S.CONFIRMED, A.AMOUNT_MISMATCH)


def test_books_that_do_not_add_up_are_flagged() -> None:
    payment = a_payment(1, P.CAPTURED, refunded=3900)
    excess = replace(payment, snapshot=replace(payment.snapshot, amount_excess=1))
    assert derive(an_order(confirmed_by="pay_1"), [payment]).attention is None
    assert derive(an_order(confirmed_by="pay_1"), [excess]).attention is A.AMOUNT_MISMATCH


def test_a_duplicate_that_went_back_says_nothing_about_an_order_whose_keeper_is_under_review() -> None:
    """The keeper's money may still be there: nothing is refunded, so nothing goes back on the shelf."""
    confirmed = replace(an_order(confirmed_by="pay_1"), payment_status=PS.PAID)
    payments = [a_payment(1, P.CONFLICTED, captured=1000), a_payment(2, P.CAPTURED, refunded=3900)]
    state = derive(confirmed, payments)
    assert (state.payment_status, state.was_refunded, state.attention) == (PS.PENDING, False, A.AMOUNT_MISMATCH)
    assert Consequence.REFUNDED not in consequences(state_of(confirmed), state)
    won = [a_payment(1, P.CAPTURED, refunded=3900), payments[1]]
    assert consequences(state, derive(confirmed, won)) == (Consequence.REFUNDED,), "the real refund still counts"


def a_keeper(status: PaymentStatus, **totals: Any) -> OrderPayment:
    payment = a_payment(1, status)
    return replace(payment, snapshot=replace(payment.snapshot, **totals))


FOR_GOOD: dict[str, Any] = {"amount_captured": 900, "amount_authorized": 900}


@pytest.mark.parametrize(
    ("keeper", "expected"),
    [
        (a_keeper(P.CAPTURED), (PS.PAID, None)),
        (a_keeper(P.CAPTURED, amount_refunded=900), (PS.PARTIALLY_REFUNDED, None)),
        (a_keeper(P.CAPTURED, amount_refunded=3900), (PS.REFUNDED, None)),
        (a_keeper(P.CAPTURED, amount_disputed=3900), (PS.DISPUTED, None)),
        (a_keeper(P.CAPTURED, amount_refunded=2900, amount_disputed=1000), (PS.DISPUTED, None)),
        (a_keeper(P.PARTIALLY_CAPTURED, **FOR_GOOD), (PS.PAID, A.AMOUNT_MISMATCH)),
        (a_keeper(P.PARTIALLY_CAPTURED, **FOR_GOOD, amount_refunded=900), (PS.REFUNDED, None)),
        (a_keeper(P.PARTIALLY_CAPTURED, amount_captured=900), (PS.AUTHORIZED, A.AMOUNT_MISMATCH)),
        (a_keeper(P.AUTHORIZED), (PS.AUTHORIZED, A.AMOUNT_MISMATCH)),
        (a_keeper(P.CONFLICTED, amount_captured=1000), (PS.PENDING, A.AMOUNT_MISMATCH)),
        (a_keeper(P.CONFLICTED, amount_captured=1000, amount_refunded=1000), (PS.PENDING, A.AMOUNT_MISMATCH)),
        (a_keeper(P.CAPTURED, amount_captured=0), (PS.PENDING, A.AMOUNT_MISMATCH)),
        (a_keeper(P.FAILED), (PS.FAILED, A.AMOUNT_MISMATCH)),
        (a_keeper(P.CANCELED), (PS.UNPAID, A.AMOUNT_MISMATCH)),
    ],
)
@pytest.mark.parametrize("other", [None, *P])
def test_the_keeper_alone_says_how_a_confirmed_order_is_paid(
    keeper: OrderPayment, expected: tuple[object, ...], other: PaymentStatus | None
) -> None:
    """A second payment moves the attention at most: money of its own, or money that is back, is not the order's."""
    others = [] if other is None else [a_payment(2, other, refunded=3900 if other is P.CAPTURED else 0)]
    state = derive(an_order(confirmed_by="pay_1"), [keeper, *others])
    assert (state.status, state.payment_status) == (S.CONFIRMED, expected[0])
    assert state.was_refunded is (expected[0] is PS.REFUNDED)
    if other is None:
        assert state.attention is expected[1]


SNAPSHOTS = st.builds(
    lambda status, captured, back, disputed: (status, captured, min(back, captured), min(disputed, captured)),
    st.sampled_from(list(PaymentStatus)),
    st.sampled_from([0, 900, 3900]),
    st.sampled_from([0, 900, 3900]),
    st.sampled_from([0, 900]),
)


@given(st.lists(SNAPSHOTS, min_size=1, max_size=4), st.sampled_from([None, "pay_0"]), st.booleans())
def test_an_order_is_refunded_only_when_all_that_its_keeper_took_is_back(
    drawn: list[tuple[PaymentStatus, int, int, int]], keeper: str | None, was_closed: bool
) -> None:
    order = an_order(closed_as=S.EXPIRED if was_closed else None, confirmed_by=None if was_closed else keeper)
    order = replace(order, reopened_by=keeper if was_closed else None)
    payments = [
        a_payment(number, status, captured=captured, refunded=back, disputed=disputed)
        for number, (status, captured, back, disputed) in enumerate(drawn)
    ]
    state = derive(order, payments)
    if state.confirmed_by is None:
        assert not state.was_refunded
        return
    kept = next(each.snapshot for each in payments if each.payment_id == state.confirmed_by)
    is_back = kept.amount_refunded >= kept.amount_captured > 0
    assert is_back or (state.payment_status is not PS.REFUNDED and not state.was_refunded)
    assert state.payment_status is derive(order, [kept_alone(payments, state.confirmed_by)]).payment_status


def kept_alone(payments: Sequence[OrderPayment], keeper: str) -> OrderPayment:
    return next(payment for payment in payments if payment.payment_id == keeper)


STATUSES = st.lists(st.sampled_from(list(PaymentStatus)), max_size=5)


@given(STATUSES, st.sampled_from([None, S.CANCELED, S.EXPIRED]))
def test_the_order_of_payments_does_not_matter(
    statuses: Sequence[PaymentStatus], closed_as: OrderStatus | None
) -> None:
    payments = [a_payment(number, status) for number, status in enumerate(statuses)]
    order = an_order(closed_as=closed_as)
    expected = derive(order, payments)
    assert all(derive(order, shuffled) == expected for shuffled in permutations(payments))


@given(STATUSES, st.sampled_from([None, S.CANCELED, S.EXPIRED]))
def test_deriving_again_changes_nothing(statuses: Sequence[PaymentStatus], closed_as: OrderStatus | None) -> None:
    payments = [a_payment(number, status) for number, status in enumerate(statuses)]
    order = an_order(closed_as=closed_as)
    state = derive(order, payments)
    settled = replace(
        order,
        status=state.status,
        payment_status=state.payment_status,
        attention=state.attention,
        confirmed_by=state.confirmed_by,
    )
    assert derive(settled, payments) == state
    assert consequences(state, derive(settled, payments)) == ()


@given(STATUSES)
def test_an_order_may_end_only_when_no_payment_can_bring_money(statuses: Sequence[PaymentStatus]) -> None:
    payments = [a_payment(number, status) for number, status in enumerate(statuses)]
    if may_end_without_money(payments):
        state = derive(an_order(closed_as=S.CANCELED), payments)
        assert state.payment_status in (PS.UNPAID, PS.FAILED)
        assert state.attention is None


def test_being_paid_is_announced_once() -> None:
    before = state_of(an_order())
    after = derive(an_order(), [a_payment(1, P.CAPTURED)])
    assert consequences(before, after) == (Consequence.PAID,)
    assert consequences(after, derive(an_order(confirmed_by="pay_1"), [a_payment(1, P.CAPTURED)])) == ()


def test_every_status_of_a_payment_means_something() -> None:
    assert set(STANDING) == set(PaymentStatus)
