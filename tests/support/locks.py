"""Work that waits for locks of others, on a machine that may stand still for longer than a lock is waited for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from shared.errors import DatabaseContended

LOCK_NOT_AVAILABLE = "55P03"


async def patiently(work: Callable[[], Awaitable[None]]) -> None:
    """Do it again when it did not get a lock within its two seconds, as a consumer would. Anything else is raised, and
    a deadlock above all."""
    while True:
        try:
            return await work()
        except DatabaseContended as error:
            if sqlstate_of(error) != LOCK_NOT_AVAILABLE:
                raise


def sqlstate_of(error: DatabaseContended) -> str | None:
    """What PostgreSQL said, with or without SQLAlchemy around it."""
    cause = error.__cause__
    state: str | None = getattr(getattr(cause, "orig", cause), "sqlstate", None)
    return state
