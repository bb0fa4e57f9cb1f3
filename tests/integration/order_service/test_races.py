"""Many at once on a real database: one wins, nothing is counted twice, nothing goes negative."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from functools import partial

import httpx
import pytest
from sqlalchemy.exc import DBAPIError

from services.order_service.domain.models import PaymentSnapshot, PaymentStatus
from services.order_service.use_cases.expire_orders import expire_due_orders
from tests.integration.order_service.conftest import BuildWorld, World
from tests.integration.order_service.fakes import all_together, an_event, an_order_body, deliver
from tests.support.clock import FakeClock


async def in_waves(actions: list[object], *, wave: int = 25) -> list[httpx.Response]:
    """As many at once as the connection pool holds; more would only be told to wait."""
    answers: list[httpx.Response] = []
    for start in range(0, len(actions), wave):
        answers += await all_together(*actions[start : start + wave])  # type: ignore[arg-type]
    return answers


async def test_a_hundred_buyers_want_the_last_piece(build_world: BuildWorld) -> None:
    replicas = [await build_world(database_pool_size=30) for _ in range(2)]
    await replicas[0].has_product(stock=1)

    def buy(number: int) -> object:
        http = replicas[number % 2].http
        body = an_order_body(customer={"email": f"buyer{number}@example.com", "name": "Buyer"})
        return lambda: http.post("/api/v1/orders", json=body)

    answers = await in_waves([buy(number) for number in range(100)])

    assert Counter(answer.status_code for answer in answers) == {201: 1, 409: 99}
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"out_of_stock"}
    assert await replicas[0].stock() == (1, 1)
    assert await replicas[0].value("SELECT count(*) FROM stock_reservations") == 1


async def test_orders_of_several_products_in_any_order_do_not_deadlock(build_world: BuildWorld) -> None:
    world = await build_world(database_pool_size=20)  # one each: who waits for a connection for 2 s is refused
    await world.has_product("dallah", stock=200)
    await world.has_product(stock=200)
    lines = [{"sku": "moka-pot", "quantity": 1}, {"sku": "dallah", "quantity": 1}]
    bodies = [an_order_body(items=lines if number % 2 else lines[::-1]) for number in range(40)]
    posts: list[object] = [lambda body=body: world.http.post("/api/v1/orders", json=body) for body in bodies]
    answers = await in_waves(posts, wave=20)
    assert Counter(answer.status_code for answer in answers) == {201: 40}
    assert (await world.stock(), await world.stock("dallah")) == ((200, 40), (200, 40))


async def test_the_same_order_posted_many_times_at_once_is_one_order(world: World) -> None:
    key = {"Idempotency-Key": "the-key-of-all-of-them"}
    answers = await all_together(
        *(lambda: world.http.post("/api/v1/orders", json=an_order_body(), headers=key) for _ in range(20))
    )
    seen = Counter(answer.status_code for answer in answers)
    assert seen[201] >= 1
    assert set(seen) <= {201, 409}
    assert len({answer.json()["id"] for answer in answers if answer.status_code == 201}) == 1
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} <= {"idempotency_key_in_flight"}
    assert await world.value("SELECT count(*) FROM orders") == 1
    assert await world.stock() == (10, 1)


async def test_ten_clicks_on_pay_open_one_session(world: World) -> None:
    order = await world.order()
    answers = await all_together(*(lambda: world.pay(order) for _ in range(10)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["payment_id"] for answer in answers}) == 1
    assert world.payments.sessions_created[order.id] == 1


async def test_ten_clicks_with_keys_of_their_own_open_one_session(world: World) -> None:
    order = await world.order()
    answers = await all_together(
        *(lambda n=n: world.pay(order, headers={"Idempotency-Key": f"click-number-{n:04}"}) for n in range(10))
    )
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["payment_id"] for answer in answers}) == 1


async def test_ten_clicks_with_one_key_open_one_session(world: World) -> None:
    order = await world.order()
    key = {"Idempotency-Key": "one-key-for-ten-clicks"}
    answers = await all_together(*(lambda: world.pay(order, headers=key) for _ in range(10)))
    assert {answer.status_code for answer in answers} <= {200, 409}
    assert world.payments.sessions_created[order.id] == 1
    replayed = await world.pay(order, headers=key)
    assert (replayed.status_code, replayed.headers["idempotent-replayed"]) == (200, "true")


async def test_cancel_against_paid_two_hundred_times(world: World) -> None:
    rounds = 200
    await world.has_product(stock=rounds)
    outcomes: Counter[str] = Counter()
    too_late: list[str] = []
    for number in range(rounds):
        order = await world.order()
        payment_id = await world.open_session(order)
        paid = world.payments.becomes(payment_id, PaymentStatus.CAPTURED)
        if number % 2:
            # The worst case: the gateway says "canceled" to the closing although the money has moved.
            lied, paid = replace(paid, status=PaymentStatus.CANCELED, amount_captured=0), replace(paid, version=4)
            world.payments.sessions[payment_id] = lied
        closing = asyncio.Event()

        async def the_cancel_asks_the_gateway(_payment_id: str, closing: asyncio.Event = closing) -> None:
            closing.set()

        async def the_event_arrives(
            number: int = number, paid: PaymentSnapshot = paid, closing: asyncio.Event = closing
        ) -> None:
            if number % 2:
                await closing.wait()
                for _ in range(number // 2 % 6):  # now earlier, now later in the cancel's course
                    await world.container.database.ping()
            await deliver(world.container, an_event(paid))

        world.payments.before_close = the_cancel_asks_the_gateway
        cancel, _ = await all_together(partial(world.cancel, order), the_event_arrives)
        seen = await world.see(order)
        if seen["status"] == "confirmed":
            assert (cancel.status_code, seen["attention"]) == (409, None)
        else:
            assert (seen["status"], cancel.status_code, seen["attention"]) == ("canceled", 200, "late_payment")
            too_late.append(payment_id)
        assert seen["payment_status"] == "paid"
        outcomes[seen["status"]] += 1
    confirmed = outcomes["confirmed"]
    assert await world.stock() == (rounds - confirmed, 0)
    assert await world.value("SELECT count(*) FROM invoices") == confirmed
    assert (await world.events()).count("order.paid.v1") == confirmed
    assert (await world.events()).count("order.canceled.v1") == rounds - confirmed
    # The loser's effect is compensated (failure O6): what was taken for a canceled order is asked back, once.
    assert [command.payment_id for command in await world.commands()] == too_late
    assert {command.reason for command in await world.commands()} == {"order_canceled"}
    assert outcomes["confirmed"] > 0
    assert outcomes["canceled"] > 0


async def test_fifty_orders_paid_at_once_have_invoice_numbers_without_gaps(build_world: BuildWorld) -> None:
    world = await build_world(database_pool_size=25)  # one each
    await world.has_product(stock=60)
    orders = [await world.order() for _ in range(50)]
    paid = [world.payments.becomes(await world.open_session(order), PaymentStatus.CAPTURED) for order in orders]
    await in_waves([lambda snapshot=snapshot: deliver(world.container, an_event(snapshot)) for snapshot in paid])
    numbers = [row["number"] for row in await world.rows("SELECT number FROM invoices ORDER BY number")]
    assert numbers == list(range(1, 51))
    assert await world.stock() == (10, 0)


async def test_a_rolled_back_payment_leaves_no_gap_in_the_invoices(world: World) -> None:
    first, second = await world.order(), await world.order()
    snapshots = [
        world.payments.becomes(await world.open_session(order), PaymentStatus.CAPTURED) for order in (first, second)
    ]
    async with world.container.database.begin() as connection:
        await connection.exec_driver_sql(
            "CREATE FUNCTION refuse() RETURNS trigger AS $$ BEGIN RAISE 'no'; END $$ LANGUAGE plpgsql;"
        )
        await connection.exec_driver_sql(
            "CREATE TRIGGER refuse AFTER INSERT ON invoices FOR EACH ROW EXECUTE FUNCTION refuse()"
        )
    with pytest.raises(DBAPIError, match="no"):
        await deliver(world.container, an_event(snapshots[0]))
    assert (await world.see(first))["status"] == "open"
    assert await world.stock() == (10, 2)
    async with world.container.database.begin() as connection:
        await connection.exec_driver_sql("DROP TRIGGER refuse ON invoices")
    await deliver(world.container, an_event(snapshots[1]), an_event(snapshots[0]))
    assert (await world.see(second))["invoice_number"] == "INV-000001"
    assert (await world.see(first))["invoice_number"] == "INV-000002"


async def test_two_sweepers_restore_the_stock_once(build_world: BuildWorld, clock: FakeClock) -> None:
    replicas = [await build_world() for _ in range(2)]
    await replicas[0].has_product(stock=100)
    orders = [await replicas[0].order(items=[{"sku": "moka-pot", "quantity": 2}]) for _ in range(25)]
    for order in orders[:5]:
        await replicas[0].open_session(order)
    clock.move(31 * 60)

    async def sweep(world: World) -> None:
        while await expire_due_orders(world.container.deps):
            pass

    await asyncio.gather(*(sweep(world) for world in replicas), *(sweep(world) for world in replicas))

    assert await replicas[0].stock() == (100, 0)
    assert (await replicas[0].events()).count("order.expired.v1") == 25
    assert await replicas[0].value("SELECT count(*) FROM stock_reservations WHERE status = 'released'") == 25


async def test_expiry_against_paid(world: World, clock: FakeClock) -> None:
    rounds = 40
    await world.has_product(stock=rounds)
    for _ in range(rounds):
        order = await world.order()
        payment_id = await world.open_session(order)
        clock.move(31 * 60)
        # The gateway has canceled the session when the sweeper asks, and money turns up all the same.
        canceled = world.payments.becomes(payment_id, PaymentStatus.CANCELED)
        paid = an_event(world.payments.becomes(payment_id, PaymentStatus.CAPTURED))
        world.payments.sessions[payment_id] = canceled
        await all_together(partial(expire_due_orders, world.container.deps), partial(deliver, world.container, paid))
        seen = await world.see(order)
        assert (seen["status"], seen["attention"]) in [("confirmed", None), ("expired", "late_payment")]
        assert seen["payment_status"] == "paid"
    on_hand, reserved = await world.stock()
    assert (rounds - on_hand, reserved) == (await world.value("SELECT count(*) FROM invoices"), 0)
