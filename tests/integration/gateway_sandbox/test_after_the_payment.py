"""What happens to money after the payment: the generic gateway's money operations and the control API over HTTP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest

from services.gateway_sandbox.use_cases.expire_sessions import expire_sessions
from shared.ports import Ports, system_ports
from tests.integration.gateway_sandbox.conftest import AUTHORIZED, CreateSession, a_session
from tests.support.clock import FakeClock
from tests.support.gateway_sandbox import RunningSandbox, running_sandbox
from tests.support.postgres import ServiceDatabase
from tests.support.waiting import until

Call = Callable[..., Awaitable[httpx.Response]]
Payment = Callable[..., Awaitable[str]]


@pytest.fixture
def a_payment(sandbox: RunningSandbox, create_session: CreateSession) -> Payment:
    """A paid payment, of which the webhook is already forgotten."""

    async def make(**overrides: Any) -> str:
        payment_id: str = (await create_session(**overrides))["payment_id"]
        await sandbox.outcome("generic", payment_id, "succeed")
        await until(lambda: sandbox.receiver.requests, what="the webhook of the payment")
        sandbox.receiver.requests.clear()
        return payment_id

    return make


async def the_webhook(sandbox: RunningSandbox) -> dict[str, Any]:
    await until(lambda: sandbox.receiver.requests, what="a webhook")
    [body] = sandbox.receiver.bodies
    sandbox.receiver.requests.clear()
    told: dict[str, Any] = body
    return told


async def the_payment(sandbox: RunningSandbox) -> dict[str, Any]:
    [payment] = (await sandbox.books("generic"))["payments"]
    found: dict[str, Any] = payment
    return found


async def test_several_captures_are_listed_with_our_references_and_a_void_releases_the_rest(
    generic: Call, sandbox: RunningSandbox, a_payment: Payment
) -> None:
    payment_id = await a_payment(capture="manual")
    for number, amount in ((1, 60), (2, 40)):
        body = {"amount": amount, "final": False, "reference": f"CAP{number}"}
        headers = {"Idempotency-Key": f"cap-{number}"}
        answer = await generic("POST", f"/v1/payments/{payment_id}/captures", json=body, headers=headers)
        assert (answer.status_code, answer.json()["capture"]["reference"]) == (201, f"CAP{number}")
        webhook = await the_webhook(sandbox)
        assert (webhook["status"], webhook["amount"]) == ("completed", 60 if number == 1 else 100)
    session = (await generic("GET", f"/v1/sessions/{payment_id}")).json()
    assert (session["status"], session["authorized_amount"], session["captured_amount"]) == ("authorized", 150, 100)
    assert [(each["reference"], each["amount"], each["is_final"]) for each in session["captures"]] == [
        ("CAP1", 60, False),
        ("CAP2", 40, False),
    ]
    voided = (await generic("POST", f"/v1/payments/{payment_id}/void", json={"reference": "VOID1"})).json()
    assert (voided["status"], voided["voided"], voided["captured_amount"]) == ("completed", True, 100)
    listed = (await generic("GET", f"/v1/payments/{payment_id}/captures")).json()["data"]
    assert [each["reference"] for each in listed] == ["CAP2", "CAP1"]
    payment = await the_payment(sandbox)
    assert [(each["reference"], each["idempotency_key"]) for each in payment["captures"]] == [
        ("CAP1", "cap-1"),
        ("CAP2", "cap-2"),
    ]
    assert payment["operations"][-1]["reference"] == "VOID1"


async def test_a_pending_capture_shows_as_held_until_it_succeeds(
    generic: Call, sandbox: RunningSandbox, a_payment: Payment
) -> None:
    payment_id = await a_payment(capture="manual")
    await sandbox.faults("generic", {"operation": "capture", "kind": "pending"})
    answer = (await generic("POST", f"/v1/payments/{payment_id}/captures", json={"reference": "CAP1"})).json()
    assert (answer["status"], answer["captured_amount"], answer["capture"]["status"]) == ("authorized", 0, "pending")
    settled = await sandbox.control("generic", f"captures/{answer['capture_id']}", status="succeeded")
    assert settled.json()["captures"][0]["status"] == "succeeded"
    webhook = await the_webhook(sandbox)
    assert (webhook["status"], webhook["amount"]) == ("completed", 150)


async def test_a_pending_capture_that_fails_leaves_the_money_held(
    generic: Call, sandbox: RunningSandbox, a_payment: Payment
) -> None:
    payment_id = await a_payment(capture="manual")
    await sandbox.faults("generic", {"operation": "capture", "kind": "pending"})
    answer = (await generic("POST", f"/v1/payments/{payment_id}/captures", json={"amount": 100})).json()
    failed = await sandbox.control("generic", f"captures/{answer['capture_id']}", status="failed")
    assert (failed.json()["status"], failed.json()["captured_minor"]) == ("authorized", 0)
    assert (await the_webhook(sandbox))["status"] == "authorized"
    again = await sandbox.control("generic", f"captures/{answer['capture_id']}", status="succeeded")
    assert again.status_code == 409
    assert (await generic("POST", f"/v1/payments/{payment_id}/captures", json={})).json()["captured_amount"] == 150


async def test_a_refund_in_the_dashboard_has_no_reference_of_ours(sandbox: RunningSandbox, a_payment: Payment) -> None:
    payment_id = await a_payment()
    answer = await sandbox.control("generic", f"sessions/{payment_id}/refunds", amount_minor=1500)
    assert (answer.status_code, answer.json()["refunded_minor"]) == (201, 1500)
    [refund] = answer.json()["refunds"]
    assert (refund["reference"], refund["idempotency_key"]) == (None, None)
    webhook = await the_webhook(sandbox)
    assert (webhook["status"], webhook["refund_id"], webhook["reference"]) == ("refunded", refund["refund_id"], None)
    assert (webhook["amount"], webhook["refund_amount"]) == (150, 15)
    rest = await sandbox.control("generic", "sessions/REF1/refunds")
    assert rest.json()["refunded_minor"] == 15000
    assert (await sandbox.control("generic", "sessions/REF1/refunds")).status_code == 409


@pytest.mark.parametrize(("status", "told"), [("failed", "refund_failed"), ("reversed", "refund_reversed")])
async def test_a_refund_that_succeeded_can_come_back(
    generic: Call, sandbox: RunningSandbox, a_payment: Payment, status: str, told: str
) -> None:
    payment_id = await a_payment()
    body = {"amount": 99.5, "reference": "RF1"}
    refund = (await generic("POST", f"/v1/payments/{payment_id}/refunds", json=body)).json()
    assert ((await the_webhook(sandbox))["status"], refund["failure_code"]) == ("refunded", None)
    answer = await sandbox.control("generic", f"refunds/{refund['refund_id']}", status=status)
    assert (answer.json()["refunds"][0]["status"], answer.json()["refunded_minor"]) == (status, 0)
    webhook = await the_webhook(sandbox)
    assert (webhook["status"], webhook["reference"], webhook["refund_amount"]) == (told, "RF1", 99.5)
    assert webhook.get("failure_code") == ("account_closed" if status == "failed" else None)
    repeated = await sandbox.control("generic", f"refunds/{refund['refund_id']}", status=status)
    assert repeated.status_code == 200
    assert (await sandbox.control("generic", f"refunds/{refund['refund_id']}", status="succeeded")).status_code == 409
    assert (await generic("POST", f"/v1/payments/{payment_id}/refunds", json={})).json()["amount"] == 150


@pytest.mark.parametrize("status", ["won", "lost"])
async def test_a_dispute_is_opened_and_decided(
    generic: Call, sandbox: RunningSandbox, a_payment: Payment, status: str
) -> None:
    payment_id = await a_payment()
    opened = await sandbox.control(
        "generic", f"sessions/{payment_id}/disputes", amount_minor=5000, reason="not_received"
    )
    assert opened.status_code == 201
    dispute_id = opened.json()["disputes"][0]["dispute_id"]
    webhook = await the_webhook(sandbox)
    assert (webhook["status"], webhook["dispute_id"], webhook["reason"]) == ("disputed", dispute_id, "not_received")
    assert (webhook["amount"], webhook["dispute_amount"]) == (150, 50)
    closed = await sandbox.control("generic", f"disputes/{dispute_id}", status=status)
    assert closed.json()["disputes"][0]["closed_at"] is not None
    assert (await the_webhook(sandbox))["status"] == f"dispute_{status}"
    session = (await generic("GET", f"/v1/sessions/{payment_id}")).json()
    assert [(each["dispute_id"], each["status"]) for each in session["disputes"]] == [(dispute_id, status)]
    too_much = await sandbox.control("generic", f"sessions/{payment_id}/disputes", amount_minor=15001)
    assert too_much.status_code == 409


async def test_a_hold_can_lapse_by_the_control_api(generic: Call, sandbox: RunningSandbox, a_payment: Payment) -> None:
    payment_id = await a_payment(capture="manual")
    answer = await sandbox.control("generic", f"sessions/{payment_id}/hold", expire=True)
    assert (answer.status_code, answer.json()["status"]) == (200, "expired")
    assert (await the_webhook(sandbox))["status"] == "expired"
    assert (await sandbox.control("generic", f"sessions/{payment_id}/hold", expire=True)).status_code == 409
    captured = await generic("POST", f"/v1/payments/{payment_id}/captures", json={})
    assert captured.json()["error"]["code"] == "illegal_state"


async def test_a_hold_lapses_by_itself_and_keeps_what_was_captured(service_database: ServiceDatabase) -> None:
    clock, real = FakeClock(), system_ports()
    ports = Ports(clock, real.ids, real.randomness)
    async with running_sandbox(service_database("gateway_sandbox"), ports=ports, with_worker=False) as sandbox:
        created = await sandbox.client.post(
            "/sandbox/generic/v1/sessions", json=a_session(capture="manual"), headers=AUTHORIZED
        )
        path = f"/sandbox/generic/v1/payments/{created.json()['payment_id']}"
        await sandbox.outcome("generic", created.json()["payment_id"], "succeed")
        await sandbox.client.post(f"{path}/captures", json={"amount": 10, "final": False}, headers=AUTHORIZED)
        clock.move(timedelta(days=7).total_seconds() - 1)
        await expire_sessions(sandbox.container.sandbox)
        assert (await the_payment(sandbox))["status"] == "authorized"
        clock.move(1)
        await expire_sessions(sandbox.container.sandbox)
        payment = await the_payment(sandbox)
        assert (payment["status"], payment["captured_minor"]) == ("completed", 1000)
        assert [operation["operation"] for operation in payment["operations"]][-1] == "expire_hold"


async def test_somebody_captures_in_the_dashboard(sandbox: RunningSandbox, a_payment: Payment) -> None:
    payment_id = await a_payment(capture="manual")
    answer = await sandbox.control("generic", f"sessions/{payment_id}/captures", amount_minor=9000)
    assert (answer.status_code, answer.json()["status"], answer.json()["captured_minor"]) == (201, "completed", 9000)
    webhook = await the_webhook(sandbox)
    assert (webhook["status"], webhook["amount"]) == ("completed", 90)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("refunds/gr_none", {"status": "failed"}, 404),
        ("captures/gc_none", {"status": "failed"}, 404),
        ("disputes/gd_none", {"status": "won"}, 404),
        ("sessions/none/refunds", {}, 404),
        ("sessions/REF1/refunds", {"amount_minor": 0}, 422),
        ("sessions/REF1/refunds", {"amount_minor": 1}, 409),
        ("sessions/REF1/captures", {}, 409),
        ("sessions/REF1/disputes", {}, 409),
        ("sessions/REF1/hold", {"expire": False}, 422),
        ("sessions/REF1/hold", {"expire": True}, 409),
        ("refunds/gr_none", {"status": "pending"}, 422),
        ("disputes/gd_none", {"status": "open"}, 422),
    ],
)
async def test_what_cannot_be_is_refused(
    sandbox: RunningSandbox, create_session: CreateSession, path: str, body: dict[str, Any], status: int
) -> None:
    await create_session()
    assert (await sandbox.control("generic", path, **body)).status_code == status
    assert (await the_payment(sandbox))["status"] == "open"


async def test_a_refunds_id_is_no_payments_id_at_the_gateway(
    generic: Call, sandbox: RunningSandbox, a_payment: Payment
) -> None:
    payment_id = await a_payment()
    refund = (await generic("POST", f"/v1/payments/{payment_id}/refunds", json={"amount": 1})).json()
    assert (await generic("GET", f"/v1/sessions/{refund['refund_id']}")).status_code == 404
    assert (await generic("POST", f"/v1/payments/{refund['refund_id']}/refunds", json={})).status_code == 404


async def test_emptying_the_books_leaves_no_record_behind(sandbox: RunningSandbox, a_payment: Payment) -> None:
    payment_id = await a_payment()
    await sandbox.control("generic", f"sessions/{payment_id}/refunds")
    shown = (await sandbox.control("generic", f"sessions/{payment_id}/disputes")).json()
    refund_id, dispute_id = shown["refunds"][0]["refund_id"], shown["disputes"][0]["dispute_id"]
    assert (await sandbox.client.delete("/sandbox/control/generic/books")).status_code == 204
    assert (await sandbox.control("generic", f"refunds/{refund_id}", status="failed")).status_code == 404
    async with sandbox.container.sandbox.uow() as tx:
        assert await tx.refunds.find("generic", refund_id) is None
        assert await tx.disputes.find("generic", dispute_id) is None
