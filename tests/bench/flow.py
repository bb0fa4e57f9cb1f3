"""What became of webhooks, by the databases' own books: when orders were paid, when events were applied.

Times are those of commits (``track_commit_timestamp``), read from rows that are written once: a stock reservation ends
in the transaction that makes its order paid, a fact is inserted in the one that applies its event.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime

import asyncpg

from tests.bench.load import Sample
from tests.bench.shopping import Clone
from tests.bench.stack import BenchStack, delivery_ids, until_value

LOOK_SECONDS = 0.25
"""Between two looks at the books while something is measured: looking costs PostgreSQL too."""
PAID = "SELECT count(*) FROM stock_reservations WHERE status <> 'reserved' AND order_id = ANY($1)"
_PAID_OF = """SELECT count(*) FILTER (WHERE status <> 'reserved') AS paid,
    min(order_id) FILTER (WHERE status = 'reserved') AS first_unpaid
    FROM stock_reservations WHERE order_id BETWEEN $1 AND $2"""
PAID_AT = """SELECT order_id, pg_xact_commit_timestamp(xmin) AS at FROM stock_reservations
    WHERE status <> 'reserved' AND order_id = ANY($1)"""
APPLIED = "SELECT count(*) FROM payments WHERE status = 'captured' AND payment_id BETWEEN $1 AND $2"
ANY_APPLIED = "SELECT EXISTS (SELECT FROM payments WHERE status = 'captured' AND payment_id BETWEEN $1 AND $2)"
APPLIED_AT = """SELECT payment_id, pg_xact_commit_timestamp(xmin) AS at FROM payment_facts
    WHERE source = 'webhook' AND payment_id = ANY($1)"""
UNPUBLISHED = "SELECT count(*) FROM outbox_messages WHERE published_at IS NULL"


class PaidCounter:
    """How many of these orders are paid, looked up among those only that can have been paid since the last look.

    Clones are numbered, so their identifiers are a range in the order in which their webhooks are sent.
    """

    def __init__(self, connection: asyncpg.Connection, clones: Sequence[Clone]) -> None:
        self._connection = connection
        self._ids = [clone.order_id for clone in clones]
        self._places = {order_id: place for place, order_id in enumerate(self._ids)}
        self._low = 0  # every order before this one is paid

    async def count(self, sent_at_most: int) -> int:
        high = min(sent_at_most, len(self._ids))
        if self._low >= high:
            return self._low
        row = await self._connection.fetchrow(_PAID_OF, self._ids[self._low], self._ids[high - 1])
        paid: int = self._low + row["paid"]
        self._low = high if row["first_unpaid"] is None else self._places[row["first_unpaid"]]
        return paid


async def all_applied(connection: asyncpg.Connection, clones: Sequence[Clone]) -> AsyncIterator[int]:
    """Gives the number of payments that are captured, first when there are some, and again when all of them are."""
    bounds = clones[0].about.payment_id, clones[-1].about.payment_id
    await until_value(connection, ANY_APPLIED, True, *bounds, within_seconds=60, what="the first event being applied")
    yield await connection.fetchval(APPLIED, *bounds)
    async with asyncio.timeout(300):
        while (applied := await connection.fetchval(APPLIED, *bounds)) < len(clones):  # noqa: ASYNC110 - rows call nobody
            await asyncio.sleep(LOOK_SECONDS)
    yield applied


async def moments(connection: asyncpg.Connection, sql: str, ids: Sequence[str]) -> Mapping[str, datetime]:
    return {row[0]: row["at"] for row in await connection.fetch(sql, ids)}


async def received_at(stack: BenchStack, sample: Sample) -> list[datetime]:
    """By the answers' order: when each delivery had arrived, by our own clock, which is the database's machine's."""
    ids = delivery_ids(sample.bodies)
    async with stack.books("webhook_ingest") as connection:
        rows = await connection.fetch("SELECT id, received_at FROM webhook_deliveries WHERE id = ANY($1)", ids)
    known = {row["id"]: row["received_at"] for row in rows}
    return [known[delivery_id] for delivery_id in ids]


async def seconds_to_paid(stack: BenchStack, sample: Sample, clones: Sequence[Clone]) -> list[float]:
    """From the delivery's arrival to the commit that made its order paid, for each webhook of a sample."""
    received = await received_at(stack, sample)
    async with stack.books("order_service") as connection:
        paid = await moments(connection, PAID_AT, [clone.order_id for clone in clones])
    orders = [clones[number].order_id for number in sample.numbers]
    return [(paid[order] - since).total_seconds() for order, since in zip(orders, received, strict=True)]
