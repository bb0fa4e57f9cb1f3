"""The HTTP process of the reconciler."""

from __future__ import annotations

from fastapi import FastAPI

from services.reconciler.api.case_routes import router as case_router
from services.reconciler.api.report_routes import router as report_router
from services.reconciler.api.routes import router
from services.reconciler.api.settlement_routes import router as settlement_router
from services.reconciler.bootstrap import SERVICE, Container
from shared.db.outbox import OUTBOX_CHANNEL
from shared.web.app import create_app
from shared.web.deadline import allow_large_bodies
from shared.web.events import events_router

DESCRIPTION = """The safety net: asks about payments, reads settlement files, compares orders with payments.

Money is `{"amount_minor": 12500, "currency": "KWD"}`: integer minor units. Errors are RFC 9457 problem+json."""


def create_application(container: Container) -> FastAPI:
    allow_large_bodies(settlement_router.prefix)
    return create_app(
        service=SERVICE,
        title="Payrail reconciler",
        description=DESCRIPTION,
        ports=container.ports,
        checks=container.checks,
        routers=[
            router,
            settlement_router,
            case_router,
            report_router,
            events_router(container.database, service=SERVICE),
        ],
        cors_origins=container.settings.cors_origins,
        state={
            "context": container.context,
            "authenticator": container.authenticator,
            "uploads": container.uploads,
        },
    )


async def serve_background(container: Container) -> None:
    """What the HTTP process runs beside requests: hints from other processes."""
    await container.database.listener.run((OUTBOX_CHANNEL,))
