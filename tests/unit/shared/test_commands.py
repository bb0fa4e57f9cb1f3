"""Commands are obeyed for their signature, and a signature is for one command only."""

from __future__ import annotations

from typing import Any

import pytest

from shared.contracts.commands import RefundRequested
from shared.contracts.envelope import EventEnvelope
from tests.support.clock import A_MOMENT

KEY, OTHER = bytes(range(32)), bytes(32)


def a_command(**changes: Any) -> RefundRequested:
    values: dict[str, Any] = {
        "sender": "order_service",
        "command_key": "pay_1:late_payment",
        "payment_id": "pay_1",
        "order_id": "ord_1",
        "reason": "late_payment",
    }
    return RefundRequested(**(values | changes))


def test_what_its_sender_signed_is_believed_with_any_of_its_keys() -> None:
    signed = a_command().signed(KEY)
    assert signed.is_signed_by([KEY])
    assert signed.is_signed_by([OTHER, KEY])
    assert not signed.is_signed_by([OTHER])
    assert not signed.is_signed_by([])


def test_what_nobody_signed_is_not_believed() -> None:
    assert not a_command().is_signed_by([KEY])
    assert not a_command(signature="é").is_signed_by([KEY])


@pytest.mark.parametrize(
    "change",
    [
        {"sender": "reconciler"},
        {"command_key": "pay_1:duplicate_payment"},
        {"payment_id": "pay_2"},
        {"order_id": "ord_2"},
        {"reason": "duplicate_payment"},
    ],
    ids=str,
)
def test_a_signature_is_for_one_command_only(change: dict[str, str]) -> None:
    assert not a_command().signed(KEY).model_copy(update=change).is_signed_by([KEY])


def test_the_type_is_signed_too() -> None:
    class Another(RefundRequested):
        TYPE = "another.requested.v1"

    signed = a_command().signed(KEY)
    assert not Another.model_validate(signed.model_dump()).is_signed_by([KEY])


def test_a_signature_survives_the_way_over_the_broker() -> None:
    data = a_command().signed(KEY).model_dump(mode="json")
    envelope = EventEnvelope(
        id="evt_1", type=RefundRequested.TYPE, source="s", subject="ord_1", time=A_MOMENT, sequence=1, data=data
    )
    received = RefundRequested.model_validate(EventEnvelope.from_json(envelope.to_json()).data)
    assert received.is_signed_by([KEY])
