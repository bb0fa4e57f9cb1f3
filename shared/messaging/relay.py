"""The relay: takes committed events from the outbox to the bus, and marks those that are safe there."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import asyncpg
import structlog
from sqlalchemy.exc import DBAPIError

from shared.clock import Clock
from shared.contracts.topology import retry_delay_seconds
from shared.db.outbox import (
    OUTBOX_CHANNEL,
    Refusal,
    WaitingMessage,
    backlog,
    claim_waiting,
    in_order,
    mark_published,
    postpone,
    put_back,
)
from shared.db.session import Database
from shared.errors import BusUnavailable, PayrailError
from shared.messaging.bus import BusMessage, EventBus, MessageNotAccepted, NotBegun
from shared.metrics import EVENTS_PUBLISHED, OUTBOX_OLDEST_SECONDS, OUTBOX_WAITING
from shared.periodic import Periodic
from shared.ports import Ports
from shared.tasks import supervise

log = structlog.get_logger()

POLL_SECONDS = 1.0  # the hint after a commit usually comes first; this finds what a lost hint left
METRICS_SECONDS = 10.0
BUS_DOWN_WAIT_SECONDS = 0.5
OTHERS_FIRST_WAIT_SECONDS = 0.02  # about what another relay needs for the events that ours come after
OTHERS_FIRST_LONG_WAIT_SECONDS = 2.0
MAX_WAIT_SECONDS = 30
STALLED_WAIT_SECONDS = 5.0
MAX_STALLED_WAIT_SECONDS = 60.0
MAX_OUTAGE_WAIT_SECONDS = 15.0  # what an outage of everything may add to its end
MOST_STALLS = 10_000
MOST_PASSES = 4
SIGN_OF_LIFE_SECONDS = 15.0

Renderer = Callable[[asyncpg.Connection, Sequence[WaitingMessage]], Awaitable[Mapping[int, bytes]]]
"""Bodies, by position, for claimed rows that were committed without one (the writer had no time to); asked inside the
relay's transaction. A row without an answer is put back with a wait, like any message that is not accepted; one with an
empty answer (there is too much for one claim) stays as it is and is claimed again at once. So at least one row of each
call has to have another answer than that."""

_TRANSACTION_IS_LOST = (
    PayrailError,
    DBAPIError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    TimeoutError,
    ConnectionError,
)


@dataclass(slots=True)
class _Outcome:
    """What became of a claim: safe on the bus, refused with a reason (by position), and whether the bus was there."""

    published: list[WaitingMessage] = field(default_factory=list)
    refused: dict[int, str] = field(default_factory=dict)
    bus_is_down: str | None = None
    stalled: list[int] = field(default_factory=list)
    """Positions of what the bus was not there for."""


class _Stalls:
    """Rows for which the bus was not there, by position, and how often that was.

    They are the oldest, so claim after claim would be theirs, each as long as a call may take, and what is behind more
    of them than can be tried before the first ones' wait is over would never be claimed. So every other claim passes
    by all that are known, and some more do while such claims are full. Once one of them is safe, and nothing beside it
    has stalled, it is everybody's turn again, the oldest first.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rounds: dict[int, int] = {}
        self._until = 0.0
        self._passes = 0  # in a row
        self._was_full = False

    def passed_by(self) -> Collection[int]:
        """Whom the next claim leaves out."""
        most = MOST_PASSES if self._was_full else 1
        self._passes = self._passes + 1 if self._rounds and self._passes < most else 0
        return self._rounds if self._passes else ()

    def had_turn(self, claimed: Sequence[int], *, is_full: bool) -> None:
        """Forgets all of them when none is left: what was published by another relay is told to nobody."""
        self._was_full = is_full
        is_over = self._clock.monotonic() > self._until and not is_full and not self._passes
        if self._rounds and is_over and self._rounds.keys().isdisjoint(claimed):
            self._rounds.clear()

    def note(self, stalled: Sequence[int], published: Sequence[int]) -> dict[int, int]:
        """How often each of these has stalled by now."""
        if not stalled and not self._rounds:
            return {}
        if not stalled and not self._rounds.keys().isdisjoint(published):
            self._rounds.clear()
        rounds = {position: self._rounds.get(position, 0) + 1 for position in stalled}
        self._rounds = {**dict(list(self._rounds.items())[-MOST_STALLS:]), **rounds}
        for position in published:
            self._rounds.pop(position, None)
        return rounds

    def waits(self, rounds: Mapping[int, int], longest: float) -> Iterable[tuple[float, list[int]]]:
        """Seconds, and which rows have to wait so long."""
        of_wait: dict[float, list[int]] = {}
        for position, times in rounds.items():
            of_wait.setdefault(min(STALLED_WAIT_SECONDS * 2.0 ** (times - 1), longest), []).append(position)
        self._until = max(self._until, self._clock.monotonic() + max(of_wait, default=0.0))
        return of_wait.items()


class OutboxRelay:
    """One of any number of relays over a service's outbox.

    Row locks keep others off while a claim is published, and a killed relay's locks go with its connection, so another
    takes over at once. A subject's events go out by their sequence, whoever publishes them (failure Q21); only one that
    was refused may be overtaken by those that are written after that, so consumers go by the version in the data (O11).
    """

    def __init__(
        self,
        database: Database,
        bus: EventBus,
        *,
        service: str,
        ports: Ports,
        retry_wait_seconds: Callable[[int], float] = retry_delay_seconds,
        render: Renderer | None = None,
    ) -> None:
        self._database = database
        self._bus = bus
        self._service = service
        self._ports = ports
        self._retry_wait_seconds = retry_wait_seconds
        self._render = render
        self._started_at: datetime = ports.clock.now()
        self._stalls = _Stalls(ports.clock)
        self._rounds_in_vain = 0
        self._periodic = Periodic(f"{service}-relay", self._round, interval_seconds=POLL_SECONDS, ports=ports)
        self._gauges = Periodic(f"{service}-outbox-age", self._measure, interval_seconds=METRICS_SECONDS, ports=ports)

    async def run(self) -> None:
        with self._database.listener.subscribe(OUTBOX_CHANNEL, self._periodic.wake):
            await supervise({"publishing": self._periodic.run, "measuring": self._gauges.run})

    async def _round(self) -> bool:
        """Publish one claim; True if there may be more.

        Of one event it is four round trips: BEGIN, the claim, the bus, and the mark with its COMMIT. Nothing looks
        behind a claim that was not full: what is committed after it has a hint of its own.
        """
        limit = self._bus.messages_at_once
        passed_by = self._stalls.passed_by()
        async with self._database.begin_driver() as driver:
            claimed = await claim_waiting(driver, limit=limit, renders=self._render is not None, but_not=passed_by)
            waiting = in_order(claimed)
            outcome = await self._publish(driver, waiting, len(claimed)) if waiting else _Outcome()
            if not waiting and len(claimed) == limit:  # or they would keep the claim from what is behind them
                await postpone(driver, [message.position for message in claimed], OTHERS_FIRST_LONG_WAIT_SECONDS)
        self._stalls.had_turn([message.position for message in claimed], is_full=len(claimed) == limit)
        if not claimed:
            return bool(passed_by)
        for type_, events in Counter(message.type for message in outcome.published).items():
            EVENTS_PUBLISHED.labels(self._service, type_).inc(events)
        if outcome.bus_is_down:
            log.warning("relay_waits_for_the_bus", service=self._service, reason=outcome.bus_is_down)
            await self._ports.clock.sleep(BUS_DOWN_WAIT_SECONDS)
        elif not waiting:
            await self._ports.clock.sleep(min(OTHERS_FIRST_WAIT_SECONDS * 2.0**self._rounds_in_vain, POLL_SECONDS))
        self._rounds_in_vain = 0 if waiting else self._rounds_in_vain + 1
        return len(claimed) == limit or len(outcome.published) < len(claimed) or bool(passed_by)

    async def _publish(self, driver: asyncpg.Connection, waiting: Sequence[WaitingMessage], claimed: int) -> _Outcome:
        """Publish what was claimed, in this order, and write down what became of it."""
        bodies = await self._bodies(driver, [message for message in waiting if not message.body])
        outcome = await self._publish_all(driver, waiting, bodies)
        is_all = not outcome.refused and not outcome.stalled
        await mark_published(driver, [message.position for message in outcome.published], bodies, commits=is_all)
        await put_back(driver, self._refusals(waiting, outcome.refused))
        await self._step_aside(driver, outcome, claimed)
        return outcome

    async def _publish_all(
        self, driver: asyncpg.Connection, waiting: Sequence[WaitingMessage], bodies: Mapping[int, bytes]
    ) -> _Outcome:
        outcome = _Outcome()
        going: list[WaitingMessage] = []
        held: set[str] = set()
        later: set[str] = set()
        for message in waiting:
            body = message.body or bodies.get(message.position)
            if message.subject in later or (body == b"" and message.subject not in held):
                later.add(message.subject)
            elif message.subject in held or not body:
                held.add(message.subject)
                outcome.refused[message.position] = "its body, or that of an event before it, could not be rendered"
            else:
                going.append(message)
        messages = [self._as_bus_message(message, bodies) for message in going]
        answers = await self._answers(driver, messages) if messages else []
        for message, error in zip(going, answers, strict=True):
            if error is None:
                outcome.published.append(message)
            elif isinstance(error, MessageNotAccepted):
                outcome.refused[message.position] = error.detail
            elif not isinstance(error, NotBegun):  # which goes with the next claim
                outcome.bus_is_down = outcome.bus_is_down or error.detail
                outcome.stalled.append(message.position)
        return outcome

    async def _answers(
        self, driver: asyncpg.Connection, messages: Sequence[BusMessage]
    ) -> Sequence[BusUnavailable | None]:
        """The database ends a transaction that says nothing for a minute, and a handler may take that long in process;
        what is safe by then would be forgotten, and published again for ever."""
        publishing = asyncio.ensure_future(self._bus.publish_all(messages))
        try:
            while not (await asyncio.wait([publishing], timeout=SIGN_OF_LIFE_SECONDS))[0]:
                await driver.execute("SELECT 1")
        except BaseException:
            publishing.cancel()
            await asyncio.wait([publishing])
            raise
        return publishing.result()

    async def _step_aside(self, driver: asyncpg.Connection, outcome: _Outcome, claimed: int) -> None:
        """A queue that confirms nothing must not stop those whose queues do (M10): where others were safe meanwhile, or
        the same rows fail again and fill a claim, they make room for a while. No attempt is used up, so nothing of
        their subjects may overtake them."""
        rounds = self._stalls.note(outcome.stalled, [message.position for message in outcome.published])
        is_full = claimed >= self._bus.messages_at_once
        if rounds and (outcome.published or (min(rounds.values()) > 1 and is_full)):
            longest = MAX_STALLED_WAIT_SECONDS if outcome.published else MAX_OUTAGE_WAIT_SECONDS
            for wait, positions in self._stalls.waits(rounds, longest):
                await postpone(driver, positions, wait)

    async def _bodies(self, driver: asyncpg.Connection, empty: Sequence[WaitingMessage]) -> Mapping[int, bytes]:
        """What the renderer makes of them; where it stumbles over one, each is rendered by itself."""
        if not empty or self._render is None:
            return {}
        try:
            return await self._render(driver, empty)
        except _TRANSACTION_IS_LOST:
            raise  # and with it this round
        except Exception as error:
            log.exception("event_not_rendered", service=self._service, error=type(error).__name__, events=len(empty))
        if len(empty) == 1:
            return {}
        bodies: dict[int, bytes] = {}
        for message in empty:
            bodies.update(await self._bodies(driver, [message]))
        return bodies

    def _refusals(self, waiting: Sequence[WaitingMessage], refused: Mapping[int, str]) -> list[Refusal]:
        return [
            Refusal(
                message.position,
                min(self._retry_wait_seconds(message.attempts + 1), MAX_WAIT_SECONDS),
                refused[message.position],
            )
            for message in waiting
            if message.position in refused
        ]

    def _as_bus_message(self, message: WaitingMessage, bodies: Mapping[int, bytes]) -> BusMessage:
        # A row that is older than this process may have been tried, by a process that died of it.
        interrupted = message.created_at < self._started_at
        return BusMessage(
            message.message_id,
            message.type,
            message.subject,
            message.body or bodies[message.position],
            redelivered=interrupted or message.attempts > 0,
            interrupted=interrupted,
        )

    async def _measure(self) -> bool:
        async with self._database.begin() as connection:
            measured = await backlog(connection)
        OUTBOX_WAITING.labels(self._service).set(measured.waiting)
        OUTBOX_OLDEST_SECONDS.labels(self._service).set(measured.oldest_age_seconds)
        return False
