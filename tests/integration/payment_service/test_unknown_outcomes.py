"""Sent and not answered is not failed: one protocol for every gateway, on a real database (design.md §4)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from services.payment_service.domain.models import FactKind, Observation
from services.payment_service.gateways.port import OutcomeStatus
from services.payment_service.use_cases import drive_operation
from services.payment_service.use_cases.record_call import Held
from services.payment_service.use_cases.run_operations import run_one_due
from shared.money import Money
from tests.integration.payment_service.conftest import BuildWorld
from tests.integration.payment_service.fake_money import ORDERED, Do, FakeMoney, Shop, open_shop
from tests.support.waiting import until

KINDS = ["capture", "void", "refund"]


async def asked(shop: Shop, kind: str) -> tuple[str, dict[str, Any], int]:
    """The payment, the operation as it was answered, and the status of the answer."""
    payment_id = await (shop.captured() if kind == "refund" else shop.held())
    answer = await getattr(shop, kind)(payment_id)
    return payment_id, answer.json(), answer.status_code


def work_of(shop: Shop, payment_id: str, kind: str) -> int:
    """How much of it is in the gateway's books."""
    account = shop.account(payment_id)
    return {"capture": account.captured, "void": int(account.is_held_no_more is not None) * account.held}.get(
        kind, account.refunded
    )


@pytest.mark.parametrize("kind", KINDS)
async def test_a_lost_answer_is_looked_for_and_adopted(build_world: BuildWorld, kind: str) -> None:
    """RF5: and not sent again, under no key."""
    shop = await open_shop(build_world)
    shop.gateway.will(kind, Do.LOSE_AFTER)
    payment_id, made, status = await asked(shop, kind)
    assert (status, made["status"], made["outcome_known"]) == (202, "unknown", False)
    assert (await shop.ask(f"payments/{payment_id}")).json()["outcome_unknown"] is True
    assert (await shop.events(payment_id))["outcome_unknown"] == 1

    await shop.later(1)
    assert await shop.run_due() == 1
    assert await shop.statuses(payment_id) == ["succeeded"]
    assert len(shop.gateway.called(kind)) == 1
    assert work_of(shop, payment_id, kind) == ORDERED
    events = await shop.events(payment_id)
    assert (events["outcome_unknown"], events["outcome_resolved"]) == (1, 1)
    assert (await shop.ask(f"payments/{payment_id}")).json()["outcome_unknown"] is False
    await shop.assert_books_agree(payment_id)
    await shop.settle_down(hours=30)
    assert len(shop.gateway.called(kind)) == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_that_was_lost_on_its_way_is_sent_again_under_its_key(build_world: BuildWorld, kind: str) -> None:
    shop = await open_shop(build_world)
    shop.gateway.will(kind, Do.LOSE_BEFORE, Do.LOSE_BEFORE)
    payment_id, made, status = await asked(shop, kind)
    assert (status, made["status"]) == (202, "unknown")
    await shop.settle_down()
    assert await shop.statuses(payment_id) == ["succeeded"]
    keys = shop.gateway.called(kind)
    assert len(keys) == 3
    assert len(set(keys)) == 1
    assert work_of(shop, payment_id, kind) == ORDERED
    # Not known in between, whatever is under way: one event says so, one says that it is over.
    events = await shop.events(payment_id)
    assert (events["outcome_unknown"], events["outcome_resolved"]) == (1, 1)


async def test_while_it_is_unknown_its_reservation_stays(build_world: BuildWorld) -> None:
    shop = await open_shop(build_world)
    shop.gateway.will("refund", Do.LOSE_AFTER)
    payment_id, _, _ = await asked(shop, "refund")
    assert (await shop.totals(payment_id))["refund_pending"] == ORDERED
    other = await shop.refund(payment_id, 1, key="a-key-of-the-merchant-0002")
    assert (other.status_code, other.json()["code"]) == (409, "refund_exceeds_captured")


async def test_no_void_while_a_capture_is_unknown(build_world: BuildWorld) -> None:
    """RF17."""
    shop = await open_shop(build_world)
    shop.gateway.will("capture", Do.LOSE_AFTER)
    payment_id, _, _ = await asked(shop, "capture")
    refused = await shop.void(payment_id, key="a-key-of-the-merchant-0002")
    assert (refused.status_code, refused.json()["code"]) == (409, "operation_in_progress")
    assert int(refused.headers["retry-after"]) >= 1
    assert shop.gateway.called("void") == []
    await shop.later(1)
    await shop.run_due()
    refused = await shop.void(payment_id, key="a-key-of-the-merchant-0002")
    assert (refused.status_code, refused.json()["code"]) == (409, "payment_not_capturable")


@pytest.mark.parametrize("kind", KINDS)
async def test_what_never_reached_the_gateway_is_sent_by_the_runner(build_world: BuildWorld, kind: str) -> None:
    shop = await open_shop(build_world)
    shop.gateway.will(kind, Do.UNAVAILABLE, Do.UNAVAILABLE)
    payment_id, made, status = await asked(shop, kind)
    assert (status, made["status"], made["outcome_known"]) == (202, "pending", True)
    await shop.later(1)
    assert await shop.run_due() == 1
    assert await shop.statuses(payment_id) == ["pending"]
    await shop.later(2)
    await shop.run_due()
    assert await shop.statuses(payment_id) == ["succeeded"]
    assert shop.gateway.called("find") == []  # there was nothing to look for
    assert (await shop.events(payment_id))["outcome_unknown"] == 0


async def test_what_never_reached_the_gateway_is_given_up_after_a_day(build_world: BuildWorld) -> None:
    shop = await open_shop(build_world)
    shop.gateway.will("refund", *[Do.UNAVAILABLE] * 5000)
    payment_id, _, _ = await asked(shop, "refund")
    await shop.settle_down(hours=23)
    assert await shop.statuses(payment_id) == ["pending"]
    await shop.settle_down(hours=2)
    ((row),) = await shop.operations(payment_id)
    assert (row["status"], row["failure_code"], row["next_look_at"]) == ("canceled", "never_sent", None)
    assert "refund_pending" not in await shop.totals(payment_id)
    assert (await shop.events(payment_id))["refund.failed"] == 1
    shop.gateway.script.clear()
    again = await shop.refund(payment_id, key="a-key-of-the-merchant-0002")
    assert again.json()["status"] == "succeeded"


async def test_a_key_that_only_replays_a_failure_is_replaced_on_proof(build_world: BuildWorld) -> None:
    shop = await open_shop(build_world)
    shop.gateway.will("refund", Do.USE_UP_KEY)
    payment_id, made, status = await asked(shop, "refund")
    assert (status, made["status"]) == (202, "pending")
    await shop.later(1)
    await shop.run_due()
    first, second = shop.gateway.called("refund")
    assert second == f"{first}-2"
    assert await shop.statuses(payment_id) == ["succeeded"]
    await shop.assert_books_agree(payment_id)


async def test_a_gateway_that_fails_under_every_key_fails_it(build_world: BuildWorld) -> None:
    shop = await open_shop(build_world)
    shop.gateway.will("refund", *[Do.USE_UP_KEY] * 50)
    payment_id, _, _ = await asked(shop, "refund")
    await shop.settle_down(hours=3)
    assert await shop.statuses(payment_id) == ["failed"]
    assert len(set(shop.gateway.called("refund"))) == len(shop.gateway.called("refund")) == 5


def keyless() -> FakeMoney:
    gateway = FakeMoney()
    gateway.facts = replace(gateway.facts, key_valid_for=None)
    return gateway


async def test_without_keys_nothing_is_sent_again_before_absence_proves_something(build_world: BuildWorld) -> None:
    shop = await open_shop(build_world, keyless())
    shop.gateway.will("refund", Do.LOSE_BEFORE)
    payment_id, _, _ = await asked(shop, "refund")
    for _ in range(4):
        await shop.later(60)
        await shop.run_due()
    assert await shop.statuses(payment_id) == ["unknown"]
    assert len(shop.gateway.called("refund")) == 1
    await shop.settle_down()
    assert await shop.statuses(payment_id) == ["succeeded"]
    assert len(shop.gateway.called("refund")) == 2


async def test_a_list_that_lags_does_not_refund_twice(build_world: BuildWorld) -> None:
    shop = await open_shop(build_world, keyless())
    shop.gateway.will("refund", Do.LOSE_AFTER)
    shop.gateway.will("find", Do.FAIL, Do.FAIL, Do.FAIL)
    payment_id, _, _ = await asked(shop, "refund")
    for _ in range(3):
        await shop.later(15)
        await shop.run_due()
    await shop.settle_down()
    assert await shop.statuses(payment_id) == ["succeeded"]
    assert len(shop.gateway.called("refund")) == 1
    await shop.assert_books_agree(payment_id)


async def test_absence_frees_the_reservation_after_a_day_and_no_sooner(build_world: BuildWorld) -> None:
    shop = await open_shop(build_world, keyless())
    shop.gateway.will("refund", *[Do.LOSE_BEFORE] * 5000)
    payment_id, _, _ = await asked(shop, "refund")
    await shop.settle_down(hours=23)
    assert await shop.statuses(payment_id) == ["unknown"]
    await shop.settle_down(hours=8)
    ((row),) = await shop.operations(payment_id)
    assert (row["status"], row["failure_code"]) == ("failed", "never_arrived")
    assert "refund_pending" not in await shop.totals(payment_id)


@pytest.mark.parametrize("trouble", [Do.REJECT, Do.UNAVAILABLE, Do.LOSE_BEFORE])
async def test_a_look_that_is_refused_or_fails_proves_nothing(build_world: BuildWorld, trouble: Do) -> None:
    """Credentials that were revoked meanwhile must not free what an unanswered call may have taken."""
    shop = await open_shop(build_world)
    shop.gateway.will("refund", Do.LOSE_AFTER, *[Do.REJECT] * 100)
    shop.gateway.will("find", *[trouble] * 100)
    payment_id, _, _ = await asked(shop, "refund")
    await shop.settle_down(hours=40)
    assert await shop.statuses(payment_id) == ["unknown"]
    assert len(shop.gateway.called("refund")) == 1
    shop.gateway.script.clear()
    await shop.settle_down()
    assert await shop.statuses(payment_id) == ["succeeded"]
    await shop.assert_books_agree(payment_id)


async def test_a_refusal_of_the_repeated_call_is_believed_only_after_a_look(build_world: BuildWorld) -> None:
    shop = await open_shop(build_world)
    shop.gateway.will("refund", Do.LOSE_AFTER, Do.REJECT)
    shop.gateway.will("find", Do.FAIL)
    payment_id, _, _ = await asked(shop, "refund")
    await shop.settle_down()
    assert await shop.statuses(payment_id) == ["succeeded"]
    await shop.assert_books_agree(payment_id)


async def test_a_refusal_of_the_repeated_call_is_not_believed_while_the_list_may_lag(build_world: BuildWorld) -> None:
    """RF5: the first call has run; "refused" to the second and "nothing there" in the same second prove nothing."""
    shop = await open_shop(build_world)
    shop.gateway.will("refund", Do.LOSE_AFTER, Do.REJECT)
    shop.gateway.will("find", Do.FAIL, Do.FAIL)
    payment_id, _, _ = await asked(shop, "refund")
    await shop.later(1)
    await shop.run_due()
    assert await shop.statuses(payment_id) == ["unknown"]
    assert (await shop.totals(payment_id))["refund_pending"] == ORDERED
    await shop.settle_down()
    assert await shop.statuses(payment_id) == ["succeeded"]
    await shop.assert_books_agree(payment_id)


async def test_a_driver_that_paused_before_the_call_does_not_make_it(
    build_world: BuildWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PY18: its lease might end under the call, and another would send it beside."""
    shop = await open_shop(build_world)
    really_load = drive_operation._load

    async def paused(*args: Any, **kwargs: Any) -> Held:
        held = await really_load(*args, **kwargs)
        await shop.later(20)
        return held

    with monkeypatch.context() as slow:
        slow.setattr(drive_operation, "_load", paused)
        payment_id, made, status = await asked(shop, "refund")
    assert (status, made["status"]) == (202, "pending")
    assert shop.gateway.called("refund") == []
    await shop.settle_down()
    assert await shop.statuses(payment_id) == ["succeeded"]
    assert len(shop.gateway.called("refund")) == 1
    await shop.assert_books_agree(payment_id)


async def test_a_request_that_lost_its_lease_before_its_first_call_does_not_make_it(
    build_world: BuildWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PY18: without keys the call of whoever took it over, and this one, would be two refunds."""
    shop = await open_shop(build_world, keyless())
    shop.gateway.will("find", Do.FAIL)
    shop.gateway.will("refund", Do.LOSE_AFTER)
    really_load = drive_operation._load

    async def overtaken(*args: Any, **kwargs: Any) -> Held:
        monkeypatch.setattr(drive_operation, "_load", really_load)
        await shop.later(400)
        assert await run_one_due(shop.context)
        return await really_load(*args, **kwargs)

    monkeypatch.setattr(drive_operation, "_load", overtaken)
    payment_id, made, status = await asked(shop, "refund")
    assert (status, made["status"]) == (202, "unknown")
    assert len(shop.gateway.called("refund")) == 1
    await shop.settle_down()
    assert await shop.statuses(payment_id) == ["succeeded"]
    await shop.assert_books_agree(payment_id)


async def test_what_is_heard_during_a_look_is_not_put_off_by_its_end(build_world: BuildWorld) -> None:
    """RF9: a refund that names nobody may be ours. It asks for another look, and at once."""
    gateway = keyless()
    gateway.echoes = False
    shop = await open_shop(build_world, gateway)
    gateway.will("refund", Do.LOSE_AFTER)
    payment_id, _, _ = await asked(shop, "refund")
    await shop.later(1)
    looked, taken = asyncio.Event(), asyncio.Event()
    gateway.will("find", looked, Do.FAIL)
    looking = asyncio.create_task(run_one_due(shop.context, taken=taken.set))
    await until(lambda: gateway.called("find"), what="the look")
    assert taken.is_set(), "the other runners hear of it only when the gateway has answered"
    await shop.later(1)
    await shop.tell(payment_id, gateway.of_refund(shop.account(payment_id).refunds[0]))
    looked.set()
    assert await looking
    await shop.run_due()
    assert await shop.statuses(payment_id) == ["succeeded"]


async def test_what_was_given_up_and_turns_up_at_the_gateway_is_followed_again(build_world: BuildWorld) -> None:
    shop = await open_shop(build_world)
    shop.gateway.will("refund", *[Do.UNAVAILABLE] * 5000)
    payment_id, _, _ = await asked(shop, "refund")
    await shop.settle_down(hours=26)
    assert await shop.statuses(payment_id) == ["canceled"]
    (row,) = await shop.operations(payment_id)
    late = Observation(
        FactKind.REFUND_PENDING, "re_1", Money(ORDERED, "EUR"), about=row["target"], operation=row["reference"]
    )
    await shop.tell(payment_id, late)
    (row,) = await shop.operations(payment_id)
    assert (row["status"], row["settled_at"]) == ("submitted", None)
    assert row["next_look_at"] is not None


async def test_an_approval_is_not_completed_once_the_payment_has_ended(build_world: BuildWorld) -> None:
    """PY8: the shopper approved, the gateway was away, and the session has ended meanwhile."""
    shop = await open_shop(build_world)
    payment_id = await shop.opened()
    shop.account(payment_id).is_approved = True
    shop.gateway.will("complete", Do.UNAVAILABLE)
    await shop.sync(payment_id)
    assert await shop.statuses(payment_id) == ["pending"]
    await shop.tell(payment_id, Observation(FactKind.EXPIRED, shop.account(payment_id).reference))
    assert (await shop.ask(f"payments/{payment_id}")).json()["status"] == "expired"
    await shop.settle_down()
    assert await shop.statuses(payment_id) == ["canceled"]
    assert shop.account(payment_id).captured == 0


async def test_what_is_only_held_is_taken_once_the_shopper_has_agreed(build_world: BuildWorld) -> None:
    """Where a gateway holds what was to be taken at once, and waits for us (Tabby)."""
    shop = await open_shop(build_world)
    payment_id = await shop.opened()
    account = shop.account(payment_id)
    account.is_approved, account.held = True, ORDERED
    shop.gateway.will("complete", Do.UNAVAILABLE)
    await shop.sync(payment_id)
    assert (await shop.ask(f"payments/{payment_id}")).json()["status"] == "authorized"
    beside = await shop.capture(payment_id)
    assert (beside.status_code, beside.json()["code"]) == (409, "operation_in_progress")
    await shop.settle_down()
    assert await shop.statuses(payment_id) == ["succeeded"]
    assert account.captured == ORDERED
    await shop.assert_books_agree(payment_id)


@pytest.mark.parametrize("column", ["given_up_at", "duplicate_of"])
async def test_what_is_held_and_wanted_by_nobody_is_not_taken(build_world: BuildWorld, column: str) -> None:
    shop = await open_shop(build_world)
    payment_id = await shop.opened()
    account = shop.account(payment_id)
    account.is_approved, account.held = True, ORDERED
    shop.gateway.will("complete", Do.UNAVAILABLE)
    await shop.sync(payment_id)
    value = "now()" if column == "given_up_at" else "'pay_other'"
    await shop.world.run(f"UPDATE payments SET {column} = {value}")
    await shop.settle_down()
    assert await shop.statuses(payment_id) == ["canceled"]
    assert account.captured == 0


async def test_a_repetition_that_does_not_arrive_leaves_the_first_call_unknown(build_world: BuildWorld) -> None:
    """Were it taken for never sent, its reservation would be freed after a day, though the first call has run."""
    shop = await open_shop(build_world)
    shop.gateway.will("refund", Do.LOSE_AFTER, *[Do.UNAVAILABLE] * 1000)
    shop.gateway.will("find", Do.FAIL, *[Do.UNAVAILABLE] * 1000)
    payment_id, _, _ = await asked(shop, "refund")
    await shop.settle_down(hours=30)
    assert await shop.statuses(payment_id) == ["unknown"]
    assert (await shop.totals(payment_id))["refund_pending"] == ORDERED
    shop.gateway.script.clear()
    await shop.settle_down(hours=2)
    assert await shop.statuses(payment_id) == ["succeeded"]
    events = await shop.events(payment_id)
    assert events["outcome_resolved"] == 1
    await shop.assert_books_agree(payment_id)


async def test_a_person_is_called_once_and_the_asking_goes_on(build_world: BuildWorld) -> None:
    gateway = FakeMoney()
    gateway.facts = replace(gateway.facts, unknown_horizon=timedelta(hours=12), key_valid_for=None)
    shop = await open_shop(build_world, gateway)
    gateway.will("refund", Do.LOSE_AFTER)
    gateway.will("find", *[Do.LOSE_BEFORE] * 5000)
    payment_id, _, _ = await asked(shop, "refund")
    await shop.settle_down(hours=11)
    assert (await shop.events(payment_id))["outcome_unknown"] == 1
    await shop.settle_down(hours=48)
    assert await escalations(shop, payment_id) == 1
    assert await shop.statuses(payment_id) == ["unknown"]
    gateway.script.clear()
    await shop.settle_down(hours=2)
    assert await shop.statuses(payment_id) == ["succeeded"]


async def test_a_person_is_called_though_the_key_lets_us_go_on(build_world: BuildWorld) -> None:
    gateway = FakeMoney()
    gateway.facts = replace(gateway.facts, unknown_horizon=timedelta(hours=12))
    shop = await open_shop(build_world, gateway)
    gateway.will("refund", *[Do.LOSE_BEFORE] * 5000)
    payment_id, _, _ = await asked(shop, "refund")
    await shop.settle_down(hours=15)
    assert await escalations(shop, payment_id) == 1
    assert (await shop.events(payment_id))["outcome_resolved"] == 0


async def escalations(shop: Shop, payment_id: str) -> int:
    events = await shop.world.events(payment_id)
    return sum(event["data"].get("reason") == "refund_escalated" for event in events)


@pytest.mark.parametrize("ends", [[], [Do.LOSE_AFTER]], ids=["answered", "lost"])
async def test_a_webhook_settles_it_and_our_answer_tells_nobody_again(build_world: BuildWorld, ends: list[Do]) -> None:
    """RF9: the webhook names us and arrives while our call is under way."""
    shop = await open_shop(build_world)
    payment_id = await shop.captured()
    answered = asyncio.Event()
    shop.gateway.will("refund", answered, *ends)
    running = asyncio.create_task(shop.refund(payment_id, 500))
    await until(lambda: shop.gateway.called("refund"), what="the call")
    ((row),) = await shop.operations(payment_id)
    early = Observation(
        FactKind.REFUND_SUCCEEDED, "re_1", Money(500, "EUR"), about=row["target"], operation=row["reference"]
    )
    await shop.tell(payment_id, early)
    assert await shop.statuses(payment_id) == ["succeeded"]
    answered.set()
    assert (await running).json()["status"] == "succeeded"
    events = await shop.events(payment_id)
    assert (events["refund.created"], events["refund.succeeded"]) == (1, 1)
    assert events["outcome_unknown"] == events["outcome_resolved"] == 0
    assert (await shop.totals(payment_id))["refunded"] == 500
    await shop.later(61)
    assert await shop.run_due() == 0


async def test_a_webhook_between_look_and_resend_stops_the_resend(build_world: BuildWorld) -> None:
    """Where keys do not last a second call would refund twice."""
    shop = await open_shop(build_world, keyless())
    shop.gateway.will("refund", Do.LOSE_AFTER)
    payment_id, _, _ = await asked(shop, "refund")
    looked = asyncio.Event()
    shop.gateway.will("find", Do.FAIL, looked)
    await shop.later(1)
    await shop.run_due()
    await shop.later(400)
    # It looks, and is told that there is nothing (its list lags); before it can send again, the webhook arrives.
    (refund,) = shop.account(payment_id).refunds
    found, shop.account(payment_id).refunds = shop.account(payment_id).refunds, []
    done, shop.gateway.done = shop.gateway.done, {}
    running = asyncio.create_task(run_one_due(shop.context))
    await until(lambda: len(shop.gateway.called("find")) == 2, what="the look")
    await shop.tell(payment_id, shop.gateway.of_refund(refund))
    looked.set()
    await running
    shop.account(payment_id).refunds, shop.gateway.done = found, done
    await shop.settle_down()
    assert await shop.statuses(payment_id) == ["succeeded"]
    assert len(shop.gateway.called("refund")) == 1
    await shop.assert_books_agree(payment_id)


async def test_a_runner_that_wakes_up_late_cannot_free_what_another_sent_again(build_world: BuildWorld) -> None:
    """PY18: its refusal is older than the other's call."""
    shop = await open_shop(build_world)
    payment_id = await shop.captured()
    answered = asyncio.Event()
    shop.gateway.will("refund", answered)
    stale = asyncio.create_task(shop.refund(payment_id, 500))
    await until(lambda: shop.gateway.called("refund"), what="the call")
    shop.gateway.will("refund", Do.LOSE_AFTER)  # the other's
    await shop.later(61)
    await shop.run_due()
    assert await shop.statuses(payment_id) == ["unknown"]
    (refund,) = shop.account(payment_id).refunds
    shop.account(payment_id).captured = 0  # so that the first is refused
    shop.gateway.done.clear()
    answered.set()
    assert (await stale).status_code == 202
    shop.account(payment_id).captured = ORDERED
    assert await shop.statuses(payment_id) == ["unknown"]
    assert (await shop.totals(payment_id))["refund_pending"] == 500
    assert refund.status is OutcomeStatus.SUCCEEDED


async def test_a_runner_that_wakes_up_late_sends_nothing(build_world: BuildWorld) -> None:
    """PY18: what it has seen is older than the other's call, and without keys its own would run again."""
    shop = await open_shop(build_world, keyless())
    shop.gateway.will("refund", Do.LOSE_BEFORE, Do.LOSE_AFTER)
    payment_id, _, _ = await asked(shop, "refund")
    await shop.later(400)
    looked = asyncio.Event()
    shop.gateway.will("find", looked, Do.FAIL, Do.FAIL)
    stale = asyncio.create_task(run_one_due(shop.context))
    await until(lambda: shop.gateway.called("find"), what="the look")
    await shop.later(61)
    assert await run_one_due(shop.context)
    assert len(shop.gateway.called("refund")) == 2
    looked.set()
    assert await stale
    assert len(shop.gateway.called("refund")) == 2
    await shop.settle_down()
    assert await shop.statuses(payment_id) == ["succeeded"]
    await shop.assert_books_agree(payment_id)


async def test_a_bug_of_one_adapter_does_not_stop_the_others(build_world: BuildWorld) -> None:
    shop = await open_shop(build_world)
    shop.gateway.will("refund", Do.UNAVAILABLE, Do.BREAK)
    payment_id, _, _ = await asked(shop, "refund")
    await shop.later(0.1)  # it is due before the other one
    other, _, _ = await asked_again(shop)
    await shop.later(2)
    await shop.run_due()
    assert await shop.statuses(other) == ["succeeded"]
    await shop.settle_down()
    assert await shop.statuses(payment_id) == ["succeeded"]
    await shop.assert_books_agree(payment_id)


async def asked_again(shop: Shop) -> tuple[str, dict[str, Any], int]:
    payment_id = await shop.captured()
    shop.gateway.script["refund"].insert(0, Do.UNAVAILABLE)
    answer = await shop.refund(payment_id, 500, key="a-key-of-the-merchant-0002")
    return payment_id, answer.json(), answer.status_code


async def test_two_runners_do_not_take_up_the_same_operation(build_world: BuildWorld) -> None:
    shop = await open_shop(build_world)
    payments = []
    for number in range(6):
        payment_id = await shop.captured()
        shop.gateway.will("refund", Do.LOSE_BEFORE)
        await shop.refund(payment_id, 500, key=f"a-key-of-the-merchant-{number:04}")
        payments.append(payment_id)
    await shop.later(1)
    await asyncio.gather(*(shop.run_due() for _ in range(4)))
    for payment_id in payments:
        assert await shop.statuses(payment_id) == ["succeeded"]
        await shop.assert_books_agree(payment_id)
    assert len(shop.gateway.called("find")) == len(payments)


async def test_the_same_request_takes_up_what_is_due(build_world: BuildWorld) -> None:
    shop = await open_shop(build_world)
    shop.gateway.will("refund", Do.UNAVAILABLE)
    payment_id, made, _ = await asked(shop, "refund")
    await shop.world.run("DELETE FROM idempotency_keys")
    await shop.later(1)
    again = await shop.refund(payment_id)
    assert (again.status_code, again.json()["id"], again.json()["status"]) == (201, made["id"], "succeeded")
