"""Many events in one transaction watch what they watch one by one, for a fixed number of statements."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import event as sqlalchemy_event

from services.reconciler.messaging.handlers import PaymentEventsBatch
from shared.contracts.envelope import EventEnvelope
from shared.db.session import driver_of
from shared.unit_of_work import InboxClaim
from tests.integration.reconciler.conftest import BuildWorld, World
from tests.support.postgres import ServiceDatabase

CONSUMER = "reconciler.payments"
STATUSES = ("requires_action", "processing", "authorized", "captured", "failed", "expired")


async def hear(world: World, events: Sequence[EventEnvelope]) -> None:
    handler = PaymentEventsBatch(world.container.context)
    assert all(handler.takes(event) for event in events)
    await handler([(event, InboxClaim(CONSUMER, event.id)) for event in events])


async def watched(world: World) -> list[dict[str, Any]]:
    """All but the moment of the next look, which is chance."""
    rows = await world.rows("SELECT * FROM watched_payments ORDER BY payment_id")
    return [row | {"next_check_at": row["next_check_at"] is not None} for row in rows]


@pytest.mark.parametrize("seed", range(3))
async def test_batches_leave_behind_what_single_events_do(
    build_world: BuildWorld, service_database: ServiceDatabase, seed: int
) -> None:
    one_by_one = await build_world()
    in_batches = await build_world(database_url=service_database("reconciler"))
    chance = random.Random(seed)
    told: list[EventEnvelope] = []
    for _ in range(8):
        payment_id = one_by_one.payments.opens()
        told.append(one_by_one.payments.event(payment_id))
        for status in chance.sample(STATUSES, 3):
            one_by_one.payments.becomes(payment_id, status)
            one_by_one.clock.move(chance.choice((1, 600)))
            told.append(one_by_one.payments.event(payment_id))
    chance.shuffle(told)
    told += chance.sample(told, 6)
    start = 0
    while start < len(told):
        end = start + chance.choice((1, 4, 15))
        for event in told[start:end]:
            await one_by_one.hears_of(event.subject, event)
        await hear(in_batches, told[start:end] + chance.choices(told[:end], k=2))
        start = end
    found = await watched(in_batches)
    assert found == await watched(one_by_one)
    assert len(found) == 8


async def statements_of(world: World, events: Sequence[EventEnvelope]) -> int:
    """How many a batch takes, BEGIN and COMMIT apart: with a pool of one connection that is known beforehand."""
    queries: list[str] = []
    engine = world.container.database.engine.sync_engine

    def by_driver(record: Any) -> None:
        queries.append(record.query)

    def by_engine(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        queries.append(statement)

    async with world.container.database.begin() as connection:
        driver = await driver_of(connection)
    driver.add_query_logger(by_driver)
    sqlalchemy_event.listen(engine, "before_cursor_execute", by_engine)
    await hear(world, events)
    sqlalchemy_event.remove(engine, "before_cursor_execute", by_engine)
    driver.remove_query_logger(by_driver)
    return len([query for query in queries if query.lstrip().startswith(("SELECT payment_id", "INSERT", "UPDATE"))])


async def test_the_number_of_statements_does_not_grow_with_the_batch(world: World) -> None:
    payments = [world.payments.opens() for _ in range(30)]
    opened = [world.payments.event(payment_id) for payment_id in payments]
    for payment_id in payments:
        world.payments.becomes(payment_id, "captured")
    captured = [world.payments.event(payment_id) for payment_id in payments]
    assert [await statements_of(world, events) for events in (opened[:1], opened[1:])] == [3, 3]
    assert [await statements_of(world, events) for events in (captured[:1], captured[1:])] == [4, 4]
    assert await statements_of(world, captured) == 1


async def test_batches_over_the_same_payments_wait_for_each_other(world: World) -> None:
    payments = [world.payments.opens() for _ in range(20)]
    opened = [world.payments.event(payment_id) for payment_id in payments]
    for payment_id in payments:
        world.payments.becomes(payment_id, "captured")
    events = opened + [world.payments.event(payment_id) for payment_id in payments]
    chance = random.Random(4)
    await asyncio.gather(*(hear(world, chance.sample(events, len(events))) for _ in range(4)))
    rows = await watched(world)
    assert [row["status"] for row in rows] == ["captured"] * 20
    deadlocks = await world.rows("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    assert deadlocks == [{"deadlocks": 0}]


async def test_an_event_that_breaks_takes_nothing_with_it(world: World) -> None:
    good = world.payments.event(world.payments.opens())
    bad = world.payments.event(world.payments.opens())
    bad = bad.model_copy(update={"data": bad.data | {"amount": "12.00"}})
    with pytest.raises(ValueError, match="amount"):
        await hear(world, [good, bad])
    assert await watched(world) == []
    await hear(world, [good])
    assert len(await watched(world)) == 1
