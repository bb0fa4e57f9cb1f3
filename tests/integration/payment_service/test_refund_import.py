"""Refunds made at the gateway without us, and ours by every name: each counted once (failures RF6, RF7, RF9, RF10)."""

from __future__ import annotations

import asyncio

import pytest

from services.payment_service.domain.models import FactKind, Observation
from services.payment_service.gateways.port import OutcomeStatus
from shared.money import Money
from tests.integration.payment_service.conftest import BuildWorld
from tests.integration.payment_service.fake_money import ORDERED, Do, FakeMoney, open_shop
from tests.support.waiting import until


@pytest.mark.parametrize("by", ["webhook", "sync"])
async def test_a_refund_in_the_dashboard_is_imported(build_world: BuildWorld, by: str) -> None:
    """RF6."""
    shop = await open_shop(build_world)
    payment_id = await shop.captured()
    refund = shop.gateway.refunds_by(shop.account(payment_id), amount=700)
    if by == "webhook":
        await shop.tell(payment_id, shop.gateway.of_refund(refund))
    else:
        await shop.sync(payment_id)

    (shown,) = (await shop.ask(f"payments/{payment_id}/refunds")).json()["data"]
    assert (shown["status"], shown["origin"], shown["actor"]) == ("succeeded", "gateway", "generic")
    assert (shown["amount"]["amount_minor"], shown["gateway_reference"]) == (700, refund.reference)
    events = await shop.events(payment_id)
    assert (events["refund.created"], events["refund.succeeded"]) == (1, 1)
    assert (await shop.totals(payment_id))["refunded"] == 700
    assert shop.gateway.called("refund") == []
    more = await shop.refund(payment_id, ORDERED - 699)
    assert (more.status_code, more.json()["code"]) == (409, "refund_exceeds_captured")
    await shop.assert_books_agree(payment_id)


async def test_it_is_imported_once_whoever_tells_it_how_often(build_world: BuildWorld) -> None:
    """RF10."""
    shop = await open_shop(build_world)
    payment_id = await shop.captured()
    fact = shop.gateway.of_refund(shop.gateway.refunds_by(shop.account(payment_id), amount=700))
    await asyncio.gather(*(shop.tell(payment_id, fact, message=f"evt_{number}") for number in range(8)))
    await shop.sync(payment_id)
    assert await shop.statuses(payment_id) == ["succeeded"]
    assert (await shop.events(payment_id))["refund.succeeded"] == 1


async def test_a_dashboard_refund_that_fails_later_gives_its_amount_back(build_world: BuildWorld) -> None:
    shop = await open_shop(build_world)
    payment_id = await shop.captured()
    refund = shop.gateway.refunds_by(shop.account(payment_id), amount=700)
    refund.status = OutcomeStatus.PENDING
    await shop.tell(payment_id, shop.gateway.of_refund(refund))
    assert await shop.statuses(payment_id) == ["submitted"]
    assert (await shop.totals(payment_id))["refund_pending"] == 700
    refund.status = OutcomeStatus.FAILED
    await shop.tell(payment_id, shop.gateway.of_refund(refund))
    assert await shop.statuses(payment_id) == ["failed"]
    events = await shop.events(payment_id)
    assert (events["refund.created"], events["refund.failed"], events["refund.succeeded"]) == (1, 1, 0)


async def test_a_pending_dashboard_refund_is_followed_though_nothing_more_is_told(build_world: BuildWorld) -> None:
    shop = await open_shop(build_world)
    payment_id = await shop.captured()
    refund = shop.gateway.refunds_by(shop.account(payment_id), amount=700)
    refund.status = OutcomeStatus.PENDING
    await shop.tell(payment_id, shop.gateway.of_refund(refund))
    refund.status = OutcomeStatus.SUCCEEDED
    await shop.settle_down()
    assert await shop.statuses(payment_id) == ["succeeded"]
    assert shop.gateway.called("refund") == []
    assert (await shop.events(payment_id))["refund.succeeded"] == 1
    await shop.assert_books_agree(payment_id)


async def test_ours_and_the_dashboards_at_once(build_world: BuildWorld) -> None:
    """RF7: of the same amount, told in one breath; both are there, both are counted, neither twice."""
    gateway = FakeMoney(echoes=False)
    shop = await open_shop(build_world, gateway)
    payment_id = await shop.captured()
    answered = asyncio.Event()
    gateway.will("refund", answered)
    running = asyncio.create_task(shop.refund(payment_id, 500))
    await until(lambda: gateway.called("refund"), what="the call")
    theirs = gateway.refunds_by(shop.account(payment_id), amount=500)
    await shop.tell(payment_id, gateway.of_refund(theirs))
    answered.set()
    assert (await running).json()["status"] == "succeeded"
    await shop.sync(payment_id)
    rows = await shop.operations(payment_id)
    assert sorted((row["origin"], row["status"], row["amount_minor"]) for row in rows) == [
        ("api", "succeeded", 500),
        ("gateway", "succeeded", 500),
    ]
    assert (await shop.totals(payment_id))["refunded"] == 1000
    events = await shop.events(payment_id)
    assert (events["refund.created"], events["refund.succeeded"]) == (2, 2)
    await shop.assert_books_agree(payment_id)


@pytest.mark.parametrize("echoes", [True, False])
@pytest.mark.parametrize("outcome", ["answered", "lost", "pending"])
async def test_our_refund_by_its_webhook_first(build_world: BuildWorld, echoes: bool, outcome: str) -> None:
    """RF9: with and without our name in it, whatever becomes of our own answer."""
    gateway = FakeMoney(echoes=echoes)
    shop = await open_shop(build_world, gateway)
    payment_id = await shop.captured()
    answered = asyncio.Event()
    gateway.will("refund", answered, *([Do.LOSE_AFTER] if outcome == "lost" else []))
    running = asyncio.create_task(shop.refund(payment_id, 500))
    await until(lambda: gateway.called("refund"), what="the call")
    ((row),) = await shop.operations(payment_id)
    kind = FactKind.REFUND_PENDING if outcome == "pending" else FactKind.REFUND_SUCCEEDED
    operation = row["reference"] if echoes else None
    await shop.tell(payment_id, Observation(kind, "re_1", Money(500, "EUR"), about=row["target"], operation=operation))
    assert len(await shop.operations(payment_id)) == 1, "not taken for somebody else's while ours is under way"
    answered.set()
    await running
    (refund,) = shop.account(payment_id).refunds
    assert refund.reference == "re_1"
    await shop.sync(payment_id)
    await shop.settle_down()
    assert await shop.statuses(payment_id) == ["succeeded"]
    assert (await shop.totals(payment_id))["refunded"] == 500
    events = await shop.events(payment_id)
    assert (events["refund.created"], events["refund.succeeded"]) == (1, 1)
    await shop.assert_books_agree(payment_id)


async def test_a_stranger_that_could_have_been_ours_is_imported_once_ours_is_known(build_world: BuildWorld) -> None:
    gateway = FakeMoney(echoes=False)
    shop = await open_shop(build_world, gateway)
    payment_id = await shop.captured()
    answered = asyncio.Event()
    gateway.will("refund", answered)
    running = asyncio.create_task(shop.refund(payment_id, 500))
    await until(lambda: gateway.called("refund"), what="the call")
    theirs = gateway.refunds_by(shop.account(payment_id), amount=500)
    await shop.tell(payment_id, gateway.of_refund(theirs))
    shop.account(payment_id).captured = 500  # so that ours is refused
    answered.set()
    assert (await running).json()["status"] == "failed"
    shop.account(payment_id).captured = ORDERED
    rows = await shop.operations(payment_id)
    assert sorted((row["origin"], row["status"]) for row in rows) == [("api", "failed"), ("gateway", "succeeded")]
    assert (await shop.totals(payment_id))["refunded"] == 500


async def test_more_than_was_taken_is_an_excess_for_a_person(build_world: BuildWorld) -> None:
    shop = await open_shop(build_world)
    payment_id = await shop.captured()
    over = Observation(FactKind.REFUND_SUCCEEDED, "re_9", Money(ORDERED + 1, "EUR"), about="x")
    await shop.tell(payment_id, over)
    assert await shop.totals(payment_id) == {
        "authorized": ORDERED,
        "captured": ORDERED,
        "refunded": ORDERED,
        "excess": 1,
    }


async def test_a_refund_of_a_payment_that_nobody_knows_waits_for_it(build_world: BuildWorld) -> None:
    shop = await open_shop(build_world)
    payment_id = await shop.captured()
    account = shop.account(payment_id)
    # The same gateway, before the payment is known here: its reference is learnt with the session only.
    body = shop.world.body()
    reference = f"gp_later_{body['payment_id']}"
    refund = Observation(FactKind.REFUND_SUCCEEDED, "re_early", Money(300, "EUR"), about=reference)
    captured = Observation(FactKind.CAPTURED, reference, account.amount)
    await shop.tell_reference(reference, captured, refund)
    assert await shop.world.parked() == ["waiting"]
    original = shop.gateway.create_session

    async def named(request, *, repeated):  # type: ignore[no-untyped-def]
        session = await original(request, repeated=repeated)
        known = shop.gateway.accounts.pop(session.gateway_reference)
        known.reference, known.held, known.captured = reference, ORDERED, ORDERED
        shop.gateway.accounts[reference] = known
        opened = (Observation(FactKind.SESSION_OPENED, reference),)
        return type(session)(reference, session.next_action, session.expires_at, (reference,), opened)

    shop.gateway.create_session = named  # type: ignore[method-assign]
    answer = await shop.send("", body, key=None)
    assert answer.status_code == 201, answer.text
    await shop.wake_parked()
    assert await shop.world.parked() == ["applied"]
    assert await shop.statuses(body["payment_id"]) == ["succeeded"]
    assert (await shop.totals(body["payment_id"]))["refunded"] == 300
