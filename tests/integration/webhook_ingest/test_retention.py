"""Deliveries lose their contents and stay what they are: the first of their kind, for ever (SEC-42)."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from services.webhook_ingest.db.retention import walks
from shared.clock import to_rfc3339
from shared.db.pruning import prepare
from shared.db.retention import Pace
from tests.integration.webhook_ingest.conftest import Ingest, a_stripe_event

DAY = 86400.0

pytestmark = pytest.mark.parametrize("settings_changes", [{"webhook_retention_days": 90}])


async def accepted(ingest: Ingest, number: int, *, published: bool = True) -> str:
    answer = await ingest.post_stripe(a_stripe_event(f"evt_{number}"))
    assert answer.status_code == 200
    delivery_id: str = answer.json()["delivery_id"]
    if published:
        await run(ingest, "UPDATE outbox_messages SET published_at = now() WHERE subject = :id", id=delivery_id)
    ingest.clock.move(1)
    return delivery_id


async def run(ingest: Ingest, sql: str, **values: Any) -> list[Any]:
    async with ingest.container.database.begin() as connection:
        result = await connection.execute(text(sql), values)
        return list(result) if result.returns_rows else []


async def pruned(ingest: Ingest, *, rows: int = 2) -> dict[str, int]:
    pace = Pace(rows=rows, most_rows=rows, least_rest_seconds=0)
    return {each.name: each.rows for each in await ingest.container.retention.run(pace=pace)}


async def forgotten(ingest: Ingest) -> list[str]:
    rows = await run(ingest, "SELECT id FROM webhook_deliveries WHERE forgotten_at IS NOT NULL ORDER BY id")
    return [row.id for row in rows]


async def get(ingest: Ingest, path: str) -> httpx.Response:
    return await ingest.client.get(f"/api/v1/webhook-deliveries/{path}", headers=ingest.operator())


async def replay(ingest: Ingest, path: str, **body: Any) -> httpx.Response:
    body = {"mode": "rederive", "reason": "a test"} | body
    return await ingest.client.post(f"/api/v1/{path}", json=body, headers=ingest.operator())


async def test_contents_go_after_their_days_and_the_delivery_stays_known(ingest: Ingest) -> None:
    old = [await accepted(ingest, number) for number in range(5)]
    before = (await get(ingest, old[0])).json()
    ingest.clock.move(90 * DAY)
    young = await accepted(ingest, 9)
    assert (await pruned(ingest))["webhook_deliveries"] == 5
    assert await forgotten(ingest) == old
    after = (await get(ingest, old[0])).json()
    assert after["forgotten_at"] is not None
    gone = {"remote_address", "request_id", "query", "headers", "body_base64", "body_text"}
    assert all(after[name] is None for name in gone)
    same = set(before) - gone - {"forgotten_at"}
    assert {name: after[name] for name in same} == {name: before[name] for name in same}
    assert (await get(ingest, young)).json()["body_text"]
    [row] = await run(ingest, "SELECT * FROM webhook_deliveries WHERE id = :id", id=old[0])
    assert "payment_intent" in str(row.event_type)
    assert (row.body, row.headers, row.opened_body, row.remote_address) == (b"", [], None, "")


async def test_a_delivery_that_comes_again_after_its_contents_went_is_still_a_duplicate(ingest: Ingest) -> None:
    first = await accepted(ingest, 1)
    ingest.clock.move(91 * DAY)
    await pruned(ingest)
    again = await ingest.post_stripe(a_stripe_event("evt_1"))
    assert again.json() == {"status": "duplicate", "delivery_id": first}
    assert await ingest.count("webhook_deliveries") == 1
    assert await ingest.count("outbox_messages") == 1


async def test_a_delivery_whose_event_is_not_published_is_never_touched(ingest: Ingest) -> None:
    old = [await accepted(ingest, number, published=number != 2) for number in range(5)]
    ingest.clock.move(400 * DAY)
    assert (await pruned(ingest))["webhook_deliveries"] == 4
    assert await forgotten(ingest) == [each for each in old if each != old[2]]
    assert (await pruned(ingest))["webhook_deliveries"] == 0
    await run(ingest, "UPDATE outbox_messages SET published_at = now() WHERE subject = :id", id=old[2])
    assert (await pruned(ingest))["webhook_deliveries"] == 1, "the walk has not gone past it for good"


async def test_a_replay_that_is_not_published_yet_keeps_its_delivery(ingest: Ingest) -> None:
    delivery_id = await accepted(ingest, 1)
    ingest.clock.move(91 * DAY)
    assert (await replay(ingest, f"webhook-deliveries/{delivery_id}/replay")).status_code == 200
    assert (await pruned(ingest))["webhook_deliveries"] == 0


async def test_replaying_what_is_forgotten_is_refused_and_a_window_says_how_many_are(ingest: Ingest) -> None:
    since = to_rfc3339(ingest.clock.now())
    old = [await accepted(ingest, number) for number in range(3)]
    ingest.clock.move(91 * DAY)
    await pruned(ingest)
    for mode in ("dry_run", "rederive", "refetch"):
        refused = await replay(ingest, f"webhook-deliveries/{old[0]}/replay", mode=mode)
        assert (refused.status_code, refused.json()["code"]) == (410, "delivery_forgotten")
    until = to_rfc3339(ingest.clock.now() - timedelta(days=80))
    bulk = await replay(ingest, "webhook-replays", gateway="stripe", limit=2, to=until, **{"from": since})
    assert bulk.status_code == 200
    assert (bulk.json()["count"], bulk.json()["forgotten"], bulk.json()["next_after"]) == (0, 2, old[1])
    assert await ingest.count("webhook_replays") == 0


async def test_a_list_says_which_are_forgotten(ingest: Ingest) -> None:
    await accepted(ingest, 1)
    ingest.clock.move(91 * DAY)
    await pruned(ingest)
    await accepted(ingest, 2)
    answer = await ingest.client.get("/api/v1/webhook-deliveries", headers=ingest.operator())
    assert [item["forgotten_at"] is None for item in answer.json()["data"]] == [True, False]


async def test_the_next_walk_goes_on_where_the_last_one_stopped(ingest: Ingest) -> None:
    for number in range(6):
        await accepted(ingest, number)
    ingest.clock.move(91 * DAY)
    await pruned(ingest)
    for number in range(6, 9):
        await accepted(ingest, number)
    ingest.clock.move(91 * DAY)
    [done] = [each for each in await ingest.container.retention.run() if each.name == "webhook_deliveries"]
    assert (done.rows, done.looked_at) == (3, 3), "what was emptied before is not read again"


async def test_a_locked_delivery_is_left_for_the_next_walk(ingest: Ingest) -> None:
    old = [await accepted(ingest, number) for number in range(4)]
    ingest.clock.move(91 * DAY)
    async with ingest.container.database.begin() as holder:
        await holder.execute(text("SELECT 1 FROM webhook_deliveries WHERE id = :id FOR UPDATE"), {"id": old[1]})
        async with asyncio.timeout(5):
            assert (await pruned(ingest))["webhook_deliveries"] == 3
    assert (await pruned(ingest))["webhook_deliveries"] == 1
    assert await forgotten(ingest) == old


async def test_deliveries_of_one_moment_are_all_found(ingest: Ingest) -> None:
    for number in range(7):
        await accepted(ingest, number)
    await run(ingest, "UPDATE webhook_deliveries SET received_at = :at", at=ingest.clock.now())
    ingest.clock.move(91 * DAY)
    assert (await pruned(ingest))["webhook_deliveries"] == 7


async def test_old_rejects_go(ingest: Ingest) -> None:
    await ingest.client.post("/api/v1/webhooks/stripe", content=b"{}")
    ingest.clock.move(6 * DAY)
    await ingest.client.post("/api/v1/webhooks/stripe", content=b"[]")
    ingest.clock.move(2 * DAY)
    assert (await pruned(ingest))["webhook_rejects"] == 1
    assert await ingest.count("webhook_rejects") == 1


@pytest.mark.parametrize("name", ["webhook_deliveries"])
async def test_the_walk_goes_by_an_index_and_never_through_the_table(ingest: Ingest, name: str) -> None:
    [walk] = [each for each in walks(ingest.container.settings) if each.name == name]
    values: dict[str, Any] = {"key_0": "2026-01-02 03:04:05+00", "key_1": "whd_1", "limit": 100}
    values["before"] = ingest.clock.now()
    async with ingest.container.database.begin() as connection:
        await prepare(connection)
        rows = await connection.execute(text(f"EXPLAIN {walk.window(is_first=False).text}"), values)
        window = "\n".join(row[0] for row in rows)
    assert "ix_webhook_deliveries_received_at" in window
    assert "Seq Scan" not in window
