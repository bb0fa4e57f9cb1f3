"""Payments, attempts, operations and disputes as tests of pure code want them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from services.payment_service.domain.models import (
    Attempt,
    AttemptStatus,
    CaptureMode,
    Customer,
    Payment,
    PaymentState,
    PaymentStatus,
    Terms,
)
from services.payment_service.domain.operations import (
    Dispute,
    DisputeStatus,
    Operation,
    OperationKind,
    OperationStatus,
    Origin,
)
from shared.money import Money
from tests.support.clock import A_MOMENT

_STATE_FIELDS = frozenset(PaymentState.__dataclass_fields__)


def a_payment(status: PaymentStatus = PaymentStatus.CREATED, **changes: Any) -> Payment:
    """Of 19.99 EUR at Stripe. ``changes`` are fields of the payment or of its state."""
    state = PaymentState(status, **{name: changes.pop(name) for name in list(changes) if name in _STATE_FIELDS})
    values: dict[str, Any] = {
        "payment_id": "pay_1",
        "order_id": "ord_1",
        "gateway": "stripe",
        "terms": Terms(Money(1999, "EUR"), CaptureMode.AUTOMATIC),
        "state": state,
        "version": 3,
        "description": "Order",
        "customer": Customer("ada@example.com", "Ada Lovelace"),
        "items": (),
        "success_url": "https://shop.example/thanks",
        "failure_url": "https://shop.example/failed",
        "cancel_url": "https://shop.example/cart",
        "request_digest": b"",
        "created_at": A_MOMENT,
        "updated_at": A_MOMENT,
        "expires_at": A_MOMENT + timedelta(hours=1),
    }
    return Payment(**(values | changes))


def an_attempt(status: AttemptStatus = AttemptStatus.OPEN, **changes: Any) -> Attempt:
    values: dict[str, Any] = {
        "attempt_id": "att_1",
        "payment_id": "pay_1",
        "reference": "REF1",
        "idempotency_key": "REF1",
        "status": status,
        "session_expires_at": A_MOMENT + timedelta(hours=1),
        "created_at": A_MOMENT,
    }
    return Attempt(**(values | changes))


def an_operation(
    kind: OperationKind = OperationKind.REFUND, status: OperationStatus = OperationStatus.SUCCEEDED, **changes: Any
) -> Operation:
    values: dict[str, Any] = {
        "operation_id": "ref_1",
        "payment_id": "pay_1",
        "kind": kind,
        "reference": "OURREFERENCE00000001",
        "amount": Money(500, "EUR"),
        "origin": Origin.API,
        "actor": "back-office",
        "created_at": A_MOMENT,
        "updated_at": A_MOMENT,
        "status": status,
    }
    return Operation(**(values | changes))


def a_dispute(status: DisputeStatus = DisputeStatus.OPEN, **changes: Any) -> Dispute:
    values: dict[str, Any] = {
        "dispute_id": "dsp_1",
        "payment_id": "pay_1",
        "gateway_reference": "dp_1",
        "amount": Money(300, "EUR"),
        "status": status,
        "reason": "fraudulent",
        "opened_at": A_MOMENT,
    }
    return Dispute(**(values | changes))
