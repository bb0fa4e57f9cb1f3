from __future__ import annotations

import random
from contextlib import suppress
from datetime import timedelta
from decimal import Decimal
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway_sandbox.domain.deliveries import Delivery, next_try_at
from services.gateway_sandbox.domain.faults import OPERATIONS, Fault, FaultKind
from services.gateway_sandbox.domain.json_text import from_json, to_json
from services.gateway_sandbox.domain.models import (
    BookCapture,
    BookDispute,
    BookEntry,
    BookRefund,
    CaptureMode,
    EntryStatus,
    IllegalMove,
    MoreThanThereIs,
    RefundStatus,
)
from services.gateway_sandbox.gateways.port import WireError
from services.gateway_sandbox.gateways.stripe import money
from services.gateway_sandbox.gateways.stripe.search import parse_query
from services.gateway_sandbox.use_cases.books import TransactionBooks
from services.gateway_sandbox.use_cases.ports import SandboxTransaction
from shared.errors import InvalidRequest
from tests.support.clock import A_MOMENT, fake_ports


def an_entry(*, capture: CaptureMode = CaptureMode.AUTOMATIC, status: EntryStatus = EntryStatus.OPEN) -> BookEntry:
    return BookEntry(
        gateway="generic",
        gateway_reference="gp_1",
        reference="REF1",
        order_id=None,
        amount_minor=1000,
        currency="USD",
        capture=capture,
        success_url="http://shop/ok",
        cancel_url=None,
        page_token="token",
        created_at=A_MOMENT,
        expires_at=A_MOMENT + timedelta(hours=1),
        status=status,
    )


def a_held_entry() -> BookEntry:
    entry = an_entry(capture=CaptureMode.MANUAL)
    entry.pay()
    return entry


def test_automatic_capture_takes_everything_at_once() -> None:
    entry = an_entry()
    entry.pay()
    assert (entry.status, entry.captured_minor, entry.capturable_minor) == (EntryStatus.COMPLETED, 1000, 0)


def test_a_final_capture_releases_the_rest_and_another_one_does_not() -> None:
    entry = a_held_entry()
    entry.take(300, final=False)
    assert (entry.status, entry.capturable_minor) == (EntryStatus.AUTHORIZED, 700)
    entry.take(200, final=True)
    assert (entry.status, entry.captured_minor, entry.capturable_minor) == (EntryStatus.COMPLETED, 500, 0)


def test_a_void_keeps_what_was_captured_before() -> None:
    untouched, half_taken = a_held_entry(), a_held_entry()
    half_taken.take(500, final=False)
    untouched.release()
    half_taken.release()
    assert (untouched.status, half_taken.status) == (EntryStatus.CANCELED, EntryStatus.COMPLETED)


@pytest.mark.parametrize("status", [EntryStatus.EXPIRED, EntryStatus.CANCELED, EntryStatus.FAILED])
def test_an_ended_session_is_paid_only_by_late_money(status: EntryStatus) -> None:
    entry = an_entry(status=status)
    with pytest.raises(IllegalMove):
        entry.pay()
    entry.pay(late=True)
    assert entry.captured_minor == 1000


def test_late_money_does_not_pay_twice() -> None:
    entry = an_entry()
    entry.pay()
    with pytest.raises(IllegalMove):
        entry.pay(late=True)


@given(st.lists(st.integers(-10, 1500), max_size=8), st.lists(st.integers(-10, 1500), max_size=8))
def test_refunded_never_exceeds_captured_nor_captured_the_amount(captures: list[int], refunds: list[int]) -> None:
    entry = a_held_entry()
    for amount in captures:
        with suppress(IllegalMove, MoreThanThereIs):
            entry.take(amount, final=False)
    for amount in refunds:
        with suppress(MoreThanThereIs):
            entry.give_back(amount)
    assert 0 <= entry.refunded_minor <= entry.captured_minor <= entry.amount_minor


def a_refund(amount_minor: int = 400, status: RefundStatus = "pending") -> BookRefund:
    return BookRefund("generic", "gr_1", "gp_1", None, amount_minor, status, None, created_at=A_MOMENT)


def a_capture(amount_minor: int) -> BookCapture:
    return BookCapture("generic", "gc_1", "gp_1", None, amount_minor, "pending", is_final=True, created_at=A_MOMENT)


@pytest.mark.parametrize(
    ("before", "after", "refunded_minor"),
    [
        ("pending", "succeeded", 400),
        ("pending", "failed", 0),
        ("succeeded", "failed", 0),
        ("succeeded", "reversed", 0),
        ("succeeded", "succeeded", 400),
    ],
)
def test_a_refund_that_does_not_reach_the_buyer_is_the_shops_again(
    before: RefundStatus, after: RefundStatus, refunded_minor: int
) -> None:
    entry, refund = an_entry(), a_refund(status=before)
    entry.pay()
    entry.give_back(400)
    assert refund.move(after, entry) is (before != after)
    assert (refund.status, entry.refunded_minor, entry.refundable_minor) == (
        after,
        refunded_minor,
        1000 - refunded_minor,
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [("failed", "succeeded"), ("reversed", "failed"), ("pending", "reversed"), ("failed", "pending")],
)
def test_a_refund_that_has_ended_stays_so(before: RefundStatus, after: RefundStatus) -> None:
    entry = an_entry()
    entry.pay()
    entry.give_back(400)
    with pytest.raises(IllegalMove):
        a_refund(status=before).move(after, entry)
    assert entry.refunded_minor == 400


@given(st.lists(st.sampled_from(["new", "succeeded", "failed", "reversed"]), max_size=30), st.randoms())
def test_the_refunded_total_is_always_the_sum_of_the_refunds_that_count(
    steps: list[str], choice: random.Random
) -> None:
    entry, refunds = an_entry(), [a_refund(1, "failed")]
    entry.pay()
    for step in steps:
        with suppress(IllegalMove, MoreThanThereIs):
            if step == "new":
                amount_minor = choice.randint(1, 600)
                entry.give_back(amount_minor)
                refunds.append(a_refund(amount_minor))
            else:
                choice.choice(refunds).move(cast("RefundStatus", step), entry)
    counted = sum(refund.amount_minor for refund in refunds if refund.status in ("pending", "succeeded"))
    assert entry.refunded_minor == counted <= entry.captured_minor


def test_a_pending_capture_that_fails_gives_the_money_back() -> None:
    entry, capture = a_held_entry(), a_capture(1000)
    entry.take(1000, final=True)
    assert capture.move("failed", entry)
    assert (capture.status, entry.captured_minor) == ("failed", 0)
    with pytest.raises(IllegalMove):
        capture.move("succeeded", entry)


def test_a_hold_that_lapses_keeps_what_was_captured_before() -> None:
    untouched, half_taken = a_held_entry(), a_held_entry()
    half_taken.take(500, final=False)
    untouched.lapse()
    half_taken.lapse()
    assert (untouched.status, half_taken.status) == (EntryStatus.EXPIRED, EntryStatus.COMPLETED)
    with pytest.raises(IllegalMove):
        untouched.lapse()


def test_a_dispute_is_decided_once() -> None:
    dispute = BookDispute("generic", "gd_1", "gp_1", 1000, "open", "fraudulent", created_at=A_MOMENT)
    assert dispute.close("won", A_MOMENT)
    assert not dispute.close("won", A_MOMENT)
    with pytest.raises(IllegalMove):
        dispute.close("lost", A_MOMENT)
    assert (dispute.status, dispute.closed_at) == ("won", A_MOMENT)


def test_no_more_is_disputed_than_was_captured() -> None:
    entry = a_held_entry()
    entry.take(500, final=True)
    entry.check_disputable(500)
    with pytest.raises(MoreThanThereIs):
        entry.check_disputable(501)


def test_a_decimal_keeps_its_digits_in_json() -> None:
    body = {"amount": Decimal("150.00"), "small": Decimal("0.001"), "none": None, "list": [1, "ä\n", True]}
    assert to_json(body) == '{"amount":150.00,"small":0.001,"none":null,"list":[1,"\\u00e4\\n",true]}'
    assert from_json(to_json(body).encode()) == body


def test_a_float_never_goes_on_the_wire() -> None:
    with pytest.raises(TypeError):
        to_json({"amount": 1.5})


@pytest.mark.parametrize("text", [b'{"amount": NaN}', b'{"amount": 1, "amount": 2}', b"{", b"\xff"])
def test_json_that_can_be_read_in_two_ways_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any of its kinds
        from_json(text)


@pytest.mark.parametrize("operation", sorted(OPERATIONS))
def test_a_fault_fits_its_operation(operation: str) -> None:
    kinds = {kind for kind in FaultKind if _is_accepted(Fault(operation, kind))}
    if operation == "webhook":
        assert kinds == {
            FaultKind.DUPLICATE,
            FaultKind.REORDER,
            FaultKind.LOSE,
            FaultKind.LATE,
            FaultKind.WRONG_AMOUNT,
        }
    else:
        assert FaultKind.TIMEOUT_AFTER in kinds
        assert (FaultKind.WRONG_AMOUNT in kinds) == (operation in ("retrieve", "list"))
        assert (FaultKind.PENDING in kinds) == (operation in ("complete", "capture", "refund"))
        assert (FaultKind.REJECT in kinds) == (operation in ("complete", "capture", "void", "refund"))


def _is_accepted(fault: Fault) -> bool:
    try:
        fault.check()
    except InvalidRequest:
        return False
    return True


def a_delivery(tries: int) -> Delivery:
    return Delivery("stripe", "evt_1", "t", "cs_1", "{}", created_at=A_MOMENT, next_try_at=A_MOMENT, tries=tries)


def test_waits_between_tries_grow_until_the_gateway_gives_up() -> None:
    waits = [next_try_at(a_delivery(tries), A_MOMENT, 1.0) for tries in range(1, 12)]
    seconds = [(moment - A_MOMENT).total_seconds() for moment in waits if moment]
    assert seconds[:6] == [1, 2, 5, 15, 60, 300]
    assert seconds == sorted(seconds)
    assert next_try_at(a_delivery(20), A_MOMENT + timedelta(days=3), 1.0) is None


@pytest.mark.parametrize(
    ("currency", "wire", "minor"),
    [
        ("USD", 1999, 1999),
        ("JPY", 500, 500),
        ("KWD", 5120, 5120),
        ("ISK", 50000, 500),
        ("UGX", 50000, 500),
        ("MGA", 5, 500),
    ],
)
def test_stripes_minor_units_become_iso_minor_units(currency: str, wire: int, minor: int) -> None:
    assert money.to_books(wire, currency, param="amount") == minor
    assert money.to_wire(minor, currency) == wire


@pytest.mark.parametrize(("currency", "wire"), [("KWD", 5123), ("UGX", 150), ("ISK", 1)])
def test_amounts_that_stripe_cannot_charge_are_refused(currency: str, wire: int) -> None:
    with pytest.raises(WireError):
        money.to_books(wire, currency, param="amount")


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("metadata['order_ref']:'A'", True),
        ('metadata["order_ref"]:"B"', False),
        ("status:'succeeded' AND metadata['order_ref']:'A'", True),
        ("status:'canceled' OR currency:'USD'", True),
    ],
)
def test_search_finds_by_metadata_and_status(query: str, found: bool) -> None:
    intent = {"status": "succeeded", "currency": "usd", "metadata": {"order_ref": "A"}}
    assert parse_query(query)(intent) is found


@pytest.mark.parametrize("query", ["", "amount>5", "metadata['x']", "status:'a' AND"])
def test_a_query_that_is_not_understood_is_refused(query: str) -> None:
    with pytest.raises(WireError):
        parse_query(query)


def test_every_id_has_a_digit() -> None:
    """A stranger's line in a settlement file is a known one under other ids, which are told from words by that."""
    books = TransactionBooks(cast("SandboxTransaction", None), gateway="razorpay", ports=fake_ports())
    ids = [books.new_id("order_", 14) for _ in range(500)]
    assert [each for each in ids if not any(map(str.isdigit, each))] == []
    assert len(set(ids)) == len(ids)
    assert {len(each) for each in ids} == {20}
