"""What the core hands to an adapter, for the tests of every gateway: a session to open, a money call, its tools.

Each takes the changes that make it the gateway's own; a test that is about one of these values names it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from services.payment_service.domain.models import CaptureMode, Customer
from services.payment_service.domain.operations import OperationKind
from services.payment_service.gateways.definition import Tools
from services.payment_service.gateways.port import CreateSession, MoneyCall
from shared.http import HttpCaller
from shared.money import Money
from shared.ports import Ports

REFERENCE = "PR00000000000000001A"
OPERATION = "OP00000000000000001A"
RETURN_URL = "https://pay.example/api/v1/payments/pay_1/return?from=page"
CANCEL_URL = "https://pay.example/api/v1/payments/pay_1/return?from=cancel"
OPEN_FOR = timedelta(minutes=40)


def a_session_request(**changes: Any) -> CreateSession:
    """Without ``attempted_at`` it is asked for now; without ``expires_at`` the page is open for OPEN_FOR from then."""
    attempted_at = changes.get("attempted_at") or datetime.now(UTC)
    values: dict[str, Any] = {
        "reference": REFERENCE,
        "idempotency_key": "att_1",
        "payment_id": "pay_1",
        "order_id": "ord_1",
        "amount": Money(50_000, "INR"),
        "capture": CaptureMode.AUTOMATIC,
        "description": "Order ord_1",
        "customer": Customer("ada@example.com", "Ada", "+919000090000"),
        "items": (),
        "return_url": RETURN_URL,
        "cancel_url": CANCEL_URL,
        "expires_at": attempted_at + OPEN_FOR,
        "attempted_at": attempted_at,
    }
    return CreateSession(**(values | changes))


def a_money_call(**changes: Any) -> MoneyCall:
    """All that ``target`` has; without ``first_sent_at`` it is sent now for the first time."""
    values: dict[str, Any] = {
        "kind": OperationKind.REFUND,
        "reference": OPERATION,
        "idempotency_key": OPERATION,
        "amount": Money(50_000, "INR"),
        "is_whole": True,
        "is_final": True,
        "reason": "damaged",
        "payment_id": "pay_1",
        "order_id": "ord_1",
        "our_reference": REFERENCE,
        "capture": CaptureMode.MANUAL,
        "references": (changes["target"],),
        "first_sent_at": changes.get("first_sent_at") or datetime.now(UTC),
    }
    return MoneyCall(**(values | changes))


def tools_over(http: HttpCaller, ports: Ports, webhook_url: str = "", *, is_production: bool = False) -> Tools:
    return Tools(http, ports, webhook_url, is_production)
