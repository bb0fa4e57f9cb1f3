"""Taking turns on one payment within a process, without a database connection in hand.

A payment's row lock decides between processes. But a hundred requests about one payment, each waiting for that lock
with a connection of its own, would leave no connection for anybody else's payment. So they queue here first.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary


class Turns:
    """First come, first served, per name. Nothing is kept of a name that nobody waits for."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def of(self, name: str) -> AsyncIterator[None]:
        lock = self._locks.get(name)
        if lock is None:
            lock = self._locks[name] = asyncio.Lock()
        async with lock:
            yield
