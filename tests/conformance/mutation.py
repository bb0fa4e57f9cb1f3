"""What can become of a delivery on its way: cut, spoilt, deepened, with other types, keys twice, absurd numbers."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl, urlencode

from hypothesis import strategies as st

_DEEP = "[" * 3000 + "]" * 3000
_ABSURD = (
    "9" * 500,
    "-1",
    "1e999999",
    "NaN",
    "0.1e-400",
    "true",
    "null",
    '"\\ud800"',
    '"\\u0000"',
    '""',
    "{}",
    "[]",
    _DEEP,
)

_scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(max_size=30), st.just("captured"), st.just("PAID"), st.just(0)
)
_anything = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)

_words = st.text(st.characters(codec="utf-8"), max_size=20)

JUNK = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")),
    _anything.map(lambda value: json.dumps(value).encode()),
    st.just(_DEEP.encode()),
    st.just(b'{"a": 1, "a": 2}'),
    st.dictionaries(st.text(max_size=8), st.text(max_size=20), max_size=5).map(
        lambda form: urlencode(
            {k.encode("utf-8", "replace"): v.encode("utf-8", "replace") for k, v in form.items()}
        ).encode()
    ),
)
HEADER = st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=120)


def mutations_of(body: bytes) -> st.SearchStrategy[bytes]:
    """Genuine bodies, changed; what comes out may also be the same."""
    return st.one_of(_cut(body), _spoilt(body), _restructured(body), JUNK)


def _cut(body: bytes) -> st.SearchStrategy[bytes]:
    return st.integers(0, len(body)).map(lambda length: body[:length])


def _spoilt(body: bytes) -> st.SearchStrategy[bytes]:
    def spoil(change: tuple[int, bytes]) -> bytes:
        position, inserted = change
        return body[:position] + inserted + body[position + len(inserted) :]

    return st.tuples(st.integers(0, max(0, len(body) - 1)), st.binary(min_size=1, max_size=6)).map(spoil)


def _restructured(body: bytes) -> st.SearchStrategy[bytes]:
    """One value of the JSON or form is another, or a key comes twice."""
    try:
        parsed = json.loads(body)
    except ValueError:
        return _reformed(body)
    paths = list(_paths(parsed)) if isinstance(parsed, dict) else []
    if not paths:
        return st.just(body)
    changes = st.tuples(st.sampled_from(paths), st.sampled_from(_ABSURD) | _anything.map(json.dumps))
    return changes.map(lambda change: _with(parsed, *change)) | st.sampled_from(paths).map(
        lambda path: _with_a_key_twice(body, path)
    )


def _reformed(body: bytes) -> st.SearchStrategy[bytes]:
    pairs = parse_qsl(body.decode("latin-1"), keep_blank_values=True)
    if not pairs:
        return st.just(body)

    def change(given: tuple[int, str, bool]) -> bytes:
        position, value, twice = given
        changed = list(pairs)
        changed[position] = (pairs[position][0], value)
        return urlencode([*pairs, changed[position]] if twice else changed).encode()

    values = st.sampled_from([each[:400] for each in _ABSURD]) | st.text(st.characters(codec="utf-8"), max_size=20)
    return st.tuples(st.integers(0, len(pairs) - 1), values, st.booleans()).map(change)


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    found: list[tuple[Any, ...]] = []
    for key, inner in items:
        found += [(*path, key), *_paths(inner, (*path, key))]
    return found


def _with(parsed: Any, path: tuple[Any, ...], written: str) -> bytes:
    marker = "\ue000here\ue000"
    copy: Any = json.loads(json.dumps(parsed))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = marker
    return json.dumps(copy, ensure_ascii=False).replace(f'"{marker}"', written).encode("utf-8", "surrogatepass")


def _with_a_key_twice(body: bytes, path: tuple[Any, ...]) -> bytes:
    key = next((str(each) for each in reversed(path) if isinstance(each, str)), "x")
    text = body.decode("utf-8", "replace").rstrip()
    return f"{text[:-1]}, {json.dumps(key)}: 1, {json.dumps(key)}: 2}}".encode()
