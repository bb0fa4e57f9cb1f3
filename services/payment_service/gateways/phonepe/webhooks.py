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
from services.payment_service.gateways.phonepe.refunds import HeardOf, reference_of
from services.payment_service.gateways.port import GatewayEvent

_OF_A_TRY = frozenset({"checkout.transaction.attempt.failed", "pg.transaction.failed"})


def translate(body: Json, heard_of: HeardOf) -> GatewayEvent:
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
        return _refund(event, payload, heard_of)
    reference = optional_identifier(payload, "merchantOrderId")
    if reference is None:
        return GatewayEvent(event, ignored="it is about no payment")
    order_id = optional_identifier(payload, "orderId")
    return GatewayEvent(event, (reference, *((order_id,) if order_id else ())), (reference,), must_ask=True)


def _refund(event: str, payload: Json, heard_of: HeardOf) -> GatewayEvent:
    order, name = identifier_of(payload, "originalMerchantOrderId"), optional_identifier(payload, "merchantRefundId")
    if name is not None:
        heard_of.note(order, name)
    references = (order, *((reference_of(name),) if name else ()))
    return GatewayEvent(event, references, (order,), must_ask=True)
