"""What becomes of money that its order did not wait for: the second payment, and the one that came too late.

Only this service can decide it, because only it knows which payment confirmed the order (failures PY4, PY7, PY8, O4,
O6). The decision is pure. It is made once for a payment, under the order's lock, and kept with the payment, so that the
same success heard by webhook, sweep and settlement leads to one command (failure RF18).

A command can come to nothing: the gateway refuses the refund or cannot be reached, or there was nothing to refund at
that moment. Money that is still there and not on its way is asked for again, with a key of its own, after waits that
grow (``WAITS``); then a person is called.

| The order is | the payment has | then |
|---|---|---|
| open | anything | nothing: any of its payments may still be the one |
| confirmed by another payment | captured money | refund, `duplicate_payment` |
| confirmed by another payment | held funds | release, `duplicate_payment` |
| confirmed, and its own payment was taken back by the gateway | anything | nothing: a person looks |
| canceled or expired | all its money captured, products say `fulfil`, stock suffices | the order is reopened by it |
| canceled, because what had confirmed it was not there | any, that very payment's too | back, `order_canceled` |
| canceled or expired | captured money otherwise | refund, `order_canceled` or `late_payment` |
| canceled or expired | held funds of an automatic capture, and it could be fulfilled | nothing: the capture comes |
| canceled or expired | held funds otherwise | release, `order_canceled` or `late_payment` |
| any | an amount or currency that is not the order's (conflicted) | nothing: a person looks |
| closed or confirmed by another, and it was asked back | captured more since | refund of that, too, at once |
| the same | its money still, nothing on its way, the wait is over | asked again; after the last `refund_failed` |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from services.order_service.domain.models import (
    AskedBack,
    LineItem,
    Order,
    OrderPayment,
    OrderStatus,
    PaymentSnapshot,
    PaymentStatus,
    Product,
    ReconcilePolicy,
    Resolution,
)
from services.order_service.domain.transitions import Standing, is_for, standing_of

Reason = Literal["late_payment", "duplicate_payment", "order_canceled"]

WAITS = (timedelta(hours=1), timedelta(hours=4), timedelta(hours=1))
"""How long the money may lie there after each attempt, or after its refund has come to nothing, before the next; the
last is the time until a person is called."""


@dataclass(frozen=True, slots=True)
class Decision:
    payment_id: str
    resolution: Resolution
    reason: Reason
    asked: AskedBack | None = None

    @property
    def command_key(self) -> str:
        """The same for ever. Funds that were to be released and were captured all the same are a second matter, and so
        is every further command to give back captured money."""
        key = f"{self.payment_id}:{self.reason}"
        if self.resolution is Resolution.RELEASE_REQUESTED:
            return f"{key}:release"
        return key if self.asked is None or self.asked.number == 1 else f"{key}#{self.asked.number}"


def can_fulfil(items: Sequence[LineItem], shelf: Mapping[str, Product]) -> bool:
    """Whether late money still buys these: every product is for sale, says so, and has enough pieces left."""
    return all(
        product is not None
        and product.reconcile_policy is ReconcilePolicy.FULFIL
        and product.available >= item.quantity
        for item in items
        for product in (shelf.get(item.sku),)
    )


def asks_the_shelf(order: Order, payments: Sequence[OrderPayment]) -> bool:
    """Whether ``decide`` depends on ``fulfillable``: products need not be locked for anything else."""
    is_closed = order.closed_as is not None and order.reopened_by is None
    may_be_reopened = is_closed and order.revoked_payment is None
    return may_be_reopened and any(
        payment.resolution is None and _wanted_back(payment, order) is not None for payment in payments
    )


def decide(
    order: Order, payments: Sequence[OrderPayment], *, confirmed_by: str | None, fulfillable: bool, now: datetime
) -> tuple[Decision, ...]:
    """What is to be done now about the payments that the order does not keep. Deciding again gives nothing new."""
    if confirmed_by is None and order.closed_as is None:
        return ()
    if confirmed_by is not None and not _keeps_its_money(confirmed_by, payments):
        return ()
    # Its shopper was told that nothing comes; whatever had confirmed it, and came after all, goes back like the rest.
    fulfillable = fulfillable and order.revoked_payment is None
    decisions: list[Decision] = []
    for payment in sorted(payments, key=lambda payment: payment.payment_id):
        resolution = _next_step(payment, order, now)
        if payment.payment_id == confirmed_by or resolution is None:
            continue
        if confirmed_by is None and fulfillable and _is_all_there(payment):
            confirmed_by = payment.payment_id
            decisions.append(Decision(payment.payment_id, Resolution.FULFILLED, "late_payment"))
        elif confirmed_by is None and fulfillable and _will_be_captured(payment):
            continue
        else:
            asked = _asked(payment, now) if resolution is Resolution.REFUND_REQUESTED else payment.asked
            decisions.append(Decision(payment.payment_id, resolution, _reason(order, confirmed_by), asked))
    return tuple(decisions)


def heard(payment: OrderPayment, news: PaymentSnapshot, *, now: datetime) -> OrderPayment:
    """The payment in its newer state. Money whose refund came to nothing is not asked for again at once: what kept the
    gateway from paying it back just now would do so again."""
    known = replace(payment, snapshot=news, updated_at=now)
    if payment.asked is None or _lies_idle(payment.snapshot) or not _lies_idle(news):
        return known
    return put_off(known, now=now)


def put_off(payment: OrderPayment, *, now: datetime) -> OrderPayment:
    """Its next step is due a whole wait from now, at the earliest."""
    asked = payment.asked
    assert asked is not None, "nobody has asked for it"
    again_at = max(asked.again_at, now + WAITS[asked.attempt - 1])
    return replace(payment, asked=replace(asked, again_at=again_at))


def _reason(order: Order, confirmed_by: str | None) -> Reason:
    if confirmed_by is not None:
        return "duplicate_payment"
    return "order_canceled" if order.closed_as is OrderStatus.CANCELED else "late_payment"


def _next_step(payment: OrderPayment, order: Order, now: datetime) -> Resolution | None:
    """What is to be done if the order does not keep it. None: nothing, or nothing yet."""
    wanted = _wanted_back(payment, order)
    if wanted is None or payment.resolution is None:
        return wanted
    if wanted is not Resolution.REFUND_REQUESTED:
        return None
    if payment.resolution is Resolution.RELEASE_REQUESTED:
        return wanted  # it was captured all the same
    asked = payment.asked
    if asked is None:
        return None
    if payment.snapshot.amount_captured > asked.amount_captured:
        return wanted  # a capture that nobody could stop any more
    is_due = payment.resolution is wanted and _lies_idle(payment.snapshot) and now >= asked.again_at
    if not is_due:
        return None
    return wanted if asked.attempt < len(WAITS) else Resolution.REFUND_FAILED


def _asked(payment: OrderPayment, now: datetime) -> AskedBack:
    before, captured = payment.asked, payment.snapshot.amount_captured
    is_the_same_money = before is not None and captured <= before.amount_captured
    attempt = before.attempt + 1 if before is not None and is_the_same_money else 1
    number = before.number + 1 if before is not None else 1
    return AskedBack(number, attempt, captured, now + WAITS[attempt - 1])


def _lies_idle(payment: PaymentSnapshot) -> bool:
    return payment.amount_refundable > 0 and payment.amount_refund_pending == 0


def _wanted_back(payment: OrderPayment, order: Order) -> Resolution | None:
    """How its money would go back, if it is money for this order and its books add up."""
    if not is_for(payment.snapshot, order) or payment.snapshot.amount_excess > 0:
        return None
    return _giving_back(payment.snapshot)


def _giving_back(payment: PaymentSnapshot) -> Resolution | None:
    standing = standing_of(payment)
    if standing in (Standing.TAKEN, Standing.HELD) and payment.amount_refundable > 0:
        return Resolution.REFUND_REQUESTED  # the command releases what is still held besides
    return Resolution.RELEASE_REQUESTED if standing is Standing.HELD else None


def _is_all_there(payment: OrderPayment) -> bool:
    """A part buys nothing late, nor does money of which some is already on its way back, or was promised back."""
    snapshot = payment.snapshot
    is_whole = snapshot.status is PaymentStatus.CAPTURED and snapshot.amount_refundable == snapshot.amount_captured
    return is_whole and payment.resolution is None


def _will_be_captured(payment: OrderPayment) -> bool:
    is_automatic = payment.terms is not None and payment.terms.capture == "automatic"
    return payment.status is PaymentStatus.AUTHORIZED and is_automatic


def _keeps_its_money(confirmed_by: str, payments: Sequence[OrderPayment]) -> bool:
    keeper = next((payment for payment in payments if payment.payment_id == confirmed_by), None)
    return keeper is not None and standing_of(keeper.snapshot) is Standing.TAKEN
