"""Transactions of hot statements alone: what ``begin`` promises holds for ``begin_driver`` too (M14, M16)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from shared.db.session import Database
from shared.errors import DatabaseContended, DatabaseUnavailable
from shared.unit_of_work import in_transaction
from tests.integration.messaging.tiny_service import SERVICE, create_schema
from tests.support.postgres import CreateDatabase
from tests.support.waiting import until

INSERT = "INSERT INTO inbox_messages (consumer, message_id, status) VALUES ('hot', $1, 'done')"


@pytest.fixture
async def database(create_database: CreateDatabase) -> AsyncIterator[Database]:
    url = create_database()
    await create_schema(url)
    database = Database(url, schema=SERVICE, application_name=SERVICE, pool_size=1, max_overflow=0)
    yield database
    await database.dispose()


async def kept(database: Database) -> list[str]:
    """Also proves that the only connection of the pool is back, and in no transaction."""
    async with database.driver() as driver:
        assert not driver.is_in_transaction()
        return [row[0] for row in await driver.fetch("SELECT message_id FROM inbox_messages ORDER BY 1")]


async def kill(database: Database, pid: int) -> None:
    other = await asyncpg.connect(database.url.replace("+asyncpg", ""))
    await other.execute("SELECT pg_terminate_backend($1)", pid)
    await other.close()


@pytest.mark.parametrize("commits_itself", [False, True])
async def test_it_commits_on_leaving_or_with_its_last_statement(database: Database, commits_itself: bool) -> None:
    async with database.begin_driver() as driver:
        assert in_transaction()
        await driver.execute(INSERT, "one")
        if commits_itself:
            await driver.execute("UPDATE inbox_messages SET attempts = 1; COMMIT")
    assert not in_transaction()
    assert await kept(database) == ["one"]


async def test_an_error_inside_rolls_back(database: Database) -> None:
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with database.begin_driver() as driver:
            await driver.execute(INSERT, "one")
            raise ZeroDivisionError
    with pytest.raises(asyncpg.UniqueViolationError):  # noqa: PT012
        async with database.begin_driver() as driver:
            await driver.execute(INSERT, "two")
            await driver.execute(INSERT, "two")
    assert await kept(database) == []


@pytest.mark.parametrize("statement", ["SELECT pg_sleep(60)", "COMMIT; SELECT pg_sleep(60)"])
async def test_a_cancelled_one_rolls_back_and_gives_its_connection_back(database: Database, statement: str) -> None:
    inside = asyncio.Event()

    async def work() -> None:
        async with database.begin_driver() as driver:
            await driver.execute(INSERT, "one")
            inside.set()
            await driver.execute(statement)

    task = asyncio.create_task(work())
    await until(inside.is_set, what="the open transaction")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await kept(database) in ([], ["one"])
    assert "Current Checked out connections: 0" in database.engine.pool.status()


async def test_a_backend_that_is_killed_inside_is_unavailable_and_leaves_nothing(database: Database) -> None:
    with pytest.raises(DatabaseUnavailable):  # noqa: PT012
        async with database.begin_driver() as driver:
            await driver.execute(INSERT, "one")
            await kill(database, driver.get_server_pid())
            await driver.execute("SELECT 1")
    with pytest.raises(DatabaseUnavailable):  # noqa: PT012
        async with database.begin_driver() as driver:
            await driver.execute(INSERT, "one")
            await kill(database, driver.get_server_pid())
    assert await kept(database) == []


async def test_one_that_breaks_at_begin_is_replaced(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its end may not be seen before it is used."""
    async with database.driver() as driver:
        pid = driver.get_server_pid()
    await kill(database, pid)
    monkeypatch.setattr("shared.db.liveness._has_something_to_say", lambda _driver: False)
    monkeypatch.setattr(asyncpg.Connection, "is_closed", lambda _driver: False)
    async with database.begin_driver() as driver:
        assert driver.get_server_pid() != pid
        await driver.execute(INSERT, "one")
    monkeypatch.undo()
    assert await kept(database) == ["one"]


async def test_whom_others_keep_waiting_is_told_to_try_again(database: Database) -> None:
    async with database.begin_driver() as driver:
        await driver.execute(INSERT, "one")
    other = await asyncpg.connect(database.url.replace("+asyncpg", ""), server_settings={"search_path": SERVICE})
    async with other.transaction():
        await other.execute("UPDATE inbox_messages SET attempts = 2")
        with pytest.raises(DatabaseContended):  # noqa: PT012
            async with database.begin_driver() as driver:
                await driver.execute("SET LOCAL lock_timeout = '10ms'")
                await driver.execute("UPDATE inbox_messages SET attempts = 3")
    await other.close()
    assert await kept(database) == ["one"]
