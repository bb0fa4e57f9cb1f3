"""The JSON of captures, voids, refunds and disputes."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, StringConstraints

from services.payment_service.api.fields import MoneyIn, MoneyOut, Storable, Strict
from services.payment_service.domain.operations import Dispute, Operation, OperationStatus
from shared.contracts.envelope import Rfc3339
from shared.contracts.payment_events import OperationStatusName

Reference = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:/-]{0,63}$")]
Reason = Annotated[str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True), Storable]


class CaptureIn(Strict):
    amount: MoneyIn | None = Field(None, description="all that is held, when left out")
    final: bool | None = Field(None, description="release what is then left; where a gateway captures once, always so")
    reference: Reference | None = Field(None, description="yours, unique among the payment's captures")


class VoidIn(Strict):
    reason: Reason | None = None


class RefundIn(Strict):
    amount: MoneyIn | None = Field(None, description="all that is left, when left out")
    reason: Reason = Field(description="why, for the books and the gateway")
    reference: Reference | None = Field(None, description="yours, unique among the payment's refunds")
    override: bool = Field(False, description="refund although a dispute is open")


class _OperationOut(BaseModel):
    id: str
    payment_id: str
    status: OperationStatusName
    outcome_known: bool = Field(description="false while a call was sent and not answered")
    amount: MoneyOut
    reason: str | None
    reference: str | None = Field(description="the merchant's")
    gateway_reference: str | None
    failure_code: str | None
    origin: Literal["api", "policy", "gateway"]
    actor: str = Field(description="who asked for it: a token's subject, a policy, or the gateway")
    created_at: Rfc3339
    updated_at: Rfc3339
    settled_at: Rfc3339 | None

    @classmethod
    def of(cls, operation: Operation) -> Self:
        return cls(
            id=operation.operation_id,
            payment_id=operation.payment_id,
            status=operation.status.value,
            outcome_known=operation.status is not OperationStatus.UNKNOWN,
            amount=MoneyOut.of(operation.amount),
            reason=operation.reason,
            reference=operation.merchant_reference,
            gateway_reference=operation.gateway_reference,
            failure_code=operation.failure_code,
            origin=operation.origin.value,
            actor=operation.actor,
            created_at=operation.created_at,
            updated_at=operation.updated_at,
            settled_at=operation.settled_at,
            **cls._more(operation),
        )

    @classmethod
    def _more(cls, _operation: Operation) -> dict[str, bool]:
        return {}


class CaptureOut(_OperationOut):
    """A capture: who, when, how much."""

    final: bool = Field(description="the rest of the hold is released with it")

    @classmethod
    def _more(cls, operation: Operation) -> dict[str, bool]:
        return {"final": operation.is_final}


class VoidOut(_OperationOut):
    """The release of held money; ``amount`` is what was held."""


class RefundOut(_OperationOut):
    """A refund, whoever made it."""


class DisputeOut(BaseModel):
    id: str
    status: Literal["open", "won", "lost"]
    amount: MoneyOut
    reason: str | None
    gateway_reference: str
    opened_at: Rfc3339
    closed_at: Rfc3339 | None

    @classmethod
    def of(cls, dispute: Dispute) -> DisputeOut:
        return cls(
            id=dispute.dispute_id,
            status=dispute.status.value,
            amount=MoneyOut.of(dispute.amount),
            reason=dispute.reason,
            gateway_reference=dispute.gateway_reference,
            opened_at=dispute.opened_at,
            closed_at=dispute.closed_at,
        )


class RefundPage(BaseModel):
    data: list[RefundOut]


class CapturePage(BaseModel):
    data: list[CaptureOut]
