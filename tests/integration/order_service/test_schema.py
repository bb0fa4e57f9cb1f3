"""The database refuses what the code must never do, and migrations give the schema that the code describes."""

from __future__ import annotations

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from services.order_service.db.tables import metadata
from services.order_service.domain.models import ReservationStatus
from tests.integration.order_service.conftest import World
from tests.support.clock import FakeClock


async def test_the_migrated_schema_is_the_one_in_the_code(world: World) -> None:
    async with world.container.database.engine.connect() as connection:
        differences = await connection.run_sync(
            lambda sync: compare_metadata(MigrationContext.configure(sync, opts={"compare_type": True}), metadata)
        )
    assert [change for change in differences if "alembic_version" not in str(change)] == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE products SET reserved = on_hand + 1",
        "UPDATE products SET on_hand = -1, reserved = 0",
        "UPDATE products SET reserved = -1",
        "UPDATE products SET price_minor = 0",
        "DELETE FROM products",
        "UPDATE orders SET status = 'confirmed'",
        "UPDATE orders SET status = 'paid'",
        "UPDATE orders SET closed_as = 'canceled', confirmed_by = 'pay_1'",
        "UPDATE orders SET closed_as = 'canceled', confirmed_by = 'pay_1', status = 'confirmed'",
        "UPDATE orders SET closed_as = 'canceled', confirmed_by = 'pay_1', reopened_by = 'pay_2', status = 'confirmed'",
        "UPDATE orders SET reopened_by = 'pay_1', confirmed_by = 'pay_1', status = 'confirmed'",
        "UPDATE orders SET closed_as = 'expired', reopened_by = 'pay_1', status = 'expired'",
        "UPDATE orders SET refunded_at = now()",
        "UPDATE orders SET total_minor = 0",
        "UPDATE orders SET payment_status = 'free'",
        "UPDATE orders SET secret_digest = ''",
        "UPDATE order_items SET quantity = 0",
        "UPDATE stock_reservations SET status = 'released'",
        "UPDATE stock_reservations SET quantity = -1",
        "UPDATE order_payments SET resolution = 'refund_requested'",
        "UPDATE order_payments SET asked_number = 1, asked_attempt = 1, asked_captured = 1, ask_again_at = now()",
        "INSERT INTO invoices VALUES (0, (SELECT id FROM orders), '{}', now())",
        "INSERT INTO invoices SELECT n, id, '{}', now() FROM orders, generate_series(1, 2) n",
        "INSERT INTO stock_reservations SELECT order_id, sku, 1, 'reserved', now(), NULL FROM stock_reservations",
    ],
)
async def test_the_database_refuses(world: World, statement: str) -> None:
    await world.open_session(await world.order())
    with pytest.raises(IntegrityError):
        async with world.container.database.begin() as connection:
            await connection.execute(text(statement))


async def test_the_migrated_checks_and_keys_are_those_in_the_code(world: World) -> None:
    """Alembic compares columns and indexes only."""
    constraints = """
        SELECT conrelid::regclass::text AS table_name, conname, pg_get_constraintdef(oid) AS definition
        FROM pg_constraint WHERE connamespace = CAST(:schema AS regnamespace) AND contype IN ('c', 'p', 'u', 'f')"""
    async with world.container.database.begin() as connection:
        found = []
        await connection.execute(text("CREATE SCHEMA in_the_code"))
        for schema in ("order_service", "in_the_code"):
            await connection.execute(text(f"SET LOCAL search_path TO {schema}"))
            if schema == "in_the_code":
                await connection.run_sync(metadata.create_all, checkfirst=False)
            rows = await connection.execute(text(constraints), {"schema": schema})
            found.append({tuple(row) for row in rows if row.table_name != "alembic_version"})
    assert found[0] == found[1]


async def test_a_reservation_ends_once_whoever_tries_again(world: World, clock: FakeClock) -> None:
    order = await world.order(items=[{"sku": "moka-pot", "quantity": 3}])
    other = await world.order(items=[{"sku": "moka-pot", "quantity": 2}])
    ended = []
    for attempt in (ReservationStatus.RELEASED, ReservationStatus.RELEASED, ReservationStatus.DEDUCTED):
        async with world.container.uow() as tx:
            ended.append(await tx.products.end_reservations(order.id, attempt, now=clock.now()))
    assert ended == [1, 0, 0]
    assert await world.stock() == (10, 2)
    async with world.container.uow() as tx:
        await tx.products.end_reservations(other.id, ReservationStatus.DEDUCTED, now=clock.now())
    assert await world.stock() == (8, 0)
