"""The broker is away: at start, over an orderly restart, and after a power cut."""

from __future__ import annotations

import asyncio

import pytest

from shared.errors import BusUnavailable
from shared.messaging.rabbitmq import RabbitMQBus
from shared.messaging.topology import apply_topology
from shared.ports import system_ports
from tests.integration.messaging.test_rabbitmq import RECOVERY_SECONDS, all_applied, is_healthy, outbox_is_empty
from tests.integration.messaging.tiny_service import QUEUE, TinyService, a_capture, running
from tests.support.rabbitmq import RabbitMQServer, make_own_rabbitmq
from tests.support.waiting import until

pytestmark = pytest.mark.chaos


async def off_the_loop(action: object) -> None:
    assert callable(action)
    await asyncio.get_running_loop().run_in_executor(None, action)


async def test_events_outlive_a_broker_that_is_down_at_start_restarts_and_is_killed(service: TinyService) -> None:
    """One life of one broker, because each start of one takes seconds: failures Q1 and Q2."""
    server = make_own_rabbitmq()
    bus = RabbitMQBus(server.url(), name="testing", ports=system_ports())
    bus.subscribe(service.subscription())
    try:
        async with running(bus.consume, service.relay(bus).run):
            ids = await service.announce_captures(5)
            with pytest.raises(BusUnavailable):
                await bus.check()
            assert len(await service.waiting()) == 5

            await off_the_loop(server.start)
            await apply_topology(server.url(), [QUEUE])
            await until(lambda: all_applied(service, ids), within_seconds=RECOVERY_SECONDS, what="start")

            ids += await keep_announcing_while(service, server, server.restart)
            await until(lambda: all_applied(service, ids), within_seconds=RECOVERY_SECONDS, what="restart")
            await until(lambda: is_healthy(bus), what="health after the restart")

            ids += await keep_announcing_while(service, server, lambda: power_cut(server))
            await until(lambda: all_applied(service, ids), within_seconds=RECOVERY_SECONDS, what="power cut")
            await until(lambda: is_healthy(bus), what="health after the power cut")
            await until(lambda: outbox_is_empty(service), what="an empty outbox")
        assert sorted(await service.applied()) == sorted(ids)
        await bus.close()
    finally:
        await off_the_loop(server.close)


def power_cut(server: RabbitMQServer) -> None:
    server.kill9()
    server.start()


async def keep_announcing_while(service: TinyService, server: RabbitMQServer, action: object) -> list[str]:
    """Announce one event after the other until the action is over, so that some meet every moment of it."""
    acting = asyncio.ensure_future(off_the_loop(action))
    ids: list[str] = []
    while not acting.done():
        ids += await service.announce(a_capture(f"pay_{len(ids)}"))
        await asyncio.wait([acting], timeout=0.1)
    await acting
    return ids
