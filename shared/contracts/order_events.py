"""Events that order_service publishes."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from shared.contracts.envelope import CurrencyCode, EventData, MinorUnits

OrderStatusName = Literal["open", "confirmed", "canceled", "expired"]
OrderPaymentStatusName = Literal[
    "unpaid", "pending", "authorized", "paid", "failed", "partially_refunded", "refunded", "disputed"
]
AttentionName = Literal["amount_mismatch", "late_payment", "duplicate_payment", "unknown_outcome", "orphan_payment"]


class OrderEventData(EventData):
    """The order as it is after the change that the event's type names. ``total`` is minor units of ``currency``."""

    order_id: str
    status: OrderStatusName
    payment_status: OrderPaymentStatusName
    attention: AttentionName | None = None
    version: int = Field(ge=1)
    total: MinorUnits
    currency: CurrencyCode
    payment_id: str | None = Field(default=None, description="the payment that led to this change")
    reason: str | None = None


class OrderCreated(OrderEventData):
    TYPE: ClassVar[str] = "order.created.v1"


class OrderPaid(OrderEventData):
    """The order is paid and its stock deducted: fulfil it."""

    TYPE: ClassVar[str] = "order.paid.v1"


class OrderCanceled(OrderEventData):
    TYPE: ClassVar[str] = "order.canceled.v1"


class OrderExpired(OrderEventData):
    TYPE: ClassVar[str] = "order.expired.v1"


class OrderRefunded(OrderEventData):
    """All that was paid for the order has gone back; its stock is on the shelf again."""

    TYPE: ClassVar[str] = "order.refunded.v1"


class OrderAttentionRequired(OrderEventData):
    """Something about this order wants a person or a policy: ``attention`` says what."""

    TYPE: ClassVar[str] = "order.attention_required.v1"


ORDER_EVENTS: tuple[type[OrderEventData], ...] = (
    OrderCreated,
    OrderPaid,
    OrderCanceled,
    OrderExpired,
    OrderRefunded,
    OrderAttentionRequired,
)
