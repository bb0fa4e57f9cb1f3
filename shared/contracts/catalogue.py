"""Every event type that Payrail publishes, and who owns it."""

from __future__ import annotations

from collections.abc import Mapping

from shared.contracts.commands import (
    OrderCancelRequested,
    OrderConfirmRequested,
    PaymentSyncRequested,
    RefundRequested,
    SettlementBooked,
)
from shared.contracts.envelope import EventData, EventEnvelope
from shared.contracts.order_events import ORDER_EVENTS
from shared.contracts.payment_events import PAYMENT_EVENTS, GatewayHealthChanged
from shared.contracts.reconciliation_events import RECONCILIATION_EVENTS
from shared.contracts.webhook_events import WebhookParked, WebhookReceived

OWNERS: Mapping[str, tuple[type[EventData], ...]] = {
    "order_service": (*ORDER_EVENTS, RefundRequested),
    "payment_service": (*PAYMENT_EVENTS, GatewayHealthChanged, WebhookParked),
    "webhook_ingest": (WebhookReceived,),
    "reconciler": (
        *RECONCILIATION_EVENTS,
        OrderConfirmRequested,
        OrderCancelRequested,
        PaymentSyncRequested,
        SettlementBooked,
    ),
}

CATALOGUE: Mapping[str, type[EventData]] = {model.TYPE: model for models in OWNERS.values() for model in models}


def read_event(envelope: EventEnvelope) -> EventData | None:
    """The typed data of an event, or None for a type that this version does not know (to be ignored, failure W14/Q20).

    Raises pydantic.ValidationError where a known type's data does not fit its model.
    """
    model = CATALOGUE.get(envelope.type)
    return None if model is None else model.model_validate(envelope.data)
