"""The HTTP process of payment_service."""

from __future__ import annotations

from fastapi import FastAPI

from services.payment_service.api.export_routes import router as exports_router
from services.payment_service.api.ledger_routes import router as ledger_router
from services.payment_service.api.money_routes import router as money_router
from services.payment_service.api.report_routes import router as reports_router
from services.payment_service.api.routes import router
from services.payment_service.api.timeline_routes import router as timeline_router
from services.payment_service.bootstrap import SERVICE, Container
from services.payment_service.use_cases.breakers import BREAKERS_CHANNEL
from shared.db.outbox import OUTBOX_CHANNEL
from shared.tasks import supervise
from shared.web.app import create_app
from shared.web.events import events_router

DESCRIPTION = """Payments, their attempts at gateways, and everything that is learnt about them.

Money is `{"amount_minor": 12500, "currency": "KWD"}`: integer minor units. Errors are RFC 9457 problem+json."""


def create_application(container: Container) -> FastAPI:
    return create_app(
        service=SERVICE,
        title="Payrail payment service",
        description=DESCRIPTION,
        ports=container.ports,
        checks=container.checks,
        routers=[
            router,
            money_router,
            timeline_router,
            ledger_router,
            exports_router,
            reports_router,
            events_router(container.database, service=SERVICE),
        ],
        cors_origins=container.settings.cors_origins,
        state={
            "context": container.context,
            "gateways": container.gateways,
            "idempotency": container.idempotency,
            "authenticator": container.authenticator,
            "return_budget_seconds": container.settings.return_budget_seconds,
        },
    )


async def serve_background(container: Container) -> None:
    """What the HTTP process runs beside requests: hints from other processes, and the breakers that all share."""
    listener = container.database.listener
    await supervise(
        {
            "listener": lambda: listener.run((OUTBOX_CHANNEL, BREAKERS_CHANNEL)),
            "breakers": container.breakers.run,
        }
    )
