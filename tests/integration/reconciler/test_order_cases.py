"""What becomes of cases of orders from run to run, and what operators may do about them meanwhile (RC9, RC17)."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from services.reconciler.domain.cases import Action, Case, CaseStatus
from services.reconciler.domain.decisions import OrphanPolicy
from services.reconciler.domain.errors import RunFirst
from services.reconciler.use_cases.resolve_case import Wish, resolve_case
from tests.integration.reconciler.owners import Comparing, comparing
from tests.support.postgres import ServiceDatabase


@pytest.fixture
async def shop(service_database: ServiceDatabase) -> AsyncIterator[Comparing]:
    async with comparing(service_database("reconciler")) as made:
        yield made


async def asks(shop: Comparing, action: Action, by: str = "ann") -> Case:
    """Of the only unresolved case."""
    [case] = [each for each in await shop.cases() if each["status"] != "resolved"]
    return await resolve_case(case["case_id"], Wish(action, "the customer waits", by), shop.context)


async def sent(shop: Comparing) -> list[str]:
    return [each["command_key"].partition(":")[2] for each in await shop.commands()]


def given_up(shop: Comparing) -> None:
    """The order knows the money, asked for it to go back, and gave up: it is refunded by policy."""
    shop.owners.pays()
    shop.owners.orders_it(status="canceled", knows=[shop.owners.knowing(resolution="refund_failed")])


def hears_of(shop: Comparing, version: int) -> None:
    shop.owners.changes(shop.owners.orders, "ord_1")
    shop.owners.orders["ord_1"]["payments"][0]["version"] = version


async def test_an_older_copy_of_the_payment_settles_nothing(shop: Comparing) -> None:
    """Between the pull of payments and that of orders the order heard of the next version."""
    given_up(shop)
    await shop.compares()
    hears_of(shop, 4)
    await shop.compares()
    assert await shop.found() == [("late_payment", "refund", "open")]
    shop.owners.changes(shop.owners.payments, "pay_1")
    shop.clock.move(3600)
    await shop.compares()
    assert await shop.found() == [("late_payment", "refund", "open")]
    assert await sent(shop) == ["refund"]


async def test_versions_that_the_order_is_told_of_meanwhile_ask_for_no_second_refund(shop: Comparing) -> None:
    """The refund fails, which is a new version of the payment; its event is lost, and a command tells the order."""
    given_up(shop)
    for _ in range(3):
        await shop.compares()
        shop.owners.changes(shop.owners.payments, "pay_1")
        shop.clock.move(3600)
        await shop.compares()
        hears_of(shop, shop.owners.payments["pay_1"]["version"])
        shop.clock.move(3600)
    await shop.compares()
    assert await sent(shop) == ["refund", "confirm_order", "confirm_order", "confirm_order"]
    shop.owners.changes(shop.owners.payments, "pay_1", amount_refunded=1000)
    hears_of(shop, 7)
    shop.clock.move(3600)
    await shop.compares()
    assert {status for _, _, status in await shop.found()} == {"resolved"}


async def test_what_was_asked_for_is_not_approved_for_another_payment(shop: Comparing) -> None:
    """The webhook's references name two payments of ours, one of which is known only after the first person asked."""
    owners = shop.owners
    owners.parks("prk_1", "gw_pay_9", "gw_pay_0")
    for number in (9, 0):
        owners.pays(f"pay_{number}", f"ord_{number}", updated_at=owners.ago(minutes=11))
        owners.confirms(f"ord_{number}", f"pay_{number}")
        owners.orders[f"ord_{number}"]["updated_at"] = owners.ago(minutes=11)
        await shop.compares()
        asked = await asks(shop, Action.REFUND, by="ann" if number else "bob")
        assert (asked.status, asked.subject.payment_id) == (CaseStatus.AWAITING_APPROVAL, f"pay_{number}")
    assert "refund" not in await sent(shop)
    await asks(shop, Action.REFUND, by="ann")
    assert [each["payment_id"] for each in await shop.commands() if each["type"].startswith("refund")] == ["pay_0"]


async def test_no_money_moves_while_another_command_may_take_effect(shop: Comparing) -> None:
    """The order is being told of its money, and confirms by it: refunded beside that, it would be fulfilled unpaid."""
    shop.owners.pays()
    shop.owners.orders_it(knows=[shop.owners.knowing(status="requires_action", version=2, amount_captured=0)])
    await shop.compares()
    await shop.compares()  # too soon to know
    for action in (Action.REFUND, Action.CANCEL_ORDER):
        with pytest.raises(RunFirst):
            await asks(shop, action)
    shop.clock.move(3600)
    with pytest.raises(RunFirst):
        await asks(shop, Action.REFUND)
    await shop.compares()
    await asks(shop, Action.REFUND)
    await asks(shop, Action.REFUND, by="bob")
    assert await sent(shop) == ["confirm_order", "refund"]


async def test_what_had_no_effect_can_be_asked_for_again_by_two(shop: Comparing) -> None:
    given_up(shop)
    await shop.compares()
    for by in ("ann", "bob", "ann"):
        assert (await asks(shop, Action.REFUND, by)).status is CaseStatus.OPEN
    assert await sent(shop) == ["refund"], "its effect has not been looked for"
    shop.clock.move(3600)
    await shop.compares()
    assert (await asks(shop, Action.REFUND)).status is CaseStatus.AWAITING_APPROVAL
    assert (await asks(shop, Action.REFUND, by="bob")).status is CaseStatus.OPEN
    assert await sent(shop) == ["refund", "refund#2"]
    assert (await asks(shop, Action.REFUND)).status is CaseStatus.OPEN
    await shop.compares()
    assert await sent(shop) == ["refund", "refund#2"], "the policy sends once"


async def test_an_unanswered_call_that_was_explained_hides_no_other(shop: Comparing) -> None:
    owners = shop.owners
    owners.pays(status="processing", outcome_unknown=True, unknown_since=owners.ago(hours=25))
    owners.orders_it(knows=[owners.knowing(status="processing", amount_captured=0)])
    await shop.compares()
    await asks(shop, Action.ACCEPT)
    await shop.compares()
    assert await shop.found() == [("unknown_outcome", "sync", "resolved")]
    shop.clock.move(30 * 24 * 3600)
    owners.changes(owners.payments, "pay_1", unknown_since=owners.ago(hours=25))
    await shop.compares()
    assert await shop.found() == [("unknown_outcome", "sync", "resolved"), ("unknown_outcome", "sync", "open")]
    owners.changes(owners.payments, "pay_1", unknown_since=owners.ago(hours=1))
    await shop.compares()
    assert {status for _, _, status in await shop.found()} == {"resolved"}, "and the third is too young"


async def test_a_hold_that_was_explained_hides_no_failure(shop: Comparing) -> None:
    owners = shop.owners
    owners.pays(status="authorized", amount_captured=0)
    owners.confirms()
    await shop.compares()
    await asks(shop, Action.ACCEPT)
    await shop.compares()
    assert await shop.found() == [("unpaid_order", "sync", "resolved")]
    owners.changes(owners.payments, "pay_1", status="expired", amount_authorized=0)
    hears_of(shop, 4)
    shop.clock.move(3600)
    await shop.compares()
    assert ("unpaid_order", "cancel_order", "open") in await shop.found()


async def test_an_orphan_that_was_explained_is_not_refunded_when_the_policy_changes(shop: Comparing) -> None:
    shop.owners.pays(order_id="ord_gone")
    shop.owners.orders_it("ord_other")
    await shop.compares()
    await asks(shop, Action.ACCEPT)
    await shop.compares(context=shop.without(orphan_policy=OrphanPolicy.REFUND))
    assert await shop.found() == [("orphan_payment", None, "resolved")]
    assert await sent(shop) == []


async def test_what_payments_do_not_show_is_unexplained_by_its_cases(shop: Comparing) -> None:
    owners = shop.owners
    owners.pays("pay_1", "ord_1", status="failed")
    owners.orders_it("ord_1", knows=[owners.knowing("pay_1", status="failed", amount_captured=0)])
    owners.lists_it("gw_pay_1", payment_id="pay_1", minor=700)
    [total] = (await shop.compares()).totals
    assert (total["unexplained_minor"], total["counts"]["unexplained"]) == (700, 1)  # type: ignore[index]
    owners.pays("pay_2", "ord_2", status="failed", version=4, updated_at=owners.ago(minutes=11))
    owners.confirms("ord_2", "pay_2", version=4, status="failed", amount_captured=0)
    owners.confirms("ord_3", "pay_3")
    for name in ("ord_2", "ord_3"):
        owners.orders[name] |= {"updated_at": owners.ago(minutes=11), "created_at": owners.ago(days=3)}
    unnamed, named = (await shop.compares()).totals
    assert (unnamed["gateway"], unnamed["unexplained_minor"]) == ("", -1000)
    assert (named["unexplained_minor"], named["counts"]["unexplained"]) == (-300, 2)  # type: ignore[index]
    now = shop.clock.now()
    [named] = (await shop.compares(window_from=now.replace(hour=0), window_to=now)).totals
    assert named["unexplained_minor"] == -300, "the order without a payment is of three days ago"


async def test_a_gateways_list_with_what_no_database_takes_ends_no_run(shop: Comparing) -> None:
    shop.owners.lists_it("gw_\x00bad")
    shop.owners.lists_it("x" * 256)
    shop.owners.lists_it("")
    shop.owners.lists_it("gw_good", references=["gw_\x00bad", "gw_good"])
    await shop.compares()
    assert [case["evidence"]["references"] for case in await shop.cases()] == [["gw_good"]]
