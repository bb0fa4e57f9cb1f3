"""Retention: what is not needed any more goes, in small transactions, one runner at a time, beside everything else.

Each service prunes its own tables, by its worker every hour and by ``payrail retention``. What must stay for ever
stays: the books, and the keys by which a repeated delivery is recognised (ADR 0023).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.db.leases import acquire_lease, release_lease
from shared.db.pruning import Key, Position, Walk, begin_walk, newer, prepare, prune_batch
from shared.db.session import Database
from shared.errors import Conflict, DatabaseContended, PayrailError
from shared.metrics import RETENTION_FINISHED, RETENTION_OLDEST, RETENTION_PRUNED
from shared.periodic import Periodic
from shared.ports import Ports
from shared.settings import ServiceSettings

log = structlog.get_logger()

LEASE = "retention"
LEASE_SECONDS = 60.0
MOST_STOPS = 5
"""Of one window in a row, which has got as small as it can by then."""

FIRST_ROUND_SECONDS = 300.0
"""After a start, at most: what was restarted together does not prune together, and not while it warms up."""


class RetentionRunning(Conflict):
    """Another process is pruning this service's tables now; it will be done with them soon."""

    code = "retention_running"


@dataclass(frozen=True, slots=True)
class Pace:
    """How much at a time: a batch that lasted longer than ``batch_seconds`` makes the next one smaller, so a busy
    database gets less of it; between batches it rests, so that pruning takes a fifth of a connection at most."""

    batch_seconds: float = 0.05
    rows: int = 200
    fewest_rows: int = 20
    most_rows: int = 1000
    rest_factor: float = 4.0
    least_rest_seconds: float = 0.02

    def after(self, seconds: float) -> Pace:
        if seconds > self.batch_seconds:
            rows = max(self.fewest_rows, int(self.rows * self.batch_seconds / seconds))
        elif seconds < self.batch_seconds / 2:
            rows = min(self.most_rows, self.rows * 2)
        else:
            rows = self.rows
        return replace(self, rows=rows)

    def after_a_stop(self) -> Pace:
        return replace(self, rows=max(self.fewest_rows, self.rows // 4))

    def rest_seconds(self, seconds: float) -> float:
        return max(self.least_rest_seconds, seconds * self.rest_factor)


@dataclass(frozen=True, slots=True)
class Pruned:
    """One table's share: so far, or in the end."""

    name: str
    rows: int = 0
    looked_at: int = 0
    longest_batch_seconds: float = 0.0
    oldest_kept: datetime | None = None


Report = Callable[[Pruned], None]

_NOW = text("SELECT now()")
_MARK = text("SELECT mark FROM retention_marks WHERE name = :name")
_NOTE = text(
    """
    INSERT INTO retention_marks AS known (name, mark, pruned) VALUES (:name, CAST(:mark AS text[]), :pruned)
    ON CONFLICT (name) DO UPDATE
    SET mark = coalesce(excluded.mark, known.mark), pruned = known.pruned + excluded.pruned
    """
)
_FINISH = text(
    """
    INSERT INTO retention_marks (name, oldest_at, finished_at) VALUES (:name, :oldest_at, now())
    ON CONFLICT (name) DO UPDATE SET oldest_at = excluded.oldest_at, finished_at = excluded.finished_at
    """
)
_MARKS = text("SELECT name, oldest_at, finished_at FROM retention_marks WHERE finished_at IS NOT NULL")


class Retention:
    """The tables of one service, each with its walk."""

    def __init__(
        self, database: Database, walks: Sequence[Walk], *, service: str, ports: Ports, pace: Pace | None = None
    ) -> None:
        self.service = service
        self.walks = tuple(walks)
        self._database = database
        self._ports = ports
        self._pace = pace or Pace()
        self._holder = ports.ids.new("ret")

    async def run(self, *, report: Report | None = None, pace: Pace | None = None) -> list[Pruned]:
        """Prune every table until nothing is due. Raises RetentionRunning, DatabaseUnavailable; DatabaseContended for a
        table that cannot be pruned now, after all the others.

        Killed at any moment it has lost nothing but the batch that was open: the next run goes on from there.
        """
        done, held_up = [], None
        try:
            for walk in self.walks:
                try:
                    done.append(await self._prune(walk, pace or self._pace, report))
                except DatabaseContended as error:
                    log.warning("table_not_pruned", service=self.service, table=walk.name)
                    held_up = error
            if held_up is not None:
                raise held_up
            return done
        finally:
            with suppress(PayrailError):  # else the lease runs out by itself
                async with self._database.begin() as connection:
                    await release_lease(connection, name=LEASE, holder=self._holder)

    async def count(self, *, report: Report | None = None, pace: Pace | None = None) -> list[Pruned]:
        """What ``run`` would prune now. Reads only, in the same small steps."""
        return [await self._prune(walk, pace or self._pace, report, dry_run=True) for walk in self.walks]

    async def watch(self, *, interval_seconds: float) -> None:
        """Run by the schedule until cancelled; in any number of replicas, of which one prunes."""
        first = min(FIRST_ROUND_SECONDS, interval_seconds)
        await self._ports.clock.sleep(self._ports.randomness.uniform(first / 5, first))
        name = f"{self.service}-retention"
        await Periodic(name, self._round, interval_seconds=interval_seconds, ports=self._ports).run()

    async def _round(self) -> bool:
        try:
            pruned = await self.run()
        except RetentionRunning:
            pruned = []
        finally:
            with suppress(PayrailError):
                await self.measure()
        if any(each.rows for each in pruned):
            log.info("rows_pruned", service=self.service, **{each.name: each.rows for each in pruned if each.rows})
        return False

    async def measure(self) -> None:
        """What the metrics say is read from the tables, so that every replica says the same, whoever pruned."""
        async with self._database.begin() as connection:
            now = (await connection.execute(_NOW)).scalar_one()
            for name, oldest_at, finished_at in await connection.execute(_MARKS):
                RETENTION_FINISHED.labels(self.service, name).set(finished_at.timestamp())
                oldest = 0.0 if oldest_at is None else (now - oldest_at).total_seconds()
                RETENTION_OLDEST.labels(self.service, name).set(oldest)

    async def _prune(self, walk: Walk, pace: Pace, report: Report | None, *, dry_run: bool = False) -> Pruned:
        """One table, from the beginning or its mark to the first window in which everything is young enough."""
        run, stops = _Run(walk, self._holder, dry_run=dry_run), 0
        clock, seconds = self._ports.clock, 0.0
        while not run.is_done:
            if run.done.looked_at or stops:
                await clock.sleep(pace.rest_seconds(seconds))
            started = clock.monotonic()
            trial = copy(run)
            try:
                async with self._database.begin() as connection:
                    pruned = await trial.batch(connection, now=clock.now(), limit=pace.rows)
            except DatabaseContended:  # it took too long, or somebody has the table: a part of it is tried again
                stops += 1
                if stops > MOST_STOPS:
                    raise
                seconds = clock.monotonic() - started
                pace = pace.after_a_stop()
                continue
            run, stops = trial, 0
            seconds = clock.monotonic() - started
            if pruned:
                RETENTION_PRUNED.labels(self.service, walk.name).inc(pruned)
            pace = pace.after(seconds)
            run.done = replace(run.done, longest_batch_seconds=max(run.done.longest_batch_seconds, seconds))
            if report is not None:
                report(run.done)
        return run.done


class _Run:
    """One walk under way; each batch is a transaction of its own."""

    def __init__(self, walk: Walk, holder: str, *, dry_run: bool) -> None:
        self.done = Pruned(walk.name)
        self.is_done = False
        self._walk = walk
        self._holder = holder
        self._dry_run = dry_run
        self._position: Position | None = None
        self._before: datetime | None = None
        self._newest: Key | None = None
        self._all_whole = True

    async def batch(self, connection: AsyncConnection, *, now: datetime, limit: int) -> int:
        """Raises RetentionRunning when the lease is somebody else's: then nothing is done."""
        if not self._dry_run:
            held = await acquire_lease(connection, name=LEASE, holder=self._holder, seconds=LEASE_SECONDS)
            if held is None:
                raise RetentionRunning
        await prepare(connection)
        if self._position is None or self._before is None:
            await self._begin(connection, now)
        if self._position is None or self._before is None:
            await self._finish(connection)
            return 0
        batch = await prune_batch(
            connection, self._walk, self._position, before=self._before, limit=limit, dry_run=self._dry_run
        )
        self._position = batch.position
        self._all_whole = self._all_whole and batch.is_whole
        self._newest = newer(self._walk, self._newest, batch.newest_pruned)
        self.done = replace(
            self.done,
            rows=self.done.rows + batch.pruned,
            looked_at=self.done.looked_at + batch.looked_at,
            oldest_kept=self.done.oldest_kept or batch.oldest_kept,
        )
        mark = self._mark()
        if not self._dry_run and (batch.pruned or mark):
            await connection.execute(_NOTE, {"name": self._walk.name, "mark": mark, "pruned": batch.pruned})
        if batch.is_last:
            await self._finish(connection)
        return 0 if self._dry_run else batch.pruned

    async def _begin(self, connection: AsyncConnection, now: datetime) -> None:
        if self._walk.by_database_clock:
            now = (await connection.execute(_NOW)).scalar_one()
        self._before = now - self._walk.keep
        mark = (await connection.execute(_MARK, {"name": self._walk.name})).scalar()
        known = tuple(mark) if mark else None
        self._newest = known if self._walk.tells_newest else None
        self._position = await begin_walk(connection, self._walk, known)

    def _mark(self) -> list[str] | None:
        """Written with the batch: for readers the newest key that is gone, for the next walk where to go on."""
        if self._walk.tells_newest:
            return list(self._newest) if self._newest else None
        if self._walk.starts_at_mark and self._all_whole and self._position is not None and self._position.key:
            return list(self._position.key)
        return None

    async def _finish(self, connection: AsyncConnection) -> None:
        self.is_done = True
        if not self._dry_run:
            await connection.execute(_FINISH, {"name": self._walk.name, "oldest_at": self.done.oldest_kept})


async def newest_deleted(connection: AsyncConnection, table: str) -> Key | None:
    """Up to which key rows of that table have been deleted. Read it after the rows: what was deleted in between is
    then known to be missing."""
    mark = (await connection.execute(_MARK, {"name": table})).scalar()
    return tuple(mark) if mark else None


OUTBOX = "outbox_messages"


def shared_walks(settings: ServiceSettings) -> list[Walk]:
    """Of the tables that every service has."""
    return [
        Walk(
            name=OUTBOX,
            table="outbox_messages",
            key=(("transaction_id", "bigint"), ("position", "bigint")),  # the order in which consumers catch up
            at="created_at",
            due="published_at < :before",
            keep=timedelta(days=settings.event_retention_days),
            tells_newest=True,
        ),
        claims_walk(timedelta(days=settings.inbox_retention_days)),
        Walk(
            name="idempotency_keys",
            table="idempotency_keys",
            key=(("expires_at", "timestamptz"), ("ctid", "tid")),
            at="expires_at",
            due="expires_at < :before",
            keep=timedelta(0),
        ),
    ]


def claims_walk(keep: timedelta) -> Walk:
    """Messages that were applied long ago. What failed or was given up on stays until it is applied."""
    return Walk(
        name="inbox_messages",
        table="inbox_messages",
        group="consumer",
        key=(("message_id", "text"),),
        at="first_seen_at",
        due="status = 'done' AND handled_at < :before",
        keep=keep,
    )
