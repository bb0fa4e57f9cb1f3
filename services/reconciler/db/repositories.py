"""Every query of the reconciler."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import date, datetime
from typing import Any

import asyncpg
from pydantic_core import to_json
from sqlalchemy import RowMapping, func, insert, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.reconciler.db.tables import TOTALS, gateway_pauses, reconciliation_runs, sweep_days, watched_payments
from services.reconciler.domain.models import (
    Counts,
    Run,
    RunKind,
    RunRequest,
    RunStatus,
    Standing,
    SweepDay,
    WatchedPayment,
)
from services.reconciler.domain.schedule import PaymentStatus
from services.reconciler.use_cases.ports import KnownVersion, WatchFilter
from shared.db.leases import acquire_lease, release_lease
from shared.db.session import driver_of
from shared.money import Money

# Money at risk: held or moving money before a page that may be abandoned, then what the gateway still owes an answer
# about, ended and captured payments last; then the larger amount (minor units of different currencies do not compare,
# but it is only an order of asking), then the older one.
_DUE = text(
    """
    SELECT ranked.* FROM (
        SELECT rated.*, row_number() OVER (
            PARTITION BY rated.gateway
            ORDER BY rated.risk, rated.amount_minor DESC, rated.payment_created_at, rated.payment_id) AS place
        FROM (
            SELECT w.*, CASE
                WHEN w.status = 'processing' THEN 0
                WHEN w.status IN ('authorized', 'partially_captured')
                    AND (w.amount_authorized = 0 OR w.amount_authorized <> w.amount_captured) THEN 0
                WHEN w.status IN ('created', 'requires_action') THEN 1
                WHEN w.outcome_unknown OR w.amount_refund_pending > 0
                    OR w.amount_disputed > w.amount_dispute_lost THEN 2
                ELSE 3 END AS risk
            FROM watched_payments w
            WHERE (w.next_check_at <= :now OR w.asked_by_run IS NOT NULL)
              AND NOT EXISTS (SELECT FROM gateway_pauses p WHERE p.gateway = w.gateway AND p.paused_until > :now)
        ) AS rated
    ) AS ranked
    WHERE ranked.place <= coalesce(CAST(CAST(:by_gateway AS jsonb) ->> ranked.gateway AS integer), :per_gateway)
    ORDER BY ranked.risk >= 2, ranked.place, ranked.gateway LIMIT :limit
    """
)
"""Gateways take turns under the limit, so that a busy one does not use up the whole batch, but none has its ended
payments asked about before another's open ones."""


_WATCHED_COLUMNS = {
    "payment_id": "text",
    "order_id": "text",
    "gateway": "text",
    "status": "text",
    "version": "integer",
    "amount_minor": "bigint",
    "currency": "text",
    "payment_created_at": "timestamptz",
    "status_since": "timestamptz",
    "first_seen_at": "timestamptz",
    "next_check_at": "timestamptz",
    "checks": "integer",
    "failures": "integer",
    "last_checked_at": "timestamptz",
    "last_error": "text",
    "asked_by_run": "text",
    "capture_before": "timestamptz",
    "method": "text",
    **dict.fromkeys(TOTALS, "bigint"),
    "outcome_unknown": "boolean",
}
_NAMES = ", ".join(_WATCHED_COLUMNS)
# From there to its end the transaction plans by index, and once for any number of payments: that the table was small
# when a statement was planned must not read all of it when it has grown, and planning costs as much as executing.
_VERSIONS = """
    SELECT payment_id, version, capture_before FROM watched_payments
    WHERE payment_id = ANY($1::text[]) AND (SELECT set_config('plan_cache_mode', 'force_generic_plan', true)
        || set_config('enable_seqscan', 'off', true) || set_config('enable_hashjoin', 'off', true)
        || set_config('enable_mergejoin', 'off', true)) IS NOT NULL
    """
_LOCK = f"SELECT {_NAMES} FROM watched_payments WHERE payment_id = ANY($1::text[]) ORDER BY payment_id FOR UPDATE"  # noqa: S608
# Rows are given as JSON: of arrays, one for each column, the driver would look at every element in Python.
_GIVEN = (
    f"json_to_recordset($1::json) AS given ({', '.join(f'{name} {type_}' for name, type_ in _WATCHED_COLUMNS.items())})"
)
_ADD = f"""
    INSERT INTO watched_payments ({_NAMES}) SELECT {_NAMES} FROM {_GIVEN} ORDER BY payment_id
    ON CONFLICT DO NOTHING RETURNING payment_id
    """  # noqa: S608 - names from our own code
_CHANGES = ", ".join(f"{name} = given.{name}" for name in _WATCHED_COLUMNS if name != "payment_id")
_SAVE = f"""
    UPDATE watched_payments AS kept SET {_CHANGES} FROM {_GIVEN}
    WHERE kept.payment_id = given.payment_id
    """  # noqa: S608 - names from our own code


class Watched:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def versions(self, payment_ids: Sequence[str]) -> Mapping[str, KnownVersion]:
        driver = await driver_of(self._connection)
        rows = await driver.fetch(_VERSIONS, list(payment_ids))
        return {row["payment_id"]: KnownVersion(row["version"], row["capture_before"]) for row in rows}

    async def get_for_update(self, payment_id: str) -> WatchedPayment | None:
        statement = select(watched_payments).where(watched_payments.c.payment_id == payment_id).with_for_update()
        row = (await self._connection.execute(statement)).mappings().one_or_none()
        return None if row is None else _watched(row)

    async def lock(self, payment_ids: Sequence[str]) -> Mapping[str, WatchedPayment]:
        driver = await driver_of(self._connection)
        return {row["payment_id"]: _watched(row) for row in await driver.fetch(_LOCK, list(payment_ids))}

    async def add(self, watched: Sequence[WatchedPayment]) -> set[str]:
        if not watched:
            return set()
        driver = await driver_of(self._connection)
        return {row["payment_id"] for row in await driver.fetch(_ADD, _as_json(watched))}

    async def save_all(self, watched: Sequence[WatchedPayment]) -> None:
        if not watched:
            return
        driver = await driver_of(self._connection)
        written = int((await driver.execute(_SAVE, _as_json(watched))).rpartition(" ")[2])
        assert written == len(watched), f"{len(watched) - written} of {len(watched)} rows were not there to be written"

    async def save(self, watched: WatchedPayment) -> None:
        statement = (
            update(watched_payments)
            .where(watched_payments.c.payment_id == watched.payment_id)
            .values(_watched_values(watched))
        )
        await self._connection.execute(statement)

    async def due(
        self, now: datetime, *, per_gateway: int, by_gateway: Mapping[str, int], limit: int
    ) -> list[WatchedPayment]:
        values = {"now": now, "per_gateway": per_gateway, "by_gateway": json.dumps(dict(by_gateway)), "limit": limit}
        rows = await self._connection.execute(_DUE, values)
        return [_watched(row) for row in rows.mappings()]

    async def ask_for(self, run_id: str, request: RunRequest, now: datetime) -> int:
        columns = watched_payments.c
        matching = select(columns.payment_id).where(columns.next_check_at.is_not(None), columns.asked_by_run.is_(None))
        if request.gateway is not None:
            matching = matching.where(columns.gateway == request.gateway)
        if request.window_from is not None:
            matching = matching.where(columns.payment_created_at >= request.window_from)
        if request.window_to is not None:
            matching = matching.where(columns.payment_created_at < request.window_to)
        # Locked in the order of ids, as the pull locks them: the two wait for each other instead of deadlocking.
        locked = matching.order_by(columns.payment_id).with_for_update()
        statement = (
            update(watched_payments)
            .where(columns.payment_id.in_(locked))
            .values(asked_by_run=run_id, next_check_at=func.least(columns.next_check_at, now))
        )
        return (await self._connection.execute(statement)).rowcount

    async def search(self, filter_: WatchFilter, *, after: str | None, limit: int) -> list[WatchedPayment]:
        """Newest first; ``after`` is the last id of the page before."""
        columns = watched_payments.c
        statement = select(watched_payments).order_by(columns.payment_id.desc()).limit(limit)
        statement = statement.where(
            columns.next_check_at.is_(None) if filter_.dropped else columns.next_check_at.is_not(None)
        )
        if after is not None:
            statement = statement.where(columns.payment_id < after)
        if filter_.gateway is not None:
            statement = statement.where(columns.gateway == filter_.gateway)
        if filter_.status is not None:
            statement = statement.where(columns.status == filter_.status.value)
        if filter_.due_before is not None:
            statement = statement.where(columns.next_check_at <= filter_.due_before)
        return [_watched(row) for row in (await self._connection.execute(statement)).mappings()]


class Runs:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, run: Run) -> None:
        await self._connection.execute(insert(reconciliation_runs).values(_run_values(run)))

    async def get(self, run_id: str) -> Run | None:
        statement = select(reconciliation_runs).where(reconciliation_runs.c.run_id == run_id)
        row = (await self._connection.execute(statement)).mappings().one_or_none()
        return None if row is None else _run(row)

    async def find_running(self, kind: RunKind, request: RunRequest) -> Run | None:
        # Two people who ask in the same moment must not both find nothing.
        await self._connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('reconciliation_runs'))"))
        columns = reconciliation_runs.c
        statement = (
            select(reconciliation_runs)
            .where(columns.status == RunStatus.RUNNING.value, columns.kind == kind.value)
            .where(columns.asked_by.is_not(None), columns.file_id.is_(None))
            .where(columns.gateway.is_not_distinct_from(request.gateway))
            .where(columns.window_from.is_not_distinct_from(request.window_from))
            .where(columns.window_to.is_not_distinct_from(request.window_to))
            .order_by(columns.run_id)
            .limit(1)
        )
        row = (await self._connection.execute(statement)).mappings().one_or_none()
        return None if row is None else _run(row)

    async def count(self, run: Run, counts: Counts) -> None:
        added = {"checked": counts.checked, "changed": counts.changed, "failed": counts.failed}
        columns = reconciliation_runs.c
        statement = upsert(reconciliation_runs).values(_run_values(run) | added)
        statement = statement.on_conflict_do_update(
            index_elements=[columns.run_id],
            set_={name: columns[name] + number for name, number in added.items()} | {"holder": run.holder},
        )
        await self._connection.execute(statement)

    async def finish(self, run: Run, *, at: datetime) -> Run | None:
        statement = (
            update(reconciliation_runs)
            .where(reconciliation_runs.c.run_id == run.run_id)
            .where(reconciliation_runs.c.status == RunStatus.RUNNING.value)
            .values(status=run.status.value, finished_at=at, **_outcome_values(run))
            .returning(reconciliation_runs)
        )
        row = (await self._connection.execute(statement)).mappings().one_or_none()
        return None if row is None else _run(row)

    async def asked_and_done(self) -> list[Run]:
        columns = reconciliation_runs.c
        waits = select(watched_payments.c.payment_id).where(watched_payments.c.asked_by_run == columns.run_id)
        statement = (
            select(reconciliation_runs)
            .where(columns.status == RunStatus.RUNNING.value, columns.kind == RunKind.SWEEP.value)
            .where(columns.asked_by.is_not(None), ~waits.exists())
            .order_by(columns.run_id)
        )
        return [_run(row) for row in (await self._connection.execute(statement)).mappings()]

    async def abandoned(self) -> list[Run]:
        columns = reconciliation_runs.c
        statement = (
            select(reconciliation_runs)
            .where(columns.status == RunStatus.RUNNING.value, columns.kind == RunKind.SWEEP.value)
            .where(columns.asked_by.is_(None))
            .order_by(columns.run_id)
        )
        return [_run(row) for row in (await self._connection.execute(statement)).mappings()]

    async def take_up(self, kind: RunKind, *, holder: str) -> Run | None:
        """The oldest run of this kind that waits, or whose runner died; counts the attempt."""
        columns = reconciliation_runs.c
        oldest = (
            select(columns.run_id)
            .where(columns.status == RunStatus.RUNNING.value, columns.kind == kind.value)
            .order_by(columns.run_id)
            .limit(1)
        )
        statement = (
            update(reconciliation_runs)
            .where(columns.run_id == oldest.scalar_subquery())
            .values(holder=holder, attempts=columns.attempts + 1, phase=None, done=0, total=None)
            .returning(reconciliation_runs)
        )
        row = (await self._connection.execute(statement)).mappings().one_or_none()
        return None if row is None else _run(row)

    async def files_without_run(self, now: datetime) -> list[str]:
        statement = text(
            """
            SELECT f.file_id FROM settlement_files f
            WHERE f.status = 'received' AND NOT EXISTS (
                SELECT FROM reconciliation_runs r
                WHERE r.file_id = f.file_id AND (r.status = 'running' OR r.started_at >= f.received_at
                    AND r.problem IN ('reader_died', 'reading_timeout')
                    AND r.finished_at > CAST(:now AS timestamptz) - interval '5 minutes'))
            ORDER BY f.file_id LIMIT 100
            """
        )
        return list((await self._connection.execute(statement, {"now": now})).scalars())

    async def failed_readings(self, file_id: str) -> int:
        statement = text(
            """
            SELECT count(*) FROM reconciliation_runs r JOIN settlement_files f USING (file_id)
            WHERE f.file_id = :file_id AND r.started_at >= f.received_at
                AND r.problem IN ('reader_died', 'reading_timeout')
            """
        )
        return int((await self._connection.execute(statement, {"file_id": file_id})).scalar_one())

    async def save_progress(self, run_id: str, *, phase: str, done: int, total: int | None) -> None:
        statement = (
            update(reconciliation_runs)
            .where(reconciliation_runs.c.run_id == run_id)
            .where(reconciliation_runs.c.status == RunStatus.RUNNING.value)
            .values(phase=phase, done=done, total=total)
        )
        await self._connection.execute(statement)

    async def last_of_schedule(self, kind: RunKind) -> Run | None:
        """The newest run that the schedule started, one for a file left out."""
        columns = reconciliation_runs.c
        statement = (
            select(reconciliation_runs)
            .where(columns.kind == kind.value, columns.asked_by.is_(None), columns.file_id.is_(None))
            .order_by(columns.run_id.desc())
            .limit(1)
        )
        row = (await self._connection.execute(statement)).mappings().one_or_none()
        return None if row is None else _run(row)

    async def search(self, *, kind: RunKind | None = None, after: str | None, limit: int) -> list[Run]:
        """Newest first; ``after`` is the last id of the page before."""
        columns = reconciliation_runs.c
        statement = select(reconciliation_runs).order_by(columns.run_id.desc()).limit(limit)
        if after is not None:
            statement = statement.where(columns.run_id < after)
        if kind is not None:
            statement = statement.where(columns.kind == kind.value)
        return [_run(row) for row in (await self._connection.execute(statement)).mappings()]


_DAYS = text(
    """
    SELECT d.gateway, d.day, d.checked, d.learnt_first, d.failed, (
        SELECT count(*) FROM known_payments p
        WHERE p.gateway = d.gateway AND (p.amount_authorized > 0 OR p.amount_captured > 0)
          AND p.created_at >= d.day AND p.created_at < d.day + 1) AS payments
    FROM sweep_days d WHERE d.day BETWEEN :first AND :last ORDER BY d.day DESC, d.gateway
    """
)


class SweepDays:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def count(self, gateway: str, day: date, counts: Counts) -> None:
        added = {"checked": counts.checked, "learnt_first": counts.changed, "failed": counts.failed}
        columns = sweep_days.c
        statement = upsert(sweep_days).values(gateway=gateway, day=day, **added)
        statement = statement.on_conflict_do_update(
            index_elements=[columns.gateway, columns.day],
            set_={name: columns[name] + number for name, number in added.items()},
        )
        await self._connection.execute(statement)

    async def between(self, first: date, last: date) -> list[SweepDay]:
        rows = await self._connection.execute(_DAYS, {"first": first, "last": last})
        return [SweepDay(**row) for row in rows.mappings()]


class Pauses:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def pause(self, gateway: str, *, until: datetime) -> None:
        statement = upsert(gateway_pauses).values(gateway=gateway, paused_until=until, in_a_row=1)
        statement = statement.on_conflict_do_update(
            index_elements=[gateway_pauses.c.gateway],
            set_={"paused_until": until, "in_a_row": gateway_pauses.c.in_a_row + 1},
        )
        await self._connection.execute(statement)

    async def lengths(self) -> Mapping[str, int]:
        statement = select(gateway_pauses.c.gateway, gateway_pauses.c.in_a_row)
        return {row.gateway: row.in_a_row for row in await self._connection.execute(statement)}

    async def clear(self, gateway: str) -> None:
        await self._connection.execute(gateway_pauses.delete().where(gateway_pauses.c.gateway == gateway))


class Leases:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def acquire(self, name: str, *, holder: str, seconds: float) -> int | None:
        return await acquire_lease(self._connection, name=name, holder=holder, seconds=seconds)

    async def release(self, name: str, *, holder: str) -> None:
        await release_lease(self._connection, name=name, holder=holder)


_STANDING = tuple(field.name for field in fields(Standing))


def _as_json(watched: Sequence[WatchedPayment]) -> str:
    return to_json([_watched_values(each) for each in watched]).decode()


def _watched_values(watched: WatchedPayment) -> dict[str, Any]:
    return {
        "payment_id": watched.payment_id,
        "order_id": watched.order_id,
        "gateway": watched.gateway,
        "status": watched.status.value,
        "version": watched.version,
        "amount_minor": watched.amount.amount_minor,
        "currency": watched.amount.currency,
        "payment_created_at": watched.payment_created_at,
        "status_since": watched.status_since,
        "first_seen_at": watched.first_seen_at,
        "next_check_at": watched.next_check_at,
        "checks": watched.checks,
        "failures": watched.failures,
        "last_checked_at": watched.last_checked_at,
        "last_error": watched.last_error,
        "asked_by_run": watched.asked_by_run,
        "capture_before": watched.capture_before,
        "method": watched.method,
        **{name: getattr(watched.standing, name) for name in _STANDING},
    }


def _watched(row: RowMapping | asyncpg.Record) -> WatchedPayment:
    return WatchedPayment(
        payment_id=row["payment_id"],
        order_id=row["order_id"],
        gateway=row["gateway"],
        status=PaymentStatus(row["status"]),
        version=row["version"],
        amount=Money(row["amount_minor"], row["currency"]),
        payment_created_at=row["payment_created_at"],
        status_since=row["status_since"],
        first_seen_at=row["first_seen_at"],
        next_check_at=row["next_check_at"],
        checks=row["checks"],
        failures=row["failures"],
        last_checked_at=row["last_checked_at"],
        last_error=row["last_error"],
        asked_by_run=row["asked_by_run"],
        standing=Standing(**{name: row[name] for name in _STANDING}),
        capture_before=row["capture_before"],
        method=row["method"],
    )


def _outcome_values(run: Run) -> dict[str, Any]:
    """What only the end of a run says. The counts of a sweep are written as it goes."""
    if run.kind is RunKind.SWEEP:
        return {}
    return {
        "matched": run.matched,
        "checked": run.checked,
        "failed": run.failed,
        "cases_opened": run.cases_opened,
        "cases_resolved": run.cases_resolved,
        "totals": [dict(total) for total in run.totals],
        "problem": run.problem,
    }


def _run_values(run: Run) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "kind": run.kind.value,
        "gateway": run.request.gateway,
        "status": run.status.value,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
        "window_from": run.request.window_from,
        "window_to": run.request.window_to,
        "matched": run.matched,
        "checked": run.checked,
        "changed": run.changed,
        "failed": run.failed,
        "asked_by": run.asked_by,
        "holder": run.holder,
        "file_id": run.file_id,
    }


def _run(row: RowMapping) -> Run:
    return Run(
        run_id=row["run_id"],
        kind=RunKind(row["kind"]),
        status=RunStatus(row["status"]),
        started_at=row["started_at"],
        request=RunRequest(row["gateway"], row["window_from"], row["window_to"]),
        finished_at=row["finished_at"],
        asked_by=row["asked_by"],
        holder=row["holder"],
        matched=row["matched"],
        checked=row["checked"],
        changed=row["changed"],
        failed=row["failed"],
        file_id=row["file_id"],
        attempts=row["attempts"],
        phase=row["phase"],
        done=row["done"],
        total=row["total"],
        cases_opened=row["cases_opened"],
        cases_resolved=row["cases_resolved"],
        totals=tuple(row["totals"]),
        problem=row["problem"],
    )
