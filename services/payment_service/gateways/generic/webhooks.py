"""The webhook of existing integrations, and what newer gateways add to it about refunds and disputes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from services.payment_service.domain.models import Observation
from services.payment_service.gateways.generic.reading import (
    STATUS,
    identifier_or_number,
    observation_of_return,
    observations_of,
)
from services.payment_service.gateways.json_reading import UnexpectedShape, identifier_of, optional_identifier
from services.payment_service.gateways.port import GatewayEvent

# What the webhook calls it, and what the refund's or dispute's own status is then.
_REFUNDS: Mapping[str, str] = {
    "refunded": "succeeded",
    "refund_pending": "pending",
    "refund_failed": "failed",
    "refund_reversed": "reversed",
}
_DISPUTES: Mapping[str, str] = {"disputed": "open", "dispute_won": "won", "dispute_lost": "lost"}


def translate(body: Mapping[str, Any], received_at: datetime) -> GatewayEvent:
    """design.md §3: ``transaction_id`` is ours; existing integrations put the order's id there or in ``order_id``.

    Raises UnexpectedShape or InvalidAmount for what is not as documented.
    """
    status = identifier_of(body, "status").lower()
    theirs = identifier_or_number(body, "payment_id")
    ours = tuple(found for key in ("transaction_id", "order_id") if (found := identifier_or_number(body, key)))
    if theirs is None and not ours:
        raise UnexpectedShape("neither payment_id nor transaction_id")
    references = (theirs,) if theirs else ()
    if status in _REFUNDS or status in _DISPUTES:
        returned = _returned(body, status, theirs)
        # Of which refund, and how much of it? Without that it is only a reason to ask.
        return GatewayEvent(status, references, ours, (returned,) if returned else (), must_ask=returned is None)
    kind = STATUS.get(status)
    if kind is None:
        return GatewayEvent(status, references, ours, must_ask=True)
    # Without their id it is about the one session that we know; apply_webhook puts its reference in.
    return GatewayEvent(status, references, ours, tuple(observations_of(body, kind, theirs or "", received_at)))


def _returned(body: Mapping[str, Any], status: str, payment: str | None) -> Observation | None:
    """The refund or dispute that it names; None where it leaves out its id, its amount, or what it takes from."""
    thing = "refund" if status in _REFUNDS else "dispute"
    identifier = identifier_or_number(body, f"{thing}_id")
    amount = body.get(f"{thing}_amount")
    if identifier is None or amount is None or payment is None:
        return None
    entry = {
        f"{thing}_id": identifier,
        "amount": amount,
        "currency": body.get("currency"),
        "status": _REFUNDS.get(status) or _DISPUTES[status],
        "reference": optional_identifier(body, "reference"),
        "reason": optional_identifier(body, "reason"),
        "failure_code": optional_identifier(body, "failure_code"),
    }
    return observation_of_return(entry, payment)
