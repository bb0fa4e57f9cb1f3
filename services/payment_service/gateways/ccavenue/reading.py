"""CCAvenue's orders and refunds as observations. Its keys are spelled as it spells them (``order_currncy``)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, auto
from typing import Any

from services.payment_service.domain.errors import CurrencyNotSupported
from services.payment_service.domain.models import FactKind, Observation
from services.payment_service.gateways.ccavenue.api import Json
from services.payment_service.gateways.json_reading import MAX_IDENTIFIER, UnexpectedShape, sane
from shared.money import Money

CURRENCIES = frozenset({"INR", "USD", "SGD", "GBP", "EUR", "AED"})
"""AED at the house in the Emirates. All have two decimals, which is all that an amount can be written with."""

INDIA = timezone(timedelta(hours=5, minutes=30))
"""Times come without a zone and are India's."""

SMALLEST_TOO_LARGE = 10**12
"""Twelve digits, two of them behind the point."""

OUR_REFERENCE = re.compile(r"[A-Z0-9]{20}")

TAKEN_AT_ONCE = "automatic"
"""What ``merchant_param2`` says of a payment whose money is to be taken as soon as the shopper has agreed."""


class Standing(Enum):
    """What a status amounts to."""

    OPEN = auto()
    UNDECIDED = auto()
    HELD = auto()
    TAKEN = auto()
    SENT_BACK = auto()
    """Taken, and given back by CCAvenue of its own accord."""
    ENDED = auto()
    RELEASED = auto()


_STANDINGS: Mapping[str, Standing] = {
    "initiated": Standing.OPEN,
    "awaited": Standing.UNDECIDED,
    "successful": Standing.HELD,
    "success": Standing.HELD,
    "shipped": Standing.TAKEN,
    "refunded": Standing.TAKEN,
    "system refund": Standing.TAKEN,
    "chargeback": Standing.TAKEN,
    "auto reversed": Standing.SENT_BACK,
    "unsuccessful": Standing.ENDED,
    "failure": Standing.ENDED,
    "invalid": Standing.ENDED,
    "fraud": Standing.ENDED,
    "aborted": Standing.ENDED,
    "timeout": Standing.ENDED,
    "cancelled": Standing.RELEASED,
    "auto cancelled": Standing.RELEASED,
}
"""A word that is not here is undecided: never a success, and never the end (fact sheet: Retrieve)."""

_ENDS: Mapping[str, tuple[FactKind, str]] = {
    "unsuccessful": (FactKind.FAILED, "declined"),
    "failure": (FactKind.FAILED, "declined"),
    "invalid": (FactKind.FAILED, "invalid"),
    "fraud": (FactKind.FAILED, "fraud"),
    "aborted": (FactKind.CANCELED, "shopper_left"),
    "timeout": (FactKind.EXPIRED, "timeout"),
    "cancelled": (FactKind.CANCELED, "voided"),
    "auto cancelled": (FactKind.CANCELED, "authorization_expired"),
}

_MAY_COME_BACK = frozenset({"aborted", "timeout"})
"""Ends of the page: the bank's late yes makes the same try one that holds money. Every other end is CCAvenue's or the
bank's answer, after which whatever that try held is gone."""

REFUND_KINDS: Mapping[str, FactKind] = {
    "TS-REFA": FactKind.REFUND_PENDING,
    "TS-REFC": FactKind.REFUND_SUCCEEDED,
    "TS-REFF": FactKind.REFUND_FAILED,
    "TS-REFD": FactKind.REFUND_FAILED,
}
"""A status that is not here stays pending, so that a person is called when it does not end."""

_REFUND_FAILURES = {"TS-REFF": "refund_failed", "TS-REFD": "refund_declined"}

_GIVEN_BACK = frozenset({"refunded", "system refund", "chargeback"})


@dataclass(frozen=True, slots=True)
class Order:
    """One try of the shopper: CCAvenue's order with its own reference. Several may share our order number."""

    reference: str
    order_no: str
    word: str
    standing: Standing
    row: Json

    @property
    def is_alive(self) -> bool:
        """It holds or has taken money, or may still."""
        return self.standing not in (Standing.ENDED, Standing.RELEASED, Standing.SENT_BACK)

    @property
    def currency(self) -> str:
        value = self.row.get("order_currncy", self.row.get("order_currency"))
        if not isinstance(value, str):
            raise UnexpectedShape("order_currncy is not text")
        return value.strip().upper()

    @property
    def amount(self) -> Money:
        """What we asked for, without what CCAvenue may add for the shopper (``order_gross_amt``)."""
        amount = money_of(self.row, "order_amt", self.currency)
        if amount is None:
            raise UnexpectedShape("order_amt is missing")
        return amount

    @property
    def captured(self) -> Money | None:
        """None where it says that nothing was. What is above our amount and within the gross is the shopper's fee."""
        amount, captured = self.amount, money_of(self.row, "order_capt_amt", self.currency)
        gross = money_of(self.row, "order_gross_amt", self.currency)
        if captured is None or (captured.amount_minor == 0 and self.word in _GIVEN_BACK):
            return amount
        if captured.amount_minor <= 0:
            return None
        return amount if gross is not None and amount < captured <= gross else captured

    @property
    def at(self) -> datetime | None:
        return moment_of(self.row, "order_status_date_time") or moment_of(self.row, "order_date_time")

    @property
    def is_taken_at_once(self) -> bool:
        return self.row.get("param_value2") == TAKEN_AT_ONCE


def order_of(row: Json) -> Order:
    """Raises UnexpectedShape."""
    word = row.get("order_status")
    if not isinstance(word, str) or not word.strip():
        raise UnexpectedShape("order_status is not text")
    plain = " ".join(re.split(r"[\s_-]+", word.strip().lower()))
    standing = _STANDINGS.get(plain, Standing.UNDECIDED)
    return Order(id_of(row, "reference_no"), id_of(row, "order_no"), plain, standing, row)


def id_of(source: Json, key: str) -> str:
    """An id is a number at times and text at others."""
    value = source.get(key)
    text = str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if not 0 < len(text) <= MAX_IDENTIFIER or not text.isascii() or not text.isprintable():
        raise UnexpectedShape(f"{key} is not an id")
    return text


def money_of(source: Json, key: str, currency: str) -> Money | None:
    """None where it is absent. Digits that the currency does not have are refused, not rounded (InvalidAmount)."""
    value: Any = source.get(key)
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise UnexpectedShape(f"{key} is not an amount")
    return sane(Money.from_major(value if isinstance(value, str) else Decimal(value), currency))


def to_ccavenue(amount: Money) -> str:
    """``"499.00"``. Raises CurrencyNotSupported where it cannot be taken exactly."""
    if amount.currency not in CURRENCIES:
        raise CurrencyNotSupported(f"CCAvenue is not known to take {amount.currency}")
    if not 0 < amount.amount_minor < SMALLEST_TOO_LARGE:
        raise CurrencyNotSupported("CCAvenue takes amounts of up to twelve digits")
    return f"{amount.as_major():f}"


def moment_of(source: Json, key: str) -> datetime | None:
    """``2025-01-01 12:03:10.123``; for records only, so what is written otherwise is left out."""
    value = source.get(key)
    match = _MOMENT.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        return None
    try:
        return datetime.fromisoformat(match.group(1)).replace(tzinfo=INDIA).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


_MOMENT = re.compile(r"(\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d)(?:\.\d{1,9})?", re.ASCII)


def observations_of(order: Order, our_reference: str, *, others_alive: bool, by_hand: bool) -> Iterator[Observation]:
    """What one try amounts to.

    ``others_alive``: beside another that holds money or may still, a try that failed is only a declined one, and the
    payment has not ended with it. ``by_hand``: this account confirms nothing by itself, so that what is to be taken at
    once is ours to complete.
    """
    reference, at = order.reference, order.at
    match order.standing:
        case Standing.OPEN:
            yield Observation(FactKind.SESSION_OPENED, our_reference)
        case Standing.UNDECIDED:
            yield Observation(FactKind.PROCESSING, reference, occurred_at=at)
        case Standing.HELD:
            yield Observation(FactKind.AUTHORIZED, reference, order.amount, at)
            if by_hand and order.is_taken_at_once:
                yield Observation(FactKind.APPROVED, reference, order.amount, at, reason="successful")
        case Standing.TAKEN:
            yield from _taken(order)
        case Standing.SENT_BACK:
            yield Observation(FactKind.CAPTURE_REVERSED, reference, order.amount, at, reason="auto_reversed")
            yield Observation(_ended(FactKind.FAILED, others_alive), reference, occurred_at=at, reason="auto_reversed")
            yield Observation(FactKind.RELEASED, reference, occurred_at=at, reason="auto_reversed")
        case Standing.ENDED:
            kind, reason = _ENDS[order.word]
            about = reference if others_alive else our_reference
            yield Observation(_ended(kind, others_alive), about, occurred_at=at, reason=reason)
            if order.word not in _MAY_COME_BACK:
                yield Observation(FactKind.RELEASED, reference, occurred_at=at, reason=reason)
        case Standing.RELEASED:
            kind, reason = _ENDS[order.word]
            yield Observation(FactKind.RELEASED if others_alive else kind, reference, occurred_at=at, reason=reason)


def _ended(kind: FactKind, others_alive: bool) -> FactKind:
    return FactKind.DECLINED if others_alive else kind


def _taken(order: Order) -> Iterator[Observation]:
    reference, at, captured = order.reference, order.at, order.captured
    if captured is None:  # confirmed, with nothing taken: no documented state, so a person sees it not ending
        yield Observation(FactKind.PROCESSING, reference, occurred_at=at)
        return
    yield Observation(FactKind.CAPTURED, reference, captured, at)
    if captured < order.amount:  # a part can be taken once, and the rest goes back by itself
        yield Observation(FactKind.RELEASED, reference, occurred_at=at, reason="rest_returned")
    if order.word == "chargeback":
        # Neither an id nor an amount comes with it: one dispute per order, about all of it.
        dispute = f"{reference}-chargeback"
        yield Observation(FactKind.DISPUTE_OPENED, dispute, captured, at, reason="chargeback", about=reference)


def refund_observations(rows: Iterable[Json], order: Order) -> list[Observation]:
    """Every refund of an order. One that was made in their panel may carry no reference: then what is known of it from
    its first day names it."""
    seen: Counter[str] = Counter()
    return [refund_observation(row, order.reference, order.currency, seen) for row in rows]


def refund_observation(row: Json, about: str, currency: str, seen: Counter[str]) -> Observation:
    amount = money_of(row, "refund_amt", currency)
    if amount is None:
        raise UnexpectedShape("refund_amt is missing")
    ours = _reference_of_refund(row)
    name = ours or _name_of_refund(row, about, amount, seen)
    word = str(row.get("refund_status") or "").strip().upper()
    return Observation(
        REFUND_KINDS.get(word, FactKind.REFUND_PENDING),
        name,
        amount,
        moment_of(row, "refund_issue_date"),
        reason=_REFUND_FAILURES.get(word),
        about=about,
        operation=ours if ours is not None and OUR_REFERENCE.fullmatch(ours) else None,
    )


def _name_of_refund(row: Json, about: str, amount: Money, seen: Counter[str]) -> str:
    day = re.sub(r"[^0-9]", "", str(row.get("refund_issue_date") or ""))[:14]
    name = f"{about}-refund-{day}-{amount.amount_minor}"
    seen[name] += 1
    return name if seen[name] == 1 else f"{name}-{seen[name]}"


def _reference_of_refund(row: Json) -> str | None:
    value = row.get("refund_mer_ref_no")
    if value is None or str(value).strip() in ("", "null"):
        return None
    return id_of(row, "refund_mer_ref_no")


def is_of(row: Json, reference: str) -> bool:
    return _reference_of_refund(row) == reference


def sent_back_by_itself(order: Order, refunds: Sequence[Observation]) -> Observation | None:
    """A system refund of which the list of refunds knows nothing: the money is gone all the same."""
    captured = order.captured
    if order.word != "system refund" or refunds or captured is None:
        return None
    return Observation(FactKind.CAPTURE_REVERSED, order.reference, captured, order.at, reason="system_refund")
