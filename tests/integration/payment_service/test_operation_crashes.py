"""A process that dies at each step of each operation: before and after every commit, before and after the call.

Whoever takes it up, the runner or the same request sent again, comes to the same end: it has run once.
"""

from __future__ import annotations

from typing import Any

import pytest

from services.payment_service.use_cases.run_operations import run_one_due
from tests.integration.payment_service.conftest import BuildWorld
from tests.integration.payment_service.fake_money import ORDERED, Crash, Do, Shop, open_shop

KINDS = ["capture", "void", "refund", "complete"]
MOST_COMMITS = 15


async def prepared(shop: Shop, kind: str) -> str:
    if kind == "refund":
        return await shop.captured()
    if kind == "complete":
        payment_id = await shop.opened()
        shop.account(payment_id).is_approved = True
        return payment_id
    return await shop.held()


async def request(shop: Shop, kind: str, payment_id: str) -> None:
    """As the caller sends it, the first time and again. Dies with the process."""
    if kind == "complete":
        await shop.sync(payment_id)
        return
    answer = await getattr(shop, kind)(payment_id)
    assert answer.status_code in (201, 202), answer.text


async def dies(shop: Shop, kind: str, payment_id: str) -> bool:
    """Whether the request died on its way. A claim on its key stays behind, as a kill leaves it."""
    try:
        await request(shop, kind, payment_id)
    except Crash:
        shop.uow.arm(None)
        await shop.world.run(
            "UPDATE idempotency_keys SET locked_until = now() + interval '1 hour' WHERE sealed_response IS NULL"
        )
        return True
    shop.uow.arm(None)
    return False


async def run_once(shop: Shop, kind: str, payment_id: str) -> dict[str, Any]:
    """What the books and our rows must say in the end."""
    account = shop.account(payment_id)
    work = {
        "capture": account.captured,
        "void": account.held if account.is_held_no_more else 0,
        "refund": account.refunded,
        "complete": account.captured,
    }[kind]
    assert work == ORDERED
    assert len(account.refunds) == (1 if kind == "refund" else 0)
    assert len(set(shop.gateway.called(kind))) == 1, "never under another key"
    assert await shop.statuses(payment_id) == ["succeeded"]
    await shop.assert_books_agree(payment_id)
    events = await shop.events(payment_id)
    assert events["refund.succeeded"] == int(kind == "refund")
    assert events["capture.succeeded"] == int(kind == "capture")
    assert events["refund.created"] <= 1
    assert events["outcome_unknown"] == events["outcome_resolved"] <= 1
    return await shop.totals(payment_id)


ENDS = {
    "capture": {"authorized": ORDERED, "captured": ORDERED},
    "void": {},
    "refund": {"authorized": ORDERED, "captured": ORDERED, "refunded": ORDERED},
    "complete": {"authorized": ORDERED, "captured": ORDERED},
}


async def taken_up(shop: Shop, kind: str, payment_id: str, *, by_runner: bool) -> None:
    await shop.later(61)
    if by_runner:
        await shop.run_due()
    await request(shop, kind, payment_id)  # where nothing had been committed, nobody but the caller knows of it
    await shop.settle_down()


@pytest.mark.parametrize("by_runner", [True, False], ids=["runner-first", "request-first"])
@pytest.mark.parametrize("is_after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_death_at_each_commit(build_world: BuildWorld, kind: str, is_after: bool, by_runner: bool) -> None:
    shop = await open_shop(build_world)
    died = 0
    for number in range(1, MOST_COMMITS):
        payment_id = await prepared(shop, kind)
        shop.gateway.calls.clear()
        shop.uow.arm(number, is_after=is_after)
        if not await dies(shop, kind, payment_id):
            break
        died += 1
        await taken_up(shop, kind, payment_id, by_runner=by_runner)
        assert await run_once(shop, kind, payment_id) == ENDS[kind], f"commit {number}"
        await shop.world.run("DELETE FROM idempotency_keys")
    assert died >= 4, "there are that many steps at least"
    assert died < MOST_COMMITS - 1


@pytest.mark.parametrize("by_runner", [True, False], ids=["runner-first", "request-first"])
@pytest.mark.parametrize("moment", [Do.CRASH_BEFORE, Do.CRASH_AFTER])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_death_beside_the_call(build_world: BuildWorld, kind: str, moment: Do, by_runner: bool) -> None:
    shop = await open_shop(build_world)
    payment_id = await prepared(shop, kind)
    shop.gateway.calls.clear()
    shop.gateway.will(kind, moment)
    assert await dies(shop, kind, payment_id)
    assert await shop.run_due() == 0, "its lease protects it, in case it still lives"
    await taken_up(shop, kind, payment_id, by_runner=by_runner)
    assert await run_once(shop, kind, payment_id) == ENDS[kind]
    assert len(shop.gateway.called(kind)) == (1 if moment is Do.CRASH_AFTER else 2)


async def runner_dies(shop: Shop) -> bool:
    try:
        await run_one_due(shop.context)
    except Crash:
        return True
    finally:
        shop.uow.arm(None)
    return False


@pytest.mark.parametrize("lost", [Do.LOSE_BEFORE, Do.LOSE_AFTER])
@pytest.mark.parametrize("is_after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_runner_that_dies_while_it_resolves(
    build_world: BuildWorld, kind: str, is_after: bool, lost: Do
) -> None:
    """Every commit of the runner, too, after a call that was not answered."""
    shop = await open_shop(build_world)
    died = 0
    for number in range(1, MOST_COMMITS):
        payment_id = await prepared(shop, kind)
        shop.gateway.calls.clear()
        shop.gateway.will(kind, lost)
        await request(shop, kind, payment_id)
        await shop.later(1)
        shop.uow.arm(number, is_after=is_after)
        has_died = await runner_dies(shop)
        died += has_died
        await shop.later(61)
        await shop.settle_down()
        assert await run_once(shop, kind, payment_id) == ENDS[kind], f"commit {number}"
        await shop.world.run("DELETE FROM idempotency_keys")
        if not has_died:
            break
    assert died >= 3


@pytest.mark.parametrize("kind", ["capture", "void", "refund"])
async def test_until_its_claim_runs_out_the_same_request_is_told_to_wait(build_world: BuildWorld, kind: str) -> None:
    shop = await open_shop(build_world)
    payment_id = await prepared(shop, kind)
    shop.gateway.will(kind, Do.CRASH_AFTER)
    assert await dies(shop, kind, payment_id)
    answer = await getattr(shop, kind)(payment_id)
    assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_key_in_flight")
