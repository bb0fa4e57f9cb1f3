"""Paytm's orders and refunds as observations. Amounts are rupees, and only rupees."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

from services.payment_service.domain.errors import CapabilityNotSupported, CurrencyNotSupported
from services.payment_service.domain.models import CaptureMode, FactKind, Observation
from services.payment_service.gateways.json_reading import (
    UnexpectedShape,
    identifier_of,
    optional_identifier,
    optional_text,
    sane,
)
from services.payment_service.gateways.paytm.api import Json, Said
from shared.money import Money

CURRENCY = "INR"
IST = timezone(timedelta(hours=5, minutes=30))
"""Paytm's times say no zone, and mean India's."""

OUR_REFERENCE = re.compile(r"[A-Z0-9]{20}")

_TAKEN = frozenset({"SALE", "CAPTURE", "WITHDRAW"})
_CANCELED_BY_SHOPPER = "141"
_SESSION_EXPIRED = "1006"

_REFUNDS: Mapping[str, FactKind] = {
    "PENDING": FactKind.REFUND_PENDING,
    "TXN_FAILURE": FactKind.REFUND_FAILED,
}
_REFUND_DONE = ("TXN_SUCCESS", "10")


def to_rupees(amount: Money) -> str:
    """``499.00``. Raises CurrencyNotSupported."""
    if amount.currency != CURRENCY:
        raise CurrencyNotSupported("Paytm takes Indian rupees only")
    return f"{amount.as_major():f}"


def check_capture(capture: CaptureMode) -> None:
    if capture is CaptureMode.MANUAL:
        raise CapabilityNotSupported("Paytm takes the money at once: how held money is captured is not documented")


def money_of(source: Json, key: str) -> Money:
    """No answer names a currency, because there is one only; if one ever does, it is believed. Raises UnexpectedShape,
    InvalidAmount."""
    value = source.get(key)
    if type(value) is int:
        value = Decimal(value)
    if not isinstance(value, str | Decimal):
        raise UnexpectedShape(f"{key} is not an amount")
    amount = sane(Money.from_major(value, (optional_text(source, "currency") or CURRENCY).upper()))
    if amount.amount_minor < 0:
        raise UnexpectedShape(f"{key} is negative")
    return amount


def moment_of(source: Json, key: str) -> datetime | None:
    text = optional_text(source, key)
    for form in ("%Y-%m-%d %H:%M:%S.%f", "%Y-%m-%d %H:%M:%S"):
        try:
            return datetime.strptime(text or "", form).replace(tzinfo=IST).astimezone(UTC)
        except (ValueError, OverflowError):
            continue
    return None


def order_observation(said: Said, *, merchant_id: str, order_id: str) -> Observation:
    """What an order amounts to. An order is one try: what failed stays so, unless its money comes late after all.

    A word that is not known is never more than a payment under way. A failure that does not name the order is one of
    our question, and fails nobody's payment. Raises UnexpectedShape, InvalidAmount.
    """
    body = said.body
    if body.get("orderId", order_id) != order_id or body.get("mid", merchant_id) != merchant_id:
        raise UnexpectedShape("it is about another order")
    if said.status == "TXN_SUCCESS":
        return _success(body, order_id)
    if said.is_failure:
        _require_named(said, merchant_id=merchant_id, order_id=order_id)
    if said.status != "TXN_FAILURE":
        return Observation(FactKind.PROCESSING, order_id)
    if said.code == _CANCELED_BY_SHOPPER or "cancel" in said.message.lower():
        return Observation(FactKind.CANCELED, order_id, reason="canceled_by_shopper")
    if said.code == _SESSION_EXPIRED:
        return Observation(FactKind.EXPIRED, order_id)
    return Observation(FactKind.FAILED, order_id, reason=said.code[:100] or "declined")


def _require_named(said: Said, *, merchant_id: str, order_id: str) -> None:
    if said.body.get("orderId") != order_id or said.body.get("mid") != merchant_id:
        raise UnexpectedShape("a failure that does not name the order")
    if said.leaves_absence_open:
        raise UnexpectedShape("a failure that may mean that there is no such order")


def _success(body: Json, order_id: str) -> Observation:
    """Held money is told apart by its type, though we never ask for it; of a type not known nothing is believed."""
    kind = (optional_text(body, "txnType") or "SALE").upper()
    if kind != "PREAUTH" and kind not in _TAKEN:
        return Observation(FactKind.PROCESSING, order_id)
    identifier_of(body, "orderId")
    fact = FactKind.AUTHORIZED if kind == "PREAUTH" else FactKind.CAPTURED
    return Observation(fact, identifier_of(body, "txnId"), money_of(body, "txnAmount"), moment_of(body, "txnDate"))


def refund_observation(
    said: Said, *, order_id: str, about: str | None = None, asked_for: Money | None = None
) -> Observation:
    """A refund by its status. It is known by its ``refId``: that is what it is asked for by, whoever made it, while
    Paytm's own id is missing where it never came to one. ``asked_for``: the amount where the answer leaves it out.

    Raises UnexpectedShape, InvalidAmount.
    """
    body = said.body
    if body.get("orderId", order_id) != order_id:
        raise UnexpectedShape("it is about another order")
    if said.leaves_absence_open:
        raise UnexpectedShape("a failure that may mean that there is no such refund")
    amount = asked_for if asked_for is not None and "refundAmount" not in body else money_of(body, "refundAmount")
    is_done = (said.status, said.code) == _REFUND_DONE
    kind = FactKind.REFUND_SUCCEEDED if is_done else _REFUNDS.get(said.status, FactKind.REFUND_PENDING)
    return refund_fact(
        kind,
        identifier_of(body, "refId"),
        amount,
        about=about or optional_identifier(body, "txnId"),
        reason=said.code[:100],
    )


def refund_fact(kind: FactKind, ref_id: str, amount: Money, *, about: str | None, reason: str | None) -> Observation:
    failure = (reason or "refund_failed") if kind is FactKind.REFUND_FAILED else None
    ours = ref_id if OUR_REFERENCE.fullmatch(ref_id) else None
    return Observation(kind, ref_id, amount, reason=failure, about=about, operation=ours)
