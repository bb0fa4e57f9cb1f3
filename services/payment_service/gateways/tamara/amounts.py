"""Tamara's money objects: a JSON number in major units with its currency, read and written without any float."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from services.payment_service.domain.errors import CurrencyNotSupported
from services.payment_service.gateways.json_reading import UnexpectedShape, object_of, sane, text_of
from shared.money import Money

COUNTRY_OF: Mapping[str, str] = {"SAR": "SA", "AED": "AE", "BHD": "BH", "KWD": "KW", "OMR": "OM"}
"""Each country that Tamara serves has a currency of its own, so the currency names the country."""

CURRENCIES = frozenset(COUNTRY_OF)

LEAST_TOTAL = Decimal("0.1")


def check_currency(amount: Money) -> None:
    if amount.currency not in CURRENCIES:
        raise CurrencyNotSupported(f"Tamara does not take {amount.currency}")


def check_total(amount: Money) -> None:
    """Raises CurrencyNotSupported for an order that Tamara would not take."""
    check_currency(amount)
    if amount.as_major() < LEAST_TOTAL:
        raise CurrencyNotSupported(f"Tamara takes no order below {LEAST_TOTAL} {amount.currency}")


def to_tamara(amount: Money) -> dict[str, Any]:
    return {"amount": amount.as_major(), "currency": amount.currency}


def from_tamara(source: Mapping[str, Any], key: str) -> Money:
    """The documents type some amounts as numbers and some as strings. Raises UnexpectedShape, InvalidAmount."""
    money = object_of(source, key)
    value = money.get("amount")
    if type(value) is int:
        value = Decimal(value)
    if not isinstance(value, str | Decimal):
        raise UnexpectedShape(f"{key} is not an amount")
    return sane(Money.from_major(value, text_of(money, "currency")))


def optional_from_tamara(source: Mapping[str, Any], key: str) -> Money | None:
    return None if source.get(key) is None else from_tamara(source, key)


def to_json(value: Any) -> str:
    """JSON in which a Decimal is a plain number with all of its digits: a float would not keep a dinar's."""
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{json.dumps(key)}:{to_json(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ",".join(map(to_json, value)) + "]"
    return json.dumps(value)
