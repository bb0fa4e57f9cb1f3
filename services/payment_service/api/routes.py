"""payment_service's routes: parse, call one use case, answer."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import AwareDatetime

from services.payment_service.api.dependencies import PaymentsReader, PaymentsWriter, ReturnBudget, UseCaseContext
from services.payment_service.api.fields import GatewayName, OptionalStorable, Storable
from services.payment_service.api.money_schemas import CaptureOut, DisputeOut, RefundOut, VoidOut
from services.payment_service.api.schemas import (
    ClosePaymentIn,
    CreatePaymentIn,
    GatewayList,
    GatewayOut,
    ListedPageOut,
    PaymentDetailsOut,
    PaymentOut,
    PaymentPage,
    SyncedPaymentOut,
    fact_out,
)
from services.payment_service.domain.models import FactSource, PaymentStatus
from services.payment_service.domain.operations import OperationKind
from services.payment_service.gateways.registry import Gateways
from services.payment_service.use_cases.close_payment import close_payment
from services.payment_service.use_cases.create_payment import create_payment
from services.payment_service.use_cases.follow_return import follow_return
from services.payment_service.use_cases.list_at_gateway import list_at_gateway
from services.payment_service.use_cases.ports import PaymentFilter
from services.payment_service.use_cases.sync_payment import sync_payment
from shared.correlation import current_correlation
from shared.errors import NotFound
from shared.web.duplicate_keys import refuse_duplicate_keys
from shared.web.problems import problem_responses

router = APIRouter(prefix="/api/v1", tags=["payments"])

# Deliberately loose: an id that is not one of ours is simply not found (404), whatever it looks like.
PaymentIdPath = Annotated[str, Path(max_length=100), Storable]

_AUTH = problem_responses(401, 403)
_GATEWAY = problem_responses(502, 503)


@router.get("/gateways", responses=problem_responses(503))
async def list_gateways(request: Request) -> GatewayList:
    """The gateways that are enabled, and whether a shopper can pay with them just now (``available``)."""
    gateways: Gateways = request.app.state.gateways
    return GatewayList(
        data=[
            GatewayOut.of([each.adapter.facts for each in accounts], health) for accounts, health in gateways.offers()
        ]
    )


@router.get("/gateways/{gateway}/payments", responses={**_AUTH, **problem_responses(422), **_GATEWAY})
async def list_at_the_gateway(
    gateway: GatewayName,
    context: UseCaseContext,
    _: PaymentsReader,
    since: AwareDatetime,
    until: AwareDatetime,
    account: Annotated[str | None, Query(max_length=64), OptionalStorable] = None,
    cursor: Annotated[str | None, Query(max_length=500), OptionalStorable] = None,
) -> ListedPageOut:
    """What the gateway lists for `[since, until)`, with our payment beside each; `payment_id` null: we know none."""
    page = await list_at_gateway(gateway, since, until, context, account=account, cursor=cursor)
    return ListedPageOut.of(page)


@router.post(
    "/payments",
    status_code=201,
    responses={200: {"model": PaymentOut}, **_AUTH, **problem_responses(400, 409, 413, 422), **_GATEWAY},
    dependencies=[Depends(refuse_duplicate_keys)],
)
async def open_payment(
    body: CreatePaymentIn, context: UseCaseContext, _: PaymentsWriter, response: Response
) -> PaymentOut:
    """Record a payment and open its session at the gateway. Idempotent by ``payment_id``; for order_service."""
    opened = await create_payment(body.to_command(), context)
    response.status_code = 201 if opened.is_new else 200
    return PaymentOut.of(opened.payment, opened.attempt)


@router.get("/payments", responses={**_AUTH, **problem_responses(422, 503)})
async def list_payments(
    context: UseCaseContext,
    _: PaymentsReader,
    order_id: Annotated[str | None, Query(max_length=100), OptionalStorable] = None,
    status: PaymentStatus | None = None,
    gateway: GatewayName | None = None,
    gateway_reference: Annotated[str | None, Query(max_length=255), OptionalStorable] = None,
    final: Annotated[bool | None, Query(description="false: those that are not final yet")] = None,
    cursor: Annotated[str | None, Query(max_length=100), OptionalStorable] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> PaymentPage:
    """Payments, newest first."""
    filter_ = PaymentFilter(order_id, status, gateway, gateway_reference, final)
    async with context.uow() as tx:
        payments = await tx.payments.search(filter_, after=cursor, limit=limit + 1)
        page = payments[:limit]
        shown = [PaymentOut.of(payment, await tx.attempts.latest(payment.payment_id)) for payment in page]
    return PaymentPage(data=shown, next_cursor=page[-1].payment_id if len(payments) > limit else None)


@router.get("/payments/{payment_id}", responses={**_AUTH, **problem_responses(404, 422, 503)})
async def get_payment(payment_id: PaymentIdPath, context: UseCaseContext, _: PaymentsReader) -> PaymentDetailsOut:
    """One payment with everything that was learnt about it."""
    async with context.uow() as tx:
        payment = await tx.payments.get(payment_id)
        if payment is None:
            raise NotFound
        attempt = await tx.attempts.latest(payment_id)
        facts = await tx.facts.all(payment_id)
        operations = await tx.operations.of_payment(payment_id)
        disputes = await tx.disputes.of_payment(payment_id)
    return PaymentDetailsOut(
        **PaymentOut.of(payment, attempt).model_dump(),
        facts=[fact_out(fact) for fact in facts],
        captures=[CaptureOut.of(o) for o in operations if o.kind is OperationKind.CAPTURE],
        voids=[VoidOut.of(o) for o in operations if o.kind is OperationKind.VOID],
        refunds=[RefundOut.of(o) for o in operations if o.kind is OperationKind.REFUND],
        disputes=[DisputeOut.of(dispute) for dispute in disputes],
    )


@router.post("/payments/{payment_id}/sync", responses={**_AUTH, **problem_responses(404, 422), **_GATEWAY})
async def sync(
    payment_id: PaymentIdPath,
    context: UseCaseContext,
    _: PaymentsWriter,
    source: Annotated[FactSource, Query(description="who asks: operator or sweep")] = FactSource.OPERATOR,
) -> SyncedPaymentOut:
    """Ask the gateway's Payment Details API now."""
    correlation = current_correlation()
    asked_by = correlation.request_id if correlation else None
    synced = await sync_payment(payment_id, source, context, asked_by=asked_by)
    async with context.uow() as tx:
        attempt = await tx.attempts.latest(payment_id)
    return SyncedPaymentOut(**PaymentOut.of(synced.payment, attempt).model_dump(), changed=synced.changed)


@router.post("/payments/{payment_id}/close", responses={**_AUTH, **problem_responses(400, 404, 409, 422), **_GATEWAY})
async def close(
    payment_id: PaymentIdPath, body: ClosePaymentIn, context: UseCaseContext, _: PaymentsWriter
) -> PaymentOut:
    """End an unpaid payment: close its page at the gateway, or learn that it was paid after all. For order_service."""
    payment = await close_payment(payment_id, body.reason, context)
    async with context.uow() as tx:
        attempt = await tx.attempts.latest(payment_id)
    return PaymentOut.of(payment, attempt)


_RETURN_RESPONSES = {
    303: {"description": "On to the order's success, failure or cancel URL, with order_id and status"},
    **problem_responses(404, 422, 503),
}


@router.get(
    "/payments/{payment_id}/return", status_code=303, response_class=RedirectResponse, responses=_RETURN_RESPONSES
)
async def return_from_gateway(
    payment_id: PaymentIdPath,
    context: UseCaseContext,
    budget: ReturnBudget,
    came_from: Annotated[str | None, Query(alias="from", max_length=40)] = None,
) -> RedirectResponse:
    """Where gateways send the browser back. Nothing that it carries is believed: the gateway is asked."""
    url = await follow_return(payment_id, from_cancel=came_from == "cancel", budget_seconds=budget, context=context)
    return RedirectResponse(url, status_code=303)


@router.post(
    "/payments/{payment_id}/return", status_code=303, response_class=RedirectResponse, responses=_RETURN_RESPONSES
)
async def return_by_form_post(
    payment_id: PaymentIdPath,
    context: UseCaseContext,
    budget: ReturnBudget,
    came_from: Annotated[str | None, Query(alias="from", max_length=40)] = None,
) -> RedirectResponse:
    """As GET; some gateways post a form, which is not even read."""
    url = await follow_return(payment_id, from_cancel=came_from == "cancel", budget_seconds=budget, context=context)
    return RedirectResponse(url, status_code=303)
