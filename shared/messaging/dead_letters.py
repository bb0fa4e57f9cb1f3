"""The broker's copies of messages that were given up on: cleared once their inbox says that they are applied."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aio_pika.abc import AbstractIncomingMessage

from shared.contracts.topology import Queue
from shared.messaging.rabbitmq import connect

CLEAR_TIMEOUT_SECONDS = 60.0
MOST_MESSAGES = 10_000

IsDone = Callable[[str], Awaitable[bool]]


async def clear_dead_letters(url: str, queue: Queue, *, is_done: IsDone) -> int:
    """Acknowledge the dead letters of ``queue`` that have been applied meanwhile; the others stay. Returns how many.

    The inbox table is the truth and the dead-letter queue a copy for the broker's own tools and alarms, so a crash in
    the middle leaves copies behind and nothing else.
    """
    kept: list[AbstractIncomingMessage] = []
    cleared = 0
    async with asyncio.timeout(CLEAR_TIMEOUT_SECONDS):
        connection = await connect(url, name="payrail-dead-letters")
        async with connection:
            channel = await connection.channel()
            dead = await channel.declare_queue(queue.dead_letter_queue, passive=True)
            for _ in range(MOST_MESSAGES):
                message = await dead.get(no_ack=False, fail=False)
                if message is None:
                    break
                if message.message_id is not None and await is_done(message.message_id):
                    await message.ack()
                    cleared += 1
                else:
                    kept.append(message)
            for message in kept:
                await message.nack(requeue=True)
    return cleared
