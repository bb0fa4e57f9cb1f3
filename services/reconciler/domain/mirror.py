"""What the owners say about payments and orders: pulled from their exports, newest version wins, never from events.

An event can be lost; these are read from the owners' tables, so a lost event shows as a difference between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from services.reconciler.domain.models import Standing
from services.reconciler.domain.schedule import PaymentStatus
from shared.money import Money


class MovementKind(StrEnum):
    """Money that moved at the gateway, as payment_service knows it."""

    SALE = "sale"
    REFUND = "refund"
    CHARGEBACK = "chargeback"


@dataclass(frozen=True, slots=True)
class Movement:
    """One capture, refund or chargeback that succeeded. Amounts are positive."""

    kind: MovementKind
    reference: str
    """The gateway's object."""
    our_reference: str | None
    amount: Money
    occurred_at: datetime
    is_withheld: bool = False
    """A chargeback that is not decided yet: whether the gateway holds its money back meanwhile is the gateway's."""


@dataclass(frozen=True, slots=True)
class KnownPayment:
    payment_id: str
    order_id: str
    gateway: str
    account: str
    """'' is the account without a name."""
    status: PaymentStatus
    version: int
    amount: Money
    standing: Standing
    amount_excess: int
    conflict: str | None
    duplicate_of: str | None
    unknown_since: datetime | None
    """When the oldest call that is still unanswered was sent."""
    created_at: datetime
    updated_at: datetime
    references: tuple[str, ...]
    """Every id by which the gateway, or we at the gateway, know it."""
    movements: tuple[Movement, ...]
    gateway_reference: str | None = None
    """The gateway's id of the session or payment, as payment_service shows it."""


@dataclass(frozen=True, slots=True)
class KnownOrderPayment:
    """A payment as its order knows it."""

    payment_id: str
    status: PaymentStatus
    version: int
    amount_captured: int
    amount_refunded: int
    resolution: str | None


@dataclass(frozen=True, slots=True)
class KnownOrder:
    order_id: str
    status: str
    """open, confirmed, canceled or expired."""
    payment_status: str
    attention: str | None
    total: Money
    confirmed_by: str | None
    version: int
    created_at: datetime
    updated_at: datetime
    payments: tuple[KnownOrderPayment, ...]
