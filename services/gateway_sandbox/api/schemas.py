"""The control API's bodies."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from services.gateway_sandbox.domain.deliveries import Delivery
from services.gateway_sandbox.domain.faults import Fault, FaultKind
from services.gateway_sandbox.domain.models import Outcome
from services.gateway_sandbox.use_cases.control import BooksView, EntryWithOperations

OperationName = Literal[
    "create_session", "retrieve", "expire_session", "capture", "void", "refund", "list", "webhook", "*"
]
_PARAMETERS = ("seconds", "status", "after_work", "retry_after", "copies", "amount_minor")


class OutcomeBody(BaseModel):
    """``late``: let a payment succeed although its session has failed, expired or was canceled."""

    model_config = ConfigDict(extra="forbid")
    outcome: Outcome
    late: bool = False


class FaultBody(BaseModel):
    """``count``: how many calls it hits, null for every call until the list is replaced."""

    model_config = ConfigDict(extra="forbid")
    operation: OperationName
    kind: FaultKind
    count: int | None = Field(1, ge=1, le=1_000_000)
    seconds: float | None = Field(None, ge=0, le=86_400, description="delay, timeout_*, late, reorder (default 60)")
    status: int | None = Field(None, ge=500, le=599, description="error_5xx (default 500)")
    after_work: bool | None = Field(None, description="error_5xx: do the work first (default false)")
    retry_after: int | None = Field(None, ge=0, le=86_400, description="rate_limit, seconds (default 1)")
    copies: int | None = Field(None, ge=1, le=1000, description="duplicate: extra deliveries (default 1)")
    amount_minor: int | None = Field(None, ge=1, description="wrong_amount: what to show (default: 100 more)")

    def to_fault(self) -> Fault:
        params = {name: value for name in _PARAMETERS if (value := getattr(self, name)) is not None}
        return Fault(self.operation, self.kind, self.count, params)


class OperationView(BaseModel):
    model_config = ConfigDict(extra="allow")
    operation: str
    at: datetime
    amount_minor: int | None
    idempotency_key: str | None


class PaymentView(BaseModel):
    gateway_reference: str
    payment_reference: str | None
    reference: str | None
    order_id: str | None
    amount_minor: int
    currency: str
    status: str
    capture: str
    captured_minor: int
    refunded_minor: int
    created_at: datetime
    expires_at: datetime
    metadata: dict[str, str]
    operations: list[OperationView]

    @classmethod
    def of(cls, found: EntryWithOperations) -> PaymentView:
        entry = found.entry
        operations = [
            OperationView(
                **operation.details,
                operation=operation.operation,
                at=operation.at,
                amount_minor=operation.amount_minor,
                idempotency_key=operation.idempotency_key,
            )
            for operation in found.operations
        ]
        return cls(
            gateway_reference=entry.gateway_reference,
            payment_reference=entry.payment_reference,
            reference=entry.reference,
            order_id=entry.order_id,
            amount_minor=entry.amount_minor,
            currency=entry.currency,
            status=entry.status,
            capture=entry.capture,
            captured_minor=entry.captured_minor,
            refunded_minor=entry.refunded_minor,
            created_at=entry.created_at,
            expires_at=entry.expires_at,
            metadata=entry.metadata,
            operations=operations,
        )


class WebhookView(BaseModel):
    event_id: str
    type: str
    gateway_reference: str
    state: str
    tries: int
    created_at: datetime
    next_try_at: datetime | None
    delivered_at: datetime | None
    last_status: int | None
    last_error: str | None

    @classmethod
    def of(cls, delivery: Delivery) -> WebhookView:
        return cls(
            event_id=delivery.event_id,
            type=delivery.event_type,
            gateway_reference=delivery.gateway_reference,
            state=delivery.state,
            tries=delivery.tries,
            created_at=delivery.created_at,
            next_try_at=delivery.next_try_at if delivery.state == "pending" else None,
            delivered_at=delivery.delivered_at,
            last_status=delivery.last_status,
            last_error=delivery.last_error,
        )


class BooksBody(BaseModel):
    payments: list[PaymentView]
    webhooks: list[WebhookView]

    @classmethod
    def of(cls, view: BooksView) -> BooksBody:
        return cls(
            payments=[PaymentView.of(payment) for payment in view.payments],
            webhooks=[WebhookView.of(delivery) for delivery in view.deliveries],
        )


def fault_view(fault: Fault) -> dict[str, Any]:
    return {"operation": fault.operation, "kind": fault.kind, "remaining": fault.remaining, **fault.params}
