"""What is learnt from webhooks, returns and syncs: once, in any order, from anybody, and never lost."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from typing import Any

import httpx
import pytest

from services.payment_service.domain.models import ParkedStatus
from services.payment_service.gateways.port import Delivery, GatewayEvent
from services.payment_service.use_cases import apply_webhook as applying
from services.payment_service.use_cases.wake_parked import apply_one_ready, look_after_parked
from shared.unit_of_work import outside_transaction
from tests.integration.payment_service.conftest import BuildWorld, World
from tests.support.clock import FakeClock
from tests.support.waiting import until

STATE = """
    SELECT status, amount_authorized, amount_captured, failure_code, conflict
    FROM payments WHERE payment_id = :payment_id
"""
FACTS = "SELECT natural_key FROM payment_facts WHERE payment_id = :payment_id ORDER BY natural_key"


async def assert_contiguous(world: World, payment_id: str) -> None:
    events = await world.events(payment_id)
    assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
    versions = [event["data"]["version"] for event in events]
    assert versions == sorted(versions)
    assert versions[-1] == (await world.see(payment_id))["version"]


async def test_a_webhook_pays_once(world: World) -> None:
    payment = await world.opened()
    event = world.webhook(payment)
    await world.receive(event, message_id="evt_same")
    await world.receive(event, message_id="evt_same")
    await world.receive(world.webhook(payment), message_id="evt_other")  # W2: the same fact under another id

    seen = await world.see(payment["payment_id"])
    assert (seen["status"], seen["amount_captured"], seen["version"]) == ("captured", 1999, 3)
    assert await world.event_types(payment["payment_id"]) == ["created", "requires_action", "captured"]
    await assert_contiguous(world, payment["payment_id"])


async def test_a_message_that_was_handled_is_not_applied_again_whatever_it_says(world: World) -> None:
    payment = await world.opened()
    await world.receive(world.webhook(payment, "processing"), message_id="evt_same")
    await world.receive(world.webhook(payment, "failed"), message_id="evt_same")
    assert (await world.see(payment["payment_id"]))["status"] == "processing"


async def test_many_deliveries_at_once_pay_once(build_world: BuildWorld) -> None:
    world = await build_world(database_pool_size=24)  # one each: who waits for a connection for 2 s is refused
    payment = await world.opened()
    await asyncio.gather(
        *(world.receive(world.webhook(payment), message_id=f"evt_{number % 10}") for number in range(24))
    )
    assert await world.event_types(payment["payment_id"]) == ["created", "requires_action", "captured"]
    await assert_contiguous(world, payment["payment_id"])


async def test_webhook_return_and_sync_at_once_are_one_transition(world: World) -> None:
    for _ in range(5):
        payment = await world.opened()
        world.gateway.pays(payment["gateway_reference"])
        path = f"/api/v1/payments/{payment['payment_id']}/return"
        await asyncio.gather(
            world.receive(world.webhook(payment)),
            world.http.get(path),
            world.sync(payment["payment_id"]),
            world.sync(payment["payment_id"]),
            world.receive(world.webhook(payment)),
            world.close(payment["payment_id"]),
        )
        assert await world.event_types(payment["payment_id"]) == ["created", "requires_action", "captured"]
        facts = await world.rows(FACTS, payment_id=payment["payment_id"])
        assert len(facts) == 2
        await assert_contiguous(world, payment["payment_id"])


def the_story_of(world: World, payment: dict[str, Any]) -> list[Any]:
    return [
        world.webhook(payment, "processing"),
        world.webhook(payment, "failed", failure_code="card_declined"),
        world.webhook(payment, "failed"),
        world.webhook(payment, "failed", failure_code="expired_card"),
        world.webhook(payment, "canceled"),
        world.webhook(payment, "expired"),
        world.webhook(payment, "authorized"),
        world.webhook(payment, "completed", amount="5.00"),
        world.webhook(payment, "completed"),
        world.webhook(payment, "completed", payment_id=None),
    ]


@pytest.mark.parametrize("without_money", [True, False])
async def test_two_hundred_webhooks_shuffled_and_repeated_give_what_a_sorted_run_gives(
    world: World, without_money: bool
) -> None:
    seeded = random.Random(7 + without_money)
    payments = [await world.opened() for _ in range(6)]
    for number, payment in enumerate(payments):
        story = the_story_of(world, payment)[: 6 if without_money else None]
        told = story if number == 0 else seeded.choices(story, k=200 // 5 - len(story)) + story
        if number:
            seeded.shuffle(told)
        for start in range(0, len(told), 8):
            await asyncio.gather(*(world.receive(event) for event in told[start : start + 8]))
        await assert_contiguous(world, payment["payment_id"])

    states = [await world.rows(STATE, payment_id=payment["payment_id"]) for payment in payments]
    assert all(state == states[0] for state in states)
    assert states[0][0]["status"] == ("canceled" if without_money else "captured")


@pytest.mark.parametrize(
    ("changes", "conflict"),
    [
        ({"amount": "19.98"}, "amount_too_low"),
        ({"amount": "20.00"}, "amount_too_high"),
        ({"amount": "0.00"}, "amount_too_low"),
        ({"amount": "-19.99"}, "amount_too_low"),
        ({"currency": "USD"}, "currency_mismatch"),
        ({"amount": "999999999999.99"}, "amount_too_high"),
    ],
)
async def test_an_amount_that_is_not_ours_is_held_and_never_paid(
    world: World, changes: dict[str, Any], conflict: str
) -> None:
    payment = await world.opened()
    await world.receive(world.webhook(payment, **changes))
    seen = await world.see(payment["payment_id"])
    assert (seen["status"], seen["conflict"]) == ("conflicted", conflict)
    assert await world.event_types(payment["payment_id"]) == ["created", "requires_action", "conflicted"]


@pytest.mark.parametrize("ended", ["failed", "expired", "canceled"])
async def test_money_after_the_end_wins_and_is_announced(world: World, ended: str) -> None:
    payment = await world.opened()
    await world.receive(world.webhook(payment, ended))
    await world.receive(world.webhook(payment))
    assert (await world.see(payment["payment_id"]))["status"] == "captured"
    events = await world.events(payment["payment_id"])
    assert [event["type"] for event in events][-2:] == ["payment.late_success.v1", "payment.captured.v1"]
    assert events[-2]["data"]["reason"] == f"after_{ended}"
    assert events[-1]["data"]["previous_status"] == ended
    await assert_contiguous(world, payment["payment_id"])


async def test_a_second_payment_of_the_same_order_is_marked(world: World) -> None:
    order_id = world.new_id("ord")
    payments = [await world.opened(order_id=order_id) for _ in range(3)]
    last_opened_first_paid, *others = reversed(payments)
    await world.receive(world.webhook(last_opened_first_paid))
    for payment in others:
        await world.receive(world.webhook(payment))
    seen = [(await world.see(payment["payment_id"]))["duplicate_of"] for payment in payments]
    assert seen == [last_opened_first_paid["payment_id"]] * 2 + [None]
    types = await world.event_types(payments[0]["payment_id"])
    assert types == ["created", "requires_action", "duplicate_detected", "captured"]


async def test_of_two_payments_that_succeed_at_once_one_is_the_duplicate(world: World) -> None:
    for _ in range(5):
        order_id = world.new_id("ord")
        first, second = [await world.opened(order_id=order_id) for _ in range(2)]
        await asyncio.gather(world.receive(world.webhook(first)), world.receive(world.webhook(second)))
        marks = [(await world.see(each["payment_id"]))["duplicate_of"] for each in (first, second)]
        assert sorted(marks, key=str) in ([None, first["payment_id"]], [None, second["payment_id"]]) or sorted(
            marks, key=str
        ) in ([first["payment_id"], None], [second["payment_id"], None])


# --- by which names a payment is found ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["payment_id", "order_id", "reference", "gateway_reference"])
async def test_a_payment_is_found_by_every_name_it_has(world: World, name: str) -> None:
    payment = await world.opened()
    names = payment | {"reference": payment["attempts"][0]["reference"]}
    body = {"transaction_id": names[name], "status": "completed", "amount": 19.99, "currency": "EUR"}
    await world.receive(world.delivery(body))
    assert (await world.see(payment["payment_id"]))["status"] == "captured"


async def test_the_gateways_reference_says_more_than_the_order(world: World) -> None:
    order_id = world.new_id("ord")
    older, newer = [await world.opened(order_id=order_id) for _ in range(2)]
    await world.receive(world.webhook(older, transaction_id=order_id))
    assert (await world.see(older["payment_id"]))["status"] == "captured"
    assert (await world.see(newer["payment_id"]))["status"] == "requires_action"


async def test_without_their_reference_and_before_the_session_is_known_the_gateway_is_asked(world: World) -> None:
    """Else the same money would be counted under two names."""
    body = world.body()
    world.gateway.after["create"] = [httpx.ReadTimeout("late") for _ in range(3)]
    await world.post("", body)
    reference = world.gateway.payable[0]
    world.gateway.pays(reference)
    await world.receive(world.webhook({"payment_id": body["payment_id"]}))
    await world.receive(world.webhook({"payment_id": body["payment_id"], "gateway_reference": reference}))
    await world.sync(body["payment_id"])
    seen = await world.see(body["payment_id"])
    assert (seen["status"], seen["amount_captured"]) == ("captured", 1999)


# --- hints ---------------------------------------------------------------------------------------------------------


def a_hint(world: World, payment: dict[str, Any], **changes: Any) -> Any:
    return world.webhook(payment, **changes).model_copy(update={"trust": "hint"})


async def test_a_hint_alone_never_moves_money(world: World) -> None:
    payment = await world.opened()
    await world.receive(a_hint(world, payment))
    assert (await world.see(payment["payment_id"]))["status"] == "requires_action"
    world.gateway.pays(payment["gateway_reference"])
    await world.receive(a_hint(world, payment, status="failed"))
    assert (await world.see(payment["payment_id"]))["status"] == "captured"


async def test_a_forged_hint_does_not_lend_one_payments_money_to_another(world: World) -> None:
    paid, unpaid = await world.opened(), await world.opened()
    world.gateway.pays(paid["gateway_reference"])
    await world.receive(a_hint(world, unpaid | {"gateway_reference": paid["gateway_reference"]}))
    await world.sync(unpaid["payment_id"])
    assert (await world.see(unpaid["payment_id"]))["status"] == "requires_action"


async def test_a_hint_about_a_session_not_confirmed_yet_leaves_no_foreign_reference(world: World) -> None:
    body, other = world.body(), await world.opened()
    world.gateway.before["create"] = [httpx.ConnectError("refused") for _ in range(3)]
    await world.post("", body)
    world.gateway.pays(other["gateway_reference"])
    forged = {"payment_id": body["payment_id"], "gateway_reference": other["gateway_reference"]}
    await world.receive(a_hint(world, forged))
    await world.sync(body["payment_id"])
    assert (await world.see(body["payment_id"]))["status"] == "created"


async def test_an_unknown_status_is_asked_about(world: World) -> None:
    payment = await world.opened()
    world.gateway.pays(payment["gateway_reference"])
    await world.receive(world.webhook(payment, "settled"))
    assert (await world.see(payment["payment_id"]))["status"] == "captured"


async def test_a_hint_is_not_used_up_while_the_gateway_cannot_be_asked(world: World) -> None:
    payment = await world.opened()
    world.gateway.pays(payment["gateway_reference"])
    world.gateway.before["retrieve"] = [httpx.ConnectError("refused") for _ in range(3)]
    hint = a_hint(world, payment)
    with pytest.raises(Exception, match="could not be reached"):
        await world.receive(hint, message_id="evt_hint")
    await world.receive(hint, message_id="evt_hint")
    assert (await world.see(payment["payment_id"]))["status"] == "captured"


# --- parking -------------------------------------------------------------------------------------------------------


async def apply_all_ready(world: World) -> int:
    applied = 0
    while await apply_one_ready(world.container.context):
        applied += 1
    return applied


@pytest.mark.parametrize("name", ["payment_id", "order_id"])
async def test_a_webhook_before_its_payment_is_parked_and_applied_by_its_creation(world: World, name: str) -> None:
    body = world.body()
    event = {"payment_id": "gp_early", "transaction_id": body[name], "status": "failed", "failure_code": "declined"}
    await world.receive(world.delivery(event))
    assert await world.parked() == ["waiting"]
    assert [each["type"] for each in await world.events()] == ["webhook.parked.v1"]

    await world.post("", body)
    assert await world.parked() == ["ready"]
    assert await apply_all_ready(world) == 1
    assert (await world.see(body["payment_id"]))["status"] == "failed"
    assert await world.parked() == ["applied"]


async def test_a_webhook_that_knows_only_the_session_is_woken_by_its_recording(world: World) -> None:
    body, held = world.body(), asyncio.Event()
    world.gateway.after["create"] = [held]
    call = asyncio.create_task(world.post("", body))
    await until(lambda: world.gateway.sessions, what="the session at the gateway")
    reference = world.gateway.payable[0]
    await world.receive(world.webhook({"gateway_reference": reference}))
    assert await world.parked() == ["waiting"]
    held.set()
    await call
    assert await apply_all_ready(world) == 1
    assert (await world.see(body["payment_id"]))["status"] == "captured"


@pytest.mark.parametrize("trust", ["full", "hint"])
async def test_a_webhook_and_the_creation_of_its_payment_at_once_lose_nothing(world: World, trust: str) -> None:
    for _ in range(15):
        body = world.body()
        event = world.webhook({"payment_id": body["payment_id"]}, payment_id=f"gp_of_{body['payment_id']}")
        created, _ = await asyncio.gather(
            world.post("", body), world.receive(event.model_copy(update={"trust": trust}))
        )
        if trust == "hint":  # only asking makes it money
            world.gateway.pays(created.json()["gateway_reference"])
        await apply_all_ready(world)
        await world.sync(body["payment_id"])
        assert (await world.see(body["payment_id"]))["status"] == "captured"
    assert set(await world.parked()) <= {"applied"}


async def test_a_payment_that_appears_between_two_looks_is_not_missed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hint's payment is unknown when it is asked about, and created before it is parked."""
    body, real = world.body(), applying.ask_if_needed

    async def slowly(*arguments: Any) -> Any:
        answer = await real(*arguments)
        monkeypatch.setattr(applying, "ask_if_needed", real)
        await world.post("", body)
        return answer

    monkeypatch.setattr(applying, "ask_if_needed", slowly)
    await world.receive(a_hint(world, {"payment_id": body["payment_id"], "gateway_reference": "gp_unknown"}))
    assert await world.parked() == ["ready"]
    world.gateway.pays(world.gateway.payable[0])
    await apply_all_ready(world)
    assert (await world.see(body["payment_id"]))["status"] == "captured"


async def test_two_transactions_interleaved_by_hand_miss_nothing(world: World) -> None:
    """The parking transaction has looked and not parked yet while the creation commits: it waits, then sees it."""
    body, context = world.body(), world.container.context
    known_as = (body["payment_id"],)
    async with context.uow() as parking:
        await parking.parked.lock_references("generic", known_as)
        with outside_transaction():
            creation = asyncio.create_task(world.post("", body))
        await until_waiting_for_a_lock(world)
        assert await parking.payments.find("generic", (), known_as) is None
        webhook = applying.Webhook.from_event(world.webhook({"payment_id": body["payment_id"]}, "failed"))
        await parking.parked.add(applying._parked(webhook, known_as, ParkedStatus.WAITING, context))
    assert (await creation).status_code == 201
    assert await world.parked() == ["ready"]


async def until_waiting_for_a_lock(world: World) -> None:
    sql = "SELECT 1 FROM pg_locks WHERE NOT granted AND locktype = 'advisory'"

    async def waits() -> bool:
        return bool(await world.rows(sql))

    await until(waits, what="the other transaction waiting for the lock")


@pytest.mark.parametrize("payload", ["", "not json", "[]", '{"status": "completed"}', '{"a":1,"a":2}'])
async def test_what_cannot_be_read_is_kept_for_a_person(world: World, payload: str) -> None:
    await world.receive(world.delivery(payload), message_id="evt_bad")
    await world.receive(world.delivery(payload), message_id="evt_bad")
    assert await world.parked() == ["unreadable"]
    assert await apply_all_ready(world) == 0


async def test_a_webhook_of_a_gateway_that_is_not_enabled_is_let_go(world: World) -> None:
    await world.receive(world.delivery({"id": "evt_1"}, gateway="stripe"))
    assert await world.parked() == []


async def test_what_nobody_claims_is_given_to_a_person_and_still_woken_later(world: World) -> None:
    body = world.body()
    await world.receive(world.webhook({"payment_id": body["payment_id"]}, "failed", payment_id="gp_early"))
    await look_after_parked(world.container.context, deadline=timedelta(hours=1))
    assert await world.parked() == ["waiting"]
    await look_after_parked(world.container.context, deadline=timedelta(seconds=-60))
    assert await world.parked() == ["unclaimed"]

    await world.post("", body)
    assert await apply_all_ready(world) == 1
    assert (await world.see(body["payment_id"]))["status"] == "failed"


async def test_a_wake_up_that_was_missed_is_made_up_for(world: World) -> None:
    payment = await world.opened()
    await world.receive(world.webhook({"gateway_reference": "gp_other"}))
    values = {"payment_id": payment["payment_id"]}
    await world.run("INSERT INTO payment_references VALUES ('generic', 'gp_other', :payment_id)", **values)
    await look_after_parked(world.container.context, deadline=timedelta(hours=1))
    assert await world.parked() == ["ready"]


async def test_a_parked_event_whose_gateway_cannot_be_asked_does_not_hold_up_the_others(world: World) -> None:
    stuck, fine = world.body(), world.body()
    await world.receive(a_hint(world, {"payment_id": stuck["payment_id"]}))
    await world.receive(world.webhook({"payment_id": fine["payment_id"]}, "failed", payment_id="gp_fine"))
    reference = (await world.post("", stuck)).json()["gateway_reference"]
    await world.post("", fine)
    world.gateway.pays(reference)

    world.gateway.before["retrieve"] = [httpx.ConnectError("refused") for _ in range(3)]
    await apply_all_ready(world)
    assert (await world.see(fine["payment_id"]))["status"] == "failed"
    assert (await world.see(stuck["payment_id"]))["status"] == "requires_action"
    await look_after_parked(world.container.context, deadline=timedelta(hours=1))
    await apply_all_ready(world)
    assert (await world.see(stuck["payment_id"]))["status"] == "captured"


async def test_a_parked_event_of_a_gateway_switched_off_since_does_not_hold_up_the_others(
    build_world: BuildWorld,
) -> None:
    before = await build_world()
    body = before.body()
    await before.receive(before.webhook({"payment_id": body["payment_id"]}, "failed", payment_id="gp_1"))
    await before.post("", body)
    after = await build_world(generic_api_base=None)
    assert await apply_one_ready(after.container.context)
    assert await after.parked() == ["waiting"]
    assert not await apply_one_ready(after.container.context)


async def test_a_parked_event_that_breaks_us_is_set_aside_and_does_not_hold_up_the_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, fine = world.body(), world.body()
    for body, status in ((broken, "expired"), (fine, "failed")):
        await world.receive(world.webhook({"payment_id": body["payment_id"]}, status, payment_id=f"gp_{status}"))
        await world.post("", body)
    adapter = world.container.gateways.adapters["generic"]
    translate = adapter.translate_webhook

    def stumble(delivery: Delivery) -> GatewayEvent:
        if "gp_expired" in delivery.payload:
            raise ZeroDivisionError
        return translate(delivery)

    monkeypatch.setattr(adapter, "translate_webhook", stumble)
    await apply_all_ready(world)
    assert await world.parked() == ["unreadable", "applied"]
    assert (await world.see(fine["payment_id"]))["status"] == "failed"


async def test_two_workers_apply_a_parked_event_once(build_world: BuildWorld) -> None:
    worlds = [await build_world() for _ in range(2)]
    body = worlds[0].body()
    await worlds[0].receive(worlds[0].webhook({"payment_id": body["payment_id"]}, payment_id="gp_1"))
    await worlds[0].post("", body)
    await asyncio.gather(*(apply_one_ready(each.container.context) for each in worlds * 2))
    types = await worlds[0].event_types(body["payment_id"])
    assert types.count("captured") == 1


# --- asking --------------------------------------------------------------------------------------------------------


async def test_a_gateway_that_does_not_know_the_payment_yet_changes_nothing(world: World) -> None:
    payment = await world.opened()
    sessions = dict(world.gateway.sessions)
    world.gateway.sessions.clear()
    assert not (await world.sync(payment["payment_id"]))["changed"]
    world.gateway.sessions.update(sessions)
    world.gateway.pays(payment["gateway_reference"])
    synced = await world.sync(payment["payment_id"])
    assert (synced["changed"], synced["status"]) == (True, "captured")
    assert not (await world.sync(payment["payment_id"]))["changed"]


async def test_a_manual_capture_is_held_until_it_is_taken(world: World) -> None:
    payment = await world.opened(capture="manual")
    await world.receive(world.webhook(payment, "authorized"))
    held = await world.see(payment["payment_id"])
    assert (held["status"], held["amount_authorized"], held["amount_captured"]) == ("authorized", 1999, 0)
    await world.receive(world.webhook(payment, "completed"))
    assert (await world.see(payment["payment_id"]))["amount_captured"] == 1999


async def test_a_tolerance_that_is_set_is_kept_with_the_payment(build_world: BuildWorld) -> None:
    lenient = await build_world(amount_mismatch_policy="accept", amount_mismatch_tolerance_minor=5)
    strict = await build_world(clock=FakeClock())
    payment = await lenient.opened()
    await strict.receive(strict.webhook(payment, amount="19.95"))
    assert (await lenient.see(payment["payment_id"]))["status"] == "captured"
