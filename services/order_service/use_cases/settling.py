"""What is passed along while an order settles."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cause:
    """Why an order changes, for its events."""

    payment_id: str | None = None
    reason: str | None = None
    causation_id: str | None = None
