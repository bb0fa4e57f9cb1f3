"""The FastAPI application that every service starts from: problems, correlation, limits, health, metrics, docs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastapi import APIRouter, FastAPI, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from shared.health import HealthCheck, check_all
from shared.metrics import exposition
from shared.ports import Ports
from shared.web.correlation import CorrelationMiddleware
from shared.web.docs import docs_router
from shared.web.problems import install_problem_handlers

DEFAULT_MAX_BODY_BYTES = 64 * 1024  # SEC-2


Shortcut = Callable[[Scope], ASGIApp | None]
"""Finds what answers a request without the framework, from its method and path alone; None: the framework does."""


class Application(FastAPI):
    """FastAPI, and in front of all its layers a shortcut for a path that has to be fast (ADR 0024).

    What a shortcut finds does for itself what the layers would have done: request id, headers, limits, metrics.
    """

    shortcut: Shortcut | None = None
    service = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.shortcut is not None and scope["type"] == "http":
            found = self.shortcut(scope)
            if found is not None:
                await found(scope, receive, send)
                return
        await super().__call__(scope, receive, send)


def create_app(
    *,
    service: str,
    title: str,
    description: str,
    ports: Ports,
    checks: Mapping[str, HealthCheck],
    routers: Sequence[APIRouter],
    cors_origins: Sequence[str] = (),
    max_body_bytes: int = DEFAULT_MAX_BODY_BYTES,
    state: Mapping[str, Any] | None = None,
    shortcut: Shortcut | None = None,
) -> Application:
    """``state`` becomes attributes of ``app.state``: the container that the routes' dependencies read."""
    app = Application(
        title=title,
        description=description,
        version="1",
        redirect_slashes=False,  # a redirected POST would lose a webhook's body
        openapi_url="/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    app.shortcut = shortcut
    app.service = service
    for name, value in (state or {}).items():
        setattr(app.state, name, value)
    install_problem_handlers(app)
    for router in routers:
        app.include_router(router)
    app.include_router(_operations_router(checks))
    app.include_router(docs_router(title=title))
    if cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(cors_origins),
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=[
                "authorization",
                "content-type",
                "idempotency-key",
                "x-order-secret",
                "x-request-id",
                "traceparent",
            ],
            expose_headers=["etag", "idempotent-replayed", "retry-after", "x-request-id"],
        )
    # FastAPI's own max_body_size would stand outside of everything, and its refusals would carry no request id.
    app.add_middleware(RequestBodyLimitMiddleware, max_body_size=max_body_bytes)
    app.add_middleware(CorrelationMiddleware, service=service, ports=ports)
    return app


def _operations_router(checks: Mapping[str, HealthCheck]) -> APIRouter:
    router = APIRouter(include_in_schema=False)

    @router.get("/healthz")
    async def alive() -> dict[str, str]:
        """The process runs and its event loop turns; nothing else."""
        return {"status": "ok"}

    @router.get("/readyz")
    async def ready() -> JSONResponse:
        components = await check_all(checks)
        missing = [component.name for component in components if not component.ok]
        is_ready = all(component.ok or not component.essential for component in components)
        status = "ok" if not missing else ("degraded" if is_ready else "not_ready")
        details = {component.name: component.detail for component in components}
        return JSONResponse(
            {"status": status, "missing": missing, "components": details}, status_code=200 if is_ready else 503
        )

    @router.get("/metrics")
    async def metrics() -> Response:
        return Response(exposition(), media_type=CONTENT_TYPE_LATEST)

    return router
