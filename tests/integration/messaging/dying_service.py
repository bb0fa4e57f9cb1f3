"""The tiny service as a process that ends at one step, as kill -9 there would: nothing is flushed, told or undone.

Called with a database's URL, a broker's URL and the step's name; ends with STATUS there.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from shared.contracts.envelope import EventEnvelope
from shared.messaging import relay
from shared.messaging.deliveries import Delivery, QueueConsumer
from shared.messaging.publisher import Publisher
from shared.messaging.rabbitmq import RabbitMQBus
from tests.integration.messaging.tiny_service import TinyService

STATUS = 9


async def _dies(*_arguments: Any, **_more: Any) -> None:
    os._exit(STATUS)


def after_publish_before_mark(_service: TinyService) -> None:
    relay.mark_published = _dies  # type: ignore[attr-defined]


def between_two_waves(_service: TinyService) -> None:
    publish_wave = Publisher._publish_wave
    waves = 0

    async def first_only(self: Publisher, messages: Any) -> Any:
        nonlocal waves
        waves += 1
        if waves == 2:
            os._exit(STATUS)
        return await publish_wave(self, messages)

    Publisher._publish_wave = first_only  # type: ignore[method-assign]


def after_effect_before_ack(_service: TinyService) -> None:
    QueueConsumer._answer = _dies  # type: ignore[method-assign]


def after_retry_copy_before_ack(service: TinyService) -> None:
    async def fails(event: EventEnvelope) -> None:
        if event.data["payment_id"] == "pay_0":
            raise ValueError("not now")

    service.before_commit = fails
    publish_retries, settle = Publisher.publish_retries, Delivery.settle
    copied = False

    async def notes(self: Publisher, *arguments: Any) -> Any:
        nonlocal copied
        outcomes = await publish_retries(self, *arguments)
        copied = True
        return outcomes

    async def dies_when_copied(self: Delivery, **how: Any) -> None:
        if copied:
            os._exit(STATUS)
        await settle(self, **how)

    Publisher.publish_retries = notes  # type: ignore[assignment, method-assign]
    Delivery.settle = dies_when_copied  # type: ignore[method-assign]


STEPS: dict[str, Callable[[TinyService], None]] = {
    step.__name__: step
    for step in (after_publish_before_mark, between_two_waves, after_effect_before_ack, after_retry_copy_before_ack)
}


async def main(database_url: str, rabbitmq_url: str, step: str) -> None:
    service = TinyService(database_url)
    bus = RabbitMQBus(rabbitmq_url, name="dying", ports=service.ports)
    bus.subscribe(service.subscription_in_batches())
    STEPS[step](service)
    relays = step in (after_publish_before_mark.__name__, between_two_waves.__name__)
    job: Callable[[], Awaitable[None]] = service.relay(bus).run if relays else bus.consume
    async with asyncio.timeout(30):
        await job()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
