"""Captures, voids and refunds over HTTP. Every POST needs an Idempotency-Key: money must not move twice."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Header, Path, Request
from fastapi.responses import JSONResponse

from services.payment_service.api.dependencies import CapturesWriter, PaymentsReader, RefundsWriter, UseCaseContext
from services.payment_service.api.fields import Storable
from services.payment_service.api.money_schemas import (
    CaptureIn,
    CaptureOut,
    CapturePage,
    RefundIn,
    RefundOut,
    RefundPage,
    VoidIn,
    VoidOut,
)
from services.payment_service.domain.operations import Operation, OperationKind
from services.payment_service.use_cases.ports import Context
from services.payment_service.use_cases.request_operation import Asked, Wanted, request_operation
from shared.db.idempotency import IdempotencyClaim, StoredAnswer, check_key
from shared.errors import IdempotencyKeyMissing, NotFound
from shared.web.auth import Principal
from shared.web.duplicate_keys import refuse_duplicate_keys
from shared.web.idempotency import answer_once
from shared.web.problems import problem_responses

router = APIRouter(prefix="/api/v1", tags=["money"])

PaymentIdPath = Annotated[str, Path(max_length=100), Storable]
IdempotencyKey = Annotated[
    str | None,
    Header(alias="Idempotency-Key", description="16 to 64 letters, digits, - or _; required; answers are kept 30 days"),
]
_REPLAYED = {"Idempotent-Replayed": {"description": "true on a replayed answer", "schema": {"type": "string"}}}
_PROBLEMS = problem_responses(400, 401, 403, 404, 409, 413, 422, 503)
_READ = problem_responses(401, 403, 404, 422, 503)
_LATER = (
    "The gateway answers later, or has not answered: read the resource at `Location`, or wait for its event."
    " The same key replays this answer as it was"
)

Out = TypeVar("Out", CaptureOut, VoidOut, RefundOut)


@router.post(
    "/payments/{payment_id}/captures",
    status_code=201,
    response_model=CaptureOut,
    responses={201: {"headers": _REPLAYED}, 202: {"model": CaptureOut, "description": _LATER}, **_PROBLEMS},
    dependencies=[Depends(refuse_duplicate_keys)],
)
async def capture(
    payment_id: PaymentIdPath,
    body: CaptureIn,
    request: Request,
    context: UseCaseContext,
    caller: CapturesWriter,
    idempotency_key: IdempotencyKey = None,
) -> JSONResponse:
    """Take held money: all of it, or a part; several parts where the gateway can. 201 once it is final."""
    amount = body.amount.to_money() if body.amount else None
    wanted = Wanted(OperationKind.CAPTURE, amount, is_final=body.final)
    return await _once(request, context, caller, idempotency_key, payment_id, wanted, body, CaptureOut)


@router.post(
    "/payments/{payment_id}/void",
    status_code=201,
    response_model=VoidOut,
    responses={201: {"headers": _REPLAYED}, 202: {"model": VoidOut, "description": _LATER}, **_PROBLEMS},
    dependencies=[Depends(refuse_duplicate_keys)],
)
async def void(
    payment_id: PaymentIdPath,
    body: VoidIn,
    request: Request,
    context: UseCaseContext,
    caller: CapturesWriter,
    idempotency_key: IdempotencyKey = None,
) -> JSONResponse:
    """Release what is held and not captured."""
    return await _once(request, context, caller, idempotency_key, payment_id, Wanted(OperationKind.VOID), body, VoidOut)


@router.post(
    "/payments/{payment_id}/refunds",
    status_code=201,
    response_model=RefundOut,
    responses={201: {"headers": _REPLAYED}, 202: {"model": RefundOut, "description": _LATER}, **_PROBLEMS},
    dependencies=[Depends(refuse_duplicate_keys)],
)
async def refund(
    payment_id: PaymentIdPath,
    body: RefundIn,
    request: Request,
    context: UseCaseContext,
    caller: RefundsWriter,
    idempotency_key: IdempotencyKey = None,
) -> JSONResponse:
    """Give captured money back: all of it, or a part, as often as there is some left. 201 once it is final."""
    amount = body.amount.to_money() if body.amount else None
    wanted = Wanted(OperationKind.REFUND, amount, override=body.override)
    return await _once(request, context, caller, idempotency_key, payment_id, wanted, body, RefundOut)


@router.get("/refunds/{refund_id}", responses=_READ)
async def get_refund(refund_id: PaymentIdPath, context: UseCaseContext, _: PaymentsReader) -> RefundOut:
    return RefundOut.of(await _operation(refund_id, OperationKind.REFUND, context))


@router.get("/captures/{capture_id}", responses=_READ)
async def get_capture(capture_id: PaymentIdPath, context: UseCaseContext, _: PaymentsReader) -> CaptureOut:
    return CaptureOut.of(await _operation(capture_id, OperationKind.CAPTURE, context))


@router.get("/voids/{void_id}", responses=_READ)
async def get_void(void_id: PaymentIdPath, context: UseCaseContext, _: PaymentsReader) -> VoidOut:
    return VoidOut.of(await _operation(void_id, OperationKind.VOID, context))


@router.get("/payments/{payment_id}/refunds", responses=_READ)
async def list_refunds(payment_id: PaymentIdPath, context: UseCaseContext, _: PaymentsReader) -> RefundPage:
    """All of the payment's refunds, oldest first, those made at the gateway included."""
    return RefundPage(data=[RefundOut.of(o) for o in await _of_payment(payment_id, OperationKind.REFUND, context)])


@router.get("/payments/{payment_id}/captures", responses=_READ)
async def list_captures(payment_id: PaymentIdPath, context: UseCaseContext, _: PaymentsReader) -> CapturePage:
    """The payment's captures, oldest first: who, when, how much."""
    return CapturePage(data=[CaptureOut.of(o) for o in await _of_payment(payment_id, OperationKind.CAPTURE, context)])


async def _once(
    request: Request,
    context: Context,
    caller: Principal,
    key: str | None,
    payment_id: str,
    wanted: Wanted,
    body: CaptureIn | VoidIn | RefundIn,
    shown_as: type[Out],
) -> JSONResponse:
    """Run it once per caller and key, and replay its answer. A crash in between is taken up by the same key."""
    if key is None:
        raise IdempotencyKeyMissing
    route = f"POST /api/v1/payments/{{payment_id}}/{wanted.kind}"
    digest = hashlib.sha256("\0".join((caller.subject, route, payment_id, check_key(key))).encode()).hexdigest()
    asked = Asked(
        actor=caller.subject,
        request_key=digest,
        merchant_reference=getattr(body, "reference", None),
        reason=getattr(body, "reason", None),
    )

    async def operation(_claim: IdempotencyClaim | None) -> StoredAnswer:
        made = await request_operation(payment_id, wanted, asked, context)
        shown: Any = shown_as.of(made).model_dump(mode="json")
        return StoredAnswer(202 if made.is_unsettled else 201, shown, {"Location": _location(made)})

    return await answer_once(
        request.app.state.idempotency,
        key=key,
        caller=caller.subject,
        route=route,
        request=[payment_id, body.model_dump(mode="json")],
        operation=operation,
    )


def _location(operation: Operation) -> str:
    return f"/api/v1/{operation.kind}s/{operation.operation_id}"


async def _operation(operation_id: str, kind: OperationKind, context: Context) -> Operation:
    async with context.uow() as tx:
        operation = await tx.operations.get(operation_id)
    if operation is None or operation.kind is not kind:
        raise NotFound
    return operation


async def _of_payment(payment_id: str, kind: OperationKind, context: Context) -> list[Operation]:
    async with context.uow() as tx:
        if await tx.payments.get(payment_id) is None:
            raise NotFound
        operations = await tx.operations.of_payment(payment_id)
    return [operation for operation in operations if operation.kind is kind]
