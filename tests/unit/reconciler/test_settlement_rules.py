"""The rules that judge lines against our books, as tables (RC5, RC6, RC8, RC12)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.reconciler.domain.cases import Action, Subject
from services.reconciler.domain.limited_findings import Limited
from services.reconciler.domain.loose_lines import LooseLine, fee_differs, unknown_line
from services.reconciler.domain.mirror import MovementKind
from services.reconciler.domain.payment_books import BookLine, BookMovement, PaymentBooks, judge_payment
from services.reconciler.domain.payouts import Payout, judge_payout, rounding_minor
from services.reconciler.domain.settlement_rules import Coverage, Due, FeeRule, SettlementRules, due

NOW = datetime(2026, 2, 1, tzinfo=UTC)
AT = datetime(2026, 1, 5, tzinfo=UTC)
ALL_DUE = Due(AT - timedelta(days=1), NOW)
NONE_DUE = Due(AT, None)


def moved(kind: str, amount: int, reference: str = "") -> BookMovement:
    return BookMovement(MovementKind(kind), reference or kind, amount, "INR", AT)


def told(kind: str, amount: int, of: str | None = "", *, currency: str = "INR", place: int = 1) -> BookLine:
    of_kind = MovementKind(kind.removesuffix("_reversal"))
    of = of_kind.value if of == "" else of
    return BookLine("stf_1", place, kind, of_kind, currency, amount, of or "theirs", of, place, 1)


def books(movements: list[BookMovement], lines: list[BookLine]) -> PaymentBooks:
    return PaymentBooks("pay_1", "ord_1", "razorpay", "", "INR", tuple(movements), tuple(lines))


SALE = moved("sale", 1_000)
PARTLY = moved("refund", 300)
JUDGED = {
    "agrees": ([SALE], [told("sale", 1_000)], []),
    "agrees with its refund": ([SALE, PARTLY], [told("sale", 1_000), told("refund", -300, place=2)], []),
    "agrees in parts": ([SALE], [told("sale", 400), told("sale", 600, place=2)], []),
    "short": ([SALE], [told("sale", 999)], [("amount_differs", -1)]),
    "too much": ([SALE], [told("sale", 1_001)], [("amount_differs", 1)]),
    "with the wrong sign": ([SALE], [told("sale", -1_000)], [("amount_differs", -2_000)]),
    "twice": ([SALE], [told("sale", 1_000), told("sale", 1_000, place=2)], [("settled_twice", 1_000)]),
    "another currency": ([SALE], [told("sale", 1_000, currency="USD")], [("currency_differs", None)]),
    "refund too large": ([SALE, PARTLY], [told("sale", 1_000), told("refund", -310)], [("amount_differs", -10)]),
    "refund twice": (
        [SALE, PARTLY],
        [told("sale", 1_000), told("refund", -300), told("refund", -300, place=2)],
        [("settled_twice", -300)],
    ),
    "refund taken back that stands in our books": (
        [SALE, PARTLY],
        [told("sale", 1_000), told("refund", -300), told("refund_reversal", 300, place=2)],
        [("amount_differs", 300)],
    ),
    "refund and its reversal of which we know nothing": (
        [SALE],
        [told("sale", 1_000), told("refund", -300, None), told("refund_reversal", 300, None, place=2)],
        [],
    ),
    "netted": ([SALE, PARTLY], [told("sale", 700)], [("refund_netted", -300)]),
    "one of two refunds netted, the other told": (
        [SALE, PARTLY, moved("refund", 200, "second")],
        [told("sale", 800), told("refund", -300)],
        [("refund_netted", -200)],
    ),
    "one of two refunds netted, the other absent": (
        [SALE, PARTLY, moved("refund", 200, "second")],
        [told("sale", 800)],
        [("refund_netted", -200), ("not_settled", 300)],
    ),
    "less than netted": ([SALE, PARTLY], [told("sale", 701)], [("amount_differs", -299), ("not_settled", 300)]),
    "absent": ([SALE], [], [("not_settled", -1_000)]),
    "refund absent": ([SALE, PARTLY], [told("sale", 1_000)], [("not_settled", 300)]),
    "unknown refund": ([SALE], [told("sale", 1_000), told("refund", -5, None)], [("unknown_refund", -5)]),
    "unknown chargeback": ([SALE], [told("sale", 1_000), told("chargeback", -9, None)], [("unknown_chargeback", -9)]),
    "a sale of a payment without money": ([], [told("sale", 1_000, None)], [("unknown_line", 1_000)]),
}


@pytest.mark.parametrize(("movements", "lines", "found"), JUDGED.values(), ids=list(JUDGED))
def test_a_payment_is_judged(
    movements: list[BookMovement], lines: list[BookLine], found: list[tuple[str, int | None]]
) -> None:
    for some in permutations(movements):
        for others in permutations(lines):
            findings = judge_payment(books(list(some), list(others)), ALL_DUE)
            assert sorted((f.scenario.value, f.difference_minor) for f in findings) == sorted(found)
            assert len({finding.key for finding in findings}) == len(findings)
            assert all(len(finding.key) <= 200 for finding in findings)
            unknown = [f for f in findings if f.scenario.value.startswith("unknown")]
            assert all(finding.action is Action.SYNC for finding in unknown)


def test_nothing_is_absent_before_it_is_due() -> None:
    assert judge_payment(books([SALE], []), NONE_DUE) == []
    assert judge_payment(books([SALE], []), Due(AT - timedelta(days=1), AT)) == []


@pytest.mark.parametrize(
    ("gateway", "days", "covered", "until"),
    [
        ("razorpay", {}, NOW, NOW - timedelta(days=5)),
        ("razorpay", {"razorpay": 9}, NOW, NOW - timedelta(days=9)),
        ("razorpay", {}, AT, AT),  # no file covers more
        ("razorpay", {}, None, None),
        ("somebody", {}, NOW, NOW - timedelta(days=7)),
    ],
)
def test_what_is_due(gateway: str, days: dict[str, int], covered: datetime | None, until: datetime | None) -> None:
    found = due(SettlementRules(delay_days=days), gateway, Coverage(None, covered), now=NOW)
    assert found == Due(NOW - timedelta(days=90), until)


def test_nothing_is_due_from_before_the_first_file() -> None:
    """An installation that begins to send files in is not told that all of its history is unsettled."""
    first = (NOW - timedelta(days=20)).replace(hour=0, minute=0, second=0, microsecond=0)
    assert due(SettlementRules(), "stripe", Coverage(first + timedelta(hours=9), NOW), now=NOW).since == first
    grown = Coverage(first, None).with_file(first - timedelta(days=10), NOW)
    assert due(SettlementRules(), "stripe", grown, now=NOW).since == first - timedelta(days=10)


def payout(lines_minor: int, stated: int | None, *, lines: int = 2, age_days: float = 0) -> Payout:
    return Payout("razorpay", "", "setl_1", "INR", lines_minor, lines, stated, NOW - timedelta(days=age_days))


@pytest.mark.parametrize(
    ("of", "is_usual", "tolerance", "found"),
    [
        (payout(100, 100), True, 0, None),
        (payout(100, 99), True, 0, ("payout_differs", -1)),
        (payout(-100, -99), True, 0, ("payout_differs", 1)),
        (payout(100, 99), True, 1, None),
        (payout(100, 98), True, 1, ("payout_differs", -2)),
        (payout(100, None, age_days=6.9), True, 0, None),
        (payout(100, None, age_days=7), True, 0, ("payout_missing", None)),
        (payout(100, None, age_days=99), False, 0, None),
        (payout(0, 100, lines=0, age_days=6), True, 0, None),
        (payout(0, 100, lines=0, age_days=7), True, 0, ("payout_differs", 100)),
    ],
)
def test_a_payout_is_judged(of: Payout, is_usual: bool, tolerance: int, found: tuple[str, int | None] | None) -> None:
    rules = SettlementRules(payout_rounding_minor=tolerance)
    finding = judge_payout(of, rules, is_stated_usually=is_usual, now=NOW)
    assert (finding and (finding.scenario.value, finding.difference_minor)) == found


@given(st.integers(-1_000, 1_000), st.integers(-1_000, 1_000), st.integers(0, 5))
def test_what_a_payout_differs_by_is_a_case_or_booked_never_both_and_never_neither(
    lines: int, stated: int, tolerance: int
) -> None:
    rules, of = SettlementRules(payout_rounding_minor=tolerance), payout(lines, stated)
    is_case = judge_payout(of, rules, is_stated_usually=True, now=NOW) is not None
    booked = rounding_minor(of, rules)
    assert abs(booked) <= tolerance, "rounding has a bound (failure RC5)"
    assert is_case != (booked != 0 or stated == lines)
    assert stated == lines - booked or is_case


def a_loose_line(**changes: object) -> LooseLine:
    line = LooseLine("razorpay", "", "stf_1", 7, "sale", "INR", 10_050, 201, 36, "sale_1", None, AT, -5, 1)
    return replace(line, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fee", "tax", "tolerance", "difference"),
    [(201, 36, 0, None), (202, 36, 0, -1), (202, 37, 1, None), (203, 36, 1, -2), (200, 34, 1, 3), (0, 0, 1, 237)],
)
def test_a_fee_is_judged(fee: int, tax: int, tolerance: int, difference: int | None) -> None:
    rule = FeeRule(basis_points=200, tax_percent=18, tolerance_minor=tolerance)
    finding = fee_differs(a_loose_line(fee_minor=fee, tax_minor=tax), rule)
    assert (finding and finding.difference_minor) == difference


def test_a_line_is_named_by_its_content_and_not_by_its_place() -> None:
    elsewhere = a_loose_line(file_id="stf_2", line_number=9)
    assert unknown_line(a_loose_line(), []).key == unknown_line(elsewhere, []).key
    assert unknown_line(a_loose_line(), []).key != unknown_line(a_loose_line(occurrence=2), []).key


@given(st.permutations(range(9)), st.sets(st.integers(0, 8)))
def test_the_first_findings_and_a_count_of_the_rest_whatever_the_order(order: list[int], open_now: set[int]) -> None:
    found = [unknown_line(a_loose_line(identity=number), []) for number in range(9)]
    always = {found[number].key for number in open_now}
    limited = Limited(Subject(), "file", always=always, limit=2)
    limited.add([found[number] for number in order])
    keys = [finding.key for finding in limited.findings()]
    others = sorted(finding.key for finding in found if finding.key not in always)
    rest = ["unknown_line:rest:file"] if len(others) > 2 else []
    assert keys == [*sorted(always), *others[:2], *rest]


def test_looking_again_opens_no_more_cases_than_the_limit() -> None:
    found = [unknown_line(a_loose_line(identity=number), []) for number in range(9)]
    limited = Limited(Subject(), "account", always={found[3].key, found[4].key}, counts_always=True, limit=2)
    limited.add(found)
    *kept, rest = limited.findings()
    assert [finding.key for finding in kept] == sorted([found[3].key, found[4].key])
    assert rest.evidence == {"summary": True, "more": 7}
