"""The clock port. Nothing outside this file reads the machine's time (ruff TID251), so a seed can replay a run."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    def now(self) -> datetime:
        """Wall-clock time, timezone-aware UTC. For records; never for intervals (it may jump, failure L16)."""
        ...

    def monotonic(self) -> float:
        """Seconds that only grow. For deadlines and durations inside one process."""
        ...

    async def sleep(self, seconds: float) -> None: ...


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)  # noqa: TID251 - the adapter of the port

    def monotonic(self) -> float:
        return time.monotonic()  # noqa: TID251 - the adapter of the port

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)  # noqa: TID251 - the adapter of the port


def to_rfc3339(moment: datetime) -> str:
    """``2026-01-02T03:04:05.678901Z``: UTC with a Z, as every ``*_at`` field is written."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
