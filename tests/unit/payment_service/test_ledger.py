"""What changes of a payment's totals post: case by case as an accountant would write them, and as properties."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.payment_service.domain.ledger import Account, Posting, postings
from services.payment_service.domain.models import PaymentState

NOTHING = PaymentState()
HELD = PaymentState(amount_authorized=1000)
CAPTURED = PaymentState(amount_authorized=1000, amount_captured=1000)

_amounts = st.integers(min_value=0, max_value=10**12)


@st.composite
def states(draw: st.DrawFn) -> PaymentState:
    """Any totals that the CHECKs of the payments table allow."""
    captured = draw(_amounts)
    disputed = draw(st.integers(0, captured))
    refunded = draw(st.integers(0, captured - disputed))
    return PaymentState(
        amount_authorized=captured + draw(_amounts),
        amount_captured=captured,
        amount_refunded=refunded,
        amount_refund_pending=draw(st.integers(0, captured - disputed - refunded)),
        amount_disputed=disputed,
        amount_dispute_lost=draw(st.integers(0, disputed)),
        amount_excess=draw(_amounts),
    )


def by_account(lines: Iterable[Posting]) -> dict[str, int]:
    sums: dict[str, int] = {}
    for line in lines:
        sums[line.account.value] = sums.get(line.account.value, 0) + line.amount_minor
    return {account: amount for account, amount in sums.items() if amount}


@pytest.mark.parametrize(
    ("before", "after", "lines"),
    [
        (NOTHING, NOTHING, {}),
        (NOTHING, HELD, {"authorizations_held": 1000, "authorizations_due": -1000}),
        (HELD, NOTHING, {"authorizations_held": -1000, "authorizations_due": 1000}),
        (NOTHING, CAPTURED, {"gateway_receivable": 1000, "customer_payments": -1000}),
        (
            HELD,
            replace(HELD, amount_captured=300),
            {
                "authorizations_held": -300,
                "authorizations_due": 300,
                "gateway_receivable": 300,
                "customer_payments": -300,
            },
        ),
        (
            CAPTURED,
            replace(CAPTURED, amount_refund_pending=400),
            {"customer_payments": 400, "refunds_pending": -400},
        ),
        (
            replace(CAPTURED, amount_refund_pending=400),
            replace(CAPTURED, amount_refunded=400),
            {"refunds_pending": 400, "gateway_receivable": -400},
        ),
        (
            replace(CAPTURED, amount_refund_pending=400),
            CAPTURED,  # it failed: the shopper's money is the shopper's payment again
            {"customer_payments": -400, "refunds_pending": 400},
        ),
        (
            replace(CAPTURED, amount_refunded=400),
            CAPTURED,  # reversed
            {"customer_payments": -400, "gateway_receivable": 400},
        ),
        (
            CAPTURED,
            replace(CAPTURED, amount_disputed=1000),
            {"disputes_withheld": 1000, "gateway_receivable": -1000},
        ),
        (
            replace(CAPTURED, amount_disputed=1000),
            CAPTURED,  # won
            {"disputes_withheld": -1000, "gateway_receivable": 1000},
        ),
        (
            replace(CAPTURED, amount_disputed=1000),
            replace(CAPTURED, amount_disputed=1000, amount_dispute_lost=1000),
            {"disputes_withheld": -1000, "dispute_losses": 1000},
        ),
        (
            replace(CAPTURED, amount_refunded=1000),
            replace(CAPTURED, amount_refunded=1000, amount_excess=250),
            {"returned_in_excess": 250, "gateway_receivable": -250},
        ),
        (CAPTURED, PaymentState(), {"gateway_receivable": -1000, "customer_payments": 1000}),
    ],
)
def test_what_a_change_posts(before: PaymentState, after: PaymentState, lines: dict[str, int]) -> None:
    assert by_account(postings(before, after)) == lines


def test_a_reservation_for_a_capture_moves_nothing() -> None:
    assert postings(HELD, replace(HELD, amount_capture_pending=500)) == ()


@given(states(), states())
def test_every_entry_sums_to_zero_and_has_one_line_an_account(before: PaymentState, after: PaymentState) -> None:
    lines = postings(before, after)
    assert sum(line.amount_minor for line in lines) == 0
    assert all(line.amount_minor for line in lines)
    assert len({line.account for line in lines}) == len(lines)


@given(st.lists(states(), max_size=12))
def test_whatever_path_led_there_the_sum_is_that_of_the_last_state(path: Sequence[PaymentState]) -> None:
    whole = [NOTHING, *path]
    posted = [line for before, after in pairwise(whole) for line in postings(before, after)]
    assert by_account(posted) == by_account(postings(NOTHING, whole[-1]))


@given(states())
def test_balances_say_what_the_totals_say(state: PaymentState) -> None:
    balances = dict.fromkeys((account.value for account in Account), 0) | by_account(postings(NOTHING, state))
    assert balances["customer_payments"] == -(
        state.amount_captured - state.amount_refunded - state.amount_refund_pending
    )
    assert balances["refunds_pending"] == -state.amount_refund_pending
    returned = state.amount_refunded + state.amount_disputed + state.amount_excess
    assert balances["gateway_receivable"] == state.amount_captured - returned
    assert balances["disputes_withheld"] + balances["dispute_losses"] == state.amount_disputed
    assert balances["authorizations_held"] == -balances["authorizations_due"] >= 0
