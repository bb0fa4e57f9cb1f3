"""The consumer kit: what a team outside Payrail's services consumes events with, over its own queue and PostgreSQL.

``EventConsumer`` applies each event once, in one transaction with the inbox claim and the sequence it has seen;
``CatchUp`` reads what was missed from the owning service and applies it the same way, so the two may overlap freely.
docs/examples/payment_log is a consumer to start from. The queue is declared once, by an operator:
``payrail topology apply --consumer NAME --type ...``.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum

import structlog
from pydantic import BaseModel, ValidationError
from sqlalchemy import BigInteger, Column, Index, Table, Text, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.schema import CreateSchema

from shared.contracts.catalogue import CATALOGUE, read_event
from shared.contracts.envelope import EventData, EventEnvelope
from shared.contracts.topology import QUEUES, Queue
from shared.db.base import metadata_for, timestamp
from shared.db.inbox import Inbox
from shared.db.pruning import Position, prepare, prune_batch
from shared.db.retention import claims_walk
from shared.db.session import Database
from shared.errors import DomainError, GatewayError, InvalidRequest, ServiceUnavailable
from shared.http import CallPolicy, HttpCaller
from shared.messaging.bus import BusMessage, Subscription
from shared.messaging.consumer import Consumer, Handled
from shared.messaging.rabbitmq import RabbitMQBus
from shared.ports import Ports
from shared.unit_of_work import InboxClaim

log = structlog.get_logger()

MAX_MISSING = 1000  # numbers remembered per subject: a longer hole means "read everything again", not a list
PAGE_SIZE = 100
FORGOTTEN_AT_ONCE = 500
PAGE_POLICY = CallPolicy(budget_seconds=30.0, repeatable=True)

EventHandler = Callable[[EventData, EventEnvelope, AsyncConnection], Awaitable[None]]
"""Applies one event through the open transaction's connection, which it neither commits nor leaves. It may meet events
out of order, so it compares ``data.version`` with what it has. Raising means "not applied, try again later"."""

TokenProvider = Callable[[], Awaitable[str]]
"""A bearer token with the scope ``events:read``; asked for before every page, because tokens live for minutes."""


def consumer_queue(name: str, types: Sequence[str]) -> Queue:
    """The queue of a consumer outside Payrail, for ``apply_topology(url, [queue])``.

    A type may be a topic pattern: ``payment.#`` is every payment event, those of later versions too. Whoever wants gaps
    noticed subscribes to all events of a subject, because ``sequence`` counts all of them. Raises InvalidRequest.
    """
    if name in QUEUES or not re.fullmatch(r"[a-z][a-z0-9_]{0,60}(\.[a-z0-9_]{1,60})?", name):
        raise InvalidRequest(f"{name!r} cannot be a consumer's name: use snake_case, as in billing or billing.payments")
    for each in types:
        if not any(_matcher([each])(type_) for type_ in CATALOGUE):
            raise InvalidRequest(f"{each!r} is no event type of the catalogue, and no pattern that any type matches")
    if not types:
        raise InvalidRequest("a consumer needs at least one event type")
    return Queue(name, tuple(types))


def _matcher(patterns: Sequence[str]) -> Callable[[str], bool]:
    """The broker's rule for topic patterns: ``*`` is one word, ``#`` any number of them."""
    words = {"*": r"[^.]+", "#": r".*"}
    expressions = [r"\.".join(words.get(word) or re.escape(word) for word in each.split(".")) for each in patterns]
    any_of_them = re.compile("|".join(each.replace(r"\..*", r"(\..*)?") for each in expressions))
    return lambda type_: any_of_them.fullmatch(type_) is not None


# --- The consumer's tables --------------------------------------------------------------------------------------------


def _kit_tables() -> list[Table]:
    metadata = metadata_for("consumer")
    sequences = Table(
        "consumer_sequences",
        metadata,
        Column("consumer", Text, primary_key=True),
        Column("source", Text, primary_key=True),
        Column("subject", Text, primary_key=True),
        Column("last_sequence", BigInteger, nullable=False),
        Column("missing", ARRAY(BigInteger), nullable=False, server_default="{}"),
        timestamp("updated_at", default_now=True),
        Index("ix_consumer_sequences_gaps", "consumer", postgresql_where=text("missing <> '{}'")),
    )
    cursors = Table(
        "consumer_cursors",
        metadata,
        Column("consumer", Text, primary_key=True),
        Column("source_url", Text, primary_key=True),
        Column("cursor", Text, nullable=False),
    )
    return [metadata.tables["inbox_messages"], sequences, cursors]


async def create_inbox(database: Database) -> None:
    """Create the kit's tables in the database's schema, and the schema; what exists stays. Any replica may call it."""
    async with database.begin() as connection:
        # Two replicas that start together would both see nothing and both create.
        await connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('payrail consumer kit'))"))
        await connection.execute(CreateSchema(database.schema, if_not_exists=True))
        tables = _kit_tables()
        await connection.run_sync(lambda sync: tables[0].metadata.create_all(sync, tables=tables))


# --- Sequences and gaps -----------------------------------------------------------------------------------------------


class Seen(Enum):
    """What an event's sequence says about it."""

    IN_ORDER = "in_order"
    """The next one."""
    GAP = "gap"
    """Further than the next one: those between are missing, and recorded until they come."""
    FILLED = "filled"
    """One that was missing."""
    OLD = "old"
    """A number that was seen before."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Events ``expected`` to ``got - 1`` of a subject have not come yet. Reordering on the way looks the same."""

    source: str
    subject: str
    expected: int
    got: int


@dataclass(frozen=True, slots=True)
class OpenGap:
    """What is recorded as missing of a subject."""

    source: str
    subject: str
    missing: tuple[int, ...]


GapCallback = Callable[[Gap], Awaitable[None]]

_LOCK_SEQUENCE = text(
    """
    INSERT INTO consumer_sequences (consumer, source, subject, last_sequence) VALUES (:consumer, :source, :subject, 0)
    ON CONFLICT (consumer, source, subject) DO UPDATE SET updated_at = now()
    RETURNING last_sequence, missing
    """
)
_SAVE_SEQUENCE = text(
    """
    UPDATE consumer_sequences SET last_sequence = :last_sequence, missing = :missing
    WHERE (consumer, source, subject) = (:consumer, :source, :subject)
    """
)
_OPEN_GAPS = text(
    """
    SELECT source, subject, missing FROM consumer_sequences
    WHERE consumer = :consumer AND missing <> '{}' ORDER BY source, subject LIMIT :limit
    """
)


class SequenceTracker:
    """Compares each event's ``sequence`` with what this consumer has seen of its source and subject.

    The row's lock makes events of one subject take turns, here and in other replicas, until their transactions end.
    Each service counts for itself, so two services that publish about one subject are told apart.
    """

    def __init__(self, connection: AsyncConnection, consumer: str) -> None:
        self._connection = connection
        self._consumer = consumer

    async def note(self, envelope: EventEnvelope) -> tuple[Seen, Gap | None]:
        """Record the event's sequence in the open transaction; the gap comes with Seen.GAP."""
        key = {"consumer": self._consumer, "source": envelope.source, "subject": envelope.subject}
        last, missing = (await self._connection.execute(_LOCK_SEQUENCE, key)).one()
        got, expected, gap = envelope.sequence, last + 1, None
        if got in missing:
            seen, missing = Seen.FILLED, [number for number in missing if number != got]
        elif got < expected:
            return Seen.OLD, None
        elif got == expected:
            seen = Seen.IN_ORDER
        else:
            seen, gap = Seen.GAP, Gap(envelope.source, envelope.subject, expected, got)
            missing = [*missing, *range(max(expected, got - MAX_MISSING), got)][-MAX_MISSING:]
        values = {**key, "last_sequence": max(last, got), "missing": missing}
        await self._connection.execute(_SAVE_SEQUENCE, values)
        return seen, gap


# --- Consuming --------------------------------------------------------------------------------------------------------


class EventConsumer:
    """Applies the events of one queue to the consumer's own database, each once, whichever way and how often it comes.

    Many may come in one message; each is applied in a transaction of its own.

    ``concurrency`` 1 keeps the queue's order within a process; more is faster and meets more events out of order. An
    event whose handler keeps failing is retried with growing waits, then kept in the inbox and the dead-letter queue.
    """

    def __init__(
        self,
        queue: Queue,
        handle: EventHandler,
        *,
        database: Database,
        ports: Ports,
        on_gap: GapCallback | None = None,
        concurrency: int = 1,
    ) -> None:
        self.name = queue.name
        self.database = database
        self._ports = ports
        self._subscription = Subscription(queue, self.apply, database, concurrency)
        self._wants = _matcher(queue.types)
        self._handle = handle
        self._on_gap = on_gap

    async def run(self, rabbitmq_url: str) -> None:
        """Consume until cancelled; outlives restarts of the broker and says in the log when the queue is missing."""
        bus = RabbitMQBus(rabbitmq_url, name=self.name, ports=self._ports)
        bus.subscribe(self._subscription)
        try:
            await bus.consume()
        finally:
            await bus.close()

    async def apply(self, envelope: EventEnvelope, claim: InboxClaim) -> None:
        """One event in one transaction: the claim, its sequence, its effect. A gap is told after the commit."""
        async with self.database.begin() as connection:
            if not await Inbox(connection).claim(claim):
                return
            seen, gap = await SequenceTracker(connection, self.name).note(envelope)
            if seen is Seen.OLD:
                # Another event with a number that was seen: its publisher was restored from a backup. It is news still.
                log.warning("sequence_repeats", consumer=self.name, event_id=envelope.id, sequence=envelope.sequence)
            event = read_event(envelope) if self._wants(envelope.type) else None
            if event is not None:  # what nobody asked for, or a newer Payrail's type, only counts in its sequence
                await self._handle(event, envelope, connection)
        if gap is not None and self._on_gap is not None:
            await self._on_gap(gap)

    async def open_gaps(self, *, limit: int = 100) -> list[OpenGap]:
        """What is still missing; read it at the start too, because a crash may have swallowed the callback."""
        async with self.database.begin() as connection:
            rows = await connection.execute(_OPEN_GAPS, {"consumer": self.name, "limit": limit})
            return [OpenGap(source, subject, tuple(sorted(missing))) for source, subject, missing in rows]

    async def forget_applied(self, *, keep: timedelta) -> int:
        """Forget which events were applied longer ago than that, in small transactions; returns how many.

        Call it by a schedule, and keep them for longer than the owner keeps its events (EVENT_RETENTION_DAYS): what
        catching up can bring once more must still be known. What failed or was given up on is never forgotten.
        """
        walk, position, forgotten = claims_walk(keep), Position(group=self.name), 0
        while position.group == self.name:
            async with self.database.begin() as connection:
                await prepare(connection)
                before = (await connection.execute(text("SELECT now()"))).scalar_one() - keep
                batch = await prune_batch(connection, walk, position, before=before, limit=FORGOTTEN_AT_ONCE)
            forgotten += batch.pruned
            if batch.is_last:
                break
            position = batch.position
        return forgotten

    async def redeliver(self, envelope: EventEnvelope) -> Handled:
        """Apply an event that came another way than by the queue; its attempts are counted as if it had come by it."""
        body = envelope.to_json()
        message = BusMessage(envelope.id, envelope.type, envelope.subject, body, redelivered=True)
        result, _ = await Consumer(self._subscription, self._ports.clock).handle(message)
        return result


# --- Catching up ------------------------------------------------------------------------------------------------------

_LOAD_CURSOR = text("SELECT cursor FROM consumer_cursors WHERE (consumer, source_url) = (:consumer, :source_url)")
_DELETE_CURSOR = text("DELETE FROM consumer_cursors WHERE (consumer, source_url) = (:consumer, :source_url)")
_SAVE_CURSOR = text(
    """
    INSERT INTO consumer_cursors (consumer, source_url, cursor) VALUES (:consumer, :source_url, :cursor)
    ON CONFLICT (consumer, source_url) DO UPDATE SET cursor = excluded.cursor
    """
)


class CatchUpInterrupted(ServiceUnavailable):
    """Catching up stopped before the end; the next call goes on from there."""

    code = "catch_up_interrupted"


class EventsMissed(DomainError):
    """Events that this consumer has not read are not kept by their owner any more; calling again does not bring them.

    Read the objects from the owner's API, bring your own state up to them, then call ``CatchUp.start_over``.
    """

    code = "events_missed"
    status = 410


class _Page(BaseModel):
    """The answer of ``GET /api/v1/events``, as far as it is read here."""

    data: list[EventEnvelope]
    next_cursor: str
    deleted_until: str | None = None


class CatchUp:
    """Reads ``GET /api/v1/events`` of one owning service from where the last call stopped.

    All of the service's events are read: those that are not the consumer's to handle still count in their sequences,
    which closes gaps that a narrow subscription leaves. ``source_url`` is the endpoint's whole URL.
    """

    def __init__(
        self,
        consumer: EventConsumer,
        *,
        source_url: str,
        http: HttpCaller,
        token: TokenProvider,
        page_size: int = PAGE_SIZE,
    ) -> None:
        self._consumer = consumer
        self._source_url = source_url
        self._http = http
        self._token = token
        self._page_size = page_size

    async def run(self) -> int:
        """Apply everything up to now and return how many events were read. Raises CatchUpInterrupted, EventsMissed.

        Each event has a transaction of its own, like one from the queue, so that the two never wait for each other in a
        circle; the cursor follows when its page is applied. A crash in between repeats the page, and the inbox
        recognises it. A long transaction anywhere in the owner's database holds its newest events back for a while, so
        whoever waits for a gap calls again.
        """
        read = 0
        while events := await self._apply_page():
            read += events
        return read

    async def start_over(self) -> None:
        """Forget where the last call stopped: the next one begins with the oldest event that the owner keeps.

        What was applied before is recognised, as long as the consumer's own inbox remembers it.
        """
        key = {"consumer": self._consumer.name, "source_url": self._source_url}
        async with self._consumer.database.begin() as connection:
            await connection.execute(_DELETE_CURSOR, key)

    async def _apply_page(self) -> int:
        cursor = await self._load_cursor()
        page = await self._fetch(cursor)
        if cursor is None and page.deleted_until is not None:
            log.warning("catch_up_begins_late", consumer=self._consumer.name, source=self._source_url)
        for envelope in page.data:
            if await self._consumer.redeliver(envelope) is Handled.RETRY:
                raise CatchUpInterrupted(f"event {envelope.id} could not be applied now; the log says why")
        if page.data:
            await self._save_cursor(page.next_cursor)
        return len(page.data)

    async def _fetch(self, cursor: str | None) -> _Page:
        headers = {"authorization": f"Bearer {await self._token()}"}
        params = {"limit": str(self._page_size), **({"after": cursor} if cursor else {})}
        try:
            answer = await self._http.send("GET", self._source_url, policy=PAGE_POLICY, headers=headers, params=params)
        except GatewayError as error:
            raise CatchUpInterrupted(f"{self._source_url} cannot be read") from error
        if answer.status == 410:
            raise EventsMissed
        if answer.status != 200:
            raise CatchUpInterrupted(f"{self._source_url} answered {answer.status}; a token needs events:read")
        try:
            return _Page.model_validate_json(answer.body)
        except ValidationError as error:
            raise CatchUpInterrupted(f"{self._source_url} did not answer with a page of events") from error

    async def _load_cursor(self) -> str | None:
        key = {"consumer": self._consumer.name, "source_url": self._source_url}
        async with self._consumer.database.begin() as connection:
            cursor: str | None = (await connection.execute(_LOAD_CURSOR, key)).scalar()
            return cursor

    async def _save_cursor(self, cursor: str) -> None:
        values = {"consumer": self._consumer.name, "source_url": self._source_url, "cursor": cursor}
        async with self._consumer.database.begin() as connection:
            await connection.execute(_SAVE_CURSOR, values)
