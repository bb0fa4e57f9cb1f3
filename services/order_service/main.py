"""The HTTP process of order_service."""

from __future__ import annotations

from fastapi import FastAPI

from services.order_service.api.exports import exports_router
from services.order_service.api.routes import router
from services.order_service.api.streams import streams_router
from services.order_service.bootstrap import Container
from services.order_service.use_cases.order_watch import POLL_SECONDS, look_for_missed_changes
from services.order_service.use_cases.settle_order import ORDER_CHANGED
from shared.periodic import Periodic
from shared.tasks import supervise
from shared.web.app import create_app
from shared.web.events import events_router

DESCRIPTION = "Products, stock and orders. Create an order, pay it at a hosted checkout, follow it until it is paid."


def create_application(container: Container) -> FastAPI:
    return create_app(
        service="order_service",
        title="Payrail order service",
        description=DESCRIPTION,
        ports=container.ports,
        checks=container.checks,
        routers=[router, streams_router, exports_router, events_router(container.database, service="order_service")],
        cors_origins=container.settings.cors_origins,
        state={"container": container, "authenticator": container.authenticator},
    )


async def run_background(container: Container) -> None:
    """Runs beside the HTTP server until cancelled: hints from other replicas wake this one's streams and long polls.

    Where a hint is lost, a look every two seconds does.
    """
    looking = Periodic(
        "order-watch",
        lambda: look_for_missed_changes(container.watch, container.deps),
        interval_seconds=POLL_SECONDS,
        ports=container.ports,
    )
    await supervise(
        {"order-listener": lambda: container.database.listener.run((ORDER_CHANGED,)), "order-watch": looking.run}
    )
