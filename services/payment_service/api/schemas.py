"""The JSON of payment_service's API: strict where it comes in, complete where it goes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StringConstraints, field_validator

from services.payment_service.api.fields import GatewayName, MoneyIn, MoneyOut, Storable, Strict, Text, Url
from services.payment_service.api.money_schemas import CaptureOut, DisputeOut, RefundOut, VoidOut
from services.payment_service.domain.breaker import BreakerState, OperationClass
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
from services.payment_service.use_cases.breakers import BreakerHealth
from services.payment_service.use_cases.create_payment import CreatePayment
from services.payment_service.use_cases.list_at_gateway import ListedPage, ListedPayment
from shared.contracts.envelope import Rfc3339
from shared.contracts.payment_events import PaymentStatusName
from shared.money import MAX_AMOUNT_MINOR, Money

PaymentId = Annotated[str, StringConstraints(pattern=r"^pay_[0-9a-hjkmnp-tv-z]{26}$")]
OrderId = Annotated[str, StringConstraints(pattern=r"^ord_[0-9a-hjkmnp-tv-z]{26}$")]


class CustomerIn(Strict):
    email: Annotated[str, StringConstraints(min_length=3, max_length=254, pattern=r"^[^@\s]+@[^@\s]+$"), Storable]
    name: Text
    phone: Annotated[str, StringConstraints(max_length=40), Storable] | None = None


class ItemIn(Strict):
    name: Text
    quantity: Annotated[int, Field(ge=1, le=1_000_000)]
    unit_amount_minor: Annotated[int, Field(ge=0, le=MAX_AMOUNT_MINOR)]


class CreatePaymentIn(Strict):
    """What order_service asks for. ``payment_id`` is its own choice, so that repeating the call is safe."""

    payment_id: PaymentId
    order_id: OrderId
    gateway: GatewayName
    amount: MoneyIn
    capture: Literal["automatic", "manual"] = "automatic"
    method: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,39}$")] | None = None
    description: Text
    customer: CustomerIn
    items: list[ItemIn] = Field(default_factory=list, max_length=100)
    success_url: Url
    failure_url: Url
    cancel_url: Url
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
            amount=self.amount.to_money(),
            capture=CaptureMode(self.capture),
            method=self.method,
            description=self.description,
            customer=Customer(self.customer.email, self.customer.name, self.customer.phone),
            items=tuple(Item(item.name, item.quantity, item.unit_amount_minor) for item in self.items),
            success_url=self.success_url,
            failure_url=self.failure_url,
            cancel_url=self.cancel_url,
            expires_at=self.expires_at,
        )


class ClosePaymentIn(Strict):
    reason: Annotated[str, StringConstraints(pattern=r"^[a-z_]{1,40}$")] = "closed"


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
    account: str | None = Field(description="which of our accounts at the gateway, where there are several")
    gateway_reference: str | None
    next_action: NextActionOut | None = Field(description="what the browser has to do while the session is open")
    amount: MoneyOut
    capture: Literal["automatic", "manual"]
    amount_authorized: int = Field(description="held, what was captured of it included")
    amount_capture_pending: int
    amount_captured: int
    amount_refund_pending: int
    amount_refunded: int
    amount_disputed: int = Field(description="open and lost disputes")
    amount_dispute_lost: int = Field(description="the lost part of amount_disputed")
    amount_excess: int = Field(description="what refunds and disputes take beyond what was captured")
    amount_capturable: int = Field(description="what a new capture may take")
    amount_refundable: int = Field(description="what a new refund may take")
    method: str | None = Field(description="how the shopper pays, where the caller chose it")
    outcome_unknown: bool = Field(description="a call to the gateway is unanswered: money may have moved")
    capture_before: Rfc3339 | None = Field(description="when the hold ends")
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
            account=payment.account,
            gateway_reference=payment.gateway_reference,
            next_action=NextActionOut.model_validate(action.to_json()) if action else None,
            amount=MoneyOut(amount_minor=payment.amount.amount_minor, currency=payment.amount.currency),
            capture=payment.terms.capture.value,
            amount_authorized=state.amount_authorized,
            amount_capture_pending=state.amount_capture_pending,
            amount_captured=state.amount_captured,
            amount_refund_pending=state.amount_refund_pending,
            amount_refunded=state.amount_refunded,
            amount_disputed=state.amount_disputed,
            amount_dispute_lost=state.amount_dispute_lost,
            amount_excess=state.amount_excess,
            amount_capturable=state.amount_capturable,
            amount_refundable=state.amount_refundable,
            method=payment.method,
            outcome_unknown=payment.outcome_unknown,
            capture_before=payment.capture_before,
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
    captures: list[CaptureOut]
    voids: list[VoidOut]
    refunds: list[RefundOut]
    disputes: list[DisputeOut]


class PaymentPage(BaseModel):
    data: list[PaymentOut]
    next_cursor: str | None


class BreakerOut(BaseModel):
    """The circuit breaker of one class of operations: ``half_open`` when the next call, or a running one, decides."""

    state: Literal["closed", "open", "half_open"]
    retry_after_seconds: int | None = Field(description="until it is tried again, while open")
    reason: str | None = Field(description="why it opened")


class BreakersOut(BaseModel):
    session: BreakerOut = Field(description="opening and closing hosted pages")
    read: BreakerOut = Field(description="asking about payments")
    money: BreakerOut = Field(description="captures, voids, refunds, completions")


class GatewayOut(BaseModel):
    name: str
    display_name: str
    blurb: str = Field(description="one line for the shopper")
    enabled: bool
    available: bool = Field(description="whether to offer it at checkout: its session breaker is not open")
    capabilities: list[str]
    currencies: list[str] | None = Field(description="null: any ISO 4217 currency")
    breakers: BreakersOut

    @classmethod
    def of(cls, accounts: Sequence[Facts], health: Mapping[OperationClass, BreakerHealth]) -> GatewayOut:
        """Of several accounts at one gateway: what any of them takes."""
        facts = accounts[0]
        named = [each.currencies for each in accounts if each.currencies is not None]
        takes_all = len(named) < len(accounts)
        return cls(
            name=facts.name,
            display_name=facts.display_name,
            blurb=facts.blurb,
            enabled=True,
            available=health[OperationClass.SESSION].state is not BreakerState.OPEN,
            capabilities=sorted(capability.value for capability in facts.capabilities),
            currencies=None if takes_all else sorted(frozenset().union(*named)),
            breakers=BreakersOut.model_validate({each.value: asdict(state) for each, state in health.items()}),
        )


class GatewayList(BaseModel):
    data: list[GatewayOut]


class ObservationOut(BaseModel):
    kind: str
    object_reference: str
    amount: MoneyOut | None


class ListedOut(BaseModel):
    """A payment as its gateway lists it."""

    payment_id: str | None = Field(description="ours; null: the gateway has it and we do not")
    references: list[str] = Field(description="the gateway's ids")
    our_references: list[str] = Field(description="what it echoes of ours")
    created_at: Rfc3339 | None
    observations: list[ObservationOut]


class ListedPageOut(BaseModel):
    data: list[ListedOut]
    next_cursor: str | None

    @classmethod
    def of(cls, page: ListedPage) -> ListedPageOut:
        return cls(data=[_listed_out(each) for each in page.entries], next_cursor=page.next_cursor)


def _listed_out(entry: ListedPayment) -> ListedOut:
    listed = entry.listed
    return ListedOut(
        payment_id=entry.payment_id,
        references=list(listed.references),
        our_references=list(listed.our_references),
        created_at=listed.created_at,
        observations=[
            ObservationOut(kind=each.kind.value, object_reference=each.object_reference, amount=_money_out(each.amount))
            for each in listed.observations
        ],
    )


def _money_out(amount: Money | None) -> MoneyOut | None:
    return MoneyOut(amount_minor=amount.amount_minor, currency=amount.currency) if amount else None


def fact_out(fact: Fact) -> FactOut:
    observation = fact.observation
    return FactOut(
        kind=observation.kind.value,
        source=fact.source.value,
        object_reference=observation.object_reference,
        amount=_money_out(observation.amount),
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
