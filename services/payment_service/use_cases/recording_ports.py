"""What recording facts needs of a transaction, and no more: so that it can be one over PostgreSQL, a statement at a
time, or one over memory that has loaded what many webhooks need and writes it together (ADR 0022)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from services.payment_service.domain.ledger import Posting
from services.payment_service.domain.models import Fact, ParkedEvent, Payment
from services.payment_service.domain.operations import Dispute, Operation
from services.payment_service.domain.timeline import TimelineEntry
from shared.unit_of_work import NewEvent


class RecordingPayments(Protocol):
    async def get_for_update(self, payment_id: str) -> Payment | None:
        """Locks the row until the end of the transaction: one writer of a payment at a time."""
        ...

    async def save(self, payment: Payment) -> None:
        """Write the state, version, reference and marks of a payment that this transaction has locked."""
        ...

    async def find(
        self, gateway: str, references: Sequence[str], our_references: Sequence[str], *, account: str | None = None
    ) -> str | None:
        """The payment's id: by our id, then our attempt reference, then any gateway reference ever seen, then the order
        (its newest payment at that gateway)."""
        ...

    async def add_references(self, payment: Payment, references: Sequence[str]) -> bool:
        """What the gateway calls it; ids of two accounts may be the same. Whether one of them is new."""
        ...

    async def siblings_with_money(self, payment: Payment) -> list[str]:
        """Other payments of the same order that hold or took money; locks the order against a concurrent answer."""
        ...

    async def touch(self, payment_id: str, at: datetime) -> None:
        """Something that belongs to a locked payment has changed though its own row has not: readers of what changed
        since have to see it again."""
        ...


class RecordingFacts(Protocol):
    async def add(self, payment_id: str, fact: Fact, *, learnt_by: str | None) -> bool:
        """False where the payment has a fact with the same natural key. ``learnt_by`` is the delivery's or request's
        id."""
        ...

    async def all(self, payment_id: str) -> list[Fact]: ...


class RecordingOperations(Protocol):
    async def add(self, operation: Operation) -> None:
        """The caller holds the payment's lock and has seen that neither its request key nor its reference is used."""
        ...

    async def of_payment(self, payment_id: str) -> list[Operation]:
        """Oldest first."""
        ...

    async def save(self, operation: Operation) -> None: ...

    async def look_now(self, payment_id: str, now: datetime) -> int:
        """Make the unsettled operations of a payment due: something new was learnt about it."""
        ...


class RecordingDisputes(Protocol):
    async def of_payment(self, payment_id: str) -> list[Dispute]: ...

    async def save(self, dispute: Dispute) -> None:
        """Insert or update by payment and gateway reference."""
        ...


class RecordingTimeline(Protocol):
    async def add(self, payment_id: str, *entries: TimelineEntry) -> None:
        """In one statement, in the order given."""
        ...


class RecordingLedger(Protocol):
    async def post(self, payment: Payment, lines: Sequence[Posting], *, cause: str, at: datetime) -> None:
        """One entry with its lines, in the caller's transaction. Does nothing for no lines."""
        ...


class RecordingParked(Protocol):
    async def add(self, parked: ParkedEvent) -> bool:
        """False where this delivery is parked already."""
        ...

    async def lock_references(self, gateway: str, references: Sequence[str]) -> None:
        """Serialise parking under a reference with the creation of its payment, so that neither misses the other
        (PY5)."""
        ...


class RecordingOutbox(Protocol):
    async def add_many(self, events: Sequence[NewEvent]) -> None:
        """Any number of events of any subjects, in this order."""
        ...


class RecordingTransaction(Protocol):
    def new_id(self, prefix: str) -> str: ...

    def new_reference(self) -> str: ...

    def hint(self, channel: str, payload: str = "") -> None:
        """Wake waiters on that channel after the commit."""
        ...

    @property
    def payments(self) -> RecordingPayments: ...

    @property
    def facts(self) -> RecordingFacts: ...

    @property
    def operations(self) -> RecordingOperations: ...

    @property
    def disputes(self) -> RecordingDisputes: ...

    @property
    def timeline(self) -> RecordingTimeline: ...

    @property
    def ledger(self) -> RecordingLedger: ...

    @property
    def parked(self) -> RecordingParked: ...

    @property
    def outbox(self) -> RecordingOutbox: ...


class TogetherTransaction(RecordingTransaction, Protocol):
    """One for many messages."""

    @property
    def claimed(self) -> Collection[str]:
        """Those of these messages that are claimed with this transaction."""
        ...


@dataclass(frozen=True, slots=True)
class Wanted:
    """A payment that a webhook is about, as the webhook calls it."""

    gateway: str
    account: str | None
    references: tuple[str, ...]
    our_references: tuple[str, ...]


class NotTogether(Exception):
    """It cannot be done with others in one transaction: each is to be done by itself."""
