"""The JSON of payment_service's API: strict where it comes in, complete where it goes out."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, field_validator

from services.payment_service.domain.models import (
    OPEN,
    Attempt,
    CaptureMode,
    Customer,
    Fact,
    Item,
    Payment,
)
from services.payment_service.gateways.port import Facts
from services.payment_service.use_cases.create_payment import CreatePayment
from shared.contracts.envelope import Rfc3339
from shared.contracts.payment_events import PaymentStatusName
from shared.money import CURRENCY_EXPONENT, MAX_AMOUNT_MINOR, Money

PaymentId = Annotated[str, StringConstraints(pattern=r"^pay_[0-9a-hjkmnp-tv-z]{26}$")]
OrderId = Annotated[str, StringConstraints(pattern=r"^ord_[0-9a-hjkmnp-tv-z]{26}$")]
GatewayName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{1,31}$")]


def _storable(value: str) -> str:
    if "\x00" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError("a character that cannot be stored")
    return value


def _web_address(value: str) -> str:
    if not urlsplit(value).hostname:  # raises ValueError for what is no address at all
        raise ValueError("no host")
    return value


Storable = AfterValidator(_storable)
"""For every text that reaches the database: PostgreSQL takes neither NUL nor a lone surrogate."""

OptionalStorable = AfterValidator(lambda value: value if value is None else _storable(value))

_Text = Annotated[str, StringConstraints(min_length=1, max_length=250, strip_whitespace=True), Storable]
_Url = Annotated[
    str, StringConstraints(max_length=2000, pattern=r"^https?://[^\s]+$"), Storable, AfterValidator(_web_address)
]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class MoneyIn(_Strict):
    amount_minor: Annotated[int, Field(ge=1, le=MAX_AMOUNT_MINOR)]
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]

    @field_validator("currency")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in CURRENCY_EXPONENT:
            raise ValueError("not an ISO 4217 currency")
        return value


class CustomerIn(_Strict):
    email: Annotated[str, StringConstraints(min_length=3, max_length=254, pattern=r"^[^@\s]+@[^@\s]+$"), Storable]
    name: _Text
    phone: Annotated[str, StringConstraints(max_length=40), Storable] | None = None


class ItemIn(_Strict):
    name: _Text
    quantity: Annotated[int, Field(ge=1, le=1_000_000)]
    unit_amount_minor: Annotated[int, Field(ge=0, le=MAX_AMOUNT_MINOR)]


class CreatePaymentIn(_Strict):
    """What order_service asks for. ``payment_id`` is its own choice, so that repeating the call is safe."""

    payment_id: PaymentId
    order_id: OrderId
    gateway: GatewayName
    amount: MoneyIn
    capture: Literal["automatic", "manual"] = "automatic"
    method: Annotated[str, StringConstraints(max_length=40)] | None = None
    description: _Text
    customer: CustomerIn
    items: Annotated[list[ItemIn], Field(max_length=100)] = []
    success_url: _Url
    failure_url: _Url
    cancel_url: _Url
    expires_at: Annotated[datetime, Field(strict=False)]

    @field_validator("expires_at")
    @classmethod
    def _has_zone(cls, value: datetime) -> datetime:
        if value.tzinfo is None:
            raise ValueError("a time needs a zone")
        if not 2000 <= value.year < 2200:
            raise ValueError("not a time of this age")
        return value

    def to_command(self) -> CreatePayment:
        return CreatePayment(
            payment_id=self.payment_id,
            order_id=self.order_id,
            gateway=self.gateway,
            amount=Money(self.amount.amount_minor, self.amount.currency),
            capture=CaptureMode(self.capture),
            description=self.description,
            customer=Customer(self.customer.email, self.customer.name, self.customer.phone),
            items=tuple(Item(item.name, item.quantity, item.unit_amount_minor) for item in self.items),
            success_url=self.success_url,
            failure_url=self.failure_url,
            cancel_url=self.cancel_url,
            expires_at=self.expires_at,
        )


class ClosePaymentIn(_Strict):
    reason: Annotated[str, StringConstraints(pattern=r"^[a-z_]{1,40}$")] = "closed"


class MoneyOut(BaseModel):
    amount_minor: int
    currency: str


class NextActionOut(BaseModel):
    type: Literal["redirect", "form_post"]
    url: str
    fields: dict[str, str] | None = None


class AttemptOut(BaseModel):
    id: str
    status: str
    reference: str = Field(description="our reference at the gateway")
    gateway_reference: str | None
    expires_at: Rfc3339


class FactOut(BaseModel):
    """One thing that was learnt about the payment, and from where."""

    kind: str
    source: str
    object_reference: str
    amount: MoneyOut | None
    reason: str | None
    occurred_at: Rfc3339 | None
    received_at: Rfc3339


class PaymentOut(BaseModel):
    """A payment. The ``amount_*`` totals are minor units of ``amount.currency``."""

    payment_id: str
    order_id: str
    status: PaymentStatusName
    is_final: bool = Field(description="the gateway is not expected to say anything new")
    gateway: str
    gateway_reference: str | None
    next_action: NextActionOut | None = Field(description="what the browser has to do while the session is open")
    amount: MoneyOut
    capture: Literal["automatic", "manual"]
    amount_authorized: int
    amount_captured: int
    amount_refund_pending: int
    amount_refunded: int
    amount_disputed: int
    failure_code: str | None
    conflict: str | None = Field(description="why the payment is conflicted")
    duplicate_of: str | None = Field(description="the payment of the same order that succeeded first")
    version: int
    attempts: list[AttemptOut]
    expires_at: Rfc3339
    created_at: Rfc3339
    updated_at: Rfc3339

    @classmethod
    def of(cls, payment: Payment, attempt: Attempt | None) -> PaymentOut:
        state = payment.state
        action = attempt.next_action if attempt is not None and payment.status in OPEN else None
        return cls(
            payment_id=payment.payment_id,
            order_id=payment.order_id,
            status=state.status.value,
            is_final=state.is_final,
            gateway=payment.gateway,
            gateway_reference=payment.gateway_reference,
            next_action=NextActionOut.model_validate(action.to_json()) if action else None,
            amount=MoneyOut(amount_minor=payment.amount.amount_minor, currency=payment.amount.currency),
            capture=payment.terms.capture.value,
            amount_authorized=state.amount_authorized,
            amount_captured=state.amount_captured,
            amount_refund_pending=state.amount_refund_pending,
            amount_refunded=state.amount_refunded,
            amount_disputed=state.amount_disputed,
            failure_code=state.failure_code,
            conflict=state.conflict,
            duplicate_of=payment.duplicate_of,
            version=payment.version,
            attempts=[_attempt_out(attempt)] if attempt else [],
            expires_at=payment.expires_at,
            created_at=payment.created_at,
            updated_at=payment.updated_at,
        )


class SyncedPaymentOut(PaymentOut):
    changed: bool = Field(description="whether the gateway said something that changed the payment")


class PaymentDetailsOut(PaymentOut):
    facts: list[FactOut]


class PaymentPage(BaseModel):
    data: list[PaymentOut]
    next_cursor: str | None


class GatewayOut(BaseModel):
    name: str
    display_name: str
    enabled: bool
    capabilities: list[str]
    currencies: list[str] | None = Field(description="null: any ISO 4217 currency")

    @classmethod
    def of(cls, facts: Facts) -> GatewayOut:
        return cls(
            name=facts.name,
            display_name=facts.display_name,
            enabled=True,
            capabilities=sorted(capability.value for capability in facts.capabilities),
            currencies=sorted(facts.currencies) if facts.currencies is not None else None,
        )


class GatewayList(BaseModel):
    data: list[GatewayOut]


def fact_out(fact: Fact) -> FactOut:
    observation = fact.observation
    amount = observation.amount
    return FactOut(
        kind=observation.kind.value,
        source=fact.source.value,
        object_reference=observation.object_reference,
        amount=MoneyOut(amount_minor=amount.amount_minor, currency=amount.currency) if amount else None,
        reason=observation.reason,
        occurred_at=observation.occurred_at,
        received_at=fact.received_at,
    )


def _attempt_out(attempt: Attempt) -> AttemptOut:
    return AttemptOut(
        id=attempt.attempt_id,
        status=attempt.status.value,
        reference=attempt.reference,
        gateway_reference=attempt.gateway_reference,
        expires_at=attempt.session_expires_at,
    )


def dump(model: BaseModel) -> dict[str, Any]:
    return model.model_dump(mode="json")
