"""What Stripe's objects say, as observations. Sessions, intents and charges are known by the intent's id."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from services.payment_service.domain.models import CaptureMode, FactKind, Observation
from services.payment_service.gateways.json_reading import (
    UnexpectedShape,
    identifier_of,
    object_of,
    optional_identifier,
    optional_text,
    text_of,
)
from services.payment_service.gateways.port import Snapshot
from services.payment_service.gateways.stripe.amounts import returned_money, stripe_money
from services.payment_service.gateways.stripe.forms import CAPTURE_MARK, REFUND_MARK
from shared.money import Money

RELEASE_OF_A_HOLD = "expired_uncaptured_charge"
"""Stripe shows the release of money that was never captured as a refund with this reason: nobody got money back."""

_INTENT_CLOSED: Mapping[str, FactKind] = {"automatic": FactKind.EXPIRED, "expired": FactKind.EXPIRED}

REFUND_STATUS: Mapping[str, FactKind] = {
    "pending": FactKind.REFUND_PENDING,
    "requires_action": FactKind.REFUND_PENDING,
    "succeeded": FactKind.REFUND_SUCCEEDED,
    "failed": FactKind.REFUND_FAILED,  # after a success too: together they mean that it was taken back
    "canceled": FactKind.REFUND_FAILED,
}
DISPUTE_STATUS: Mapping[str, FactKind] = {
    "warning_needs_response": FactKind.DISPUTE_OPENED,
    "warning_under_review": FactKind.DISPUTE_OPENED,
    "needs_response": FactKind.DISPUTE_OPENED,
    "under_review": FactKind.DISPUTE_OPENED,
    "appeal_needs_response": FactKind.DISPUTE_OPENED,
    "appeal_under_review": FactKind.DISPUTE_OPENED,
    "won": FactKind.DISPUTE_WON,
    "warning_closed": FactKind.DISPUTE_WON,  # an inquiry that came to nothing
    "prevented": FactKind.DISPUTE_WON,
    "lost": FactKind.DISPUTE_LOST,
}


# --- sessions and intents ----------------------------------------------------------------------------------------


def snapshot_of_session(session: Mapping[str, Any]) -> Snapshot:
    """The fact sheet's table, top to bottom, with the intent expanded."""
    reference = identifier_of(session, "id")
    raw_intent = session.get("payment_intent")
    intent = raw_intent if isinstance(raw_intent, dict) else {}
    references = [reference, *([raw_intent] if isinstance(raw_intent, str) else [])]
    # Only a completed page leaves the shopper no other try; what an expired one leaves behind is no failure.
    may_try_again = session.get("status") != "complete"
    observations = list(observations_of_intent(intent, session_open=may_try_again)) if intent else []
    if intent:
        references += references_of_intent(intent)
    if session.get("status") == "expired":
        observations.append(Observation(FactKind.EXPIRED, reference))
    if session.get("status") == "open":
        observations.append(Observation(FactKind.SESSION_OPENED, reference))
    if isinstance(raw_intent, str) and session.get("status") == "complete" and is_paid(session):
        observations += paid_session(session, raw_intent)
    return Snapshot(tuple(references), tuple(observations))


def snapshot_of_intent(intent: Mapping[str, Any]) -> Snapshot:
    # Without the session it is not known whether the shopper can still try again, so a failure stays a decline.
    return Snapshot(references_of_intent(intent), tuple(observations_of_intent(intent, session_open=True)))


def observations_of_intent(
    intent: Mapping[str, Any], *, session_open: bool, at: datetime | None = None
) -> Iterator[Observation]:
    reference, status = identifier_of(intent, "id"), text_of(intent, "status")
    if status == "succeeded":
        yield from _taken(intent, reference, at)
    elif status == "requires_capture":
        yield from _held(intent, reference, at)
    elif status == "canceled":
        yield from _closed(intent, reference, at)
    elif status == "processing":
        yield Observation(FactKind.PROCESSING, reference, occurred_at=at)
    elif status == "requires_payment_method":
        yield from _declined(intent, reference, at, session_open=session_open)


def _taken(intent: Mapping[str, Any], reference: str, at: datetime | None) -> Iterator[Observation]:
    received = stripe_money(intent, "amount_received")
    yield Observation(FactKind.CAPTURED, reference, received, at)
    # With automatic capture a lower amount is none of our doing, and stays the conflict that the reducer knows.
    if is_manual(intent) and received < stripe_money(intent, "amount"):
        yield Observation(FactKind.RELEASED, reference, occurred_at=at)


def _held(intent: Mapping[str, Any], reference: str, at: datetime | None) -> Iterator[Observation]:
    """Captures leave ``amount_capturable``, so the two together are all that was ever held: a total that only grows."""
    capturable, received = stripe_money(intent, "amount_capturable"), stripe_money(intent, "amount_received")
    held = capturable + received
    yield Observation(FactKind.AUTHORIZED, reference, held, at, capture_before=_capture_before(intent))
    if received.amount_minor > 0:
        yield Observation(FactKind.CAPTURED, reference, received, at)


def _closed(intent: Mapping[str, Any], reference: str, at: datetime | None) -> Iterator[Observation]:
    """Canceled after a partial capture: what was captured stays, and only the rest is gone."""
    if intent.get("amount_received"):
        yield Observation(FactKind.CAPTURED, reference, stripe_money(intent, "amount_received"), at)
        yield Observation(FactKind.RELEASED, reference, occurred_at=at)
        return
    kind = _INTENT_CLOSED.get(optional_text(intent, "cancellation_reason") or "", FactKind.CANCELED)
    yield Observation(kind, reference, occurred_at=at)


def _declined(
    intent: Mapping[str, Any], reference: str, at: datetime | None, *, session_open: bool
) -> Iterator[Observation]:
    reason = decline_of(intent)
    if any(key.startswith(CAPTURE_MARK) for key in object_of(intent, "metadata")):
        yield Observation(
            FactKind.RELEASED, reference, occurred_at=at
        )  # a capture of ours failed, and with it the hold
    if not session_open:
        yield Observation(FactKind.FAILED, reference, occurred_at=at, reason=reason)
    elif intent.get("last_payment_error"):
        yield Observation(FactKind.DECLINED, reference, occurred_at=at, reason=reason or "declined")


def decline_of(intent: Mapping[str, Any]) -> str | None:
    declined = object_of(intent, "last_payment_error")
    return optional_identifier(declined, "decline_code") or optional_identifier(declined, "code")


def received_of(intent: Mapping[str, Any]) -> Money | None:
    """What an intent says it has taken; None for nothing."""
    return stripe_money(intent, "amount_received") if intent.get("amount_received") else None


def is_manual(intent: Mapping[str, Any]) -> bool:
    mode = object_of(intent, "metadata").get("capture")
    return intent.get("capture_method") == "manual" or mode == CaptureMode.MANUAL.value


def references_of_intent(intent: Mapping[str, Any]) -> tuple[str, ...]:
    """Some refunds and disputes name the charge alone."""
    charge = linked(intent, "latest_charge")
    return (identifier_of(intent, "id"), *((charge,) if charge else ()))


def our_references(metadata: Mapping[str, Any], client_reference: str | None = None) -> tuple[str, ...]:
    found = (optional_identifier(metadata, "payment_id"), optional_identifier(metadata, "order_ref"), client_reference)
    return tuple(dict.fromkeys(reference for reference in found if reference))


def linked(source: Mapping[str, Any], key: str) -> str | None:
    """The id of another object, which may have been expanded."""
    value = source.get(key)
    return optional_identifier(value, "id") if isinstance(value, dict) else optional_identifier(source, key)


def _capture_before(intent: Mapping[str, Any]) -> datetime | None:
    """Only in an expanded charge of a card; in webhooks it has been removed with the rest of the card's details."""
    found: Any = intent
    for key in ("latest_charge", "payment_method_details", "card", "capture_before"):
        found = found.get(key) if isinstance(found, dict) else None
    return moment(found)


def is_paid(session: Mapping[str, Any]) -> bool:
    """With manual capture the session's payment_status does not tell held from taken: only the intent does."""
    automatic = object_of(session, "metadata").get("capture") == CaptureMode.AUTOMATIC.value
    return automatic and session.get("payment_status") == "paid"


def paid_session(session: Mapping[str, Any], intent: str, at: datetime | None = None) -> list[Observation]:
    """Keyed by the intent, so that it is the same fact as the intent's own success."""
    return [Observation(FactKind.CAPTURED, intent, stripe_money(session, "amount_total"), at)]


# --- refunds and disputes ----------------------------------------------------------------------------------------


def observation_of_refund(refund: Mapping[str, Any], at: datetime | None = None) -> Observation | None:
    """None for what gives nobody any money back, and for a status that is not known yet."""
    kind = REFUND_STATUS.get(text_of(refund, "status"))
    if kind is None or is_release(refund):
        return None
    return Observation(
        kind,
        identifier_of(refund, "id"),
        returned_money(refund),
        at,
        reason=refund_failure(refund) if kind is FactKind.REFUND_FAILED else None,
        about=taken_from(refund),
        operation=refund_mark(refund),
    )


def is_release(refund: Mapping[str, Any]) -> bool:
    return refund.get("reason") == RELEASE_OF_A_HOLD


def refund_mark(refund: Mapping[str, Any]) -> str | None:
    """Our operation's reference, on a refund of ours."""
    return optional_identifier(object_of(refund, "metadata"), REFUND_MARK)


def refund_failure(refund: Mapping[str, Any]) -> str:
    return optional_identifier(refund, "failure_reason") or text_of(refund, "status")


def observation_of_dispute(dispute: Mapping[str, Any], at: datetime | None = None) -> Observation | None:
    kind = DISPUTE_STATUS.get(text_of(dispute, "status"))
    if kind is None:
        return None
    reason, about = optional_identifier(dispute, "reason"), taken_from(dispute)
    return Observation(kind, identifier_of(dispute, "id"), returned_money(dispute), at, reason=reason, about=about)


def taken_from(source: Mapping[str, Any]) -> str:
    """The captured object: the intent, or the charge of a payment that has none."""
    found = linked(source, "payment_intent") or linked(source, "charge")
    if found is None:
        raise UnexpectedShape("neither payment_intent nor charge")
    return found


def moment(seconds: object) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if type(seconds) is int and 0 < seconds < 10**11 else None
