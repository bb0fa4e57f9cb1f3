"""Money is an integer number of minor units and an ISO 4217 currency, everywhere: Python, JSON, SQL.

No float ever holds an amount. Conversions from and to a gateway's major units are exact or an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from shared.errors import InvalidAmount

# ISO 4217 minor-unit exponents that are not 2 (list one, amendment 177). Funds and metals are left out:
# nobody pays with them. A gateway that differs (Stripe's ISK and UGX) carries its own overrides.
_EXPONENT_NOT_TWO: Mapping[str, int] = {
    **dict.fromkeys(
        (
            "BIF",
            "CLP",
            "DJF",
            "GNF",
            "ISK",
            "JPY",
            "KMF",
            "KRW",
            "PYG",
            "RWF",
            "UGX",
            "VND",
            "VUV",
            "XAF",
            "XOF",
            "XPF",
        ),
        0,
    ),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
}
_EXPONENT_TWO = (
    "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CNY COP CRC "
    "CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR "
    "JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD "
    "NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN "
    "SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD UYU UZS VED VES WST XCD XCG YER ZAR ZMW ZWG"
).split()

CURRENCY_EXPONENT: Mapping[str, int] = {**dict.fromkeys(_EXPONENT_TWO, 2), **_EXPONENT_NOT_TWO}
"""How many digits follow the decimal point in each currency's major unit."""

MAX_AMOUNT_MINOR = 10**12
"""SEC-60: no single amount is larger; a BIGINT total of a million of them still fits."""


_BIGINT_LIMIT = 2**63
_DECIMAL = re.compile(r"[+-]?(?:[0-9]{1,24}(?:\.[0-9]{0,24})?|\.[0-9]{1,24})")


@dataclass(frozen=True, slots=True, order=False)
class Money:
    """An amount in integer minor units: ``Money(1050, "INR")`` is ₹10.50, ``Money(1050, "KWD")`` is 1.050 KD.

    Negative amounts are allowed (a payout may be negative); what must be positive says so where it is checked.
    Raises InvalidAmount for a currency that ISO 4217 does not know or an amount that is not an ``int``.
    """

    amount_minor: int
    currency: str

    def __post_init__(self) -> None:
        if type(self.amount_minor) is not int:  # bool is an int, and never an amount
            raise InvalidAmount(f"amount_minor must be an integer, not {type(self.amount_minor).__name__}")
        if abs(self.amount_minor) >= _BIGINT_LIMIT:
            raise InvalidAmount("amount_minor does not fit a BIGINT")
        if self.currency not in CURRENCY_EXPONENT:
            raise InvalidAmount(f"unknown currency {self.currency!r}")

    @classmethod
    def from_major(cls, text: str | Decimal, currency: str, exponents: Mapping[str, int] = CURRENCY_EXPONENT) -> Money:
        """Parse a gateway's ``"10.50"``; digits that the currency does not have are refused, not rounded."""
        exponent = _exponent(currency, exponents)
        try:
            # Decimal alone would also read "1_000", "1e3" and Arabic digits, and money is never guessed at.
            if not isinstance(text, Decimal) and not _DECIMAL.fullmatch(text.strip()):
                raise InvalidAmount("not a decimal amount")
            major = text if isinstance(text, Decimal) else Decimal(text.strip())
        except (InvalidOperation, AttributeError, TypeError) as error:
            raise InvalidAmount("not a decimal amount") from error
        # The digits are bounded because Decimal's own arithmetic rounds, silently, past 28 of them.
        if not major.is_finite() or abs(major.adjusted()) > 18 or len(major.as_tuple().digits) > 24:
            raise InvalidAmount(f"not a usable amount: {text!r}")
        minor = major.scaleb(exponent)
        if minor != minor.to_integral_value():
            raise InvalidAmount(f"{text} has digits that {currency} does not have")
        return cls(int(minor), currency)

    def as_major(self, exponents: Mapping[str, int] = CURRENCY_EXPONENT) -> Decimal:
        """The exact decimal in major units, with all of the currency's digits: ``Decimal("10.50")``."""
        return Decimal(self.amount_minor).scaleb(-_exponent(self.currency, exponents))

    def __add__(self, other: Money) -> Money:
        return Money(self.amount_minor + self._same(other), self.currency)

    def __sub__(self, other: Money) -> Money:
        return Money(self.amount_minor - self._same(other), self.currency)

    def __mul__(self, quantity: int) -> Money:
        if type(quantity) is not int:
            raise InvalidAmount("money is multiplied by whole numbers only")
        return Money(self.amount_minor * quantity, self.currency)

    def __lt__(self, other: Money) -> bool:
        return self.amount_minor < self._same(other)

    def __le__(self, other: Money) -> bool:
        return self.amount_minor <= self._same(other)

    def __str__(self) -> str:
        exponent = _exponent(self.currency, CURRENCY_EXPONENT)
        if not exponent:
            return f"{self.amount_minor} {self.currency}"
        whole, rest = divmod(abs(self.amount_minor), 10**exponent)
        return f"{'-' if self.amount_minor < 0 else ''}{whole}.{rest:0{exponent}d} {self.currency}"

    def _same(self, other: Money) -> int:
        if other.currency != self.currency:
            raise InvalidAmount(f"{self.currency} and {other.currency} do not mix")
        return other.amount_minor


def _exponent(currency: str, exponents: Mapping[str, int]) -> int:
    try:
        return exponents[currency]
    except KeyError:
        raise InvalidAmount(f"unknown currency {currency!r}") from None
