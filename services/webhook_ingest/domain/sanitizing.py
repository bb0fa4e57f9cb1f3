"""What of a delivery may be written down: no card numbers, no secrets, nothing that text refuses (SEC-50, W12)."""

from __future__ import annotations

import re
from collections.abc import Iterable

from shared.masking import MASK, mask_card_numbers

MAX_HEADERS = 60
MAX_HEADER_CHARACTERS = 2048

REJECT_BODY_BYTES = 6 * 1024
REJECT_HEADER_CHARACTERS = 2 * 1024
"""With the body's share, a kept reject stays within 8 KiB (SEC-46)."""

_SECRET_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie", "x-api-key", "x-order-secret"})
_SECRET_PARAMETER = re.compile("token|secret|password|apikey|api_key", re.IGNORECASE)
# A signature is no secret: it is what proves later that the delivery was genuine.


def without_card_numbers(body: bytes) -> bytes:
    """The body with what looks like a card number replaced; all other bytes stay as they are, valid UTF-8 or not."""
    text = body.decode("utf-8", "surrogateescape")
    masked = mask_card_numbers(text)
    return body if masked == text else masked.encode("utf-8", "surrogateescape")


def safe_text(text: str, limit: int) -> str:
    """Printable, bounded text: control characters and lone surrogates become question marks."""
    return "".join(character if character.isprintable() else "?" for character in text[:limit])


def safe_query(query: str) -> str:
    """A raw query string without what opens a door: some gateways put a token into the address."""
    parts = (part.partition("=") for part in query.split("&"))
    kept = (name + sign + (MASK if value and _SECRET_PARAMETER.search(name) else value) for name, sign, value in parts)
    return mask_card_numbers(safe_text("&".join(kept), 2000))


def safe_headers(
    headers: Iterable[tuple[str, str]],
    *,
    secret_names: frozenset[str],
    characters: int = MAX_HEADERS * MAX_HEADER_CHARACTERS,
) -> tuple[tuple[str, str], ...]:
    """Headers without secrets, bounded in number and size; the first ones are kept."""
    kept: list[tuple[str, str]] = []
    for name, value in headers:
        is_secret = name.lower() in _SECRET_HEADERS or name.lower() in secret_names
        pair = (safe_text(name, 100), MASK if is_secret else mask_card_numbers(safe_text(value, MAX_HEADER_CHARACTERS)))
        characters -= len(pair[0]) + len(pair[1])
        if characters < 0 or len(kept) == MAX_HEADERS:
            break
        kept.append(pair)
    return tuple(kept)
