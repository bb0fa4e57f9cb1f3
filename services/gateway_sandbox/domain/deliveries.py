"""Webhook deliveries: what is sent, and how long the sandbox waits before it tries again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

# Fast at first, so that a developer sees a retry happen; then as slow as the gateways are.
_WAITS_SECONDS = (1, 2, 5, 15, 60, 300, 900, 3600, 3 * 3600, 6 * 3600)
_GIVE_UP_AFTER = timedelta(days=3)


class DeliveryState(StrEnum):
    PENDING = "pending"
    DELIVERED = "delivered"
    ABANDONED = "abandoned"
    LOST = "lost"


@dataclass(slots=True)
class Delivery:
    """One event on its way to one URL. ``body`` is the exact text that was signed and sent, whatever happens later."""

    gateway: str
    event_id: str
    event_type: str
    gateway_reference: str
    body: str
    created_at: datetime
    next_try_at: datetime
    state: DeliveryState = DeliveryState.PENDING
    held: bool = False
    tries: int = 0
    delivered_at: datetime | None = None
    last_status: int | None = None
    last_error: str | None = None
    number: int = 0


def next_try_at(delivery: Delivery, now: datetime, wait_multiplier: float) -> datetime | None:
    """When to try a delivery again that has just failed; None when the gateway would give up."""
    wait = _WAITS_SECONDS[min(delivery.tries, len(_WAITS_SECONDS)) - 1]
    moment = now + timedelta(seconds=wait * wait_multiplier)
    return moment if moment - delivery.created_at <= _GIVE_UP_AFTER else None
