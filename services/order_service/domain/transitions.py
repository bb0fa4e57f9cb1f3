"""One pure function says what an order's state is; nothing else assigns ``status``, ``payment_status``, ``attention``.

Its inputs are the facts that were decided once (closed as canceled or expired; reopened or confirmed by which payment;
which confirmation was revoked) and the newest known state of every payment of the order. The same inputs always give
the same state, in whatever order the payments' events arrived.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from services.order_service.domain.models import (
    Attention,
    Order,
    OrderPayment,
    OrderPaymentStatus,
    OrderStatus,
    PaymentSnapshot,
    PaymentStatus,
)


class Standing(Enum):
    """What a payment means to its order."""

    IDLE = auto()  # nothing was opened for the shopper yet
    OPEN = auto()  # the shopper can still pay
    MOVING = auto()  # the gateway is deciding: money may be on its way
    HELD = auto()  # funds are held for us
    TAKEN = auto()  # funds were taken
    DISPUTABLE = auto()  # funds that are not what we asked for
    FAILED = auto()
    GONE = auto()  # ended without money


STANDING: Mapping[PaymentStatus, Standing] = {
    PaymentStatus.CREATED: Standing.IDLE,
    PaymentStatus.REQUIRES_ACTION: Standing.OPEN,
    PaymentStatus.PROCESSING: Standing.MOVING,
    PaymentStatus.AUTHORIZED: Standing.HELD,
    PaymentStatus.PARTIALLY_CAPTURED: Standing.HELD,  # the rest is still to come, unless standing_of says otherwise
    PaymentStatus.CAPTURED: Standing.TAKEN,
    PaymentStatus.CONFLICTED: Standing.DISPUTABLE,
    PaymentStatus.FAILED: Standing.FAILED,
    PaymentStatus.CANCELED: Standing.GONE,
    PaymentStatus.EXPIRED: Standing.GONE,
}

REUSABLE = frozenset({PaymentStatus.CREATED, PaymentStatus.REQUIRES_ACTION, PaymentStatus.PROCESSING})
"""A repeated pay call answers with such a payment instead of opening another."""

CLOSABLE = frozenset({PaymentStatus.CREATED, PaymentStatus.REQUIRES_ACTION, PaymentStatus.PROCESSING})
"""Before an order ends, the gateway is asked to close these, or what became of them."""

ENDED = frozenset({PaymentStatus.FAILED, PaymentStatus.CANCELED, PaymentStatus.EXPIRED})

_UNDECIDED: Mapping[Standing, OrderPaymentStatus] = {
    # Read from the top: the first standing that any payment has names the order's payment status.
    Standing.HELD: OrderPaymentStatus.AUTHORIZED,
    Standing.MOVING: OrderPaymentStatus.PENDING,
    Standing.DISPUTABLE: OrderPaymentStatus.PENDING,
    Standing.OPEN: OrderPaymentStatus.PENDING,
}


def standing_of(payment: PaymentSnapshot) -> Standing:
    """A part that was captured for good is money taken: its hold is over, so the rest will never come."""
    is_part = payment.status is PaymentStatus.PARTIALLY_CAPTURED
    if is_part and 0 < payment.amount_captured == payment.amount_authorized:
        return Standing.TAKEN
    return STANDING[payment.status]


@dataclass(frozen=True, slots=True)
class OrderState:
    status: OrderStatus
    payment_status: OrderPaymentStatus
    attention: Attention | None
    confirmed_by: str | None
    was_refunded: bool = False
    """All that confirmed the order has gone back, now or earlier."""
    was_revoked: bool = False
    """What had confirmed the order was not there: it is canceled, and nothing confirms it any more."""


def state_of(order: Order) -> OrderState:
    return OrderState(
        order.status,
        order.payment_status,
        order.attention,
        order.confirmed_by,
        was_refunded=order.refunded_at is not None,
        was_revoked=order.revoked_payment is not None,
    )


def derive(order: Order, payments: Sequence[OrderPayment]) -> OrderState:
    """The state that the order's facts and its payments' newest states give. Reads no derived field of ``order``."""
    paying = _winner_first(payments, order)
    confirmed_by = order.confirmed_by or order.reopened_by
    if confirmed_by is None and order.closed_as is None and paying:
        confirmed_by = paying[0].payment_id
    payment_status = _payment_status(order, confirmed_by, payments)
    is_refunded = confirmed_by is not None and payment_status is OrderPaymentStatus.REFUNDED
    return OrderState(
        status=OrderStatus.CONFIRMED if confirmed_by is not None else order.closed_as or OrderStatus.OPEN,
        payment_status=payment_status,
        attention=_attention(order, confirmed_by, payments),
        confirmed_by=confirmed_by,
        was_refunded=order.refunded_at is not None or is_refunded,
        was_revoked=order.revoked_payment is not None,
    )


def is_for(payment: PaymentSnapshot, order: Order) -> bool:
    """It asks for this order's total; an equal number in another currency does not (PY11)."""
    return payment.amount == order.total


def _pays(payment: PaymentSnapshot, order: Order) -> bool:
    """Money taken for this order's total pays it.

    How much must be taken is payment_service's to say (its tolerance, its CHECK), and for a final part the merchant's,
    who settled for less: a captured amount that differs from the total pays too, and is flagged (design.md §4). Else
    the order could neither be paid again nor ever end.
    """
    return standing_of(payment) is Standing.TAKEN and is_for(payment, order) and payment.amount_captured > 0


def _winner_first(payments: Sequence[OrderPayment], order: Order) -> list[PaymentSnapshot]:
    """Of those that pay, the oldest that still has money (ids sort by creation)."""
    paying = [payment.snapshot for payment in payments if _pays(payment.snapshot, order)]
    return sorted(paying, key=lambda each: (each.amount_not_refunded <= 0, each.payment_id))


def _payment_status(order: Order, confirmed_by: str | None, payments: Sequence[OrderPayment]) -> OrderPaymentStatus:
    """Once a payment has confirmed the order, it alone says how the order is paid.

    Whatever became of the keeper: a second payment that went back is no refund of the order, whose goods would go back
    on the shelf for it, and one that has money does not pay it. They move ``attention`` only.
    """
    if confirmed_by is not None:
        payments = [payment for payment in payments if payment.payment_id == confirmed_by]
    paying = _winner_first(payments, order)
    if paying:
        return _money_status(paying[0])
    standings = {standing_of(payment.snapshot) for payment in payments}
    for standing, status in _UNDECIDED.items():
        if standing in standings:
            return status
    if Standing.TAKEN in standings:  # captured, but not our total: flagged, never paid
        return OrderPaymentStatus.PENDING
    newest = max(payments, key=lambda payment: payment.payment_id, default=None)
    if newest is not None and newest.status is PaymentStatus.FAILED:
        return OrderPaymentStatus.FAILED
    return OrderPaymentStatus.UNPAID


def _money_status(payment: PaymentSnapshot) -> OrderPaymentStatus:
    if payment.amount_disputed > 0:
        return OrderPaymentStatus.DISPUTED
    if payment.amount_refunded >= payment.amount_captured:
        return OrderPaymentStatus.REFUNDED
    if payment.amount_refunded > 0:
        return OrderPaymentStatus.PARTIALLY_REFUNDED
    return OrderPaymentStatus.PAID


def _attention(order: Order, confirmed_by: str | None, payments: Sequence[OrderPayment]) -> Attention | None:
    """The gravest thing that wants a person or a policy; it goes by itself once the money is back."""
    if any(_mismatches(payment.snapshot, order, confirmed_by) for payment in payments):
        return Attention.AMOUNT_MISMATCH
    with_money = [payment.payment_id for payment in payments if _has_money(payment.snapshot, order)]
    strays = [payment_id for payment_id in with_money if payment_id != confirmed_by]
    if len(with_money) > 1 or (confirmed_by is not None and strays):
        return Attention.DUPLICATE_PAYMENT
    if confirmed_by is None and order.closed_as is not None and strays:
        return Attention.LATE_PAYMENT
    if any(payment.snapshot.outcome_unknown for payment in payments):
        return Attention.UNKNOWN_OUTCOME
    return None


def _has_money(payment: PaymentSnapshot, order: Order) -> bool:
    is_held = standing_of(payment) is Standing.HELD
    return is_held or (_pays(payment, order) and payment.amount_not_refunded > 0)


def _mismatches(payment: PaymentSnapshot, order: Order, confirmed_by: str | None) -> bool:
    if payment.amount_excess > 0:
        return True
    standing = standing_of(payment)
    if payment.payment_id == confirmed_by and standing is not Standing.TAKEN:
        return True  # the gateway took back what confirmed the order
    if standing not in (Standing.TAKEN, Standing.DISPUTABLE) or _is_all_back(payment):
        return False
    is_whole = payment.amount_captured == order.total.amount_minor
    return standing is Standing.DISPUTABLE or not (is_whole and _pays(payment, order))


def _is_all_back(payment: PaymentSnapshot) -> bool:
    return 0 < payment.amount_captured <= payment.amount_refunded


def may_end_without_money(payments: Sequence[OrderPayment]) -> bool:
    """Whether an unpaid order may be canceled or expire: no payment of it holds money or might still bring some."""
    return all(payment.status in ENDED for payment in payments)


class Consequence(Enum):
    """What else happens in the transaction that changes the state."""

    REOPENED = auto()
    PAID = auto()
    REFUNDED = auto()
    CANCELED = auto()
    EXPIRED = auto()
    REVOKED = auto()
    ATTENTION = auto()


_ENTERING: Mapping[OrderStatus, Consequence] = {
    OrderStatus.CONFIRMED: Consequence.PAID,
    OrderStatus.CANCELED: Consequence.CANCELED,
    OrderStatus.EXPIRED: Consequence.EXPIRED,
}


def consequences(before: OrderState, after: OrderState) -> tuple[Consequence, ...]:
    """What a change of state sets off, in the order in which it is done. Each but the last happens at most once: an
    order leaves ``open`` once, late money reopens it once, what was refunded is remembered, and a confirmation that was
    revoked never comes back: that is the one way out of ``confirmed``."""
    happened = []
    if before.status is OrderStatus.CONFIRMED and after.status is not before.status:
        assert after.status is OrderStatus.CANCELED, f"an order never goes from {before.status} to {after.status}"
        assert after.was_revoked, "a confirmed order is canceled only when what confirmed it is not there"
        happened.append(Consequence.REVOKED)
    elif before.status is not after.status:
        if before.status is not OrderStatus.OPEN:
            assert after.status is OrderStatus.CONFIRMED, f"an order never goes from {before.status} to {after.status}"
            assert not after.was_revoked, "a revoked order is never confirmed again"
            happened.append(Consequence.REOPENED)
        happened.append(_ENTERING[after.status])
    if after.was_refunded and not before.was_refunded:
        happened.append(Consequence.REFUNDED)
    if after.attention is not None and after.attention is not before.attention:
        happened.append(Consequence.ATTENTION)
    return tuple(happened)
