"""Events that the reconciler publishes."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from shared.contracts.envelope import EventData, Rfc3339


class ReconciliationRunCompleted(EventData):
    """A run has ended. Counts are of payments."""

    TYPE: ClassVar[str] = "reconciliation.run_completed.v1"

    run_id: str
    kind: Literal["sweep", "settlement", "orders"]
    started_at: Rfc3339
    finished_at: Rfc3339
    checked: int = Field(ge=0, description="payments that the gateway was asked about")
    changed: int = Field(ge=0, description="payments of which the sweep learnt before any webhook did")
    failed: int = Field(ge=0, description="payments that could not be asked about; they are asked again")


RECONCILIATION_EVENTS: tuple[type[EventData], ...] = (ReconciliationRunCompleted,)
