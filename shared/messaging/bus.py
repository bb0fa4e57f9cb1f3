"""The event bus port. Two implementations: RabbitMQ, and one in the process over the same outbox and inbox tables."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from shared.contracts.envelope import EventEnvelope
from shared.contracts.topology import MAX_ATTEMPTS, Queue
from shared.db.session import Database
from shared.errors import BusUnavailable
from shared.unit_of_work import InboxClaim

MessageHandler = Callable[[EventEnvelope, InboxClaim], Awaitable[None]]
"""Applies one event in a unit of work of its own and claims the inbox inside it:
``if not await tx.inbox.claim(claim): return``. Raising anything means "not applied, try again later"."""


EVENTS_PER_BATCH = 100
"""Events of one consumer transaction, and of one batch message."""

ClaimedEvent = tuple[EventEnvelope, InboxClaim]


class BatchHandler(Protocol):
    """Applies many events in one transaction, set-based, where an event at a time would cost a transaction each.

    It is an optimisation and nothing else: whatever it refuses (``takes``) or fails on is handled by the subscription's
    ``handler`` one by one, each in a transaction of its own, so that a poison message costs only itself.
    """

    def takes(self, envelope: EventEnvelope) -> bool:
        """Whether this event may be applied together with others; pure and quick. False for one that needs a foreign
        call first. May raise what the handler would raise for bytes that are no such event."""
        ...

    async def __call__(self, events: Sequence[ClaimedEvent]) -> None:
        """Apply all of them, with their claims, or raise and leave nothing behind. Events that were claimed before
        are skipped."""
        ...


@dataclass(frozen=True, slots=True)
class BusMessage:
    """What goes over the wire: the envelope's bytes, and what routing needs of them.

    ``redelivered`` says that an earlier attempt may have been made, ``interrupted`` that one may have ended with its
    process (failure Q11). ``envelope``: what the body says, where somebody has parsed it already.
    """

    message_id: str
    type: str
    subject: str
    body: bytes
    redelivered: bool = False
    interrupted: bool = False
    envelope: EventEnvelope | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Subscription:
    """A queue of the topology, the handler of its messages, and the database that holds the consumer's inbox."""

    queue: Queue
    handler: MessageHandler
    database: Database
    concurrency: int = 8
    max_attempts: int = MAX_ATTEMPTS
    batch: BatchHandler | None = None


class MessageNotAccepted(BusUnavailable):
    """The bus works, but this message cannot go on it now; it waits by itself and holds up nothing else."""

    code = "event_not_accepted"


class NotBegun(BusUnavailable):
    """Nothing was done about this message, for want of time; nothing is wrong with it or with the bus."""


PUBLISHING_SECONDS = 20.0
"""``publish_all`` begins no further message after that, because a relay's transaction is open meanwhile."""


class EventBus(Protocol):
    messages_at_once: int
    """How many messages ``publish_all`` is best given; a relay claims that many rows."""

    async def publish(self, message: BusMessage) -> None:
        """Returns when the message is safe: confirmed by the broker, or applied by every consumer in the process.

        Raises MessageNotAccepted (this message, now) or BusUnavailable (nothing to blame on the message). After an
        error it may have been published all the same; publishing again is safe, because consumers claim it once.
        """
        ...

    async def publish_all(self, messages: Sequence[BusMessage]) -> Sequence[BusUnavailable | None]:
        """The same for many at once: for each message, in this order, None (safe) or the error ``publish`` raises.

        Of one subject the order given is kept: each is published after the one before it is safe, and if that one is
        refused, those behind it are held back with its error. Messages of different subjects go side by side. What
        is not begun within PUBLISHING_SECONDS gets NotBegun.
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
