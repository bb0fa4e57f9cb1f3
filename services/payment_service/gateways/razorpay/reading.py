"""Razorpay's objects as observations, from answers and webhooks alike: the same object always gives the same facts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from services.payment_service.domain.errors import CurrencyNotSupported
from services.payment_service.domain.models import FactKind, Observation
from services.payment_service.gateways.json_reading import (
    UnexpectedShape,
    identifier_of,
    is_storable,
    optional_identifier,
    sane,
    text_of,
    whole_number,
)
from shared.money import CURRENCY_EXPONENT, Money

Json = Mapping[str, Any]

THREE_DECIMALS = frozenset({"BHD", "KWD", "OMR"})
"""Sent times 1000, and the last digit has to be 0."""

CURRENCIES = frozenset(
    currency for currency, digits in CURRENCY_EXPONENT.items() if digits < 3 or currency in THREE_DECIMALS
)
"""How the other currencies of three decimals are to be written is not documented, so they are not offered. All that are
left have Razorpay's sub-units equal to ISO 4217's minor units, so that amounts go out and come back unchanged."""

SMALLEST: Mapping[str, int] = {"INR": 100}
"""The one documented minimum, of payments and of refunds."""

OUR_REFERENCE = re.compile(r"[A-Z0-9]{20}")

REFUND_KINDS: Mapping[str, FactKind] = {
    "pending": FactKind.REFUND_PENDING,
    "processed": FactKind.REFUND_SUCCEEDED,
    "failed": FactKind.REFUND_FAILED,
}
"""A status that is not here stays pending, so that a person is called when it does not end (fact sheet: Refund)."""

_DISPUTE_KINDS: Mapping[str, FactKind] = {
    "open": FactKind.DISPUTE_OPENED,
    "under_review": FactKind.DISPUTE_OPENED,
    "won": FactKind.DISPUTE_WON,
    "lost": FactKind.DISPUTE_LOST,
}


def to_razorpay_minor(amount: Money) -> int:
    """Razorpay's integer for an amount of ours. Raises CurrencyNotSupported where it cannot be taken exactly."""
    if amount.currency not in CURRENCIES:
        raise CurrencyNotSupported(f"how Razorpay writes {amount.currency} is not known")
    if amount.currency in THREE_DECIMALS and amount.amount_minor % 10:
        raise CurrencyNotSupported(f"Razorpay takes {amount.currency} with two decimals only")
    smallest = SMALLEST.get(amount.currency, 1)
    if amount.amount_minor < smallest:
        raise CurrencyNotSupported(f"Razorpay's smallest amount is {Money(smallest, amount.currency)}")
    return amount.amount_minor


def money_of(source: Json, key: str = "amount") -> Money:
    currency = text_of(source, "currency").upper()
    if currency not in CURRENCIES:
        raise UnexpectedShape("a currency that Razorpay is not known to have")
    return sane(Money(whole_number(source, key), currency))


def moment_of(source: Json, key: str = "created_at") -> datetime | None:
    seconds = source.get(key)
    return datetime.fromtimestamp(seconds, UTC) if type(seconds) is int and 0 < seconds < 10**11 else None


def notes_of(source: Json) -> dict[str, str]:
    """``[]`` when empty, an object when not, null at times, and masked in what reaches us as a webhook."""
    notes = source.get("notes")
    if not isinstance(notes, dict):
        return {}
    return {
        key: value
        for key, value in notes.items()
        if isinstance(value, str) and len(value) <= 256 and is_storable(value)
    }


def order_id_of(source: Json, key: str = "order_id") -> str | None:
    """With its prefix, which official samples leave out of an order's own id."""
    identifier = optional_identifier(source, key)
    return identifier if identifier is None or identifier.startswith("order_") else f"order_{identifier}"


def our_references(source: Json | None, key: str) -> tuple[str, ...]:
    """What a link or an order echoes of ours. In a webhook its notes are masked, its reference is not."""
    if source is None:
        return ()
    notes = notes_of(source)
    found = (notes.get("payment_id"), optional_identifier(source, key), notes.get("order_ref"))
    return tuple(dict.fromkeys(each for each in found if each))


def was_captured(payment: Json) -> bool:
    """A hold that Razorpay let go is ``refunded`` too, but was never captured."""
    return payment.get("status") == "captured" or (
        payment.get("status") == "refunded" and payment.get("captured") is True
    )


def observations_of_payment(payment: Json) -> Iterator[Observation]:
    """What one payment (one try of the shopper) amounts to.

    ``failed`` is a declined try and never the end: with no answer from the bank a payment fails after ten minutes and
    may be authorized days later. ``created`` says nothing: the shopper is at the bank and may still leave.
    """
    reference, status = identifier_of(payment, "id"), text_of(payment, "status")
    at = moment_of(payment)
    if was_captured(payment):
        yield Observation(FactKind.CAPTURED, reference, money_of(payment), at)
    elif status == "authorized":
        yield Observation(FactKind.AUTHORIZED, reference, money_of(payment), at)
    elif status == "refunded":
        yield Observation(FactKind.EXPIRED, reference, occurred_at=at, reason="hold_released")
    elif status == "failed":
        reason = optional_identifier(payment, "error_reason") or optional_identifier(payment, "error_code")
        yield Observation(FactKind.DECLINED, reference, occurred_at=at, reason=reason or "declined")


def refund_observation(refund: Json) -> Observation:
    kind = REFUND_KINDS.get(text_of(refund, "status"), FactKind.REFUND_PENDING)
    return Observation(
        kind,
        identifier_of(refund, "id"),
        money_of(refund),
        moment_of(refund),
        reason="refund_failed" if kind is FactKind.REFUND_FAILED else None,
        about=identifier_of(refund, "payment_id"),
        operation=operation_of(refund),
    )


def operation_of(refund: Json) -> str | None:
    """Our operation's reference, which the refund carries as its receipt; a receipt of somebody else's is not ours."""
    receipt = optional_identifier(refund, "receipt")
    return receipt if receipt is not None and OUR_REFERENCE.fullmatch(receipt) else None


def money_observations(payment: Json, refunds: Iterable[Json]) -> list[Observation]:
    """A payment with its refunds. The refund with which Razorpay lets a hold go gives nothing back, and is left out."""
    refunds = list(refunds)
    observations = list(observations_of_payment(payment))
    if was_captured(payment):
        return observations + [refund_observation(refund) for refund in refunds]
    ours = [refund for refund in refunds if operation_of(refund) is not None]
    if payment.get("status") != "refunded" or not ours:
        return observations
    # Whether ``captured`` stays true after a full refund is not documented; a refund of ours can only follow a capture.
    captured = Observation(FactKind.CAPTURED, identifier_of(payment, "id"), money_of(payment), moment_of(payment))
    return [captured, *(refund_observation(refund) for refund in ours)]


def dispute_observation(dispute: Json) -> Observation:
    """``closed`` is no ruling: what was deducted decides. A lost dispute may have cost less than was disputed."""
    status, amount = text_of(dispute, "status"), money_of(dispute)
    deducted = dispute.get("amount_deducted")
    is_deducted = type(deducted) is int and deducted > 0
    kind = _DISPUTE_KINDS.get(status)
    if kind is None:
        if status != "closed":
            raise UnexpectedShape("a status of a dispute that is not known")
        kind = FactKind.DISPUTE_LOST if is_deducted else FactKind.DISPUTE_WON
    if kind is FactKind.DISPUTE_LOST and is_deducted:
        amount = money_of(dispute, "amount_deducted")
    return Observation(
        kind,
        identifier_of(dispute, "id"),
        amount,
        moment_of(dispute),
        reason=optional_identifier(dispute, "reason_code"),
        about=identifier_of(dispute, "payment_id"),
    )
