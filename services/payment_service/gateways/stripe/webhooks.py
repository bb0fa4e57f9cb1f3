"""Stripe's events (fact sheet §5). ``data.object`` is a snapshot of its moment, and events come in any order."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from services.payment_service.domain.models import FactKind, Observation
from services.payment_service.gateways.json_reading import (
    UnexpectedShape,
    identifier_of,
    object_of,
    optional_identifier,
)
from services.payment_service.gateways.port import GatewayEvent
from services.payment_service.gateways.stripe.amounts import stripe_money
from services.payment_service.gateways.stripe.api import entries_of
from services.payment_service.gateways.stripe.reading import (
    DISPUTE_STATUS,
    REFUND_STATUS,
    is_paid,
    is_release,
    linked,
    moment,
    observation_of_dispute,
    observation_of_refund,
    observations_of_intent,
    our_references,
    paid_session,
    references_of_intent,
    taken_from,
)

_INTENT_EVENTS = frozenset(
    {
        "payment_intent.succeeded",
        "payment_intent.amount_capturable_updated",
        "payment_intent.canceled",
        "payment_intent.payment_failed",
        "payment_intent.processing",
    }
)
_REFUND_EVENTS = frozenset({"refund.created", "refund.updated", "refund.failed", "charge.refund.updated"})


def translate(event: Mapping[str, Any], *, live: bool) -> GatewayEvent:
    """Raises UnexpectedShape or InvalidAmount for what is not as documented."""
    event_type = identifier_of(event, "type")
    if event.get("object") != "event":
        raise UnexpectedShape("not an event of Stripe's API v1")
    if event.get("livemode", live) is not live:
        return GatewayEvent(event_type, ignored="other_mode")  # failure W15
    subject = object_of(object_of(event, "data"), "object")
    at = moment(event.get("created"))
    if event_type.startswith("checkout.session."):
        return _session(event_type, subject, at)
    if event_type in _INTENT_EVENTS:
        return _intent(event_type, subject, at)
    if event_type in _REFUND_EVENTS:  # charge.refund.updated carries a refund, whatever its name says
        return _refund(event_type, subject, at)
    if event_type.startswith("charge.dispute."):
        return _dispute(event_type, subject, at)
    if event_type in ("charge.expired", "charge.captured", "charge.refunded"):
        return _charge(event_type, subject, at)
    return GatewayEvent(event_type, ignored="event_type_not_used")


def _session(event_type: str, session: Mapping[str, Any], at: datetime | None) -> GatewayEvent:
    reference, intent = identifier_of(session, "id"), linked(session, "payment_intent")
    references = (reference, *((intent,) if intent else ()))
    ours = our_references(object_of(session, "metadata"), optional_identifier(session, "client_reference_id"))
    observations: list[Observation] = []
    must_ask = False
    if event_type in ("checkout.session.completed", "checkout.session.async_payment_succeeded"):
        if intent and is_paid(session):
            observations = paid_session(session, intent, at)
        else:
            must_ask = True
    elif event_type == "checkout.session.async_payment_failed":
        observations = [Observation(FactKind.FAILED, reference, occurred_at=at, reason="async_payment_failed")]
    elif event_type == "checkout.session.expired":
        observations = [Observation(FactKind.EXPIRED, reference, occurred_at=at)]
    else:
        return GatewayEvent(event_type, ignored="event_type_not_used")
    return GatewayEvent(event_type, references, ours, tuple(observations), must_ask)


def _intent(event_type: str, intent: Mapping[str, Any], at: datetime | None) -> GatewayEvent:
    ours = our_references(object_of(intent, "metadata"))
    # A failed try is not a failed payment while the page is open, and the intent does not say whether it is.
    observations = tuple(observations_of_intent(intent, session_open=True, at=at))
    return GatewayEvent(event_type, references_of_intent(intent), ours, observations)


def _charge(event_type: str, charge: Mapping[str, Any], at: datetime | None) -> GatewayEvent:
    intent = linked(charge, "payment_intent")
    if intent is None:
        raise UnexpectedShape("payment_intent is missing")
    references = tuple(dict.fromkeys((intent, identifier_of(charge, "id"))))
    ours = our_references(object_of(charge, "metadata"))
    if event_type == "charge.refunded":
        return _refunds_of_charge(charge, references, ours, at)
    observations = []
    if charge.get("amount_captured"):
        observations.append(Observation(FactKind.CAPTURED, intent, stripe_money(charge, "amount_captured"), at))
    if event_type == "charge.expired":  # what was captured before it lapsed stays captured
        kind = FactKind.RELEASED if observations else FactKind.EXPIRED
        observations.append(Observation(kind, intent, occurred_at=at))
    return GatewayEvent(event_type, references, ours, tuple(observations), must_ask=not observations)


def _refunds_of_charge(
    charge: Mapping[str, Any], references: tuple[str, ...], ours: tuple[str, ...], at: datetime | None
) -> GatewayEvent:
    """The sums on the charge do not say which refund, and may count releases: only a complete list of refunds counts.

    This API version sends no list, and then Stripe is asked.
    """
    page = object_of(charge, "refunds")
    if not page or page.get("has_more") is not False:
        return GatewayEvent("charge.refunded", references, ours, must_ask=True)
    found = (observation_of_refund({**refund, "payment_intent": references[0]}, at) for refund in entries_of(page))
    return GatewayEvent("charge.refunded", references, ours, tuple(each for each in found if each is not None))


def _refund(event_type: str, refund: Mapping[str, Any], at: datetime | None) -> GatewayEvent:
    if is_release(refund):
        return GatewayEvent(event_type, ignored="release_of_uncaptured_money")
    observation = observation_of_refund(refund, at)
    must_ask = refund.get("status") not in REFUND_STATUS
    ours = our_references(object_of(refund, "metadata"))
    return GatewayEvent(event_type, _parents(refund), ours, (observation,) if observation else (), must_ask)


def _dispute(event_type: str, dispute: Mapping[str, Any], at: datetime | None) -> GatewayEvent:
    observation = observation_of_dispute(dispute, at)
    must_ask = dispute.get("status") not in DISPUTE_STATUS
    # Its metadata is its own: a dispute is found by what it is about.
    return GatewayEvent(event_type, _parents(dispute), (), (observation,) if observation else (), must_ask)


def _parents(source: Mapping[str, Any]) -> tuple[str, ...]:
    charge = linked(source, "charge")
    return tuple(dict.fromkeys((taken_from(source), *((charge,) if charge else ()))))
