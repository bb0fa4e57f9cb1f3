"""``GET /api/v1/exports/orders``: what changed in a window, a JSON document a line (shared/contracts/exports.py)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Annotated

import structlog
from fastapi import APIRouter, Depends, Query
from fastapi.responses import StreamingResponse

from services.order_service.api.dependencies import Services
from services.order_service.use_cases.export_orders import PAGE, ExportWindow, export_orders
from services.order_service.use_cases.ports import ExportedPaymentRow, ExportedRow
from shared.contracts.envelope import MoneyData
from shared.contracts.exports import NDJSON, EndOfExport, ExportedOrder, ExportedOrderPayment
from shared.errors import DatabaseUnavailable, InvalidRequest
from shared.web.auth import require_scope
from shared.web.moments import MomentIn
from shared.web.problems import problem_responses

log = structlog.get_logger()

exports_router = APIRouter(prefix="/api/v1/exports", tags=["exports"])


@exports_router.get(
    "/orders",
    response_class=StreamingResponse,
    responses={
        200: {"description": "A document a line; the last one is `end`", "content": {NDJSON: {}}},
        **problem_responses(401, 403, 422, 503),
    },
    dependencies=[Depends(require_scope("orders:read"))],
)
async def get_orders_export(
    services: Services,
    updated_since: Annotated[MomentIn | None, Query(description="changed then or later")] = None,
    updated_before: Annotated[MomentIn | None, Query(description="changed before")] = None,
) -> StreamingResponse:
    """Every order that changed in the window, oldest change first: `{"order": {…}}` a line.

    Only a stream that ends in `{"end": {"count": n}}` is whole. An order that changes meanwhile may come twice, and the
    later line counts. Let the windows of two exports overlap by a few minutes: `updated_at` is set before the commit.
    """
    window = ExportWindow(updated_since, updated_before)
    if window.since is not None and window.before is not None and window.since >= window.before:
        raise InvalidRequest("updated_since is not before updated_before")
    pages = export_orders(window, services.deps, page_size=PAGE, is_stopping=lambda: services.watch.is_stopping)
    first = await anext(pages, None)  # a database that is away is an answer, and no stream that ends at once
    return StreamingResponse(_lines(first, pages), media_type=NDJSON, headers={"X-Accel-Buffering": "no"})


async def _lines(
    page: Sequence[ExportedRow] | None, pages: AsyncGenerator[Sequence[ExportedRow], None]
) -> AsyncIterator[bytes]:
    """A chunk a page. The end line is missing where the database or the process went away in between."""
    count = 0
    try:
        while page is not None:
            count += len(page)
            yield b"".join(b'{"order":%b}\n' % _document(row).model_dump_json().encode() for row in page)
            if len(page) < PAGE:
                yield b'{"end":%b}\n' % EndOfExport(count=count).model_dump_json().encode()
                return
            page = await anext(pages, None)
    except DatabaseUnavailable:
        pass
    log.warning("export_broke_off", what="orders", lines=count)


def _document(row: ExportedRow) -> ExportedOrder:
    return ExportedOrder(
        order_id=row.order_id,
        status=row.status.value,
        payment_status=row.payment_status.value,
        attention=row.attention.value if row.attention else None,
        total=MoneyData(amount_minor=row.total.amount_minor, currency=row.total.currency),
        confirmed_by=row.confirmed_by,
        version=row.version,
        created_at=row.created_at,
        updated_at=row.updated_at,
        payments=[_payment_document(payment) for payment in row.payments],
    )


def _payment_document(payment: ExportedPaymentRow) -> ExportedOrderPayment:
    return ExportedOrderPayment(
        payment_id=payment.payment_id,
        status=payment.status.value,
        version=payment.version,
        amount_captured=payment.amount_captured,
        amount_refunded=payment.amount_refunded,
        resolution=payment.resolution.value if payment.resolution else None,
    )
