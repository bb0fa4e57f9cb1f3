"""A shopper and a shop before the sandbox's PayU: running it, our adapter over it, and what its webhooks say."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from html import unescape
from typing import Any

import httpx
from pydantic import SecretStr

from services.payment_service.domain.models import CaptureMode
from services.payment_service.domain.operations import OperationKind
from services.payment_service.gateways.payu import Payu, PayuSettings
from services.payment_service.gateways.port import CreateSession, Delivery, GatewayEvent, MoneyCall, Snapshot
from services.webhook_ingest.signatures.payu import PayuScheme
from services.webhook_ingest.signatures.port import RawDelivery, SigningSecret, Verification
from shared.http import HttpCaller, build_http_client
from shared.masking import redact_body
from shared.money import Money
from shared.ports import system_ports
from tests.support import adapter_calls
from tests.support.adapter_calls import REFERENCE
from tests.support.gateway_sandbox import RunningSandbox, running_sandbox

KEY, SALT = "gtKFFx", "eCwWELxiExampleSaltOfTheSandbox1"
VARIABLES = {"PAYU_MERCHANT_KEY": KEY, "PAYU_SALT": SALT}
INR_500 = Money(50_000, "INR")


@dataclass
class Shop:
    """Our adapter at a running sandbox."""

    sandbox: RunningSandbox
    payu: Payu

    async def open(self, capture: CaptureMode = CaptureMode.AUTOMATIC, **changes: Any) -> str:
        """The shopper's browser posts our form; returns the address of the hosted page."""
        session = await self.payu.create_session(a_session_request(capture, **changes), repeated=False)
        answer = await self.post(session.next_action.fields)
        assert answer.status_code == 303, answer.text
        return str(answer.headers["location"])

    async def post(self, fields: dict[str, str]) -> httpx.Response:
        return await self.sandbox.client.post("/sandbox/payu/_payment", data=fields)

    async def press(self, page: str, button: str) -> tuple[str, dict[str, str]]:
        """What the shopper does on the hosted page; returns the form with which the browser is sent back."""
        token = re.search(r'name="token" value="(\w+)"', (await self.sandbox.client.get(page)).text)
        assert token is not None
        form = {"token": token.group(1), "outcome": button}
        answer = await self.sandbox.client.post(f"{page}/outcome", data=form)
        action = re.search(r'<form[^>]* action="([^"]+)"', answer.text)
        assert action is not None, answer.text
        inputs = re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)">', answer.text)
        return unescape(action.group(1)), {unescape(name): unescape(value) for name, value in inputs}

    async def paid(self, capture: CaptureMode = CaptureMode.AUTOMATIC) -> str:
        """A session that the shopper has paid; returns PayU's id."""
        await self.open(capture)
        await self.sandbox.outcome("payu", REFERENCE, "succeed")
        return (await self.look()).references[1]

    async def look(self) -> Snapshot:
        return await self.payu.retrieve((REFERENCE,), our_reference=REFERENCE)

    async def entry(self) -> dict[str, Any]:
        [payment] = (await self.sandbox.books("payu", reference=REFERENCE))["payments"]
        return dict(payment)

    def verified(self) -> list[Verification]:
        """Each delivery that has arrived, as our scheme sees it."""
        scheme, secrets = PayuScheme(frozenset({KEY})), [SigningSecret(SALT)]
        return [
            scheme.verify(
                RawDelivery("POST", "/", "", tuple(request.headers.items()), request.content),
                secrets,
                datetime.now(UTC),
            )
            for request in self.sandbox.receiver.requests
        ]

    def told(self) -> list[GatewayEvent]:
        """Each delivery that has arrived, as our adapter reads what the scheme hands on of it."""
        return [self.payu.translate_webhook(_delivery(verification)) for verification in self.verified()]


@asynccontextmanager
async def open_shop(database_url: str) -> AsyncIterator[Shop]:
    ports = system_ports()
    async with (
        running_sandbox(database_url, gateway_variables=VARIABLES) as sandbox,
        build_http_client(ports, read_seconds=10.0) as client,
    ):
        base = f"{sandbox.url}/sandbox/payu"
        settings = PayuSettings(
            merchant_key=KEY, salt=SecretStr(SALT), api_base=base, checkout_base=base, pre_authorize="1"
        )
        yield Shop(sandbox, Payu(settings, HttpCaller(client, ports), ports.clock))


def _delivery(verification: Verification) -> Delivery:
    content = verification.content
    assert content is not None
    return Delivery(content.content_type, redact_body(content.content_type, content.body), None, datetime.now(UTC))


def a_session_request(capture: CaptureMode = CaptureMode.AUTOMATIC, **changes: Any) -> CreateSession:
    return adapter_calls.a_session_request(**{"amount": INR_500, "capture": capture, **changes})


def a_money_call(kind: OperationKind, target: str, amount: Money = INR_500, **changes: Any) -> MoneyCall:
    mine = {"kind": kind, "target": target, "amount": amount, "references": (REFERENCE, target)}
    return adapter_calls.a_money_call(**{**mine, **changes})
