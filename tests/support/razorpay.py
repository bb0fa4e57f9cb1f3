"""A shopper and a shop before the sandbox's Razorpay: running it, our adapter over it, and what its webhooks say."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
from pydantic import SecretStr

from services.payment_service.domain.models import CaptureMode
from services.payment_service.domain.operations import OperationKind
from services.payment_service.gateways.port import CreateSession, Delivery, GatewayEvent, MoneyCall
from services.payment_service.gateways.razorpay import Razorpay, RazorpaySettings
from shared.http import HttpCaller, build_http_client
from shared.money import Money
from shared.ports import system_ports
from tests.support import adapter_calls
from tests.support.adapter_calls import REFERENCE
from tests.support.gateway_sandbox import RunningSandbox, running_sandbox

KEY_ID = "rzp_test_0000000000000A"
KEY_SECRET = "rzp_test_key_secret_000000"
WEBHOOK_SECRET = "rzp_whsec_Test_2026"
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
    async with build_http_client(ports, read_seconds=10.0) as client:
        settings = RazorpaySettings(
            key_id=KEY_ID, key_secret=SecretStr(KEY_SECRET), api_base=f"{sandbox.url}/sandbox/razorpay"
        )
        yield Shop(sandbox, Razorpay(settings, HttpCaller(client, ports)))


def delivery_of(payload: str) -> Delivery:
    return Delivery("application/json", payload, None, datetime.now(UTC))


def a_session_request(capture: CaptureMode = CaptureMode.AUTOMATIC, **changes: Any) -> CreateSession:
    return adapter_calls.a_session_request(**{"amount": INR_500, "capture": capture, **changes})


def a_money_call(kind: OperationKind, target: str, amount: Money = INR_500, **changes: Any) -> MoneyCall:
    return adapter_calls.a_money_call(kind=kind, target=target, amount=amount, **changes)
