"""What a use case sees of a transaction: Protocols only, so that domain and use cases import no database library."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

from shared.contracts.envelope import EventData, EventEnvelope

IN_TRANSACTION: ContextVar[bool] = ContextVar("payrail_in_transaction", default=False)


def in_transaction() -> bool:
    """Whether the calling task holds a transaction open; a foreign call then is a bug (failure PG11)."""
    return IN_TRANSACTION.get()


@contextmanager
def outside_transaction() -> Iterator[None]:
    """For work that is started under somebody else's open transaction and has no part in it."""
    token = IN_TRANSACTION.set(False)
    try:
        yield
    finally:
        IN_TRANSACTION.reset(token)


@dataclass(frozen=True, slots=True)
class InboxClaim:
    """A consumer's claim on one message: it succeeds once, in the transaction that holds the message's effect."""

    consumer: str
    message_id: str


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event on its way to the outbox. ``traceparent``: of whatever led to it."""

    data: EventData
    subject: str
    correlation_id: str | None = None
    causation_id: str | None = None
    traceparent: str | None = None


class OutboxPort(Protocol):
    async def add(
        self,
        event: EventData,
        *,
        subject: str,
        correlation_id: str | None = None,
        causation_id: str | None = None,
        first_sequence: int = 1,
    ) -> EventEnvelope: ...

    async def add_all(self, events: Sequence[tuple[str, EventData]]) -> None:
        """Of each subject one event; in one statement, however many they are."""
        ...

    async def add_many(self, events: Sequence[NewEvent]) -> None:
        """Any number of events of any subjects, in this order, in one statement."""
        ...


class InboxPort(Protocol):
    async def claim(self, claim: InboxClaim) -> bool: ...

    async def claim_all(self, consumer: str, message_ids: Collection[str]) -> set[str]: ...


class TransactionPort(Protocol):
    """One open transaction; leaving its ``async with`` commits."""

    @property
    def outbox(self) -> OutboxPort: ...

    @property
    def inbox(self) -> InboxPort: ...

    def hint(self, channel: str, payload: str = "") -> None:
        """Wake waiters on that channel after the commit."""
        ...
