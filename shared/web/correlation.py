"""The outermost ASGI layer: request id, trace context, security headers, metrics, an access log line, no bare 500."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.correlation import Correlation, accept_request_id, begin_work, child_traceparent, end_work
from shared.metrics import HTTP_REQUESTS, HTTP_SECONDS, series
from shared.ports import Ports
from shared.web.problems import body_too_large, internal_error

log = structlog.get_logger()
_level = logging.getLogger(__name__)

SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
)
NO_STORE = (b"cache-control", b"no-store")
_QUIET_ROUTES = frozenset({"/healthz", "/readyz", "/metrics"})
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT"})


class CorrelationMiddleware:
    """Pure ASGI, because BaseHTTPMiddleware breaks context variables and cancellation (field notes)."""

    def __init__(self, app: ASGIApp, *, service: str, ports: Ports) -> None:
        self._app = app
        self._service = service
        self._ports = ports

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        correlation = correlation_of(dict(scope["headers"]), self._ports)
        token = begin_work(correlation)
        try:
            if scope["type"] == "websocket":
                await self._app(scope, receive, send)
            else:
                await self._http(scope, receive, send, correlation)
        finally:
            end_work(token)

    async def _http(self, scope: Scope, receive: Receive, send: Send, correlation: Correlation) -> None:
        started = self._ports.clock.monotonic()
        status = 0
        replaced = False

        async def send_with_headers(message: Message) -> None:
            nonlocal status, replaced
            if replaced:
                return  # the rest of the answer that the problem has taken the place of
            if _is_bare_refusal(message):
                await body_too_large()(scope, receive, send_with_headers)
                replaced = True
                return
            if message["type"] == "http.response.start":
                status = message["status"]
                present = {name.lower() for name, _ in message["headers"]}
                added = [*identifying_headers(correlation)]
                added += [header for header in (*SECURITY_HEADERS, NO_STORE) if header[0] not in present]
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except Exception:
            log.exception("unhandled_error", method=scope["method"], route=_route(scope))
            if status:
                raise
            await internal_error()(scope, receive, send_with_headers)
        finally:
            record_request(
                self._service, scope["method"], _route(scope), status, self._ports.clock.monotonic() - started
            )


def correlation_of(headers: Mapping[bytes, bytes], ports: Ports) -> Correlation:
    """The caller's request id and trace where they are fit to be used, else new ones."""
    return Correlation(
        accept_request_id(_text(headers.get(b"x-request-id"))) or ports.ids.new("req"),
        child_traceparent(_text(headers.get(b"traceparent")), ports.randomness),
    )


def identifying_headers(correlation: Correlation) -> tuple[tuple[bytes, bytes], ...]:
    return (
        (b"x-request-id", correlation.request_id.encode()),
        (b"traceparent", correlation.traceparent.encode()),
    )


def record_request(service: str, method: str, route: str, status: int, seconds: float) -> None:
    """Count an answered request, and write its line."""
    method = known_method(method)
    series(HTTP_REQUESTS, service, method, route, status).inc()
    series(HTTP_SECONDS, service, route).observe(seconds)
    # Asked of the standard library's logger, which remembers the answer: structlog takes 2 µs to write nothing.
    if route not in _QUIET_ROUTES and _level.isEnabledFor(logging.INFO):
        log.info("request", method=method, route=route, status=status, milliseconds=round(seconds * 1000, 1))


def known_method(method: str) -> str:
    """As a label: it is the client's text."""
    return method if method in _METHODS else "other"


def _is_bare_refusal(message: Message) -> bool:
    """Starlette's body limit answers a too large Content-Length itself, in plain text."""
    if message["type"] != "http.response.start" or message["status"] != 413:
        return False
    return any(
        name.lower() == b"content-type" and value.startswith(b"text/plain") for name, value in message["headers"]
    )


def _route(scope: Scope) -> str:
    """The route's pattern, never the path: labels stay few, and a path may carry what a log must not."""
    route = scope.get("route")
    return getattr(route, "path", "unmatched")


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")
