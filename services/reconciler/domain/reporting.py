"""Where the money is: totals of a run or a file, and the shares that a picture shows. Pure values, no I/O, no clock."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from shared.money import CURRENCY_EXPONENT

WHOLE = 1_000
"""A bar's width: shares are per mille."""
VISIBLE = 6
"""What is there at all is drawn at least this wide: one cent in a million must not be overlooked."""


class Place(StrEnum):
    """Where money is, as far as we can tell."""

    MATCHED = "matched"
    IN_TRANSIT = "in_transit"
    DISPUTED = "disputed"
    UNEXPLAINED = "unexplained"


@dataclass(frozen=True, slots=True)
class Totals:
    """Of one gateway and currency; signed minor units, costs positive."""

    gateway: str
    currency: str
    places: Mapping[Place, int]
    counts: Mapping[Place, int]
    fees_minor: int = 0
    tax_minor: int = 0
    payouts_minor: int = 0
    payouts_unexplained_minor: int = 0
    """What was paid out less what the lines of those payouts add up to."""

    @classmethod
    def from_json(cls, stored: Mapping[str, object]) -> Totals:
        """What is absent, or is no whole number, counts as nothing: an older run may have stored less."""
        counts = stored.get("counts")
        counted: Mapping[str, object] = counts if isinstance(counts, Mapping) else {}
        return cls(
            gateway=str(stored.get("gateway") or ""),
            currency=str(stored.get("currency") or ""),
            places={place: _whole(stored.get(f"{place}_minor")) for place in Place},
            counts={place: _whole(counted.get(place)) for place in Place},
            fees_minor=_whole(stored.get("fees_minor")),
            tax_minor=_whole(stored.get("tax_minor")),
            payouts_minor=_whole(stored.get("payouts_minor")),
            payouts_unexplained_minor=_whole(stored.get("payouts_unexplained_minor")),
        )


@dataclass(frozen=True, slots=True)
class Segment:
    place: Place
    amount_minor: int
    """Without a sign: what is missing in one place and too much in another must not hide each other."""
    start: int
    width: int


@dataclass(frozen=True, slots=True)
class Bar:
    """One currency's money; the widths of its segments add up to WHOLE."""

    currency: str
    total_minor: int
    segments: tuple[Segment, ...]


def bars(totals: Iterable[Totals]) -> tuple[Bar, ...]:
    """One for each currency in which anything is anywhere, in the order of their codes."""
    amounts: dict[str, dict[Place, int]] = defaultdict(lambda: dict.fromkeys(Place, 0))
    for each in totals:
        for place, amount in each.places.items():
            amounts[each.currency][place] += abs(amount)
        amounts[each.currency][Place.UNEXPLAINED] += abs(each.payouts_unexplained_minor)
    return tuple(_bar(currency, places) for currency, places in sorted(amounts.items()) if any(places.values()))


def as_major(amount_minor: int, currency: str | None) -> Decimal:
    """Exact, with all of the currency's digits. Without a currency it is a count, and of one that nobody knows the
    digits are not known either: both stay as they are."""
    return Decimal(amount_minor).scaleb(-CURRENCY_EXPONENT.get(currency or "", 0))


def _bar(currency: str, places: Mapping[Place, int]) -> Bar:
    total = sum(places.values())
    drawn = [place for place in Place if places[place]]
    widths = _widths([places[place] for place in drawn], total)
    segments, start = [], 0
    for place, width in zip(drawn, widths, strict=True):
        segments.append(Segment(place, places[place], start, width))
        start += width
    return Bar(currency, total, tuple(segments))


def _widths(amounts: Sequence[int], total: int) -> list[int]:
    widths = [max(VISIBLE, amount * WHOLE // total) for amount in amounts]
    widths[widths.index(max(widths))] += WHOLE - sum(widths)  # what rounding left, where it shows least
    return widths


def _whole(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
