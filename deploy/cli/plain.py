"""Text from outside on a terminal: shown, and never obeyed, neither as markup nor as a terminal's own commands."""

from __future__ import annotations

import unicodedata

_JOINERS = frozenset("\u200c\u200d")  # Persian, Indian languages and emoji are written with them
_OBEYED = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Escape sequences begin with these, and the order of what is read is turned by them."""


def plain(value: object) -> str:
    """One line. What would not be shown is written as its number."""
    if value is None:
        return "-"
    return "".join(_shown(each) for each in str(value))


def plain_lines(value: object, *, indent: str = "") -> str:
    """``indent`` keeps further lines apart from ours."""
    return f"\n{indent}".join(plain(line) for line in str(value).split("\n"))


def _shown(character: str) -> str:
    if character in _JOINERS or unicodedata.category(character) not in _OBEYED:
        return character
    return " " if character == "\t" else f"\\u{ord(character):04x}"
