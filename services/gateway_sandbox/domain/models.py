"""The books of a sandbox gateway: one entry per session that was created, and every operation that touched it.

Amounts are ISO 4217 minor units here, whatever a gateway's wire format uses, so that tests can compare the books of
any gateway with Payrail's own rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from shared.errors import Conflict

Details = dict[str, Any]

RefundStatus = Literal["pending", "succeeded", "failed", "reversed"]
DisputeStatus = Literal["open", "won", "lost"]
CaptureStatus = Literal["pending", "succeeded", "failed"]


class EntryStatus(StrEnum):
    OPEN = "open"
    PROCESSING = "processing"
    AUTHORIZED = "authorized"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"
    EXPIRED = "expired"


class CaptureMode(StrEnum):
    AUTOMATIC = "automatic"
    MANUAL = "manual"


class Outcome(StrEnum):
    """What the buyer, or a test in the buyer's place, makes of a hosted checkout."""

    SUCCEED = "succeed"
    FAIL = "fail"
    CANCEL = "cancel"
    EXPIRE = "expire"


class IllegalMove(Conflict):
    """The payment's state at the gateway does not allow this."""

    code = "illegal_move"


class MoreThanThereIs(Conflict):
    """The amount is larger than what is left to capture or refund."""

    code = "more_than_there_is"


_PAYABLE = frozenset({EntryStatus.OPEN, EntryStatus.PROCESSING})
_WITHOUT_MONEY = _PAYABLE | {EntryStatus.FAILED, EntryStatus.CANCELED, EntryStatus.EXPIRED}


@dataclass(slots=True)
class BookEntry:
    """One session and the payment it became. ``details`` holds what only its own gateway understands.

    ``captured_minor`` and ``refunded_minor`` count what is pending too: it is spoken for, and comes back if it fails.
    """

    gateway: str
    gateway_reference: str
    reference: str | None
    order_id: str | None
    amount_minor: int
    currency: str
    capture: CaptureMode
    success_url: str
    cancel_url: str | None
    page_token: str
    created_at: datetime
    expires_at: datetime
    status: EntryStatus = EntryStatus.OPEN
    payment_reference: str | None = None
    payment_created_at: datetime | None = None
    hold_expires_at: datetime | None = None
    captured_minor: int = 0
    refunded_minor: int = 0
    customer_email: str | None = None
    description: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    details: Details = field(default_factory=dict)

    @property
    def capturable_minor(self) -> int:
        return self.amount_minor - self.captured_minor if self.status is EntryStatus.AUTHORIZED else 0

    @property
    def refundable_minor(self) -> int:
        return self.captured_minor - self.refunded_minor

    def is_payable(self) -> bool:
        return self.status in _PAYABLE

    def is_held(self) -> bool:
        return self.status is EntryStatus.AUTHORIZED

    def pay(self, *, late: bool = False) -> None:
        """The buyer confirms. ``late`` lets money arrive after the session ended, as slow methods do."""
        if self.status not in (_WITHOUT_MONEY if late else _PAYABLE):
            raise IllegalMove(f"a payment that is {self.status} cannot be paid")
        if self.capture is CaptureMode.MANUAL:
            self.status = EntryStatus.AUTHORIZED
        else:
            self.status = EntryStatus.COMPLETED
            self.captured_minor = self.amount_minor

    def take(self, amount_minor: int, *, final: bool) -> None:
        """Capture held money; a final capture releases the rest."""
        if self.status is not EntryStatus.AUTHORIZED:
            raise IllegalMove(f"a payment that is {self.status} cannot be captured")
        if not 0 < amount_minor <= self.capturable_minor:
            raise MoreThanThereIs(f"{amount_minor} is not between 1 and the capturable {self.capturable_minor}")
        self.captured_minor += amount_minor
        if final or self.captured_minor == self.amount_minor:
            self.status = EntryStatus.COMPLETED

    def untake(self, amount_minor: int) -> None:
        """A pending capture has failed. What the payment is then, is for its gateway to say."""
        if not 0 < amount_minor <= self.refundable_minor:
            raise MoreThanThereIs(f"{amount_minor} is not between 1 and the unrefunded {self.refundable_minor}")
        self.captured_minor -= amount_minor

    def release(self) -> None:
        """Void: the hold ends, and what was captured before stays captured."""
        if self.status is not EntryStatus.AUTHORIZED:
            raise IllegalMove(f"a payment that is {self.status} cannot be voided")
        self.status = EntryStatus.COMPLETED if self.captured_minor else EntryStatus.CANCELED

    def give_back(self, amount_minor: int) -> None:
        if not 0 < amount_minor <= self.refundable_minor:
            raise MoreThanThereIs(f"{amount_minor} is not between 1 and the refundable {self.refundable_minor}")
        self.refunded_minor += amount_minor

    def take_back(self, amount_minor: int) -> None:
        """A refund did not reach the buyer: its money is the shop's again."""
        if not 0 < amount_minor <= self.refunded_minor:
            raise MoreThanThereIs(f"{amount_minor} is not between 1 and the refunded {self.refunded_minor}")
        self.refunded_minor -= amount_minor

    def check_disputable(self, amount_minor: int) -> None:
        """A refund does not keep a buyer's bank from disputing the whole payment."""
        if not 0 < amount_minor <= self.captured_minor:
            raise MoreThanThereIs(f"{amount_minor} is not between 1 and the captured {self.captured_minor}")

    def lapse(self) -> None:
        """The hold is over by itself: nothing more can be captured."""
        if self.status is not EntryStatus.AUTHORIZED:
            raise IllegalMove(f"a payment that is {self.status} holds nothing that could lapse")
        self.status = EntryStatus.COMPLETED if self.captured_minor else EntryStatus.EXPIRED

    def end(self, status: EntryStatus) -> None:
        """Close a session that nobody paid: failed, canceled or expired."""
        if self.status not in _PAYABLE:
            raise IllegalMove(f"a payment that is {self.status} cannot become {status}")
        self.status = status

    def showing(self, amount_minor: int, currency: str | None = None) -> BookEntry:
        """A copy that tells another amount or currency than the true one: the ``wrong_amount`` fault."""
        captured = amount_minor if self.captured_minor == self.amount_minor else self.captured_minor
        return replace(self, amount_minor=amount_minor, captured_minor=captured, currency=currency or self.currency)


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that happened to an entry, recorded in the transaction in which it happened."""

    operation: str
    at: datetime
    amount_minor: int | None = None
    idempotency_key: str | None = None
    details: Details = field(default_factory=dict)


_REFUND_MOVES: frozenset[tuple[RefundStatus, RefundStatus]] = frozenset(
    {("pending", "succeeded"), ("pending", "failed"), ("succeeded", "failed"), ("succeeded", "reversed")}
)
_COUNTED: frozenset[RefundStatus] = frozenset({"pending", "succeeded"})


@dataclass(slots=True)
class BookRefund:
    """``reference`` is the client's own, None for a refund made in the gateway's dashboard."""

    gateway: str
    refund_id: str
    gateway_reference: str
    reference: str | None
    amount_minor: int
    status: RefundStatus
    reason: str | None
    created_at: datetime
    metadata: dict[str, str] = field(default_factory=dict)
    details: Details = field(default_factory=dict)
    idempotency_key: str | None = None

    def move(self, status: RefundStatus, entry: BookEntry) -> bool:
        """Take the refund to a status and its money with it; False when it is there already. Raises IllegalMove."""
        if status == self.status:
            return False
        if (self.status, status) not in _REFUND_MOVES:
            raise IllegalMove(f"a refund that is {self.status} cannot become {status}")
        if status not in _COUNTED:
            entry.take_back(self.amount_minor)
        self.status = status
        return True


@dataclass(slots=True)
class BookCapture:
    """For gateways where each capture is an object of its own, with an id and a state."""

    gateway: str
    capture_id: str
    gateway_reference: str
    reference: str | None
    amount_minor: int
    status: CaptureStatus
    is_final: bool
    created_at: datetime
    details: Details = field(default_factory=dict)
    idempotency_key: str | None = None

    def move(self, status: CaptureStatus, entry: BookEntry) -> bool:
        """A pending capture succeeds or fails; False when it is there already. Raises IllegalMove."""
        if status == self.status:
            return False
        if self.status != "pending" or status == "pending":
            raise IllegalMove(f"a capture that is {self.status} cannot become {status}")
        if status == "failed":
            entry.untake(self.amount_minor)
        self.status = status
        return True


@dataclass(slots=True)
class BookDispute:
    gateway: str
    dispute_id: str
    gateway_reference: str
    amount_minor: int
    status: DisputeStatus
    reason: str
    created_at: datetime
    closed_at: datetime | None = None
    details: Details = field(default_factory=dict)

    def close(self, status: DisputeStatus, at: datetime) -> bool:
        """Decided for the shop or for the buyer; False when it is so already. Raises IllegalMove."""
        if status == self.status:
            return False
        if self.status != "open" or status == "open":
            raise IllegalMove(f"a dispute that is {self.status} cannot become {status}")
        self.status, self.closed_at = status, at
        return True
