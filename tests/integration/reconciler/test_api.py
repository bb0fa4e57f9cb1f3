"""Runs on demand, the lists, and who may see them."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from shared.contracts.catalogue import read_event
from shared.contracts.envelope import EventEnvelope
from shared.contracts.reconciliation_events import ReconciliationRunCompleted
from tests.integration.reconciler.conftest import BuildWorld, World

RUNS = "/api/v1/reconciliation/runs"
WATCHED = "/api/v1/reconciliation/watched-payments"


async def start(world: World, **body: Any) -> httpx.Response:
    return await world.http.post(RUNS, json={"kind": "sweep"} | body, headers=world.token("recon:write"))


async def read(world: World, path: str, **params: Any) -> Any:
    answer = await world.http.get(path, params=params, headers=world.token("recon:read"))
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_run_on_demand_checks_now_what_is_not_due_yet(world: World) -> None:
    payment_id = await world.watches()
    world.payments.gateway_says[payment_id] = "captured"
    answer = await start(world)
    assert answer.status_code == 202
    run = answer.json()
    assert (run["status"], run["matched"], run["checked"], run["asked_by"]) == ("running", 1, 0, "operator")
    assert answer.headers["location"] == f"{RUNS}/{run['run_id']}"
    await world.sweeps()
    done = await read(world, f"{RUNS}/{run['run_id']}")
    assert (done["status"], done["checked"], done["changed"], done["failed"]) == ("completed", 1, 1, 0)
    assert done["finished_at"] is not None
    assert [each["run_id"] for each in (await read(world, RUNS))["data"]] == [run["run_id"]]


async def test_a_run_shows_its_progress_from_round_to_round(build_world: BuildWorld) -> None:
    world = await build_world(sweep_calls_per_gateway=2)
    for _ in range(5):
        await world.watches()
    run = (await start(world)).json()
    seen = []
    for _ in range(3):
        await world.sweeps()
        now = await read(world, f"{RUNS}/{run['run_id']}")
        seen.append((now["status"], now["checked"]))
    assert seen == [("running", 2), ("running", 4), ("completed", 5)]


async def test_a_run_is_announced_even_when_it_learnt_nothing(world: World) -> None:
    await world.watches()
    run = (await start(world)).json()
    await world.sweeps()
    (row,) = await world.rows("SELECT body FROM outbox_messages")
    envelope = EventEnvelope.from_json(row["body"])
    event = read_event(envelope)
    assert isinstance(event, ReconciliationRunCompleted)
    assert (envelope.subject, event.run_id, event.checked, event.changed) == (run["run_id"], run["run_id"], 1, 0)


async def test_a_run_with_nothing_to_check_completes_in_the_next_round(world: World) -> None:
    run = (await start(world, gateway="stripe")).json()
    await world.sweeps()
    done = await read(world, f"{RUNS}/{run['run_id']}")
    assert (done["status"], done["matched"], done["gateway"]) == ("completed", 0, "stripe")


async def test_a_run_checks_only_its_gateway_and_window(world: World) -> None:
    await world.watches(gateway="stripe")
    world.clock.move(10)
    middle = world.clock.now()
    wanted = await world.watches(gateway="stripe")
    await world.watches(gateway="generic")
    answer = await start(world, gateway="stripe", **{"from": middle.isoformat(), "to": "2030-01-01T00:00:00Z"})
    assert answer.json()["matched"] == 1
    await world.sweeps()
    assert world.payments.synced == [wanted]


async def test_asking_twice_answers_the_run_that_is_running(world: World) -> None:
    await world.watches()
    first, second = await start(world), await start(world)
    assert first.json()["run_id"] == second.json()["run_id"]
    await world.sweeps()
    third = await start(world)
    assert third.json()["run_id"] != first.json()["run_id"]


async def test_a_run_goes_on_after_its_runner_died(build_world: BuildWorld) -> None:
    first, second = await build_world(sweep_calls_per_gateway=1), await build_world()
    for _ in range(3):
        await first.watches()
    run = (await start(first)).json()
    await first.sweeps()
    await second.lets_the_lease_run_out()
    await second.sweeps()
    done = await read(second, f"{RUNS}/{run['run_id']}")
    assert (done["status"], done["checked"]) == ("completed", 3)
    assert len(first.payments.synced) == 3


async def test_a_run_waits_for_a_gateway_that_is_down_and_counts_who_was_asked_in_vain(world: World) -> None:
    for _ in range(10):
        await world.watches()
    world.payments.gateways_down.add("generic")
    run = (await start(world)).json()
    await world.sweeps()
    waiting = await read(world, f"{RUNS}/{run['run_id']}")
    assert waiting["status"] == "running"
    assert waiting["failed"] >= 3
    world.payments.gateways_down.clear()
    await world.sweeps(after_seconds=70)
    done = await read(world, f"{RUNS}/{run['run_id']}")
    assert (done["status"], done["checked"] + done["failed"]) == ("completed", 10)


@pytest.mark.parametrize("kind", ["settlement", "orders"])
async def test_a_run_of_another_kind_waits_for_the_worker(world: World, kind: str) -> None:
    answer = await start(world, kind=kind)
    assert (answer.status_code, answer.json()["kind"], answer.json()["status"]) == (202, kind, "running")
    again = await start(world, kind=kind)
    assert again.json()["run_id"] == answer.json()["run_id"]
    await world.sweeps()  # which leaves it alone
    assert (await read(world, f"{RUNS}/{answer.json()['run_id']}"))["status"] == "running"
    listed = await read(world, f"{RUNS}?kind={kind}")
    assert [run["run_id"] for run in listed["data"]] == [answer.json()["run_id"]]


async def test_a_settlement_run_takes_no_window(world: World) -> None:
    answer = await start(world, kind="settlement", **{"from": "2026-01-01T00:00:00Z"})
    assert answer.status_code == 422


@pytest.mark.parametrize(
    "body",
    [
        {"kind": "sweep", "gatway": "stripe"},
        {"kind": "everything"},
        {},
        {"kind": "sweep", "gateway": "St ripe"},
        {"kind": "sweep", "from": "2026-01-02T00:00:00"},
        {"kind": "sweep", "from": "2026-01-02T00:00:00Z", "to": "2026-01-01T00:00:00Z"},
        {"kind": "sweep", "from": "0001-01-01T00:00:00+14:00"},
        {"kind": "sweep", "from": 5},
    ],
)
async def test_a_request_that_is_not_understood_is_refused(world: World, body: dict[str, Any]) -> None:
    answer = await world.http.post(RUNS, json=body, headers=world.token("recon:write"))
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert await world.runs() == []


async def test_a_body_that_is_no_json_is_a_400(world: World) -> None:
    headers = world.token("recon:write") | {"content-type": "application/json"}
    answer = await world.http.post(RUNS, content=b'{"kind": ', headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_json")


@pytest.mark.parametrize("run_id", [f"run_{'0' * 26}", "nonsense", "run_%00"])
async def test_a_run_that_does_not_exist_is_a_404(world: World, run_id: str) -> None:
    answer = await world.http.get(f"{RUNS}/{run_id}", headers=world.token("recon:read"))
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [("POST", RUNS, "recon:read"), ("GET", RUNS, "payments:read"), ("GET", WATCHED, "recon:write")],
)
async def test_scopes_are_checked(world: World, method: str, path: str, scope: str) -> None:
    body = {"kind": "sweep"} if method == "POST" else None
    without = await world.http.request(method, path, json=body)
    wrong = await world.http.request(method, path, json=body, headers=world.token(scope))
    right = await world.http.request(method, path, json=body, headers=world.token("recon:*"))
    assert (without.status_code, wrong.status_code) == (401, 403)
    assert right.status_code in (200, 202)


async def test_watched_payments_are_listed_page_by_page_and_by_filter(world: World) -> None:
    ids = [await world.watches(gateway="stripe" if number % 2 else "generic") for number in range(5)]
    done = await world.watches(status="captured")
    await world.execute("UPDATE watched_payments SET next_check_at = NULL WHERE payment_id = :id", id=done)
    first = await read(world, WATCHED, limit=3)
    rest = await read(world, WATCHED, limit=3, cursor=first["next_cursor"])
    listed = [each["payment_id"] for each in first["data"] + rest["data"]]
    assert listed == sorted(ids, reverse=True)
    assert rest["next_cursor"] is None
    assert first["data"][0]["amount"] == {"amount_minor": 1000, "currency": "EUR"}
    assert len((await read(world, WATCHED, gateway="stripe"))["data"]) == 2
    assert (await read(world, WATCHED, status="authorized"))["data"] == []
    assert [each["payment_id"] for each in (await read(world, WATCHED, dropped="true"))["data"]] == [done]
    assert (await read(world, WATCHED, due_before=world.clock.now().isoformat()))["data"] == []


async def test_runs_are_listed_page_by_page(world: World) -> None:
    started = [(await start(world, gateway=gateway)).json()["run_id"] for gateway in ("stripe", "generic", "tabby")]
    first = await read(world, RUNS, limit=2)
    rest = await read(world, RUNS, limit=2, cursor=first["next_cursor"])
    assert [each["run_id"] for each in first["data"] + rest["data"]] == started[::-1]


async def test_events_can_be_caught_up_with(world: World) -> None:
    await start(world)
    await world.sweeps()
    answer = await world.http.get("/api/v1/events", headers=world.token("events:read"))
    assert [event["type"] for event in answer.json()["data"]] == ["reconciliation.run_completed.v1"]


async def test_the_service_says_that_it_is_ready(world: World) -> None:
    answer = await world.http.get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (200, "ok")
