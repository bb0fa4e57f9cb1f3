"""Connections to RabbitMQ, and the limits of every call on them.

Every broker call is bounded by ``within``, because aio-pika's own timeouts do not bound the wait for a reconnection
(field note 2). Plain connections in loops of ours replace aio-pika's robust ones: those re-declare what they used, and
a queue that was changed meanwhile stops them silently (M8).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Collection
from contextlib import asynccontextmanager, suppress

import aio_pika
import aiormq
from aio_pika.abc import AbstractConnection

from shared.ports import Ports

HEARTBEAT_SECONDS = 5  # a dead peer is noticed within a recovery budget of 30 s only below 8 (field note M9)
CONNECT_TIMEOUT_SECONDS = 10.0
CALL_TIMEOUT_SECONDS = 5.0
RECONNECT_FIRST_WAIT_SECONDS = 0.2
RECONNECT_MAX_WAIT_SECONDS = 5.0
CANCEL_AGAIN_SECONDS = 1.0
ALMOST_OPEN_SECONDS = 1.0

BROKER_ERRORS = (
    aio_pika.exceptions.AMQPError,
    aiormq.exceptions.AMQPError,
    ConnectionError,
    TimeoutError,
    OSError,
    RuntimeError,  # aiormq's "writer is closed" and ChannelInvalidStateError
)


async def connect(url: str, *, name: str) -> AbstractConnection:
    """Whoever is cancelled in here leaves no connection behind: a cancellation that meets the end of the handshake
    would lose the one that has just opened, with its tasks, to the garbage collector."""
    opening = asyncio.ensure_future(
        aio_pika.connect(
            url,
            heartbeat=HEARTBEAT_SECONDS,
            client_properties={"connection_name": name},
            timeout=CONNECT_TIMEOUT_SECONDS,
        )
    )
    try:
        async with within(CONNECT_TIMEOUT_SECONDS):
            return await asyncio.shield(opening)
    except BaseException:
        await asyncio.shield(_undo(opening))
        raise


async def _undo(opening: asyncio.Future[aio_pika.Connection]) -> None:
    """Not cancelled at once: what is about to open is easier to close than what was cut off half open."""
    await asyncio.wait([opening], timeout=ALMOST_OPEN_SECONDS)
    opening.cancel()
    await asyncio.wait([opening])
    if not opening.cancelled() and opening.exception() is None:
        await close_quietly(opening.result())


@asynccontextmanager
async def within(seconds: float) -> AsyncIterator[None]:
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


async def bounded(call: Awaitable[object]) -> None:
    async with within(CALL_TIMEOUT_SECONDS):
        await call


async def end_all(tasks: Collection[asyncio.Task[None]]) -> None:
    """Cancel them until all are done: aiormq may lose a cancellation (see ``within``), and that task would go on for
    ever while whoever waits for it does."""
    while waiting := [task for task in tasks if not task.done()]:
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting, timeout=CANCEL_AGAIN_SECONDS)


async def close_quietly(connection: AbstractConnection) -> None:
    with suppress(*BROKER_ERRORS):
        async with within(CALL_TIMEOUT_SECONDS):
            await connection.close()


def reconnect_wait(failures: int, ports: Ports) -> float:
    ceiling: float = min(RECONNECT_MAX_WAIT_SECONDS, RECONNECT_FIRST_WAIT_SECONDS * 2 ** min(failures, 10))
    return ceiling * ports.randomness.uniform(0.5, 1.0)
