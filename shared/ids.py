"""Prefixed, time-ordered ids and the short references that every gateway accepts.

An id is ``<prefix>_`` and 26 characters of Crockford base32 in lower case: 48 bits of milliseconds, then 80 random
bits (XS33), so ids sort by creation and cannot be guessed. They never look like a card number (SEC-50): the
prefix puts a letter before the digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol

from shared.clock import Clock
from shared.randomness import Randomness

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_UPPER = _ALPHABET.upper()
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
_UPPER_PAIRS = [pair.upper() for pair in _PAIRS]


class Ids(Protocol):
    def new(self, prefix: str) -> str:
        """``ids.new("pay")`` → ``pay_01jf…``; increasing within one process."""
        ...

    def new_reference(self) -> str:
        """Our reference at a gateway: 20 letters and digits (PayU allows 25, design.md §4), unique."""
        ...


class TimeOrderedIds:
    def __init__(self, clock: Clock, randomness: Randomness) -> None:
        self._clock = clock
        self._randomness = randomness
        self._last_value = 0

    def new(self, prefix: str) -> str:
        value = (self._milliseconds() << 80) | int.from_bytes(self._randomness.token_bytes(10), "big")
        if value <= self._last_value:  # same millisecond, or the wall clock stepped back: stay increasing
            value = self._last_value + 1
        self._last_value = value
        return f"{prefix}_{_encode_id(value, _PAIRS)}"

    def new_reference(self) -> str:
        # 45 bits of milliseconds last until the year 3084; 55 random bits follow.
        value = (self._milliseconds() << 55) | (int.from_bytes(self._randomness.token_bytes(7), "big") >> 1)
        return _encode(value, 20, _UPPER_PAIRS)

    def _milliseconds(self) -> int:
        moment = self._clock.now()
        return int(moment.timestamp()) * 1000 + moment.microsecond // 1000


def time_of_reference(reference: str) -> datetime | None:
    """When ``new_reference`` made it; None for what it did not make."""
    if len(reference) != 20 or any(character not in _UPPER for character in reference):
        return None
    value = 0
    for character in reference:
        value = value * 32 + _UPPER.index(character)
    return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=value >> 55)


def _encode_id(value: int, pairs: Sequence[str]) -> str:
    """As ``_encode`` with 26 digits, written out: every request and every row takes an id, and shifting numbers of more
    than 60 bits thirteen times costs as much as a signature."""
    high, middle, low = value >> 90, value >> 40 & 0x3FFFFFFFFFFFF, value & 0xFFFFFFFFFF
    return (
        f"{pairs[high >> 30 & 1023]}{pairs[high >> 20 & 1023]}{pairs[high >> 10 & 1023]}{pairs[high & 1023]}"
        f"{pairs[middle >> 40]}{pairs[middle >> 30 & 1023]}{pairs[middle >> 20 & 1023]}{pairs[middle >> 10 & 1023]}"
        f"{pairs[middle & 1023]}{pairs[low >> 30]}{pairs[low >> 20 & 1023]}{pairs[low >> 10 & 1023]}{pairs[low & 1023]}"
    )


def _encode(value: int, length: int, pairs: Sequence[str]) -> str:
    """The last ``length`` (an even number) digits in base 32, two at a time."""
    return "".join([pairs[value >> shift & 1023] for shift in range(5 * length - 10, -1, -10)])
