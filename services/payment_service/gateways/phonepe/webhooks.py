"""PhonePe's webhooks. The header that comes with them is the same for every one and covers no body (trust: hint), so
what they say only finds the payment; each one makes us ask.
"""

from __future__ import annotations

from services.payment_service.gateways.json_reading import (
    UnexpectedShape,
    identifier_of,
    object_of,
    optional_identifier,
)
from services.payment_service.gateways.phonepe.api import Json
from services.payment_service.gateways.phonepe.refunds import heard_of
from services.payment_service.gateways.port import GatewayEvent

_OF_A_TRY = frozenset({"checkout.transaction.attempt.failed", "pg.transaction.failed"})


def translate(body: Json) -> GatewayEvent:
    """Raises UnexpectedShape for what is not documented: every dispute is among it, and a person has to look.

    ``type`` is the older name of ``event``, in capital letters.
    """
    event = optional_identifier(body, "event") or identifier_of(body, "type")
    name, payload = event.lower().replace("_", "."), object_of(body, "payload")
    if name.startswith("payment.dispute."):
        raise UnexpectedShape("a dispute, of which no field is documented")
    if name in _OF_A_TRY:
        return GatewayEvent(event, ignored="one try failed, and the order goes on")
    if name.startswith("pg.refund."):
        return _refund(event, payload)
    reference = optional_identifier(payload, "merchantOrderId")
    if reference is None:
        return GatewayEvent(event, ignored="it is about no payment")
    order_id = optional_identifier(payload, "orderId")
    return GatewayEvent(event, (reference, *((order_id,) if order_id else ())), (reference,), must_ask=True)


def _refund(event: str, payload: Json) -> GatewayEvent:
    """One made in the dashboard is known by this alone: it names the refund, and PhonePe is asked whose it is."""
    order, name = identifier_of(payload, "originalMerchantOrderId"), optional_identifier(payload, "merchantRefundId")
    return GatewayEvent(event, (order,), (order,), must_ask=True, asks_about=heard_of(name) if name else ())
