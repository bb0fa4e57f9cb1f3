"""A unit of work: one transaction, with the repositories that take part in it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Generic, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from shared.db.inbox import Inbox
from shared.db.outbox import OUTBOX_CHANNEL, Outbox
from shared.db.session import Database
from shared.ports import Ports


class Transaction:
    """One open transaction. A service's own class adds its repositories.

    ``hint(channel, payload)`` wakes waiters after the commit, and only then.
    """

    def __init__(self, connection: AsyncConnection, *, service: str, ports: Ports) -> None:
        self.connection = connection
        self.outbox = Outbox(connection, service=service, ports=ports)
        self.inbox = Inbox(connection)
        self.hints: list[tuple[str, str]] = []

    def hint(self, channel: str, payload: str = "") -> None:
        self.hints.append((channel, payload))


T = TypeVar("T", bound=Transaction)


class UnitOfWork(Generic[T]):
    """``async with uow() as tx: ...`` commits on leaving and then wakes the relay and other waiters."""

    def __init__(self, database: Database, build: Callable[[AsyncConnection], T]) -> None:
        self.database = database
        self._build = build

    def __call__(self) -> AbstractAsyncContextManager[T]:
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[T]:
        async with self.database.begin() as connection:
            transaction = self._build(connection)
            yield transaction
        if transaction.outbox.added:
            self.database.hint(OUTBOX_CHANNEL, one_is_enough=True)
        for channel, payload in transaction.hints:
            self.database.hint(channel, payload)
