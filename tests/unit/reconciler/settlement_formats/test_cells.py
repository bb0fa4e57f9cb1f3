"""Amounts, dates and currencies are read exactly or not at all (failure RC3)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.reconciler.settlement_formats.cells import (
    DAY_FIRST,
    ISO,
    IST_ZONE,
    SLASHES,
    UTC_ZONE,
    AmountStyle,
    BadCell,
    Unit,
    currency_of,
    moment_reader,
)
from services.reconciler.settlement_formats.table_rows import Amounts
from shared.money import CURRENCY_EXPONENT, Money

PLAIN, GROUPED = AmountStyle(), AmountStyle(grouped=True)


@pytest.mark.parametrize(
    ("text", "currency", "minor"),
    [
        ("19.99", "USD", 1999),
        ("-19.99", "USD", -1999),
        ("+5", "USD", 500),
        ("5.5", "USD", 550),
        ("5.500", "USD", 550),
        ("-0.00", "USD", 0),
        ("1999", "JPY", 1999),
        ("1999.00", "JPY", 1999),
        ("1.999", "KWD", 1999),
        (" 19.99 ", "USD", 1999),
    ],
)
def test_major_units(text: str, currency: str, minor: int) -> None:
    assert PLAIN.read(text, currency) == minor


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "n/a", "NaN", "inf", "1e3", "1_000", "19,99", "1,000.00", "1 000.00", "1.000.00", "١٩.٩٩", "１９.９９",
        "19.99 USD", "$19.99", "(19.99)", "19.99-", "--5", "=1+1", "'5", "0x10", ".5", "5.", "1\n9.99", "\ufeff5",
        "5.001", "9" * 30, "0." + "1" * 30, "1.555 ", "⑤", "5\u00a0", "−5",
    ],
)  # fmt: skip
def test_what_is_no_amount_is_never_guessed(text: str) -> None:
    with pytest.raises(BadCell):
        PLAIN.read(text, "USD")
    with pytest.raises(BadCell):
        Amounts("USD", PLAIN)[text]


def test_thousands_are_apart_only_where_the_format_says_so_and_where_they_belong() -> None:
    assert GROUPED.read("1,234,567.89", "USD") == 123456789
    assert GROUPED.read("12,34,567.89", "INR") == 123456789
    assert GROUPED.read("1234567.89", "USD") == 123456789
    for wrong in ("12,34.00", "1,2345.00", ",123.00", "1,23", "19,99", "1,234,", "1.234,00", "1,,234.00"):
        with pytest.raises(BadCell):
            GROUPED.read(wrong, "USD")


def test_units() -> None:
    assert AmountStyle(Unit.MINOR).read("1999", "USD") == 1999
    hundredths = AmountStyle(Unit.HUNDREDTHS)
    assert [hundredths.read("10000", currency) for currency in ("USD", "JPY", "KWD")] == [10000, 100, 100000]
    for style, text in ((hundredths, "10050"), (AmountStyle(Unit.MINOR), "19.99"), (hundredths, "1.00")):
        with pytest.raises(BadCell):
            style.read(text, "JPY")


def test_a_number_without_a_point_says_nothing_where_the_unit_is_not_documented() -> None:
    style = AmountStyle(point_required=True)
    assert style.read("499.00", "INR") == 49900
    with pytest.raises(BadCell) as bad:
        style.read("49900", "INR")
    assert bad.value.code == "amount_unit_unknown"


@given(st.integers(-(10**15) + 1, 10**15 - 1), st.sampled_from(sorted(CURRENCY_EXPONENT)))
def test_what_money_writes_is_read_back(minor: int, currency: str) -> None:
    assert PLAIN.read(f"{Money(minor, currency).as_major():f}", currency) == minor


_CHARACTERS = st.text("0123456789.,-+ eE٣५Ⅷ²", max_size=8)


@settings(max_examples=400)
@given(_CHARACTERS, st.sampled_from(["USD", "JPY", "KWD"]), st.sampled_from([PLAIN, GROUPED]))
def test_the_short_way_has_the_answer_of_the_careful_one(text: str, currency: str, style: AmountStyle) -> None:
    def answer(read: object) -> object:
        try:
            return read()  # type: ignore[operator]
        except BadCell as bad:
            return bad.code, bad.why

    amounts = Amounts(currency, style)
    careful = answer(lambda: style.read(text, currency))
    assert answer(lambda: amounts[text]) == careful
    assert answer(lambda: amounts[text]) == careful  # from memory


@pytest.mark.parametrize("text", ["", "US", "USDD", "uſd", "ＵＳＤ", "XXX", "US D", "840", "₹"])
def test_a_currency_is_one_of_iso_4217(text: str) -> None:
    assert currency_of(" usd ") == "USD"
    with pytest.raises(BadCell):
        currency_of(text)


def test_dates() -> None:
    read = moment_reader((ISO, DAY_FIRST, SLASHES), IST_ZONE)
    ist = timezone(timedelta(hours=5, minutes=30))
    assert read("2026-01-02 03:04:05") == datetime(2026, 1, 2, 3, 4, 5, tzinfo=ist)
    assert read("02/01/2026 03:04:05") == datetime(2026, 1, 2, 3, 4, 5, tzinfo=ist)
    assert read("02-01-2026") == datetime(2026, 1, 2, 23, 59, 59, tzinfo=ist), "a day alone is its end"
    assert read("2026-01-02T03:04:05.678Z") == datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
    assert read("2026/01/02 03:04:05 -0800") == datetime(2026, 1, 2, 11, 4, 5, tzinfo=UTC)
    assert moment_reader((ISO,), UTC_ZONE)("2026-01-02") == datetime(2026, 1, 2, 23, 59, 59, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "", "n/a", "2026-13-01", "2026-02-30", "01/13/2026", "2026-01-02 25:00:00", "20260102", "2026-W01-1", "1/2/26",
        "0026-01-02", "2026-01-02 3:04", "٢٠٢٦-٠١-٠٢", "2026-W01-1 00:00:00", "46000", "2026-01-02 03:04:05 PM",
        "2026-01-02T03:04:05+25:00",
    ],
)  # fmt: skip
def test_what_is_no_date_of_the_layout_is_never_guessed(text: str) -> None:
    with pytest.raises(BadCell) as bad:
        moment_reader((ISO, DAY_FIRST), UTC_ZONE)(text)
    assert bad.value.code == "date_unreadable"
