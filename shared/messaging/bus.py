"""The event bus port. Two implementations: RabbitMQ, and one in the process over the same outbox and inbox tables."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from shared.contracts.envelope import EventEnvelope
from shared.contracts.topology import MAX_ATTEMPTS, Queue
from shared.db.session import Database
from shared.errors import BusUnavailable
from shared.unit_of_work import InboxClaim

MessageHandler = Callable[[EventEnvelope, InboxClaim], Awaitable[None]]
"""Applies one event in a unit of work of its own and claims the inbox inside it:
``if not await tx.inbox.claim(claim): return``. Raising anything means "not applied, try again later"."""


@dataclass(frozen=True, slots=True)
class BusMessage:
    """What goes over the wire: the envelope's bytes, and what routing needs of them.

    ``redelivered`` says that an earlier attempt may have been made (and may have killed its process, failure Q11).
    """

    message_id: str
    type: str
    subject: str
    body: bytes
    redelivered: bool = False


@dataclass(frozen=True, slots=True)
class Subscription:
    """A queue of the topology, the handler of its messages, and the database that holds the consumer's inbox."""

    queue: Queue
    handler: MessageHandler
    database: Database
    concurrency: int = 8
    max_attempts: int = MAX_ATTEMPTS


class MessageNotAccepted(BusUnavailable):
    """The bus works, but this message cannot go on it now; it waits by itself and holds up nothing else."""

    code = "event_not_accepted"


class EventBus(Protocol):
    async def publish(self, message: BusMessage) -> None:
        """Returns when the message is safe: confirmed by the broker, or applied by every consumer in the process.

        Raises MessageNotAccepted (this message, now) or BusUnavailable (nothing to blame on the message). After an
        error it may have been published all the same; publishing again is safe, because consumers claim it once.
        """
        ...

    def subscribe(self, subscription: Subscription) -> None:
        """Before ``consume``."""
        ...

    async def consume(self) -> None:
        """Delivers to the subscriptions until cancelled; outlives restarts of the broker."""
        ...

    async def check(self) -> None:
        """Raises BusUnavailable with what is missing."""
        ...

    async def close(self) -> None: ...
