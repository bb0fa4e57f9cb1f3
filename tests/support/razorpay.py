"""A shopper and a shop before the sandbox's Razorpay: running it, our adapter over it, and what its webhooks say."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from pydantic import SecretStr

from services.payment_service.domain.models import CaptureMode, Customer
from services.payment_service.domain.operations import OperationKind
from services.payment_service.gateways.port import CreateSession, Delivery, GatewayEvent, MoneyCall
from services.payment_service.gateways.razorpay import Razorpay, RazorpaySettings
from shared.http import HttpCaller, build_http_client
from shared.money import Money
from shared.ports import system_ports
from tests.support.gateway_sandbox import RunningSandbox, running_sandbox

KEY_ID = "rzp_test_0000000000000A"
KEY_SECRET = "rzp_test_key_secret_000000"
WEBHOOK_SECRET = "rzp_whsec_Test_2026"
REFERENCE = "PR00000000000000001A"
INR_500 = Money(50_000, "INR")


@asynccontextmanager
async def running_razorpay(database_url: str, **overrides: Any) -> AsyncIterator[RunningSandbox]:
    variables = {
        "RAZORPAY_KEY_ID": KEY_ID,
        "RAZORPAY_KEY_SECRET": KEY_SECRET,
        "RAZORPAY_WEBHOOK_SECRET": WEBHOOK_SECRET,
    }
    async with running_sandbox(database_url, gateway_variables=variables, **overrides) as running:
        yield running


@dataclass
class Shop:
    """Our adapter at a running sandbox."""

    sandbox: RunningSandbox
    razorpay: Razorpay

    async def call(self, method: str, path: str, **more: Any) -> httpx.Response:
        url = f"/sandbox/razorpay{path}"
        return await self.sandbox.client.request(method, url, auth=(KEY_ID, KEY_SECRET), **more)

    async def post_checkout(self, fields: dict[str, str]) -> httpx.Response:
        """What the storefront's page does in the shopper's browser."""
        return await self.sandbox.client.post("/sandbox/razorpay/v1/checkout/embedded", data=fields)

    async def payment(self, reference: str = REFERENCE) -> dict[str, Any]:
        [payment] = (await self.sandbox.books("razorpay", reference=reference))["payments"]
        found: dict[str, Any] = payment
        return found

    async def control(self, path: str, body: dict[str, Any]) -> httpx.Response:
        return await self.sandbox.client.post(f"/sandbox/control/razorpay/{path}", json=body)

    def told(self, event_type: str) -> list[GatewayEvent]:
        """Our translation of the webhooks of one type that have arrived."""
        return [
            self.razorpay.translate_webhook(delivery_of(request.content.decode()))
            for request in self.sandbox.receiver.requests
            if json.loads(request.content)["event"] == event_type
        ]

    @property
    def event_types(self) -> list[str]:
        return sorted(body["event"] for body in self.sandbox.receiver.bodies)


@asynccontextmanager
async def open_shop(sandbox: RunningSandbox) -> AsyncIterator[Shop]:
    ports = system_ports()
    async with build_http_client(ports, read_seconds=2.0) as client:
        settings = RazorpaySettings(
            key_id=KEY_ID, key_secret=SecretStr(KEY_SECRET), api_base=f"{sandbox.url}/sandbox/razorpay"
        )
        yield Shop(sandbox, Razorpay(settings, HttpCaller(client, ports)))


def delivery_of(payload: str) -> Delivery:
    return Delivery("application/json", payload, None, datetime.now(UTC))


def a_session_request(capture: CaptureMode = CaptureMode.AUTOMATIC, **changes: Any) -> CreateSession:
    now = datetime.now(UTC)
    values: dict[str, Any] = {
        "reference": REFERENCE,
        "idempotency_key": "att_1",
        "payment_id": "pmt_1",
        "order_id": "ord_1",
        "amount": INR_500,
        "capture": capture,
        "description": "Order ord_1",
        "customer": Customer("ada@example.com", "Ada", "+919000090000"),
        "items": (),
        "return_url": "http://shop.example/return?from=page",
        "cancel_url": "http://shop.example/return?from=cancel",
        "expires_at": now + timedelta(minutes=40),
        "attempted_at": now,
    }
    return CreateSession(**(values | changes))


def a_money_call(kind: OperationKind, target: str, amount: Money = INR_500, **changes: Any) -> MoneyCall:
    values: dict[str, Any] = {
        "kind": kind,
        "reference": "OP00000000000000001A",
        "idempotency_key": "OP00000000000000001A",
        "amount": amount,
        "target": target,
        "is_whole": True,
        "is_final": True,
        "reason": "requested_by_customer",
        "payment_id": "pmt_1",
        "order_id": "ord_1",
        "our_reference": REFERENCE,
        "capture": CaptureMode.MANUAL,
        "references": (target,),
        "first_sent_at": datetime.now(UTC),
    }
    return MoneyCall(**(values | changes))
