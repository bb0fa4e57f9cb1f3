"""Captures, voids, refunds and completions: what we ask a gateway to do with money, each a row of its own.

Reserve, call, record (design.md §4): the row is committed before the gateway is called and holds its amount until proof
frees it. ``status`` is derived from the row's call and the payment's facts, in ``transitions.operation_status`` and
nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from shared.money import Money


class OperationKind(StrEnum):
    CAPTURE = "capture"
    VOID = "void"
    REFUND = "refund"
    COMPLETION = "completion"
    """Take the money of a session that the shopper has approved, where approval alone moves nothing (PayPal)."""


class OperationStatus(StrEnum):
    PENDING = "pending"
    """Reserved; not sent yet, or its call is under way."""
    SUBMITTED = "submitted"
    """The gateway has taken it on and will say later what came of it."""
    UNKNOWN = "unknown"
    """Sent and not answered: it may have run. The reservation and the key stay."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    """Never sent, and given up: nothing can have run. Or imported, and found to be a refund of ours."""
    REVERSED = "reversed"
    """It had succeeded, and the gateway took it back."""


UNSETTLED = frozenset({OperationStatus.PENDING, OperationStatus.SUBMITTED, OperationStatus.UNKNOWN})
"""These keep their reservation."""


class CallState(StrEnum):
    """How far our own call has come; what the gateway did is in the facts."""

    UNSENT = "unsent"
    SENT = "sent"
    """Committed before the first byte leaves: from here on it may have run."""
    UNANSWERED = "unanswered"
    ANSWERED = "answered"
    WITHDRAWN = "withdrawn"
    """Never sent, and not to be sent any more."""


class Origin(StrEnum):
    API = "api"
    POLICY = "policy"
    """We decided it ourselves: late money, a duplicate, an authorization that runs out, an approved session."""
    GATEWAY = "gateway"
    """Done at the gateway without us (its dashboard), and imported."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One capture, void, refund or completion. ``amount`` is what it reserves."""

    operation_id: str
    payment_id: str
    kind: OperationKind
    reference: str
    """Ours, at the gateway: 20 letters and digits, echoed where the gateway can."""
    amount: Money
    origin: Origin
    actor: str
    """Who asked: a token's subject, or a policy's name. Never a person's name or address."""
    created_at: datetime
    updated_at: datetime
    target: str | None = None
    """The gateway's object that it takes from: the authorization, the captured payment, the session."""
    is_whole: bool = False
    """The amount is all that the target still had when it was reserved."""
    is_final: bool = False
    """A capture after which the rest of the hold is released."""
    reason: str | None = None
    merchant_reference: str | None = None
    """The caller's own reference, unique per payment and kind."""
    request_key: str | None = None
    """What makes it the same request for ever: a digest of the caller and its Idempotency-Key, or a policy's name."""
    status: OperationStatus = OperationStatus.PENDING
    call: CallState = CallState.UNSENT
    key_number: int = 1
    """Which idempotency key the call carries; a new one only on proof that nothing ran under the old."""
    calls: int = 0
    """How often it was sent and may have arrived, under its present key."""
    looks: int = 0
    """How often it was looked at or tried without an answer; the waits grow by it."""
    first_sent_at: datetime | None = None
    last_sent_at: datetime | None = None
    next_look_at: datetime | None = None
    """When the runner has something to do with it; None when there is nothing."""
    gateway_reference: str | None = None
    failure_code: str | None = None
    settled_at: datetime | None = None
    escalated_at: datetime | None = None
    """When a person was called, because the gateway's horizon has passed without an answer."""

    @property
    def idempotency_key(self) -> str:
        """The same for every repetition: derived from the operation, not from the request that led to it."""
        return self.reference if self.key_number == 1 else f"{self.reference}-{self.key_number}"

    @property
    def is_unsettled(self) -> bool:
        return self.status in UNSETTLED


class DisputeStatus(StrEnum):
    OPEN = "open"
    WON = "won"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Dispute:
    """A shopper's bank, or the gateway, wants money back. Counted against the refund budget until it is won."""

    dispute_id: str
    payment_id: str
    gateway_reference: str
    amount: Money
    status: DisputeStatus
    reason: str | None
    opened_at: datetime
    closed_at: datetime | None = None
