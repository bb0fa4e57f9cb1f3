"""Group commit over a real PostgreSQL: every caller gets the answer of its own row, after its own commit (W17)."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from sqlalchemy import text

from services.webhook_ingest.db import delivery_writer
from services.webhook_ingest.db.delivery_rows import INSERT, Row, columns_of
from services.webhook_ingest.db.delivery_writer import DeliveryWriter, Outcome
from services.webhook_ingest.db.group_commit import GroupCommit, Limits
from services.webhook_ingest.domain.errors import DeliveryNotStorable, StoreFull
from services.webhook_ingest.domain.models import Delivery
from services.webhook_ingest.use_cases.ports import AppendResult
from shared.db.session import Database
from shared.errors import DatabaseContended, DatabaseUnavailable
from tests.support.postgres import ServiceDatabase
from tests.support.waiting import until
from tests.unit.webhook_ingest.builders import a_delivery, a_row

UNSTORABLE = "a\x00b"  # PostgreSQL's text has no NUL


@dataclass
class SpyingWriter:
    """Passes batches on, and remembers them. ``faults`` are raised instead, or after the commit, one a batch."""

    inner: DeliveryWriter
    batches: list[Sequence[Row]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    async def write(self, rows: Sequence[Row]) -> list[Outcome]:
        keys = [row.key for row in rows]
        assert keys == sorted(set(keys)), "each key once, and in their order, or two processes deadlock"
        self.batches.append(rows)
        await self.gate.wait()
        fault = self.faults.pop() if self.faults else ""
        if fault == "before":
            raise DatabaseUnavailable
        outcomes = await self.inner.write(rows)
        if fault == "after":
            raise DatabaseUnavailable
        return outcomes

    async def close(self) -> None:
        await self.inner.close()


@pytest.fixture
async def database(service_database: ServiceDatabase) -> AsyncIterator[Database]:
    database = Database(service_database("webhook_ingest"), schema="webhook_ingest", application_name="test")
    yield database
    await database.dispose()


@pytest.fixture
async def writer(database: Database) -> SpyingWriter:
    return SpyingWriter(DeliveryWriter(database, statement_seconds=5))


@pytest.fixture
async def store(writer: SpyingWriter) -> AsyncIterator[GroupCommit]:
    store = GroupCommit([writer])
    yield store
    await store.close()


async def rows_of(database: Database, statement: str) -> list[Any]:
    async with database.begin() as connection:
        return list(await connection.execute(text(statement)))


async def stored(database: Database) -> dict[str, str]:
    """Ids of deliveries by dedupe key; each has exactly one announcement."""
    deliveries = await rows_of(database, "SELECT id, dedupe_key FROM webhook_deliveries")
    announced = await rows_of(database, "SELECT subject, message_id, sequence FROM outbox_messages")
    assert Counter(row.subject for row in announced) == Counter(row.id for row in deliveries)
    assert all(row.message_id == f"evt_{row.subject[4:]}" and row.sequence == 1 for row in announced)
    return {row.dedupe_key: row.id for row in deliveries}


async def test_what_arrives_during_a_commit_shares_the_next(
    store: GroupCommit, writer: SpyingWriter, database: Database
) -> None:
    writer.gate.clear()
    first = asyncio.create_task(store.append(a_delivery("evt_0")))
    await until(lambda: writer.batches, what="the first batch")
    others = [asyncio.create_task(store.append(a_delivery(f"evt_{number}"))) for number in range(1, 30)]
    await until(lambda: len(store._queue) == 29, what="the others waiting")
    assert not first.done()
    writer.gate.set()
    results = await asyncio.gather(first, *others)
    assert [len(batch) for batch in writer.batches] == [1, 29]
    assert not any(result.is_duplicate for result in results)
    assert len(await stored(database)) == 30


async def test_nobody_is_answered_before_the_commit(store: GroupCommit, database: Database) -> None:
    """A twin that another process is just storing holds the statement up; the answer waits with it, then names it."""
    twin = a_row("evt_1")
    async with database.driver() as other:
        transaction = other.transaction()
        await transaction.start()
        await other.fetch(INSERT, *columns_of([twin]))
        answers = [asyncio.create_task(store.append(a_delivery(key))) for key in ("evt_1", "evt_2")]

        async def waits() -> bool:
            return bool(await rows_of(database, "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'"))

        await until(waits, what="the insert waiting for its twin")
        assert not any(answer.done() for answer in answers)
        await transaction.commit()
    duplicate, fresh = await asyncio.gather(*answers)
    assert duplicate == AppendResult(twin.id, is_duplicate=True, body_digest=twin.body_digest)
    assert not fresh.is_duplicate
    assert await stored(database) == {"id:evt_1": twin.id, "id:evt_2": fresh.delivery_id}


async def test_of_one_batch_with_the_same_key_the_first_is_stored_and_the_others_are_its_duplicates(
    store: GroupCommit, writer: SpyingWriter, database: Database
) -> None:
    deliveries = [a_delivery("evt_1") for _ in range(5)]
    results = await asyncio.gather(*(store.append(delivery) for delivery in deliveries))
    assert [result.is_duplicate for result in results] == [False, True, True, True, True]
    assert {result.delivery_id for result in results} == {deliveries[0].id}
    assert [len(batch) for batch in writer.batches] == [1], "one row is sent, not five"
    again = await store.append(a_delivery("evt_1", body=b"{}", body_digest=b"another"))
    assert again == AppendResult(deliveries[0].id, is_duplicate=True, body_digest=deliveries[0].body_digest)
    assert await stored(database) == {"id:evt_1": deliveries[0].id}


async def test_keys_that_look_alike_are_different_ones_and_any_length_is_recognised(
    store: GroupCommit, writer: SpyingWriter, database: Database
) -> None:
    keys = ["ab", "a\\b", "a\\\\b", "\\x6162", "a\nb", "AB", "ab ", "ä", "a\u0308", "\\000", "k" * 5000, "k" * 5001]
    stored_first = [await store.append(a_delivery(key)) for key in keys]
    assert not any(result.is_duplicate for result in stored_first)
    again = await asyncio.gather(*(store.append(a_delivery(key)) for key in keys))
    assert [(each.is_duplicate, each.delivery_id) for each in again] == [
        (True, first.delivery_id) for first in stored_first
    ]
    elsewhere = [await store.append(a_delivery("ab", account="b")), await store.append(a_delivery("ab", gateway="b"))]
    assert not any(result.is_duplicate for result in elsewhere)


async def test_one_bad_row_fails_alone(store: GroupCommit, database: Database) -> None:
    deliveries = [a_delivery(f"evt_{number}") for number in range(40)]
    deliveries[17] = replace(deliveries[17], event_type=UNSTORABLE)
    deliveries[23] = replace(deliveries[23], dedupe_key="id:" + "".join(chr(200 + n % 700) for n in range(9000)))
    deliveries[31] = replace(deliveries[31], key_id=UNSTORABLE)
    results = await asyncio.gather(*(store.append(each) for each in deliveries), return_exceptions=True)
    assert [index for index, result in enumerate(results) if isinstance(result, DeliveryNotStorable)] == [17, 31]
    assert len(await stored(database)) == 38


async def test_a_bad_first_of_its_key_does_not_speak_for_the_others(store: GroupCommit, database: Database) -> None:
    bad, good, repeated = a_delivery("evt_1", event_type=UNSTORABLE), a_delivery("evt_1"), a_delivery("evt_1")
    refused, accepted, duplicate = await asyncio.gather(
        *(store.append(each) for each in (bad, good, repeated)), return_exceptions=True
    )
    assert isinstance(refused, DeliveryNotStorable)
    assert accepted == AppendResult(good.id, is_duplicate=False, body_digest=good.body_digest)
    assert duplicate == AppendResult(good.id, is_duplicate=True, body_digest=good.body_digest)
    assert await stored(database) == {"id:evt_1": good.id}


async def test_a_repetition_of_what_cannot_be_stored_is_not_tried_again(
    store: GroupCommit, writer: SpyingWriter, database: Database
) -> None:
    writer.gate.clear()
    first = asyncio.create_task(store.append(a_delivery("evt_0")))
    await until(lambda: writer.batches, what="the first batch")
    bad = [asyncio.create_task(store.append(a_delivery("evt_1", event_type=UNSTORABLE))) for _ in range(20)]
    await until(lambda: len(store._queue) == 20, what="the others waiting")
    writer.gate.set()
    await first
    refused = await asyncio.gather(*bad, return_exceptions=True)
    assert {type(each) for each in refused} == {DeliveryNotStorable}
    assert len({id(each) for each in refused}) == 20, "an error of its own for each"
    assert [len(batch) for batch in writer.batches] == [1, 1]


async def held(connection: Any, *keys: str) -> None:
    """Rows that a transaction is changing, as retention and replays do."""
    statement = "UPDATE webhook_deliveries SET request_id = 'held' WHERE dedupe_key = ANY($1)"
    await connection.execute(statement, [f"id:{key}" for key in keys])


async def test_a_duplicate_of_a_row_that_somebody_holds_is_told_so_and_costs_its_neighbours_no_error(
    store: GroupCommit, writer: SpyingWriter, database: Database
) -> None:
    first = [await store.append(a_delivery(f"evt_{number}")) for number in range(3)]
    kept = writer.inner._driver
    async with database.driver() as other:
        transaction = other.transaction()
        await transaction.start()
        await held(other, "evt_0", "evt_2")
        results = await asyncio.gather(*(store.append(a_delivery(f"evt_{number}")) for number in range(40)))
        assert [result.delivery_id for result in results[:3]] == [each.delivery_id for each in first]
        assert [result.is_duplicate for result in results] == [True] * 3 + [False] * 37
        assert writer.inner._driver is kept, "the connection is not at fault"
        await transaction.rollback()
    assert len(await stored(database)) == 40
    assert (await kept.fetchval("SHOW lock_timeout")) == "5s", "only the statement's own"  # type: ignore[union-attr]


async def test_one_whose_twin_is_not_committed_is_unavailable_and_the_others_are_stored(
    store: GroupCommit, database: Database
) -> None:
    twin = a_row("evt_7")
    async with database.driver() as other:
        transaction = other.transaction()
        await transaction.start()
        await other.fetch(INSERT, *columns_of([twin]))
        deliveries = [a_delivery(f"evt_{number}") for number in range(10)]
        results = await asyncio.gather(*(store.append(each) for each in deliveries), return_exceptions=True)
        assert [at for at, each in enumerate(results) if isinstance(each, DatabaseUnavailable)] == [7]
        assert len([each for each in results if isinstance(each, AppendResult)]) == 9
        await transaction.commit()
    assert (await store.append(deliveries[7])).delivery_id == twin.id
    assert len(await stored(database)) == 10


async def test_many_locks_in_one_batch_end_its_waiting(
    writer: SpyingWriter, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_writer, "_LOCKED_TRIES", 3)
    async with database.driver() as other:
        transaction = other.transaction()
        await transaction.start()
        await other.fetch(INSERT, *columns_of([a_row(f"evt_{number}") for number in range(0, 20, 2)]))
        rows = sorted((a_row(f"evt_{number}") for number in range(20)), key=lambda row: row.key)
        outcomes = await writer.write(rows)
        await transaction.rollback()
    assert {type(outcome) for outcome in outcomes} == {DatabaseContended}
    await writer.close()


async def test_a_caller_that_goes_away_changes_nothing_for_the_others(
    store: GroupCommit, writer: SpyingWriter, database: Database
) -> None:
    writer.gate.clear()
    sent = asyncio.create_task(store.append(a_delivery("evt_sent")))
    await until(lambda: writer.batches, what="the first batch")
    waiting = [asyncio.create_task(store.append(a_delivery(f"evt_{number}"))) for number in range(3)]
    await until(lambda: len(store._queue) == 3, what="three waiting")
    sent.cancel()
    waiting[1].cancel()
    await asyncio.gather(sent, waiting[1], return_exceptions=True)
    writer.gate.set()
    for answer in (waiting[0], waiting[2]):
        assert not (await answer).is_duplicate
    assert set(await stored(database)) == {"id:evt_sent", "id:evt_0", "id:evt_2"}
    assert (store._waiting_rows, store._waiting_bytes) == (0, 0)


async def test_the_queue_is_bounded_in_rows_and_in_bytes(writer: SpyingWriter) -> None:
    limits = Limits(statement_rows=2, statement_bytes=3000, waiting_rows=4, waiting_bytes=9000)
    store = GroupCommit([writer], limits=limits)
    writer.gate.clear()
    kept = [asyncio.create_task(store.append(a_delivery(f"evt_{number}"))) for number in range(4)]
    await until(lambda: store._waiting_rows == 4, what="a full queue")
    with pytest.raises(StoreFull) as refused:
        await store.append(a_delivery("evt_over"))
    assert refused.value.retry_after_seconds
    writer.gate.set()
    await asyncio.gather(*kept)
    assert all(len(batch) <= 2 for batch in writer.batches)
    with pytest.raises(StoreFull):
        await store.append(a_delivery("evt_large", body=bytes(9000)))
    large = [store.append(a_delivery(f"evt_large_{number}", body=bytes(2000))) for number in range(3)]
    await asyncio.gather(*large)
    assert [len(batch) for batch in writer.batches[-3:]] == [1, 1, 1]
    await store.close()


async def test_a_commit_whose_answer_was_lost_is_found_to_be_ones_own(
    store: GroupCommit, writer: SpyingWriter, database: Database
) -> None:
    delivery = a_delivery("evt_1")
    writer.faults = ["after"]
    with pytest.raises(DatabaseUnavailable):
        await store.append(delivery)
    assert (await store.append(delivery)) == AppendResult(delivery.id, False, delivery.body_digest)
    assert (await store.append(a_delivery("evt_1"))).is_duplicate
    assert await stored(database) == {"id:evt_1": delivery.id}


async def test_a_connection_that_was_cut_costs_nobody_an_error(store: GroupCommit, database: Database) -> None:
    await store.append(a_delivery("evt_1"))
    await rows_of(
        database, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND query <> ''"
    )
    assert not (await store.append(a_delivery("evt_2"))).is_duplicate


async def test_two_processes_with_the_same_deliveries_in_any_order_never_deadlock(database: Database) -> None:
    stores = [GroupCommit([DeliveryWriter(database, statement_seconds=5)]) for _ in range(3)]
    keys = [f"evt_{number}" for number in range(60)]

    async def deliver(store: GroupCommit, seed: int) -> list[AppendResult]:
        shuffled = random.Random(seed).sample(keys, len(keys))
        return await asyncio.gather(*(store.append(a_delivery(key)) for key in shuffled))

    for round_number in range(5):
        await asyncio.gather(*(deliver(store, 10 * round_number + at) for at, store in enumerate(stores)))
        assert len(await stored(database)) == 60
        keys = [f"evt_{round_number}_{number}" for number in range(60)]
        async with database.begin() as connection:
            await connection.execute(text("TRUNCATE webhook_deliveries, outbox_messages CASCADE"))
    for store in stores:
        await store.close()


@pytest.mark.parametrize("seed", range(6))
async def test_in_any_mixture_every_caller_gets_the_right_answer(
    store: GroupCommit, writer: SpyingWriter, database: Database, seed: int
) -> None:
    chance = random.Random(seed)
    writer.faults = chance.choices(["", "", "", "before", "after"], k=40)
    accepted: dict[str, set[str]] = {}

    async def deliver(delivery: Delivery, patience: float) -> None:
        try:
            async with asyncio.timeout(patience):
                answer = await store.append(delivery)
        except (DatabaseUnavailable, TimeoutError):
            pass  # nothing was promised
        except DeliveryNotStorable:
            assert delivery.event_type == UNSTORABLE
        else:
            assert delivery.event_type != UNSTORABLE or answer.is_duplicate
            assert answer.is_duplicate == (answer.delivery_id != delivery.id)
            accepted.setdefault(delivery.dedupe_key, set()).add(answer.delivery_id)

    for _ in range(25):
        deliveries = [
            a_delivery(
                f"evt_{chance.randrange(60)}", event_type=UNSTORABLE if chance.random() < 0.05 else "payment.succeeded"
            )
            for _ in range(chance.choice((1, 3, 20)))
        ]
        await asyncio.gather(*(deliver(each, chance.choice((0.0005, 10, 10, 10))) for each in deliveries))
    ids = await stored(database)
    assert {key: {ids[key]} for key in accepted} == accepted, "who was told so has the one that is stored"
    assert (store._waiting_rows, store._waiting_bytes, len(store._queue)) == (0, 0, 0)
