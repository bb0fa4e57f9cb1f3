"""Idempotency keys: the same key and request replay the stored answer, another is refused, a live claim says 409.

The table holds the key's SHA-256 only, and the stored answer is sealed (AES-256-GCM) under a key derived from the
idempotency key itself: an answer may carry a client_secret, and a stolen database must not (ADR 0005). Errors are not
stored: a refused request did nothing and may be judged afresh; a transient error must not be replayed (failure PY22).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.db.session import Database, driver_of
from shared.errors import IdempotencyKeyInFlight, IdempotencyKeyInvalid, IdempotencyKeyReused
from shared.ports import Ports

KEEP_DAYS = 30
LOCK_SECONDS = 60
"""How long a claim holds without an answer: longer than any request may take; after it a crashed one can be resumed."""

_KEY = re.compile(r"^[A-Za-z0-9_-]{16,64}$")
_NONCE_BYTES = 12


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    status: int
    body: Any
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class IdempotencyClaim:
    """This request's hold on its key until it is completed or abandoned. ``key`` seals the answer and is not stored."""

    caller: str
    route: str
    key: str = field(repr=False)
    owner_token: str
    completed: list[StoredAnswer] = field(default_factory=list, compare=False, repr=False)
    """The answer, once it is stored in the transaction of its effect: if that has committed, it need not be again."""

    @property
    def key_digest(self) -> bytes:
        return hashlib.sha256(self.key.encode()).digest()

    def parameters(self) -> tuple[str, str, bytes, str]:
        """What the statements below begin with."""
        return self.caller, self.route, self.key_digest, self.owner_token


_CLAIM = """
    INSERT INTO idempotency_keys AS held (caller, route, key_digest, owner_token, fingerprint, locked_until, expires_at)
    VALUES ($1, $2, $3, $4, $5, now() + make_interval(secs => $6), now() + make_interval(days => $7))
    ON CONFLICT (caller, route, key_digest) DO UPDATE SET
        owner_token = CASE WHEN held.sealed_response IS NULL AND held.fingerprint = excluded.fingerprint
                            AND coalesce(held.locked_until, now()) <= now()
                      THEN excluded.owner_token ELSE held.owner_token END,
        locked_until = CASE WHEN held.sealed_response IS NULL AND held.fingerprint = excluded.fingerprint
                             AND coalesce(held.locked_until, now()) <= now()
                       THEN excluded.locked_until ELSE held.locked_until END
    RETURNING fingerprint, owner_token, response_status, response_headers::text AS response_headers, sealed_response
"""
_COMPLETE = """
    UPDATE idempotency_keys SET response_status = $5, response_headers = $6::text::jsonb, sealed_response = $7,
        locked_until = NULL
    WHERE caller = $1 AND route = $2 AND key_digest = $3 AND owner_token = $4
"""
_ABANDON = """
    UPDATE idempotency_keys SET locked_until = now()
    WHERE caller = $1 AND route = $2 AND key_digest = $3 AND owner_token = $4 AND sealed_response IS NULL
"""


def check_key(key: str) -> str:
    """Raises IdempotencyKeyInvalid."""
    if not _KEY.fullmatch(key):
        raise IdempotencyKeyInvalid
    return key


def fingerprint_of(request: Any) -> bytes:
    """A digest of the request's meaning: member order and white space do not make it another request."""
    canonical = json.dumps(request, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=str)
    return hashlib.sha256(canonical.encode()).digest()


class IdempotencyStore:
    def __init__(self, database: Database, ports: Ports) -> None:
        self._database = database
        self._ports = ports

    async def begin(self, *, caller: str, route: str, key: str, fingerprint: bytes) -> IdempotencyClaim | StoredAnswer:
        """Claim the key, or get what it was answered before.

        Raises IdempotencyKeyInvalid, IdempotencyKeyReused (another request), IdempotencyKeyInFlight (still running). A
        crash leaves the claim; it can be taken over after LOCK_SECONDS.
        """
        claim = IdempotencyClaim(caller, route, check_key(key), self._ports.ids.new("own"))
        async with self._database.driver() as driver:  # a statement that commits by itself: one round trip
            row = await driver.fetchrow(_CLAIM, *claim.parameters(), fingerprint, float(LOCK_SECONDS), KEEP_DAYS)
        if bytes(row["fingerprint"]) != fingerprint:
            raise IdempotencyKeyReused
        if row["sealed_response"] is not None:
            body = _open(claim, bytes(row["sealed_response"]))
            return StoredAnswer(row["response_status"], body, json.loads(row["response_headers"] or "{}"))
        if row["owner_token"] != claim.owner_token:
            raise IdempotencyKeyInFlight(retry_after_seconds=1)
        return claim

    async def complete(
        self,
        claim: IdempotencyClaim,
        answer: StoredAnswer,
        *,
        connection: AsyncConnection | None = None,
    ) -> None:
        """Store the answer; with ``connection`` in the same transaction as the effect that it reports.

        Raises IdempotencyKeyInFlight, in that transaction, if the key was taken over after LOCK_SECONDS: the effect
        rolls back, because somebody else has had it (failure L11).
        """
        sealed = self._seal(claim, answer.body)
        values = (*claim.parameters(), answer.status, json.dumps(dict(answer.headers)), sealed)
        if connection is not None:
            if await (await driver_of(connection)).execute(_COMPLETE, *values) != "UPDATE 1":
                raise IdempotencyKeyInFlight(retry_after_seconds=1)
            claim.completed.append(answer)
            return
        async with self._database.driver() as driver:
            await driver.execute(_COMPLETE, *values)

    async def abandon(self, claim: IdempotencyClaim) -> None:
        """Free the key after an error, so that the same request can be tried again at once."""
        async with self._database.driver() as driver:
            await driver.execute(_ABANDON, *claim.parameters())

    def _seal(self, claim: IdempotencyClaim, body: Any) -> bytes:
        nonce = self._ports.randomness.token_bytes(_NONCE_BYTES)
        plain = json.dumps(body, separators=(",", ":")).encode()
        return nonce + AESGCM(_sealing_key(claim)).encrypt(nonce, plain, _associated_data(claim))


def _open(claim: IdempotencyClaim, sealed: bytes) -> Any:
    try:
        plain = AESGCM(_sealing_key(claim)).decrypt(
            sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _associated_data(claim)
        )
    except InvalidTag as error:
        raise AssertionError("a stored answer does not open under the key that found it") from error
    return json.loads(plain)


def _sealing_key(claim: IdempotencyClaim) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=b"payrail idempotency answer").derive(claim.key.encode())


def _associated_data(claim: IdempotencyClaim) -> bytes:
    return f"{claim.caller}\n{claim.route}".encode()
