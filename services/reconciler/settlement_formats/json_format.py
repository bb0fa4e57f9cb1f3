"""What formats of JSON documents share: fields read as cells are, and one bad item stopping nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from services.reconciler.domain.settlement import BadRow, Parsed
from services.reconciler.settlement_formats.cells import AmountStyle, BadCell, currency_of, scalar_text, shown
from services.reconciler.settlement_formats.port import Head, Layout, ReadingContext

Item = Mapping[str, Any]
"""As the port has it; what is in the document may be anything, and is looked at before."""

Reader = Callable[[int, "Fields", ReadingContext], Iterator[Parsed]]

V = TypeVar("V")

_EXACT = AmountStyle()


@dataclass(frozen=True, slots=True)
class JsonItems:
    """A JSON format whose items are read one by one. Satisfies JsonFormat.

    ``keys``: the document's top-level keys; ``item_keys``: those that every item has. ``read_item`` raises BadCell for
    an item that makes no sense. ``needs`` is for a person.
    """

    name: str
    gateway: str
    items_path: str
    keys: frozenset[str]
    item_keys: frozenset[str]
    read_item: Reader
    version: int = 1
    may_be_empty: bool = True
    """Whether a document without items is taken for this format: of neighbours with the same keys only one does."""

    @property
    def layout(self) -> Layout:
        return Layout.JSON

    @property
    def needs(self) -> tuple[str, ...]:
        return (*sorted(self.keys), *sorted(self.item_keys))

    def recognises(self, head: Head) -> bool:
        if head.layout is not Layout.JSON or not self.keys <= head.keys:
            return False
        if not head.items:
            return self.may_be_empty
        return any(self.item_keys <= item.keys() for item in head.items)

    def read(self, items: Iterable[tuple[int, Item]], context: ReadingContext) -> Iterator[Parsed]:
        for number, item in items:
            try:
                # Read to its end before anything of it leaves: an item is understood as a whole or not at all.
                yield from list(self.read_item(number, fields_of(item), context))
            except BadCell as bad:
                yield BadRow(number, bad.code, bad.why)


def fields_of(item: Any) -> Fields:
    if not isinstance(item, Mapping):
        raise BadCell("item_unreadable", "it is no JSON object")
    return Fields(item)


class Fields:
    """An item's fields. Every method raises BadCell, which names the field."""

    def __init__(self, item: Item) -> None:
        self._item = item

    def optional(self, key: str) -> str | None:
        """Text or a number as text; null and blank are None."""
        value = self._item.get(key)
        if value is None:
            return None
        with _Naming(key):
            return scalar_text(value).strip() or None

    def text(self, key: str) -> str:
        found = self.optional(key)
        if found is None:
            raise BadCell("field_missing", f"{key} is missing")
        return found

    def whole(self, key: str) -> int:
        """An integer that the document writes as a number."""
        value = self._item.get(key)
        if type(value) is not int or abs(value) >= 10**15:
            raise BadCell("amount_unreadable", f"{key}: {shown(value)} is no whole number")
        return value

    def optional_whole(self, key: str) -> int:
        return 0 if self._item.get(key) is None else self.whole(key)

    def major(self, key: str, currency: str, style: AmountStyle = _EXACT) -> int:
        """A decimal in major units, as text or as a number, in minor units."""
        with _Naming(key):
            return style.read(scalar_text(self._item.get(key)), currency)

    def currency(self, key: str) -> str:
        with _Naming(key):
            return currency_of(self.text(key))

    def read(self, key: str, reader: Callable[[Any], V]) -> V:
        with _Naming(key):
            return reader(self._item.get(key))

    def read_text(self, key: str, reader: Callable[[str], V]) -> V:
        return self.read(key, lambda value: reader(scalar_text(value)))

    def object(self, key: str) -> Fields:
        value = self._item.get(key)
        if not isinstance(value, Mapping):
            raise BadCell("field_missing", f"{key} is no JSON object")
        return Fields(value)

    def has(self, key: str) -> bool:
        return self._item.get(key) is not None

    def raw(self, key: str) -> Any:
        return self._item.get(key)


class _Naming:
    """Puts the field's name before what is wrong with it."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> Literal[False]:
        if isinstance(error, BadCell) and not error.why.startswith(self._key):
            raise BadCell(error.code, f"{self._key}: {error.why}") from None
        return False
