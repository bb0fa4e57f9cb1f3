"""Razorpay's events, translated. Deliveries come in any order and more than once, each with a snapshot of its objects.

One paid link sends ``payment.authorized``, ``payment.captured``, ``order.paid`` and ``payment_link.paid``; every fact
is keyed by ``pay_…``, so that they converge.

Whose payment it is follows from what Razorpay's servers hold: the link's ``reference_id``, the order's id and receipt.
A payment's own notes and description pass through the shopper's browser and are not looked at, or a shopper could have
one payment counted for two orders.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from services.payment_service.domain.models import FactKind, Observation
from services.payment_service.gateways.json_reading import (
    UnexpectedShape,
    identifier_of,
    object_of,
)
from services.payment_service.gateways.port import GatewayEvent
from services.payment_service.gateways.razorpay.reading import (
    Json,
    dispute_observation,
    money_observations,
    observations_of_payment,
    order_id_of,
    our_references,
)


def translate(event: Json) -> GatewayEvent:
    """Raises UnexpectedShape or InvalidAmount for what is not documented."""
    if event.get("entity") != "event":
        raise UnexpectedShape("not an event of Razorpay's")
    event_type = identifier_of(event, "event")
    reader = _READERS.get(event_type)
    if reader is None:
        return GatewayEvent(event_type, ignored="event_type_not_used")
    return reader(event_type, object_of(event, "payload"))


def _entity(payload: Json, name: str) -> Json:
    found = object_of(object_of(payload, name), "entity")
    if not found:
        raise UnexpectedShape(f"the event has no {name}")
    return found


def _optional_entity(payload: Json, name: str) -> Json | None:
    return object_of(object_of(payload, name), "entity") or None


def _payment_event(event_type: str, payload: Json) -> GatewayEvent:
    payment = _entity(payload, "payment")
    observations = tuple(observations_of_payment(payment))
    # Whether a payment marked refunded was ever taken, its refunds tell, which this event does not bring.
    must_ask = payment.get("status") == "refunded"
    return GatewayEvent(event_type, _references_of_payment(payment), observations=observations, must_ask=must_ask)


def _paid_event(event_type: str, payload: Json) -> GatewayEvent:
    """``order.paid``, ``payment_link.paid``, ``payment_link.partially_paid``: the order and the link are the
    server's."""
    link = _optional_entity(payload, "payment_link")
    order, payment = _optional_entity(payload, "order"), _entity(payload, "payment")
    order_id = order_id_of(order, "id") if order else None
    references = _references_of_payment(payment)
    if link is not None:
        references = (identifier_of(link, "id"), *references)
    ours = our_references(link, "reference_id") or our_references(order, "receipt")
    belongs_together = order_id is None or order_id == order_id_of(payment)
    is_whole = event_type != "payment_link.partially_paid" and payment.get("status") != "refunded"
    observations = tuple(observations_of_payment(payment)) if belongs_together else ()
    return GatewayEvent(event_type, references, ours, observations, must_ask=not (belongs_together and is_whole))


def _link_ended(event_type: str, payload: Json) -> GatewayEvent:
    link = _entity(payload, "payment_link")
    reference = identifier_of(link, "id")
    kind = FactKind.EXPIRED if event_type == "payment_link.expired" else FactKind.CANCELED
    references = tuple(each for each in (reference, order_id_of(link)) if each)
    return GatewayEvent(event_type, references, our_references(link, "reference_id"), (Observation(kind, reference),))


def _refund_event(event_type: str, payload: Json) -> GatewayEvent:
    """The refund, and with it what its payment says: a refund tells of a capture, or of a hold that was let go."""
    refund, payment = _entity(payload, "refund"), _optional_entity(payload, "payment")
    about = identifier_of(refund, "payment_id")
    if payment is None:
        return GatewayEvent(event_type, (about,), must_ask=True)
    if identifier_of(payment, "id") != about:
        raise UnexpectedShape("the refund is of another payment")
    observations = tuple(money_observations(payment, (refund,)))
    return GatewayEvent(event_type, _references_of_payment(payment), observations=observations)


def _dispute_event(event_type: str, payload: Json) -> GatewayEvent:
    dispute, payment = _entity(payload, "dispute"), _optional_entity(payload, "payment")
    about, reference = identifier_of(dispute, "payment_id"), identifier_of(dispute, "id")
    references = _references_of_payment(payment) if payment else (about,)
    if about not in references:
        raise UnexpectedShape("the dispute is about another payment")
    references = (*references, reference)
    if event_type == "payment.dispute.closed":  # without a ruling: only reading it again tells what it cost
        return GatewayEvent(event_type, references, must_ask=True)
    captured = tuple(observations_of_payment(payment)) if payment else ()
    return GatewayEvent(event_type, references, observations=(*captured, dispute_observation(dispute)))


def _references_of_payment(payment: Json) -> tuple[str, ...]:
    return tuple(each for each in (identifier_of(payment, "id"), order_id_of(payment)) if each)


_READERS: Mapping[str, Callable[[str, Json], GatewayEvent]] = {
    "payment.authorized": _payment_event,
    "payment.captured": _payment_event,
    "payment.failed": _payment_event,
    "order.paid": _paid_event,
    "payment_link.paid": _paid_event,
    "payment_link.partially_paid": _paid_event,
    "payment_link.expired": _link_ended,
    "payment_link.cancelled": _link_ended,
    "refund.created": _refund_event,
    "refund.processed": _refund_event,
    "refund.failed": _refund_event,
    "payment.dispute.created": _dispute_event,
    "payment.dispute.under_review": _dispute_event,
    "payment.dispute.action_required": _dispute_event,
    "payment.dispute.won": _dispute_event,
    "payment.dispute.lost": _dispute_event,
    "payment.dispute.closed": _dispute_event,
}
"""Not used: refund.speed_changed (how fast, not whether), settlement.processed (read from the settlement reports),
payment.downtime.* (our own breaker measures what matters)."""
