"""The order document on each change: server-sent events and a WebSocket, both resumable by version."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated

import structlog
from fastapi import APIRouter, Header, Query, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse

from services.order_service.api.dependencies import Caller, OrderId, OrderServices, Services, order_id_of, services_of
from services.order_service.api.schemas import OrderDocument
from services.order_service.domain.return_urls import origin_of
from services.order_service.use_cases.access import Access
from services.order_service.use_cases.read_orders import read_order
from services.order_service.use_cases.stream_tickets import read_streamed_order, redeem_stream_ticket
from shared.errors import DatabaseUnavailable, PayrailError
from shared.web.problems import problem_responses

log = structlog.get_logger()

HEARTBEAT_SECONDS = 15.0
"""Proxies close connections that are silent for half a minute or more."""

RECONNECT_MILLISECONDS = 2000
POLICY_VIOLATION = 1008
GOING_AWAY = 1001

streams_router = APIRouter(prefix="/api/v1")

Ticket = Annotated[str | None, Query(max_length=100, description="from stream-tickets; used up by this call")]


@streams_router.get(
    "/orders/{order_id}/stream",
    tags=["streams"],
    response_class=StreamingResponse,
    responses={
        200: {"description": "Events `order`: id = version, data = the order", "content": {"text/event-stream": {}}},
        **problem_responses(401, 404, 422, 503),
    },
)
async def get_stream(
    services: Services,
    access: Caller,
    order_id: OrderId,
    ticket: Ticket = None,
    last_event_id: Annotated[str | None, Query(max_length=20, description="as the header of that name")] = None,
    last_event_id_header: Annotated[str | None, Header(alias="Last-Event-ID")] = None,
) -> StreamingResponse:
    """Server-sent events. A client that comes back with `Last-Event-ID` gets the newest state if it lacks it."""
    await _let_in(services, access, order_id, ticket)
    seen = _version(last_event_id_header) or _version(last_event_id)
    events = _sse(services, order_id, seen)
    return StreamingResponse(events, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


@streams_router.websocket("/orders/{order_id}/ws")
async def order_socket(socket: WebSocket, order_id: str, ticket: str = "", last_event_id: str = "") -> None:
    """The same documents as JSON texts. Needs a ticket, and from a browser one of the shop's own origins."""
    services = services_of(socket)
    order_id = order_id_of(order_id)
    origin = socket.headers.get("origin")
    if origin is not None and origin_of(origin) not in services.stream_rules.browser_origins:
        await socket.close(POLICY_VIOLATION)
        return
    try:
        await redeem_stream_ticket(order_id, ticket[:100], services.deps)
    except PayrailError:
        await socket.close(POLICY_VIOLATION)
        return
    await socket.accept()
    await _serve_socket(socket, services, order_id, _version(last_event_id))


async def order_documents(
    services: OrderServices, order_id: str, seen: int | None
) -> AsyncIterator[OrderDocument | None]:
    """The document whenever its version is another one than ``seen``; None when it is time for a sign of life.

    Ends when the process shuts down or the stream's lifetime is over. A database that is away is waited for: the client
    would only come back at once.
    """
    clock = services.deps.ports.clock
    ends_at = clock.monotonic() + services.stream_rules.lifetime_seconds
    quiet_since = clock.monotonic()
    with services.watch.subscription(order_id) as changes:
        while not services.watch.is_stopping and clock.monotonic() < ends_at:
            changes.clear()
            version = seen
            with suppress(DatabaseUnavailable):
                view = await read_streamed_order(order_id, services.deps)
                changes.seen = version = view.order.version
            if version != seen:
                seen, quiet_since = version, clock.monotonic()
                yield OrderDocument.of(view)
            elif clock.monotonic() - quiet_since >= HEARTBEAT_SECONDS:
                quiet_since = clock.monotonic()
                yield None
            await changes.wait(HEARTBEAT_SECONDS)


async def _sse(services: OrderServices, order_id: str, seen: int | None) -> AsyncIterator[bytes]:
    yield f"retry: {RECONNECT_MILLISECONDS}\n\n".encode()
    async for document in order_documents(services, order_id, seen):
        if document is None:
            yield b": still here\n\n"
        else:
            yield f"event: order\nid: {document.version}\ndata: {document.model_dump_json()}\n\n".encode()


async def _serve_socket(socket: WebSocket, services: OrderServices, order_id: str, seen: int | None) -> None:
    async def send() -> None:
        async for document in order_documents(services, order_id, seen):
            if document is not None:  # signs of life are the server's own pings
                await socket.send_text(document.model_dump_json())

    sending = asyncio.create_task(send())
    leaving = asyncio.create_task(_until_gone(socket))
    try:
        await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
        if sending.done() and not leaving.done():
            sending.result()
            await socket.close(GOING_AWAY)
    except (WebSocketDisconnect, RuntimeError):
        log.info("socket_closed_by_peer", order_id=order_id)
    finally:
        for task in (sending, leaving):
            task.cancel()
        await asyncio.gather(sending, leaving, return_exceptions=True)


async def _until_gone(socket: WebSocket) -> None:
    """Nothing that a client sends means anything; its leaving does."""
    with suppress(WebSocketDisconnect):
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                return


async def _let_in(services: OrderServices, access: Access, order_id: str, ticket: str | None) -> None:
    if ticket is not None:
        await redeem_stream_ticket(order_id, ticket, services.deps)
    else:
        await read_order(order_id, access, services.deps)


def _version(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) <= 18 else None
