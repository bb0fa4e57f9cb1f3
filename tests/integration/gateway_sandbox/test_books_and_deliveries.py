from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import httpx

from services.gateway_sandbox.use_cases.control import forget_old_answers
from services.gateway_sandbox.use_cases.expire_sessions import expire_sessions
from shared.clock import to_rfc3339
from shared.ports import Ports, system_ports
from tests.integration.gateway_sandbox.conftest import AUTHORIZED, CreateSession, a_session
from tests.support.clock import FakeClock
from tests.support.gateway_sandbox import Receiver, RunningSandbox, running_sandbox
from tests.support.postgres import ServiceDatabase
from tests.support.waiting import until

Call = Callable[..., Awaitable[httpx.Response]]


def ports_with(clock: FakeClock) -> Ports:
    real = system_ports()
    return Ports(clock, real.ids, real.randomness)


async def all_delivered(sandbox: RunningSandbox) -> bool:
    webhooks = (await sandbox.books("generic"))["webhooks"]
    return bool(webhooks) and all(webhook["state"] == "delivered" for webhook in webhooks)


async def test_a_refused_webhook_is_sent_again_until_it_is_accepted(
    sandbox: RunningSandbox, create_session: CreateSession
) -> None:
    sandbox.receiver.answers[:] = [500, 302, 404]
    await sandbox.outcome("generic", (await create_session())["payment_id"], "succeed")
    await until(lambda: all_delivered(sandbox), what="the delivery")
    [webhook] = (await sandbox.books("generic"))["webhooks"]
    assert (webhook["tries"], webhook["last_status"], webhook["type"]) == (4, 200, "payment.completed")
    assert len({body["event_id"] for body in sandbox.receiver.bodies}) == 1


async def test_nobody_answering_is_a_failed_try(service_database: ServiceDatabase) -> None:
    class Nobody(Receiver):
        async def __call__(self, request: httpx.Request) -> httpx.Response:
            if len(self.requests) < 2:
                self.requests.append(request)
                raise httpx.ConnectError("refused")
            return await super().__call__(request)

    async with running_sandbox(service_database("gateway_sandbox"), receiver=Nobody()) as sandbox:
        created = await sandbox.client.post("/sandbox/generic/v1/sessions", json=a_session(), headers=AUTHORIZED)
        await sandbox.outcome("generic", created.json()["payment_id"], "succeed")
        await until(lambda: all_delivered(sandbox), what="the delivery")
        [webhook] = (await sandbox.books("generic"))["webhooks"]
        assert webhook["tries"] == 3


async def test_a_killed_deliverer_loses_no_webhook(service_database: ServiceDatabase) -> None:
    """The first deliverer dies between the claim and the answer, as a kill -9 would have it."""
    url, clock, receiver = service_database("gateway_sandbox"), FakeClock(), Receiver()
    dying = asyncio.Event()

    class Killed(Receiver):
        async def __call__(self, request: httpx.Request) -> httpx.Response:
            dying.set()
            await asyncio.Event().wait()
            raise AssertionError("it was killed")

    async with running_sandbox(url, receiver=Killed(), ports=ports_with(clock), with_worker=False) as sandbox:
        created = await sandbox.client.post("/sandbox/generic/v1/sessions", json=a_session(), headers=AUTHORIZED)
        await sandbox.outcome("generic", created.json()["payment_id"], "succeed")
        delivering = asyncio.create_task(sandbox.container.deliverer.deliver_due())
        await dying.wait()
        delivering.cancel()
        await asyncio.wait([delivering])
    async with running_sandbox(url, receiver=receiver, ports=ports_with(clock), with_worker=False) as sandbox:
        await sandbox.container.deliverer.deliver_due()
        assert receiver.requests == []  # the lease of the dead one still holds
        clock.move(sandbox.container.deliverer.timeout_seconds + 6)
        await sandbox.container.deliverer.deliver_due()
        assert len(receiver.requests) == 1
        assert await all_delivered(sandbox)


async def test_two_deliverers_send_each_webhook_once(service_database: ServiceDatabase) -> None:
    url, receiver = service_database("gateway_sandbox"), Receiver()
    async with running_sandbox(url, receiver=receiver) as one, running_sandbox(url, receiver=receiver):
        for number in range(10):
            created = await one.client.post(
                "/sandbox/generic/v1/sessions", json=a_session(reference=f"R{number}"), headers=AUTHORIZED
            )
            await one.outcome("generic", created.json()["payment_id"], "succeed")
        await until(lambda: all_delivered(one), what="ten deliveries")
        assert len({body["event_id"] for body in receiver.bodies}) == len(receiver.requests) == 10


async def test_a_session_expires_by_itself_and_says_so(service_database: ServiceDatabase) -> None:
    clock = FakeClock()
    url = service_database("gateway_sandbox")
    async with running_sandbox(url, ports=ports_with(clock), with_worker=False) as sandbox:
        body = a_session(expires_at=to_rfc3339(clock.now() + timedelta(minutes=30)))
        await sandbox.client.post("/sandbox/generic/v1/sessions", json=body, headers=AUTHORIZED)
        clock.move(30 * 60 - 1)
        await expire_sessions(sandbox.container.sandbox)
        assert (await sandbox.books("generic"))["payments"][0]["status"] == "open"
        clock.move(1)
        await expire_sessions(sandbox.container.sandbox)
        books = await sandbox.books("generic")
        assert books["payments"][0]["status"] == "expired"
        assert [webhook["type"] for webhook in books["webhooks"]] == ["payment.expired"]


async def test_no_call_sees_a_session_that_outlived_itself(service_database: ServiceDatabase) -> None:
    clock = FakeClock()
    async with running_sandbox(
        service_database("gateway_sandbox"), ports=ports_with(clock), with_worker=False
    ) as sandbox:
        created = await sandbox.client.post("/sandbox/generic/v1/sessions", json=a_session(), headers=AUTHORIZED)
        payment_id = created.json()["payment_id"]
        clock.move(3601)
        read = await sandbox.client.get(f"/sandbox/generic/v1/sessions/{payment_id}", headers=AUTHORIZED)
        assert read.json()["status"] == "expired"
        refused = await sandbox.outcome("generic", payment_id, "succeed")
        assert (refused.status_code, refused.json()["code"]) == (409, "illegal_move")
        late = await sandbox.outcome("generic", payment_id, "succeed", late=True)
        assert (late.status_code, late.json()["status"]) == (200, "completed")


async def test_the_same_key_ten_times_at_once_makes_one_session(generic: Call, sandbox: RunningSandbox) -> None:
    calls = (generic("POST", "/v1/sessions", json=a_session(), headers={"Idempotency-Key": "key-1"}) for _ in range(10))
    answers = await asyncio.gather(*calls)
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert len({answer.json()["payment_id"] for answer in answers if answer.status_code == 201}) == 1
    assert len((await sandbox.books("generic"))["payments"]) == 1


async def test_a_hundred_refunds_at_once_give_back_no_more_than_was_captured(
    generic: Call, sandbox: RunningSandbox, create_session: CreateSession
) -> None:
    payment_id = (await create_session())["payment_id"]
    await sandbox.outcome("generic", payment_id, "succeed")
    calls = (generic("POST", f"/v1/payments/{payment_id}/refunds", json={"amount": 40}) for _ in range(100))
    answers = await asyncio.gather(*calls)
    assert sorted({answer.status_code for answer in answers}) == [201, 422]
    [payment] = (await sandbox.books("generic"))["payments"]
    assert payment["refunded_minor"] == 12000
    assert [operation["operation"] for operation in payment["operations"]].count("refund") == 3


async def test_a_session_is_steered_by_any_of_its_references(
    sandbox: RunningSandbox, create_session: CreateSession
) -> None:
    await create_session(reference="OURS")
    paid = await sandbox.outcome("generic", "OURS", "succeed")
    assert (paid.status_code, paid.json()["status"]) == (200, "completed")
    again = await sandbox.outcome("generic", paid.json()["gateway_reference"], "succeed")
    assert [operation["operation"] for operation in again.json()["operations"]] == ["create_session", "charge"]
    assert (await sandbox.outcome("generic", "NOBODY", "succeed")).status_code == 404
    assert (await sandbox.outcome("nobody", "OURS", "succeed")).status_code == 404
    assert (await sandbox.outcome("generic", "OURS", "dance")).status_code == 422
    assert (await sandbox.outcome("generic", "OURS", "cancel")).status_code == 409


async def test_books_are_filtered_and_emptied(sandbox: RunningSandbox, create_session: CreateSession) -> None:
    await create_session(reference="A", order_id="ord_a")
    await create_session(reference="B", order_id="ord_b")
    for query in ({"reference": "B"}, {"order_id": "ord_b"}):
        assert [payment["reference"] for payment in (await sandbox.books("generic", **query))["payments"]] == ["B"]
    assert (await sandbox.client.delete("/sandbox/control/generic/books")).status_code == 204
    assert await sandbox.books("generic") == {"payments": [], "webhooks": []}


async def test_stored_answers_are_forgotten_after_a_day(service_database: ServiceDatabase) -> None:
    clock = FakeClock()
    url = service_database("gateway_sandbox")
    async with running_sandbox(url, ports=ports_with(clock), with_worker=False) as sandbox:
        headers = {**AUTHORIZED, "Idempotency-Key": "key-1"}
        for hours in (0, 23, 2):
            clock.move(hours * 3600)
            await forget_old_answers(sandbox.container.sandbox)
            await sandbox.client.post("/sandbox/generic/v1/sessions", json=a_session(), headers=headers)
        assert len((await sandbox.books("generic"))["payments"]) == 2


async def test_the_control_api_is_documented_and_the_service_says_how_it_is(sandbox: RunningSandbox) -> None:
    paths = (await sandbox.client.get("/openapi.json")).json()["paths"]
    assert "/sandbox/control/{gateway}/books" in paths
    assert (await sandbox.client.get("/readyz")).json()["status"] == "ok"


async def test_a_gateway_without_its_database_answers_503_in_its_own_words() -> None:
    async with running_sandbox("postgresql://nobody@127.0.0.1:1/nothing", with_worker=False) as sandbox:
        answer = await sandbox.client.get(
            "/sandbox/stripe/v1/refunds/re_1", headers={"Authorization": "Bearer sk_test_1"}
        )
        assert (answer.status_code, answer.json()["error"]["type"]) == (503, "api_error")
        ready = await sandbox.client.get("/readyz")
        assert (ready.status_code, ready.json()["missing"]) == (503, ["database"])
