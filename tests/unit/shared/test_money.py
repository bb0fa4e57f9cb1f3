"""Money is exact or an error."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import InvalidAmount
from shared.money import CURRENCY_EXPONENT, Money

currencies = st.sampled_from(sorted(CURRENCY_EXPONENT))
amounts = st.integers(-(2**63) + 1, 2**63 - 1)


@given(amounts.filter(lambda amount: abs(amount) < 10**18), currencies)
def test_major_units_and_back_is_the_same_money(amount: int, currency: str) -> None:
    money = Money(amount, currency)
    assert Money.from_major(money.as_major(), currency) == money
    assert Money.from_major(f"{money.as_major():f}", currency) == money


@given(amounts, currencies)
def test_major_units_have_exactly_the_currencys_digits(amount: int, currency: str) -> None:
    assert -int(Money(amount, currency).as_major().as_tuple().exponent) == CURRENCY_EXPONENT[currency]


@pytest.mark.parametrize(
    ("text", "currency", "minor"),
    [
        ("10.50", "USD", 1050),
        ("10.5", "USD", 1050),
        ("1050", "JPY", 1050),
        ("1.050", "KWD", 1050),
        ("10.500", "USD", 1050),
        ("-3.25", "EUR", -325),
        ("0", "INR", 0),
        (" 7 ", "INR", 700),
        (".5", "USD", 50),
        ("5.", "USD", 500),
    ],
)
def test_a_gateways_decimal_is_read_exactly(text: str, currency: str, minor: int) -> None:
    assert Money.from_major(text, currency) == Money(minor, currency)


@pytest.mark.parametrize(
    "text",
    [
        "10.505",
        "",
        " ",
        "ten",
        "NaN",
        "Infinity",
        "-Infinity",
        "sNaN",
        "1e3",
        "1E2",
        "1_000",
        "1,000",
        "1.000,00",
        "١٢",
        "１２",
        "0x10",
        "1." + "0" * 30 + "1",
        "9" * 40,
        "1" + "0" * 400,
        "--1",
        "1.2.3",
        "1 0",
        "$10",
        "\x00",
        "+",
        ".",
    ],
)
def test_what_is_not_exactly_an_amount_is_refused(text: str) -> None:
    with pytest.raises(InvalidAmount):
        Money.from_major(text, "USD")


@pytest.mark.parametrize("value", [10.5, 10, True, None, b"10", [], {}])
def test_only_text_and_decimals_are_major_units(value: Any) -> None:
    with pytest.raises(InvalidAmount):
        Money.from_major(value, "USD")


@pytest.mark.parametrize(
    "value", [Decimal("NaN"), Decimal("1e30"), Decimal("1e-30"), Decimal("0.001"), Decimal("1." + "0" * 40 + "1")]
)
def test_a_decimal_that_the_currency_cannot_hold_is_refused(value: Decimal) -> None:
    with pytest.raises(InvalidAmount):
        Money.from_major(value, "USD")


@pytest.mark.parametrize("amount", [1.0, 10.5, True, False, "10", None, Decimal(10), 2**63, -(2**63)])
def test_only_an_integer_that_fits_a_bigint_is_an_amount(amount: Any) -> None:
    with pytest.raises(InvalidAmount):
        Money(amount, "USD")


@pytest.mark.parametrize("currency", ["usd", "US", "USDT", "XXX", "", "ÜSD", "840", None])
def test_a_currency_that_iso_4217_does_not_know_is_refused(currency: Any) -> None:
    with pytest.raises(InvalidAmount):
        Money(1, currency)
    with pytest.raises(InvalidAmount):
        Money.from_major("1", currency)


def test_currencies_do_not_mix() -> None:
    for mixed in (
        lambda: Money(1, "USD") + Money(1, "EUR"),
        lambda: Money(1, "USD") - Money(1, "EUR"),
        lambda: Money(1, "USD") < Money(1, "EUR"),
        lambda: Money(1, "USD") <= Money(1, "EUR"),
    ):
        with pytest.raises(InvalidAmount):
            mixed()
    assert Money(1, "USD") != Money(1, "EUR")


@pytest.mark.parametrize("factor", [1.5, True, "2", None])
def test_money_is_multiplied_by_whole_numbers_only(factor: Any) -> None:
    with pytest.raises(InvalidAmount):
        Money(1, "USD") * factor


def test_sums_and_text() -> None:
    assert Money(1050, "USD") + Money(50, "USD") - Money(100, "USD") == Money(1000, "USD")
    assert Money(350, "USD") * 3 == Money(1050, "USD")
    assert str(Money(1050, "KWD")) == "1.050 KWD"
    assert str(Money(1050, "JPY")) == "1050 JPY"


def test_a_gateway_may_count_its_minor_units_otherwise() -> None:
    stripe = {**CURRENCY_EXPONENT, "ISK": 2}
    assert Money.from_major("12.00", "ISK", stripe).amount_minor == 1200
