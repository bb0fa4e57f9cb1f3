"""The worker process of payment_service: consumers, the outbox relay, and the parked events."""

from __future__ import annotations

from datetime import timedelta

from services.payment_service.bootstrap import Container
from services.payment_service.use_cases.ports import PARKED_CHANNEL
from services.payment_service.use_cases.wake_parked import apply_one_ready, look_after_parked
from shared.db.outbox import OUTBOX_CHANNEL
from shared.periodic import Periodic
from shared.tasks import supervise

PARKED_POLL_SECONDS = 5.0
PARKED_REVIEW_SECONDS = 60.0


async def run_worker(container: Container) -> None:
    """Runs until cancelled; a task that dies takes the process down (failure L14)."""
    deadline = timedelta(hours=container.settings.parked_deadline_hours)
    context, ports = container.context, container.ports

    async def apply_ready() -> bool:
        return await apply_one_ready(context)

    async def review() -> bool:
        await look_after_parked(context, deadline=deadline)
        return False

    ready = Periodic("parked-events", apply_ready, interval_seconds=PARKED_POLL_SECONDS, ports=ports)
    reviewing = Periodic("parked-review", review, interval_seconds=PARKED_REVIEW_SECONDS, ports=ports)
    with container.database.listener.subscribe(PARKED_CHANNEL, ready.wake):
        await supervise(
            {
                "listener": lambda: container.database.listener.run((OUTBOX_CHANNEL, PARKED_CHANNEL)),
                "relay": container.relay.run,
                "consumers": container.bus.consume,
                "parked-events": ready.run,
                "parked-review": reviewing.run,
            }
        )
