"""Commands of cases: built from the mirror, signed, sent once for ever (RC10, XS25)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from services.reconciler.domain.cases import Action, Case, CaseKind, Finding, Scenario, Subject
from services.reconciler.use_cases.act_on_case import act_on_case
from services.reconciler.use_cases.ports import Context
from shared.contracts.commands import (
    Command,
    OrderCancelRequested,
    OrderConfirmRequested,
    PaymentSyncRequested,
    RefundRequested,
)
from tests.integration.reconciler.owners import COMMAND_KEY, Comparing, comparing
from tests.support.postgres import ServiceDatabase

MODELS: dict[Action, type[Command]] = {
    Action.CONFIRM_ORDER: OrderConfirmRequested,
    Action.CANCEL_ORDER: OrderCancelRequested,
    Action.REFUND: RefundRequested,
    Action.SYNC: PaymentSyncRequested,
}


@pytest.fixture
async def shop(service_database: ServiceDatabase) -> AsyncIterator[Comparing]:
    async with comparing(service_database("reconciler")) as made:
        made.owners.pays()
        made.owners.orders_it()
        await made.pulls()
        yield made


async def a_case(shop: Comparing, **subject: str | None) -> Case:
    about = {"gateway": "generic", "order_id": "ord_1", "payment_id": "pay_1"} | subject
    finding = Finding(CaseKind.ORDERS, Scenario.LATE_PAYMENT, "late", Subject(**about))  # type: ignore[arg-type]
    async with shop.context.uow() as tx:
        case_id = shop.context.ids.new("case")
        [(case, _)] = await tx.cases.put_all([finding], case_ids=[case_id], run_id="run_1", at=shop.clock.now())
    return case


async def acts(shop: Comparing, case: Case, action: Action, context: Context | None = None) -> bool:
    async with shop.context.uow() as tx:
        return await act_on_case(tx, case, action, asked_by="an operator", context=context or shop.context)


@pytest.mark.parametrize("action", list(MODELS))
async def test_a_command_is_signed_and_sent_once(shop: Comparing, action: Action) -> None:
    case = await a_case(shop)
    assert [await acts(shop, case, action) for _ in range(3)] == [True, False, False]
    [sent] = await shop.commands()
    command = MODELS[action].model_validate(sent)
    assert sent["type"] == MODELS[action].TYPE
    assert command.sender == "reconciler"
    assert command.is_signed_by([bytes.fromhex(COMMAND_KEY)])
    assert command.command_key.startswith(f"{case.case_id}:{action.value}")
    [noted] = await shop.rows("SELECT * FROM case_actions")
    assert (noted["action"], noted["asked_by"], noted["command_key"]) == (
        action.value,
        "an operator",
        command.command_key,
    )


async def test_each_action_of_a_case_is_a_command_of_its_own(shop: Comparing) -> None:
    case = await a_case(shop)
    for action in MODELS:
        assert await acts(shop, case, action)
    assert len({each["command_key"] for each in await shop.commands()}) == len(MODELS)


async def test_the_order_is_told_the_newest_state_that_is_known(shop: Comparing) -> None:
    case = await a_case(shop)
    shop.owners.changes(shop.owners.payments, "pay_1", amount_refunded=100)
    await shop.pulls()
    await acts(shop, case, Action.CONFIRM_ORDER)
    [sent] = await shop.commands()
    assert (sent["payment"]["version"], sent["payment"]["amount_refunded"]) == (4, 100)
    [row] = await shop.rows("SELECT subject FROM outbox_messages")
    assert row["subject"] == "ord_1"


async def test_the_gateway_is_asked_once_in_each_run(shop: Comparing) -> None:
    case = await a_case(shop)
    later = replace(case, last_seen_run="run_2")
    assert [await acts(shop, each, Action.SYNC) for each in (case, case, later, later)] == [True, False, True, False]


async def test_what_cannot_be_said_is_not_sent(shop: Comparing) -> None:
    case = await a_case(shop)
    nobodys = replace(case, subject=replace(case.subject, payment_id="pay_unknown"))
    nothing = replace(case, subject=replace(case.subject, payment_id=None))
    others = replace(case, subject=replace(case.subject, order_id="ord_other"))
    assert not await acts(shop, case, Action.REFUND, replace(shop.context, command_key=None))
    assert not await acts(shop, case, Action.ACCEPT)
    assert not await acts(shop, nothing, Action.SYNC)
    assert not await acts(shop, nobodys, Action.REFUND)
    assert not await acts(shop, nobodys, Action.CONFIRM_ORDER)
    assert not await acts(shop, others, Action.CANCEL_ORDER), "an order and a payment that do not belong together"
    assert await shop.commands() == []
    assert await shop.rows("SELECT * FROM case_actions") == []
    assert await acts(shop, nobodys, Action.CANCEL_ORDER), "an absent payment is what cancels an order"


async def test_a_command_without_its_transaction_is_none(shop: Comparing) -> None:
    case = await a_case(shop)

    async def acts_and_fails() -> None:
        async with shop.context.uow() as tx:
            await act_on_case(tx, case, Action.REFUND, asked_by="policy", context=shop.context)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await acts_and_fails()
    assert await shop.commands() == []
    assert await acts(shop, case, Action.REFUND), "and it can still be sent"
