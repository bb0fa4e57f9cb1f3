"""Many events in one transaction do what they do one by one, for a fixed number of statements, and lose nothing."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pytest
import sqlalchemy

from services.order_service.db.payment_batch import BatchUnitOfWork
from services.order_service.db.unit_of_work import OrderTransaction
from services.order_service.domain.models import PaymentSnapshot, PaymentStatus
from services.order_service.messaging.handlers import PaymentEventsBatch, PaymentEventsHandler
from services.order_service.use_cases.expire_orders import expire_due_orders
from shared.clock import SystemClock
from shared.contracts.envelope import EventEnvelope
from shared.contracts.payment_events import (
    DisputeOpened,
    PaymentEventData,
    PaymentLateSuccess,
    RefundCreated,
    RefundFailed,
    RefundSucceeded,
)
from shared.contracts.topology import ORDER_PAYMENTS
from shared.db.session import driver_of
from shared.errors import DatabaseUnavailable
from shared.messaging.bus import BusMessage, Subscription
from shared.messaging.consumer import Consumer, Handled, correlated_with
from shared.money import Money
from shared.unit_of_work import outside_transaction
from tests.integration.order_service.batching import deliver_together, everything, watched_batches
from tests.integration.order_service.conftest import Answer, BuildWorld, World
from tests.integration.order_service.fakes import (
    a_refund_event,
    all_together,
    an_envelope,
    an_event,
    an_order_body,
    deliver_envelope,
)
from tests.support.clock import FakeClock
from tests.support.locks import patiently
from tests.support.postgres import ServiceDatabase
from tests.support.waiting import until

SKUS = ("cup", "dallah", "moka-pot")


@dataclass
class Town:
    """One database of a pair: the same orders as in the other, with its own ids."""

    world: World
    orders: list[Answer]

    @property
    def names(self) -> dict[str, str]:
        return {order.id: f"<order {number}>" for number, order in enumerate(self.orders)}

    async def settle_in(self, chance: random.Random, orders: int) -> None:
        for sku in SKUS:
            policy = chance.choice(("fulfil", "refund"))
            await self.world.has_product(sku, price=1000, stock=chance.randint(8, 30), reconcile_policy=policy)
        for _ in range(orders):
            lines = [{"sku": sku, "quantity": 1} for sku in chance.sample(SKUS, chance.randint(1, 3))]
            self.orders.append(await self.world.order(items=lines))
            if chance.random() < 0.3:
                assert (await self.world.cancel(self.orders[-1])).status_code == 200


def _stories(chance: random.Random, orders: int) -> list[dict[str, Any]]:
    """What payment_service tells about some payments of these orders, duplicated and out of order; no ids in it."""
    told: list[dict[str, Any]] = []
    for number in range(orders):
        for payment in range(chance.choice((1, 1, 2, 3))):
            told += _story(chance, {"order": number, "payment": f"pay_{number:02}_{payment}"})
    told.append({"order": None, "payment": "pay_lost", "version": 1, "status": "captured"})
    told += chance.sample(told, len(told) // 4)
    for _ in range(len(told) // 2):
        first, second = chance.randrange(len(told)), chance.randrange(len(told))
        told[first], told[second] = told[second], told[first]
    return told


def _story(chance: random.Random, who: dict[str, Any]) -> list[dict[str, Any]]:
    total = {"amount_authorized": True, "amount_captured": True}
    steps: list[dict[str, Any]] = [{"status": "requires_action"}]
    match chance.choice(("paid", "paid", "paid", "failed", "late", "held", "excess", "conflicted")):
        case "paid":
            steps.append({"status": "captured"} | total)
        case "failed":
            steps.append({"status": "failed"})
        case "late":
            steps += [{"status": "expired"}, {"status": "captured", "type": PaymentLateSuccess} | total]
        case "held":
            steps.append({"status": "authorized", "amount_authorized": True})
        case "excess":
            steps += [{"status": "captured"} | total, {"status": "captured", "amount_excess": 1} | total]
        case "conflicted":
            steps.append({"status": "conflicted"} | total)
    if steps[-1]["status"] == "captured":
        steps += _aftermath(chance, total)
    return [who | {"version": version} | step for version, step in enumerate(steps, start=1)]


def _aftermath(chance: random.Random, total: dict[str, Any]) -> list[dict[str, Any]]:
    captured = {"status": "captured"} | total
    refund = {"refund_id": f"ref_{chance.randrange(10**9)}"}
    match chance.choice(("nothing", "nothing", "part", "all", "fails", "dispute")):
        case "part":
            back = captured | refund | {"refund": 100}
            return [
                back | {"type": RefundCreated, "amount_refund_pending": 100},
                back | {"type": RefundSucceeded, "amount_refunded": 100},
            ]
        case "all":
            return [captured | refund | {"type": RefundSucceeded, "refund": True, "amount_refunded": True}]
        case "fails":
            back = captured | refund | {"refund": 50}
            return [back | {"type": RefundCreated, "amount_refund_pending": 50}, back | {"type": RefundFailed}]
        case "dispute":
            dispute = {"dispute_id": "dsp_1", "dispute_status": "open", "dispute_amount": 70}
            return [captured | {"type": DisputeOpened, "amount_disputed": 70, "more": dispute}]
    return []


def _envelope(town: Town, step: dict[str, Any], number: int) -> EventEnvelope:
    order = None if step["order"] is None else town.orders[step["order"]]
    price = 1000 if order is None else order.document["total"]["amount_minor"]
    totals: dict[str, Any] = {
        name: price if value is True else value
        for name, value in step.items()
        if name.startswith("amount_") and value is not False
    }
    snapshot = PaymentSnapshot(
        step["payment"],
        "ord_unknown" if order is None else order.id,
        "stripe",
        PaymentStatus(step["status"]),
        step["version"],
        Money(price, "EUR"),
        **totals,
    )
    event: PaymentEventData
    if "refund" in step:
        amount = price if step["refund"] is True else step["refund"]
        event = a_refund_event(snapshot, step["type"], refund_id=step["refund_id"], amount=amount)
    else:
        event = an_event(snapshot, step.get("type"), **step.get("more", {}))
    envelope = an_envelope(town.world.container, event)
    trace = f"00-{number + 1:032x}-{1:016x}-01" if number % 3 else None
    return envelope.model_copy(update={"id": f"evt_{number:04}", "traceparent": trace})


@pytest.fixture
async def towns(build_world: BuildWorld, service_database: ServiceDatabase) -> tuple[Town, Town]:
    one_by_one = await build_world()
    in_batches = await build_world(database_url=service_database("order_service"))
    return Town(one_by_one, []), Town(in_batches, [])


@pytest.mark.parametrize("seed", range(4))
async def test_batches_leave_behind_what_single_events_do(
    towns: tuple[Town, Town], seed: int, clock: FakeClock
) -> None:
    for town in towns:
        await town.settle_in(random.Random(seed), orders=10)
    chance = random.Random(seed)
    told = _stories(chance, orders=10)
    singly, together = ([_envelope(town, step, number) for number, step in enumerate(told)] for town in towns)
    start = 0
    while start < len(told):
        end = start + chance.choice((1, 3, 10, 40))
        for envelope in singly[start:end]:
            with correlated_with(envelope, "order_service.payments"):
                await deliver_envelope(towns[0].world.container, envelope)
        batch = together[start:end]
        again = chance.choices(together[:end], k=2)  # delivered before, or twice in one batch
        await deliver_together(towns[1].world, batch + again)
        clock.move(chance.choice((0, 1, 3700)))
        start = end
    expected, found = [await everything(town.world, town.names) for town in towns]
    for table, rows in expected.items():
        assert found[table] == rows, table
    assert len(expected["invoices"]) >= 3
    assert await towns[1].world.value("SELECT max(number) - count(*) FROM invoices") == 0


async def paid_events(world: World, count: int, **changes: Any) -> list[EventEnvelope]:
    """Orders with an open session each, and the events that say that they are paid."""
    events = []
    for _ in range(count):
        payment_id = await world.open_session(await world.order(**changes))
        paid = world.payments.becomes(payment_id, PaymentStatus.CAPTURED)
        events.append(an_envelope(world.container, an_event(paid)))
    return events


async def test_one_event_that_breaks_takes_nothing_with_it(world: World) -> None:
    events = await paid_events(world, 3)
    stolen = replace(next(iter(world.payments.sessions.values())), order_id=events[1].data["order_id"], version=9)
    poison = an_envelope(world.container, an_event(stolen))
    with pytest.raises(AssertionError, match="another order"):
        await deliver_together(world, [*events, poison])
    with pytest.raises(AssertionError, match="1 of 1 rows"):
        await deliver_together(world, [poison])
    assert await world.stock() == (10, 3)
    assert await world.value("SELECT count(*) FROM inbox_messages") == 0
    for envelope in events:
        await deliver_envelope(world.container, envelope)
    with pytest.raises(Exception, match="duplicate key"):
        await deliver_envelope(world.container, poison)
    assert await world.stock() == (7, 0)
    assert await world.value("SELECT max(number) FROM invoices") == 3


async def test_a_payment_that_two_events_claim_for_two_orders_fails_its_batch(world: World) -> None:
    first, second = await world.order(), await world.order()
    stranger = PaymentSnapshot(
        "pay_other", first.id, "generic", PaymentStatus.CAPTURED, 3, Money(3900, "EUR"), amount_captured=3900
    )
    claims = [an_event(stranger), an_event(replace(stranger, order_id=second.id))]
    with pytest.raises(AssertionError, match="another order"):
        await deliver_together(world, [an_envelope(world.container, event) for event in claims])
    assert await world.value("SELECT count(*) FROM order_payments") == 0


async def test_data_that_is_not_what_its_type_promises_fails_its_batch_only(world: World) -> None:
    (event,) = await paid_events(world, 1)
    broken = event.model_copy(update={"id": "evt_broken", "data": event.data | {"amount": "39.00"}})
    with pytest.raises(ValueError, match="amount"):
        await deliver_together(world, [event, broken])
    await deliver_together(world, [event])
    assert await world.stock() == (9, 0)


async def test_only_events_of_payments_are_taken(world: World) -> None:
    (event,) = await paid_events(world, 1)
    handler = PaymentEventsBatch(world.container.deps, watched_batches(world))
    assert handler.takes(event)
    assert not handler.takes(event.model_copy(update={"type": "payment.invented.v9"}))


@pytest.mark.parametrize("kill", ["before the first statement of the batch", "before the commit"])
async def test_a_connection_that_dies_before_the_commit_leaves_nothing(world: World, kill: str) -> None:
    events = await paid_events(world, 5)
    before = await everything(world, {})

    async def killed(tx: OrderTransaction) -> None:
        driver = await driver_of(tx.connection)
        await world.rows("SELECT pg_terminate_backend(:pid, 1000)", pid=driver.get_server_pid())

    moment = {"before": killed} if kill.startswith("before the first") else {"after": killed}
    with pytest.raises(DatabaseUnavailable):
        await deliver_together(world, events, batches=watched_batches(world, **moment))
    assert await everything(world, {}) == before
    await deliver_together(world, events)
    await deliver_together(world, events)
    assert await world.stock() == (5, 0)
    assert await world.value("SELECT max(number) FROM invoices") == 5


async def test_a_batch_waits_two_seconds_for_a_lock_and_one_who_waits_by_himself_five(world: World) -> None:
    waits = []

    async def look(tx: OrderTransaction) -> None:
        waits.append((await tx.connection.execute(sqlalchemy.text("SHOW lock_timeout"))).scalar())

    await world.has_product()
    await deliver_together(world, await paid_events(world, 1), batches=watched_batches(world, before=look, after=look))
    assert waits == ["5s", "2s"]


async def test_a_product_that_somebody_holds_costs_its_neighbours_seconds_and_no_more(world: World) -> None:
    for sku in ("cup", "pot"):
        await world.has_product(sku, stock=10)
    held = await paid_events(world, 1, items=[{"sku": "cup", "quantity": 1}])
    free = await paid_events(world, 3, items=[{"sku": "pot", "quantity": 1}])
    container = world.container
    batch = PaymentEventsBatch(container.deps, BatchUnitOfWork(container.uow))
    handler = PaymentEventsHandler(container.deps)
    consumer = Consumer(Subscription(ORDER_PAYMENTS, handler, container.database, batch=batch), SystemClock())
    messages = [BusMessage(event.id, event.type, "", event.to_json(), envelope=event) for event in held + free]
    async with container.database.begin() as connection:
        await connection.execute(sqlalchemy.text("SELECT 1 FROM products WHERE sku = 'cup' FOR UPDATE"))
        with outside_transaction():
            assert await consumer.handle_batch(messages) == [(None, 0)] * 4
            assert [(await consumer.handle(each))[0] for each in messages[1:]] == [Handled.DONE] * 3
    assert await consumer.handle_batch(messages) == [(Handled.DONE, 1)] * 4
    assert await world.value("SELECT count(*) FROM invoices") == 4


async def test_everybody_else_has_turns_while_a_batch_is_applied(world: World, clock: FakeClock) -> None:
    await world.has_product(stock=50)
    events = await paid_events(world, 25)
    clock.sleeps.clear()
    await deliver_together(world, events)
    assert clock.sleeps == [0, 0]


async def statements_of(world: World, events: list[EventEnvelope]) -> int:
    """How many a batch of these events takes, BEGIN and COMMIT apart."""
    queries: list[str] = []
    engine = world.container.database.engine.sync_engine

    def by_driver(record: Any) -> None:
        if not record.query.strip().startswith(
            ("WITH RECURSIVE typeinfo_tree", "SELECT\n                        current")
        ):
            queries.append(record.query)  # apart from what a connection asks once about types

    def by_engine(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        queries.append(statement)

    async def listen(tx: OrderTransaction) -> None:
        (await driver_of(tx.connection)).add_query_logger(by_driver)

    async def stop(tx: OrderTransaction) -> None:
        (await driver_of(tx.connection)).remove_query_logger(by_driver)

    sqlalchemy.event.listen(engine, "before_cursor_execute", by_engine)
    await deliver_together(world, events, batches=watched_batches(world, before=listen, after=stop))
    sqlalchemy.event.remove(engine, "before_cursor_execute", by_engine)
    return len(queries)


async def test_the_number_of_statements_does_not_grow_with_the_batch(world: World) -> None:
    await world.has_product(stock=200)
    assert await statements_of(world, await paid_events(world, 1)) == 4
    assert await statements_of(world, await paid_events(world, 30)) == 4


MANY = """
    WITH many AS (
        INSERT INTO orders SELECT (jsonb_populate_record(o, jsonb_build_object('id', 'ord_many_' || n))).*
        FROM orders AS o, generate_series(1, 4000) AS n
        WHERE o.id = (SELECT max(id) FROM orders) RETURNING id),
    items AS (
        INSERT INTO order_items SELECT (jsonb_populate_record(i, jsonb_build_object('order_id', many.id))).*
        FROM order_items AS i, many
        WHERE i.order_id = (SELECT max(id) FROM orders)),
    held AS (
        INSERT INTO stock_reservations SELECT (jsonb_populate_record(s, jsonb_build_object('order_id', many.id))).*
        FROM stock_reservations AS s, many
        WHERE s.order_id = (SELECT max(id) FROM orders))
    INSERT INTO order_payments SELECT (jsonb_populate_record(p, jsonb_build_object('payment_id', 'pay_of_' || many.id,
        'order_id', many.id))).*
    FROM order_payments AS p, many WHERE p.payment_id = (SELECT min(payment_id) FROM order_payments) RETURNING 1
"""


async def test_no_statement_of_a_batch_reads_a_whole_table(world: World) -> None:
    """Statements are planned once, and the first time while there is next to nothing: at ten million rows it would be
    too late to notice."""
    await world.has_product(stock=100)
    events = await paid_events(world, 40)
    read: list[dict[str, int]] = []

    async def look(tx: OrderTransaction) -> None:
        sql = """
            SELECT relname, coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) AS rows
            FROM pg_stat_xact_user_tables WHERE seq_tup_read > 0 OR idx_tup_fetch > 0
        """
        read.append(dict(await (await driver_of(tx.connection)).fetch(sql)))

    for number, batch in enumerate((events[:10], events[10:20], events[20:])):
        if number == 1:
            await world.rows(MANY)
        if number != 1:
            async with world.container.database.begin() as connection:
                await connection.execute(sqlalchemy.text("ANALYZE"))
        await deliver_together(world, batch, batches=watched_batches(world, before=look, after=look))
        earlier, rows = read[-2:]  # a connection has not told yet of what it did shortly before
        assert max(rows[table] - earlier.get(table, 0) for table in rows) <= 10 * len(batch), (earlier, rows)
    assert len(await world.rows("SELECT 1 FROM orders WHERE status = 'confirmed' AND id NOT LIKE 'ord_many%'")) == 40


async def test_old_news_are_claimed_and_no_more(world: World) -> None:
    events = await paid_events(world, 3)
    await deliver_together(world, events)
    told_again = [event.model_copy(update={"id": f"{event.id}x"}) for event in events]
    assert await statements_of(world, told_again) == 2
    assert await statements_of(world, told_again) == 1


async def test_late_money_of_one_batch_shares_the_shelf(world: World) -> None:
    """Two orders were canceled, and one piece is left: it is sold once."""
    await world.has_product(stock=2, reconcile_policy="fulfil")
    events = await paid_events(world, 2)
    for order_id in [str(event.correlationid) for event in events]:
        await world.rows("UPDATE order_payments SET status = 'failed' WHERE order_id = :id RETURNING 1", id=order_id)
        world.payments.sessions = {}
        token = world.token("orders:write")
        assert (await world.http.post(f"/api/v1/orders/{order_id}/cancel", headers=token)).status_code == 200
    await world.has_product(stock=1, reconcile_policy="fulfil")
    await deliver_together(world, events)
    assert await world.stock() == (0, 0)
    statuses = await world.rows("SELECT status FROM orders ORDER BY status")
    assert [row["status"] for row in statuses] == ["canceled", "confirmed"]
    assert len(await world.commands()) == 1


@pytest.mark.parametrize(
    ("held", "others"),
    [
        ("SELECT 1 FROM orders WHERE id = (SELECT min(id) FROM orders)", ["orders", "products", "invoice_counters"]),
        ("SELECT 1 FROM products WHERE sku = 'cup'", ["products", "invoice_counters"]),
    ],
    ids=["orders by id first", "then products by SKU"],
)
async def test_locks_are_taken_in_one_order(world: World, held: str, others: list[str]) -> None:
    """While a batch waits for the first of a kind, it holds none of what comes after that."""
    for sku in SKUS:
        await world.has_product(sku)
    first = await paid_events(world, 1)
    await deliver_together(world, first)  # so that there is a counter to lock
    lines = [{"sku": sku, "quantity": 1} for sku in SKUS]
    events = await paid_events(world, 3, items=lines)
    after = {
        "orders": "SELECT 1 FROM orders WHERE id > (SELECT min(id) FROM orders)",
        "products": "SELECT 1 FROM products WHERE sku > 'cup'",
        "invoice_counters": "SELECT 1 FROM invoice_counters",
    }
    held = held.replace("FROM orders)", f"FROM orders WHERE id > '{first[0].correlationid}')")

    async def is_waiting() -> bool:
        sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        return bool(await world.value(sql))

    async with world.container.database.begin() as connection:
        await connection.execute(sqlalchemy.text(f"{held} FOR UPDATE"))
        applying = asyncio.create_task(patiently(lambda: deliver_together(world, events)))
        await until(is_waiting, what="the batch at the lock")
        for table in others:
            await connection.execute(sqlalchemy.text(f"{after[table]} FOR UPDATE NOWAIT"))
    await applying
    assert await world.value("SELECT max(number) FROM invoices") == 4


async def test_each_event_belongs_to_the_trace_that_led_to_it(world: World) -> None:
    traces = [f"00-{number:032x}-{1:016x}-01" for number in (1, 2)]
    events = [
        event.model_copy(update={"traceparent": trace})
        for event, trace in zip(await paid_events(world, 2), traces, strict=True)
    ]
    await deliver_together(world, events)
    bodies = await world.rows(
        "SELECT convert_from(body, 'UTF8')::jsonb AS body FROM outbox_messages WHERE type = 'order.paid.v1'"
        " ORDER BY position"
    )
    assert [row["body"]["traceparent"] for row in bodies] == traces
    assert [row["body"]["causationid"] for row in bodies] == [event.id for event in events]


async def test_one_hint_wakes_the_watchers_of_all_orders_of_the_batch(world: World) -> None:
    await world.has_product(stock=12)
    events = await paid_events(world, 12)
    hints: list[str] = []
    with world.container.database.listener.subscribe("order_changed", hints.append):
        await deliver_together(world, events)
    (hint,) = hints
    assert {each.partition(":")[0] for each in hint.split()} == {event.correlationid for event in events}


async def test_batches_among_creations_cancellations_and_expiries_never_deadlock(build_world: BuildWorld) -> None:
    """Everything at once over the same products: PostgreSQL sees no deadlock, stock is conserved, no number is left
    out."""
    world = await build_world(real_clock=SystemClock(), database_pool_size=30)
    for sku in SKUS:
        await world.has_product(sku, price=1000, stock=1000, reconcile_policy="fulfil")
    chance = random.Random(6)
    events: list[EventEnvelope] = []
    orders: list[Answer] = []
    for _ in range(36):
        lines = [{"sku": sku, "quantity": 1} for sku in chance.sample(SKUS, 3)]
        orders.append(await world.order(items=lines))
        payment_id = await world.open_session(orders[-1])
        events.append(_paid(world, payment_id))
    for order in chance.sample(orders, 8):  # late money asks the shelf while others empty it
        await world.cancel(order)
    await world.rows("UPDATE orders SET expires_at = now(), next_expiry_attempt_at = now() RETURNING id")
    stopping: list[Callable[[], Awaitable[Any]]] = [
        *(partial(_together, world, chance.sample(events, 16)) for _ in range(8)),
        *(partial(_singly, world, chance.sample(events, 8)) for _ in range(4)),
        *(partial(world.cancel, order) for order in chance.sample(orders, 8)),
        *(partial(expire_due_orders, world.container.deps) for _ in range(3)),
        *(partial(_order_again, world, chance.sample(SKUS, 3)) for _ in range(10)),
    ]
    chance.shuffle(stopping)
    await all_together(*stopping)
    assert await world.value("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == 0
    await _adds_up(world)


def _paid(world: World, payment_id: str) -> EventEnvelope:
    before = world.payments.sessions[payment_id]
    total = before.amount.amount_minor
    paid = replace(before, status=PaymentStatus.CAPTURED, version=9, amount_authorized=total, amount_captured=total)
    return an_envelope(world.container, an_event(paid))


async def _together(world: World, events: list[EventEnvelope]) -> None:
    await _until_applied(lambda: deliver_together(world, events))


async def _singly(world: World, events: list[EventEnvelope]) -> None:
    for event in events:
        await _until_applied(partial(deliver_envelope, world.container, event))


async def _order_again(world: World, skus: list[str]) -> None:
    body = an_order_body(items=[{"sku": sku, "quantity": 2} for sku in skus])
    await world.http.post("/api/v1/orders", json=body)


async def _until_applied(apply: Callable[[], Awaitable[None]]) -> None:
    """A lock may be waited for longer than the limit; the consumer tries again, too."""
    for _ in range(10):
        with suppress(DatabaseUnavailable):
            return await apply()
    raise AssertionError("the database did not let it through")


async def _adds_up(world: World) -> None:
    for product in await world.rows("SELECT sku, on_hand, reserved FROM products"):
        rows = await world.rows(
            "SELECT status, sum(quantity) AS pieces FROM stock_reservations WHERE sku = :sku GROUP BY status",
            sku=product["sku"],
        )
        pieces = Counter({row["status"]: int(row["pieces"]) for row in rows})
        assert (product["on_hand"], product["reserved"]) == (1000 - pieces["deducted"], pieces["reserved"])
    numbers = [row["number"] for row in await world.rows("SELECT number FROM invoices ORDER BY number")]
    assert numbers == list(range(1, len(numbers) + 1))
    paid = await world.value("SELECT count(*) FROM orders WHERE confirmed_by IS NOT NULL")
    assert len(numbers) == paid >= 16
