"""The embedded mode's bus: a published event is applied by every subscribed consumer before ``publish`` returns.

The relay marks an outbox row published only after that, so the row itself is the queue: a kill at any point
loses nothing, and a consumer that had already committed recognises the message by its inbox.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from pydantic import ValidationError

from shared.clock import Clock
from shared.contracts.envelope import EventEnvelope
from shared.errors import BusUnavailable
from shared.messaging.bus import (
    EVENTS_PER_BATCH,
    PUBLISHING_SECONDS,
    BusMessage,
    MessageNotAccepted,
    NotBegun,
    Subscription,
)
from shared.messaging.consumer import Consumer, Handled, Verdict
from shared.unit_of_work import outside_transaction


class NotDelivered(MessageNotAccepted):
    """A consumer could not apply the event yet; the outbox keeps it."""

    code = "event_not_delivered"


class InProcessBus:
    messages_at_once = EVENTS_PER_BATCH  # the relay's transaction is open until all of them have been handled

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._consumers: dict[str, list[tuple[Consumer, asyncio.Semaphore]]] = {}
        self.subscriptions: list[Subscription] = []

    def subscribe(self, subscription: Subscription) -> None:
        self.subscriptions.append(subscription)
        consumer = Consumer(subscription, self._clock)
        # A relay publishes a whole batch side by side; without a limit that would empty the consumer's connection pool.
        slots = asyncio.Semaphore(subscription.concurrency)
        for type_ in subscription.queue.types:
            self._consumers.setdefault(type_, []).append((consumer, slots))

    async def publish(self, message: BusMessage) -> None:
        """Raises NotDelivered while any consumer has not applied the event (or given up on it and kept it)."""
        (outcome,) = await self.publish_all([message])
        if outcome is not None:
            raise outcome

    async def publish_all(self, messages: Sequence[BusMessage]) -> list[BusUnavailable | None]:
        """Subjects side by side, each in its order; what is ready at the same moment is applied together."""
        by_subject: dict[str, list[int]] = defaultdict(list)
        for index, message in enumerate(messages):
            by_subject[message.subject].append(index)
        outcomes: list[BusUnavailable | None] = [None] * len(messages)
        until = self._clock.monotonic() + PUBLISHING_SECONDS

        async def publish_in_order(indexes: list[int]) -> None:
            for place, index in enumerate(indexes):
                error = await self._deliver(_read(messages[index]), intakes)
                if error is not None:
                    for later in indexes[place:]:
                        outcomes[later] = error
                    return

        # The relay's own transaction is open around us, but it is not the handlers', which may call a gateway.
        with outside_transaction():
            async with asyncio.TaskGroup() as group:
                intakes: dict[Consumer, _Intake] = {}
                for consumers in self._consumers.values():
                    for consumer, slots in consumers:
                        intakes.setdefault(consumer, _Intake(consumer, slots, group, self._clock, until))
                for indexes in by_subject.values():
                    group.create_task(publish_in_order(indexes))
        return outcomes

    async def _deliver(self, message: BusMessage, intakes: dict[Consumer, _Intake]) -> BusUnavailable | None:
        """None if every consumer is done with it."""
        chosen = [intakes[consumer] for consumer, _ in self._consumers.get(message.type, ())]
        results = await asyncio.gather(*(intake.handle(message) for intake in chosen))
        if Handled.RETRY in results:
            return NotDelivered()
        return NotBegun() if None in results else None

    async def consume(self) -> None:
        """Nothing to do: ``publish`` delivers."""
        await asyncio.Event().wait()

    async def check(self) -> None:
        """It is there as long as the process is."""

    async def close(self) -> None:
        """It holds nothing open."""


class _Intake:
    """One consumer during one ``publish_all``: what comes while a batch is being applied makes up the next one.

    ``until``: when nothing more is begun, on the clock's monotonic scale.
    """

    def __init__(
        self, consumer: Consumer, slots: asyncio.Semaphore, group: asyncio.TaskGroup, clock: Clock, until: float
    ) -> None:
        self._consumer = consumer
        self._slots = slots
        self._group = group
        self._clock = clock
        self._until = until
        self._pending: list[tuple[BusMessage, asyncio.Future[Verdict]]] = []
        self._applying = False

    async def handle(self, message: BusMessage) -> Handled | None:
        """None: not begun, for want of time."""
        counted, before = 0, None
        if self._consumer.takes(message):
            if self._is_late():
                return None
            result, counted = await self._together(message)
            if result is not None:
                return result
            before = Handled.RETRY  # its batch failed; an attempt later it is tried alone at once
        async with self._slots:
            if self._is_late():
                return before
            result, _ = await self._consumer.handle(message, counted=counted)
        return result

    def _is_late(self) -> bool:
        return self._clock.monotonic() > self._until

    async def _together(self, message: BusMessage) -> Verdict:
        verdict: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self._pending.append((message, verdict))
        if not self._applying:
            self._applying = True
            self._group.create_task(self._apply())
        return await verdict

    async def _apply(self) -> None:
        while self._pending:
            taken, self._pending = self._pending[:EVENTS_PER_BATCH], self._pending[EVENTS_PER_BATCH:]
            verdicts = await self._consumer.handle_batch([message for message, _ in taken])
            for (_, future), verdict in zip(taken, verdicts, strict=True):
                if not future.done():
                    future.set_result(verdict)
        self._applying = False


def _read(message: BusMessage) -> BusMessage:
    """The message with its envelope, read once for all its consumers; without one if its body is none."""
    try:
        return replace(message, envelope=EventEnvelope.from_json(message.body))
    except ValidationError:
        return message
