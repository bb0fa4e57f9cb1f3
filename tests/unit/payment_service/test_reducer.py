"""The reducer: rule by rule as a table, and as properties over any set of facts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
from services.payment_service.domain.operations import CallState, Operation, OperationKind, OperationStatus, Origin
from services.payment_service.domain.transitions import Derived, derive, is_late_success, reduce_facts
from shared.money import Money
from tests.support.clock import A_MOMENT
from tests.unit.payment_service.builders import an_operation

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


# --- facts and operations together -----------------------------------------------------------------------------------

OURS = tuple(f"OURREFERENCE0000000{number}" for number in range(1, 5))
RETURNS = sorted(kind for kind in FactKind if kind.startswith(("refund_", "dispute_")))
OF_OPERATIONS = sorted(kind for kind in FactKind if kind.startswith("operation_"))
small_amounts = st.builds(Money, st.integers(1, 2500), st.sampled_from(["EUR", "EUR", "EUR", "USD"]))
of_money = st.builds(
    Observation,
    st.sampled_from([FactKind.CAPTURED, FactKind.AUTHORIZED, FactKind.CAPTURE_REVERSED]),
    references,
    st.builds(Money, st.sampled_from([0, 500, 1000, ORDERED]), st.just("EUR")),
)
of_holds = st.builds(Observation, st.sampled_from([FactKind.RELEASED, FactKind.EXPIRED]), references)
of_returns = st.builds(
    Observation,
    st.sampled_from(RETURNS),
    st.sampled_from(["re_1", "re_2", "re_3"]),
    st.none() | small_amounts,
    moments,
    reasons,
    st.none() | references,
    st.none() | st.sampled_from(OURS),
)
of_calls = st.builds(
    Observation,
    st.sampled_from(OF_OPERATIONS),
    st.sampled_from(["pi_1", "CAP-1"]),
    st.none(),
    moments,
    reasons,
    st.none(),
    st.sampled_from(OURS),
)
any_observation = st.one_of(of_money, of_money, of_holds, of_returns, of_returns, of_calls)
any_facts = st.lists(st.builds(Fact, any_observation, st.sampled_from(FactSource), st.just(A_MOMENT)), max_size=10)


@st.composite
def some_operations(draw: st.DrawFn) -> list[Operation]:
    """As the budget lets them be: none takes more than there can be."""
    kinds = draw(st.lists(st.sampled_from(OperationKind), max_size=len(OURS)))
    return [
        an_operation(
            kind,
            OperationStatus.PENDING,
            operation_id=f"op_{number}",
            reference=OURS[number],
            amount=Money(draw(st.integers(1, ORDERED)), "EUR"),
            call=draw(st.sampled_from(CallState)),
            calls=draw(st.integers(0, 3)),
            target=draw(st.none() | references),
            gateway_reference=draw(st.none() | st.sampled_from(["re_1", "re_2", "CAP-1"])),
        )
        for number, kind in enumerate(kinds)
    ]


def outcome(found: Derived) -> tuple[PaymentState, dict[str, tuple[str, str | None]]]:
    return found.state, {o.operation_id: (o.status.value, o.failure_code) for o in found.operations}


def assert_within_bounds(state: PaymentState) -> None:
    totals = [getattr(state, name) for name in type(state).__dataclass_fields__ if name.startswith("amount_")]
    assert min(totals) >= 0
    assert state.amount_refunded + state.amount_refund_pending + state.amount_disputed <= state.amount_captured
    assert state.amount_captured + state.amount_capture_pending <= state.amount_authorized
    assert state.amount_dispute_lost <= state.amount_disputed


@given(any_facts, some_operations(), all_terms, st.data())
def test_facts_and_operations_in_any_order_and_number_end_the_same(
    known: list[Fact], operations: list[Operation], terms: Terms, data: st.DataObject
) -> None:
    again = data.draw(st.lists(st.sampled_from(known), max_size=6)) if known else []
    shuffled, others = data.draw(st.permutations(known + again)), data.draw(st.permutations(operations))
    assert outcome(derive(terms, shuffled, others)) == outcome(derive(terms, known, operations))


@given(any_facts, some_operations(), all_terms)
def test_no_facts_and_operations_leave_less_captured_than_goes_back(
    known: list[Fact], operations: list[Operation], terms: Terms
) -> None:
    assert_within_bounds(derive(terms, known, operations).state)


@given(any_facts, some_operations(), all_terms)
def test_a_fact_with_a_known_key_changes_no_operation_either(
    known: list[Fact], operations: list[Operation], terms: Terms
) -> None:
    first_of_each = list({fact.observation.natural_key: fact for fact in reversed(known)}.values())
    assert outcome(derive(terms, first_of_each, operations)) == outcome(derive(terms, known, operations))


@given(any_facts, some_operations(), all_terms)
def test_what_was_written_down_derives_to_itself(known: list[Fact], operations: list[Operation], terms: Terms) -> None:
    once = derive(terms, known, operations)
    assert derive(terms, known, once.operations) == once


_BETTER_KNOWN: dict[str, set[str]] = {
    "submitted": {"submitted", "succeeded", "failed", "reversed"},
    "failed": {"failed", "submitted", "succeeded", "reversed"},  # a refusal may be outweighed by what the gateway has
    "succeeded": {"succeeded", "reversed"},
    "reversed": {"reversed"},
}


@given(any_facts, any_observation, some_operations())
def test_learning_more_never_makes_an_operation_less_known(
    known: list[Fact], more: Observation, operations: list[Operation]
) -> None:
    operations = [replace(o, gateway_reference=None) for o in operations]
    about_other_refunds = {fact.observation.object_reference for fact in known}
    before = derive(AUTOMATIC, known, operations)
    after = derive(AUTOMATIC, [*known, Fact(more, FactSource.WEBHOOK, A_MOMENT)], operations)
    if more.operation is not None and more.object_reference in about_other_refunds:
        return  # it may say that a refund belongs to another operation than was thought
    for was, now in zip(before.operations, after.operations, strict=True):
        assert now.status in _BETTER_KNOWN.get(was.status, set(OperationStatus)), (was.status, now.status)


@st.composite
def refunds_by_any_name(draw: st.DrawFn) -> tuple[list[Operation], list[Observation]]:
    """Refunds of ours and of the dashboard, told by answers that name both and by webhooks that may name neither."""
    operations: list[Operation] = []
    told: list[Observation] = [captured()]
    for number in range(draw(st.integers(1, 3))):
        amount = Money(draw(st.sampled_from([200, 200, 300])), "EUR")
        mine = draw(st.booleans())
        kinds = draw(st.lists(st.sampled_from([k for k in RETURNS if k.startswith("refund_")]), min_size=1, max_size=3))
        if mine:
            operations.append(
                an_operation(
                    OperationKind.REFUND,
                    OperationStatus.PENDING,
                    operation_id=f"op_{number}",
                    reference=OURS[number],
                    amount=amount,
                    call=CallState.UNANSWERED,
                    calls=1,
                )
            )
            told.append(Observation(kinds[0], f"re_{number}", amount, about="pi_1", operation=OURS[number]))
        for kind in kinds:
            echo = OURS[number] if mine and draw(st.booleans()) else None
            told.append(Observation(kind, f"re_{number}", draw(st.just(amount) | st.none()), operation=echo))
    return operations, told


def learnt_one_by_one(operations: Sequence[Operation], told: Iterable[Observation]) -> Derived:
    """As record_facts does it: what is derived is written down, refunds of nobody's become rows."""
    facts: list[Fact] = []
    found = derive(AUTOMATIC, facts, operations)
    for observation in told:
        facts.append(Fact(observation, FactSource.WEBHOOK, A_MOMENT))
        found = derive(AUTOMATIC, facts, found.operations)
        imported = [
            an_operation(
                OperationKind.REFUND,
                claim.status,
                operation_id=f"import_{claim.object_reference}",
                reference=f"IMPORT{claim.object_reference}",
                amount=Money(claim.amount_minor, "EUR"),
                origin=Origin.GATEWAY,
                call=CallState.ANSWERED,
                gateway_reference=claim.object_reference,
            )
            for claim in found.imported
            if claim.amount_minor > 0
        ]
        found = derive(AUTOMATIC, facts, (*found.operations, *imported))
        assert_within_bounds(found.state)
    return found


@given(refunds_by_any_name(), st.data())
def test_a_refund_is_counted_once_whichever_name_is_heard_first(
    world: tuple[list[Operation], list[Observation]], data: st.DataObject
) -> None:
    """RF9, RF10: an import that was written too early counts for nothing once our answer names it."""
    operations, told = world
    at_once = derive(AUTOMATIC, [Fact(o, FactSource.WEBHOOK, A_MOMENT) for o in told], operations)
    found = learnt_one_by_one(operations, data.draw(st.permutations(told)))
    assert found.state == at_once.state
    own = [o for o in found.operations if o.origin is not Origin.GATEWAY]
    assert [o.status for o in own] == [o.status for o in at_once.operations]
    counted = [o for o in found.operations if o.status is OperationStatus.SUCCEEDED]
    assert sum(o.amount.amount_minor for o in counted) == found.state.amount_refunded
