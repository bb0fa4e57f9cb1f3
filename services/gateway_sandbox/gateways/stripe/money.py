"""Stripe's minor units, where they differ from ISO 4217, and the amounts it refuses."""

from __future__ import annotations

from decimal import Decimal

from services.gateway_sandbox.gateways.stripe.errors import invalid_parameter
from shared.errors import InvalidAmount
from shared.money import CURRENCY_EXPONENT, Money

# ISK and UGX are sent as if they had two decimals, Malagasy ariary as if it had none.
_EXPONENT = {**CURRENCY_EXPONENT, "ISK": 2, "UGX": 2, "MGA": 0}
_LARGEST = 99_999_999

# The minimum that Stripe documents for a charge, in Stripe's minor units; others have no documented minimum.
_SMALLEST = {
    **dict.fromkeys(("USD", "AUD", "BRL", "CAD", "CHF", "EUR", "INR", "NZD", "SGD", "JPY"), 50),
    **dict.fromkeys(("AED", "MYR", "PLN", "RON"), 200),
    **dict.fromkeys(("NOK", "SEK"), 300),
    **dict.fromkeys(("MXN", "THB"), 1000),
    "CZK": 1500,
    "DKK": 250,
    "GBP": 30,
    "HKD": 400,
    "HUF": 17500,
}


def currency_of(text: str, *, param: str) -> str:
    """ISO 4217 in upper case, from Stripe's lower-case code."""
    currency = text.upper()
    if currency not in CURRENCY_EXPONENT:
        message = f"Invalid currency: {text.lower()}. Stripe supports usd, aed, eur, inr, jpy, kwd, sar, ..."
        raise invalid_parameter(message, param=param)
    return currency


def to_books(wire_amount: int, currency: str, *, param: str) -> int:
    """ISO minor units. Raises WireError for digits that the currency cannot carry."""
    if CURRENCY_EXPONENT[currency] == 3 and wire_amount % 10:
        message = f"Invalid amount: {wire_amount} must be evenly divisible by 10 for {currency.lower()}"
        raise invalid_parameter(message, param=param)
    try:
        return Money.from_major(Decimal(wire_amount).scaleb(-_EXPONENT[currency]), currency).amount_minor
    except InvalidAmount:
        message = f"Invalid amount: {wire_amount} must be a multiple of 100 for {currency.lower()}"
        raise invalid_parameter(message, param=param) from None


def to_wire(amount_minor: int, currency: str) -> int:
    return int(Money(amount_minor, currency).as_major().scaleb(_EXPONENT[currency]))


def check_chargeable(wire_amount: int, currency: str, *, param: str) -> None:
    smallest = _SMALLEST.get(currency, 1)
    if wire_amount < smallest:
        message = f"The total amount must be at least {smallest} in the smallest unit of {currency.lower()}"
        raise invalid_parameter(message, param=param, code="amount_too_small")
    if wire_amount > _LARGEST:
        message = f"Amount must be no more than {_LARGEST} in the smallest unit of {currency.lower()}"
        raise invalid_parameter(message, param=param, code="amount_too_large")
