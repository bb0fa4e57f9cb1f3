"""What settings are wrong with, and how they write lists.

Apart from ``shared.settings``, because a process that only reads a file needs no pydantic, and importing it takes a
fifth of a second of every such process.
"""

from __future__ import annotations


class ConfigurationError(Exception):
    """The settings cannot be used. The text lists every mistake and no value."""


def split_list(text: str) -> tuple[str, ...]:
    """A comma-separated setting as a tuple, blanks left out."""
    return tuple(part.strip() for part in text.split(",") if part.strip())
