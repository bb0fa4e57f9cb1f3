"""What the use cases need from outside, as Protocols: db/, clients/ and the tests' fakes satisfy them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from services.order_service.domain.models import (
    Attention,
    LineItem,
    Order,
    OrderPayment,
    OrderPaymentStatus,
    OrderStatus,
    PaymentSnapshot,
    PaymentStatus,
    PaymentTerms,
    Product,
    Refund,
    ReservationStatus,
    Resolution,
)
from shared.errors import ServiceUnavailable
from shared.money import Money
from shared.unit_of_work import TransactionPort


@dataclass(frozen=True, slots=True)
class InvoiceRecord:
    number: int
    order_id: str
    snapshot: Mapping[str, Any]
    issued_at: datetime

    @property
    def label(self) -> str:
        return invoice_label(self.number)


def invoice_label(number: int) -> str:
    return f"INV-{number:06d}"


ORDER_PAID = "order_paid"
REFUND_SUCCEEDED = "refund_succeeded"


@dataclass(frozen=True, slots=True)
class NotificationKey:
    """One mail. ``reference`` is what it is about where the order alone does not say it: a refund's id."""

    order_id: str
    kind: str
    reference: str = ""


@dataclass(frozen=True, slots=True)
class DueNotification:
    key: NotificationKey
    attempts: int


@dataclass(frozen=True, slots=True)
class OrderFilter:
    """Which orders to list, newest first. ``before_id`` is the cursor: ids sort by creation."""

    customer_subject: str | None = None
    customer_email: str | None = None
    status: str | None = None
    payment_status: str | None = None
    attention: str | None = None
    before_id: str | None = None
    limit: int = 20


@dataclass(frozen=True, slots=True)
class ExportedPaymentRow:
    """A payment as its order knows it."""

    payment_id: str
    status: PaymentStatus
    version: int
    amount_captured: int
    amount_refunded: int
    resolution: Resolution | None


@dataclass(frozen=True, slots=True)
class ExportedRow:
    """An order and its payments as the export shows them, all of one moment; nothing about the customer."""

    order_id: str
    status: OrderStatus
    payment_status: OrderPaymentStatus
    attention: Attention | None
    total: Money
    confirmed_by: str | None
    version: int
    created_at: datetime
    updated_at: datetime
    payments: tuple[ExportedPaymentRow, ...]


class Products(Protocol):
    async def list_for_sale(self, *, after_sku: str | None, limit: int) -> list[Product]: ...
    async def find_for_sale(self, sku: str) -> Product | None: ...
    async def lock(self, skus: Sequence[str]) -> dict[str, Product]:
        """Products for sale among ``skus``, their rows locked in the order of their SKUs (so nobody deadlocks)."""
        ...

    async def put(self, product: Product, *, now: datetime) -> Product: ...
    async def retire(self, sku: str, *, now: datetime) -> bool: ...
    async def hold(self, order_id: str, items: Sequence[LineItem], *, now: datetime) -> None: ...
    async def end_reservations(self, order_id: str, as_: ReservationStatus, *, now: datetime) -> int:
        """Deduct or release what the order still holds; each reservation ends once. Returns how many ended now."""
        ...

    async def hold_again(self, order_id: str, *, now: datetime) -> int:
        """Reserve anew what was released; the caller holds the products' locks and has compared what is left."""
        ...

    async def restore(self, order_id: str, *, now: datetime) -> int:
        """Put what was sold back on the shelf, once. Returns how many reservations that ended."""
        ...


class Orders(Protocol):
    async def add(self, order: Order) -> None: ...
    async def find(self, order_id: str) -> Order | None: ...
    async def versions_of(self, order_ids: Sequence[str]) -> dict[str, int]: ...
    async def get_for_update(self, order_id: str) -> Order | None: ...
    async def save(self, order: Order) -> None: ...
    async def search(self, criteria: OrderFilter) -> list[Order]: ...
    async def count_open_of(self, email: str) -> int:
        """How many orders this e-mail holds open; others of the same e-mail wait until this transaction ends."""
        ...

    async def claim_due(self, *, now: datetime, next_attempt_at: datetime, limit: int) -> list[str]:
        """Open orders past their expiry, put off until ``next_attempt_at`` so that no other sweeper takes them."""
        ...

    async def postpone_expiry(self, order_id: str, *, next_attempt_at: datetime, attempts: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Leftover:
    """A payment that can still be paid although its order has ended. ``attempts`` counts this one."""

    payment: OrderPayment
    attempts: int


class Export(Protocol):
    async def orders(
        self, *, since: datetime | None, before: datetime | None, after: tuple[datetime, str] | None, limit: int
    ) -> list[ExportedRow]:
        """Orders in the order of ``updated_at`` and id, from ``since`` on, before ``before``, behind ``after``."""
        ...


class OrderPayments(Protocol):
    async def of_order(self, order_id: str) -> list[OrderPayment]: ...
    async def of_orders(self, order_ids: Sequence[str]) -> dict[str, list[OrderPayment]]: ...
    async def add(self, payment: OrderPayment) -> None: ...
    async def save(self, payment: OrderPayment) -> None: ...
    async def mark_leftovers(self, order_id: str, *, now: datetime) -> int:
        """Have the order's payments that can still be paid closed; those that are marked already keep their turn."""
        ...

    async def claim_leftovers(self, *, now: datetime, next_attempt_at: datetime, limit: int) -> list[Leftover]:
        """Marked payments whose turn it is, put off until ``next_attempt_at`` so that nobody else takes them."""
        ...

    async def close_later(self, payment_id: str, *, at: datetime) -> None: ...
    async def still_there(self, *, now: datetime, limit: int) -> list[OrderPayment]:
        """Payments that were asked back, whose money is there and not on its way, and whose wait is over."""
        ...


@dataclass(frozen=True, slots=True)
class RefundRecord:
    """A refund as the order's document shows it."""

    refund: Refund
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class OrderView:
    """An order with what belongs to its document, all of one moment."""

    order: Order
    payments: tuple[OrderPayment, ...]
    refunds: tuple[RefundRecord, ...]
    invoice_number: int | None


class Pictures(Protocol):
    async def find(self, order_id: str) -> OrderView | None: ...


class Refunds(Protocol):
    async def find(self, refund_id: str) -> Refund | None: ...
    async def put(self, refund: Refund, *, now: datetime) -> None: ...
    async def of_orders(self, order_ids: Sequence[str]) -> dict[str, list[RefundRecord]]:
        """Oldest first."""
        ...


class Invoices(Protocol):
    async def issue(self, order_id: str, snapshot: Mapping[str, Any], *, now: datetime) -> int:
        """The next number of the series. Its counter's lock is held until the commit, so no number is ever left out."""
        ...

    async def find(self, order_id: str) -> InvoiceRecord | None: ...
    async def numbers_of(self, order_ids: Sequence[str]) -> dict[str, int]: ...


class Notifications(Protocol):
    async def add(self, order_id: str, kind: str, *, now: datetime, reference: str = "") -> None:
        """Once for each order, kind and reference, whoever asks again."""
        ...

    async def claim_due(self, *, now: datetime, lease_until: datetime, limit: int) -> list[DueNotification]:
        """Each counts as an attempt from here on."""
        ...

    async def release(self, due: DueNotification, *, next_attempt_at: datetime) -> None:
        """Give back what was claimed, as if it had not been; nothing, if somebody else has claimed it since."""
        ...

    async def mark_sent(self, key: NotificationKey, *, now: datetime) -> None: ...
    async def mark_failed(
        self, key: NotificationKey, *, next_attempt_at: datetime, error: str, given_up_at: datetime | None
    ) -> None: ...


class StreamTickets(Protocol):
    async def add(self, digest: bytes, order_id: str, *, expires_at: datetime) -> None: ...
    async def redeem(self, digest: bytes, order_id: str, *, now: datetime) -> bool:
        """True once, for this order, before the ticket's time is up."""
        ...


class OrderTransaction(TransactionPort, Protocol):
    """One open transaction with this service's repositories."""

    @property
    def products(self) -> Products: ...
    @property
    def orders(self) -> Orders: ...
    @property
    def payments(self) -> OrderPayments: ...
    @property
    def refunds(self) -> Refunds: ...
    @property
    def invoices(self) -> Invoices: ...
    @property
    def notifications(self) -> Notifications: ...
    @property
    def pictures(self) -> Pictures: ...
    @property
    def tickets(self) -> StreamTickets: ...
    @property
    def export(self) -> Export: ...


UnitOfWorkFactory = Callable[[], AbstractAsyncContextManager[OrderTransaction]]


@dataclass(frozen=True, slots=True)
class PaymentRequest:
    """What payment_service is asked to open. The same ``payment_id`` always carries the same request."""

    payment_id: str
    order_id: str
    gateway: str
    amount: Money
    terms: PaymentTerms
    description: str
    customer_email: str
    customer_name: str
    customer_phone: str | None
    items: tuple[LineItem, ...]
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class OpenedPayment:
    snapshot: PaymentSnapshot
    next_action: Mapping[str, Any] | None
    expires_at: str | None


class PaymentsClient(Protocol):
    """payment_service. Every call may be repeated with the same ``payment_id``.

    Raises GatewayUnavailable, GatewayOutcomeUnknown, GatewayRejected, PaymentRefused or ServiceUnavailable.
    """

    async def open(self, request: PaymentRequest) -> OpenedPayment: ...

    async def close(self, payment_id: str, *, reason: str) -> PaymentSnapshot | None:
        """Close the session at the gateway, or learn what became of it. None: payment_service knows no such payment."""
        ...

    async def find(self, payment_id: str) -> PaymentSnapshot | None:
        """What payment_service knows now, without asking a gateway. None: it knows no such payment."""
        ...


@dataclass(frozen=True, slots=True)
class Attachment:
    name: str
    content_type: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Mail:
    """``message_id`` is the same at every attempt, so that a repeated delivery can be recognised."""

    message_id: str
    recipient: str
    recipient_name: str
    subject: str
    text_body: str
    html_body: str
    sent_at: datetime
    attachments: tuple[Attachment, ...] = ()


class MailNotSent(Exception):
    """The mail could not be handed over. ``permanent`` means that this recipient will never take it."""

    def __init__(self, reason: str, *, permanent: bool = False):
        super().__init__(reason)
        self.permanent = permanent


class Mailer(Protocol):
    async def send(self, mail: Mail) -> None:
        """Raises MailNotSent."""
        ...


class InvoiceNotDrawnInTime(ServiceUnavailable):
    """This invoice takes too long to draw just now. Try again shortly."""


class InvoiceRenderer(Protocol):
    async def as_pdf(self, record: InvoiceRecord) -> bytes:
        """Raises InvoiceNotDrawnInTime; ServiceUnavailable: nothing could be drawn, whichever invoice it is."""
        ...

    def as_html(self, record: InvoiceRecord) -> str: ...
