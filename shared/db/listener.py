"""LISTEN on one connection per process, with reconnection; callbacks get hints, never facts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

import asyncpg
import structlog

from shared.clock import Clock, SystemClock

log = structlog.get_logger()

Callback = Callable[[str], None]

RECONNECT_WAIT_SECONDS = 1.0
LIVENESS_CHECK_SECONDS = 15.0
PROBE_TIMEOUT_SECONDS = 5.0


class Listener:
    """Hints from this and other processes, by channel.

    A hint can be lost while the connection is down, so a subscriber also polls; on every (re)connection each
    subscriber is called once with an empty payload, to look for what it may have missed.
    """

    def __init__(
        self, connect: Callable[[], Awaitable[asyncpg.Connection]], *, prefix: str, clock: Clock | None = None
    ) -> None:
        self._connect = connect
        self._prefix = prefix
        self._clock = clock or SystemClock()
        self._callbacks: dict[str, list[Callback]] = {}

    @contextmanager
    def subscribe(self, channel: str, callback: Callback) -> Iterator[None]:
        callbacks = self._callbacks.setdefault(channel, [])
        callbacks.append(callback)
        try:
            yield
        finally:
            callbacks.remove(callback)

    def deliver(self, channel: str, payload: str) -> None:
        for callback in list(self._callbacks.get(channel, ())):
            callback(payload)

    async def run(self, channels: tuple[str, ...]) -> None:
        """Listens until cancelled; outlives restarts of the server."""
        while True:
            try:
                connection = await self._connect()
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                log.warning("listener_cannot_connect", error=type(error).__name__)
                await self._clock.sleep(RECONNECT_WAIT_SECONDS)
                continue
            try:
                await self._listen(connection, channels)
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                log.warning("listener_lost_its_connection", error=type(error).__name__)
            finally:
                with suppress(Exception):
                    connection.terminate()

    async def _listen(self, connection: asyncpg.Connection, channels: tuple[str, ...]) -> None:
        closed = asyncio.Event()
        connection.add_termination_listener(lambda _: closed.set())
        for channel in channels:
            await connection.add_listener(f"{self._prefix}_{channel}", self._on_notification)
            self.deliver(channel, "")
        while not closed.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(LIVENESS_CHECK_SECONDS):
                    await closed.wait()
                    return
            await connection.fetchval("SELECT 1", timeout=PROBE_TIMEOUT_SECONDS)

    def _on_notification(self, _connection: object, _pid: int, channel: str, payload: str) -> None:
        self.deliver(channel.removeprefix(f"{self._prefix}_"), payload)
