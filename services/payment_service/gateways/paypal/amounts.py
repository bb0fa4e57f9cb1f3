"""PayPal's amounts: ``{"currency_code": "USD", "value": "19.99"}``, a string in major units."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.payment_service.domain.errors import CurrencyNotSupported
from services.payment_service.gateways.json_reading import UnexpectedShape, identifier_of, object_of, sane, text_of
from shared.money import CURRENCY_EXPONENT, Money

CURRENCIES = frozenset(
    "AUD BRL CAD CNY CZK DKK EUR HKD HUF ILS JPY MYR MXN TWD NZD NOK PHP PLN GBP SGD SEK CHF THB USD".split()
)
"""BRL, CNY and MYR only for accounts of that country: PayPal says so when asked. None has three decimals."""

# ISO 4217 gives forint and Taiwan dollar two decimals; PayPal takes them, and yen, whole.
_WHOLE_ONLY = frozenset({"HUF", "JPY", "TWD"})


def check_expressible(amount: Money) -> None:
    """Raises CurrencyNotSupported for what PayPal cannot take exactly, so that nothing is ever rounded."""
    if amount.currency not in CURRENCIES:
        raise CurrencyNotSupported(f"PayPal does not take {amount.currency}")
    if amount.currency in _WHOLE_ONLY and amount.amount_minor % 10 ** CURRENCY_EXPONENT[amount.currency]:
        raise CurrencyNotSupported(f"PayPal takes whole {amount.currency} only")


def to_paypal(amount: Money) -> dict[str, str]:
    """Raises CurrencyNotSupported."""
    check_expressible(amount)
    major = amount.as_major()
    value = f"{major.to_integral_value():f}" if amount.currency in _WHOLE_ONLY else f"{major:f}"
    return {"currency_code": amount.currency, "value": value}


def from_paypal(source: Mapping[str, Any], key: str = "amount") -> Money:
    """Raises UnexpectedShape or InvalidAmount; ``"10"`` and ``"10.00"`` are the same amount."""
    amount = object_of(source, key)
    currency = identifier_of(amount, "currency_code")
    if currency not in CURRENCY_EXPONENT:
        raise UnexpectedShape("unknown currency")
    return sane(Money.from_major(text_of(amount, "value"), currency))
