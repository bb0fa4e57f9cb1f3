"""A scripted Stripe: its objects, its lists, and the adapter over it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import httpx
from pydantic import SecretStr

from services.payment_service.gateways.stripe import Stripe, StripeSettings
from shared.money import Money
from tests.unit.payment_service.gateway_world import EXPIRES_AT, Answer, ScriptedGateway, says

USD_1999 = Money(1999, "USD")


@dataclass
class ScriptedStripe(ScriptedGateway):
    """Lists of refunds and disputes are answered by themselves; ``lists`` keeps who asked for them."""

    refunds: list[Any] = field(default_factory=list)
    disputes: list[Any] = field(default_factory=list)
    lists: list[httpx.Request] = field(default_factory=list)
    page_size: int = 100

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        found = {"/v1/refunds": self.refunds, "/v1/disputes": self.disputes}.get(request.url.path)
        if request.method != "GET" or found is None:
            return await super().__call__(request)
        self.lists.append(request)
        names = [entry.get("id") if isinstance(entry, dict) else None for entry in found]
        after = request.url.params.get("starting_after")
        start = names.index(after) + 1 if after in names else 0
        page = found[start : start + self.page_size]
        return a_list(*page, has_more=start + self.page_size < len(found))


def adapter_over(*answers: Answer, key: str = "sk_test_1", **lists: Any) -> tuple[Stripe, ScriptedStripe]:
    gateway = ScriptedStripe(list(answers), **lists)
    return Stripe(StripeSettings(api_key=SecretStr(key), api_base="https://stripe.test/"), gateway.caller()), gateway


def an_intent(status: str = "succeeded", **changes: Any) -> dict[str, Any]:
    intent = {
        "id": "pi_1",
        "object": "payment_intent",
        "status": status,
        "amount": 1999,
        "amount_received": 1999 if status == "succeeded" else 0,
        "amount_capturable": 1999 if status == "requires_capture" else 0,
        "currency": "usd",
        "livemode": False,
        "metadata": {"order_ref": "PR00000000000000001A", "payment_id": "pay_1", "capture": "automatic"},
    }
    return intent | changes


def a_session(status: str = "open", **changes: Any) -> dict[str, Any]:
    session = {
        "id": "cs_test_1",
        "object": "checkout.session",
        "status": status,
        "url": "https://stripe.test/c/pay/cs_test_1" if status == "open" else None,
        "payment_status": "unpaid",
        "payment_intent": None,
        "amount_total": 1999,
        "currency": "usd",
        "expires_at": int(EXPIRES_AT.timestamp()),
        "client_reference_id": "PR00000000000000001A",
        "livemode": False,
        "metadata": {"order_ref": "PR00000000000000001A", "payment_id": "pay_1", "capture": "automatic"},
    }
    return session | changes


def a_list(*sessions: dict[str, Any], has_more: bool = False) -> httpx.Response:
    return says({"object": "list", "data": list(sessions), "has_more": has_more})


def an_error(status: int, kind: str = "invalid_request_error", **more: Any) -> httpx.Response:
    return says({"error": {"type": kind, "message": "no", **more}}, status)


def an_event(event_type: str, subject: dict[str, Any], **changes: Any) -> dict[str, Any]:
    event = {
        "id": "evt_1",
        "object": "event",
        "type": event_type,
        "created": 1767225600,
        "livemode": False,
        "data": {"object": subject},
    }
    return event | changes
