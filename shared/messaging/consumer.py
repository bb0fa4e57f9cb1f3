"""What happens around a handler, whichever bus delivers: count, bound, record, and give up after MAX_ATTEMPTS.

Where a subscription can apply many events in one transaction, they are tried together first; whatever that fails on is
tried one by one, each in a transaction of its own, so that a poison message costs only itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from contextlib import suppress
from enum import Enum

import structlog
from pydantic import ValidationError

from shared.clock import Clock
from shared.contracts.envelope import EventEnvelope
from shared.correlation import Correlation, correlated
from shared.db.inbox import (
    BegunAttempts,
    InboxState,
    attempts_so_far,
    begin_attempt,
    begin_attempts,
    forgive_attempts,
    record_failure,
)
from shared.errors import DatabaseContended, DatabaseUnavailable, PayrailError
from shared.messaging.bus import BusMessage, Subscription
from shared.metrics import DEAD_MESSAGES, EVENT_LAG_SECONDS, EVENTS_HANDLED
from shared.unit_of_work import InboxClaim

log = structlog.get_logger()

HANDLER_TIMEOUT_SECONDS = 60  # failure Q14: far below the broker's acknowledgement timeout of 30 minutes
ATTEMPTS_IN_BATCHES = 2  # a message that has had more goes alone: by then it is likely what its batches fail on
BATCHES_AT_ONCE = 1  # a second one would mostly wait for the rows of the first


class Handled(Enum):
    DONE = "done"
    """Applied, now or before: acknowledge."""
    RETRY = "retry"
    """Not applied: deliver again after a wait."""
    DEAD = "dead"
    """Given up on and kept in the inbox table: dead-letter it."""


Verdict = tuple[Handled | None, int]
"""What became of a message of a batch, and its attempts so far. None: ``handle`` it by itself, with that many attempts
``counted`` already (0: none)."""


def correlated_with(envelope: EventEnvelope, consumer: str) -> correlated:
    """Whatever is logged, called or published inside belongs to this event; batch handlers use it event by event."""
    correlation = Correlation(request_id=envelope.id, traceparent=envelope.traceparent or _NO_TRACE)
    return correlated(correlation, consumer=consumer, event_type=envelope.type, order_id=envelope.correlationid)


class Consumer:
    """Runs one subscription's handlers. Never raises for what a message or the world did."""

    def __init__(self, subscription: Subscription, clock: Clock) -> None:
        self._subscription = subscription
        self._clock = clock
        self._batches = asyncio.Semaphore(BATCHES_AT_ONCE)
        self._suspects = asyncio.Lock()
        self.name = subscription.queue.name
        self._lag = EVENT_LAG_SECONDS.labels(self.name)  # looking a label up costs more than counting
        self._results = {result: EVENTS_HANDLED.labels(self.name, result.value) for result in Handled}

    def takes(self, message: BusMessage) -> bool:
        """Whether the message may be applied together with others."""
        batch = self._subscription.batch
        if batch is None or message.envelope is None:
            return False
        try:
            return batch.takes(message.envelope)
        except Exception:  # noqa: BLE001 - whatever is wrong with it, handling it alone says so and records it
            return False

    async def handle_batch(self, messages: Sequence[BusMessage]) -> list[Verdict]:
        """Apply messages that ``takes`` accepts, at most EVENTS_PER_BATCH, together: a verdict each, in this order.

        Redelivered ones are counted first, in one transaction. One that has had ATTEMPTS_IN_BATCHES is not even counted
        together with others, so that a message that kills its process uses up its own attempts and no neighbour's.
        """
        async with self._batches:
            chosen = {message.message_id: message for message in messages}  # what came twice is applied once
            verdicts: dict[str, Verdict] = {}
            counted: dict[str, int] = {}
            try:
                if redelivered := [each for each, message in chosen.items() if message.redelivered]:
                    begun = await self._begin_attempts(redelivered)
                    counted = begun.counted
                    verdicts = {each: _before(each, begun) for each in redelivered if each not in counted}
                together = [message for each, message in chosen.items() if each not in verdicts]
                verdict = await self._try_together(together)
            except DatabaseContended as error:  # one by one, only those that meet what others hold wait for it
                verdict = None
                log.warning("batch_failed", consumer=self.name, events=len(chosen), error=type(error).__name__)
            except DatabaseUnavailable as error:
                await self._forgive(counted)
                verdict = Handled.RETRY
                log.warning("batch_postponed", consumer=self.name, events=len(chosen), code=error.code)
                self._count(Handled.RETRY, len(chosen) - len(verdicts))
            attempts_else = 0 if verdict is None else 1
            return [
                verdicts.get(message.message_id) or (verdict, counted.get(message.message_id, attempts_else))
                for message in messages
            ]

    async def _try_together(self, messages: Sequence[BusMessage]) -> Handled | None:
        """DONE, or None if they have to be tried one by one. Raises DatabaseUnavailable."""
        batch = self._subscription.batch
        assert batch is not None
        events = [
            (message.envelope, InboxClaim(self.name, message.message_id))
            for message in messages
            if message.envelope is not None
        ]
        if not events:
            return None
        try:
            async with asyncio.timeout(HANDLER_TIMEOUT_SECONDS):
                await batch(events)
        except DatabaseUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a handler raises means that nothing was applied
            log.warning("batch_failed", consumer=self.name, events=len(events), error=type(error).__name__)
            return None
        now = self._clock.now()
        for envelope, _ in events:
            self._lag.observe(max(0.0, (now - envelope.time).total_seconds()))
        self._count(Handled.DONE, len(events))
        return Handled.DONE

    async def _begin_attempts(self, message_ids: Sequence[str]) -> BegunAttempts:
        below = min(ATTEMPTS_IN_BATCHES, self._subscription.max_attempts)
        async with self._subscription.database.begin() as connection:
            return await begin_attempts(connection, self.name, message_ids, below=below)

    async def handle(self, message: BusMessage, *, counted: int = 0) -> tuple[Handled, int]:
        """The result, and how many attempts have been made so far. ``counted``: this one's number, if it has one.

        A first delivery is not counted before it is tried, which saves a commit on the usual path; any later one is, so
        that a message which kills the process still uses up its attempts.
        """
        if counted or not message.interrupted or not await self._has_a_history(message):
            return await self._handle(message, counted)
        # One that may be what ended its process again and again is counted and tried while no other of these is, or it
        # would use up the attempts of those beside it.
        async with self._suspects:
            return await self._handle(message, counted)

    async def _has_a_history(self, message: BusMessage) -> bool:
        with suppress(DatabaseUnavailable):  # which then also ends the attempt that follows
            async with self._subscription.database.begin() as connection:
                so_far = await attempts_so_far(connection, InboxClaim(self.name, message.message_id))
                return so_far >= ATTEMPTS_IN_BATCHES
        return False

    async def _handle(self, message: BusMessage, counted: int) -> tuple[Handled, int]:
        claim = InboxClaim(self.name, message.message_id)
        attempts, is_counted = counted or 1, bool(counted and message.redelivered)
        try:
            if message.redelivered and not counted:
                state = await self._begin_attempt(claim)
                attempts, is_counted = state.attempts, True
                if state.status == "done":
                    return Handled.DONE, attempts
                if attempts > self._subscription.max_attempts:
                    return await self._give_up(message, claim, attempts, "attempts used up"), attempts
            await self._run_handler(message, claim)
        except Exception as error:  # noqa: BLE001 - whatever a handler raises means that nothing was applied
            if isinstance(error, PayrailError) and error.retryable:
                return await self._postpone(message, error, is_counted=is_counted), attempts
            return await self._failed(message, claim, attempts, error), attempts
        self._count(Handled.DONE)
        return Handled.DONE, attempts

    async def _run_handler(self, message: BusMessage, claim: InboxClaim) -> None:
        envelope = message.envelope or EventEnvelope.from_json(message.body)
        with correlated_with(envelope, self.name):
            async with asyncio.timeout(HANDLER_TIMEOUT_SECONDS):
                await self._subscription.handler(envelope, claim)
        lag = (self._clock.now() - envelope.time).total_seconds()
        self._lag.observe(max(0.0, lag))

    async def _postpone(self, message: BusMessage, error: PayrailError, *, is_counted: bool) -> Handled:
        """Our own database, a neighbour or a gateway is away: not the message's fault, so it never dies of it.

        Where even counting this attempt failed (``is_counted``), there is none to take back.
        """
        self._count(Handled.RETRY)
        log.warning("message_postponed", consumer=self.name, message_id=message.message_id, code=error.code)
        if is_counted:
            await self._forgive([message.message_id])
        return Handled.RETRY

    async def _forgive(self, message_ids: Collection[str]) -> None:
        if not message_ids:
            return
        with suppress(DatabaseUnavailable):
            async with self._subscription.database.begin() as connection:
                await forgive_attempts(connection, self.name, message_ids)

    async def _failed(self, message: BusMessage, claim: InboxClaim, attempts: int, error: Exception) -> Handled:
        reason = "not a valid event" if isinstance(error, ValidationError) else f"{type(error).__name__}: {error}"
        hopeless = isinstance(error, ValidationError)  # no later attempt reads the same bytes differently
        log.warning(
            "message_failed",
            consumer=self.name,
            message_id=message.message_id,
            attempts=attempts,
            error=type(error).__name__,
            exc_info=not hopeless,
        )
        if hopeless or attempts >= self._subscription.max_attempts:
            return await self._give_up(message, claim, attempts, reason)
        try:
            async with self._subscription.database.begin() as connection:
                await record_failure(connection, claim, attempts=attempts, error=reason, dead_body=None)
        except DatabaseUnavailable:
            log.warning("failure_not_recorded", consumer=self.name, message_id=message.message_id)
        self._count(Handled.RETRY)
        return Handled.RETRY

    async def _give_up(self, message: BusMessage, claim: InboxClaim, attempts: int, reason: str) -> Handled:
        """Keep the message for an operator. If even that fails, it is retried rather than lost."""
        try:
            async with self._subscription.database.begin() as connection:
                await record_failure(connection, claim, attempts=attempts, error=reason, dead_body=message.body)
        except DatabaseUnavailable:
            return Handled.RETRY
        log.error(
            "message_dead", consumer=self.name, message_id=message.message_id, type=message.type, attempts=attempts
        )
        DEAD_MESSAGES.labels(self.name).inc()
        self._count(Handled.DEAD)
        return Handled.DEAD

    async def _begin_attempt(self, claim: InboxClaim) -> InboxState:
        async with self._subscription.database.begin() as connection:
            return await begin_attempt(connection, claim)

    def _count(self, result: Handled, events: int = 1) -> None:
        self._results[result].inc(events)


_NO_TRACE = "00-00000000000000000000000000000000-0000000000000000-00"


def _before(message_id: str, begun: BegunAttempts) -> Verdict:
    """Of a redelivered message that was not counted: it is done, or has a history."""
    return (Handled.DONE, 1) if message_id in begun.done else (None, 0)
