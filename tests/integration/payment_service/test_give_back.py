"""Money that an order does not want goes back, once, on a signed command and on nothing else."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from services.payment_service.domain.models import FactKind, Observation
from services.payment_service.messaging.handlers import CommandHandler
from services.payment_service.use_cases.give_back import give_back
from shared.contracts.commands import RefundRequested
from shared.contracts.envelope import EventEnvelope
from shared.errors import NotFound
from shared.messaging.commands import UnsignedCommand
from shared.money import Money
from shared.unit_of_work import InboxClaim
from tests.integration.payment_service.conftest import BuildWorld
from tests.integration.payment_service.fake_money import ORDERED, Do, Shop, open_shop

SENDER_KEY, OTHER_KEY = b"s" * 32, b"o" * 32


async def a_command(shop: Shop, payment_id: str, **changes: Any) -> RefundRequested:
    (row,) = await shop.world.rows("SELECT order_id FROM payments WHERE payment_id = :p", p=payment_id)
    values = {
        "sender": "order_service",
        "command_key": f"late_payment:{payment_id}",
        "payment_id": payment_id,
        "order_id": row["order_id"],
        "reason": "late_payment",
    }
    return RefundRequested(**(values | changes))


def envelope(shop: Shop, command: RefundRequested, message_id: str = "evt_1") -> EventEnvelope:
    return EventEnvelope(
        id=message_id,
        source="payrail/order_service",
        type=command.TYPE,
        subject=command.order_id,
        time=shop.clock.now(),
        sequence=1,
        correlationid=command.order_id,
        data=command.model_dump(mode="json"),
    )


async def deliver(shop: Shop, command: RefundRequested, message_id: str = "evt_1") -> None:
    handler = CommandHandler(shop.context, {"order_service": (SENDER_KEY,)})
    await handler(envelope(shop, command, message_id), InboxClaim("payment.commands", message_id))


async def test_captured_money_is_refunded_once_however_often_it_is_asked_for(build_world: BuildWorld) -> None:
    """RF18."""
    shop = await open_shop(build_world)
    payment_id = await shop.captured()
    signed = (await a_command(shop, payment_id)).signed(SENDER_KEY)
    await deliver(shop, signed)
    await deliver(shop, signed)  # the same message
    await deliver(shop, signed, "evt_2")  # the same command in another message
    assert await shop.statuses(payment_id) == ["pending"]
    await shop.run_due()
    await deliver(shop, signed, "evt_3")
    await shop.run_due()

    ((row),) = await shop.operations(payment_id)
    assert (row["status"], row["kind"], row["amount_minor"]) == ("succeeded", "refund", ORDERED)
    assert (row["origin"], row["actor"], row["reason"]) == ("policy", "order_service", "late_payment")
    assert len(shop.account(payment_id).refunds) == 1
    await shop.assert_books_agree(payment_id)


async def test_the_same_command_in_many_messages_at_once(build_world: BuildWorld) -> None:
    shop = await open_shop(build_world)
    payment_id = await shop.captured()
    signed = (await a_command(shop, payment_id)).signed(SENDER_KEY)
    await asyncio.gather(*(deliver(shop, signed, f"evt_{number}") for number in range(10)))
    await asyncio.gather(*(shop.run_due() for _ in range(3)))
    assert await shop.statuses(payment_id) == ["succeeded"]
    await shop.assert_books_agree(payment_id)


async def test_a_command_that_is_not_signed_by_its_sender_moves_nothing(build_world: BuildWorld) -> None:
    """XS25."""
    shop = await open_shop(build_world)
    payment_id, other = await shop.captured(), await shop.captured()
    command = await a_command(shop, payment_id)
    signed = command.signed(SENDER_KEY)
    stolen = (await a_command(shop, other)).model_copy(update={"signature": signed.signature})
    unknown = await a_command(shop, payment_id, sender="reconciler")
    for number, forged in enumerate((command, command.signed(OTHER_KEY), unknown.signed(SENDER_KEY), stolen)):
        with pytest.raises(UnsignedCommand):
            await deliver(shop, forged, f"evt_{number}")
    await shop.settle_down()
    assert await shop.world.rows("SELECT * FROM operations") == []
    assert shop.account(payment_id).refunds == shop.account(other).refunds == []
    await deliver(shop, signed, "evt_0")  # the message of the first forgery is not used up
    assert await shop.statuses(payment_id) == ["pending"]


async def test_a_command_that_failed_is_not_carried_out_again_by_its_repetition(build_world: BuildWorld) -> None:
    shop = await open_shop(build_world)
    payment_id = await shop.captured()
    shop.gateway.will("refund", Do.REJECT)
    signed = (await a_command(shop, payment_id)).signed(SENDER_KEY)
    await deliver(shop, signed)
    await shop.run_due()
    await deliver(shop, signed, "evt_2")
    await shop.run_due()
    assert await shop.statuses(payment_id) == ["failed"]
    assert len(shop.gateway.called("refund")) == 1


async def test_held_money_is_released(build_world: BuildWorld) -> None:
    shop = await open_shop(build_world)
    payment_id = await shop.held()
    await deliver(shop, (await a_command(shop, payment_id)).signed(SENDER_KEY))
    await shop.run_due()
    assert await shop.statuses(payment_id, "void") == ["succeeded"]
    assert await shop.statuses(payment_id) == ["succeeded"]
    assert shop.account(payment_id).is_held_no_more == "canceled"


async def test_a_part_that_was_captured_is_refunded_and_the_rest_released(build_world: BuildWorld) -> None:
    shop = await open_shop(build_world)
    payment_id = await shop.held()
    await shop.capture(payment_id, 500, body={"final": False})
    await deliver(shop, (await a_command(shop, payment_id)).signed(SENDER_KEY))
    await shop.run_due()
    assert await shop.statuses(payment_id, "void") == await shop.statuses(payment_id, "refund") == ["succeeded"]
    account = shop.account(payment_id)
    assert (account.captured, account.refunded, account.is_held_no_more) == (500, 500, "released")
    await shop.assert_books_agree(payment_id)


async def test_what_was_refunded_already_is_not_refunded_again(build_world: BuildWorld) -> None:
    shop = await open_shop(build_world)
    payment_id = await shop.captured()
    await shop.refund(payment_id, 500)
    shop.gateway.will("refund", Do.LOSE_AFTER)
    await shop.refund(payment_id, 300, key="a-key-of-the-merchant-0002")  # unknown: it may have run
    await deliver(shop, (await a_command(shop, payment_id)).signed(SENDER_KEY))
    await shop.run_due()
    await shop.settle_down()
    assert sorted(r.amount.amount_minor for r in shop.account(payment_id).refunds) == [300, 500, ORDERED - 800]
    await shop.assert_books_agree(payment_id)


async def test_a_void_waits_for_a_capture_that_may_have_run(build_world: BuildWorld) -> None:
    """RF17: then what was captured is refunded."""
    shop = await open_shop(build_world)
    payment_id = await shop.held()
    shop.gateway.will("capture", Do.LOSE_AFTER)
    await shop.capture(payment_id)
    command = (await a_command(shop, payment_id)).signed(SENDER_KEY)
    with pytest.raises(Exception, match="capture of this payment") as refused:
        await deliver(shop, command)
    assert getattr(refused.value, "retryable", False), "the message is tried again"
    assert await shop.statuses(payment_id, "void") == []
    await shop.later(1)
    await shop.run_due()
    await deliver(shop, command)
    await shop.run_due()
    assert shop.gateway.called("void") == []
    assert shop.account(payment_id).refunded == ORDERED
    await shop.assert_books_agree(payment_id)


async def test_a_command_about_an_unknown_payment_is_tried_again_and_counts_then(build_world: BuildWorld) -> None:
    shop = await open_shop(build_world)
    payment_id = await shop.captured()
    command = await a_command(shop, payment_id)
    claim = InboxClaim("payment.commands", "evt_1")
    for wrong in ({"payment_id": "pay_unknown"}, {"order_id": "ord_of_another"}):
        with pytest.raises(NotFound):
            await give_back(command.model_copy(update=wrong), claim, shop.context)
    assert await give_back(command, claim, shop.context) != ()


async def test_nothing_to_give_back_is_told_and_that_is_all(build_world: BuildWorld) -> None:
    shop = await open_shop(build_world)
    payment_id = await shop.opened()
    await deliver(shop, (await a_command(shop, payment_id)).signed(SENDER_KEY))
    assert await shop.operations(payment_id) == []
    timeline = await shop.world.rows("SELECT summary FROM payment_timeline WHERE kind = 'decision'")
    assert len(timeline) == 1


CONTESTING = (
    Observation(FactKind.DISPUTE_OPENED, "dp_1", Money(100, "EUR")),
    Observation(FactKind.REFUND_SUCCEEDED, "re_dashboard", Money(1100, "USD")),
)


@pytest.mark.parametrize("contesting", CONTESTING, ids=lambda each: each.kind.value)
async def test_what_the_api_refuses_to_refund_no_command_refunds(
    build_world: BuildWorld, contesting: Observation
) -> None:
    """An open dispute about a part, money that went back in another currency: it might go back twice."""
    shop = await open_shop(build_world)
    payment_id = await shop.captured()
    await shop.tell(payment_id, contesting)
    assert (await shop.refund(payment_id)).status_code == 409
    before = await shop.statuses(payment_id)
    await deliver(shop, (await a_command(shop, payment_id)).signed(SENDER_KEY))
    await shop.run_due()
    assert await shop.statuses(payment_id) == before
    assert shop.gateway.called("refund") == []
    (entry,) = await shop.world.rows("SELECT summary FROM payment_timeline WHERE kind = 'decision'")
    assert "a person has to decide" in entry["summary"]


async def test_a_dispute_that_is_over_lets_the_next_command_refund(build_world: BuildWorld) -> None:
    """order_service asks again, with a key of its own; the one that planned nothing stays obeyed."""
    shop = await open_shop(build_world)
    payment_id = await shop.captured()
    await shop.tell(payment_id, CONTESTING[0])
    first = (await a_command(shop, payment_id)).signed(SENDER_KEY)
    await deliver(shop, first)
    await shop.tell(payment_id, Observation(FactKind.DISPUTE_WON, "dp_1", Money(100, "EUR")))
    await deliver(shop, first, "evt_2")
    assert await shop.statuses(payment_id) == []
    again = await a_command(shop, payment_id, command_key=f"late_payment:{payment_id}#2")
    await deliver(shop, again.signed(SENDER_KEY), "evt_3")
    await shop.run_due()
    assert shop.account(payment_id).refunded == ORDERED


async def test_a_hold_is_released_though_a_dispute_is_open(build_world: BuildWorld) -> None:
    shop = await open_shop(build_world)
    payment_id = await shop.held()
    await shop.capture(payment_id, 500, body={"final": False})
    await shop.tell(payment_id, CONTESTING[0])
    await deliver(shop, (await a_command(shop, payment_id)).signed(SENDER_KEY))
    await shop.run_due()
    assert await shop.statuses(payment_id, "void") == ["succeeded"]
    assert shop.gateway.called("refund") == []


async def test_a_command_that_found_nothing_finds_nothing_when_it_is_replayed_later(build_world: BuildWorld) -> None:
    """RF18: it was obeyed. Whoever can write to the broker cannot use it up again once there is money."""
    shop = await open_shop(build_world)
    payment_id = await shop.opened()
    signed = (await a_command(shop, payment_id)).signed(SENDER_KEY)
    await deliver(shop, signed)
    await shop.tell(payment_id, Observation(FactKind.CAPTURED, "late_1", Money(ORDERED, "EUR")))
    await deliver(shop, signed, "evt_2")
    assert await shop.operations(payment_id) == []
    assert len(await shop.world.rows("SELECT 1 FROM payment_timeline WHERE kind = 'decision'")) == 1
    again = await a_command(shop, payment_id, command_key=f"late_payment:{payment_id}#2")
    await deliver(shop, again.signed(SENDER_KEY), "evt_3")
    assert await shop.statuses(payment_id) == ["pending"]


async def test_a_gateway_that_is_away_gets_it_later(build_world: BuildWorld) -> None:
    shop = await open_shop(build_world)
    payment_id = await shop.captured()
    shop.gateway.will("refund", Do.UNAVAILABLE, Do.LOSE_AFTER)
    await deliver(shop, (await a_command(shop, payment_id)).signed(SENDER_KEY))
    await shop.run_due()
    await shop.settle_down()
    assert await shop.statuses(payment_id) == ["succeeded"]
    assert len(set(shop.gateway.called("refund"))) == 1
    await shop.assert_books_agree(payment_id)
