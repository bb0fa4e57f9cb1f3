"""What only a real socket shows: the deadline for receiving a request, and giant bodies."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx
import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from websockets.asyncio.client import connect

from services.webhook_ingest.main import create_application
from shared.web.deadline import allow_large_bodies, receiving_protocol
from tests.integration.webhook_ingest.conftest import Ingest, a_stripe_event
from tests.support.ports import free_port
from tests.support.waiting import until

Application = Callable[[Scope, Receive, Send], Awaitable[None]]


# Of the protocol in use: the one over httptools where that is installed.
HalfSecondDeadline = type(
    "HalfSecondDeadline",
    (receiving_protocol(),),
    {"RECEIVE_DEADLINE_SECONDS": 0.5, "RECEIVE_BYTES_PER_SECOND": 1_000},
)


@asynccontextmanager
async def serving(application: Application) -> AsyncIterator[int]:
    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(
            application, host="127.0.0.1", port=port, http=HalfSecondDeadline, log_config=None, lifespan="off"
        )
    )
    task = asyncio.create_task(server.serve())
    await until(lambda: server.started, what="uvicorn listening")
    try:
        yield port
    finally:
        server.should_exit = True
        await task


class Echo:
    """Reads the body unless told not to, and answers when it is allowed to."""

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.entered = asyncio.Event()
        self.reads_the_body = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.entered.set()
        more = self.reads_the_body
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            more = message.get("more_body", False)
        await self.may_answer.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def more_than_the_deadline() -> None:
    loop = asyncio.get_running_loop()
    started = loop.time()
    await until(lambda: loop.time() - started > 0.8, what="more than the deadline passing")


async def _is_cut(reader: asyncio.StreamReader) -> bool:
    async with asyncio.timeout(5):
        try:
            return await reader.read() == b""
        except ConnectionResetError:
            return True


@pytest.mark.parametrize(
    "beginning",
    [b"", b"POST / HTTP/1.1\r\n", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc"],
    ids=["silence", "half the headers", "half the body"],
)
async def test_a_request_that_does_not_arrive_in_time_is_cut_off(beginning: bytes) -> None:
    async with serving(Echo()) as port, connected(port) as (reader, writer):
        writer.write(beginning)
        assert await _is_cut(reader)


async def test_dripping_bytes_do_not_extend_the_deadline() -> None:
    async with serving(Echo()) as port, connected(port) as (reader, writer):

        async def cut() -> bool:
            if reader.at_eof() or writer.is_closing():
                return True
            writer.write(b"X")
            return False

        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
        await until(cut, within_seconds=5, what="the connection being cut")


UPLOAD = b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 3001\r\n\r\n"


async def test_a_large_body_that_keeps_coming_gets_the_time_that_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    allow_large_bodies("/upload")
    expired, passed = HalfSecondDeadline._expired, asyncio.Event()  # type: ignore[attr-defined]

    def passes(protocol: asyncio.Protocol) -> None:
        passed.set()
        expired(protocol)

    monkeypatch.setattr(HalfSecondDeadline, "_expired", passes)
    async with serving(Echo()) as port, connected(port) as (reader, writer):
        writer.write(UPLOAD + b"x" * 3_000)
        await passed.wait()
        writer.write(b"y")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("path", [b"/upload", b"/elsewhere"])
async def test_a_large_body_that_stops_coming_or_goes_elsewhere_is_cut_off_all_the_same(path: bytes) -> None:
    """What came in the first half second buys a second one for an upload, and no third: nothing is saved up."""
    allow_large_bodies("/upload")
    async with serving(Echo()) as port, connected(port) as (reader, writer):
        writer.write(UPLOAD.replace(b"/upload", path) + b"x" * 3_000)
        assert await _is_cut(reader)


async def test_a_body_that_goes_on_after_its_answer_is_cut_off() -> None:
    allow_large_bodies("/upload")
    echo = Echo()
    echo.reads_the_body = False
    async with serving(echo) as port, connected(port) as (reader, writer):
        writer.write(UPLOAD + b"x" * 3_000)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        async with asyncio.timeout(5):
            await reader.read()  # as far as the end of the connection


async def test_a_slow_handler_and_a_kept_alive_connection_are_not_under_the_deadline() -> None:
    echo = Echo()
    echo.may_answer.clear()
    async with serving(echo) as port, connected(port) as (reader, writer):
        for _ in range(2):
            echo.entered.clear()
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")
            await echo.entered.wait()
            await more_than_the_deadline()
            echo.may_answer.set()
            assert b"200 OK" in await reader.readuntil(b"ok")
            echo.may_answer.clear()
            await more_than_the_deadline()


async def test_a_body_that_the_handler_did_not_read_does_not_cut_the_next_request() -> None:
    echo = Echo()
    echo.reads_the_body = False
    async with serving(echo) as port, connected(port) as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nabc")
        assert b"200 OK" in await reader.readuntil(b"ok")
        writer.write(b"def")
        echo.may_answer.clear()
        echo.entered.clear()
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")
        await echo.entered.wait()
        await more_than_the_deadline()
        echo.may_answer.set()
        assert b"200 OK" in await reader.readuntil(b"ok")


async def test_an_open_websocket_is_not_under_the_deadline() -> None:
    async def chat(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        await send({"type": "websocket.send", "text": "still here"})
        await receive()

    async with serving(chat) as port, connect(f"ws://127.0.0.1:{port}/") as websocket:
        await more_than_the_deadline()
        await websocket.send("are you there")
        assert await websocket.recv() == "still here"


async def test_many_slow_sockets_do_not_keep_a_healthy_request_waiting() -> None:
    async with serving(Echo()) as port:
        slow = [await asyncio.open_connection("127.0.0.1", port) for _ in range(200)]
        for _, writer in slow:
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Le")
        async with httpx.AsyncClient(trust_env=False) as client:
            assert (await client.post(f"http://127.0.0.1:{port}/", content=b"abc")).text == "ok"
        assert all([await _is_cut(reader) for reader, _ in slow])
        for _, writer in slow:
            writer.close()


@pytest.mark.parametrize("is_chunked", [True, False], ids=["chunked", "with a length"])
async def test_a_giant_body_is_413_with_bounded_memory_and_the_service_goes_on(
    ingest: Ingest, is_chunked: bool
) -> None:
    async def giant() -> AsyncIterator[bytes]:
        for _ in range(640):
            yield b"x" * 65536

    headers = {"Content-Type": "application/json"} | ({} if is_chunked else {"Content-Length": str(640 * 65536)})
    async with serving(create_application(ingest.container)) as port:
        url = f"http://127.0.0.1:{port}/api/v1/webhooks/stripe"
        async with httpx.AsyncClient(trust_env=False) as client:
            await client.post(url, content=b"{}", headers=headers | {"Content-Length": "2"})
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            answer = await client.post(url, content=giant(), headers=headers)
            grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            assert answer.status_code == 413
            assert answer.headers["content-type"].startswith("application/problem+json")
            assert answer.headers["RateLimit-Limit"] == "60"
            assert grown_kib < 8 * 1024
            body = a_stripe_event()
            accepted = await client.post(url, content=body, headers=ingest.stripe_headers(body))
            assert accepted.status_code == 200
