"""A shop before the sandbox's Tabby: running it, our adapter over it, and what its webhooks say."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
from pydantic import SecretStr

from services.payment_service.domain.models import CaptureMode, Customer, Item
from services.payment_service.domain.operations import OperationKind
from services.payment_service.gateways.port import CreateSession, Delivery, GatewayEvent, MoneyCall, Session
from services.payment_service.gateways.tabby import Tabby, TabbySettings
from services.webhook_ingest.signatures.port import RawDelivery, SigningSecret, Verification
from services.webhook_ingest.signatures.tabby import TabbyScheme
from shared.http import HttpCaller, build_http_client
from shared.masking import redact_body
from shared.money import Money
from shared.ports import system_ports
from tests.support import adapter_calls
from tests.support.gateway_sandbox import RunningSandbox, running_sandbox

SECRET_KEY = "sk_test_00000000-0000-0000-0000-00000000000a"
WEBHOOK_HEADER = "X-Shop-Tabby"
WEBHOOK_SECRET = "tabby_wh_3b9f0c7d2e5a48168f4d1c6b7a90e235"
AED_340, AED_140, AED_200 = Money(34_000, "AED"), Money(14_000, "AED"), Money(20_000, "AED")
KWD_12 = Money(12_345, "KWD")
SARA = Customer("otp.success@tabby.ai", "Sara Test", "+971 50 000 0001")

VARIABLES = {
    "TABBY_SECRET_KEY": SECRET_KEY,
    "TABBY_MERCHANT_CODE": "ourstore",
    "TABBY_WEBHOOK_HEADER": WEBHOOK_HEADER,
    "TABBY_WEBHOOK_SECRET": WEBHOOK_SECRET,
}


def tabby_settings(api_base: str, **changes: Any) -> TabbySettings:
    values: dict[str, Any] = {
        "secret_key": SecretStr(SECRET_KEY),
        "merchant_code": "ourstore",
        "api_base": api_base,
        "disputes": True,
    }
    return TabbySettings(**(values | changes))


@dataclass
class Shop:
    """Our adapter at a running sandbox."""

    sandbox: RunningSandbox
    tabby: Tabby

    async def call(self, method: str, path: str, **more: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {SECRET_KEY}"}
        return await self.sandbox.client.request(method, f"/sandbox/tabby{path}", headers=headers, **more)

    async def held(self, **changes: Any) -> Session:
        """A session that the shopper has paid: the money is held."""
        session = await self.tabby.create_session(a_session_request(**changes), repeated=False)
        answer = await self.sandbox.outcome("tabby", session.gateway_reference, "succeed")
        assert answer.status_code == 200, answer.text
        return session

    async def press(self, session: Session, button: str) -> str:
        """What the shopper does on the hosted page; returns where the browser is sent."""
        page = await self.sandbox.client.get(session.next_action.url)
        token = re.search(r'name="token" value="(\w+)"', page.text)
        assert token is not None, page.text
        form = {"token": token.group(1), "outcome": button}
        answer = await self.sandbox.client.post(f"{session.next_action.url}/outcome", data=form)
        return answer.headers["location"]

    def verified(self) -> list[Verification]:
        """Each delivery that has arrived, as our scheme sees it."""
        return [
            TabbyScheme(WEBHOOK_HEADER).verify(
                RawDelivery("POST", "/", "", tuple(request.headers.items()), request.content),
                [SigningSecret(WEBHOOK_SECRET)],
                datetime.now(UTC),
            )
            for request in self.sandbox.receiver.requests
        ]

    def told(self) -> list[GatewayEvent]:
        """Each delivery that has arrived, as our adapter reads it once personal data is out of it."""
        return [
            self.tabby.translate_webhook(delivery_of(redact_body("application/json", request.content)))
            for request in self.sandbox.receiver.requests
        ]


@asynccontextmanager
async def open_shop(database_url: str) -> AsyncIterator[Shop]:
    ports = system_ports()
    async with (
        running_sandbox(database_url, gateway_variables=VARIABLES) as sandbox,
        build_http_client(ports, read_seconds=10.0) as client,
    ):
        yield Shop(sandbox, Tabby(tabby_settings(f"{sandbox.url}/sandbox/tabby"), HttpCaller(client, ports)))


def delivery_of(payload: str) -> Delivery:
    return Delivery("application/json", payload, None, datetime.now(UTC))


def a_session_request(capture: CaptureMode = CaptureMode.MANUAL, **changes: Any) -> CreateSession:
    mine = {"amount": AED_340, "capture": capture, "customer": SARA, "items": (Item("Shoes", 2, 17_000),)}
    return adapter_calls.a_session_request(**{**mine, **changes})


def a_money_call(kind: OperationKind, target: str, amount: Money = AED_340, **changes: Any) -> MoneyCall:
    return adapter_calls.a_money_call(kind=kind, target=target, amount=amount, **changes)
