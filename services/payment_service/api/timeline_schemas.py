"""The JSON of a payment's timeline."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from services.payment_service.api.fields import MoneyOut
from services.payment_service.domain.timeline import EntryKind, TimelineEntry
from services.payment_service.use_cases.read_timeline import PaymentTimeline
from shared.contracts.envelope import Rfc3339
from shared.contracts.payment_events import PaymentStatusName


class TimelineEntryOut(BaseModel):
    """One thing that happened, or that was learnt."""

    at: Rfc3339
    kind: EntryKind
    summary: str
    source: str | None = Field(description="where it comes from: webhook, sweep, api, policy, a gateway's name")
    actor: str | None = Field(description="who did it: a token's subject, or a policy's name")
    reference: str | None = Field(description="the gateway's or our id of what it is about")
    amount: MoneyOut | None
    request_id: str | None
    details: dict[str, Any] = Field(description="codes and ids")

    @classmethod
    def of(cls, entry: TimelineEntry) -> TimelineEntryOut:
        amount = entry.amount
        return cls(
            at=entry.at,
            kind=entry.kind,
            summary=entry.summary,
            source=entry.source,
            actor=entry.actor,
            reference=entry.reference,
            amount=MoneyOut(amount_minor=amount.amount_minor, currency=amount.currency) if amount else None,
            request_id=entry.request_id,
            details=entry.details,
        )


class TimelineOut(BaseModel):
    payment_id: str
    order_id: str
    status: PaymentStatusName
    version: int
    verdict: str = Field(description="where the payment stands and why, in one sentence for an operator")
    is_complete: bool = Field(description="false where only the newest entries are shown")
    data: list[TimelineEntryOut] = Field(description="in time order, the oldest first")

    @classmethod
    def of(cls, timeline: PaymentTimeline) -> TimelineOut:
        payment = timeline.payment
        return cls(
            payment_id=payment.payment_id,
            order_id=payment.order_id,
            status=payment.status.value,
            version=payment.version,
            verdict=timeline.verdict,
            is_complete=timeline.is_complete,
            data=[TimelineEntryOut.of(entry) for entry in timeline.entries],
        )
