"""A gateway behind its breakers: what opens them, who may try again, and what a replica does on its own."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest
from prometheus_client import REGISTRY

from services.payment_service.domain.breaker import BreakerState, OperationClass
from services.payment_service.gateways.port import GatewayAdapter, KeyUsedUp
from services.payment_service.use_cases.breakers import BreakerKey
from shared.errors import (
    GatewayCallsExhausted,
    GatewayObjectNotFound,
    GatewayOutcomeUnknown,
    GatewayRateLimited,
    GatewayRejected,
    GatewayServerError,
    GatewayUnavailable,
    InvalidAmount,
)
from tests.support.waiting import until
from tests.unit.payment_service.breaker_world import Replica, a_replica

S = BreakerState
MONEY = BreakerKey("generic", OperationClass.MONEY)


async def opened(**policy: Any) -> Replica:
    replica = a_replica(**policy)
    await replica.attempts(5, GatewayUnavailable())
    replica.adapter.calls.clear()
    replica.store.queries.clear()
    return replica


def metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def test_a_healthy_gateway_costs_no_query() -> None:
    replica = a_replica()
    for _ in range(50):
        await replica.refund()
    assert (replica.store.queries, len(replica.adapter.calls)) == ([], 50)


@pytest.mark.parametrize("error", [GatewayUnavailable(), GatewayOutcomeUnknown(), GatewayServerError(500)], ids=repr)
async def test_five_failures_open_it_and_then_nothing_is_sent_and_no_query_made(error: Exception) -> None:
    replica = a_replica()
    await replica.attempts(5, error)
    assert replica.store.rows[MONEY].state is S.OPEN
    replica.store.queries.clear()
    for _ in range(20):
        with pytest.raises(GatewayUnavailable) as refused:
            await replica.refund()
        assert 4 <= (refused.value.retry_after_seconds or 0) <= 5
        assert refused.value.code == "gateway_unavailable"
    assert len(replica.adapter.calls) == 5
    assert replica.store.queries in ([], ["load"])  # at most one look a second, for which nobody waits


@pytest.mark.parametrize(
    "error",
    [
        GatewayRejected(),
        GatewayObjectNotFound(),
        KeyUsedUp(),
        GatewayRateLimited(),
        GatewayCallsExhausted(),
        GatewayServerError(500, is_replay=True),
        InvalidAmount(),
        ZeroDivisionError(),
    ],
    ids=repr,
)
async def test_an_answer_is_health_and_our_own_mistakes_say_nothing(error: Exception) -> None:
    replica = a_replica()
    await replica.attempts(20, error)
    assert replica.seen().state is S.CLOSED
    assert len(replica.adapter.calls) == 20


async def test_each_class_of_operations_has_a_breaker_of_its_own() -> None:
    replica = await opened()
    assert [replica.seen(each).state for each in OperationClass] == [S.CLOSED, S.CLOSED, S.OPEN]
    nothing: Any = None
    await replica.guarded.create_session(nothing, repeated=False)
    await replica.guarded.close_session("gp_1", our_reference="R")
    await replica.guarded.retrieve(("gp_1",), our_reference="R")
    await replica.guarded.find_operation(nothing)
    for money in (
        replica.guarded.capture,
        replica.guarded.void,
        replica.guarded.refund,
        replica.guarded.complete,
    ):
        with pytest.raises(GatewayUnavailable):
            await money(nothing)
    assert replica.adapter.calls == ["create_session", "close_session", "retrieve", "find_operation"]


def test_a_guarded_adapter_offers_all_that_an_adapter_does() -> None:
    guarded: GatewayAdapter = a_replica().guarded
    offered = {name for name in dir(GatewayAdapter) if not name.startswith("_")}
    assert offered <= set(dir(guarded)) | {"facts"}


async def test_it_says_before_any_row_whether_a_call_would_be_refused() -> None:
    replica = await opened()
    replica.breakers.require_available("generic", OperationClass.SESSION)
    with pytest.raises(GatewayUnavailable) as refused:
        replica.breakers.require_available("generic", OperationClass.MONEY)
    assert refused.value.retry_after_seconds
    replica.clock.move(5)
    replica.breakers.require_available("generic", OperationClass.MONEY)  # whoever calls now finds out


async def test_after_the_cool_down_one_success_closes_it() -> None:
    replica = await opened()
    replica.clock.move(5)
    assert replica.seen().state is S.HALF_OPEN
    assert replica.seen().retry_after_seconds is None
    await replica.refund()
    assert replica.seen().state is S.CLOSED
    assert replica.store.rows[MONEY].state is S.CLOSED


async def test_what_failed_before_it_opened_is_forgotten_when_it_closes() -> None:
    replica = await opened()
    replica.clock.move(5)
    await replica.refund()
    await replica.attempts(4, GatewayUnavailable())
    assert replica.seen().state is S.CLOSED


async def test_each_reopening_waits_longer_up_to_the_cap() -> None:
    replica = await opened(longest_cool_down_seconds=30)
    waits = [replica.seen().retry_after_seconds or 0]
    for _ in range(6):
        replica.clock.move(waits[-1])
        await replica.attempts(1, GatewayUnavailable())
        waits.append(replica.seen().retry_after_seconds or 0)
    assert len(replica.adapter.calls) == 6
    assert waits[:3] == sorted(set(waits[:3]))
    assert 4 <= waits[0] <= 5
    assert 8 <= waits[1] <= 10
    assert 16 <= waits[2] <= 20
    assert all(24 <= wait <= 30 for wait in waits[3:])
    replica.clock.move(30)
    await replica.refund()
    await replica.attempts(5, GatewayUnavailable())
    assert (replica.seen().retry_after_seconds or 99) <= 5  # a success in between starts from the beginning


async def test_of_many_callers_on_two_replicas_one_finds_out() -> None:
    here = await opened()
    there = a_replica(here, seed=2)
    await there.breakers.refresh()
    here.clock.move(5)
    release = asyncio.Event()
    here.adapter.does = release.wait
    calls = [asyncio.create_task(each.refund()) for each in (here, there) * 10]
    await until(lambda: sum(call.done() for call in calls) == 19, what="the refusal of the others")
    assert len(here.adapter.calls) == 1
    assert all(isinstance(call.exception(), GatewayUnavailable) for call in calls if call.done())
    release.set()
    await asyncio.wait(calls)
    assert sum(call.exception() is None for call in calls) == 1
    assert here.store.rows[MONEY].state is S.CLOSED


async def test_replicas_agree() -> None:
    here = await opened()
    there = a_replica(here, seed=2)
    await there.breakers.refresh()
    assert there.seen() == here.seen()
    with pytest.raises(GatewayUnavailable):
        await there.refund()
    assert here.adapter.calls == []
    here.clock.move(5)
    await here.refund()
    await there.breakers.refresh()
    assert there.seen().state is S.CLOSED
    await there.attempts(4, GatewayUnavailable())
    assert there.seen().state is S.CLOSED


async def test_a_replica_that_has_not_heard_of_the_recovery_looks_again_by_itself() -> None:
    here = await opened()
    there = a_replica(here, seed=2)
    await there.breakers.refresh()
    here.clock.move(3.5)
    here.store.rows[MONEY] = here.store.rows[MONEY].shifted(-2)
    await here.breakers.refresh()
    await here.refund()
    with pytest.raises(GatewayUnavailable):
        await there.refund()  # by its old picture, but that sets it looking
    await until(lambda: there.seen().state is S.CLOSED)


async def test_an_earlier_look_does_not_make_a_later_one_look_old(monkeypatch: pytest.MonkeyPatch) -> None:
    here = await opened()
    load, gates = here.store.load, [asyncio.Event(), asyncio.Event()]
    waiting = list(gates)

    async def slow_load() -> Any:
        gate, found = waiting.pop(0), await load()
        await gate.wait()
        return found

    monkeypatch.setattr(here.store, "load", slow_load)
    first = asyncio.create_task(here.breakers.refresh())
    await until(lambda: here.store.queries)
    here.store.rows.clear()  # another replica has found the gateway well
    second = asyncio.create_task(here.breakers.refresh())
    await here.clock.sleep(0)  # it gets its turn
    gates[0].set()
    await first
    gates[1].set()
    await second
    assert here.seen().state is S.CLOSED


async def test_a_probe_that_died_is_followed_by_another_when_its_lease_ends() -> None:
    here = await opened(probe_seconds=30)
    here.clock.move(5)
    await here.store.take_probe(MONEY, token="of a process that was killed", seconds=30)
    with pytest.raises(GatewayUnavailable) as refused:
        await here.refund()
    assert refused.value.retry_after_seconds == 2
    here.clock.move(29.9)
    with pytest.raises(GatewayUnavailable):
        await here.refund()
    here.clock.move(0.2)
    await here.refund()
    assert here.seen().state is S.CLOSED


async def test_a_probe_that_outlasted_its_lease_decides_nothing() -> None:
    here = await opened(probe_seconds=30)
    there = a_replica(here, seed=2, probe_seconds=30)
    here.clock.move(5)
    release = asyncio.Event()

    async def fails_late() -> None:
        await release.wait()
        raise GatewayUnavailable

    here.adapter.does = fails_late
    paused = asyncio.create_task(here.refund())
    await until(lambda: here.adapter.calls)
    here.clock.move(31)
    here.adapter.does = None
    await there.breakers.refresh()
    await there.refund()
    release.set()
    await asyncio.wait([paused])
    await here.breakers.refresh()
    assert (here.store.rows[MONEY].state, here.seen().state) == (S.CLOSED, S.CLOSED)


async def test_a_probe_that_ends_in_our_own_mistake_leaves_the_next_to_find_out_at_once() -> None:
    replica = await opened()
    replica.clock.move(5)
    await replica.attempts(1, InvalidAmount())
    assert replica.seen().state is S.HALF_OPEN
    await replica.refund()
    assert replica.seen().state is S.CLOSED


@pytest.mark.parametrize(("seconds", "state"), [(0.5, S.HALF_OPEN), (3.0, S.OPEN)])
async def test_a_probe_whose_caller_leaves_tells_something_only_if_it_was_slow(seconds: float, state: S) -> None:
    replica = await opened()
    replica.clock.move(5)
    replica.adapter.does = asyncio.Event().wait
    call = asyncio.create_task(replica.refund())
    await until(lambda: replica.adapter.calls)
    replica.clock.move(seconds)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert replica.seen().state is state
    await until(lambda: replica.store.rows[MONEY].seen_at(replica.clock.monotonic()) is state)
    replica.adapter.does = None
    if state is S.HALF_OPEN:
        await replica.refund()  # at once, and not when a lease ends


async def test_callers_that_leave_a_hanging_gateway_open_it() -> None:
    replica = a_replica()
    replica.adapter.does = asyncio.Event().wait
    for number in range(5):
        call = asyncio.create_task(replica.refund())
        await until(partial(_has_calls, replica, number + 1))
        replica.clock.move(4)
        call.cancel()
        await asyncio.wait([call])
    assert replica.seen().state is S.OPEN
    await until(lambda: replica.store.rows)


def _has_calls(replica: Replica, count: int) -> bool:
    return len(replica.adapter.calls) == count


async def test_a_rate_limit_is_obeyed_by_its_class_and_opens_nothing() -> None:
    replica = a_replica()
    await replica.attempts(1, GatewayRateLimited(retry_after_seconds=7))
    replica.clock.move(2)
    with pytest.raises(GatewayRateLimited) as refused:
        await replica.refund()
    assert refused.value.retry_after_seconds == 5
    with pytest.raises(GatewayRateLimited):
        replica.breakers.require_available("generic", OperationClass.MONEY)
    await replica.guarded.retrieve((), our_reference="R")
    assert replica.seen().state is S.CLOSED
    replica.clock.move(5)
    await replica.refund()
    assert replica.adapter.calls == ["refund", "retrieve", "refund"]


async def test_a_gateway_that_answers_a_probe_with_a_rate_limit_is_back() -> None:
    replica = await opened()
    replica.clock.move(5)
    await replica.attempts(1, GatewayRateLimited(retry_after_seconds=7))
    assert replica.seen().state is S.CLOSED
    with pytest.raises(GatewayRateLimited):
        await replica.refund()


async def test_what_was_sent_before_it_opened_decides_nothing_afterwards() -> None:
    replica = a_replica()
    release = asyncio.Event()
    replica.adapter.does = release.wait
    early = asyncio.create_task(replica.refund())
    await until(lambda: replica.adapter.calls)
    await replica.attempts(5, GatewayUnavailable())
    release.set()
    await early
    assert replica.seen().state is S.OPEN


async def test_without_our_database_a_replica_goes_on_by_what_it_remembers() -> None:
    replica = a_replica()
    replica.store.is_down = True
    await replica.attempts(5, GatewayUnavailable())
    with pytest.raises(GatewayUnavailable):
        await replica.refund()
    assert len(replica.adapter.calls) == 5
    replica.clock.move(5)
    await replica.attempts(1, GatewayUnavailable())  # alone it may try, and waits longer afterwards
    assert 8 <= (replica.seen().retry_after_seconds or 0) <= 10
    replica.clock.move(10)
    await replica.refund()
    assert replica.seen().state is S.CLOSED
    replica.store.is_down = False
    await replica.breakers.refresh()
    assert replica.seen().state is S.CLOSED


async def test_an_opening_that_the_database_missed_is_told_when_it_is_back() -> None:
    replica = a_replica()
    replica.store.is_down = True
    await replica.attempts(5, GatewayUnavailable())
    replica.store.is_down = False
    await replica.breakers.refresh()
    assert (replica.store.rows[MONEY].state, replica.seen().state) == (S.OPEN, S.OPEN)


async def test_a_recovery_that_the_database_missed_is_told_when_it_is_back() -> None:
    replica = await opened()
    replica.clock.move(5)

    async def answers_when_our_database_is_away() -> None:
        replica.store.is_down = True

    replica.adapter.does = answers_when_our_database_is_away
    await replica.refund()
    assert (replica.store.rows[MONEY].state, replica.seen().state) == (S.HALF_OPEN, S.CLOSED)
    replica.adapter.does = None
    await replica.refund()
    replica.store.is_down = False
    await replica.breakers.refresh()
    assert (replica.store.rows[MONEY].state, replica.seen().state) == (S.CLOSED, S.CLOSED)


async def test_a_database_that_hangs_holds_up_nobody_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.payment_service.use_cases.breakers.STORE_PATIENCE_SECONDS", 0.01)
    replica = await opened()
    hangs = asyncio.Event()

    async def never(*_: Any, **__: Any) -> Any:
        await hangs.wait()

    monkeypatch.setattr(replica.store, "take_probe", never)
    monkeypatch.setattr(replica.store, "close", never)
    replica.clock.move(5)
    await replica.refund()
    assert (replica.adapter.calls, replica.seen().state) == (["refund"], S.CLOSED)
    for task in list(replica.breakers._tasks):
        task.cancel()
    await replica.breakers.close()


async def test_calls_are_counted_and_timed_by_gateway_and_operation() -> None:
    def calls(result: str) -> float:
        return metric("payrail_gateway_calls_total", gateway="generic", operation="refund", result=result)

    def timed() -> float:
        return metric("payrail_gateway_call_seconds_count", gateway="generic", operation="refund")

    results = ("ok", "gateway_rejected", "rate_limited", "gateway_unavailable", "refused_by_us", "error")
    before, timed_before = {result: calls(result) for result in results}, timed()
    replica = a_replica()
    await replica.refund()
    for error in (GatewayRejected(), ZeroDivisionError(), GatewayRateLimited()):
        await replica.attempts(1, error)
    await replica.attempts(6, GatewayUnavailable())
    assert {result: calls(result) - before[result] for result in results} == {
        "ok": 1,
        "gateway_rejected": 1,
        "rate_limited": 1,
        "error": 1,
        "gateway_unavailable": 5,
        "refused_by_us": 1,
    }
    assert timed() - timed_before == 9


async def test_the_state_is_a_metric() -> None:
    def gauge() -> float:
        return metric("payrail_gateway_breaker_state", gateway="generic", operation_class="money")

    replica = a_replica()
    assert gauge() == 0
    await replica.attempts(5, GatewayUnavailable())
    assert gauge() == 2
    replica.clock.move(5)
    await replica.breakers._round()
    assert gauge() == 1
    await replica.refund()
    assert gauge() == 0
