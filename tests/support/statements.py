"""What a piece of work asks of its database: every statement that leaves the process, BEGIN and COMMIT among them."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from asyncpg.connection import LoggedQuery
from sqlalchemy import event

from shared.db.session import Database


@dataclass
class Statements:
    """Each is one round trip; what is prepared for the first time is two. BEGIN and COMMIT may stand a place late: the
    driver tells of them when they have been answered."""

    queries: list[str] = field(default_factory=list)

    @property
    def transactions(self) -> int:
        return sum(query.startswith("BEGIN") for query in self.queries)

    @property
    def within(self) -> list[str]:
        """Without those that only begin and end a transaction."""
        ends = ("BEGIN", "COMMIT", "ROLLBACK")
        return [query for query in self.queries if not query.startswith(ends)]

    def told(self) -> str:
        """For the message of a test that fails."""
        return "\n".join(f"{number:3} {' '.join(query.split())[:150]}" for number, query in enumerate(self.queries, 1))


@contextmanager
def statements_of(database: Database) -> Iterator[Statements]:
    """Whatever goes through the database's pool, by SQLAlchemy or by the driver. Hints come and go by themselves and
    are left out."""
    found, seen = Statements(), weakref.WeakSet[Any]()

    def note(query: LoggedQuery) -> None:
        if "pg_notify" not in query.query:
            found.queries.append(query.query.strip())

    def listen(connection: Any, _record: Any, _proxy: Any) -> None:
        driver = connection.driver_connection
        if driver not in seen:
            seen.add(driver)
            driver.add_query_logger(note)

    def note_prepared(_c: Any, _cursor: Any, statement: str, _p: Any, _context: Any, executemany: bool) -> None:
        if not executemany:  # the driver tells of those, but not of prepared statements
            found.queries.append(statement.strip())

    engine = database.engine.sync_engine
    pool = engine.pool
    event.listen(pool, "checkout", listen)
    event.listen(engine, "before_cursor_execute", note_prepared)
    try:
        yield found
    finally:
        event.remove(pool, "checkout", listen)
        event.remove(engine, "before_cursor_execute", note_prepared)
        for driver in seen:
            driver.remove_query_logger(note)


async def answered() -> None:
    """Lets the driver tell of the statements that were answered last."""
    done = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(done.set_result, None)
    await done
