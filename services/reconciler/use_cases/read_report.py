"""Read what a run or a settlement file came to. Long lists come in pages, each in a transaction of its own.

Between two pages nothing is held: whoever reads a report slowly keeps no connection and no lock.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from services.reconciler.domain.cases import Case
from services.reconciler.domain.models import Run, RunKind
from services.reconciler.domain.reporting import Totals
from services.reconciler.domain.settlement import BadRow, SettlementFile
from services.reconciler.use_cases.ports import Context, ReconcilerTransaction
from services.reconciler.use_cases.report_ports import CaseScope, LineScope, ShownLine, ShownPayout
from shared.errors import NotFound

PAGE = 500
MAX_PROBLEMS = 1_000
MAX_PAYOUTS = 1_000


@dataclass(frozen=True, slots=True)
class Report:
    """What is short is here; ``case_pages`` and ``line_pages`` read what may be long."""

    subject_id: str
    made_at: datetime
    run: Run | None = None
    file: SettlementFile | None = None
    totals: tuple[Totals, ...] = ()
    payouts: tuple[ShownPayout, ...] = ()
    problems: tuple[BadRow, ...] = ()
    """The first bad rows of its file; the file counts all."""
    cases: CaseScope | None = None
    lines: LineScope | None = None


async def report_of_run(run_id: str, context: Context) -> Report:
    """Of a run that still works, what is there so far. Raises NotFound."""
    now = context.clock.now()
    async with context.settlement_uow() as tx:
        run = await tx.runs.get(run_id)
        if run is None:
            raise NotFound
        file = await tx.files.get(run.file_id) if run.file_id else None
        report = await _about(tx, Report(run_id, now, run=run), file)
    totals = tuple(Totals.from_json(each) for each in run.totals)
    return replace(report, totals=totals, cases=_cases_of(run, file), lines=_lines_of(run))


async def report_of_file(file_id: str, context: Context) -> Report:
    """The file as its lines are matched now. Raises NotFound."""
    async with context.settlement_uow() as tx:
        file = await tx.files.get(file_id)
        if file is None:
            raise NotFound
        totals = tuple(Totals.from_json(each) for each in await tx.reports.totals_of_file(file_id))
        report = await _about(tx, Report(file_id, context.clock.now()), file)
    return replace(report, totals=totals, cases=CaseScope(file_id=file_id), lines=LineScope(file_id=file_id))


async def case_pages(report: Report, context: Context) -> AsyncIterator[Sequence[Case]]:
    after, scope = "", report.cases
    while scope is not None:
        async with context.uow() as tx:
            page = await tx.reports.cases(scope, after=after, limit=PAGE)
        if page:
            yield page
        if len(page) < PAGE:
            return
        after = page[-1].case_id


async def line_pages(report: Report, context: Context) -> AsyncIterator[Sequence[ShownLine]]:
    """Lines about payments that are matched to none, file by file. A page may have to look through a whole file, for
    which there are the connections of files: a statement of theirs may take minutes."""
    file_id: str | None = ""
    while report.lines is not None:
        assert file_id is not None, "the loop ends behind the last one"
        async with context.settlement_uow() as tx:
            file_id = await tx.reports.next_file(report.lines, after=file_id)
        if file_id is None:
            return
        async for page in _unmatched_lines(file_id, context):
            yield page


async def _unmatched_lines(file_id: str, context: Context) -> AsyncIterator[Sequence[ShownLine]]:
    after = 0
    while True:
        async with context.settlement_uow() as tx:
            page = await tx.reports.unmatched_lines(file_id, after=after, limit=PAGE)
        if page:
            yield page
        if len(page) < PAGE:
            return
        after = page[-1].position


async def _about(tx: ReconcilerTransaction, report: Report, file: SettlementFile | None) -> Report:
    if file is None:
        return report
    return replace(
        report,
        file=file,
        payouts=tuple(await tx.reports.payouts_of_file(file.file_id, limit=MAX_PAYOUTS)),
        problems=tuple(await tx.files.problems(file.file_id, limit=MAX_PROBLEMS)),
    )


def _cases_of(run: Run, file: SettlementFile | None) -> CaseScope | None:
    """Those of its kind that were open at some moment while it ran: what it found, and what it closed."""
    if run.kind is RunKind.SWEEP:
        return None
    gateway = run.request.gateway or (file.gateway if file else None)
    return CaseScope(kind=run.kind.value, gateway=gateway, since=run.started_at, until=run.finished_at)


def _lines_of(run: Run) -> LineScope | None:
    return LineScope(run.file_id, run.request.gateway) if run.kind is RunKind.SETTLEMENT else None
