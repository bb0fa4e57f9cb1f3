"""Money calls as the core makes them, for the adapters' tests."""

from __future__ import annotations

from typing import Any

from services.payment_service.domain.models import Observation
from services.payment_service.domain.operations import OperationKind
from services.payment_service.gateways.port import MoneyCall
from shared.money import Money
from tests.support.adapter_calls import a_money_call
from tests.support.clock import A_MOMENT

REFERENCE = "PO00000000000000001A"
OTHER_REFERENCE = "PO00000000000000002B"


def a_call(kind: OperationKind, **changes: Any) -> MoneyCall:
    mine = {
        "kind": kind,
        "reference": REFERENCE,
        "idempotency_key": REFERENCE,
        "amount": Money(1999, "USD"),
        "target": "pi_1",
        "is_final": False,
        "reason": None,
        "references": ("cs_test_1", "pi_1"),
        "first_sent_at": A_MOMENT,
    }
    return a_money_call(**{**mine, **changes})


def returned(observations: tuple[Observation, ...]) -> set[tuple[str, str, Money | None, str | None, str | None]]:
    """What is told of refunds and disputes: with what they take from, and whose operation it was."""
    return {
        (str(each.kind), each.object_reference, each.amount, each.about, each.operation)
        for each in observations
        if each.kind.startswith(("refund_", "dispute_"))
    }
