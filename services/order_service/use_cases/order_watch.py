"""Wakes whoever waits for an order: hints of this process and, by LISTEN/NOTIFY, of every other replica.

A hint can be lost, so each process also looks for itself: one query for all orders that are watched there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from services.order_service.use_cases.dependencies import Dependencies

POLL_SECONDS = 2.0


class Changes:
    """One waiter's view: cleared before it reads, so that a change during the reading is not missed. ``seen`` is the
    version that it has read."""

    def __init__(self, stopping: asyncio.Event) -> None:
        self.seen: int | None = None
        self._event = asyncio.Event()
        self._stopping = stopping

    def wake(self) -> None:
        self._event.set()

    def clear(self) -> None:
        if not self._stopping.is_set():
            self._event.clear()

    async def wait(self, seconds: float) -> None:
        """Until woken, or until the time is up."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
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

    @property
    def watched(self) -> list[str]:
        return sorted(self._waiters)

    def compare(self, versions: Mapping[str, int]) -> None:
        """Wake those who have seen another version of their order than these, or none."""
        for order_id, version in versions.items():
            for changes in self._waiters.get(order_id, set()):
                if changes.seen != version:
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


async def look_for_missed_changes(watch: OrderWatch, deps: Dependencies) -> bool:
    """One round: what hints did not tell. There is never more to do at once."""
    watched = watch.watched
    if watched:
        async with deps.uow() as tx:
            versions = await tx.orders.versions_of(watched)
        watch.compare(versions)
    return False
