"""Stripe's form encoding: brackets nest, ``a[b][0][c]=1`` and ``a[]=1``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final
from urllib.parse import parse_qsl

from services.gateway_sandbox.gateways.stripe.errors import invalid_parameter, missing_parameter, unknown_parameter

MAX_DEPTH = 10
_KEY = re.compile(r"^([^\[\]]+)((?:\[[^\[\]]*\])*)$")
_INTEGER = re.compile(r"^-?[0-9]{1,18}$")
_ROOT: Final = ""

Tree = dict[str, Any]


def parse_body(body: bytes) -> Tree:
    return parse_pairs(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))


def parse_pairs(pairs: Iterable[tuple[str, str]]) -> Tree:
    """A tree of mappings with text leaves; lists are mappings whose keys are numbers. Raises WireError."""
    tree: Tree = {}
    for key, value in pairs:
        _insert(tree, _path(key), value, key)
    return tree


def _path(key: str) -> list[str]:
    match = _KEY.match(key)
    if match is None:
        raise invalid_parameter(f"Invalid parameter name: {key}", param=key)
    parts = [match[1], *re.findall(r"\[([^\[\]]*)\]", match[2])]
    if len(parts) > MAX_DEPTH:
        raise invalid_parameter(f"Parameter is nested too deeply: {key}", param=key)
    return parts


def _insert(tree: Tree, path: list[str], value: str, key: str) -> None:
    node = tree
    for part in path[:-1]:
        child = node.setdefault(part or str(len(node)), {})
        if not isinstance(child, dict):
            raise invalid_parameter(f"Invalid parameter: {key} is given both as a value and as an object", param=key)
        node = child
    last = path[-1] or str(len(node))
    if isinstance(node.get(last), dict):
        raise invalid_parameter(f"Invalid parameter: {key} is given both as a value and as an object", param=key)
    node[last] = value


class Parameters:
    """Reads a tree as Stripe validates it: every complaint names the parameter by its full bracketed path."""

    def __init__(self, tree: Tree, path: str = _ROOT) -> None:
        self._tree = tree
        self._path = path

    def name(self, key: str) -> str:
        return f"{self._path}[{key}]" if self._path else key

    def allow_only(self, allowed: frozenset[str]) -> None:
        for key in self._tree:
            if key not in allowed:
                raise unknown_parameter(self.name(key))

    def has(self, key: str) -> bool:
        return key in self._tree

    def text(self, key: str, *, longest: int = 5000) -> str | None:
        value = self._tree.get(key)
        if value is None or value == "":
            return None
        if not isinstance(value, str):
            raise invalid_parameter(f"Invalid string: {self.name(key)}", param=self.name(key))
        if len(value) > longest:
            message = f"Invalid string: {value[:20]}...; must be at most {longest} characters"
            raise invalid_parameter(message, param=self.name(key), code="parameter_invalid_string_too_long")
        return value

    def required_text(self, key: str, *, longest: int = 5000) -> str:
        value = self.text(key, longest=longest)
        if value is None:
            raise missing_parameter(self.name(key))
        return value

    def choice(self, key: str, choices: frozenset[str]) -> str | None:
        value = self.text(key)
        if value is not None and value not in choices:
            names = ", ".join(sorted(choices))
            raise invalid_parameter(f"Invalid {self.name(key)}: must be one of {names}", param=self.name(key))
        return value

    def integer(self, key: str) -> int | None:
        value = self.text(key)
        if value is None:
            return None
        if not _INTEGER.match(value):
            raise invalid_parameter(f"Invalid integer: {value}", param=self.name(key), code="parameter_invalid_integer")
        return int(value)

    def boolean(self, key: str) -> bool | None:
        value = self.choice(key, frozenset({"true", "false"}))
        return None if value is None else value == "true"

    def nested(self, key: str) -> Parameters | None:
        value = self._tree.get(key)
        if value is None or value == "":
            return None
        if not isinstance(value, dict):
            raise invalid_parameter(f"Invalid object: {self.name(key)}", param=self.name(key))
        return Parameters(value, self.name(key))

    def required_nested(self, key: str) -> Parameters:
        value = self.nested(key)
        if value is None:
            raise missing_parameter(self.name(key))
        return value

    def objects(self, key: str) -> list[Parameters]:
        """``key[0][…]``, ``key[1][…]`` in the order of their numbers."""
        node = self.nested(key)
        return [item for index in node._indexes() if (item := node.nested(index))] if node else []

    def texts(self, key: str) -> list[str]:
        node = self.nested(key)
        return [item for index in node._indexes() if (item := node.text(index))] if node else []

    def metadata(self, key: str = "metadata") -> dict[str, str]:
        node = self.nested(key)
        if node is None:
            return {}
        pairs = {name: value for name, value in node._leaves() if value}
        if len(pairs) > 50:
            raise invalid_parameter("Metadata may hold at most 50 keys", param=self.name(key))
        return pairs

    def _indexes(self) -> list[str]:
        if not all(key.isdecimal() for key in self._tree):
            raise invalid_parameter(f"Invalid array: {self._path}", param=self._path)
        return sorted(self._tree, key=int)

    def _leaves(self) -> Iterator[tuple[str, str]]:
        for name in self._tree:
            if len(name) > 40:
                raise invalid_parameter(f"Metadata keys can be at most 40 characters: {name}", param=self._path)
            yield name, self.text(name, longest=500) or ""
