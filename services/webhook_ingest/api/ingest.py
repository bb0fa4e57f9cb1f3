"""Where gateways post: each check is cheaper than the next (SEC d6), and the commit comes before the 200."""

from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from services.webhook_ingest.api.dependencies import Edge, get_edge
from services.webhook_ingest.api.rate_limit import Allowance
from services.webhook_ingest.api.receiving import (
    check_media_type,
    check_size_claim,
    client_address,
    raw_delivery,
    read_body,
)
from services.webhook_ingest.api.schemas import Acknowledged
from services.webhook_ingest.domain.errors import MalformedDelivery, TooManyFailedDeliveries
from services.webhook_ingest.domain.models import Arrival
from services.webhook_ingest.signatures.registration import IngestGateway
from services.webhook_ingest.use_cases.accept_delivery import (
    RefusedFor,
    find_gateway,
    prepare_gateway,
    store_delivery,
    verify_delivery,
)
from services.webhook_ingest.use_cases.keep_reject import keep_reject
from services.webhook_ingest.use_cases.ports import AppendResult
from shared.correlation import current_correlation
from shared.errors import DomainError, InfrastructureError, PayrailError
from shared.metrics import WEBHOOKS
from shared.web.problems import error_response, problem_responses

log = structlog.get_logger()

router = APIRouter(tags=["webhooks"])

# The framework's own limit would turn our 413 into plain text and drop its headers; read_body bounds what is read.
_NO_FRAMEWORK_LIMIT = 1 << 62

EdgeDependency = Annotated[Edge, Depends(get_edge)]

_RATE_LIMIT_HEADERS = {
    f"{prefix}RateLimit-{name}": {"schema": {"type": "integer"}, "description": description}
    for prefix in ("", "X-")
    for name, description in (
        ("Limit", "failed deliveries per minute that are allowed from one address"),
        ("Remaining", "how many of them are left"),
        ("Reset", "seconds until the count starts again"),
    )
}
_ANY_BODY = {"schema": {"type": "string", "description": "the raw bytes, as the gateway signed them"}}
_ANY_JSON = {"schema": {"description": "the raw bytes, as the gateway signed them"}}
_DOCUMENTATION: dict[str, Any] = {
    "response_model": Acknowledged,
    "responses": {
        200: {"description": "Verified and durable, now or before", "headers": _RATE_LIMIT_HEADERS},
        **problem_responses(400, 401, 404, 413, 415, 429, 503),
    },
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": _ANY_JSON,
                "application/x-www-form-urlencoded": _ANY_BODY,
                "text/plain": _ANY_BODY,
            },
        }
    },
    "max_body_size": _NO_FRAMEWORK_LIMIT,
}


@router.post("/api/v1/webhooks/{gateway}", **_DOCUMENTATION)
async def receive_webhook(request: Request, edge: EdgeDependency, gateway: str) -> Response:
    """A delivery of a gateway. 200 means verified and durable: unknown payments and event types too."""
    return await _receive(request, edge, gateway, None)


@router.post("/api/v1/webhooks/{gateway}/{account}", **_DOCUMENTATION)
async def receive_webhook_of_account(request: Request, edge: EdgeDependency, gateway: str, account: str) -> Response:
    """A delivery for one of several accounts at the same gateway."""
    return await _receive(request, edge, gateway, account)


def _add_alias(path: str, gateway: str) -> None:
    async def receive_webhook_at_an_old_path(request: Request, edge: EdgeDependency) -> Response:
        return await _receive(request, edge, gateway, None)

    for spelling in (path, f"{path}/"):
        router.add_api_route(
            spelling,
            receive_webhook_at_an_old_path,
            methods=["POST"],
            include_in_schema=False,
            response_model=None,
            max_body_size=_NO_FRAMEWORK_LIMIT,
        )


# Kept for integrations that exist (design.md §3). `payment` is the generic gateway.
for _name, _gateway in (("payment", "generic"), ("stripe", "stripe"), ("paypal", "paypal")):
    _add_alias(f"/api/v1/order-payments/webhooks/{_name}", _gateway)
_add_alias("/api/webhooks/payment", "generic")


@router.post(
    "/api/v1/webhooks/{gateway}/", include_in_schema=False, response_model=None, max_body_size=_NO_FRAMEWORK_LIMIT
)
async def receive_webhook_with_a_slash(request: Request, edge: EdgeDependency, gateway: str) -> Response:
    return await _receive(request, edge, gateway, None)


async def _receive(request: Request, edge: Edge, gateway_name: str, account: str | None) -> Response:
    """Whatever happens, the answer says how many more failures this address may have."""
    address = client_address(request, edge.trusted_proxy_hops)
    try:
        response = await _take_in(request, edge, gateway_name, account, address)
    except ClientDisconnect:
        response = error_response(MalformedDelivery("the connection ended before the body did"))  # nobody reads this
    except PayrailError as error:
        response = _refusal(
            error, gateway_name if gateway_name in edge.gateways else "unknown", await edge.limiter.allowance(address)
        )
    response.headers.update((await edge.limiter.allowance(address)).headers())
    return response


async def _take_in(request: Request, edge: Edge, gateway_name: str, account: str | None, address: str) -> Response:
    gateway = find_gateway(edge.gateways, gateway_name, account)
    check_size_claim(request, edge.max_body_bytes)
    check_media_type(request)
    body = await read_body(request, edge.max_body_bytes)
    correlation = current_correlation()
    arrival = Arrival(
        gateway=gateway.name,
        account=account,
        raw=raw_delivery(request, body),
        content_type=request.headers.get("content-type", ""),
        remote_address=address,
        request_id=correlation.request_id if correlation else None,
        received_at=edge.ports.clock.now(),
    )
    return _acknowledgement(gateway, await _verify_and_store(edge, arrival, gateway))


async def _verify_and_store(edge: Edge, arrival: Arrival, gateway: IngestGateway) -> AppendResult:
    try:
        verification = verify_delivery(arrival, await prepare_gateway(arrival, gateway))
    except DomainError as error:
        # Only failures count and only they are held off: a genuine delivery from a busy address still comes through.
        if not await edge.limiter.count_failure(arrival.remote_address):
            raise TooManyFailedDeliveries from error
        reason = error.__cause__.reason.value if isinstance(error.__cause__, RefusedFor) else error.code
        if await edge.reject_budget.take(gateway.name):
            await keep_reject(arrival, gateway, reason, uow=edge.uow, ports=edge.ports)
        raise
    return await store_delivery(arrival, verification, gateway, uow=edge.uow, ports=edge.ports)


def _acknowledgement(gateway: IngestGateway, stored: AppendResult) -> Response:
    exact = gateway.acknowledgement
    if exact is not None:
        return Response(exact.body, media_type=exact.content_type)
    return JSONResponse(
        {"status": "duplicate" if stored.is_duplicate else "accepted", "delivery_id": stored.delivery_id}
    )


def _refusal(error: PayrailError, gateway_label: str, allowance: Allowance) -> Response:
    WEBHOOKS.labels(gateway_label, error.code).inc()
    if isinstance(error, InfrastructureError):
        log.warning("webhook_not_stored", gateway=gateway_label, code=error.code, cause=type(error.__cause__).__name__)
    response = error_response(error)
    if error.status == 401:
        response.headers["WWW-Authenticate"] = "Signature"  # a bearer token would not help
    if isinstance(error, TooManyFailedDeliveries):
        response.headers["Retry-After"] = str(max(1, allowance.reset_seconds))
    return response
