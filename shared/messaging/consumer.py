"""What happens around a handler, whichever bus delivers: count, bound, record, and give up after MAX_ATTEMPTS."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from enum import Enum

import structlog
from pydantic import ValidationError

from shared.clock import Clock
from shared.contracts.envelope import EventEnvelope
from shared.correlation import Correlation, correlated
from shared.db.inbox import InboxState, begin_attempt, forgive_attempt, record_failure
from shared.errors import DatabaseUnavailable, PayrailError
from shared.messaging.bus import BusMessage, Subscription
from shared.metrics import DEAD_MESSAGES, EVENT_LAG_SECONDS, EVENTS_HANDLED
from shared.unit_of_work import InboxClaim

log = structlog.get_logger()

HANDLER_TIMEOUT_SECONDS = 60  # failure Q14: far below the broker's acknowledgement timeout of 30 minutes


class Handled(Enum):
    DONE = "done"
    """Applied, now or before: acknowledge."""
    RETRY = "retry"
    """Not applied: deliver again after a wait."""
    DEAD = "dead"
    """Given up on and kept in the inbox table: dead-letter it."""


class Consumer:
    """Runs one subscription's handler over single messages. Never raises for what a message or the world did."""

    def __init__(self, subscription: Subscription, clock: Clock) -> None:
        self._subscription = subscription
        self._clock = clock
        self.name = subscription.queue.name

    async def handle(self, message: BusMessage) -> tuple[Handled, int]:
        """The result, and how many attempts have been made so far.

        A first delivery is not counted before it is tried, which saves a commit on the usual path; any later one is, so
        that a message which kills the process still uses up its attempts.
        """
        claim = InboxClaim(self.name, message.message_id)
        attempts = 1
        try:
            if message.redelivered:
                state = await self._begin_attempt(claim)
                attempts = state.attempts
                if state.status == "done":
                    return Handled.DONE, attempts
                if attempts > self._subscription.max_attempts:
                    return await self._give_up(message, claim, attempts, "attempts used up"), attempts
            await self._run_handler(message, claim)
        except Exception as error:  # noqa: BLE001 - whatever a handler raises means that nothing was applied
            if isinstance(error, PayrailError) and error.retryable:
                return await self._postpone(message, claim, error), attempts
            return await self._failed(message, claim, attempts, error), attempts
        self._count(Handled.DONE)
        return Handled.DONE, attempts

    async def _run_handler(self, message: BusMessage, claim: InboxClaim) -> None:
        envelope = EventEnvelope.from_json(message.body)
        correlation = Correlation(request_id=envelope.id, traceparent=envelope.traceparent or _NO_TRACE)
        with correlated(correlation, consumer=self.name, event_type=envelope.type, order_id=envelope.correlationid):
            async with asyncio.timeout(HANDLER_TIMEOUT_SECONDS):
                await self._subscription.handler(envelope, claim)
        lag = (self._clock.now() - envelope.time).total_seconds()
        EVENT_LAG_SECONDS.labels(self.name).observe(max(0.0, lag))

    async def _postpone(self, message: BusMessage, claim: InboxClaim, error: PayrailError) -> Handled:
        """Our own database, a neighbour or a gateway is away: not the message's fault, so it never dies of it."""
        self._count(Handled.RETRY)
        log.warning("message_postponed", consumer=self.name, message_id=message.message_id, code=error.code)
        if message.redelivered:
            with suppress(DatabaseUnavailable):
                async with self._subscription.database.begin() as connection:
                    await forgive_attempt(connection, claim)
        return Handled.RETRY

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

    def _count(self, result: Handled) -> None:
        EVENTS_HANDLED.labels(self.name, result.value).inc()


_NO_TRACE = "00-00000000000000000000000000000000-0000000000000000-00"
