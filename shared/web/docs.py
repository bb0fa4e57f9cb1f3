"""The API's documentation page, without anything from other hosts: Swagger UI comes out of a wheel."""

from __future__ import annotations

import importlib.util
from html import escape
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse, HTMLResponse, Response

from shared.errors import NotFound

_ASSETS = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css"}
_START = """SwaggerUIBundle({
  url: document.currentScript.dataset.openapi, dom_id: "#swagger-ui", deepLinking: true, persistAuthorization: true,
});
"""
_CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def docs_page(*, title: str, openapi_url: str) -> HTMLResponse:
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/docs/assets/swagger-ui.css"></head>
<body><div id="swagger-ui"></div>
<script src="/docs/assets/swagger-ui-bundle.js"></script>
<script src="/docs/assets/start.js" data-openapi="{escape(openapi_url)}"></script></body></html>"""
    return HTMLResponse(page, headers={"Content-Security-Policy": _CONTENT_SECURITY_POLICY})


def docs_asset(name: str) -> Response:
    if name == "start.js":
        return Response(_START, media_type="text/javascript")
    if name not in _ASSETS:
        raise NotFound
    return FileResponse(
        _assets_folder() / name, media_type=_ASSETS[name], headers={"Cache-Control": "public, max-age=86400"}
    )


def docs_router(*, title: str) -> APIRouter:
    router = APIRouter(include_in_schema=False)

    @router.get("/docs")
    async def docs() -> HTMLResponse:
        return docs_page(title=title, openapi_url="/openapi.json")

    @router.get("/docs/assets/{name}")
    async def asset(name: str) -> Response:
        return docs_asset(name)

    return router


def _assets_folder() -> Path:
    # Found without importing it: the package is used for the files that it carries.
    found = importlib.util.find_spec("fastapi_offline")
    assert found is not None, "fastapi-offline is among the dependencies"
    assert found.submodule_search_locations, "fastapi-offline is a package"
    return Path(next(iter(found.submodule_search_locations))) / "static"
