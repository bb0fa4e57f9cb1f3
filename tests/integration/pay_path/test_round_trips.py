"""How often a shopper's request goes to a database or to another service.

Upper bounds, because nothing else notices: each statement is a fraction of a millisecond here and a round trip through
a network elsewhere, and in two releases a pay call had grown to five transactions and sixty round trips unseen. Whoever
needs one more raises the number here and says in docs/performance.md what it buys.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.integration.pay_path.conftest import PayPath
from tests.support.statements import Statements, answered, statements_of


@dataclass
class Asked:
    orders: Statements
    payments: Statements
    calls: list[str] = field(default_factory=list)

    @property
    def told(self) -> str:
        return f"orders:\n{self.orders.told()}\npayments:\n{self.payments.told()}\n{self.calls}"


@asynccontextmanager
async def asked_by(path: PayPath) -> AsyncIterator[Asked]:
    with statements_of(path.orders.database) as orders, statements_of(path.payments.database) as payments:
        path.network.calls.clear()
        asked = Asked(orders, payments, path.network.calls)
        yield asked
        await answered()


@pytest.fixture
async def warm(path: PayPath) -> PayPath:
    """What is looked up once for a connection (the types of its parameters) has been looked up."""
    for _ in range(2):
        await path.pay(await path.order(**path.key()), **path.key())
    return path


async def within(asked: Asked, *, orders: tuple[int, int], payments: tuple[int, int], calls: list[str]) -> None:
    """(transactions, statements in all but their BEGIN and COMMIT) of each service."""
    assert asked.orders.transactions <= orders[0], asked.told
    assert len(asked.orders.within) <= orders[1], asked.told
    assert asked.payments.transactions <= payments[0], asked.told
    assert len(asked.payments.within) <= payments[1], asked.told
    assert asked.calls == calls, asked.told


async def test_an_order(warm: PayPath) -> None:
    async with asked_by(warm) as asked:
        await warm.order()
    await within(asked, orders=(1, 8), payments=(0, 0), calls=[])


async def test_an_order_with_a_key(warm: PayPath) -> None:
    """One statement claims the key, one stores the answer in the order's transaction."""
    async with asked_by(warm) as asked:
        await warm.order(**warm.key())
    await within(asked, orders=(1, 10), payments=(0, 0), calls=[])


async def test_a_pay_call(warm: PayPath) -> None:
    """Two transactions on either side of each call that may be lost: reserve, call, record."""
    order = await warm.order()
    async with asked_by(warm) as asked:
        await warm.pay(order)
    await within(asked, orders=(2, 8), payments=(2, 19), calls=["POST payments.test", "POST gateway.test"])


async def test_a_pay_call_with_a_key(warm: PayPath) -> None:
    order = await warm.order()
    async with asked_by(warm) as asked:
        await warm.pay(order, **warm.key())
    await within(asked, orders=(3, 11), payments=(2, 19), calls=["POST payments.test", "POST gateway.test"])


async def test_a_pay_call_again(warm: PayPath) -> None:
    """The session that is open is found; the gateway is not asked."""
    order = await warm.order()
    first = await warm.pay(order)
    async with asked_by(warm) as asked:
        assert await warm.pay(order) == first
    await within(asked, orders=(2, 4), payments=(2, 4), calls=["POST payments.test"])


async def test_an_answer_that_is_replayed(warm: PayPath) -> None:
    """Who may see the order, and what was answered."""
    order, key = await warm.order(), warm.key()
    first = await warm.pay(order, **key)
    async with asked_by(warm) as asked:
        assert await warm.pay(order, **key) == first
    await within(asked, orders=(1, 2), payments=(0, 0), calls=[])


async def test_a_stranger_gets_no_stored_answer_and_takes_no_key(warm: PayPath) -> None:
    """PY20: the look at the order comes before the key."""
    order, other, key = await warm.order(), await warm.order(), warm.key()
    await warm.pay(order, **key)
    stolen: dict[str, Any] = order | {"client_secret": other["client_secret"]}
    refused: list[Awaitable[object]] = [warm.pay(stolen, **key), warm.pay(stolen, **warm.key())]
    for call in refused:
        with pytest.raises(AssertionError, match="not_found"):
            await call
    async with warm.orders.database.begin() as connection:
        rows = await connection.exec_driver_sql("SELECT count(*) FROM idempotency_keys WHERE sealed_response IS NULL")
        assert rows.scalar_one() == 0
