"""The outermost ASGI layer: request id, trace context, security headers, metrics, an access log line, no bare 500."""

from __future__ import annotations

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.correlation import Correlation, accept_request_id, child_traceparent, correlated
from shared.metrics import HTTP_REQUESTS, HTTP_SECONDS
from shared.ports import Ports
from shared.web.problems import body_too_large, internal_error

log = structlog.get_logger()

_SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
)
_QUIET_ROUTES = frozenset({"/healthz", "/readyz", "/metrics"})


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
        headers = dict(scope["headers"])
        request_id = accept_request_id(_text(headers.get(b"x-request-id"))) or self._ports.ids.new("req")
        traceparent = child_traceparent(_text(headers.get(b"traceparent")), self._ports.randomness)
        with correlated(Correlation(request_id, traceparent)):
            if scope["type"] == "websocket":
                await self._app(scope, receive, send)
            else:
                await self._http(scope, receive, send, request_id, traceparent)

    async def _http(self, scope: Scope, receive: Receive, send: Send, request_id: str, traceparent: str) -> None:
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
                added = [(b"x-request-id", request_id.encode()), (b"traceparent", traceparent.encode())]
                added += [header for header in _SECURITY_HEADERS if header[0] not in present]
                if b"cache-control" not in present:
                    added.append((b"cache-control", b"no-store"))
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
            self._record(scope, status, self._ports.clock.monotonic() - started)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = _route(scope)
        HTTP_REQUESTS.labels(self._service, scope["method"], route, status).inc()
        HTTP_SECONDS.labels(self._service, route).observe(seconds)
        if route not in _QUIET_ROUTES:
            log.info(
                "request", method=scope["method"], route=route, status=status, milliseconds=round(seconds * 1000, 1)
            )


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
