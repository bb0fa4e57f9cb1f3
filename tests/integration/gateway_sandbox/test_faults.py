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
    assert await payment_count(sandbox) == 1


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
    await sandbox.faults("generic", {"operation": "webhook", "kind": "late", "seconds": 0.3})
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
