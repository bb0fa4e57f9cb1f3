"""Consuming one queue of RabbitMQ: messages are taken apart into events, applied, and answered when all of them are.

What may be applied with others waits until the batch before it is through, and goes with whatever has come meanwhile;
what may not, or failed with others, goes to ``concurrency`` workers, so that a slow handler holds up no batch.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

import structlog
from aio_pika.abc import AbstractChannel, AbstractConnection
from aiormq.abc import DeliveredMessage
from pydantic import ValidationError

from shared.contracts.envelope import BATCH_CONTENT_TYPE, EventEnvelope
from shared.masking import storable_text
from shared.messaging.batches import COUNT_HEADER, Outcome, split
from shared.messaging.broker import BROKER_ERRORS, CALL_TIMEOUT_SECONDS, bounded, end_all, reconnect_wait, within
from shared.messaging.bus import EVENTS_PER_BATCH, BusMessage, Subscription
from shared.messaging.consumer import BATCHES_AT_ONCE, Consumer, Handled
from shared.messaging.publisher import INTERRUPTED_HEADER, RETRY_HEADER, Publisher
from shared.ports import Ports

log = structlog.get_logger()

PREFETCH_FOR_BATCHES = 32  # messages of up to EVENTS_PER_BATCH events and 128 KiB: at most 4 MiB a queue
DELIVERIES_BEFORE_SPLITTING = 3
"""How often a batch may come back unanswered before its events go their own ways. The broker counts deliveries of the
message, and what kills its consumer time and again would take its neighbours along to the broker's limit (Q12)."""

HELD_AT_MOST_SECONDS = 600.0
"""Events of a batch that are not begun by then travel by themselves from there on. A hundred slow ones would outlive
the broker's acknowledgement timeout (30 minutes), which ends the channel with everything else on it (failure Q14)."""


class Delivery:
    """One message of the broker and the events in it; answered once, when the last of them is through (Q16).

    ``arrived_at`` is a monotonic clock's.
    """

    def __init__(self, message: DeliveredMessage, *, arrived_at: float = 0.0) -> None:
        self._message = message
        self.arrived_at = arrived_at
        self.events = _events_of(message)
        self.is_batch = message.header.properties.content_type == BATCH_CONTENT_TYPE and len(self.events) > 1
        self._open = len(self.events)
        self._dead = False

    @property
    def keeps_coming_back(self) -> bool:
        count = (self._message.header.properties.headers or {}).get("x-delivery-count")
        return self.is_batch and isinstance(count, int) and count >= DELIVERIES_BEFORE_SPLITTING

    async def settle(self, *, dead: bool = False, events: int = 1) -> None:
        """``events`` of it are done with. None is ever given back: it would return at once, and the broker counts."""
        self._open -= events
        self._dead |= dead
        if self._open:
            return
        channel, tag = self._message.channel, self._message.delivery_tag
        assert tag is not None, "it was delivered"
        with suppress(*BROKER_ERRORS):  # the broker then delivers it again, and the inbox knows it
            if self._dead:  # the queue's dead-letter exchange takes it
                await bounded(channel.basic_reject(tag, requeue=False, wait=False))
            else:
                await bounded(channel.basic_ack(tag, wait=False))


@dataclass(slots=True)
class _Part:
    """An event, the delivery it came with, and its attempts where they have been counted already."""

    message: BusMessage
    delivery: Delivery
    counted: int = 0


_Answer = tuple[_Part, Handled | None, int]
"""What became of a part, and its attempts so far. None: it was not tried, and shall travel by itself from here on."""

_Item = TypeVar("_Item")


class _Waiting(Generic[_Item]):
    """What is taken many at a time, in the order of its arrival. An ``asyncio.Queue`` costs more than a part does."""

    def __init__(self) -> None:
        self._items: list[_Item] = []
        self._some = asyncio.Event()

    def add(self, *items: _Item) -> None:
        self._items += items
        self._some.set()

    async def take(self, most: int) -> list[_Item]:
        """What is there, as soon as there is anything."""
        while not self._items:
            self._some.clear()
            await self._some.wait()
        taken, self._items = self._items[:most], self._items[most:]
        return taken


@dataclass(slots=True)
class _Desk:
    """What came by one channel and is not answered. It goes with the channel: the broker delivers all of it again."""

    together: _Waiting[_Part] = field(default_factory=_Waiting)
    alone: asyncio.Queue[_Part] = field(default_factory=asyncio.Queue)
    uncopied: _Waiting[_Answer] = field(default_factory=_Waiting)


class QueueConsumer:
    """One queue on one channel."""

    def __init__(self, subscription: Subscription, publisher: Publisher, ports: Ports) -> None:
        self._subscription = subscription
        self._publisher = publisher
        self._ports = ports
        self._consumer = Consumer(subscription, ports.clock)

    async def run(self, connection: AbstractConnection, on_consuming: Callable[[], object]) -> None:
        concurrency = self._subscription.concurrency
        prefetch = concurrency * 2 if self._subscription.batch is None else max(concurrency * 2, PREFETCH_FOR_BATCHES)
        async with within(CALL_TIMEOUT_SECONDS * 2):
            channel: AbstractChannel = await connection.channel()
            await channel.set_qos(prefetch_count=prefetch)
            await channel.declare_queue(self._subscription.queue.name, passive=True)
        closed = asyncio.Event()
        channel.close_callbacks.add(lambda *_: closed.set())
        underlay = await channel.get_underlay_channel()
        # The broker cancels a consumer whose queue was deleted; the channel stays open and would hear nothing (Q8).
        underlay.on_consumer_cancel_callbacks.add(lambda *_: closed.set())
        desk = _Desk()

        async def arrive(message: DeliveredMessage) -> None:
            await self._arrive(Delivery(message, arrived_at=self._ports.clock.monotonic()), desk)

        try:
            async with within(CALL_TIMEOUT_SECONDS):
                # Not aio-pika's queue: it makes a message and a task of its own around each of these.
                await underlay.basic_consume(self._subscription.queue.name, arrive)
            on_consuming()
            async with asyncio.TaskGroup() as group:
                workers = [group.create_task(self._work_alone(desk)) for _ in range(concurrency)]
                workers.append(group.create_task(self._copy_again(desk)))
                if self._subscription.batch is not None:
                    workers += [group.create_task(self._work_together(desk)) for _ in range(BATCHES_AT_ONCE)]
                try:
                    await closed.wait()
                finally:
                    await end_all(workers)
            raise ConnectionError("the channel was closed")
        finally:
            with suppress(*BROKER_ERRORS):
                async with within(CALL_TIMEOUT_SECONDS):
                    await channel.close()

    async def _arrive(self, delivery: Delivery, desk: _Desk) -> None:
        parts = [_Part(message, delivery) for message in delivery.events]
        if delivery.keeps_coming_back:
            await self._take_apart(parts, desk)
            return
        takes = self._consumer.takes
        for part in parts:
            if takes(part.message):
                desk.together.add(part)
            else:
                desk.alone.put_nowait(part)

    def _is_held_too_long(self, part: _Part) -> bool:
        held_seconds = self._ports.clock.monotonic() - part.delivery.arrived_at
        return part.delivery.is_batch and held_seconds > HELD_AT_MOST_SECONDS

    async def _take_apart(self, parts: Sequence[_Part], desk: _Desk) -> None:
        log.warning("batch_taken_apart", queue=self._subscription.queue.name, events=len(parts))
        await self._answer([(part, None, part.counted) for part in parts], desk)

    async def _work_alone(self, desk: _Desk) -> None:
        while True:
            part = await desk.alone.get()
            if self._is_held_too_long(part):
                await self._take_apart([part], desk)
                continue
            result, attempts = await self._consumer.handle(part.message, counted=part.counted)
            await self._answer([(part, result, attempts)], desk)

    async def _work_together(self, desk: _Desk) -> None:
        while True:
            parts = await desk.together.take(EVENTS_PER_BATCH)
            if any(self._is_held_too_long(part) for part in parts):
                for part in parts:
                    desk.alone.put_nowait(part)
                continue
            verdicts = await self._consumer.handle_batch([part.message for part in parts])
            answers: list[_Answer] = []
            for part, (result, attempts) in zip(parts, verdicts, strict=True):
                if result is None:
                    part.counted = attempts
                    desk.alone.put_nowait(part)
                else:
                    answers.append((part, result, attempts))
            await self._answer(answers, desk)

    async def _answer(self, answers: Sequence[_Answer], desk: _Desk) -> None:
        """A part is answered when it is applied, or when its copy is safe in a delay queue or a dead-letter queue; its
        delivery with the last part. What cannot be copied now is tried again beside everything else."""
        if uncopied := await self._settle(answers):
            desk.uncopied.add(*uncopied)

    async def _copy_again(self, desk: _Desk) -> None:
        """While the publisher's connection is away and this channel lives. Deliveries that were given back meanwhile
        would return at once, and after BROKER_DELIVERY_LIMIT of them, a blink, the broker gives up on them."""
        failures = 0
        while True:
            answers = await desk.uncopied.take(EVENTS_PER_BATCH)
            failures += 1
            log.warning("copies_wait_for_the_broker", queue=self._subscription.queue.name, failures=failures)
            await self._ports.clock.sleep(reconnect_wait(failures, self._ports))
            uncopied = await self._settle(answers)
            desk.uncopied.add(*uncopied)
            failures = failures if uncopied else 0

    async def _settle(self, answers: Sequence[_Answer]) -> list[_Answer]:
        """Copy what needs it and answer for what is through; returns the others."""
        are_done = all(result is Handled.DONE for _, result, _ in answers)
        outcomes = {} if are_done else await self._copied(answers)
        uncopied: list[_Answer] = []
        through: dict[Delivery, int] = defaultdict(int)
        for part, result, attempts in answers:
            if outcomes.get(part.message.message_id) is not None and result is not Handled.DONE:
                uncopied.append((part, result, attempts))
            elif result is Handled.DEAD and not part.delivery.is_batch:
                await part.delivery.settle(dead=True)
            else:
                through[part.delivery] += 1
        for delivery, events in through.items():
            await delivery.settle(events=events)
        return uncopied

    async def _copied(self, answers: Sequence[_Answer]) -> dict[str, Outcome]:
        """Outcomes by message id, of those that need a copy; a message that dies by itself needs none."""
        queue, outcomes = self._subscription.queue, dict[str, Outcome]()
        if retries := [(part.message, attempts) for part, result, attempts in answers if result is Handled.RETRY]:
            outcomes |= await self._publisher.publish_retries(queue, retries)
        if dead := [part.message for part, result, _ in answers if result is Handled.DEAD and part.delivery.is_batch]:
            outcomes |= await self._publisher.publish_dead(queue, dead)
        if single := [part.message for part, result, _ in answers if result is None]:
            outcomes |= await self._publisher.publish_singly(queue, single)
        return outcomes


_NO_ENVELOPE = (ValidationError, ValueError, RecursionError)


def _events_of(delivery: DeliveredMessage) -> list[BusMessage]:
    """Never empty: what cannot be taken apart is one message, which is then found to be no event. An empty array is
    that as well."""
    about = delivery.header.properties
    headers = about.headers or {}
    interrupted = bool(delivery.redelivered) or bool(headers.get(INTERRUPTED_HEADER))
    whole = BusMessage(
        message_id=storable_text(about.message_id or "") or _hash_id(delivery.body),
        type=storable_text(about.message_type or delivery.routing_key or ""),
        subject="",
        body=delivery.body,
        redelivered=interrupted or RETRY_HEADER in headers,
        interrupted=interrupted,
    )
    if about.content_type != BATCH_CONTENT_TYPE:
        return [_read(whole)]
    bodies = split(delivery.body, headers.get(COUNT_HEADER))
    return [_part_of(whole, body) for body in bodies] if bodies else [whole]


def _read(message: BusMessage) -> BusMessage:
    with suppress(*_NO_ENVELOPE):
        return replace(message, envelope=EventEnvelope.from_json(message.body))
    return message


def _part_of(whole: BusMessage, body: bytes) -> BusMessage:
    """Known by its envelope; what is none is known by its bytes, because one id for all would make them duplicates."""
    try:
        envelope = EventEnvelope.from_json(body)
    except _NO_ENVELOPE:
        return replace(whole, message_id=_hash_id(body), body=body)
    type_ = whole.type if envelope.type == whole.type else storable_text(envelope.type)
    return BusMessage(storable_text(envelope.id), type_, "", body, whole.redelivered, whole.interrupted, envelope)


def _hash_id(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"
