"""One active runner among replicas: a lease by the database's clock, with a fencing token (failures L15, PY18)."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

_ACQUIRE = text(
    """
    INSERT INTO leases AS held (name, holder, fencing_token, expires_at)
    VALUES (:name, :holder, 1, now() + make_interval(secs => :seconds))
    ON CONFLICT (name) DO UPDATE SET
        fencing_token = CASE WHEN held.holder = excluded.holder THEN held.fencing_token ELSE held.fencing_token + 1 END,
        holder = excluded.holder,
        expires_at = excluded.expires_at
    WHERE held.holder = excluded.holder OR held.expires_at < now()
    RETURNING fencing_token
    """
)


async def acquire_lease(connection: AsyncConnection, *, name: str, holder: str, seconds: float) -> int | None:
    """Take or renew the lease; None while another holder's has not run out.

    The token grows with every change of holder: work that records results compares it, so that a runner that was
    paused past its lease cannot write over its successor.
    """
    values = {"name": name, "holder": holder, "seconds": float(seconds)}
    return (await connection.execute(_ACQUIRE, values)).scalar()


async def holds_lease(connection: AsyncConnection, *, name: str, fencing_token: int) -> bool:
    """Whether that token is still the newest; locks the row, so the answer holds until the commit."""
    statement = text("SELECT fencing_token FROM leases WHERE name = :name FOR SHARE")
    return (await connection.execute(statement, {"name": name})).scalar() == fencing_token


async def release_lease(connection: AsyncConnection, *, name: str, holder: str) -> None:
    statement = text("UPDATE leases SET expires_at = now() WHERE name = :name AND holder = :holder")
    await connection.execute(statement, {"name": name, "holder": holder})
