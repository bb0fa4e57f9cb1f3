"""Start a run on demand; the worker does it."""

from __future__ import annotations

from dataclasses import replace

from services.reconciler.domain.models import Run, RunKind, RunRequest, RunStatus
from services.reconciler.use_cases.ports import RUNS_CHANNEL, SWEEP_CHANNEL, Context


async def start_run(kind: RunKind, request: RunRequest, *, asked_by: str, context: Context) -> Run:
    """Asking again while a run for the same gateway and window is running answers that run (failure RC10).

    A sweep makes what it is about due now; a payment that another running run waits for is left to that one: each is
    asked about once, for the run that came first.
    """
    now = context.clock.now()
    async with context.uow() as tx:
        running = await tx.runs.find_running(kind, request)
        if running is not None:
            return running
        run = Run(
            run_id=context.ids.new("run"),
            kind=kind,
            status=RunStatus.RUNNING,
            started_at=now,
            request=request,
            asked_by=asked_by,
        )
        if kind is RunKind.SWEEP:
            run = replace(run, matched=await tx.watched.ask_for(run.run_id, request, now))
        await tx.runs.add(run)
        tx.hint(SWEEP_CHANNEL if kind is RunKind.SWEEP else RUNS_CHANNEL, run.run_id)
    return run
