"""Refuse JSON with one member twice: it means two things at once, and parsers differ about which (SEC-60)."""

from __future__ import annotations

import json
from typing import Any

from fastapi import Request

from shared.errors import InvalidRequest


async def refuse_duplicate_keys(request: Request) -> None:
    """A dependency for routes whose body says how much money."""
    body = await request.body()  # kept by the request: FastAPI has read it already
    if body:
        try:
            json.loads(body, object_pairs_hook=_unique)
        except (ValueError, RecursionError):
            return  # not JSON at all, or nobody's JSON: FastAPI says so


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if len(keys) != len(set(keys)):
        raise InvalidRequest("a JSON object in the body has the same member twice")
    return dict(pairs)
