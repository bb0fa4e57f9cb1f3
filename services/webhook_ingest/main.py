"""The HTTP process of webhook_ingest. It needs PostgreSQL and nothing else."""

from __future__ import annotations

from fastapi import FastAPI

from services.webhook_ingest.api.routes import ROUTERS
from services.webhook_ingest.bootstrap import Container
from services.webhook_ingest.db.tables import SERVICE
from shared.web.app import create_app
from shared.web.events import events_router


def create_application(container: Container) -> FastAPI:
    return create_app(
        service=SERVICE,
        title="Payrail webhook ingest",
        description="Takes gateways' webhooks in: verified over the raw bytes, durable before they are acknowledged.",
        ports=container.ports,
        checks=container.checks,
        routers=[*ROUTERS, events_router(container.database, service=SERVICE)],
        cors_origins=container.settings.cors_origins,
        state={"webhook_edge": container.edge, "authenticator": container.authenticator},
    )
