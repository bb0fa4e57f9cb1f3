"""``dataclasses.replace`` for what is replaced for every message: that one looks at each field in Python.

Only for dataclasses of two fields and more, all of which are given to ``__init__``, by place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from operator import attrgetter
from typing import Any, TypeVar

T = TypeVar("T")

_known: dict[type[Any], tuple[Callable[[Any], tuple[Any, ...]], Mapping[str, int]]] = {}
"""By the class: how all of its fields are read, and the place of each."""


def replaced(thing: T, **changes: Any) -> T:
    """Raises KeyError for what is no field."""
    model = type(thing)
    if model not in _known:
        _learn(model)
    read, places = _known[model]
    values = list(read(thing))
    for name, value in changes.items():
        values[places[name]] = value
    return model(*values)


def _learn(model: type[Any]) -> None:
    of_model = fields(model)
    assert len(of_model) > 1, "one field would not be read as a tuple"
    assert all(each.init and not each.kw_only for each in of_model), "each is given by place"
    names = [each.name for each in of_model]
    _known[model] = (attrgetter(*names), {name: place for place, name in enumerate(names)})
