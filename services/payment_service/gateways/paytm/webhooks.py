"""Paytm's webhooks, translated: forms about payments, JSON about refunds.

Of a form only the values are signed, in the order of their names, and not the names themselves; and the shopper's
browser carries one home after every try. So a form is only a reason to ask about the order that it names.
"""

from __future__ import annotations

from services.payment_service.domain.models import FactKind
from services.payment_service.gateways.json_reading import (
    UnexpectedShape,
    identifier_of,
    object_of,
    optional_identifier,
    optional_text,
    parse_json_object,
)
from services.payment_service.gateways.paytm.api import Json
from services.payment_service.gateways.paytm.reading import money_of, refund_fact
from services.payment_service.gateways.port import Delivery, GatewayEvent
from shared.paytm_checksum import form_fields

_FORM = "application/x-www-form-urlencoded"


def translate(delivery: Delivery, merchant_id: str) -> GatewayEvent:
    """Raises UnexpectedShape or InvalidAmount for what is not documented."""
    if _FORM in delivery.content_type.lower():
        return _payment_event(_form(delivery.payload), merchant_id)
    return _refund_event(object_of(parse_json_object(delivery.payload), "body"), merchant_id)


def _form(payload: str) -> Json:
    try:
        return form_fields(payload.encode())
    except ValueError as error:
        raise UnexpectedShape("not a form") from error


def _payment_event(form: Json, merchant_id: str) -> GatewayEvent:
    """Success, failure or pending: what it is, the order's status says."""
    if form.get("MID", merchant_id) != merchant_id:
        raise UnexpectedShape("it is about another merchant")
    order_id = identifier_of(form, "ORDERID")
    return GatewayEvent(identifier_of(form, "STATUS"), (order_id,), (order_id,), must_ask=True)


def _refund_event(body: Json, merchant_id: str) -> GatewayEvent:
    """Two kinds: accepted or rejected, and later that the money is on its way to the buyer."""
    if body.get("mid", merchant_id) != merchant_id:
        raise UnexpectedShape("it is about another merchant")
    order_id, txn_id = identifier_of(body, "orderId"), optional_identifier(body, "txnId")
    name = optional_identifier(body, "refId") or identifier_of(body, "refundId")
    is_credited = bool(body.get("userCreditInitiateTimestamp"))
    event_type = "refund.credited" if is_credited else "refund.accepted"
    references = (order_id, *((txn_id,) if txn_id else ()), name)
    kind = _refund_kind(optional_text(body, "status"), is_credited=is_credited)
    if kind is None or txn_id is None or "refId" not in body or "refundAmount" not in body:
        return GatewayEvent(event_type, references, (order_id,), must_ask=True)
    reason = optional_identifier(body, "rejectRefundReasonCode")
    fact = refund_fact(kind, name, money_of(body, "refundAmount"), about=txn_id, reason=reason)
    return GatewayEvent(event_type, references, (order_id,), (fact,))


def _refund_kind(status: str | None, *, is_credited: bool) -> FactKind | None:
    """None for what is not known: then we ask. That it was accepted does not say that anybody got it."""
    if status in ("FAILURE", "FAILED"):
        return FactKind.REFUND_FAILED
    if is_credited and status in (None, "SUCCESS"):
        return FactKind.REFUND_SUCCEEDED
    return FactKind.REFUND_PENDING if status == "SUCCESS" else None
