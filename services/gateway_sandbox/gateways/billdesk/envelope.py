"""JOSE as BillDesk speaks it: every request and answer, and what it sends by itself.

With PyJWT, and not with what Payrail's services use: two that were written apart have to understand each other.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from jwt import PyJWS
from jwt.exceptions import PyJWTError

from shared.randomness import Randomness

_JWS = PyJWS(algorithms=["HS256"])


class Unsealed(ValueError):
    """Not sealed by this merchant."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """Several keys while one is changed; the first one seals. Without a ``client_id`` any will do."""

    client_id: str | None
    key_id: str | None
    signing_keys: Sequence[bytes] = field(repr=False)
    encryption_keys: Sequence[bytes] = field(repr=False)
    encrypts: bool
    randomness: Randomness

    def close(self, text: str) -> str:
        header = {"clientid": self.client_id or "sandbox"}
        content = text.encode()
        if self.encrypts:
            header = {"kid": self.key_id or "", **header}
            content = self._encrypted(content, header)
        # An empty ``typ`` leaves out the one that PyJWT would add.
        headers: dict[str, Any] = {"typ": "", **header}
        return _JWS.encode(content, self.signing_keys[0], algorithm="HS256", headers=headers, sort_headers=False)

    def open(self, sealed: bytes) -> str:
        """The content of a request. Raises Unsealed."""
        content = self._signed(sealed)
        if self.encrypts:
            content = self._decrypted(content)
        try:
            return content.decode()
        except UnicodeDecodeError as error:
            raise Unsealed("not UTF-8") from error

    def _signed(self, sealed: bytes) -> bytes:
        for key in self.signing_keys:
            try:
                found = _JWS.decode_complete(sealed, key, algorithms=["HS256"])
            except PyJWTError:
                continue
            self._check(found["header"])
            content: bytes = found["payload"]
            return content
        raise Unsealed("the signature is not the merchant's")

    def _check(self, header: Mapping[str, Any]) -> None:
        wanted = {"clientid": self.client_id, "kid": self.key_id if self.encrypts else None}
        if any(value is not None and header.get(name) != value for name, value in wanted.items()):
            raise Unsealed("another client")

    def _encrypted(self, content: bytes, header: Mapping[str, str]) -> bytes:
        protected = _base64url(json.dumps({"alg": "dir", "enc": "A256GCM", **header}, separators=(",", ":")).encode())
        iv = self.randomness.token_bytes(12)
        sealed = AESGCM(self.encryption_keys[0]).encrypt(iv, content, protected)
        return b".".join((protected, b"", _base64url(iv), _base64url(sealed[:-16]), _base64url(sealed[-16:])))

    def _decrypted(self, text: bytes) -> bytes:
        try:
            protected, wrapped_key, *rest = text.split(b".")
            iv, sealed, tag = map(_raw, rest)
            header = json.loads(_raw(protected))
        except (ValueError, binascii.Error) as error:
            raise Unsealed("not encrypted") from error
        if wrapped_key or header.get("alg") != "dir" or header.get("enc") != "A256GCM":
            raise Unsealed("not encrypted as agreed")
        self._check(header)
        for key in self.encryption_keys:
            try:
                return AESGCM(key).decrypt(iv, sealed + tag, protected)
            except InvalidTag:
                continue
        raise Unsealed("encrypted with another key")


def _base64url(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def _raw(text: bytes) -> bytes:
    return base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))
