"""Reading gateways' JSON as strangers' data: exact numbers, no repeated keys, expected types or a clear refusal (SEC-63)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any


class UnexpectedShape(ValueError):
    """The gateway's JSON is not what it documents."""


def parse_json_object(text: str | bytes) -> dict[str, Any]:
    """Numbers with a point become Decimal. Raises UnexpectedShape for anything that is not one JSON object."""
    try:
        parsed = json.loads(text, parse_float=Decimal, parse_constant=_refuse_constant, object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:
        raise UnexpectedShape("not a JSON object") from error
    if not isinstance(parsed, dict):
        raise UnexpectedShape("not a JSON object")
    return parsed


def text_of(source: Mapping[str, Any], key: str) -> str:
    value = optional_text(source, key)
    if value is None:
        raise UnexpectedShape(f"{key} is missing")
    return value


def optional_text(source: Mapping[str, Any], key: str) -> str | None:
    """A string of a sane length, or None where it is absent, null or empty."""
    value = source.get(key)
    if value is None or value == "":
        return None
    if not isinstance(value, str) or len(value) > 2000 or "\x00" in value:
        raise UnexpectedShape(f"{key} is not text")
    return value


def whole_number(source: Mapping[str, Any], key: str) -> int:
    value = source.get(key)
    if type(value) is not int:
        raise UnexpectedShape(f"{key} is not a whole number")
    return value


def object_of(source: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """A nested object; an absent or null one reads as empty."""
    value = source.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UnexpectedShape(f"{key} is not an object")
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key appears twice")
    return result


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
