"""What Tabby's payments say, as observations.

Two objects: the payment, which is held and captured under its own id, and its page. That the page has ended must not
hide money that somebody brings on it afterwards, so facts about it carry a name of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from services.payment_service.domain.models import FactKind, Observation
from services.payment_service.gateways.json_reading import (
    UnexpectedShape,
    entries_of,
    identifier_of,
    moment_of,
    object_of,
    optional_identifier,
    sane,
    text_of,
)
from services.payment_service.gateways.tabby.api import Json
from services.payment_service.gateways.tabby.settings import HOLD_DAYS
from shared.money import Money

CAPTURED_BY_US = "automatic"
"""``meta.capture`` of a payment that is to be captured as soon as it is authorised."""

_DISPUTE_STATUS = {
    "new": FactKind.DISPUTE_OPENED,
    "evidence_merchant": FactKind.DISPUTE_OPENED,
    "in_progress": FactKind.DISPUTE_OPENED,
    "evidence_customer": FactKind.DISPUTE_OPENED,
    "refunded": FactKind.DISPUTE_LOST,
    "declined": FactKind.DISPUTE_WON,
    "cancelled": FactKind.DISPUTE_WON,
}


def page_of(payment_id: str) -> str:
    """What we call a payment's page in facts; it is never sent anywhere."""
    return f"page:{payment_id}"


@dataclass(frozen=True, slots=True)
class Totals:
    """A payment's three sums, from which its state follows: ``CLOSED`` alone may mean paid, released or refunded."""

    amount: Money
    captured: Money
    refunded: Money


def totals_of(payment: Json) -> Totals:
    currency = text_of(payment, "currency").upper()
    captured = sum((money_of(each, "amount", currency) for each in captures_of(payment)), Money(0, currency))
    refunded = sum((money_of(each, "amount", currency) for each in refunds_of(payment)), Money(0, currency))
    return Totals(money_of(payment, "amount", currency), sane(captured), sane(refunded))


def observations_of_payment(payment: Json, *, takes_by_itself: bool = False) -> Iterator[Observation]:
    """Raises UnexpectedShape or InvalidAmount. Webhooks write their statuses in small letters.

    ``takes_by_itself``: the account captures without us, so that nobody has to complete anything.
    """
    reference, status = identifier_of(payment, "id"), status_of(payment)
    if status == "AUTHORIZED":
        yield from _held(payment, reference, completes=not takes_by_itself)
    elif status == "CLOSED":
        yield from _closed(payment, reference)
    elif status == "CREATED":
        yield Observation(FactKind.SESSION_OPENED, page_of(reference))
    elif status == "REJECTED":
        yield Observation(FactKind.FAILED, page_of(reference), reason="rejected")
    elif status == "EXPIRED":
        yield Observation(FactKind.EXPIRED, page_of(reference))
    else:  # a word that nobody documents is no success and no failure
        yield Observation(FactKind.PROCESSING, page_of(reference))


def status_of(payment: Json) -> str:
    return identifier_of(payment, "status").upper()


def captures_of(payment: Json) -> list[Json]:
    return list(entries_of(payment, "captures"))


def refunds_of(payment: Json) -> list[Json]:
    return list(entries_of(payment, "refunds"))


def order_reference_of(payment: Json) -> str | None:
    return optional_identifier(object_of(payment, "order"), "reference_id")


def observation_of_dispute(dispute: Json) -> Observation | None:
    """None for a status that is not known."""
    kind = _DISPUTE_STATUS.get(identifier_of(dispute, "status").lower())
    amount = money_of(dispute, "amount", text_of(dispute, "currency").upper())
    about, reason = identifier_of(dispute, "payment_id"), optional_identifier(dispute, "reason")
    return Observation(kind, identifier_of(dispute, "id"), amount, reason=reason, about=about) if kind else None


def list_of(body: Json, key: str) -> Sequence[Any]:
    """An empty list may be null, but a body without it is none: nothing found in nonsense proves nothing."""
    if key not in body:
        raise UnexpectedShape(f"{key} is missing")
    found = [] if body[key] is None else body[key]
    if not isinstance(found, list):
        raise UnexpectedShape(f"{key} is not a list")
    return found


def money_of(source: Json, key: str, currency: str) -> Money:
    """An amount is text in major units; less than nothing is nobody's amount."""
    amount = sane(Money.from_major(text_of(source, key), currency))
    if amount.amount_minor < 0:
        raise UnexpectedShape(f"{key} is negative")
    return amount


def _held(payment: Json, reference: str, *, completes: bool) -> Iterator[Observation]:
    """AUTHORIZED names all that was held, whatever was captured of it since, so that facts only ever grow.

    Tabby captures nothing by itself: where the shop wants the money at once, the hold is also an approval to complete.
    """
    totals, opened = totals_of(payment), moment_of(payment, "created_at")
    try:
        ends_at = opened + HOLD_DAYS if opened is not None else None
    except OverflowError as error:
        raise UnexpectedShape("created_at is absurd") from error
    yield Observation(FactKind.AUTHORIZED, reference, totals.amount, capture_before=ends_at)
    if totals.captured.amount_minor:
        yield Observation(FactKind.CAPTURED, reference, totals.captured)
        yield from _refunds(payment, reference, totals)
    elif completes and object_of(payment, "meta").get("capture") == CAPTURED_BY_US:
        yield Observation(FactKind.APPROVED, reference, totals.amount, reason="authorized")


def _closed(payment: Json, reference: str) -> Iterator[Observation]:
    totals = totals_of(payment)
    if not totals.captured.amount_minor:
        yield Observation(FactKind.CANCELED, reference, reason="closed")
        return
    yield Observation(FactKind.CAPTURED, reference, totals.captured)
    if totals.captured < totals.amount:
        yield Observation(FactKind.RELEASED, reference)
    yield from _refunds(payment, reference, totals)


def _refunds(payment: Json, reference: str, totals: Totals) -> Iterator[Observation]:
    """Tabby's refunds are done when they are there: none is pending, and none fails later."""
    for refund in refunds_of(payment):
        yield Observation(
            FactKind.REFUND_SUCCEEDED,
            identifier_of(refund, "id"),
            money_of(refund, "amount", totals.amount.currency),
            moment_of(refund, "created_at"),
            about=reference,
            operation=optional_identifier(refund, "reference_id"),
        )
