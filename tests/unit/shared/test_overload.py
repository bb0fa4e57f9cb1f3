"""Too many requests at once: a problem with Retry-After, counted, and idle connections are no requests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from deploy.running import REQUESTS_AT_ONCE
from services.webhook_ingest.settings import WebhookIngestSettings
from shared.metrics import HTTP_REQUESTS
from shared.web import overload
from tests.support.waiting import until
from tests.unit.shared.test_malformed_requests import PROTOCOLS

REQUEST = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
LIMIT = 3


class Gated:
    """Answers when it may."""

    service = "webhook_ingest"

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()
        self.calls = 0

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        self.calls += 1
        await self.may_answer.wait()
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})


@dataclass
class Server:
    app: Gated
    state: ServerState
    port: int
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writers.append(writer)
        return reader, writer

    async def ask(self) -> asyncio.StreamReader:
        reader, writer = await self.connect()
        writer.write(REQUEST)
        return reader


@pytest.fixture(params=PROTOCOLS)
async def server(request: pytest.FixtureRequest) -> AsyncIterator[Server]:
    app, state = Gated(), ServerState()
    config = uvicorn.Config(app, log_config=None, lifespan="off", limit_concurrency=LIMIT, timeout_keep_alive=60)
    config.load()

    def protocol() -> asyncio.Protocol:
        return PROTOCOLS[request.param](config=config, server_state=state, app_state={})

    listening = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
    running = Server(app, state, listening.sockets[0].getsockname()[1])
    yield running
    app.may_answer.set()
    for writer in running.writers:
        writer.close()
    listening.close()
    await until(lambda: not state.connections and not state.tasks, what="the end of all connections")


def refused() -> float:
    return float(HTTP_REQUESTS.labels("webhook_ingest", "POST", "overloaded", 503)._value.get())


def told(answer: bytes) -> tuple[bytes, dict[bytes, bytes], dict[str, Any]]:
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.split(b"\r\n")
    headers = dict(line.lower().split(b": ", 1) for line in lines)
    return status, headers, json.loads(body)


async def test_more_than_may_be_in_progress_are_told_when_to_come_back(server: Server) -> None:
    before = refused()
    waiting = [await server.ask() for _ in range(LIMIT)]
    await until(lambda: server.app.calls == LIMIT, what="as many as are let in")
    answer = await (await server.ask()).read()
    status, headers, problem = told(answer)
    assert status.split()[1] == b"503"
    assert headers[b"content-type"] == b"application/problem+json"
    assert (headers[b"retry-after"], headers[b"connection"]) == (b"2", b"close")
    assert (problem["code"], problem["retryable"]) == ("overloaded", True)
    assert refused() == before + 1
    server.app.may_answer.set()
    for reader in waiting:
        assert (await reader.readline()).split()[1] == b"204"
    await until(lambda: not server.state.tasks, what="the end of the requests")
    assert (await (await server.ask()).readline()).split()[1] == b"204", "there is room again"


async def test_connections_that_wait_for_nothing_are_no_requests(server: Server) -> None:
    server.app.may_answer.set()
    for _ in range(2 * LIMIT):
        reader = await server.ask()
        assert (await reader.readline()).split()[1] == b"204"
    assert len(server.state.connections) == 2 * LIMIT, "they are kept alive"


async def test_connections_beyond_their_bound_are_refused_and_the_others_are_not(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overload, "MAX_CONNECTIONS", 2)
    server.app.may_answer.set()
    old, writer = await server.connect()
    await server.connect()
    await until(lambda: len(server.state.connections) == 2, what="both connections")
    assert (await (await server.ask()).read()).split()[1] == b"503"
    writer.write(REQUEST)
    assert (await old.readline()).split()[1] == b"204"


def test_webhooks_that_wait_for_their_commit_leave_room_for_others() -> None:
    """Else the queue's own answer could never be given."""
    assert WebhookIngestSettings.model_fields["webhook_queue_max_deliveries"].default < REQUESTS_AT_ONCE
    assert REQUESTS_AT_ONCE < overload.MAX_CONNECTIONS
