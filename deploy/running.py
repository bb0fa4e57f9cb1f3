"""One process of one service, for ``payrail serve`` and ``payrail work``."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Coroutine, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import structlog
import uvicorn
from prometheus_client import start_http_server

from deploy import garbage
from deploy.catalogue import ServiceEntry
from deploy.supervisor import Place, end_with_the_parent
from shared.logging import configure_logging
from shared.messaging.bus import EventBus
from shared.messaging.in_process import InProcessBus
from shared.messaging.rabbitmq import RabbitMQBus
from shared.ports import Ports, system_ports
from shared.settings import ConfigurationError, ServiceSettings, settings_for
from shared.web.deadline import MAX_HEADER_BYTES, receiving_protocol
from shared.web.overload import MAX_CONNECTIONS

log = structlog.get_logger()

GRACEFUL_SHUTDOWN_SECONDS = 10
"""How long running requests may take to end after SIGTERM; below an orchestrator's usual 30 s (field note M27)."""

REQUESTS_AT_ONCE = 2_000
"""In progress in one process; more than may wait for the commit of webhooks, so that there is room for others."""


def run_event_loop(main: Coroutine[Any, Any, None]) -> None:
    """Run a process's main coroutine to its end, on uvloop where there is one (everywhere but on Windows).

    uvicorn picks its loop only when it is the one that starts it, and workers have no uvicorn.
    """
    try:
        import uvloop
    except ImportError:
        factory = asyncio.new_event_loop
    else:
        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main)


async def serve_service(entry: ServiceEntry, *, host: str, port: int) -> None:
    """Serve HTTP until SIGTERM or SIGINT: on the address, or on the socket that a supervisor has handed down."""
    place = Place.of_this_process()
    allow_descriptors()
    async with _built(entry) as container:
        config = uvicorn_config(entry.create_application(container), host=host, port=port)
        server = StreamStoppingServer(config, [container])
        background = asyncio.create_task(
            _watch(entry.serve_background(container), server), name=f"{entry.name}-background"
        )
        garbage.settle()
        if place is not None:
            end_with_the_parent(place, lambda: setattr(server, "should_exit", True))
        try:
            await server.serve(None if place is None else [socket.socket(fileno=place.listening_fd)])
        finally:
            await cancel(background)


class StreamStoppingServer(uvicorn.Server):
    """Ends open event streams before it waits for running requests: they would hold it up to the last second."""

    def __init__(self, config: uvicorn.Config, containers: Iterable[Any]) -> None:
        super().__init__(config)
        self._containers = list(containers)

    async def shutdown(self, sockets: list[Any] | None = None) -> None:
        for container in self._containers:
            stop = getattr(container, "stop_streams", None)
            if stop is not None:
                stop()
        await super().shutdown(sockets)


async def work_service(entry: ServiceEntry) -> None:
    """Run the worker until SIGTERM or SIGINT; a task of it that dies ends the process with the reason."""
    async with _built(entry) as container:
        worker = asyncio.create_task(_as_coroutine(entry.run_worker(container)), name=f"{entry.name}-worker")
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, worker.cancel)
        _serve_metrics(container.settings)
        garbage.settle()
        log.info("worker_started", service=entry.package)
        with contextlib.suppress(asyncio.CancelledError):
            await worker
        log.info("worker_stopped", service=entry.package)


def _serve_metrics(settings: ServiceSettings) -> None:
    """A worker answers no requests but one: what it measures (the ledger, the outbox, dead messages) is read here."""
    if settings.worker_metrics_port is None:
        return
    try:
        start_http_server(settings.worker_metrics_port, addr=settings.host)
    except OSError as error:
        raise ConfigurationError(
            f"WORKER_METRICS_PORT {settings.worker_metrics_port} cannot be opened: {error.strerror}"
        ) from None


def allow_descriptors() -> None:
    """As many as connections and the rest need, or as the machine lets us have: the usual limit is low."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS + 500
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


def uvicorn_config(app: Any, *, host: str, port: int) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http=receiving_protocol(),
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        proxy_headers=False,  # the client's address is taken from trusted hops only, by us (SEC-5)
        timeout_keep_alive=30,
        timeout_graceful_shutdown=GRACEFUL_SHUTDOWN_SECONDS,
        limit_concurrency=REQUESTS_AT_ONCE,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        ws="websockets-sansio",
    )


@asynccontextmanager
async def _built(entry: ServiceEntry) -> AsyncIterator[Any]:
    settings = entry.settings.load(**settings_for(entry.package))
    configure_logging(level=settings.log_level, log_format=settings.log_format, service=entry.package)
    ports = system_ports()
    async with AsyncExitStack() as stack:
        bus = make_bus(entry, settings, ports)
        stack.push_async_callback(bus.close)
        yield await stack.enter_async_context(entry.build(settings, ports=ports, bus=bus))


def make_bus(entry: ServiceEntry, settings: ServiceSettings, ports: Ports) -> EventBus:
    """RabbitMQ; a service that lives alone in its process has nobody to talk to without it."""
    if not entry.needs_bus:
        return InProcessBus(ports.clock)
    if settings.rabbitmq_url is None:
        raise ConfigurationError(
            "set RABBITMQ_URL, e.g. amqp://user:password@host/ (only `payrail dev` runs without it)"
        )
    url = settings.rabbitmq_url.get_secret_value()
    return RabbitMQBus(url, name=entry.name, ports=ports, batches=settings.event_batches)


async def cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def _watch(background: Awaitable[None], server: uvicorn.Server) -> None:
    """A background task that dies takes the process with it (failure L14)."""
    try:
        await background
    except asyncio.CancelledError:
        raise
    except BaseException:
        log.exception("background_task_died")
        server.should_exit = True
        raise


async def _as_coroutine(awaitable: Awaitable[None]) -> None:
    await awaitable
