"""One pure function says what an order's state is; nothing else assigns ``status``, ``payment_status``, ``attention``.

Its inputs are the facts that were decided once (closed as canceled or expired; confirmed by which payment) and the
newest known state of every payment of the order. The same inputs always give the same state, in whatever order the
payments' events arrived.
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
    PaymentStatus.PARTIALLY_CAPTURED: Standing.HELD,  # the rest is still to come; the order is not paid by a part
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


@dataclass(frozen=True, slots=True)
class OrderState:
    status: OrderStatus
    payment_status: OrderPaymentStatus
    attention: Attention | None
    confirmed_by: str | None


def state_of(order: Order) -> OrderState:
    return OrderState(order.status, order.payment_status, order.attention, order.confirmed_by)


def derive(order: Order, payments: Sequence[OrderPayment]) -> OrderState:
    """The state that the order's facts and its payments' newest states give. Reads no derived field of ``order``."""
    paying = _winner_first(order, [payment.snapshot for payment in payments if _pays(payment.snapshot, order)])
    confirmed_by = order.confirmed_by
    if confirmed_by is None and order.closed_as is None and paying:
        confirmed_by = paying[0].payment_id
    unpaid_status = order.closed_as or OrderStatus.OPEN
    return OrderState(
        status=OrderStatus.CONFIRMED if confirmed_by is not None else unpaid_status,
        payment_status=_payment_status(paying, payments),
        attention=_attention(order, paying, payments),
        confirmed_by=confirmed_by,
    )


def _pays(payment: PaymentSnapshot, order: Order) -> bool:
    """A captured payment of this order's total pays it; an equal number in another currency does not (PY11).

    What "captured" takes is payment_service's to say (its tolerance, its CHECK): a captured amount that differs from
    the total pays too, and is flagged (design.md §4). Else the order could neither be paid again nor ever end.
    """
    return payment.status is PaymentStatus.CAPTURED and payment.amount == order.total and payment.amount_captured > 0


def _winner_first(order: Order, paying: list[PaymentSnapshot]) -> list[PaymentSnapshot]:
    """The payment that confirmed the order keeps it; among others the oldest (ids sort by creation)."""
    return sorted(paying, key=lambda payment: (payment.payment_id != order.confirmed_by, payment.payment_id))


def _payment_status(paying: Sequence[PaymentSnapshot], payments: Sequence[OrderPayment]) -> OrderPaymentStatus:
    if paying:
        return _money_status(paying[0])
    standings = {STANDING[payment.status] for payment in payments}
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


def _attention(order: Order, paying: Sequence[PaymentSnapshot], payments: Sequence[OrderPayment]) -> Attention | None:
    """The gravest thing that wants a person or a policy; it goes by itself once the money is back."""
    keeping = [payment for payment in paying if payment.amount_refunded < payment.amount_captured]
    held = [payment for payment in payments if STANDING[payment.status] is Standing.HELD]
    if any(_mismatches(payment.snapshot, order) for payment in payments):
        return Attention.AMOUNT_MISMATCH
    if len(keeping) + len(held) > 1:
        return Attention.DUPLICATE_PAYMENT
    if order.closed_as is not None and (keeping or held):
        return Attention.LATE_PAYMENT
    if any(payment.snapshot.outcome_unknown for payment in payments):
        return Attention.UNKNOWN_OUTCOME
    return None


def _mismatches(payment: PaymentSnapshot, order: Order) -> bool:
    if payment.status is PaymentStatus.CONFLICTED:
        return True
    is_whole = payment.amount_captured == order.total.amount_minor
    return payment.status is PaymentStatus.CAPTURED and not (is_whole and _pays(payment, order))


def may_end_without_money(payments: Sequence[OrderPayment]) -> bool:
    """Whether an unpaid order may be canceled or expire: no payment of it holds money or might still bring some."""
    return all(payment.status in ENDED for payment in payments)


class Consequence(Enum):
    """What else happens in the transaction that changes the state."""

    PAID = auto()
    CANCELED = auto()
    EXPIRED = auto()
    ATTENTION = auto()


_ENTERING: Mapping[OrderStatus, Consequence] = {
    OrderStatus.CONFIRMED: Consequence.PAID,
    OrderStatus.CANCELED: Consequence.CANCELED,
    OrderStatus.EXPIRED: Consequence.EXPIRED,
}


def consequences(before: OrderState, after: OrderState) -> tuple[Consequence, ...]:
    """What a change of state sets off. An order leaves ``open`` once, so the first three happen at most once."""
    happened = []
    if before.status is not after.status:
        assert before.status is OrderStatus.OPEN, f"an order never goes from {before.status} to {after.status}"
        happened.append(_ENTERING[after.status])
    if after.attention is not None and after.attention is not before.attention:
        happened.append(Consequence.ATTENTION)
    return tuple(happened)
