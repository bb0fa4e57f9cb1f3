"""What webhook_ingest keeps: deliveries that verified, copies of those that did not, and their replays."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from services.webhook_ingest.signatures.port import RawDelivery, Trust, Verification


@dataclass(slots=True, unsafe_hash=True)  # never changed; but frozen, it takes twice as long to make, once a request
class Arrival:
    """A delivery as the edge received it, with what HTTP says about it."""

    gateway: str
    account: str | None
    raw: RawDelivery
    content_type: str
    remote_address: str
    request_id: str | None
    received_at: datetime
    traceparent: str | None = None
    """Of the request that brought it: its event carries it on, whenever that is published."""

    @property
    def digest(self) -> bytes:
        """SHA-256 of the bytes that were signed: it still proves the decision when a card number had to be cut out."""
        return hashlib.sha256(self.raw.body).digest()


@dataclass(slots=True, unsafe_hash=True)  # never changed; but frozen, it takes twice as long to make, once a request
class Delivery:
    """A verified delivery, fit to be stored: no card numbers, no secrets in its headers."""

    id: str
    gateway: str
    account: str | None
    dedupe_key: str
    event_id: str | None
    event_type: str | None
    trust: Trust
    key_id: str | None
    signed_at: datetime | None
    received_at: datetime
    method: str
    path: str
    query: str
    headers: tuple[tuple[str, str], ...]
    content_type: str
    body: bytes
    body_digest: bytes
    body_size: int
    remote_address: str
    request_id: str | None
    opened_type: str | None = None
    """With ``opened_body``: what an encrypted or enveloped body held; it cannot be opened again once secrets change."""
    opened_body: bytes | None = None
    traceparent: str | None = None
    forgotten_at: datetime | None = None
    """When retention emptied it: its body, headers and sender are gone, what makes it a duplicate's original stays."""


@dataclass(frozen=True, slots=True)
class EventContents:
    """What of a delivery its event is made of. ``body``: as it arrived, or what the scheme found in it."""

    id: str
    gateway: str
    account: str | None
    event_id: str | None
    event_type: str | None
    trust: Trust
    received_at: datetime
    content_type: str
    body: bytes
    traceparent: str | None


@dataclass(frozen=True, slots=True)
class Reject:
    """A bounded copy of a delivery that was refused, for forensics (SEC-46)."""

    id: str
    gateway: str
    account: str | None
    reason: str
    received_at: datetime
    remote_address: str
    request_id: str | None
    headers: tuple[tuple[str, str], ...]
    content_type: str
    body: bytes
    body_digest: bytes
    body_size: int


class ReplayMode(StrEnum):
    DRY_RUN = "dry_run"
    REDERIVE = "rederive"
    REFETCH = "refetch"


@dataclass(frozen=True, slots=True)
class Replay:
    """Who published a delivery again, how and why."""

    id: str
    delivery_id: str
    mode: ReplayMode
    reason: str
    actor: str
    requested_at: datetime
    event_id: str


@dataclass(frozen=True, slots=True)
class Announcement:
    """One webhook.received event of a delivery, and whether it has left the outbox."""

    event_id: str
    sequence: int
    created_at: datetime
    published_at: datetime | None
    attempts: int
    last_error: str | None


@dataclass(frozen=True, slots=True)
class DeliverySummary:
    """A row of the list: everything but headers and body."""

    id: str
    gateway: str
    account: str | None
    event_id: str | None
    event_type: str | None
    trust: Trust
    status: str
    received_at: datetime
    content_type: str
    body_size: int
    forgotten_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class DeliveryFilter:
    """Which deliveries to list, newest first. Ids sort by creation, so the last id seen is the cursor."""

    gateway: str | None = None
    account: str | None = None
    status: str | None = None
    event_type: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    before_id: str | None = None
    limit: int = 50


def dedupe_key(verification: Verification, body_digest: bytes) -> str:
    """What makes two deliveries the same one: the gateway's own event id where it is signed, else the content."""
    if verification.event_id is not None and verification.event_id_is_signed:
        return f"id:{verification.event_id}"
    return f"sha256:{body_digest.hex()}"
