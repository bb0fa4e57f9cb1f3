"""RabbitMQ through aio-pika: a connection that publishes, one that consumes, and how they outlive broker trouble.

``topology.py`` declares what is used here; ``publisher.py`` and ``deliveries.py`` do the work on their channels.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import aiormq
import structlog
from aio_pika.abc import AbstractConnection

from shared.errors import BusUnavailable
from shared.messaging.batches import Outcome
from shared.messaging.broker import (
    BROKER_ERRORS,
    RECONNECT_MAX_WAIT_SECONDS,
    close_quietly,
    connect,
    end_all,
    reconnect_wait,
)
from shared.messaging.bus import BusMessage, Subscription
from shared.messaging.deliveries import QueueConsumer
from shared.messaging.publisher import Publisher, Unroutable
from shared.ports import Ports
from shared.tasks import end_if_cancelled

__all__ = ["BROKER_ERRORS", "RabbitMQBus", "Unroutable", "connect"]

log = structlog.get_logger()


class RabbitMQBus:
    """One publishing connection and one consuming connection, each with its own life.

    ``batches``: whether events go out many in a message. A consumer that is older than that takes such a message for
    no event at all, so it is off until all of them have been replaced.
    """

    messages_at_once = 200

    def __init__(self, url: str, *, name: str, ports: Ports, batches: bool = True) -> None:
        self._url = url
        self._name = name
        self._ports = ports
        self._publishing = Publisher(url, name=f"{name}-publisher", ports=ports, batches=batches)
        self._subscriptions: list[Subscription] = []
        self._missing: dict[str, str] = {}

    async def publish(self, message: BusMessage) -> None:
        await self._publishing.publish(message)

    async def publish_all(self, messages: Sequence[BusMessage]) -> list[Outcome]:
        return await self._publishing.publish_all(messages)

    def subscribe(self, subscription: Subscription) -> None:
        self._subscriptions.append(subscription)

    async def consume(self) -> None:
        """Consume every subscription; each has its own channel, so that one cannot cut another off (M7)."""
        if not self._subscriptions:
            await asyncio.Event().wait()
        self._missing = {subscription.queue.name: "not consuming yet" for subscription in self._subscriptions}
        failures = 0
        while True:
            try:
                async with self._connection("consumer") as connection:
                    failures = 0
                    await self._consume_on(connection)
            except BROKER_ERRORS as error:
                failures += 1
                log.warning("consumer_lost_its_broker", error=type(error).__name__, failures=failures)
            except ExceptionGroup as group:
                if group.split(BROKER_ERRORS)[1] is not None:
                    raise
                failures += 1
                log.warning("consumer_lost_its_broker", error="several", failures=failures)
            end_if_cancelled()
            await self._ports.clock.sleep(reconnect_wait(failures, self._ports))

    async def check(self) -> None:
        """Raises BusUnavailable naming what is missing: the connection, or a queue that this process should consume."""
        await self._publishing.check()
        if self._missing:
            queue, reason = next(iter(self._missing.items()))
            raise BusUnavailable(f"queue {queue}: {reason}")

    async def close(self) -> None:
        await self._publishing.close()

    @asynccontextmanager
    async def _connection(self, role: str) -> AsyncIterator[AbstractConnection]:
        connection = await connect(self._url, name=f"{self._name}-{role}")
        try:
            yield connection
        finally:
            await close_quietly(connection)

    async def _consume_on(self, connection: AbstractConnection) -> None:
        closed = asyncio.Event()
        connection.close_callbacks.add(lambda *_: closed.set())
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._consume_queue(connection, each)) for each in self._subscriptions]
            try:
                await closed.wait()
            finally:
                await end_all(tasks)
        for subscription in self._subscriptions:
            self._missing[subscription.queue.name] = "the broker's connection was lost"

    async def _consume_queue(self, connection: AbstractConnection, subscription: Subscription) -> None:
        """Consume one queue until the connection goes; a missing queue is looked for again and again, and reported."""
        name = subscription.queue.name
        consumer = QueueConsumer(subscription, self._publishing, self._ports)
        while True:
            try:
                await consumer.run(connection, lambda: self._missing.pop(name, None))
            except aiormq.exceptions.ChannelNotFoundEntity:
                self._missing[name] = "does not exist; run `payrail topology apply`"
                log.error("queue_missing", queue=name)
            except BROKER_ERRORS as error:
                self._missing[name] = f"not consuming: {type(error).__name__}"
                if connection.is_closed:
                    raise
                log.warning("queue_consumer_restarts", queue=name, error=type(error).__name__)
            end_if_cancelled()
            await self._ports.clock.sleep(RECONNECT_MAX_WAIT_SECONDS / 5)
