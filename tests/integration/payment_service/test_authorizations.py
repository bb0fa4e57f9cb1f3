"""Holds end: somebody is warned once, a policy acts once, and what became of it is asked."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from services.payment_service.domain.models import FactKind, Observation
from services.payment_service.gateways.port import Capability
from services.payment_service.use_cases import watch_authorizations as watching
from services.payment_service.use_cases.watch_authorizations import AuthorizationPolicy, watch_authorizations
from shared.clock import to_rfc3339
from tests.integration.payment_service.conftest import BuildWorld
from tests.integration.payment_service.fake_money import ORDERED, Do, FakeMoney, Shop, open_shop

DAY = 24 * 3600.0
NONE = AuthorizationPolicy("none", timedelta(hours=24), timedelta(hours=6))
CAPTURE, VOID = replace(NONE, action="capture"), replace(NONE, action="void")


async def rounds(shop: Shop, policy: AuthorizationPolicy, *, hours: int) -> None:
    for _ in range(hours):
        await shop.later(3600)
        while await watch_authorizations(policy, shop.context):
            pass
        await shop.run_due()


async def test_a_warning_once_a_day_before_the_hold_ends(build_world: BuildWorld) -> None:
    shop = await open_shop(build_world)
    payment_id = await shop.held()
    began = shop.clock.now()
    await rounds(shop, NONE, hours=6 * 24 - 1)
    assert (await shop.events(payment_id))["authorization_expiring"] == 0
    await rounds(shop, NONE, hours=12)
    assert (await shop.events(payment_id))["authorization_expiring"] == 1
    (event,) = [e for e in await shop.world.events(payment_id) if "expiring" in e["type"]]
    assert event["data"]["capture_before"] == to_rfc3339(began + timedelta(days=7))
    assert await shop.operations(payment_id) == []


async def test_the_gateways_own_moment_counts(build_world: BuildWorld) -> None:
    shop = await open_shop(build_world)
    shop.gateway.capture_before = shop.clock.now() + timedelta(hours=30)
    payment_id = await shop.held()
    await rounds(shop, NONE, hours=7)
    assert (await shop.events(payment_id))["authorization_expiring"] == 1


async def test_a_hold_that_was_renewed_ends_later(build_world: BuildWorld) -> None:
    shop = await open_shop(build_world)
    shop.gateway.capture_before = shop.clock.now() + timedelta(hours=30)
    payment_id = await shop.held()
    shop.gateway.capture_before = shop.clock.now() + timedelta(hours=300)
    await shop.sync(payment_id)
    await rounds(shop, NONE, hours=24)
    assert (await shop.events(payment_id))["authorization_expiring"] == 0


@pytest.mark.parametrize(("policy", "kind"), [(CAPTURE, "capture"), (VOID, "void")])
async def test_the_policy_acts_once_before_the_hold_ends(
    build_world: BuildWorld, policy: AuthorizationPolicy, kind: str
) -> None:
    shop = await open_shop(build_world)
    payment_id = await shop.held()
    await rounds(shop, policy, hours=7 * 24 - 7)
    assert await shop.operations(payment_id) == []
    await rounds(shop, policy, hours=12)
    ((row),) = await shop.operations(payment_id)
    assert (row["kind"], row["status"], row["amount_minor"]) == (kind, "succeeded", ORDERED)
    assert (row["origin"], row["actor"]) == ("policy", "authorization_policy")
    assert len(shop.gateway.called(kind)) == 1
    await shop.assert_books_agree(payment_id)


async def test_a_capture_by_policy_that_is_refused_is_not_repeated(build_world: BuildWorld) -> None:
    """RF15: no endless retry."""
    shop = await open_shop(build_world)
    payment_id = await shop.held()
    shop.gateway.will("capture", *[Do.REJECT] * 100)
    await rounds(shop, CAPTURE, hours=7 * 24)
    assert await shop.statuses(payment_id) == ["failed"]
    assert len(shop.gateway.called("capture")) == 1


async def test_the_policy_waits_for_what_is_under_way(build_world: BuildWorld) -> None:
    shop = await open_shop(build_world)
    payment_id = await shop.held()
    shop.gateway.will("capture", Do.LOSE_AFTER)
    shop.gateway.will("find", *[Do.LOSE_BEFORE] * 1000)
    await shop.capture(payment_id)
    await rounds(shop, VOID, hours=7 * 24)
    assert await shop.statuses(payment_id, "void") == []
    shop.gateway.script.clear()
    await shop.settle_down(hours=2)
    assert await shop.statuses(payment_id) == ["succeeded"]
    await shop.assert_books_agree(payment_id)


@pytest.mark.parametrize("ended", ["expired", "canceled"])
async def test_a_hold_that_has_ended_is_asked_about_and_followed(build_world: BuildWorld, ended: str) -> None:
    """RF15."""
    shop = await open_shop(build_world)
    payment_id = await shop.held()
    await rounds(shop, NONE, hours=7 * 24 + 3)
    assert (await shop.ask(f"payments/{payment_id}")).json()["status"] == "authorized"  # the gateway still says so
    asked = len(shop.gateway.called("retrieve"))
    assert 1 < asked <= 6
    shop.account(payment_id).is_held_no_more = ended
    await rounds(shop, NONE, hours=2)
    assert (await shop.ask(f"payments/{payment_id}")).json()["status"] == ended
    assert (await shop.events(payment_id))[ended] == 1
    assert await shop.totals(payment_id) == {}
    asked = len(shop.gateway.called("retrieve"))
    await rounds(shop, NONE, hours=5)
    assert len(shop.gateway.called("retrieve")) == asked


async def test_a_gateway_that_is_not_enabled_any_more_keeps_nobody_waiting(build_world: BuildWorld) -> None:
    shop = await open_shop(build_world)
    orphan = await shop.held()
    await shop.later(1)
    payment_id = await shop.held()
    await shop.world.run("UPDATE payments SET gateway = 'gone' WHERE payment_id = :p", p=orphan)
    await rounds(shop, CAPTURE, hours=7 * 24 + 2)
    assert await shop.statuses(payment_id) == ["succeeded"]
    assert await shop.operations(orphan) == []


async def test_where_nothing_can_be_released_it_ends_by_itself(build_world: BuildWorld) -> None:
    gateway = FakeMoney()
    gateway.facts = replace(gateway.facts, capabilities=frozenset(Capability) - {Capability.VOID})
    shop = await open_shop(build_world, gateway)
    payment_id = await shop.held()
    await rounds(shop, VOID, hours=7 * 24)
    assert await shop.operations(payment_id) == []


async def test_holds_that_cannot_be_decided_keep_nobody_waiting(
    build_world: BuildWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One page of them would otherwise be picked in every round, before all that end later."""
    monkeypatch.setattr(watching, "AT_ONCE", 1)
    shop = await open_shop(build_world)
    unwanted = await shop.held()
    await shop.world.run("UPDATE payments SET given_up_at = now() WHERE payment_id = :id", id=unwanted)
    await shop.later(60)
    wanted = await shop.held()
    await rounds(shop, CAPTURE, hours=7 * 24)
    assert await shop.operations(unwanted) == []
    assert [row["status"] for row in await shop.operations(wanted)] == ["succeeded"]


async def test_captured_and_ended_holds_are_left_alone(build_world: BuildWorld) -> None:
    shop = await open_shop(build_world)
    captured, part, voided = await shop.held(), await shop.held(), await shop.held()
    await shop.capture(captured, key="a-key-of-the-merchant-0001")
    await shop.capture(part, 500, key="a-key-of-the-merchant-0002", body={"final": True})
    await shop.void(voided, key="a-key-of-the-merchant-0003")
    await rounds(shop, CAPTURE, hours=8 * 24)
    for payment_id in (captured, part, voided):
        assert len(await shop.operations(payment_id)) == 1
        assert (await shop.events(payment_id))["authorization_expiring"] == 0


async def test_a_hold_that_the_gateway_was_to_capture_is_captured_by_us_after_a_while(
    build_world: BuildWorld,
) -> None:
    """Razorpay's late authorization: the shopper's money is held, and nobody else would take it."""
    shop = await open_shop(build_world)
    payment_id = await shop.held(capture="automatic")
    while await watch_authorizations(NONE, shop.context):
        pass
    assert await shop.operations(payment_id) == [], "it may still do so by itself"
    await rounds(shop, NONE, hours=1)
    assert await shop.statuses(payment_id, "capture") == ["succeeded"]
    assert (await shop.totals(payment_id))["captured"] == ORDERED
    await rounds(shop, NONE, hours=2)
    assert len(await shop.operations(payment_id)) == 1


@pytest.mark.parametrize("is_given_up", [False, True])
async def test_a_late_hold_is_taken_once_its_order_had_time_to_refuse_it(
    build_world: BuildWorld, is_given_up: bool
) -> None:
    """The page was closed, the shopper paid in an old tab, and the order says by a command that it does not want it."""
    shop = await open_shop(build_world)
    payment_id = await shop.opened(capture="automatic")
    account = shop.account(payment_id)
    await shop.tell(payment_id, Observation(FactKind.CANCELED, "page", reason="closed_by_us"))
    account.held = account.amount.amount_minor
    assert (await shop.sync(payment_id))["status"] == "authorized"
    if is_given_up:
        await shop.world.run("UPDATE payments SET given_up_at = now()")
    await rounds(shop, replace(NONE, orders_refuse=True), hours=2)
    await shop.settle_down()
    assert account.captured == (0 if is_given_up else account.amount.amount_minor)


async def test_a_late_hold_of_a_payment_that_has_ended_waits_for_a_person_where_orders_cannot_speak(
    build_world: BuildWorld,
) -> None:
    shop = await open_shop(build_world)
    payment_id = await shop.opened(capture="automatic")
    await shop.tell(payment_id, Observation(FactKind.CANCELED, "elsewhere", reason="order_expired"))
    account = shop.account(payment_id)
    account.held = account.amount.amount_minor
    assert (await shop.sync(payment_id))["status"] == "authorized"
    await rounds(shop, NONE, hours=2)
    assert await shop.operations(payment_id) == []
