"""The reducer: rule by rule as a table, and as properties over any set of facts."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.payment_service.domain.models import (
    ENDED_WITHOUT_MONEY,
    WITH_MONEY,
    CaptureMode,
    Fact,
    FactKind,
    FactSource,
    Observation,
    PaymentState,
    PaymentStatus,
    Terms,
)
from services.payment_service.domain.transitions import is_late_success, reduce_facts
from shared.money import Money
from tests.support.clock import A_MOMENT

ORDERED = 1999
AUTOMATIC = Terms(Money(ORDERED, "EUR"), CaptureMode.AUTOMATIC)
MANUAL = replace(AUTOMATIC, capture=CaptureMode.MANUAL)
LENIENT = replace(AUTOMATIC, tolerance_minor=5)

OPENED = Observation(FactKind.SESSION_OPENED, "cs_1")
PROCESSING = Observation(FactKind.PROCESSING, "pi_1")
DECLINED = Observation(FactKind.DECLINED, "pi_1", reason="insufficient_funds")
FAILED = Observation(FactKind.FAILED, "pi_1", reason="card_declined")
CANCELED = Observation(FactKind.CANCELED, "cs_1", reason="closed_by_us")
EXPIRED = Observation(FactKind.EXPIRED, "cs_1")
RELEASED = Observation(FactKind.CANCELED, "pi_1")
LAPSED = Observation(FactKind.EXPIRED, "pi_1")


def captured(amount: int = ORDERED, currency: str = "EUR", about: str = "pi_1") -> Observation:
    return Observation(FactKind.CAPTURED, about, Money(amount, currency))


def authorized(amount: int = ORDERED, currency: str = "EUR", about: str = "pi_1") -> Observation:
    return Observation(FactKind.AUTHORIZED, about, Money(amount, currency))


def state_of(*observations: Observation, terms: Terms = AUTOMATIC) -> PaymentState:
    return reduce_facts(terms, [Fact(each, FactSource.WEBHOOK, A_MOMENT) for each in observations])


@pytest.mark.parametrize(
    ("observations", "status"),
    [
        ((), "created"),
        ((DECLINED,), "created"),
        ((OPENED,), "requires_action"),
        ((OPENED, DECLINED), "requires_action"),
        ((OPENED, PROCESSING), "processing"),
        ((OPENED, EXPIRED), "expired"),
        ((PROCESSING, EXPIRED), "expired"),
        ((EXPIRED, FAILED), "failed"),
        ((EXPIRED, FAILED, CANCELED), "canceled"),
        ((CANCELED, PROCESSING), "canceled"),
        ((OPENED, authorized()), "authorized"),
        ((authorized(), FAILED), "authorized"),
        ((authorized(), CANCELED), "authorized"),  # the page was closed, the funds of the intent are held all the same
        ((authorized(), RELEASED), "canceled"),
        ((authorized(), LAPSED), "expired"),
        ((authorized(), captured()), "captured"),
        ((authorized(), captured(), RELEASED), "captured"),
        ((captured(), FAILED), "captured"),
        ((captured(), EXPIRED), "captured"),
        ((captured(), CANCELED), "captured"),
        ((captured(), FAILED, EXPIRED, CANCELED, PROCESSING, OPENED), "captured"),
    ],
)
def test_the_status_that_facts_amount_to(observations: tuple[Observation, ...], status: str) -> None:
    assert state_of(*observations).status == status


@pytest.mark.parametrize(
    ("observations", "terms", "conflict"),
    [
        ((captured(1998),), AUTOMATIC, "amount_too_low"),
        ((captured(2000),), AUTOMATIC, "amount_too_high"),
        ((captured(0),), AUTOMATIC, "amount_too_low"),
        ((captured(-1999),), AUTOMATIC, "amount_too_low"),
        ((authorized(0),), MANUAL, "amount_too_low"),
        ((authorized(1998),), MANUAL, "amount_too_low"),
        ((authorized(2000),), MANUAL, "amount_too_high"),
        ((captured(1993),), LENIENT, "amount_too_low"),
        ((captured(2005),), LENIENT, "amount_too_high"),
        ((captured(ORDERED, "USD"),), AUTOMATIC, "currency_mismatch"),
        ((authorized(ORDERED, "KWD"),), MANUAL, "currency_mismatch"),
        ((captured(), captured(ORDERED, "USD", about="pi_2")), AUTOMATIC, "currency_mismatch"),
        ((Observation(FactKind.CAPTURED, "pi_1"),), AUTOMATIC, "currency_mismatch"),
        ((captured(), captured(about="pi_2")), AUTOMATIC, "amount_too_high"),
        ((captured(1998), OPENED, FAILED), AUTOMATIC, "amount_too_low"),
    ],
)
def test_an_amount_or_currency_that_is_not_ours_is_never_paid(
    observations: tuple[Observation, ...], terms: Terms, conflict: str
) -> None:
    state = state_of(*observations, terms=terms)
    assert (state.status, state.conflict) == ("conflicted", conflict)


@pytest.mark.parametrize("amount", [1994, 1995, 1999, 2003, 2004])
def test_a_tolerance_that_is_set_is_kept(amount: int) -> None:
    assert state_of(captured(amount), terms=LENIENT).status == "captured"


def test_totals_of_a_capture() -> None:
    state = state_of(OPENED, captured())
    assert (state.amount_authorized, state.amount_captured) == (ORDERED, ORDERED)


def test_a_hold_is_not_money_taken() -> None:
    state = state_of(authorized(), terms=MANUAL)
    assert (state.status, state.amount_authorized, state.amount_captured) == ("authorized", ORDERED, 0)


def test_a_released_hold_leaves_nothing() -> None:
    state = state_of(authorized(), RELEASED, terms=MANUAL)
    assert (state.status, state.amount_authorized, state.amount_captured) == ("canceled", 0, 0)


def test_part_of_a_hold_may_be_taken() -> None:
    state = state_of(authorized(), captured(500), terms=MANUAL)
    assert (state.status, state.amount_authorized, state.amount_captured) == ("partially_captured", ORDERED, 500)


def test_amounts_of_one_object_are_cumulative() -> None:
    state = state_of(authorized(), captured(500), captured(1200), terms=MANUAL)
    assert state.amount_captured == 1200
    assert state_of(authorized(), captured(500), captured(1200), captured(), terms=MANUAL).status == "captured"


def test_a_nothing_that_is_followed_by_the_full_amount_is_paid() -> None:
    assert state_of(captured(0), captured()).status == "captured"


def test_conflicted_totals_say_what_the_gateway_holds_of_our_currency() -> None:
    state = state_of(captured(100), captured(ORDERED, "USD", about="pi_2"))
    assert (state.amount_captured, state.amount_authorized) == (100, 100)


def test_a_failure_says_why_and_the_answer_does_not_depend_on_who_spoke_first() -> None:
    other = replace(FAILED, reason="async_payment_failed")
    assert state_of(FAILED, other).failure_code == state_of(other, FAILED).failure_code == "async_payment_failed"


def test_two_reasons_to_fail_are_two_facts() -> None:
    """Were they one, the database would keep the first, and the order of arrival would matter."""
    assert FAILED.natural_key != replace(FAILED, reason="async_payment_failed").natural_key
    assert FAILED.natural_key == replace(FAILED, occurred_at=A_MOMENT).natural_key


def test_paid_has_no_failure_code() -> None:
    assert state_of(FAILED, captured()).failure_code is None


@pytest.mark.parametrize("before", sorted(ENDED_WITHOUT_MONEY))
@pytest.mark.parametrize("after", sorted(WITH_MONEY))
def test_money_after_the_end_is_a_late_success(before: PaymentStatus, after: PaymentStatus) -> None:
    assert is_late_success(before, after)


@pytest.mark.parametrize("before", sorted(set(PaymentStatus) - ENDED_WITHOUT_MONEY))
def test_money_before_the_end_is_not_late(before: PaymentStatus) -> None:
    assert not is_late_success(before, PaymentStatus.CAPTURED)


references = st.sampled_from(["cs_1", "pi_1", "pi_2"])
amounts = st.builds(
    Money,
    st.one_of(st.sampled_from([0, 1, 999, 1000, ORDERED, 2000]), st.integers(-(10**13), 10**13)),
    st.sampled_from(["EUR", "EUR", "EUR", "USD", "KWD"]),
)
reasons = st.sampled_from([None, "card_declined", "expired_card"])
moments = st.one_of(st.none(), st.integers(0, 1000).map(lambda seconds: A_MOMENT + timedelta(seconds=seconds)))
with_amount = st.builds(
    Observation, st.sampled_from([FactKind.CAPTURED, FactKind.AUTHORIZED]), references, amounts, moments
)
without_amount = st.builds(Observation, st.sampled_from(FactKind), references, st.none(), moments, reasons)
observations = st.one_of(with_amount, without_amount)
facts = st.builds(
    Fact,
    observations,
    st.sampled_from(FactSource),
    st.integers(0, 1000).map(lambda seconds: A_MOMENT + timedelta(seconds=seconds)),
)
all_terms = st.sampled_from([AUTOMATIC, MANUAL, LENIENT, replace(MANUAL, tolerance_minor=5000)])


@st.composite
def shuffled_with_repeats(draw: st.DrawFn) -> tuple[list[Fact], list[Fact]]:
    originals = draw(st.lists(facts, max_size=8))
    repeats = draw(st.lists(st.sampled_from(originals), max_size=8)) if originals else []
    return originals, draw(st.permutations(originals + repeats))


@given(shuffled_with_repeats(), all_terms)
def test_order_and_repetition_do_not_matter(runs: tuple[list[Fact], list[Fact]], terms: Terms) -> None:
    in_order, shuffled = runs
    assert reduce_facts(terms, in_order) == reduce_facts(terms, shuffled)


@given(st.lists(facts, max_size=8), st.data(), all_terms)
def test_a_fact_that_is_known_by_its_natural_key_changes_nothing(
    known: list[Fact], data: st.DataObject, terms: Terms
) -> None:
    """Whoever says it again, and whenever: so the database may keep the first alone (failure W2)."""
    first_of_each = list({fact.observation.natural_key: fact for fact in reversed(known)}.values())
    last_of_each = list({fact.observation.natural_key: fact for fact in known}.values())
    assert reduce_facts(terms, known) == reduce_facts(terms, first_of_each) == reduce_facts(terms, last_of_each)
    if known:
        again = data.draw(st.sampled_from(known))
        from_elsewhere = Fact(
            replace(again.observation, occurred_at=data.draw(moments)), FactSource.SWEEP, A_MOMENT + timedelta(days=1)
        )
        assert reduce_facts(terms, [*known, from_elsewhere]) == reduce_facts(terms, known)


@given(st.lists(facts, max_size=8), all_terms)
def test_totals_are_never_negative_and_captured_is_within_authorized(known: list[Fact], terms: Terms) -> None:
    state = reduce_facts(terms, known)
    assert 0 <= state.amount_captured <= state.amount_authorized
    assert state.amount_refunded == state.amount_refund_pending == state.amount_disputed == 0


@given(st.lists(facts, max_size=8), all_terms)
def test_captured_means_our_amount_in_our_currency(known: list[Fact], terms: Terms) -> None:
    state = reduce_facts(terms, known)
    if state.status is PaymentStatus.CAPTURED:
        assert state.amount_captured > 0
        assert abs(state.amount_captured - terms.amount.amount_minor) <= terms.tolerance_minor
        money = [fact.observation.amount for fact in known if fact.observation.kind is FactKind.CAPTURED]
        assert all(amount is not None and amount.currency == "EUR" for amount in money)
        assert state.conflict is None


without_money = st.builds(
    Fact,
    st.builds(
        Observation,
        st.sampled_from(sorted(set(FactKind) - {FactKind.CAPTURED, FactKind.AUTHORIZED})),
        references,
        st.none(),
        moments,
        reasons,
    ),
    st.sampled_from(FactSource),
    st.just(A_MOMENT),
)


@given(st.lists(without_money, max_size=8), all_terms)
def test_money_wins_over_whatever_else_is_said(others: list[Fact], terms: Terms) -> None:
    paid = Fact(captured(), FactSource.WEBHOOK, A_MOMENT)
    state = reduce_facts(terms, [*others, paid])
    assert (state.status, state.amount_captured) == (PaymentStatus.CAPTURED, ORDERED)


@given(st.lists(without_money, max_size=8), all_terms)
def test_nothing_but_money_makes_money(others: list[Fact], terms: Terms) -> None:
    state = reduce_facts(terms, others)
    assert state.status not in WITH_MONEY
    assert (state.amount_authorized, state.amount_captured) == (0, 0)


@given(st.lists(facts, max_size=6), facts, all_terms)
def test_what_was_taken_is_never_given_up_by_learning_more(known: list[Fact], more: Fact, terms: Terms) -> None:
    before, after = reduce_facts(terms, known), reduce_facts(terms, [*known, more])
    assert after.amount_captured >= before.amount_captured
    if before.status is PaymentStatus.CAPTURED:
        assert after.status in (PaymentStatus.CAPTURED, PaymentStatus.CONFLICTED)
    if before.conflict == "currency_mismatch":
        assert after.conflict == "currency_mismatch"


@given(st.lists(without_money, max_size=8), without_money)
def test_what_has_ended_does_not_open_again(known: list[Fact], more: Fact) -> None:
    before, after = reduce_facts(AUTOMATIC, known), reduce_facts(AUTOMATIC, [*known, more])
    if before.status in ENDED_WITHOUT_MONEY:
        assert after.status in ENDED_WITHOUT_MONEY
