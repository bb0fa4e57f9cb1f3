"""CCAvenue's encryption, which its adapter, its webhook scheme and its sandbox need alike.

What it protects is secrecy alone: CBC carries no checksum, so that whoever changes the text on its way may have it
still decrypt. Nothing that is decrypted here is believed; it is a reason to ask the gateway.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shared.randomness import Randomness

Encryption = Literal["cbc", "gcm"]

ENCRYPTIONS: tuple[Encryption, ...] = ("cbc", "gcm")
"""The standard kit's, and that of newer ones."""

_BLOCK = 16
_CBC_VECTOR = bytes(range(_BLOCK))  # the kits' own: the same for every message, which is why equal texts look equal
_GCM_VECTOR_SIZE = 16
_GCM_TAG_SIZE = 16
_GCM_KEY_SIZE = 32
_HEX = re.compile(r"[0-9a-fA-F]+")


class CannotDecrypt(ValueError):
    """Not what somebody with this key has encrypted. Why, it does not say: that would help to try (padding oracle)."""

    def __init__(self) -> None:
        super().__init__("cannot be decrypted")


class CCAvenueCipher:
    """Text to hexadecimal digits and back. Raises ValueError for a working key that cannot be used."""

    def __init__(self, working_key: str, encryption: Encryption = "cbc") -> None:
        raw = working_key.encode()
        if not working_key.strip() or not working_key.isascii():
            raise ValueError("a working key is ASCII and not empty")
        if encryption == "gcm" and len(raw) != _GCM_KEY_SIZE:
            raise ValueError("with GCM a working key has 32 characters")
        self._encryption = encryption
        self._cbc_key = hashlib.md5(raw, usedforsecurity=False).digest()  # how the kits make a key of it
        self._gcm_key = raw

    def __repr__(self) -> str:
        return f"CCAvenueCipher({self._encryption})"

    def encrypt(self, text: str, randomness: Randomness) -> str:
        plain = text.encode()
        if self._encryption == "gcm":
            vector = randomness.token_bytes(_GCM_VECTOR_SIZE)
            return (vector + AESGCM(self._gcm_key).encrypt(vector, plain, None)).hex()
        count = _BLOCK - len(plain) % _BLOCK
        encryptor = self._cbc().encryptor()
        return (encryptor.update(plain + bytes([count]) * count) + encryptor.finalize()).hex()

    def decrypt(self, digits: str) -> str:
        """Raises CannotDecrypt, always the same, whatever is wrong."""
        if len(digits) % 2 or not _HEX.fullmatch(digits):
            raise CannotDecrypt
        sealed = bytes.fromhex(digits)
        return self._open_gcm(sealed) if self._encryption == "gcm" else self._open_cbc(sealed)

    def _open_cbc(self, sealed: bytes) -> str:
        if len(sealed) % _BLOCK:
            raise CannotDecrypt
        decryptor = self._cbc().decryptor()
        padded = decryptor.update(sealed) + decryptor.finalize()
        count = padded[-1]
        is_padded = 1 <= count <= _BLOCK and hmac.compare_digest(padded[-count:], bytes([count]) * count)
        # The text is read even where the padding is wrong, so that the time taken does not tell the two apart.
        text = _text(padded[:-count] if is_padded else padded)
        if text is None or not is_padded:
            raise CannotDecrypt
        return text

    def _open_gcm(self, sealed: bytes) -> str:
        if len(sealed) < _GCM_VECTOR_SIZE + _GCM_TAG_SIZE:
            raise CannotDecrypt
        vector, rest = sealed[:_GCM_VECTOR_SIZE], sealed[_GCM_VECTOR_SIZE:]
        try:
            text = _text(AESGCM(self._gcm_key).decrypt(vector, rest, None))
        except InvalidTag:
            raise CannotDecrypt from None
        if text is None:
            raise CannotDecrypt
        return text

    def _cbc(self) -> Cipher[modes.CBC]:
        return Cipher(algorithms.AES(self._cbc_key), modes.CBC(_CBC_VECTOR))


def _text(plain: bytes) -> str | None:
    try:
        return plain.decode()
    except UnicodeDecodeError:
        return None


def split_pairs(text: str) -> list[tuple[str, str]]:
    """``k=v&k=v`` as CCAvenue writes it: nothing is URL-encoded, and a value may hold an ``=``.

    A piece without a name of its own belongs to the value before it: shoppers type ``&`` into their addresses. The word
    ``null`` is an empty value. Raises ValueError where a name comes twice, because a shopper may have typed that too.
    """
    pairs: dict[str, str] = {}
    last: str | None = None
    for piece in text.strip("\r\n ").split("&"):
        name, equals, value = piece.partition("=")
        if equals and _NAME.fullmatch(name):
            if name in pairs:
                raise ValueError("a name comes twice")
            pairs[name], last = value, name
        elif last is not None:
            pairs[last] += f"&{piece}"
        else:
            raise ValueError("no name and value")
    return [(name, _value(value)) for name, value in pairs.items()]


def _value(text: str) -> str:
    text = text.strip("\r\n ")
    return "" if text == "null" else text


_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
