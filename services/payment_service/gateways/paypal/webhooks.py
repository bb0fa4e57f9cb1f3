"""PayPal's events as facts.

PayPal's signature covers only a CRC32 of the body, which binds it weakly: an event about money is a reason to ask, and
what the core records is the answer (``must_ask``). Three kinds are taken at their word, because asking would not help:

* an approval moves nothing, and ``complete`` looks at the order before it takes anything;
* a dispute only keeps an amount from being refunded, and orders and captures do not show disputes reliably;
* a reversed capture is not visible in the capture's status either.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.payment_service.domain.models import FactKind, Observation
from services.payment_service.gateways.json_reading import (
    UnexpectedShape,
    identifier_of,
    object_of,
    optional_identifier,
)
from services.payment_service.gateways.paypal.amounts import from_paypal
from services.payment_service.gateways.paypal.reading import capture_of_refund, moment, related
from services.payment_service.gateways.port import GatewayEvent

Json = Mapping[str, Any]

_ASK_ABOUT_CAPTURE = frozenset(
    {
        "PAYMENT.CAPTURE.COMPLETED",
        "PAYMENT.CAPTURE.PENDING",
        "PAYMENT.CAPTURE.DENIED",
        "PAYMENT.CAPTURE.DECLINED",
    }
)
_ASK_ABOUT_AUTHORIZATION = frozenset({"PAYMENT.AUTHORIZATION.CREATED", "PAYMENT.AUTHORIZATION.VOIDED"})
_ASK_ABOUT_REFUND = frozenset(
    {
        "PAYMENT.CAPTURE.REFUNDED",  # its resource is the refund, not the capture
        "PAYMENT.REFUND.PENDING",
        "PAYMENT.REFUND.COMPLETED",
        "PAYMENT.REFUND.FAILED",
    }
)
_DISPUTES = frozenset({"CUSTOMER.DISPUTE.CREATED", "CUSTOMER.DISPUTE.UPDATED", "CUSTOMER.DISPUTE.RESOLVED"})

_DISPUTE_ENDS: Mapping[str, FactKind] = {
    "RESOLVED_SELLER_FAVOUR": FactKind.DISPUTE_WON,
    "CANCELED_BY_BUYER": FactKind.DISPUTE_WON,
    "DENIED": FactKind.DISPUTE_WON,
    "RESOLVED_BUYER_FAVOUR": FactKind.DISPUTE_LOST,
    "ACCEPTED": FactKind.DISPUTE_LOST,
    # PayPal pays the buyer itself, or decides nothing: the money stays with us, and the dispute is over.
    "RESOLVED_WITH_PAYOUT": FactKind.DISPUTE_WON,
    "NONE": FactKind.DISPUTE_WON,
}


def translate(event: Json) -> GatewayEvent:
    """Raises UnexpectedShape or InvalidAmount."""
    event_type = identifier_of(event, "event_type")
    resource = object_of(event, "resource")
    if event_type == "CHECKOUT.ORDER.APPROVED":
        return _approved(event_type, event, resource)
    if event_type == "CHECKOUT.ORDER.COMPLETED":
        return GatewayEvent(event_type, (identifier_of(resource, "id"),), _ours(_unit(resource)), must_ask=True)
    if event_type == "CHECKOUT.PAYMENT-APPROVAL.REVERSED":
        return _approval_reversed(event_type, event, resource)
    if event_type in _ASK_ABOUT_CAPTURE | _ASK_ABOUT_AUTHORIZATION:
        return _ask(event_type, resource, identifier_of(resource, "id"))
    if event_type in _ASK_ABOUT_REFUND:
        return _ask(event_type, resource, capture_of_refund(resource), identifier_of(resource, "id"))
    if event_type == "PAYMENT.CAPTURE.REVERSED":
        return _capture_reversed(event_type, event, resource)
    if event_type in _DISPUTES:
        return _dispute(event_type, event, resource)
    return GatewayEvent(event_type, ignored="event_type_not_used")


def _ask(event_type: str, resource: Json, *references: str | None) -> GatewayEvent:
    """The order comes first: it is what ``retrieve`` reads everything from."""
    found = dict.fromkeys(each for each in (related(resource, "order_id"), *references) if each)
    return GatewayEvent(event_type, tuple(found), _ours(resource), must_ask=True)


def _approved(event_type: str, event: Json, order: Json) -> GatewayEvent:
    reference, unit = identifier_of(order, "id"), _unit(order)
    when = optional_identifier(order, "update_time") or optional_identifier(event, "create_time")
    approved = Observation(FactKind.APPROVED, reference, from_paypal(unit), moment(event, "create_time"), when)
    return GatewayEvent(event_type, (reference,), _ours(unit), (approved,))


def _approval_reversed(event_type: str, event: Json, approval: Json) -> GatewayEvent:
    """We did not take the money in time, and PayPal has given it back: nothing of ours moves by believing it."""
    reference = optional_identifier(approval, "order_id") or identifier_of(approval, "id")
    expired = Observation(
        FactKind.EXPIRED, reference, occurred_at=moment(event, "create_time"), reason="approval_reversed"
    )
    return GatewayEvent(event_type, (reference,), _ours(_unit(approval)), (expired,))


def _capture_reversed(event_type: str, event: Json, resource: Json) -> GatewayEvent:
    """Whether PayPal sends a capture or a refund here is not confirmed; a refund can be asked for, a reversal not."""
    if optional_identifier(event, "resource_type") == "refund":
        return _ask(event_type, resource, capture_of_refund(resource), identifier_of(resource, "id"))
    reference = identifier_of(resource, "id")
    reversed_ = Observation(
        FactKind.CAPTURE_REVERSED, reference, from_paypal(resource), moment(event, "create_time"), "reversed_by_paypal"
    )
    order = related(resource, "order_id")
    return GatewayEvent(event_type, (*((order,) if order else ()), reference), _ours(resource), (reversed_,))


def _dispute(event_type: str, event: Json, dispute: Json) -> GatewayEvent:
    disputed = dispute.get("disputed_transactions")
    transaction = disputed[0] if isinstance(disputed, list) and disputed else None
    if not isinstance(transaction, dict):
        raise UnexpectedShape("a dispute without a transaction")
    capture = identifier_of(transaction, "seller_transaction_id")
    ours = optional_identifier(transaction, "custom")
    told = Observation(
        _kind_of_dispute(event_type, dispute),
        identifier_of(dispute, "dispute_id"),
        from_paypal(dispute, "dispute_amount"),
        moment(event, "create_time"),
        optional_identifier(dispute, "reason"),
        about=capture,
    )
    return GatewayEvent(event_type, (capture,), (ours,) if ours else (), (told,))


def _kind_of_dispute(event_type: str, dispute: Json) -> FactKind:
    """An update tells that it is open, should the event of its opening be lost."""
    if event_type != "CUSTOMER.DISPUTE.RESOLVED" and optional_identifier(dispute, "status") != "RESOLVED":
        return FactKind.DISPUTE_OPENED
    code = optional_identifier(object_of(dispute, "dispute_outcome"), "outcome_code")
    if code is None or code not in _DISPUTE_ENDS:
        raise UnexpectedShape("a dispute was resolved in a way that is not known")
    return _DISPUTE_ENDS[code]


def _unit(order: Json) -> Json:
    units = order.get("purchase_units")
    unit = units[0] if isinstance(units, list) and units else {}
    if not isinstance(unit, dict):
        raise UnexpectedShape("purchase_units is not a list of objects")
    return unit


def _ours(source: Json) -> tuple[str, ...]:
    found = (optional_identifier(source, "custom_id"), optional_identifier(source, "invoice_id"))
    return tuple(dict.fromkeys(each for each in found if each))
