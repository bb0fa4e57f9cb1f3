"""A circuit breaker per gateway and operation class, as a pure state machine."""

from __future__ import annotations

from enum import StrEnum


class OperationClass(StrEnum):
    SESSION = "session"
    """Opening and closing hosted pages: what checkout needs."""
    READ = "read"
    MONEY = "money"
    """Captures, voids, refunds, completions."""


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
