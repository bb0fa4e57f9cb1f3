"""The generic gateway in memory: books that tests compare with ours, and calls that go wrong when told to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import httpx

Trouble = Exception | httpx.Response | asyncio.Event


@dataclass
class FakeGateway(httpx.AsyncBaseTransport):
    """``before`` and ``after`` hold, per operation, what happens before and after the work of its next calls."""

    sessions: dict[str, dict[str, Any]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    before: dict[str, list[Trouble]] = field(default_factory=dict)
    after: dict[str, list[Trouble]] = field(default_factory=dict)
    _by_key: dict[str, str] = field(default_factory=dict)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = await request.aread()
        operation = _operation(request)
        self.calls.append(operation)
        refused = await _happen(self.before.get(operation))
        if refused is not None:
            return refused
        answer = self._answer(operation, request, body)
        return await _happen(self.after.get(operation)) or answer

    def pays(self, reference: str, *, status: str = "completed", amount: str | None = None) -> None:
        """The shopper acts at the hosted page."""
        session = self.sessions[reference]
        session["status"] = status
        session["amount"] = amount or session["amount"]

    @property
    def payable(self) -> list[str]:
        return [reference for reference, session in self.sessions.items() if session["status"] == "open"]

    def _answer(self, operation: str, request: httpx.Request, body: bytes) -> httpx.Response:
        if operation == "create":
            return says(201, self._create(request.headers["idempotency-key"], json.loads(body, parse_float=Decimal)))
        if operation == "find":
            wanted = request.url.params["reference"]
            return says(200, {"data": [each for each in self.sessions.values() if each["reference"] == wanted]})
        session = self.sessions.get(request.url.path.split("/")[3])
        if session is None:
            return says(404, {"error": {"code": "not_found"}})
        if operation == "expire":
            if session["status"] != "open":
                return says(409, {"error": {"code": "session_not_open"}})
            session["status"] = "expired"
        return says(200, session)

    def _create(self, key: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        if key not in self._by_key:
            reference = f"gp_{len(self.sessions) + 1}_{asked['reference']}"
            self._by_key[key] = reference
            self.sessions[reference] = {
                "payment_id": reference,
                "reference": asked["reference"],
                "status": "open",
                "checkout_url": f"https://gateway.test/pay/{reference}",
                "amount": str(asked["amount"]),
                "currency": asked["currency"],
                "expires_at": asked["expires_at"],
            }
        return self.sessions[self._by_key[key]]


def _operation(request: httpx.Request) -> str:
    if request.url.path.endswith("/expire"):
        return "expire"
    if request.method == "POST":
        return "create"
    return "find" if request.url.path == "/v1/sessions" else "retrieve"


async def _happen(troubles: list[Trouble] | None) -> httpx.Response | None:
    if not troubles:
        return None
    trouble = troubles.pop(0)
    if isinstance(trouble, asyncio.Event):
        await trouble.wait()
        return None
    if isinstance(trouble, Exception):
        raise trouble
    return trouble


def says(status: int, body: Any) -> httpx.Response:
    return httpx.Response(status, stream=httpx.ByteStream(json.dumps(body).encode()))
