"""The inbox: a consumer's claim on a message commits together with the message's effect, so the effect happens once.

Attempts are counted here and not by the broker (field note 4).
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.masking import storable_text
from shared.unit_of_work import InboxClaim

__all__ = [
    "Inbox",
    "InboxClaim",
    "InboxState",
    "begin_attempt",
    "dead_messages",
    "forgive_attempt",
    "is_done",
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


class Inbox:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def claim(self, claim: InboxClaim) -> bool:
        """True exactly once per consumer and message, among all transactions that commit."""
        values = {"consumer": claim.consumer, "message_id": claim.message_id}
        return (await self._connection.execute(_CLAIM, values)).scalar() is not None


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


async def forgive_attempt(connection: AsyncConnection, claim: InboxClaim) -> None:
    """Take back the count of an attempt that failed for no fault of the message."""
    statement = text(
        """
        UPDATE inbox_messages SET attempts = attempts - 1
        WHERE consumer = :consumer AND message_id = :message_id AND status = 'failing' AND attempts > 0
        """
    )
    await connection.execute(statement, {"consumer": claim.consumer, "message_id": claim.message_id})


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
