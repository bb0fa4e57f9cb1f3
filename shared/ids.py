"""Prefixed, time-ordered ids and the short references that every gateway accepts.

An id is ``<prefix>_`` and 26 characters of Crockford base32 in lower case: 48 bits of milliseconds, then 80 random
bits (XS33), so ids sort by creation and cannot be guessed. They never look like a card number (SEC-50): the
prefix puts a letter before the digits.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Protocol

from shared.clock import Clock
from shared.randomness import Randomness

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_UPPER = _ALPHABET.upper()


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
        return f"{prefix}_{_encode(value, 26, _ALPHABET)}"

    def new_reference(self) -> str:
        # 45 bits of milliseconds last until the year 3084; 55 random bits follow.
        value = (self._milliseconds() << 55) | (int.from_bytes(self._randomness.token_bytes(7), "big") >> 1)
        return _encode(value, 20, _UPPER)

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


def _encode(value: int, length: int, alphabet: str) -> str:
    characters = []
    for _ in range(length):
        value, digit = divmod(value, 32)
        characters.append(alphabet[digit])
    return "".join(reversed(characters))
