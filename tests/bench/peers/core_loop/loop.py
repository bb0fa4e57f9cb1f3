"""What a consumer costs without sets: inbox claim, update and outbox row by SQLAlchemy Core, a transaction a message.

One process, eight messages at once, no broker: the messages are numbers in memory. Prints one line of JSON:
transactions, seconds and the CPU seconds of this process.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import resource
import sys
import time

import uvloop
from sqlalchemy import BigInteger, Column, Identity, MetaData, Table, Text, insert, select, update
from sqlalchemy.dialects.postgresql import insert as insert_or_nothing
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

AT_ONCE = 8
metadata = MetaData()
inbox = Table("inbox", metadata, Column("message_id", Text, primary_key=True))
payments = Table(
    "payments",
    metadata,
    Column("id", Text, primary_key=True),
    Column("status", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
)
outbox = Table(
    "outbox",
    metadata,
    Column("position", BigInteger, Identity(), primary_key=True),
    Column("subject", Text, nullable=False),
    Column("body", Text, nullable=False),
)


async def _apply(engine: AsyncEngine, number: int) -> None:
    payment_id = f"pay_{number:026d}"
    async with engine.begin() as connection:
        claim = insert_or_nothing(inbox).values(message_id=f"evt_{number:026d}").on_conflict_do_nothing()
        if (await connection.execute(claim)).rowcount == 0:
            return
        found = select(payments.c.version).where(payments.c.id == payment_id).with_for_update()
        version = (await connection.execute(found)).scalar_one()
        changed = update(payments).where(payments.c.id == payment_id).values(status="captured", version=version + 1)
        await connection.execute(changed)
        body = json.dumps({"id": payment_id, "status": "captured", "version": version + 1})
        await connection.execute(insert(outbox).values(subject=payment_id, body=body))


async def _work(engine: AsyncEngine, numbers: itertools.count[int], ends: float) -> int:
    done = 0
    while time.perf_counter() < ends:
        await _apply(engine, next(numbers))
        done += 1
    return done


async def main(url: str, seconds: float, rows: int) -> None:
    engine = create_async_engine(url.replace("postgresql://", "postgresql+asyncpg://"), pool_size=AT_ONCE)
    async with engine.begin() as connection:
        await connection.run_sync(metadata.drop_all)
        await connection.run_sync(metadata.create_all)
        await connection.exec_driver_sql(
            "INSERT INTO payments SELECT 'pay_' || lpad(n::text, 26, '0'), 'created', 1"
            f" FROM generate_series(1, {rows}) n"
        )
    numbers = itertools.count(1)
    await _apply(engine, next(numbers))  # what is compiled once is not the loop's
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    done = sum(await asyncio.gather(*(_work(engine, numbers, started + seconds) for _ in range(AT_ONCE))))
    took, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    await engine.dispose()
    print(json.dumps({"transactions": done, "seconds": took, "cpu_seconds": cpu}))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3])))
