"""What PhonePe's orders and refunds say, as observations.

An order is known by our own reference (``merchantOrderId``): it is asked about by it, and refunds name it. A refund is
known by its ``merchantRefundId`` for the same reason. Only the order's own state decides; a try may fail while the
order goes on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from services.payment_service.domain.models import FactKind, Observation
from services.payment_service.gateways.json_reading import (
    UnexpectedShape,
    entries_of,
    identifier_of,
    optional_identifier,
    sane,
    whole_number,
)
from services.payment_service.gateways.phonepe.api import Json
from shared.money import Money

CURRENCY = "INR"
OUR_REFERENCE = re.compile(r"[A-Z0-9]{20}", re.ASCII)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_REFUNDS: Mapping[str, FactKind] = {
    "COMPLETED": FactKind.REFUND_SUCCEEDED,
    "FAILED": FactKind.REFUND_FAILED,
}
"""PENDING, CONFIRMED and every word that nobody documents: pending."""


def money_of(source: Json, key: str) -> Money:
    """Paise. No answer names a currency, because there is one only; if one ever does, it is believed."""
    amount = sane(Money(whole_number(source, key), optional_identifier(source, "currency") or CURRENCY))
    if amount.amount_minor < 0:
        raise UnexpectedShape(f"{key} is negative")
    return amount


def moment_of(source: Json, key: str) -> datetime | None:
    """Milliseconds since 1970, as everywhere but in the token's answer."""
    if source.get(key) is None:
        return None
    try:
        return _EPOCH + timedelta(milliseconds=whole_number(source, key))
    except OverflowError as error:
        raise UnexpectedShape(f"{key} is no moment") from error


def order_observations(body: Json, reference: str, now: datetime) -> tuple[Observation, ...]:
    """Raises UnexpectedShape or InvalidAmount. Our reference may be missing from the answer, and may not be another."""
    if (optional_identifier(body, "merchantOrderId") or reference) != reference:
        raise UnexpectedShape("it is about another order")
    state, tries = identifier_of(body, "state").upper(), entries_of(body, "paymentDetails")
    if state == "COMPLETED":
        return (Observation(FactKind.CAPTURED, reference, money_of(body, "amount"), _paid_at(tries)),)
    if state == "FAILED":
        return (_ended(body, reference, has_tries=bool(tries), now=now),)
    if state == "PENDING":
        return _waiting(tries, reference)
    return (Observation(FactKind.PROCESSING, reference),)  # no success and no failure


def refund_observation(body: Json, name: str, about: str) -> Observation:
    """Raises UnexpectedShape or InvalidAmount."""
    if (optional_identifier(body, "merchantRefundId") or name) != name:
        raise UnexpectedShape("it is another refund")
    kind = _REFUNDS.get(identifier_of(body, "state").upper(), FactKind.REFUND_PENDING)
    return Observation(
        kind,
        name,
        money_of(body, "amount"),
        moment_of(body, "timestamp"),
        reason=(_error_of(body) or "refund_failed") if kind is FactKind.REFUND_FAILED else None,
        about=about,
        operation=name if OUR_REFERENCE.fullmatch(name) else None,
    )


def order_of_refund(body: Json) -> str | None:
    return optional_identifier(body, "originalMerchantOrderId")


def _waiting(tries: Sequence[Json], reference: str) -> tuple[Observation, ...]:
    """Nobody has tried to pay yet, or the last try failed and another one may follow; else one is under way."""
    opened = Observation(FactKind.SESSION_OPENED, reference)
    if not tries:
        return (opened,)
    last = max(tries, key=lambda each: moment_of(each, "timestamp") or _EPOCH)
    if optional_identifier(last, "state") != "FAILED":
        return (Observation(FactKind.PROCESSING, reference),)
    number = optional_identifier(last, "transactionId")
    declined = Observation(FactKind.DECLINED, number, reason=_error_of(last) or "declined") if number else opened
    return (opened, declined)


def _ended(body: Json, reference: str, *, has_tries: bool, now: datetime) -> Observation:
    """How an order that was left, or that nobody paid in time, is coded is not documented: its words are read, and an
    order that nobody tried to pay and whose time is over has expired."""
    words = " ".join(optional_identifier(body, key) or "" for key in ("errorCode", "detailedErrorCode")).upper()
    ends_at = moment_of(body, "expireAt")
    if "CANCEL" in words:
        return Observation(FactKind.CANCELED, reference, reason="canceled_by_shopper")
    if "EXPIR" in words or (not has_tries and ends_at is not None and ends_at <= now):
        return Observation(FactKind.EXPIRED, reference)
    return Observation(FactKind.FAILED, reference, reason=_error_of(body) or "declined")


def _error_of(source: Json) -> str | None:
    """The bank's own code says more than PhonePe's; neither is a list that anybody has the whole of."""
    found = optional_identifier(source, "detailedErrorCode") or optional_identifier(source, "errorCode")
    return found[:100] if found else None


def _paid_at(tries: Sequence[Json]) -> datetime | None:
    moments = [moment_of(each, "timestamp") for each in tries if each.get("state") == "COMPLETED"]
    return max((moment for moment in moments if moment is not None), default=None)
