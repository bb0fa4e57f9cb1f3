"""The HTTP process of webhook_ingest. It needs PostgreSQL and nothing else."""

from __future__ import annotations

from services.webhook_ingest.api.endpoint import WebhookAddresses
from services.webhook_ingest.api.routes import ROUTERS
from services.webhook_ingest.bootstrap import Container
from services.webhook_ingest.db.tables import SERVICE
from shared.db.outbox import OUTBOX_CHANNEL
from shared.tasks import Job, supervise
from shared.web.app import Application, create_app
from shared.web.events import events_router


def create_application(container: Container) -> Application:
    return create_app(
        service=SERVICE,
        title="Payrail webhook ingest",
        description="Takes gateways' webhooks in: verified over the raw bytes, durable before they are acknowledged.",
        ports=container.ports,
        checks=container.checks,
        routers=[*ROUTERS, events_router(container.database, service=SERVICE)],
        cors_origins=container.settings.cors_origins,
        state={"webhook_edge": container.edge, "authenticator": container.authenticator},
        shortcut=WebhookAddresses(container.edge, SERVICE, is_cors=bool(container.settings.cors_origins)),
    )


async def serve_background(container: Container) -> None:
    """What the HTTP process runs beside requests: hints from other processes, and the way out of its spool."""
    jobs: dict[str, Job] = {"listener": lambda: container.database.listener.run((OUTBOX_CHANNEL,))}
    if container.drain is not None:
        jobs["spool"] = container.drain.run
    await supervise(jobs)
