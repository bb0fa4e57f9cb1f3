"""What a cell says: amounts, moments, currencies and kinds, read exactly or not at all.

Nothing is guessed (failure RC3): decimal commas, exponents, other scripts' digits, ``NaN`` and blanks are no amounts.
What has been read once is remembered within bounds, because a file of a million rows has few different values.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Generic, TypeVar

from services.reconciler.domain.settlement import LineKind
from shared.money import CURRENCY_EXPONENT

LONGEST_CELL = 1000
LARGEST_MINOR = 10**15
"""Far above any payout, and low enough that the total of a thousand files fits a BIGINT."""

MOST_REMEMBERED = 100_000
_MOST_SHOWN = 40

V = TypeVar("V")


class BadCell(Exception):
    """``code`` is that of the BadRow; ``why`` says what is wrong, without the column's name."""

    def __init__(self, code: str, why: str) -> None:
        super().__init__(why)
        self.code = code
        self.why = why


class Memo(dict[str, V], Generic[V]):
    """A function from text, its answers remembered: a lookup costs far less than reading the text again."""

    def __init__(self, read: Callable[[str], V]) -> None:
        super().__init__()
        self._read = read

    def __missing__(self, text: str) -> V:
        value = self._read(text)
        if len(self) >= MOST_REMEMBERED:
            self.clear()
        self[text] = value
        return value


def shown(value: object) -> str:
    """What a detail may repeat of a cell."""
    return repr(str(value)[:_MOST_SHOWN])


# --- amounts ------------------------------------------------------------------------------------------------------


class Unit(StrEnum):
    MAJOR = "major"
    """``10.50``"""
    MINOR = "minor"
    """``1050``, an integer in the currency's minor unit."""
    HUNDREDTHS = "hundredths"
    """``1050``, an integer: the major unit times 100 in every currency, yen too (PayPal)."""


_PLAIN = re.compile(r"([+-]?)([0-9]{1,15})(?:\.([0-9]{1,6}))?")
_GROUPED = re.compile(
    r"([+-]?)([0-9]{1,3}(?:,[0-9]{3}){1,4}|[0-9]{1,2}(?:,[0-9]{2}){1,5},[0-9]{3}|[0-9]{1,15})(?:\.([0-9]{1,6}))?"
)
"""``1,234,567.00`` and, as in India, ``12,34,567.00``."""

_WHOLE = re.compile(r"[+-]?[0-9]{1,15}")


@dataclass(frozen=True, slots=True)
class AmountStyle:
    """How a format writes amounts. ``point_required``: a number without a point may be in minor units, so that it says
    nothing."""

    unit: Unit = Unit.MAJOR
    grouped: bool = False
    point_required: bool = False

    def read(self, text: str, currency: str, exponents: Mapping[str, int] = CURRENCY_EXPONENT) -> int:
        """Minor units of ``currency``. Raises BadCell."""
        text = text.strip(" ")
        exponent = exponents[currency]
        if self.unit is Unit.MAJOR:
            minor = self._major(text, exponent)
        else:
            minor = _whole(text)
            if self.unit is Unit.HUNDREDTHS:
                minor = rescaled(minor, 2, exponent, text)
        if abs(minor) >= LARGEST_MINOR:
            raise BadCell("amount_too_large", f"{shown(text)} is larger than any settlement")
        return minor

    def _major(self, text: str, exponent: int) -> int:
        found = (_GROUPED if self.grouped else _PLAIN).fullmatch(text)
        if found is None:
            raise BadCell("amount_unreadable", f"{shown(text)} is no decimal amount")
        sign, whole, rest = found.groups()
        if rest is None:
            if self.point_required and exponent:
                raise BadCell("amount_unit_unknown", f"{shown(text)} has no decimals: which unit it is in is not said")
            rest = ""
        if rest[exponent:].strip("0"):
            raise BadCell("amount_too_precise", f"{shown(text)} has digits that its currency does not have")
        minor = int(f"{whole.replace(',', '')}{rest[:exponent].ljust(exponent, '0')}")
        return -minor if sign == "-" else minor


def _whole(text: str) -> int:
    if not _WHOLE.fullmatch(text):
        raise BadCell("amount_unreadable", f"{shown(text)} is no whole number")
    return int(text)


_TENS: tuple[int, ...] = tuple(10**power for power in range(7))


def rescaled(number: int, exponent: int, wanted: int, text: object) -> int:
    """The same amount with ``wanted`` decimals instead of ``exponent``. Raises BadCell where that is not exact."""
    if wanted >= exponent:
        return number * _TENS[wanted - exponent]
    whole, rest = divmod(abs(number), _TENS[exponent - wanted])
    if rest:
        raise BadCell("amount_too_precise", f"{shown(text)} has digits that its currency does not have")
    return -whole if number < 0 else whole


def scalar_text(value: Any) -> str:
    """A JSON value as the text of a cell. Raises BadCell for what is neither text nor a number."""
    if isinstance(value, str):
        text = value
    elif type(value) is int:
        text = str(value) if abs(value) < 10**40 else "a very long number"
    elif isinstance(value, Decimal) and value.is_finite() and abs(value.adjusted()) < 40:
        text = f"{value:f}"
    else:
        raise BadCell("field_unreadable", f"{shown(type(value).__name__)} is neither text nor a number")
    return checked_text(text)


def checked_text(text: str) -> str:
    """Raises BadCell for what no id and no amount is: a very long text, or one with control characters."""
    if len(text) > LONGEST_CELL:
        raise BadCell("cell_too_long", f"it has {len(text)} characters")
    if not text.isprintable():
        raise BadCell("text_unreadable", "it has characters that cannot be printed")
    return text


# --- currencies ---------------------------------------------------------------------------------------------------


def currency_of(text: str) -> str:
    """An ISO 4217 code in either case. Raises BadCell."""
    code = text.strip(" ").upper() if text.isascii() else ""
    if code not in CURRENCY_EXPONENT:
        raise BadCell("currency_unknown", f"{shown(text)} is no currency")
    return code


# --- moments ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DateLayout:
    """``pattern`` names the groups Y, m, d and, where they are, T (the time) and Z (the zone).

    A day alone is its last second: by then the money had moved, and the file covers the day.
    """

    pattern: re.Pattern[str]

    def iso(self, text: str, zone: str) -> str | None:
        found = self.pattern.fullmatch(text)
        if found is None:
            return None
        part = found.groupdict()
        written = part.get("Z") or zone
        return f"{part['Y']}-{part['m']}-{part['d']}T{part.get('T') or '23:59:59'}{written}"


_TIME = r"(?P<T>[0-2][0-9]:[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?)"
_ZONE = r"(?P<Z>Z|[+-][01][0-9]:?[0-5][0-9])"

ISO = DateLayout(re.compile(rf"(?P<Y>20[0-9]{{2}})-(?P<m>[0-9]{{2}})-(?P<d>[0-9]{{2}})(?:[T ]{_TIME} ?{_ZONE}?)?"))
"""``2026-01-02``, ``2026-01-02 03:04:05``, ``2026-01-02T03:04:05.678+05:30``; so are a spreadsheet's dates."""
DAY_FIRST = DateLayout(re.compile(rf"(?P<d>[0-9]{{2}})[/-](?P<m>[0-9]{{2}})[/-](?P<Y>20[0-9]{{2}})(?: {_TIME})?"))
"""``02/01/2026 03:04:05`` is the second of January, as India writes it."""
SLASHES = DateLayout(re.compile(rf"(?P<Y>20[0-9]{{2}})/(?P<m>[0-9]{{2}})/(?P<d>[0-9]{{2}}) {_TIME} {_ZONE}"))
"""``2026/01/02 03:04:05 -0800``"""

UTC_ZONE, IST_ZONE = "+00:00", "+05:30"

_USUAL = re.compile(r"20[0-9]{2}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}:[0-9]{2}")


def moment_reader(layouts: Iterable[DateLayout], zone: str) -> Callable[[str], datetime]:
    """Reads what is in one of the layouts; ``zone`` is of those that name none. Raises BadCell."""
    known = tuple(layouts)
    is_usual = _USUAL.fullmatch if ISO in known else None

    def read(text: str) -> datetime:
        try:
            if is_usual is not None and is_usual(text):
                return datetime.fromisoformat(text + zone)
            text = text.strip(" ")
            for layout in known:
                written = layout.iso(text, zone)
                if written is not None:
                    return datetime.fromisoformat(written)
        except ValueError:  # the thirteenth month
            pass
        raise BadCell("date_unreadable", f"{shown(text)} is no date of this layout")

    return read


def unix_moment(value: Any) -> datetime:
    """Seconds since 1970, from this century. Raises BadCell."""
    if type(value) is not int or not 946_684_800 <= value < 4_102_444_800:
        raise BadCell("date_unreadable", f"{shown(value)} is no time in seconds")
    return datetime.fromtimestamp(value, UTC)


# --- kinds --------------------------------------------------------------------------------------------------------

SIGNS: Mapping[LineKind, int] = {
    LineKind.SALE: 1,
    LineKind.REFUND: -1,
    LineKind.REFUND_REVERSAL: 1,
    LineKind.CHARGEBACK: -1,
    LineKind.CHARGEBACK_REVERSAL: 1,
}
"""What comes to us, and what goes away; the other kinds go both ways."""


def worded(text: str) -> str:
    """A kind's word without what differs from file to file: case, spaces, underscores and hyphens."""
    return " ".join(text.replace("_", " ").replace("-", " ").split()).casefold()


def kind_reader(kinds: Mapping[str, LineKind]) -> Callable[[str], tuple[LineKind, int]]:
    """The kind and its sign. Raises BadCell: what money in a row of an unknown kind means, nobody knows."""
    known = {worded(word): kind for word, kind in kinds.items()}

    def read(text: str) -> tuple[LineKind, int]:
        kind = known.get(worded(text)) if text.isascii() and text.isprintable() else None
        if kind is None:
            raise BadCell("kind_unknown", f"{shown(text)} is no kind of movement that this format knows")
        return kind, SIGNS.get(kind, 0)

    return read
