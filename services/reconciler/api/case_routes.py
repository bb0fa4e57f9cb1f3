"""Cases over HTTP: look at them, take them on, decide about them."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query

from services.reconciler.api.case_schemas import (
    AssignIn,
    CaseDetailOut,
    CaseOut,
    CasePage,
    NoteIn,
    Owner,
    PaymentSettlementOut,
    ResolveIn,
    SettledLineOut,
)
from services.reconciler.api.dependencies import Reader, UseCaseContext, Writer, documents_bearer
from services.reconciler.api.schemas import GatewayName
from services.reconciler.domain.cases import CaseKind, CaseStatus, Scenario
from services.reconciler.use_cases.case_ports import CaseFilter
from services.reconciler.use_cases.ports import Context
from services.reconciler.use_cases.resolve_case import Wish, assign_case, note_on_case, resolve_case
from shared.errors import NotFound
from shared.web.problems import problem_responses

router = APIRouter(prefix="/api/v1/reconciliation", tags=["cases"], dependencies=[documents_bearer])

MAX_LINES_OF_PAYMENT = 1_000
_CASE_ID = re.compile(r"case_[0-9a-z]{26}")
_PAYMENT_ID = re.compile(r"pay_[0-9a-z]{26}")
_READ = problem_responses(401, 403, 404, 422, 503)
_WRITE = problem_responses(400, 401, 403, 404, 409, 413, 422, 503)
_Id = Annotated[str | None, Query(pattern=r"^[A-Za-z0-9_]{1,64}$")]


def case_id_of(case_id: Annotated[str, Path(max_length=100)]) -> str:
    """An id that is not one of ours is simply not found, whatever it looks like. Raises NotFound."""
    if _CASE_ID.fullmatch(case_id) is None:
        raise NotFound
    return case_id


def payment_id_of(payment_id: Annotated[str, Path(max_length=100)]) -> str:
    """Raises NotFound."""
    if _PAYMENT_ID.fullmatch(payment_id) is None:
        raise NotFound
    return payment_id


CaseId = Annotated[str, Depends(case_id_of)]
PaymentId = Annotated[str, Depends(payment_id_of)]


def case_filter(
    status: CaseStatus | None = None,
    unresolved: Annotated[bool | None, Query(description="true: open or awaiting approval; false: resolved")] = None,
    scenario: Scenario | None = None,
    kind: CaseKind | None = None,
    gateway: GatewayName | None = None,
    order_id: _Id = None,
    payment_id: _Id = None,
    file_id: _Id = None,
    owner: Annotated[Owner | None, Query()] = None,
) -> CaseFilter:
    return CaseFilter(status, unresolved, scenario, kind, gateway, order_id, payment_id, file_id, owner)


@router.get("/cases", responses={**problem_responses(401, 403, 422, 503)})
async def list_cases(
    context: UseCaseContext,
    _: Reader,
    filter_: Annotated[CaseFilter, Depends(case_filter)],
    cursor: Annotated[str | None, Query(pattern=r"^case_[0-9a-z]{26}$")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> CasePage:
    """Cases, newest first, without their evidence."""
    async with context.uow() as tx:
        found = await tx.cases.search(filter_, after=cursor, limit=limit + 1)
    now = context.clock.now()
    page = [CaseOut.of(case, now=now) for case in found[:limit]]
    return CasePage(data=page, next_cursor=page[-1].case_id if len(found) > limit else None)


@router.get("/cases/{case_id}", responses=_READ)
async def get_case(case_id: CaseId, context: UseCaseContext, _: Reader) -> CaseDetailOut:
    """One case: both sides, what was done, what was said."""
    return await _detail(case_id, context)


@router.post("/cases/{case_id}/resolve", responses=_WRITE)
async def resolve(case_id: CaseId, body: ResolveIn, context: UseCaseContext, writer: Writer) -> CaseDetailOut:
    """Decide about a case. Asking again for the same changes nothing.

    A refund or cancellation above SECOND_PERSON_ABOVE_MINOR takes two people: the first one's request waits
    (`awaiting_approval`), the same request of another one is carried out, any other action withdraws it.
    """
    wish = Wish(body.action, body.reason, writer.subject, body.payment_id)
    await resolve_case(case_id, wish, context)
    return await _detail(case_id, context)


@router.post("/cases/{case_id}/assign", responses=_WRITE)
async def assign(case_id: CaseId, body: AssignIn, context: UseCaseContext, writer: Writer) -> CaseDetailOut:
    """Say who looks after a case."""
    await assign_case(case_id, body.owner, by=writer.subject, context=context)
    return await _detail(case_id, context)


@router.post("/cases/{case_id}/notes", status_code=201, responses=_WRITE)
async def add_note(case_id: CaseId, body: NoteIn, context: UseCaseContext, writer: Writer) -> CaseDetailOut:
    """Note something. Notes are kept with the case and never changed: write no personal data into them."""
    await note_on_case(case_id, body.text, by=writer.subject, context=context)
    return await _detail(case_id, context)


@router.get("/payments/{payment_id}", responses=_READ)
async def get_payment_settlement(payment_id: PaymentId, context: UseCaseContext, _: Reader) -> PaymentSettlementOut:
    """A payment's settlement lines, with their files and payouts, and its cases. Empty where there are none yet."""
    now = context.clock.now()
    async with context.uow() as tx:
        lines = await tx.reports.lines_of_payment(payment_id, limit=MAX_LINES_OF_PAYMENT)
        cases = await tx.cases.search(CaseFilter(payment_id=payment_id), after=None, limit=200)
    return PaymentSettlementOut(
        payment_id=payment_id,
        lines=[SettledLineOut.of(line) for line in lines],
        cases=[CaseOut.of(case, now=now) for case in cases],
    )


async def _detail(case_id: str, context: Context) -> CaseDetailOut:
    async with context.uow() as tx:
        case = await tx.cases.get(case_id)
        if case is None:
            raise NotFound
        actions, notes = await tx.cases.actions_of(case_id), await tx.cases.notes_of(case_id)
    return CaseDetailOut.with_history(case, actions, notes, now=context.clock.now())
