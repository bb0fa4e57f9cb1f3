"""Parked events go when they were applied long ago; what a person has to look at stays much longer."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from services.payment_service.db.retention import walks
from shared.db.pruning import prepare
from tests.integration.payment_service.conftest import World

OLD, VERY_OLD = 91, 401


async def park(world: World, name: str, status: str, days: int) -> None:
    await world.run(
        """
        INSERT INTO parked_events (parked_id, gateway, delivery_id, trust, content_type, payload, refs, status,
            received_at, parked_at)
        VALUES (:name, 'generic', :name, 'full', 'application/json', '{}', '{}', :status,
            CAST(:now AS timestamptz) - make_interval(days => :days), now() - make_interval(days => :days))
        """,
        name=name,
        status=status,
        days=days,
        now=world.clock.now(),
    )


async def test_applied_ones_go_and_those_for_a_person_have_more_than_a_year(world: World) -> None:
    for status in ("waiting", "ready", "applied", "unclaimed", "unreadable"):
        for days in (1, OLD, VERY_OLD):
            await park(world, f"{status}-{days}", status, days)
    await world.container.retention.run()
    left = {row["parked_id"] for row in await world.rows("SELECT parked_id FROM parked_events")}
    assert left == {
        *(f"{status}-{days}" for status in ("waiting", "ready") for days in (1, OLD, VERY_OLD)),
        "applied-1",
        *(f"{status}-{days}" for status in ("unclaimed", "unreadable") for days in (1, OLD)),
    }


async def test_the_books_are_no_business_of_retention(world: World) -> None:
    pruned = {walk.table for walk in world.container.retention.walks}
    assert pruned == {"outbox_messages", "inbox_messages", "idempotency_keys", "parked_events"}


@pytest.mark.parametrize(
    ("name", "index"),
    [("parked_events", "ix_parked_events_applied"), ("parked_events_unclaimed", "ix_parked_events_for_a_person")],
)
async def test_walks_go_by_their_partial_index(world: World, name: str, index: str) -> None:
    [walk] = [each for each in walks(world.container.settings) if each.name == name]
    values = {"key_0": "2026-01-02 03:04:05+00", "key_1": "p", "limit": 100, "before": world.clock.now()}
    async with world.container.database.begin() as connection:
        await prepare(connection)
        rows = await connection.execute(text(f"EXPLAIN {walk.window(is_first=False).text}"), values)
        assert index in "\n".join(row[0] for row in rows)
