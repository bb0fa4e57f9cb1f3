"""Orders, their lines, their payments as this service knows them, and stock. Pure values: no I/O, no clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from shared.money import Money


class OrderStatus(StrEnum):
    OPEN = "open"
    CONFIRMED = "confirmed"
    CANCELED = "canceled"
    EXPIRED = "expired"


class OrderPaymentStatus(StrEnum):
    UNPAID = "unpaid"
    PENDING = "pending"
    AUTHORIZED = "authorized"
    PAID = "paid"
    FAILED = "failed"
    PARTIALLY_REFUNDED = "partially_refunded"
    REFUNDED = "refunded"
    DISPUTED = "disputed"


class Attention(StrEnum):
    AMOUNT_MISMATCH = "amount_mismatch"
    LATE_PAYMENT = "late_payment"
    DUPLICATE_PAYMENT = "duplicate_payment"
    UNKNOWN_OUTCOME = "unknown_outcome"
    ORPHAN_PAYMENT = "orphan_payment"


class PaymentStatus(StrEnum):
    """The payment service's statuses: its events carry them and this service only reads them."""

    CREATED = "created"
    REQUIRES_ACTION = "requires_action"
    PROCESSING = "processing"
    AUTHORIZED = "authorized"
    PARTIALLY_CAPTURED = "partially_captured"
    CAPTURED = "captured"
    FAILED = "failed"
    CANCELED = "canceled"
    EXPIRED = "expired"
    CONFLICTED = "conflicted"


class ReservationStatus(StrEnum):
    """A reservation ends once: by the sale or by going back to the shelf. What was sold goes back once more, when all
    of its money has (failure O7). Only an order that late money reopens is reserved again."""

    RESERVED = "reserved"
    DEDUCTED = "deducted"
    RELEASED = "released"
    RESTORED = "restored"


class ReconcilePolicy(StrEnum):
    """What late money buys: the goods, where there is stock, or a refund."""

    REFUND = "refund"
    FULFIL = "fulfil"


class Resolution(StrEnum):
    """What was decided about money that its order did not wait for. It is kept with the payment."""

    FULFILLED = "fulfilled"
    """It came late, and its order was reopened and confirmed by it."""
    RELEASE_REQUESTED = "release_requested"
    """payment_service was told to let the held funds go."""
    REFUND_REQUESTED = "refund_requested"
    """payment_service was told to give back what it took."""
    REFUND_FAILED = "refund_failed"
    """It was told several times, and the money is still there: a person has to give it back."""


class RefundStatus(StrEnum):
    """The payment service's statuses of a refund."""

    PENDING = "pending"
    SUBMITTED = "submitted"
    UNKNOWN = "unknown"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    REVERSED = "reversed"


@dataclass(frozen=True, slots=True)
class Product:
    sku: str
    name: str
    description: str
    image_url: str | None
    price: Money
    on_hand: int
    reserved: int
    reconcile_policy: ReconcilePolicy
    version: int = 1

    @property
    def available(self) -> int:
        """What can still be ordered. The database keeps ``0 <= reserved <= on_hand``."""
        return self.on_hand - self.reserved


@dataclass(frozen=True, slots=True)
class LineItem:
    """One line with the name and price of the moment of ordering: later changes do not touch it (failure O8)."""

    sku: str
    name: str
    quantity: int
    unit_price: Money

    @property
    def total(self) -> Money:
        return self.unit_price * self.quantity


@dataclass(frozen=True, slots=True)
class Customer:
    email: str
    name: str
    phone: str | None = None


@dataclass(frozen=True, slots=True)
class PaymentSnapshot:
    """A payment's whole state at one of its versions, from an event or from an answer of the payment service."""

    payment_id: str
    order_id: str
    gateway: str
    status: PaymentStatus
    version: int
    amount: Money
    gateway_reference: str | None = None
    amount_authorized: int = 0
    amount_captured: int = 0
    amount_refund_pending: int = 0
    amount_refunded: int = 0
    amount_disputed: int = 0
    amount_excess: int = 0
    """What refunds and disputes take beyond what was captured: a person has to look."""
    outcome_unknown: bool = False
    """A call to the gateway was not answered and nobody has found out yet what it did."""

    @property
    def amount_not_refunded(self) -> int:
        """What was taken and has not gone back yet."""
        return self.amount_captured - self.amount_refunded

    @property
    def amount_refundable(self) -> int:
        """What nobody has asked back yet."""
        return max(0, self.amount_not_refunded - self.amount_refund_pending - self.amount_disputed)


@dataclass(frozen=True, slots=True)
class Refund:
    """A refund's newest state. ``version`` is that of its payment when the refund was so."""

    refund_id: str
    payment_id: str
    order_id: str
    amount: Money
    status: RefundStatus
    version: int
    reason: str | None = None
    origin: str = "api"


@dataclass(frozen=True, slots=True)
class PaymentTerms:
    """What the caller chose when the payment was opened. Repeating the call sends the same terms again, because the
    payment service refuses one payment id with two bodies."""

    success_url: str
    failure_url: str
    cancel_url: str
    capture: str = "automatic"
    method: str | None = None


@dataclass(frozen=True, slots=True)
class AskedBack:
    """How often payment_service was told to give back a payment's money, and what comes of it if it does not."""

    number: int
    """Of the last command. It grows for ever, because a command's key means the same command for ever."""
    attempt: int
    """Which try it was to get this money back; it starts again when the payment takes more."""
    amount_captured: int
    """What the payment had taken by then."""
    again_at: datetime
    """When the next step is due if the money is still there."""


@dataclass(frozen=True, slots=True)
class OrderPayment:
    """One payment of an order: its newest known state. Version 0 is ours alone: the payment service has not spoken."""

    snapshot: PaymentSnapshot
    terms: PaymentTerms | None
    created_at: datetime
    updated_at: datetime
    resolution: Resolution | None = None
    asked: AskedBack | None = None

    @property
    def payment_id(self) -> str:
        return self.snapshot.payment_id

    @property
    def status(self) -> PaymentStatus:
        return self.snapshot.status

    @property
    def gateway(self) -> str:
        return self.snapshot.gateway


@dataclass(frozen=True, slots=True)
class Order:
    """``status``, ``payment_status`` and ``attention`` are written by ``transitions.derive`` and nowhere else;
    ``closed_as``, ``reopened_by``, ``confirmed_by`` and ``revoked_payment`` are the facts that it reads. A reopened
    order stays one that was closed: ``closed_as`` says how, ``reopened_by`` which late payment it was confirmed by
    after all. A revoked one is canceled for good: ``revoked_payment`` says which payment had confirmed it without being
    there, and neither that payment nor another buys it any more."""

    id: str
    total: Money
    items: tuple[LineItem, ...]
    customer: Customer
    customer_subject: str | None
    secret_digest: bytes
    expires_at: datetime
    created_at: datetime
    updated_at: datetime
    shipping_address: Mapping[str, Any] | None = None
    billing_address: Mapping[str, Any] | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    closed_as: OrderStatus | None = None
    reopened_by: str | None = None
    confirmed_by: str | None = None
    status: OrderStatus = OrderStatus.OPEN
    payment_status: OrderPaymentStatus = OrderPaymentStatus.UNPAID
    attention: Attention | None = None
    confirmed_at: datetime | None = None
    closed_at: datetime | None = None
    refunded_at: datetime | None = None
    """When all that had confirmed it had gone back for the first time: its stock went back then, and does so once."""
    revoked_payment: str | None = None
    revoked_at: datetime | None = None
    version: int = 1
    expiry_attempts: int = 0
