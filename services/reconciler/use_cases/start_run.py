"""Start a run on demand: what it is about becomes due now, and the worker does it."""

from __future__ import annotations

from dataclasses import replace

from services.reconciler.domain.models import Run, RunKind, RunRequest, RunStatus
from services.reconciler.use_cases.ports import SWEEP_CHANNEL, Context


async def start_sweep_run(request: RunRequest, *, asked_by: str, context: Context) -> Run:
    """Asking again while a run for the same gateway and window is running answers that run (failure RC10).

    A payment that another running run waits for is left to it: each is asked about once, for the run that came first.
    """
    now = context.clock.now()
    async with context.uow() as tx:
        running = await tx.runs.find_running(request)
        if running is not None:
            return running
        run = Run(
            run_id=context.ids.new("run"),
            kind=RunKind.SWEEP,
            status=RunStatus.RUNNING,
            started_at=now,
            request=request,
            asked_by=asked_by,
        )
        run = replace(run, matched=await tx.watched.ask_for(run.run_id, request, now))
        await tx.runs.add(run)
        tx.hint(SWEEP_CHANNEL, run.run_id)
    return run
