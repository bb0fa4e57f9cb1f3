"""The one ASGI application of the embedded mode: the services by path prefix, the storefront and the pages around
it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from deploy.catalogue import SERVICES
from services.order_service.api.mailbox import build_mailbox_router
from shared.errors import NotFound
from shared.health import check_all
from shared.web.docs import docs_asset, docs_page
from shared.web.problems import error_response, problem_response

LOCAL = Path(__file__).resolve().parent
CONTRACTS = LOCAL.parents[1] / "docs" / "contracts"

_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data: blob:; "
    "font-src 'self'; base-uri 'none'; frame-ancestors 'none'; form-action "
)
PAGE_POLICY = _PAGE_POLICY + "'none'"
# Some gateways take the shopper by a form that the shop posts (next_action form_post), each at hosts of its own, and
# browsers hold the redirects after it to this list too. A sandbox on this machine may be on another port.
STOREFRONT_POLICY = _PAGE_POLICY + "'self' https: http://127.0.0.1:* http://localhost:*"
_PAGES = {"/": "storefront/index.html", "/mailbox": "mailbox.html", "/docs": "docs_index.html"}
_TYPES = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".json": "application/json",
}


class EmbeddedApp:
    """Routes by path; each service stays the application that it is when it is served alone."""

    def __init__(self, containers: Mapping[str, Any]) -> None:
        self._containers = containers
        self._apps: dict[str, FastAPI] = {
            name: SERVICES[name].create_application(container) for name, container in containers.items()
        }
        # Only here are mails read by a page: elsewhere they go out over SMTP.
        self._apps["order-service"].include_router(build_mailbox_router(containers["order-service"].uow))
        prefixes = [(prefix, name) for name in containers for prefix in SERVICES[name].routes]
        self._prefixes = sorted(prefixes, key=lambda each: len(each[0]), reverse=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _accept_lifespan(receive, send)
            return
        path: str = scope["path"]
        app = self._service_for(path)
        if app is not None:
            await app(scope, receive, send)
        elif scope["type"] == "http":
            response = await self._own_page(path, Request(scope, receive))
            response.headers.setdefault("X-Content-Type-Options", "nosniff")
            await response(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    def _service_for(self, path: str) -> ASGIApp | None:
        if path.startswith("/mailbox/"):
            return self._apps.get("order-service")
        for prefix, name in self._prefixes:
            if path == prefix or path.startswith(prefix + "/"):
                return self._apps[name]
        return None

    async def _own_page(self, path: str, request: Request) -> Response:
        if path == "/metrics":
            return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
        if request.method not in ("GET", "HEAD"):
            if path in _PAGES:
                return problem_response(405, "method_not_allowed", "There is nothing to do here.")
            return error_response(NotFound("There is no such page."))
        if path in _PAGES:
            return _file(LOCAL / _PAGES[path], policy=STOREFRONT_POLICY if path == "/" else PAGE_POLICY)
        if path == "/healthz":
            return JSONResponse({"status": "ok"})
        if path == "/readyz":
            return await self._ready()
        if path.startswith("/storefront/"):
            return _static(LOCAL / "storefront", path.removeprefix("/storefront/"))
        if path.startswith("/contracts/"):
            return _static(CONTRACTS, path.removeprefix("/contracts/"))
        return self._documentation(path)

    def _documentation(self, path: str) -> Response:
        try:
            if path.startswith("/docs/assets/"):
                return docs_asset(path.removeprefix("/docs/assets/"))
        except NotFound as error:
            return error_response(error)
        name = path.rpartition("/")[2].removesuffix(".json")
        if path == f"/docs/{name}" and name in self._apps:
            return docs_page(title=SERVICES[name].title, openapi_url=f"/openapi/{name}.json")
        if path == f"/openapi/{name}.json" and name in self._apps:
            return JSONResponse(self._apps[name].openapi())
        return error_response(NotFound("There is no such page."))

    async def _ready(self) -> Response:
        components: dict[str, str] = {}
        missing: list[str] = []
        is_ready = True
        for name, container in self._containers.items():
            for component in await check_all(container.checks):
                label = f"{name}/{component.name}"
                components[label] = component.detail
                if not component.ok:
                    missing.append(label)
                    is_ready &= not component.essential
        status = "ok" if not missing else ("degraded" if is_ready else "not_ready")
        body = {"status": status, "missing": missing, "components": components}
        return JSONResponse(body, status_code=200 if is_ready else 503)


def _static(folder: Path, name: str) -> Response:
    nothing = error_response(NotFound("There is no such page."))
    try:
        path = (folder / name).resolve()
        is_ours = path.is_relative_to(folder.resolve()) and path.is_file() and path.suffix in _TYPES
    except (OSError, ValueError):  # a name that no file system takes: too long, or with a NUL
        return nothing
    return _file(path) if is_ours else nothing


def _file(path: Path, *, policy: str = PAGE_POLICY) -> Response:
    headers = {
        "Content-Security-Policy": policy,
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }
    return FileResponse(path, media_type=_TYPES[path.suffix], headers=headers)


async def _accept_lifespan(receive: Receive, send: Send) -> None:
    """The parts are started and stopped by ``deploy.local.dev``; uvicorn only wants an answer."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
