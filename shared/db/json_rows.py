"""Rows that PostgreSQL gives as JSON: it has no moments, they come as text of ISO 8601."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any


def with_moments(row: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """The row with what these columns hold as moments; null stays null. Raises ValueError for other text."""
    found = dict(row)
    for name in names:
        if found[name] is not None:
            found[name] = datetime.fromisoformat(found[name])
    return found
