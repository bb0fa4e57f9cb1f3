"""RabbitMQ through aio-pika: confirms, mandatory, prefetch, delayed retries, dead letters, and our own reconnection.

Every broker call is bounded by ``_within``, because aio-pika's own timeouts do not bound the wait for a
reconnection (field note 2). Plain connections in a loop of ours replace aio-pika's robust ones: those re-declare what
they used, and a queue that was changed meanwhile stops them silently (M8). ``topology.py`` declares it, this uses it.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import aio_pika
import aiormq
import structlog
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange, AbstractIncomingMessage

from shared.contracts.envelope import CONTENT_TYPE
from shared.contracts.topology import EVENTS_EXCHANGE, TYPES_WITH_A_CONSUMER
from shared.errors import BusUnavailable
from shared.masking import storable_text
from shared.messaging.bus import BusMessage, MessageNotAccepted, Subscription
from shared.messaging.consumer import Consumer, Handled
from shared.ports import Ports
from shared.tasks import end_if_cancelled

log = structlog.get_logger()

HEARTBEAT_SECONDS = 5  # a dead peer is noticed within a recovery budget of 30 s only below 8 (field note M9)
CONNECT_TIMEOUT_SECONDS = 10.0
CALL_TIMEOUT_SECONDS = 5.0
RECONNECT_FIRST_WAIT_SECONDS = 0.2
RECONNECT_MAX_WAIT_SECONDS = 5.0
PROBE_SECONDS = 10.0
CANCEL_AGAIN_SECONDS = 1.0

BROKER_ERRORS = (
    aio_pika.exceptions.AMQPError,
    aiormq.exceptions.AMQPError,
    ConnectionError,
    TimeoutError,
    OSError,
    RuntimeError,  # aiormq's "writer is closed" and ChannelInvalidStateError
)


class Unroutable(MessageNotAccepted):
    """No queue is bound to this event's type, though one should be: run `payrail topology apply`."""

    code = "event_unroutable"


class RabbitMQBus:
    """One publishing connection and one consuming connection, each with its own life."""

    def __init__(self, url: str, *, name: str, ports: Ports) -> None:
        self._url = url
        self._name = name
        self._ports = ports
        self._publishing = _Publisher(url, name=f"{name}-publisher", ports=ports)
        self._subscriptions: list[Subscription] = []
        self._missing: dict[str, str] = {}

    async def publish(self, message: BusMessage) -> None:
        await self._publishing.publish(message)

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
            await self._ports.clock.sleep(_reconnect_wait(failures, self._ports))

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
            await _close_quietly(connection)

    async def _consume_on(self, connection: AbstractConnection) -> None:
        closed = asyncio.Event()
        connection.close_callbacks.add(lambda *_: closed.set())
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._consume_queue(connection, each)) for each in self._subscriptions]
            try:
                await closed.wait()
            finally:
                # More than once, because aiormq may lose one (see _within), and that task would consume for ever while
                # the process waits for it to stop.
                while waiting := [task for task in tasks if not task.done()]:
                    for task in waiting:
                        task.cancel()
                    await asyncio.wait(waiting, timeout=CANCEL_AGAIN_SECONDS)
        for subscription in self._subscriptions:
            self._missing[subscription.queue.name] = "the broker's connection was lost"

    async def _consume_queue(self, connection: AbstractConnection, subscription: Subscription) -> None:
        """Consume one queue until the connection goes; a missing queue is looked for again and again, and reported."""
        name = subscription.queue.name
        consumer = _QueueConsumer(subscription, self._publishing, self._ports)
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


class _QueueConsumer:
    """One queue on one channel: ``concurrency`` workers, prefetch to match, one answer for every delivery."""

    def __init__(self, subscription: Subscription, publisher: _Publisher, ports: Ports) -> None:
        self._subscription = subscription
        self._publisher = publisher
        self._consumer = Consumer(subscription, ports.clock)

    async def run(self, connection: AbstractConnection, on_consuming: Callable[[], object]) -> None:
        concurrency = self._subscription.concurrency
        async with _within(CALL_TIMEOUT_SECONDS * 2):
            channel: AbstractChannel = await connection.channel()
            await channel.set_qos(prefetch_count=concurrency * 2)
            queue = await channel.declare_queue(self._subscription.queue.name, passive=True)
        deliveries: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
        closed = asyncio.Event()
        channel.close_callbacks.add(lambda *_: closed.set())
        underlay = await channel.get_underlay_channel()
        # The broker cancels a consumer whose queue was deleted; the channel stays open and would hear nothing (Q8).
        underlay.on_consumer_cancel_callbacks.add(lambda *_: closed.set())
        try:
            async with _within(CALL_TIMEOUT_SECONDS):
                await queue.consume(deliveries.put)
            on_consuming()
            async with asyncio.TaskGroup() as group:
                workers = [group.create_task(self._work(deliveries)) for _ in range(concurrency)]
                await closed.wait()
                for worker in workers:
                    worker.cancel()
            raise ConnectionError("the channel was closed")
        finally:
            with suppress(*BROKER_ERRORS):
                async with _within(CALL_TIMEOUT_SECONDS):
                    await channel.close()

    async def _work(self, deliveries: asyncio.Queue[AbstractIncomingMessage]) -> None:
        while True:
            delivery = await deliveries.get()
            result, attempts = await self._consumer.handle(_as_bus_message(delivery))
            with suppress(*BROKER_ERRORS):  # the broker then delivers it again, and the inbox knows it
                await self._answer(delivery, result, attempts)

    async def _answer(self, delivery: AbstractIncomingMessage, result: Handled, attempts: int) -> None:
        if result is Handled.RETRY:
            try:
                await self._publisher.publish_retry(self._subscription, delivery, attempts)
            except BusUnavailable:
                await _bounded(delivery.nack(requeue=True))
                return
        if result is Handled.DEAD:
            await _bounded(delivery.reject(requeue=False))  # the queue's dead-letter exchange takes it
            return
        await _bounded(delivery.ack())


class _Publisher:
    """Publishes on one channel with confirms. Reconnects when it is next used."""

    def __init__(self, url: str, *, name: str, ports: Ports) -> None:
        self._url = url
        self._name = name
        self._ports = ports
        self._lock = asyncio.Lock()
        self._connection: AbstractConnection | None = None
        self._channel: AbstractChannel | None = None
        self._exchange: AbstractExchange | None = None
        self._not_before = 0.0
        self._refusal = "the broker cannot be reached"
        self._failures = 0
        self._last_confirm = 0.0
        self._unconfirmed = False

    async def publish(self, message: BusMessage) -> None:
        exchange, connection = await self._ready(), self._connection
        mandatory = message.type in TYPES_WITH_A_CONSUMER
        outgoing = aio_pika.Message(
            message.body,
            message_id=message.message_id,
            type=message.type,
            content_type=CONTENT_TYPE,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        )
        await self._confirmed(connection, exchange.publish(outgoing, routing_key=message.type, mandatory=mandatory))

    async def publish_retry(self, subscription: Subscription, delivery: AbstractIncomingMessage, attempts: int) -> None:
        """Put a copy into the delay queue from which the broker returns it to the consumer's queue alone."""
        await self._ready()
        channel, connection = self._channel, self._connection
        assert channel is not None
        copy = aio_pika.Message(
            delivery.body,
            message_id=delivery.message_id,
            type=delivery.type or delivery.routing_key,  # the copy travels under another routing key
            content_type=CONTENT_TYPE,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            headers={"x-payrail-retry": attempts},
        )
        queue = subscription.queue.retry_queue(subscription.queue.retry_delay_seconds(attempts))
        await self._confirmed(connection, channel.default_exchange.publish(copy, routing_key=queue, mandatory=True))

    async def check(self) -> None:
        await self._ready()
        if self._ports.clock.monotonic() - self._last_confirm > PROBE_SECONDS:
            # A blocked connection (memory alarm) looks open; a round trip shows whether the broker still talks (M6).
            assert self._channel is not None
            try:
                async with _within(CALL_TIMEOUT_SECONDS / 2):
                    await self._channel.get_exchange(EVENTS_EXCHANGE, ensure=True)
            except BROKER_ERRORS as error:
                await self._drop(self._connection)
                raise BusUnavailable("the broker does not answer") from error
        if self._unconfirmed:
            raise BusUnavailable("the broker does not confirm messages (it may be out of memory or disk)")

    async def close(self) -> None:
        if self._connection is not None:
            await _close_quietly(self._connection)

    async def _confirmed(self, connection: AbstractConnection | None, publishing: Awaitable[object]) -> None:
        try:
            async with _within(CALL_TIMEOUT_SECONDS):
                confirmation = await publishing
        except aio_pika.exceptions.PublishError as error:
            raise Unroutable from error
        except aio_pika.exceptions.DeliveryError as error:
            raise MessageNotAccepted("the broker refused the message (a queue is full)") from error
        except BROKER_ERRORS as error:
            # A new connection to a broker with an alarm looks well until it publishes: only a confirm clears this (M6).
            self._unconfirmed = isinstance(error, TimeoutError)
            await self._drop(connection)
            raise BusUnavailable from error
        if not isinstance(confirmation, aiormq.spec.Basic.Ack):
            raise BusUnavailable("the broker did not confirm the message")
        self._last_confirm = self._ports.clock.monotonic()
        self._unconfirmed = False

    async def _ready(self) -> AbstractExchange:
        async with self._lock:
            usable = self._channel is not None and not self._channel.is_closed
            if (
                usable
                and self._exchange is not None
                and self._connection is not None
                and not self._connection.is_closed
            ):
                return self._exchange
            now = self._ports.clock.monotonic()
            if now < self._not_before:
                raise BusUnavailable(self._refusal)
            try:
                return await self._open()
            except BROKER_ERRORS as error:
                self._failures += 1
                self._not_before = now + _reconnect_wait(self._failures, self._ports)
                self._refusal = _explain(error)
                # A connection that opened no channel may be half dead and not know it (a broker that is starting or
                # stopping): the next try begins with a new one.
                await self._drop(self._connection)
                raise BusUnavailable(self._refusal) from error

    async def _open(self) -> AbstractExchange:
        if self._connection is None or self._connection.is_closed:
            self._connection = await connect(self._url, name=self._name)
        async with _within(CALL_TIMEOUT_SECONDS):
            # Without on_return_raises an unroutable message looks published (M1).
            self._channel = await self._connection.channel(publisher_confirms=True, on_return_raises=True)
            self._exchange = await self._channel.get_exchange(EVENTS_EXCHANGE, ensure=True)
        self._failures = 0
        return self._exchange

    async def _drop(self, connection: AbstractConnection | None) -> None:
        """Close it; if another has already taken its place, that one stays."""
        if connection is self._connection:
            self._connection, self._channel, self._exchange = None, None, None
        if connection is not None:
            await _close_quietly(connection)


async def connect(url: str, *, name: str) -> AbstractConnection:
    async with _within(CONNECT_TIMEOUT_SECONDS):
        return await aio_pika.connect(
            url,
            heartbeat=HEARTBEAT_SECONDS,
            client_properties={"connection_name": name},
            timeout=CONNECT_TIMEOUT_SECONDS,
        )


def _as_bus_message(delivery: AbstractIncomingMessage) -> BusMessage:
    retried = "x-payrail-retry" in (delivery.headers or {})
    return BusMessage(
        # Without an id the body stands for itself; one empty id for all would make every later message a duplicate.
        message_id=storable_text(delivery.message_id or "") or f"sha256:{hashlib.sha256(delivery.body).hexdigest()}",
        type=storable_text(delivery.type or delivery.routing_key or ""),
        subject="",
        body=delivery.body,
        redelivered=bool(delivery.redelivered) or retried,
    )


@asynccontextmanager
async def _within(seconds: float) -> AsyncIterator[None]:
    """The limit of one broker call, with the library's cancellations told from ours.

    aiormq cancels the futures of a connection that breaks: that CancelledError is nobody's wish, and a TaskGroup would
    take it for a quiet end. And it loses a cancellation of ours that meets a broker's answer: the call then returns, or
    fails in another way, and the task would never hear of its end again.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    try:
        async with asyncio.timeout(seconds):
            yield
    except BaseException as error:
        if task and task.cancelling() > before:
            raise asyncio.CancelledError from error
        if isinstance(error, asyncio.CancelledError):
            raise ConnectionError("the connection broke during the call") from error
        raise
    if task and task.cancelling() > before:
        raise asyncio.CancelledError


async def _bounded(call: Awaitable[object]) -> None:
    async with _within(CALL_TIMEOUT_SECONDS):
        await call


async def _close_quietly(connection: AbstractConnection) -> None:
    with suppress(*BROKER_ERRORS):
        async with _within(CALL_TIMEOUT_SECONDS):
            await connection.close()


def _reconnect_wait(failures: int, ports: Ports) -> float:
    ceiling: float = min(RECONNECT_MAX_WAIT_SECONDS, RECONNECT_FIRST_WAIT_SECONDS * 2 ** min(failures, 10))
    return ceiling * ports.randomness.uniform(0.5, 1.0)


def _explain(error: BaseException) -> str:
    if isinstance(error, aiormq.exceptions.ChannelNotFoundEntity):
        return f"the exchange {EVENTS_EXCHANGE} does not exist; run `payrail topology apply`"
    return "the broker cannot be reached"
