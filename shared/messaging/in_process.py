"""The embedded mode's bus: a published event is applied by every subscribed consumer before ``publish`` returns.

The relay marks an outbox row published only after that, so the row itself is the queue: a kill at any point
loses nothing, and a consumer that had already committed recognises the message by its inbox.
"""

from __future__ import annotations

import asyncio

from shared.clock import Clock
from shared.messaging.bus import BusMessage, MessageNotAccepted, Subscription
from shared.messaging.consumer import Consumer, Handled
from shared.unit_of_work import outside_transaction


class NotDelivered(MessageNotAccepted):
    """A consumer could not apply the event yet; the outbox keeps it."""

    code = "event_not_delivered"


class InProcessBus:
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
        consumers = self._consumers.get(message.type, [])
        results = await asyncio.gather(*(_deliver(consumer, slots, message) for consumer, slots in consumers))
        if Handled.RETRY in results:
            raise NotDelivered

    async def consume(self) -> None:
        """Nothing to do: ``publish`` delivers."""
        await asyncio.Event().wait()

    async def check(self) -> None:
        """It is there as long as the process is."""

    async def close(self) -> None:
        """It holds nothing open."""


async def _deliver(consumer: Consumer, slots: asyncio.Semaphore, message: BusMessage) -> Handled:
    async with slots:
        # The relay's own transaction is open around us, but it is not the handler's, which may call a gateway.
        with outside_transaction():
            result, _ = await consumer.handle(message)
    return result
