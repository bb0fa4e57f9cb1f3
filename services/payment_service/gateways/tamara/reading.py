"""What Tamara's orders say, as observations.

One order is one object for us: what is held, captured and refunded is counted on it, because a refund names the order
and lets Tamara choose the capture. Its page is another: that the page has ended must not hide money that is held
afterwards, so facts about it carry a name of their own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from services.payment_service.domain.models import FactKind, Observation
from services.payment_service.gateways.json_reading import (
    entries_of,
    identifier_of,
    object_of,
    optional_identifier,
    text_of,
)
from services.payment_service.gateways.port import Snapshot
from services.payment_service.gateways.tamara.amounts import from_tamara, optional_from_tamara
from shared.errors import InvalidAmount
from shared.money import Money

Json = Mapping[str, Any]

APPROVED = "approved"
NEW = "new"

_HOLD = "hold:"

WITH_MONEY = frozenset(
    {"authorised", "updated", "partially_captured", "fully_captured", "partially_refunded", "fully_refunded"}
)
ENDED: Mapping[str, FactKind] = {
    "declined": FactKind.FAILED,
    "canceled": FactKind.CANCELED,
    "expired": FactKind.EXPIRED,
}


@dataclass(frozen=True, slots=True)
class Capture:
    capture_id: str
    amount: Money
    created_at: datetime | None
    tracking_number: str | None
    """Our operation's reference, where it is echoed: a capture has no field for it."""


@dataclass(frozen=True, slots=True)
class Refund:
    refund_id: str
    amount: Money
    status: str | None
    kind: FactKind
    merchant_refund_id: str | None


@dataclass(frozen=True)
class Order:
    body: Json
    order_id: str
    our_reference: str | None
    status: str
    total: Money
    failed_refund_words: tuple[str, ...] = ()
    """What else than ``success`` an account has learnt to be the end of a refund."""

    @cached_property
    def captures(self) -> tuple[Capture, ...]:
        return tuple(map(_capture, self._transactions("captures")))

    @cached_property
    def refunds(self) -> tuple[Refund, ...]:
        return tuple(self._refund(each) for each in self._transactions("refunds"))

    @property
    def shows_all_captures(self) -> bool:
        """Whether the list is there and comes to the order's own sum: only then is what it lacks absent."""
        found = optional_from_tamara(self.body, "captured_amount")
        return self._has("captures") if found is None else found == self._sum([each.amount for each in self.captures])

    @property
    def shows_all_refunds(self) -> bool:
        """As of the captures. Whether the order's sum counts refunds that are under way is not documented."""
        found = optional_from_tamara(self.body, "refunded_amount")
        if found is None:
            return self._has("refunds")
        done = self._sum([each.amount for each in self.refunds if each.kind is FactKind.REFUND_SUCCEEDED])
        pending = self._sum([each.amount for each in self.refunds if each.kind is FactKind.REFUND_PENDING])
        return done <= found <= done + pending

    @cached_property
    def captured(self) -> Money:
        """All captures so far; where the sum is left out, theirs."""
        found = optional_from_tamara(self.body, "captured_amount")
        return found if found is not None else self._sum([capture.amount for capture in self.captures])

    @cached_property
    def canceled(self) -> Money:
        found = optional_from_tamara(self.body, "canceled_amount")
        if found is not None:
            return found
        return self._sum([from_tamara(each, "total_amount") for each in self._transactions("cancels")])

    @property
    def rest(self) -> Money:
        """What can still be captured or canceled, while the order is held."""
        return self.total - self.canceled - self.captured

    @property
    def is_held(self) -> bool:
        return self.status in WITH_MONEY - {"fully_captured"} and self.rest.amount_minor > 0

    @property
    def is_at_work(self) -> bool:
        return self.body.get("processing") is True

    @property
    def last_cancel_id(self) -> str | None:
        cancels = self._transactions("cancels")
        return optional_identifier(cancels[-1], "cancel_id") if cancels else None

    def _refund(self, entry: Json) -> Refund:
        status = optional_identifier(entry, "refund_status")
        return Refund(
            identifier_of(entry, "refund_id"),
            from_tamara(entry, "total_amount"),
            status,
            self._kind_of(status),
            optional_identifier(entry, "merchant_refund_id"),
        )

    def _kind_of(self, status: str | None) -> FactKind:
        """`success` is the only word that is documented. Of any other nobody says where the money is."""
        if status == "success":
            return FactKind.REFUND_SUCCEEDED
        return FactKind.REFUND_FAILED if status in self.failed_refund_words else FactKind.REFUND_PENDING

    def _transactions(self, name: str) -> list[Mapping[str, Any]]:
        transactions = self.body.get("transactions")
        return [] if transactions in (None, []) else entries_of(object_of(self.body, "transactions"), name)

    def _has(self, name: str) -> bool:
        transactions = self.body.get("transactions")
        return isinstance(transactions, dict) and isinstance(transactions.get(name), list)

    def _sum(self, amounts: list[Money]) -> Money:
        return sum(amounts, start=Money(0, self.total.currency))


def read_order(body: Json, failed_refund_words: tuple[str, ...] = ()) -> Order:
    """Raises UnexpectedShape, InvalidAmount. All of its amounts are read, so that none of them fails later."""
    order = Order(
        body,
        identifier_of(body, "order_id"),
        optional_identifier(body, "order_reference_id"),
        text_of(body, "status"),
        from_tamara(body, "total_amount"),
        failed_refund_words,
    )
    if any(refund.amount.amount_minor < 0 for refund in order.refunds) or order.captured.amount_minor < 0:
        raise InvalidAmount("a negative amount was captured or refunded")
    _ = order.rest, order.shows_all_refunds
    return order


def page_of(order_id: str) -> str:
    """What we call an order's page in facts; it is never sent anywhere."""
    return f"page:{order_id}"


def hold_of(order_id: str) -> str:
    """What we call an order's hold among a payment's references; it is never sent anywhere.

    An order that has expired does not say whether it ever was held. The payment remembers: whatever tells of a hold
    brings this name along, and who asks later names it.
    """
    return f"{_HOLD}{order_id}"


def names_a_hold(reference: str) -> bool:
    return reference.startswith(_HOLD)


def snapshot_of(order: Order, known: Collection[str] = ()) -> Snapshot:
    """``known``: the payment's references so far."""
    observations = tuple(observations_of(order, known))
    is_held = any(each.kind is FactKind.AUTHORIZED for each in observations)
    references = (order.order_id, hold_of(order.order_id)) if is_held else (order.order_id,)
    return Snapshot(references, observations)


def observations_of(order: Order, known: Collection[str] = ()) -> Iterator[Observation]:
    """A status that is not known is no success: at most something is going on."""
    end = ENDED.get(order.status)
    if order.status == APPROVED:
        yield Observation(FactKind.APPROVED, order.order_id, order.total, reason=APPROVED)
    elif end is not None and not _was_held(order, known):
        reason = order.status if end is FactKind.FAILED else None
        yield Observation(end, page_of(order.order_id), reason=reason)
    elif order.status in WITH_MONEY or end is not None:
        yield from _of_money(order)
    else:
        kind = FactKind.SESSION_OPENED if order.status == NEW else FactKind.PROCESSING
        yield Observation(kind, page_of(order.order_id))


def _was_held(order: Order, known: Collection[str]) -> bool:
    """Only what is held is captured or canceled."""
    has_moved = order.captured.amount_minor > 0 or order.canceled.amount_minor > 0
    return has_moved or hold_of(order.order_id) in known


def _of_money(order: Order) -> Iterator[Observation]:
    taken = order.captured
    if taken.amount_minor > 0 or order.status == "fully_captured":
        yield Observation(FactKind.CAPTURED, order.order_id, taken)
    yield from _of_hold(order)
    for refund in order.refunds:
        yield Observation(
            refund.kind,
            refund.refund_id,
            refund.amount,
            reason=refund.status if refund.kind is FactKind.REFUND_FAILED else None,
            about=order.order_id,
            operation=refund.merchant_refund_id,
        )


def _of_hold(order: Order) -> Iterator[Observation]:
    """A hold is told with all that was ever held, also where a part of it was canceled: facts never shrink."""
    end, was_captured = ENDED.get(order.status), order.captured.amount_minor > 0
    if end is not None and not was_captured:
        yield Observation(end, order.order_id, reason=order.status if end is FactKind.FAILED else None)
    elif end is not None or (was_captured and not order.is_held and order.captured < order.total):
        yield Observation(FactKind.RELEASED, order.order_id)
    elif order.is_held or order.status == "authorised":
        yield Observation(FactKind.AUTHORIZED, order.order_id, order.total)


def _capture(entry: Json) -> Capture:
    shipping = entry.get("shipping_info")
    tracking = optional_identifier(shipping, "tracking_number") if isinstance(shipping, dict) else None
    return Capture(
        identifier_of(entry, "capture_id"), from_tamara(entry, "total_amount"), _moment(entry, "created_at"), tracking
    )


def _moment(entry: Json, key: str) -> datetime | None:
    """Only for telling captures apart, so a time that cannot be read is none."""
    value = entry.get(key)
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    if found is None:
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found
