"""``replaced`` is ``dataclasses.replace``, quicker."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from shared.replacing import replaced


@dataclass(frozen=True, slots=True)
class Thing:
    name: str
    size: int = 1
    parts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert self.size >= 0, "no size"


@dataclass
class Derived:
    name: str
    length: int = field(init=False, default=0)


@pytest.mark.parametrize("changes", [{}, {"size": 7}, {"parts": ("a",), "name": "other"}])
def test_it_is_what_replace_makes(changes: dict[str, object]) -> None:
    thing = Thing("one", 2, ("b",))
    assert replaced(thing, **changes) == replace(thing, **changes)  # type: ignore[arg-type]
    assert thing == Thing("one", 2, ("b",))


def test_what_is_no_field_and_what_its_class_refuses_is_an_error() -> None:
    with pytest.raises(KeyError, match="colour"):
        replaced(Thing("one"), colour="red")
    with pytest.raises(AssertionError, match="no size"):
        replaced(Thing("one"), size=-1)


def test_a_class_that_computes_a_field_is_refused() -> None:
    with pytest.raises(AssertionError, match="by place"):
        replaced(Derived("one"), name="two")
