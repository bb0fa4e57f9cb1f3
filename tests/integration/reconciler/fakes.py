"""payment_service as the reconciler sees it over HTTP: what it knows, and what its gateways would say."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import httpx

from shared.clock import to_rfc3339
from shared.contracts.envelope import EventEnvelope
from shared.contracts.payment_events import STATUS_EVENTS, PaymentEventData
from shared.errors import Unauthenticated
from shared.ids import Ids
from shared.web.auth import TokenVerifier
from tests.support.clock import FakeClock

_SYNC = re.compile(r"/api/v1/payments/(pay_[0-9a-z]+)/sync")


@dataclass(frozen=True)
class FakePayment:
    payment_id: str
    order_id: str
    gateway: str
    status: str
    version: int
    amount_minor: int
    created_at: str
    updated_at: str
    amount_authorized: int = 0
    amount_captured: int = 0
    amount_refund_pending: int = 0
    amount_refunded: int = 0
    amount_disputed: int = 0
    amount_dispute_lost: int = 0
    outcome_unknown: bool = False
    capture_before: str | None = None

    def to_json(self) -> dict[str, Any]:
        amount = {"amount_minor": self.amount_minor, "currency": "EUR"}
        document = {name: value for name, value in vars(self).items() if name != "amount_minor"}
        return document | {"amount": amount, "is_final": False, "attempts": [], "next_action": None}


class FakePaymentService(httpx.AsyncBaseTransport):
    """Every call is counted, and calls can be held back, refused or left without an answer."""

    def __init__(self, clock: FakeClock, ids: Ids) -> None:
        self._clock = clock
        self._ids = ids
        self.verifier: TokenVerifier | None = None
        self.payments: dict[str, FakePayment] = {}
        self.gateway_says: dict[str, str | dict[str, Any]] = {}
        """The payment's status at the gateway, or whatever of the payment is different there."""
        self.gateways_down: set[str] = set()
        self.gateways_silent: set[str] = set()
        self.retry_after_seconds: int | None = None
        """What a 503 about a gateway that is down tells."""
        self.poisoned: set[str] = set()
        self.problems: dict[str, tuple[int, str]] = {}
        self.is_down = False
        self.hold: asyncio.Event | None = None
        self.synced: list[str] = []
        self.request_ids: list[str | None] = []
        self.pages_read = 0
        self.running = 0
        self.most_at_once = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        answer = await self._answer(request)
        # As from the network: httpx marks a response that was made with its content as read, and it cannot be streamed.
        return httpx.Response(answer.status_code, headers=answer.headers, stream=_Body(answer.content))

    def opens(
        self, *, status: str = "requires_action", gateway: str = "generic", amount_minor: int = 1000, **changes: Any
    ) -> str:
        """A payment that exists there; its events are the test's to deliver or lose."""
        now = to_rfc3339(self._clock.now())
        payment = FakePayment(self._ids.new("pay"), self._ids.new("ord"), gateway, status, 2, amount_minor, now, now)
        self.payments[payment.payment_id] = replace(payment, **(_totals(status, amount_minor) | changes))
        return payment.payment_id

    def becomes(self, payment_id: str, status: str, **changes: Any) -> None:
        payment = self.payments[payment_id]
        changes = {"status": status} | _totals(status, payment.amount_minor) | changes
        updated_at = to_rfc3339(self._clock.now())
        self.payments[payment_id] = replace(payment, version=payment.version + 1, updated_at=updated_at, **changes)

    def event(
        self, payment_id: str, model: type[PaymentEventData] | None = None, /, **own_fields: Any
    ) -> EventEnvelope:
        """What it would publish about the payment as it is; ``own_fields`` are those of the model."""
        payment = self.payments[payment_id]
        model = model or STATUS_EVENTS[payment.status]
        data = model.model_validate(vars(payment) | {"amount": payment.amount_minor, "currency": "EUR"} | own_fields)
        return EventEnvelope(
            id=self._ids.new("evt"),
            type=model.TYPE,
            source="/payrail/payment_service",
            subject=payment_id,
            time=self._clock.now(),
            sequence=payment.version,
            data=data.model_dump(mode="json"),
        )

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        if self.is_down:
            raise httpx.ConnectError("refused", request=request)
        refused = await self._check_token(request)
        if refused is not None:
            return refused
        match = _SYNC.fullmatch(request.url.path)
        if match is not None and request.method == "POST":
            return await self._sync(match.group(1), request)
        assert (request.method, request.url.path) == ("GET", "/api/v1/payments")
        return self._page(request.url.params)

    async def _check_token(self, request: httpx.Request) -> httpx.Response | None:
        if self.verifier is None:
            return None
        try:
            caller = await self.verifier.verify(request.headers["authorization"].removeprefix("Bearer "))
        except Unauthenticated:
            return _problem(401, "unauthenticated")
        needed = "payments:write" if request.method == "POST" else "payments:read"
        return None if caller.has_scope(needed) else _problem(403, "forbidden")

    async def _sync(self, payment_id: str, request: httpx.Request) -> httpx.Response:
        assert dict(request.url.params) == {"source": "sweep"}
        self.synced.append(payment_id)
        self.request_ids.append(request.headers.get("x-request-id"))
        self.running += 1
        self.most_at_once = max(self.most_at_once, self.running)
        try:
            if self.hold is not None:
                await self.hold.wait()
            await asyncio.sleep(0)  # noqa: TID251 - gives the other calls a turn, so that they overlap
            return self._synced(payment_id)
        finally:
            self.running -= 1

    def _synced(self, payment_id: str) -> httpx.Response:
        if payment_id in self.problems:
            return _problem(*self.problems[payment_id])
        if payment_id not in self.payments:
            return _problem(404, "not_found")
        if self.payments[payment_id].gateway in self.gateways_down:
            return _problem(503, "gateway_unavailable", retry_after_seconds=self.retry_after_seconds)
        if self.payments[payment_id].gateway in self.gateways_silent or payment_id in self.poisoned:
            return _problem(503, "gateway_outcome_unknown", retry_after_seconds=self.retry_after_seconds)
        before = self.payments[payment_id]
        says = self.gateway_says.get(payment_id, before.status)
        changes = {"status": says} if isinstance(says, str) else says
        changed = any(getattr(before, name) != value for name, value in changes.items())
        if changed:
            self.becomes(payment_id, **({"status": before.status} | changes))
        return httpx.Response(200, json=self.payments[payment_id].to_json() | {"changed": changed})

    def _page(self, params: httpx.QueryParams) -> httpx.Response:
        assert params["final"] == "false"
        self.pages_read += 1
        limit, cursor = int(params["limit"]), params.get("cursor")
        open_ = ("created", "requires_action", "processing", "authorized", "partially_captured")
        found = [payment for _, payment in sorted(self.payments.items(), reverse=True) if payment.status in open_]
        found = [payment for payment in found if cursor is None or payment.payment_id < cursor]
        next_cursor = found[limit - 1].payment_id if len(found) > limit else None
        data = [payment.to_json() for payment in found[:limit]]
        return httpx.Response(200, json={"data": data, "next_cursor": next_cursor})


class _Body(httpx.AsyncByteStream):
    def __init__(self, content: bytes) -> None:
        self._content = content

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._content


def _totals(status: str, amount_minor: int) -> dict[str, int]:
    """What a payment in this status has at least."""
    if status == "captured":
        return {"amount_authorized": amount_minor, "amount_captured": amount_minor}
    return {"amount_authorized": amount_minor} if status == "authorized" else {}


def _problem(status: int, code: str, *, retry_after_seconds: int | None = None) -> httpx.Response:
    problem = {"type": "about:blank", "title": "?", "status": status, "code": code, "detail": "as the test wants it"}
    headers = {"content-type": "application/problem+json"}
    if retry_after_seconds is not None:
        headers["retry-after"] = str(retry_after_seconds)
    return httpx.Response(status, json=problem, headers=headers)
