"""A gateway that is down: it is left alone, everybody agrees on that, and it is noticed when it is back.

Nothing here measures time: an open breaker is fast because no call leaves it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY

from services.payment_service.db.breakers import StoredBreakers
from services.payment_service.domain.breaker import BreakerState, OperationClass
from services.payment_service.main import serve_background
from services.payment_service.use_cases import breakers
from services.payment_service.use_cases.breakers import BreakerKey
from shared.errors import GatewayError, GatewayUnavailable
from tests.integration.payment_service.conftest import BuildWorld, World
from tests.integration.payment_service.fake_gateway import Trouble, says
from tests.support.waiting import until

KEY = BreakerKey("generic", OperationClass.SESSION)
ROW = "SELECT * FROM gateway_breakers WHERE gateway = 'generic' AND operation_class = 'session'"


COOL_DOWN_SECONDS = 60
"""Longer than the machine ever stands still: none of these tests waits for its end."""


@pytest.fixture
def build_world(build_world: BuildWorld, monkeypatch: pytest.MonkeyPatch) -> BuildWorld:
    """Replicas that wait for their database as long as it takes, so that what a test reads of it has been written."""
    monkeypatch.setattr(breakers, "STORE_PATIENCE_SECONDS", 30)

    async def build(**settings: Any) -> World:
        return await build_world(**{"gateway_breaker_cool_down_seconds": COOL_DOWN_SECONDS, **settings})

    return build


class EachTime(list[Trouble]):
    """The same trouble at every call."""

    def __init__(self, trouble: Callable[[], Trouble]) -> None:
        super().__init__([trouble()])
        self._trouble = trouble

    def pop(self, _index: Any = -1) -> Trouble:
        return self._trouble()


def refuses_us() -> Trouble:
    """Not retried, so that a test has its five failures soon."""
    return says(401, {"error": {"code": "unauthorized"}})


def goes_down(world: World) -> None:
    world.gateway.before["create"] = EachTime(refuses_us)


def comes_back(world: World) -> None:
    world.gateway.before.clear()


async def pay(world: World) -> httpx.Response:
    return await world.post("", world.body())


async def pay_at_last(world: World) -> None:
    """However often the database was too slow for it: on a busy machine the first connections take their time."""
    while (await pay(world)).json().get("code") == "database_unavailable":
        pass


async def down(world: World) -> None:
    """Its session breaker is open, after five failures."""
    goes_down(world)
    for _ in range(5):
        assert (await pay(world)).status_code == 503
    world.gateway.calls.clear()


async def cool_down_is_over(*worlds: World) -> None:
    await worlds[0].run("UPDATE gateway_breakers SET open_until = now()")
    for world in worlds:
        await world.container.breakers.refresh()


async def listed(world: World, name: str = "generic") -> dict[str, Any]:
    answer = await world.http.get("/api/v1/gateways")
    return next(dict(gateway) for gateway in answer.json()["data"] if gateway["name"] == name)


async def session_state(world: World) -> str:
    return str((await listed(world))["breakers"]["session"]["state"])


async def changes(world: World) -> list[tuple[str, str]]:
    return [(event["data"]["previous_state"], event["data"]["state"]) for event in await world.events("generic")]


def gauge() -> float | None:
    return REGISTRY.get_sample_value(
        "payrail_gateway_breaker_state", {"gateway": "generic", "operation_class": "session"}
    )


@asynccontextmanager
async def in_background(*worlds: World) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for world in worlds:
            task = asyncio.create_task(serve_background(world.container))
            stack.push_async_callback(_end, task)
        yield


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_a_dead_gateway_is_not_called_any_more_and_no_row_is_left(world: World) -> None:
    await down(world)
    rows_before = await world.rows("SELECT payment_id FROM payments ORDER BY payment_id")
    for _ in range(10):
        answer = await pay(world)
        assert (answer.status_code, answer.json()["code"]) == (503, "gateway_unavailable")
        assert 1 <= int(answer.headers["retry-after"]) <= COOL_DOWN_SECONDS
        assert answer.json()["retryable"]
    assert world.gateway.calls == []
    assert await world.rows("SELECT payment_id FROM payments ORDER BY payment_id") == rows_before
    assert {row["status"] for row in await world.rows("SELECT status FROM payment_attempts")} == {"created"}


async def test_a_payment_that_waits_for_its_session_is_refused_before_its_row_says_it_was_sent(world: World) -> None:
    goes_down(world)
    body = world.body()
    for _ in range(5):
        assert (await world.post("", body)).status_code == 503
    world.gateway.calls.clear()
    versions = "SELECT xmin::text, * FROM payment_attempts"  # changes with every committed write, even one taken back
    before = await world.rows(versions)
    assert (await world.post("", body)).status_code == 503
    assert world.gateway.calls == []
    assert await world.rows(versions) == before


async def test_what_needs_no_call_is_answered_as_ever(world: World) -> None:
    body = world.body()
    first = await world.post("", body)
    await down(world)
    again = await world.post("", body)
    assert (again.status_code, again.json()["next_action"]) == (200, first.json()["next_action"])
    assert (await world.sync(body["payment_id"]))["status"] == "requires_action"  # asking is another class


async def test_another_gateway_does_not_notice(build_world: BuildWorld) -> None:
    world = await build_world(stripe_api_key="sk_test_secret", stripe_api_base="https://stripe.test")
    await down(world)
    assert not (await listed(world, "generic"))["available"]
    stripe = await listed(world, "stripe")
    assert stripe["available"]
    assert {each["state"] for each in stripe["breakers"].values()} == {"closed"}
    world.container.gateways.require_available("stripe", OperationClass.SESSION)
    with suppress(GatewayError):
        await world.container.gateways.get("stripe").close_session("cs_test_1", our_reference="R")
    assert world.gateway.calls


async def test_it_is_hidden_at_checkout_and_offered_again_by_itself(world: World) -> None:
    before = await listed(world)
    closed = {"state": "closed", "retry_after_seconds": None, "reason": None}
    assert before["available"]
    assert before["breakers"] == {"session": closed, "read": closed, "money": closed}
    await down(world)
    hidden = await listed(world)
    assert not hidden["available"]
    assert hidden["breakers"]["session"]["state"] == "open"
    assert 1 <= hidden["breakers"]["session"]["retry_after_seconds"] <= COOL_DOWN_SECONDS
    assert hidden["breakers"]["session"]["reason"] == "5 failures in a row"
    assert hidden["breakers"]["read"] == closed
    await cool_down_is_over(world)
    offered = await listed(world)
    assert (offered["available"], offered["breakers"]["session"]["state"]) == (True, "half_open")
    comes_back(world)
    assert (await pay(world)).status_code == 201
    assert await listed(world) == before


async def test_its_changes_are_events_and_a_metric(world: World) -> None:
    await down(world)
    assert gauge() == 2
    await cool_down_is_over(world)
    assert (await pay(world)).status_code == 503
    await cool_down_is_over(world)
    comes_back(world)
    assert (await pay(world)).status_code == 201
    assert gauge() == 0
    assert await changes(world) == [
        ("closed", "open"),
        ("open", "half_open"),
        ("half_open", "open"),
        ("open", "half_open"),
        ("half_open", "closed"),
    ]
    events = await world.events("generic")
    assert {event["type"] for event in events} == {"gateway.health_changed.v1"}
    assert [event["sequence"] for event in events] == [1, 2, 3, 4, 5]
    assert events[0]["data"]["operation_class"] == "session"
    assert events[0]["data"]["reason"] == "5 failures in a row"
    assert 48 <= events[0]["data"]["retry_after_seconds"] <= COOL_DOWN_SECONDS
    assert events[4]["data"]["retry_after_seconds"] is None


async def test_a_change_and_its_event_are_one(world: World) -> None:
    await world.run("ALTER TABLE outbox_messages RENAME TO elsewhere")
    store = StoredBreakers(world.container.database, world.container.ports)
    with pytest.raises(Exception, match="outbox_messages"):
        await store.open(KEY, openings=1, reason="5 failures in a row", seconds=5)
    assert await world.rows(ROW) == []


async def test_a_probe_that_fails_lengthens_the_cool_down(world: World) -> None:
    await down(world)
    lengths = []
    for _ in range(3):
        row = (await world.rows(ROW))[0]
        lengths.append((row["openings"], (row["open_until"] - row["changed_at"]).total_seconds()))
        await cool_down_is_over(world)
        assert (await pay(world)).status_code == 503
    assert [openings for openings, _ in lengths] == [1, 2, 3]
    for (_, seconds), (low, high) in zip(lengths, [(48, 60), (96, 120), (192, 240)], strict=True):
        assert low - 0.5 <= seconds <= high
    assert world.gateway.calls == ["create"] * 3


async def test_replicas_hear_of_an_opening_and_of_the_recovery(build_world: BuildWorld) -> None:
    here, there = await build_world(), await build_world()
    async with in_background(here, there):
        assert await session_state(there) == "closed"
        await down(here)
        await until(lambda: _is(there, "open"), what="the other replica's hearing of it")
        assert (await pay(there)).status_code == 503
        assert here.gateway.calls == []
        await cool_down_is_over(here, there)
        comes_back(here)
        assert (await pay(there)).status_code == 201
        await until(lambda: _is(here, "closed"), what="this replica's hearing of the recovery")
        assert (await pay(here)).status_code == 201
    assert await changes(here) == [("closed", "open"), ("open", "half_open"), ("half_open", "closed")]


async def _is(world: World, state: str) -> bool:
    return await session_state(world) == state


async def test_replicas_that_open_at_the_same_time_open_once(build_world: BuildWorld) -> None:
    here, there = await build_world(), await build_world()
    goes_down(here)
    await asyncio.gather(*(pay_at_last(world) for world in (here, there) * 8))
    assert await session_state(here) == await session_state(there) == "open"
    assert await changes(here) == [("closed", "open")]
    assert (await here.rows(ROW))[0]["openings"] == 1


async def test_of_twenty_callers_on_two_replicas_one_finds_out(build_world: BuildWorld) -> None:
    here, there = await build_world(), await build_world()
    await down(here)
    await cool_down_is_over(here, there)
    release = asyncio.Event()
    here.gateway.before["create"] = EachTime(lambda: release)
    calls = [asyncio.create_task(pay(world)) for world in (here, there) * 10]
    await until(lambda: sum(call.done() for call in calls) == 19, what="the refusal of the other nineteen")
    assert here.gateway.calls == ["create"]
    assert {call.result().status_code for call in calls if call.done()} == {503}
    assert await session_state(there) == "half_open"
    release.set()
    answers = await asyncio.gather(*calls)
    assert sorted(answer.status_code for answer in answers) == [201] + [503] * 19
    assert (await here.rows(ROW))[0]["state"] == "closed"


async def test_a_probe_that_was_killed_holds_up_nobody_for_long(world: World) -> None:
    await down(world)
    comes_back(world)
    await cool_down_is_over(world)
    store = StoredBreakers(world.container.database, world.container.ports)
    taken = await store.take_probe(KEY, token="of a process that was killed", seconds=30)
    assert (taken.state, taken.probe_token) == (BreakerState.HALF_OPEN, "of a process that was killed")
    assert (await pay(world)).status_code == 503
    await world.run("UPDATE gateway_breakers SET probe_until = now()")
    await world.container.breakers.refresh()
    assert (await pay(world)).status_code == 201
    # One probe took over from the other: that is no change.
    assert await changes(world) == [("closed", "open"), ("open", "half_open"), ("half_open", "closed")]


async def test_a_probe_whose_lease_has_passed_on_decides_nothing(world: World) -> None:
    store = StoredBreakers(world.container.database, world.container.ports)
    await store.open(KEY, openings=1, reason="why", seconds=0)
    old = await store.take_probe(KEY, token="prb_old", seconds=0)
    new = await store.take_probe(KEY, token="prb_new", seconds=30)
    assert (old.probe_token, new.probe_token) == ("prb_old", "prb_new")
    assert (await store.close(KEY, token="prb_old")).probe_token == "prb_new"
    reopened = await store.reopen(KEY, token="prb_old", reason="late", seconds=99)
    assert reopened.probe_token == "prb_new"
    assert (await store.give_back(KEY, token="prb_old")).probe_until > 20
    assert await changes(world) == [("closed", "open"), ("open", "half_open")]


async def test_a_replica_that_starts_late_learns_that_it_is_open(build_world: BuildWorld) -> None:
    here = await build_world()
    await down(here)
    late = await build_world()
    async with in_background(late):
        await until(lambda: _is(late, "open"))
    assert (await pay(late)).status_code == 503
    assert here.gateway.calls == []


async def test_without_our_database_calls_go_on_and_a_replica_protects_itself(build_world: BuildWorld) -> None:
    world = await build_world(database_url="postgresql://nobody@127.0.0.1:1/nowhere")
    adapter = world.container.gateways.get("generic")
    world.gateway.before["retrieve"] = EachTime(refuses_us)
    for _ in range(7):
        with pytest.raises(GatewayUnavailable):
            await adapter.retrieve(("gp_1",), our_reference="R")
    assert world.gateway.calls == ["retrieve"] * 5
    assert (await listed(world))["breakers"]["read"]["state"] == "open"
