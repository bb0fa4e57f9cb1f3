"""A shopper and a shop before the sandbox's MyFatoorah: running it, and our adapter over it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from pydantic import SecretStr

from services.payment_service.domain.models import CaptureMode, Customer
from services.payment_service.domain.operations import OperationKind
from services.payment_service.gateways.myfatoorah import MyFatoorah, MyFatoorahSettings
from services.payment_service.gateways.port import CreateSession, MoneyCall
from shared.http import HttpCaller, build_http_client
from shared.money import Money
from shared.ports import system_ports
from tests.support import adapter_calls
from tests.support.adapter_calls import REFERENCE, tools_over
from tests.support.gateway_sandbox import RunningSandbox, running_sandbox

API_TOKEN = "token-of-the-test-account"
WEBHOOK_SECRET = "bXktZmF0b29yYWgtdGVzdC1zZWNyZXQtZm9yLXZlY3RvcnM="  # the fact sheet's
KWD_12 = Money(12_345, "KWD")
SARA = Customer("sara@example.com", "سارة O'Test", "+96590000000")


@dataclass
class Shop:
    """Our adapter at a running sandbox."""

    sandbox: RunningSandbox
    adapter: MyFatoorah

    async def entry(self, reference: str = REFERENCE) -> dict[str, Any]:
        found: dict[str, Any] = (await self.sandbox.books("myfatoorah", reference=reference))["payments"][-1]
        return found

    async def paid(self, capture: CaptureMode = CaptureMode.AUTOMATIC, **changes: Any) -> str:
        """The PaymentId of the attempt that brought, or holds, the money."""
        request = a_session_request(capture=capture, **changes)
        await self.adapter.create_session(request, repeated=False)
        answer = await self.sandbox.outcome("myfatoorah", request.reference, "succeed")
        assert answer.status_code == 200, answer.text
        return str((await self.entry(request.reference))["payment_reference"])

    async def call(self, path: str, body: dict[str, Any], key: str = API_TOKEN) -> httpx.Response:
        headers = {"authorization": f"Bearer {key}"}
        return await self.sandbox.client.post(f"/sandbox/myfatoorah/v2/{path}", json=body, headers=headers)


@asynccontextmanager
async def open_shop(database_url: str, **variables: str) -> AsyncIterator[Shop]:
    own = {"MYFATOORAH_API_TOKEN": API_TOKEN, "MYFATOORAH_WEBHOOK_SECRET": WEBHOOK_SECRET, "MYFATOORAH_COUNTRY": "KWT"}
    ports = system_ports()
    async with (
        running_sandbox(database_url, gateway_variables={**own, **variables}) as sandbox,
        build_http_client(ports, read_seconds=10.0) as client,
    ):
        settings = MyFatoorahSettings(
            api_token=SecretStr(API_TOKEN), country="KWT", api_base=f"{sandbox.url}/sandbox/myfatoorah"
        )
        tools = tools_over(HttpCaller(client, ports), ports, "https://pay.example/api/v1/webhooks/myfatoorah")
        yield Shop(sandbox, MyFatoorah(settings, tools))


def a_session_request(**changes: Any) -> CreateSession:
    return adapter_calls.a_session_request(**{"amount": KWD_12, "customer": SARA, **changes})


def a_money_call(kind: OperationKind, target: str, amount: Money = KWD_12, **changes: Any) -> MoneyCall:
    return adapter_calls.a_money_call(kind=kind, target=target, amount=amount, **changes)
