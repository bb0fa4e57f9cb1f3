"""Whether a pooled connection is still good, found out without a round trip wherever that is possible.

Asking the server before each transaction (``pool_pre_ping``) costs three round trips: BEGIN, an empty statement,
ROLLBACK. But a server that stops or restarts closes its sockets, and that can be seen here. What cannot be seen is a
peer that has vanished without a word; so a connection that was idle for long is asked, and so is every one that was
last used before something went wrong.
"""

from __future__ import annotations

import select
from typing import Any

import asyncpg
from sqlalchemy import Engine, event
from sqlalchemy.exc import DisconnectionError, InvalidatePoolError
from sqlalchemy.util import await_only

from shared.clock import Clock

TRUSTED_SECONDS = 5.0
"""How long a connection that worked is believed to work still, when there was no trouble meanwhile."""

PING_SECONDS = 1.5
"""How long a connection may take to answer to nothing at all; then it is taken for gone, and its neighbours with it."""

_LAST_USE = "payrail_last_use"


class Liveness:
    """Looks at each connection when it leaves the pool; a dead one is replaced before anybody sees it."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._clock = clock
        self._doubts = 0
        event.listen(engine.pool, "checkout", self._leaves)
        event.listen(engine.pool, "checkin", self._returns)
        event.listen(engine.pool, "close", self._ends)

    def doubt(self) -> None:
        """A connection has failed: those that were last used before this moment are asked before they are used."""
        self._doubts += 1

    def _leaves(self, connection: Any, record: Any, _proxy: Any) -> None:
        """Raises DisconnectionError, on which the pool replaces this connection, or all of them."""
        last_use = record.info.get(_LAST_USE)
        if last_use is None:
            return  # it was made this moment
        driver = connection.driver_connection
        if driver.is_closed():
            raise DisconnectionError("the server has closed this connection")
        used_at, doubts = last_use
        is_trusted = doubts == self._doubts and self._clock.monotonic() - used_at <= TRUSTED_SECONDS
        if is_trusted and not _has_something_to_say(driver):
            return
        try:
            await_only(driver.fetchrow(";", timeout=PING_SECONDS))
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            self.doubt()
            driver.terminate()
            raise InvalidatePoolError("a connection of this pool does not answer") from error

    def _returns(self, _connection: Any, record: Any) -> None:
        record.info[_LAST_USE] = (self._clock.monotonic(), self._doubts)

    def _ends(self, connection: Any, record: Any) -> None:
        """One that was last used before trouble is dropped, because a peer that has vanished answers no good-bye, and
        each would be waited for."""
        last_use = record.info.get(_LAST_USE)
        if last_use is not None and last_use[1] != self._doubts:
            connection.driver_connection.terminate()


def _has_something_to_say(driver: Any) -> bool:
    """A server says nothing to an idle connection, except good-bye; the loop may not have come to reading it yet."""
    transport = driver._transport
    sock = None if transport is None else transport.get_extra_info("socket")
    if sock is None:
        return True
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    return bool(poll.poll(0))
