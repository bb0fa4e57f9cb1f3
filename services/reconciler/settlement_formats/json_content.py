"""A JSON document, or several one after the other, as numbered items."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import ijson  # type: ignore[import-untyped]
from ijson.common import ObjectBuilder  # type: ignore[import-untyped]

from services.reconciler.domain.settlement import Parsed
from services.reconciler.settlement_formats.cells import shown
from services.reconciler.settlement_formats.content import Notes
from services.reconciler.settlement_formats.limits import MiB, ReadingLimits
from services.reconciler.settlement_formats.opening import BUFFER_BYTES, Content, Opened
from services.reconciler.settlement_formats.port import (
    Head,
    Incomplete,
    JsonFormat,
    Layout,
    ReadingContext,
    SettlementFormat,
    Unreadable,
)

HEAD_BYTES = 256 * 1024
HEAD_ITEMS = 10
MAX_ITEM_BYTES = 16 * MiB
"""The parser looks at a text again with each buffer that it goes on in: the time for it grows with its square."""

MAX_DIGITS = 1_000
"""In a row. Python makes no integer of more than 4 300, and the parser dies of that."""

HEAD_DEPTH = 3
"""How deep the list of items may be: ``{"data": {"transactions": […]}}``."""


_TOO_MANY_DIGITS = re.compile(rb"[0-9]{%d}" % (MAX_DIGITS + 1))


class JsonContent:
    def __init__(self, opened: Opened, limits: ReadingLimits) -> None:
        if opened.encoding == "utf-16":
            raise Unreadable("encoding", "JSON has to be UTF-8")
        self._opened = opened
        self._limits = limits
        self.head = self._head()

    def items(self, path: str, notes: Notes) -> Iterator[tuple[int, Any]]:
        content = self._opened.stream()
        last_item_at = 0
        digits = _Digits()
        twice: list[str] = []

        def look(piece: memoryview) -> None:
            digits.look(piece)
            if content.size - last_item_at > MAX_ITEM_BYTES:
                raise Unreadable(
                    "item_too_large", f"what follows item {notes.rows} has more than {MAX_ITEM_BYTES} bytes"
                )

        content.look = look
        try:
            for item in ijson.items(
                _without_bom(content), path, map_type=_noting(twice), multiple_values=True, buf_size=BUFFER_BYTES
            ):
                last_item_at = content.size
                _check_keys(twice)
                notes.rows += 1
                if notes.rows > self._limits.max_rows:
                    raise Unreadable("too_many_rows", f"the file has more than {self._limits.max_rows} items")
                yield notes.rows, item
        except ijson.JSONError as error:
            raise _malformed(error) from None

    def parsed(self, format_: SettlementFormat, context: ReadingContext, notes: Notes) -> Iterator[Parsed]:
        json_format = cast("JsonFormat", format_)
        return json_format.read(self.items(json_format.items_path, notes), context)

    def _head(self) -> Head:
        beginning = _without_bom(self._opened.stream()).read(HEAD_BYTES)
        _Digits().look(memoryview(beginning))
        twice: list[str] = []
        builder, depth = ObjectBuilder(map_type=_noting(twice)), 0
        try:
            for event, value in ijson.basic_parse(io.BytesIO(beginning)):
                depth += (event in ("start_map", "start_array")) - (event in ("end_map", "end_array"))
                if depth > self._limits.max_depth:
                    raise Unreadable("json_too_deep", f"the document is nested deeper than {self._limits.max_depth}")
                builder.event(event, value)
        except ijson.JSONError as error:
            # Of a document that goes on, or is followed by another one, this is all that can be seen of it here.
            if not hasattr(builder, "value"):
                raise _malformed(error) from None
        _check_keys(twice)
        value = getattr(builder, "value", None)
        keys = frozenset(value) if isinstance(value, dict) else frozenset()
        return Head(Layout.JSON, keys=keys, items=tuple(_items_in(value, HEAD_DEPTH)[:HEAD_ITEMS]))


def _noting(twice: list[str]) -> type[dict[str, Any]]:
    """Objects that note a key that comes twice: which of two amounts is meant, readers disagree about. They do not
    raise, because the parser does not expect it of them."""

    class Object(dict[str, Any]):
        def __setitem__(self, key: str, value: Any) -> None:
            if key in self:
                twice.append(key)
            super().__setitem__(key, value)

    return Object


def _check_keys(twice: list[str]) -> None:
    if twice:
        raise Unreadable("json_key_twice", f"an object of the document has the key {shown(twice[0])} twice")


class _Digits:
    """Looks for numbers that are too long, before the parser sees them."""

    def __init__(self) -> None:
        self._tail = b""

    def look(self, piece: memoryview) -> None:
        across = self._tail + piece[:MAX_DIGITS]
        if _TOO_MANY_DIGITS.search(across) or _TOO_MANY_DIGITS.search(piece):
            raise Unreadable("number_too_long", f"a number of the document has more than {MAX_DIGITS} digits")
        self._tail = (across if len(piece) <= MAX_DIGITS else bytes(piece[-MAX_DIGITS:]))[-MAX_DIGITS:]


def _without_bom(content: Content) -> io.BufferedReader[Any]:
    stream: io.BufferedReader[Any] = io.BufferedReader(content, BUFFER_BYTES)
    if stream.peek(3)[:3] == b"\xef\xbb\xbf":
        stream.read(3)
    return stream


def _items_in(value: Any, depth: int) -> Sequence[Mapping[str, Any]]:
    """The first list of objects that is not too deep, else the first object of objects below the document itself; the
    document where there is neither."""
    levels = [[value]]
    for _ in range(depth):
        levels.append([inner for candidate in levels[-1] for inner in _inside(candidate)])
    lists = (candidate for level in levels for candidate in level if isinstance(candidate, list))
    for candidate in lists:
        found = [item for item in candidate if isinstance(item, dict)]
        if found:
            return found
    objects = (candidate for level in levels[1:] for candidate in level if isinstance(candidate, dict))
    for keyed in objects:
        if keyed and all(isinstance(item, dict) for item in keyed.values()):
            return list(keyed.values())
    return [value] if isinstance(value, dict) else []


def _inside(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _malformed(error: Exception) -> Unreadable:
    """ijson has one error for all: only its text tells a document that ends too early from one that is no JSON."""
    if "premature EOF" in str(error):
        return Incomplete("truncated", "the JSON document ends before it is complete")
    return Unreadable("json_malformed", "the document is no JSON")
