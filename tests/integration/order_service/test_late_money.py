"""Money that comes late or twice: it buys the goods after all, or payment_service is told once to give it back."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest
from structlog.testing import capture_logs

from services.order_service.domain.models import PaymentSnapshot, PaymentStatus
from services.order_service.use_cases.expire_orders import expire_due_orders
from services.order_service.worker import send_mails
from shared.contracts.payment_events import PaymentLateSuccess, RefundCreated, RefundFailed, RefundSucceeded
from shared.money import Money
from tests.integration.order_service.conftest import Answer, BuildWorld, World
from tests.integration.order_service.fakes import a_refund_event, all_together, an_event, deliver
from tests.support.clock import FakeClock

AFTER_EXPIRY = 31 * 60


async def an_expired_order(world: World, clock: FakeClock, *, quantity: int = 1) -> tuple[Answer, str]:
    """Its hosted page was closed, as the gateway said."""
    order = await world.order(items=[{"sku": "moka-pot", "quantity": quantity}])
    payment_id = await world.open_session(order)
    clock.move(AFTER_EXPIRY)
    await expire_due_orders(world.container.deps)
    assert (await world.see(order))["status"] == "expired"
    return order, payment_id


async def a_duplicate(world: World, order: Answer, status: PaymentStatus = PaymentStatus.CAPTURED) -> PaymentSnapshot:
    """A second payment of this order at another gateway, unknown here until its money is there."""
    total = Money(order.document["total"]["amount_minor"], order.document["currency"])
    taken = total.amount_minor if status is PaymentStatus.CAPTURED else 0
    snapshot = PaymentSnapshot(
        "pay_zzz", order.id, "generic", status, 3, total, amount_authorized=total.amount_minor, amount_captured=taken
    )
    world.payments.sessions[snapshot.payment_id] = snapshot
    await deliver(world.container, an_event(snapshot))
    return snapshot


def resolutions(document: dict[str, Any]) -> list[str | None]:
    return [payment["resolution"] for payment in document["payments"]]


async def test_late_money_is_asked_back_by_one_signed_command(world: World, clock: FakeClock) -> None:
    order, payment_id = await an_expired_order(world, clock)
    paid = await world.gateway_says(payment_id, PaymentStatus.CAPTURED)
    (command,) = await world.commands()
    assert (command.sender, command.command_key) == ("order_service", f"{payment_id}:late_payment")
    assert (command.payment_id, command.order_id, command.reason) == (payment_id, order.id, "late_payment")
    seen = await world.see(order)
    assert (seen["status"], seen["payment_status"], seen["attention"]) == ("expired", "paid", "late_payment")
    assert resolutions(seen) == ["refund_requested"]
    assert await world.stock() == (10, 0)
    assert await world.events(order.id) == [
        "order.created.v1",
        "order.expired.v1",
        "refund.requested.v1",
        "order.attention_required.v1",
    ]
    assert (await world.rows("SELECT DISTINCT subject FROM outbox_messages")) == [{"subject": order.id}]

    pending = world.payments.becomes(payment_id, paid.status, amount_refund_pending=3900)
    await deliver(world.container, a_refund_event(pending, RefundCreated))
    assert (await world.see(order))["attention"] == "late_payment"
    back = world.payments.becomes(payment_id, paid.status, amount_refund_pending=0, amount_refunded=3900)
    await deliver(world.container, a_refund_event(back, RefundSucceeded, refund_reason="late_payment"))
    seen = await world.see(order)
    assert (seen["status"], seen["payment_status"], seen["attention"]) == ("expired", "refunded", None)
    assert await world.stock() == (10, 0), "nothing was sold, so nothing goes back"
    assert "order.refunded.v1" not in await world.events(order.id)
    assert len(await world.commands()) == 1


async def test_the_same_late_success_heard_three_times_is_one_command(world: World, clock: FakeClock) -> None:
    """By webhook, sweep and settlement, in versions of their own and at once (failure RF18)."""
    _, payment_id = await an_expired_order(world, clock)
    heard = [world.payments.becomes(payment_id, PaymentStatus.CAPTURED) for _ in range(3)]
    events = [an_event(snapshot, PaymentLateSuccess if first else None) for snapshot in heard for first in (1, 0)]
    await all_together(*(partial(deliver, world.container, event) for event in [*events, *reversed(events)]))
    assert [command.command_key for command in await world.commands()] == [f"{payment_id}:late_payment"]


async def test_an_order_that_was_canceled_gives_its_money_back_for_that_reason(world: World) -> None:
    order = await world.order()
    payment_id = await world.open_session(order)
    assert (await world.cancel(order)).status_code == 200
    await world.gateway_says(payment_id, PaymentStatus.CAPTURED)
    assert [command.reason for command in await world.commands()] == ["order_canceled"]


async def test_late_money_buys_the_goods_where_their_policy_says_so(world: World, clock: FakeClock) -> None:
    await world.has_product(reconcile_policy="fulfil")
    order, payment_id = await an_expired_order(world, clock, quantity=3)
    before = await world.see(order)
    paid = await world.gateway_says(payment_id, PaymentStatus.CAPTURED)
    await deliver(world.container, an_event(paid), an_event(world.payments.becomes(payment_id, paid.status)))
    seen = await world.see(order)
    assert (seen["status"], seen["payment_status"], seen["attention"]) == ("confirmed", "paid", None)
    assert resolutions(seen) == ["fulfilled"]
    assert seen["closed_at"] == before["closed_at"], "that it was closed once stays known"
    assert seen["invoice_number"] == "INV-000001"
    assert await world.stock() == (7, 0)
    assert await world.events(order.id) == ["order.created.v1", "order.expired.v1", "order.paid.v1"]
    (row,) = await world.rows("SELECT convert_from(body, 'UTF8') AS body FROM outbox_messages WHERE type LIKE '%paid%'")
    assert '"reason":"late_payment"' in row["body"]
    await send_mails(world.container)
    assert len(world.mailer.sent) == 1
    assert await world.commands() == []


async def test_a_reopened_order_that_is_refunded_restores_its_stock(world: World, clock: FakeClock) -> None:
    await world.has_product(reconcile_policy="fulfil")
    order, payment_id = await an_expired_order(world, clock, quantity=3)
    await world.gateway_says(payment_id, PaymentStatus.CAPTURED)
    await world.gateway_says(payment_id, PaymentStatus.CAPTURED, amount_refunded=3 * 3900)
    assert await world.stock() == (10, 0)
    assert (await world.see(order))["payment_status"] == "refunded"


async def test_late_money_goes_back_when_the_goods_are_gone(world: World, clock: FakeClock) -> None:
    await world.has_product(reconcile_policy="fulfil", stock=3)
    order, payment_id = await an_expired_order(world, clock, quantity=3)
    await world.order()  # somebody else wants one of the three
    await world.gateway_says(payment_id, PaymentStatus.CAPTURED)
    assert resolutions(await world.see(order)) == ["refund_requested"]
    assert await world.stock() == (3, 1)
    assert len(await world.commands()) == 1


async def test_one_product_that_says_refund_decides_for_the_whole_order(world: World, clock: FakeClock) -> None:
    await world.has_product("dallah")
    await world.has_product(reconcile_policy="fulfil")
    order = await world.order(items=[{"sku": "moka-pot", "quantity": 1}, {"sku": "dallah", "quantity": 1}])
    payment_id = await world.open_session(order)
    await world.cancel(order)
    await world.gateway_says(payment_id, PaymentStatus.CAPTURED)
    assert resolutions(await world.see(order)) == ["refund_requested"]


async def test_the_last_piece_is_sold_once_to_many_late_payments(build_world: BuildWorld, clock: FakeClock) -> None:
    replicas = [await build_world() for _ in range(2)]
    world = replicas[0]
    await world.has_product(reconcile_policy="fulfil", stock=20)
    late = [await an_expired_order(world, clock) for _ in range(20)]
    await world.has_product(reconcile_policy="fulfil", stock=7)
    events = [an_event(world.payments.becomes(payment_id, PaymentStatus.CAPTURED)) for _, payment_id in late]
    await all_together(*(partial(deliver, replicas[n % 2].container, event) for n, event in enumerate(events)))
    assert await world.stock() == (0, 0)
    statuses = [(await world.see(order))["status"] for order, _ in late]
    assert (statuses.count("confirmed"), statuses.count("expired")) == (7, 13)
    assert len(await world.commands()) == 13
    numbers = [row["number"] for row in await world.rows("SELECT number FROM invoices ORDER BY number")]
    assert numbers == list(range(1, 8))


async def test_the_second_payment_of_an_order_is_asked_back(world: World) -> None:
    """Two gateways, both succeed (failure PY7)."""
    order = await world.paid_order()
    duplicate = await a_duplicate(world, order)
    (command,) = await world.commands()
    assert (command.command_key, command.reason) == ("pay_zzz:duplicate_payment", "duplicate_payment")
    seen = await world.see(order)
    assert (seen["status"], seen["payment_status"], seen["attention"]) == ("confirmed", "paid", "duplicate_payment")
    assert resolutions(seen) == [None, "refund_requested"]
    await world.gateway_says(duplicate.payment_id, PaymentStatus.CAPTURED, amount_refunded=3900)
    seen = await world.see(order)
    assert (seen["payment_status"], seen["attention"]) == ("paid", None)
    assert await world.stock() == (9, 0), "the order keeps its goods"


async def test_two_payments_that_succeed_at_once_leave_one(world: World) -> None:
    for _ in range(10):
        order = await world.order()
        first = await world.open_session(order)
        paid = world.payments.becomes(first, PaymentStatus.CAPTURED)
        total = Money(3900, "EUR")
        other = PaymentSnapshot(
            f"pay_z{order.id[4:]}", order.id, "generic", PaymentStatus.CAPTURED, 3, total, amount_captured=3900
        )
        await all_together(
            partial(deliver, world.container, an_event(paid)), partial(deliver, world.container, an_event(other))
        )
        seen = await world.see(order)
        assert (seen["status"], seen["attention"]) == ("confirmed", "duplicate_payment")
        assert sorted(map(str, resolutions(seen))) == ["None", "refund_requested"]
    assert len(await world.commands()) == 10
    assert await world.stock() == (0, 0)


async def test_held_funds_of_a_second_payment_are_released_and_refunded_if_they_are_captured_all_the_same(
    world: World,
) -> None:
    order = await world.paid_order()
    held = await a_duplicate(world, order, PaymentStatus.AUTHORIZED)
    seen = await world.see(order)
    assert (resolutions(seen), seen["attention"]) == ([None, "release_requested"], "duplicate_payment")
    await world.gateway_says(held.payment_id, PaymentStatus.CAPTURED, amount_captured=3900)
    await world.gateway_says(held.payment_id, PaymentStatus.CAPTURED, amount_captured=3900)
    assert resolutions(await world.see(order)) == [None, "refund_requested"]
    assert [command.command_key for command in await world.commands()] == [
        "pay_zzz:duplicate_payment:release",
        "pay_zzz:duplicate_payment",
    ]


async def test_released_funds_need_no_attention_any_more(world: World) -> None:
    order = await world.paid_order()
    held = await a_duplicate(world, order, PaymentStatus.AUTHORIZED)
    await world.gateway_says(held.payment_id, PaymentStatus.CANCELED)
    assert (await world.see(order))["attention"] is None


async def test_a_late_conflicted_payment_is_held_for_a_person(world: World, clock: FakeClock) -> None:
    order, payment_id = await an_expired_order(world, clock)
    await world.gateway_says(payment_id, PaymentStatus.CONFLICTED, amount_captured=1)
    seen = await world.see(order)
    assert (seen["attention"], resolutions(seen)) == ("amount_mismatch", [None])
    assert await world.commands() == []


async def test_without_a_key_nothing_is_asked_back_and_that_is_said_at_the_start(
    build_world: BuildWorld, clock: FakeClock
) -> None:
    with capture_logs() as logs:
        world = await build_world(command_signing_key=None)
    assert [entry["event"] for entry in logs].count("late_and_second_payments_are_not_refunded") == 1
    await world.has_product()
    order, payment_id = await an_expired_order(world, clock)
    await world.gateway_says(payment_id, PaymentStatus.CAPTURED)
    seen = await world.see(order)
    assert (seen["attention"], resolutions(seen)) == ("late_payment", [None])
    assert await world.commands() == []

    with_key = await build_world()
    await deliver(with_key.container, an_event(world.payments.becomes(payment_id, PaymentStatus.CAPTURED)))
    assert len(await with_key.commands()) == 1, "the next news finds the key"


async def test_a_refund_that_fails_keeps_the_order_flagged(world: World, clock: FakeClock) -> None:
    order, payment_id = await an_expired_order(world, clock)
    await world.gateway_says(payment_id, PaymentStatus.CAPTURED)
    failed = world.payments.becomes(payment_id, PaymentStatus.CAPTURED)
    await deliver(world.container, a_refund_event(failed, RefundFailed, failure_code="insufficient_balance"))
    seen = await world.see(order)
    assert (seen["attention"], [refund["status"] for refund in seen["refunds"]]) == ("late_payment", ["failed"])
    assert len(await world.commands()) == 1


async def test_expiry_against_late_fulfilment_conserves_the_stock(world: World, clock: FakeClock) -> None:
    """Expired at the very moment when the money comes, forty times (failure O4)."""
    rounds = 40
    await world.has_product(stock=rounds, reconcile_policy="fulfil")
    for _ in range(rounds):
        order = await world.order()
        payment_id = await world.open_session(order)
        clock.move(AFTER_EXPIRY)
        canceled = world.payments.becomes(payment_id, PaymentStatus.CANCELED)
        paid = an_event(world.payments.becomes(payment_id, PaymentStatus.CAPTURED))
        world.payments.sessions[payment_id] = canceled
        await asyncio.gather(expire_due_orders(world.container.deps), deliver(world.container, paid))
        seen = await world.see(order)
        assert (seen["status"], seen["payment_status"], seen["attention"]) == ("confirmed", "paid", None)
    assert await world.stock() == (0, 0)
    assert await world.value("SELECT count(*) FROM stock_reservations WHERE status = 'deducted'") == rounds
    assert await world.value("SELECT count(*) FROM invoices") == rounds


@pytest.mark.parametrize("captured", [1, 3899])
async def test_a_part_that_was_captured_for_good_confirms_the_order_and_is_flagged(world: World, captured: int) -> None:
    order = await world.order()
    payment_id = await world.open_session(order, capture="manual")
    await world.gateway_says(payment_id, PaymentStatus.PARTIALLY_CAPTURED, amount_authorized=3900, amount_captured=1)
    seen = await world.see(order)
    assert (seen["status"], seen["payment_status"]) == ("open", "authorized")
    totals = {"amount_authorized": captured, "amount_captured": captured}
    await world.gateway_says(payment_id, PaymentStatus.PARTIALLY_CAPTURED, **totals)
    seen = await world.see(order)
    assert (seen["status"], seen["payment_status"], seen["attention"]) == ("confirmed", "paid", "amount_mismatch")
    assert await world.stock() == (9, 0)
