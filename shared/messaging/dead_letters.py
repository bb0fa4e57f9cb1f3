"""The broker's copies of messages that were given up on: cleared once their inbox says that they are applied."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from shared.contracts.topology import Queue
from shared.messaging.broker import connect
from shared.messaging.bus import BusMessage
from shared.messaging.deliveries import Delivery

CLEAR_TIMEOUT_SECONDS = 60.0
MOST_MESSAGES = 10_000

IsDone = Callable[[str], Awaitable[bool]]
Keep = Callable[[BusMessage], Awaitable[None]]


async def clear_dead_letters(url: str, queue: Queue, *, is_done: IsDone) -> int:
    """Acknowledge the dead letters of ``queue`` that have been applied meanwhile; the others stay. Returns how many.

    The inbox table is the truth and the dead-letter queue a copy for the broker's own tools and alarms, so a crash in
    the middle leaves copies behind and nothing else.
    """

    async def all_done(delivery: Delivery) -> bool:
        for event in delivery.events:
            if not await is_done(event.message_id):
                return False
        return True

    return await _look_through(url, queue, all_done)


async def keep_dead_letters(url: str, queue: Queue, *, keep: Keep) -> None:
    """Show ``keep`` every event that lies there. Those that the broker itself stopped delivering, singly or as a batch,
    are in no inbox table as given up on, and a redrive reads only that."""

    async def kept(delivery: Delivery) -> bool:
        for event in delivery.events:
            await keep(event)
        return False

    await _look_through(url, queue, kept)


async def _look_through(url: str, queue: Queue, may_go: Callable[[Delivery], Awaitable[bool]]) -> int:
    """Acknowledge the letters that ``may_go``; returns how many."""
    staying: list[int] = []
    cleared = 0
    async with asyncio.timeout(CLEAR_TIMEOUT_SECONDS):
        connection = await connect(url, name="payrail-dead-letters")
        async with connection:
            channel = await (await connection.channel()).get_underlay_channel()
            await channel.queue_declare(queue.dead_letter_queue, passive=True)
            for _ in range(MOST_MESSAGES):
                message = await channel.basic_get(queue.dead_letter_queue)
                if (tag := message.delivery_tag) is None:
                    break
                if await may_go(Delivery(message)):
                    await channel.basic_ack(tag)
                    cleared += 1
                else:
                    staying.append(tag)
            for tag in staying:
                await channel.basic_nack(tag, requeue=True)
    return cleared
