"""What batches look like on the wire, and what a consumer makes of those that it did not expect."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import aio_pika
from pamqp.common import FieldTable

from shared.contracts.envelope import BATCH_CONTENT_TYPE, CONTENT_TYPE, EventEnvelope
from shared.messaging.bus import BusMessage, MessageNotAccepted
from shared.messaging.dead_letters import clear_dead_letters
from shared.messaging.rabbitmq import RabbitMQBus
from shared.messaging.topology import apply_topology
from shared.ports import system_ports
from tests.integration.messaging.test_both_buses import all_applied, is_dead, outbox_is_empty
from tests.integration.messaging.test_rabbitmq import count_messages
from tests.integration.messaging.tiny_service import QUEUE, TinyService, a_capture, nothing, running
from tests.support.waiting import until

TYPE = a_capture().TYPE


async def published(service: TinyService) -> list[BusMessage]:
    return [BusMessage(row.message_id, row.type, row.subject, bytes(row.body)) for row in await service.waiting()]


async def taken(url: str, queue: str = QUEUE.name) -> list[aio_pika.abc.AbstractIncomingMessage]:
    """Everything that lies in the queue, taken out of it."""
    messages = []
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel(publisher_confirms=False)
        source = await channel.declare_queue(queue, passive=True)
        while (message := await source.get(fail=False)) is not None:
            await message.ack()
            messages.append(message)
    return messages


async def send(url: str, body: bytes, *, content_type: str, headers: Mapping[str, Any] | None = None) -> None:
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        message = aio_pika.Message(body, content_type=content_type, type=TYPE, headers=dict(headers or {}))
        await channel.default_exchange.publish(message, routing_key=QUEUE.name)


async def test_events_of_one_type_go_out_as_an_array_of_their_very_bytes(
    service: TinyService, rabbitmq_bus: RabbitMQBus, vhost_url: str
) -> None:
    await service.announce_captures(120)
    messages = await published(service)
    assert list(await rabbitmq_bus.publish_all(messages)) == [None] * 120
    first, second = await taken(vhost_url)
    assert first.content_type == second.content_type == BATCH_CONTENT_TYPE
    assert (first.type, first.routing_key, first.delivery_mode) == (TYPE, TYPE, aio_pika.DeliveryMode.PERSISTENT)
    assert first.message_id != second.message_id
    assert [len(json.loads(each.body)) for each in (first, second)] == [100, 20]
    lines = [line for each in (first, second) for line in each.body[2:-2].split(b",\n")]
    assert lines == [message.body for message in messages]

    await rabbitmq_bus.publish_all(messages[:100])
    (again,) = await taken(vhost_url)
    assert again.message_id == first.message_id


async def test_one_event_alone_is_the_message_that_it_always_was(
    service: TinyService, rabbitmq_bus: RabbitMQBus, vhost_url: str
) -> None:
    (event_id,) = await service.announce(a_capture())
    (message,) = await published(service)
    await rabbitmq_bus.publish_all([message])
    (sent,) = await taken(vhost_url)
    assert (sent.content_type, sent.message_id, sent.body) == (CONTENT_TYPE, event_id, message.body)


async def test_while_batches_are_off_every_event_is_a_message(service: TinyService, vhost_url: str) -> None:
    """What an upgrade needs: a consumer of before takes a batch for no event at all."""
    await apply_topology(vhost_url, [QUEUE])
    bus = RabbitMQBus(vhost_url, name="testing", ports=system_ports(), batches=False)
    ids = await service.announce_captures(5)
    await bus.publish_all(await published(service))
    await bus.close()
    messages = await taken(vhost_url)
    assert {message.content_type for message in messages} == {CONTENT_TYPE}
    assert sorted(str(message.message_id) for message in messages) == sorted(ids)


async def test_batches_are_bounded_in_bytes_and_a_giant_is_refused_before_the_broker_ends_the_channel(
    service: TinyService, rabbitmq_bus: RabbitMQBus, vhost_url: str
) -> None:
    await service.announce_captures(4)
    messages = [
        BusMessage(each.message_id, each.type, each.subject, each.body[:-1] + b" " * 50_000 + b"}")
        for each in await published(service)
    ]
    giant = BusMessage("evt_giant", TYPE, "pay_giant", b"{" + b" " * (9 * 1024 * 1024) + b"}")
    outcomes = await rabbitmq_bus.publish_all([*messages, giant])
    assert list(outcomes[:4]) == [None] * 4
    assert isinstance(outcomes[4], MessageNotAccepted)
    assert max(len(message.body) for message in await taken(vhost_url)) < 128 * 1024 + 10


async def test_bodies_that_an_array_could_not_tell_apart_travel_by_themselves(
    rabbitmq_bus: RabbitMQBus, vhost_url: str
) -> None:
    odd = [b"no event", b'{"id": "evt_1",\n"type": "x"}', b"", b'{"id": "another"}', b'{"half']
    messages = [BusMessage(f"evt_{place}", TYPE, f"pay_{place}", body) for place, body in enumerate(odd)]
    await rabbitmq_bus.publish_all(messages)
    assert sorted(message.body for message in await taken(vhost_url)) == sorted(odd)


async def test_a_part_that_is_no_event_dies_alone(
    service: TinyService, rabbitmq_bus: RabbitMQBus, vhost_url: str
) -> None:
    ids = await service.announce_captures(2)
    one, other = [message.body for message in await published(service)]
    broken = one[:100] + b"}"
    known_as = f"sha256:{hashlib.sha256(broken).hexdigest()}"
    body = b"[\n" + b",\n".join([one, broken, other]) + b"\n]"
    rabbitmq_bus.subscribe(service.subscription_in_batches())
    async with running(rabbitmq_bus.consume):
        await send(vhost_url, body, content_type=BATCH_CONTENT_TYPE, headers={"x-payrail-events": 3})
        await until(lambda: all_applied(service, ids), what="applying its neighbours")
        await until(lambda: is_dead(service, known_as), what="giving up on it")
        await until(lambda: has_messages(vhost_url, QUEUE.dead_letter_queue), what="the dead letter")
    assert bytes((await service.inbox(known_as)).body) == broken
    (letter,) = await taken(vhost_url, QUEUE.dead_letter_queue)
    assert (letter.body, letter.message_id) == (broken, known_as)
    assert await count_messages(vhost_url, QUEUE.name) == 0


async def has_messages(url: str, queue: str) -> bool:
    return bool(await count_messages(url, queue))


async def test_an_array_of_somebody_elses_making_is_read_as_json(
    service: TinyService, rabbitmq_bus: RabbitMQBus, vhost_url: str
) -> None:
    ids = await service.announce_captures(3)
    envelopes = [json.loads(message.body) for message in await published(service)]
    rabbitmq_bus.subscribe(service.subscription_in_batches())
    async with running(rabbitmq_bus.consume):
        await send(vhost_url, json.dumps(envelopes, indent=1).encode(), content_type=BATCH_CONTENT_TYPE)
        await until(lambda: all_applied(service, ids), what="applying them")
    assert sorted(await service.applied()) == sorted(ids)


async def test_what_says_that_it_is_a_batch_and_is_none_is_one_bad_message(
    service: TinyService, rabbitmq_bus: RabbitMQBus, vhost_url: str
) -> None:
    bodies = [b"[\n{]", b"[]", b'"text"', b"[" * 100_000, b"\xff"]
    rabbitmq_bus.subscribe(service.subscription_in_batches())
    async with running(rabbitmq_bus.consume):
        for body in bodies:
            await send(vhost_url, body, content_type=BATCH_CONTENT_TYPE, headers={"x-payrail-events": 1})
        await until(lambda: dead_are(service, len(bodies)), what="giving up on all of them")
    assert await service.applied() == []


async def dead_are(service: TinyService, count: int) -> bool:
    return len(await service.rows("SELECT 1 FROM inbox_messages WHERE status = 'dead'")) == count


async def test_when_the_broker_refuses_a_batch_only_the_culprit_waits(service: TinyService) -> None:
    """Failure Q6 among many: whatever the broker has against one of them."""
    refused: list[Sequence[str]] = []

    async def refuses_the_third(messages: Sequence[BusMessage]) -> None:
        if any(message.message_id == ids[2] for message in messages):
            refused.append([message.message_id for message in messages])
            raise MessageNotAccepted("the broker refused the message")

    ids = await service.announce_captures(5)
    bus = RabbitMQBus("amqp://unused/", name="testing", ports=system_ports())
    bus._publishing._publish_together = refuses_the_third  # type: ignore[method-assign]
    outcomes = await bus.publish_all(await published(service))
    assert [outcome is None for outcome in outcomes] == [True, True, False, True, True]
    assert refused == [ids, [ids[2]]]


async def test_a_full_queue_lets_no_batch_be_lost(service: TinyService, vhost_url: str) -> None:
    """Failure Q6: what is refused as a whole is tried one by one, and what is refused then stays in the outbox."""
    await apply_topology(vhost_url, [])
    async with await aio_pika.connect(vhost_url) as connection:
        channel = await connection.channel(publisher_confirms=False)
        full: FieldTable = {"x-queue-type": "quorum", "x-overflow": "reject-publish", "x-max-length": 1}
        queue = await channel.declare_queue("testing.small", durable=True, arguments=full)
        await queue.bind("payrail.events", routing_key=TYPE)
    bus = RabbitMQBus(vhost_url, name="testing", ports=system_ports())
    ids = await service.announce_captures(30)
    async with running(service.relay(bus).run):

        async def some_are_refused() -> bool:
            await service.announce(a_capture("pay_more"))
            return any(row.attempts for row in await service.waiting())

        await until(some_are_refused, what="a refusal")
    waiting = {row.message_id for row in await service.waiting()}
    there = {
        EventEnvelope.from_json(body).id
        for message in await taken(vhost_url, "testing.small")
        for body in ([message.body] if message.content_type == CONTENT_TYPE else message.body[2:-2].split(b",\n"))
    }
    assert set(ids) <= waiting | there
    await bus.close()


async def test_a_dead_batch_is_cleared_when_all_of_it_has_been_applied(
    service: TinyService, rabbitmq_bus: RabbitMQBus, vhost_url: str
) -> None:
    """Such a one lies there if the broker itself gave up on it (Q12)."""
    ids = await service.announce_captures(3)
    await rabbitmq_bus.publish_all(await published(service))
    (batch,) = await taken(vhost_url)
    async with await aio_pika.connect(vhost_url) as connection:
        channel = await connection.channel()
        copy = aio_pika.Message(batch.body, content_type=batch.content_type, headers=batch.headers)
        await channel.default_exchange.publish(copy, routing_key=QUEUE.dead_letter_queue)
    done: set[str] = set(ids[:2])

    async def is_done(message_id: str) -> bool:
        return message_id in done

    assert await clear_dead_letters(vhost_url, QUEUE, is_done=is_done) == 0
    done.update(ids)
    assert await clear_dead_letters(vhost_url, QUEUE, is_done=is_done) == 1


async def test_old_and_new_messages_are_read_side_by_side(
    service: TinyService, rabbitmq_bus: RabbitMQBus, vhost_url: str
) -> None:
    old = RabbitMQBus(vhost_url, name="older", ports=system_ports(), batches=False)
    ids = await service.announce_captures(10)
    messages = await published(service)
    await old.publish_all(messages[:5])
    await rabbitmq_bus.publish_all(messages[5:])
    rabbitmq_bus.subscribe(service.subscription())  # and by a consumer that applies one by one
    async with running(rabbitmq_bus.consume, service.relay(rabbitmq_bus).run):
        await until(lambda: all_applied(service, ids), what="applying them")
        await until(lambda: outbox_is_empty(service), what="an empty outbox")
    assert sorted(await service.applied()) == sorted(ids)
    await old.close()


async def test_a_batch_stays_with_the_broker_until_the_last_of_its_events_is_through(
    service: TinyService, rabbitmq_bus: RabbitMQBus, vhost_url: str
) -> None:
    """Failure Q9 for the one that is slow, alone, while its neighbours have long been applied."""

    async def hangs_for_the_slow(event: EventEnvelope) -> None:
        if event.data["payment_id"] == "pay_slow":
            await asyncio.Event().wait()

    service.before_commit = hangs_for_the_slow
    slow, *ids = await service.announce(a_capture("pay_slow"), a_capture("pay_1"), a_capture("pay_2"))
    await rabbitmq_bus.publish_all(await published(service))
    rabbitmq_bus.subscribe(service.subscription_in_batches(takes=lambda event: event.data["payment_id"] != "pay_slow"))
    async with running(rabbitmq_bus.consume):
        await until(lambda: all_applied(service, ids), what="its neighbours")
        await until(lambda: slow in service.deliveries, what="its own start")
    service.before_commit = nothing
    async with running(rabbitmq_bus.consume):
        await until(lambda: all_applied(service, [slow]), what="applying it in the next process")
    assert sorted(await service.applied()) == sorted([slow, *ids])
