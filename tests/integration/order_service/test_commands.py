"""The reconciler's commands: an order learns what it missed, or gives up a confirmation by a payment that is not there
(failure RC9). They are obeyed for their signature, and once."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from structlog.testing import capture_logs

from services.order_service.db.payment_batch import BatchUnitOfWork
from services.order_service.domain.models import PaymentSnapshot, PaymentStatus
from services.order_service.messaging.bindings import subscriptions
from services.order_service.messaging.handlers import CommandsHandler
from services.order_service.use_cases.expire_orders import expire_due_orders
from shared.contracts.commands import Command, OrderCancelRequested, OrderConfirmRequested
from shared.contracts.envelope import EventEnvelope
from shared.contracts.payment_events import PaymentEventData, RefundSucceeded
from shared.errors import ServiceUnavailable
from shared.messaging.commands import UnsignedCommand
from shared.money import Money
from shared.unit_of_work import InboxClaim
from tests.integration.order_service.conftest import RECONCILER_KEY, Answer, BuildWorld, World
from tests.integration.order_service.fakes import a_refund_event, all_together, an_event, deliver
from tests.support.clock import FakeClock

P = PaymentStatus
OTHER_KEY = b"o" * 32


async def send(
    world: World,
    order_id: str,
    snapshot: PaymentSnapshot | None,
    *,
    payment_id: str | None = None,
    cancel: bool = False,
    case: str = "case_1",
    key: bytes = RECONCILER_KEY,
) -> None:
    """Hand a command to the consumer as the bus does; ``payment_id`` alone: payment_service does not know it."""
    data = an_event(snapshot, PaymentEventData) if snapshot is not None else None
    command: Command
    common: dict[str, Any] = {"sender": "reconciler", "command_key": case, "order_id": order_id, "payment": data}
    if cancel:
        named = payment_id or (snapshot.payment_id if snapshot else "")
        command = OrderCancelRequested(**common, payment_id=named)
    else:
        command = OrderConfirmRequested(**common)
    await hand_over(world, command.signed(key))


async def hand_over(world: World, command: Command) -> None:
    container = world.container
    envelope = EventEnvelope(
        id=container.ports.ids.new("evt"),
        type=command.TYPE,
        source="/payrail/reconciler",
        subject="case_1",
        time=container.ports.clock.now(),
        sequence=1,
        data=command.model_dump(mode="json"),
    )
    handler = CommandsHandler(container.deps, container.settings.senders)
    await handler(envelope, InboxClaim("order_service.commands", envelope.id))


confirm = partial(send, cancel=False)
cancel = partial(send, cancel=True)


async def a_confirmed_order(world: World, *, quantity: int = 1) -> tuple[Answer, str]:
    order = await world.order(items=[{"sku": "moka-pot", "quantity": quantity}])
    payment_id = await world.open_session(order)
    await world.gateway_says(payment_id, P.CAPTURED)
    return order, payment_id


async def an_order_with_an_absent_payment(world: World, **changes: Any) -> tuple[Answer, str]:
    """Confirmed by a payment that this service opened and payment_service never spoke of: rows as an older release, or
    a person's hand, may have left them."""
    order, payment_id = await a_confirmed_order(world, **changes)
    world.payments.loses(payment_id)
    async with world.container.database.begin() as connection:
        totals = "amount_authorized = 0, amount_captured = 0, amount_refunded = 0"
        sql = f"UPDATE order_payments SET version = 0, status = 'created', {totals} WHERE payment_id = :id"
        await connection.execute(text(sql), {"id": payment_id})
    return order, payment_id


async def row_of(world: World, order: Answer) -> dict[str, Any]:
    return (await world.rows("SELECT * FROM orders WHERE id = :id", id=order.id))[0]


async def last_event(world: World, type_: str) -> dict[str, Any]:
    sql = "SELECT convert_from(body, 'UTF8') AS body FROM outbox_messages WHERE type = :type ORDER BY position DESC"
    return dict(json.loads((await world.rows(sql, type=type_))[0]["body"])["data"])


async def refund_commands(world: World) -> list[tuple[str, str]]:
    return [(command.payment_id, command.reason) for command in await world.commands()]


async def test_a_lost_success_confirms_its_order_once(world: World) -> None:
    order = await world.order()
    payment_id = await world.open_session(order)
    captured = world.payments.becomes(payment_id, P.CAPTURED)
    await confirm(world, order.id, captured)
    seen = await world.see(order)
    assert (seen["status"], seen["payment_status"], seen["invoice_number"]) == ("confirmed", "paid", "INV-000001")
    assert await world.stock() == (9, 0)
    for case in ("case_1", "case_2"):  # the same command again, and another that says nothing new
        await confirm(world, order.id, captured, case=case)
    assert (await world.see(order))["version"] == seen["version"]
    assert await world.events(order.id) == ["order.created.v1", "order.paid.v1"]


async def test_an_older_state_changes_nothing(world: World) -> None:
    order, payment_id = await a_confirmed_order(world)
    before = await world.see(order)
    await confirm(world, order.id, replace(world.payments.sessions[payment_id], version=1, status=P.FAILED))
    assert await world.see(order) == before


async def test_money_for_an_ended_order_is_resolved_by_its_policies(world: World, clock: FakeClock) -> None:
    for policy, expected in (("refund", "expired"), ("fulfil", "confirmed")):
        await world.has_product(reconcile_policy=policy)
        order = await world.order()
        payment_id = await world.open_session(order)
        clock.move(31 * 60)
        await expire_due_orders(world.container.deps)
        await confirm(world, order.id, world.payments.becomes(payment_id, P.CAPTURED), case=policy)
        assert (await world.see(order))["status"] == expected
    assert [reason for _, reason in await refund_commands(world)] == ["late_payment"]


async def test_what_was_known_and_not_settled_is_settled_again(build_world: BuildWorld, clock: FakeClock) -> None:
    """The order heard of its late money when nobody had a key to ask for the refund with."""
    keyless = await build_world(command_signing_key=None)
    await keyless.has_product()
    order = await keyless.order()
    payment_id = await keyless.open_session(order)
    clock.move(31 * 60)
    await expire_due_orders(keyless.container.deps)
    captured = await keyless.gateway_says(payment_id, P.CAPTURED)
    assert await keyless.commands() == []
    version = (await keyless.see(order))["version"]
    await confirm(keyless, order.id, captured, case="case_0")
    assert (await keyless.see(order))["version"] == version, "without a key there is still nothing to do"
    world = await build_world()
    for case in ("case_1", "case_1", "case_2"):
        await confirm(world, order.id, captured, case=case)
    assert await refund_commands(world) == [(payment_id, "late_payment")]
    assert (await world.see(order))["version"] == version + 1


async def test_an_order_that_is_not_ours_is_done_and_told(world: World) -> None:
    snapshot = PaymentSnapshot("pay_x", "ord_unknown", "stripe", P.CAPTURED, 3, Money(3900, "EUR"))
    with capture_logs() as logs:
        await confirm(world, "ord_unknown", snapshot)
        await cancel(world, "ord_unknown", None, payment_id="pay_x", case="case_2")
    assert [entry["event"] for entry in logs].count("command_for_unknown_order") == 2


def refused_count() -> float:
    types = (OrderConfirmRequested.TYPE, OrderCancelRequested.TYPE)
    return sum(REGISTRY.get_sample_value("payrail_commands_refused_total", {"type": each}) or 0 for each in types)


async def test_a_command_that_nobody_we_know_has_signed_changes_nothing(world: World) -> None:
    """XS25: write access to the broker is not power over orders."""
    order, payment_id = await a_confirmed_order(world)
    before, count = await row_of(world, order), refused_count()
    genuine = OrderCancelRequested(sender="reconciler", command_key="c", order_id=order.id, payment_id=payment_id)
    signed = genuine.signed(RECONCILER_KEY)
    forged: list[Command] = [
        genuine,
        genuine.signed(OTHER_KEY),
        genuine.model_copy(update={"sender": "order_service"}).signed(RECONCILER_KEY),
        signed.model_copy(update={"order_id": "ord_other"}),
        signed.model_copy(update={"payment_id": "pay_other"}),
        OrderConfirmRequested(
            sender="reconciler",
            command_key="c",
            order_id=order.id,
            payment=an_event(world.payments.sessions[payment_id], PaymentEventData),
        ).signed(OTHER_KEY),
    ]
    for command in forged:
        with pytest.raises(UnsignedCommand):
            await hand_over(world, command)
    assert await row_of(world, order) == before
    assert refused_count() == count + len(forged)
    assert await world.value("SELECT count(*) FROM inbox_messages WHERE consumer LIKE 'order_service.commands%'") == 0


async def test_without_keys_every_command_is_refused(build_world: BuildWorld) -> None:
    world = await build_world(command_keys=None)
    with pytest.raises(UnsignedCommand):
        await cancel(world, "ord_1", None, payment_id="pay_1")


@pytest.mark.parametrize("status", [P.FAILED, P.CANCELED, P.EXPIRED])
async def test_an_order_whose_payment_failed_is_canceled_and_its_goods_go_back(
    world: World, clock: FakeClock, status: PaymentStatus
) -> None:
    order, payment_id = await a_confirmed_order(world, quantity=3)
    paid = await row_of(world, order)
    clock.move(5)
    gone = world.payments.becomes(payment_id, status, amount_authorized=0, amount_captured=0)
    await cancel(world, order.id, gone)
    row = await row_of(world, order)
    assert (row["status"], row["closed_as"], row["confirmed_by"], row["attention"]) == (
        "canceled",
        "canceled",
        None,
        None,
    )
    assert (row["revoked_payment"], row["revoked_at"], row["closed_at"]) == (payment_id, clock.now(), clock.now())
    assert row["version"] == paid["version"] + 1
    assert (row["confirmed_at"], row["updated_at"]) == (paid["confirmed_at"], clock.now())
    assert await world.stock() == (10, 0)
    assert await world.value("SELECT status FROM stock_reservations") == "restored"
    assert await world.value("SELECT count(*) FROM invoices") == 1, "the invoice was issued; nothing takes it back"
    assert await world.events(order.id) == ["order.created.v1", "order.paid.v1", "order.canceled.v1"]
    told = await last_event(world, "order.canceled.v1")
    assert (told["status"], told["reason"], told["payment_id"]) == ("canceled", "payment_absent", payment_id)
    assert (await world.pay(order)).status_code == 409
    assert (await world.cancel(order)).status_code == 200


async def test_a_payment_that_nobody_knows_has_ended_here_too(world: World) -> None:
    order, payment_id = await an_order_with_an_absent_payment(world)
    await cancel(world, order.id, None, payment_id=payment_id)
    (payment,) = await world.rows("SELECT * FROM order_payments")
    assert (payment["status"], payment["version"], payment["amount_captured"]) == ("canceled", 0, 0)
    seen = await world.see(order)
    assert (seen["status"], seen["payment_status"], seen["attention"]) == ("canceled", "unpaid", None)
    assert await world.stock() == (10, 0)


async def test_an_absence_that_payment_service_does_not_confirm_is_not_obeyed(world: World) -> None:
    """The reconciler's copy lacked it (a clock, a mark, a broken pull): payment_service is asked and has it."""
    order, payment_id = await a_confirmed_order(world)
    before = await row_of(world, order)
    await cancel(world, order.id, None, payment_id=payment_id)
    assert world.payments.calls[-1] == ("find", payment_id)
    assert await row_of(world, order) == before
    assert await world.value("SELECT amount_captured FROM order_payments") == 3900


async def test_what_payment_service_says_when_it_is_asked_is_news_and_counts(world: World) -> None:
    order, payment_id = await a_confirmed_order(world)
    failed = world.payments.becomes(payment_id, P.FAILED, amount_captured=0)
    await cancel(world, order.id, None, payment_id=payment_id)
    assert await world.value("SELECT version FROM order_payments") == failed.version
    assert (await world.see(order))["status"] == "canceled"


async def test_a_payment_that_payment_service_told_of_and_lost_is_left_to_a_person(world: World) -> None:
    """Its database is empty, restored or the wrong one: the proof of the money stays, and the order too."""
    order, payment_id = await a_confirmed_order(world)
    before = await row_of(world, order), await world.rows("SELECT * FROM order_payments")
    world.payments.loses(payment_id)
    with capture_logs() as logs:
        await cancel(world, order.id, None, payment_id=payment_id)
    (told,) = [entry for entry in logs if entry["event"] == "order_cancel_not_obeyed"]
    assert (told["because"], told["log_level"]) == ("lost_by_its_owner", "error")
    assert (await row_of(world, order), await world.rows("SELECT * FROM order_payments")) == before
    assert await world.stock() == (9, 0)


async def test_while_payment_service_cannot_be_asked_nothing_is_decided_and_the_command_waits(world: World) -> None:
    order, payment_id = await an_order_with_an_absent_payment(world)
    world.payments.fails_once("find", ServiceUnavailable())
    with pytest.raises(ServiceUnavailable) as away:
        await cancel(world, order.id, None, payment_id=payment_id)
    assert away.value.retryable, "the message is tried again, and does not use up its attempts"
    assert (await world.see(order))["status"] == "confirmed"
    await cancel(world, order.id, None, payment_id=payment_id)
    assert (await world.see(order))["status"] == "canceled"


async def test_a_payment_that_belongs_to_another_order_is_for_a_person(world: World) -> None:
    order, payment_id = await a_confirmed_order(world)
    world.payments.sessions[payment_id] = replace(world.payments.sessions[payment_id], order_id="ord_other")
    before = await row_of(world, order)
    with pytest.raises(AssertionError, match="two orders"):
        await cancel(world, order.id, None, payment_id=payment_id)
    assert await row_of(world, order) == before


async def test_canceled_twice_is_canceled_once(world: World) -> None:
    order, payment_id = await a_confirmed_order(world)
    gone = world.payments.becomes(payment_id, P.FAILED, amount_captured=0)
    await cancel(world, order.id, gone)
    after = await row_of(world, order)
    for case in ("case_1", "case_2"):
        await cancel(world, order.id, gone, case=case)
        await cancel(world, order.id, None, payment_id=payment_id, case=f"{case}:absent")
    assert await row_of(world, order) == after
    assert await world.stock() == (10, 0)
    assert (await world.events(order.id)).count("order.canceled.v1") == 1


async def test_a_command_that_was_refused_does_nothing_when_it_comes_again_later(world: World) -> None:
    """Replayed when its words have come true, it is still the command that was answered."""
    order, payment_id = await a_confirmed_order(world)
    await cancel(world, order.id, world.payments.sessions[payment_id])
    gone = await world.gateway_says(payment_id, P.FAILED, amount_captured=0)
    await cancel(world, order.id, gone)
    assert (await world.see(order))["status"] == "confirmed"
    await cancel(world, order.id, gone, case="case_2")
    assert (await world.see(order))["status"] == "canceled"


async def test_both_commands_and_the_event_at_once_cancel_once(world: World) -> None:
    order, payment_id = await a_confirmed_order(world)
    gone = world.payments.becomes(payment_id, P.FAILED, amount_captured=0)
    cancels = [partial(cancel, world, order.id, gone, case=f"case_{number % 3}") for number in range(6)]
    await all_together(
        *cancels,
        partial(confirm, world, order.id, gone, case="case_9"),
        partial(deliver, world.container, an_event(gone)),
    )
    assert (await world.see(order))["status"] == "canceled"
    assert await world.stock() == (10, 0)
    assert (await world.events(order.id)).count("order.canceled.v1") == 1


@pytest.mark.parametrize(
    ("status", "totals"),
    [
        (P.CAPTURED, {}),
        (P.CAPTURED, {"amount_refunded": 3899}),
        (P.CAPTURED, {"amount_disputed": 3900}),
        (P.PARTIALLY_CAPTURED, {"amount_authorized": 3900, "amount_captured": 100}),
        (P.AUTHORIZED, {"amount_captured": 0}),
        (P.CONFLICTED, {"amount_captured": 0}),
        (P.PROCESSING, {"amount_captured": 0}),
        (P.REQUIRES_ACTION, {"amount_captured": 0}),
        (P.FAILED, {"amount_captured": 0, "outcome_unknown": True}),
        (P.CANCELED, {"amount_captured": 3900, "amount_refunded": 100}),
    ],
)
async def test_where_money_is_or_may_come_the_news_is_taken_in_and_the_order_stays(
    world: World, status: PaymentStatus, totals: dict[str, Any]
) -> None:
    order, payment_id = await a_confirmed_order(world)
    news = world.payments.becomes(payment_id, status, **totals)
    with capture_logs() as logs:
        await cancel(world, order.id, news)
    assert "order_cancel_not_obeyed" in [entry["event"] for entry in logs]
    row = await row_of(world, order)
    assert (row["status"], row["confirmed_by"], row["revoked_payment"]) == ("confirmed", payment_id, None)
    assert await world.value("SELECT version FROM order_payments") == news.version, "the newer state is kept"
    assert await world.stock() == (9, 0)
    assert "order.canceled.v1" not in await world.events(order.id)


async def test_a_newer_state_that_the_order_knows_counts_and_not_the_commands(world: World) -> None:
    order, payment_id = await a_confirmed_order(world)
    older = replace(world.payments.sessions[payment_id], version=2, status=P.FAILED, amount_captured=0)
    before = await row_of(world, order)
    await cancel(world, order.id, older)
    assert await row_of(world, order) == before


async def test_an_order_that_another_payment_confirmed_or_none_stays(world: World) -> None:
    order, _ = await a_confirmed_order(world)
    unpaid = await world.order()
    open_payment = await world.open_session(unpaid)
    before = [await row_of(world, each) for each in (order, unpaid)]
    await cancel(world, order.id, None, payment_id="pay_zzz")
    await cancel(world, unpaid.id, None, payment_id=open_payment, case="case_2")
    assert [await row_of(world, each) for each in (order, unpaid)] == before


async def test_a_refund_that_the_order_missed_refunds_it_and_does_not_cancel_it(world: World) -> None:
    order, payment_id = await a_confirmed_order(world)
    await cancel(world, order.id, world.payments.becomes(payment_id, P.CAPTURED, amount_refunded=3900))
    seen = await world.see(order)
    assert (seen["status"], seen["payment_status"], seen["attention"]) == ("confirmed", "refunded", None)
    assert (await world.events(order.id))[-1] == "order.refunded.v1"
    assert await world.stock() == (10, 0)


@pytest.mark.parametrize("not_found", [True, False])
async def test_goods_that_a_refund_put_back_do_not_go_back_twice(world: World, not_found: bool) -> None:
    order, payment_id = await a_confirmed_order(world)
    refunded = world.payments.becomes(payment_id, P.CAPTURED, amount_refunded=3900)
    await deliver(world.container, a_refund_event(refunded, RefundSucceeded))
    assert await world.stock() == (10, 0)
    gone = world.payments.becomes(payment_id, P.FAILED, amount_captured=0, amount_refunded=0)
    await cancel(world, order.id, None if not_found else gone, payment_id=payment_id)
    row = await row_of(world, order)
    assert (row["status"], row["revoked_payment"]) == ("canceled", payment_id)
    assert row["refunded_at"] is not None
    assert await world.stock() == (10, 0)


@pytest.mark.parametrize("policy", ["refund", "fulfil"])
@pytest.mark.parametrize("is_absent", [True, False])
async def test_the_absent_payment_that_turns_up_captured_is_refunded_and_never_fulfilled(
    world: World, policy: str, is_absent: bool
) -> None:
    await world.has_product(reconcile_policy=policy)
    if is_absent:
        order, payment_id = await an_order_with_an_absent_payment(world)
        await cancel(world, order.id, None, payment_id=payment_id)
        total = Money(3900, "EUR")
        turned_up = PaymentSnapshot(payment_id, order.id, "stripe", P.CAPTURED, 1, total, amount_captured=3900)
    else:
        order, payment_id = await a_confirmed_order(world)
        await cancel(world, order.id, world.payments.becomes(payment_id, P.FAILED, amount_captured=0))
        turned_up = world.payments.becomes(payment_id, P.CAPTURED)
    await deliver(world.container, an_event(turned_up), an_event(turned_up))
    assert await refund_commands(world) == [(payment_id, "order_canceled")]
    seen = await world.see(order)
    assert (seen["status"], seen["attention"]) == ("canceled", "late_payment")
    assert await world.stock() == (10, 0)
    assert (await row_of(world, order))["reopened_by"] is None
    back = replace(turned_up, version=turned_up.version + 1, amount_refunded=3900)
    await deliver(world.container, a_refund_event(back, RefundSucceeded))
    assert (await world.see(order))["attention"] is None
    assert await world.stock() == (10, 0)


async def test_late_money_that_reopened_an_order_and_was_not_there_goes_back_when_it_comes(
    world: World, clock: FakeClock
) -> None:
    await world.has_product(reconcile_policy="fulfil")
    order = await world.order()
    payment_id = await world.open_session(order)
    clock.move(31 * 60)
    await expire_due_orders(world.container.deps)
    await world.gateway_says(payment_id, P.CAPTURED)
    assert (await row_of(world, order))["reopened_by"] == payment_id
    await cancel(world, order.id, world.payments.becomes(payment_id, P.FAILED, amount_captured=0))
    assert (await row_of(world, order))["status"] == "canceled"
    assert await world.stock() == (10, 0)
    await world.gateway_says(payment_id, P.CAPTURED)
    assert await refund_commands(world) == [(payment_id, "order_canceled")]
    assert await world.stock() == (10, 0)


@pytest.mark.parametrize("status", [P.CAPTURED, P.AUTHORIZED])
async def test_an_order_that_a_second_payment_may_pay_is_not_canceled_and_that_money_stays(
    world: World, status: PaymentStatus
) -> None:
    """PY4: what had confirmed it was taken back, and the shopper paid again: a person decides what that buys."""
    order, payment_id = await a_confirmed_order(world)
    gone = world.payments.becomes(payment_id, P.FAILED, amount_captured=0)
    await deliver(world.container, an_event(gone))
    captured = 3900 if status is P.CAPTURED else 0
    second = PaymentSnapshot(
        "pay_zzz",
        order.id,
        "generic",
        status,
        3,
        Money(3900, "EUR"),
        amount_authorized=3900,
        amount_captured=captured,
    )
    await deliver(world.container, an_event(second))
    before = await row_of(world, order)
    await cancel(world, order.id, gone)
    assert await row_of(world, order) == before
    assert (before["status"], before["attention"]) == ("confirmed", "amount_mismatch")
    assert await refund_commands(world) == []
    assert await world.stock() == (9, 0)


async def test_a_second_payment_that_comes_after_the_order_was_canceled_goes_back(world: World) -> None:
    order, payment_id = await a_confirmed_order(world)
    await cancel(world, order.id, world.payments.becomes(payment_id, P.FAILED, amount_captured=0))
    total = Money(3900, "EUR")
    second = PaymentSnapshot("pay_zzz", order.id, "generic", P.CAPTURED, 3, total, amount_captured=3900)
    await deliver(world.container, an_event(second))
    assert await refund_commands(world) == [("pay_zzz", "order_canceled")]
    assert (await world.see(order))["attention"] == "late_payment"


def test_both_queues_are_consumed(world: World) -> None:
    container = world.container
    batches = BatchUnitOfWork(container.uow)
    found = subscriptions(container.deps, container.database, container.settings.senders, batches)
    assert [each.queue.name for each in found] == ["order_service.payments", "order_service.commands"]


NOT_CONFIRMED = "status = 'canceled', closed_as = 'canceled', confirmed_by = NULL"


@pytest.mark.parametrize(
    "assignments",
    [
        "revoked_payment = 'pay_1', revoked_at = now()",
        f"{NOT_CONFIRMED}, revoked_payment = 'pay_1'",
        f"{NOT_CONFIRMED}, revoked_at = now()",
        f"{NOT_CONFIRMED}, revoked_payment = 'pay_1', revoked_at = now()".replace("canceled", "expired"),
        "closed_as = 'canceled', reopened_by = confirmed_by, revoked_payment = 'pay_1', revoked_at = now()",
    ],
)
async def test_the_database_refuses_a_revoked_order_that_is_anything_but_canceled(
    world: World, assignments: str
) -> None:
    await a_confirmed_order(world)
    with pytest.raises(IntegrityError):
        async with world.container.database.begin() as connection:
            await connection.execute(text(f"UPDATE orders SET {assignments}"))
