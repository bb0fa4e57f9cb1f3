"""End a run and announce it."""

from __future__ import annotations

from services.reconciler.domain.models import Run
from services.reconciler.use_cases.ports import Context, ReconcilerTransaction
from shared.contracts.reconciliation_events import ReconciliationRunCompleted


async def finish_run(tx: ReconcilerTransaction, run: Run, context: Context) -> None:
    """Write the run's status and end; once, however often it is called.

    Runs on demand are always announced. Scheduled ones only when they changed something: a round every few seconds that
    finds what was expected is no news to anybody.
    """
    finished = await tx.runs.finish(run, at=context.clock.now())
    if finished is None or not _is_news(finished):
        return
    assert finished.finished_at is not None, "a finished run has its end"
    event = ReconciliationRunCompleted(
        run_id=finished.run_id,
        kind=finished.kind.value,
        started_at=finished.started_at,
        finished_at=finished.finished_at,
        checked=finished.checked,
        changed=finished.changed,
        failed=finished.failed,
        cases_opened=finished.cases_opened,
        cases_resolved=finished.cases_resolved,
    )
    await tx.outbox.add(event, subject=finished.run_id)


def _is_news(run: Run) -> bool:
    """A run for a file is asked for by the file."""
    asked = run.asked_by is not None or run.file_id is not None
    return asked or run.changed > 0 or run.cases_opened > 0 or run.cases_resolved > 0
