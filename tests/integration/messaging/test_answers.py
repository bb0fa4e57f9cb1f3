"""What the broker is told about a message, and when: nothing is given back, and nothing is kept for too long."""

from __future__ import annotations

import asyncio
import re
from collections.abc import MutableMapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import aio_pika
import pytest
from structlog.testing import capture_logs

import deploy
from shared.clock import SystemClock
from shared.contracts.envelope import EventEnvelope
from shared.errors import DatabaseUnavailable
from shared.messaging.rabbitmq import RabbitMQBus
from shared.messaging.topology import apply_topology
from shared.ports import system_ports
from tests.integration.messaging.test_batch_messages import published
from tests.integration.messaging.test_both_buses import all_applied
from tests.integration.messaging.test_rabbitmq import complaint_mentions, count_messages
from tests.integration.messaging.tiny_service import QUEUE, TinyService, nothing, running
from tests.support.rabbitmq import RabbitMQServer
from tests.support.waiting import until

README = (Path(deploy.__path__[0]) / "broker" / "README.md").read_text(encoding="utf-8")
NOWHERE = "amqp://guest:guest@127.0.0.1:1/"


async def nack(url: str, times: int) -> None:
    """Give the queue's first message back as often as that."""
    async with await aio_pika.connect(url) as connection:
        queue = await (await connection.channel()).declare_queue(QUEUE.name, passive=True)
        for _ in range(times):
            message = await queue.get()
            assert message is not None
            await message.nack(requeue=True)


@pytest.mark.parametrize("comes_back", [False, True], ids=["postponed", "taken apart"])
async def test_while_the_publisher_is_away_nothing_is_given_back_to_the_broker(
    service: TinyService, rabbitmq_bus: RabbitMQBus, vhost_url: str, comes_back: bool
) -> None:
    """Failure Q12: what is given back returns at once, and the broker gives up on it within a blink."""

    async def is_away(_event: EventEnvelope) -> None:
        raise DatabaseUnavailable

    service.before_commit = is_away
    rabbitmq_bus.subscribe(service.subscription_in_batches())
    ids = await service.announce_captures(50)
    assert list(await rabbitmq_bus.publish_all(await published(service))) == [None] * 50
    if comes_back:
        await nack(vhost_url, 3)
    publisher = rabbitmq_bus._publishing
    publisher._url = NOWHERE
    await publisher._drop(publisher._connection)
    logs: list[MutableMapping[str, Any]]
    with capture_logs() as logs:

        async def waits_or_is_dead() -> bool:
            waits = [each["failures"] for each in logs if each["event"] == "copies_wait_for_the_broker"]
            return max(waits, default=0) >= 2 or await count_messages(vhost_url, QUEUE.dead_letter_queue) > 0

        async with running(rabbitmq_bus.consume):
            await until(waits_or_is_dead, what="waiting for the broker")
            assert await count_messages(vhost_url, QUEUE.dead_letter_queue) == 0
            service.before_commit = nothing
            publisher._url = vhost_url
            await until(lambda: all_applied(service, ids), within_seconds=20, what="applying them after all")
            ids += await service.announce_captures(1)
            assert list(await rabbitmq_bus.publish_all((await published(service))[-1:])) == [None]
            await until(lambda: all_applied(service, ids), what="one more, by when those before it are answered")
    assert sorted(await service.applied()) == sorted(ids)
    assert await count_messages(vhost_url, QUEUE.name) <= 1


async def test_a_worker_that_does_not_hear_its_end_is_told_again(
    service: TinyService, rabbitmq_bus: RabbitMQBus, vhost_url: str
) -> None:
    """A cancellation can be lost (see ``within``); the queue would be consumed by nobody from then on."""
    begun = asyncio.Event()

    async def is_deaf_once(_event: EventEnvelope) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.Event().wait()

    service.before_commit = is_deaf_once
    rabbitmq_bus.subscribe(service.subscription())
    ids = await service.announce_captures(1)
    async with running(rabbitmq_bus.consume):
        await rabbitmq_bus.publish_all(await published(service))
        await until(begun.is_set, what="its handler")
        async with await aio_pika.connect(vhost_url) as connection:  # which ends the consumer, not its connection
            await (await connection.channel()).queue_delete(QUEUE.name)
        service.before_commit = nothing
        await until(lambda: complaint_mentions(rabbitmq_bus, QUEUE.name), what="the end of its consumer")
        await apply_topology(vhost_url, [QUEUE])
        await rabbitmq_bus.publish_all(await published(service))
        await until(lambda: all_applied(service, ids), what="consuming again")


class HurriedClock(SystemClock):
    """The real one, and ``ahead`` of it by so many seconds."""

    ahead = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead


@pytest.mark.parametrize("together", [False, True])
async def test_what_waits_for_too_long_behind_slow_handlers_travels_by_itself_from_there_on(
    service: TinyService, vhost_url: str, together: bool
) -> None:
    """Failure Q14: the broker ends the channel over a message that is not answered for half an hour."""
    await apply_topology(vhost_url, [QUEUE])
    clock, begun, released = HurriedClock(), asyncio.Event(), asyncio.Event()
    bus = RabbitMQBus(vhost_url, name="testing", ports=replace(system_ports(), clock=clock))

    async def is_slow(_event: EventEnvelope) -> None:
        begun.set()
        await released.wait()

    service.before_commit = is_slow
    subscribed = service.subscription_in_batches if together else service.subscription
    bus.subscribe(subscribed(concurrency=1))
    ids = await service.announce_captures(5)
    messages = await published(service)
    with capture_logs() as logs:
        async with running(bus.consume):
            await bus.publish_all(messages[:2])
            await until(begun.is_set, what="the first of them")
            await bus.publish_all(messages[2:])
            await until(lambda: nothing_is_ready(vhost_url), what="the others behind it")
            clock.ahead += 601
            service.before_commit = nothing
            released.set()
            await until(lambda: all_applied(service, ids), what="applying all of them")
    assert sum(entry.get("events", 0) for entry in logs if entry["event"] == "batch_taken_apart") >= 3
    assert sorted(await service.applied()) == sorted(ids)
    assert await count_messages(vhost_url, QUEUE.name) == 0
    await bus.close()


async def nothing_is_ready(url: str) -> bool:
    return await count_messages(url, QUEUE.name) == 0


async def test_a_service_may_do_its_work_with_the_permissions_that_the_readme_gives_it(
    service: TinyService, rabbitmq: RabbitMQServer, vhost_url: str
) -> None:
    """A copy goes through the nameless exchange; without the right to it no failed one is answered (SEC-22)."""
    await apply_topology(vhost_url, [QUEUE])
    found = re.search(r"set_permissions .* '(.*)' '(.*)' '\^order_service(.*)'", README)
    assert found is not None
    rights = [found[1], found[2], f"^testing{found[3]}"]
    quoted = ", ".join('<<"' + right.replace("\\", "\\\\") + '">>' for right in rights)
    name = unquote(vhost_url.rpartition("/")[2])
    users = "rabbit_auth_backend_internal"
    give = f'ok = {users}:add_user(<<"{name}">>, <<"secret">>, <<"tests">>), {users}:set_permissions('
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, rabbitmq.evaluate, f'{give}<<"{name}">>, <<"{name}">>, {quoted}, <<"tests">>).')
    bus = RabbitMQBus(vhost_url.replace("guest:guest", f"{name}:secret"), name="testing", ports=system_ports())

    async def fails_once(event: EventEnvelope) -> None:
        if event.id not in service.deliveries[:-1]:
            raise ValueError("not the first time")

    service.before_commit = fails_once
    bus.subscribe(service.subscription())
    try:
        ids = await service.announce_captures(2)
        async with running(bus.consume, service.relay(bus).run):
            await until(lambda: all_applied(service, ids), what="applying them at the second try")
    finally:
        await bus.close()
        await loop.run_in_executor(None, rabbitmq.evaluate, f'{users}:delete_user(<<"{name}">>, <<"tests">>).')
