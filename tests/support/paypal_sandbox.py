"""The PayPal adapter and PayPal's signature over a running sandbox, with real HTTP between them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

import httpx
from pydantic import SecretStr

from services.gateway_sandbox.gateways.paypal import SigningMaterial, new_signing_material
from services.payment_service.domain.operations import OperationKind
from services.payment_service.gateways.paypal import PayPal, PayPalSettings
from services.payment_service.gateways.port import CreateSession, MoneyCall
from services.webhook_ingest.signatures.port import RawDelivery, SigningSecret, Verification
from services.webhook_ingest.signatures.registry import build_registry
from services.webhook_ingest.signatures.values import GatewayValues
from shared.http import HttpCaller, build_http_client
from shared.money import Money
from shared.ports import system_ports
from tests.support.adapter_calls import a_money_call, a_session_request
from tests.support.gateway_sandbox import RunningSandbox, running_sandbox

CLIENT_ID = "test-client"
CLIENT_SECRET = "test-client-secret"
WEBHOOK_ID = "WHTEST0000000001A"


@cache
def signing_material() -> SigningMaterial:
    """Made once: RSA keys take a while."""
    return new_signing_material()


def paypal_credentials() -> dict[str, Any]:
    """What ``running_sandbox`` is told."""
    variables = {
        "PAYPAL_CLIENT_ID": CLIENT_ID,
        "PAYPAL_CLIENT_SECRET": CLIENT_SECRET,
        "PAYPAL_WEBHOOK_ID": WEBHOOK_ID,
        "SANDBOX_PAYPAL_SIGNING": signing_material().signing,
    }
    return {"gateway_variables": variables}


@dataclass
class PayPalWorld:
    """One payment's calls, in the order in which the core makes them."""

    sandbox: RunningSandbox
    paypal: PayPal
    http: HttpCaller
    number: int = 0

    @property
    def api_base(self) -> str:
        return f"{self.sandbox.url}/sandbox/paypal"

    def request(self, amount: Money | None = None, **changes: Any) -> CreateSession:
        self.number += 1
        mine = {
            "reference": f"PP{self.number:018}",
            "idempotency_key": f"att_{self.number}",
            "payment_id": f"pay_{self.number}",
            "order_id": f"ord_{self.number}",
            "amount": amount or Money(1999, "USD"),
            "return_url": f"{self.sandbox.url}/return?from=page",
            "cancel_url": f"{self.sandbox.url}/return?from=cancel",
        }
        return a_session_request(**{**mine, **changes})

    async def approved(self, request: CreateSession, outcome: str = "succeed") -> str:
        session = await self.paypal.create_session(request, repeated=False)
        answer = await self.sandbox.outcome("paypal", session.gateway_reference, outcome)
        assert answer.status_code == 200, answer.text
        return session.gateway_reference

    def call(self, kind: OperationKind, request: CreateSession, target: str, **changes: Any) -> MoneyCall:
        self.number += 1
        mine = {
            "kind": kind,
            "reference": f"OP{self.number:018}",
            "idempotency_key": f"OP{self.number:018}",
            "amount": request.amount,
            "target": target,
            "is_final": False,
            "reason": None,
            "payment_id": request.payment_id,
            "order_id": request.order_id,
            "our_reference": request.reference,
            "capture": request.capture,
            "first_sent_at": request.attempted_at,
        }
        return a_money_call(**{**mine, **changes})

    async def paid(self, request: CreateSession) -> tuple[str, str]:
        """An order that was approved and completed: its id, and its capture's or authorization's."""
        order = await self.approved(request)
        outcome = await self.paypal.complete(self.call(OperationKind.COMPLETION, request, order))
        return order, outcome.gateway_reference

    async def payment(self, order: str) -> dict[str, Any]:
        """What the sandbox's books say about it."""
        payments = (await self.sandbox.books("paypal"))["payments"]
        found: dict[str, Any] = next(each for each in payments if each["gateway_reference"] == order)
        return found

    async def verified(self, request: httpx.Request, *, way: str = "local") -> Verification:
        """A delivery as webhook_ingest judges it."""
        values = GatewayValues(
            {
                "PAYPAL_WEBHOOK_ID": WEBHOOK_ID,
                "PAYPAL_WEBHOOK_VERIFICATION": way,
                "PAYPAL_WEBHOOK_CA": signing_material().root,
                "PAYPAL_CERT_HOSTS": self.api_base,
                "PAYPAL_API_BASE": self.api_base,
                "PAYPAL_CLIENT_ID": CLIENT_ID,
                "PAYPAL_CLIENT_SECRET": CLIENT_SECRET,
            }
        )
        scheme: Any = build_registry(values, production=False, http=self.http)["paypal"].scheme
        delivery = RawDelivery("POST", "/", "", tuple(request.headers.items()), request.content)
        secrets, at = (SigningSecret(WEBHOOK_ID),), datetime.now(UTC)
        prepared = await scheme.prepare(delivery, secrets, at)
        verification: Verification = prepared.verify(delivery, secrets, at)
        return verification


@asynccontextmanager
async def paypal_world(database_url: str, **overrides: Any) -> AsyncIterator[PayPalWorld]:
    async with running_sandbox(database_url, **{**paypal_credentials(), **overrides}) as sandbox:
        ports = system_ports()
        async with build_http_client(ports) as client:
            http = HttpCaller(client, ports)
            base = f"{sandbox.url}/sandbox/paypal"
            settings = PayPalSettings(client_id=CLIENT_ID, client_secret=SecretStr(CLIENT_SECRET), api_base=base)
            yield PayPalWorld(sandbox, PayPal(settings, http), http)
