"""The words of a status on their way out, through the books: under a fault they are words that nobody documents."""

from __future__ import annotations

from typing import Any

from services.gateway_sandbox.gateways.port import Books


def worded(body: Any, books: Books, *keys: str) -> Any:
    """A copy of an answer, with the texts under these keys as ``books.word`` has them, however deep they are."""
    if isinstance(body, dict):
        return {
            key: books.word(value) if key in keys and isinstance(value, str) else worded(value, books, *keys)
            for key, value in body.items()
        }
    if isinstance(body, list):
        return [worded(each, books, *keys) for each in body]
    return body
