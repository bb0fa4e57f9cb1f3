"""A shop before the sandbox's Tamara: running it, our adapter and our signature scheme over it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from services.payment_service.domain.models import Customer
from services.payment_service.domain.operations import OperationKind
from services.payment_service.gateways.port import CreateSession, MoneyCall, Snapshot
from services.payment_service.gateways.tamara import Tamara, TamaraSettings
from shared.http import HttpCaller, build_http_client
from shared.money import Money
from shared.ports import system_ports
from tests.support import adapter_calls
from tests.support.adapter_calls import REFERENCE
from tests.support.gateway_sandbox import RunningSandbox, running_sandbox

API_TOKEN = "tamara-api-token-for-tests-0001"
NOTIFICATION_TOKEN = "tamara-notification-token-for-tests-0001"
VARIABLES = {"TAMARA_API_TOKEN": API_TOKEN, "TAMARA_NOTIFICATION_TOKEN": NOTIFICATION_TOKEN}
SAR_300 = Money(30_000, "SAR")
SARA = Customer("sara@example.com", "Sara Test", "+966 54 433 7866")


@dataclass
class Shop:
    """Our adapter at a running sandbox."""

    sandbox: RunningSandbox
    tamara: Tamara

    async def call(self, method: str, path: str, **more: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {API_TOKEN}"}
        return await self.sandbox.client.request(method, f"/sandbox/tamara{path}", headers=headers, **more)

    async def order(self, reference: str = REFERENCE) -> dict[str, Any]:
        [payment] = (await self.sandbox.books("tamara", reference=reference))["payments"]
        found: dict[str, Any] = payment
        return found

    async def approved_order(self, request: CreateSession | None = None) -> str:
        session = await self.tamara.create_session(request or a_session_request(), repeated=False)
        await self.sandbox.outcome("tamara", session.gateway_reference, "succeed")
        return session.gateway_reference

    async def authorised_order(self, request: CreateSession | None = None) -> str:
        order_id = await self.approved_order(request)
        amount = (request or a_session_request()).amount
        await self.tamara.complete(a_money_call(OperationKind.COMPLETION, order_id, amount))
        return order_id

    async def snapshot(self, order_id: str) -> Snapshot:
        return await self.tamara.retrieve((order_id,), our_reference=REFERENCE)

    @property
    def event_types(self) -> list[str]:
        return [json.loads(request.content)["event_type"] for request in self.sandbox.receiver.requests]


@asynccontextmanager
async def open_shop(database_url: str) -> AsyncIterator[Shop]:
    ports = system_ports()
    async with (
        running_sandbox(database_url, gateway_variables=VARIABLES) as sandbox,
        build_http_client(ports, read_seconds=10.0) as client,
    ):
        settings = TamaraSettings.model_validate({"api_token": API_TOKEN, "api_base": f"{sandbox.url}/sandbox/tamara"})
        yield Shop(sandbox, Tamara(settings, HttpCaller(client, ports)))


def a_session_request(**changes: Any) -> CreateSession:
    return adapter_calls.a_session_request(**{"amount": SAR_300, "customer": SARA, **changes})


def a_money_call(kind: OperationKind, target: str, amount: Money = SAR_300, **changes: Any) -> MoneyCall:
    mine = {"kind": kind, "target": target, "amount": amount, "is_final": False}
    return adapter_calls.a_money_call(**{**mine, **changes})
