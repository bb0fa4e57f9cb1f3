from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import httpx
import pytest

from tests.integration.gateway_sandbox.conftest import CreateSession, a_session
from tests.support.gateway_sandbox import RunningSandbox
from tests.support.waiting import until

Call = Callable[..., Awaitable[httpx.Response]]
KEY = {"Idempotency-Key": "key-1"}


async def payment_count(sandbox: RunningSandbox) -> int:
    return len((await sandbox.books("generic"))["payments"])


async def test_the_list_is_replaced_counted_down_and_reset(
    generic: Call, sandbox: RunningSandbox, create_session: CreateSession
) -> None:
    await sandbox.faults("generic", {"operation": "retrieve", "kind": "error_5xx"})
    stored = await sandbox.faults(
        "generic", {"operation": "create_session", "kind": "error_5xx", "status": 503, "count": 2}
    )
    assert stored == [{"operation": "create_session", "kind": "error_5xx", "remaining": 2, "status": 503}]
    assert (await generic("POST", "/v1/sessions", json=a_session())).status_code == 503
    shown = (await sandbox.client.get("/sandbox/control/generic/faults")).json()
    assert shown[0]["remaining"] == 1
    assert (await sandbox.client.delete("/sandbox/control/generic/faults")).status_code == 204
    await create_session()


async def test_faults_are_used_up_in_the_order_of_the_list(generic: Call, sandbox: RunningSandbox) -> None:
    await sandbox.faults(
        "generic",
        {"operation": "create_session", "kind": "rate_limit", "retry_after": 3},
        {"operation": "*", "kind": "error_5xx", "status": 502},
    )
    answers = [await generic("POST", "/v1/sessions", json=a_session()) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [429, 502, 201]
    assert answers[0].headers["retry-after"] == "3"
    assert await payment_count(sandbox) == 1


async def test_a_fault_without_a_count_stays_until_it_is_reset(generic: Call, sandbox: RunningSandbox) -> None:
    await sandbox.faults("generic", {"operation": "*", "kind": "error_5xx", "count": None})
    assert [(await generic("GET", "/v1/sessions")).status_code for _ in range(3)] == [500, 500, 500]


@pytest.mark.parametrize(
    "fault",
    [
        {"operation": "webhook", "kind": "delay"},
        {"operation": "capture", "kind": "lose"},
        {"operation": "capture", "kind": "wrong_amount"},
        {"operation": "capture", "kind": "surprise"},
        {"operation": "dance", "kind": "delay"},
        {"operation": "capture", "kind": "delay", "unknown": 1},
        {"operation": "capture", "kind": "delay", "count": 0},
    ],
)
async def test_a_fault_that_makes_no_sense_is_422(sandbox: RunningSandbox, fault: dict[str, object]) -> None:
    answer = await sandbox.client.put("/sandbox/control/generic/faults", json=[fault])
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"


async def test_timeout_after_does_the_work_and_then_breaks_off(generic: Call, sandbox: RunningSandbox) -> None:
    await sandbox.faults("generic", {"operation": "create_session", "kind": "timeout_after", "seconds": 0.01})
    with pytest.raises(httpx.RemoteProtocolError):
        await generic("POST", "/v1/sessions", json=a_session(), headers=KEY)
    assert await payment_count(sandbox) == 1
    repeated = await generic("POST", "/v1/sessions", json=a_session(), headers=KEY)
    assert (repeated.status_code, repeated.headers["idempotent-replayed"]) == (201, "true")
    assert await payment_count(sandbox) == 1


async def test_timeout_before_does_nothing_at_all(generic: Call, sandbox: RunningSandbox) -> None:
    await sandbox.faults("generic", {"operation": "create_session", "kind": "timeout_before", "seconds": 0.01})
    with pytest.raises(httpx.RemoteProtocolError):
        await generic("POST", "/v1/sessions", json=a_session(), headers=KEY)
    assert await payment_count(sandbox) == 0
    assert "idempotent-replayed" not in (await generic("POST", "/v1/sessions", json=a_session(), headers=KEY)).headers


async def test_a_held_answer_outlasts_the_callers_patience(generic: Call, sandbox: RunningSandbox) -> None:
    await sandbox.faults("generic", {"operation": "create_session", "kind": "timeout_after"})
    with pytest.raises(httpx.ReadTimeout):
        await generic("POST", "/v1/sessions", json=a_session(), timeout=0.5)
    assert await until(lambda: payment_count(sandbox), what="the work, of which nothing is heard") == 1


async def test_a_delay_is_a_delay(generic: Call, sandbox: RunningSandbox) -> None:
    await sandbox.faults("generic", {"operation": "create_session", "kind": "delay", "seconds": 0.3})
    with pytest.raises(httpx.ReadTimeout):
        await generic("POST", "/v1/sessions", json=a_session(), timeout=0.1)
    await until(lambda: payment_count(sandbox), what="the delayed work being done")


async def test_reads_can_show_a_wrong_amount_and_the_books_stay_right(
    generic: Call, sandbox: RunningSandbox, create_session: CreateSession
) -> None:
    payment_id = (await create_session())["payment_id"]
    await sandbox.faults("generic", {"operation": "retrieve", "kind": "wrong_amount", "amount_minor": 1})
    assert '"amount":0.01,' in (await generic("GET", f"/v1/sessions/{payment_id}")).text
    assert '"amount":150.00,' in (await generic("GET", f"/v1/sessions/{payment_id}")).text
    assert (await sandbox.books("generic"))["payments"][0]["amount_minor"] == 15000


async def test_a_webhook_can_tell_a_wrong_amount(sandbox: RunningSandbox, create_session: CreateSession) -> None:
    payment_id = (await create_session())["payment_id"]
    await sandbox.faults("generic", {"operation": "webhook", "kind": "wrong_amount"})
    await sandbox.outcome("generic", payment_id, "succeed")
    await until(lambda: sandbox.receiver.requests, what="a webhook")
    assert b'"amount":151.00,' in sandbox.receiver.requests[0].content


async def test_a_webhook_can_be_sent_many_times(sandbox: RunningSandbox, create_session: CreateSession) -> None:
    payment_id = (await create_session())["payment_id"]
    await sandbox.faults("generic", {"operation": "webhook", "kind": "duplicate", "copies": 4})
    await sandbox.outcome("generic", payment_id, "succeed")
    await until(lambda: len(sandbox.receiver.requests) == 5, what="five deliveries")
    assert len({body["event_id"] for body in sandbox.receiver.bodies}) == 1


async def test_a_webhook_can_be_lost(sandbox: RunningSandbox, create_session: CreateSession) -> None:
    lost, told = (await create_session())["payment_id"], (await create_session(reference="REF2"))["payment_id"]
    await sandbox.faults("generic", {"operation": "webhook", "kind": "lose"})
    await sandbox.outcome("generic", lost, "succeed")
    await sandbox.outcome("generic", told, "succeed")
    await until(lambda: sandbox.receiver.requests, what="the other webhook")
    assert [body["payment_id"] for body in sandbox.receiver.bodies] == [told]
    states = {
        webhook["gateway_reference"]: webhook["state"] for webhook in (await sandbox.books("generic"))["webhooks"]
    }
    assert states[lost] == "lost"


async def test_a_held_webhook_goes_out_after_the_next_one(
    sandbox: RunningSandbox, create_session: CreateSession
) -> None:
    payment_id = (await create_session())["payment_id"]
    await sandbox.outcome("generic", payment_id, "succeed")
    await until(lambda: sandbox.receiver.requests, what="the first webhook")
    sandbox.receiver.requests.clear()
    await sandbox.faults("generic", {"operation": "webhook", "kind": "reorder"})
    first, second = (await create_session())["payment_id"], (await create_session())["payment_id"]
    await sandbox.outcome("generic", first, "succeed")
    await sandbox.outcome("generic", second, "succeed")
    await until(lambda: len(sandbox.receiver.requests) == 2, what="both webhooks")
    assert [body["payment_id"] for body in sandbox.receiver.bodies] == [second, first]


async def test_a_late_webhook_is_late(sandbox: RunningSandbox, create_session: CreateSession) -> None:
    payment_id = (await create_session())["payment_id"]
    await sandbox.faults("generic", {"operation": "webhook", "kind": "late", "seconds": 2})
    await sandbox.outcome("generic", payment_id, "succeed")
    [waiting] = (await sandbox.books("generic"))["webhooks"]
    assert (waiting["state"], waiting["tries"]) == ("pending", 0)
    await until(lambda: sandbox.receiver.requests, what="the late webhook")


async def test_a_counted_fault_hits_exactly_that_many_of_many_calls_at_once(
    generic: Call, sandbox: RunningSandbox
) -> None:
    await sandbox.faults("generic", {"operation": "create_session", "kind": "error_5xx", "status": 503, "count": 3})
    answers = await asyncio.gather(*(generic("POST", "/v1/sessions", json=a_session()) for _ in range(12)))
    assert sorted(answer.status_code for answer in answers) == [201] * 9 + [503] * 3


async def a_paid_payment(sandbox: RunningSandbox, create_session: CreateSession) -> str:
    payment_id: str = (await create_session())["payment_id"]
    await sandbox.outcome("generic", payment_id, "succeed")
    return payment_id


async def test_a_fault_can_hit_every_third_call(generic: Call, sandbox: RunningSandbox) -> None:
    await sandbox.faults(
        "generic",
        {"operation": "create_session", "kind": "error_5xx", "status": 503, "every": 3, "count": None},
        {"operation": "list", "kind": "error_5xx", "status": 502},
    )
    statuses = [(await generic("POST", "/v1/sessions", json=a_session())).status_code for _ in range(9)]
    assert statuses == [201, 201, 503] * 3


async def test_a_call_that_one_fault_lets_pass_meets_the_next_one(generic: Call, sandbox: RunningSandbox) -> None:
    await sandbox.faults(
        "generic",
        {"operation": "create_session", "kind": "error_5xx", "status": 503, "every": 2, "count": 1},
        {"operation": "*", "kind": "rate_limit"},
    )
    statuses = [(await generic("POST", "/v1/sessions", json=a_session())).status_code for _ in range(4)]
    assert statuses == [429, 503, 201, 201]


async def test_a_third_of_many_refunds_at_once_breaks_off_and_no_key_runs_twice(
    generic: Call, sandbox: RunningSandbox, create_session: CreateSession
) -> None:
    payment_id = await a_paid_payment(sandbox, create_session)
    await sandbox.faults(
        "generic", {"operation": "refund", "kind": "timeout_after", "seconds": 0, "every": 3, "count": None}
    )

    async def refund(number: int) -> bool:
        body, headers = {"amount": 1, "reference": f"RF{number}"}, {"Idempotency-Key": f"key-{number}"}
        try:
            answer = await generic("POST", f"/v1/payments/{payment_id}/refunds", json=body, headers=headers)
        except httpx.RemoteProtocolError:
            return False
        assert answer.status_code == 201
        return True

    answered = await asyncio.gather(*(refund(number) for number in range(12)))
    assert answered.count(False) == 4
    await sandbox.faults("generic")
    await asyncio.gather(*(refund(number) for number in range(12)))
    [payment] = (await sandbox.books("generic"))["payments"]
    made = {(each["reference"], each["idempotency_key"]) for each in payment["refunds"]}
    assert made == {(f"RF{number}", f"key-{number}") for number in range(12)}
    assert (len(payment["refunds"]), payment["refunded_minor"]) == (12, 1200)
    sent = [each["idempotency_key"] for each in payment["operations"] if each["operation"] == "refund"]
    assert len(sent) == len(set(sent)) == 12


@pytest.mark.parametrize("code", [None, "card_closed"])
async def test_a_refused_refund_moves_nothing_and_is_remembered(
    generic: Call, sandbox: RunningSandbox, create_session: CreateSession, code: str | None
) -> None:
    payment_id = await a_paid_payment(sandbox, create_session)
    await sandbox.faults("generic", {"operation": "refund", "kind": "reject", **({"code": code} if code else {})})
    for replayed in (None, "true"):
        answer = await generic("POST", f"/v1/payments/{payment_id}/refunds", json={}, headers=KEY)
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, code or "insufficient_funds")
        assert answer.headers.get("idempotent-replayed") == replayed
    [payment] = (await sandbox.books("generic"))["payments"]
    assert (payment["refunds"], payment["refunded_minor"]) == ([], 0)


async def test_a_pending_refund_is_settled_by_the_control_api(
    generic: Call, sandbox: RunningSandbox, create_session: CreateSession
) -> None:
    payment_id = await a_paid_payment(sandbox, create_session)
    await sandbox.faults("generic", {"operation": "refund", "kind": "pending"})
    refund = (await generic("POST", f"/v1/payments/{payment_id}/refunds", json={"amount": 40}, headers=KEY)).json()
    assert refund["status"] == "pending"
    session = (await generic("GET", f"/v1/sessions/{payment_id}")).json()
    assert (session["refunded_amount"], session["refunds"][0]["status"]) == (0, "pending")
    settled = await sandbox.control("generic", f"refunds/{refund['refund_id']}", status="succeeded")
    assert (settled.status_code, settled.json()["refunds"][0]["status"]) == (200, "succeeded")
    session = (await generic("GET", f"/v1/sessions/{payment_id}")).json()
    assert (session["refunded_amount"], session["refunds"][0]["status"]) == (40, "succeeded")
