from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from tests.integration.gateway_sandbox.conftest import CreateSession, a_session
from tests.support.gateway_sandbox import GENERIC_SECRET, RunningSandbox
from tests.support.waiting import until

Call = Callable[..., Awaitable[httpx.Response]]


@pytest.mark.parametrize(
    ("currency", "sent", "shown", "amount_minor"),
    [
        ("USD", "150.00", "150.00", 15000),
        ("USD", "150", "150.00", 15000),
        ("KWD", "1.005", "1.005", 1005),
        ("JPY", "500", "500", 500),
    ],
)
async def test_amounts_are_decimal_numbers_with_the_currencys_digits(
    generic: Call, sandbox: RunningSandbox, currency: str, sent: str, shown: str, amount_minor: int
) -> None:
    body = f'{{"reference":"R","amount":{sent},"currency":"{currency}","return_url":"http://shop/r","cancel_url":"http://shop/c"}}'
    answer = await generic("POST", "/v1/sessions", content=body)
    assert answer.status_code == 201
    assert f'"amount":{shown},' in answer.text
    [payment] = (await sandbox.books("generic"))["payments"]
    assert (payment["amount_minor"], payment["currency"]) == (amount_minor, currency)


@pytest.mark.parametrize(
    "wrong",
    [
        {"amount": "150.00"},
        {"amount": True},
        {"amount": 0},
        {"amount": -1},
        {"amount": 10**15},
        {"amount": 1.001},
        {"currency": "usd"},
        {"currency": None},
        {"reference": ""},
        {"return_url": "javascript:alert(1)"},
        {"cancel_url": None},
        {"capture": "later"},
        {"expires_at": "2020-01-01T00:00:00Z"},
        {"metadata": {"a": 1}},
        {"surprise": 1},
    ],
)
async def test_wrong_requests_are_refused_and_leave_nothing(
    generic: Call, sandbox: RunningSandbox, wrong: dict[str, Any]
) -> None:
    answer = await generic("POST", "/v1/sessions", json=a_session(**wrong))
    assert answer.status_code == 400
    assert set(answer.json()["error"]) == {"code", "message"}
    assert (await sandbox.books("generic"))["payments"] == []


async def test_a_wrong_key_is_401(generic: Call) -> None:
    answer = await generic("GET", "/v1/sessions", headers={"Authorization": "Bearer gk_other"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized")


async def test_a_session_is_found_by_its_id_and_by_our_reference(generic: Call, create_session: CreateSession) -> None:
    session = await create_session()
    assert (session["status"], session["reference"], session["order_id"]) == ("open", "REF1", "ord_1")
    assert (await generic("GET", f"/v1/sessions/{session['payment_id']}")).json() == session
    listed = (await generic("GET", "/v1/sessions", params={"reference": "REF1"})).json()
    assert listed == {"data": [session]}
    assert (await generic("GET", "/v1/sessions", params={"reference": "OTHER"})).json() == {"data": []}
    assert (await generic("GET", "/v1/sessions/gp_none")).status_code == 404


async def test_an_idempotency_key_makes_one_session(
    generic: Call, sandbox: RunningSandbox, create_session: CreateSession
) -> None:
    first = await create_session(key="key-1")
    assert await create_session(key="key-1") == first
    other = await generic("POST", "/v1/sessions", json=a_session(amount=2), headers={"Idempotency-Key": "key-1"})
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_key_reused")
    assert len((await sandbox.books("generic"))["payments"]) == 1


@pytest.mark.parametrize(
    ("outcome", "status", "amount"),
    [
        ("succeed", "completed", 150.0),
        ("fail", "failed", 150.0),
        ("cancel", "canceled", 150.0),
        ("expire", "expired", 150.0),
    ],
)
async def test_every_outcome_is_announced_in_the_contracts_shape(
    sandbox: RunningSandbox, create_session: CreateSession, outcome: str, status: str, amount: float
) -> None:
    session = await create_session(metadata={"a": "b"})
    answer = await sandbox.outcome("generic", session["payment_id"], outcome)
    assert answer.json()["status"] == status
    await until(lambda: sandbox.receiver.requests, what="a webhook")
    [request] = sandbox.receiver.requests
    expected = hmac.new(GENERIC_SECRET.encode(), request.content, hashlib.sha256).hexdigest()
    assert request.headers["x-signature"] == expected
    assert b'"amount":150.00,' in request.content
    [body] = sandbox.receiver.bodies
    assert body.pop("event_id").startswith("evt_")
    assert body.pop("created_at").endswith("Z")
    assert body == {
        "payment_id": session["payment_id"],
        "transaction_id": "REF1",
        "order_id": "ord_1",
        "status": status,
        "amount": amount,
        "currency": "USD",
        "metadata": {"a": "b"},
    }


async def test_a_manual_payment_is_captured_and_refunded(
    generic: Call, sandbox: RunningSandbox, create_session: CreateSession
) -> None:
    payment_id = (await create_session(capture="manual"))["payment_id"]
    assert (await sandbox.outcome("generic", payment_id, "succeed")).json()["status"] == "authorized"
    captured = await generic("POST", f"/v1/payments/{payment_id}/captures", json={"amount": 100, "reference": "CAP1"})
    assert (captured.status_code, captured.json()["status"]) == (201, "completed")
    assert '"captured_amount":100.00' in captured.text
    refund = await generic("POST", f"/v1/payments/{payment_id}/refunds", json={"amount": 99.5, "reference": "RF1"})
    assert (refund.status_code, refund.json()["status"]) == (201, "succeeded")
    assert (await generic("GET", f"/v1/refunds/{refund.json()['refund_id']}")).json() == refund.json()
    too_much = await generic("POST", f"/v1/payments/{payment_id}/refunds", json={"amount": 1})
    assert (too_much.status_code, too_much.json()["error"]["code"]) == (422, "amount_too_large")
    [payment] = (await sandbox.books("generic"))["payments"]
    assert (payment["captured_minor"], payment["refunded_minor"]) == (10000, 9950)
    operations = [(operation["operation"], operation["amount_minor"]) for operation in payment["operations"]]
    assert operations == [("create_session", 15000), ("authorize", 15000), ("capture", 10000), ("refund", 9950)]


async def test_a_hold_is_released_by_void(
    generic: Call, sandbox: RunningSandbox, create_session: CreateSession
) -> None:
    payment_id = (await create_session(capture="manual"))["payment_id"]
    await sandbox.outcome("generic", payment_id, "succeed")
    assert (await generic("POST", f"/v1/payments/{payment_id}/void")).json()["status"] == "canceled"
    again = await generic("POST", f"/v1/payments/{payment_id}/captures", json={})
    assert (again.status_code, again.json()["error"]["code"]) == (409, "illegal_state")


async def test_an_open_session_can_be_expired_and_a_paid_one_not(
    generic: Call, sandbox: RunningSandbox, create_session: CreateSession
) -> None:
    first, second = (await create_session())["payment_id"], (await create_session())["payment_id"]
    assert (await generic("POST", f"/v1/sessions/{first}/expire")).json()["status"] == "expired"
    await sandbox.outcome("generic", second, "succeed")
    assert (await generic("POST", f"/v1/sessions/{second}/expire")).status_code == 409
