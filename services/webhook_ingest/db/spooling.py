"""Falls back to the spool while PostgreSQL cannot take deliveries, and brings them in afterwards (ADR 0020)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextvars import Context

import structlog

from services.webhook_ingest.db.delivery_rows import Key, Row
from services.webhook_ingest.db.delivery_writer import Outcome, RowWriter
from services.webhook_ingest.db.spool import Segment, Spool
from services.webhook_ingest.domain.errors import DeliveryNotStorable
from services.webhook_ingest.use_cases.ports import AppendResult
from shared.errors import DatabaseContended, DatabaseUnavailable
from shared.periodic import Periodic
from shared.ports import Ports

log = structlog.get_logger()

FIRST_WAIT_SECONDS = 0.1
LONGEST_WAIT_SECONDS = 1.0
DRAIN_SECONDS = 1.0  # segments of processes that died are looked for as often
DRAIN_ROWS = 200  # of one statement: small, because requests commit beside it


class Outage:
    """Whether the database cannot take deliveries. While it is on, one probe asks, and everybody else spools."""

    def __init__(self, probe: Callable[[], Awaitable[None]], *, ports: Ports) -> None:
        self._probe = probe
        self._ports = ports
        self._wait_seconds = FIRST_WAIT_SECONDS
        self._probing: asyncio.Task[None] | None = None
        self.ended: Callable[[], None] = lambda: None
        """Called when the database answers again."""

    @property
    def is_on(self) -> bool:
        return self._probing is not None

    def begin(self) -> None:
        if self._probing is None:
            log.warning("webhooks_are_spooled")
            loop = asyncio.get_running_loop()
            self._probing = loop.create_task(self._ask(), name="webhook-database-probe", context=Context())

    def worked(self) -> None:
        """Something was stored: the next outage is a new one. A database that answers and stores nothing is not."""
        self._wait_seconds = FIRST_WAIT_SECONDS

    async def close(self) -> None:
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.wait([self._probing])

    async def _ask(self) -> None:
        try:
            while True:
                await self._ports.clock.sleep(self._wait_seconds * self._ports.randomness.uniform(0.8, 1.2))
                self._wait_seconds = min(self._wait_seconds * 2, LONGEST_WAIT_SECONDS)
                try:
                    await self._probe()
                    break
                except DatabaseUnavailable:
                    continue
                except Exception:
                    log.exception("webhook_database_probe_failed")
        finally:
            self._probing = None
        log.info("webhooks_are_stored_again")
        self.ended()


class SpoolingWriter:
    """A RowWriter that always has a place: the database, else the spool.

    A batch whose commit is unknown goes to the spool as well, with the same ids, so what was committed after all is
    found to be itself.
    """

    def __init__(self, writer: RowWriter, spool: Spool, outage: Outage) -> None:
        self._writer = writer
        self._spool = spool
        self._outage = outage

    async def write(self, rows: Sequence[Row]) -> list[Outcome]:
        """Raises StoreFull or DatabaseUnavailable: neither could take them."""
        if not self._spool.known:
            return await self._write(rows)
        spooled = {row.key: self._spool.known[row.key] for row in rows if row.key in self._spool.known}
        fresh = [row for row in rows if row.key not in spooled]
        outcomes: dict[Key, Outcome] = {
            key: AppendResult(first.delivery_id, is_duplicate=True, body_digest=first.body_digest)
            for key, first in spooled.items()
        }
        if fresh:
            outcomes.update(zip((row.key for row in fresh), await self._write(fresh), strict=True))
        return [outcomes[row.key] for row in rows]

    async def close(self) -> None:
        await self._writer.close()

    async def _write(self, rows: Sequence[Row]) -> list[Outcome]:
        if not self._outage.is_on:
            try:
                outcomes = await self._writer.write(rows)
            except DatabaseUnavailable as error:
                log.info("database_takes_no_deliveries", count=len(rows), cause=type(error.__cause__).__name__)
                self._outage.begin()
            else:
                self._outage.worked()
                return outcomes
        return list(await self._spool.append(rows))


class Drain:
    """Brings spooled deliveries in, oldest first, through the statement that requests use.

    A segment goes only after its rows are committed: a crash in between costs a repetition, which changes nothing.
    """

    def __init__(self, spool: Spool, writer: RowWriter, outage: Outage, *, ports: Ports) -> None:
        self._spool = spool
        self._writer = writer
        self._outage = outage
        self._periodic = Periodic("webhook-spool", self.round, interval_seconds=DRAIN_SECONDS, ports=ports)
        outage.ended = self._periodic.wake

    async def run(self) -> None:
        await self._periodic.run()

    async def round(self) -> bool:
        """Raises DatabaseUnavailable; what was not drained stays."""
        try:
            if not self._outage.is_on:
                for segment in await self._spool.claim():
                    await self._drain_if_readable(segment)
            await self._spool.measure()
        except OSError as error:
            log.error("spool_not_read", error=error.strerror, errno=error.errno)
            raise DatabaseUnavailable from error
        return False

    async def check(self) -> None:
        """Readiness. Raises DatabaseUnavailable while there are deliveries that are only here."""
        await self._spool.measure()
        if self._outage.is_on or self._spool.waiting_bytes:
            raise DatabaseUnavailable(f"spooling: {self._spool.waiting_bytes} bytes of deliveries wait on disk")

    async def check_room(self) -> None:
        """Readiness. Raises DatabaseUnavailable if neither the database nor the spool takes deliveries."""
        if self._outage.is_on and self._spool.refused:
            raise DatabaseUnavailable(f"deliveries are refused: {self._spool.refused}")

    async def _drain_if_readable(self, segment: Segment) -> None:
        """A segment that the disk does not give back stays, and is tried again; the others are not its hostages."""
        try:
            await self._drain(segment)
        except OSError as error:
            self._spool.cannot_read(segment.path, error)
        finally:
            await self._writer.close()

    async def _drain(self, segment: Segment) -> None:
        contents = await self._spool.read(segment)
        refused: list[Row] = []
        is_held_up = False
        try:
            for piece in pieces_of(contents.rows):
                outcomes = await self._writer.write(piece)
                pairs = zip(piece, outcomes, strict=True)
                for row, outcome in pairs:
                    if isinstance(outcome, DeliveryNotStorable):
                        refused.append(row)
                    is_held_up |= isinstance(outcome, DatabaseContended)
        except DatabaseUnavailable:
            self._outage.begin()
            raise
        self._outage.worked()
        if is_held_up:  # somebody holds a row: the segment stays, and what is stored now is found again next time
            return
        await self._spool.set_aside(segment, contents.damaged, refused)
        await self._spool.delete(segment, contents.rows)
        log.info("spool_segment_drained", segment=segment.path.name, deliveries=len(contents.rows))


def pieces_of(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """As a RowWriter wants them: each key once, and in their order."""
    for start in range(0, len(rows), DRAIN_ROWS):
        first: dict[Key, Row] = {}
        for row in rows[start : start + DRAIN_ROWS]:
            first.setdefault(row.key, row)
        yield [first[key] for key in sorted(first)]
