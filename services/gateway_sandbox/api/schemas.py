"""The control API's bodies."""

from __future__ import annotations

from base64 import b64encode
from datetime import datetime
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from services.gateway_sandbox.domain.deliveries import Delivery
from services.gateway_sandbox.domain.faults import Fault, FaultKind
from services.gateway_sandbox.domain.models import (
    BookCapture,
    BookDispute,
    BookRefund,
    CaptureStatus,
    DisputeStatus,
    Operation,
    Outcome,
    RefundStatus,
)
from services.gateway_sandbox.gateways.port import Payout, SettlementFile, SettlementLine
from services.gateway_sandbox.use_cases.control import BooksView, EntryWithRecords
from services.gateway_sandbox.use_cases.sow_settlement import SettlementFault, Sow, Sown
from services.gateway_sandbox.use_cases.write_settlement import Settlement

OperationName = Literal[
    "create_session",
    "retrieve",
    "expire_session",
    "complete",
    "capture",
    "void",
    "refund",
    "list",
    "token",
    "webhook",
    "*",
]
_PARAMETERS = ("seconds", "status", "after_work", "retry_after", "copies", "amount_minor", "currency", "code", "every")


class OutcomeBody(BaseModel):
    """``late``: let a payment succeed although its session has failed, expired or was canceled."""

    model_config = ConfigDict(extra="forbid")
    outcome: Outcome
    late: bool = False


class HoldBody(BaseModel):
    model_config = ConfigDict(extra="forbid")
    expire: Literal[True]


class AmountBody(BaseModel):
    """Without an amount: all that is left."""

    model_config = ConfigDict(extra="forbid")
    amount_minor: int | None = Field(None, ge=1)


class CaptureStatusBody(BaseModel):
    model_config = ConfigDict(extra="forbid")
    status: Literal["succeeded", "failed"]


class RefundStatusBody(BaseModel):
    model_config = ConfigDict(extra="forbid")
    status: Literal["succeeded", "failed", "reversed"]


class DisputeBody(AmountBody):
    """``reason`` in the gateway's own words; without one its usual."""

    reason: str | None = Field(None, min_length=1, max_length=100)


class DisputeStatusBody(BaseModel):
    model_config = ConfigDict(extra="forbid")
    status: Literal["won", "lost"]


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
    currency: str | None = Field(None, pattern="^[A-Z]{3}$", description="wrong_amount: the currency to show")
    code: str | None = Field(None, max_length=100, description="reject: the gateway's code (default: its usual one)")
    every: int | None = Field(None, ge=2, le=1_000_000, description="hit each n-th call only, counted from the first")

    def to_fault(self) -> Fault:
        params = {name: value for name in _PARAMETERS if (value := getattr(self, name)) is not None}
        return Fault(self.operation, self.kind, self.count, params)


class OperationView(BaseModel):
    model_config = ConfigDict(extra="allow")
    operation: str
    at: datetime
    amount_minor: int | None
    idempotency_key: str | None

    @classmethod
    def of(cls, operation: Operation) -> OperationView:
        return cls(
            **operation.details,
            operation=operation.operation,
            at=operation.at,
            amount_minor=operation.amount_minor,
            idempotency_key=operation.idempotency_key,
        )


class CaptureView(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    capture_id: str
    reference: str | None
    amount_minor: int
    status: CaptureStatus
    is_final: bool
    created_at: datetime
    idempotency_key: str | None

    @classmethod
    def of(cls, capture: BookCapture) -> CaptureView:
        return cls.model_validate(capture)


class RefundView(BaseModel):
    """``reference`` and ``idempotency_key`` are those of the call that made it; a dashboard's refund has none."""

    model_config = ConfigDict(from_attributes=True)
    refund_id: str
    reference: str | None
    amount_minor: int
    status: RefundStatus
    reason: str | None
    created_at: datetime
    idempotency_key: str | None

    @classmethod
    def of(cls, refund: BookRefund) -> RefundView:
        return cls.model_validate(refund)


class DisputeView(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    dispute_id: str
    amount_minor: int
    status: DisputeStatus
    reason: str
    created_at: datetime
    closed_at: datetime | None

    @classmethod
    def of(cls, dispute: BookDispute) -> DisputeView:
        return cls.model_validate(dispute)


class PaymentView(BaseModel):
    """``captured_minor`` and ``refunded_minor`` count what is pending too."""

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
    hold_expires_at: datetime | None
    metadata: dict[str, str]
    operations: list[OperationView]
    captures: list[CaptureView]
    refunds: list[RefundView]
    disputes: list[DisputeView]

    @classmethod
    def of(cls, found: EntryWithRecords) -> PaymentView:
        entry = found.entry
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
            hold_expires_at=entry.hold_expires_at,
            metadata=entry.metadata,
            operations=[OperationView.of(operation) for operation in found.operations],
            captures=[CaptureView.of(capture) for capture in found.captures],
            refunds=[RefundView.of(refund) for refund in found.refunds],
            disputes=[DisputeView.of(dispute) for dispute in found.disputes],
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


class SowBody(BaseModel):
    """``line``: the n-th that the fault can hit (where another fault has hit it, the next); for ``payout_off`` the n-th
    payout."""

    model_config = ConfigDict(extra="forbid")
    fault: SettlementFault
    line: int = Field(0, ge=0)
    by_minor: int | None = Field(None, ge=1, description="wrong_amount, payout_off (default 1), fee_changed (7)")

    def to_sow(self) -> Sow:
        return Sow(self.fault, self.line, self.by_minor)


class SettlementBody(BaseModel):
    model_config = ConfigDict(extra="forbid")
    since: AwareDatetime
    until: AwareDatetime
    sow: list[SowBody] = Field([], max_length=1000)


class FileView(BaseModel):
    name: str
    content_type: str
    content: str
    """Base64."""

    @classmethod
    def of(cls, file: SettlementFile) -> FileView:
        return cls(name=file.name, content_type=file.content_type, content=b64encode(file.body).decode())


class PayoutView(BaseModel):
    payout_reference: str
    currency: str
    amount_minor: int

    @classmethod
    def of(cls, payout: Payout) -> PayoutView:
        return cls(payout_reference=payout.reference, currency=payout.currency, amount_minor=payout.amount_minor)


class SownView(BaseModel):
    """``difference_minor``: what the gateway says more than its books."""

    model_config = ConfigDict(from_attributes=True)
    fault: SettlementFault
    kind: str
    object_id: str | None
    gateway_reference: str | None
    reference: str | None
    currency: str
    difference_minor: int | None

    @classmethod
    def of(cls, sown: Sown) -> SownView:
        return cls.model_validate(sown)


class SettlementView(FileView):
    payout_statement: FileView
    payouts: list[PayoutView]
    sown: list[SownView]

    @classmethod
    def of_settlement(cls, made: Settlement) -> SettlementView:
        return cls(
            **FileView.of(made.file).model_dump(),
            payout_statement=FileView.of(made.statement),
            payouts=[PayoutView.of(payout) for payout in made.payouts],
            sown=[SownView.of(sown) for sown in made.sown],
        )


class MovementView(BaseModel):
    """``amount_minor`` and ``net_minor``: negative for what went back to buyers."""

    kind: str
    object_id: str
    parent_id: str | None
    gateway_reference: str
    reference: str | None
    amount_minor: int
    fee_minor: int
    tax_minor: int
    net_minor: int
    currency: str
    at: datetime

    @classmethod
    def of(cls, line: SettlementLine) -> MovementView:
        return cls(
            kind=line.kind,
            object_id=line.object_id,
            parent_id=line.parent_id,
            gateway_reference=line.entry.gateway_reference,
            reference=line.reference,
            amount_minor=line.gross_minor,
            fee_minor=line.fee_minor,
            tax_minor=line.tax_minor,
            net_minor=line.net_minor,
            currency=line.entry.currency,
            at=line.at,
        )
