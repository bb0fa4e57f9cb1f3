"""The export of orders: whole, in order, in bounded memory, and broken off where it cannot go on."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import text

from services.order_service.api import exports
from services.order_service.domain.models import PaymentStatus
from services.order_service.use_cases import export_orders
from services.order_service.use_cases.export_orders import PAGE, ExportWindow
from services.order_service.use_cases.ports import OrderTransaction
from shared.contracts.exports import EndOfExport, ExportedOrder
from shared.errors import DatabaseUnavailable
from tests.integration.order_service.conftest import World
from tests.integration.order_service.fakes import an_event, deliver
from tests.support.clock import FakeClock

URL = "/api/v1/exports/orders"
FIRST = datetime(2026, 1, 1, tzinfo=UTC)

MANY_ORDERS = """
    INSERT INTO orders (id, status, payment_status, confirmed_by, total_minor, currency, secret_digest, customer_email,
        customer_name, metadata, expires_at, next_expiry_attempt_at, created_at, updated_at, version)
    SELECT 'ord_' || lpad(n::text, 26, '0'), 'confirmed', 'paid', 'pay_' || n, 3900, 'EUR',
        decode(repeat('00', 32), 'hex'), 'ada@example.com', 'Ada', '{}', now(), now(), :first,
        CAST(:first AS timestamptz) + n / 10 * interval '1 second', 2
    FROM generate_series(1, :count) n"""
THEIR_PAYMENTS = """
    INSERT INTO order_payments (payment_id, order_id, gateway, status, version, amount_minor, currency, amount_captured,
        created_at, updated_at)
    SELECT 'pay_' || n, 'ord_' || lpad(n::text, 26, '0'), 'stripe', 'captured', 3, 3900, 'EUR', 3900, :first, :first
    FROM generate_series(1, :count) n"""


async def has_many_orders(world: World, count: int) -> None:
    """Ten of them in each second from FIRST on."""
    async with world.container.database.begin() as connection:
        for sql in (MANY_ORDERS, THEIR_PAYMENTS):
            await connection.execute(text(sql), {"count": count, "first": FIRST})


def small_pages(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(exports, "PAGE", size)


async def export(world: World, **window: str) -> tuple[list[ExportedOrder], int | None]:
    """The orders, and what the last line counts; None: the stream broke off."""
    answer = await world.http.get(URL, params=window, headers=world.token("orders:read"))
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    return read(answer.text)


def read(body: str) -> tuple[list[ExportedOrder], int | None]:
    lines = [json.loads(line) for line in body.splitlines()]
    end = EndOfExport.model_validate(lines.pop()["end"]).count if lines and "end" in lines[-1] else None
    return [ExportedOrder.model_validate(line["order"]) for line in lines], end


async def test_an_order_is_exported_with_its_payments_and_without_its_customer(world: World) -> None:
    order = await world.order()
    failed = await world.open_session(order)
    await world.gateway_says(failed, PaymentStatus.FAILED)
    paid_by = await world.open_session(order)
    captured = await world.gateway_says(paid_by, PaymentStatus.CAPTURED)
    second = replace(captured, payment_id="pay_zzz")
    await deliver(world.container, an_event(second))
    unpaid = await world.order()

    answer = await world.http.get(URL, headers=world.token("orders:read"))
    orders, count = read(answer.text)
    assert count == 2
    exported = next(each for each in orders if each.order_id == order.id)
    row = (await world.rows("SELECT * FROM orders WHERE id = :id", id=order.id))[0]
    assert (exported.status, exported.payment_status, exported.attention) == ("confirmed", "paid", "duplicate_payment")
    assert (exported.confirmed_by, exported.version) == (paid_by, row["version"])
    assert (exported.created_at, exported.updated_at) == (row["created_at"], row["updated_at"])
    assert (exported.total.amount_minor, exported.total.currency) == (3900, "EUR")
    assert [(each.payment_id, each.status, each.resolution) for each in exported.payments] == [
        (failed, "failed", None),
        (paid_by, "captured", None),
        ("pay_zzz", "captured", "refund_requested"),
    ]
    assert (exported.payments[1].amount_captured, exported.payments[1].version) == (3900, captured.version)
    assert next(each for each in orders if each.order_id == unpaid.id).payments == []
    for personal in ("ada@", "lovelace", "7946 0000"):  # nothing that an id could spell
        assert personal not in answer.text.lower()


async def test_nothing_is_a_whole_export_too(world: World) -> None:
    assert await export(world) == ([], 0)


async def test_pages_join_without_a_gap(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten orders share each moment: their ids say which comes first."""
    await has_many_orders(world, 30)
    for size in (1, 7, 30, 31):
        small_pages(monkeypatch, size)
        orders, count = await export(world)
        assert count == 30
        assert [each.order_id for each in orders] == [f"ord_{number:026d}" for number in range(1, 31)]
        assert [each.updated_at for each in orders] == sorted(each.updated_at for each in orders)


async def test_windows_that_touch_give_every_order_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await has_many_orders(world, 60)
    small_pages(monkeypatch, 4)
    marks = [None, *(f"{(FIRST + timedelta(seconds=each)).isoformat()}" for each in (2, 3)), None]
    found: list[str] = []
    for since, before in pairwise(marks):
        window = {"updated_since": since, "updated_before": before}
        orders, count = await export(world, **{name: value for name, value in window.items() if value is not None})
        assert count == len(orders) > 0
        found += [each.order_id for each in orders]
    assert found == [f"ord_{number:026d}" for number in range(1, 61)]


async def test_an_order_that_changes_meanwhile_comes_again_and_never_not_at_all(world: World, clock: FakeClock) -> None:
    order = await world.order()
    payment_id = await world.open_session(order)
    clock.move(1)
    others = [await world.order() for _ in range(3)]
    clock.move(1)
    seen: list[tuple[str, str]] = []
    pages = export_orders.export_orders(ExportWindow(), world.container.deps, page_size=2)
    first = await anext(pages)
    await world.gateway_says(payment_id, PaymentStatus.CAPTURED)
    seen += [(row.order_id, row.status) for row in first]
    async for page in pages:
        seen += [(row.order_id, row.status) for row in page]
    assert [status for order_id, status in seen if order_id == order.id] == ["open", "confirmed"]
    assert {order_id for order_id, _ in seen} == {order.id, *(each.id for each in others)}


@pytest.mark.parametrize("at", ["the database", "the process"])
async def test_a_stream_that_broke_off_has_no_end_line(world: World, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    await has_many_orders(world, 30)
    small_pages(monkeypatch, 10)
    begin, opened = world.container.deps.uow, 0

    @asynccontextmanager
    async def breaking() -> AsyncIterator[OrderTransaction]:
        nonlocal opened
        opened += 1
        if opened == 3 and at == "the database":
            raise DatabaseUnavailable
        async with begin() as tx:
            yield tx
        if opened == 2 and at == "the process":
            world.container.watch.stop()

    broken = replace(world.container, deps=replace(world.container.deps, uow=breaking))
    world.application.state.container = broken
    orders, count = await export(world)
    assert (len(orders), count) == (20, None)


async def test_a_database_that_is_away_is_an_answer(world: World) -> None:
    def away() -> AbstractAsyncContextManager[OrderTransaction]:
        raise DatabaseUnavailable

    world.application.state.container = replace(world.container, deps=replace(world.container.deps, uow=away))
    answer = await world.http.get(URL, headers=world.token("orders:read"))
    assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")


async def test_only_who_may_read_every_order_gets_the_export(world: World) -> None:
    order = await world.order()
    assert (await world.http.get(URL)).status_code == 401
    assert (await world.http.get(URL, headers=order.secret)).status_code == 401
    for scopes in ("", "orders:write", "payments:read"):
        assert (await world.http.get(URL, headers=world.token(scopes, subject="cus_1"))).status_code == 403
    assert (await world.http.get(URL, headers=world.token("orders:*"))).status_code == 200


async def test_a_window_that_is_none_is_refused(world: World) -> None:
    for since, before in (
        ("yesterday", None),
        ("1767225600", None),
        ("2026-01-01T00:00:00", None),
        ("2026-01-01", None),
        ("0001-01-01T00:00:00+14:00", None),
        (None, "9999-12-31T23:59:59-12:00"),
        ("2026-01-02T00:00:00Z", "2026-01-02T00:00:00Z"),
        ("2026-01-03T00:00:00Z", "2026-01-02T00:00:00Z"),
    ):
        given = {"updated_since": since, "updated_before": before}
        window = {name: value for name, value in given.items() if value is not None}
        answer = await world.http.get(URL, params=window, headers=world.token("orders:read"))
        assert answer.status_code == 422, window


async def test_ten_thousand_orders_stream_in_the_memory_of_a_few_pages(world: World) -> None:
    """Failure RC18. No transaction is open while a reader has a page: the pool is free for everybody else."""
    await has_many_orders(world, 10_000)
    services = world.container
    route: Callable[..., Any] = exports.get_orders_export
    response = await route(services)
    count, held, base = 0, 0, 0
    tracemalloc.start()
    async for chunk in response.body_iterator:
        count += chunk.count(b"\n")
        held = max(held, services.database.engine.pool.checkedout())  # type: ignore[attr-defined]
        if count == PAGE:
            tracemalloc.reset_peak()
            base = tracemalloc.get_traced_memory()[0]
    peak = tracemalloc.get_traced_memory()[1] - base
    tracemalloc.stop()
    assert count == 10_001
    assert held == 0
    assert peak < 8 * 1024 * 1024, f"{peak} bytes at once"


async def test_the_index_finds_the_place_to_go_on_from(world: World) -> None:
    await has_many_orders(world, 5000)
    async with world.container.database.begin() as connection:
        await connection.execute(text("ANALYZE orders"))
        sql = """EXPLAIN SELECT id FROM orders WHERE (updated_at, id) > (:moment, :id) AND updated_at < :before
                 ORDER BY updated_at, id LIMIT 500"""
        values = {"moment": FIRST, "id": "ord_", "before": FIRST + timedelta(days=1)}
        plan = "\n".join(row[0] for row in await connection.execute(text(sql), values))
    assert "ix_orders_updated_at" in plan
    assert "Sort" not in plan
