"""A delivery as the event that payment_service translates: its facts, without personal data (SEC-25)."""

from __future__ import annotations

from services.webhook_ingest.domain.models import Delivery
from services.webhook_ingest.signatures.port import Trust
from shared.contracts.envelope import EventEnvelope
from shared.contracts.webhook_events import WebhookReceived
from shared.correlation import current_correlation
from shared.masking import redact_body
from shared.ports import Ports

SOURCE = "/payrail/webhook_ingest"


def event_of(delivery: Delivery, *, trust: Trust | None = None) -> WebhookReceived:
    """``payload`` is empty where the body cannot be read as JSON or a form; the raw bytes stay with the delivery.

    Of an encrypted or enveloped body it is what the scheme found in it.
    """
    content_type = delivery.opened_type or delivery.content_type
    body = delivery.body if delivery.opened_body is None else delivery.opened_body
    return WebhookReceived(
        delivery_id=delivery.id,
        gateway=delivery.gateway,
        account=delivery.account,
        event_id=delivery.event_id,
        event_type=delivery.event_type,
        trust=(trust or delivery.trust).value,
        received_at=delivery.received_at,
        content_type=content_type,
        payload=redact_body(content_type, body),
    )


def first_announcement(delivery: Delivery, *, ports: Ports) -> EventEnvelope:
    """The delivery's first event, ready for the outbox: its sequence is one because the delivery is new."""
    correlation = current_correlation()
    return EventEnvelope(
        id=ports.ids.new("evt"),
        type=WebhookReceived.TYPE,
        source=SOURCE,
        subject=delivery.id,
        time=ports.clock.now(),
        sequence=1,
        traceparent=correlation.traceparent if correlation else None,
        data=event_of(delivery).model_dump(mode="json"),
    )
