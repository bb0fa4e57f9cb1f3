"""What services may rely on, whichever bus carries their events."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from shared.contracts.envelope import EventEnvelope
from shared.contracts.payment_events import PaymentFailed
from shared.contracts.topology import MAX_ATTEMPTS
from shared.correlation import Correlation, correlated, current_correlation
from shared.db.inbox import InboxState
from shared.errors import DatabaseUnavailable, GatewayUnavailable
from shared.http import CallPolicy, HttpCaller, build_http_client
from shared.messaging.bus import BusMessage, EventBus
from shared.messaging.consumer import Consumer, Handled
from shared.messaging.in_process import InProcessBus
from shared.unit_of_work import InboxClaim
from tests.integration.messaging.tiny_service import QUEUE, TinyService, a_capture, an_order_paid, running
from tests.support.waiting import until


async def test_an_event_is_published_and_applied_once(service: TinyService, bus: EventBus) -> None:
    bus.subscribe(service.subscription())
    async with running(bus.consume, service.relay(bus).run):
        ids = await service.announce_captures(20)
        await until(lambda: all_applied(service, ids), what="applying every event")
        await until(lambda: outbox_is_empty(service), what="an empty outbox")
    assert sorted(await service.applied()) == sorted(ids)


async def test_events_that_were_committed_before_the_worker_started_are_published(
    service: TinyService, bus: EventBus
) -> None:
    ids = await service.announce_captures(3)
    bus.subscribe(service.subscription())
    async with running(bus.consume, service.relay(bus).run):
        await until(lambda: all_applied(service, ids), what="applying what had waited")


async def test_a_message_that_is_published_twice_is_applied_once(service: TinyService, bus: EventBus) -> None:
    (event_id,) = await service.announce(a_capture())
    (row,) = await service.waiting()
    message = BusMessage(row.message_id, row.type, row.subject, bytes(row.body))
    bus.subscribe(service.subscription())
    async with running(bus.consume):
        for _ in range(3):
            await bus.publish(message)
        await until(lambda: len(service.deliveries) == 3, what="three deliveries")
        await until(lambda: all_applied(service, [event_id]), what="applying it")
    assert await service.applied() == [event_id]


async def test_an_event_that_nobody_has_to_consume_is_published_to_nobody(service: TinyService, bus: EventBus) -> None:
    await service.announce(an_order_paid())
    bus.subscribe(service.subscription())
    async with running(bus.consume, service.relay(bus).run):
        await until(lambda: outbox_is_empty(service), what="an empty outbox")
    assert service.deliveries == []


async def test_a_poison_message_dies_after_its_attempts_while_its_neighbours_flow(
    service: TinyService, bus: EventBus
) -> None:
    async def fails_for_the_poison(event: EventEnvelope) -> None:
        if event.data["payment_id"] == "pay_poison":
            raise ValueError("cannot be applied")

    service.before_commit = fails_for_the_poison
    bus.subscribe(service.subscription())
    async with running(bus.consume, service.relay(bus).run):
        (poison,) = await service.announce(a_capture("pay_poison"))
        ids = await service.announce_captures(100)
        await until(lambda: all_applied(service, ids), what="the neighbours")
        await until(lambda: is_dead(service, poison), within_seconds=20, what="giving up on the poison")
        await until(lambda: outbox_is_empty(service), what="an empty outbox")
    dead = await service.inbox(poison)
    assert (dead.attempts, dead.last_error) == (MAX_ATTEMPTS, "ValueError: cannot be applied")
    assert EventEnvelope.from_json(bytes(dead.body)).id == poison
    assert service.deliveries.count(poison) == MAX_ATTEMPTS
    assert sorted(await service.applied()) == sorted(ids)


async def test_a_message_whose_error_text_no_column_takes_dies_like_any_other(
    service: TinyService, bus: EventBus
) -> None:
    async def fails(_event: EventEnvelope) -> None:
        raise ValueError("a NUL \0, half a pair \ud800, and the card 4242 4242 4242 4242")

    service.before_commit = fails
    bus.subscribe(service.subscription(max_attempts=2))
    async with running(bus.consume, service.relay(bus).run):
        (poison,) = await service.announce(a_capture())
        await until(lambda: is_dead(service, poison), what="giving up on it")
    assert "[PAN:…4242]" in (await service.inbox(poison)).last_error


async def test_bytes_that_are_no_event_die_at_once(service: TinyService, bus: EventBus) -> None:
    bus.subscribe(service.subscription())
    async with running(bus.consume):
        await bus.publish(BusMessage("evt_broken", a_capture().TYPE, "pay_1", b'{"specversion": "1.0"'))
        await until(lambda: is_dead(service, "evt_broken"), what="giving up on it")
    dead = await service.inbox("evt_broken")
    assert (dead.attempts, dead.last_error, bytes(dead.body)) == (1, "not a valid event", b'{"specversion": "1.0"')


async def test_a_message_outlives_an_outage_that_is_longer_than_its_attempts(
    service: TinyService, bus: EventBus
) -> None:
    async def the_gateway_is_away(_event: EventEnvelope) -> None:
        raise GatewayUnavailable

    service.before_commit = the_gateway_is_away
    bus.subscribe(service.subscription(max_attempts=2))
    async with running(bus.consume, service.relay(bus).run):
        (event_id,) = await service.announce(a_capture())
        await until(lambda: service.deliveries.count(event_id) >= 5, what="five tries")
        assert (await service.inbox(event_id)).status == "failing"

        async def it_is_back(_event: EventEnvelope) -> None:
            """The gateway answers again."""

        service.before_commit = it_is_back
        await until(lambda: all_applied(service, [event_id]), what="applying it after the outage")


async def test_a_message_that_was_being_handled_when_its_process_died_is_applied_once(
    service: TinyService, bus: EventBus
) -> None:
    reached = asyncio.Event()

    async def hangs(_event: EventEnvelope) -> None:
        reached.set()
        await asyncio.Event().wait()

    service.before_commit = hangs
    bus.subscribe(service.subscription())
    (event_id,) = await service.announce(a_capture())
    async with running(bus.consume, service.relay(bus).run):
        await until(reached.is_set, what="the handler's start")
    assert await service.applied() == []

    async def works(_event: EventEnvelope) -> None:
        """The next process has no such trouble."""

    service.before_commit = works
    async with running(bus.consume, service.relay(bus).run):
        await until(lambda: all_applied(service, [event_id]), what="applying it in the next process")
    assert await service.applied() == [event_id]


async def test_a_message_whose_process_died_between_effect_and_mark_is_delivered_again_and_applied_once(
    service: TinyService, bus: EventBus
) -> None:
    committed = asyncio.Event()

    async def dies_after_the_commit(_event: EventEnvelope) -> None:
        committed.set()
        await asyncio.Event().wait()

    service.after_commit = dies_after_the_commit
    bus.subscribe(service.subscription())
    (event_id,) = await service.announce(a_capture())
    async with running(bus.consume, service.relay(bus).run):
        await until(committed.is_set, what="the commit")
    later = a_capture("pay_later")
    (later_id,) = await service.announce(later)

    async def lives(_event: EventEnvelope) -> None:
        """The next process lives on."""

    service.after_commit = lives
    async with running(bus.consume, service.relay(bus).run):
        await until(lambda: all_applied(service, [later_id]), what="applying the next event")
        await until(lambda: outbox_is_empty(service), what="an empty outbox")
    assert await service.applied() == [event_id, later_id]


async def test_a_message_that_kills_its_process_uses_up_its_attempts(service: TinyService, bus: EventBus) -> None:
    reached = asyncio.Event()

    async def kills(_event: EventEnvelope) -> None:
        reached.set()
        await asyncio.Event().wait()

    service.before_commit = kills
    (killer,) = await service.announce(a_capture())
    if not isinstance(bus, InProcessBus):  # with a broker, relay and consumer are two processes, and this one lives
        async with running(service.relay(bus).run):
            await until(lambda: outbox_is_empty(service), what="publishing it")
    bus.subscribe(service.subscription(max_attempts=2))
    for _ in range(5):

        async def process_ended() -> bool:
            return reached.is_set() or await is_dead(service, killer)

        reached.clear()
        async with running(bus.consume, service.relay(bus).run):
            await until(process_ended, what="the death of the process or of the message")
        if not reached.is_set():
            break
    assert await is_dead(service, killer)
    assert (await service.inbox(killer)).last_error == "attempts used up"
    # A first delivery is not counted, so that a usual one costs no extra commit; the embedded bus takes what is older
    # than its process for a later one.
    assert service.deliveries.count(killer) == (2 if isinstance(bus, InProcessBus) else 3)


async def test_two_relays_and_two_consumers_apply_everything_once(service: TinyService, bus: EventBus) -> None:
    bus.subscribe(service.subscription())
    ids = await service.announce_captures(150)
    async with running(bus.consume, service.relay(bus).run, service.relay(bus).run):
        await until(lambda: all_applied(service, ids), what="applying every event")
        await until(lambda: outbox_is_empty(service), what="an empty outbox")
    assert sorted(await service.applied()) == sorted(ids)


async def test_a_subjects_events_of_one_batch_go_out_in_their_order(service: TinyService, bus: EventBus) -> None:
    bus.subscribe(service.subscription(concurrency=1))
    versions = [a_capture("pay_1", version=version) for version in range(1, 31)]
    ids = await service.announce(*versions)
    async with running(bus.consume, service.relay(bus).run):
        await until(lambda: all_applied(service, ids), what="applying every event")
    assert await service.applied() == ids


async def test_one_failing_event_holds_up_no_other_subject(service: TinyService, bus: EventBus) -> None:
    async def fails_for_failures(event: EventEnvelope) -> None:
        if event.type == PaymentFailed.TYPE:
            raise ValueError("not yet")

    service.before_commit = fails_for_failures
    bus.subscribe(service.subscription())
    failed = PaymentFailed.model_validate(a_capture("pay_failing").model_dump() | {"status": "failed"})
    await service.announce(failed)
    async with running(bus.consume, service.relay(bus).run):
        ids = await service.announce_captures(10)
        await until(lambda: all_applied(service, ids), what="the other subjects")


async def test_a_handler_may_call_out_between_its_transactions(service: TinyService, bus: EventBus) -> None:
    """The embedded bus runs handlers inside the relay's transaction, which is not theirs (failure PG11)."""
    calls: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        calls.append(request.url.path)
        return httpx.Response(200)

    async with build_http_client(service.ports, transport=httpx.MockTransport(answer)) as client:
        caller = HttpCaller(client, service.ports)

        async def asks_the_gateway(_event: EventEnvelope) -> None:
            await caller.send("GET", "http://gateway.test/payments", policy=CallPolicy(budget_seconds=5))

        service.after_commit = asks_the_gateway
        bus.subscribe(service.subscription())
        async with running(bus.consume, service.relay(bus).run):
            await service.announce(a_capture())
            await until(lambda: calls, what="the call")
            await until(lambda: outbox_is_empty(service), what="an empty outbox")
    assert calls == ["/payments"]


async def test_the_embedded_bus_runs_no_more_handlers_at_once_than_the_subscription_allows(
    service: TinyService,
) -> None:
    bus = InProcessBus(service.ports.clock)
    running_now, most = 0, 0

    async def counts(_event: EventEnvelope) -> None:
        nonlocal running_now, most
        running_now += 1
        most = max(most, running_now)
        await service.rows("SELECT pg_sleep(0.01)")
        running_now -= 1

    service.after_commit = counts
    bus.subscribe(service.subscription(concurrency=3))
    ids = await service.announce_captures(40)
    async with running(service.relay(bus).run):
        await until(lambda: all_applied(service, ids), what="applying every event")
        await until(lambda: outbox_is_empty(service), what="an empty outbox")
    assert most == 3
    assert len(service.deliveries) == len(ids)


async def test_the_trace_of_the_publisher_reaches_the_handler(service: TinyService, bus: EventBus) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    seen: list[str] = []

    async def looks(event: EventEnvelope) -> None:
        correlation = current_correlation()
        assert correlation is not None
        seen.append(correlation.traceparent)

    service.after_commit = looks
    bus.subscribe(service.subscription())
    with correlated(Correlation("req_1", trace)):
        await service.announce(a_capture())
    async with running(bus.consume, service.relay(bus).run):
        await until(lambda: seen, what="handling it")
    assert seen == [trace]


async def all_applied(service: TinyService, ids: list[str]) -> bool:
    return set(ids) <= set(await service.applied())


async def outbox_is_empty(service: TinyService) -> bool:
    return await service.waiting() == []


async def is_dead(service: TinyService, message_id: str) -> bool:
    row = await service.inbox(message_id)
    return row is not None and row.status == "dead"


async def test_events_of_a_transaction_that_rolled_back_are_never_published(
    service: TinyService, bus: EventBus
) -> None:
    class Regret(Exception):
        """The use case changed its mind."""

    bus.subscribe(service.subscription())
    async with running(bus.consume, service.relay(bus).run):
        with pytest.raises(Regret):  # noqa: PT012
            async with service.uow() as tx:
                await tx.outbox.add(a_capture("pay_regretted"), subject="pay_regretted")
                raise Regret
        ids = await service.announce(a_capture("pay_kept"))
        await until(lambda: all_applied(service, ids), what="applying what was committed")
    assert await service.applied() == ids


async def test_an_attempt_that_could_not_be_counted_takes_back_no_earlier_one(service: TinyService) -> None:
    """The database goes away now and then, while a message fails of its own: it must come to its end."""
    (event_id,) = await service.announce(a_capture())
    (row,) = await service.waiting()
    insert = "INSERT INTO inbox_messages (consumer, message_id, status, attempts) VALUES (:name, :id, 'failing', 3)"
    await service.rows(insert, name=QUEUE.name, id=event_id)
    consumer = Consumer(service.subscription(), service.ports.clock)

    async def is_away(claim: InboxClaim) -> InboxState:
        raise DatabaseUnavailable

    consumer._begin_attempt = is_away  # type: ignore[method-assign]
    message = BusMessage(event_id, row.type, row.subject, bytes(row.body), redelivered=True)
    assert await consumer.handle(message) == (Handled.RETRY, 1)
    assert (await service.inbox(event_id)).attempts == 3
