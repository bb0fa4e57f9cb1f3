"""Publishing to RabbitMQ: confirms, mandatory, batches, copies for a later try, and our own reconnection."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence

import aio_pika
import aiormq
from aio_pika.abc import AbstractChannel, AbstractConnection, HeadersType

from shared.contracts.topology import DEAD_EXCHANGE, EVENTS_EXCHANGE, TYPES_WITH_A_CONSUMER, Queue
from shared.errors import BusUnavailable
from shared.messaging.batches import (
    COUNT_HEADER,
    Outcome,
    batch_id,
    content_type_of,
    in_waves,
    join,
    pack,
    side_by_side,
)
from shared.messaging.broker import (
    BROKER_ERRORS,
    CALL_TIMEOUT_SECONDS,
    close_quietly,
    connect,
    reconnect_wait,
    within,
)
from shared.messaging.bus import BusMessage, MessageNotAccepted
from shared.ports import Ports

PROBE_SECONDS = 10.0
BYTES_PER_MESSAGE = 8 * 1024 * 1024  # the broker ends the channel over one that is too large for it (16 MiB in 4.x)

DEFAULT_EXCHANGE = ""
"""Takes a queue's name for the routing key."""

RETRY_HEADER = "x-payrail-retry"
"""On a copy that waits for another try: the attempts so far."""

INTERRUPTED_HEADER = "x-payrail-interrupted"
"""On a copy of what a consumer was handling when its process or connection ended."""


class Unroutable(MessageNotAccepted):
    """No queue is bound to this event's type, though one should be: run `payrail topology apply`."""

    code = "event_unroutable"


class Publisher:
    """Publishes on one channel with confirms. Reconnects when it is next used.

    What is published goes to aiormq's channel: aio-pika's messages and exchanges around it cost as much again.
    """

    def __init__(self, url: str, *, name: str, ports: Ports, batches: bool = True) -> None:
        self._url = url
        self._name = name
        self._ports = ports
        self._joins = batches
        self._lock = asyncio.Lock()
        self._connection: AbstractConnection | None = None
        self._channel: AbstractChannel | None = None
        self._open_channel: aiormq.Channel | None = None
        self._not_before = 0.0
        self._refusal = "the broker cannot be reached"
        self._failures = 0
        self._last_confirm = 0.0
        self._unconfirmed = False

    async def publish(self, message: BusMessage) -> None:
        await self._publish_together([message])

    async def publish_all(self, messages: Sequence[BusMessage]) -> list[Outcome]:
        return await in_waves(messages, self._publish_wave, self._ports.clock)

    async def _publish_wave(self, messages: Sequence[BusMessage]) -> list[Outcome]:
        """Messages of different subjects: everything is sent before the first confirm is waited for."""
        packs = self._packs(messages)
        outcomes = await side_by_side([self._publish_pack(each) for each in packs])
        by_message = {id(message): outcome for message, outcome in zip(_flat(packs), outcomes, strict=True)}
        return [by_message[id(message)] for message in messages]

    async def _publish_pack(self, messages: Sequence[BusMessage]) -> list[Outcome]:
        """One message for all of them; if the broker refuses it, each by itself, so that only a culprit has to wait."""
        try:
            await self._publish_together(messages)
        except Unroutable as error:
            return [error] * len(messages)  # they have one type, so none of them has another way to go
        except MessageNotAccepted as error:
            if len(messages) == 1:
                return [error]
            return await side_by_side([self._publish_pack([message]) for message in messages])
        except BusUnavailable as error:
            return [error] * len(messages)
        return [None] * len(messages)

    async def _publish_together(self, messages: Sequence[BusMessage]) -> None:
        channel = await self._ready()
        type_ = messages[0].type
        await self._send(channel, EVENTS_EXCHANGE, type_, messages, {}, mandatory=type_ in TYPES_WITH_A_CONSUMER)

    async def publish_retries(self, queue: Queue, copies: Sequence[tuple[BusMessage, int]]) -> Mapping[str, Outcome]:
        """Copies, with their attempts so far, into the delay queues from which the broker returns them to this consumer
        alone. The outcomes by message id."""
        by_wait: dict[tuple[float, int], list[BusMessage]] = defaultdict(list)
        for message, attempts in copies:
            by_wait[(queue.retry_delay_seconds(attempts), attempts)].append(message)
        going = [
            (messages, seconds, attempts)
            for (seconds, attempts), waiting in by_wait.items()
            for messages in self._packs(waiting)
        ]
        outcomes = await side_by_side([self._publish_retry(queue, *each) for each in going])
        messages = _flat([messages for messages, _, _ in going])
        return {message.message_id: outcome for message, outcome in zip(messages, outcomes, strict=True)}

    async def publish_singly(self, queue: Queue, messages: Sequence[BusMessage]) -> Mapping[str, Outcome]:
        """A copy of each by itself, through the shortest delay queue: what was one message is many from then on."""
        seconds = queue.retry_delay_seconds(1)
        outcomes = await side_by_side([self._publish_retry(queue, [message], seconds, 1) for message in messages])
        return {message.message_id: outcome for message, outcome in zip(messages, outcomes, strict=True)}

    async def _publish_retry(
        self, queue: Queue, messages: Sequence[BusMessage], seconds: float, attempts: int
    ) -> list[Outcome]:
        headers: HeadersType = {RETRY_HEADER: attempts}
        if any(message.interrupted for message in messages):
            headers[INTERRUPTED_HEADER] = True
        outcome = await self._publish_copy(DEFAULT_EXCHANGE, queue.retry_queue(seconds), messages, headers)
        return [outcome] * len(messages)

    async def publish_dead(self, queue: Queue, messages: Sequence[BusMessage]) -> Mapping[str, Outcome]:
        """A copy of each into the queue's dead-letter queue."""
        outcomes = await asyncio.gather(
            *(self._publish_copy(DEAD_EXCHANGE, queue.name, [message], {}) for message in messages)
        )
        return {message.message_id: outcome for message, outcome in zip(messages, outcomes, strict=True)}

    async def _publish_copy(
        self, exchange: str, routing_key: str, messages: Sequence[BusMessage], headers: HeadersType
    ) -> Outcome:
        try:
            await self._send(await self._ready(), exchange, routing_key, messages, headers, mandatory=True)
        except BusUnavailable as error:
            return error
        return None

    def _packs(self, messages: Sequence[BusMessage]) -> list[list[BusMessage]]:
        return pack(messages) if self._joins else [[message] for message in messages]

    async def check(self) -> None:
        await self._ready()
        if self._ports.clock.monotonic() - self._last_confirm > PROBE_SECONDS:
            # A blocked connection (memory alarm) looks open; a round trip shows whether the broker still talks (M6).
            assert self._channel is not None
            try:
                async with within(CALL_TIMEOUT_SECONDS / 2):
                    await self._channel.get_exchange(EVENTS_EXCHANGE, ensure=True)
            except BROKER_ERRORS as error:
                await self._drop(self._connection)
                raise BusUnavailable("the broker does not answer") from error
        if self._unconfirmed:
            raise BusUnavailable("the broker does not confirm messages (it may be out of memory or disk)")

    async def close(self) -> None:
        if self._connection is not None:
            await close_quietly(self._connection)

    async def _send(
        self,
        channel: aiormq.Channel,
        exchange: str,
        routing_key: str,
        messages: Sequence[BusMessage],
        headers: HeadersType,
        *,
        mandatory: bool,
    ) -> None:
        """Returns when the broker has confirmed it, which also says that it was written; that is not waited for."""
        connection = self._connection
        body, properties = _outgoing(messages, headers)
        try:
            async with within(CALL_TIMEOUT_SECONDS):
                confirmation = await channel.basic_publish(
                    body,
                    exchange=exchange,
                    routing_key=routing_key,
                    properties=properties,
                    mandatory=mandatory,
                    wait=False,
                )
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

    async def _ready(self) -> aiormq.Channel:
        if (channel := self._usable()) is not None:
            return channel
        async with self._lock:
            if (channel := self._usable()) is not None:
                return channel
            now = self._ports.clock.monotonic()
            if now < self._not_before:
                raise BusUnavailable(self._refusal)
            try:
                return await self._open()
            except BROKER_ERRORS as error:
                self._failures += 1
                self._not_before = now + reconnect_wait(self._failures, self._ports)
                self._refusal = _explain(error)
                # A connection that opened no channel may be half dead and not know it (a broker that is starting or
                # stopping): the next try begins with a new one.
                await self._drop(self._connection)
                raise BusUnavailable(self._refusal) from error

    def _usable(self) -> aiormq.Channel | None:
        if self._channel is None or self._channel.is_closed:
            return None
        if self._connection is None or self._connection.is_closed:
            return None
        return self._open_channel

    async def _open(self) -> aiormq.Channel:
        if self._connection is None or self._connection.is_closed:
            self._connection = await connect(self._url, name=self._name)
        async with within(CALL_TIMEOUT_SECONDS):
            # Without on_return_raises an unroutable message looks published (M1).
            self._channel = await self._connection.channel(publisher_confirms=True, on_return_raises=True)
            await self._channel.get_exchange(EVENTS_EXCHANGE, ensure=True)
            channel = await self._channel.get_underlay_channel()
        assert isinstance(channel, aiormq.Channel)
        self._open_channel, self._failures = channel, 0
        return channel

    async def _drop(self, connection: AbstractConnection | None) -> None:
        """Close it; if another has already taken its place, that one stays."""
        if connection is self._connection:
            self._connection, self._channel, self._open_channel = None, None, None
        if connection is not None:
            await close_quietly(connection)


def _outgoing(messages: Sequence[BusMessage], headers: HeadersType) -> tuple[bytes, aiormq.spec.Basic.Properties]:
    """One message for all of them; raises MessageNotAccepted when it is one that no broker would take."""
    several = len(messages) > 1
    body = join([message.body for message in messages]) if several else messages[0].body
    if len(body) > BYTES_PER_MESSAGE:
        raise MessageNotAccepted("the event is too large for the broker")
    if several:
        headers = {**headers, COUNT_HEADER: len(messages)}
    return body, aiormq.spec.Basic.Properties(
        content_type=content_type_of(messages),
        headers=dict(headers),
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT.value,
        message_id=batch_id(messages) if several else messages[0].message_id,
        message_type=messages[0].type,
    )


def _flat(packs: Sequence[Sequence[BusMessage]]) -> list[BusMessage]:
    return [message for each in packs for message in each]


def _explain(error: BaseException) -> str:
    if isinstance(error, aiormq.exceptions.ChannelNotFoundEntity):
        return f"the exchange {EVENTS_EXCHANGE} does not exist; run `payrail topology apply`"
    return "the broker cannot be reached"
