"""Payments, attempts and facts: pure Python, no I/O, no clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from shared.money import Money


class PaymentStatus(StrEnum):
    CREATED = "created"
    REQUIRES_ACTION = "requires_action"
    PROCESSING = "processing"
    AUTHORIZED = "authorized"
    PARTIALLY_CAPTURED = "partially_captured"
    CAPTURED = "captured"
    FAILED = "failed"
    CANCELED = "canceled"
    EXPIRED = "expired"
    CONFLICTED = "conflicted"


ENDED_WITHOUT_MONEY = frozenset({PaymentStatus.FAILED, PaymentStatus.CANCELED, PaymentStatus.EXPIRED})
"""No money moved, as far as is known. Late success is still accepted: money wins (design.md §4)."""

WITH_MONEY = frozenset(
    {PaymentStatus.AUTHORIZED, PaymentStatus.PARTIALLY_CAPTURED, PaymentStatus.CAPTURED, PaymentStatus.CONFLICTED}
)

OPEN = frozenset({PaymentStatus.CREATED, PaymentStatus.REQUIRES_ACTION, PaymentStatus.PROCESSING})
"""The gateway may still say either; the sweep asks about these (and about authorized ones)."""

HOLDING = frozenset({PaymentStatus.AUTHORIZED, PaymentStatus.PARTIALLY_CAPTURED})
"""Funds may still be held for us: final only when all of them were captured."""


class CaptureMode(StrEnum):
    AUTOMATIC = "automatic"
    MANUAL = "manual"


class FactKind(StrEnum):
    """What somebody claims to have happened at the gateway."""

    SESSION_OPENED = "session_opened"
    PROCESSING = "processing"
    DECLINED = "declined"
    """One try by the shopper was declined; the session is still open."""
    APPROVED = "approved"
    """The shopper has agreed at a gateway where that alone moves nothing: we have to complete the payment."""
    AUTHORIZED = "authorized"
    CAPTURED = "captured"
    CAPTURE_REVERSED = "capture_reversed"
    """The gateway took captured money back without a refund of ours."""
    RELEASED = "released"
    """What is still held on this object, beyond what was captured, was given back."""
    FAILED = "failed"
    CANCELED = "canceled"
    EXPIRED = "expired"
    REFUND_PENDING = "refund_pending"
    REFUND_SUCCEEDED = "refund_succeeded"
    REFUND_FAILED = "refund_failed"
    REFUND_REVERSED = "refund_reversed"
    """The gateway had confirmed the refund and took it back: the money is with us again."""
    DISPUTE_OPENED = "dispute_opened"
    DISPUTE_WON = "dispute_won"
    DISPUTE_LOST = "dispute_lost"
    OPERATION_PENDING = "operation_pending"
    """The gateway has taken on a capture, void or completion of ours and will say later what came of it."""
    OPERATION_SUCCEEDED = "operation_succeeded"
    OPERATION_FAILED = "operation_failed"
    OPERATION_REFUSED = "operation_refused"
    """A call of ours was refused, or proved never to have run: by this answer nothing moved. A success learnt
    otherwise outweighs it."""


class FactSource(StrEnum):
    API = "api"
    WEBHOOK = "webhook"
    RETURN = "return"
    SWEEP = "sweep"
    OPERATOR = "operator"
    RESOLVER = "resolver"
    """We asked about an operation whose call was not answered."""


_REASON_COUNTS = frozenset(
    {
        FactKind.DECLINED,
        FactKind.FAILED,
        FactKind.APPROVED,
        FactKind.REFUND_FAILED,
        FactKind.REFUND_REVERSED,
        FactKind.DISPUTE_OPENED,
        FactKind.DISPUTE_WON,
        FactKind.DISPUTE_LOST,
        FactKind.OPERATION_FAILED,
        FactKind.OPERATION_REFUSED,
    }
)


@dataclass(frozen=True, slots=True)
class Observation:
    """What a gateway says, translated: the content of a fact.

    ``object_reference`` is the gateway's object that it is about (session, intent, refund, dispute). ``amount`` is
    cumulative for that object where the gateway counts that way (Stripe's ``amount_received``), so the largest one is
    the true one. ``about`` is the captured object that a refund or dispute takes from. ``operation`` is our operation's
    reference, where the gateway echoes it. ``capture_before`` comes with AUTHORIZED where the gateway names the moment.
    """

    kind: FactKind
    object_reference: str
    amount: Money | None = None
    occurred_at: datetime | None = None
    reason: str | None = None
    about: str | None = None
    operation: str | None = None
    capture_before: datetime | None = None

    @property
    def natural_key(self) -> str:
        """The same fact learnt twice, from any source, has the same key, and is stored once (failure W2)."""
        amount = f"{self.amount.amount_minor}:{self.amount.currency}" if self.amount else "-"
        key = f"{self.kind}:{self.object_reference}:{amount}"
        # Everything that the reducer reads is in the key, or the first of two would win and the order would matter.
        if self.kind in _REASON_COUNTS:
            key = f"{key}:{self.reason or '-'}"
        if self.capture_before is not None:  # a hold that was renewed is the same object with the same amount
            key = f"{key}:until:{self.capture_before.astimezone(UTC):%Y%m%dT%H%M%S}"
        return f"{key}:{self.about or '-'}:{self.operation or '-'}" if self.about or self.operation else key


@dataclass(frozen=True, slots=True)
class Fact:
    observation: Observation
    source: FactSource
    received_at: datetime


@dataclass(frozen=True, slots=True)
class Terms:
    """What was agreed: the order's amount, and how it is to be taken. ``tolerance_minor`` is 0 unless a setting says
    so."""

    amount: Money
    capture: CaptureMode
    tolerance_minor: int = 0


@dataclass(frozen=True, slots=True)
class PaymentState:
    """What the set of facts amounts to. Totals are minor units of the payment's currency."""

    status: PaymentStatus = PaymentStatus.CREATED
    amount_authorized: int = 0
    """Held for us, what was captured of it included."""
    amount_capture_pending: int = 0
    amount_captured: int = 0
    amount_refund_pending: int = 0
    amount_refunded: int = 0
    amount_disputed: int = 0
    """Open and lost disputes: what cannot be refunded."""
    amount_dispute_lost: int = 0
    """The lost part of ``amount_disputed``."""
    amount_excess: int = 0
    """What refunds and disputes take beyond what was captured, as the gateway tells it: a person has to look."""
    has_unknown_operation: bool = False
    failure_code: str | None = None
    conflict: str | None = None

    @property
    def amount_capturable(self) -> int:
        """What a new capture may still take."""
        return max(0, self.amount_authorized - self.amount_captured - self.amount_capture_pending)

    @property
    def amount_refundable(self) -> int:
        """What a new refund may still take."""
        taken = self.amount_refunded + self.amount_refund_pending + self.amount_disputed
        return max(0, self.amount_captured - taken)

    @property
    def is_final(self) -> bool:
        """The gateway is not expected to say anything new. A conflicted payment waits for a person."""
        if self.status in HOLDING:
            return self.amount_authorized > 0 and self.amount_authorized == self.amount_captured
        return self.status not in OPEN


class AttemptStatus(StrEnum):
    CREATED = "created"
    SENDING = "sending"
    OPEN = "open"
    UNKNOWN = "unknown"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class NextAction:
    """What the browser has to do: go to ``url``, or post ``fields`` to it."""

    type: str
    url: str
    fields: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {"type": self.type, "url": self.url} | ({"fields": self.fields} if self.type == "form_post" else {})


@dataclass(frozen=True, slots=True)
class Attempt:
    """One operation sent to one gateway. A retry reuses its key; a new operation is a new attempt."""

    attempt_id: str
    payment_id: str
    reference: str
    """Ours, at the gateway: 20 letters and digits."""
    idempotency_key: str
    status: AttemptStatus
    session_expires_at: datetime
    """What we ask the gateway for; fixed with the attempt, because a retry must be the same request byte for byte."""
    created_at: datetime
    gateway_reference: str | None = None
    next_action: NextAction | None = None
    lease_token: str | None = None


@dataclass(frozen=True, slots=True)
class Item:
    name: str
    quantity: int
    unit_amount_minor: int


@dataclass(frozen=True, slots=True)
class Customer:
    email: str
    name: str
    phone: str | None = None


@dataclass(frozen=True, slots=True)
class Payment:
    """One amount collected for one order through one gateway."""

    payment_id: str
    order_id: str
    gateway: str
    terms: Terms
    state: PaymentState
    version: int
    description: str
    customer: Customer
    items: tuple[Item, ...]
    success_url: str
    failure_url: str
    cancel_url: str
    request_digest: bytes
    created_at: datetime
    updated_at: datetime
    expires_at: datetime
    account: str | None = None
    """Which of our accounts at the gateway; None where we have one, or for the one without a name."""
    method: str | None = None
    """How the shopper means to pay, where the caller chose it: upi, bank_debit, …"""
    gateway_reference: str | None = None
    duplicate_of: str | None = None
    asked_at: datetime | None = None
    """When the gateway was last asked about it."""
    session_unknown: bool = False
    """The call that opens its session was sent and not answered."""
    authorization_valid_for: timedelta | None = None
    """How long this gateway holds funds, as far as its fact sheet says; fixed when the payment is created."""
    capture_before: datetime | None = None
    """When the hold ends: what the gateway named, else the first authorization and the above."""
    capture_warned_at: datetime | None = None
    given_up_at: datetime | None = None
    """When its order said that it does not want this money: no policy captures it any more."""

    @property
    def outcome_unknown(self) -> bool:
        return self.session_unknown or self.state.has_unknown_operation

    @property
    def waits_to_be_taken(self) -> bool:
        """The gateway holds what was to be taken at once, and taking it is left to us.

        What nobody wants any more is not taken: its order says what becomes of the hold.
        """
        is_wanted = self.given_up_at is None and self.duplicate_of is None
        return self.status is PaymentStatus.AUTHORIZED and self.terms.capture is CaptureMode.AUTOMATIC and is_wanted

    @property
    def status(self) -> PaymentStatus:
        return self.state.status

    @property
    def amount(self) -> Money:
        return self.terms.amount


class ParkedStatus(StrEnum):
    WAITING = "waiting"
    """Nobody knows its payment yet."""
    READY = "ready"
    """Its payment has been created: apply it."""
    APPLIED = "applied"
    UNCLAIMED = "unclaimed"
    """The deadline has passed and nobody claimed it: a person has to look (a case)."""
    UNREADABLE = "unreadable"
    """Verified, but not understood: a person has to look."""


@dataclass(frozen=True, slots=True)
class ParkedEvent:
    """A verified webhook that waits for its payment, or for a person."""

    parked_id: str
    gateway: str
    account: str | None
    delivery_id: str
    event_type: str | None
    trust: str
    content_type: str
    payload: str
    received_at: datetime
    references: tuple[str, ...]
    status: ParkedStatus
