"""The outbox: an event is written in the transaction that changes the state, and published after it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from itertools import takewhile
from json.encoder import encode_basestring as _quoted

import asyncpg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.clock import to_rfc3339
from shared.contracts.envelope import MAX_SUBJECT, EventData, EventEnvelope
from shared.correlation import current_correlation
from shared.db.session import driver_of
from shared.masking import storable_text
from shared.ports import Ports
from shared.unit_of_work import NewEvent

OUTBOX_CHANNEL = "outbox"

_NEXT_SEQUENCE = text(
    """
    INSERT INTO outbox_sequences (subject, last_sequence) VALUES (:subject, :first)
    ON CONFLICT (subject) DO UPDATE SET last_sequence = outbox_sequences.last_sequence + 1
    RETURNING last_sequence
    """
)

_INSERT = text(
    """
    INSERT INTO outbox_messages (message_id, type, subject, sequence, body)
    VALUES (:message_id, :type, :subject, :sequence, :body)
    """
)


def adding_events(first: int = 1) -> str:
    """CTEs that write the events of ``Outbox.arguments``, which are the parameters from number ``first`` on.

    Numbers in the order of subjects, so that two writers wait for each other instead of deadlocking; events in the
    order in which they are given. ``later``: how many events of its subject follow in this statement. The number stands
    in the body too, between its head and its tail, and is not known before: so it is put in here. Numbers are looked up
    in an object because a plan for any number of events would join each event with each subject.
    """
    subjects, counts, ids, types, of, later, heads, tails = (f"${number}" for number in range(first, first + 8))
    return f"""
        numbered AS (
            INSERT INTO outbox_sequences (subject, last_sequence)
            SELECT subject, events FROM unnest({subjects}::text[], {counts}::bigint[]) AS given (subject, events)
            ORDER BY subject
            ON CONFLICT (subject) DO UPDATE SET last_sequence = outbox_sequences.last_sequence + excluded.last_sequence
            RETURNING subject, last_sequence),
        last AS MATERIALIZED (SELECT jsonb_object_agg(subject, last_sequence) AS numbers FROM numbered),
        outbox_ AS (
            INSERT INTO outbox_messages (message_id, type, subject, sequence, body)
            SELECT message_id, type, subject, sequence, head || convert_to(sequence::text, 'UTF8') || tail
            FROM unnest({ids}::text[], {types}::text[], {of}::text[], {later}::bigint[], {heads}::bytea[],
                {tails}::bytea[]) WITH ORDINALITY AS given (message_id, type, subject, later, head, tail, place)
            CROSS JOIN LATERAL (SELECT (last.numbers ->> subject)::bigint - later AS sequence FROM last) AS number
            ORDER BY place)
    """  # noqa: S608 - numbers of parameters


_ADD_MANY = f"WITH {adding_events()} SELECT"


class Outbox:
    """Adds events to the open transaction. They exist if and only if it commits."""

    def __init__(self, connection: AsyncConnection, *, service: str, ports: Ports) -> None:
        self._connection = connection
        self._source = f"/payrail/{service}"
        self._ports = ports
        self.added = 0

    async def add(
        self,
        event: EventData,
        *,
        subject: str,
        correlation_id: str | None = None,
        causation_id: str | None = None,
        first_sequence: int = 1,
    ) -> EventEnvelope:
        """Write one event. The sequence's row lock makes its order within the subject the order of commits.

        ``first_sequence`` is where the subject's count starts if no event of it went through here before (an event
        that a hand-written statement has inserted already counts as number one).
        """
        statement = await self._connection.execute(_NEXT_SEQUENCE, {"subject": subject, "first": first_sequence})
        correlation = current_correlation()
        traceparent = correlation.traceparent if correlation else None
        new = NewEvent(event, subject, correlation_id, causation_id, traceparent)
        envelope = self._envelope(new, statement.scalar_one())
        values = {
            "message_id": envelope.id,
            "type": envelope.type,
            "subject": subject,
            "sequence": envelope.sequence,
            "body": envelope.to_json(),
        }
        await self._connection.execute(_INSERT, values)
        self.added += 1
        return envelope

    async def add_all(self, events: Sequence[tuple[str, EventData]]) -> None:
        """Write one event of each subject, in this order; one statement, however many they are."""
        subjects = [subject for subject, _ in events]
        assert len(set(subjects)) == len(subjects), "one event of each subject"
        correlation = current_correlation()
        traceparent = correlation.traceparent if correlation else None
        await self.add_many([NewEvent(event, subject, traceparent=traceparent) for subject, event in events])

    async def add_many(self, events: Sequence[NewEvent]) -> None:
        """Write any number of events, in this order; one statement. A subject's numbers follow its place here."""
        if events:
            arguments = self.arguments(events)
            await (await driver_of(self._connection)).execute(_ADD_MANY, *arguments)

    def arguments(self, events: Sequence[NewEvent]) -> list[Sequence[object]]:
        """Of ``adding_events``, for a statement that writes more than these events; the caller executes it."""
        counts = Counter([event.subject for event in events])
        remaining, time = dict(counts), to_rfc3339(self._ports.clock.now())
        rows = []
        for event in events:
            subject, message_id = event.subject, self._ports.ids.new("evt")
            remaining[subject] -= 1
            head, tail = envelope_around_sequence(event, message_id, source=self._source, time=time)
            rows.append((message_id, event.data.TYPE, subject, remaining[subject], head, tail))
        self.added += len(rows)
        return [list(counts), list(counts.values()), *zip(*rows, strict=True)]

    def _envelope(self, event: NewEvent, sequence: int) -> EventEnvelope:
        return EventEnvelope(
            id=self._ports.ids.new("evt"),
            type=event.data.TYPE,
            source=self._source,
            subject=event.subject,
            time=self._ports.clock.now(),
            sequence=sequence,
            correlationid=event.correlation_id,
            causationid=event.causation_id,
            traceparent=event.traceparent,
            data=event.data.model_dump(mode="json"),
        )


def envelope_around_sequence(event: NewEvent, message_id: str, *, source: str, time: str) -> tuple[bytes, bytes]:
    """``EventEnvelope.to_json`` without its number: what stands before and behind it. Making a model of an envelope
    that nobody looks at costs twice as much. Raises ValueError for what could not be read again."""
    if not 0 < len(event.subject) <= MAX_SUBJECT:
        raise ValueError(f"no subject of an event: {event.subject!r}")
    about = {"correlationid": event.correlation_id, "causationid": event.causation_id, "traceparent": event.traceparent}
    more = "".join([f',"{name}":{_quoted(value)}' for name, value in about.items() if value is not None])
    head = (
        f'{{"specversion":"1.0","id":{_quoted(message_id)},"type":{_quoted(event.data.TYPE)},'
        f'"source":{_quoted(source)},"subject":{_quoted(event.subject)},"time":"{time}",'
        '"datacontenttype":"application/json","sequence":'
    )
    return head.encode(), f'{more},"data":{event.data.model_dump_json()}}}'.encode()


@dataclass(frozen=True, slots=True)
class WaitingMessage:
    """An outbox row that the relay has claimed.

    ``attempts`` counts earlier failures to publish it. ``follows``: the event before it of its subject is not published
    either, and was not refused, so it is in this claim, or in another relay's, and goes first.
    """

    position: int
    message_id: str
    type: str
    subject: str
    sequence: int
    body: bytes
    attempts: int
    created_at: datetime
    follows: bool


_CLAIM_SQL = """
    WITH claimed AS MATERIALIZED (
        SELECT position, message_id, type, subject, sequence, body, attempts, created_at FROM outbox_messages
        WHERE published_at IS NULL AND {available} {others}
        ORDER BY position LIMIT {limit} FOR UPDATE SKIP LOCKED
    )
    SELECT position, message_id, type, subject, sequence, body, attempts, created_at,
        sequence > 1 AND coalesce((
            SELECT earlier.published_at IS NULL AND earlier.attempts = 0 FROM outbox_messages AS earlier
            WHERE earlier.subject = claimed.subject AND earlier.sequence = claimed.sequence - 1
        ), false) AS follows
    FROM claimed ORDER BY position
"""
"""A sequence has no holes and its numbers become visible in their order, so looking one event back is enough. What is
seen may be old, but only to one side: a row that was published a moment ago still holds the next one back. What is
asked of the event before stands outside of WHERE, so that no plan looks for it among all that wait. The limit is a
constant, and with it the plan is made once."""


LATER = "interval '1000 years'"
"""What a row without a body adds to the time from which it may be published. A relay that renders takes that off again;
any other one, and above all one of a release that knows nothing of such rows, finds that their time has not come, and
publishes nothing empty."""

_OTHERS = "AND position <> ALL($1::bigint[])"
_AVAILABLE = "available_at <= now()"
_AVAILABLE_TO_RENDER = f"({_AVAILABLE} OR (available_at >= '2900-01-01' AND available_at <= now() + {LATER}))"


@cache
def _claim_sql(limit: int, renders: bool, passes_by: bool) -> str:
    available = _AVAILABLE_TO_RENDER if renders else _AVAILABLE
    return _CLAIM_SQL.format(available=available, limit=limit, others=_OTHERS if passes_by else "")


async def claim_waiting(
    driver: asyncpg.Connection, *, limit: int, renders: bool = False, but_not: Collection[int] = ()
) -> Sequence[WaitingMessage]:
    """Lock up to ``limit`` unpublished messages, oldest first. The locks keep other relays off until the commit.

    ``renders``: the caller can make bodies, so those that have none yet are claimed, too. ``but_not``: positions that
    are passed by.
    """
    given = (list(but_not),) if but_not else ()
    return [WaitingMessage(*row) for row in await driver.fetch(_claim_sql(limit, renders, bool(but_not)), *given)]


def in_order(claimed: Sequence[WaitingMessage]) -> list[WaitingMessage]:
    """Those that may go now, each subject's by its sequence; not those that another relay's events have to precede."""
    ready: list[WaitingMessage] = []
    ready_up_to: dict[str, int] = {}
    for message in sorted(claimed, key=lambda each: each.sequence):
        if not message.follows or ready_up_to.get(message.subject) == message.sequence - 1:
            ready_up_to[message.subject] = message.sequence
            ready.append(message)
    return ready


_MARK = "UPDATE outbox_messages SET published_at = now() WHERE position = ANY({}::bigint[])"
_MARK_RENDERED = """
    UPDATE outbox_messages AS kept
    SET published_at = now(), body = CASE WHEN given.body = ''::bytea THEN kept.body ELSE given.body END
    FROM unnest($1::bigint[], $2::bytea[]) AS given (position, body) WHERE kept.position = given.position
"""
_PUT_BACK = f"""
    UPDATE outbox_messages AS kept
    SET attempts = attempts + 1, last_error = given.error,
        available_at = now() + make_interval(secs => given.wait)
            + CASE WHEN kept.body = ''::bytea THEN {LATER} ELSE interval '0' END
    FROM unnest($1::bigint[], $2::float8[], $3::text[]) AS given (position, wait, error)
    WHERE kept.position = given.position
"""  # noqa: S608 - a constant


async def mark_published(
    driver: asyncpg.Connection,
    positions: Sequence[int],
    rendered: Mapping[int, bytes] | None = None,
    *,
    commits: bool = False,
) -> None:
    """Mark them in one statement, with the bodies (by position) that were rendered on the way.

    ``commits``: it is the last statement of its transaction, whose COMMIT needs no round trip of its own then. Bodies
    do not travel in a statement's text, which the server may log.
    """
    if positions and commits and not rendered:
        await driver.execute(_MARK.format(f"'{{{','.join(map(str, positions))}}}'") + "; COMMIT")
    elif positions and rendered:
        await driver.execute(_MARK_RENDERED, positions, [rendered.get(each, b"") for each in positions])
    elif positions:
        await driver.execute(_MARK.format("$1"), positions)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A message that goes back with a wait, so that one that cannot be published never holds up the rest."""

    position: int
    wait_seconds: float
    error: str


async def put_back(driver: asyncpg.Connection, refused: Sequence[Refusal]) -> None:
    if not refused:
        return
    await driver.execute(
        _PUT_BACK,
        [each.position for each in refused],
        [float(each.wait_seconds) for each in refused],
        [storable_text(each.error)[:500] for each in refused],
    )


_POSTPONE = f"""
    UPDATE outbox_messages
    SET available_at = now() + make_interval(secs => $2::float8)
        + CASE WHEN body = ''::bytea THEN {LATER} ELSE interval '0' END
    WHERE position = ANY($1::bigint[])
"""  # noqa: S608 - a constant


async def postpone(driver: asyncpg.Connection, positions: Sequence[int], wait_seconds: float) -> None:
    """They wait through no fault of theirs: what follows them in their subjects still comes after them."""
    if positions:
        await driver.execute(_POSTPONE, positions, wait_seconds)


@dataclass(frozen=True, slots=True)
class OutboxBacklog:
    waiting: int
    oldest_age_seconds: float


async def backlog(connection: AsyncConnection) -> OutboxBacklog:
    """How far publishing is behind. The age is what to alarm on (failure Q19)."""
    statement = text(
        """
        SELECT count(*), coalesce(extract(epoch FROM now() - min(created_at)), 0)::float8
        FROM outbox_messages WHERE published_at IS NULL
        """
    )
    row = (await connection.execute(statement)).one()
    return OutboxBacklog(waiting=row[0], oldest_age_seconds=row[1])


_CATCH_UP = text(
    """
    SELECT transaction_id, position, body FROM outbox_messages
    WHERE (transaction_id, position) > (:transaction_id, :position)
      AND (transaction_id, position) <= (:end_transaction_id, :end_position)
      AND transaction_id < pg_snapshot_xmin(pg_current_snapshot())::text::bigint
      AND (CAST(:types AS text[]) IS NULL OR type = ANY(CAST(:types AS text[])))
    ORDER BY transaction_id, position LIMIT :limit
    """
)


async def events_after(
    connection: AsyncConnection, *, transaction_id: int, position: int, types: Sequence[str] | None, limit: int
) -> Sequence[tuple[int, int, bytes]]:
    """Events for a consumer that catches up, as (transaction_id, position, envelope).

    Positions are handed out before commits, so "greater than the last one seen" alone would step over a transaction
    that commits late. Ordered by transaction id, and only up to the oldest transaction that still runs, none is missed.
    An event whose body the relay has yet to render ends the page, so that no cursor steps over it.
    """
    return (await read_events(connection, cursor=(transaction_id, position), types=types, limit=limit)).events


WINDOW_ROWS = 20_000
"""How far a page looks ahead for events of its types; behind that it ends, however few there are."""

_WINDOW_END = text(
    """
    SELECT transaction_id, position FROM (
        SELECT transaction_id, position FROM outbox_messages
        WHERE (transaction_id, position) > (:transaction_id, :position)
          AND transaction_id < pg_snapshot_xmin(pg_current_snapshot())::text::bigint
        ORDER BY transaction_id, position LIMIT :rows
    ) AS looked_at ORDER BY transaction_id DESC, position DESC LIMIT 1
    """
)
_NO_END = (2**63 - 1, 2**63 - 1)


@dataclass(frozen=True, slots=True)
class EventsRead:
    events: Sequence[tuple[int, int, bytes]]
    cursor: tuple[int, int]
    """Everything up to here has been looked at, events of other types too: a reader of rare types does not fall behind
    what is kept while it misses nothing."""


async def read_events(
    connection: AsyncConnection, *, cursor: tuple[int, int], types: Sequence[str] | None, limit: int
) -> EventsRead:
    """See ``events_after``."""
    transaction_id, position = cursor
    end = _NO_END
    if types:
        # Before the events: what is in the window here is visible to the statement below too.
        window = {"transaction_id": transaction_id, "position": position, "rows": WINDOW_ROWS}
        last = (await connection.execute(_WINDOW_END, window)).one_or_none()
        end = cursor if last is None else (last.transaction_id, last.position)
    values = {
        "transaction_id": transaction_id,
        "position": position,
        "end_transaction_id": end[0],
        "end_position": end[1],
        "types": list(types) if types else None,
        "limit": limit,
    }
    found = (await connection.execute(_CATCH_UP, values)).all()
    events = [(row.transaction_id, row.position, bytes(row.body)) for row in takewhile(lambda row: row.body, found)]
    if types and len(events) == len(found) < limit:
        return EventsRead(events, end)
    return EventsRead(events, events[-1][:2] if events else cursor)
