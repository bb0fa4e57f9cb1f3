"""Compact JOSE with shared secrets: JWS HS256 (RFC 7515) around text or a JWE ``dir`` with A256GCM (RFC 7516).

One algorithm each, pinned: what a message claims of itself never chooses how, or with which key, it is checked. No
randomness is drawn here; an initialization vector is an argument.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

CONTENT_KEY_BYTES = 32
IV_BYTES = 12
_TAG_BYTES = 16

_BASE64URL = re.compile(r"[A-Za-z0-9_-]*", re.ASCII)
_OTHER_KEYS = frozenset({"jwk", "jku", "x5u", "x5c", "x5t", "x5t#S256"})
"""A header that brings or names a key of the sender's own choice."""

_CHANGES_THE_RULES = frozenset({"crit", "b64", "zip"})


class Malformed(ValueError):
    """It is not what is expected here: other parts, another algorithm, a header that brings its own key."""


class WrongKey(ValueError):
    """It is well-formed, and none of our keys made it."""


@dataclass(frozen=True, slots=True)
class Opened:
    """``key_index``: which of the keys that were tried it was."""

    header: Mapping[str, Any]
    content: bytes = field(repr=False)
    key_index: int


def sign(header: Mapping[str, str], content: bytes, key: bytes) -> str:
    """A JWS; ``alg`` comes first in its header."""
    signed = f"{_encoded_header({'alg': 'HS256', **header})}.{_encode(content)}"
    return f"{signed}.{_encode(_mac(signed, key))}"


def open_signed(text: str, keys: Sequence[bytes]) -> Opened:
    """Raises Malformed, WrongKey. No key is used before the header is known to name our one algorithm."""
    parts = _parts(text, 3)
    header = _header(parts[0], {"alg": "HS256"})
    content, mac = _decode(parts[1]), _decode(parts[2])
    signed = f"{parts[0]}.{parts[1]}"
    found = [index for index, key in enumerate(keys) if hmac.compare_digest(_mac(signed, key), mac)]
    if not found:
        raise WrongKey("signed with none of our keys")
    return Opened(header, content, found[0])


def encrypt(header: Mapping[str, str], content: bytes, key: bytes, iv: bytes) -> str:
    """A JWE with the key itself as content key; ``alg`` and ``enc`` come first in its header."""
    protected = _encoded_header({"alg": "dir", "enc": "A256GCM", **header})
    sealed = AESGCM(key).encrypt(iv, content, protected.encode())
    return f"{protected}..{_encode(iv)}.{_encode(sealed[:-_TAG_BYTES])}.{_encode(sealed[-_TAG_BYTES:])}"


def decrypt(text: str, keys: Sequence[bytes]) -> Opened:
    """Raises Malformed, WrongKey."""
    protected, wrapped_key, iv_text, sealed, tag_text = _parts(text, 5)
    header = _header(protected, {"alg": "dir", "enc": "A256GCM"})
    iv, tag = _decode(iv_text), _decode(tag_text)
    if wrapped_key or len(iv) != IV_BYTES or len(tag) != _TAG_BYTES:
        raise Malformed("not encrypted directly")
    for index, key in enumerate(keys):
        try:
            return Opened(header, AESGCM(key).decrypt(iv, _decode(sealed) + tag, protected.encode()), index)
        except InvalidTag:
            continue
    raise WrongKey("encrypted with none of our keys")


def is_encrypted(content: bytes) -> bool:
    """Whether a JWS holds a JWE, which begins with its header's brace in base64url; JSON begins with its own."""
    return content.startswith(b"eyJ") and content.count(b".") == 4


def _mac(signed: str, key: bytes) -> bytes:
    return hmac.new(key, signed.encode(), hashlib.sha256).digest()


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    """Only the one way to write it: the bits that the last letter does not need would be a second one."""
    if not _BASE64URL.fullmatch(text) or len(text) % 4 == 1:
        raise Malformed("not base64url")
    raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if _encode(raw) != text:
        raise Malformed("not base64url as it is written")
    return raw


def _parts(text: str, count: int) -> list[str]:
    parts = text.strip().split(".", count)
    if len(parts) != count:
        raise Malformed(f"not {count} parts")
    return parts


def _encoded_header(header: Mapping[str, str]) -> str:
    return _encode(json.dumps(header, separators=(",", ":")).encode())


def _header(text: str, pinned: Mapping[str, str]) -> Mapping[str, Any]:
    try:
        header = json.loads(_decode(text), object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:
        raise Malformed("the header is not JSON") from error
    if not isinstance(header, dict) or any(header.get(name) != value for name, value in pinned.items()):
        raise Malformed("another algorithm than the one expected")
    if not header.keys().isdisjoint(_OTHER_KEYS | _CHANGES_THE_RULES):
        raise Malformed("the header brings a key, or rules, of its own")
    return header


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name appears twice")
    return found
