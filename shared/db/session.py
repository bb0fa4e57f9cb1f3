"""The connection to PostgreSQL: a bounded pool, bounded waits, one transaction per unit of work, and wake-up hints.

Every wait has a limit, because neither asyncpg nor SQLAlchemy bounds them all by default (field notes M13, M17).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import asyncpg
from sqlalchemy import text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from shared.db.listener import Listener
from shared.errors import DatabaseUnavailable
from shared.unit_of_work import IN_TRANSACTION

CONNECT_TIMEOUT_SECONDS = 5.0
POOL_TIMEOUT_SECONDS = 2.0  # a request that cannot get a connection by then answers 503 (failure PG6)
LOCK_TIMEOUT_SECONDS = 5.0
IDLE_IN_TRANSACTION_TIMEOUT_SECONDS = 60.0


_NOTIFY = text(
    """
    SELECT pg_notify(channel, payload)
    FROM unnest(CAST(:channels AS text[]), CAST(:payloads AS text[])) AS hint(channel, payload)
    """
)


class Database:
    """One service's database. ``begin()`` is the only way to talk to it."""

    def __init__(
        self,
        url: str,
        *,
        schema: str,
        application_name: str,
        pool_size: int = 5,
        max_overflow: int = 5,
        statement_timeout_seconds: float = 10.0,
        lock_timeout_seconds: float = LOCK_TIMEOUT_SECONDS,
        pool_timeout_seconds: float = POOL_TIMEOUT_SECONDS,
    ) -> None:
        self.schema = schema
        self.url = async_url(url)
        server_settings = {
            "search_path": schema,
            "application_name": application_name,
            "statement_timeout": f"{int(statement_timeout_seconds * 1000)}",
            "lock_timeout": f"{int(lock_timeout_seconds * 1000)}",
            "idle_in_transaction_session_timeout": f"{int(IDLE_IN_TRANSACTION_TIMEOUT_SECONDS * 1000)}",
            "timezone": "UTC",
        }
        self.engine: AsyncEngine = create_async_engine(
            self.url,
            pool_size=pool_size,
            max_overflow=max_overflow,
            pool_timeout=pool_timeout_seconds,
            pool_pre_ping=True,  # a restarted server costs no request an error (field note M16)
            connect_args={
                "timeout": CONNECT_TIMEOUT_SECONDS,
                "command_timeout": statement_timeout_seconds + 2,
                "server_settings": server_settings,
            },
        )
        self._pool_timeout_seconds = pool_timeout_seconds
        self.listener = Listener(self._listening_connection, prefix=schema)
        self._hints: dict[tuple[str, str], None] = {}
        self._flushing: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """One transaction: commits on leaving, rolls back on an exception.

        Raises DatabaseUnavailable when the server cannot be reached, is overloaded or breaks off. A COMMIT that broke
        off may have been done (field note M14), so whatever runs in here must be safe to run again.
        """
        with _translated_errors():
            async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS + self._pool_timeout_seconds):
                connection = await self.engine.connect()
            try:
                async with connection.begin():
                    token = IN_TRANSACTION.set(True)
                    try:
                        yield connection
                    finally:
                        IN_TRANSACTION.reset(token)
            finally:
                await asyncio.shield(connection.close())

    async def ping(self) -> None:
        """Raises DatabaseUnavailable."""
        async with self.begin() as connection:
            await connection.execute(text("SELECT 1"))

    def hint(self, channel: str, payload: str = "") -> None:
        """Wake whoever waits on ``channel``, here and in other processes. Call it after the commit.

        It is a hint and may be lost: every waiter also polls. It travels in a transaction of its own, shared by all
        hints that arrive meanwhile, because NOTIFY takes a server-wide lock at commit that the money's transactions
        must not queue for.
        """
        self.listener.deliver(channel, payload)
        self._hints[(channel, payload)] = None
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.create_task(self._flush_hints(), name=f"{self.schema}-hints")

    async def dispose(self) -> None:
        if self._flushing is not None:
            await asyncio.wait([self._flushing], timeout=1)
            self._flushing.cancel()
        await self.engine.dispose()

    async def _flush_hints(self) -> None:
        while self._hints:
            batch, self._hints = list(self._hints), {}
            values = {
                "channels": [f"{self.schema}_{channel}" for channel, _ in batch],
                "payloads": [payload for _, payload in batch],
            }
            try:
                async with self.begin() as connection:
                    await connection.execute(_NOTIFY, values)
            except DatabaseUnavailable:
                return  # the waiters poll

    async def _listening_connection(self) -> asyncpg.Connection:
        arguments = self.engine.dialect.create_connect_args(make_url(self.url))[1]
        for name in ("prepared_statement_cache_size", "prepared_statement_name_func", "async_fallback"):
            arguments.pop(name, None)
        settings = {"application_name": f"{self.schema}-listener"}
        return await asyncpg.connect(**arguments, timeout=CONNECT_TIMEOUT_SECONDS, server_settings=settings)


def async_url(url: str) -> str:
    """``postgres://`` and ``postgresql://`` URLs as SQLAlchemy's asyncpg dialect wants them."""
    parsed: URL = make_url(url)
    return parsed.set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)


_CONTENTION = ("40001", "40P01", "55P03", "57014")  # serialization, deadlock, lock timeout, statement timeout
_SERVER_TROUBLE = ("08", "53", "57P")  # connection, resources (disk full), shutdown


@contextmanager
def _translated_errors() -> Iterator[None]:
    try:
        yield
    except (PoolTimeout, TimeoutError, OSError, asyncpg.InterfaceError, asyncpg.PostgresConnectionError) as error:
        raise DatabaseUnavailable(retry_after_seconds=2) from error
    except asyncpg.PostgresError as error:
        if _is_trouble(error.sqlstate):
            raise DatabaseUnavailable(retry_after_seconds=2) from error
        raise
    except DBAPIError as error:
        if error.connection_invalidated or _is_trouble(getattr(error.orig, "sqlstate", None)):
            raise DatabaseUnavailable(retry_after_seconds=2) from error
        raise


def _is_trouble(sqlstate: str | None) -> bool:
    return sqlstate is not None and (sqlstate in _CONTENTION or sqlstate.startswith(_SERVER_TROUBLE))
