"""Stripe's search query language, as far as it is needed: ``status:'succeeded' AND metadata['k']:'v'``."""

from __future__ import annotations

import re
from collections.abc import Callable

from services.gateway_sandbox.gateways.stripe.errors import invalid_parameter
from services.gateway_sandbox.gateways.stripe.objects import Json

_CLAUSE = re.compile(
    r"""^\s*(?:(?P<field>status|currency)|metadata\[(?P<q>["'])(?P<key>[^"'\]]{1,40})(?P=q)\])\s*:\s*(?P<v>["'])(?P<value>[^"']*)(?P=v)\s*$"""
)

Test = Callable[[Json], bool]


def parse_query(query: str) -> Test:
    """Raises WireError."""
    either = re.split(r"\s+OR\s+", query)
    clauses = re.split(r"\s+AND\s+", query) if len(either) == 1 else either
    tests = [_clause(clause) for clause in clauses]
    combine = all if len(either) == 1 else any
    return lambda intent: combine(test(intent) for test in tests)


def _clause(text: str) -> Test:
    match = _CLAUSE.match(text)
    if match is None:
        raise invalid_parameter("We were unable to parse your search query.", param="query")
    key, field, value = match["key"], match["field"], match["value"]
    if key is not None:
        return lambda intent: bool(intent["metadata"].get(key) == value)
    return lambda intent: bool(intent[field] == value.lower())
