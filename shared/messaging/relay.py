"""The relay: takes committed events from the outbox to the bus, and marks those that are safe there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.contracts.topology import retry_delay_seconds
from shared.db.outbox import OUTBOX_CHANNEL, WaitingMessage, backlog, claim_waiting, mark_failed, mark_published
from shared.db.session import Database
from shared.errors import BusUnavailable
from shared.messaging.bus import BusMessage, EventBus, MessageNotAccepted
from shared.metrics import EVENTS_PUBLISHED, OUTBOX_OLDEST_SECONDS, OUTBOX_WAITING
from shared.periodic import Periodic
from shared.ports import Ports
from shared.tasks import supervise

log = structlog.get_logger()

BATCH_SIZE = 50
POLL_SECONDS = 1.0  # the hint after a commit usually comes first; this finds what a lost hint left
METRICS_SECONDS = 10.0
BUS_DOWN_WAIT_SECONDS = 0.5
MAX_WAIT_SECONDS = 30


@dataclass(slots=True)
class _Outcome:
    """What became of a batch: safe on the bus, refused with a reason (by position), and whether the bus was there."""

    published: list[WaitingMessage] = field(default_factory=list)
    refused: dict[int, str] = field(default_factory=dict)
    bus_is_down: str | None = None


class OutboxRelay:
    """One of any number of relays over a service's outbox.

    Row locks keep others off while a batch is published, and a killed relay's locks go with its connection, so another
    takes over at once. Within a batch a subject's events keep their order; a message that was refused, or another
    relay, may let a later one go first, so consumers go by the version in the data (failures O11, Q21).
    """

    def __init__(
        self,
        database: Database,
        bus: EventBus,
        *,
        service: str,
        ports: Ports,
        retry_wait_seconds: Callable[[int], float] = retry_delay_seconds,
    ) -> None:
        self._database = database
        self._bus = bus
        self._service = service
        self._ports = ports
        self._retry_wait_seconds = retry_wait_seconds
        self._started_at: datetime = ports.clock.now()
        self._periodic = Periodic(f"{service}-relay", self._round, interval_seconds=POLL_SECONDS, ports=ports)
        self._gauges = Periodic(f"{service}-outbox-age", self._measure, interval_seconds=METRICS_SECONDS, ports=ports)

    async def run(self) -> None:
        with self._database.listener.subscribe(OUTBOX_CHANNEL, self._periodic.wake):
            await supervise({"publishing": self._periodic.run, "measuring": self._gauges.run})

    async def _round(self) -> bool:
        """Publish one batch; True if there may be more."""
        async with self._database.begin() as connection:
            waiting = await claim_waiting(connection, limit=BATCH_SIZE)
            if not waiting:
                return False
            outcome = await self._publish_all(waiting)
            await mark_published(connection, [message.position for message in outcome.published])
            await self._put_back(connection, waiting, outcome.refused)
        for message in outcome.published:
            EVENTS_PUBLISHED.labels(self._service, message.type).inc()
        if outcome.bus_is_down:
            log.warning("relay_waits_for_the_bus", service=self._service, reason=outcome.bus_is_down)
            await self._ports.clock.sleep(BUS_DOWN_WAIT_SECONDS)
        return True

    async def _publish_all(self, waiting: Sequence[WaitingMessage]) -> _Outcome:
        """Publish by subject, subjects side by side; within one, a message that fails holds back those behind it."""
        outcome = _Outcome()

        async def publish_in_order(messages: list[WaitingMessage]) -> None:
            for index, message in enumerate(messages):
                try:
                    await self._bus.publish(self._as_bus_message(message))
                except MessageNotAccepted as error:
                    outcome.refused.update({later.position: error.detail for later in messages[index:]})
                    return
                except BusUnavailable as error:
                    # The rows stay as they are: an outage uses up no attempt and leaves no waits behind.
                    outcome.bus_is_down = outcome.bus_is_down or error.detail
                    return
                outcome.published.append(message)

        ordered = sorted(waiting, key=lambda message: (message.subject, message.position))
        groups = [list(messages) for _, messages in groupby(ordered, key=lambda message: message.subject)]
        await asyncio.gather(*(publish_in_order(messages) for messages in groups))
        return outcome

    async def _put_back(
        self, connection: AsyncConnection, waiting: Sequence[WaitingMessage], refused: dict[int, str]
    ) -> None:
        for message in waiting:
            if message.position in refused:
                wait = min(self._retry_wait_seconds(message.attempts + 1), MAX_WAIT_SECONDS)
                await mark_failed(connection, message.position, wait_seconds=wait, error=refused[message.position])

    def _as_bus_message(self, message: WaitingMessage) -> BusMessage:
        # A row that is older than this process may have been tried, by a process that died of it.
        redelivered = message.attempts > 0 or message.created_at < self._started_at
        return BusMessage(message.message_id, message.type, message.subject, message.body, redelivered)

    async def _measure(self) -> bool:
        async with self._database.begin() as connection:
            measured = await backlog(connection)
        OUTBOX_WAITING.labels(self._service).set(measured.waiting)
        OUTBOX_OLDEST_SECONDS.labels(self._service).set(measured.oldest_age_seconds)
        return False
