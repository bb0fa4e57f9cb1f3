"""Group commit: what arrives while a commit is in flight goes into the next one, together (ADR 0020).

There is no timer and no window. An idle store commits a single delivery at once; a busy one commits as many as came in
meanwhile, so the batch grows with the load and the latency does not.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from contextvars import Context
from dataclasses import dataclass

import structlog

from services.webhook_ingest.db.delivery_rows import Key, Row, row_of
from services.webhook_ingest.db.delivery_writer import Outcome, RowWriter
from services.webhook_ingest.domain.errors import DeliveryNotStorable, StoreFull
from services.webhook_ingest.domain.models import Delivery
from services.webhook_ingest.use_cases.ports import AppendResult
from shared.errors import DatabaseContended, DatabaseUnavailable, InfrastructureError

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one statement, and of everything that waits for an answer."""

    statement_rows: int = 500
    statement_bytes: int = 4 * 1024 * 1024
    waiting_rows: int = 1_500
    waiting_bytes: int = 64 * 1024 * 1024


@dataclass(slots=True, eq=False)
class _Waiting:
    """A caller: its row, and the answer it waits for."""

    row: Row
    size: int
    answer: asyncio.Future[AppendResult]


class GroupCommit:
    """A DeliveryStore. Each writer has one batch in flight at a time; a caller is answered after its own commit.

    A caller that is cancelled changes nothing for the others: its row is left out if it has not been sent yet, and
    may be stored otherwise.
    """

    def __init__(self, writers: Sequence[RowWriter], *, limits: Limits | None = None) -> None:
        self._writers = tuple(writers)
        self._idle = list(writers)
        self._limits = limits or Limits()
        self._queue: deque[_Waiting] = deque()
        self._waiting_rows = 0
        self._waiting_bytes = 0
        self._flushing: set[asyncio.Task[None]] = set()
        self._closed = False

    async def append(self, delivery: Delivery) -> AppendResult:
        """Raises DatabaseUnavailable, StoreFull or DeliveryNotStorable."""
        row = row_of(delivery)
        size = row.size
        limits = self._limits
        if self._closed:
            raise DatabaseUnavailable(retry_after_seconds=2)
        if self._waiting_rows >= limits.waiting_rows or self._waiting_bytes + size > limits.waiting_bytes:
            raise StoreFull(retry_after_seconds=2)
        loop = asyncio.get_running_loop()
        waiting = _Waiting(row, size, loop.create_future())
        self._queue.append(waiting)
        self._waiting_rows += 1
        self._waiting_bytes += size
        if self._idle:
            self._start(loop)
        return await waiting.answer

    async def close(self, *, within_seconds: float = 6.0) -> None:
        """Let what is in flight end, and refuse the rest."""
        self._closed = True
        if self._flushing:
            await asyncio.wait(self._flushing, timeout=within_seconds)
        for task in list(self._flushing):
            task.cancel()
        if self._flushing:
            await asyncio.wait(self._flushing)
        _refuse(self._queue, DatabaseUnavailable())
        for writer in self._writers:
            await writer.close()

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        writer = self._idle.pop()
        # In a context of its own: a batch belongs to no request, and logs and transactions of one are not its.
        task = loop.create_task(self._flush(writer), name="webhook-group-commit", context=Context())
        self._flushing.add(task)
        task.add_done_callback(self._flushing.discard)

    async def _flush(self, writer: RowWriter) -> None:
        try:
            while self._queue:
                await self._commit(writer, self._take())
        finally:
            self._idle.append(writer)

    def _take(self) -> list[_Waiting]:
        queue, limits = self._queue, self._limits
        if len(queue) <= limits.statement_rows and self._waiting_bytes <= limits.statement_bytes:
            batch = list(queue)
            queue.clear()
            return batch
        batch, room = [], limits.statement_bytes
        while queue and len(batch) < limits.statement_rows and (not batch or queue[0].size <= room):
            batch.append(queue.popleft())
            room -= batch[-1].size
        return batch

    async def _commit(self, writer: RowWriter, batch: list[_Waiting]) -> None:
        """One statement for the batch. Of the same key only the first is written; the others are its duplicates."""
        callers: dict[Key, list[_Waiting]] = {}
        for waiting in batch:
            if not waiting.answer.done():
                callers.setdefault(waiting.row.key, []).append(waiting)
        again: list[_Waiting] = []
        try:
            ordered = [callers[key] for key in sorted(callers)]
            outcomes = await writer.write([of_key[0].row for of_key in ordered]) if ordered else []
            for of_key, outcome in zip(ordered, outcomes, strict=True):
                again.extend(_answer(of_key, outcome))
        except InfrastructureError as error:
            _refuse(batch, error)
        except asyncio.CancelledError as error:
            _refuse(batch, error)
            raise
        except Exception as error:
            log.exception("deliveries_not_stored", count=len(batch))
            _refuse(batch, error)
        finally:
            self._settle(batch, again)

    def _settle(self, batch: Sequence[_Waiting], again: Sequence[_Waiting]) -> None:
        self._queue.extendleft(reversed(again))
        self._waiting_rows -= len(batch) - len(again)
        self._waiting_bytes -= sum(waiting.size for waiting in batch) - sum(waiting.size for waiting in again)


def _answer(of_key: Sequence[_Waiting], outcome: Outcome) -> Sequence[_Waiting]:
    """Answer all callers with one key; returns those that have to try for themselves, as the first one was refused.

    One that says the same would fare as the first one did, at the price of a search for the row that is at fault.
    """
    if isinstance(outcome, DatabaseContended):
        _refuse(of_key, outcome)
        return ()
    first, *repeats = of_key
    if isinstance(outcome, DeliveryNotStorable):
        told = _told_by_its_sender(first)
        alike = [each for each in repeats if _told_by_its_sender(each) == told]
        for waiting in (first, *alike):
            if not waiting.answer.done():
                waiting.answer.set_exception(DeliveryNotStorable())
        return [each for each in repeats if each not in alike]
    if not first.answer.done():
        first.answer.set_result(outcome)
    for repeat in repeats:
        if not repeat.answer.done():
            repeat.answer.set_result(AppendResult(outcome.delivery_id, True, outcome.body_digest))
    return ()


def _told_by_its_sender(waiting: _Waiting) -> tuple[object, ...]:
    row = waiting.row
    return row.body_digest, row.content_type, row.event_id, row.event_type


def _refuse(batch: Iterable[_Waiting], cause: BaseException) -> None:
    """An error of its own for each caller: a shared one would collect all their tracebacks."""
    for waiting in batch:
        if not waiting.answer.done():
            waiting.answer.set_exception(_refusal(cause))


def _refusal(cause: BaseException) -> InfrastructureError:
    kind = type(cause) if isinstance(cause, InfrastructureError) else DatabaseUnavailable
    refusal = kind(retry_after_seconds=getattr(cause, "retry_after_seconds", None) or 2)
    refusal.__cause__ = cause.__cause__ if isinstance(cause, InfrastructureError) else cause
    return refusal
