"""A gateway sandbox that runs: over real HTTP on a loopback port, over a real database, with its worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import httpx
import uvicorn

from services.gateway_sandbox.bootstrap import Container, build
from services.gateway_sandbox.gateways.definition import SandboxDefinition
from services.gateway_sandbox.gateways.registry import sandbox_definitions
from services.gateway_sandbox.main import create_application
from services.gateway_sandbox.settings import SandboxSettings
from services.gateway_sandbox.worker import run_worker
from shared.ports import Ports, system_ports
from tests.support.ports import free_port
from tests.support.waiting import until

STRIPE_SECRET = "whsec_test_0123456789abcdefABCDEF"
GENERIC_SECRET = "generic-test-secret-0123456789abcdef"
GENERIC_KEY = "gk_test_0123456789abcdef"


def gateway_secrets() -> dict[str, str]:
    """What every gateway of the sandbox needs on both sides."""
    made: dict[str, str] = {}
    for definition in sandbox_definitions().values():
        made.update(_secrets_of(definition))
    return made


@cache
def _secrets_of(definition: SandboxDefinition) -> Mapping[str, str]:
    """Made once, since keys take a while; a gateway that comes later (a plug-in) gets its own then."""
    return definition.secrets(system_ports().randomness)


@dataclass
class Receiver:
    """Where webhooks arrive: records each one, and answers what a test tells it to."""

    answers: list[int] = field(default_factory=list)
    requests: list[httpx.Request] = field(default_factory=list)

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        self.requests.append(request)
        return httpx.Response(self.answers.pop(0) if self.answers else 200)

    @property
    def bodies(self) -> list[Any]:
        return [httpx.Response(200, content=request.content).json() for request in self.requests]

    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self)


@dataclass
class RunningSandbox:
    url: str
    container: Container
    receiver: Receiver
    client: httpx.AsyncClient

    async def books(self, gateway: str, **query: str) -> dict[str, Any]:
        answer = await self.client.get(f"/sandbox/control/{gateway}/books", params=query)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def faults(self, gateway: str, *faults: dict[str, Any]) -> list[dict[str, Any]]:
        answer = await self.client.put(f"/sandbox/control/{gateway}/faults", json=list(faults))
        assert answer.status_code == 200, answer.text
        stored: list[dict[str, Any]] = answer.json()
        return stored

    async def outcome(self, gateway: str, reference: str, outcome: str, **more: Any) -> httpx.Response:
        body = {"outcome": outcome, **more}
        return await self.client.post(f"/sandbox/control/{gateway}/sessions/{reference}", json=body)

    async def control(self, gateway: str, path: str, **body: Any) -> httpx.Response:
        """What happens without a call of ours: ``await sandbox.control("stripe", "refunds/re_1", status="failed")``."""
        return await self.client.post(f"/sandbox/control/{gateway}/{path}", json=body)


def sandbox_settings(
    database_url: str, *, gateway_variables: Mapping[str, str] | None = None, **overrides: Any
) -> SandboxSettings:
    """``gateway_variables`` come on top of Stripe's and the generic gateway's."""
    values: dict[str, Any] = {
        "environment": "development",
        "database_url": database_url,
        "gateway_variables": {
            "STRIPE_WEBHOOK_SECRET": STRIPE_SECRET,
            "WEBHOOK_SECRET": GENERIC_SECRET,
            "GENERIC_API_KEY": GENERIC_KEY,
            **(gateway_variables or {}),
        },
        "sandbox_webhook_wait_multiplier": 0.01,
        "sandbox_poll_seconds": 0.05,
    }
    return SandboxSettings.load(**{**values, **overrides})


@asynccontextmanager
async def running_sandbox(
    database_url: str,
    *,
    receiver: Receiver | None = None,
    ports: Ports | None = None,
    with_worker: bool = True,
    port: int | None = None,
    **overrides: Any,
) -> AsyncIterator[RunningSandbox]:
    """``database_url``: migrated for gateway_sandbox. Webhooks go to ``receiver``, without a socket."""
    receiver = receiver or Receiver()
    real = ports or system_ports()
    ports = Ports(real.clock, real.ids, real.randomness, receiver.transport())
    port = port or free_port()
    url = f"http://127.0.0.1:{port}"
    settings = sandbox_settings(database_url, public_base_url=url, **overrides)
    async with AsyncExitStack() as stack:
        container = await stack.enter_async_context(build(settings, ports=ports))
        await stack.enter_async_context(_serving(create_application(container), port))
        if with_worker:
            await stack.enter_async_context(_running(run_worker(container)))
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=10, trust_env=False))
        yield RunningSandbox(url, container, receiver, client)


@asynccontextmanager
async def _serving(application: Any, port: int) -> AsyncIterator[None]:
    config = uvicorn.Config(application, host="127.0.0.1", port=port, log_level="critical", lifespan="off")
    server = uvicorn.Server(config)
    task = asyncio.create_task(server._serve())  # serve() would take over the test process's signals
    await until(lambda: server.started or task.done(), what="the sandbox serving")
    try:
        yield
    finally:
        server.should_exit = server.force_exit = True
        await task


@asynccontextmanager
async def _running(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
