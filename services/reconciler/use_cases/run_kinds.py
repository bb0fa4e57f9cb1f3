"""What a run of each kind does."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from services.reconciler.domain.models import Run, RunKind
from services.reconciler.use_cases.compare_orders import compare_orders
from services.reconciler.use_cases.ports import Context
from services.reconciler.use_cases.pull_exports import pull_exports
from services.reconciler.use_cases.run_runner import Work
from services.reconciler.use_cases.running import Progress, RunOutcome
from services.reconciler.use_cases.settle_again import settle_again
from services.reconciler.use_cases.settle_file import settle_file


def works(context: Context) -> Mapping[RunKind, Work]:
    return {RunKind.ORDERS: partial(_orders, context), RunKind.SETTLEMENT: partial(_settlement, context)}


async def _orders(context: Context, run: Run, progress: Progress) -> RunOutcome:
    return await compare_orders(run.run_id, run.request, context, progress)


async def _settlement(context: Context, run: Run, progress: Progress) -> RunOutcome:
    """With what the owners know by now: a line of a payment that was not pulled yet would be one of nobody."""
    await pull_exports(context, progress)
    if run.file_id is not None:
        return await settle_file(run.file_id, run.run_id, context, progress)
    return await settle_again(run.run_id, run.request, context, progress)
