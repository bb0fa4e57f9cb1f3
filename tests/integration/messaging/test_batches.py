"""Many events at once: fewer transactions, and the same guarantees for each of them, whichever bus carries them."""

from __future__ import annotations

import asyncio
import time
from functools import partial

import pytest
from structlog.testing import capture_logs

from shared.contracts.envelope import EventEnvelope
from shared.contracts.topology import MAX_ATTEMPTS
from shared.errors import DatabaseContended, DatabaseUnavailable
from shared.messaging.bus import BusMessage, EventBus
from shared.messaging.in_process import InProcessBus
from shared.messaging.rabbitmq import RabbitMQBus
from tests.integration.messaging.test_both_buses import all_applied, is_dead, outbox_is_empty
from tests.integration.messaging.tiny_service import TinyService, a_capture, nothing, running
from tests.support.waiting import until


async def fails_for_the_poison(event: EventEnvelope) -> None:
    if event.data["payment_id"] == "pay_poison":
        raise ValueError("cannot be applied")


async def test_many_events_are_applied_in_few_transactions(service: TinyService, bus: EventBus) -> None:
    ids = await service.announce_captures(250)
    bus.subscribe(service.subscription_in_batches())
    async with running(bus.consume, service.relay(bus).run):
        await until(lambda: all_applied(service, ids), what="applying every event")
        await until(lambda: outbox_is_empty(service), what="an empty outbox")
    assert sorted(await service.applied()) == sorted(ids)
    assert service.deliveries == []
    assert len(service.batches) < 15
    assert max(len(batch) for batch in service.batches) <= 100


async def test_a_poison_message_among_a_hundred_costs_only_itself(service: TinyService, bus: EventBus) -> None:
    """Failure Q10."""
    service.before_commit = fails_for_the_poison
    most = 4 if isinstance(bus, InProcessBus) else MAX_ATTEMPTS  # there each one waits for the relay's next poll
    bus.subscribe(service.subscription_in_batches(max_attempts=most))
    captures = [a_capture("pay_poison" if number == 50 else f"pay_{number}") for number in range(100)]
    ids = await service.announce(*captures)
    poison = ids.pop(50)
    async with running(bus.consume, service.relay(bus).run):
        await until(lambda: all_applied(service, ids), what="the neighbours")
        assert service.deliveries.count(poison) <= most // 2, "its neighbours waited for its attempts"
        await until(lambda: is_dead(service, poison), within_seconds=20, what="giving up on the poison")
        await until(lambda: outbox_is_empty(service), what="an empty outbox")
    dead = await service.inbox(poison)
    assert (dead.attempts, dead.last_error) == (most, "ValueError: cannot be applied")
    assert EventEnvelope.from_json(bytes(dead.body)).id == poison
    assert service.deliveries.count(poison) == most
    assert all(service.deliveries.count(each) <= 1 for each in ids)
    assert sum(poison in batch for batch in service.batches) <= 2
    assert sorted(await service.applied()) == sorted(ids)


async def test_what_may_not_go_with_others_goes_alone_and_holds_up_no_batch(
    service: TinyService, bus: EventBus
) -> None:
    released = asyncio.Event()

    async def hangs_for_the_slow(event: EventEnvelope) -> None:
        if event.data["payment_id"] == "pay_slow":
            await released.wait()

    service.after_commit = hangs_for_the_slow
    bus.subscribe(service.subscription_in_batches(takes=lambda event: event.data["payment_id"] != "pay_slow"))
    slow, *ids = await service.announce(a_capture("pay_slow"), *(a_capture(f"pay_{number}") for number in range(40)))
    async with running(bus.consume, service.relay(bus).run):
        await until(lambda: all_applied(service, ids), what="everything but the slow one")
        assert service.deliveries == [slow]
        if not isinstance(bus, InProcessBus):  # there the relay waits for what it has given away
            more = await service.announce(a_capture("pay_later"))
            await until(lambda: all_applied(service, more), what="what came later")
        released.set()
        await until(lambda: outbox_is_empty(service), what="an empty outbox")


async def test_a_handler_that_cannot_tell_whether_it_takes_an_event_gets_it_alone(
    service: TinyService, bus: EventBus
) -> None:
    def cannot_tell(_event: EventEnvelope) -> bool:
        raise KeyError("kind")

    bus.subscribe(service.subscription_in_batches(takes=cannot_tell))
    ids = await service.announce_captures(3)
    async with running(bus.consume, service.relay(bus).run):
        await until(lambda: all_applied(service, ids), what="applying them")
    assert (sorted(service.deliveries), service.batches) == (sorted(ids), [])


async def test_an_event_that_comes_twice_at_once_is_applied_once(service: TinyService, bus: EventBus) -> None:
    ids = await service.announce_captures(3)
    messages = [
        BusMessage(row.message_id, row.type, row.subject, bytes(row.body))
        for row in [*await service.waiting(), *await service.waiting()]
    ]
    bus.subscribe(service.subscription_in_batches())
    assert list(await bus.publish_all(messages)) == [None] * 6
    async with running(bus.consume):
        await until(lambda: all_applied(service, ids), what="applying them")
    assert sorted(await service.applied()) == sorted(ids)


async def test_a_database_that_is_away_costs_no_attempts_and_is_not_asked_event_by_event(
    service: TinyService, bus: EventBus
) -> None:
    async def is_away(_event: EventEnvelope) -> None:
        raise DatabaseUnavailable

    service.before_commit = is_away
    bus.subscribe(service.subscription_in_batches(max_attempts=2))
    ids = await service.announce_captures(20)
    async with running(bus.consume, service.relay(bus).run):
        await until(lambda: len(service.batches) >= 3, what="more tries than attempts")
        assert service.deliveries == []
        service.before_commit = nothing
        await until(lambda: all_applied(service, ids), what="applying them when it is back")
        await until(lambda: outbox_is_empty(service), what="an empty outbox")
    assert sorted(await service.applied()) == sorted(ids)


async def test_what_meets_a_row_that_others_hold_is_tried_alone_and_costs_no_attempts(
    service: TinyService, bus: EventBus
) -> None:
    async def held_for_one(event: EventEnvelope) -> None:
        if event.data["payment_id"] == "pay_held":
            raise DatabaseContended

    service.before_commit = held_for_one
    bus.subscribe(service.subscription_in_batches(max_attempts=1))
    held, *ids = await service.announce(a_capture("pay_held"), *(a_capture(f"pay_{number}") for number in range(20)))
    async with running(bus.consume, service.relay(bus).run):
        await until(lambda: all_applied(service, ids), what="the neighbours, while the row is held")
        await until(lambda: service.deliveries.count(held) >= 2, within_seconds=20, what="more tries than attempts")
        service.before_commit = nothing
        await until(lambda: all_applied(service, [held]), what="the one that waited")
        await until(lambda: outbox_is_empty(service), what="an empty outbox")
    assert sorted(await service.applied()) == sorted([held, *ids])


async def test_a_message_that_kills_its_process_takes_no_neighbour_along(service: TinyService, bus: EventBus) -> None:
    """Failure Q11, in a batch: the killer is found, and those beside it use up no attempts."""
    reached = asyncio.Event()

    async def kills(event: EventEnvelope) -> None:
        if event.data["payment_id"] == "pay_killer":
            reached.set()
            await asyncio.Event().wait()
        if event.id in service.deliveries:  # long enough to be cut off by a killer that is tried beside it
            await service.rows("SELECT pg_sleep(0.2)")

    service.before_commit = kills
    captures = [a_capture("pay_killer" if number == 1 else f"pay_{number}") for number in range(6)]
    ids = await service.announce(*captures)
    killer = ids.pop(1)
    if not isinstance(bus, InProcessBus):  # with a broker, relay and consumer are two processes, and this one lives
        async with running(service.relay(bus).run):
            await until(lambda: outbox_is_empty(service), what="publishing them")
    bus.subscribe(service.subscription_in_batches(max_attempts=4, concurrency=4))

    async def process_ended() -> bool:
        return reached.is_set() or await is_dead(service, killer)

    with capture_logs() as logs:
        for _ in range(10):
            reached.clear()
            async with running(bus.consume, service.relay(bus).run):
                await until(process_ended, what="the death of the process or of the message")
            if not reached.is_set():
                break
        async with running(bus.consume, service.relay(bus).run):
            await until(lambda: all_applied(service, ids), what="the neighbours")
            await until(lambda: outbox_is_empty(service), what="an empty outbox")
    assert (await service.inbox(killer)).last_error == "attempts used up"
    assert sorted(await service.applied()) == sorted(ids)
    if isinstance(bus, RabbitMQBus):  # before the broker has seen its one message too often
        assert "batch_taken_apart" in [entry["event"] for entry in logs]


async def test_an_event_behind_one_that_fails_waits_for_it(service: TinyService) -> None:
    """Of one subject the order given is kept; what is behind a refused one is refused with it."""
    bus = InProcessBus(service.ports.clock)

    async def fails_for_the_second(event: EventEnvelope) -> None:
        if event.sequence == 2:
            raise ValueError("not yet")

    service.before_commit = fails_for_the_second
    bus.subscribe(service.subscription_in_batches())
    await service.announce(*(a_capture("pay_1", version=version) for version in (1, 2, 3)), a_capture("pay_2"))
    messages = [BusMessage(row.message_id, row.type, row.subject, bytes(row.body)) for row in await service.waiting()]
    outcomes = await bus.publish_all(messages)
    assert [outcome is None for outcome in outcomes] == [True, False, False, True]
    assert len(await service.applied()) == 2


@pytest.mark.parametrize("events", [1, 3])
async def test_one_event_alone_waits_for_nobody(service: TinyService, bus: EventBus, events: int) -> None:
    """No timer: the poll is never what takes them along."""
    bus.subscribe(service.subscription_in_batches())
    async with running(bus.consume, service.relay(bus).run):
        first = await service.announce_captures(1)
        await until(lambda: all_applied(service, first), what="the start")
        lasted = []
        for number in range(8):  # a poll would take them along a second after the ones before
            started = time.monotonic()
            ids = await service.announce(*(a_capture(f"pay_{number}_{each}") for each in range(events)))
            await until(partial(all_applied, service, ids), what="applying them")
            lasted.append(time.monotonic() - started)
    assert sorted(lasted)[3] < 0.7, "half of them may have met a busy machine"
