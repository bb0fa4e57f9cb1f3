"""The inbox: a consumer's claim on a message commits together with the message's effect, so the effect happens once.

Attempts are counted here and not by the broker (field note 4).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.db.session import driver_of
from shared.masking import storable_text
from shared.unit_of_work import InboxClaim

__all__ = [
    "BegunAttempts",
    "Inbox",
    "InboxClaim",
    "InboxState",
    "attempts_so_far",
    "begin_attempt",
    "begin_attempts",
    "dead_messages",
    "forgive_attempts",
    "is_done",
    "keep_as_dead",
    "record_failure",
]


_CLAIM = text(
    """
    INSERT INTO inbox_messages (consumer, message_id, status, attempts, handled_at)
    VALUES (:consumer, :message_id, 'done', 1, now())
    ON CONFLICT (consumer, message_id) DO UPDATE SET status = 'done', handled_at = now(), body = NULL
    WHERE inbox_messages.status <> 'done'
    RETURNING message_id
    """
)


_CLAIM_ALL = """
    INSERT INTO inbox_messages (consumer, message_id, status, attempts, handled_at)
    SELECT $1, message_id, 'done', 1, now() FROM unnest($2::text[]) AS given (message_id)
    WHERE (SELECT set_config('lock_timeout', '2000', true)) IS NOT NULL ORDER BY message_id
    ON CONFLICT (consumer, message_id) DO UPDATE SET status = 'done', handled_at = now(), body = NULL
    WHERE inbox_messages.status <> 'done'
    RETURNING message_id
"""
"""In the order of ids, so that two transactions with the same messages wait for each other instead of deadlocking.

It also bounds the waits for locks in its transaction, in milliseconds: many messages that meet one row which somebody
holds are soon tried one by one, and only those about that row wait for it as long as anybody does. It is longer than
what the batches of several processes take together, and than PostgreSQL needs to find a deadlock.
"""


class Inbox:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def claim(self, claim: InboxClaim) -> bool:
        """True exactly once per consumer and message, among all transactions that commit."""
        values = {"consumer": claim.consumer, "message_id": claim.message_id}
        return (await self._connection.execute(_CLAIM, values)).scalar() is not None

    async def claim_all(self, consumer: str, message_ids: Collection[str]) -> set[str]:
        """Those of these messages that are claimed with this transaction, in one statement on the driver (ADR 0019).

        From here to its end the transaction waits two seconds at most for any lock (DatabaseContended).
        """
        driver = await driver_of(self._connection)
        return {row[0] for row in await driver.fetch(_CLAIM_ALL, consumer, list(dict.fromkeys(message_ids)))}


@dataclass(frozen=True, slots=True)
class InboxState:
    status: str
    attempts: int


async def begin_attempt(connection: AsyncConnection, claim: InboxClaim) -> InboxState:
    """Count an attempt before it is made, so that a message that kills its process is counted too (failure Q11)."""
    statement = text(
        """
        INSERT INTO inbox_messages (consumer, message_id, status, attempts)
        VALUES (:consumer, :message_id, 'failing', 1)
        ON CONFLICT (consumer, message_id) DO UPDATE SET attempts = inbox_messages.attempts + 1
        RETURNING status, attempts
        """
    )
    values = {"consumer": claim.consumer, "message_id": claim.message_id}
    return InboxState(*(await connection.execute(statement, values)).one())


@dataclass(frozen=True, slots=True)
class BegunAttempts:
    """Attempts by message, of those that were counted; and those that were applied before. Others are in neither."""

    counted: dict[str, int]
    done: set[str]


_BEGIN_ALL = text(
    """
    INSERT INTO inbox_messages (consumer, message_id, status, attempts)
    SELECT :consumer, message_id, 'failing', 1
    FROM unnest(CAST(:message_ids AS text[])) AS given (message_id) ORDER BY message_id
    ON CONFLICT (consumer, message_id) DO UPDATE SET attempts = inbox_messages.attempts + 1
    WHERE inbox_messages.status = 'failing' AND inbox_messages.attempts < :below
    RETURNING message_id, attempts
    """
)
_DONE_AMONG = text(
    """
    SELECT message_id FROM inbox_messages
    WHERE consumer = :consumer AND message_id = ANY(CAST(:message_ids AS text[])) AND status = 'done'
    """
)


async def begin_attempts(
    connection: AsyncConnection, consumer: str, message_ids: Collection[str], *, below: int
) -> BegunAttempts:
    """Count an attempt of each message that has had fewer than ``below``; the others stay as they are."""
    values: dict[str, object] = {"consumer": consumer, "message_ids": list(message_ids), "below": below}
    counted = {row.message_id: row.attempts for row in await connection.execute(_BEGIN_ALL, values)}
    rest = [message_id for message_id in message_ids if message_id not in counted]
    if not rest:
        return BegunAttempts(counted, set())
    values = {"consumer": consumer, "message_ids": rest}
    return BegunAttempts(counted, set((await connection.execute(_DONE_AMONG, values)).scalars()))


async def attempts_so_far(connection: AsyncConnection, claim: InboxClaim) -> int:
    statement = text("SELECT attempts FROM inbox_messages WHERE consumer = :consumer AND message_id = :message_id")
    values = {"consumer": claim.consumer, "message_id": claim.message_id}
    return (await connection.execute(statement, values)).scalar() or 0


async def forgive_attempts(connection: AsyncConnection, consumer: str, message_ids: Collection[str]) -> None:
    """Take back the count of an attempt that failed for no fault of the messages."""
    statement = text(
        """
        UPDATE inbox_messages SET attempts = attempts - 1
        WHERE consumer = :consumer AND message_id = ANY(CAST(:message_ids AS text[]))
          AND status = 'failing' AND attempts > 0
        """
    )
    await connection.execute(statement, {"consumer": consumer, "message_ids": sorted(message_ids)})


async def record_failure(
    connection: AsyncConnection, claim: InboxClaim, *, attempts: int, error: str, dead_body: bytes | None
) -> None:
    """Record why an attempt failed; with ``dead_body`` the message is given up on and kept for a redrive."""
    statement = text(
        """
        INSERT INTO inbox_messages (consumer, message_id, status, attempts, last_error, body)
        VALUES (:consumer, :message_id, :status, :attempts, :error, :body)
        ON CONFLICT (consumer, message_id) DO UPDATE
        SET status = excluded.status, attempts = excluded.attempts, last_error = excluded.last_error,
            body = excluded.body
        WHERE inbox_messages.status <> 'done'
        """
    )
    values = {
        "consumer": claim.consumer,
        "message_id": claim.message_id,
        "status": "failing" if dead_body is None else "dead",
        "attempts": attempts,
        "error": storable_text(error)[:500],
        "body": dead_body,
    }
    await connection.execute(statement, values)


async def keep_as_dead(connection: AsyncConnection, claim: InboxClaim, *, body: bytes, error: str) -> bool:
    """Keep for a redrive what somebody else gave up on; False if it was applied, or is kept already."""
    statement = text(
        """
        INSERT INTO inbox_messages (consumer, message_id, status, attempts, last_error, body)
        VALUES (:consumer, :message_id, 'dead', 0, :error, :body)
        ON CONFLICT (consumer, message_id) DO UPDATE
        SET status = excluded.status, last_error = excluded.last_error, body = excluded.body
        WHERE inbox_messages.status = 'failing'
        RETURNING message_id
        """
    )
    values = {"consumer": claim.consumer, "message_id": claim.message_id, "error": error, "body": body}
    return (await connection.execute(statement, values)).scalar() is not None


async def is_done(connection: AsyncConnection, claim: InboxClaim) -> bool:
    """Whether that consumer has applied that message."""
    statement = text("SELECT status FROM inbox_messages WHERE consumer = :consumer AND message_id = :message_id")
    values = {"consumer": claim.consumer, "message_id": claim.message_id}
    return (await connection.execute(statement, values)).scalar() == "done"


async def dead_messages(connection: AsyncConnection, *, limit: int) -> list[tuple[str, str, int, str | None, bytes]]:
    """What was given up on: (consumer, message_id, attempts, last_error, envelope)."""
    statement = text(
        """
        SELECT consumer, message_id, attempts, last_error, body FROM inbox_messages
        WHERE status = 'dead' ORDER BY first_seen_at LIMIT :limit
        """
    )
    return [tuple(row) for row in await connection.execute(statement, {"limit": limit})]
