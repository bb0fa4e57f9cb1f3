"""What the use cases need to keep cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from services.reconciler.domain.cases import (
    Action,
    Case,
    CaseAction,
    CaseKind,
    CaseNote,
    CaseStatus,
    Finding,
    Scenario,
)


@dataclass(frozen=True, slots=True)
class CaseFilter:
    status: CaseStatus | None = None
    unresolved: bool | None = None
    scenario: Scenario | None = None
    kind: CaseKind | None = None
    gateway: str | None = None
    order_id: str | None = None
    payment_id: str | None = None
    file_id: str | None = None
    owner: str | None = None


@dataclass(frozen=True, slots=True)
class CaseCounts:
    opened: int = 0
    resolved: int = 0


class CaseRepository(Protocol):
    async def put(self, finding: Finding, *, case_id: str, run_id: str | None, at: datetime) -> tuple[Case, bool]:
        """The unresolved case of the finding's key, with what is seen now; True: it was opened by this."""
        ...

    async def get(self, case_id: str, *, for_update: bool = False) -> Case | None: ...

    async def unresolved(self, kind: CaseKind, *, gateway: str | None = None, limit: int) -> list[Case]:
        """Oldest first; those that a run has to look at again."""
        ...

    async def save(self, case: Case) -> None: ...

    async def search(self, filter_: CaseFilter, *, after: str | None, limit: int) -> list[Case]:
        """Newest first; ``after`` is the last id of the page before."""
        ...

    async def add_action(self, action: CaseAction) -> bool:
        """False: a command of this key was sent before; nothing is changed then."""
        ...

    async def actions_of(self, case_id: str) -> list[CaseAction]: ...

    async def verify_actions(self, case_id: str, *, at: datetime) -> None: ...

    async def add_note(self, note: CaseNote) -> None: ...

    async def notes_of(self, case_id: str) -> list[CaseNote]: ...

    async def ages(self) -> Mapping[tuple[str, str | None], tuple[int, datetime]]:
        """Per scenario and gateway: how many are unresolved, and since when the oldest is."""
        ...


class ActsOnCases(Protocol):
    """Sends the command that an action is (``act_on_case``)."""

    async def __call__(self, case: Case, action: Action, *, asked_by: str, details: Mapping[str, Any]) -> bool: ...


Findings = Sequence[Finding]
