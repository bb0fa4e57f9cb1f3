"""Names for events whose bodies nobody signs and that carry no id: made of what a delivery is about."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def object_in(raw: bytes) -> Mapping[str, Any]:
    """Only to name the event: what cannot be read is nameless, and its adapter says so. Numbers are text."""
    try:
        found = json.loads(raw.decode("utf-8-sig"), parse_float=str, parse_int=str, parse_constant=str)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def text_in(body: Mapping[str, Any], name: str) -> str | None:
    value = body.get(name)
    return value if isinstance(value, str) and value else None


def event_id_of(about: str | None) -> str | None:
    """One id for all repetitions of what is about the same; None for what is about nothing of ours."""
    return None if about is None else hashlib.sha256(about.encode("utf-8", "surrogatepass")).hexdigest()
