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


async def test_an_exhausted_pool_is_unavailable_within_three_seconds(create_database: CreateDatabase) -> None:
    url = create_database()
    database = Database(url, schema="public", application_name="test", pool_size=1, max_overflow=0)
    async with database.begin():
        started = time.monotonic()
        with pytest.raises(DatabaseUnavailable):
            await database.ping()
        assert time.monotonic() - started < 3
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
    assert time.monotonic() - started < 3
    assert (refusal.value.status, refusal.value.retryable) == (503, True)
    own_postgres.start()
    await until(lambda: answers(own_database), what="the healed pool")


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


async def test_hints_of_a_rolled_back_transaction_are_never_given(service: TinyService) -> None:
    heard: list[str] = []
    with service.database.listener.subscribe("orders", heard.append), pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with service.uow() as tx:
            tx.hint("orders", "ord_1")
            raise ZeroDivisionError
    assert heard == []
