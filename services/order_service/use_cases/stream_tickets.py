"""Single-use tickets for streams: browsers cannot send headers with EventSource and WebSocket (SEC-12)."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from services.order_service.domain.errors import OrderNotFound
from services.order_service.use_cases.access import Access, digest_of, require_access
from services.order_service.use_cases.dependencies import Dependencies
from services.order_service.use_cases.ports import OrderView

TICKET_LIFETIME = timedelta(seconds=60)
TICKET_BYTES = 32


@dataclass(frozen=True, slots=True)
class StreamTicket:
    ticket: str = field(repr=False)
    expires_at: datetime


async def issue_stream_ticket(order_id: str, access: Access, deps: Dependencies) -> StreamTicket:
    """Raises OrderNotFound, Unauthenticated."""
    now = deps.ports.clock.now()
    ticket = "ost_" + base64.urlsafe_b64encode(deps.ports.randomness.token_bytes(TICKET_BYTES)).rstrip(b"=").decode()
    async with deps.uow() as tx:
        order = require_access(await tx.orders.find(order_id), access, writing=False, now=now)
        await tx.tickets.add(digest_of(ticket), order.id, expires_at=now + TICKET_LIFETIME)
    return StreamTicket(ticket, now + TICKET_LIFETIME)


async def redeem_stream_ticket(order_id: str, ticket: str, deps: Dependencies) -> None:
    """Use it up. Raises OrderNotFound for one that is unknown, used, too old or another order's."""
    async with deps.uow() as tx:
        if not await tx.tickets.redeem(digest_of(ticket), order_id, now=deps.ports.clock.now()):
            raise OrderNotFound


async def read_streamed_order(order_id: str, deps: Dependencies) -> OrderView:
    """For a stream that was let in already."""
    async with deps.uow() as tx:
        view = await tx.pictures.find(order_id)
    if view is None:
        raise OrderNotFound
    return view
