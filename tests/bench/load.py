"""A load generator that is not the bottleneck: kept-alive connections, requests built before the clock starts.

It runs in a process of its own (``python -m tests.bench.generator``), so its CPU is counted apart from the harness's.

Closed loop (each connection sends when it has its answer) measures the throughput at saturation. Open loop sends by a
timetable, and a latency counts from the time in the timetable: a server that stalls is charged for everything that it
kept waiting, also for what the generator could not send meanwhile ("coordinated omission"). A budgeted loop is a closed
loop that may not send more than it has been allowed, so that what is behind the server is not flooded.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

from tests.bench.figures import due_times

CONNECTIONS = 32
PATIENCE_SECONDS = 60


@dataclass
class Sample:
    """What one round saw, as parallel lists with an entry for each answer. Times are of ``time.perf_counter``, which is
    one clock for all processes of the machine; latencies are seconds."""

    started: float = 0
    seconds: float = 0
    cpu_seconds: float = 0  # of the generator
    numbers: list[int] = field(default_factory=list)  # which request was answered
    statuses: list[int] = field(default_factory=list)  # 0: the connection broke before an answer came
    latencies: list[float] = field(default_factory=list)
    answered_at: list[float] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    late: list[float] = field(default_factory=list)  # how far behind the timetable each request was sent

    @property
    def accepted(self) -> int:
        return sum(status == 200 for status in self.statuses)

    @property
    def refused(self) -> list[int]:
        return [status for status in self.statuses if status != 200]

    @property
    def rate(self) -> float:
        return self.accepted / self.seconds

    def record(self, number: int, status: int, body: bytes, since: float) -> None:
        now = time.perf_counter()
        self.numbers.append(number)
        self.statuses.append(status)
        self.latencies.append(now - since)
        self.answered_at.append(now)
        self.bodies.append(body)

    def accepted_latencies(self) -> list[float]:
        return [latency for status, latency in zip(self.statuses, self.latencies, strict=True) if status == 200]


def request_bytes(url: str, body: bytes, headers: dict[str, str]) -> bytes:
    parts = urlsplit(url)
    lines = [f"POST {parts.path} HTTP/1.1", f"host: {parts.netloc}", f"content-length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Connection(asyncio.Protocol):
    """One request at a time; ``on_answer`` gets status and body, status 0 for an answer that never came.

    A server that closes after each answer (gunicorn's sync workers) is connected to again for the next request.
    """

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._request: bytes | None = None  # waits for the connection to be there
        self._is_waiting = False
        self._connecting: asyncio.Task[None] | None = None
        self._dropped = 0  # connections that we closed ourselves and that have not yet been lost
        self.on_answer: Callable[[int, bytes], None] = lambda status, body: None

    async def connect(self) -> None:
        await asyncio.get_running_loop().create_connection(lambda: self, *self._address)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._received = b""
        if self._request is not None:
            request, self._request = self._request, None
            self._transport.write(request)

    def send(self, request: bytes) -> None:
        self._is_waiting = True
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(request)
        else:
            self._request = request
            self._connecting = asyncio.get_running_loop().create_task(self._reconnect())

    async def _reconnect(self) -> None:
        try:
            await self.connect()
        except OSError:
            self._request = None
            self._answer(0, b"")

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator:
            return
        lowered = head.lower()
        start = lowered.index(b"content-length:") + 15
        length = int(lowered[start:].split(b"\r\n", 1)[0])
        if len(body) >= length:
            self._received = b""
            if b"\r\nconnection: close" in lowered:
                self._drop()
            self._answer(int(head[9:12]), body)

    def _drop(self) -> None:
        if self._transport is not None:
            self._dropped += 1
            self._transport.abort()
            self._transport = None

    def _answer(self, status: int, body: bytes) -> None:
        if self._is_waiting:
            self._is_waiting = False
            self.on_answer(status, body)

    def connection_lost(self, _error: Exception | None) -> None:
        if self._dropped:
            self._dropped -= 1
            return
        self._transport = None
        self._answer(0, b"")

    def close(self) -> None:
        self.on_answer = lambda status, body: None
        if self._transport is not None:
            self._transport.abort()


async def connect(url: str, count: int) -> list[Connection]:
    connections = [Connection(*address(url)) for _ in range(count)]
    for connection in connections:
        await connection.connect()
    return connections


def address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


class Budget:
    """How many requests may have been sent by now; ``allow`` wakes who waits for more."""

    def __init__(self, allowed: float) -> None:
        self._allowed = allowed
        self._on_more: Callable[[], None] = lambda: None

    def allow(self, count: int) -> None:
        self._allowed = count
        self._on_more()

    def has(self, sent: int) -> bool:
        return sent < self._allowed

    def when_more(self, call: Callable[[], None]) -> None:
        self._on_more = call


async def saturate(
    connections: Sequence[Connection], requests: Sequence[bytes], *, seconds: float, budget: Budget | None = None
) -> Sample:
    """As fast as the answers come, and as the budget allows; over and over when the requests are used up and there is
    no budget. Returns when the last answer has come."""
    sample = Sample()
    allowed = budget or Budget(float("inf"))
    idle = deque(connections)
    all_done = asyncio.Event()
    sent = 0
    started = sample.started = time.perf_counter()
    ends = started + seconds

    def dispatch() -> None:
        nonlocal sent
        while idle and allowed.has(sent) and time.perf_counter() < ends and (budget is None or sent < len(requests)):
            _send(idle.popleft(), sent)
            sent += 1

    def _send(connection: Connection, number: int) -> None:
        sent_at = time.perf_counter()

        def answered(status: int, body: bytes) -> None:
            sample.record(number, status, body, sent_at)
            idle.append(connection)
            dispatch()
            finish()

        connection.on_answer = answered
        connection.send(requests[number % len(requests)])

    def finish() -> None:
        if len(idle) == len(connections) and (time.perf_counter() >= ends or (budget and sent == len(requests))):
            all_done.set()

    allowed.when_more(dispatch)
    asyncio.get_running_loop().call_later(seconds + 0.01, finish)
    dispatch()
    async with asyncio.timeout(seconds + PATIENCE_SECONDS):
        await all_done.wait()
    sample.seconds = max(sample.answered_at) - started
    return sample


async def pace(connections: Sequence[Connection], requests: Sequence[bytes], *, rate: float) -> Sample:
    """By the timetable, whether the server keeps up or not."""
    sample = Sample()
    free = deque(connections)
    waiting: deque[int] = deque()
    all_done = asyncio.Event()
    started = sample.started = time.perf_counter()
    due = due_times(started, rate, len(requests))

    def dispatch() -> None:
        while waiting and free:
            _send_one(free.popleft(), waiting.popleft())

    def _send_one(connection: Connection, number: int) -> None:
        def answered(status: int, body: bytes) -> None:
            sample.record(number, status, body, due[number])
            free.append(connection)
            if len(sample.numbers) == len(requests):
                all_done.set()
            dispatch()

        sample.late.append(time.perf_counter() - due[number])
        connection.on_answer = answered
        connection.send(requests[number])

    for number, moment in enumerate(due):
        if (early := moment - time.perf_counter()) > 0:
            await asyncio.sleep(early)
        waiting.append(number)
        dispatch()
    async with asyncio.timeout(PATIENCE_SECONDS):
        await all_done.wait()
    sample.seconds = max(sample.answered_at) - started
    return sample


class PaidWatcher(asyncio.Protocol):
    """An order's event stream, read just closely enough to see when the order is paid."""

    def __init__(self) -> None:
        self._seen = b""
        self.is_open = asyncio.Event()
        self.paid = asyncio.Event()
        self.paid_at = 0.0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._seen += data
        if b"data: " in self._seen:
            self.is_open.set()
        if self.paid_at == 0 and b'"payment_status":"paid"' in self._seen:
            self.paid_at = time.perf_counter()
            self.paid.set()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


async def watch_order(base_url: str, order_id: str, secret: str) -> PaidWatcher:
    """Returns when the stream has told the order's present state."""
    host, port = address(base_url)
    loop = asyncio.get_running_loop()
    transport, watcher = await loop.create_connection(PaidWatcher, host, port)
    lines = [f"GET /api/v1/orders/{order_id}/stream HTTP/1.1", f"host: {host}:{port}", f"x-order-secret: {secret}"]
    transport.write("\r\n".join(lines).encode() + b"\r\n\r\n")
    async with asyncio.timeout(PATIENCE_SECONDS):
        await watcher.is_open.wait()
    return watcher
