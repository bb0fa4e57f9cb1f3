"""When moving money on an operator's word takes two people (failure RC17). Pure values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from services.reconciler.domain.cases import MONEY_ACTIONS, Action
from shared.money import CURRENCY_EXPONENT

_NUMBER = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class SecondPersonRule:
    """Above how much, in minor units, a second person has to ask for the same."""

    above_minor: int = 0
    by_currency: Mapping[str, int] = field(default_factory=dict)
    """Exceptions from it: 100 yen are not 100 cents."""

    @classmethod
    def parse(cls, text: str) -> SecondPersonRule:
        """``5000,JPY=800000``: the number for all currencies, and exceptions. Raises ValueError."""
        above_minor, by_currency = 0, {}
        for part in filter(None, (each.strip() for each in text.split(","))):
            currency, is_exception, number = part.rpartition("=")
            if _NUMBER.fullmatch(number) is None or (is_exception and currency not in CURRENCY_EXPONENT):
                raise ValueError("minor units, or CURRENCY=minor units, separated by commas")
            if is_exception:
                by_currency[currency] = int(number)
            else:
                above_minor = int(number)
        return cls(above_minor, by_currency)

    def is_needed(self, action: Action, *, currency: str | None, amount_minor: int | None) -> bool:
        """``amount_minor`` is what the action may move; None is not known, and so above every limit."""
        if action not in MONEY_ACTIONS:
            return False
        if currency is None or amount_minor is None:
            return True
        return amount_minor > self.by_currency.get(currency, self.above_minor)
