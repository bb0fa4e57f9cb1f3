"""Paytm's checksum, which signs its API calls, answers, forms and webhooks alike. Facts: gateways/paytm.md.

Shared because both ends of it live here: the adapter signs and reads, webhook_ingest verifies, the sandbox plays Paytm.
A checksum is the SHA-256 of ``text|salt``, with the salt behind it, encrypted with AES-128-CBC under the merchant key
and a fixed initialization vector. What the text is depends on what is signed: of JSON the exact characters of its
``body`` member, of a form its values in the order of their names.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping
from urllib.parse import parse_qsl

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from shared.randomness import Randomness

KEY_BYTES = 16
"""Of 24 or 32 bytes AES would quietly take the longer key for another cipher, and no checksum would ever fit."""

CHECKSUM_FIELD = "CHECKSUMHASH"
"""Where a form carries its checksum."""

SALT_CHARACTERS = 4
MAX_FORM_FIELDS = 200

_VECTOR = b"@@@@&&&&####$$$$"
_BLOCK = 16
_HASHED_CHARACTERS = 64 + SALT_CHARACTERS
_CHECKSUM_CHARACTERS = 108
_BLANKS = " \t\n\r"
_DECODER = json.JSONDecoder()


def key_of(text: str) -> bytes:
    """Raises ValueError, which does not name the key."""
    key = text.encode()
    if len(key) != KEY_BYTES:
        raise ValueError(f"a merchant key of Paytm's has exactly {KEY_BYTES} bytes")
    return key


def new_salt(randomness: Randomness) -> str:
    return base64.b64encode(randomness.token_bytes(3)).decode()


def checksum_of(text: str, key: bytes, salt: str) -> str:
    hashed = _hashed(text, salt)
    padding = _BLOCK - len(hashed) % _BLOCK
    encryptor = _cipher(key).encryptor()
    encrypted = encryptor.update(hashed + bytes([padding]) * padding) + encryptor.finalize()
    return base64.b64encode(encrypted).decode()


def has_checksum(text: str, key: bytes, checksum: str) -> bool:
    """Whether this checksum was made of this text under this key. Total: what cannot be one is False."""
    hashed = _decrypted(checksum, key)
    if hashed is None:
        return False
    try:
        salt = hashed[-SALT_CHARACTERS:].decode()
        return hmac.compare_digest(hashed, _hashed(text, salt))
    except UnicodeError:
        return False


def form_text(fields: Mapping[str, str], *, null_is_empty: bool = False) -> str:
    """What is signed of a form: every value but the checksum's own, known or not.

    ``null_is_empty``: one of Paytm's packages takes the word for an empty value, another one does not.
    """
    names = sorted(name for name in fields if name != CHECKSUM_FIELD)
    values = (fields[name] for name in names)
    return "|".join("" if null_is_empty and value.lower() == "null" else value for value in values)


def form_fields(raw: bytes) -> dict[str, str]:
    """A form's fields, empty ones included. Raises ValueError for what is not one, and for a name that comes twice."""
    text = raw.decode("ascii")
    most = MAX_FORM_FIELDS
    pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=most)
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a field comes twice")
    return fields


def envelope(head: Mapping[str, str], body_text: str) -> str:
    """The JSON that goes out. The body stays the text that was signed: writing it anew could change a character."""
    return f'{{"head":{json.dumps(head)},"body":{body_text}}}'


def cut_member(text: str, name: str) -> str | None:
    """The exact characters of one member of a JSON object. None where there is none, or not exactly one."""
    try:
        found = [text[start:end] for key, start, end in _members(text) if key == name]
    except (ValueError, RecursionError):
        return None
    return found[0] if len(found) == 1 else None


def _members(text: str) -> list[tuple[str, int, int]]:
    """Name, beginning and end of each member. Raises ValueError for what is not one JSON object."""
    found: list[tuple[str, int, int]] = []
    position = _after(text, _skip(text, 0), "{")
    has_more = text[position : position + 1] != "}"
    while has_more:
        key, position = _DECODER.raw_decode(text, position)
        if not isinstance(key, str):
            raise ValueError("a name is not text")
        start = _after(text, _skip(text, position), ":")
        _, end = _DECODER.raw_decode(text, start)
        found.append((key, start, end))
        position = _skip(text, end)
        has_more = text[position : position + 1] == ","
        position = _skip(text, position + 1) if has_more else position
    if _after(text, position, "}") != len(text):
        raise ValueError("something follows the object")
    return found


def _after(text: str, position: int, expected: str) -> int:
    if text[position : position + 1] != expected:
        raise ValueError(f"{expected} is missing")
    return _skip(text, position + 1)


def _skip(text: str, position: int) -> int:
    while position < len(text) and text[position] in _BLANKS:
        position += 1
    return position


def _hashed(text: str, salt: str) -> bytes:
    return (hashlib.sha256(f"{text}|{salt}".encode()).hexdigest() + salt).encode()


def _decrypted(checksum: str, key: bytes) -> bytes | None:
    """The hash and its salt, or None for what does not decrypt to exactly these."""
    if len(checksum) != _CHECKSUM_CHARACTERS:
        return None
    try:
        encrypted = base64.b64decode(checksum.encode("ascii"), validate=True)
    except (ValueError, binascii.Error):
        return None
    if not encrypted or len(encrypted) % _BLOCK:
        return None
    decryptor = _cipher(key).decryptor()
    padded = decryptor.update(encrypted) + decryptor.finalize()
    padding = padded[-1]
    is_padded = 1 <= padding <= _BLOCK and padded.endswith(bytes([padding]) * padding)
    hashed = padded[:-padding]
    return hashed if is_padded and len(hashed) == _HASHED_CHARACTERS else None


def _cipher(key: bytes) -> Cipher[modes.CBC]:
    return Cipher(algorithms.AES(key), modes.CBC(_VECTOR))
