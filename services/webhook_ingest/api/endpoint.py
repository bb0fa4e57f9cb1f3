"""Taking in one delivery, from ASGI's scope to the answer's bytes, without the framework (ADR 0024).

Each check is cheaper than the next (SEC d6), and the commit comes before the 200. What the framework's layers do for
other routes (request id, trace, security headers, metrics, the line in the log, no bare 500) is done here by hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from services.webhook_ingest.api.dependencies import Edge
from services.webhook_ingest.api.rate_limit import Allowance
from services.webhook_ingest.api.receiving import (
    check_media_type,
    check_size_claim,
    client_address,
    raw_delivery,
    read_body,
)
from services.webhook_ingest.domain.errors import MalformedDelivery, TooManyFailedDeliveries
from services.webhook_ingest.domain.models import Arrival
from services.webhook_ingest.signatures.registration import IngestGateway
from services.webhook_ingest.use_cases.accept_delivery import (
    RefusedFor,
    find_gateway,
    is_prepared,
    prepare_gateway,
    store_delivery,
    verify_delivery,
)
from services.webhook_ingest.use_cases.keep_reject import keep_reject
from services.webhook_ingest.use_cases.ports import AppendResult
from shared.correlation import Correlation, begin_work, end_work
from shared.errors import DomainError, InfrastructureError, PayrailError
from shared.metrics import WEBHOOKS, series
from shared.web.answering import ANSWER, DirectAnswer
from shared.web.correlation import NO_STORE, SECURITY_HEADERS, correlation_of, identifying_headers, record_request
from shared.web.problems import error_response, internal_error

log = structlog.get_logger()

PREFIX = "/api/v1/webhooks/"
ROUTE = PREFIX + "{gateway}"
ROUTE_WITH_SLASH = PREFIX + "{gateway}/"
ROUTE_OF_ACCOUNT = PREFIX + "{gateway}/{account}"

# Kept for integrations that exist (design.md §3). `payment` is the generic gateway.
ALIASES: Mapping[str, str] = {
    "/api/v1/order-payments/webhooks/payment": "generic",
    "/api/v1/order-payments/webhooks/stripe": "stripe",
    "/api/v1/order-payments/webhooks/paypal": "paypal",
    "/api/webhooks/payment": "generic",
}

Headers = tuple[tuple[bytes, bytes], ...]
_JSON: Headers = ((b"content-type", b"application/json"),)
_COMMON: Headers = (*SECURITY_HEADERS, NO_STORE)


@dataclass(slots=True, unsafe_hash=True)  # never changed; but frozen, it takes twice as long to make, once a request
class Answer:
    """What is said to a gateway, but for the headers that every answer has."""

    status: int
    body: bytes
    headers: Headers
    allowance: Allowance


class WebhookEndpoint:
    """One address that gateways post to. ``route`` is its pattern, for metrics and logs."""

    def __init__(self, edge: Edge, service: str, route: str, gateway: str, account: str | None = None) -> None:
        self._edge = edge
        self._service = service
        self._route = route
        self._gateway = gateway
        self._account = account

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        ports = self._edge.ports
        started = ports.clock.monotonic()
        correlation = correlation_of(dict(scope["headers"]), ports)
        token = begin_work(correlation)
        status = 0
        try:
            try:
                answer = await self.answer(scope, receive, correlation)
            except Exception:
                log.exception("unhandled_error", method=scope["method"], route=self._route)
                status = 500
                await _send_problem_of_ours(send, correlation)
            else:
                status = answer.status
                await _send(scope, send, answer, correlation)
        finally:
            record_request(self._service, scope["method"], self._route, status, ports.clock.monotonic() - started)
            end_work(token)

    async def answer(self, scope: Scope, receive: Receive, correlation: Correlation) -> Answer:
        """Whatever happens, the answer says how many more failures this address may have."""
        edge = self._edge
        address = client_address(scope, edge.trusted_proxy_hops)
        try:
            gateway = find_gateway(edge.gateways, self._gateway, self._account)
            stored = await _take_in(edge, gateway, self._account, address, scope, receive, correlation)
        except ClientDisconnect:  # nobody reads this
            return await self._refusal(MalformedDelivery("the connection ended before the body did"), address)
        except PayrailError as error:
            self._note(error)
            return await self._refusal(error, address)
        return _acknowledgement(
            gateway, stored, edge.limiter.untouched(address) or await edge.limiter.allowance(address)
        )

    def _note(self, error: PayrailError) -> None:
        gateway = self._gateway if self._gateway in self._edge.gateways else "unknown"
        series(WEBHOOKS, gateway, error.code).inc()
        if isinstance(error, InfrastructureError):
            log.warning("webhook_not_stored", gateway=gateway, code=error.code, cause=type(error.__cause__).__name__)

    async def _refusal(self, error: PayrailError, address: str) -> Answer:
        response = error_response(error)
        allowance = await self._edge.limiter.allowance(address)
        if error.status == 401:
            response.headers["WWW-Authenticate"] = "Signature"  # a bearer token would not help
        if isinstance(error, TooManyFailedDeliveries):
            response.headers["Retry-After"] = str(max(1, allowance.reset_seconds))
        headers = tuple(header for header in response.raw_headers if header[0] != b"content-length")
        return Answer(error.status, bytes(response.body), headers, allowance)


class WebhookAddresses:
    """The shortcut past the framework (shared.web.app): what answers a POST to each path that gateways know."""

    def __init__(self, edge: Edge, service: str, *, is_cors: bool) -> None:
        self._edge = edge
        self._service = service
        self._is_cors = is_cors
        self._known = {path: self._endpoint(path, gateway) for path, gateway in _with_slashes(ALIASES).items()}
        for gateway in edge.gateways:  # only these: whatever anybody posts to must not be remembered
            self._known[PREFIX + gateway] = self._endpoint(ROUTE, gateway)
            self._known[f"{PREFIX}{gateway}/"] = self._endpoint(ROUTE_WITH_SLASH, gateway)

    def __call__(self, scope: Scope) -> ASGIApp | None:
        """None for what is the framework's: other methods and paths, and whatever a browser's page posts."""
        if scope["method"] != "POST" or scope.get("root_path"):
            return None
        if self._is_cors and any(name == b"origin" for name, _ in scope["headers"]):
            return None
        path: str = scope["path"]
        return self._known.get(path) or self._other(path)

    def _other(self, path: str) -> WebhookEndpoint | None:
        if not path.startswith(PREFIX):
            return None
        gateway, slash, account = path[len(PREFIX) :].partition("/")
        if not gateway or "/" in account:
            return None
        if account:
            return self._endpoint(ROUTE_OF_ACCOUNT, gateway, account)
        return self._endpoint(ROUTE_WITH_SLASH if slash else ROUTE, gateway)

    def _endpoint(self, route: str, gateway: str, account: str | None = None) -> WebhookEndpoint:
        return WebhookEndpoint(self._edge, self._service, route, gateway, account)


def _with_slashes(paths: Mapping[str, str]) -> Mapping[str, str]:
    return {spelling: gateway for path, gateway in paths.items() for spelling in (path, f"{path}/")}


async def _take_in(
    edge: Edge,
    gateway: IngestGateway,
    account: str | None,
    address: str,
    scope: Scope,
    receive: Receive,
    correlation: Correlation,
) -> AppendResult:
    raw_headers = scope["headers"]
    headers = dict(raw_headers)
    check_size_claim(headers, edge.max_body_bytes)
    check_media_type(raw_headers)
    body = await read_body(receive, edge.max_body_bytes)
    arrival = Arrival(
        gateway=gateway.name,
        account=account,
        raw=raw_delivery(scope, body),
        content_type=headers.get(b"content-type", b"").decode("latin-1"),
        remote_address=address,
        request_id=correlation.request_id,
        received_at=edge.ports.clock.now(),
        traceparent=correlation.traceparent,
    )
    try:
        ready = gateway if is_prepared(gateway, arrival) else await prepare_gateway(arrival, gateway)
        verification = verify_delivery(arrival, ready)
    except DomainError as error:
        await _count_failure(edge, arrival, gateway, error)
        raise
    return await store_delivery(arrival, verification, gateway, store=edge.store, ports=edge.ports)


async def _count_failure(edge: Edge, arrival: Arrival, gateway: IngestGateway, error: DomainError) -> None:
    """Only failures count and only they are held off: a genuine delivery from a busy address still comes through.
    Raises TooManyFailedDeliveries."""
    if not await edge.limiter.count_failure(arrival.remote_address):
        raise TooManyFailedDeliveries from error
    reason = error.__cause__.reason.value if isinstance(error.__cause__, RefusedFor) else error.code
    if await edge.reject_budget.take(gateway.name):
        await keep_reject(arrival, gateway, reason, uow=edge.uow, ports=edge.ports)


def _acknowledgement(gateway: IngestGateway, stored: AppendResult, allowance: Allowance) -> Answer:
    exact = gateway.acknowledgement
    if exact is not None:
        return Answer(200, exact.body, ((b"content-type", exact.content_type.encode("latin-1")),), allowance)
    word = "duplicate" if stored.is_duplicate else "accepted"
    return Answer(200, f'{{"status":"{word}","delivery_id":"{stored.delivery_id}"}}'.encode(), _JSON, allowance)


async def _send(scope: Scope, send: Send, answer: Answer, correlation: Correlation) -> None:
    length = b"%d" % len(answer.body)
    direct: DirectAnswer | None = scope.get("extensions", {}).get(ANSWER)
    if direct is not None and answer.status == 200:
        head = b"content-length: %b\r\ncontent-type: %b\r\nx-request-id: %b\r\ntraceparent: %b\r\n%b%b" % (
            length,
            answer.headers[0][1],
            correlation.request_id.encode(),
            correlation.traceparent.encode(),
            answer.allowance.lines,
            _COMMON_LINES,
        )
        if direct(200, head, answer.body):
            return
    headers = [
        (b"content-length", length),
        *answer.headers,
        *answer.allowance.raw_headers,
        *identifying_headers(correlation),
        *_COMMON,
    ]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


async def _send_problem_of_ours(send: Send, correlation: Correlation) -> None:
    response = internal_error()
    headers = [*response.raw_headers, *identifying_headers(correlation), *_COMMON]
    await send({"type": "http.response.start", "status": 500, "headers": headers})
    await send({"type": "http.response.body", "body": bytes(response.body)})


def header_lines(headers: Headers) -> bytes:
    return b"".join([name + b": " + value + b"\r\n" for name, value in headers])


_COMMON_LINES = header_lines(_COMMON)
