"""The pool: no round trip but a transaction's own, and no error from a connection that was dead before it was used."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from deploy.local.postgres import run_psql
from shared.db import liveness
from shared.db.liveness import TRUSTED_SECONDS
from shared.db.session import Database, driver_of
from shared.errors import DatabaseUnavailable
from tests.integration.messaging.proxy import Proxy
from tests.integration.messaging.tiny_service import SERVICE, create_schema
from tests.support.clock import FakeClock
from tests.support.postgres import CreateDatabase, ThrowawayPostgres
from tests.support.statements import answered, statements_of
from tests.support.waiting import until

PIDS = "SELECT pid FROM pg_stat_activity WHERE application_name = 'pooled'"
COUNT = "SELECT count(*) FROM inbox_messages"
INSERT = "INSERT INTO inbox_messages (consumer, message_id, status) VALUES ('pool', $1, 'done')"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def database(create_database: CreateDatabase, clock: FakeClock) -> AsyncIterator[Database]:
    url = create_database()
    await create_schema(url)
    database = Database(url, schema=SERVICE, application_name="pooled", clock=clock)
    yield database
    await database.dispose()


@pytest.fixture
async def other(database: Database) -> AsyncIterator[Database]:
    """Somebody else at the same database."""
    other = Database(database.url, schema=SERVICE, application_name="other")
    yield other
    await other.dispose()


async def use(database: Database) -> None:
    async with database.begin() as connection:
        await connection.execute(text("SELECT 1"))


async def test_a_transaction_costs_its_own_statements_and_its_two_ends(database: Database) -> None:
    await use(database)
    with statements_of(database) as asked:
        await use(database)
        async with database.driver() as driver:
            await driver.execute("SELECT 2")
        await answered()
    assert sorted(asked.queries) == ["BEGIN;", "COMMIT;", "SELECT 1", "SELECT 2"], asked.told()


async def test_a_connection_that_was_idle_for_long_is_asked_first(database: Database, clock: FakeClock) -> None:
    """A peer that vanished without a word (field note M17) is found out by nobody's statement."""
    with statements_of(database) as asked:
        await use(database)
        clock.move(TRUSTED_SECONDS - 1)
        await use(database)
        clock.move(TRUSTED_SECONDS + 1)
        await use(database)
        await answered()
    assert Counter(asked.queries) == {"BEGIN;": 3, "SELECT 1": 3, "COMMIT;": 3, ";": 1}, asked.told()


async def test_after_trouble_every_connection_is_asked_once(database: Database, other: Database) -> None:
    """What has broken one connection may have broken them all without a word."""
    await asyncio.gather(*(use(database) for _ in range(3)))
    with pytest.raises(DatabaseUnavailable):
        async with database.driver() as driver:
            await driver.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    with statements_of(database) as asked:
        await asyncio.gather(*(use(database) for _ in range(3)))
        await answered()
        asked.queries.clear()
        await asyncio.gather(*(use(database) for _ in range(3)))
        await answered()
    assert asked.queries.count(";") == 0, asked.told()


def kill_idle_backends(database: Database) -> None:
    """Blocking, so that the loop has had no chance to hear of it."""
    run_psql(database.url.replace("+asyncpg", ""), f"SELECT pg_terminate_backend(pid, 5000) FROM ({PIDS}) AS pooled")


async def test_backends_that_were_terminated_while_idle_cost_no_error(database: Database) -> None:
    """M16: neither a transaction nor a statement that commits by itself."""
    await asyncio.gather(*(use(database) for _ in range(5)))
    kill_idle_backends(database)
    async with database.driver() as driver:
        assert await driver.fetchval("SELECT 2") == 2
    await asyncio.gather(*(use(database) for _ in range(10)))


async def test_a_connection_that_breaks_at_begin_is_replaced(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was closed a moment after every look at it. Nothing was said yet, so nothing is lost."""
    await asyncio.gather(*(use(database) for _ in range(5)))
    monkeypatch.setattr(liveness, "_has_something_to_say", lambda _driver: False)
    kill_idle_backends(database)
    await asyncio.gather(*(use(database) for _ in range(10)))


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_a_restart_under_load_fails_only_what_was_in_flight(own_postgres: ThrowawayPostgres, mode: str) -> None:
    """Each worker has one transaction in flight, so each may see one error at the crash, and then waits until the
    server is back; whatever was committed is there."""
    own_postgres.ensure_database("shop")
    await create_schema(own_postgres.url("shop"))
    database = Database(own_postgres.url("shop"), schema=SERVICE, application_name="pooled", pool_size=8)
    told: set[str] = set()
    errors: Counter[int] = Counter()
    stopping, is_up = asyncio.Event(), asyncio.Event()
    is_up.set()

    async def work(worker: int) -> None:
        number = 0
        while not stopping.is_set():
            await is_up.wait()
            number += 1
            name = f"{worker}-{number}"
            try:
                async with database.begin() as connection:
                    await (await driver_of(connection)).execute(INSERT, name)
                told.add(name)
            except DatabaseUnavailable:
                errors[worker] += 1

    workers = [asyncio.create_task(work(number)) for number in range(8)]
    await until(lambda: len(told) > 50, what="work")
    is_up.clear()
    own_postgres.stop("immediate" if mode == "immediate" else "fast")
    own_postgres.start()
    is_up.set()
    before = len(told)
    await until(lambda: len(told) > before + 50, what="work after the restart")
    stopping.set()
    await asyncio.gather(*workers)
    assert max(errors.values(), default=0) <= 1, errors
    async with database.driver() as driver:
        kept = {row[0] for row in await driver.fetch("SELECT message_id FROM inbox_messages")}
    assert told <= kept
    await database.dispose()


async def test_a_connection_whose_end_is_unknown_is_thrown_away(database: Database, other: Database) -> None:
    """Nobody may find himself in another's transaction."""
    async with database.begin() as connection:
        driver = await driver_of(connection)
        pid = driver.get_server_pid()

    async def break_off() -> None:
        async with database.begin() as connection:
            await (await driver_of(connection)).execute(INSERT, "one")
            async with other.driver() as killer:
                await killer.fetchval("SELECT pg_terminate_backend($1, 5000)", pid)

    with pytest.raises(DatabaseUnavailable):
        await break_off()
    async with database.begin() as connection:
        assert (await driver_of(connection)).get_server_pid() != pid
        assert (await connection.execute(text(COUNT))).scalar() == 0


async def test_a_failed_transaction_leaves_its_connection_to_the_next(database: Database) -> None:
    async def fail() -> None:
        async with database.begin() as connection:
            await (await driver_of(connection)).execute(INSERT, "one")
            raise ZeroDivisionError

    async with database.begin() as connection:
        pid = (await driver_of(connection)).get_server_pid()
    with pytest.raises(ZeroDivisionError):
        await fail()
    async with database.begin() as connection:
        assert (await driver_of(connection)).get_server_pid() == pid
        assert (await connection.execute(text(COUNT))).scalar() == 0


async def test_more_connections_than_the_pool_keeps_are_closed_again(create_database: CreateDatabase) -> None:
    database = Database(create_database(), schema="public", application_name="pooled", pool_size=1, max_overflow=2)
    async with database.driver(), database.driver(), database.begin():
        pass
    assert "Connections in pool: 1" in database.engine.pool.status()
    await database.dispose()


async def test_hints_are_one_statement_and_no_transaction(database: Database) -> None:
    with statements_of(database) as asked:
        for number in range(20):
            database.hint("orders", f"ord_{number}")
        assert database._flushing is not None
        await database._flushing
        await answered()
    assert asked.transactions == 0


async def test_a_process_is_not_woken_again_by_its_own_hint(database: Database, other: Database) -> None:
    """It was told at once; the echo would send every worker looking for work a second time."""
    heard: list[str] = []
    listening = asyncio.create_task(database.listener.run(("orders",)))
    with database.listener.subscribe("orders", heard.append):
        await until(lambda: heard == [""], what="listening")
        database.hint("orders", "ours")
        assert database._flushing is not None
        await database._flushing
        other.hint("orders", "theirs")
        await until(lambda: "theirs" in heard, what="the other's hint, which came after ours")
    listening.cancel()
    await asyncio.wait([listening])
    assert heard == ["", "ours", "theirs"]


class Vanishing(Proxy):
    """In front of a socket file. Connections that were made before ``vanish`` never hear anything again."""

    def __init__(self, path: str) -> None:
        super().__init__(0)
        self._path = path
        self._heard = asyncio.Event()
        self._heard.set()

    def vanish(self) -> None:
        self._heard.clear()
        self._heard = asyncio.Event()
        self._heard.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection(self._path)
        self._writers |= {writer, back}
        passes = self._heard

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                await passes.wait()
                sink.write(data)

        pumps = [asyncio.create_task(pump(reader, back)), asyncio.create_task(pump(there, writer))]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in pumps:
                each.cancel()
            writer.transport.abort()
            back.transport.abort()


async def test_a_peer_that_vanished_without_a_word_costs_one_request_some_seconds(database: Database) -> None:
    url = make_url(database.url)
    proxy = Vanishing(f"{url.query['host']}/.s.PGSQL.{url.query.get('port') or url.port or 5432}")
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    through = url.set(host="127.0.0.1", port=server.sockets[0].getsockname()[1], query={})
    behind = Database(through.render_as_string(hide_password=False), schema=SERVICE, application_name="behind")
    together = asyncio.Barrier(5)

    async def use_together() -> None:
        async with behind.begin():
            await together.wait()

    async with asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(use_together())
    proxy.vanish()
    started = asyncio.get_running_loop().time()
    for _ in range(6):
        await use(behind)
    assert asyncio.get_running_loop().time() - started < 15  # six of them would take longer
    await behind.dispose()
    server.close()
    proxy.cut()
