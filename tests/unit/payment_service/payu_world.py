"""PayU's answers as the fact sheet writes them, for the tests of its adapter."""

from __future__ import annotations

from typing import Any

import httpx
from pydantic import SecretStr

from services.payment_service.domain.models import Customer
from services.payment_service.domain.operations import OperationKind
from services.payment_service.gateways.payu import Payu, PayuSettings
from services.payment_service.gateways.port import MoneyCall
from shared.money import Money
from tests.support.adapter_calls import a_money_call
from tests.support.clock import A_MOMENT
from tests.unit.payment_service.gateway_world import ScriptedGateway, a_request, says

KEY, SALT = "TKEY01", "TSALT0123456789abcdef0123456789"
FORM_HASH = (
    "b37af381ac11f1b6b9066ba4967c5be6d1192b580286e1abe9f4a792f53cd3cde213cee216feec664eccf92c73f43b0d8486ba4a77f9ab92"
    "0eb42315f11dface"
)
VERIFY_HASH = (
    "493060ce177414879b8e89dc3b2962c148c7befab5e1b4d3271e175ed7f19c291e49dadaa3dce9b1c93b3c3e18553f7e61c85e6969838e47"
    "1a6217fddd4321d0"
)
REFUND_HASH = (
    "58887c02ad97f8b55775c49ddf3c6b70230605d67b95ea6974cc66fdcf6b962653408699cd3ee6a742f9b9fd6e955e127bd2d90326fa9ed0"
    "0d8b5f6eaf744592"
)
PAYU_ID = "403993715500000001"
OURS = "PR00000000000000001A"
OPERATION = "OP00000000000000001A"
INR_499 = Money(49_900, "INR")
INR_100 = Money(10_000, "INR")


def payu(gateway: ScriptedGateway, **changes: Any) -> Payu:
    values: dict[str, Any] = {"merchant_key": KEY, "salt": SecretStr(SALT), "pre_authorize": "1"}
    return Payu(PayuSettings(**(values | changes)), gateway.caller(), gateway.clock)


def a_form_request(**changes: Any) -> Any:
    return a_request(
        **({"amount": INR_499, "customer": Customer("asha@example.com", "Asha", "+919000090000")} | changes)
    )


def an_entry(**changes: Any) -> dict[str, Any]:
    entry = {
        "mihpayid": PAYU_ID,
        "txnid": OURS,
        "amt": "499.00",
        "transaction_amount": "499.00",
        "additional_charges": "0.00",
        "net_amount_debit": 499,
        "status": "success",
        "unmappedstatus": "captured",
        "error_code": "E000",
        "addedon": "2025-01-01 12:00:00",
        "udf1": "pay_1",
    }
    return {name: value for name, value in (entry | changes).items() if value is not ...}


def verified(**changes: Any) -> httpx.Response:
    return says(
        {"status": 1, "msg": "1 out of 1 Transactions Fetched", "transaction_details": {OURS: an_entry(**changes)}}
    )


NOT_FOUND = says(
    {
        "status": 0,
        "msg": "0 out of 1 Transactions Fetched Successfully",
        "transaction_details": {OURS: {"mihpayid": "Not Found", "status": "Not Found"}},
    }
)
NO_ACTIONS = says({"status": 0, "msg": "0 out of 1", "transaction_details": {PAYU_ID: "No action status found"}})


def an_action(**changes: Any) -> dict[str, Any]:
    action = {
        "mihpayid": PAYU_ID,
        "request_id": "130000001",
        "amt": "100.00",
        "mode": "UPI",
        "action": "refund",
        "token": OPERATION,
        "status": "SUCCESS",
        "bank_arn": None,
    }
    return action | changes


def actions(*found: dict[str, Any]) -> httpx.Response:
    listed = {each["request_id"]: each for each in found}
    return says({"status": 1, "msg": "1 out of 1", "transaction_details": {PAYU_ID: listed}})


def a_call(kind: OperationKind = OperationKind.REFUND, amount: Money = INR_100, **changes: Any) -> MoneyCall:
    mine = {
        "kind": kind,
        "amount": amount,
        "target": PAYU_ID,
        "reason": None,
        "our_reference": OURS,
        "references": (OURS, PAYU_ID),
        "first_sent_at": A_MOMENT,
    }
    return a_money_call(**{**mine, **changes})


def refused(code: int | str | None, message: str = "no") -> httpx.Response:
    return says({"status": 0, "msg": message} | ({"error_code": code} if code is not None else {}))


QUEUED = says({"status": 1, "msg": "Request Queued", "request_id": "130000001", "mihpayid": PAYU_ID, "error_code": 102})
SILENCE = httpx.ReadTimeout("nothing came")

A_TRY_JUST_NOW = {"status": "failure", "unmappedstatus": "failed", "addedon": "2026-01-02 08:30:00"}
"""Four minutes before A_MOMENT, in India's time."""
