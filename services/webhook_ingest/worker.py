"""The worker of webhook_ingest: brings the outbox to the bus, and forgets old rejects."""

from __future__ import annotations

from services.webhook_ingest.bootstrap import Container
from services.webhook_ingest.db.tables import SERVICE
from services.webhook_ingest.use_cases.forget_rejects import forget_rejects
from shared.db.outbox import OUTBOX_CHANNEL
from shared.messaging.relay import OutboxRelay
from shared.periodic import Periodic
from shared.tasks import supervise

RETENTION_INTERVAL_SECONDS = 3600.0


async def run_worker(container: Container) -> None:
    """Runs until cancelled; a job that dies takes the process with it, and its supervisor restarts it."""
    relay = OutboxRelay(container.database, container.bus, service=SERVICE, ports=container.ports)
    retention = Periodic(
        f"{SERVICE}-retention",
        lambda: forget_rejects(
            container.settings.webhook_reject_retention_days, uow=container.uow, ports=container.ports
        ),
        interval_seconds=RETENTION_INTERVAL_SECONDS,
        ports=container.ports,
    )
    await supervise(
        {
            "listener": lambda: container.database.listener.run((OUTBOX_CHANNEL,)),
            "relay": relay.run,
            "retention": retention.run,
        }
    )
