"""The connection to PostgreSQL: a bounded pool, bounded waits, one transaction per unit of work, and wake-up hints.

Every wait has a limit, because neither asyncpg nor SQLAlchemy bounds them all by default (field notes M13, M17).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import asyncpg
from asyncpg.transaction import Transaction
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import PoolProxiedConnection
from sqlalchemy.util import greenlet_spawn

from shared.clock import Clock, SystemClock
from shared.db.listener import Listener
from shared.db.liveness import PING_SECONDS, Liveness
from shared.errors import DatabaseContended, DatabaseUnavailable
from shared.unit_of_work import IN_TRANSACTION

CONNECT_TIMEOUT_SECONDS = 5.0
POOL_TIMEOUT_SECONDS = 2.0  # a request that cannot get a connection by then answers 503 (failure PG6)
LOCK_TIMEOUT_SECONDS = 5.0
IDLE_IN_TRANSACTION_TIMEOUT_SECONDS = 60.0

_NOTIFY = "SELECT pg_notify(channel, payload) FROM unnest($1::text[], $2::text[]) AS hint (channel, payload)"

_BROKEN = (
    OSError,  # TimeoutError is one of them
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # used between the server's good-bye and the end of the connection
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
)
"""What the driver raises where its connection can be used no more."""


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
        clock: Clock | None = None,
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
            isolation_level="AUTOCOMMIT",  # `begin` sends BEGIN and COMMIT itself, on the driver's connection
            connect_args={
                "timeout": CONNECT_TIMEOUT_SECONDS,
                "command_timeout": statement_timeout_seconds + 2,
                "server_settings": server_settings,
            },
        )
        self._dialect_error: type[Exception] = self.engine.dialect.loaded_dbapi.Error
        self._liveness = Liveness(self.engine.sync_engine, clock or SystemClock())
        self._begin_timeout_seconds = CONNECT_TIMEOUT_SECONDS + pool_timeout_seconds
        self.listener = Listener(self._listening_connection, prefix=schema)
        self._hints: dict[tuple[str, str], None] = {}
        self._flushing: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """One transaction: commits on leaving, rolls back on an exception.

        Raises DatabaseUnavailable when the server cannot be reached, is overloaded or breaks off; DatabaseContended
        when it is there and others hold a row for too long. A COMMIT that broke off may have been done (field note
        M14), so whatever runs in here must be safe to run again.
        """
        with self._translated_errors():
            connection, transaction = await self._begun()
            token = IN_TRANSACTION.set(True)
            try:
                yield connection
                await transaction.commit()
            except BaseException:
                await asyncio.shield(_abandon(connection, transaction))
                raise
            finally:
                IN_TRANSACTION.reset(token)
            await connection.close()

    @asynccontextmanager
    async def driver(self) -> AsyncIterator[asyncpg.Connection]:
        """A pooled connection as its driver knows it, for the few statements that are hot (ADR 0019).

        No transaction is begun: a statement by itself commits by itself, in one round trip. Raises DatabaseUnavailable
        as ``begin`` does, and what was said there about a COMMIT that broke off holds for each statement.
        """
        with self._translated_errors():
            async with asyncio.timeout(self._begin_timeout_seconds):
                lent: PoolProxiedConnection = await greenlet_spawn(self.engine.sync_engine.raw_connection)
            try:
                yield lent.driver_connection
            except BaseException:
                await asyncio.shield(greenlet_spawn(lent.close))
                raise
            await greenlet_spawn(lent.close)

    @asynccontextmanager
    async def begin_driver(self) -> AsyncIterator[asyncpg.Connection]:
        """``begin`` for hot statements alone, at a third of its cost; errors are the same.

        Whoever sends a COMMIT along with the last statement saves a round trip: none is sent after it.
        """
        with self._translated_errors():
            lent = await self._lent_and_begun()
            driver = _driver_in(lent)
            token = IN_TRANSACTION.set(True)
            try:
                yield driver
                if driver.is_in_transaction():
                    await driver.execute("COMMIT")
            except BaseException:
                await asyncio.shield(_take_back(lent))
                raise
            finally:
                IN_TRANSACTION.reset(token)
            await greenlet_spawn(lent.close)

    async def ping(self) -> None:
        """Raises DatabaseUnavailable."""
        async with self.driver() as driver:
            await driver.fetchval("SELECT 1", timeout=CONNECT_TIMEOUT_SECONDS)

    def hint(self, channel: str, payload: str = "", *, one_is_enough: bool = False) -> None:
        """Wake whoever waits on ``channel``, here and in other processes. Call it after the commit.

        ``one_is_enough``: whoever is woken does all there is to do, so nobody elsewhere hears of it if somebody waits
        here; that saves a statement, and the others a look at nothing.

        It is a hint and may be lost: every waiter also polls. It travels in a statement of its own, shared by all
        hints that arrive meanwhile, because NOTIFY takes a server-wide lock at commit that the money's transactions
        must not queue for.
        """
        heard = self.listener.deliver(channel, payload)
        if heard and one_is_enough:
            return
        self._hints[(channel, payload)] = None
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.create_task(self._flush_hints(), name=f"{self.schema}-hints")

    async def dispose(self) -> None:
        """Close all connections. One that is lent out would come back to a pool that is gone, and stay open: the hint
        that is on its way is ended first, and everybody else has ended by now."""
        if self._flushing is not None:
            await asyncio.wait([self._flushing], timeout=1)
            self._flushing.cancel()
            await asyncio.wait([self._flushing], timeout=PING_SECONDS)
        await self.engine.dispose()

    async def _begun(self) -> tuple[AsyncConnection, Transaction]:
        """A connection that has answered to BEGIN, in bounded time. One that breaks off at BEGIN has lost nothing, so
        another is taken: a server that restarts costs no error but to the statements in flight (field note M16)."""
        async with asyncio.timeout(self._begin_timeout_seconds):
            try:
                return await self._begun_once()
            except _BROKEN:
                self._liveness.doubt()
                return await self._begun_once()

    async def _begun_once(self) -> tuple[AsyncConnection, Transaction]:
        connection = await self.engine.connect()
        transaction = _driver_connection(connection).transaction()
        try:
            async with asyncio.timeout(PING_SECONDS):
                await transaction.start()
        except TimeoutError:
            # The peer may have vanished. There is nothing to roll back, and nobody to say good-bye to.
            self._liveness.doubt()
            _driver_connection(connection).terminate()
            await asyncio.shield(_abandon(connection, transaction))
            raise
        except BaseException:
            await asyncio.shield(_abandon(connection, transaction))
            raise
        return connection, transaction

    async def _lent_and_begun(self) -> PoolProxiedConnection:
        """As ``_begun``, of the driver's connection alone."""
        async with asyncio.timeout(self._begin_timeout_seconds):
            try:
                return await self._lent_and_begun_once()
            except _BROKEN:
                self._liveness.doubt()
                return await self._lent_and_begun_once()

    async def _lent_and_begun_once(self) -> PoolProxiedConnection:
        lent: PoolProxiedConnection = await greenlet_spawn(self.engine.sync_engine.raw_connection)
        try:
            await _driver_in(lent).execute("BEGIN", timeout=PING_SECONDS)
        except TimeoutError:
            self._liveness.doubt()
            _driver_in(lent).terminate()  # as in ``_begun_once``
            await asyncio.shield(_take_back(lent))
            raise
        except BaseException:
            await asyncio.shield(_take_back(lent))
            raise
        return lent

    async def _flush_hints(self) -> None:
        while self._hints:
            batch, self._hints = list(self._hints), {}
            channels = [f"{self.schema}_{channel}" for channel, _ in batch]
            payloads = [self.listener.signed(payload) for _, payload in batch]  # here they were delivered at once
            try:
                async with self.driver() as driver:
                    await driver.execute(_NOTIFY, channels, payloads)
            except DatabaseUnavailable:
                return  # the waiters poll

    async def _listening_connection(self) -> asyncpg.Connection:
        arguments = self.engine.dialect.create_connect_args(make_url(self.url))[1]
        for name in ("prepared_statement_cache_size", "prepared_statement_name_func", "async_fallback"):
            arguments.pop(name, None)
        settings = {"application_name": f"{self.schema}-listener"}
        return await asyncpg.connect(**arguments, timeout=CONNECT_TIMEOUT_SECONDS, server_settings=settings)

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        try:
            yield
        except PoolTimeout as error:
            raise DatabaseUnavailable(retry_after_seconds=2) from error
        except _BROKEN as error:
            self._liveness.doubt()
            raise DatabaseUnavailable(retry_after_seconds=2) from error
        except asyncpg.PostgresError as error:
            if (trouble := _trouble(error.sqlstate)) is not None:
                raise trouble from error
            raise
        except self._dialect_error as error:  # of a connection that is made by the pool, which wraps it in nothing
            if isinstance(error.__cause__, _BROKEN):
                self._liveness.doubt()
                raise DatabaseUnavailable(retry_after_seconds=2) from error.__cause__
            if (trouble := _trouble(getattr(error, "sqlstate", None))) is not None:
                raise trouble from error.__cause__
            raise
        except DBAPIError as error:
            is_broken = error.connection_invalidated or isinstance(error.orig and error.orig.__cause__, _BROKEN)
            if is_broken:
                self._liveness.doubt()
                raise DatabaseUnavailable(retry_after_seconds=2) from error
            if (trouble := _trouble(getattr(error.orig, "sqlstate", None))) is not None:
                raise trouble from error
            raise


async def driver_of(connection: AsyncConnection) -> asyncpg.Connection:
    """The driver's connection inside the transaction of ``begin``: what goes either way is written in it."""
    driver = _driver_connection(connection)
    assert driver.is_in_transaction(), "outside of a transaction each statement would commit by itself"
    return driver


def _driver_connection(connection: AsyncConnection) -> asyncpg.Connection:
    assert connection.sync_connection is not None, "it is connected"
    return connection.sync_connection.connection.driver_connection


async def _abandon(connection: AsyncConnection, transaction: Transaction) -> None:
    """Roll back and give the connection back. One that cannot even roll back, or whose COMMIT broke off, is thrown
    away: nobody may find himself in another's transaction."""
    try:
        await transaction.rollback()
    except (*_BROKEN, asyncpg.PostgresError):
        await connection.invalidate()
    finally:
        await connection.close()


def _driver_in(lent: PoolProxiedConnection) -> asyncpg.Connection:
    assert lent.driver_connection is not None, "it is connected"
    return lent.driver_connection


async def _take_back(lent: PoolProxiedConnection) -> None:
    """``_abandon`` of the driver's connection alone."""
    driver = _driver_in(lent)
    try:
        await driver.execute("ROLLBACK")  # always: whether a BEGIN that was broken off took effect is not known here
    except (*_BROKEN, asyncpg.PostgresError):
        driver.terminate()
        await greenlet_spawn(lent.invalidate)
    finally:
        await greenlet_spawn(lent.close)


def async_url(url: str) -> str:
    """``postgres://`` and ``postgresql://`` URLs as SQLAlchemy's asyncpg dialect wants them."""
    parsed: URL = make_url(url)
    return parsed.set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)


_CONTENTION = ("40001", "40P01", "55P03", "57014")  # serialization, deadlock, lock timeout, statement timeout
_SERVER_TROUBLE = ("08", "53", "57P")  # connection, resources (disk full), shutdown


def _trouble(sqlstate: str | None) -> DatabaseUnavailable | None:
    if sqlstate is None:
        return None
    if sqlstate in _CONTENTION:
        return DatabaseContended(retry_after_seconds=2)
    return DatabaseUnavailable(retry_after_seconds=2) if sqlstate.startswith(_SERVER_TROUBLE) else None
