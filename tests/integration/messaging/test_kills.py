"""A process ends between two steps of the batch path; the next one goes on, and every effect happens once."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from shared.messaging.rabbitmq import RabbitMQBus
from tests.integration.messaging import dying_service
from tests.integration.messaging.test_both_buses import all_applied, outbox_is_empty
from tests.integration.messaging.test_rabbitmq import count_messages
from tests.integration.messaging.tiny_service import QUEUE, TinyService, a_capture, running
from tests.support.waiting import until

REPOSITORY = Path(__file__).resolve().parents[3]
PAYMENTS = 6


async def die(step: str, service: TinyService, rabbitmq_url: str, directory: Path) -> None:
    """Run the tiny service in a process of its own until it ends itself at that step."""
    errors = directory / "errors"

    def run() -> int:
        command = [sys.executable, "-m", dying_service.__name__, service.database.url, rabbitmq_url, step]
        with errors.open("ab") as output:
            return subprocess.run(
                command, cwd=REPOSITORY, env={**os.environ}, stdout=output, stderr=output, timeout=60, check=False
            ).returncode

    status = await asyncio.get_running_loop().run_in_executor(None, run)
    assert status == dying_service.STATUS, errors.read_text()


async def announced(service: TinyService) -> list[str]:
    """Two events of each payment, so that there are two waves."""
    versions = [a_capture(f"pay_{number}", version=version) for version in (1, 2) for number in range(PAYMENTS)]
    return await service.announce(*versions)


async def is_settled(url: str) -> bool:
    return await count_messages(url, QUEUE.name) == 0


@pytest.mark.parametrize("step", ["after_publish_before_mark", "between_two_waves"])
async def test_a_relay_that_dies_publishes_twice_and_in_order(
    step: str, service: TinyService, rabbitmq_bus: RabbitMQBus, vhost_url: str, tmp_path: Path
) -> None:
    ids = await announced(service)
    await die(step, service, vhost_url, tmp_path)
    assert [row.message_id for row in await service.waiting()] == ids
    assert await count_messages(vhost_url, QUEUE.name) == (2 if step == "after_publish_before_mark" else 1)
    rabbitmq_bus.subscribe(service.subscription_in_batches(concurrency=1))
    async with running(rabbitmq_bus.consume, service.relay(rabbitmq_bus).run):
        await until(lambda: outbox_is_empty(service), what="an empty outbox")
        await until(lambda: all_applied(service, ids), what="applying every event")
        await until(lambda: is_settled(vhost_url), what="an empty queue")
    assert sorted(await service.applied()) == sorted(ids)
    by_payment = await service.rows(
        "SELECT array_agg(event_id ORDER BY position) AS events FROM applied GROUP BY payment_id"
    )
    assert all(row.events == sorted(row.events, key=ids.index) for row in by_payment)


@pytest.mark.parametrize("step", ["after_effect_before_ack", "after_retry_copy_before_ack"])
async def test_a_consumer_that_dies_applies_once(
    step: str, service: TinyService, rabbitmq_bus: RabbitMQBus, vhost_url: str, tmp_path: Path
) -> None:
    """Failure Q9, for a batch, and for one of its events that is on its way to another try."""
    ids = await service.announce_captures(20)
    async with running(service.relay(rabbitmq_bus).run):
        await until(lambda: outbox_is_empty(service), what="publishing them")
    await die(step, service, vhost_url, tmp_path)
    if step == "after_effect_before_ack":
        assert sorted(await service.applied()) == sorted(ids)
    else:
        assert ids[0] not in await service.applied(), "its copy is on its way to another try"
    rabbitmq_bus.subscribe(service.subscription_in_batches())
    async with running(rabbitmq_bus.consume):
        await until(lambda: all_applied(service, ids), what="applying every event")
        await until(lambda: is_settled(vhost_url), what="an empty queue")
    assert sorted(await service.applied()) == sorted(ids)
