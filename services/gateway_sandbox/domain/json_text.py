"""JSON with exact decimals: a gateway that writes ``150.00`` on the wire writes exactly these digits, never a float."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any


def to_json(value: Any) -> str:
    """Compact JSON text; a Decimal becomes a number with all the digits it carries (``150.00`` stays ``150.00``)."""
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{json.dumps(str(key))}:{to_json(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return "[" + ",".join(to_json(item) for item in value) + "]"
    if isinstance(value, float):
        raise TypeError("a float never goes on the wire; use Decimal")
    return json.dumps(value)


def from_json(text: bytes) -> Any:
    """Parse with decimals kept exact; duplicate keys and NaN are refused. Raises ValueError."""
    return json.loads(text, parse_float=Decimal, parse_constant=_refuse_constant, object_pairs_hook=_unique_keys)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key appears twice")
    return result
