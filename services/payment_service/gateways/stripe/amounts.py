"""Stripe's integers and ours, exact both ways or refused."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from services.payment_service.domain.errors import CurrencyNotSupported
from services.payment_service.gateways.json_reading import UnexpectedShape, sane, text_of, whole_number
from shared.money import CURRENCY_EXPONENT, Money

# Stripe's exponents where they are not ISO 4217's: these two have no usable decimals but are sent times 100; Malagasy
# ariary is sent whole.
STRIPE_EXPONENT: Mapping[str, int] = {**CURRENCY_EXPONENT, "ISK": 2, "UGX": 2, "MGA": 0}
_WHOLE_HUNDREDS = frozenset({"ISK", "UGX"})


def to_stripe_minor(amount: Money) -> int:
    """Stripe's integer for an amount of ours. Raises CurrencyNotSupported where Stripe cannot charge it exactly."""
    scaled = amount.as_major().scaleb(STRIPE_EXPONENT[amount.currency])
    if scaled != scaled.to_integral_value():
        raise CurrencyNotSupported(f"Stripe takes whole {amount.currency} only")
    minor = int(scaled)
    if amount.currency in _WHOLE_HUNDREDS and minor % 100:
        raise CurrencyNotSupported(f"Stripe takes whole {amount.currency} only")
    if CURRENCY_EXPONENT[amount.currency] == 3 and minor % 10:
        raise CurrencyNotSupported(f"Stripe takes {amount.currency} with two decimals only")
    return minor


def stripe_money(source: Mapping[str, Any], key: str) -> Money:
    """An amount of Stripe's in the currency beside it. Raises UnexpectedShape or InvalidAmount."""
    return _money(whole_number(source, key), text_of(source, "currency"))


def returned_money(source: Mapping[str, Any]) -> Money:
    """What a refund or dispute takes: never less than nothing, or it would add to a budget."""
    amount = stripe_money(source, "amount")
    if amount.amount_minor < 0:
        raise UnexpectedShape("a negative amount is taken back")
    return amount


def _money(number: int, code: str) -> Money:
    currency = code.upper()
    if currency not in CURRENCY_EXPONENT:
        raise UnexpectedShape("unknown currency")
    return sane(Money.from_major(Decimal(number).scaleb(-STRIPE_EXPONENT[currency]), currency))
