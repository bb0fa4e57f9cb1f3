"""The services that can be served, worked and migrated, by the name that the command line uses."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI

from services.gateway_sandbox import bootstrap as sandbox_bootstrap
from services.gateway_sandbox import main as sandbox_main
from services.gateway_sandbox import worker as sandbox_worker
from services.gateway_sandbox.settings import SandboxSettings
from services.order_service import bootstrap as order_bootstrap
from services.order_service import main as order_main
from services.order_service import worker as order_worker
from services.order_service.settings import OrderSettings
from services.payment_service import bootstrap as payment_bootstrap
from services.payment_service import main as payment_main
from services.payment_service import worker as payment_worker
from services.payment_service.settings import PaymentSettings
from services.reconciler import bootstrap as reconciler_bootstrap
from services.reconciler import main as reconciler_main
from services.reconciler import worker as reconciler_worker
from services.reconciler.settings import ReconcilerSettings
from services.webhook_ingest import bootstrap as ingest_bootstrap
from services.webhook_ingest import main as ingest_main
from services.webhook_ingest import worker as ingest_worker
from services.webhook_ingest.settings import WebhookIngestSettings
from shared.db.outbox import OUTBOX_CHANNEL
from shared.messaging.bus import EventBus
from shared.ports import Ports
from shared.settings import ServiceSettings

Background = Callable[[Any], Awaitable[None]]


async def _listen(container: Any) -> None:
    """What an HTTP process runs beside its requests: it hears the hints of other processes."""
    await container.database.listener.run((OUTBOX_CHANNEL,))


@dataclass(frozen=True, slots=True)
class ServiceEntry:
    """One service: its settings, its composition root, and its two processes.

    ``routes`` are the path prefixes that a proxy (or the embedded mode) sends to it.
    """

    package: str
    title: str
    settings: type[ServiceSettings]
    build: Callable[..., Any]
    create_application: Callable[[Any], FastAPI]
    run_worker: Background
    routes: tuple[str, ...]
    serve_background: Background = _listen
    needs_bus: bool = True

    @property
    def name(self) -> str:
        return self.package.replace("_", "-")


@asynccontextmanager
async def _build_sandbox(settings: SandboxSettings, *, ports: Ports, bus: EventBus) -> AsyncIterator[Any]:  # noqa: ARG001
    """The sandbox plays the world outside: it has no part in the event bus."""
    async with sandbox_bootstrap.build(settings, ports=ports) as container:
        yield container


SERVICES: Mapping[str, ServiceEntry] = {
    entry.name: entry
    for entry in (
        ServiceEntry(
            "order_service",
            "Order service",
            OrderSettings,
            order_bootstrap.build,
            order_main.create_application,
            order_worker.run_worker,
            routes=("/api/v1/products", "/api/v1/orders", "/api/v1/exports/orders", "/api/v1/events/order-service"),
            serve_background=order_main.run_background,
        ),
        ServiceEntry(
            "payment_service",
            "Payment service",
            PaymentSettings,
            payment_bootstrap.build,
            payment_main.create_application,
            payment_worker.run_worker,
            routes=(
                "/api/v1/payments",
                "/api/v1/captures",
                "/api/v1/voids",
                "/api/v1/refunds",
                "/api/v1/ledger",
                "/api/v1/gateways",
                "/api/v1/exports/payments",
                "/api/v1/exports/parked-events",
                "/api/v1/events/payment-service",
                "/api/v1/events",
            ),
            serve_background=payment_main.serve_background,
        ),
        ServiceEntry(
            "webhook_ingest",
            "Webhook ingest",
            WebhookIngestSettings,
            ingest_bootstrap.build,
            ingest_main.create_application,
            ingest_worker.run_worker,
            routes=(
                "/api/v1/webhooks",
                "/api/v1/order-payments/webhooks",
                "/api/webhooks",
                "/api/v1/webhook-deliveries",
                "/api/v1/webhook-replays",
                "/api/v1/webhook-rejects",
                "/api/v1/events/webhook-ingest",
            ),
            serve_background=ingest_main.serve_background,
        ),
        ServiceEntry(
            "reconciler",
            "Reconciler",
            ReconcilerSettings,
            reconciler_bootstrap.build,
            reconciler_main.create_application,
            reconciler_worker.run_worker,
            routes=("/api/v1/reconciliation", "/api/v1/events/reconciler"),
        ),
        ServiceEntry(
            "gateway_sandbox",
            "Gateway sandbox",
            SandboxSettings,
            _build_sandbox,
            sandbox_main.create_application,
            sandbox_worker.run_worker,
            routes=("/sandbox",),
            needs_bus=False,
        ),
    )
}
