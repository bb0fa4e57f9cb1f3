"""Events about gateways' webhook deliveries."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from shared.contracts.envelope import EventData, Rfc3339


class WebhookReceived(EventData):
    """webhook_ingest verified and stored a delivery. ``payload`` is its body with personal data taken out (SEC-25)."""

    TYPE: ClassVar[str] = "webhook.received.v1"

    delivery_id: str
    gateway: str
    account: str | None = None
    event_id: str | None = Field(default=None, description="the gateway's id of the event, where it has one")
    event_type: str | None = None
    trust: Literal["full", "hint"] = Field(description="hint: unsigned or unbound to the body; only a reason to ask")
    received_at: Rfc3339
    content_type: str
    payload: str = Field(description="the body as text, personal data replaced; numbers keep their exact digits")


class WebhookParked(EventData):
    """payment_service knows no payment for a delivery yet; it waits for the payment's creation."""

    TYPE: ClassVar[str] = "webhook.parked.v1"

    delivery_id: str
    gateway: str
    account: str | None = None
    references: list[str] = Field(description="what the delivery called the payment")
    received_at: Rfc3339


WEBHOOK_EVENTS: tuple[type[EventData], ...] = (WebhookReceived, WebhookParked)
