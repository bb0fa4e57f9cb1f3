from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest

from tests.support.gateway_sandbox import GENERIC_KEY, RunningSandbox, running_sandbox
from tests.support.postgres import ServiceDatabase

CreateSession = Callable[..., Awaitable[dict[str, Any]]]
AUTHORIZED = {"Authorization": f"Bearer {GENERIC_KEY}"}


@pytest.fixture
async def sandbox(service_database: ServiceDatabase) -> AsyncIterator[RunningSandbox]:
    async with running_sandbox(service_database("gateway_sandbox")) as running:
        yield running


@pytest.fixture
def generic(sandbox: RunningSandbox) -> Callable[..., Awaitable[httpx.Response]]:
    """Calls the generic gateway's API: ``await generic("POST", "/v1/sessions", json=…)``."""

    async def call(method: str, path: str, *, headers: dict[str, str] | None = None, **more: Any) -> httpx.Response:
        return await sandbox.client.request(
            method, f"/sandbox/generic{path}", headers={**AUTHORIZED, **(headers or {})}, **more
        )

    return call


@pytest.fixture
def create_session(generic: Callable[..., Awaitable[httpx.Response]]) -> CreateSession:
    async def create(*, key: str | None = None, **overrides: Any) -> dict[str, Any]:
        headers = {"Idempotency-Key": key} if key else {}
        answer = await generic("POST", "/v1/sessions", json=a_session(**overrides), headers=headers)
        assert answer.status_code == 201, answer.text
        session: dict[str, Any] = answer.json()
        return session

    return create


def a_session(**overrides: Any) -> dict[str, Any]:
    return {
        "reference": "REF1",
        "order_id": "ord_1",
        "amount": 150,
        "currency": "USD",
        "return_url": "http://shop.example/return",
        "cancel_url": "http://shop.example/cancel",
        **overrides,
    }
