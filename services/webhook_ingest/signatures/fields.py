"""Reading single values out of a raw delivery: total, lazy, and never a second opinion about the bytes.

Names that occur twice where one value is needed are refused, because our parser and the sender's could pick
different ones (failure XS34).
"""

from __future__ import annotations

import codecs
import json
from functools import cached_property, lru_cache
from typing import Any, Literal
from urllib.parse import unquote_to_bytes

from services.webhook_ingest.signatures.port import RawDelivery, Refusal

MAX_FORM_FIELDS = 1000
MAX_IDENTIFIER_LENGTH = 200
"""The longest event id of any provider is far below; a longer one is nobody's id."""


_NOT_YET: Any = object()


class FieldProblem(Exception):
    """A field cannot be read in one way only; the delivery is refused for this reason."""

    def __init__(self, reason: Refusal) -> None:
        self.reason = reason
        super().__init__(reason.value)


class Fields:
    """The fields of one delivery, parsed at most once each."""

    def __init__(self, delivery: RawDelivery, *, unique_json_keys: bool = False) -> None:
        self._delivery = delivery
        self._unique_json_keys = unique_json_keys
        self._parsed: Any = _NOT_YET

    @property
    def body(self) -> bytes:
        return self._delivery.body

    def values(self, location: Literal["header", "query", "form", "json"], name: str) -> list[str]:
        """All values of a name; a JSON path has at most one."""
        if location == "header":
            return self._delivery.header_values(name)
        if location == "json":
            text = self.json_value(name)
            return [text] if text else []
        pairs = self._query if location == "query" else self._form
        wanted = name.encode()
        return [value.decode("utf-8", "surrogateescape") for key, value in pairs if key == wanted]

    def single(self, location: Literal["header", "query", "form", "json"], name: str) -> str | None:
        """The only value of a name, or None. Raises FieldProblem when there are several."""
        values = self.values(location, name)
        if len(values) > 1:
            raise FieldProblem(Refusal.REPEATED_FIELD)
        return values[0] if values else None

    def optional(self, location: Literal["header", "form", "json"], name: str) -> str | None:
        """As ``single``, for what is only recorded: several values, or an unreadable body, are no value."""
        try:
            return self.single(location, name)
        except FieldProblem:
            return None

    def json_value(self, path: str) -> str | None:
        """The scalar at a dotted path as text (numbers as written), or None where there is none."""
        value = self._walk(path)
        if value is None or isinstance(value, dict | list):
            return None
        return _scalar_text(value)

    def json_text(self, path: str) -> bytes:
        """A signed JSON field: null and absent are empty, containers cannot be signed this way."""
        value = self._walk(path)
        if isinstance(value, dict | list):
            raise FieldProblem(Refusal.CONTENT_INCOMPLETE)
        return b"" if value is None else _scalar_text(value).encode("utf-8", "surrogatepass")

    def form_sorted(self) -> bytes:
        """Name and value of every form field, sorted by name; repeats once, as Twilio's library does."""
        return b"".join(name + value for name, value in sorted(set(self._form)))

    def _walk(self, path: str) -> Any:
        value: Any = self._json
        for step in _steps(path):
            if isinstance(value, dict):
                value = value.get(step)
            elif isinstance(value, list) and step.isascii() and step.isdigit() and len(step) < 6:
                value = value[int(step)] if int(step) < len(value) else None
            else:
                return None
        return value

    @property
    def _json(self) -> Any:
        if self._parsed is _NOT_YET:  # not a cached_property: that takes a lock, which costs more than the look
            self._parsed = self._parse()
        return self._parsed

    def _parse(self) -> Any:
        """The parsed body, or None for bytes that are not one JSON document (refused where keys are signed)."""
        decoder = _UNIQUE_KEYS if self._unique_json_keys else _LAST_KEY_WINS
        try:
            return decoder.decode(self.body.removeprefix(codecs.BOM_UTF8).decode())
        except (ValueError, RecursionError):
            if self._unique_json_keys:
                raise FieldProblem(Refusal.CONTENT_INCOMPLETE) from None
            return None

    @cached_property
    def _form(self) -> list[tuple[bytes, bytes]]:
        return _parse_form(self.body)

    @cached_property
    def _query(self) -> list[tuple[bytes, bytes]]:
        return _parse_form(self._delivery.query.encode("latin-1", "replace"))


def clean_identifier(text: str) -> str | None:
    """An id or type fit for a text column and a log line; None for what is not printable or too long."""
    text = text.strip()
    return text if 0 < len(text) <= MAX_IDENTIFIER_LENGTH and text.isprintable() else None


def _scalar_text(value: object) -> str:
    if value is True:
        return "true"
    return "false" if value is False else str(value)


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For ``json.loads``: an object whose keys can be read in one way only."""
    unique = dict(pairs)
    if len(unique) != len(pairs):
        raise FieldProblem(Refusal.CONTENT_AMBIGUOUS)
    return unique


@lru_cache(maxsize=256)  # paths come from settings and tables
def _steps(path: str) -> tuple[str, ...]:
    return tuple(path.split("."))


# Made once: json.loads with arguments makes one for each call.
_LAST_KEY_WINS = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=str)
_UNIQUE_KEYS = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=str, object_pairs_hook=unique_keys)


def _parse_form(raw: bytes) -> list[tuple[bytes, bytes]]:
    """``application/x-www-form-urlencoded`` to bytes, for any bytes; the standard library refuses non-ASCII."""
    pairs = []
    for item in raw.split(b"&", MAX_FORM_FIELDS)[:MAX_FORM_FIELDS]:
        if item:
            name, _, value = item.partition(b"=")
            pairs.append((_unquote(name), _unquote(value)))
    return pairs


def _unquote(raw: bytes) -> bytes:
    return unquote_to_bytes(raw.replace(b"+", b" "))
