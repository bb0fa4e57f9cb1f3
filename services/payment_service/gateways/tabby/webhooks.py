"""Tabby's webhooks: the payment as it is now, flat, under a secret that says nothing about the body.

There is no event id and no event type: what happened is what is new in the lists of captures and refunds. So every one
of them is a reason to ask, and what it says only finds the payment.
"""

from __future__ import annotations

from services.payment_service.gateways.json_reading import (
    identifier_of,
    object_of,
    optional_identifier,
)
from services.payment_service.gateways.port import GatewayEvent
from services.payment_service.gateways.tabby.api import Json
from services.payment_service.gateways.tabby.reading import (
    captures_of,
    observations_of_payment,
    order_reference_of,
    refunds_of,
    status_of,
)


def translate(body: Json) -> GatewayEvent:
    """Raises UnexpectedShape or InvalidAmount for what is not documented."""
    if "dispute_id" in body:
        return _dispute(body)
    status = status_of(body)
    our_payment = optional_identifier(object_of(body, "meta"), "payment_id")
    ours = tuple(dict.fromkeys(each for each in (order_reference_of(body), our_payment) if each))
    return GatewayEvent(
        _event_type(body, status),
        (identifier_of(body, "id"),),
        ours,
        tuple(observations_of_payment(body)),
        must_ask=True,
    )


def _dispute(body: Json) -> GatewayEvent:
    """Its statuses have other names than those of the disputes API, and its facts come from there."""
    references = (identifier_of(body, "payment_id"), identifier_of(body, "dispute_id"))
    return GatewayEvent(f"dispute.{identifier_of(body, 'status').lower()}", references, must_ask=True)


def _event_type(body: Json, status: str) -> str:
    """What it tells of at most, for people: a later delivery of the same payment lists everything again."""
    if status == "CLOSED" and refunds_of(body):
        return "refund"
    if status in ("AUTHORIZED", "CLOSED") and captures_of(body):
        return "capture"
    return "close" if status == "CLOSED" else status.lower()
