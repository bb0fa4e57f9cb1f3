"""A delivery as the event that payment_service translates: its facts, without personal data (SEC-25)."""

from __future__ import annotations

from datetime import datetime

from services.webhook_ingest.domain.models import Delivery, EventContents
from services.webhook_ingest.signatures.port import Trust
from shared.contracts.envelope import EventEnvelope
from shared.contracts.webhook_events import WebhookReceived
from shared.masking import redact_body

SOURCE = "/payrail/webhook_ingest"


def event_of(delivery: Delivery, *, trust: Trust | None = None) -> WebhookReceived:
    """Of an encrypted or enveloped body it is what the scheme found in it."""
    is_opened = delivery.opened_body is not None
    contents = EventContents(
        id=delivery.id,
        gateway=delivery.gateway,
        account=delivery.account,
        event_id=delivery.event_id,
        event_type=delivery.event_type,
        trust=trust or delivery.trust,
        received_at=delivery.received_at,
        content_type=delivery.opened_type or delivery.content_type,
        body=(delivery.opened_body or b"") if is_opened else delivery.body,
        traceparent=delivery.traceparent,
    )
    return _event(contents)


def first_announcement(contents: EventContents, *, message_id: str, announced_at: datetime) -> EventEnvelope:
    """The delivery's first event, whenever it is rendered: its row in the outbox says its id and its time.

    That row was committed with the delivery, and neither changes, so this is the same event at every attempt.
    """
    return EventEnvelope(
        id=message_id,
        type=WebhookReceived.TYPE,
        source=SOURCE,
        subject=contents.id,
        time=announced_at,
        sequence=1,
        traceparent=contents.traceparent,
        data=_event(contents).model_dump(mode="json"),
    )


def _event(contents: EventContents) -> WebhookReceived:
    """``payload`` is empty where the body cannot be read as JSON or a form; the raw bytes stay with the delivery."""
    return WebhookReceived(
        delivery_id=contents.id,
        gateway=contents.gateway,
        account=contents.account,
        event_id=contents.event_id,
        event_type=contents.event_type,
        trust=contents.trust.value,
        received_at=contents.received_at,
        content_type=contents.content_type,
        payload=redact_body(contents.content_type, contents.body),
    )
