"""Orders with an open page at the gateway: some made over HTTP as shoppers make them, thousands cloned from those."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import asyncpg

from tests.bench.stack import BenchStack
from tests.bench.webhooks import About
from tests.e2e.shop import PlacedOrder, Shop

_clone_numbers = itertools.count(1)
_OF_ORDER = ("orders", "order_items", "stock_reservations", "order_payments", "outbox_sequences")
_OF_PAYMENT = (
    "payments",
    "payment_attempts",
    "payment_references",
    "payment_facts",
    "payment_timeline",
    "outbox_sequences",
)
_KEY = {"orders": "id", "outbox_sequences": "subject"}
_LATER = {"expires_at", "next_expiry_attempt_at", "session_expires_at"}
_TEXTS = {"text", "character", "character varying", "jsonb"}


@dataclass(frozen=True)
class Payable:
    order: PlacedOrder
    about: About
    pay_seconds: float


async def payable_orders(shop: Shop, count: int, *, at_once: int = 1) -> list[Payable]:
    await shop.restock()
    turns = asyncio.Semaphore(at_once)

    async def one() -> Payable:
        async with turns:
            order = await shop.order()
            started = time.perf_counter()
            session = await shop.pay(order, "generic")
            seconds = time.perf_counter() - started
        return Payable(order, About(session["payment_id"], session["gateway_reference"]), seconds)

    return list(await asyncio.gather(*(one() for _ in range(count))))


@dataclass(frozen=True)
class Clone:
    """A copy of a payable order. It opens with the seed's secret, because the digest of that is copied too."""

    order_id: str
    about: About


async def payable_clones(stack: BenchStack, seed: Payable, count: int) -> list[Clone]:
    """Orders that differ from the seed in their identifiers only: rows of both services, copied by SQL.

    Every identifier of the seed is replaced wherever it stands in a text; the numbering of the seed's events goes
    along, so that the next event of a clone has the number that it would have had.
    """
    first = next(_clone_numbers)
    for _ in itertools.islice(_clone_numbers, count - 1):
        pass
    async with stack.books("payment_service") as payments, stack.books("order_service") as orders:
        names = await identifiers(payments, seed.about.payment_id, seed.order.id)
        for table in _OF_ORDER:
            key = _KEY.get(table, "order_id")
            await clone_rows(orders, table, key, seed.order.id, names, first, count)
        await _reserve(orders, seed.order.id, count)
        await clone_payments(payments, seed.about.payment_id, names, first, count)
    order_ids, abouts = (
        [cloned(seed.order.id, n) for n in range(first, first + count)],
        clone_abouts(seed.about, first, count),
    )
    return [Clone(order_id, about) for order_id, about in zip(order_ids, abouts, strict=True)]


def clone_abouts(about: About, first: int, count: int) -> list[About]:
    return [
        About(cloned(about.payment_id, n), cloned(about.gateway_reference, n), about.amount)
        for n in range(first, first + count)
    ]


async def clone_payments(
    connection: asyncpg.Connection, payment_id: str, names: Sequence[str], first: int, count: int
) -> None:
    for table in _OF_PAYMENT:
        await clone_rows(connection, table, _KEY.get(table, "payment_id"), payment_id, names, first, count)
    await connection.execute("ANALYZE")


async def _reserve(connection: asyncpg.Connection, order_id: str, count: int) -> None:
    statement = """UPDATE products p SET on_hand = on_hand + quantity * $2, reserved = reserved + quantity * $2
        FROM order_items i WHERE i.order_id = $1 AND i.sku = p.sku"""
    await connection.execute(statement, order_id, count)
    await connection.execute("ANALYZE")


async def identifiers(connection: asyncpg.Connection, payment_id: str, order_id: str) -> list[str]:
    """Whatever names the seed, the longest first: one may be a part of another."""
    found = {payment_id, order_id}
    statements = (
        "SELECT attempt_id, reference, idempotency_key, gateway_reference FROM payment_attempts WHERE payment_id = $1",
        "SELECT reference FROM payment_references WHERE payment_id = $1",
        "SELECT gateway_reference FROM payments WHERE payment_id = $1",
    )
    for statement in statements:
        for row in await connection.fetch(statement, payment_id):
            found |= {value for value in row.values() if value}
    return sorted(found, key=len, reverse=True)


def cloned(identifier: str, number: int) -> str:
    """The same as ``_cloned_sql``: the last eight characters become the number, which keeps length and alphabet."""
    return f"{identifier[:-8]}{number:08d}"


def _cloned_sql(identifier: str) -> str:
    return f"'{identifier[:-8]}' || lpad(n::text, 8, '0')"


async def clone_rows(
    connection: asyncpg.Connection,
    table: str,
    key: str,
    value: str,
    names: Sequence[str],
    first: int,
    count: int,
    instead: Mapping[str, str] | None = None,
) -> None:
    """``instead`` are the SQL of columns whose value is not the seed's."""
    columns = await _columns(connection, table)
    written = {name: _expression(name, kind, names) for name, kind in columns.items()} | dict(instead or {})
    expressions = ", ".join(written.values())
    await connection.execute(
        f"INSERT INTO {table} ({', '.join(columns)}) SELECT {expressions} FROM {table} source,"
        f" generate_series({first}, {first + count - 1}) n WHERE source.{key} = $1",
        value,
    )


async def _columns(connection: asyncpg.Connection, table: str) -> Mapping[str, str]:
    """Names and types of what can be written."""
    rows = await connection.fetch(
        "SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = current_schema()"
        " AND table_name = $1 AND is_identity = 'NO' AND is_generated = 'NEVER' ORDER BY ordinal_position",
        table,
    )
    return {row["column_name"]: row["data_type"] for row in rows}


def _expression(name: str, kind: str, names: Sequence[str]) -> str:
    if name in _LATER:
        return "now() + interval '1 day'"
    if kind not in _TEXTS:
        return f"source.{name}"
    expression = f"source.{name}::text"
    for identifier in names:
        expression = f"replace({expression}, '{identifier}', {_cloned_sql(identifier)})"
    return f"({expression})::jsonb" if kind == "jsonb" else expression
