"""Reports of runs and of settlement files, for spreadsheets and for eyes; and a file's lines one by one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse, StreamingResponse

from services.reconciler.api.case_schemas import FileLineOut, FileLinePage
from services.reconciler.api.dependencies import Reader, RunId, UseCaseContext, documents_bearer
from services.reconciler.api.settlement_routes import FileId
from services.reconciler.reporting.csv_report import csv_report
from services.reconciler.reporting.html_report import HEADERS, html_report
from services.reconciler.use_cases.ports import Context
from services.reconciler.use_cases.read_report import Report, case_pages, line_pages, report_of_file, report_of_run
from shared.errors import NotFound
from shared.web.problems import problem_responses

router = APIRouter(prefix="/api/v1/reconciliation", tags=["reports"], dependencies=[documents_bearer])

_CSV: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/csv": {"schema": {"type": "string"}}}, "description": "RFC 4180, UTF-8"}
}
_HTML: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/html": {"schema": {"type": "string"}}}, "description": "one page, without scripts"}
}
_READ = problem_responses(401, 403, 404, 422, 503)


@router.get("/settlement-files/{file_id}/lines", responses=_READ)
async def list_file_lines(
    file_id: FileId,
    context: UseCaseContext,
    _: Reader,
    line_number: Annotated[
        int | None, Query(ge=1, le=2**62, description="only what this line of the file tells")
    ] = None,
    cursor: Annotated[int, Query(ge=0, lt=2**31)] = 0,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> FileLinePage:
    """A file's lines as they were understood and matched, in the order of the file."""
    async with context.uow() as tx:
        if await tx.files.get(file_id) is None:
            raise NotFound
        found = await tx.reports.lines_of_file(file_id, line_number=line_number, after=cursor, limit=limit + 1)
    page = [FileLineOut.of(line) for line in found[:limit]]
    return FileLinePage(data=page, next_cursor=str(page[-1].position) if len(found) > limit else None)


@router.get("/runs/{run_id}/report.csv", response_class=StreamingResponse, responses={**_CSV, **_READ})
async def run_report_csv(run_id: RunId, context: UseCaseContext, _: Reader) -> StreamingResponse:
    """Totals, payouts, cases, lines that match nothing, rows that could not be read: a table with a column `record`."""
    return _csv(await report_of_run(run_id, context), context)


@router.get("/runs/{run_id}/report.html", response_class=HTMLResponse, responses={**_HTML, **_READ})
async def run_report_html(run_id: RunId, context: UseCaseContext, _: Reader) -> HTMLResponse:
    """The same to look at and to print, with a picture of where the money is."""
    return await _html(await report_of_run(run_id, context), context)


@router.get("/settlement-files/{file_id}/report.csv", response_class=StreamingResponse, responses={**_CSV, **_READ})
async def file_report_csv(file_id: FileId, context: UseCaseContext, _: Reader) -> StreamingResponse:
    """A settlement file as its lines are matched now."""
    return _csv(await report_of_file(file_id, context), context)


@router.get("/settlement-files/{file_id}/report.html", response_class=HTMLResponse, responses={**_HTML, **_READ})
async def file_report_html(file_id: FileId, context: UseCaseContext, _: Reader) -> HTMLResponse:
    """The same to look at and to print."""
    return await _html(await report_of_file(file_id, context), context)


def _csv(report: Report, context: Context) -> StreamingResponse:
    content: AsyncIterator[bytes] = csv_report(report, case_pages(report, context), line_pages(report, context))
    headers = {
        "Content-Disposition": f'attachment; filename="payrail-{report.subject_id}.csv"',
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-store",
    }
    return StreamingResponse(content, media_type="text/csv; charset=utf-8; header=present", headers=headers)


async def _html(report: Report, context: Context) -> HTMLResponse:
    page = await html_report(report, case_pages(report, context), line_pages(report, context))
    return HTMLResponse(page, headers=HEADERS)
