"""The database misbehaves: every wait ends, every error says "try again", and nothing needs a restart to heal."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from shared.db.listener import Listener
from shared.db.session import Database
from shared.errors import DatabaseUnavailable
from shared.unit_of_work import in_transaction
from tests.integration.messaging.tiny_service import SERVICE, TinyService, a_capture, create_schema, running
from tests.support.postgres import CreateDatabase, ThrowawayPostgres
from tests.support.waiting import until


@pytest.fixture
async def own_database(own_postgres: ThrowawayPostgres) -> AsyncIterator[Database]:
    """On a server that this test may stop."""
    own_postgres.ensure_database("shop")
    await create_schema(own_postgres.url("shop"))
    database = Database(own_postgres.url("shop"), schema=SERVICE, application_name=SERVICE)
    yield database
    await database.dispose()


async def answers(database: Database) -> bool:
    try:
        await database.ping()
    except DatabaseUnavailable:
        return False
    return True


async def test_an_exhausted_pool_is_unavailable_and_nobody_waits_for_it_long(create_database: CreateDatabase) -> None:
    url = create_database()
    database = Database(url, schema="public", application_name="test", pool_size=1, max_overflow=0)
    async with database.begin():
        started = time.monotonic()
        with pytest.raises(DatabaseUnavailable):
            await database.ping()
        assert time.monotonic() - started < 5  # of which two are the pool's own, and the rest a busy machine's
    await database.ping()
    await database.dispose()


async def test_a_server_that_is_down_is_unavailable_at_once_and_heals(
    own_postgres: ThrowawayPostgres, own_database: Database
) -> None:
    await own_database.ping()
    own_postgres.stop("fast")
    started = time.monotonic()
    with pytest.raises(DatabaseUnavailable) as refusal:
        await own_database.ping()
    assert time.monotonic() - started < 5
    assert (refusal.value.status, refusal.value.retryable) == (503, True)
    own_postgres.start()
    await until(lambda: answers(own_database), what="the healed pool")


class StartingUp(asyncio.Protocol):
    """What a server says while it is recovering from a crash."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        fields = b"SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0"
        transport.write(b"E" + (len(fields) + 4).to_bytes(4, "big") + fields)
        transport.close()


async def test_a_server_that_is_starting_up_is_unavailable_for_the_drivers_statements_too() -> None:
    """Anything else would end a worker, and would not be spooled."""
    server = await asyncio.get_running_loop().create_server(StartingUp, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    database = Database(f"postgresql://nobody@127.0.0.1:{port}/x?ssl=disable", schema="x", application_name="test")
    with pytest.raises(DatabaseUnavailable):
        await database.ping()
    with pytest.raises(DatabaseUnavailable):
        async with database.begin():
            pass
    await database.dispose()
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_a_restart_between_two_transactions_costs_no_error(
    own_postgres: ThrowawayPostgres, own_database: Database, mode: str
) -> None:
    await asyncio.gather(*(own_database.ping() for _ in range(5)))
    own_postgres.stop("immediate" if mode == "immediate" else "fast")
    own_postgres.start()
    await asyncio.gather(*(own_database.ping() for _ in range(20)))


async def test_a_frozen_server_is_unavailable_in_bounded_time_and_heals(
    own_postgres: ThrowawayPostgres, own_database: Database
) -> None:
    await own_database.ping()
    own_postgres.pause()
    try:
        started = time.monotonic()
        with pytest.raises(DatabaseUnavailable):
            await own_database.ping()
        assert time.monotonic() - started < 10
    finally:
        own_postgres.resume()
    await until(lambda: answers(own_database), what="the healed pool")


async def test_a_backend_that_is_killed_mid_transaction_is_unavailable_and_leaves_nothing(
    service: TinyService,
) -> None:
    with pytest.raises(DatabaseUnavailable):  # noqa: PT012
        async with service.uow() as tx:
            await tx.outbox.add(a_capture(), subject="pay_1")
            pid = (await tx.connection.execute(text("SELECT pg_backend_pid()"))).scalar_one()
            await service.rows("SELECT pg_terminate_backend(:pid)", pid=pid)
            await tx.connection.execute(text("SELECT 1"))
    assert await service.waiting() == []


async def test_a_backend_that_is_killed_before_the_commit_is_unavailable(service: TinyService) -> None:
    with pytest.raises(DatabaseUnavailable):  # noqa: PT012
        async with service.uow() as tx:
            await tx.outbox.add(a_capture(), subject="pay_1")
            pid = (await tx.connection.execute(text("SELECT pg_backend_pid()"))).scalar_one()
            await service.rows("SELECT pg_terminate_backend(:pid)", pid=pid)
    assert await service.waiting() == []


async def test_a_statement_that_takes_too_long_is_cut_off_by_the_server(create_database: CreateDatabase) -> None:
    database = Database(
        create_database(), schema="public", application_name="test", pool_size=1, statement_timeout_seconds=0.2
    )
    with pytest.raises(DatabaseUnavailable):
        async with database.begin() as connection:
            await connection.execute(text("SELECT pg_sleep(5)"))
    await database.ping()
    await database.dispose()


async def test_of_two_transactions_in_a_deadlock_one_is_told_to_try_again(service: TinyService) -> None:
    await service.rows("CREATE TABLE pair (id int PRIMARY KEY, n int)")
    await service.rows("INSERT INTO pair VALUES (1, 0), (2, 0)")
    barrier = asyncio.Barrier(2)

    async def lock(first: int, second: int) -> str:
        try:
            async with service.database.begin() as connection:
                statement = text("UPDATE pair SET n = n + 1 WHERE id = :id")
                await connection.execute(statement, {"id": first})
                await barrier.wait()
                await connection.execute(statement, {"id": second})
        except DatabaseUnavailable:
            return "try again"
        return "committed"

    assert sorted(await asyncio.gather(lock(1, 2), lock(2, 1))) == ["committed", "try again"]


async def test_a_broken_constraint_is_a_bug_and_no_outage(service: TinyService) -> None:
    insert = text("INSERT INTO inbox_messages (consumer, message_id, status) VALUES ('c', 'm', 'nonsense')")
    with pytest.raises(IntegrityError):
        async with service.database.begin() as connection:
            await connection.execute(insert)


async def test_a_cancelled_transaction_rolls_back_and_gives_its_connection_back(service: TinyService) -> None:
    inside = asyncio.Event()

    async def work() -> None:
        async with service.uow() as tx:
            await tx.outbox.add(a_capture(), subject="pay_1")
            inside.set()
            await tx.connection.execute(text("SELECT pg_sleep(60)"))

    task = asyncio.create_task(work())
    await until(inside.is_set, what="the open transaction")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await service.waiting() == []
    # The pool's own numbers, because a leaked connection shows nowhere else until the pool is dry.
    assert "Current Checked out connections: 0" in service.database.engine.pool.status()
    assert not in_transaction()


async def test_the_open_transaction_is_known_inside_and_only_there(service: TinyService) -> None:
    assert not in_transaction()
    async with service.database.begin():
        assert in_transaction()
    assert not in_transaction()


async def test_a_hint_reaches_another_process(create_database: CreateDatabase) -> None:
    url = create_database()
    here = Database(url, schema="public", application_name="here")
    there = Database(url, schema="public", application_name="there")
    heard: list[str] = []
    with there.listener.subscribe("orders", heard.append):
        async with running(lambda: there.listener.run(("orders",))):
            await until(lambda: heard == [""], what="the empty hint that follows every connection")
            here.hint("orders", "ord_1")
            here.hint("orders", "ord_2")
            here.hint("orders", "ord_2")
            await until(lambda: len(heard) == 3, what="both hints, the repeated one once")
    assert heard == ["", "ord_1", "ord_2"]
    await here.dispose()
    await there.dispose()


async def test_a_hint_is_heard_in_its_own_process_without_any_connection(create_database: CreateDatabase) -> None:
    database = Database(create_database(), schema="public", application_name="here")
    heard: list[str] = []
    with database.listener.subscribe("orders", heard.append):
        database.hint("orders", "ord_1")
    assert heard == ["ord_1"]
    await database.dispose()


async def test_a_hint_of_others_is_heard_whatever_backend_it_comes_from(create_database: CreateDatabase) -> None:
    """After a restart of the server another process's backend may have the number that was ours."""
    url = create_database()
    here = Database(url, schema="public", application_name="here", pool_size=1, max_overflow=0)
    older = Database(url, schema="public", application_name="older")
    heard: list[str] = []
    with here.listener.subscribe("orders", heard.append):
        async with running(lambda: here.listener.run(("orders",))):
            await until(lambda: heard == [""], what="listening")
            here.hint("orders", "ord_1")
            assert here._flushing is not None
            await here._flushing
            async with here.begin() as connection:  # by the backend that has sent the hint before
                await connection.execute(text("SELECT pg_notify('public_orders', 'ord_of_an_older_release')"))
            older.hint("orders", "ord_2")
            await until(lambda: "ord_2" in heard, what="the hint of another process")
    assert heard == ["", "ord_1", "ord_of_an_older_release", "ord_2"]
    await here.dispose()
    await older.dispose()


async def test_a_hint_that_takes_too_long_leaves_no_connection_behind(
    create_database: CreateDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pool that is closed does not close what is lent out, nor what comes back to it afterwards."""
    url = create_database()
    monkeypatch.setattr("shared.db.session._NOTIFY", "SELECT pg_sleep(60), $1::text[], $2::text[]")
    database = Database(url, schema="public", application_name="hinting")
    watching = Database(url, schema="public", application_name="watching")

    async def backends() -> list[str]:
        async with watching.begin() as connection:
            sql = "SELECT query FROM pg_stat_activity WHERE application_name = 'hinting'"
            return list((await connection.execute(text(sql))).scalars())

    async def is_running() -> bool:
        return any("pg_sleep" in query for query in await backends())

    async def is_gone() -> bool:
        return not await backends()

    database.hint("orders", "ord_1")
    await until(is_running, what="the hint's statement to run")
    await database.dispose()
    await until(is_gone, within_seconds=5, what="the end of the hint's connection")
    await watching.dispose()


async def test_a_listener_outlives_a_restart_and_has_its_subscribers_look_again(
    own_postgres: ThrowawayPostgres, own_database: Database
) -> None:
    heard: list[str] = []
    with own_database.listener.subscribe("orders", heard.append):
        async with running(lambda: own_database.listener.run(("orders",))):
            await until(lambda: heard == [""], what="listening")
            own_postgres.stop("immediate")
            own_postgres.start()
            await until(lambda: heard == ["", ""], what="listening again")
            other = Database(own_postgres.url("shop"), schema=SERVICE, application_name="other")
            other.hint("orders", "ord_1")
            await until(lambda: "ord_1" in heard, what="the hint")
            await other.dispose()


async def test_events_wake_the_relay_of_another_process(service: TinyService, create_database: CreateDatabase) -> None:
    heard: list[str] = []
    other: Listener = service.database.listener
    with other.subscribe("outbox", heard.append):
        await service.announce(a_capture())
        async with service.uow() as tx:
            tx.hint("orders", "ord_1")
    assert heard == [""]


async def test_events_that_a_relay_of_this_process_takes_wake_no_other(service: TinyService) -> None:
    """Each would look at nothing. Where no relay is, as in an HTTP process, all of them are told."""
    other = Database(service.database.url, schema=service.database.schema, application_name="other")
    elsewhere: list[str] = []
    here: list[str] = []
    subscribe = other.listener.subscribe
    with subscribe("outbox", lambda _: elsewhere.append("outbox")), subscribe("orders", elsewhere.append):
        async with running(lambda: other.listener.run(("outbox", "orders"))):
            await until(lambda: elsewhere == ["outbox", ""], what="the listener's first calls")
            with service.database.listener.subscribe("outbox", here.append):
                await service.announce(a_capture())
                service.database.hint("orders", "a later one")
                await until(lambda: "a later one" in elsewhere, what="the hint that is for everybody")
            assert (here, elsewhere[2:]) == ([""], ["a later one"])
            await service.announce(a_capture("pay_2"))
            await until(lambda: elsewhere[3:] == ["outbox"], what="a hint for whoever relays")
    await other.dispose()


async def test_hints_of_a_rolled_back_transaction_are_never_given(service: TinyService) -> None:
    heard: list[str] = []
    with service.database.listener.subscribe("orders", heard.append), pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with service.uow() as tx:
            tx.hint("orders", "ord_1")
            raise ZeroDivisionError
    assert heard == []
