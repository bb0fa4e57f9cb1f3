"""Tamara's webhooks. Their token is not bound to the body, so whatever one says is only a reason to ask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.payment_service.gateways.json_reading import UnexpectedShape, identifier_of, optional_identifier
from services.payment_service.gateways.port import GatewayEvent


def translate(body: Mapping[str, Any]) -> GatewayEvent:
    """The registered channel has ``event_type``, the older one of each order ``order_status``.

    Raises UnexpectedShape, also for a dispute: nobody documents how it is written, so a person has to look at it in the
    Partners Portal.
    """
    event_type = optional_identifier(body, "event_type")
    if event_type is None:
        event_type = f"order_{identifier_of(body, 'order_status')}"
    if "dispute" in event_type.lower():
        raise UnexpectedShape("a dispute: look at it in the Partners Portal")
    order_id = identifier_of(body, "order_id")
    ours = optional_identifier(body, "order_reference_id")
    return GatewayEvent(event_type, (order_id,), (ours,) if ours else (), must_ask=True)
