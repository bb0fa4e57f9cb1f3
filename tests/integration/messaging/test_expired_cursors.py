"""A consumer that was away for longer than events are kept is told so, in every way that it can ask."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from shared.db.outbox import read_events
from shared.db.retention import Pace, Retention, shared_walks
from shared.messaging.kit import CatchUpInterrupted, EventsMissed
from shared.settings import ServiceSettings
from tests.integration.messaging.event_owner import SERVICE, EventOwner
from tests.integration.messaging.test_consumer_kit import Ledger, catching_up, ledger, owner

__all__ = ["ledger", "owner"]  # fixtures

WALKS = shared_walks(ServiceSettings.load(database_url="postgresql://nowhere/none"))


async def after_a_month(owner: EventOwner, *, keep: int = 0) -> None:
    """All of its events but the newest ``keep`` are too old, and retention has been there."""
    age = """
        UPDATE outbox_messages
        SET created_at = created_at - interval '31 days', published_at = now() - interval '31 days'
        WHERE position <= (SELECT max(position) FROM outbox_messages) - :keep
    """
    async with owner.database.begin() as connection:
        await connection.execute(text(age), {"keep": keep})
    pace = Pace(least_rest_seconds=0, rest_factor=0)
    await Retention(owner.database, WALKS, service=SERVICE, ports=owner.ports, pace=pace).run()


@pytest.fixture
async def api(owner: EventOwner) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=owner.application())
    headers = {"authorization": f"Bearer {owner.token()}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://owner.test", headers=headers) as client:
        yield client


async def page(api: httpx.AsyncClient, **params: Any) -> Mapping[str, Any]:
    answer = await api.get("/api/v1/events", params=params)
    assert answer.status_code == 200, answer.text
    document: Mapping[str, Any] = answer.json()
    return document


async def test_a_cursor_older_than_what_is_kept_is_410_and_no_silent_gap(
    owner: EventOwner, api: httpx.AsyncClient
) -> None:
    await owner.add_payment("pay_a")
    old = (await page(api, limit=2))["next_cursor"]
    newest_deleted = (await page(api, limit=3))["next_cursor"]
    await after_a_month(owner, keep=1)
    refused = await api.get("/api/v1/events", params={"after": old})
    assert (refused.status_code, refused.json()["code"]) == (410, "cursor_expired")
    assert refused.headers["content-type"] == "application/problem+json"
    assert (await api.get("/api/v1/events", params={"after": "0.0"})).status_code == 410
    kept = await page(api, after=newest_deleted)
    assert len(kept["data"]) == 1, "whoever has read all that was deleted misses nothing"
    assert kept["deleted_until"] == newest_deleted


async def test_a_reader_without_a_cursor_begins_with_the_oldest_kept_and_is_told(
    owner: EventOwner, api: httpx.AsyncClient
) -> None:
    await owner.add_payment("pay_a")
    assert "deleted_until" not in await page(api)
    await after_a_month(owner, keep=1)
    first = await page(api)
    assert len(first["data"]) == 1
    assert first["deleted_until"] is not None


async def test_a_reader_that_finds_everything_deleted_gets_a_cursor_that_goes_on(
    owner: EventOwner, api: httpx.AsyncClient
) -> None:
    await owner.add_payment("pay_a")
    await after_a_month(owner)
    first = await page(api)
    assert first["data"] == []
    await owner.add_payment("pay_b")
    assert len((await page(api, after=first["next_cursor"]))["data"]) == 4


async def test_events_deleted_while_a_page_is_read_are_known_to_be_missing(
    owner: EventOwner, api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows first, then the mark: the other way round a deletion in between would be a silent gap."""
    await owner.add_payment("pay_a")
    old = (await page(api, limit=1))["next_cursor"]

    async def pruned_before_reading(*arguments: Any, **options: Any) -> Any:
        await after_a_month(owner)
        return await read_events(*arguments, **options)

    monkeypatch.setattr("shared.web.events.read_events", pruned_before_reading)
    assert (await api.get("/api/v1/events", params={"after": old})).status_code == 410


async def test_the_kit_says_what_it_has_missed_and_starts_over_when_it_is_told_to(
    ledger: Ledger, owner: EventOwner
) -> None:
    await owner.add_payment("pay_a")
    source = catching_up(ledger, owner)
    assert await source.run() == 4
    await owner.add_payment("pay_b")
    kept = await owner.add_payment("pay_c")
    await after_a_month(owner, keep=4)
    for _ in range(2):
        with pytest.raises(EventsMissed):
            await source.run()
    assert not issubclass(EventsMissed, CatchUpInterrupted), "trying again does not help"
    await source.start_over()
    assert await source.run() == 4
    assert set(await ledger.notes()) >= {event.id for event in kept}
    assert len(await ledger.notes()) == 8


async def test_a_consumer_that_has_read_everything_misses_nothing(ledger: Ledger, owner: EventOwner) -> None:
    await owner.add_payment("pay_a")
    source = catching_up(ledger, owner)
    await source.run()
    await after_a_month(owner)
    assert await source.run() == 0
    await owner.add_payment("pay_b")
    assert await source.run() == 4


async def test_a_consumer_forgets_what_it_applied_long_ago_and_nothing_else(ledger: Ledger, owner: EventOwner) -> None:
    await owner.add_payment("pay_a")
    await catching_up(ledger, owner).run()
    age = """
        UPDATE inbox_messages SET first_seen_at = now() - interval '61 days', handled_at = now() - interval '61 days'
        WHERE message_id <> (SELECT max(message_id) FROM inbox_messages)
    """
    other = "INSERT INTO inbox_messages SELECT 'zz', message_id, status, 1, NULL, NULL, handled_at, handled_at"
    async with ledger.database.begin() as connection:
        await connection.execute(text(age))
        await connection.execute(text(f"{other} FROM inbox_messages"))
    assert await ledger.consumer().forget_applied(keep=timedelta(days=60)) == 3
    assert await ledger.consumer().forget_applied(keep=timedelta(days=60)) == 0
    async with ledger.database.begin() as connection:
        left = await connection.execute(text("SELECT consumer, count(*) FROM inbox_messages GROUP BY 1 ORDER BY 1"))
        assert [row[1] for row in left] == [1, 4]


async def test_a_reader_without_a_cursor_can_go_on_from_its_own_first_page(
    owner: EventOwner, api: httpx.AsyncClient
) -> None:
    """What was published late is kept for longer than its neighbours, and lies before what is deleted."""
    for number in range(3):
        await owner.add_payment(f"pay_{number}")
    age = """
        UPDATE outbox_messages SET created_at = created_at - interval '31 days',
            published_at = now() - CASE WHEN position <= (SELECT min(position) + 3 FROM outbox_messages)
                THEN interval '28 days' ELSE interval '31 days' END
    """
    async with owner.database.begin() as connection:
        await connection.execute(text(age))
    pace = Pace(least_rest_seconds=0, rest_factor=0)
    await Retention(owner.database, WALKS, service=SERVICE, ports=owner.ports, pace=pace).run()
    await owner.add_payment("pay_new")
    first = await page(api, limit=2)
    assert first["deleted_until"] is not None
    assert len((await page(api, after=first["next_cursor"], limit=2))["data"]) == 2
