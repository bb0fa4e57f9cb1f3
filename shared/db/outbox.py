"""The outbox: an event is written in the transaction that changes the state, and published after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.contracts.envelope import EventData, EventEnvelope
from shared.correlation import current_correlation
from shared.masking import storable_text
from shared.ports import Ports

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

_NEXT_SEQUENCES = text(
    """
    INSERT INTO outbox_sequences (subject, last_sequence)
    SELECT subject, 1 FROM unnest(CAST(:subjects AS text[])) AS given (subject) ORDER BY subject
    ON CONFLICT (subject) DO UPDATE SET last_sequence = outbox_sequences.last_sequence + 1
    RETURNING subject, last_sequence
    """
)
"""In the order of subjects, so that two writers wait for each other instead of deadlocking."""

_INSERT_ALL = text(
    """
    INSERT INTO outbox_messages (message_id, type, subject, sequence, body)
    SELECT message_id, type, subject, sequence, body FROM unnest(
        CAST(:ids AS text[]), CAST(:types AS text[]), CAST(:subjects AS text[]), CAST(:sequences AS bigint[]),
        CAST(:bodies AS bytea[])) WITH ORDINALITY AS given (message_id, type, subject, sequence, body, place)
    ORDER BY place
    """
)


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
        envelope = self._envelope(event, subject, statement.scalar_one(), correlation_id, causation_id)
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
        """Write one event of each subject, in this order; two statements, however many they are."""
        subjects = [subject for subject, _ in events]
        assert len(set(subjects)) == len(subjects), "one event of each subject"
        if not events:
            return
        rows = await self._connection.execute(_NEXT_SEQUENCES, {"subjects": subjects})
        sequences = {row.subject: row.last_sequence for row in rows}
        envelopes = [self._envelope(event, subject, sequences[subject]) for subject, event in events]
        values = {
            "ids": [each.id for each in envelopes],
            "types": [each.type for each in envelopes],
            "subjects": subjects,
            "sequences": [each.sequence for each in envelopes],
            "bodies": [each.to_json() for each in envelopes],
        }
        await self._connection.execute(_INSERT_ALL, values)
        self.added += len(envelopes)

    def _envelope(
        self,
        event: EventData,
        subject: str,
        sequence: int,
        correlation_id: str | None = None,
        causation_id: str | None = None,
    ) -> EventEnvelope:
        correlation = current_correlation()
        return EventEnvelope(
            id=self._ports.ids.new("evt"),
            type=event.TYPE,
            source=self._source,
            subject=subject,
            time=self._ports.clock.now(),
            sequence=sequence,
            correlationid=correlation_id,
            causationid=causation_id,
            traceparent=correlation.traceparent if correlation else None,
            data=event.model_dump(mode="json"),
        )


@dataclass(frozen=True, slots=True)
class WaitingMessage:
    """An outbox row that the relay has claimed. ``attempts`` counts earlier failures to publish it."""

    position: int
    message_id: str
    type: str
    subject: str
    body: bytes
    attempts: int
    created_at: datetime


_CLAIM = text(
    """
    SELECT position, message_id, type, subject, body, attempts, created_at FROM outbox_messages
    WHERE published_at IS NULL AND available_at <= now()
    ORDER BY position LIMIT :limit FOR UPDATE SKIP LOCKED
    """
)


async def claim_waiting(connection: AsyncConnection, *, limit: int) -> Sequence[WaitingMessage]:
    """Lock up to ``limit`` unpublished messages, oldest first. The locks keep other relays off until the commit."""
    rows = await connection.execute(_CLAIM, {"limit": limit})
    return [WaitingMessage(*row) for row in rows]


async def mark_published(connection: AsyncConnection, positions: Sequence[int]) -> None:
    statement = text("UPDATE outbox_messages SET published_at = now() WHERE position = ANY(:positions)")
    await connection.execute(statement, {"positions": list(positions)})


async def mark_failed(connection: AsyncConnection, position: int, *, wait_seconds: float, error: str) -> None:
    """Put a message back with a wait, so that one that cannot be published never holds up the rest."""
    statement = text(
        """
        UPDATE outbox_messages SET attempts = attempts + 1, last_error = :error,
            available_at = now() + make_interval(secs => :wait)
        WHERE position = :position
        """
    )
    await connection.execute(
        statement, {"position": position, "wait": float(wait_seconds), "error": storable_text(error)[:500]}
    )


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
    """
    values = {
        "transaction_id": transaction_id,
        "position": position,
        "types": list(types) if types else None,
        "limit": limit,
    }
    return [tuple(row) for row in await connection.execute(_CATCH_UP, values)]
