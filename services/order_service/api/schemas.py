"""What goes over HTTP. Requests are strict (SEC-60): nothing is coerced, nothing unknown let in, everything bounded."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from services.order_service.domain.models import Customer, OrderPayment, PaymentTerms, Product, ReconcilePolicy
from services.order_service.domain.pricing import RequestedItem
from services.order_service.use_cases.create_order import CreatedOrder, CreateOrder
from services.order_service.use_cases.pay_order import PaySession
from services.order_service.use_cases.ports import OrderView, RefundRecord, invoice_label
from services.order_service.use_cases.stream_tickets import StreamTicket
from shared.contracts.envelope import Rfc3339
from shared.contracts.order_events import AttentionName, OrderPaymentStatusName, OrderStatusName
from shared.contracts.payment_events import OperationStatusName, PaymentStatusName
from shared.money import CURRENCY_EXPONENT, MAX_AMOUNT_MINOR, Money

MAX_ITEMS = 100
MAX_QUANTITY = 1000
MAX_STOCK = 10**9
MAX_METADATA = 20

# Control characters and lone surrogates have no place in names, and PostgreSQL refuses NUL (failure W12).
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_EMAIL = re.compile(
    r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9-]{0,62}\.)+[A-Za-z0-9-]{1,62}[A-Za-z0-9]"
)


def _printable(text: str) -> str:
    if _UNPRINTABLE.search(text):
        raise ValueError("control characters are not allowed")
    return text


def _email(text: str) -> str:
    if not _EMAIL.fullmatch(text) or ".." in text or text.startswith(".") or ".@" in text:
        raise ValueError("not an e-mail address")
    return text


def _known_currency(code: str) -> str:
    if code not in CURRENCY_EXPONENT:
        raise ValueError("not an ISO 4217 currency")
    return code


Line = Annotated[
    str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True), AfterValidator(_printable)
]
ShortLine = Annotated[
    str, StringConstraints(min_length=1, max_length=50, strip_whitespace=True), AfterValidator(_printable)
]
Email = Annotated[str, Field(max_length=254, json_schema_extra={"format": "email"}), AfterValidator(_email)]
Currency = Annotated[str, Field(pattern="^[A-Z]{3}$", description="ISO 4217"), AfterValidator(_known_currency)]
SKU_PATTERN = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
Sku = Annotated[str, Field(pattern=SKU_PATTERN)]
Url = Annotated[str, Field(min_length=1, max_length=2000)]


class StrictRequest(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class MoneyBody(StrictRequest):
    """Integer minor units: 12500 KWD is 12.500 KD. Floats and strings are refused."""

    amount_minor: int = Field(ge=1, le=MAX_AMOUNT_MINOR)
    currency: Currency


class ItemRequest(StrictRequest):
    sku: Sku
    quantity: int = Field(ge=1, le=MAX_QUANTITY)


class CustomerBody(StrictRequest):
    email: Email
    name: Line
    phone: Annotated[str, Field(pattern=r"^\+?[0-9][0-9 ().-]{3,30}$")] | None = None


class AddressBody(StrictRequest):
    name: Line | None = None
    line1: Line
    line2: Line | None = None
    city: Line
    state: Line | None = None
    postal_code: ShortLine | None = None
    country: Annotated[str, Field(pattern="^[A-Z]{2}$", description="ISO 3166-1 alpha-2")]


class OrderRequest(StrictRequest):
    """There is no price in here: the catalogue's counts."""

    items: list[ItemRequest] = Field(min_length=1, max_length=MAX_ITEMS)
    currency: Currency
    customer: CustomerBody
    shipping_address: AddressBody | None = None
    billing_address: AddressBody | None = None
    metadata: dict[ShortLine, Annotated[str, Field(max_length=200), AfterValidator(_printable)]] = Field(
        default_factory=dict, max_length=MAX_METADATA
    )

    def as_command(self, *, customer_subject: str | None) -> CreateOrder:
        return CreateOrder(
            items=tuple(RequestedItem(item.sku, item.quantity) for item in self.items),
            currency=self.currency,
            customer=Customer(self.customer.email, self.customer.name, self.customer.phone),
            customer_subject=customer_subject,
            shipping_address=self.shipping_address.model_dump() if self.shipping_address else None,
            billing_address=self.billing_address.model_dump() if self.billing_address else None,
            metadata=self.metadata,
        )


class PayRequest(StrictRequest):
    gateway: Annotated[str, Field(pattern="^[a-z][a-z0-9_]{1,31}$")]
    success_url: Url
    failure_url: Url
    cancel_url: Url
    capture: Literal["automatic", "manual"] = "automatic"
    method: Annotated[str, Field(pattern="^[a-z][a-z0-9_]{0,31}$")] | None = None

    def as_terms(self) -> PaymentTerms:
        return PaymentTerms(self.success_url, self.failure_url, self.cancel_url, self.capture, self.method)


class ProductRequest(StrictRequest):
    """``stock`` is what lies on the shelf, pieces held for open orders included."""

    name: Line
    description: Annotated[str, Field(max_length=2000), AfterValidator(_printable)] = ""
    image_url: Annotated[str, Field(max_length=500, pattern=r"^(/[^/\\\s]|https://)[^\\\s]*$")] | None = None
    price: MoneyBody
    stock: int = Field(ge=0, le=MAX_STOCK)
    reconcile_policy: Literal["refund", "fulfil"] = "refund"

    def as_product(self, sku: str) -> Product:
        return Product(
            sku=sku,
            name=self.name,
            description=self.description,
            image_url=self.image_url,
            price=Money(self.price.amount_minor, self.price.currency),
            on_hand=self.stock,
            reserved=0,
            reconcile_policy=ReconcilePolicy(self.reconcile_policy),
        )


class MoneyDocument(BaseModel):
    amount_minor: int
    currency: str

    @classmethod
    def of(cls, money: Money) -> MoneyDocument:
        return cls(amount_minor=money.amount_minor, currency=money.currency)


class ProductDocument(BaseModel):
    sku: str
    name: str
    description: str
    image_url: str | None
    price: MoneyDocument
    available_stock: int = Field(description="pieces that can be ordered now")
    stock: int = Field(description="pieces on the shelf, those held for open orders included")
    reconcile_policy: Literal["refund", "fulfil"]
    version: int

    @classmethod
    def of(cls, product: Product) -> ProductDocument:
        return cls(
            sku=product.sku,
            name=product.name,
            description=product.description,
            image_url=product.image_url,
            price=MoneyDocument.of(product.price),
            available_stock=product.available,
            stock=product.on_hand,
            reconcile_policy=product.reconcile_policy.value,
            version=product.version,
        )


class ProductList(BaseModel):
    data: list[ProductDocument]
    next_cursor: str | None


class ItemDocument(BaseModel):
    sku: str
    name: str
    quantity: int
    unit_price: MoneyDocument
    total: MoneyDocument


class RefundDocument(BaseModel):
    refund_id: str
    payment_id: str
    amount: MoneyDocument
    status: OperationStatusName = Field(description="the customer has it, or soon will, when it has succeeded")
    reason: str | None = Field(description="a code, where we decided it: duplicate_payment, late_payment, …")
    created_at: Rfc3339
    updated_at: Rfc3339

    @classmethod
    def of(cls, record: RefundRecord) -> RefundDocument:
        refund = record.refund
        return cls(
            refund_id=refund.refund_id,
            payment_id=refund.payment_id,
            amount=MoneyDocument.of(refund.amount),
            status=refund.status.value,
            # What the back office wrote is its own affair: the customer reads this document.
            reason=refund.reason if refund.origin == "policy" else None,
            created_at=record.created_at,
            updated_at=record.updated_at,
        )


class PaymentDocument(BaseModel):
    """``amount_*`` are minor units of ``amount.currency``."""

    payment_id: str
    gateway: str
    gateway_reference: str | None
    status: PaymentStatusName
    amount: MoneyDocument
    amount_authorized: int
    amount_captured: int
    amount_refund_pending: int
    amount_refunded: int
    amount_disputed: int
    outcome_unknown: bool = Field(description="a call to the gateway is unanswered: we keep asking what it did")
    resolution: Literal["fulfilled", "release_requested", "refund_requested", "refund_failed"] | None = Field(
        description="what was decided where it came late or second: the order was reopened by it, or it goes back; "
        "refund_failed: it did not go back by itself, and a person sees to it"
    )
    refunds: list[RefundDocument]
    created_at: Rfc3339
    updated_at: Rfc3339

    @classmethod
    def of(cls, payment: OrderPayment, refunds: Iterable[RefundRecord]) -> PaymentDocument:
        snapshot = payment.snapshot
        return cls(
            payment_id=snapshot.payment_id,
            gateway=snapshot.gateway,
            gateway_reference=snapshot.gateway_reference,
            status=snapshot.status.value,
            amount=MoneyDocument.of(snapshot.amount),
            amount_authorized=snapshot.amount_authorized,
            amount_captured=snapshot.amount_captured,
            amount_refund_pending=snapshot.amount_refund_pending,
            amount_refunded=snapshot.amount_refunded,
            amount_disputed=snapshot.amount_disputed,
            outcome_unknown=snapshot.outcome_unknown,
            resolution=payment.resolution.value if payment.resolution else None,
            refunds=[RefundDocument.of(each) for each in refunds if each.refund.payment_id == payment.payment_id],
            created_at=payment.created_at,
            updated_at=payment.updated_at,
        )


class CustomerDocument(BaseModel):
    email: str
    name: str
    phone: str | None


class OrderDocument(BaseModel):
    """The order as its customer sees it. ``version`` grows with every change of any part of it."""

    id: str
    status: OrderStatusName
    payment_status: OrderPaymentStatusName
    attention: AttentionName | None
    total: MoneyDocument
    currency: str
    items: list[ItemDocument]
    payments: list[PaymentDocument]
    refunds: list[RefundDocument] = Field(description="of all its payments, oldest first")
    customer: CustomerDocument
    shipping_address: dict[str, Any] | None
    billing_address: dict[str, Any] | None
    metadata: dict[str, str]
    invoice_number: str | None
    expires_at: Rfc3339
    created_at: Rfc3339
    updated_at: Rfc3339
    confirmed_at: Rfc3339 | None
    closed_at: Rfc3339 | None = Field(
        description="when it was canceled or expired; late money may have confirmed it since"
    )
    version: int

    @classmethod
    def of(cls, view: OrderView) -> OrderDocument:
        return cls(**_order_fields(view))


class CreatedOrderDocument(OrderDocument):
    client_secret: str = Field(description="for the X-Order-Secret header; shown this once")

    @classmethod
    def of_created(cls, created: CreatedOrder) -> CreatedOrderDocument:
        return cls(**_order_fields(created.view), client_secret=created.client_secret)


class OrderList(BaseModel):
    data: list[OrderDocument]
    next_cursor: str | None


class PaySessionDocument(BaseModel):
    order_id: str
    payment_id: str
    status: PaymentStatusName
    gateway: str
    gateway_reference: str | None
    next_action: dict[str, Any] | None = Field(description="e.g. {type: redirect, url}: what the browser does next")
    expires_at: str

    @classmethod
    def of(cls, session: PaySession) -> PaySessionDocument:
        return cls.model_validate(session, from_attributes=True)


class StreamTicketDocument(BaseModel):
    ticket: str
    expires_at: Rfc3339

    @classmethod
    def of(cls, ticket: StreamTicket) -> StreamTicketDocument:
        return cls(ticket=ticket.ticket, expires_at=ticket.expires_at)


class MailDocument(BaseModel):
    message_id: str
    sender: str
    recipient: str
    subject: str
    text_body: str
    html_body: str
    attachment_names: list[str]
    sent_at: Rfc3339


class MailList(BaseModel):
    data: list[MailDocument]
    next_cursor: str | None = None


def _order_fields(view: OrderView) -> dict[str, Any]:
    order = view.order
    return {
        "id": order.id,
        "status": order.status.value,
        "payment_status": order.payment_status.value,
        "attention": order.attention.value if order.attention else None,
        "total": MoneyDocument.of(order.total),
        "currency": order.total.currency,
        "items": [
            ItemDocument(
                sku=item.sku,
                name=item.name,
                quantity=item.quantity,
                unit_price=MoneyDocument.of(item.unit_price),
                total=MoneyDocument.of(item.total),
            )
            for item in order.items
        ],
        "payments": [PaymentDocument.of(payment, view.refunds) for payment in view.payments],
        "refunds": [RefundDocument.of(record) for record in view.refunds],
        "customer": CustomerDocument(email=order.customer.email, name=order.customer.name, phone=order.customer.phone),
        "shipping_address": order.shipping_address,
        "billing_address": order.billing_address,
        "metadata": dict(order.metadata),
        "invoice_number": invoice_label(view.invoice_number) if view.invoice_number is not None else None,
        "expires_at": order.expires_at,
        "created_at": order.created_at,
        "updated_at": order.updated_at,
        "confirmed_at": order.confirmed_at,
        "closed_at": order.closed_at,
        "version": order.version,
    }
