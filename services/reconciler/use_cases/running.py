"""What a run of any kind is given, and what it leaves behind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


class Progress(Protocol):
    """Tell how far the run is. It is written in a transaction of its own, at most about twice a second, and renews the
    runner's lease. Raises LeaseLost: another runner has taken over, and nothing more may be written by this one."""

    async def __call__(self, phase: str, done: int = 0, total: int | None = None) -> None: ...


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """What a run looked at and found. ``totals``: JSON, one object per gateway and currency."""

    matched: int = 0
    """Lines, or orders, that are as they should be."""
    checked: int = 0
    failed: int = 0
    cases_opened: int = 0
    cases_resolved: int = 0
    totals: tuple[Mapping[str, object], ...] = field(default=())
