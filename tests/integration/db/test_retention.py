"""Pruning beside everything else: what goes, what never does, who waits for whom, and what a crash leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from shared.clock import SystemClock
from shared.db.outbox import claim_waiting, events_after, mark_published, read_events
from shared.db.pruning import Position, Walk, begin_walk, prepare, prune_batch
from shared.db.retention import OUTBOX, Pace, Pruned, Retention, RetentionRunning, newest_deleted, shared_walks
from shared.db.session import driver_of
from shared.errors import DatabaseUnavailable
from shared.metrics import RETENTION_FINISHED, RETENTION_OLDEST, RETENTION_PRUNED
from shared.settings import ConfigurationError, ServiceSettings
from tests.integration.messaging.tiny_service import SERVICE, TinyService, a_capture, an_order_paid
from tests.support.waiting import until

QUICK = Pace(batch_seconds=3600, rows=50, most_rows=50, least_rest_seconds=0, rest_factor=0)
SETTINGS = ServiceSettings.load(database_url="postgresql://nowhere/none", event_retention_days=30)


def retention(service: TinyService, pace: Pace = QUICK) -> Retention:
    return Retention(service.database, shared_walks(SETTINGS), service=SERVICE, ports=service.ports, pace=pace)


def walk(name: str) -> Walk:
    return next(each for each in shared_walks(SETTINGS) if each.name == name)


async def fill_outbox(service: TinyService, *, old: int, new: int = 0, waiting: Sequence[int] = ()) -> None:
    """``old`` events of 31 days ago, all published but those at ``waiting``; ``new`` ones of a moment ago."""
    await service.rows(
        """
        INSERT INTO outbox_messages (message_id, type, subject, sequence, body, created_at, published_at)
        SELECT 'evt_' || lpad(n::text, 9, '0'), 'payment.captured.v1', 'pay_' || n, 1, '{}', at,
               CASE WHEN n <> ALL(CAST(:waiting AS int[])) THEN at END
        FROM (SELECT n, now() - CASE WHEN n <= :old THEN interval '31 days' ELSE interval '1 second' END AS at
              FROM generate_series(1, :all) AS n) AS each
        """,
        old=old,
        all=old + new,
        waiting=list(waiting),
    )


async def fill_inbox(service: TinyService, count: int, *, consumer: str = "a", status: str = "done") -> None:
    await service.rows(
        """
        INSERT INTO inbox_messages (consumer, message_id, status, attempts, first_seen_at, handled_at)
        SELECT :consumer, :status || lpad(n::text, 9, '0'), :status, 1, at, CASE WHEN :status = 'done' THEN at END
        FROM (SELECT n, now() - interval '61 days' AS at FROM generate_series(1, :count) AS n) AS each
        """,
        consumer=consumer,
        status=status,
        count=count,
    )


async def count(service: TinyService, table: str) -> int:
    return int((await service.rows(f"SELECT count(*) FROM {table}"))[0][0])


def by_name(pruned: Sequence[Pruned]) -> dict[str, int]:
    return {each.name: each.rows for each in pruned}


async def test_published_events_go_when_they_are_old_and_unpublished_ones_never(service: TinyService) -> None:
    await fill_outbox(service, old=120, new=3, waiting=[1, 70])
    done = await retention(service).run()
    assert by_name(done)["outbox_messages"] == 118
    left = await service.rows("SELECT position, published_at FROM outbox_messages ORDER BY position")
    assert [row.position for row in left] == [1, 70, 121, 122, 123]
    assert by_name(await retention(service).run())["outbox_messages"] == 0


async def test_applied_claims_go_and_messages_that_failed_or_were_given_up_on_never(service: TinyService) -> None:
    for consumer in ("a", "b", "c"):
        await fill_inbox(service, 60, consumer=consumer)
    await fill_inbox(service, 3, consumer="b", status="dead")
    await fill_inbox(service, 2, consumer="b", status="failing")
    async with service.uow() as tx:
        assert await tx.inbox.claim_all("b", ["evt_new"])
    assert by_name(await retention(service).run())["inbox_messages"] == 180
    left = await service.rows("SELECT status, count(*) FROM inbox_messages GROUP BY status ORDER BY status")
    assert [tuple(row) for row in left] == [("dead", 3), ("done", 1), ("failing", 2)]


async def test_a_message_that_was_applied_late_stays_known_from_then_on(service: TinyService) -> None:
    await fill_inbox(service, 2)
    await service.rows("UPDATE inbox_messages SET handled_at = now() WHERE message_id = 'done000000001'")
    await retention(service).run()
    assert [row.message_id for row in await service.rows("SELECT * FROM inbox_messages")] == ["done000000001"]


async def test_expired_answers_go_though_they_expire_at_one_moment(service: TinyService) -> None:
    await service.rows(
        """
        INSERT INTO idempotency_keys (caller, route, key_digest, fingerprint, expires_at)
        SELECT 'c', 'r', decode(lpad(to_hex(n), 64, '0'), 'hex'), '', now() + make_interval(days => n % 2 * 2 - 1)
        FROM generate_series(1, 240) AS n
        """
    )
    await retention(service).run()
    assert await count(service, "idempotency_keys") == 120


async def test_a_dry_run_counts_and_changes_nothing(service: TinyService) -> None:
    await fill_outbox(service, old=70, new=1)
    reports: list[Pruned] = []
    done = await retention(service).count(report=reports.append)
    assert by_name(done)["outbox_messages"] == 70
    assert [each.rows for each in reports if each.name == OUTBOX] == [50, 70]
    assert await count(service, OUTBOX) == 71
    assert await count(service, "retention_marks") == 0
    assert await count(service, "leases") == 0


async def test_killed_in_the_middle_it_has_done_whole_batches_and_goes_on_the_next_time(service: TinyService) -> None:
    await fill_outbox(service, old=200)
    enough = asyncio.Event()

    def stop_soon(_done: Pruned) -> None:
        enough.set()
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await retention(service).run(report=stop_soon)
    assert await count(service, OUTBOX) == 150
    async with service.database.begin() as connection:
        deleted = await newest_deleted(connection, OUTBOX)
    assert deleted is not None
    assert deleted[1] == "50", "what readers are told is what is gone"
    assert by_name(await retention(service).run())[OUTBOX] == 150


async def test_a_batch_that_rolls_back_leaves_rows_and_mark_as_they_were(service: TinyService) -> None:
    """A process that is killed before its commit."""
    await fill_outbox(service, old=10)
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with service.database.begin() as connection:
            await prepare(connection)
            batch = await prune_batch(connection, walk(OUTBOX), Position(), before=datetime.now(UTC), limit=5)
            assert batch.pruned == 5
            raise ZeroDivisionError
    assert await count(service, OUTBOX) == 10


async def test_a_row_that_somebody_holds_is_skipped_and_nobody_waits(service: TinyService) -> None:
    await fill_outbox(service, old=5)
    async with service.database.begin() as holder:
        await holder.execute(text("SELECT 1 FROM outbox_messages WHERE position = 3 FOR UPDATE"))
        async with asyncio.timeout(20):
            assert by_name(await retention(service).run())[OUTBOX] == 4
    assert by_name(await retention(service).run())[OUTBOX] == 1


async def test_a_place_that_holds_another_row_by_now_is_asked_again(service: TinyService) -> None:
    """Rows are deleted by place: between looking and deleting, a place may have been vacuumed and used again."""
    await fill_outbox(service, old=1, new=1, waiting=[2])
    places = [row[0] for row in await service.rows("SELECT CAST(ctid AS text) FROM outbox_messages")]
    values = {"places": places, "before": datetime.now(UTC) - timedelta(days=30)}
    async with service.database.begin() as connection:
        assert len((await connection.execute(walk(OUTBOX).prune, values)).all()) == 1
    assert [row.position for row in await service.waiting()] == [2]


async def test_hot_traffic_does_not_wait_for_a_batch_that_is_open(service: TinyService) -> None:
    await fill_outbox(service, old=20, new=4, waiting=[22, 23])
    await fill_inbox(service, 20)
    async with service.database.begin() as pruning, asyncio.timeout(20):
        await prepare(pruning)
        for name in (OUTBOX, "inbox_messages"):
            at = await begin_walk(pruning, walk(name), None)
            assert at is not None
            before = datetime.now(UTC) - walk(name).keep
            assert (await prune_batch(pruning, walk(name), at, before=before, limit=100)).pruned == 20
        async with service.database.begin() as relay:
            claimed = await claim_waiting(await driver_of(relay), limit=10)
            assert [each.position for each in claimed] == [22, 23]
            await mark_published(await driver_of(relay), [each.position for each in claimed])
        async with service.uow() as tx:
            assert await tx.inbox.claim_all("a", ["evt_1", "evt_2"]) == {"evt_1", "evt_2"}
            await tx.outbox.add(a_capture("pay_1"), subject="pay_1", first_sequence=9)


async def test_of_two_workers_one_prunes(service: TinyService) -> None:
    await fill_outbox(service, old=100)
    other = retention(service)
    refused: list[bool] = []

    async def try_it() -> None:
        with pytest.raises(RetentionRunning):
            await other.run()
        refused.append(True)

    def try_once(_done: Pruned) -> None:
        if not tasks:
            tasks.append(asyncio.create_task(try_it()))

    tasks: list[asyncio.Task[None]] = []
    done = await retention(service, replace(QUICK, least_rest_seconds=0.05)).run(report=try_once)
    await asyncio.gather(*tasks)
    assert by_name(done)[OUTBOX] == 100
    assert refused
    assert by_name(await other.run())[OUTBOX] == 0, "the lease was given back"


async def test_a_runner_that_was_paused_past_its_lease_does_nothing_more(service: TinyService) -> None:
    await fill_outbox(service, old=100)

    def stolen(_done: Pruned) -> None:
        stealing.append(asyncio.create_task(steal()))

    async def steal() -> None:
        await service.rows("UPDATE leases SET holder = 'successor', expires_at = now() + interval '1 minute'")

    stealing: list[asyncio.Task[None]] = []
    with pytest.raises(RetentionRunning):
        await retention(service, replace(QUICK, least_rest_seconds=0.2)).run(report=stolen)
    await asyncio.gather(*stealing)
    assert await count(service, OUTBOX) == 50


async def test_a_batch_that_takes_too_long_is_stopped_and_the_next_one_is_smaller(service: TinyService) -> None:
    await fill_outbox(service, old=30)
    slow = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.08); RETURN OLD; END'"
    async with service.database.begin() as connection:
        await connection.execute(text(slow))
        await connection.execute(
            text("CREATE TRIGGER slow BEFORE DELETE ON outbox_messages FOR EACH ROW EXECUTE FUNCTION slow()")
        )
    steps: list[int] = []
    pace = replace(QUICK, rows=40, most_rows=40, fewest_rows=5)
    done = await retention(service, pace).run(report=lambda done: steps.append(done.rows))
    assert by_name(done)[OUTBOX] == 30
    assert steps[0] < 30, "all at once take longer than a batch may"
    assert await count(service, OUTBOX) == 0


async def test_a_table_that_is_being_migrated_is_not_waited_for(service: TinyService) -> None:
    await fill_outbox(service, old=10)
    await fill_inbox(service, 20)
    async with service.database.begin() as migration, asyncio.timeout(20):
        await migration.execute(text("LOCK TABLE outbox_messages IN ACCESS EXCLUSIVE MODE"))
        with pytest.raises(DatabaseUnavailable):
            await retention(service).run()
    assert await count(service, "inbox_messages") == 0, "the others are not held up"
    assert by_name(await retention(service).run())[OUTBOX] == 10


async def test_slow_batches_become_smaller_and_quick_ones_larger() -> None:
    pace = Pace(batch_seconds=0.05, rows=200)
    assert pace.after(0.5).rows == 20
    assert pace.after(0.1).rows == 100
    assert pace.after(0.04).rows == 200
    assert pace.after(0.01).rows == 400
    assert pace.after(0.001).after(0.001).after(0.001).after(0.001).rows == 1000
    assert pace.rest_seconds(0.1) == pytest.approx(0.4)


async def test_what_the_metrics_say_is_the_same_in_every_replica(service: TinyService) -> None:
    await fill_outbox(service, old=30, new=1, waiting=[7])
    pruned = RETENTION_PRUNED.labels(SERVICE, OUTBOX)
    before = pruned._value.get()
    await retention(service).run()
    await retention(service).measure()  # another replica's
    assert pruned._value.get() - before == 29
    assert RETENTION_OLDEST.labels(SERVICE, OUTBOX)._value.get() == pytest.approx(31 * 86400, abs=60)
    age = SystemClock().now().timestamp() - RETENTION_FINISHED.labels(SERVICE, OUTBOX)._value.get()
    assert -5 < age < 60


async def test_the_worker_prunes_by_the_schedule(service: TinyService) -> None:
    await fill_outbox(service, old=60)
    working = asyncio.create_task(retention(service).watch(interval_seconds=0.05))
    try:

        async def empty() -> bool:
            return await count(service, OUTBOX) == 0

        await until(empty, what="the schedule pruning")
        await fill_outbox(service, old=10)
        await until(empty, what="the next round")
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


# --- Catching up ------------------------------------------------------------------------------------------------------


async def test_the_mark_is_the_newest_that_was_deleted_and_nothing_above_it_is_missing(service: TinyService) -> None:
    for each in range(3):
        await service.announce(a_capture(f"pay_{each}"))
    await service.rows("UPDATE outbox_messages SET published_at = now(), created_at = now()")
    await service.rows("UPDATE outbox_messages SET published_at = now() - interval '31 days' WHERE position <= 2")
    await service.rows("UPDATE outbox_messages SET created_at = now() - interval '31 days' WHERE position <= 2")
    async with service.database.begin() as connection:
        all_of_them = await events_after(connection, transaction_id=0, position=0, types=None, limit=9)
    await retention(service).run()
    async with service.database.begin() as connection:
        mark = await newest_deleted(connection, OUTBOX)
        assert mark == tuple(str(part) for part in all_of_them[1][:2])
        rest = await events_after(connection, transaction_id=int(mark[0]), position=int(mark[1]), types=None, limit=9)
    assert [row[1] for row in rest] == [3]


async def test_a_reader_of_rare_types_does_not_fall_behind_what_is_kept(service: TinyService) -> None:
    await service.announce(an_order_paid())
    await service.announce(a_capture())
    async with service.database.begin() as connection:
        first = await read_events(connection, cursor=(0, 0), types=["order.paid.v1"], limit=9)
        everything = await events_after(connection, transaction_id=0, position=0, types=None, limit=9)
        full = await read_events(connection, cursor=(0, 0), types=["order.paid.v1"], limit=1)
    assert len(first.events) == 1
    assert first.cursor == everything[-1][:2]
    assert full.cursor == everything[0][:2], "a full page has not looked any further"


async def test_a_reader_of_rare_types_does_not_step_over_a_transaction_that_commits_late(service: TinyService) -> None:
    async with service.uow() as slow:
        await slow.outbox.add(an_order_paid(), subject="ord_1")
        await service.announce(a_capture())
        async with service.database.begin() as connection:
            seen = await read_events(connection, cursor=(0, 0), types=["order.paid.v1"], limit=9)
    async with service.database.begin() as connection:
        late = await read_events(connection, cursor=seen.cursor, types=["order.paid.v1"], limit=9)
    assert len(late.events) == 1


async def test_a_reader_of_rare_types_waits_for_events_that_are_not_rendered(service: TinyService) -> None:
    await service.announce(an_order_paid())
    await service.announce(a_capture())
    await service.rows("UPDATE outbox_messages SET body = '' WHERE type = 'order.paid.v1'")
    async with service.database.begin() as connection:
        seen = await read_events(connection, cursor=(0, 0), types=["order.paid.v1"], limit=9)
    assert seen.cursor == (0, 0)


# --- Plans ------------------------------------------------------------------------------------------------------------


async def plan_of(service: TinyService, statement: Any, values: dict[str, Any]) -> str:
    async with service.database.begin() as connection:
        await prepare(connection)
        rows = await connection.execute(text(f"EXPLAIN {statement.text}"), values)
        return "\n".join(row[0] for row in rows)


@pytest.mark.parametrize("name", [each.name for each in shared_walks(SETTINGS)])
async def test_every_walk_goes_by_an_index_and_by_places_and_never_through_a_table(
    service: TinyService, name: str
) -> None:
    each = walk(name)
    before = datetime.now(UTC) - timedelta(days=1)
    keys = {"bigint": "7", "text": "evt_1", "timestamptz": "2026-01-02 03:04:05+00", "tid": "(0,1)"}
    values: dict[str, Any] = {f"key_{number}": keys[kind] for number, (_, kind) in enumerate(each.key)}
    values |= {"before": before, "limit": 100} | ({"group": "c"} if each.group else {})
    window = await plan_of(service, each.window(is_first=False), values)
    prune = await plan_of(service, each.prune, {"places": ["(0,1)"], "before": before})
    assert "Index" in window
    assert "Tid Scan" in prune
    assert "Seq Scan" not in window + prune


async def test_a_walk_stops_at_the_first_rows_that_are_young(service: TinyService) -> None:
    """Not after all that are kept: a run costs what it prunes, and one window."""
    await fill_outbox(service, old=50, new=1000)
    done = {each.name: each for each in await retention(service).run()}
    assert done[OUTBOX].rows == 50
    assert done[OUTBOX].looked_at <= 150


# --- Settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("events", "claims", "fits"), [(30, 37, True), (30, 36, False), (60, 60, False)])
def test_claims_have_to_outlive_events(events: int, claims: int, fits: bool) -> None:
    values = {"database_url": "x", "event_retention_days": events, "inbox_retention_days": claims}
    if fits:
        ServiceSettings.load(**values)
    else:
        with pytest.raises(ConfigurationError, match="INBOX_RETENTION_DAYS"):
            ServiceSettings.load(**values)
