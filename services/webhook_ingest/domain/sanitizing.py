"""What of a delivery may be written down: no card numbers, no secrets, nothing that text refuses (SEC-50, W12)."""

from __future__ import annotations

import re
from collections.abc import Iterable

from shared.masking import MASK, mask_card_numbers, may_hold_card_number

MAX_HEADERS = 60
MAX_HEADER_CHARACTERS = 2048
_MAX_NAME_CHARACTERS = 100

REJECT_BODY_BYTES = 6 * 1024
REJECT_HEADER_CHARACTERS = 2 * 1024
"""With the body's share, a kept reject stays within 8 KiB (SEC-46)."""

_SECRET_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie", "x-api-key", "x-order-secret"})
_SECRET_PARAMETER = re.compile("token|secret|password|apikey|api_key", re.IGNORECASE)
# A signature is no secret: it is what proves later that the delivery was genuine.


def without_card_numbers(body: bytes) -> bytes:
    """The body with what looks like a card number replaced; all other bytes stay as they are, valid UTF-8 or not."""
    if not may_hold_card_number(body):
        return body
    text = body.decode("utf-8", "surrogateescape")
    masked = mask_card_numbers(text)
    return body if masked == text else masked.encode("utf-8", "surrogateescape")


def safe_text(text: str, limit: int) -> str:
    """Printable, bounded text: control characters and lone surrogates become question marks."""
    bounded = text[:limit]
    if bounded.isprintable():
        return bounded
    return "".join(character if character.isprintable() else "?" for character in bounded)


def safe_query(query: str) -> str:
    """A raw query string without what opens a door: some gateways put a token into the address."""
    if not query:
        return query
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
    headers = tuple(headers)
    if characters == MAX_HEADERS * MAX_HEADER_CHARACTERS and _is_plain(headers):
        names = {name.lower() for name, _ in headers}
        if _SECRET_HEADERS.isdisjoint(names) and secret_names.isdisjoint(names):
            return headers
        return tuple((name, MASK) if _is_secret(name, secret_names) else (name, value) for name, value in headers)
    kept: list[tuple[str, str]] = []
    for name, value in headers:
        shown = MASK if _is_secret(name, secret_names) else mask_card_numbers(safe_text(value, MAX_HEADER_CHARACTERS))
        pair = (safe_text(name, _MAX_NAME_CHARACTERS), shown)
        characters -= len(pair[0]) + len(pair[1])
        if characters < 0 or len(kept) == MAX_HEADERS:
            break
        kept.append(pair)
    return tuple(kept)


def _is_plain(headers: tuple[tuple[str, str], ...]) -> bool:
    """Whether nothing would be cut or replaced but secrets: one look at all of them together, for nearly all requests
    have such headers. Digits of neighbours may look like one number here; then each is looked at by itself."""
    text = "".join([part for pair in headers for part in pair])
    return (
        len(text) <= MAX_HEADER_CHARACTERS
        and len(headers) <= MAX_HEADERS
        and text.isprintable()
        and not may_hold_card_number(text.encode("utf-8", "surrogatepass"))
        and max([len(name) for name, _ in headers], default=0) <= _MAX_NAME_CHARACTERS
    )


def _is_secret(name: str, secret_names: frozenset[str]) -> bool:
    name = name.lower()
    return name in _SECRET_HEADERS or name in secret_names
