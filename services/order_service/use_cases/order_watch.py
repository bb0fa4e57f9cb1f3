"""Wakes whoever waits for an order: hints of this process and, by LISTEN/NOTIFY, of every other replica."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

POLL_SECONDS = 2.0
"""A hint can be lost; a waiter looks for itself this often."""


class Changes:
    """One waiter's view: cleared before it reads, so that a change during the reading is not missed."""

    def __init__(self, stopping: asyncio.Event) -> None:
        self._event = asyncio.Event()
        self._stopping = stopping

    def wake(self) -> None:
        self._event.set()

    def clear(self) -> None:
        if not self._stopping.is_set():
            self._event.clear()

    async def wait(self, seconds: float) -> None:
        """Until woken, or until it is time to look anyway."""
        with suppress(TimeoutError):
            async with asyncio.timeout(min(seconds, POLL_SECONDS)):
                await self._event.wait()


class OrderWatch:
    """One per process. Waiters register by order; nothing is kept for an order that nobody watches."""

    def __init__(self) -> None:
        self._waiters: dict[str, set[Changes]] = {}
        self._stopping = asyncio.Event()

    @property
    def is_stopping(self) -> bool:
        return self._stopping.is_set()

    def on_hint(self, order_id: str) -> None:
        """An empty payload means that hints may have been missed: everybody looks."""
        woken = self._waiters.get(order_id, set()) if order_id else set().union(*self._waiters.values())
        for changes in woken:
            changes.wake()

    def stop(self) -> None:
        """End all waits and streams, so that the server can shut down without cutting anybody off in mid-answer."""
        self._stopping.set()
        self.on_hint("")

    @contextmanager
    def subscription(self, order_id: str) -> Iterator[Changes]:
        changes = Changes(self._stopping)
        waiters = self._waiters.setdefault(order_id, set())
        waiters.add(changes)
        try:
            yield changes
        finally:
            waiters.discard(changes)
            if not waiters:
                self._waiters.pop(order_id, None)
