"""The actors of an end-to-end test: a shopper's browser code, the gateway's books, an operator."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

import httpx

from services.gateway_sandbox.gateways.registry import sandbox_definitions
from tests.e2e.stack import SECRETS, EventsRead, Stack
from tests.support.waiting import until

_numbers = count()

SKU = "red-hook-espresso"
PRICE_MINOR = 1850


@dataclass(frozen=True)
class PlacedOrder:
    id: str
    secret: str
    document: dict[str, Any]

    @property
    def headers(self) -> dict[str, str]:
        return {"X-Order-Secret": self.secret}

    @property
    def total_minor(self) -> int:
        total: int = self.document["total"]["amount_minor"]
        return total


class Shop:
    """Talks to the stack over HTTP only, as its users do."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.http = httpx.AsyncClient(timeout=40, trust_env=False, limits=httpx.Limits(max_connections=300))
        self.ops = {"authorization": f"Bearer {stack.operator_token}"}

    async def close(self) -> None:
        await self.http.aclose()

    # --- the shopper ---

    async def order(
        self, sku: str = SKU, quantity: int = 1, currency: str = "USD", key: str | None = None
    ) -> PlacedOrder:
        body = {
            "items": [{"sku": sku, "quantity": quantity}],
            "currency": currency,
            "customer": {"email": f"shopper+{next(_numbers)}@example.com", "name": "Zoë Müller"},
        }
        headers = {"Idempotency-Key": key} if key else {}
        answer = await self.http.post(f"{self.stack.order_url}/api/v1/orders", json=body, headers=headers)
        assert answer.status_code == 201, answer.text
        document = answer.json()
        return PlacedOrder(document["id"], document["client_secret"], document)

    async def pay_answer(
        self, order: PlacedOrder, gateway: str = "stripe", key: str | None = None, **other: Any
    ) -> httpx.Response:
        url = f"{self.stack.order_url}/#/orders/{order.id}"
        body = {
            "gateway": gateway,
            "success_url": url,
            "failure_url": url,
            "cancel_url": url,
            "capture": "automatic",
            **other,
        }
        headers = order.headers | ({"Idempotency-Key": key} if key else {})
        return await self.http.post(f"{self.stack.order_url}/api/v1/orders/{order.id}/pay", json=body, headers=headers)

    async def pay(self, order: PlacedOrder, gateway: str = "stripe", **other: Any) -> dict[str, Any]:
        answer = await self.pay_answer(order, gateway, **other)
        assert answer.status_code == 200, answer.text
        session: dict[str, Any] = answer.json()
        return session

    async def read(self, order: PlacedOrder, base_url: str | None = None) -> dict[str, Any]:
        url = f"{base_url or self.stack.order_url}/api/v1/orders/{order.id}"
        answer = await self.http.get(url, headers=order.headers)
        assert answer.status_code == 200, answer.text
        document: dict[str, Any] = answer.json()
        return document

    async def wait_for(self, order: PlacedOrder, *, within_seconds: float = 30, **expected: Any) -> dict[str, Any]:
        """Until the order's document has these values."""

        async def reached() -> dict[str, Any]:
            document = await self.read(order)
            assert {name: document[name] for name in expected} == expected
            return document

        return await until(reached, within_seconds=within_seconds, what=f"order {order.id} reaching {expected}")

    async def stock(self, sku: str = SKU) -> int:
        answer = await self.http.get(f"{self.stack.order_url}/api/v1/products/{sku}")
        available: int = answer.json()["available_stock"]
        return available

    async def restock(self, sku: str = SKU, pieces: int = 100_000) -> None:
        """Enough for every test of a run."""
        product = (await self.http.get(f"{self.stack.order_url}/api/v1/products/{sku}")).json()
        fields = {name: product[name] for name in ("name", "description", "image_url", "price", "reconcile_policy")}
        url = f"{self.stack.order_url}/api/v1/products/{sku}"
        answer = await self.http.put(url, json=fields | {"stock": pieces}, headers=self.ops)
        assert answer.status_code in (200, 201), answer.text

    # --- the gateway ---

    async def settle(self, gateway: str, gateway_reference: str, outcome: str = "succeed") -> dict[str, Any]:
        """What the shopper does at the hosted page."""
        url = f"{self.stack.sandbox_url}/sandbox/control/{gateway}/sessions/{gateway_reference}"
        answer = await self.http.post(url, json={"outcome": outcome})
        assert answer.status_code == 200, answer.text
        entry: dict[str, Any] = answer.json()
        return entry

    async def visit(self, action: Mapping[str, Any]) -> None:
        """As far as the hosted page, as the shopper's browser goes there."""
        if action["type"] == "form_post":
            answer = await self.http.post(action["url"], data=action["fields"])
        else:
            answer = await self.http.get(action["url"])
        if answer.is_redirect:
            answer = await self.http.get(answer.headers["location"])
        assert answer.status_code == 200, answer.text

    async def faults(self, gateway: str, *faults: Mapping[str, Any]) -> None:
        answer = await self.http.put(f"{self.stack.sandbox_url}/sandbox/control/{gateway}/faults", json=list(faults))
        assert answer.status_code == 200, answer.text

    async def no_faults(self) -> None:
        for gateway in sandbox_definitions():
            await self.http.delete(f"{self.stack.sandbox_url}/sandbox/control/{gateway}/faults")

    async def books(self, gateway: str, order: PlacedOrder) -> list[dict[str, Any]]:
        """What the gateway has on record about an order: by its id, or (PayPal is not told it) by its sessions."""
        sessions = {payment["gateway_reference"] for payment in (await self.read(order))["payments"]}
        answer = await self.http.get(f"{self.stack.sandbox_url}/sandbox/control/{gateway}/books")
        assert answer.status_code == 200, answer.text
        return [
            entry
            for entry in answer.json()["payments"]
            if entry.get("order_id") == order.id or entry["gateway_reference"] in sessions
        ]

    async def books_of(self, gateway: str, payment: Mapping[str, Any]) -> list[dict[str, Any]]:
        """What the gateway has on record about a payment, by its session or by our reference."""
        answer = await self.http.get(f"{self.stack.sandbox_url}/sandbox/control/{gateway}/books")
        assert answer.status_code == 200, answer.text
        known = {each[name] for each in payment["attempts"] for name in ("reference", "gateway_reference")} - {None}
        return [e for e in answer.json()["payments"] if {e["reference"], e["gateway_reference"]} & known]

    async def webhook(
        self, body: Mapping[str, Any] | bytes, *, secret: str = SECRETS["WEBHOOK_SECRET"]
    ) -> httpx.Response:
        """A delivery of the generic gateway, signed as it signs."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        signature = hmac.new(secret.encode(), raw, hashlib.sha256).hexdigest()
        headers = {"content-type": "application/json", "x-signature": signature}
        return await self.http.post(f"{self.stack.ingest_url}/api/v1/webhooks/generic", content=raw, headers=headers)

    # --- the operator ---

    async def payment(self, payment_id: str) -> dict[str, Any]:
        answer = await self.http.get(f"{self.stack.payment_url}/api/v1/payments/{payment_id}", headers=self.ops)
        assert answer.status_code == 200, answer.text
        document: dict[str, Any] = answer.json()
        return document

    async def wait_for_payment(self, payment_id: str, *, within_seconds: float = 30, **expected: Any) -> dict[str, Any]:
        async def reached() -> dict[str, Any]:
            document = await self.payment(payment_id)
            assert {name: document[name] for name in expected} == expected
            return document

        return await until(reached, within_seconds=within_seconds, what=f"payment {payment_id} reaching {expected}")

    async def timeline(self, payment_id: str) -> dict[str, Any]:
        url = f"{self.stack.payment_url}/api/v1/payments/{payment_id}/timeline"
        answer = await self.http.get(url, headers=self.ops)
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.json()
        return told

    async def money(self, payment_id: str, operation: str, **body: Any) -> dict[str, Any]:
        """A capture, void or refund by the back office: ``operation`` is the last part of its path."""
        url = f"{self.stack.payment_url}/api/v1/payments/{payment_id}/{operation}"
        headers = self.ops | {"Idempotency-Key": f"backoffice-{next(_numbers):08}"}
        answer = await self.http.post(url, json=body, headers=headers)
        assert answer.status_code in (201, 202), answer.text
        made: dict[str, Any] = answer.json()
        return made

    async def sync(self, payment_id: str) -> None:
        """Ask the gateway now."""
        url = f"{self.stack.payment_url}/api/v1/payments/{payment_id}/sync"
        answer = await self.http.post(url, headers=self.ops)
        assert answer.status_code == 200, answer.text

    async def at_gateway(self, gateway: str, path: str, **body: Any) -> dict[str, Any]:
        """What somebody does at the gateway itself: its dashboard, the shopper's bank, the passing of time."""
        answer = await self.http.post(f"{self.stack.sandbox_url}/sandbox/control/{gateway}/{path}", json=body)
        assert answer.status_code in (200, 201), answer.text
        entry: dict[str, Any] = answer.json()
        return entry

    async def events_of(
        self, subject: str, service: str = "payment-service", *, with_a: str | None = None
    ) -> list[dict[str, Any]]:
        """Every event of one aggregate, in order; ``with_a`` waits for one of that type.

        The feed is behind the state by as long as any older transaction runs (it never skips), so a test that has just
        seen a state names the event it expects of it.
        """
        found: list[dict[str, Any]] = []

        async def told() -> bool:
            found[:] = await self._events_so_far(subject, service)
            return with_a is None or with_a in {event["type"] for event in found}

        await until(told, what=f"{with_a} of {subject} in the feed of {service}")
        return found

    async def _events_so_far(self, subject: str, service: str) -> list[dict[str, Any]]:
        base = self.stack.payment_url if service == "payment-service" else self.stack.order_url
        known = self.stack.events_read.setdefault(service, EventsRead())
        while True:
            after = known.cursor
            url = f"{base}/api/v1/events/{service}?limit=500&after={after}"
            page = (await self.http.get(url, headers=self.ops)).json()
            if known.cursor != after:
                continue  # another task has read this page meanwhile
            for event in page["data"]:
                known.of_subject.setdefault(event["subject"], []).append(event)
            known.cursor = page["next_cursor"]
            if not page["data"]:
                return list(known.of_subject.get(subject, ()))
