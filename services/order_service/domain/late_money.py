"""What becomes of money that its order did not wait for: the second payment, and the one that came too late.

Only this service can decide it, because only it knows which payment confirmed the order (failures PY4, PY7, PY8, O4,
O6). The decision is pure. It is made once for a payment, under the order's lock, and kept with the payment, so that the
same success heard by webhook, sweep and settlement leads to one command (failure RF18).

| The order is | the payment has | then |
|---|---|---|
| open | anything | nothing: any of its payments may still be the one |
| confirmed by another payment | captured money | refund, `duplicate_payment` |
| confirmed by another payment | held funds | release, `duplicate_payment` |
| confirmed, and its own payment was taken back by the gateway | anything | nothing: a person looks |
| canceled or expired | all its money captured, products say `fulfil`, stock suffices | the order is reopened by it |
| canceled or expired | captured money otherwise | refund, `order_canceled` or `late_payment` |
| canceled or expired | held funds of an automatic capture, and it could be fulfilled | nothing: the capture comes |
| canceled or expired | held funds otherwise | release, `order_canceled` or `late_payment` |
| any | an amount or currency that is not the order's (conflicted) | nothing: a person looks |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from services.order_service.domain.models import (
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


@dataclass(frozen=True, slots=True)
class Decision:
    payment_id: str
    resolution: Resolution
    reason: Reason

    @property
    def command_key(self) -> str:
        """The same for ever. Funds that were to be released and were captured all the same are a second matter."""
        key = f"{self.payment_id}:{self.reason}"
        return f"{key}:release" if self.resolution is Resolution.RELEASE_REQUESTED else key


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
    return is_closed and any(_is_open_question(payment, order) for payment in payments)


def decide(
    order: Order, payments: Sequence[OrderPayment], *, confirmed_by: str | None, fulfillable: bool
) -> tuple[Decision, ...]:
    """What is to be done now about the payments that the order does not keep. Deciding again gives nothing new."""
    if confirmed_by is None and order.closed_as is None:
        return ()
    if confirmed_by is not None and not _keeps_its_money(confirmed_by, payments):
        return ()
    decisions: list[Decision] = []
    for payment in sorted(payments, key=lambda payment: payment.payment_id):
        if payment.payment_id == confirmed_by or not _is_open_question(payment, order):
            continue
        if confirmed_by is None and fulfillable and _is_all_there(payment):
            confirmed_by = payment.payment_id
            decisions.append(Decision(payment.payment_id, Resolution.FULFILLED, "late_payment"))
        elif confirmed_by is None and fulfillable and _will_be_captured(payment):
            continue
        else:
            resolution = _giving_back(payment.snapshot)
            assert resolution is not None, "there is no question about it otherwise"
            decisions.append(Decision(payment.payment_id, resolution, _reason(order, confirmed_by)))
    return tuple(decisions)


def _reason(order: Order, confirmed_by: str | None) -> Reason:
    if confirmed_by is not None:
        return "duplicate_payment"
    return "order_canceled" if order.closed_as is OrderStatus.CANCELED else "late_payment"


def _is_open_question(payment: OrderPayment, order: Order) -> bool:
    """It has money for this order, and nothing was decided about it (or it was released and captured all the same)."""
    if not is_for(payment.snapshot, order) or payment.snapshot.amount_excess > 0:
        return False
    wanted = _giving_back(payment.snapshot)
    if payment.resolution is Resolution.RELEASE_REQUESTED:
        return wanted is Resolution.REFUND_REQUESTED
    return wanted is not None and payment.resolution is None


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
