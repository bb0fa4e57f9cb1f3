"""Cases in the database: every query of them. Many findings cost a handful of statements.

Whoever locks several cases locks them in the order of their keys, so that two runs, or a run and an operator, wait for
each other instead of deadlocking.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import fields
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Select, func, insert, or_, select, text, update
from sqlalchemy.engine import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from services.reconciler.db.tables import case_actions, case_notes, cases
from services.reconciler.domain.cases import (
    Action,
    Case,
    CaseAction,
    CaseKind,
    CaseNote,
    CaseStatus,
    Finding,
    Scenario,
    Subject,
)
from services.reconciler.use_cases.case_ports import CaseFilter

BATCH = 1_000
"""Findings in one statement: what bounds its memory."""

_PUT = text(
    """
    INSERT INTO cases (case_id, kind, scenario, key, status, gateway, account, order_id, payment_id, file_id,
        line_number, payout_reference, currency, expected_minor, actual_minor, difference_minor, action, evidence,
        opened_at, last_seen_at, last_seen_run)
    SELECT f.case_id, f.kind, f.scenario, f.key, 'open', f.gateway, f.account, f.order_id, f.payment_id, f.file_id,
        f.line_number, f.payout_reference, f.currency, f.expected_minor, f.actual_minor, f.difference_minor, f.action,
        f.evidence, :at, :at, :run_id
    FROM jsonb_to_recordset(CAST(CAST(:findings AS text) AS jsonb)) AS f (
        case_id text, kind text, scenario text, key text, gateway text, account text, order_id text, payment_id text,
        file_id text, line_number bigint, payout_reference text, currency text, expected_minor bigint,
        actual_minor bigint, difference_minor bigint, action text, evidence jsonb)
    ORDER BY f.key
    ON CONFLICT (key) WHERE status <> 'resolved' DO UPDATE SET
        gateway = excluded.gateway, account = excluded.account, order_id = excluded.order_id,
        payment_id = excluded.payment_id, file_id = excluded.file_id, line_number = excluded.line_number,
        payout_reference = excluded.payout_reference, currency = excluded.currency,
        expected_minor = excluded.expected_minor, actual_minor = excluded.actual_minor,
        difference_minor = excluded.difference_minor, action = excluded.action, evidence = excluded.evidence,
        last_seen_at = greatest(cases.last_seen_at, excluded.last_seen_at), last_seen_run = excluded.last_seen_run,
        status = CASE WHEN (cases.currency, cases.expected_minor, cases.actual_minor, cases.order_id,
            cases.payment_id, cases.action) IS NOT DISTINCT FROM (excluded.currency, excluded.expected_minor,
            excluded.actual_minor, excluded.order_id, excluded.payment_id, excluded.action)
            THEN cases.status ELSE 'open' END,
        requested_action = CASE WHEN (cases.currency, cases.expected_minor, cases.actual_minor, cases.order_id,
            cases.payment_id, cases.action) IS NOT DISTINCT FROM (excluded.currency, excluded.expected_minor,
            excluded.actual_minor, excluded.order_id, excluded.payment_id, excluded.action)
            THEN cases.requested_action END
    RETURNING *
    """
)
"""What an operator asked for was asked of what was shown: of another payment, order or amount it is not asked for."""

_ACCEPTED = text(
    """
    SELECT DISTINCT f.key
    FROM jsonb_to_recordset(CAST(CAST(:findings AS text) AS jsonb)) AS f (
        key text, currency text, expected_minor bigint, actual_minor bigint, action text)
    JOIN cases c ON c.key = f.key AND c.resolution = 'accepted'
    WHERE (c.currency, c.expected_minor, c.actual_minor)
        IS NOT DISTINCT FROM (CAST(f.currency AS char(3)), f.expected_minor, f.actual_minor)
        AND (c.action IS NOT DISTINCT FROM f.action OR c.scenario = 'orphan_payment')
    """
)
"""Another action is another disagreement: a hold that was explained is no failure. What becomes of orphans is a
setting, though, and says nothing new about them."""

_MOVED_BY_POLICY = text(
    """
    SELECT count(*) FROM (
        SELECT case_id FROM case_actions
        WHERE asked_by = 'policy' AND action IN ('refund', 'cancel_order') AND at > :since
        UNION SELECT case_id FROM cases WHERE held_at IS NOT NULL AND held_at > :since) AS moved
    """
)


class Cases:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def lock(self, *, keys: Sequence[str], case_ids: Sequence[str]) -> list[Case]:
        columns = cases.c
        wanted = or_(columns.key == func.any(list(keys)), columns.case_id == func.any(list(case_ids)))
        statement = select(cases).where(columns.status != CaseStatus.RESOLVED.value, wanted)
        return await self._cases(statement.order_by(columns.key).with_for_update())

    async def accepted(self, findings: Sequence[Finding]) -> AbstractSet[str]:
        found: set[str] = set()
        for batch in _batches(findings):
            rows = [{name: _FIELDS[name](each) for name in _ACCEPTED_BY} for each in batch]
            found.update((await self._connection.execute(_ACCEPTED, {"findings": json.dumps(rows)})).scalars())
        return found

    async def put_all(
        self, findings: Sequence[Finding], *, case_ids: Sequence[str], run_id: str | None, at: datetime
    ) -> list[tuple[Case, bool]]:
        assert len({finding.key for finding in findings}) == len(findings), "each disagreement is named once"
        ordered = sorted(zip(findings, case_ids, strict=True), key=lambda each: each[0].key)
        kept: list[Case] = []
        for batch in _batches(ordered):
            rows = [
                {name: read(finding) for name, read in _FIELDS.items()} | {"case_id": id_} for finding, id_ in batch
            ]
            values = {"findings": json.dumps(rows), "at": at, "run_id": run_id}
            kept.extend(case_of(row) for row in (await self._connection.execute(_PUT, values)).mappings())
        proposed = set(case_ids)
        return sorted(((case, case.case_id in proposed) for case in kept), key=lambda each: each[0].key)

    async def resolve_all(
        self, case_ids: Sequence[str], *, resolution: str, resolved_by: str, at: datetime
    ) -> list[Case]:
        if not case_ids:
            return []
        values = {
            "status": CaseStatus.RESOLVED.value,
            "resolution": resolution,
            "resolved_by": resolved_by,
            "resolved_at": at,
        }
        statement = update(cases).where(cases.c.case_id == func.any(list(case_ids)))
        statement = statement.where(cases.c.status != CaseStatus.RESOLVED.value).values(values)
        rows = (await self._connection.execute(statement.returning(cases))).mappings()
        return sorted((case_of(row) for row in rows), key=lambda case: case.key)

    async def get(self, case_id: str, *, for_update: bool = False) -> Case | None:
        statement = select(cases).where(cases.c.case_id == case_id)
        found = await self._cases(statement.with_for_update() if for_update else statement)
        return found[0] if found else None

    async def unresolved(self, kind: CaseKind, *, gateway: str | None = None, limit: int) -> list[Case]:
        columns = cases.c
        statement = select(cases).where(columns.status != CaseStatus.RESOLVED.value, columns.kind == kind.value)
        if gateway is not None:
            statement = statement.where(columns.gateway == gateway)
        return await self._cases(statement.order_by(columns.case_id).limit(limit))

    async def save(self, case: Case) -> None:
        statement = update(cases).where(cases.c.case_id == case.case_id).values(_values(case))
        await self._connection.execute(statement)

    async def search(self, filter_: CaseFilter, *, after: str | None, limit: int) -> list[Case]:
        statement = _filtered(select(cases), filter_).order_by(cases.c.case_id.desc()).limit(limit)
        return await self._cases(statement if after is None else statement.where(cases.c.case_id < after))

    async def sent(self, case_ids: Sequence[str]) -> AbstractSet[tuple[str, Action]]:
        columns = case_actions.c
        statement = select(columns.case_id, columns.action).where(columns.case_id == func.any(list(case_ids)))
        return {(row.case_id, Action(row.action)) for row in await self._connection.execute(statement)}

    async def add_action(self, action: CaseAction) -> bool:
        # Whoever counts its actions at the same time waits here, and sees this one.
        locked = select(cases.c.case_id).where(cases.c.case_id == action.case_id).with_for_update()
        await self._connection.execute(locked)
        statement = text(
            """
            INSERT INTO case_actions (case_id, number, action, command_key, asked_by, at, verified_at)
            SELECT CAST(:case_id AS text), coalesce(max(number), 0) + 1, :action, :command_key, :asked_by,
                CAST(:at AS timestamptz), CAST(:verified_at AS timestamptz)
            FROM case_actions WHERE case_id = :case_id
            ON CONFLICT (command_key) DO NOTHING RETURNING number
            """
        )
        values = {name: getattr(action, name) for name in ("case_id", "command_key", "asked_by", "at", "verified_at")}
        added = await self._connection.execute(statement, values | {"action": action.action.value})
        return added.scalar() is not None

    async def hold(self, case_ids: Sequence[str], *, at: datetime) -> None:
        statement = update(cases).where(cases.c.case_id == func.any(list(case_ids)), cases.c.held_at.is_(None))
        await self._connection.execute(statement.values(held_at=at))

    async def moved_by_policy(self, *, since: datetime) -> int:
        return int((await self._connection.execute(_MOVED_BY_POLICY, {"since": since})).scalar_one())

    async def actions_of(self, case_id: str) -> list[CaseAction]:
        statement = select(case_actions).where(case_actions.c.case_id == case_id).order_by(case_actions.c.number)
        rows = (await self._connection.execute(statement)).mappings()
        return [CaseAction(**(dict(row) | {"action": Action(row["action"])})) for row in rows]

    async def verify_actions(self, *case_ids: str, at: datetime) -> None:
        columns = case_actions.c
        statement = update(case_actions).where(columns.case_id == func.any(list(case_ids)))
        await self._connection.execute(statement.where(columns.verified_at.is_(None)).values(verified_at=at))

    async def add_note(self, note: CaseNote) -> None:
        taken = select(func.coalesce(func.max(case_notes.c.number), 0) + 1).where(case_notes.c.case_id == note.case_id)
        values = {"case_id": note.case_id, "author": note.author, "text": note.text, "at": note.at}
        await self._connection.execute(insert(case_notes).values(**values, number=taken.scalar_subquery()))

    async def notes_of(self, case_id: str) -> list[CaseNote]:
        statement = select(case_notes).where(case_notes.c.case_id == case_id).order_by(case_notes.c.number)
        return [CaseNote(**row) for row in (await self._connection.execute(statement)).mappings()]

    async def ages(self) -> Mapping[tuple[str, str | None], tuple[int, datetime]]:
        columns = cases.c
        statement = select(columns.scenario, columns.gateway, func.count(), func.min(columns.opened_at))
        statement = statement.where(columns.status != CaseStatus.RESOLVED.value)
        rows = await self._connection.execute(statement.group_by(columns.scenario, columns.gateway))
        return {(scenario, gateway): (count, oldest) for scenario, gateway, count, oldest in rows}

    async def unverified(self) -> Mapping[Action, datetime]:
        oldest = select(case_actions.c.action, func.min(case_actions.c.at)).join(cases)
        oldest = oldest.where(cases.c.status != CaseStatus.RESOLVED.value, case_actions.c.verified_at.is_(None))
        oldest = oldest.where(case_actions.c.action != Action.SYNC.value)
        rows = await self._connection.execute(oldest.group_by(case_actions.c.action))
        return {Action(action): at for action, at in rows}

    async def _cases(self, statement: Select[Any]) -> list[Case]:
        return [case_of(row) for row in (await self._connection.execute(statement)).mappings()]


def _filtered(statement: Select[Any], filter_: CaseFilter) -> Select[Any]:
    columns = cases.c
    for name in ("status", "scenario", "kind", "gateway", "order_id", "payment_id", "file_id", "owner"):
        value = getattr(filter_, name)
        if value is not None:
            statement = statement.where(columns[name] == value)
    if filter_.unresolved is None:
        return statement
    resolved = CaseStatus.RESOLVED.value
    return statement.where(columns.status != resolved if filter_.unresolved else columns.status == resolved)


T = TypeVar("T")


def _batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    return (items[start : start + BATCH] for start in range(0, len(items), BATCH))


_FIELDS: Mapping[str, Callable[[Finding], Any]] = {
    "key": lambda finding: finding.key,
    "kind": lambda finding: finding.kind.value,
    "scenario": lambda finding: finding.scenario.value,
    "gateway": lambda finding: finding.subject.gateway,
    "account": lambda finding: finding.subject.account,
    "order_id": lambda finding: finding.subject.order_id,
    "payment_id": lambda finding: finding.subject.payment_id,
    "file_id": lambda finding: finding.subject.file_id,
    "line_number": lambda finding: finding.subject.line_number,
    "payout_reference": lambda finding: finding.subject.payout_reference,
    "currency": lambda finding: finding.currency,
    "expected_minor": lambda finding: finding.expected_minor,
    "actual_minor": lambda finding: finding.actual_minor,
    "difference_minor": lambda finding: finding.difference_minor,
    "action": lambda finding: finding.action and finding.action.value,
    "evidence": lambda finding: dict(finding.evidence),
}
_ACCEPTED_BY = ("key", "currency", "expected_minor", "actual_minor", "action")
_SUBJECT = tuple(field.name for field in fields(Subject))
_PLAIN = tuple(
    field.name
    for field in fields(Case)
    if field.name not in ("kind", "scenario", "subject", "status", "action", "requested_action")
)


def _values(case: Case) -> dict[str, Any]:
    values = {name: getattr(case, name) for name in _PLAIN}
    values |= {name: getattr(case.subject, name) for name in _SUBJECT}
    return values | {
        "kind": case.kind.value,
        "scenario": case.scenario.value,
        "status": case.status.value,
        "action": case.action and case.action.value,
        "requested_action": case.requested_action and case.requested_action.value,
        "evidence": dict(case.evidence),
    }


def case_of(row: RowMapping) -> Case:
    values = {name: row[name] for name in _PLAIN}
    if isinstance(row["evidence"], str):  # a statement written as text knows no column types
        values["evidence"] = json.loads(row["evidence"])
    return Case(
        **values,
        kind=CaseKind(row["kind"]),
        scenario=Scenario(row["scenario"]),
        subject=Subject(**{name: row[name] for name in _SUBJECT}),
        status=CaseStatus(row["status"]),
        action=_action(row["action"]),
        requested_action=_action(row["requested_action"]),
    )


def _action(value: str | None) -> Action | None:
    return None if value is None else Action(value)
