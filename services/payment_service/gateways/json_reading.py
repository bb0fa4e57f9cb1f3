"""Reading gateways' JSON as strangers' data: exact numbers, no repeated keys, expected types or a clear refusal
(SEC-63)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, TypeVar

from shared.errors import GatewayOutcomeUnknown, InvalidAmount
from shared.money import Money

Read = TypeVar("Read")

MAX_IDENTIFIER = 255
"""Longer ids do not fit an index of the database, and no gateway has them."""

MAX_AMOUNT_MINOR = 10**15
"""Far above what we ever ask for (SEC-60), and far below what a BIGINT total holds."""


class UnexpectedShape(ValueError):
    """The gateway's JSON is not what it documents."""


@dataclass(frozen=True, slots=True)
class Understood:
    """Reads an answer: what cannot be understood, or is not what was asked about, says nothing about what happened.

    ``gateway`` is its name in sentences; ``what`` is the part of its answer that is read.
    """

    gateway: str

    def __call__(self, read: Callable[[], Read], what: str = "answer") -> Read:
        try:
            return read()
        except (UnexpectedShape, InvalidAmount) as error:
            raise GatewayOutcomeUnknown(f"{self.gateway}'s {what} is not understood") from error


def parse_json_object(text: str | bytes) -> dict[str, Any]:
    """Numbers with a point become Decimal. Raises UnexpectedShape for anything that is not one JSON object."""
    try:
        parsed = json.loads(text, parse_float=Decimal, parse_constant=_refuse_constant, object_pairs_hook=_unique_keys)
    except (ValueError, ArithmeticError, RecursionError) as error:  # Decimal refuses absurd exponents in its own way
        raise UnexpectedShape("not a JSON object") from error
    if not isinstance(parsed, dict):
        raise UnexpectedShape("not a JSON object")
    return parsed


def text_of(source: Mapping[str, Any], key: str) -> str:
    value = optional_text(source, key)
    if value is None:
        raise UnexpectedShape(f"{key} is missing")
    return value


def optional_text(source: Mapping[str, Any], key: str, *, longest: int = 2000) -> str | None:
    """A string of a sane length that can be stored, or None where it is absent, null or empty."""
    value = source.get(key)
    if value is None or value == "":
        return None
    if not isinstance(value, str) or len(value) > longest or not is_storable(value):
        raise UnexpectedShape(f"{key} is not text")
    return value


def is_storable(text: str) -> bool:
    """PostgreSQL takes neither NUL nor a lone surrogate, both of which JSON can escape."""
    if text.isascii():
        return "\x00" not in text
    return "\x00" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def identifier_of(source: Mapping[str, Any], key: str) -> str:
    value = optional_identifier(source, key)
    if value is None:
        raise UnexpectedShape(f"{key} is missing")
    return value


def optional_identifier(source: Mapping[str, Any], key: str) -> str | None:
    """An id or a code, which is going to be a key of ours."""
    return optional_text(source, key, longest=MAX_IDENTIFIER)


def optional_web_address(source: Mapping[str, Any], key: str) -> str | None:
    """Where a browser may be sent: a ``javascript:`` address would run in the shop's page."""
    value = optional_text(source, key)
    if value is not None and not value.startswith(("https://", "http://")):
        raise UnexpectedShape(f"{key} is not a web address")
    return value


def moment_of(source: Mapping[str, Any], key: str) -> datetime | None:
    """A time in ISO 8601, which must say its zone; None where it is absent, null or empty."""
    value = optional_identifier(source, key)
    if value is None:
        return None
    try:
        found = datetime.fromisoformat(value)
    except ValueError as error:
        raise UnexpectedShape(f"{key} is not a time") from error
    if found.tzinfo is None:
        raise UnexpectedShape(f"{key} has no zone")
    return found


def sane(amount: Money) -> Money:
    if abs(amount.amount_minor) > MAX_AMOUNT_MINOR:
        raise UnexpectedShape("the amount is absurd")
    return amount


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


def entries_of(source: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    """A nested list of objects; an absent or null one reads as empty."""
    value = source.get(key)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise UnexpectedShape(f"{key} is not a list of objects")
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key appears twice")
    return result


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
