"""The reconciler's routes: parse, call one use case, answer."""

from __future__ import annotations

from datetime import UTC, timedelta
from typing import Annotated

from fastapi import APIRouter, Query, Response

from services.reconciler.api.dependencies import Reader, RunId, UseCaseContext, Writer, documents_bearer
from services.reconciler.api.schemas import (
    GatewayName,
    InputTime,
    RunOut,
    RunPage,
    StartRunIn,
    SweepDayOut,
    SweepDays,
    WatchedPaymentOut,
    WatchedPaymentPage,
)
from services.reconciler.domain.models import RunKind
from services.reconciler.domain.schedule import PaymentStatus
from services.reconciler.use_cases.ports import WatchFilter
from services.reconciler.use_cases.start_run import start_run as start
from shared.errors import NotFound
from shared.web.problems import problem_responses

router = APIRouter(prefix="/api/v1/reconciliation", tags=["reconciliation"], dependencies=[documents_bearer])

_AUTH = problem_responses(401, 403)
_Limit = Annotated[int, Query(ge=1, le=200)]


@router.post("/runs", status_code=202, responses={**_AUTH, **problem_responses(400, 413, 422, 503)})
async def start_run(body: StartRunIn, context: UseCaseContext, writer: Writer, response: Response) -> RunOut:
    """Start a run. The worker does it: ask for the run to see its progress.

    Asking again while such a run is running answers the run that is running.
    """
    run = await start(body.kind, body.to_request(), asked_by=writer.subject, context=context)
    response.headers["Location"] = f"{router.prefix}/runs/{run.run_id}"
    return RunOut.of(run)


@router.get("/runs", responses={**_AUTH, **problem_responses(422, 503)})
async def list_runs(
    context: UseCaseContext,
    _: Reader,
    kind: RunKind | None = None,
    cursor: Annotated[str | None, Query(pattern=r"^run_[0-9a-z]{26}$")] = None,
    limit: _Limit = 50,
) -> RunPage:
    """Runs, newest first. Scheduled rounds that had nothing to check left no run."""
    async with context.uow() as tx:
        runs = await tx.runs.search(kind=kind, after=cursor, limit=limit + 1)
    page = [RunOut.of(run) for run in runs[:limit]]
    return RunPage(data=page, next_cursor=page[-1].run_id if len(runs) > limit else None)


@router.get("/runs/{run_id}", responses={**_AUTH, **problem_responses(404, 422, 503)})
async def get_run(run_id: RunId, context: UseCaseContext, _: Reader) -> RunOut:
    """One run, with its counts so far."""
    async with context.uow() as tx:
        run = await tx.runs.get(run_id)
    if run is None:
        raise NotFound
    return RunOut.of(run)


@router.get("/sweep-days", responses={**_AUTH, **problem_responses(422, 503)})
async def list_sweep_days(
    context: UseCaseContext,
    _: Reader,
    days: Annotated[int, Query(ge=1, le=400, description="so many days back, today included")] = 30,
) -> SweepDays:
    """How many webhooks each gateway loses: what the sweep learnt before any webhook did, day by day."""
    today = context.clock.now().astimezone(UTC).date()
    async with context.uow() as tx:
        found = await tx.sweep_days.between(today - timedelta(days=days - 1), today)
    return SweepDays(data=[SweepDayOut.of(day) for day in found])


@router.get("/watched-payments", responses={**_AUTH, **problem_responses(422, 503)})
async def list_watched_payments(
    context: UseCaseContext,
    _: Reader,
    gateway: GatewayName | None = None,
    status: PaymentStatus | None = None,
    due_before: Annotated[InputTime | None, Query(description="to be checked at or before this time")] = None,
    dropped: Annotated[bool, Query(description="true: those that are not asked about any more, instead")] = False,
    cursor: Annotated[str | None, Query(pattern=r"^[A-Za-z0-9_]{1,64}$")] = None,
    limit: _Limit = 50,
) -> WatchedPaymentPage:
    """Payments that the sweep watches, newest first."""
    filter_ = WatchFilter(gateway, status, due_before, dropped)
    async with context.uow() as tx:
        found = await tx.watched.search(filter_, after=cursor, limit=limit + 1)
    page = [WatchedPaymentOut.of(watched) for watched in found[:limit]]
    return WatchedPaymentPage(data=page, next_cursor=page[-1].payment_id if len(found) > limit else None)
