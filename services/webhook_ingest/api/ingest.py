"""The webhook routes as the framework knows them: their entries in OpenAPI, and what answers where the shortcut past
the framework does not (endpoint.py): a browser's page that posts, and a server that gives the path another root."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

from services.webhook_ingest.api.dependencies import Edge, get_edge
from services.webhook_ingest.api.endpoint import ALIASES, ROUTE, ROUTE_OF_ACCOUNT, ROUTE_WITH_SLASH, WebhookEndpoint
from services.webhook_ingest.api.schemas import Acknowledged
from shared.correlation import current_correlation
from shared.web.problems import problem_responses

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
_UNDOCUMENTED: dict[str, Any] = {
    "include_in_schema": False,
    "response_model": None,
    "max_body_size": _NO_FRAMEWORK_LIMIT,
}


@router.post(ROUTE, **_DOCUMENTATION)
async def receive_webhook(request: Request, edge: EdgeDependency, gateway: str) -> Response:
    """A delivery of a gateway. 200 means verified and durable: unknown payments and event types too."""
    return await _receive(request, edge, gateway, None)


@router.post(ROUTE_OF_ACCOUNT, **_DOCUMENTATION)
async def receive_webhook_of_account(request: Request, edge: EdgeDependency, gateway: str, account: str) -> Response:
    """A delivery for one of several accounts at the same gateway."""
    return await _receive(request, edge, gateway, account)


def _add_alias(path: str, gateway: str) -> None:
    async def receive_webhook_at_an_old_path(request: Request, edge: EdgeDependency) -> Response:
        return await _receive(request, edge, gateway, None)

    for spelling in (path, f"{path}/"):
        router.add_api_route(spelling, receive_webhook_at_an_old_path, methods=["POST"], **_UNDOCUMENTED)


for _path, _gateway in ALIASES.items():
    _add_alias(_path, _gateway)


@router.post(ROUTE_WITH_SLASH, **_UNDOCUMENTED)
async def receive_webhook_with_a_slash(request: Request, edge: EdgeDependency, gateway: str) -> Response:
    return await _receive(request, edge, gateway, None)


async def _receive(request: Request, edge: Edge, gateway: str, account: str | None) -> Response:
    """The same answer; the framework's layers add what every answer has."""
    correlation = current_correlation()
    assert correlation is not None, "CorrelationMiddleware is outermost"
    endpoint = WebhookEndpoint(edge, "", "", gateway, account)
    answer = await endpoint.answer(request.scope, request.receive, correlation)
    response = Response(answer.body, status_code=answer.status)
    response.raw_headers += [*answer.headers, *answer.allowance.raw_headers]
    return response
