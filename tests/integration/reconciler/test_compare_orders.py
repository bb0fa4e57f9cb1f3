"""Orders against payments over a real PostgreSQL: found, acted on once, verified by the next run, closed (RC9)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from services.reconciler.domain.cases import Action
from services.reconciler.domain.decisions import OrphanPolicy
from services.reconciler.domain.models import Standing
from services.reconciler.domain.schedule import PaymentStatus
from services.reconciler.use_cases.act_on_case import act_on_case
from services.reconciler.use_cases.ports import Context, ReconcilerTransaction
from services.reconciler.use_cases.resolve_case import Wish, resolve_case
from shared.contracts.commands import OrderConfirmRequested
from shared.errors import ServiceUnavailable
from tests.integration.reconciler.owners import COMMAND_KEY, Comparing, Killed, comparing
from tests.support.postgres import ServiceDatabase


@pytest.fixture
async def shop(service_database: ServiceDatabase) -> AsyncIterator[Comparing]:
    async with comparing(service_database("reconciler")) as made:
        yield made


async def test_an_order_that_never_heard_of_its_money_is_told_once_and_the_case_closes(shop: Comparing) -> None:
    owners = shop.owners
    owners.pays()
    owners.orders_it(knows=[owners.knowing(status="requires_action", version=2, amount_captured=0)])
    outcome = await shop.compares()
    assert (outcome.checked, outcome.matched, outcome.cases_opened) == (1, 0, 1)
    [case] = await shop.cases()
    assert (case["scenario"], case["action"], case["difference_minor"]) == ("unconfirmed_order", "confirm_order", 1000)
    [command] = await shop.commands()
    assert command["type"] == "order.confirm_requested.v1"
    assert (command["order_id"], command["payment"]["version"], command["command_key"]) == (
        "ord_1",
        3,
        f"{case['case_id']}:confirm_order",
    )
    assert command["payment"]["gateway_reference"] == "gw_pay_1"
    assert OrderConfirmRequested.model_validate(command).is_signed_by([bytes.fromhex(COMMAND_KEY)])

    await shop.compares()  # run twice, acted once (RC9)
    assert len(await shop.commands()) == 1

    owners.confirms()
    owners.changes(owners.orders, "ord_1")
    outcome = await shop.compares()
    assert (outcome.cases_resolved, outcome.matched) == (1, 0), "younger than the grace: settled, and not compared yet"
    [case] = await shop.cases()
    assert (case["status"], case["resolution"], case["resolved_by"]) == ("resolved", "settled", "run_3")
    [action] = await shop.rows("SELECT * FROM case_actions")
    assert action["verified_at"] is not None


async def test_what_is_younger_than_the_grace_is_no_case(shop: Comparing) -> None:
    shop.owners.pays(updated_at=shop.owners.ago(minutes=9))
    shop.owners.orders_it()
    assert (await shop.compares()).cases_opened == 0
    shop.clock.move(120)
    assert (await shop.compares()).cases_opened == 1


async def test_an_event_in_flight_does_not_close_a_case_that_still_stands(shop: Comparing) -> None:
    """Both sides moved a moment ago, and the order still does not know: closing the case would send a second command
    under another key later."""
    owners = shop.owners
    owners.pays()
    owners.orders_it(status="expired", knows=[owners.knowing(status="failed", version=2, amount_captured=0)])
    await shop.compares()
    owners.changes(owners.orders, "ord_1")
    await shop.compares()
    assert await shop.found() == [("late_payment", "confirm_order", "open")]
    shop.clock.move(3600)
    await shop.compares()
    assert len(await shop.commands()) == 1


async def test_an_order_paid_by_nothing_is_canceled(shop: Comparing) -> None:
    owners = shop.owners
    owners.pays("pay_1", status="failed")
    owners.confirms("ord_1", "pay_1", version=2)
    owners.confirms("ord_2", "pay_2", version=0)
    owners.orders_it("ord_3", status="confirmed", payment_status="paid", confirmed_by="pay_3")
    await shop.compares()
    assert await shop.found() == [
        ("order_without_payment", "cancel_order", "open"),
        ("order_without_payment", "cancel_order", "open"),
        ("unpaid_order", "cancel_order", "open"),
    ]
    told = {each["order_id"]: each for each in await shop.commands()}
    assert {each["type"] for each in told.values()} == {"order.cancel_requested.v1"}
    assert told["ord_1"]["payment"]["status"] == "failed"
    assert told["ord_2"]["payment"] is None
    assert told["ord_3"]["payment_id"] == "pay_3"


async def test_what_the_payment_service_has_forgotten_cancels_no_order(shop: Comparing) -> None:
    """For one run it is at another database, or was restored from an old copy (PG13): it told those versions itself."""
    owners = shop.owners
    owners.confirms("ord_1", "pay_1")
    owners.pays("pay_2", "ord_2", status="failed", version=2)
    owners.confirms("ord_2", "pay_2")
    for _ in range(2):
        outcome = await shop.compares()
        assert (outcome.checked, outcome.matched) == (2, 0)
        shop.clock.move(4 * 3600)
    assert await shop.found() == [("order_without_payment", None, "open"), ("rolled_back", None, "open")]
    assert await shop.commands() == []
    owners.pays("pay_1", updated_at=owners.now())
    owners.pays("pay_2", "ord_2", updated_at=owners.now())
    await shop.compares()
    assert {status for _, _, status in await shop.found()} == {"resolved"}


async def test_an_order_that_a_second_payment_pays_for_is_a_persons_matter(shop: Comparing) -> None:
    owners = shop.owners
    owners.pays("pay_1", "ord_1", status="failed", version=4)
    owners.confirms("ord_1", "pay_1", version=4, status="failed", amount_captured=0)
    owners.pays("pay_2", "ord_1")
    owners.orders["ord_1"]["payments"].append(owners.knowing("pay_2", resolution="fulfilled"))
    await shop.compares()
    assert await shop.found() == [("unpaid_order", None, "open")]
    owners.changes(owners.payments, "pay_2", amount_refunded=1000)
    owners.changes(owners.orders, "ord_1")
    owners.orders["ord_1"]["payments"][1] |= {"version": 4, "amount_refunded": 1000}
    shop.clock.move(4 * 3600)
    await shop.compares()
    assert await shop.found() == [("unpaid_order", "cancel_order", "open")]


def unpaid(shop: Comparing, *names: str, gateway: str = "generic") -> None:
    """Older than the grace, and young enough for the next pull."""
    owners = shop.owners
    for name in names:
        owners.pays(f"pay_{name}", f"ord_{name}", status="failed", version=4, gateway=gateway)
        owners.confirms(f"ord_{name}", f"pay_{name}", version=4, status="failed", amount_captured=0)
        owners.payments[f"pay_{name}"]["updated_at"] = owners.ago(minutes=11)
        owners.orders[f"ord_{name}"]["updated_at"] = owners.ago(minutes=11)


async def test_orders_are_not_canceled_by_the_hundred(shop: Comparing) -> None:
    """payment_service was restored from an old copy: every confirmed order seems unpaid, and a person has to look.
    What is held stays so, also when a person explains one of them, and whatever limit comes later."""
    context = shop.without(cancel_limit=2)
    unpaid(shop, "1", "2", "3")
    outcome = await shop.compares(context=context)
    assert (outcome.cases_opened, outcome.failed) == (3, 3)
    first, second, _ = await shop.cases()
    assert first["held_at"] is not None
    await resolve_case(first["case_id"], Wish(Action.ACCEPT, "looked at it", "ann"), context)
    assert (await shop.compares(context=context)).failed == 2
    shop.clock.move(25 * 3600)
    assert (await shop.compares(context=shop.without(cancel_limit=100))).failed == 2
    assert await shop.commands() == []
    for person in ("ann", "bob"):
        await resolve_case(second["case_id"], Wish(Action.CANCEL_ORDER, "it is so", person), context)
    assert [each["order_id"] for each in await shop.commands()] == ["ord_2"]
    unpaid(shop, "4")
    await shop.compares(context=context)
    assert [each["order_id"] for each in await shop.commands()] == ["ord_2", "ord_4"], "a day later, for new ones"


@pytest.mark.parametrize("by", ["gateway", "window", "time"])
async def test_the_limit_is_for_a_day_whatever_each_run_looks_at(shop: Comparing, by: str) -> None:
    context, now = shop.without(cancel_limit=2), shop.clock.now()
    requests: list[dict[str, Any]] = [{}] * 3
    if by == "gateway":
        requests = [{"gateway": name} for name in ("stripe", "paypal", "tabby")]
    if by == "window":
        days = [now - timedelta(days=number) for number in range(4)]
        requests = [{"window_from": days[n + 1], "window_to": days[n]} for n in range(3)]
    for number, request in enumerate(requests):
        names = [f"{number}{each}" for each in "ab"]
        unpaid(shop, *names, gateway=request.get("gateway", "generic"))
        for name in names if by == "window" else ():
            shop.owners.payments[f"pay_{name}"]["created_at"] = shop.owners.ago(days=number, hours=3)
        await shop.compares(context=context, **request)
        shop.clock.move(4 * 3600 if by == "time" else 60)
    assert len(await shop.commands()) == 2
    assert len([case for case in await shop.cases() if case["held_at"] is not None]) == 4


async def test_a_small_shop_has_a_smaller_limit(shop: Comparing) -> None:
    """Six are all of its orders."""
    unpaid(shop, *"abcdef")
    assert (await shop.compares()).failed == 6
    assert await shop.commands() == []
    shop.clock.move(25 * 3600)
    unpaid(shop, *"ghijkl")
    for number in range(120):
        shop.owners.orders_it(f"ord_x{number}", updated_at=shop.owners.now())
    assert (await shop.compares()).failed == 6, "those of before"
    assert len(await shop.commands()) == 6


async def test_orphans_are_not_refunded_by_the_hundred(shop: Comparing) -> None:
    """order_service is at an empty database, or at one that lacks most of its orders."""
    context = shop.without(orphan_policy=OrphanPolicy.REFUND)
    for number in range(6):
        shop.owners.pays(f"pay_{number}", f"ord_{number}")
    await shop.compares(context=context)
    assert {action for _, action, _ in await shop.found()} == {None}
    shop.owners.orders_it("ord_other", updated_at=shop.owners.now())
    assert (await shop.compares(context=context)).failed == 6
    assert {action for _, action, _ in await shop.found()} == {"refund"}
    assert await shop.commands() == []


async def test_what_a_person_explains_during_the_run_is_not_done(shop: Comparing) -> None:
    unpaid(shop, "1", "2", "3")
    lists = shop.context.gateway_lists

    class Meanwhile:
        async def gateways_with_lists(self) -> tuple[str, ...]:
            first, second, _ = await shop.cases()
            await resolve_case(first["case_id"], Wish(Action.ACCEPT, "paid in cash; keep it", "ann"), shop.context)
            await resolve_case(second["case_id"], Wish(Action.REFUND, "give it back", "ann"), shop.context)
            async with shop.context.uow() as tx:
                payment = await tx.mirror.payment("pay_3")
                assert payment is not None
                standing = Standing(amount_authorized=1000, amount_captured=1000)
                newer = replace(payment, version=5, status=PaymentStatus.CAPTURED, standing=standing)
                await tx.mirror.put_payments([newer])  # by a settlement run's pull
            return await lists.gateways_with_lists()

    await shop.compares(context=replace(shop.context, gateway_lists=Meanwhile()))  # type: ignore[arg-type]
    assert await shop.commands() == []


async def test_two_who_act_on_a_case_at_once_both_do(shop: Comparing) -> None:
    unpaid(shop, "1")
    await shop.compares(context=shop.without(cancel_limit=0))
    async with shop.context.uow() as tx:
        case = await tx.cases.get((await shop.cases())[0]["case_id"])
    assert case is not None

    async def acts(action: Action) -> None:
        async with shop.context.uow() as tx:
            assert await act_on_case(tx, case, action, asked_by="ann", context=shop.context)

    await asyncio.gather(*(acts(action) for action in (Action.SYNC, Action.CANCEL_ORDER, Action.CONFIRM_ORDER)))
    assert [row["number"] for row in await shop.rows("SELECT number FROM case_actions ORDER BY 1")] == [1, 2, 3]


async def test_money_that_the_order_gave_up_on_is_refunded_once(shop: Comparing) -> None:
    owners = shop.owners
    owners.pays()
    owners.orders_it(status="canceled", knows=[owners.knowing(resolution="refund_failed")])
    await shop.compares()
    [command] = await shop.commands()
    assert (command["type"], command["reason"]) == ("refund.requested.v1", "reconciliation")
    for _ in range(3):  # its refund is tried and comes to nothing: the payment's version grows, the money stays
        owners.changes(owners.payments, "pay_1", updated_at=owners.ago(minutes=20))
        owners.changes(owners.orders, "ord_1", updated_at=owners.ago(minutes=20))
        owners.orders["ord_1"]["payments"][0]["version"] = owners.payments["pay_1"]["version"]
        shop.clock.move(3 * 3600)
        await shop.compares()
    assert len(await shop.commands()) == 1
    [case] = await shop.cases()
    assert case["status"] == "open"
    assert "unverified" in case["evidence"], "after hours without an effect it says that a person is needed"


async def test_an_orphan_is_a_case_unless_the_policy_is_to_refund_it(shop: Comparing) -> None:
    shop.owners.pays(order_id="ord_gone")
    shop.owners.orders_it("ord_other")
    await shop.compares()
    assert await shop.found() == [("orphan_payment", None, "open")]
    assert await shop.commands() == []
    await shop.compares(context=shop.without(orphan_policy=OrphanPolicy.REFUND))
    assert [each["type"] for each in await shop.commands()] == ["refund.requested.v1"]


async def test_an_unanswered_call_is_asked_about_in_each_run_until_it_is_answered(shop: Comparing) -> None:
    owners = shop.owners
    owners.pays(status="processing", outcome_unknown=True, unknown_since=owners.ago(hours=25))
    owners.orders_it(knows=[owners.knowing(status="processing", amount_captured=0)])
    await shop.compares()
    await shop.compares()
    await shop.compares(run_id="run_2")
    assert [each["type"] for each in await shop.commands()] == ["payment.sync_requested.v1"] * 2, "once a run"
    owners.changes(owners.payments, "pay_1", outcome_unknown=False, unknown_since=None)
    await shop.compares()
    assert await shop.found() == [("unknown_outcome", "sync", "resolved")]


async def test_parked_webhooks_are_cases_until_somebody_claims_them(shop: Comparing) -> None:
    owners = shop.owners
    owners.parks("prk_1", "nobody's")
    owners.parks("prk_2", "gw_pay_1")
    owners.pays()
    owners.confirms()
    await shop.compares()
    assert await shop.found() == [("unclaimed_webhook", None, "open"), ("unclaimed_webhook", "sync", "open")]
    assert [each["payment_id"] for each in await shop.commands()] == ["pay_1"]
    first = (await shop.cases())[0]
    assert first["evidence"]["delivery_id"] == "whd_prk_1"
    del owners.parked["prk_1"]
    await shop.compares()
    assert [each["status"] for each in await shop.cases()] == ["resolved", "open"]


async def test_what_only_the_gateway_knows_is_a_case_with_candidates(shop: Comparing) -> None:
    owners = shop.owners
    owners.pays("pay_1")
    owners.confirms()
    owners.lists_it("gw_pay_1", payment_id="pay_1")
    owners.lists_it("gw_small", minor=999)
    owners.lists_it("gw_stranger")
    owners.lists_it("gw_nothing", observations=[])
    await shop.compares()
    cases = await shop.cases()
    assert [(each["scenario"], each["action"], each["actual_minor"]) for each in cases] == [
        ("unknown_at_us", None, 999),
        ("unknown_at_us", None, 1000),
    ]
    assert [each["payment_id"] for each in cases[1]["evidence"]["candidates"]] == ["pay_1"]
    assert cases[0]["evidence"]["candidates"] == []

    owners.lists_away = {"generic"}  # nothing was seen of it in this run, so nothing is settled by it
    assert (await shop.compares()).failed == 1
    assert {each["status"] for each in await shop.cases()} == {"open"}

    owners.lists_away = set()
    owners.pays("pay_2", "ord_2", references=["gw_stranger"], status="conflicted", updated_at=owners.now())
    owners.lists["generic"][2]["payment_id"] = "pay_2"
    await shop.compares()
    assert [each["status"] for each in await shop.cases() if each["scenario"] == "unknown_at_us"] == [
        "open",
        "resolved",
    ]


async def test_money_at_the_gateway_that_we_show_none_of_is_asked_about(shop: Comparing) -> None:
    owners = shop.owners
    owners.pays("pay_1", status="expired")
    owners.pays("pay_2", "ord_2", status="requires_action", updated_at=owners.ago(minutes=1))
    owners.lists_it("gw_pay_1", payment_id="pay_1")
    owners.lists_it("gw_pay_2", payment_id="pay_2")
    await shop.compares()
    assert await shop.found() == [("unknown_at_us", "sync", "open")], "the young one is only asked about"
    assert sorted(each["payment_id"] for each in await shop.commands()) == ["pay_1", "pay_2"]
    owners.changes(owners.payments, "pay_1", status="captured", amount_authorized=1000, amount_captured=1000)
    del owners.lists["generic"]
    await shop.compares()
    assert await shop.found() == [("unknown_at_us", "sync", "resolved")]


async def test_a_window_or_a_gateway_narrows_what_is_compared_and_open_cases_are_looked_at_all_the_same(
    shop: Comparing,
) -> None:
    owners = shop.owners
    owners.pays("pay_1", "ord_1")
    owners.orders_it("ord_1")
    owners.pays("pay_2", "ord_2", gateway="stripe", created_at=owners.ago(days=9))
    owners.orders_it("ord_2")
    await shop.compares(gateway="stripe")
    assert [case["order_id"] for case in await shop.cases()] == ["ord_2"]
    now = shop.clock.now()
    await shop.compares(window_from=now.replace(day=1), window_to=now)
    assert {case["order_id"] for case in await shop.cases()} == {"ord_1", "ord_2"}
    owners.confirms("ord_2", "pay_2")
    owners.changes(owners.orders, "ord_2")
    await shop.compares(window_from=now.replace(day=1), window_to=now)
    assert [(case["order_id"], case["status"]) for case in await shop.cases()] == [
        ("ord_1", "open"),
        ("ord_2", "resolved"),
    ]


async def test_nothing_is_compared_with_half_of_a_side(shop: Comparing) -> None:
    """Orders that cannot be read must not look like orders that are not there."""
    shop.owners.pays()
    shop.owners.status["orders"] = 503
    with pytest.raises(ServiceUnavailable):
        await shop.compares()
    assert await shop.cases() == []


async def test_without_a_key_cases_are_found_and_nothing_is_sent(shop: Comparing) -> None:
    shop.owners.pays()
    shop.owners.orders_it()
    without = replace(shop.context, command_key=None)
    await shop.compares(context=without)
    assert len(await shop.cases()) == 1
    assert await shop.commands() == []
    await shop.compares()
    assert len(await shop.commands()) == 1, "with a key it is sent, for the same case"


def dying(context: Context, after: int) -> Context:
    """The process ends at the transaction after so many: just before its commit, or (odd ones) just after it."""
    begun = 0

    @asynccontextmanager
    async def uow() -> AsyncIterator[ReconcilerTransaction]:
        nonlocal begun
        begun += 1
        async with context.uow() as tx:
            yield tx
            if begun > after and after % 2 == 0:
                raise Killed
        if begun > after:
            raise Killed

    def open_one() -> AbstractAsyncContextManager[ReconcilerTransaction]:
        return uow()

    return replace(context, uow=open_one, settlement_uow=open_one)


def a_shop_with_trouble(shop: Comparing) -> None:
    owners = shop.owners
    owners.pays("pay_1", "ord_1")
    owners.orders_it("ord_1")
    owners.pays("pay_2", "ord_2", status="canceled")
    owners.confirms("ord_2", "pay_2", version=2)
    owners.pays("pay_3", "ord_3")
    owners.orders_it("ord_3", status="expired", knows=[owners.knowing("pay_3", resolution="refund_failed")])
    owners.pays("pay_4", "ord_4", status="processing", outcome_unknown=True, unknown_since=owners.ago(days=2))
    owners.orders_it("ord_4", knows=[owners.knowing("pay_4", status="processing", amount_captured=0)])
    owners.parks("prk_1", "gw_pay_1")
    owners.lists_it("gw_stranger")


def told(commands: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return sorted((each["type"], each.get("order_id") or each["payment_id"]) for each in commands)


async def test_killed_between_any_two_steps_and_run_again_it_ends_the_same(shop: Comparing) -> None:
    """RC10: one case for each disagreement and one command of each case, wherever the first try ended."""
    a_shop_with_trouble(shop)
    await shop.compares(run_id="run_again")
    expected = (await shop.found(), told(await shop.commands()))
    step, died = 0, True
    while died:
        for table in TABLES:
            await shop.execute(f"DELETE FROM {table}")
        try:
            await shop.compares(run_id="run_again", context=dying(shop.context, step))
            died = False
        except Killed:
            await shop.compares(run_id="run_again")
        assert (await shop.found(), told(await shop.commands())) == expected, f"killed at step {step}"
        step += 1
    assert step >= 20, "it dies at every step, until there are no more"


TABLES = (
    "case_actions",
    "cases",
    "outbox_messages",
    "outbox_sequences",
    "pull_marks",
    "known_movements",
    "known_references",
    "known_payments",
    "known_order_payments",
    "known_orders",
    "known_parked_events",
)


async def test_two_runs_at_once_leave_one_case_and_one_command_each(shop: Comparing) -> None:
    a_shop_with_trouble(shop)
    for number in range(20):
        shop.owners.pays(f"pay_x{number}", f"ord_x{number}")
        shop.owners.orders_it(f"ord_x{number}")
    await asyncio.gather(shop.compares(), shop.compares())
    keys = [case["key"] for case in await shop.cases()]
    assert len(keys) == len(set(keys)) == 26
    commands = [each["command_key"] for each in await shop.commands() if not each["type"].startswith("payment.sync")]
    assert len(commands) == len(set(commands)) == 23
