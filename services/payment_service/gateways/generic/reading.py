"""What the generic gateway's sessions say, as observations. Older gateways leave the newer fields out, and may."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from services.payment_service.domain.models import CaptureMode, FactKind, Observation
from services.payment_service.gateways.json_reading import (
    UnexpectedShape,
    entries_of,
    identifier_of,
    moment_of,
    optional_identifier,
    sane,
    text_of,
)
from services.payment_service.gateways.port import Snapshot
from shared.money import Money

# What the webhook's and the API's `status` mean. A status that is not here is unknown, never a success: we ask.
STATUS: Mapping[str, FactKind | None] = {
    "completed": FactKind.CAPTURED,
    "success": FactKind.CAPTURED,
    "succeeded": FactKind.CAPTURED,
    "paid": FactKind.CAPTURED,
    "captured": FactKind.CAPTURED,
    "authorized": FactKind.AUTHORIZED,
    "processing": FactKind.PROCESSING,
    "pending": FactKind.PROCESSING,
    "open": FactKind.SESSION_OPENED,
    "failed": FactKind.FAILED,
    "declined": FactKind.FAILED,
    "canceled": FactKind.CANCELED,
    "cancelled": FactKind.CANCELED,
    "expired": FactKind.EXPIRED,
}
REFUND_STATUS: Mapping[str, FactKind] = {
    "pending": FactKind.REFUND_PENDING,
    "succeeded": FactKind.REFUND_SUCCEEDED,
    "failed": FactKind.REFUND_FAILED,
    "reversed": FactKind.REFUND_REVERSED,
}
DISPUTE_STATUS: Mapping[str, FactKind] = {
    "open": FactKind.DISPUTE_OPENED,
    "won": FactKind.DISPUTE_WON,
    "lost": FactKind.DISPUTE_LOST,
}

_ENDS = frozenset({FactKind.CANCELED, FactKind.EXPIRED})


def snapshot_of(session: Mapping[str, Any]) -> Snapshot:
    """Of a session, with the refunds and disputes that it lists."""
    reference = identifier_of(session, "payment_id")
    kind = STATUS.get(text_of(session, "status").lower())
    observations = list(observations_of(session, kind, reference))
    returned = (*entries_of(session, "refunds"), *entries_of(session, "disputes"))
    for entry in returned:
        found = observation_of_return({"currency": session.get("currency"), **entry}, reference)
        observations += [found] if found is not None else []
    return Snapshot((reference,), tuple(observations))


def observations_of(
    body: Mapping[str, Any], kind: FactKind | None, about: str, at: datetime | None = None
) -> Iterator[Observation]:
    """A session's or webhook's own state: ``captured_amount`` where it is given, else ``amount``, is what was taken.

    A status that is not known (None) says nothing, whatever amounts stand beside it.
    """
    if kind is None:
        return
    captured = optional_money(body, "captured_amount")
    taken = captured if captured is not None and captured.amount_minor > 0 else None
    if kind is FactKind.CAPTURED:
        taken = captured if captured is not None else money_of(body, "amount")
        yield Observation(FactKind.CAPTURED, about, taken, at)
    elif taken is not None:
        yield Observation(FactKind.CAPTURED, about, taken, at)
    if kind is FactKind.AUTHORIZED:
        held = optional_money(body, "authorized_amount") or money_of(body, "amount")
        yield Observation(FactKind.AUTHORIZED, about, held, at, capture_before=moment_of(body, "hold_expires_at"))
    elif taken is not None and _is_rest_gone(body, kind, taken):
        yield Observation(FactKind.RELEASED, about, occurred_at=at)
    elif kind is not FactKind.CAPTURED:
        yield Observation(kind, about, occurred_at=at, reason=optional_identifier(body, "failure_code"))


def _is_rest_gone(body: Mapping[str, Any], kind: FactKind | None, taken: Money) -> bool:
    """A hold that has ended with only part of it captured. With automatic capture a lower amount is no end of a hold
    but the conflict that the reducer knows."""
    if kind in _ENDS or body.get("voided") is True:
        return True
    if kind is not FactKind.CAPTURED or body.get("capture") != CaptureMode.MANUAL.value:
        return False
    return taken < (optional_money(body, "authorized_amount") or money_of(body, "amount"))


def observation_of_return(entry: Mapping[str, Any], about: str) -> Observation | None:
    """A refund or dispute as a session or list shows it; None for a status that is not known yet."""
    status = text_of(entry, "status").lower()
    amount = money_of(entry, "amount")
    if amount.amount_minor < 0:
        raise UnexpectedShape("a negative amount is taken back")
    if "dispute_id" in entry:
        dispute, reason = identifier_of(entry, "dispute_id"), optional_identifier(entry, "reason")
        kind = DISPUTE_STATUS.get(status)
        return Observation(kind, dispute, amount, reason=reason, about=about) if kind else None
    kind = REFUND_STATUS.get(status)
    refund, ours = identifier_of(entry, "refund_id"), optional_identifier(entry, "reference")
    failure = optional_identifier(entry, "failure_code")
    return Observation(kind, refund, amount, reason=failure, about=about, operation=ours) if kind else None


def money_of(body: Mapping[str, Any], key: str) -> Money:
    """``150.00`` and ``"150.00"`` as exact decimals; anything else is not an amount."""
    value = body.get(key)
    if type(value) is int:
        value = Decimal(value)
    if not isinstance(value, str | Decimal):
        raise UnexpectedShape(f"{key} is not a decimal number")
    return sane(Money.from_major(value, text_of(body, "currency").upper()))


def optional_money(body: Mapping[str, Any], key: str) -> Money | None:
    return None if body.get(key) is None else money_of(body, key)


def identifier_or_number(body: Mapping[str, Any], key: str) -> str | None:
    """An id as text; some integrations send theirs as a whole number."""
    value = body.get(key)
    return optional_identifier({key: str(value)} if type(value) is int else body, key)
