"""Declares the broker's topology: what ``payrail topology apply`` runs, and nothing else does."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import aio_pika
from aio_pika.abc import AbstractChannel

from shared.contracts.topology import (
    BROKER_DELIVERY_LIMIT,
    DEAD_EXCHANGE,
    EVENTS_EXCHANGE,
    QUEUES,
    Queue,
)
from shared.messaging.rabbitmq import connect

APPLY_TIMEOUT_SECONDS = 60.0


async def apply_topology(url: str, queues: Iterable[Queue] = tuple(QUEUES.values())) -> list[str]:
    """Declare exchanges, queues and bindings; returns the names of the queues. Repeating it changes nothing.

    Raises aio_pika.exceptions.ChannelPreconditionFailed when a queue exists with other arguments: drain and delete it
    first, nothing is ever deleted here.
    """
    declared: list[str] = []
    async with asyncio.timeout(APPLY_TIMEOUT_SECONDS):
        connection = await connect(url, name="payrail-topology")
        async with connection:
            channel = await connection.channel()
            await channel.declare_exchange(EVENTS_EXCHANGE, aio_pika.ExchangeType.TOPIC, durable=True)
            await channel.declare_exchange(DEAD_EXCHANGE, aio_pika.ExchangeType.DIRECT, durable=True)
            for queue in queues:
                declared += await _declare(channel, queue)
    return declared


async def _declare(channel: AbstractChannel, queue: Queue) -> list[str]:
    main = await channel.declare_queue(
        queue.name,
        durable=True,
        arguments={
            "x-queue-type": "quorum",  # replicated; survives the loss of a node
            "x-delivery-limit": BROKER_DELIVERY_LIMIT,  # the backstop behind our own count
            "x-dead-letter-exchange": DEAD_EXCHANGE,
            "x-dead-letter-routing-key": queue.name,
            "x-dead-letter-strategy": "at-least-once",  # the broker keeps a message until its dead letter is confirmed
            "x-overflow": "reject-publish",  # what at-least-once needs; the outbox keeps what is refused
        },
    )
    for type_ in queue.types:
        await main.bind(EVENTS_EXCHANGE, routing_key=type_)
    dead = await channel.declare_queue(queue.dead_letter_queue, durable=True, arguments={"x-queue-type": "quorum"})
    await dead.bind(DEAD_EXCHANGE, routing_key=queue.name)
    names = [queue.name, queue.dead_letter_queue]
    for delay in queue.retry_delays_seconds:
        retry = await channel.declare_queue(
            queue.retry_queue(delay),
            durable=True,
            arguments={
                "x-queue-type": "quorum",
                "x-message-ttl": int(delay * 1000),
                "x-dead-letter-exchange": "",  # the default exchange: straight back to the one consumer that failed
                "x-dead-letter-routing-key": queue.name,
                "x-dead-letter-strategy": "at-least-once",
                "x-overflow": "reject-publish",
            },
        )
        names.append(retry.name)
    return names
