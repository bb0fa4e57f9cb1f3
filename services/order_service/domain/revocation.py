"""When an order that is confirmed stops being so: what had confirmed it is not there.

An order leaves ``confirmed`` in no other way. The reconciler finds such an order by comparing the owners' books and
asks for this (``order.cancel_requested``); whether it is done is decided here, from the payment's newest state.

| The order is | the payment that is named | then |
|---|---|---|
| not confirmed | any | kept as it is |
| confirmed by another payment | any | kept |
| confirmed by it | payment_service does not know it, and had told of it before | kept: it lost its data |
| confirmed by it | another payment of the order holds funds, or took some and is not giving them back | kept |
| confirmed by it | payment_service does not know it, and never spoke of it | revoked |
| confirmed by it | a call about it is unanswered, or the gateway is still deciding | kept: money may come |
| confirmed by it | funds held, an amount that is disputed or not ours, or anything taken and not given back | kept |
| confirmed by it | taken and given back in full | kept: the order is refunded |
| confirmed by it | failed, canceled, expired, or captured nothing | revoked |

What the order knows of the payment may be newer than the command: then that counts, and not what the command carries.
That a payment is absent is one party's word about nothing; the order's record is that party's own word about money.
Where they contradict each other, or another payment may be what pays the order, a person decides.
A revoked order cannot tell whether its goods have left the house: no fulfilment is known to this service.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from enum import StrEnum

from services.order_service.domain.models import (
    Order,
    OrderPayment,
    OrderPaymentStatus,
    OrderStatus,
    PaymentSnapshot,
    PaymentStatus,
    Resolution,
)
from services.order_service.domain.transitions import Standing, derive, standing_of


class KeptBecause(StrEnum):
    NOT_CONFIRMED_BY_IT = "not_confirmed_by_it"
    MONEY_MAY_COME = "money_may_come"
    MONEY_IS_THERE = "money_is_there"
    REFUNDED = "refunded"
    OTHER_MONEY = "other_money"
    """Canceled, the order would give back what another payment of it paid."""
    LOST_BY_ITS_OWNER = "lost_by_its_owner"
    """payment_service told of this payment, and does not know it any more: a restored or a wrong database."""


_WITHOUT_MONEY = frozenset({Standing.TAKEN, Standing.FAILED, Standing.GONE})
_UNDECIDED = frozenset({Standing.IDLE, Standing.OPEN, Standing.MOVING})


def kept_because(
    order: Order, payments: Sequence[OrderPayment], payment_id: str, *, is_absent: bool
) -> KeptBecause | None:
    """Why the order stays as it is; None: its confirmation by ``payment_id`` is revoked.

    ``payments`` are in their newest known states; ``is_absent``: payment_service does not know this one at all.
    """
    keeper = next((payment for payment in payments if payment.payment_id == payment_id), None)
    if keeper is None or order.confirmed_by != payment_id:
        return KeptBecause.NOT_CONFIRMED_BY_IT
    if is_absent and keeper.snapshot.version > 0:
        return KeptBecause.LOST_BY_ITS_OWNER
    if derive(order, payments).payment_status is OrderPaymentStatus.REFUNDED:
        return KeptBecause.REFUNDED
    if any(_has_money(payment.snapshot) for payment in payments if payment is not keeper):
        return KeptBecause.OTHER_MONEY
    return None if is_absent else _money_of(keeper.snapshot)


def _has_money(payment: PaymentSnapshot) -> bool:
    """Funds that are held, or were taken and are not on their way back."""
    standing = standing_of(payment)
    return standing is Standing.HELD or (standing is Standing.TAKEN and payment.amount_refundable > 0)


def _money_of(payment: PaymentSnapshot) -> KeptBecause | None:
    standing = standing_of(payment)
    if payment.outcome_unknown or standing in _UNDECIDED:
        return KeptBecause.MONEY_MAY_COME
    is_contested = payment.amount_disputed > 0 or payment.amount_excess > 0
    if standing not in _WITHOUT_MONEY or payment.amount_not_refunded > 0 or is_contested:
        return KeptBecause.MONEY_IS_THERE
    return None


def revoked(order: Order, *, now: datetime) -> Order:
    """The order with the facts of its revocation; ``derive`` says what it is then."""
    return replace(
        order,
        closed_as=OrderStatus.CANCELED,
        reopened_by=None,
        confirmed_by=None,
        revoked_payment=order.confirmed_by,
        revoked_at=now,
    )


def without_its_order(payment: OrderPayment, *, is_absent: bool, now: datetime) -> OrderPayment:
    """The payment that had confirmed the order, as one that buys nothing any more.

    That it was once late money which reopened the order is over: should it turn up captured, it goes back like any
    other. One that payment_service does not know has ended here, still in version 0, so that its owner's word wins
    should it ever speak of it. What is written of its money stays: nothing that was known is wiped out.
    """
    resolution = None if payment.resolution is Resolution.FULFILLED else payment.resolution
    ended = replace(payment.snapshot, status=PaymentStatus.CANCELED, outcome_unknown=False)
    snapshot = ended if is_absent else payment.snapshot
    return replace(payment, snapshot=snapshot, resolution=resolution, updated_at=now)
