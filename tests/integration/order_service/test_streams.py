"""Server-sent events and WebSockets over a real server, with two replicas on one database."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import httpx
import pytest
import uvicorn
import websockets
from websockets.typing import Origin

from services.order_service.domain.errors import OrderNotFound
from services.order_service.domain.models import PaymentStatus
from services.order_service.main import run_background
from services.order_service.use_cases.stream_tickets import redeem_stream_ticket
from shared.clock import SystemClock
from tests.integration.order_service.conftest import Answer, BuildWorld, World
from tests.support.clock import FakeClock
from tests.support.ports import free_port
from tests.support.waiting import PATIENCE_SECONDS, until

ServeWorld = Callable[[], Awaitable[tuple[World, str]]]


@pytest.fixture
async def serve(build_world: BuildWorld) -> AsyncIterator[ServeWorld]:
    """Each call starts one more replica behind its own port; ``(world, base URL)``."""
    async with AsyncExitStack() as stack:

        async def start() -> tuple[World, str]:
            world = await build_world(real_clock=SystemClock(), cors_allowed_origins="https://spa.example")
            port = free_port()
            await stack.enter_async_context(a_server(world, port))
            return world, f"http://127.0.0.1:{port}"

        yield start


@asynccontextmanager
async def a_server(world: World, port: int) -> AsyncIterator[None]:
    config = uvicorn.Config(world.application, port=port, log_config=None, lifespan="off", ws="websockets-sansio")
    server = uvicorn.Server(config)
    background = asyncio.create_task(run_background(world.container))
    serving = asyncio.create_task(server._serve(None))
    await until(lambda: server.started, what="the server")
    try:
        yield
    finally:
        world.container.watch.stop()
        server.should_exit = True
        await asyncio.wait_for(serving, PATIENCE_SECONDS)
        background.cancel()
        with suppress(asyncio.CancelledError):
            await background


class Stream:
    """What a browser's EventSource sees."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.aiter_lines()

    async def next(self) -> tuple[str, dict[str, Any]]:
        """The next event's id and document."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(PATIENCE_SECONDS):
            async for line in self._lines:
                if line:
                    name, _, value = line.partition(": ")
                    fields[name] = value
                elif "data" in fields:
                    assert fields["event"] == "order"
                    return fields["id"], json.loads(fields["data"])
                else:
                    fields = {}
        raise EOFError


@asynccontextmanager
async def listening(
    base_url: str, order_id: str, query: str = "", headers: dict[str, str] | None = None
) -> AsyncIterator[Stream]:
    async with (
        httpx.AsyncClient(base_url=base_url, timeout=PATIENCE_SECONDS) as http,
        http.stream("GET", f"/api/v1/orders/{order_id}/stream{query}", headers=headers) as response,
    ):
        assert response.status_code == 200, await response.aread()
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-store"
        yield Stream(response)


async def a_ticket(world: World, order: Answer) -> str:
    answer = await world.http.post(f"/api/v1/orders/{order.id}/stream-tickets", headers=order.secret)
    assert answer.status_code == 201
    return str(answer.json()["ticket"])


async def test_a_stream_on_one_replica_shows_what_another_replica_did(serve: ServeWorld) -> None:
    (here, _), (_, there) = await serve(), await serve()
    await here.has_product()
    order = await here.order()
    payment_id = await here.open_session(order)
    ticket = await a_ticket(here, order)
    async with listening(there, order.id, f"?ticket={ticket}") as stream:
        _, document = await stream.next()
        assert document["payment_status"] == "pending"
        await here.gateway_says(payment_id, PaymentStatus.CAPTURED)
        event_id, document = await stream.next()
        assert (document["status"], document["payment_status"]) == ("confirmed", "paid")
        assert event_id == str(document["version"])


async def test_a_change_whose_hint_was_lost_is_seen_all_the_same(serve: ServeWorld) -> None:
    world, url = await serve()
    await world.has_product()
    order = await world.order()
    async with listening(url, order.id, headers=order.secret) as stream:
        seen, _ = await stream.next()
        await world.rows("UPDATE orders SET version = version + 1 RETURNING id")  # nobody notifies anybody
        event_id, _ = await stream.next()
        assert int(event_id) == int(seen) + 1


async def test_a_stream_resumes_where_it_was(serve: ServeWorld) -> None:
    world, url = await serve()
    await world.has_product()
    order = await world.order()
    async with listening(url, order.id, headers=order.secret) as stream:
        seen, _ = await stream.next()
    payment_id = await world.open_session(order)
    await world.gateway_says(payment_id, PaymentStatus.CAPTURED)
    for query, headers in (("", {"Last-Event-ID": seen}), (f"?last_event_id={seen}", {})):
        async with listening(url, order.id, query, order.secret | headers) as stream:
            _, document = await stream.next()
            assert document["payment_status"] == "paid"


async def test_a_client_that_is_up_to_date_gets_only_what_is_new(serve: ServeWorld) -> None:
    world, url = await serve()
    await world.has_product()
    order = await world.order()
    async with listening(url, order.id, headers=order.secret | {"Last-Event-ID": "1"}) as stream:
        await until(lambda: order.id in world.container.watch._waiters, what="the stream")
        assert (await world.cancel(order)).status_code == 200
        event_id, document = await stream.next()
        assert (event_id, document["status"]) == ("2", "canceled")


async def test_a_stream_ends_when_the_process_shuts_down(serve: ServeWorld) -> None:
    world, url = await serve()
    await world.has_product()
    order = await world.order()
    async with listening(url, order.id, headers=order.secret) as stream:
        await stream.next()
        world.container.watch.stop()
        with pytest.raises(EOFError):
            await stream.next()
    assert world.container.watch._waiters == {}


async def test_a_websocket_sends_the_same_documents(serve: ServeWorld) -> None:
    (here, _), (there, url) = await serve(), await serve()
    await here.has_product()
    order = await here.order()
    payment_id = await here.open_session(order)
    ticket = await a_ticket(there, order)
    address = f"{url.replace('http', 'ws')}/api/v1/orders/{order.id}/ws?ticket={ticket}"
    async with websockets.connect(address, origin=Origin("https://shop.example")) as socket:
        assert json.loads(await socket.recv())["payment_status"] == "pending"
        await socket.send("nobody listens to this")
        await here.gateway_says(payment_id, PaymentStatus.CAPTURED)
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert json.loads(await socket.recv())["payment_status"] == "paid"
    await until(lambda: there.container.watch._waiters == {}, what="the socket's end")


@pytest.mark.parametrize(
    ("origin", "is_let_in"),
    [
        ("https://shop.example", True),
        ("https://spa.example", True),
        (None, True),
        ("https://evil.example", False),
        ("https://shop.example.evil.example", False),
        ("http://shop.example", False),
        ("null", False),
    ],
)
async def test_a_websocket_is_for_the_shops_own_pages(serve: ServeWorld, origin: Any, is_let_in: bool) -> None:
    world, url = await serve()
    await world.has_product()
    order = await world.order()
    address = f"{url.replace('http', 'ws')}/api/v1/orders/{order.id}/ws?ticket={await a_ticket(world, order)}"
    if is_let_in:
        async with websockets.connect(address, origin=origin) as socket:
            assert json.loads(await socket.recv())["id"] == order.id
    else:
        with pytest.raises(websockets.InvalidStatus):
            await websockets.connect(address, origin=origin)


async def test_a_websocket_ends_when_the_process_shuts_down(serve: ServeWorld) -> None:
    world, url = await serve()
    await world.has_product()
    order = await world.order()
    address = f"{url.replace('http', 'ws')}/api/v1/orders/{order.id}/ws?ticket={await a_ticket(world, order)}"
    async with websockets.connect(address) as socket:
        await socket.recv()
        world.container.watch.stop()
        with pytest.raises(websockets.ConnectionClosed):
            await asyncio.wait_for(socket.recv(), PATIENCE_SECONDS)


async def test_a_ticket_works_once(serve: ServeWorld) -> None:
    world, url = await serve()
    await world.has_product()
    order = await world.order()
    ticket = await a_ticket(world, order)
    async with listening(url, order.id, f"?ticket={ticket}") as stream:
        await stream.next()
    again = await world.http.get(f"/api/v1/orders/{order.id}/stream?ticket={ticket}")
    assert (again.status_code, again.json()["code"]) == (404, "not_found")
    with pytest.raises(websockets.InvalidStatus):
        await websockets.connect(f"{url.replace('http', 'ws')}/api/v1/orders/{order.id}/ws?ticket={ticket}")


async def test_a_ticket_is_for_one_order_and_one_minute(world: World, clock: FakeClock) -> None:
    order, other = await world.order(), await world.order()
    ticket = await a_ticket(world, order)
    assert (await world.http.get(f"/api/v1/orders/{other.id}/stream?ticket={ticket}")).status_code == 404
    clock.move(61)
    assert (await world.http.get(f"/api/v1/orders/{order.id}/stream?ticket={ticket}")).status_code == 404


async def test_a_ticket_is_stored_as_a_digest(world: World) -> None:
    order = await world.order()
    ticket = await a_ticket(world, order)
    (row,) = await world.rows("SELECT * FROM stream_tickets")
    assert ticket not in str(row)
    assert len(row["digest"]) == 32


async def test_many_uses_of_one_ticket_at_once_let_one_in(world: World) -> None:
    order = await world.order()
    ticket = await a_ticket(world, order)
    uses = [redeem_stream_ticket(order.id, ticket, world.container.deps) for _ in range(20)]
    results = await asyncio.gather(*uses, return_exceptions=True)
    assert results.count(None) == 1
    assert sum(isinstance(result, OrderNotFound) for result in results) == 19
