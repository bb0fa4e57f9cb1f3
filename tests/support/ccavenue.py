"""A shop and a shopper before the sandbox's CCAvenue: running it, our adapter over it, and what its webhooks say."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
from pydantic import SecretStr

from services.payment_service.domain.models import CaptureMode
from services.payment_service.domain.operations import OperationKind
from services.payment_service.gateways.ccavenue import CCAvenue, CCAvenueSettings
from services.payment_service.gateways.port import CreateSession, Delivery, GatewayEvent, MoneyCall, Session
from services.webhook_ingest.signatures.ccavenue import CCAvenueScheme
from services.webhook_ingest.signatures.port import RawDelivery, SigningSecret, Trust
from shared.http import HttpCaller, build_http_client
from shared.ids import TimeOrderedIds
from shared.masking import redact_body
from shared.money import Money
from shared.ports import system_ports
from tests.support import adapter_calls
from tests.support.adapter_calls import tools_over
from tests.support.gateway_sandbox import RunningSandbox, running_sandbox

MERCHANT_ID = "900001"
ACCESS_CODE = "AVTEST00TE00"
WORKING_KEY = "0123456789ABCDEF0123456789ABCDEF"
API_ACCESS_CODE = "AVTEST00AP00"
API_WORKING_KEY = "FEDCBA9876543210FEDCBA9876543210"
INR_499 = Money(49_900, "INR")
INR_100 = Money(10_000, "INR")


@dataclass
class Shop:
    """Our adapter at a running sandbox, and one attempt's reference."""

    sandbox: RunningSandbox
    ccavenue: CCAvenue
    reference: str

    async def open(self, capture: CaptureMode = CaptureMode.AUTOMATIC, **changes: Any) -> Session:
        """A session whose form the shopper's browser has posted."""
        request = a_session_request(self.reference, capture, **changes)
        session = await self.ccavenue.create_session(request, repeated=False)
        answer = await self.post(session)
        assert answer.status_code == 303, answer.text
        return session

    async def post(self, session: Session) -> httpx.Response:
        return await self.sandbox.client.post(session.next_action.url, data=session.next_action.fields)

    async def decide(self, outcome: str, **more: Any) -> httpx.Response:
        return await self.sandbox.outcome("ccavenue", self.reference, outcome, **more)

    async def payments(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.sandbox.books("ccavenue", reference=self.reference))["payments"]
        return found

    async def tracking_id(self) -> str:
        return str((await self.payments())[-1]["gateway_reference"])

    def call(self, kind: OperationKind, target: str, amount: Money = INR_499, **changes: Any) -> MoneyCall:
        return a_money_call(kind, target, self.reference, amount, **changes)

    def told(self) -> list[GatewayEvent]:
        """Our translation of the webhooks that have arrived, each verified on its way as webhook_ingest does it."""
        return [self.ccavenue.translate_webhook(opened(request)) for request in self.sandbox.receiver.requests]


def opened(request: httpx.Request) -> Delivery:
    raw = RawDelivery("POST", "/", "", tuple(request.headers.items()), request.content)
    verification = CCAvenueScheme().verify(raw, (SigningSecret(WORKING_KEY),), datetime.now(UTC))
    assert verification.verified, verification.refusal
    assert verification.trust is Trust.HINT
    assert verification.content is not None
    content = verification.content
    payload = redact_body(content.content_type, content.body)
    return Delivery(content.content_type, payload, verification.event_type, datetime.now(UTC))


@asynccontextmanager
async def open_shop(database_url: str, *, by_hand: bool = True) -> AsyncIterator[Shop]:
    variables = {
        "CCAVENUE_MERCHANT_ID": MERCHANT_ID,
        "CCAVENUE_ACCESS_CODE": ACCESS_CODE,
        "CCAVENUE_WORKING_KEY": WORKING_KEY,
        "CCAVENUE_API_ACCESS_CODE": API_ACCESS_CODE,
        "CCAVENUE_API_WORKING_KEY": API_WORKING_KEY,
        "CCAVENUE_MANUAL_CAPTURE": "true" if by_hand else "false",
    }
    ports = system_ports()
    async with (
        running_sandbox(database_url, gateway_variables=variables) as sandbox,
        build_http_client(ports, read_seconds=10.0) as client,
    ):
        base = f"{sandbox.url}/sandbox/ccavenue"
        tools = tools_over(HttpCaller(client, ports), ports, "http://shop.example/webhooks/ccavenue")
        settings = some_settings(manual_capture=by_hand, checkout_base=base, api_base=base)
        reference = TimeOrderedIds(ports.clock, ports.randomness).new_reference()
        yield Shop(sandbox, CCAvenue(settings, tools), reference)


def some_settings(**changes: Any) -> CCAvenueSettings:
    values: dict[str, Any] = {
        "merchant_id": MERCHANT_ID,
        "access_code": ACCESS_CODE,
        "working_key": SecretStr(WORKING_KEY),
        "api_access_code": API_ACCESS_CODE,
        "api_working_key": SecretStr(API_WORKING_KEY),
    }
    return CCAvenueSettings(**(values | changes))


def a_session_request(reference: str, capture: CaptureMode, **changes: Any) -> CreateSession:
    return adapter_calls.a_session_request(**{"amount": INR_499, "reference": reference, "capture": capture, **changes})


def a_money_call(kind: OperationKind, target: str, our_reference: str, amount: Money, **changes: Any) -> MoneyCall:
    mine = {"kind": kind, "target": target, "our_reference": our_reference, "amount": amount}
    return adapter_calls.a_money_call(**{**mine, **changes})
