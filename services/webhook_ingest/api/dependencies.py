"""What the routes take from the application: the edge of ingest, and the unit of work of the operators' routes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import Request

from services.webhook_ingest.api.rate_limit import FailureLimiter, RejectBudget
from services.webhook_ingest.signatures.registration import IngestGateway
from services.webhook_ingest.use_cases.ports import DeliveryStore, UnitOfWorkPort
from shared.ports import Ports


@dataclass(frozen=True, slots=True)
class Edge:
    """Lives in ``app.state.webhook_edge``."""

    gateways: Mapping[str, IngestGateway]
    uow: UnitOfWorkPort
    store: DeliveryStore
    limiter: FailureLimiter
    reject_budget: RejectBudget
    ports: Ports
    max_body_bytes: int
    trusted_proxy_hops: int


async def get_edge(request: Request) -> Edge:
    edge: Edge = request.app.state.webhook_edge
    return edge
