"""RabbitMQ with its own ways to fail: nothing is lost, nothing happens twice, and what is missing is named."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import aio_pika
import aiormq
import pytest
from aiormq.abc import DeliveredMessage
from pamqp.common import FieldTable

from shared.contracts.topology import Queue
from shared.errors import BusUnavailable
from shared.messaging.bus import BusMessage, MessageNotAccepted
from shared.messaging.deliveries import Delivery
from shared.messaging.rabbitmq import RabbitMQBus, Unroutable
from shared.messaging.topology import apply_topology
from shared.ports import system_ports
from tests.integration.messaging.proxy import proxy_to
from tests.integration.messaging.tiny_service import QUEUE, TinyService, a_capture, running
from tests.support.rabbitmq import CreateVirtualHost, RabbitMQServer
from tests.support.waiting import until

RECOVERY_SECONDS = 30
"""Failure Q2: consumers are back within this after a restart."""


def a_bus(url: str) -> RabbitMQBus:
    return RabbitMQBus(url, name="testing", ports=system_ports())


async def all_applied(service: TinyService, ids: list[str]) -> bool:
    return set(ids) <= set(await service.applied())


async def is_healthy(bus: RabbitMQBus) -> bool:
    try:
        await bus.check()
    except BusUnavailable:
        return False
    return True


async def complaint_of(bus: RabbitMQBus) -> str:
    try:
        await bus.check()
    except BusUnavailable as error:
        return error.detail
    return ""


async def outbox_is_empty(service: TinyService) -> bool:
    return await service.waiting() == []


async def count_messages(url: str, queue: str) -> int:
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel(publisher_confirms=False)
        declared = await channel.declare_queue(queue, passive=True)
        return declared.declaration_result.message_count or 0


async def test_an_event_that_reaches_no_queue_stays_in_the_outbox_until_one_is_bound(
    service: TinyService, vhost_url: str
) -> None:
    await apply_topology(vhost_url, [Queue("testing.others", ("order.paid.v1",))])
    bus = a_bus(vhost_url)
    async with running(service.relay(bus).run):
        (event_id,) = await service.announce(a_capture())

        async def was_refused() -> bool:
            (row,) = await service.waiting()
            return bool(row.attempts)

        await until(was_refused, what="the refusal")
        (row,) = await service.waiting()
        assert row.last_error == Unroutable().detail
        await apply_topology(vhost_url, [QUEUE])
        await until(lambda: outbox_is_empty(service), what="publishing it after all")
    assert await count_messages(vhost_url, QUEUE.name) == 1
    await bus.close()
    assert row.message_id == event_id


async def test_a_missing_exchange_is_named_and_heals(service: TinyService, vhost_url: str) -> None:
    bus = a_bus(vhost_url)
    bus.subscribe(service.subscription())
    (event_id,) = await service.announce(a_capture())
    async with running(bus.consume, service.relay(bus).run):
        await until(lambda: complaint_mentions(bus, "payrail topology apply"), what="naming the remedy")
        await apply_topology(vhost_url, [QUEUE])
        await until(lambda: all_applied(service, [event_id]), within_seconds=20, what="applying it")
        await until(lambda: is_healthy(bus), what="health")
    await bus.close()


async def complaint_mentions(bus: RabbitMQBus, words: str) -> bool:
    return words in await complaint_of(bus)


async def test_a_missing_queue_is_named_and_the_other_queues_are_served(
    service: TinyService, rabbitmq_bus: RabbitMQBus, vhost_url: str
) -> None:
    other = Queue("testing.missing", ("order.paid.v1",))
    rabbitmq_bus.subscribe(service.subscription())
    rabbitmq_bus.subscribe(service.subscription(queue=other))
    async with running(rabbitmq_bus.consume, service.relay(rabbitmq_bus).run):
        await until(lambda: complaint_mentions(rabbitmq_bus, "testing.missing: does not exist"), what="naming it")
        ids = await service.announce_captures(3)
        await until(lambda: all_applied(service, ids), what="serving the other queue")
        await apply_topology(vhost_url, [other])
        await until(lambda: is_healthy(rabbitmq_bus), what="health")


async def test_a_queue_that_is_deleted_under_its_consumer_is_named_and_heals(
    service: TinyService, rabbitmq_bus: RabbitMQBus, vhost_url: str
) -> None:
    rabbitmq_bus.subscribe(service.subscription())
    async with running(rabbitmq_bus.consume, service.relay(rabbitmq_bus).run):
        await until(lambda: is_healthy(rabbitmq_bus), what="consuming")
        async with await aio_pika.connect(vhost_url) as connection:
            await (await connection.channel()).queue_delete(QUEUE.name)
        await until(lambda: complaint_mentions(rabbitmq_bus, QUEUE.name), what="naming it")
        await apply_topology(vhost_url, [QUEUE])
        await until(lambda: is_healthy(rabbitmq_bus), what="health")
        ids = await service.announce_captures(3)
        await until(lambda: all_applied(service, ids), what="consuming again")


async def test_queues_that_exist_with_other_arguments_make_the_topology_fail_loudly(vhost_url: str) -> None:
    async with await aio_pika.connect(vhost_url) as connection:
        await (await connection.channel()).declare_queue(QUEUE.name, durable=True)
    with pytest.raises(aio_pika.exceptions.ChannelPreconditionFailed):
        await apply_topology(vhost_url, [QUEUE])


async def test_applying_the_topology_twice_changes_nothing(vhost_url: str) -> None:
    first = await apply_topology(vhost_url, [QUEUE])
    assert await apply_topology(vhost_url, [QUEUE]) == first
    assert first == [QUEUE.name, "testing.payments.dead", "testing.payments.retry.0.05s", "testing.payments.retry.0.1s"]


async def test_a_dead_message_lies_in_the_dead_letter_queue(
    service: TinyService, rabbitmq_bus: RabbitMQBus, vhost_url: str
) -> None:
    rabbitmq_bus.subscribe(service.subscription())
    async with running(rabbitmq_bus.consume):
        await rabbitmq_bus.publish(BusMessage("evt_broken", a_capture().TYPE, "pay_1", b"no event"))
        await until(lambda: has_messages(vhost_url, QUEUE.dead_letter_queue), what="the dead letter")
    assert await count_messages(vhost_url, QUEUE.name) == 0


async def has_messages(url: str, queue: str) -> int:
    return await count_messages(url, queue)


def test_foreign_messages_without_an_id_do_not_count_as_duplicates_of_each_other() -> None:
    """Our library gives every message an id, so what another client sends is made up here."""

    def foreign(body: bytes) -> BusMessage:
        properties = SimpleNamespace(message_id=None, message_type=None, content_type=None, headers={})
        header = SimpleNamespace(properties=properties)
        delivery = SimpleNamespace(header=header, routing_key=a_capture().TYPE, body=body, redelivered=False)
        (message,) = Delivery(cast("DeliveredMessage", delivery)).events
        return message

    one, other, again = foreign(b"one"), foreign(b"other"), foreign(b"one")
    assert one.message_id == again.message_id != other.message_id
    assert one.type == a_capture().TYPE


async def test_a_consumer_that_dies_after_its_commit_is_given_the_message_again_and_acknowledges_it(
    service: TinyService, rabbitmq_bus: RabbitMQBus, vhost_url: str
) -> None:
    """Failure Q9: the connection goes between the commit and the acknowledgement."""
    committed = asyncio.Event()

    async def hangs(_event: object) -> None:
        committed.set()
        await asyncio.Event().wait()

    service.after_commit = hangs
    rabbitmq_bus.subscribe(service.subscription())
    (event_id,) = await service.announce(a_capture())
    async with running(service.relay(rabbitmq_bus).run):
        async with running(rabbitmq_bus.consume):
            await until(committed.is_set, what="the commit")
        async with running(rabbitmq_bus.consume):
            await until(lambda: queue_is_settled(service, event_id), what="recognising the message")
    assert await service.applied() == [event_id]
    assert await count_messages(vhost_url, QUEUE.name) == 0


async def queue_is_settled(service: TinyService, event_id: str) -> bool:
    return bool((await service.inbox(event_id)).attempts > 1)


async def test_all_connections_closed_by_an_operator_cut_handlers_and_lose_nothing(
    service: TinyService, rabbitmq: RabbitMQServer, rabbitmq_bus: RabbitMQBus
) -> None:
    """Failure Q15: handlers are cancelled wherever they are; their transactions roll back."""
    held = asyncio.Event()
    in_hand = 0

    async def waits(_event: object) -> None:
        nonlocal in_hand
        in_hand += 1
        await held.wait()

    service.before_commit = waits
    rabbitmq_bus.subscribe(service.subscription())
    async with running(rabbitmq_bus.consume, service.relay(rabbitmq_bus).run):
        ids = await service.announce_captures(20)
        await until(lambda: in_hand >= 4, what="handlers at work")
        await asyncio.get_running_loop().run_in_executor(
            None, rabbitmq.rabbitmqctl, "close_all_connections", "an operator's wish"
        )
        held.set()
        more = [(await service.announce(a_capture("pay_more")))[0]]
        await until(lambda: all_applied(service, ids + more), within_seconds=RECOVERY_SECONDS, what="applying all")
    assert sorted(await service.applied()) == sorted(ids + more)


async def test_a_lost_confirm_publishes_twice_and_is_applied_once(
    service: TinyService, rabbitmq: RabbitMQServer, create_vhost: CreateVirtualHost
) -> None:
    direct = create_vhost()
    await apply_topology(direct, [QUEUE])
    async with proxy_to(rabbitmq.port) as proxy:
        publishing = a_bus(direct.replace(f":{rabbitmq.port}/", f":{proxy.port}/"))
        consuming = a_bus(direct)
        consuming.subscribe(service.subscription())
        await until(lambda: is_healthy(publishing), what="the publisher's connection")
        proxy.hold_answers()
        async with running(consuming.consume, service.relay(publishing).run):
            (event_id,) = await service.announce(a_capture())
            await until(lambda: all_applied(service, [event_id]), what="the message, though nobody confirmed it")
            assert len(await service.waiting()) == 1
            await until(lambda: complaint_of(publishing), within_seconds=20, what="the missing confirm in the health")
            proxy.cut()
            proxy.let_answers_pass()
            await until(lambda: outbox_is_empty(service), within_seconds=RECOVERY_SECONDS, what="the confirm")
            await until(lambda: service.deliveries.count(event_id) >= 2, what="the second copy")
        assert await service.applied() == [event_id]
        await publishing.close()
        await consuming.close()


async def test_a_full_queue_refuses_the_message_and_the_outbox_keeps_it(service: TinyService, vhost_url: str) -> None:
    await apply_topology(vhost_url, [])
    async with await aio_pika.connect(vhost_url) as connection:
        channel = await connection.channel(publisher_confirms=False)
        full: FieldTable = {"x-queue-type": "quorum", "x-overflow": "reject-publish", "x-max-length": 1}
        queue = await channel.declare_queue("testing.small", durable=True, arguments=full)
        await queue.bind("payrail.events", routing_key=a_capture().TYPE)
    bus = a_bus(vhost_url)
    message = BusMessage("evt_1", a_capture().TYPE, "pay_1", b"{}")

    async def is_refused() -> bool:  # a quorum queue takes some more before it says no
        try:
            await bus.publish(message)
        except MessageNotAccepted:
            return True
        return False

    await until(is_refused, what="the refusal")
    await bus.close()


async def test_a_broker_that_raises_an_alarm_is_reported_and_loses_nothing(
    service: TinyService, rabbitmq: RabbitMQServer, rabbitmq_bus: RabbitMQBus
) -> None:
    """Failure Q4: the connection looks open while the broker takes nothing."""
    rabbitmq_bus.subscribe(service.subscription())
    async with running(rabbitmq_bus.consume, service.relay(rabbitmq_bus).run):
        await until(lambda: is_healthy(rabbitmq_bus), what="health")
        ids: list[str] = []

        async def is_reported() -> bool:  # the broker measures its memory now and then, not at once
            ids.extend(await service.announce(a_capture(f"pay_{len(ids)}")))
            return bool(await complaint_of(rabbitmq_bus))

        try:
            await in_thread(rabbitmq, "set_vm_memory_high_watermark", "absolute", "1")
            await until(is_reported, within_seconds=25, what="the complaint")
        finally:
            await in_thread(rabbitmq, "set_vm_memory_high_watermark", "0.4")
        await until(lambda: all_applied(service, ids), within_seconds=RECOVERY_SECONDS, what="applying all")
        await until(lambda: is_healthy(rabbitmq_bus), within_seconds=RECOVERY_SECONDS, what="health again")
    assert sorted(await service.applied()) == sorted(ids)


async def in_thread(rabbitmq: RabbitMQServer, *arguments: str) -> None:
    await asyncio.get_running_loop().run_in_executor(None, rabbitmq.rabbitmqctl, *arguments)


@pytest.mark.parametrize("turns", range(5))
async def test_a_cancellation_in_the_moment_of_connecting_leaves_no_connection_behind(
    turns: int, service: TinyService, rabbitmq_bus: RabbitMQBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker has said yes, and so many turns of the loop later the process is told to end."""
    call, loop, is_open = aiormq.connection.Connection._rpc, asyncio.get_running_loop(), asyncio.Event()
    before = asyncio.all_tasks()

    def later(turns: int) -> None:
        is_open.set() if turns == 0 else loop.call_soon(later, turns - 1)

    async def tells_when_open(request: Any, *arguments: Any, **more: Any) -> Any:
        answer = await call(request, *arguments, **more)
        if request.name == "Connection.Open":
            later(turns)
        return answer

    monkeypatch.setattr(aiormq.connection.Connection, "_rpc", staticmethod(tells_when_open))
    rabbitmq_bus.subscribe(service.subscription())
    async with running(rabbitmq_bus.consume):
        await is_open.wait()
    await rabbitmq_bus.close()
    await until(lambda: asyncio.all_tasks() <= before, what="the end of every task of the connection")
