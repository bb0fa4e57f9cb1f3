"""order_service over HTTP: parse, call one use case, answer. No decisions here."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse

from services.order_service.api.dependencies import (
    Caller,
    IdempotencyKey,
    OrderId,
    Services,
    limited,
)
from services.order_service.api.schemas import (
    SKU_PATTERN,
    CreatedOrderDocument,
    OrderDocument,
    OrderList,
    OrderRequest,
    PayRequest,
    PaySessionDocument,
    ProductDocument,
    ProductList,
    ProductRequest,
    StreamTicketDocument,
)
from services.order_service.domain.errors import ProductNotFound
from services.order_service.use_cases.access import Access
from services.order_service.use_cases.cancel_order import CancelOrder, cancel_order
from services.order_service.use_cases.create_order import CreatedOrder, create_order
from services.order_service.use_cases.maintain_products import list_products, put_product, read_product, retire_product
from services.order_service.use_cases.pay_order import PayOrder, PaySession, pay_order
from services.order_service.use_cases.ports import OrderFilter, OrderView
from services.order_service.use_cases.read_invoice import read_invoice
from services.order_service.use_cases.read_orders import (
    MAX_WAIT_SECONDS,
    list_orders,
    read_order,
    require_readable,
    wait_for_order,
)
from services.order_service.use_cases.stream_tickets import issue_stream_ticket
from shared.contracts.order_events import AttentionName, OrderPaymentStatusName, OrderStatusName
from shared.db.idempotency import IdempotencyClaim, StoredAnswer
from shared.web.auth import require_scope
from shared.web.duplicate_keys import refuse_duplicate_keys
from shared.web.idempotency import answer_once
from shared.web.problems import problem_responses

router = APIRouter(prefix="/api/v1")

ONCE = {"Idempotent-Replayed": {"description": "true on a replayed answer", "schema": {"type": "string"}}}
ORDER_CURSOR = "^ord_[0-9a-z]{26}$"
PublicSku = Annotated[str, Path(max_length=200)]


@router.get("/products", tags=["products"], responses=problem_responses(422, 503))
async def get_products(
    services: Services,
    limit: Annotated[int, Query(ge=1, le=200)] = 100,
    cursor: Annotated[str | None, Query(pattern=SKU_PATTERN)] = None,
) -> ProductList:
    """What is for sale, by SKU."""
    found = await list_products(services.deps, after_sku=cursor, limit=limit + 1)
    page = found[:limit]
    return ProductList(
        data=[ProductDocument.of(product) for product in page],
        next_cursor=page[-1].sku if len(found) > limit else None,
    )


@router.get("/products/{sku}", tags=["products"], responses=problem_responses(404, 422, 503))
async def get_product(services: Services, sku: PublicSku) -> ProductDocument:
    if "\x00" in sku:
        raise ProductNotFound
    return ProductDocument.of(await read_product(sku, services.deps))


@router.put(
    "/products/{sku}",
    tags=["products"],
    responses=problem_responses(400, 401, 403, 409, 413, 422, 503),
    dependencies=[Depends(require_scope("ops:write")), Depends(refuse_duplicate_keys)],
)
async def put_product_(
    services: Services, sku: Annotated[str, Path(pattern=SKU_PATTERN)], body: ProductRequest
) -> ProductDocument:
    """Create or change a product. Orders keep the price that they were made with."""
    return ProductDocument.of(await put_product(body.as_product(sku), services.deps))


@router.delete(
    "/products/{sku}",
    tags=["products"],
    status_code=204,
    responses=problem_responses(401, 403, 404, 422, 503),
    dependencies=[Depends(require_scope("ops:write"))],
)
async def delete_product(services: Services, sku: Annotated[str, Path(pattern=SKU_PATTERN)]) -> None:
    """Take a product out of the catalogue. Orders that hold it stand."""
    await retire_product(sku, services.deps)


@router.post(
    "/orders",
    tags=["orders"],
    status_code=201,
    response_model=CreatedOrderDocument,
    responses={201: {"headers": ONCE}, **problem_responses(400, 401, 409, 413, 422, 429, 503)},
    dependencies=[limited("orders"), Depends(refuse_duplicate_keys)],
)
async def post_order(
    services: Services, access: Caller, body: OrderRequest, idempotency_key: IdempotencyKey = None
) -> JSONResponse:
    """Create an order at the catalogue's prices and hold its stock until `expires_at`."""
    # The back office orders for others; a customer's own token makes the order theirs.
    subject = access.subject if not access.writes_all else None

    async def operation(claim: IdempotencyClaim | None) -> StoredAnswer:
        async def remember(tx: Any, created: CreatedOrder) -> None:
            if claim is not None:
                await services.idempotency.complete(claim, _created_answer(created), connection=tx.connection)

        return _created_answer(
            await create_order(body.as_command(customer_subject=subject), services.deps, remember=remember)
        )

    return await answer_once(
        services.idempotency,
        key=idempotency_key,
        caller=_caller_name(access),
        route="POST /api/v1/orders",
        request=body.model_dump(mode="json"),
        operation=operation,
    )


@router.get("/orders", tags=["orders"], responses=problem_responses(401, 422, 503))
async def get_orders(
    services: Services,
    access: Caller,
    status: OrderStatusName | None = None,
    payment_status: OrderPaymentStatusName | None = None,
    attention: AttentionName | None = None,
    customer_email: Annotated[str | None, Query(max_length=254, pattern=r"^[^\x00]+$")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[str | None, Query(pattern=ORDER_CURSOR)] = None,
) -> OrderList:
    """Newest first: every order for the back office, their own for a customer."""
    criteria = OrderFilter(
        customer_email=customer_email,
        status=status,
        payment_status=payment_status,
        attention=attention,
        before_id=cursor,
        limit=limit + 1,
    )
    found = await list_orders(criteria, access, services.deps)
    page = found[:limit]
    return OrderList(
        data=[OrderDocument.of(view) for view in page],
        next_cursor=page[-1].order.id if len(found) > limit else None,
    )


@router.get(
    "/orders/{order_id}",
    tags=["orders"],
    response_model=OrderDocument,
    responses={
        304: {"description": "Not changed since the version in If-None-Match"},
        **problem_responses(401, 404, 422, 503),
    },
)
async def get_order(
    services: Services,
    access: Caller,
    order_id: OrderId,
    wait: Annotated[int, Query(ge=0, le=MAX_WAIT_SECONDS, description="seconds to wait for a change")] = 0,
    since_version: Annotated[int, Query(ge=0, le=2**62, description="the version that the caller has")] = 0,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """The order; with `wait` and `since_version` as soon as it is another version."""
    view = (
        await wait_for_order(
            order_id, access, services.deps, services.watch, since_version=since_version, wait_seconds=wait
        )
        if wait
        else await read_order(order_id, access, services.deps)
    )
    if if_none_match is not None and _matches(if_none_match, _etag(view)):
        return Response(status_code=304, headers={"ETag": _etag(view)})
    return _order_response(view)


@router.post(
    "/orders/{order_id}/pay",
    tags=["orders"],
    response_model=PaySessionDocument,
    responses={200: {"headers": ONCE}, **problem_responses(400, 401, 404, 409, 413, 422, 429, 502, 503)},
    dependencies=[limited("pay"), Depends(refuse_duplicate_keys)],
)
async def post_pay(
    services: Services, access: Caller, order_id: OrderId, body: PayRequest, idempotency_key: IdempotencyKey = None
) -> JSONResponse:
    """Open a hosted checkout at a gateway. While it is open, the call answers with the same session."""
    command = PayOrder(order_id, access, body.gateway, body.as_terms())
    if idempotency_key is not None:
        await require_readable(order_id, access, services.deps)  # a stored answer is for who may see the order (PY20)

    async def operation(claim: IdempotencyClaim | None) -> StoredAnswer:
        async def remember(tx: Any, session: PaySession) -> None:
            if claim is not None:
                await services.idempotency.complete(claim, _pay_answer(session), connection=tx.connection)

        return _pay_answer(await pay_order(command, services.deps, remember=remember))

    return await answer_once(
        services.idempotency,
        key=idempotency_key,
        caller=_caller_name(access),
        route=f"POST /api/v1/orders/{order_id}/pay",
        request=body.model_dump(mode="json"),
        operation=operation,
    )


@router.post(
    "/orders/{order_id}/cancel",
    tags=["orders"],
    response_model=OrderDocument,
    responses=problem_responses(401, 404, 409, 413, 422, 502, 503),
)
async def post_cancel(services: Services, access: Caller, order_id: OrderId) -> Response:
    """Cancel an unpaid order: its session at the gateway is closed, its stock goes back."""
    return _order_response(await cancel_order(CancelOrder(order_id, access), services.deps))


@router.post(
    "/orders/{order_id}/stream-tickets",
    tags=["streams"],
    status_code=201,
    responses=problem_responses(401, 404, 413, 422, 503),
)
async def post_stream_ticket(services: Services, access: Caller, order_id: OrderId) -> StreamTicketDocument:
    """A ticket for one stream or WebSocket of this order, good for 60 seconds and one use."""
    return StreamTicketDocument.of(await issue_stream_ticket(order_id, access, services.deps))


@router.get(
    "/orders/{order_id}/invoice",
    tags=["orders"],
    response_class=Response,
    responses={
        200: {"description": "The invoice", "content": {"application/pdf": {}, "text/html": {}}},
        **problem_responses(401, 404, 409, 422, 503),
    },
)
async def get_invoice(services: Services, access: Caller, order_id: OrderId, request: Request) -> Response:
    """PDF; HTML where `Accept` prefers it."""
    record = await read_invoice(order_id, access, services.deps)
    if preferred_invoice_type(request.headers.get("accept", "*/*")) == "text/html":
        policy = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
        return HTMLResponse(services.invoices.as_html(record), headers=policy)
    pdf = await services.invoices.as_pdf(record)
    headers = {"Content-Disposition": f'inline; filename="{record.label}.pdf"'}
    return Response(pdf, media_type="application/pdf", headers=headers)


def preferred_invoice_type(accept: str) -> Literal["application/pdf", "text/html"]:
    """PDF unless HTML is asked for before it: browsers that open the link ask for HTML first and get the PDF viewer
    only by asking for PDF."""
    for part in accept.split(","):
        media_type = part.partition(";")[0].strip().lower()
        if media_type == "text/html":
            return "text/html"
        if media_type in ("application/pdf", "*/*", "application/*"):
            return "application/pdf"
    return "application/pdf"


def _created_answer(created: CreatedOrder) -> StoredAnswer:
    document = CreatedOrderDocument.of_created(created)
    headers = {"Location": f"/api/v1/orders/{document.id}", "ETag": _etag(created.view)}
    return StoredAnswer(201, document.model_dump(mode="json"), headers)


def _pay_answer(session: PaySession) -> StoredAnswer:
    return StoredAnswer(200, PaySessionDocument.of(session).model_dump(mode="json"), {})


def _order_response(view: OrderView) -> JSONResponse:
    return JSONResponse(OrderDocument.of(view).model_dump(mode="json"), headers={"ETag": _etag(view)})


def _etag(view: OrderView) -> str:
    return f'W/"{view.order.version}"'


def _matches(if_none_match: str, etag: str) -> bool:
    """RFC 9110 §13.1.2: weak comparison, a list, or any."""
    opaque = etag.removeprefix("W/")
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return opaque in tags or "*" in tags


def _caller_name(access: Access) -> str:
    """Whose idempotency key it is: one caller's key never finds another's answer (failure PY20)."""
    return f"subject:{access.subject}" if access.subject is not None else "guest"
