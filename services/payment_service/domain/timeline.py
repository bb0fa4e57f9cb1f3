"""A payment's timeline: what happened, in time order, and what it comes to in one sentence."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from shared.money import Money


class EntryKind(StrEnum):
    REQUEST = "request"
    """Somebody called our API about this payment."""
    GATEWAY_CALL = "gateway_call"
    """We called the gateway: what for, and how it ended. Never a body."""
    FACT = "fact"
    """Something was learnt, and from where."""
    STATUS = "status"
    """The payment's status changed."""
    OPERATION = "operation"
    """A capture, void, refund or completion changed its status."""
    DISPUTE = "dispute"
    EVENT = "event"
    """An event was published with the change."""
    DECISION = "decision"
    """A policy or a person decided something: an automatic refund, an escalation, an override."""


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """``details`` holds codes and ids only: no personal data, no bodies, no secrets."""

    kind: EntryKind
    at: datetime
    summary: str
    source: str | None = None
    actor: str | None = None
    reference: str | None = None
    amount: Money | None = None
    request_id: str | None = None
    details: dict[str, Any] = field(default_factory=dict)
