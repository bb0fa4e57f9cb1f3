"""A tiny service over a fresh database, and both buses to run it over."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from shared.messaging.bus import EventBus
from shared.messaging.in_process import InProcessBus
from shared.messaging.rabbitmq import RabbitMQBus
from shared.messaging.topology import apply_topology
from shared.ports import system_ports
from tests.integration.messaging.tiny_service import QUEUE, TinyService, create_schema
from tests.support.postgres import CreateDatabase


@pytest.fixture
async def service(create_database: CreateDatabase) -> AsyncIterator[TinyService]:
    url = create_database()
    await create_schema(url)
    tiny = TinyService(url)
    yield tiny
    await tiny.database.dispose()


@pytest.fixture
async def rabbitmq_bus(vhost_url: str) -> AsyncIterator[RabbitMQBus]:
    """Over a virtual host with the topology applied."""
    await apply_topology(vhost_url, [QUEUE])
    bus = RabbitMQBus(vhost_url, name="testing", ports=system_ports())
    yield bus
    await bus.close()


@pytest.fixture(params=["rabbitmq", "in process"])
async def bus(request: pytest.FixtureRequest) -> AsyncIterator[EventBus]:
    """Each test that asks for it runs over both buses: what services see of them must be the same."""
    if request.param == "in process":
        yield InProcessBus(system_ports().clock)
        return
    url = request.getfixturevalue("vhost_url")
    await apply_topology(url, [QUEUE])
    rabbitmq = RabbitMQBus(url, name="testing", ports=system_ports())
    yield rabbitmq
    await rabbitmq.close()
