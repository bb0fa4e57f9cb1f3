"""MyFatoorah's amounts: JSON numbers in major units go out, almost anything comes back.

``12.345``, ``"12.345"``, ``"12,345.000 KD"``: commas and labels are taken off, digits are never rounded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from services.payment_service.domain.errors import CurrencyNotSupported
from services.payment_service.gateways.json_reading import UnexpectedShape, optional_text, sane
from shared.money import CURRENCY_EXPONENT, Money

_BEFORE = r"(?:[A-Za-z$][A-Za-z.$]{0,7} +|[A-Za-z.$]{0,7}[A-Za-z$](?!\.))?"
_NUMBER = r"((?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
_AFTER = r"(?: *[A-Za-z.$]{1,8})?"
_AMOUNT = re.compile(_BEFORE + _NUMBER + _AFTER)
"""A point right before a digit is the number's: no label takes it away. Whose it is in ``KD.500`` nobody can say."""

_LABELS: Mapping[str, str] = {
    "KD": "KWD",
    "SR": "SAR",
    "BD": "BHD",
    "JD": "JOD",
    "OR": "OMR",
    "RO": "OMR",
    "QR": "QAR",
    "DH": "AED",
    "LE": "EGP",
}
"""KD and SR are documented. The others follow their pattern, and none of them can be mistaken for another currency."""


@dataclass(frozen=True, slots=True)
class Account:
    """What amounts are in where nothing else is said: the account's base currency."""

    currency: str
    label: str | None = None

    def currency_of(self, source: Mapping[str, Any], key: str) -> str:
        """An ISO code or a local label. Raises UnexpectedShape for one that nobody knows: it is never guessed at."""
        label = optional_text(source, key, longest=20)
        if label is None:
            return self.currency
        plain = label.strip().upper()
        if self.label is not None and plain == self.label.strip().upper():
            return self.currency
        code = _LABELS.get(plain.replace(".", ""), plain)
        if code not in CURRENCY_EXPONENT:
            raise UnexpectedShape("a currency that is not known; MYFATOORAH_CURRENCY_LABEL can name it")
        return code

    def money(self, source: Mapping[str, Any], key: str, currency_key: str) -> Money:
        return sane(Money.from_major(decimal_of(source.get(key)), self.currency_of(source, currency_key)))

    def wire(self, amount: Money) -> Decimal:
        """The JSON number for an amount of ours, with all of its currency's digits.

        Raises CurrencyNotSupported for another currency than the account's: it would be converted, and a refund,
        which is always in the base currency, could then not give back exactly what was paid.
        """
        if amount.currency != self.currency:
            raise CurrencyNotSupported(f"this MyFatoorah account takes {self.currency} and converts nothing")
        if amount.amount_minor <= 0:
            raise CurrencyNotSupported("MyFatoorah takes positive amounts only")
        return amount.as_major()


def decimal_of(value: Any) -> Decimal:
    """Raises UnexpectedShape for what is not one positive decimal number."""
    if type(value) is int:
        value = str(value)
    if isinstance(value, Decimal):
        if value < 0:
            raise UnexpectedShape("a negative amount")
        return value
    found = _AMOUNT.fullmatch(value.strip()) if isinstance(value, str) and len(value) <= 60 else None
    if found is None:
        raise UnexpectedShape("not an amount")
    return Decimal(found.group(1).replace(",", ""))
