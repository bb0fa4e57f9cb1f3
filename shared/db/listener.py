"""LISTEN on one connection per process, with reconnection; callbacks get hints, never facts."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

import asyncpg
import structlog

from shared.clock import Clock, SystemClock
from shared.randomness import Randomness, SystemRandomness

log = structlog.get_logger()

Callback = Callable[[str], None]

RECONNECT_WAIT_SECONDS = 1.0
LIVENESS_CHECK_SECONDS = 15.0
PROBE_TIMEOUT_SECONDS = 5.0

_SIGNED = re.compile("@([0-9a-f]{16}):")


class Listener:
    """Hints from this and other processes, by channel.

    A hint can be lost while the connection is down, so a subscriber also polls; on every (re)connection each
    subscriber is called once with an empty payload, to look for what it may have missed.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[asyncpg.Connection]],
        *,
        prefix: str,
        clock: Clock | None = None,
        randomness: Randomness | None = None,
    ) -> None:
        self._connect = connect
        self._prefix = prefix
        self._clock = clock or SystemClock()
        self._callbacks: dict[str, list[Callback]] = {}
        self._sender = (randomness or SystemRandomness()).token_bytes(8).hex()

    @contextmanager
    def subscribe(self, channel: str, callback: Callback) -> Iterator[None]:
        callbacks = self._callbacks.setdefault(channel, [])
        callbacks.append(callback)
        try:
            yield
        finally:
            callbacks.remove(callback)

    def deliver(self, channel: str, payload: str) -> bool:
        """Whether anybody here has heard it."""
        callbacks = list(self._callbacks.get(channel, ()))
        for callback in callbacks:
            callback(payload)
        return bool(callbacks)

    def signed(self, payload: str) -> str:
        """What a notification of this process carries: it was delivered here when it was given, so its echo would only
        wake everybody again. Not told by the backend that sends it, because its number is another's after a restart."""
        return f"@{self._sender}:{payload}"

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

    def _on_notification(self, _connection: object, _server_pid: int, channel: str, payload: str) -> None:
        signed = _SIGNED.match(payload)  # what nobody has signed comes from an older release
        if signed is None or signed[1] != self._sender:
            self.deliver(
                channel.removeprefix(f"{self._prefix}_"), payload if signed is None else payload[signed.end() :]
            )
