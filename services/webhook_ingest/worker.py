"""The worker of webhook_ingest: brings the outbox to the bus, and prunes the tables."""

from __future__ import annotations

from functools import partial

from services.webhook_ingest.bootstrap import Container
from services.webhook_ingest.db.announcing import render_announcements
from services.webhook_ingest.db.tables import SERVICE
from shared.db.outbox import OUTBOX_CHANNEL
from shared.messaging.relay import OutboxRelay
from shared.tasks import Job, supervise


async def run_worker(container: Container) -> None:
    """Runs until cancelled; a job that dies takes the process with it, and its supervisor restarts it."""
    render = partial(render_announcements, clock=container.ports.clock)
    relay = OutboxRelay(container.database, container.bus, service=SERVICE, ports=container.ports, render=render)
    seconds = container.settings.retention_interval_seconds
    jobs: dict[str, Job] = {
        "listener": lambda: container.database.listener.run((OUTBOX_CHANNEL,)),
        "relay": relay.run,
        "retention": lambda: container.retention.watch(interval_seconds=seconds),
    }
    if container.drain is not None:  # the embedded mode has no other process; else this adopts what dead ones left
        jobs["spool"] = container.drain.run
    await supervise(jobs)
