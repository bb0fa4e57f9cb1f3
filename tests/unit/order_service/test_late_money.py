"""What becomes of late and second payments: a table, and properties over every history that events can tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.order_service.domain.late_money import WAITS, Decision, asks_the_shelf, can_fulfil, decide, heard, put_off
from services.order_service.domain.models import (
    AskedBack,
    LineItem,
    Order,
    OrderPayment,
    OrderPaymentStatus,
    OrderStatus,
    PaymentSnapshot,
    PaymentStatus,
    PaymentTerms,
    Product,
    ReconcilePolicy,
    Resolution,
)
from services.order_service.domain.transitions import Consequence, consequences, derive, state_of
from shared.money import Money
from tests.unit.order_service.test_transitions import NOW, TOTAL, a_payment, an_order

P, S, R = PaymentStatus, OrderStatus, Resolution
AUTOMATIC, MANUAL = (
    PaymentTerms("https://s", "https://f", "https://c", capture) for capture in ("automatic", "manual")
)


def an_undecided(
    number: int, status: PaymentStatus, *, terms: PaymentTerms | None = None, **totals: Any
) -> OrderPayment:
    payment = a_payment(number, status)
    if status in (P.AUTHORIZED, P.PARTIALLY_CAPTURED):
        totals.setdefault("amount_authorized", TOTAL.amount_minor)
    return replace(payment, terms=terms, snapshot=replace(payment.snapshot, **totals))


def decided(
    order: Order, payments: Sequence[OrderPayment], *, fulfillable: bool = False
) -> list[tuple[str, Resolution, str]]:
    confirmed_by = derive(order, payments).confirmed_by
    found = decide(order, payments, confirmed_by=confirmed_by, fulfillable=fulfillable, now=NOW)
    return [(each.payment_id, each.resolution, each.reason) for each in found]


CONFIRMED, CANCELED, EXPIRED = {"confirmed_by": "pay_1"}, {"closed_as": S.CANCELED}, {"closed_as": S.EXPIRED}
KEEPER = an_undecided(1, P.CAPTURED)
PART_FOR_GOOD: dict[str, Any] = {"amount_captured": 900, "amount_authorized": 900}


@pytest.mark.parametrize(
    ("facts", "payments", "fulfillable", "expected"),
    [
        pytest.param(
            {}, [an_undecided(1, P.AUTHORIZED), an_undecided(2, P.AUTHORIZED)], True, [], id="open: both held"
        ),
        pytest.param(
            {},
            [KEEPER, an_undecided(2, P.CAPTURED)],
            False,
            [("pay_2", R.REFUND_REQUESTED, "duplicate_payment")],
            id="confirmed at this moment, second captured",
        ),
        pytest.param(CONFIRMED, [KEEPER], False, [], id="the one that keeps the order"),
        pytest.param(
            CONFIRMED,
            [KEEPER, an_undecided(2, P.AUTHORIZED)],
            False,
            [("pay_2", R.RELEASE_REQUESTED, "duplicate_payment")],
            id="second held",
        ),
        pytest.param(
            CONFIRMED,
            [KEEPER, an_undecided(2, P.PARTIALLY_CAPTURED, amount_captured=900)],
            False,
            [("pay_2", R.REFUND_REQUESTED, "duplicate_payment")],
            id="second partly captured",
        ),
        pytest.param(
            CONFIRMED,
            [an_undecided(1, P.CAPTURED, amount_refunded=3900), an_undecided(2, P.CAPTURED)],
            False,
            [("pay_2", R.REFUND_REQUESTED, "duplicate_payment")],
            id="second after the first went back: the order is over",
        ),
        pytest.param(
            CONFIRMED,
            [an_undecided(1, P.FAILED), an_undecided(2, P.CAPTURED)],
            False,
            [],
            id="the gateway took back what confirmed it: a person looks",
        ),
        pytest.param(CONFIRMED, [KEEPER, an_undecided(2, P.CONFLICTED)], False, [], id="second conflicted"),
        pytest.param(CONFIRMED, [KEEPER, a_payment(2, P.CAPTURED, currency="KWD")], False, [], id="second foreign"),
        pytest.param(
            CONFIRMED,
            [KEEPER, an_undecided(2, P.CAPTURED, amount_refunded=3900)],
            False,
            [],
            id="second is back already",
        ),
        pytest.param(
            CONFIRMED,
            [KEEPER, an_undecided(2, P.CAPTURED, amount_refund_pending=3900)],
            False,
            [],
            id="second is on its way back already",
        ),
        pytest.param(
            CONFIRMED, [KEEPER, an_undecided(2, P.CAPTURED, amount_disputed=3900)], False, [], id="second is disputed"
        ),
        pytest.param(
            CONFIRMED,
            [KEEPER, an_undecided(2, P.CAPTURED, amount_refunded=900)],
            False,
            [("pay_2", R.REFUND_REQUESTED, "duplicate_payment")],
            id="some of the second is back",
        ),
        pytest.param(
            EXPIRED, [an_undecided(1, P.CAPTURED)], False, [("pay_1", R.REFUND_REQUESTED, "late_payment")], id="late"
        ),
        pytest.param(
            CANCELED,
            [an_undecided(1, P.CAPTURED)],
            False,
            [("pay_1", R.REFUND_REQUESTED, "order_canceled")],
            id="late for a canceled order",
        ),
        pytest.param(
            EXPIRED, [an_undecided(1, P.CAPTURED)], True, [("pay_1", R.FULFILLED, "late_payment")], id="late, fulfilled"
        ),
        pytest.param(
            CANCELED, [an_undecided(1, P.CAPTURED)], True, [("pay_1", R.FULFILLED, "late_payment")], id="canceled, too"
        ),
        pytest.param(
            EXPIRED,
            [an_undecided(2, P.CAPTURED), an_undecided(1, P.CAPTURED)],
            True,
            [("pay_1", R.FULFILLED, "late_payment"), ("pay_2", R.REFUND_REQUESTED, "duplicate_payment")],
            id="two late: one buys, the other is a second",
        ),
        pytest.param(
            EXPIRED,
            [an_undecided(1, P.CAPTURED, amount_refund_pending=1)],
            True,
            [("pay_1", R.REFUND_REQUESTED, "late_payment")],
            id="late, some of it on its way back",
        ),
        pytest.param(
            EXPIRED,
            [an_undecided(1, P.PARTIALLY_CAPTURED, **PART_FOR_GOOD)],
            True,
            [("pay_1", R.REFUND_REQUESTED, "late_payment")],
            id="a part buys nothing late",
        ),
        pytest.param(
            EXPIRED,
            [an_undecided(1, P.AUTHORIZED, terms=MANUAL)],
            True,
            [("pay_1", R.RELEASE_REQUESTED, "late_payment")],
            id="late and held until somebody captures it",
        ),
        pytest.param(EXPIRED, [an_undecided(1, P.AUTHORIZED, terms=AUTOMATIC)], True, [], id="late, its capture comes"),
        pytest.param(
            EXPIRED,
            [an_undecided(1, P.AUTHORIZED, terms=AUTOMATIC)],
            False,
            [("pay_1", R.RELEASE_REQUESTED, "late_payment")],
            id="late, its capture would buy nothing",
        ),
        pytest.param(EXPIRED, [an_undecided(1, P.CONFLICTED)], True, [], id="late and conflicted"),
        pytest.param(EXPIRED, [an_undecided(1, P.PROCESSING)], True, [], id="no money yet"),
        pytest.param(EXPIRED, [an_undecided(1, P.CAPTURED, amount_excess=1)], True, [], id="books that do not add up"),
    ],
)
def test_what_is_decided(
    facts: dict[str, Any],
    payments: list[OrderPayment],
    fulfillable: bool,
    expected: list[tuple[str, Resolution, str]],
) -> None:
    assert decided(replace(an_order(), **facts), payments, fulfillable=fulfillable) == expected


@pytest.mark.parametrize(
    ("before", "status", "expected"),
    [
        (R.REFUND_REQUESTED, P.CAPTURED, []),
        (R.RELEASE_REQUESTED, P.AUTHORIZED, []),
        (R.RELEASE_REQUESTED, P.CAPTURED, [("pay_1", R.REFUND_REQUESTED, "late_payment")]),
        (R.REFUND_REQUESTED, P.AUTHORIZED, []),
    ],
)
def test_what_was_decided_stays_decided(
    before: Resolution, status: PaymentStatus, expected: list[tuple[str, Resolution, str]]
) -> None:
    payment = replace(an_undecided(1, status), resolution=before)
    assert decided(an_order(closed_as=S.EXPIRED), [payment], fulfillable=True) == expected


def test_a_command_has_a_key_for_its_payment_and_reason_and_one_more_for_a_release() -> None:
    asked = [R.RELEASE_REQUESTED, R.REFUND_REQUESTED]
    keys = [Decision("pay_1", resolution, "late_payment").command_key for resolution in asked]
    assert keys == ["pay_1:late_payment:release", "pay_1:late_payment"]


def test_each_further_command_has_a_key_of_its_own() -> None:
    decision = Decision("pay_1", R.REFUND_REQUESTED, "late_payment")
    keys = [replace(decision, asked=AskedBack(n, 1, 3900, NOW)).command_key for n in (1, 2, 3)]
    assert keys == ["pay_1:late_payment", "pay_1:late_payment#2", "pay_1:late_payment#3"]


def an_asked(attempt: int, *, waited: bool = True, captured: int = 3900, **totals: Any) -> OrderPayment:
    """Asked back ``attempt`` times when it had taken ``captured``."""
    asked = AskedBack(attempt, attempt, captured, NOW if waited else NOW + timedelta(seconds=1))
    return replace(an_undecided(2, P.CAPTURED, **totals), resolution=R.REFUND_REQUESTED, asked=asked)


def steps(payments: Sequence[OrderPayment], **facts: Any) -> list[tuple[Resolution, AskedBack | None]]:
    order = replace(an_order(), **(facts or {"confirmed_by": "pay_1"}))
    confirmed_by = derive(order, payments).confirmed_by
    found = decide(order, payments, confirmed_by=confirmed_by, fulfillable=True, now=NOW)
    return [(each.resolution, each.asked) for each in found]


@pytest.mark.parametrize(
    ("payment", "expected"),
    [
        pytest.param(an_asked(1), (R.REFUND_REQUESTED, AskedBack(2, 2, 3900, NOW + WAITS[1])), id="again"),
        pytest.param(an_asked(2), (R.REFUND_REQUESTED, AskedBack(3, 3, 3900, NOW + WAITS[2])), id="for the last time"),
        pytest.param(an_asked(3), (R.REFUND_FAILED, AskedBack(3, 3, 3900, NOW)), id="a person"),
        pytest.param(an_asked(1, waited=False), None, id="too early"),
        pytest.param(an_asked(3, waited=False), None, id="too early for a person"),
        pytest.param(an_asked(1, amount_refund_pending=900), None, id="some of it is on its way"),
        pytest.param(an_asked(1, amount_refunded=3900), None, id="it is back"),
        pytest.param(an_asked(1, amount_disputed=3900), None, id="it is disputed"),
        pytest.param(an_asked(1, amount_excess=1), None, id="its books do not add up"),
        pytest.param(
            an_asked(3, captured=900, waited=False, amount_refunded=900),
            (R.REFUND_REQUESTED, AskedBack(4, 1, 3900, NOW + WAITS[0])),
            id="more was captured after it had been asked back",
        ),
        pytest.param(
            an_asked(1, captured=900, waited=False, amount_refund_pending=900),
            (R.REFUND_REQUESTED, AskedBack(2, 1, 3900, NOW + WAITS[0])),
            id="more was captured while the first part is on its way",
        ),
        pytest.param(
            replace(an_asked(3, captured=900), resolution=R.REFUND_FAILED),
            (R.REFUND_REQUESTED, AskedBack(4, 1, 3900, NOW + WAITS[0])),
            id="more was captured after a person was called",
        ),
        pytest.param(replace(an_asked(3), resolution=R.REFUND_FAILED), None, id="a person was called already"),
        pytest.param(
            replace(an_asked(1), snapshot=an_undecided(2, P.CONFLICTED, amount_captured=3900).snapshot),
            None,
            id="conflicted since",
        ),
    ],
)
def test_money_that_was_asked_back_and_is_still_there(
    payment: OrderPayment, expected: tuple[Resolution, AskedBack] | None
) -> None:
    assert steps([KEEPER, payment]) == ([expected] if expected else [])
    assert steps([payment], closed_as=S.EXPIRED) == ([expected] if expected else [])
    assert not asks_the_shelf(an_order(closed_as=S.EXPIRED), [payment]), "what was promised back buys nothing"


def test_nothing_more_is_asked_back_from_an_order_that_has_lost_its_own_money() -> None:
    assert steps([an_undecided(1, P.FAILED), an_asked(1)]) == []


def test_a_refund_that_came_to_nothing_is_waited_for_again() -> None:
    later = NOW + timedelta(hours=24)
    pending = an_asked(1, amount_refund_pending=3900)
    idle = replace(pending.snapshot, amount_refund_pending=0)
    failed = heard(pending, idle, now=later)
    assert failed.asked == AskedBack(1, 1, 3900, later + WAITS[0])
    assert heard(failed, replace(idle, version=9), now=later + WAITS[0]).asked == failed.asked, "no news of the money"
    reversed_ = heard(replace(pending, snapshot=replace(idle, amount_refunded=3900)), idle, now=later)
    assert reversed_.asked == failed.asked
    assert put_off(failed, now=NOW).asked == failed.asked, "never sooner"


def test_the_waits_grow() -> None:
    assert WAITS[0] >= timedelta(hours=1)
    assert WAITS[0] < WAITS[1]
    assert len(WAITS) == 3


def a_product(*, stock: int = 1, policy: ReconcilePolicy = ReconcilePolicy.FULFIL) -> Product:
    return Product("moka-pot", "Moka Pot", "", None, TOTAL, on_hand=stock + 4, reserved=4, reconcile_policy=policy)


@pytest.mark.parametrize(
    ("shelf", "expected"),
    [
        ({"moka-pot": a_product()}, True),
        ({"moka-pot": a_product(stock=0)}, False),
        ({"moka-pot": a_product(policy=ReconcilePolicy.REFUND)}, False),
        ({}, False),
    ],
    ids=["there", "out of stock", "policy refund", "retired"],
)
def test_what_late_money_can_still_buy(shelf: dict[str, Product], expected: bool) -> None:
    assert can_fulfil((LineItem("moka-pot", "Moka Pot", 1, TOTAL),), shelf) is expected


# --- Histories --------------------------------------------------------------------------------------------------------


@dataclass
class Shelf:
    """The goods of one order, moved as the repository moves them."""

    on_hand: int = 2
    reserved: int = 1
    moves: list[str] = field(default_factory=list)

    def follow(self, happened: Sequence[Consequence]) -> None:
        for consequence in happened:
            if consequence is Consequence.PAID:
                self._move("sold", on_hand=-1, reserved=-1)
            elif consequence is Consequence.REOPENED:
                self._move("held again", reserved=1)
            elif consequence is Consequence.REFUNDED:
                self._move("restored", on_hand=1)
            elif consequence in (Consequence.CANCELED, Consequence.EXPIRED):
                self._move("released", reserved=-1)

    def _move(self, what: str, *, on_hand: int = 0, reserved: int = 0) -> None:
        self.on_hand, self.reserved = self.on_hand + on_hand, self.reserved + reserved
        self.moves.append(what)
        assert 0 <= self.reserved <= self.on_hand <= 2


@dataclass
class History:
    """An order with its payments, settled as ``settle`` does it, without a database."""

    policy: bool
    order: Order = field(default_factory=an_order)
    payments: dict[str, OrderPayment] = field(default_factory=dict)
    shelf: Shelf = field(default_factory=Shelf)
    commands: list[str] = field(default_factory=list)

    def hear(self, news: PaymentSnapshot) -> None:
        known = self.payments.get(news.payment_id)
        if known is None or news.version > known.snapshot.version:
            changed = heard(known, news, now=NOW) if known else OrderPayment(news, None, NOW, NOW)
            self.payments[news.payment_id] = changed
            self._settle()

    def close(self) -> None:
        if self.order.status is S.OPEN:
            self.order = replace(self.order, closed_as=S.EXPIRED)
            self._settle()

    def _settle(self) -> None:
        before = state_of(self.order)
        payments = list(self.payments.values())
        fulfillable = asks_the_shelf(self.order, payments) and self.policy and self.shelf.on_hand > self.shelf.reserved
        confirmed_by = derive(self.order, payments).confirmed_by
        for decision in decide(self.order, payments, confirmed_by=confirmed_by, fulfillable=fulfillable, now=NOW):
            payment = self.payments[decision.payment_id]
            resolved = replace(payment, resolution=decision.resolution, asked=decision.asked)
            self.payments[decision.payment_id] = resolved
            if decision.resolution is R.FULFILLED:
                self.order = replace(self.order, reopened_by=decision.payment_id)
            else:
                self.commands.append(decision.command_key)
        after = derive(self.order, list(self.payments.values()))
        happened = consequences(before, after)
        self.shelf.follow(happened)
        self.order = replace(
            self.order,
            status=after.status,
            payment_status=after.payment_status,
            attention=after.attention,
            confirmed_by=after.confirmed_by,
            refunded_at=NOW if after.was_refunded else None,
        )


def a_life(number: int, *, refunded: bool) -> list[PaymentSnapshot]:
    """From its page to its money, and perhaps back."""
    stages: list[tuple[PaymentStatus, int]] = [(P.REQUIRES_ACTION, 0), (P.FAILED, 0), (P.CAPTURED, 0)]
    stages += [(P.CAPTURED, 3900)] if refunded else []
    return [
        PaymentSnapshot(
            payment_id=f"pay_{number}",
            order_id="ord_1",
            gateway="stripe",
            status=status,
            version=version,
            amount=Money(3900, "EUR"),
            amount_captured=3900 if status is P.CAPTURED else 0,
            amount_refunded=back,
        )
        for version, (status, back) in enumerate(stages, start=1)
    ]


@st.composite
def histories(draw: st.DrawFn) -> tuple[bool, list[PaymentSnapshot | None]]:
    """Everything that is said about some payments, shuffled and repeated, with an expiry (None) somewhere among it."""
    said = [
        snapshot
        for number in range(draw(st.integers(1, 3)))
        for snapshot in a_life(number, refunded=draw(st.booleans()))
    ]
    repeated = draw(st.lists(st.sampled_from(said), max_size=4))
    return draw(st.booleans()), draw(st.permutations([*said, *repeated, None]))


def lived(policy: bool, told: Sequence[PaymentSnapshot | None]) -> History:
    history = History(policy)
    for news in told:
        if news is None:
            history.close()
        else:
            history.hear(news)
    return history


@given(histories())
def test_one_payment_at_most_keeps_its_money_and_every_other_is_asked_back_once(
    drawn: tuple[bool, list[PaymentSnapshot | None]],
) -> None:
    history = lived(*drawn)
    assert len(history.commands) == len(set(history.commands))
    for payment in history.payments.values():
        has_money = payment.snapshot.amount_refundable > 0
        is_asked_back = payment.resolution is R.REFUND_REQUESTED
        assert (payment.payment_id == history.order.confirmed_by) or is_asked_back or not has_money
    assert (history.order.attention is None) or any(
        payment.resolution is R.REFUND_REQUESTED and payment.snapshot.amount_not_refunded > 0
        for payment in history.payments.values()
    )


@given(histories())
def test_the_goods_are_sold_exactly_to_whoever_has_paid_and_kept_the_money_there(
    drawn: tuple[bool, list[PaymentSnapshot | None]],
) -> None:
    history = lived(*drawn)
    order = history.order
    is_sold = order.status is S.CONFIRMED and order.refunded_at is None
    assert (history.shelf.on_hand, history.shelf.reserved) == (1 if is_sold else 2, 0)
    assert len(history.shelf.moves) == len(set(history.shelf.moves)), "each move happens at most once"
    assert (order.refunded_at is not None) == (
        order.status is S.CONFIRMED and order.payment_status is OrderPaymentStatus.REFUNDED
    )


@given(st.permutations(a_life(1, refunded=True)), st.booleans())
def test_one_payments_news_in_any_order_gives_the_same_order(told: list[PaymentSnapshot], policy: bool) -> None:
    history = lived(policy, told)
    expected = lived(policy, a_life(1, refunded=True))
    assert state_of(history.order) == state_of(expected.order)
    assert (history.shelf.on_hand, history.shelf.reserved) == (2, 0)
    assert history.commands == []


@given(histories())
def test_hearing_everything_again_changes_nothing(drawn: tuple[bool, list[PaymentSnapshot | None]]) -> None:
    policy, told = drawn
    once, twice = lived(policy, told), lived(policy, [*told, *told])
    assert (once.order, once.commands, once.shelf) == (twice.order, twice.commands, twice.shelf)
