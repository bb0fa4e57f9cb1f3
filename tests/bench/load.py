"""A load generator that is not the bottleneck: kept-alive connections, requests built before the clock starts.

Closed loop (each connection sends when it has its answer) measures the throughput at saturation. Open loop sends by a
timetable, and a latency counts from the time in the timetable: a server that stalls is charged for everything that it
kept waiting, also for what the generator could not send meanwhile ("coordinated omission").
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

CONNECTIONS = 32
PATIENCE_SECONDS = 60


@dataclass
class Sample:
    """What one round saw. Latencies are seconds; ``started`` is the time of the first request in the timetable."""

    started: float = 0
    seconds: float = 0
    latencies: list[float] = field(default_factory=list)
    answers: list[bytes] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return len(self.latencies) / self.seconds

    def record(self, status: int, body: bytes, latency: float) -> None:
        if status == 200:
            self.latencies.append(latency)
            self.answers.append(body)
        else:
            self.refused.append(status)


def percentile(values: Sequence[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def request_bytes(url: str, body: bytes, headers: dict[str, str]) -> bytes:
    parts = urlsplit(url)
    lines = [f"POST {parts.path} HTTP/1.1", f"host: {parts.netloc}", f"content-length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Connection(asyncio.Protocol):
    """One answer at a time; ``on_answer`` gets status and body."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self.on_answer: Callable[[int, bytes], None] = lambda status, body: None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def send(self, request: bytes) -> None:
        assert self._transport is not None
        self._transport.write(request)

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
            self.on_answer(int(head[9:12]), body)

    def connection_lost(self, _error: Exception | None) -> None:
        self.on_answer(0, b"")  # an answer that never came counts as refused, unless nobody waits any more

    def close(self) -> None:
        self.on_answer = lambda status, body: None
        if self._transport is not None:
            self._transport.abort()


async def _connect(url: str, count: int) -> list[Connection]:
    host, port = _address(url)
    loop = asyncio.get_running_loop()
    return [(await loop.create_connection(Connection, host, port))[1] for _ in range(count)]


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


async def saturate(url: str, requests: Iterator[bytes], *, seconds: float, connections: int = CONNECTIONS) -> Sample:
    """As fast as the answers come."""
    sample = Sample()
    open_connections = await _connect(url, connections)
    started = time.perf_counter()
    ends = started + seconds
    all_done = asyncio.Event()
    running = len(open_connections)

    def start(connection: Connection) -> None:
        nonlocal running
        sent_at = time.perf_counter()
        request = next(requests, None) if sent_at < ends else None
        if request is None:
            running -= 1
            connection.on_answer = lambda status, body: None
            if running == 0:
                all_done.set()
            return

        def answered(status: int, body: bytes) -> None:
            sample.record(status, body, time.perf_counter() - sent_at)
            start(connection)

        connection.on_answer = answered
        connection.send(request)

    for connection in open_connections:
        start(connection)
    async with asyncio.timeout(seconds + PATIENCE_SECONDS):
        await all_done.wait()
    sample.seconds = time.perf_counter() - started
    for connection in open_connections:
        connection.close()
    return sample


async def pace(url: str, requests: Sequence[bytes], *, rate: float, connections: int = CONNECTIONS) -> Sample:
    """By the timetable, whether the server keeps up or not."""
    sample = Sample()
    free = deque(await _connect(url, connections))
    everyone = list(free)
    waiting: deque[tuple[float, bytes]] = deque()
    all_done = asyncio.Event()

    def dispatch() -> None:
        while waiting and free:
            intended_at, request = waiting.popleft()
            _send_one(free.popleft(), intended_at, request)

    def _send_one(connection: Connection, intended_at: float, request: bytes) -> None:
        def answered(status: int, body: bytes) -> None:
            sample.record(status, body, time.perf_counter() - intended_at)
            free.append(connection)
            if len(sample.latencies) + len(sample.refused) == len(requests):
                all_done.set()
            dispatch()

        connection.on_answer = answered
        connection.send(request)

    started = sample.started = time.perf_counter()
    for number, request in enumerate(requests):
        due = started + number / rate
        if (early := due - time.perf_counter()) > 0:
            await asyncio.sleep(early)
        waiting.append((due, request))
        dispatch()
    async with asyncio.timeout(PATIENCE_SECONDS):
        await all_done.wait()
    sample.seconds = time.perf_counter() - started
    for connection in everyone:
        connection.close()
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
    host, port = _address(base_url)
    loop = asyncio.get_running_loop()
    transport, watcher = await loop.create_connection(PaidWatcher, host, port)
    lines = [f"GET /api/v1/orders/{order_id}/stream HTTP/1.1", f"host: {host}:{port}", f"x-order-secret: {secret}"]
    transport.write("\r\n".join(lines).encode() + b"\r\n\r\n")
    async with asyncio.timeout(PATIENCE_SECONDS):
        await watcher.is_open.wait()
    return watcher
