"""What a signature scheme is: a total function from the raw bytes of a delivery to "verified" or "refused".

Nothing here knows a database, a framework, an environment variable or a clock: the time of receipt is an argument.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import Protocol, runtime_checkable

from shared.errors import InfrastructureError


@dataclass(slots=True, unsafe_hash=True)  # never changed; but frozen, it takes twice as long to make, once a request
class RawDelivery:
    """One HTTP request as it arrived, before any parser. ``query`` is raw, without the question mark."""

    method: str
    path: str
    query: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header_values(self, name: str) -> list[str]:
        """Every value of a header, in order of arrival; names are case-insensitive."""
        wanted = name.lower()
        return [value for header, value in self.headers if header.lower() == wanted]


@dataclass(frozen=True, slots=True)
class SigningSecret:
    """One of the secrets that are valid at the moment (several while a secret is rotated)."""

    text: str = field(repr=False)

    @property
    def key_id(self) -> str:
        """Says in logs and metrics which secret matched, without saying the secret (SEC-43)."""
        return _key_id(self.text)


@lru_cache(maxsize=1024)  # settings bound how many there are
def _key_id(text: str) -> str:
    return hashlib.sha256(b"payrail-key-id:" + text.encode("utf-8", "surrogatepass")).hexdigest()[:8]


class Trust(StrEnum):
    FULL = "full"  # the body is signed: what it says is a fact
    HINT = "hint"  # the body, or the part that counts, is not signed: it is only a reason to ask the gateway


class Refusal(StrEnum):
    """Why a delivery was refused. Kept with the copy for operators; the caller learns only what its status says."""

    NO_SECRET = "no_secret"  # noqa: S105 - a reason, not a password
    SIGNATURE_MISSING = "signature_missing"
    SIGNATURE_MALFORMED = "signature_malformed"
    SIGNATURE_MISMATCH = "signature_mismatch"
    TIMESTAMP_MISSING = "timestamp_missing"
    TIMESTAMP_MALFORMED = "timestamp_malformed"
    TIMESTAMP_OUT_OF_TOLERANCE = "timestamp_out_of_tolerance"
    REPEATED_FIELD = "repeated_field"
    CONTENT_INCOMPLETE = "content_incomplete"
    CONTENT_AMBIGUOUS = "content_ambiguous"


@dataclass(frozen=True, slots=True)
class Content:
    """What an encrypted or enveloped body holds, opened: text of a type that an adapter can read.

    The raw bytes are what is stored as the delivery; this travels beside them in its event.
    """

    content_type: str
    body: bytes = field(repr=False)


@dataclass(slots=True, unsafe_hash=True)  # never changed; but frozen, it takes twice as long to make, once a request
class Verification:
    """The answer. ``refusal`` is None exactly when the delivery is verified."""

    refusal: Refusal | None
    trust: Trust = Trust.HINT
    key_id: str | None = None
    event_id: str | None = None
    event_id_is_signed: bool = False
    """An id that nobody signed is worth recording, never worth deduplicating by: a forger could burn a future id."""
    event_type: str | None = None
    timestamp: datetime | None = None
    content: Content | None = None
    """Where the body itself is not what its adapter reads (CCAvenue's encrypted form, BillDesk's JOSE)."""

    @property
    def verified(self) -> bool:
        return self.refusal is None


def refused(reason: Refusal) -> Verification:
    return Verification(refusal=reason)


class SignatureScheme(Protocol):
    """Any bytes, headers and query give an answer, never an exception (SEC-40)."""

    @property
    def secret_headers(self) -> frozenset[str]:
        """Lower-case names of headers that carry a secret itself, so that copies of a delivery leave them out."""
        ...

    def check_secret(self, secret: SigningSecret) -> None:
        """Raise InvalidSchemeConfig when the secret cannot be this scheme's key."""
        ...

    def verify(
        self, delivery: RawDelivery, secrets: Sequence[SigningSecret], received_at: datetime
    ) -> Verification: ...


@runtime_checkable
class PreparingScheme(Protocol):
    """A scheme that needs something from outside to verify: a certificate, or the gateway's own judgement."""

    async def prepare(
        self, delivery: RawDelivery, secrets: Sequence[SigningSecret], received_at: datetime
    ) -> SignatureScheme:
        """A scheme that holds what it takes to verify this delivery, without any further call.

        What its headers alone refuse is asked about nowhere. Raises EvidenceUnavailable: then nothing is known, and the
        gateway is told to send it again.
        """
        ...


class EvidenceUnavailable(InfrastructureError):
    """What proves this delivery could not be fetched just now; send it again."""

    code = "evidence_unavailable"


class InvalidSchemeConfig(ValueError):
    """A scheme or secret that could accept what nobody signed; the service refuses to start."""
