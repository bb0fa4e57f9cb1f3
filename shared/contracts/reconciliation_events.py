"""Events that the reconciler publishes."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from shared.contracts.envelope import CurrencyCode, EventData, MinorUnits, Rfc3339


class ReconciliationRunCompleted(EventData):
    """A run has ended. Counts are of payments (sweep), of lines (settlement), or of orders (orders)."""

    TYPE: ClassVar[str] = "reconciliation.run_completed.v1"

    run_id: str
    kind: Literal["sweep", "settlement", "orders"]
    started_at: Rfc3339
    finished_at: Rfc3339
    checked: int = Field(ge=0, description="payments that the gateway was asked about")
    changed: int = Field(ge=0, description="payments of which the sweep learnt before any webhook did")
    failed: int = Field(ge=0, description="payments that could not be asked about; they are asked again")
    cases_opened: int = Field(default=0, ge=0)
    cases_resolved: int = Field(default=0, ge=0)


class CaseEventData(EventData):
    """A case as it is after the change that the event's type names."""

    case_id: str
    kind: Literal["orders", "settlement"]
    scenario: str
    gateway: str | None = None
    order_id: str | None = None
    payment_id: str | None = None
    file_id: str | None = None
    payout_reference: str | None = None
    currency: CurrencyCode | None = None
    expected_minor: MinorUnits | None = Field(default=None, description="what our books say, in minor units")
    actual_minor: MinorUnits | None = Field(default=None, description="what the gateway says")
    difference_minor: MinorUnits | None = Field(default=None, description="actual less expected")
    action: str | None = Field(default=None, description="what the policy does about it; null: a person decides")


class ReconciliationCaseOpened(CaseEventData):
    TYPE: ClassVar[str] = "reconciliation.case_opened.v1"


class ReconciliationCaseResolved(CaseEventData):
    TYPE: ClassVar[str] = "reconciliation.case_resolved.v1"

    resolution: str
    resolved_by: str


CASE_EVENTS: tuple[type[CaseEventData], ...] = (ReconciliationCaseOpened, ReconciliationCaseResolved)
RECONCILIATION_EVENTS: tuple[type[EventData], ...] = (ReconciliationRunCompleted, *CASE_EVENTS)
