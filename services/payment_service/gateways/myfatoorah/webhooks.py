"""MyFatoorah's webhooks, translated. Whatever they say, the invoice is asked: amounts are not signed in version 2, an
old delivery can be sent again in both, and the invoice's own state outweighs any news of it.

``Event.Name`` is masked on its way here, so an event is known by its code.
"""

from __future__ import annotations

from collections.abc import Mapping

from services.payment_service.gateways.json_reading import UnexpectedShape, object_of, optional_identifier
from services.payment_service.gateways.myfatoorah.reading import Json, number_or_text, payment_id_of
from services.payment_service.gateways.port import GatewayEvent

_CODES: Mapping[str, str] = {
    "1": "PAYMENT_STATUS_CHANGED",
    "2": "REFUND_STATUS_CHANGED",
    "3": "BALANCE_TRANSFERRED",
    "4": "SUPPLIER_STATUS_CHANGED",
    "5": "RECURRING_UPDATES",
    "6": "DISPUTE_STATUS_CHANGED",
    "7": "SUPPLIER_UPDATE_REQUEST_CHANGED",
}
_USED = frozenset({"1", "2", "6"})


def translate(body: Json) -> GatewayEvent:
    """Raises UnexpectedShape for what neither version looks like."""
    event = body.get("Event")
    if isinstance(event, dict):
        code = number_or_text(event, "Code")
    elif "EventType" in body:
        code = number_or_text(body, "EventType")
    else:
        raise UnexpectedShape("not an event of MyFatoorah's")
    event_type = _CODES.get(code, "UNKNOWN")
    if code not in _USED:
        return GatewayEvent(event_type, ignored="event_type_not_used")
    data = object_of(body, "Data")
    references = references_of(data)
    if not references:
        raise UnexpectedShape("the event names no invoice")
    return GatewayEvent(event_type, references, ours_of(data), must_ask=True)


def references_of(data: Json) -> tuple[str, ...]:
    """The invoice and the attempt. A refund's own ``InvoiceId`` is that of its fees and says nothing."""
    if "InvoiceId" in data:  # version 1
        found = [_optional(data, "InvoiceId"), _optional(data, "PaymentId")]
    else:
        refunded = object_of(data, "ReferencedInvoice")
        found = [
            _optional(refunded or object_of(data, "Invoice"), "Id"),
            _optional(object_of(data, "Transaction"), "PaymentId"),
        ]
    return tuple(reference for reference in found if reference)


def ours_of(data: Json) -> tuple[str, ...]:
    """What it echoes of ours: the attempt's reference, and the payment's id."""
    source = data if "InvoiceId" in data else object_of(data, "ReferencedInvoice") or object_of(data, "Invoice")
    key = "CustomerReference" if source is data else "ExternalIdentifier"
    found = (optional_identifier(source, key), payment_id_of(source))
    return tuple(reference for reference in found if reference)


def _optional(source: Json, key: str) -> str | None:
    return None if source.get(key) in (None, "") else number_or_text(source, key)
