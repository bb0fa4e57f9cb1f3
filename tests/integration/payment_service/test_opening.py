"""Opening a session: once, however many ask, whatever becomes of the gateway's answer, and whoever dies in between."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from services.payment_service.use_cases import open_session as opening
from shared.errors import DatabaseUnavailable
from tests.integration.payment_service.conftest import BuildWorld, World
from tests.integration.payment_service.fake_gateway import says
from tests.support.clock import FakeClock
from tests.support.waiting import until


async def test_a_payment_is_opened_at_the_gateway(world: World) -> None:
    body = world.body()
    answer = await world.post("", body)
    assert answer.status_code == 201
    payment = answer.json()
    (session,) = world.gateway.sessions.values()
    assert payment["payment_id"] == body["payment_id"]
    assert payment["status"] == "requires_action"
    assert payment["gateway_reference"] == session["payment_id"]
    assert payment["next_action"] == {"type": "redirect", "url": session["checkout_url"], "fields": None}
    assert (session["amount"], session["currency"]) == ("19.99", "EUR")
    assert await world.event_types(body["payment_id"]) == ["created", "requires_action"]


async def test_how_the_shopper_means_to_pay_is_kept_and_announced(world: World) -> None:
    """The sweep paces itself by it."""
    body = world.body(method="bank_debit")
    assert (await world.post("", body)).json()["method"] == "bank_debit"
    sql = "SELECT convert_from(body, 'UTF8')::jsonb -> 'data' ->> 'method' AS method FROM outbox_messages"
    assert {row["method"] for row in await world.rows(sql)} == {"bank_debit"}


async def test_the_same_call_again_is_the_same_session(world: World) -> None:
    body = world.body()
    first = await world.post("", body)
    again = await world.post("", body | {"success_url": "https://shop.example/other-tab"})
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert world.gateway.calls == ["create"]


@pytest.mark.parametrize("replicas", [1, 2])
async def test_fifty_calls_at_once_open_one_session(build_world: BuildWorld, replicas: int) -> None:
    worlds = [await build_world() for _ in range(replicas)]
    body = worlds[0].body()
    held = asyncio.Event()
    worlds[0].gateway.before["create"] = [held]
    calls = [asyncio.create_task(worlds[number % replicas].post("", body)) for number in range(20 * replicas + 10)]
    await until(lambda: worlds[0].gateway.calls, what="the first call at the gateway")
    held.set()
    answers = await asyncio.gather(*calls)

    # On a machine that is busy with other things some are told to come back; whoever does gets the same page.
    told = Counter(answer.status_code for answer in answers)
    assert told[201] <= 1
    assert told[200] + told[201] + told[503] == len(calls)
    answers = [answer for answer in answers if answer.status_code != 503]
    answers += [await worlds[0].post("", body) for _ in range(told[503])]
    assert {answer.status_code for answer in answers} <= {200, 201}
    assert len({answer.json()["next_action"]["url"] for answer in answers}) == 1
    assert worlds[0].gateway.calls == ["create"]
    assert await worlds[0].event_types(body["payment_id"]) == ["created", "requires_action"]


@pytest.mark.parametrize(
    "changes",
    [
        {"amount": {"amount_minor": 2000, "currency": "EUR"}},
        {"amount": {"amount_minor": 1999, "currency": "USD"}},
        {"capture": "manual"},
        {"order_id": "ord_01jd8q3q3q3q3q3q3q3q3q3q3q"},
    ],
)
async def test_the_same_id_for_another_payment_is_refused(world: World, changes: dict[str, Any]) -> None:
    body = world.body()
    await world.post("", body)
    answer = await world.post("", body | changes)
    assert (answer.status_code, answer.json()["code"]) == (409, "payment_id_reused")
    assert world.gateway.calls == ["create"]


async def test_a_gateway_that_cannot_be_reached_leaves_the_payment_payable(world: World) -> None:
    body = world.body()
    world.gateway.before["create"] = [httpx.ConnectError("refused") for _ in range(3)]
    answer = await world.post("", body)
    assert (answer.status_code, answer.json()["code"]) == (503, "gateway_unavailable")
    assert answer.json()["outcome_known"]
    assert (await world.see(body["payment_id"]))["status"] == "created"
    assert (await world.post("", body)).status_code == 200
    assert len(world.gateway.sessions) == 1


@pytest.mark.parametrize("when", ["before", "after"])
async def test_an_unanswered_creation_is_found_or_made_by_the_next_call(world: World, when: str) -> None:
    body = world.body()
    getattr(world.gateway, when)["create"] = [httpx.ReadTimeout("late") for _ in range(3)]
    answer = await world.post("", body)
    assert (answer.status_code, answer.json()["code"]) == (503, "gateway_outcome_unknown")
    assert not answer.json()["outcome_known"]
    assert (await world.see(body["payment_id"]))["status"] == "created"

    again = await world.post("", body)
    assert again.status_code == 200
    assert again.json()["status"] == "requires_action"
    assert len(world.gateway.payable) == 1
    assert await world.event_types(body["payment_id"]) == [
        "created",
        "outcome_unknown",
        "requires_action",
        "outcome_resolved",
    ]


async def test_a_payment_that_is_paid_though_its_creation_had_no_answer_is_not_unknown_any_more(world: World) -> None:
    body = world.body()
    world.gateway.after["create"] = [httpx.ReadTimeout("late") for _ in range(3)]
    await world.post("", body)
    assert (await world.see(body["payment_id"]))["outcome_unknown"] is True
    (reference,) = world.gateway.payable
    world.gateway.pays(reference)
    await world.receive(world.webhook(body | {"gateway_reference": reference}))
    seen = await world.see(body["payment_id"])
    assert (seen["status"], seen["outcome_unknown"]) == ("captured", False)
    assert "outcome_resolved" in await world.event_types(body["payment_id"])


async def test_an_unknown_outcome_stays_unknown_while_the_gateway_cannot_be_asked(world: World) -> None:
    body = world.body()
    world.gateway.after["create"] = [httpx.ReadTimeout("late") for _ in range(3)]
    await world.post("", body)
    world.gateway.before["find"] = [httpx.ConnectError("refused") for _ in range(3)]
    assert (await world.post("", body)).json()["code"] == "gateway_unavailable"
    assert (await world.rows("SELECT status FROM payment_attempts")) == [{"status": "unknown"}]
    assert (await world.post("", body)).status_code == 200
    assert len(world.gateway.sessions) == 1


async def test_a_crash_between_the_call_and_its_recording_is_resumed_with_the_same_key(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = world.body()

    async def dies(*_: object, **__: object) -> None:
        raise asyncio.CancelledError

    with monkeypatch.context() as patched:
        patched.setattr(opening, "_record_session", dies)
        with pytest.raises(asyncio.CancelledError):
            await world.post("", body)
    assert await world.rows("SELECT status FROM payment_attempts") == [{"status": "sending"}]
    assert len(world.gateway.payable) == 1

    await world.forget_leases()
    resumed = await world.post("", body)
    assert resumed.status_code == 200
    assert resumed.json()["gateway_reference"] == world.gateway.payable[0]
    assert len(world.gateway.sessions) == 1
    assert len(await world.rows("SELECT 1 FROM payment_attempts")) == 1


async def test_a_commit_that_fails_after_the_call_loses_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """PY17: the work is done at the gateway; repeating the unit of work is harmless."""
    body, real = world.body(), opening._record_session

    async def unlucky(*arguments: Any, **options: Any) -> Any:
        monkeypatch.setattr(opening, "_record_session", real)
        await real(*arguments, **options)
        raise DatabaseUnavailable

    monkeypatch.setattr(opening, "_record_session", unlucky)
    assert (await world.post("", body)).status_code == 503
    assert (await world.post("", body)).status_code == 200
    assert await world.event_types(body["payment_id"]) == ["created", "requires_action"]
    assert len(world.gateway.sessions) == 1


async def test_a_client_that_hangs_up_leaves_a_session_that_the_next_call_finds(world: World) -> None:
    body, held = world.body(), asyncio.Event()
    world.gateway.after["create"] = [held]
    call = asyncio.create_task(world.post("", body))
    await until(lambda: world.gateway.sessions, what="the session at the gateway")
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await world.forget_leases()
    assert (await world.post("", body)).json()["gateway_reference"] in world.gateway.payable
    assert len(world.gateway.sessions) == 1


async def test_a_holder_whose_lease_ran_out_finds_the_session_of_its_successor(world: World) -> None:
    """PY18: a paused worker wakes up after another one has taken over, and changes nothing."""
    body, paused = world.body(), asyncio.Event()
    world.gateway.after["create"] = [paused]
    stale = asyncio.create_task(world.post("", body))
    await until(lambda: world.gateway.sessions, what="the session at the gateway")
    await world.forget_leases()
    taken_over = await world.post("", body)
    assert taken_over.status_code == 200
    before = await world.rows("SELECT * FROM payments")
    paused.set()
    woken = await stale
    assert woken.json()["gateway_reference"] == taken_over.json()["gateway_reference"]
    assert await world.rows("SELECT * FROM payments") == before
    assert len(world.gateway.sessions) == 1


async def test_a_stale_holder_does_not_open_what_was_closed_meanwhile(world: World) -> None:
    body, paused = world.body(), asyncio.Event()
    world.gateway.after["create"] = [paused]
    stale = asyncio.create_task(world.post("", body))
    await until(lambda: world.gateway.sessions, what="the session at the gateway")
    await world.forget_leases()
    assert (await world.close(body["payment_id"]))["status"] == "canceled"
    paused.set()
    woken = await stale
    assert woken.json()["status"] == "canceled"
    assert woken.json()["next_action"] is None
    assert world.gateway.payable == []


async def test_a_stale_holders_failure_does_not_undo_what_its_successor_learnt(world: World) -> None:
    body, paused = world.body(), asyncio.Event()
    world.gateway.before["create"] = [paused]
    world.gateway.after["create"] = [says(400, {"error": {"code": "no"}})]
    stale = asyncio.create_task(world.post("", body))
    await until(lambda: world.gateway.calls, what="the call at the gateway")
    await world.forget_leases()
    no_trouble = asyncio.Event()
    no_trouble.set()
    world.gateway.after["create"].insert(0, no_trouble)
    assert (await world.post("", body)).status_code == 200
    paused.set()
    assert (await stale).status_code == 502
    assert (await world.see(body["payment_id"]))["attempts"][0]["status"] == "open"


async def test_a_rejected_creation_may_be_tried_again_under_a_new_key(world: World) -> None:
    body = world.body()
    world.gateway.before["create"] = [says(400, {"error": {"code": "currency_not_supported"}})]
    answer = await world.post("", body)
    assert (answer.status_code, answer.json()["code"]) == (502, "gateway_rejected")
    assert (await world.post("", body)).status_code == 200
    keys = {row["idempotency_key"] for row in await world.rows("SELECT idempotency_key FROM payment_attempts")}
    assert len(keys) == 2


async def test_a_refused_api_key_fails_no_payment(world: World) -> None:
    body = world.body()
    world.gateway.before["create"] = [says(401, "who are you?")]
    assert (await world.post("", body)).json()["code"] == "gateway_unavailable"
    assert (await world.see(body["payment_id"]))["status"] == "created"
    assert (await world.post("", body)).status_code == 200


async def test_a_page_that_could_not_be_opened_for_long_gets_a_new_time_to_live(build_world: BuildWorld) -> None:
    clock = FakeClock(auto_advance=True)
    world = await build_world(clock=clock)
    body = world.body(expires_at="2026-01-02T03:30:00Z")
    world.gateway.before["create"] = [httpx.ConnectError("refused") for _ in range(3)]
    await world.post("", body)
    clock.move(20 * 60)
    answer = await world.post("", body)
    assert answer.status_code == 200
    assert answer.json()["attempts"][0]["expires_at"] > "2026-01-02T03:55"
    assert len(world.gateway.sessions) == 1


async def test_a_page_that_has_become_too_short_by_being_repeated_is_replaced_in_the_same_call(
    build_world: BuildWorld,
) -> None:
    clock = FakeClock(auto_advance=True)
    world = await build_world(clock=clock)
    body = world.body(expires_at="2026-01-02T03:30:00Z")
    world.gateway.before["create"] = [httpx.ReadTimeout("late") for _ in range(3)]
    await world.post("", body)
    assert await world.rows("SELECT status FROM payment_attempts") == [{"status": "unknown"}]
    clock.move(20 * 60)
    world.gateway.before["create"] = [says(400, {"error": {"code": "expires_too_soon"}})]
    answer = await world.post("", body)
    assert answer.status_code == 200
    rows = await world.rows("SELECT status FROM payment_attempts ORDER BY created_at")
    assert [row["status"] for row in rows] == ["rejected", "open"]
    assert len(world.gateway.sessions) == 1


async def test_a_creation_whose_commit_was_not_answered_is_repeated_without_a_wait(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first attempt was about to be sent, says its row, and never was."""
    body, database = world.body(), world.container.database
    really_begin = database.begin

    @asynccontextmanager
    async def unanswered() -> AsyncIterator[Any]:
        monkeypatch.setattr(database, "begin", really_begin)
        async with really_begin() as connection:
            yield connection
        raise DatabaseUnavailable

    monkeypatch.setattr(database, "begin", unanswered)
    assert (await world.post("", body)).status_code == 503
    assert await world.rows("SELECT status, leased_until FROM payment_attempts") == [
        {"status": "created", "leased_until": None}
    ]
    assert world.gateway.calls == []
    assert (await world.post("", body)).status_code == 200
    assert len(world.gateway.sessions) == 1


async def test_paid_before_its_session_was_confirmed_is_answered_as_paid(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not as ended: a caller that is told so would make the shopper pay again."""
    body = world.body()
    world.gateway.after["create"] = [httpx.ReadTimeout("late") for _ in range(3)]
    await world.post("", body)
    await world.receive(
        world.webhook({"payment_id": body["payment_id"], "gateway_reference": world.gateway.payable[0]})
    )
    answer = await world.post("", body)
    assert (answer.status_code, answer.json()["status"]) == (200, "captured")
    assert answer.json()["next_action"] is None
    assert (await world.close(body["payment_id"]))["status"] == "captured"


@pytest.mark.parametrize("status", ["failed", "expired", "canceled"])
async def test_an_ended_payment_shows_its_end_and_no_page(world: World, status: str) -> None:
    payment = await world.opened()
    await world.receive(world.webhook(payment, status))
    seen = await world.see(payment["payment_id"])
    assert (seen["status"], seen["next_action"], seen["is_final"]) == (status, None, True)


async def test_a_payment_that_ended_before_it_was_opened_is_not_opened(world: World) -> None:
    body = world.body()
    world.gateway.before["create"] = [httpx.ConnectError("refused") for _ in range(3)]
    await world.post("", body)
    assert (await world.close(body["payment_id"]))["status"] == "canceled"
    answer = await world.post("", body)
    assert (answer.status_code, answer.json()["code"]) == (409, "payment_ended")
    assert world.gateway.sessions == {}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"gateway": "paypal"}, "gateway_not_enabled"),
        ({"gateway": "stripe", "amount": {"amount_minor": 5124, "currency": "KWD"}}, "currency_not_supported"),
    ],
)
async def test_what_a_gateway_does_not_take_is_refused_before_any_row(
    build_world: BuildWorld, changes: dict[str, Any], code: str
) -> None:
    world = await build_world(stripe_api_key="sk_test_1")
    answer = await world.post("", world.body(**changes))
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert await world.rows("SELECT 1 FROM payments") == []
    assert await world.events() == []


async def test_a_page_whose_time_is_over_is_not_shown_again(world: World) -> None:
    """Some pages live for minutes, and the shopper comes back later: that payment ends, and another can be made."""
    body = world.body()
    await world.post("", body)
    await world.run("UPDATE payment_attempts SET session_expires_at = now() - interval '1 second'")
    answer = await world.post("", body)
    assert (answer.status_code, answer.json()["status"], answer.json()["next_action"]) == (200, "canceled", None)
    assert world.gateway.payable == []


async def test_a_page_whose_time_is_over_may_have_been_paid(world: World) -> None:
    body = world.body()
    payment = (await world.post("", body)).json()
    await world.run("UPDATE payment_attempts SET session_expires_at = now() - interval '1 second'")
    world.gateway.pays(payment["gateway_reference"])
    assert (await world.post("", body)).json()["status"] == "captured"


# --- closing -------------------------------------------------------------------------------------------------------


async def test_closing_an_open_session_closes_the_page_too(world: World) -> None:
    payment = await world.opened()
    closed = await world.close(payment["payment_id"])
    assert (closed["status"], closed["next_action"]) == ("canceled", None)
    assert world.gateway.payable == []
    assert (await world.close(payment["payment_id"])) == closed
    assert await world.event_types(payment["payment_id"]) == ["created", "requires_action", "canceled"]


async def test_closing_before_anything_was_sent_asks_nobody(world: World) -> None:
    body = world.body()
    world.gateway.before["create"] = [httpx.ConnectError("refused") for _ in range(3)]
    await world.post("", body)
    calls = len(world.gateway.calls)
    assert (await world.close(body["payment_id"]))["status"] == "canceled"
    assert len(world.gateway.calls) == calls


async def test_closing_after_an_unanswered_creation_finds_the_page_first(world: World) -> None:
    body = world.body()
    world.gateway.after["create"] = [httpx.ReadTimeout("late") for _ in range(3)]
    await world.post("", body)
    assert len(world.gateway.payable) == 1
    assert (await world.close(body["payment_id"]))["status"] == "canceled"
    assert world.gateway.payable == []


async def test_closing_while_the_session_is_being_opened_waits_for_it(world: World) -> None:
    body, held = world.body(), asyncio.Event()
    world.gateway.after["create"] = [held]
    opening_call = asyncio.create_task(world.post("", body))
    await until(lambda: world.gateway.sessions, what="the session at the gateway")
    closing = asyncio.create_task(world.close(body["payment_id"]))
    held.set()
    assert (await opening_call).status_code == 201
    assert (await closing)["status"] == "canceled"
    assert world.gateway.payable == []


@pytest.mark.parametrize(
    ("status", "seen"), [("completed", "captured"), ("processing", "processing"), ("failed", "failed")]
)
async def test_closing_what_is_no_longer_open_learns_what_became_of_it(world: World, status: str, seen: str) -> None:
    payment = await world.opened()
    world.gateway.pays(payment["gateway_reference"], status=status)
    assert (await world.close(payment["payment_id"]))["status"] == seen


async def test_what_cannot_be_closed_now_is_not_called_closed(world: World) -> None:
    payment = await world.opened()
    world.gateway.before["expire"] = [httpx.ReadTimeout("late") for _ in range(3)]
    answer = await world.post(f"/{payment['payment_id']}/close", {"reason": "order_expired"})
    assert answer.status_code == 503
    assert (await world.see(payment["payment_id"]))["status"] == "requires_action"


async def test_closing_and_paying_at_once_agree_with_the_gateway(world: World) -> None:
    for _ in range(10):
        payment = await world.opened()

        async def pay(reference: str = payment["gateway_reference"], about: dict[str, Any] = payment) -> None:
            if world.gateway.sessions[reference]["status"] == "open":
                world.gateway.pays(reference)
                await world.receive(world.webhook(about))

        await asyncio.gather(world.close(payment["payment_id"]), pay())
        at_gateway = world.gateway.sessions[payment["gateway_reference"]]["status"]
        seen = (await world.see(payment["payment_id"]))["status"]
        assert (at_gateway, seen) in [("completed", "captured"), ("expired", "canceled")]
