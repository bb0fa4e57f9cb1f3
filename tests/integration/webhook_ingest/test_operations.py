from __future__ import annotations

import asyncio
import base64
import json
from datetime import timedelta
from typing import Any

import pytest

from services.webhook_ingest.worker import run_worker
from shared.clock import to_rfc3339
from tests.integration.webhook_ingest.conftest import Ingest, a_stripe_event
from tests.support.waiting import until


async def _accepted(ingest: Ingest, event_id: str = "evt_1", **changes: Any) -> str:
    answer = await ingest.post_stripe(a_stripe_event(event_id, **changes))
    delivery_id: str = answer.json()["delivery_id"]
    return delivery_id


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/v1/webhook-deliveries"),
        ("GET", "/api/v1/webhook-deliveries/whd_00000000000000000000000000"),
        ("GET", "/api/v1/webhook-rejects"),
        ("POST", "/api/v1/webhook-deliveries/whd_00000000000000000000000000/replay"),
        ("POST", "/api/v1/webhook-replays"),
    ],
)
async def test_operators_routes_need_a_token_with_their_scope(ingest: Ingest, method: str, path: str) -> None:
    assert (await ingest.client.request(method, path, json={})).status_code == 401
    wrong_scope = "ops:write" if method == "GET" else "ops:read"
    for scopes in ("orders:*", wrong_scope):
        assert (await ingest.client.request(method, path, json={}, headers=ingest.operator(scopes))).status_code == 403


async def test_deliveries_are_listed_newest_first_page_by_page(ingest: Ingest) -> None:
    ids = []
    for number in range(5):
        ids.append(await _accepted(ingest, f"evt_{number}"))
        ingest.clock.move(1)
    seen: list[str] = []
    cursor = ""
    while True:
        page = (
            await ingest.client.get(f"/api/v1/webhook-deliveries?limit=2{cursor}", headers=ingest.operator())
        ).json()
        seen += [item["id"] for item in page["data"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert seen == ids[::-1]


async def test_deliveries_are_filtered(ingest: Ingest) -> None:
    await _accepted(ingest, "evt_1")
    ingest.clock.move(60)
    since = to_rfc3339(ingest.clock.now())
    other = await _accepted(ingest, "evt_2", type="charge.refunded")
    await ingest.post_generic(b'{"status":"completed"}')

    async def found(**params: str) -> int:
        answer = await ingest.client.get("/api/v1/webhook-deliveries", params=params, headers=ingest.operator())
        assert answer.status_code == 200
        return len(answer.json()["data"])

    assert await found() == 3
    assert await found(gateway="stripe") == 2
    assert await found(event_type="charge.refunded") == 1
    assert await found(since=since) == 2
    assert await found(status="pending") == 3
    assert await found(status="published") == 0
    assert other.startswith("whd_")


@pytest.mark.parametrize(
    "query",
    [
        "cursor=x",
        "limit=0",
        "limit=999",
        "status=lost",
        "since=yesterday",
        "since=0.5",
        "since=2026-01-02T00:00:00",
        "gateway=%00",
        "event_type=%00",
        "event_type=%ed%a0%80",
    ],
)
async def test_a_filter_that_makes_no_sense_is_422(ingest: Ingest, query: str) -> None:
    answer = await ingest.client.get(f"/api/v1/webhook-deliveries?{query}", headers=ingest.operator())
    assert answer.status_code == 422


async def test_a_delivery_is_shown_with_its_raw_body_headers_and_what_became_of_it(ingest: Ingest) -> None:
    body = a_stripe_event()
    delivery_id = (await ingest.post_stripe(body, Authorization="Basic c2VjcmV0")).json()["delivery_id"]
    shown = (await ingest.client.get(f"/api/v1/webhook-deliveries/{delivery_id}", headers=ingest.operator())).json()
    assert base64.b64decode(shown["body_base64"]) == body
    assert shown["body_text"] == body.decode()
    headers = {header["name"]: header["value"] for header in shown["headers"]}
    assert headers["authorization"] == "[removed]"
    assert headers["stripe-signature"].startswith("t=")
    assert shown["verification"]["trust"] == "full"
    assert shown["verification"]["signed_at"] == to_rfc3339(ingest.clock.now())
    assert shown["status"] == "pending"
    assert shown["remote_address"] == "203.0.113.9"
    assert [event["published_at"] for event in shown["events"]] == [None]
    missing = await ingest.client.get(f"/api/v1/webhook-deliveries/whd_{'0' * 26}", headers=ingest.operator())
    assert missing.status_code == 404


async def _replay(ingest: Ingest, delivery_id: str, **body: str) -> dict[str, Any]:
    answer = await ingest.client.post(
        f"/api/v1/webhook-deliveries/{delivery_id}/replay", json=body, headers=ingest.operator()
    )
    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json()
    return result


async def test_a_replay_is_a_dry_run_unless_asked_otherwise(ingest: Ingest) -> None:
    delivery_id = await _accepted(ingest)
    answer = await _replay(ingest, delivery_id, reason="what would happen")
    assert answer["published"] is False
    assert answer["event"]["delivery_id"] == delivery_id
    assert len(await ingest.outbox()) == 1


async def test_rederive_publishes_the_same_facts_as_a_new_event(ingest: Ingest) -> None:
    delivery_id = await _accepted(ingest)
    await _replay(ingest, delivery_id, mode="rederive", reason="the consumer had a bug")
    await _replay(ingest, delivery_id, mode="rederive", reason="and once more")
    first, second, third = await ingest.outbox()
    assert [event["sequence"] for event in (first, second, third)] == [1, 2, 3]
    assert first["data"] == second["data"] == third["data"]
    assert len({event["id"] for event in (first, second, third)}) == 3
    shown = (await ingest.client.get(f"/api/v1/webhook-deliveries/{delivery_id}", headers=ingest.operator())).json()
    assert [replay["reason"] for replay in shown["replays"]] == ["the consumer had a bug", "and once more"]
    assert shown["replays"][0]["actor"] == "operator@example.com"
    assert second["causationid"] == shown["replays"][0]["id"]


async def test_refetch_publishes_a_hint_so_that_the_gateway_is_asked(ingest: Ingest) -> None:
    delivery_id = await _accepted(ingest)
    await _replay(ingest, delivery_id, mode="refetch", reason="is it true")
    assert [event["data"]["trust"] for event in await ingest.outbox()] == ["full", "hint"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"reason": "x"},
        {"reason": "long enough", "mode": "now"},
        {"reason": "long enough", "amount": 1},
        {"reason": "nul\u0000byte"},
        {"reason": "half \ud800 a character"},
    ],
)
async def test_a_replay_needs_a_reason_and_a_mode_that_exists(ingest: Ingest, body: dict[str, Any]) -> None:
    delivery_id = await _accepted(ingest)
    answer = await ingest.client.post(
        f"/api/v1/webhook-deliveries/{delivery_id}/replay",
        content=json.dumps(body),  # httpx refuses to write half a character, an attacker does not
        headers={**ingest.operator(), "Content-Type": "application/json"},
    )
    assert answer.status_code == 422


async def test_a_time_window_is_replayed_in_bounded_calls(ingest: Ingest) -> None:
    start = ingest.clock.now()
    ids = []
    for number in range(5):
        ids.append(await _accepted(ingest, f"evt_{number}"))
        ingest.clock.move(1)
    body: dict[str, Any] = {
        "gateway": "stripe",
        "from": to_rfc3339(start),
        "to": to_rfc3339(ingest.clock.now() + timedelta(seconds=1)),
        "reason": "the payment service was down",
        "mode": "rederive",
        "limit": 2,
    }
    replayed: list[str] = []
    while True:
        answer = await ingest.client.post("/api/v1/webhook-replays", json=body, headers=ingest.operator())
        assert answer.status_code == 200, answer.text
        replayed += [item["delivery_id"] for item in answer.json()["deliveries"]]
        if answer.json()["next_after"] is None:
            break
        body["after"] = answer.json()["next_after"]
    assert replayed == ids
    assert len(await ingest.outbox()) == 10


async def test_a_bulk_replay_is_a_dry_run_by_default_and_its_window_is_bounded(ingest: Ingest) -> None:
    await _accepted(ingest)
    body = {"gateway": "stripe", "from": "2026-01-01T00:00:00Z", "to": "2026-01-03T00:00:00Z", "reason": "just looking"}
    answer = await ingest.client.post("/api/v1/webhook-replays", json=body, headers=ingest.operator())
    assert (answer.json()["mode"], answer.json()["count"]) == ("dry_run", 1)
    assert len(await ingest.outbox()) == 1
    for wrong in (
        {"to": "2026-01-01T00:00:00Z"},
        {"to": "2027-01-01T00:00:00Z"},
        {"limit": 0},
        {"limit": 9999},
        {"from": "2026-01-01T00:00:00"},
        {"from": 1767225600},
    ):
        refused = await ingest.client.post("/api/v1/webhook-replays", json=body | wrong, headers=ingest.operator())
        assert refused.status_code == 422


async def test_the_worker_brings_events_to_the_bus_and_forgets_old_rejects(ingest: Ingest) -> None:
    delivery_id = await _accepted(ingest)
    await ingest.client.post("/api/v1/webhooks/stripe", content=b"{}")
    worker = asyncio.create_task(run_worker(ingest.container))
    try:

        async def published() -> bool:
            answer = await ingest.client.get(f"/api/v1/webhook-deliveries/{delivery_id}", headers=ingest.operator())
            return bool(answer.json()["status"] == "published")

        await until(published, what="the relay publishing the event")
    finally:
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
    ingest.clock.move(8 * 24 * 3600)
    await ingest.container.retention.run()
    assert await ingest.count("webhook_rejects") == 0
    assert await ingest.count("webhook_deliveries") == 1


async def test_the_openapi_document_describes_every_answer_of_ingest(ingest: Ingest) -> None:
    document = (await ingest.client.get("/openapi.json")).json()
    operation = document["paths"]["/api/v1/webhooks/{gateway}"]["post"]
    assert {"200", "400", "401", "404", "413", "415", "429", "503"} <= set(operation["responses"])
    assert (await ingest.client.get("/readyz")).json()["status"] == "ok"


async def test_a_consumer_catches_up_with_the_events_it_missed(ingest: Ingest) -> None:
    """An event can be read once it is rendered, which is when it is published; until then no cursor steps over it."""
    ids = [await _accepted(ingest, f"evt_{number}") for number in range(3)]

    async def page(after: str) -> dict[str, Any]:
        answer = await ingest.client.get(
            "/api/v1/events", params={"after": after, "limit": 2}, headers=ingest.operator("events:read")
        )
        assert answer.status_code == 200
        return dict(answer.json())

    before = await page("0.0")
    assert before["data"] == []
    worker = asyncio.create_task(run_worker(ingest.container))
    try:
        seen: list[str] = []
        after = before["next_cursor"]
        async with asyncio.timeout(20):
            while len(seen) < 3:
                found = await page(after)
                seen += [event["subject"] for event in found["data"]]
                after = found["next_cursor"]
    finally:
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
    assert seen == ids
