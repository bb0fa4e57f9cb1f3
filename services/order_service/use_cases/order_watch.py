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
    """One waiter's view: cleared before it reads, so that a change during the reading is not missed.

    A hint that names a version which the waiter has read by then wakes nobody: each comes at least twice to the process
    that made the change.
    """

    def __init__(self, stopping: asyncio.Event) -> None:
        self._seen: int | None = None
        self._hinted = 0
        self._is_unsure = False
        self._event = asyncio.Event()
        self._stopping = stopping

    @property
    def seen(self) -> int | None:
        """The version that it has read."""
        return self._seen

    @seen.setter
    def seen(self, version: int) -> None:
        self._seen = version
        if not self._is_unsure and self._hinted <= version:
            self.clear()

    @property
    def woken(self) -> bool:
        return self._event.is_set()

    def wake(self, version: int | None = None) -> None:
        """None: there may be another version."""
        if version is None:
            self._is_unsure = True
        elif self._seen is not None and version <= self._seen:
            return
        else:
            self._hinted = max(self._hinted, version)
        self._event.set()

    def clear(self) -> None:
        if not self._stopping.is_set():
            self._is_unsure = False
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

    def on_hint(self, payload: str) -> None:
        """``<order>:<version>``, or several with spaces between. An empty one means that hints may have been missed:
        everybody looks."""
        if not payload:
            for changes in set().union(*self._waiters.values()):
                changes.wake()
        if not self._waiters:
            return  # most processes, most of the time: nobody here has a page open
        for hint in payload.split():
            order_id, _, version = hint.partition(":")
            for changes in self._waiters.get(order_id, ()):
                changes.wake(int(version) if version else None)

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
