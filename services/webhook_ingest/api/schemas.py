"""What goes in and out of webhook_ingest's own API."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

from services.webhook_ingest.domain.models import Announcement, Delivery, DeliverySummary, Reject, Replay, ReplayMode
from services.webhook_ingest.use_cases.replay_deliveries import MAX_BULK, Replayed
from shared.clock import to_rfc3339
from shared.contracts.webhook_events import WebhookReceived
from shared.web.moments import MomentIn

Moment = Annotated[datetime, PlainSerializer(to_rfc3339, return_type=str, when_used="json")]
DeliveryId = Annotated[str, Field(pattern=r"^whd_[0-9a-z]{26}$")]
GatewayName = Annotated[str, Field(pattern=r"^[a-z0-9_]{1,40}$")]
# Without control characters: it goes into a text column and into logs.
Reason = Annotated[str, Field(min_length=3, max_length=500, pattern=r"^[^\x00-\x1f\x7f]+$")]
Mode = Literal["dry_run", "rederive", "refetch"]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Acknowledged(BaseModel):
    """The delivery is verified and durable."""

    status: Literal["accepted", "duplicate"]
    delivery_id: str


class DeliveryItem(BaseModel):
    id: str
    gateway: str
    account: str | None
    event_id: str | None
    event_type: str | None
    trust: Literal["full", "hint"]
    status: Literal["pending", "published"] = Field(description="whether its events have left the outbox")
    received_at: Moment
    content_type: str
    body_size: int
    forgotten_at: Moment | None = Field(description="when its contents were removed; null: they are kept")

    @classmethod
    def of(cls, summary: DeliverySummary) -> DeliveryItem:
        return cls.model_validate(summary, from_attributes=True)


class DeliveryPage(BaseModel):
    data: list[DeliveryItem]
    next_cursor: str | None


class Header(BaseModel):
    name: str
    value: str


class VerificationView(BaseModel):
    trust: Literal["full", "hint"]
    key_id: str | None = Field(description="which secret matched; not the secret")
    signed_at: Moment | None
    dedupe_key: str
    body_sha256: str = Field(description="of the bytes that were signed")


class EventView(BaseModel):
    event_id: str
    sequence: int
    created_at: Moment
    published_at: Moment | None
    attempts: int
    last_error: str | None

    @classmethod
    def of(cls, announcement: Announcement) -> EventView:
        return cls.model_validate(announcement, from_attributes=True)


class ReplayView(BaseModel):
    id: str
    mode: Mode
    reason: str
    actor: str
    requested_at: Moment
    event_id: str

    @classmethod
    def of(cls, replay: Replay) -> ReplayView:
        return cls.model_validate(replay, from_attributes=True)


class DeliveryView(BaseModel):
    id: str
    gateway: str
    account: str | None
    event_id: str | None
    event_type: str | None
    status: Literal["pending", "published"]
    received_at: Moment
    forgotten_at: Moment | None = Field(
        description="when its contents were removed (WEBHOOK_RETENTION_DAYS); query, headers, body and sender are null"
        " then, and it cannot be replayed"
    )
    remote_address: str | None
    request_id: str | None
    method: str
    path: str
    query: str | None
    headers: list[Header] | None = Field(description="as received, secrets masked")
    content_type: str
    body_size: int
    body_base64: str | None = Field(description="as received; a card number is cut out before storing")
    body_text: str | None = Field(description="the same as UTF-8, bytes that are none shown as U+FFFD")
    verification: VerificationView
    events: list[EventView]
    replays: list[ReplayView]

    @classmethod
    def of(cls, delivery: Delivery, events: Sequence[Announcement], replays: Sequence[Replay]) -> DeliveryView:
        is_waiting = any(event.published_at is None for event in events)
        is_kept = delivery.forgotten_at is None
        return cls(
            id=delivery.id,
            gateway=delivery.gateway,
            account=delivery.account,
            event_id=delivery.event_id,
            event_type=delivery.event_type,
            status="pending" if is_waiting else "published",
            received_at=delivery.received_at,
            forgotten_at=delivery.forgotten_at,
            remote_address=delivery.remote_address if is_kept else None,
            request_id=delivery.request_id,
            method=delivery.method,
            path=delivery.path,
            query=delivery.query if is_kept else None,
            headers=[Header(name=name, value=value) for name, value in delivery.headers] if is_kept else None,
            content_type=delivery.content_type,
            body_size=delivery.body_size,
            body_base64=base64.b64encode(delivery.body).decode() if is_kept else None,
            body_text=delivery.body.decode("utf-8", "replace") if is_kept else None,
            verification=VerificationView(
                trust=delivery.trust.value,
                key_id=delivery.key_id,
                signed_at=delivery.signed_at,
                dedupe_key=delivery.dedupe_key,
                body_sha256=delivery.body_digest.hex(),
            ),
            events=[EventView.of(event) for event in events],
            replays=[ReplayView.of(replay) for replay in replays],
        )


class ReplayRequest(_Request):
    mode: Mode = Field(
        "dry_run",
        description="rederive publishes the same facts again; refetch makes the payment service ask the gateway",
    )
    reason: Reason

    @property
    def replay_mode(self) -> ReplayMode:
        return ReplayMode(self.mode)


class BulkReplayRequest(ReplayRequest):
    gateway: GatewayName
    # Strict mode would refuse the string that JSON has for a time.
    from_: MomentIn = Field(alias="from", strict=False, description="received at or after")
    to: MomentIn = Field(strict=False, description="received before")
    limit: int = Field(100, ge=1, le=MAX_BULK)
    after: DeliveryId | None = Field(None, description="next_after of the previous call")


class ReplayedView(BaseModel):
    delivery_id: str
    published: bool
    event_id: str | None = Field(description="of the new event; null for a dry run")
    event: WebhookReceived = Field(description="what is, or would be, published")

    @classmethod
    def of(cls, replayed: Replayed) -> ReplayedView:
        return cls(
            delivery_id=replayed.delivery_id,
            published=replayed.event_id is not None,
            event_id=replayed.event_id,
            event=replayed.event,
        )


class BulkReplayedItem(BaseModel):
    delivery_id: str
    event_id: str | None


class BulkReplayedView(BaseModel):
    mode: Mode
    count: int
    forgotten: int = Field(description="deliveries of the window whose contents are not kept any more: not replayed")
    deliveries: list[BulkReplayedItem]
    next_after: str | None = Field(description="more deliveries match: call again with this as `after`")


class RejectItem(BaseModel):
    id: str
    gateway: str
    account: str | None
    reason: str
    received_at: Moment
    remote_address: str
    request_id: str | None
    headers: list[Header]
    content_type: str
    body_size: int = Field(description="of the whole body; the copy is cut off at 6 KiB")
    body_base64: str
    body_sha256: str

    @classmethod
    def of(cls, reject: Reject) -> RejectItem:
        return cls(
            id=reject.id,
            gateway=reject.gateway,
            account=reject.account,
            reason=reject.reason,
            received_at=reject.received_at,
            remote_address=reject.remote_address,
            request_id=reject.request_id,
            headers=[Header(name=name, value=value) for name, value in reject.headers],
            content_type=reject.content_type,
            body_size=reject.body_size,
            body_base64=base64.b64encode(reject.body).decode(),
            body_sha256=reject.body_digest.hex(),
        )


class RejectPage(BaseModel):
    data: list[RejectItem]
    next_cursor: str | None
