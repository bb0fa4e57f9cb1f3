"""A shopper and a shop before the sandbox's BillDesk: running it, our adapter over it, and what its webhooks say."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx

from services.payment_service.domain.models import CaptureMode
from services.payment_service.gateways.billdesk import BillDesk, BillDeskSettings
from services.payment_service.gateways.port import CreateSession, Delivery, GatewayEvent, MoneyCall
from services.webhook_ingest.signatures.billdesk import REGISTRATION
from services.webhook_ingest.signatures.port import RawDelivery, SigningSecret
from services.webhook_ingest.signatures.values import GatewayValues
from shared.http import HttpCaller, build_http_client
from shared.masking import redact_body
from shared.money import Money
from shared.ports import Ports, system_ports
from tests.support import adapter_calls
from tests.support.adapter_calls import REFERENCE, tools_over
from tests.support.gateway_sandbox import RunningSandbox, running_sandbox

MERCHANT, CLIENT, KEY_ID = "TESTMERC1", "testclient01", "testkey01"
SIGNING_KEY = "BDTestSigningKey0123456789ABCDEF"
ENCRYPTION_KEY = "BDTestEncryptKey0123456789ABCDEF"
INR_499, INR_100 = Money(49_900, "INR"), Money(10_000, "INR")

SIGNED = {"BILLDESK_MERCHANT_ID": MERCHANT, "BILLDESK_CLIENT_ID": CLIENT, "BILLDESK_SIGNING_KEY": SIGNING_KEY}
ENCRYPTED = {
    **SIGNED,
    "BILLDESK_SCHEME": "symmetric",
    "BILLDESK_ENCRYPTION_KEY": ENCRYPTION_KEY,
    "BILLDESK_KEY_ID": KEY_ID,
}


def billdesk_settings(variables: Mapping[str, str] = SIGNED, **changes: Any) -> BillDeskSettings:
    values = {name.removeprefix("BILLDESK_").lower(): value for name, value in variables.items()}
    return BillDeskSettings.model_validate(values | changes)


def billdesk_over(settings: BillDeskSettings, http: HttpCaller, ports: Ports) -> BillDesk:
    return BillDesk(settings, tools_over(http, ports, "https://pay.example/api/v1/webhooks/billdesk"))


@dataclass
class Shop:
    """Our adapter and our signature scheme at a running sandbox."""

    sandbox: RunningSandbox
    billdesk: BillDesk
    variables: Mapping[str, str]

    async def post_page(self, fields: Mapping[str, str]) -> httpx.Response:
        """What the storefront's page does in the shopper's browser."""
        return await self.sandbox.client.post("/sandbox/billdesk/web/v1_2/embeddedsdk", data=dict(fields))

    async def payment(self, reference: str = REFERENCE) -> dict[str, Any]:
        [payment] = (await self.sandbox.books("billdesk", reference=reference))["payments"]
        found: dict[str, Any] = payment
        return found

    async def paid(self) -> str:
        """Open a session and pay it; the transaction's id."""
        await self.billdesk.create_session(a_session_request(), repeated=False)
        await self.sandbox.outcome("billdesk", REFERENCE, "succeed")
        return str((await self.payment())["payment_reference"])

    def told(self) -> list[GatewayEvent]:
        """Our translation of the webhooks that have arrived, each verified, opened and cleaned as on its way to us."""
        scheme = REGISTRATION.scheme(GatewayValues(self.variables), None)  # type: ignore[arg-type]  # it fetches nothing
        events = []
        for request in self.sandbox.receiver.requests:
            headers = tuple(request.headers.items())
            delivery = RawDelivery("POST", "/", "", headers, request.content)
            secret = SigningSecret(self.variables["BILLDESK_SIGNING_KEY"])
            verification = scheme.verify(delivery, (secret,), datetime.now(UTC))
            assert verification.verified, verification.refusal
            assert verification.content is not None
            content = verification.content
            events.append(self.billdesk.translate_webhook(delivery_of(redact_body(content.content_type, content.body))))
        return events


@asynccontextmanager
async def open_shop(
    database_url: str, variables: Mapping[str, str] = SIGNED, *, final_after_hours: int = 24
) -> AsyncIterator[Shop]:
    ports = system_ports()
    async with (
        running_sandbox(database_url, gateway_variables=dict(variables)) as sandbox,
        build_http_client(ports, read_seconds=10.0) as client,
    ):
        settings = billdesk_settings(
            variables, api_base=f"{sandbox.url}/sandbox/billdesk", refund_final_after_hours=final_after_hours
        )
        yield Shop(sandbox, billdesk_over(settings, HttpCaller(client, ports), ports), variables)


def delivery_of(payload: str, at: datetime | None = None) -> Delivery:
    return Delivery("application/json", payload, None, at or datetime.now(UTC))


def a_session_request(**changes: Any) -> CreateSession:
    return adapter_calls.a_session_request(**{"amount": INR_499, **changes})


def a_refund_call(target: str, amount: Money = INR_100, **changes: Any) -> MoneyCall:
    mine = {"target": target, "amount": amount, "is_whole": False, "is_final": False, "capture": CaptureMode.AUTOMATIC}
    return adapter_calls.a_money_call(**{**mine, **changes})
