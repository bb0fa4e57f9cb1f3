"""Commands are obeyed for their signature alone: write access to the broker is not power to refund (XS25)."""

from __future__ import annotations

from typing import Any

import pytest

from services.payment_service.settings import PaymentSettings
from shared.contracts.commands import RefundRequested
from shared.settings import ConfigurationError

KEY, OTHER = b"k" * 32, b"o" * 32


def a_command(**changes: Any) -> RefundRequested:
    values: dict[str, Any] = {
        "sender": "order_service",
        "command_key": "late_payment:pay_1",
        "payment_id": "pay_1",
        "order_id": "ord_1",
        "reason": "late_payment",
    }
    return RefundRequested(**(values | changes))


def test_a_signed_command_is_known_by_its_senders_key() -> None:
    signed = a_command().signed(KEY)
    assert signed.is_signed_by([KEY])
    assert RefundRequested.model_validate_json(signed.model_dump_json()).is_signed_by([KEY])


def test_while_keys_are_rotated_either_is_good() -> None:
    assert a_command().signed(OTHER).is_signed_by([KEY, OTHER])


@pytest.mark.parametrize("keys", [[], [OTHER]])
def test_another_key_or_none_at_all_is_refused(keys: list[bytes]) -> None:
    assert not a_command().signed(KEY).is_signed_by(keys)


@pytest.mark.parametrize("signature", ["", "0" * 64, "é", "A" * 64])
def test_what_is_no_signature_is_refused(signature: str) -> None:
    assert not a_command(signature=signature).is_signed_by([KEY])


def test_the_case_of_the_digits_counts() -> None:
    signed = a_command().signed(KEY)
    assert not signed.model_copy(update={"signature": signed.signature.upper()}).is_signed_by([KEY])


@pytest.mark.parametrize(
    "forged",
    [
        {"payment_id": "pay_2"},
        {"order_id": "ord_2"},
        {"reason": "duplicate_payment"},
        {"command_key": "late_payment:pay_2"},
        {"sender": "reconciler"},
    ],
)
def test_every_field_is_signed(forged: dict[str, str]) -> None:
    assert not a_command().signed(KEY).model_copy(update=forged).is_signed_by([KEY])


def test_another_command_with_the_same_content_has_another_signature() -> None:
    class RefundForgotten(RefundRequested):
        TYPE = "refund.forgotten.v1"

    same = RefundForgotten(**a_command().model_dump())
    assert same.signed(KEY).signature != a_command().signed(KEY).signature


def loaded(keys: str | None) -> PaymentSettings:
    return PaymentSettings.load(
        environment="development",
        database_url="postgresql://nobody@localhost/none",
        jwt_shared_key="a-development-key-of-more-than-32-bytes",
        command_keys=keys,
    )


def test_senders_and_their_keys_come_from_one_setting() -> None:
    keys = f"order_service:{KEY.hex()},order_service:{OTHER.hex()},reconciler:{OTHER.hex()}"
    assert loaded(keys).senders == {"order_service": (KEY, OTHER), "reconciler": (OTHER,)}
    assert loaded(None).senders == {}


@pytest.mark.parametrize(
    "keys", ["order_service", "order_service:", f":{KEY.hex()}", "order_service:00ff", f"a:{KEY.hex()}zz"]
)
def test_a_key_that_is_none_is_refused_when_the_process_starts(keys: str) -> None:
    with pytest.raises(ConfigurationError, match="COMMAND_KEYS"):
        loaded(keys)
