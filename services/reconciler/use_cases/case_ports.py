"""What the use cases need to keep cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

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
    async def lock(self, *, keys: Sequence[str], case_ids: Sequence[str]) -> list[Case]:
        """The unresolved cases among these, as they are now, held until the commit; in the order of their keys."""
        ...

    async def accepted(self, findings: Sequence[Finding]) -> AbstractSet[str]:
        """Keys of those that a person has accepted with just these amounts and this action: explained, and not reported
        again."""
        ...

    async def put_all(
        self, findings: Sequence[Finding], *, case_ids: Sequence[str], run_id: str | None, at: datetime
    ) -> list[tuple[Case, bool]]:
        """The unresolved case of each finding's key, with what is seen now; True: it was opened by this.

        In the order of keys. ``case_ids``: one for each finding, for those that are opened.
        """
        ...

    async def resolve_all(
        self, case_ids: Sequence[str], *, resolution: str, resolved_by: str, at: datetime
    ) -> list[Case]:
        """Those of them that were unresolved, as they are now."""
        ...

    async def get(self, case_id: str, *, for_update: bool = False) -> Case | None: ...

    async def unresolved(self, kind: CaseKind, *, gateway: str | None = None, limit: int) -> list[Case]:
        """Oldest first; those that a run has to look at again."""
        ...

    async def save(self, case: Case) -> None: ...

    async def search(self, filter_: CaseFilter, *, after: str | None, limit: int) -> list[Case]:
        """Newest first; ``after`` is the last id of the page before."""
        ...

    async def sent(self, case_ids: Sequence[str]) -> AbstractSet[tuple[str, Action]]:
        """Which actions of which cases were sent."""
        ...

    async def add_action(self, action: CaseAction) -> bool:
        """False: a command of this key was sent before; nothing is changed then. Its number is given here, and the case
        is held until the commit."""
        ...

    async def hold(self, case_ids: Sequence[str], *, at: datetime) -> None:
        """The policy moves no money of these any more; only a person does."""
        ...

    async def moved_by_policy(self, *, since: datetime) -> int:
        """How many cases had money moved by the policy since then, or were held."""
        ...

    async def actions_of(self, case_id: str) -> list[CaseAction]: ...

    async def verify_actions(self, *case_ids: str, at: datetime) -> None: ...

    async def add_note(self, note: CaseNote) -> None:
        """Its number is given here."""
        ...

    async def notes_of(self, case_id: str) -> list[CaseNote]: ...

    async def ages(self) -> Mapping[tuple[str, str | None], tuple[int, datetime]]:
        """Per scenario and gateway: how many are unresolved, and since when the oldest is."""
        ...

    async def unverified(self) -> Mapping[Action, datetime]:
        """Per action: since when the oldest one of an unresolved case waits for its effect. Asking has none."""
        ...
