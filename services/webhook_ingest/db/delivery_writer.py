"""Writes batches of deliveries to PostgreSQL, and says of each what became of it.

Every statement may be done twice: a row that is there already, from a try whose COMMIT was thought lost, is found to be
itself by its id. So nothing is ever lost or doubled by trying again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Protocol

import asyncpg
import structlog

from services.webhook_ingest.db.delivery_rows import FIND, INSERT, Key, Row, columns_of
from services.webhook_ingest.domain.errors import DeliveryNotStorable
from services.webhook_ingest.use_cases.ports import AppendResult
from shared.db.outbox import OUTBOX_CHANNEL
from shared.db.session import Database
from shared.errors import DatabaseContended, DatabaseUnavailable

log = structlog.get_logger()

Outcome = AppendResult | DeliveryNotStorable | DatabaseContended
"""What became of one row, known for certain. DatabaseContended: nothing, because somebody holds a row that it met."""

# What PostgreSQL says about a row, and never about itself: data exception, integrity constraint, a limit of its own.
_FAULTS_OF_DATA = ("22", "23", "54")

# A row that was met by the insert and then is not found was deleted in between; more than once is no accident.
_ROUNDS = 3

_LOCKED_TRIES = 16
"""Waits for locks in one batch: enough to find one row among 500 by halves, with some to spare. After that whatever is
left is refused, so that many locked rows do not hold up their neighbours for a multiple of the wait."""

HINT_SECONDS = 0.01
"""Commits that follow each other faster share a hint. One that comes by itself has its own, at once."""


class RowWriter(Protocol):
    async def write(self, rows: Sequence[Row]) -> list[Outcome]:
        """Make rows durable and say of each, in the same order, what became of it.

        The rows' keys are all different, and in ascending order: so batches of any number of processes wait for each
        other instead of deadlocking. Raises an InfrastructureError: then any of them may be stored or not.
        """
        ...

    async def close(self) -> None: ...


@dataclass(slots=True)
class _Locked:
    """How often a batch has waited for a lock in vain."""

    tries: int = 0


class DeliveryWriter:
    """One statement at a time, over a connection that is kept from batch to batch: checking one out costs as much as
    storing ten rows.

    ``statement_seconds`` bounds each statement with its way to a connection. Whatever goes wrong gives the connection
    up; one on which a statement may still run is cut, for nobody knows what it would answer next.
    """

    def __init__(self, database: Database, *, statement_seconds: float) -> None:
        self._database = database
        self._statement_seconds = statement_seconds
        self._driver: asyncpg.Connection | None = None
        self._checkout = AsyncExitStack()
        self._hinted_at = -HINT_SECONDS
        self._hint: asyncio.TimerHandle | None = None

    async def write(self, rows: Sequence[Row]) -> list[Outcome]:
        outcomes: dict[Key, Outcome] = {}
        missing = list(rows)
        locked = _Locked()
        for _ in range(_ROUNDS):
            await self._insert(missing, outcomes, locked)
            missing = [row for row in missing if row.key not in outcomes]
            if not missing:
                return [outcomes[row.key] for row in rows]
            await self._find(missing, outcomes)
            missing = [row for row in missing if row.key not in outcomes]
            if not missing:
                return [outcomes[row.key] for row in rows]
        raise DatabaseUnavailable(retry_after_seconds=2)

    async def close(self) -> None:
        """Give the connection back, until the next batch."""
        if self._hint is not None:
            self._hint.cancel()
            self._send_hint(asyncio.get_running_loop())
        checkout, self._checkout, self._driver = self._checkout, AsyncExitStack(), None
        await checkout.aclose()

    async def _insert(self, rows: Sequence[Row], outcomes: dict[Key, Outcome], locked: _Locked) -> None:
        """Commit what is new; a row that cannot be stored is found by halves, and costs its neighbours nothing."""
        try:
            found = await self._fetch(INSERT, columns_of(rows))
        except asyncpg.LockNotAvailableError:
            await self._insert_beside_locks(rows, outcomes, locked)
            return
        except asyncpg.PostgresError as fault:
            if len(rows) == 1:
                log.error("delivery_not_storable", gateway=rows[0].gateway, sqlstate=fault.sqlstate)
                outcomes[rows[0].key] = DeliveryNotStorable()
                return
            middle = len(rows) // 2
            await self._insert(rows[:middle], outcomes, locked)
            await self._insert(rows[middle:], outcomes, locked)
            return
        if not found:
            return
        self._announce()
        stored = {record[0] for record in found}
        for row in rows:
            if row.id in stored:
                outcomes[row.key] = AppendResult(row.id, is_duplicate=False, body_digest=row.body_digest)

    async def _insert_beside_locks(self, rows: Sequence[Row], outcomes: dict[Key, Outcome], locked: _Locked) -> None:
        """Somebody holds a row that one of these met. Reading waits for nobody: what is there already is found first.
        What is left is tried again, by halves once there is nothing to find."""
        locked.tries += 1
        await self._find(rows, outcomes)
        missing = [row for row in rows if row.key not in outcomes]
        if locked.tries >= _LOCKED_TRIES or (len(rows) == 1 and missing):
            log.warning("deliveries_met_locks", count=len(missing))
            outcomes.update((row.key, DatabaseContended(retry_after_seconds=2)) for row in missing)
            return
        middle = len(missing) // 2 if len(missing) == len(rows) else len(missing)
        for part in (missing[:middle], missing[middle:]):
            if part:
                await self._insert(part, outcomes, locked)

    async def _find(self, rows: Sequence[Row], outcomes: dict[Key, Outcome]) -> None:
        """Those that were there before. A row of that very id is no duplicate: an earlier try of it was not lost."""
        ours = {row.id for row in rows}
        for gateway, account, dedupe_key, delivery_id, digest in await self._fetch(
            FIND, list(zip(*(row.key for row in rows), strict=True))
        ):
            outcomes[(gateway, account, dedupe_key)] = AppendResult(
                delivery_id, is_duplicate=delivery_id not in ours, body_digest=digest
            )

    async def _fetch(self, statement: str, columns: Sequence[object]) -> Sequence[Any]:
        """Raises DatabaseUnavailable, or asyncpg.PostgresError where the data is at fault or somebody holds a row."""
        was_kept = self._driver is not None
        try:
            return await self._try(statement, columns)
        except DatabaseUnavailable as error:
            if not was_kept or isinstance(error.__cause__, TimeoutError):
                raise
        # A kept connection may have died of a restart that is long over. Doing it again changes nothing (module text).
        return await self._try(statement, columns)

    async def _try(self, statement: str, columns: Sequence[object]) -> Sequence[Any]:
        try:
            async with asyncio.timeout(self._statement_seconds):
                return await (await self._connected()).fetch(statement, *columns)  # type: ignore[no-any-return]
        except asyncpg.LockNotAvailableError:
            raise  # nothing is wrong with the connection
        except asyncpg.PostgresError as error:
            await self._give_up(error)  # raises DatabaseUnavailable, if it is known to be the server's trouble
            if (error.sqlstate or "").startswith(_FAULTS_OF_DATA):
                raise
            log.error("deliveries_not_stored", sqlstate=error.sqlstate)
            raise DatabaseUnavailable(retry_after_seconds=2) from error
        except (TimeoutError, OSError, asyncpg.InterfaceError) as error:
            await self._give_up(error)
            raise DatabaseUnavailable(retry_after_seconds=2) from error
        except BaseException as error:
            await self._give_up(error)
            raise

    async def _connected(self) -> asyncpg.Connection:
        if self._driver is not None and self._driver.is_closed():
            await self.close()  # the server went away while nothing was asked of it
        if self._driver is None:
            self._driver = await self._checkout.enter_async_context(self._database.driver())
        return self._driver

    async def _give_up(self, error: BaseException) -> None:
        """Let the database see the error, as if it had been met inside ``database.driver()``."""
        driver, self._driver = self._driver, None
        checkout, self._checkout = self._checkout, AsyncExitStack()
        if driver is not None and not isinstance(error, asyncpg.PostgresError):
            driver.terminate()
        await checkout.__aexit__(type(error), error, error.__traceback__)

    def _announce(self) -> None:
        """Wake the relay: at once, but not for each of many commits that follow closely, which costs it and us."""
        loop = asyncio.get_running_loop()
        wait = self._hinted_at + HINT_SECONDS - loop.time()
        if wait <= 0:
            self._send_hint(loop)
        elif self._hint is None:
            self._hint = loop.call_later(wait, self._send_hint, loop)

    def _send_hint(self, loop: asyncio.AbstractEventLoop) -> None:
        self._hint, self._hinted_at = None, loop.time()
        self._database.hint(OUTBOX_CHANNEL, one_is_enough=True)
